//! The embedded adapters pass the suite that every adapter passes.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use mpegflow_broker::conformance;
use mpegflow_broker::objects::local::LocalObjects;
use mpegflow_broker::queue::MemoryQueue;
use mpegflow_broker::store::sqlite::SqliteStore;
use std::sync::Arc;

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_is_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&dir.path().join("broker.db")).await.unwrap();
    conformance::store::all(Arc::new(store)).await;
}

#[tokio::test]
async fn memory_is_a_queue() {
    conformance::queue::all(&MemoryQueue::default()).await;
}

#[tokio::test]
async fn a_local_folder_is_objects() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("objects");
    let (one, other) =
        (LocalObjects::open(root.clone()).await.unwrap(), LocalObjects::open(root).await.unwrap());
    conformance::objects::all(&one, &other).await;
}
