//! Several brokers on one PostgreSQL, one Redis and one bucket: as processes that are killed, and in this one.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs,
    reason = "tests"
)]

#[path = "support/collector.rs"]
mod collector;
mod common;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/redis.rs"]
mod redis_server;
#[path = "support/s3.rs"]
mod s3;

use common::*;
use mpegflow_broker::engine::Leadership;
use mpegflow_protocol::api::{Job, JobState, Upload};
use mpegflow_protocol::worker::{Enrolled, HeartbeatReply, JoinFile, LeaseReply, Renew, TaskProgress};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;

const BROKER: &str = env!("CARGO_BIN_EXE_mpegflow-broker");

/// What replicas share.
struct Site {
    dir: tempfile::TempDir,
    _database: postgres::Database,
    redis: redis_server::Server,
    s3: s3::Server,
    credentials: PathBuf,
    url: PathBuf,
    key: String,
}

impl Site {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let database = postgres::database().await;
        let redis = redis_server::Server::start(&["--requirepass", "swordfish"]);
        std::fs::write(dir.path().join("redis-password"), "swordfish\n").unwrap();
        let s3 = s3::Server::start(s3::Kind::Versitygw);
        let credentials = dir.path().join("credentials");
        let text =
            format!("[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n", s3.user, s3.password);
        std::fs::write(&credentials, text).unwrap();
        let url = dir.path().join("database-url");
        std::fs::write(&url, database.url()).unwrap();
        let made = Command::new(BROKER)
            .args(["identity", "create", "--out"])
            .arg(dir.path().join("identity"))
            .status()
            .unwrap();
        assert!(made.success());
        let mut site = Self { dir, _database: database, redis, s3, credentials, url, key: String::new() };
        let file = site.dir.path().join("key");
        site.admin(&["api-key", "create", "--tenant", "a", "--out", file.to_str().unwrap()]);
        site.key = std::fs::read_to_string(&file).unwrap().trim().to_owned();
        site
    }

    fn command(&self, data: &str) -> Command {
        let mut command = Command::new(BROKER);
        command.arg("--data").arg(self.dir.path().join(data));
        command.arg("--identity").arg(self.dir.path().join("identity"));
        command.arg("--database-url-file").arg(&self.url);
        command.args(["--redis-url", &self.redis.url()]);
        command.arg("--redis-password-file").arg(self.dir.path().join("redis-password"));
        command
    }

    fn admin(&self, args: &[&str]) {
        let done = self.command("admin").args(args).stderr(Stdio::null()).status().unwrap();
        assert!(done.success(), "{args:?}");
    }

    async fn replica(&self, name: &str) -> Replica {
        self.replica_with(name, 3, &[]).await
    }

    /// One whose leases live so many seconds, with more options.
    async fn replica_with(&self, name: &str, lease: u32, options: &[&str]) -> Replica {
        let (public, worker) = (mpegflow_test_ports::address(), mpegflow_test_ports::address());
        let log = self.dir.path().join(format!("{name}.log"));
        let child = self
            .command(name)
            .args(["serve", "--lease", &lease.to_string(), "--connection-age", "2"])
            .args(options)
            .args(["--listen", &public.to_string(), "--worker-listen", &worker.to_string()])
            .args(["--s3-bucket", s3::BUCKET, "--s3-path-style", "--s3-endpoint", &self.s3.endpoint()])
            .arg("--s3-credentials")
            .arg(&self.credentials)
            .env("RUST_LOG", "debug")
            .env("NO_COLOR", "1")
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let replica = Replica { child, public, worker, log };
        eventually("it serves", async || tokio::net::TcpStream::connect(public).await.is_ok()).await;
        replica
    }

    fn tenant(&self, replica: &Replica) -> Client {
        Client::new(format!("http://{}", replica.public), None, None)
            .with("authorization", format!("Bearer {}", self.key))
    }

    fn join_file(&self, replica: &Replica) -> JoinFile {
        let out = self.dir.path().join("join");
        let _ = std::fs::remove_file(&out);
        self.admin(&[
            "join-token",
            "create",
            "--broker",
            &replica.worker.to_string(),
            "--out",
            out.to_str().unwrap(),
        ]);
        serde_json::from_slice(&std::fs::read(out).unwrap()).unwrap()
    }
}

struct Replica {
    child: Child,
    public: SocketAddr,
    worker: SocketAddr,
    log: PathBuf,
}

impl Replica {
    fn signal(&self, name: &str) {
        assert!(
            Command::new("kill")
                .arg(format!("-{name}"))
                .arg(self.child.id().to_string())
                .status()
                .unwrap()
                .success()
        );
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The same worker, at another replica.
fn at(worker: &Worker, join: &JoinFile, replica: &Replica) -> Worker {
    Worker {
        id: worker.id,
        client: Client::new(
            format!("https://{}", replica.worker),
            Some(&join.ca),
            Some((&worker.certificate, &worker.key)),
        ),
        certificate: worker.certificate.clone(),
        key: worker.key.clone(),
    }
}

async fn lease(worker: &Worker) -> mpegflow_protocol::worker::Lease {
    for _ in 0..30 {
        if let LeaseReply::Lease(lease) = worker.ask(1_000).await {
            return *lease;
        }
    }
    panic!("no lease");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_killed_in_the_middle_of_an_upload_and_of_an_attempt_is_made_up_for_by_the_other() {
    let site = Site::new().await;
    let (mut one, two) = (site.replica("one").await, site.replica("two").await);
    let (here, there) = (site.tenant(&one), site.tenant(&two));

    // An upload that is being sent to the first when that dies goes on at the second.
    let bytes: Vec<u8> = (0..20_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let created: Upload =
        here.call("POST", "/v1/uploads", format!(r#"{{"size":{}}}"#, bytes.len())).await.json();
    let path = format!("/v1/uploads/{}", created.id);
    let sent = here.call("PUT", &format!("{path}?offset=0"), bytes[..9 << 20].to_vec()).await;
    assert_eq!(sent.status, 200, "{}", sent.text());
    // Somebody is writing at the first: the second refuses.
    let mut socket = tokio::net::TcpStream::connect(one.public).await.unwrap();
    let head = format!(
        "PUT {path}?offset={} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        9 << 20,
        site.key,
        11 << 20
    );
    tokio::io::AsyncWriteExt::write_all(&mut socket, head.as_bytes()).await.unwrap();
    // The body is asked for once the upload is this request's.
    let mut answer = [0; 25];
    tokio::io::AsyncReadExt::read_exact(&mut socket, &mut answer).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 100 Continue\r\n\r\n");
    tokio::io::AsyncWriteExt::write_all(&mut socket, b"the start").await.unwrap();
    // A byte at a time until it is let in: what is refused is refused before its body is read.
    let go_on = async |len: Option<usize>| {
        let upload: Upload = there.get(&path).await.json();
        let rest = &bytes[upload.offset as usize..];
        let rest = rest[..len.unwrap_or(rest.len())].to_vec();
        there.call("PUT", &format!("{path}?offset={}", upload.offset), rest).await
    };
    assert_eq!(there.call("DELETE", &path, "").await.problem(), "upload_busy");
    let refused = there.call("PUT", &format!("{path}?offset={}", 9 << 20), "x").await;
    assert_eq!(refused.problem(), "upload_busy");
    one.kill();
    eventually_long("the upload goes on at the second", async || {
        let answer = go_on(Some(1)).await;
        assert!(answer.status == 200 || answer.problem() == "upload_busy", "{}", answer.text());
        answer.status == 200
    })
    .await;
    let finished = go_on(None).await;
    let upload: Upload = finished.json();
    assert_eq!(upload.offset, bytes.len() as u64);

    // An attempt that was leased by one replica goes on at another when that dies.
    let mut one = site.replica("three").await;
    let job: Job = there.call("POST", "/v1/jobs", spec(&upload)).await.json();
    let join = site.join_file(&one);
    let worker = Worker::enroll(&join, one.worker).await;
    let probe = lease(&worker).await;
    assert_eq!(worker.read(&probe, 0).await, bytes);
    one.kill();
    let worker = at(&worker, &join, &two);
    assert_eq!(worker.read(&probe, 0).await, bytes);
    assert_eq!(worker.beat(&probe, TaskProgress::default()).await.status, 200);
    assert_eq!(worker.finish(&probe).await.status, 204);
    for _ in 0..3 {
        assert_eq!(worker.finish(&lease(&worker).await).await.status, 204);
    }
    let job = show(&there, &job).await;
    assert_eq!((job.state, job.outputs.len()), (JobState::Succeeded, 15));
    assert!(job.tasks.iter().all(|task| task.attempts == 1));
    for output in &job.outputs {
        assert_eq!(output_digest(&[&there.get(&output.url).await.body]).digest, output.digest);
    }
    // Neither log nor command line has a secret in it.
    for replica in [&two, &one] {
        let log = std::fs::read_to_string(&replica.log).unwrap();
        for secret in ["swordfish", &site.s3.password, &site.key, &join.token, &probe.capability] {
            assert!(!log.contains(secret), "{}", replica.log.display());
        }
    }
    let line = std::fs::read(format!("/proc/{}/cmdline", two.child.id())).unwrap();
    assert!(!String::from_utf8_lossy(&line).contains("swordfish"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_at_one_replica_reaches_the_attempt_at_another_and_its_events_are_heard_at_both() {
    let site = Site::new().await;
    let (one, two) = (site.replica("one").await, site.replica("two").await);
    let (here, there) = (site.tenant(&one), site.tenant(&two));
    let job = submit(&here, b"x").await;
    let join = site.join_file(&one);
    let worker = Worker::enroll(&join, one.worker).await;
    let held = lease(&worker).await;

    let stream = there.open("GET", &format!("/v1/events?job={}", job.id), "").await;
    let heard = tokio::spawn(async move {
        http_body_util::BodyExt::collect(stream.into_body()).await.unwrap().to_bytes()
    });
    let answer = there.call("POST", &format!("/v1/jobs/{}/cancel", job.id), "").await;
    assert_eq!(answer.json::<Job>().state, JobState::Canceling);
    let beat: HeartbeatReply = worker.beat(&held, TaskProgress::default()).await.json();
    assert!(beat.cancel);
    assert_eq!(worker.end(&held, "release", vec![]).await.status, 204);
    // Ended at the first, heard at the second, whose stream ends with the job.
    let heard = tokio::time::timeout(Duration::from_secs(30), heard).await.unwrap().unwrap();
    let heard = String::from_utf8_lossy(&heard);
    for event in ["event: canceling", "event: finished"] {
        assert!(heard.contains(event), "{heard}");
    }
    assert_eq!(show(&there, &job).await.state, JobState::Canceled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_upgrade_fails_no_request_and_connections_move_to_the_new_replica() {
    let site = Site::new().await;
    let (one, two) = (site.replica("one").await, site.replica("two").await);
    let join = site.join_file(&one);
    let worker = Worker::enroll(&join, one.worker).await;
    // A poll that waits at the one that goes is answered, not cut.
    let polled = tokio::spawn(async move { worker.ask(20_000).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    one.signal("TERM");
    assert!(matches!(polled.await.unwrap(), LeaseReply::Idle {}));
    // Whoever leads now, jobs go on at once.
    let worker = Worker::enroll(&join, two.worker).await;
    let tenant = site.tenant(&two);
    let job = submit(&tenant, b"x").await;
    let mut closed = false;
    for _ in 0..4 {
        assert_eq!(worker.finish(&lease(&worker).await).await.status, 204);
    }
    assert_eq!(show(&tenant, &job).await.state, JobState::Succeeded);
    for _ in 0..40 {
        let answer = worker.client.call("POST", "/worker/v1/lease", r#"{"wait_ms":0}"#).await;
        assert_eq!(answer.status, 200);
        closed |= answer.headers.get("connection").is_some_and(|value| value == "close");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(closed, "a connection of two seconds' age is closed with an answer");
}

/// These workers send no heartbeats, and a machine may be slow.
const LONG_LEASE: Duration = Duration::from_secs(120);

/// A broker of the release after this one, in this process: it has a migration more.
async fn of_next_release(site: &Site, name: &str) -> mpegflow_broker::embedded::Running {
    let mut config = mpegflow_broker::embedded::Config::new(site.dir.path().join(name));
    config.identity = Some(site.dir.path().join("identity"));
    config.database = Some(next_release(site));
    let mut redis = site.redis.config();
    redis.password_file = Some(site.dir.path().join("redis-password"));
    config.redis = Some(redis);
    config.objects = Some(Arc::new(site.s3.objects_at("")));
    (config.lease, config.connection_age) = (LONG_LEASE, Duration::from_secs(2));
    config.grace = Duration::from_secs(3);
    mpegflow_broker::embedded::start(config).await.unwrap()
}

fn next_release(site: &Site) -> mpegflow_broker::store::postgres::DatabaseConfig {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/next-release");
    mpegflow_broker::store::postgres::DatabaseConfig { later: Some(folder), ..site._database.config() }
}

/// What is in front of the brokers knows: where each of them is that is ready.
#[derive(Default)]
struct Front {
    ready: Mutex<Vec<(SocketAddr, SocketAddr)>>,
    asked: AtomicUsize,
}

impl Front {
    fn add(&self, public: SocketAddr, worker: SocketAddr) {
        self.ready.lock().unwrap().push((public, worker));
    }

    fn remove(&self, public: SocketAddr) {
        self.ready.lock().unwrap().retain(|(there, _)| *there != public);
    }

    fn one(&self) -> (SocketAddr, SocketAddr) {
        let n = self.asked.fetch_add(1, Ordering::Relaxed);
        let ready = self.ready.lock().unwrap();
        ready[n % ready.len()]
    }
}

/// Tenants and workers who go on all the time; each of their requests has to be answered well, by whoever is asked.
struct Load {
    site: Arc<Site>,
    front: Arc<Front>,
    /// The authorities that workers trust.
    trusted: Mutex<String>,
    stop: AtomicBool,
    done: AtomicUsize,
    /// What each worker has done, leases or not.
    turns: [AtomicUsize; 2],
}

/// The load as it runs.
struct Running {
    load: Arc<Load>,
    tenants: Vec<JoinHandle<Vec<Job>>>,
    workers: Vec<JoinHandle<()>>,
}

impl Load {
    async fn start(site: &Arc<Site>, front: &Arc<Front>, first: &Replica) -> Running {
        let join = site.join_file(first);
        let load = Arc::new(Self {
            site: Arc::clone(site),
            front: Arc::clone(front),
            trusted: Mutex::new(join.ca.clone()),
            stop: AtomicBool::new(false),
            done: AtomicUsize::new(0),
            turns: Default::default(),
        });
        let tenants = (0..2).map(|_| tokio::spawn(Arc::clone(&load).tenant())).collect();
        let mut workers = Vec::new();
        for n in 0..load.turns.len() {
            let worker = Worker::enroll(&join, first.worker).await;
            workers.push(tokio::spawn(Arc::clone(&load).work(n, worker)));
        }
        Running { load, tenants, workers }
    }

    async fn tenant(self: Arc<Self>) -> Vec<Job> {
        let ask = async |method: &str, path: &str, body: String, status: u16| {
            let client = Client::new(format!("http://{}", self.front.one().0), None, None)
                .with("authorization", format!("Bearer {}", self.site.key));
            let answer = client.call(method, path, body).await;
            assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
            answer
        };
        let mut made: Vec<Job> = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            let upload: Upload = ask("POST", "/v1/uploads", r#"{"size":1}"#.into(), 201).await.json();
            ask("PUT", &format!("/v1/uploads/{}?offset=0", upload.id), "x".into(), 200).await;
            made.push(ask("POST", "/v1/jobs", spec(&upload), 201).await.json());
            ask("GET", "/v1/jobs?limit=5", String::new(), 200).await;
            ask("GET", &format!("/v1/jobs/{}", made[made.len() - 1].id), String::new(), 200).await;
            // Within what a tenant may ask, and no more than the workers do.
            tokio::time::sleep(Duration::from_millis(700)).await;
        }
        made
    }

    async fn work(self: Arc<Self>, n: usize, mut worker: Worker) {
        let mut idle = 0;
        while !self.stop.load(Ordering::Relaxed) || idle < 5 {
            let base = format!("https://{}", self.front.one().1);
            let trusted = self.trusted.lock().unwrap().clone();
            let identity = Some((worker.certificate.as_str(), worker.key.as_slice()));
            worker.client = Client::new(base, Some(&trusted), identity);
            worker = renewed(worker).await;
            if let LeaseReply::Lease(lease) = worker.ask(300).await {
                idle = 0;
                let answer = worker.finish(&lease).await;
                assert_eq!(answer.status, 204, "{}: {}", lease.task.name(), answer.text());
                self.done.fetch_add(1, Ordering::Relaxed);
            } else {
                idle += 1;
            }
            self.turns[n].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until tasks were done, and until each worker has been at it anew.
    async fn busy(&self, what: &str) {
        let turns = || self.turns.iter().map(|turns| turns.load(Ordering::Relaxed)).collect::<Vec<_>>();
        let (done, before) = (self.done.load(Ordering::Relaxed), turns());
        let enough = async {
            while self.done.load(Ordering::Relaxed) <= done + 8
                || turns().iter().zip(&before).any(|(now, before)| *now < before + 3)
            {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(300), enough).await;
        assert!(waited.is_ok(), "not within minutes: {what}");
    }
}

impl Running {
    /// Ends it: no request has failed, and every job has succeeded.
    async fn end(self, client: &Client) {
        self.load.stop.store(true, Ordering::Relaxed);
        let mut made = Vec::new();
        for tenant in self.tenants {
            made.extend(tenant.await.unwrap());
        }
        for worker in self.workers {
            worker.await.unwrap();
        }
        assert!(made.len() > 8, "{}", made.len());
        for job in made {
            assert_eq!(show(client, &job).await.state, JobState::Succeeded);
        }
    }
}

/// The same worker with another key and certificate; it goes on over the connections that it has.
async fn renewed(worker: Worker) -> Worker {
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let body = serde_json::to_vec(&Renew { csr, token: None }).unwrap();
    let answer = worker.client.call("POST", "/worker/v1/renew", body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let enrolled: Enrolled = answer.json();
    assert_eq!(enrolled.worker, worker.id);
    Worker { certificate: enrolled.certificate, key: key.serialize_der(), ..worker }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_with_a_migration_in_between_fails_no_request_whichever_version_answers() {
    let site = Arc::new(Site::new().await);
    let old = async |name: &str| site.replica_with(name, 120, &[]).await;
    let (one, two) = (old("one").await, old("two").await);
    let front = Arc::new(Front::default());
    front.add(one.public, one.worker);
    front.add(two.public, two.worker);
    let running = Load::start(&site, &front, &one).await;
    let load = Arc::clone(&running.load);
    load.busy("the old version works").await;
    // Before anything is replaced, the job of the new version brings the tables up to date.
    mpegflow_broker::store::postgres::PostgresStore::open(next_release(&site)).await.unwrap();
    load.busy("the old version works on the new tables").await;
    let first = of_next_release(&site, "first").await;
    front.add(first.public_addr(), first.worker_addr());
    load.busy("both work side by side").await;
    front.remove(one.public);
    retire(one).await;
    // One of the old version that starts in the middle, as one does whose node went away.
    let again = old("again").await;
    front.add(again.public, again.worker);
    front.remove(two.public);
    retire(two).await;
    load.busy("an old one that has started again works").await;
    let second = of_next_release(&site, "second").await;
    front.add(second.public_addr(), second.worker_addr());
    front.remove(again.public);
    retire(again).await;
    load.busy("the new version works").await;
    let client = Client::new(format!("http://{}", second.public_addr()), None, None)
        .with("authorization", format!("Bearer {}", site.key));
    running.end(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_authority_takes_over_while_workers_lease_complete_and_renew_and_no_request_fails() {
    let site = Arc::new(Site::new().await);
    let start = async |name: &str| site.replica_with(name, 120, &[]).await;
    let (mut one, mut two) = (start("one").await, start("two").await);
    let front = Arc::new(Front::default());
    front.add(one.public, one.worker);
    front.add(two.public, two.worker);
    let running = Load::start(&site, &front, &one).await;
    let load = Arc::clone(&running.load);
    load.busy("under the first authority").await;
    let bundle = || std::fs::read_to_string(site.dir.path().join("identity/ca/ca.pem")).unwrap();
    let first = bundle();
    for step in ["prepare", "switch", "finish"] {
        let dir = site.dir.path().join("identity");
        site.admin(&["identity", "rotate", step, "--dir", dir.to_str().unwrap()]);
        // One replica after the other; in between, one of each kind answers.
        for (n, replica) in [&mut one, &mut two].into_iter().enumerate() {
            let next = start(&format!("{step}-{n}")).await;
            front.add(next.public, next.worker);
            let former = std::mem::replace(replica, next);
            load.busy(step).await;
            front.remove(former.public);
            retire(former).await;
        }
        *load.trusted.lock().unwrap() = bundle();
        // Everybody renews with whoever signs now, and trusts what is told now.
        load.busy(step).await;
    }
    let last = bundle();
    assert_eq!(last.matches("BEGIN CERTIFICATE").count(), 1);
    assert_ne!(first, last);
    let client = site.tenant(&two);
    // Whoever trusts the former authority alone is not talked into anything.
    let old = Client::new(format!("https://{}", two.worker), Some(&first), None);
    assert!(old.try_open("POST", "/worker/v1/lease", "{}").await.is_err());
    running.end(&client).await;
}

/// Ends a replica as an upgrade does; nobody asks it any more.
async fn retire(mut replica: Replica) {
    replica.signal("TERM");
    eventually_long("it ends", async || replica.child.try_wait().unwrap().is_some()).await;
    assert!(replica.child.wait().unwrap().success());
}

/// Two brokers in this process, on one database and one local folder.
async fn two_in_one() -> (World, mpegflow_broker::embedded::Running) {
    let database = postgres::database().await;
    let identity = tempfile::tempdir().unwrap();
    let shared = identity.path().join("identity");
    mpegflow_broker::embedded::create_identity(&shared).unwrap();
    let mut world = common::world_with(|config| {
        config.database = Some(database.config());
        config.identity = Some(shared.clone());
    })
    .await;
    let mut config = world.config.clone();
    config.data_dir = world.dir.path().join("other");
    let other = mpegflow_broker::embedded::start(config).await.unwrap();
    world.kept = Some(Box::new((database, identity)));
    (world, other)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_paused_leads_no_more_and_changes_nothing() {
    let (world, other) = two_in_one().await;
    let (one, two) = (world.broker().engine(), other.engine());
    let (mut first, mut second) = (Leadership::new("test"), Leadership::new("test"));
    assert!(first.stand(one).await.unwrap());
    assert!(!first.stand(one).await.unwrap(), "it goes on");
    assert!(!second.stand(two).await.unwrap());
    assert!(first.holds(one).await.unwrap() && !second.holds(two).await.unwrap());
    let fence = first.fence().unwrap();
    assert!(fence.holds(one).await.unwrap() && second.fence().is_none());
    // Paused past its term.
    eventually_long("the second takes over", async || second.stand(two).await.unwrap()).await;
    assert!(second.holds(two).await.unwrap() && !first.holds(one).await.unwrap());
    assert!(!fence.holds(one).await.unwrap(), "nor does work that it began");
    assert!(!first.stand(one).await.unwrap());
    // Given back, it is free at once, with a higher epoch still.
    second.resign(two).await;
    assert!(first.stand(one).await.unwrap());
    assert!(!second.holds(two).await.unwrap());

    // What a sweep found idle and somebody has gone on with since is not deleted.
    let tenant = world.tenant("a").await;
    let created: Upload = tenant.call("POST", "/v1/uploads", r#"{"size":2}"#).await.json();
    let later = one.now().plus_ms(60_000);
    assert_eq!(one.store().idle_uploads(later).await.unwrap().len(), 1);
    let path = format!("/v1/uploads/{}", created.id);
    assert_eq!(tenant.call("PUT", &format!("{path}?offset=0"), "xy").await.status, 200);
    assert!(!one.store().delete_idle_upload(created.id, later).await.unwrap());
    assert_eq!(tenant.get(&path).await.status, 200);
    other.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patch_at_another_broker_takes_the_place_of_a_dead_one() {
    use tokio::io::AsyncWriteExt as _;
    let site = Site::new().await;
    let (one, two) = (site.replica("one").await, site.replica("two").await);
    let there = site.tenant(&two).with("tus-resumable", "1.0.0");
    let made = there.with("upload-length", "8").call("POST", "/v1/uploads/tus", "").await;
    let path = format!("/v1/uploads/{}", made.headers["location"].to_str().unwrap());
    let mut dead = tokio::net::TcpStream::connect(one.public).await.unwrap();
    let head = format!(
        "PATCH {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\n\
         Content-Type: application/offset+octet-stream\r\nContent-Length: 8\r\n\r\n0123",
        site.key
    );
    dead.write_all(head.as_bytes()).await.unwrap();
    eventually("the first writes", async || {
        // Of no byte, so that nothing is there but what the first one brings.
        there.call("PUT", &format!("{}?offset=0", path.replace("/tus", "")), "").await.status == 409
    })
    .await;
    let patch = |offset: u64, bytes: &'static str| {
        let client = there
            .with("upload-offset", offset.to_string())
            .with("content-type", "application/offset+octet-stream");
        let path = path.clone();
        async move { client.call("PATCH", &path, bytes).await }
    };
    // What the dead one had brought counts, and is found by asking; then the rest comes at once.
    let first = patch(0, "01234567").await;
    assert_eq!(
        (first.status.as_u16(), &first.headers["upload-offset"]),
        (409, &"4".parse().unwrap()),
        "{}",
        first.text()
    );
    let rest = patch(4, "4567").await;
    assert_eq!(
        (rest.status.as_u16(), &rest.headers["upload-offset"]),
        (204, &"8".parse().unwrap()),
        "{}",
        rest.text()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_is_not_whole_is_not_made_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = mpegflow_broker::embedded::Config::new(dir.path().join("data"));
    let shared = dir.path().join("identity");
    config.identity = Some(shared.clone());
    let error = mpegflow_broker::embedded::start(config.clone()).await.unwrap_err().to_string();
    assert!(error.contains("identity create"), "{error}");
    mpegflow_broker::embedded::create_identity(&shared).unwrap();
    std::fs::remove_file(shared.join("capability.key")).unwrap();
    let error = mpegflow_broker::embedded::start(config).await.unwrap_err().to_string();
    assert!(error.contains("capability.key"), "{error}");
    assert!(mpegflow_broker::embedded::create_identity(&shared).is_err(), "nothing is written over");
}

async fn eventually_long(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..600 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("not within 60 s: {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_tell_of_one_trace_also_of_what_another_had_begun() {
    let collector = collector::Collector::start();
    let endpoint = collector.endpoint();
    let site = Site::new().await;
    let options = ["--otlp-endpoint", endpoint.as_str()];
    let mut one = site.replica_with("one", 3, &options).await;
    let two = site.replica_with("two", 3, &options).await;
    let job = submit(&site.tenant(&one), b"a film").await;
    let join = site.join_file(&one);
    let worker = Worker::enroll(&join, one.worker).await;
    let lost = lease(&worker).await;
    assert!(lost.traced);
    let has = |name: &str| collector.spans().iter().any(|s| s.name == name);
    eventually("the first has told of the lease", async || has("lease") && has("POST /v1/jobs")).await;
    one.kill();

    // The other ends what the first had begun, and does the rest.
    let worker = at(&worker, &join, &two);
    let tenant = site.tenant(&two);
    for _ in 0..4 {
        let lease = lease(&worker).await;
        let progress = TaskProgress::default();
        assert!(lease.traced && worker.beat(&lease, progress).await.status == 200);
        let answer = worker.finish(&lease).await;
        assert_eq!(answer.status, 204, "{}", answer.text());
    }
    assert_eq!(show(&tenant, &job).await.state, JobState::Succeeded);
    let id = job.id.to_string();
    let spans = tokio::task::block_in_place(|| collector.of_job(&id));
    let of = |name: &str| spans.iter().filter(|s| s.name == name).collect::<Vec<_>>();
    let (root, whole) = (of("POST /v1/jobs")[0], of("job")[0]);
    assert_eq!((&whole.parent, spans.iter().filter(|s| s.parent.is_empty()).count()), (&root.id, 1));
    assert_ne!(root.instance, whole.instance, "one began it, the other ended it");
    let probes = of("process probe");
    assert_eq!(probes.len(), 2, "{spans:#?}");
    let attempt = lost.attempt.to_string();
    let gone = probes.iter().find(|s| s.attributes["mpegflow.attempt.id"] == attempt).unwrap();
    let why = gone.attributes["error.type"].as_str();
    assert_eq!(gone.error.as_deref(), Some(why));
    // The broker that is left may have come to lead just now: then it cannot know whose fault it was.
    assert!(["worker_lost", "broker_error"].contains(&why), "{why}");
    let state = if why == "worker_lost" { "lost" } else { "failed" };
    assert_eq!(gone.attributes["mpegflow.attempt.state"], state);
    assert_eq!((&gone.parent, &gone.instance), (&whole.id, &whole.instance));
    let begun: Vec<_> = spans.iter().filter(|s| s.parent == gone.id && s.instance == root.instance).collect();
    assert_eq!(begun.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["queue", "lease"]);
}
