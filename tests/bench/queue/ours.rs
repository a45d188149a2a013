//! Our side: the engine over PostgreSQL and Redis, without HTTP in between, as the peers are libraries in their callers.

use mpegflow_broker::capability::Capabilities;
use mpegflow_broker::engine::{Engine, LeaseAnswer, Parts, Quotas, Rate};
use mpegflow_broker::model::Time;
use mpegflow_broker::objects::local::LocalObjects;
use mpegflow_broker::plan::{Settings, graph};
use mpegflow_broker::queue::redis::{RedisConfig, RedisQueue};
use mpegflow_broker::secret::fresh_id;
use mpegflow_broker::store::postgres::{DatabaseConfig, DatabaseUrl, PostgresStore, UrlSource};
use mpegflow_broker::store::{NewJob, NewUpload, Store as _};
use mpegflow_broker::webhooks::Policy;
use mpegflow_broker::webhooks::secret::Secrets;
use mpegflow_protocol::evidence::{Evidence, Observed, SelfReport};
use mpegflow_protocol::ids::{JobId, PoolName, TaskId, UploadId, WorkerId};
use mpegflow_protocol::job::JobSpec;
use mpegflow_protocol::media::{MediaInfo, Ratio, StreamInfo, StreamKind, VideoInfo};
use mpegflow_protocol::task::{ProbeResult, TaskResult};
use mpegflow_protocol::worker::Complete;
use sqlx::{Connection as _, Executor as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub(crate) struct Ours {
    engine: Arc<Engine>,
    workers: Vec<WorkerId>,
    _objects: tempfile::TempDir,
}

impl Ours {
    /// An engine and as many workers as the peers have, with `jobs` jobs queued.
    pub(crate) async fn new(database_url: &str, redis: RedisConfig, workers: usize, jobs: usize) -> Self {
        let url = UrlSource::Plain(DatabaseUrl::parse(database_url).unwrap());
        let database = DatabaseConfig { connections: 20, ..DatabaseConfig::new(url) };
        let store = PostgresStore::open(database).await.unwrap();
        let clock = Arc::new(store.clock());
        let tenant = store.ensure_tenant("bench", fresh_id(), Time(0)).await.unwrap();
        let upload: UploadId = fresh_id();
        let record = mpegflow_broker::model::UploadRecord {
            id: upload,
            tenant,
            size: 1,
            received: 0,
            name: None,
            metadata: None,
            quarantined: false,
            created_at: Time(0),
            touched_at: Time(0),
        };
        let new = NewUpload { upload: record, max_unfinished: 10, max_bytes: 10, answer: Vec::new() };
        store.create_upload(&new, None).await.unwrap();
        store.advance_upload(upload, 0, 1, Time(0)).await.unwrap();
        let spec = format!(r#"{{"version":1,"input":{{"upload":"{upload}"}},"preset":"web"}}"#);
        let spec = JobSpec::parse(spec.as_bytes()).unwrap();
        let (job, task): (JobId, TaskId) = (fresh_id(), fresh_id());
        let new = NewJob {
            id: job,
            tenant,
            task: graph::probe(&spec, upload, 1, Settings::default()),
            spec,
            path: None,
            upload,
            object_size: None,
            task_id: task,
            pool: PoolName::default(),
            max_unfinished: 10,
            answer: Vec::new(),
        };
        store.submit(&new, None, Time(0)).await.unwrap();
        copy_job(database_url, job, task, jobs).await;
        let mut ids = Vec::new();
        for _ in 0..workers {
            let id = fresh_id();
            store.add_worker(id, &PoolName::default(), Time(i64::MAX), Time(0)).await.unwrap();
            ids.push(id);
        }
        let objects = tempfile::tempdir().unwrap();
        let engine = Arc::new(Engine::new(Parts {
            store: Arc::new(store),
            queue: Arc::new(RedisQueue::new(redis)),
            objects: Arc::new(LocalObjects::open(objects.path().join("objects")).await.unwrap()),
            clock,
            capabilities: Capabilities::new(&[7; 32]),
            settings: Settings::default(),
            lease: Duration::from_secs(600),
            quotas: Quotas::default(),
            meters: Arc::default(),
            rate: Rate::default(),
            webhook_secrets: Secrets::new(&[7; 32]),
            webhook_policy: Policy::default(),
        }));
        let repaired = engine.reconcile().await.unwrap();
        assert_eq!(repaired.added as usize, jobs + 1);
        Self { engine, workers: ids, _objects: objects }
    }
}

impl Ours {
    /// Seconds for `cycles` leases with their completions, each of which also plans and queues its job's next task.
    pub(crate) async fn cycles(&self, cycles: usize) -> f64 {
        let left = Arc::new(AtomicUsize::new(cycles));
        let began = Instant::now();
        let workers = self.workers.iter().map(|worker| {
            let (engine, left, worker) = (Arc::clone(&self.engine), Arc::clone(&left), *worker);
            tokio::spawn(async move {
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok() {
                    cycle(&engine, worker).await;
                }
            })
        });
        for worker in workers.collect::<Vec<_>>() {
            worker.await.unwrap();
        }
        began.elapsed().as_secs_f64()
    }

    /// What a lease takes, one at a time, in milliseconds.
    pub(crate) async fn lease_times(&self, samples: usize) -> Vec<f64> {
        let mut times = Vec::with_capacity(samples);
        for n in 0..samples {
            times.push(cycle(&self.engine, self.workers[n % self.workers.len()]).await.as_secs_f64() * 1e3);
        }
        times
    }

    pub(crate) async fn close(self) {
        self.engine.store().close().await;
    }
}

/// One lease and its completion; how long the lease took.
async fn cycle(engine: &Arc<Engine>, worker: WorkerId) -> Duration {
    let asked = Instant::now();
    let LeaseAnswer::Lease(lease) = engine.lease(worker, Duration::from_secs(10)).await.unwrap() else {
        panic!("nothing was ready");
    };
    let leased = asked.elapsed();
    assert_eq!(lease.task.name(), "probe", "older tasks come first");
    let grant = engine.authorize(worker, lease.attempt, &lease.capability).unwrap();
    let complete = Complete {
        result: TaskResult::Probe(ProbeResult { media: media() }),
        outputs: Vec::new(),
        evidence: evidence(),
    };
    engine.complete(grant, complete).await.unwrap();
    leased
}

/// As many copies of a job and its first task.
async fn copy_job(url: &str, job: JobId, task: TaskId, copies: usize) {
    let mut conn = sqlx::PgConnection::connect(url).await.unwrap();
    let copied = format!(
        "WITH job AS (
            INSERT INTO jobs (id, tenant, upload, input_size, spec, pool, state, stage, created_at)
            SELECT 'job_' || lpad(to_hex(n), 32, '0'), tenant, upload, input_size, spec, pool, state, stage, created_at
            FROM jobs, generate_series(1, {copies}) n WHERE id = '{job}'
        )
        INSERT INTO tasks (id, job, tenant, pool, kind, ordinal, plan, wall_ms, state, tries, not_before)
        SELECT 'tsk_' || lpad(to_hex(n), 32, '0'), 'job_' || lpad(to_hex(n), 32, '0'), tenant, pool, kind, ordinal, plan,
            wall_ms, state, tries, not_before
        FROM tasks, generate_series(1, {copies}) n WHERE id = '{task}'"
    );
    conn.execute(sqlx::AssertSqlSafe(copied)).await.unwrap();
    conn.execute("ANALYZE").await.unwrap();
}

fn evidence() -> Evidence {
    Evidence {
        profile: "strict".into(),
        policy_digest: "0".repeat(64),
        observed: Observed {
            seccomp_mode: 2,
            seccomp_filters: 2,
            no_new_privs: true,
            uid: 1,
            gid: 1,
            capabilities: 0,
            threads: 1,
        },
        self_reported: SelfReport::default(),
        usage: None,
    }
}

fn media() -> MediaInfo {
    let video = VideoInfo {
        width: 1280,
        height: 720,
        sample_aspect: Ratio { num: 1, den: 1 },
        rotation: 0,
        mirrored: false,
        pixel_format: None,
        frame_rate: Some(Ratio { num: 30, den: 1 }),
        real_frame_rate: None,
        color_range: None,
        color_space: None,
        color_transfer: None,
        color_primaries: None,
        field_order: None,
        level: None,
    };
    MediaInfo {
        format: "mov,mp4,m4a,3gp,3g2,mj2".into(),
        size: 1,
        duration_ms: Some(10_000),
        start_us: 0,
        bit_rate: None,
        streams: vec![StreamInfo {
            index: 0,
            codec: "h264".into(),
            profile: None,
            codec_tag: None,
            time_base: Ratio { num: 1, den: 90_000 },
            start_us: 0,
            duration_ms: Some(10_000),
            frames: None,
            bit_rate: None,
            language: None,
            default: true,
            attached_picture: false,
            decodable: true,
            kind: StreamKind::Video(video),
            tags: Default::default(),
        }],
        tags: Default::default(),
    }
}
