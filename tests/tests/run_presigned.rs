//! A presigned pool with the real programs: the worker reads and writes at storage itself, over TLS, and reaches the broker and that
//! storage only.

#[path = "../../broker/tests/support/s3.rs"]
mod s3;

use mpegflow_broker::embedded::{self, Config};
use mpegflow_broker::enrol::Account;
use mpegflow_broker::store::identity::PoolRecord;
use mpegflow_protocol::ids::PoolName;
use mpegflow_tests::system::{Client, Process};
use mpegflow_tests::{media, program};
use s3::{Kind, Server};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(300);

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_of_a_presigned_pool_does_a_whole_job_at_storage_and_no_url_is_in_any_log() {
    let clip = media::clip(20, 1280, 720);
    let size = clip.metadata().unwrap().len();
    for kind in Kind::ALL {
        let server = Server::start_tls(kind);
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::new(dir.path().join("data"));
        config.objects = Some(Arc::new(server.objects()));
        // Shorter than an encode takes: each range and part comes with a URL of its own.
        config.url_life = Duration::from_secs(2);
        let broker = embedded::start(config).await.unwrap();
        let storage = vec![server.address.to_string().parse().unwrap()];
        let pool = PoolRecord {
            name: PoolName::default(),
            account: Account { namespace: "media".into(), name: "default-worker".into() },
            uid: "u".into(),
            generation: 1,
            tenant: None,
            max_workers: 1,
            closed: false,
            policy: None,
            storage,
        };
        broker.engine().store().put_pool(&pool).await.unwrap();
        broker.engine().look_at_cluster().await.unwrap();
        let tenant = broker.ensure_tenant("a").await.unwrap();
        let key = broker.create_api_key(tenant, "test").await.unwrap();

        let join = dir.path().join("join.json");
        broker.write_join_file(&PoolName::default(), &join).await.unwrap();
        let mut file: serde_json::Value = serde_json::from_slice(&std::fs::read(&join).unwrap()).unwrap();
        file["storage"] = serde_json::json!([server.address.to_string()]);
        std::fs::write(&join, file.to_string()).unwrap();
        let mut worker = Command::new(program("mpegflow-worker"));
        worker.arg("--join").arg(&join).arg("--scratch").arg(dir.path()).args(["--log", "json"]);
        worker.env("MPEGFLOW_LOG", "trace");
        let worker = Process::start(&mut worker, dir.path().join("worker.log"));

        let client = Client { url: format!("http://{}", broker.public_addr()), key };
        let job = tokio::task::spawn_blocking(move || {
            let id = client.submit(&media::clip(20, 1280, 720), &[]);
            client.ended(&id, LIMIT)
        });
        let job = job.await.unwrap();
        assert_eq!(job["state"], "succeeded", "{kind:?}: {job}");
        let outputs: u64 =
            job["outputs"].as_array().unwrap().iter().map(|output| output["size"].as_u64().unwrap()).sum();

        // What went through the broker is what is too short for a URL.
        let counters = broker.engine().counters();
        let read = counters.bytes_to_workers.load(Ordering::Relaxed);
        let written = counters.bytes_from_workers.load(Ordering::Relaxed);
        println!(
            "{kind:?}: input {size}, outputs {outputs}; through the broker {read} to and {written} from workers"
        );
        assert!(read < size && written < outputs, "{kind:?}: {read} of {size}, {written} of {outputs}");
        let log = std::fs::read_to_string(&worker.log).unwrap();
        for said in ["a range comes from storage", "a part went to storage"] {
            assert!(log.contains(said), "{kind:?}: {said}");
        }
        let confined =
            log.lines().find(|line| line.contains("this process may connect to the ports of the broker"));
        if let Some(line) = confined {
            for port in [broker.worker_addr().port(), server.address.port()] {
                assert!(line.contains(&port.to_string()), "{line}");
            }
        } else {
            assert!(log.contains("this kernel does not confine this process in full"), "{kind:?}");
        }
        for secret in ["X-Amz-", "Signature=", "uploadId="] {
            assert!(!log.contains(secret), "{kind:?}: `{secret}` is in the worker's log");
        }
        assert!(!job.to_string().contains("X-Amz-"), "{job}");
        drop(worker);
        broker.shutdown().await;
    }
}
