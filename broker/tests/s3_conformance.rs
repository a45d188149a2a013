//! The S3 adapter passes the suite that every adapter passes, on real servers: one could hide the other's quirks.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

#[path = "support/s3.rs"]
mod s3;

use mpegflow_broker::conformance;
use mpegflow_broker::objects::s3::Probe;
use s3::{Kind, Server};

#[tokio::test(flavor = "multi_thread")]
async fn versitygw_is_objects() {
    let server = Server::start(Kind::Versitygw);
    conformance::objects::all(&server.objects(), &server.objects()).await;
    assert_eq!(server.kept(), Vec::<std::path::PathBuf>::new(), "nothing is left over");
}

#[tokio::test(flavor = "multi_thread")]
async fn minio_is_objects() {
    let server = Server::start(Kind::Minio);
    conformance::objects::all(&server.objects(), &server.objects()).await;
    assert_eq!(server.kept(), Vec::<std::path::PathBuf>::new(), "nothing is left over");
}

#[tokio::test(flavor = "multi_thread")]
async fn both_are_objects_over_tls_with_an_authority_of_their_own() {
    for kind in Kind::ALL {
        let server = Server::start_tls(kind);
        conformance::objects::all(&server.objects(), &server.objects()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_says_what_storage_does_and_leaves_nothing() {
    for kind in Kind::ALL {
        let server = Server::start(kind);
        assert_eq!(server.objects().probe().await.unwrap(), Probe { conditional_writes: true }, "{kind:?}");
        assert_eq!(server.kept(), Vec::<std::path::PathBuf>::new(), "{kind:?}");
        server.credentials("nobody", "nothing");
        assert!(server.objects().probe().await.is_err(), "{kind:?}");
    }
}
