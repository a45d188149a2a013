//! Our side: the engine over PostgreSQL and Redis, without HTTP in between, as the peers are libraries in their callers.

use mpegflow_broker::capability::Capabilities;
use mpegflow_broker::engine::{Engine, LeaseAnswer, Parts, Quotas, Rate, URL_LIFE};
use mpegflow_broker::model::Time;
use mpegflow_broker::objects::local::LocalObjects;
use mpegflow_broker::plan::{Settings, graph};
use mpegflow_broker::queue::redis::{RedisConfig, RedisQueue};
use mpegflow_broker::secret::fresh_id;
use mpegflow_broker::store::postgres::{DatabaseConfig, DatabaseUrl, PostgresStore, UrlSource};
use mpegflow_broker::store::{NewJob, NewUpload};
use mpegflow_broker::webhooks::Policy;
use mpegflow_broker::webhooks::secret::Secrets;
use mpegflow_protocol::evidence::{Evidence, Observed, SelfReport};
use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::ids::{JobId, PoolName, TaskId, TenantId, UploadId, WorkerId};
use mpegflow_protocol::job::JobSpec;
use mpegflow_protocol::media::{MediaInfo, Ratio, StreamInfo, StreamKind, VideoInfo};
use mpegflow_protocol::task::{ProbeResult, TaskResult};
use mpegflow_protocol::worker::{Complete, Fail};
use sqlx::{Connection as _, Executor as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Moves in one transaction, as a broker does it.
pub(crate) const TOGETHER: usize = 128;
/// What a broker that leads does in between, it does this often.
const TICK: Duration = Duration::from_millis(500);

pub(crate) struct Ours {
    engine: Arc<Engine>,
    workers: Vec<WorkerId>,
    url: String,
    /// The job and the task that all others are copies of.
    model: (JobId, TaskId),
    /// The tenant that has most.
    busy: TenantId,
    _objects: tempfile::TempDir,
}

/// How long so many cycles took.
pub(crate) struct Seconds {
    /// Until the last of them was answered.
    pub(crate) moves: f64,
    /// Until, besides, every event had its place in its chain, and the relay nothing left to tell.
    pub(crate) all: f64,
}

impl Ours {
    /// An engine and as many workers as the peers have, with `jobs` jobs queued.
    pub(crate) async fn new(
        database_url: &str,
        redis: RedisConfig,
        workers: usize,
        jobs: usize,
        together: usize,
    ) -> Self {
        let mut ours = Self::open(database_url, redis, together).await;
        ours.model = ours.job_of(ours.busy).await;
        copy_job(database_url, ours.model, 1, jobs).await;
        for _ in 0..workers {
            let id = ours.worker().await;
            ours.workers.push(id);
        }
        let repaired = ours.engine.reconcile().await.unwrap();
        assert_eq!(repaired.added as usize, jobs + 1);
        ours
    }

    /// The same with `jobs` jobs of each of many tenants, and `many` more of one of them.
    pub(crate) async fn of_tenants(
        database_url: &str,
        redis: RedisConfig,
        workers: usize,
        tenants: usize,
        jobs: usize,
        many: usize,
    ) -> Self {
        let mut ours = Self::open(database_url, redis, TOGETHER).await;
        let mut next = 1;
        for n in 0..tenants {
            let tenant = match n {
                0 => ours.busy,
                n => ours.engine.ensure_tenant(&format!("tenant {n}")).await.unwrap(),
            };
            let copies = if n == 0 { jobs - 1 + many } else { jobs - 1 };
            copy_job(database_url, ours.job_of(tenant).await, next, copies).await;
            next += copies;
        }
        for _ in 0..workers {
            let id = ours.worker().await;
            ours.workers.push(id);
        }
        ours.engine.reconcile().await.unwrap();
        ours
    }

    async fn open(database_url: &str, redis: RedisConfig, together: usize) -> Self {
        let url = UrlSource::Plain(DatabaseUrl::parse(database_url).unwrap());
        let database = DatabaseConfig { connections: 20, together, ..DatabaseConfig::new(url) };
        let store = PostgresStore::open(database).await.unwrap();
        let clock = Arc::new(store.clock());
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
            storage: Arc::default(),
            url_life: URL_LIFE,
        }));
        let busy = engine.ensure_tenant("bench").await.unwrap();
        let model = (JobId::from_u128(0), TaskId::from_u128(0));
        Self { engine, workers: Vec::new(), url: database_url.into(), model, busy, _objects: objects }
    }

    async fn worker(&self) -> WorkerId {
        let id = fresh_id();
        self.engine.store().add_worker(id, &PoolName::default(), Time(i64::MAX), Time(0)).await.unwrap();
        id
    }

    /// A job of the tenant, with its task.
    async fn job_of(&self, tenant: TenantId) -> (JobId, TaskId) {
        let store = self.engine.store();
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
            arrival: None,
            answer: Vec::new(),
            trace: None,
        };
        store.submit(&new, None, Time(0)).await.unwrap();
        (job, task)
    }

    /// What the broker that leads does beside its callers.
    fn tend(&self) -> tokio::task::JoinHandle<()> {
        let engine = Arc::clone(&self.engine);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(TICK).await;
                engine.expire().await.unwrap();
                engine.relay().await.unwrap();
                engine.sequence().await.unwrap();
            }
        })
    }

    /// `cycles` leases with their completions, each of which also plans and queues its job's next task.
    pub(crate) async fn cycles(&self, cycles: usize) -> Seconds {
        let left = Arc::new(AtomicUsize::new(cycles));
        let began = Instant::now();
        let tending = self.tend();
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
        let moves = began.elapsed().as_secs_f64();
        tending.abort();
        let _ = tending.await;
        self.engine.relay().await.unwrap();
        self.engine.sequence().await.unwrap();
        Seconds { moves, all: began.elapsed().as_secs_f64() }
    }

    /// What a lease takes, one at a time, in milliseconds, with so many tasks queued.
    pub(crate) async fn lease_times(&self, samples: usize, queued: usize) -> Vec<f64> {
        let mut times = Vec::with_capacity(samples);
        for n in 0..samples {
            if n > 0 && n % queued == 0 {
                copy_job(&self.url, self.model, n + 1, queued).await;
                self.engine.reconcile().await.unwrap();
            }
            times.push(cycle(&self.engine, self.workers[n % self.workers.len()]).await.as_secs_f64() * 1e3);
        }
        times
    }

    /// Seconds that each job of the tenants that are not busy waits, until all of these have begun. Workers do one after the other;
    /// one whose tenant has nothing more is another one from then on, as a worker's process is.
    pub(crate) async fn waits(&self, jobs: usize, takes: Duration) -> Vec<f64> {
        let waits = Arc::new(std::sync::Mutex::new(Vec::new()));
        let began = Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for worker in self.workers.clone() {
            let (engine, waits, busy) = (Arc::clone(&self.engine), Arc::clone(&waits), self.busy);
            tasks.spawn(async move {
                let mut worker = worker;
                while waits.lock().unwrap().len() < jobs {
                    let LeaseAnswer::Lease(lease) =
                        engine.lease(worker, Duration::from_millis(50)).await.unwrap()
                    else {
                        worker = fresh_id();
                        let store = engine.store();
                        store
                            .add_worker(worker, &PoolName::default(), Time(i64::MAX), Time(0))
                            .await
                            .unwrap();
                        continue;
                    };
                    let waited = began.elapsed().as_secs_f64();
                    if engine.store().worker(worker).await.unwrap().unwrap().tenant != Some(busy) {
                        waits.lock().unwrap().push(waited);
                    }
                    tokio::time::sleep(takes).await;
                    let grant = engine.authorize(worker, lease.attempt, &lease.capability).unwrap();
                    let failure = Failure::new(FailureCode::InputCorrupt, "bench");
                    engine.fail(grant, Fail { failure, evidence: None }).await.unwrap();
                }
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
        let waits = waits.lock().unwrap();
        waits.clone()
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

/// As many copies of a job and its first task, numbered from `from`.
async fn copy_job(url: &str, (job, task): (JobId, TaskId), from: usize, copies: usize) {
    let mut conn = sqlx::PgConnection::connect(url).await.unwrap();
    let numbers = format!("generate_series({from}, {}) n", from + copies - 1);
    let copied = format!(
        "WITH job AS (
            INSERT INTO jobs (id, tenant, upload, input_size, spec, pool, state, stage, created_at)
            SELECT 'job_' || lpad(to_hex(n), 32, '0'), tenant, upload, input_size, spec, pool, state, stage, created_at
            FROM jobs, {numbers} WHERE id = '{job}'
        )
        INSERT INTO tasks (id, job, tenant, pool, kind, ordinal, plan, wall_ms, state, tries, not_before)
        SELECT 'tsk_' || lpad(to_hex(n), 32, '0'), 'job_' || lpad(to_hex(n), 32, '0'), tenant, pool, kind, ordinal, plan,
            wall_ms, 'ready', tries, not_before
        FROM tasks, {numbers} WHERE id = '{task}'"
    );
    conn.execute(sqlx::AssertSqlSafe(copied)).await.unwrap();
    conn.execute("ANALYZE jobs, tasks").await.unwrap();
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
