//! What is broken: PostgreSQL, Redis, an S3 server, broker replicas and workers, as processes, and the ways between them.

use crate::collector::Collector;
use crate::link::Link;
use crate::space::{self, HERE, Island, THERE};
use crate::{postgres, redis_server, s3};
use mpegflow_protocol::worker::JoinFile;
use mpegflow_tests::program;
use mpegflow_tests::system::{alive, descendants, signal_pid, until};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A lease without a heartbeat lives so long.
pub(crate) const LEASE: Duration = Duration::from_secs(6);
pub(crate) const REPLICAS: usize = 3;
/// The replica whose clock is turned, and the one in a network namespace of its own.
pub(crate) const TURNED: usize = 1;
pub(crate) const ISLANDER: usize = 2;
pub(crate) const TENANTS: [&str; 4] = ["amber", "birch", "cedar", "real"];
/// The tenant whose inputs are real, and whose work real workers do.
pub(crate) const REAL: usize = 3;
pub(crate) const REDIS_PASSWORD: &str = "chaos-redis-6d1f0c";
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// How long a start may take on a machine that is busy.
const START: Duration = Duration::from_secs(90);

pub(crate) struct Site {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) postgres: Arc<postgres::Server>,
    /// Whether PostgreSQL shall run.
    pub(crate) postgres_wanted: bool,
    pub(crate) database: postgres::Database,
    pub(crate) redis: redis_server::Server,
    pub(crate) s3: s3::Server,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) workers: Vec<RealWorker>,
    /// Any replica's worker API, as a Service gives it.
    _service: Link,
    pub(crate) keys: Vec<String>,
    pub(crate) join: JoinFile,
    pub(crate) audit_public: PathBuf,
    /// Of all brokers that reach it.
    pub(crate) collector: Collector,
    island: Option<Island>,
}

/// A broker, and the ways from and to it.
pub(crate) struct Replica {
    pub(crate) child: Option<Child>,
    number: usize,
    /// It is down because the test wants it to be.
    pub(crate) wanted: bool,
    pub(crate) log: PathBuf,
    pub(crate) public: Link,
    pub(crate) worker: Link,
    pub(crate) database: Link,
    pub(crate) redis: Link,
    pub(crate) storage: Link,
    listens: [SocketAddr; 3],
}

/// A supervisor, with the codec processes that it starts.
pub(crate) struct RealWorker {
    pub(crate) child: Option<Child>,
    number: usize,
    pub(crate) wanted: bool,
    started: Option<Instant>,
}

/// A worker that ended is not started again before this time, counted from its last start.
const AGAIN: Duration = Duration::from_secs(2);

impl Site {
    pub(crate) async fn start(kind: s3::Kind, real_workers: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // fsync is on, as in production; what SIGKILL leaves is what the kernel has.
        let small = ["-c", "max_wal_size=96MB", "-c", "min_wal_size=32MB"];
        let postgres = Arc::new(postgres::Server::start_in(space::small_disk(420), &small));
        let database = postgres::database_on(Arc::clone(&postgres)).await;
        let redis = redis_server::Server::start(&["--requirepass", REDIS_PASSWORD]);
        let s3 = s3::Server::start_in(space::small_disk(400), kind, false);
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("redis-password", REDIS_PASSWORD);
        write(
            "credentials",
            &format!("[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n", s3.user, s3.password),
        );
        write("database-url", &database.url());
        let broker = |args: &[&str]| {
            let out = Command::new(program("mpegflow-broker")).args(args).output().unwrap();
            assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
            String::from_utf8(out.stdout).unwrap()
        };
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        broker(&["identity", "create", "--out", &path("identity")]);
        write("audit.pub", &broker(&["audit", "key", "--out", &path("audit.key")]));
        std::fs::create_dir(dir.path().join("checkpoints")).unwrap();
        let (identity, url, data) = (path("identity"), path("database-url"), path("admin"));
        let base = ["--data", &data, "--identity", &identity, "--database-url-file", &url];
        let admin = |args: &[&str]| broker(&[&base[..], args].concat());
        let keys = TENANTS
            .iter()
            .map(|tenant| {
                let file = path(&format!("key-{tenant}"));
                admin(&["api-key", "create", "--tenant", tenant, "--out", &file]);
                std::fs::read_to_string(file).unwrap().trim().to_owned()
            })
            .collect();

        let island = space::is_own().then(Island::new);
        let mut replicas = Vec::new();
        for number in 0..REPLICAS {
            let place = if number == ISLANDER && island.is_some() { THERE } else { "127.0.0.1" };
            let listens =
                [(); 3].map(|()| format!("{place}:{}", mpegflow_test_ports::port()).parse().unwrap());
            replicas.push(Replica {
                child: None,
                number,
                wanted: true,
                log: dir.path().join(format!("broker-{number}.log")),
                public: Link::to(vec![listens[0]]).await,
                worker: Link::to(vec![listens[1]]).await,
                database: Link::to(vec![([127, 0, 0, 1], postgres.port()).into()]).await,
                redis: Link::to(vec![([127, 0, 0, 1], redis.port).into()]).await,
                storage: Link::to(vec![s3.address]).await,
                listens,
            });
        }
        let service = Link::to(replicas.iter().map(|replica| replica.worker.address()).collect()).await;
        let join = path("join");
        admin(&["join-token", "create", "--broker", &service.address().to_string(), "--out", &join]);
        let join = serde_json::from_slice(&std::fs::read(join).unwrap()).unwrap();
        let workers = (0..real_workers)
            .map(|number| RealWorker { child: None, number, wanted: true, started: None })
            .collect();
        // Whoever enrols is the real tenant's until the test says otherwise: a made-up worker must not get a real clip, nor a
        // real one what a made-up worker wrote.
        let bind = "ALTER TABLE workers ALTER COLUMN tenant SET DEFAULT";
        let mut site = Self {
            audit_public: dir.path().join("audit.pub"),
            dir,
            postgres,
            postgres_wanted: true,
            database,
            redis,
            s3,
            replicas,
            workers,
            _service: service,
            keys,
            join,
            collector: Collector::start(),
            island,
        };
        let real = site.tenant_id(REAL).await;
        site.database.execute(&format!("{bind} '{real}'")).await;
        site.tend();
        for replica in &site.replicas {
            until("a replica serves", START, || {
                std::net::TcpStream::connect_timeout(&replica.listens[0], Duration::from_secs(1)).ok()
            });
        }
        site
    }

    pub(crate) async fn tenant_id(&self, tenant: usize) -> String {
        let mut conn = self.database.connect().await;
        sqlx::query_scalar("SELECT id FROM tenants WHERE name = $1")
            .bind(TENANTS[tenant])
            .fetch_one(&mut conn)
            .await
            .unwrap()
    }

    /// Starts whatever ended and shall run, as Kubernetes does.
    pub(crate) fn tend(&mut self) {
        for n in 0..self.replicas.len() {
            let replica = &mut self.replicas[n];
            if replica.wanted && ended(&mut replica.child) {
                let child = self.broker(n).spawn().unwrap();
                self.replicas[n].child = Some(child);
            }
        }
        for worker in &mut self.workers {
            let waited = worker.started.is_none_or(|started| started.elapsed() > AGAIN);
            if worker.wanted && waited && ended(&mut worker.child) {
                worker.started = Some(Instant::now());
                let scratch = self.dir.path().join(format!("scratch-{}", worker.number));
                std::fs::create_dir_all(&scratch).unwrap();
                let child = Command::new(program("mpegflow-worker"))
                    .arg("--join")
                    .arg(self.dir.path().join("join"))
                    .arg("--scratch")
                    .arg(scratch)
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(append(&self.dir.path().join(format!("worker-{}.log", worker.number))))
                    .spawn()
                    .unwrap();
                worker.child = Some(child);
            }
        }
        if self.postgres_wanted {
            self.postgres.spawn();
        }
    }

    fn broker(&self, n: usize) -> Command {
        let replica = &self.replicas[n];
        let on_island = self.island.as_ref().filter(|_| n == ISLANDER);
        let here = if on_island.is_some() { HERE } else { "127.0.0.1" };
        let path = |name: &str| self.dir.path().join(name).to_str().unwrap().to_owned();
        let url = path(&format!("database-url-{n}"));
        let (user, port, name) = ("mpegflow", replica.database.port, &self.database.name);
        std::fs::write(
            &url,
            format!("postgres://{user}:{}@{here}:{port}/{name}?sslmode=disable", postgres::PASSWORD),
        )
        .unwrap();
        let mut line: Vec<String> = on_island.map(Island::prefix).unwrap_or_default();
        line.push(program("mpegflow-broker").to_str().unwrap().to_owned());
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]);
        command.args(["--data", &path(&format!("data-{n}")), "--identity", &path("identity")]);
        command.args(["--database-url-file", &url]);
        command.args(["--redis-url", &format!("redis://{here}:{}", replica.redis.port)]);
        command.args(["--redis-password-file", &path("redis-password")]);
        command.args(["--audit-checkpoints", &path("checkpoints"), "--audit-key", &path("audit.key")]);
        command.args([
            "--audit-interval",
            "5",
            "--rate-requests-per-second",
            "100000",
            "--rate-burst",
            "1000000",
        ]);
        command.args(["--grace", "0"]);
        if on_island.is_none() {
            command.args(["--otlp-endpoint", &self.collector.endpoint()]);
        }
        let [public, worker, metrics] = replica.listens.map(|address| address.to_string());
        command.args(["serve", "--lease", &LEASE.as_secs().to_string(), "--connection-age", "5"]);
        command.args(["--listen", &public, "--worker-listen", &worker, "--metrics-listen", &metrics]);
        command.args(["--s3-bucket", s3::BUCKET, "--s3-path-style", "--s3-prefix", "mpegflow/"]);
        command.args(["--s3-endpoint", &format!("http://{here}:{}", replica.storage.port)]);
        command.args(["--s3-credentials", &path("credentials")]);
        // One of them says all that there is to say, as far as a busy machine can bear.
        let log = if n == 0 { "debug" } else { "info,mpegflow_broker=debug" };
        command
            .env("RUST_LOG", std::env::var("CHAOS_LOG").unwrap_or_else(|_| log.into()))
            .env("NO_COLOR", "1");
        if n == TURNED && can_turn_clocks() {
            command.env("LD_PRELOAD", FAKETIME).env("FAKETIME_TIMESTAMP_FILE", self.clock_file());
            // What the broker measures durations with does not jump; what it takes for the time of day does, within a second.
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("FAKETIME_CACHE_DURATION", "1");
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(append(&replica.log));
        command
    }

    fn clock_file(&self) -> PathBuf {
        let file = self.dir.path().join("clock");
        if !file.exists() {
            std::fs::write(&file, "+0\n").unwrap();
        }
        file
    }

    /// Turns one broker's clock.
    pub(crate) fn turn_clock(&self, seconds: i64) {
        let new = self.dir.path().join("clock.new");
        std::fs::write(&new, format!("{seconds:+}\n")).unwrap();
        std::fs::rename(new, self.clock_file()).unwrap();
    }

    /// Deletes all that Redis has.
    pub(crate) fn wipe_redis(&self) {
        self.redis.cli(&["-a", REDIS_PASSWORD, "--no-auth-warning", "flushall"]);
    }

    /// How many tasks the index has.
    pub(crate) fn indexed(&self) -> Option<u64> {
        let key = "{mpegflow:default}:depth";
        self.redis.cli(&["-a", REDIS_PASSWORD, "--no-auth-warning", "hlen", key]).parse().ok()
    }

    pub(crate) fn plug(&self, state: bool) {
        if let Some(island) = &self.island {
            island.plug(state);
        }
    }

    /// Every process that PostgreSQL consists of.
    pub(crate) fn postgres_pids(&self) -> Vec<u32> {
        let Some(pid) = self.postgres.pid() else { return Vec::new() };
        let mut all = vec![pid];
        all.extend(descendants(pid).into_iter().map(|(pid, _)| pid));
        all
    }

    /// Every log there is.
    pub(crate) fn logs(&self) -> Vec<PathBuf> {
        let mut logs: Vec<PathBuf> = std::fs::read_dir(self.dir.path())
            .unwrap()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|e| e == "log"))
            .collect();
        logs.extend(
            [self.postgres.dir(), self.redis.dir.path(), self.s3.dir.path()].map(|dir| dir.join("log")),
        );
        logs
    }

    pub(crate) fn metrics_of(&self, n: usize) -> SocketAddr {
        self.replicas[n].listens[2]
    }

    /// Ends every broker well.
    pub(crate) fn end(&mut self) {
        for worker in &mut self.workers {
            worker.wanted = false;
            kill(&mut worker.child);
        }
        for replica in &mut self.replicas {
            replica.wanted = false;
            if let Some(child) = &replica.child {
                signal_pid(child.id(), "TERM");
            }
        }
        for replica in &mut self.replicas {
            let number = replica.number;
            if let Some(mut child) = replica.child.take() {
                let status = until("a broker ends", START, || child.try_wait().unwrap());
                assert!(status.success(), "broker {number} ended with {status}");
            }
        }
    }
}

impl Replica {
    pub(crate) fn links(&self) -> [&Link; 5] {
        [&self.public, &self.worker, &self.database, &self.redis, &self.storage]
    }

    pub(crate) fn signal(&self, signal: &str) {
        if let Some(child) = &self.child {
            signal_pid(child.id(), signal);
        }
    }

    pub(crate) fn kill(&mut self) {
        self.wanted = false;
        kill(&mut self.child);
    }
}

impl RealWorker {
    /// The supervisor and its codec.
    pub(crate) fn signal(&self, signal: &str) {
        if let Some(child) = &self.child {
            for (pid, _) in descendants(child.id()) {
                signal_pid(pid, signal);
            }
            signal_pid(child.id(), signal);
        }
    }

    pub(crate) fn kill(&mut self) {
        self.wanted = false;
        kill(&mut self.child);
    }

    /// Its codec alone.
    pub(crate) fn kill_codec(&self) {
        for (pid, _) in self.child.iter().flat_map(|child| descendants(child.id())) {
            signal_pid(pid, "KILL");
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            kill(&mut worker.child);
        }
        for replica in &mut self.replicas {
            kill(&mut replica.child);
        }
    }
}

/// Whether clocks can be turned here.
pub(crate) fn can_turn_clocks() -> bool {
    Path::new(FAKETIME).exists()
}

fn kill(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn ended(child: &mut Option<Child>) -> bool {
    child.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some() || !alive(child.id()))
}

fn append(path: &Path) -> std::fs::File {
    std::fs::File::options().create(true).append(true).open(path).unwrap()
}
