//! A full disk, by a double that runs out of room.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod common;

use async_trait::async_trait;
use common::*;
use mpegflow_broker::objects::local::LocalObjects;
use mpegflow_broker::objects::{
    Appended, Body, Bytestream, Cursor, Key, ObjectError, Objects, Owners, PartHead,
};
use mpegflow_protocol::api::{JobState, Upload};
use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::ids::{AttemptId, JobId, TenantId, UploadId};
use mpegflow_protocol::worker::Fail;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

struct Filling {
    inner: LocalObjects,
    full: Arc<AtomicBool>,
}

impl Filling {
    fn room(&self) -> Result<(), ObjectError> {
        if self.full.load(Ordering::Relaxed) { Err(ObjectError::Full) } else { Ok(()) }
    }
}

#[async_trait]
impl Objects for Filling {
    async fn append(
        &self,
        key: &Key,
        offset: u64,
        body: &mut Body,
        some: u64,
        most: u64,
    ) -> Result<Appended, ObjectError> {
        self.room()?;
        self.inner.append(key, offset, body, some, most).await
    }
    async fn put_part(&self, key: &Key, head: &PartHead, body: Body) -> Result<(), ObjectError> {
        self.room()?;
        self.inner.put_part(key, head, body).await
    }
    async fn finish_upload(&self, tenant: TenantId, upload: UploadId, size: u64) -> Result<(), ObjectError> {
        self.inner.finish_upload(tenant, upload, size).await
    }
    async fn finish(&self, key: &Key, parts: &[PartHead]) -> Result<(), ObjectError> {
        self.inner.finish(key, parts).await
    }
    async fn read(&self, key: &Key, range: Range<u64>) -> Result<Bytestream, ObjectError> {
        self.inner.read(key, range).await
    }
    async fn remove_upload(&self, tenant: TenantId, upload: UploadId) -> Result<(), ObjectError> {
        self.inner.remove_upload(tenant, upload).await
    }
    async fn remove_attempt(
        &self,
        tenant: TenantId,
        job: JobId,
        attempt: AttemptId,
    ) -> Result<(), ObjectError> {
        self.inner.remove_attempt(tenant, job, attempt).await
    }
    async fn owners(&self, from: &Cursor, most: u32) -> Result<Owners, ObjectError> {
        self.inner.owners(from, most).await
    }
    async fn ping(&self) -> Result<(), ObjectError> {
        self.inner.ping().await
    }
}

#[tokio::test]
async fn a_full_disk_is_said_and_survived() {
    let dir = tempfile::tempdir().unwrap();
    let full = Arc::new(AtomicBool::new(false));
    let inner = LocalObjects::open(dir.path().join("objects")).await.unwrap();
    let objects: Arc<dyn Objects> = Arc::new(Filling { inner, full: Arc::clone(&full) });
    let world = world_with(|c| c.objects = Some(objects)).await;
    let tenant = world.tenant("a").await;
    let worker = world.worker().await;

    let input: Upload = tenant.call("POST", "/v1/uploads", r#"{"size":1}"#).await.json();
    let path = format!("/v1/uploads/{}?offset=0", input.id);
    full.store(true, Ordering::Relaxed);
    let answer = tenant.call("PUT", &path, "x").await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (507, "storage_full"));
    full.store(false, Ordering::Relaxed);
    assert_eq!(tenant.call("PUT", &path, "x").await.status, 200, "it goes on when there is room");

    let job = tenant.call("POST", "/v1/jobs", spec(&input)).await.json();
    let lease = worker.lease().await;
    assert_eq!(worker.finish(&lease).await.status, 204);
    let lease = worker.lease().await;
    full.store(true, Ordering::Relaxed);
    assert_eq!(worker.put(&lease, 0, 0, b"x").await.status, 507);
    let fail = Fail { failure: Failure::new(FailureCode::StorageFull, "no room"), evidence: None };
    assert_eq!(worker.end(&lease, "fail", serde_json::to_vec(&fail).unwrap()).await.status, 204);
    let shown = show(&tenant, &job).await;
    assert_eq!(shown.state, JobState::Running, "it is tried again");
    assert_eq!(shown.tasks.last().unwrap().last_failure.as_ref().unwrap().code, FailureCode::StorageFull);
    full.store(false, Ordering::Relaxed);
    // The retry waits a second.
    let lease = worker.lease().await;
    assert_eq!(worker.finish(&lease).await.status, 204);
    assert_eq!(worker.run().await, 2);
    assert_eq!(show(&tenant, &job).await.state, JobState::Succeeded);
}

#[tokio::test]
async fn a_file_system_without_room_gives_the_same_answer() {
    // A real one of 1 MiB. Only root can mount it; for anyone else the test above has to do.
    let dir = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
        .arg(dir.path())
        .status()
        .is_ok_and(|s| s.success());
    if !mounted {
        use std::os::unix::fs::MetadataExt as _;
        let root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
        eprintln!("NOT TESTED: a tmpfs of 1 MiB could not be mounted");
        assert!(!root, "root has to be able to mount a tmpfs here; without it a full disk is not tested");
        return;
    }
    let objects: Arc<dyn Objects> = Arc::new(LocalObjects::open(dir.path().join("objects")).await.unwrap());
    let world = world_with(|c| c.objects = Some(objects)).await;
    let tenant = world.tenant("a").await;
    let input: Upload = tenant.call("POST", "/v1/uploads", r#"{"size":4194304}"#).await.json();
    let answer = tenant.call("PUT", &format!("/v1/uploads/{}?offset=0", input.id), vec![1; 4 << 20]).await;
    let kept: u64 = files(dir.path()).iter().map(|f| std::fs::metadata(f).unwrap().len()).sum();
    let _ = std::process::Command::new("umount").arg("-l").arg(dir.path()).status();
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (507, "storage_full"));
    assert_eq!(kept, 0, "nothing of it is kept");
}
