//! A real PostgreSQL server for tests: one for each test binary while a test uses it, one database for each test. Nothing is
//! assumed to run; Debian's `postgresql` package is enough.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test support")]

use mpegflow_broker::store::postgres::{DatabaseConfig, DatabaseUrl, PostgresStore, UrlSource};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

/// Password of the owner, who is also who the tests connect as over TCP.
pub const PASSWORD: &str = "swordfish";

/// A running server. Gone, with its files, when the last test that holds it ends.
pub struct Server {
    dir: tempfile::TempDir,
    port: u16,
    account: Option<(u32, u32)>,
    settings: Vec<String>,
    guard: Mutex<Option<Child>>,
    databases: AtomicU32,
}

impl Server {
    /// The server that the tests of this binary share.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = shared.upgrade() {
            return server;
        }
        let server = Arc::new(Self::start(&["-c", "fsync=off", "-c", "full_page_writes=off"]));
        *shared = Arc::downgrade(&server);
        server
    }

    /// A server of one's own, with more settings.
    pub fn start(settings: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), settings)
    }

    /// The same, in a folder that a test has prepared.
    pub fn start_in(dir: tempfile::TempDir, settings: &[&str]) -> Self {
        let account = account();
        if let Some((uid, gid)) = account {
            std::os::unix::fs::chown(dir.path(), Some(uid), Some(gid)).unwrap();
        }
        std::fs::write(dir.path().join("password"), PASSWORD).unwrap();
        let made = as_account(account, &binary("initdb"))
            .args(["--auth-local=trust", "--auth-host=scram-sha-256", "--username=mpegflow", "--no-sync"])
            .args(["--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions"])
            .arg("--pwfile")
            .arg(dir.path().join("password"))
            .arg("-D")
            .arg(dir.path().join("data"))
            .current_dir("/")
            .output()
            .unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let port = mpegflow_test_ports::port();
        let settings = settings.iter().map(|s| (*s).to_owned()).collect();
        let guard = Mutex::new(None);
        let server = Self { dir, port, account, settings, guard, databases: AtomicU32::new(0) };
        server.spawn();
        server.wait();
        server
    }

    fn wait(&self) {
        for _ in 0..600 {
            if self.answers() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        panic!("the server did not start within 30 s:\n{log}");
    }

    /// Whether it takes connections.
    pub fn answers(&self) -> bool {
        let mut ask = Command::new(binary("pg_isready"));
        ask.args(["-q", "-t", "1", "-p", &self.port.to_string()]).arg("-h").arg(self.dir.path());
        ask.status().unwrap().success()
    }

    /// Starts it, where it does not run; it recovers what a crash left. Who wants to know when it answers asks.
    pub fn spawn(&self) {
        let mut guard = self.guard.lock().unwrap_or_else(PoisonError::into_inner);
        if guard.as_ref().and_then(postmaster).is_none() {
            if let Some(mut guard) = guard.take() {
                drop(guard.stdin.take());
                let _ = guard.wait();
            }
            *guard = Some(serve(self.dir.path(), self.port, self.account, &self.settings));
        }
    }

    /// SIGKILL for the postmaster; its children notice and end.
    pub fn kill(&self) {
        let mut guard = self.guard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut guard) = guard.take() {
            if let Some(pid) = postmaster(&guard) {
                let _ = Command::new("kill").arg("-KILL").arg(pid.to_string()).status();
            }
            drop(guard.stdin.take());
            let _ = guard.wait();
        }
    }

    /// The folder of its socket, and of whatever a test puts beside it.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The postmaster, where it runs, for tests that pause it.
    pub fn pid(&self) -> Option<u32> {
        self.guard.lock().unwrap_or_else(PoisonError::into_inner).as_ref().and_then(postmaster)
    }

    /// A signal for every process that it consists of.
    pub fn signal(&self, name: &str) {
        let Some(pid) = self.pid() else { return };
        let children =
            std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        for pid in std::iter::once(pid.to_string()).chain(children.split_whitespace().map(str::to_owned)) {
            // One of them may just have ended.
            let _ = Command::new("kill").arg(format!("-{name}")).arg(pid).stderr(Stdio::null()).status();
        }
    }

    /// Puts a file where the server can read it, and nobody else.
    pub fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        if let Some((uid, gid)) = self.account {
            std::os::unix::fs::chown(&path, Some(uid), Some(gid)).unwrap();
        }
        path
    }

    /// Runs statements in a database as its owner.
    pub async fn execute(&self, database: &str, sql: &str) {
        let mut conn = self.connect(database).await;
        conn.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
        conn.close().await.unwrap();
    }

    /// A connection as the owner, over the socket.
    pub async fn connect(&self, database: &str) -> PgConnection {
        let options = sqlx::postgres::PgConnectOptions::new_without_pgpass()
            .socket(self.dir.path())
            .port(self.port)
            .username("mpegflow")
            .database(database);
        PgConnection::connect_with(&options).await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The guard hears that its input ends, ends the server, and then itself.
        if let Some(guard) = self.guard.get_mut().unwrap_or_else(PoisonError::into_inner) {
            drop(guard.stdin.take());
            let _ = guard.wait();
        }
    }
}

/// The guard's only child, where it is alive.
fn postmaster(guard: &Child) -> Option<u32> {
    let shell = guard.id();
    let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).ok()?;
    let pid = children.split_whitespace().next()?.parse().ok()?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    (!stat.rsplit(')').next()?.trim_start().starts_with('Z')).then_some(pid)
}

fn serve(dir: &Path, port: u16, account: Option<(u32, u32)>, settings: &[String]) -> Child {
    let mut server = as_account(account, &binary("postgres"));
    server.arg("-D").arg(dir.join("data")).arg("-k").arg(dir).args(["-p", &port.to_string()]);
    for setting in ["listen_addresses=127.0.0.1", "shared_buffers=64MB", "max_connections=200", "jit=off"] {
        server.args(["-c", setting]);
    }
    server.args(settings);
    guarded(&server, &dir.join("log"), "QUIT")
}

/// Starts a program behind a shell that ends it with a signal when our end of a pipe closes: also when the tests are killed.
fn guarded(program: &Command, log: &Path, signal: &str) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
    Command::new("sh")
        .args(["-c", r#"signal=$1; shift; "$@" & p=$!; read -r _; kill -"$signal" "$p"; wait "$p""#])
        .args(["sh", signal])
        .arg(program.get_program())
        .args(program.get_args())
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// PgBouncer in transaction mode before the server, with fewer server connections than clients have.
pub struct Pooler {
    server: Arc<Server>,
    port: u16,
    guard: Child,
}

impl Pooler {
    pub fn start(server: &Arc<Server>) -> Self {
        let program = Path::new("/usr/sbin/pgbouncer");
        assert!(program.exists(), "PgBouncer is not installed: run tools/setup test");
        let port = mpegflow_test_ports::port();
        let dir = server.dir.path().display();
        server.put("users.txt", b"\"mpegflow\" \"\"\n");
        let config = format!(
            "[databases]\n* = host={dir} port={server_port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = trust\nauth_file = {dir}/users.txt\npool_mode = transaction\n\
             default_pool_size = 3\nmax_client_conn = 100\n",
            server_port = server.port
        );
        let config = server.put("pgbouncer.ini", config.as_bytes());
        let mut pooler = as_account(server.account, program);
        pooler.arg("-q").arg(config);
        let guard = guarded(&pooler, &server.dir.path().join("pgbouncer.log"), "TERM");
        let pooler = Self { server: Arc::clone(server), port, guard };
        let answers = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        for _ in 0..1200 {
            if answers() {
                return pooler;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("the pooler did not start within 10 s");
    }

    pub fn url(&self, database: &str) -> String {
        format!("postgres://mpegflow@127.0.0.1:{}/{database}?sslmode=disable&pooler=transaction", self.port)
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

/// Who the server runs as: it refuses to run as root.
fn account() -> Option<(u32, u32)> {
    let id = |args: &[&str]| {
        let out = Command::new("id").args(args).output().unwrap();
        String::from_utf8(out.stdout).unwrap().trim().parse::<u32>().ok()
    };
    if id(&["-u"]) != Some(0) {
        return None;
    }
    ["postgres", "nobody"].iter().find_map(|name| Some((id(&["-u", name])?, id(&["-g", name])?)))
}

fn as_account(account: Option<(u32, u32)>, program: &Path) -> Command {
    let Some((uid, gid)) = account else { return Command::new(program) };
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".into(), "--".into()]);
    command.arg(program);
    command
}

/// A program of the newest installed version.
fn binary(name: &str) -> PathBuf {
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| Some((e.file_name().to_str()?.parse().ok()?, e.path().join("bin").join(name))))
        .filter(|(_, path)| path.exists())
        .collect();
    versions.sort();
    versions.pop().expect("PostgreSQL is not installed: run tools/setup test").1
}

/// An empty database of its own.
pub struct Database {
    pub name: String,
    pub server: Arc<Server>,
}

/// An empty database on the shared server.
pub async fn database() -> Database {
    database_on(Server::shared()).await
}

/// An empty database on a server of one's own.
pub async fn database_on(server: Arc<Server>) -> Database {
    let name = format!("test_{}", server.databases.fetch_add(1, Ordering::Relaxed));
    server.execute("postgres", &format!("CREATE DATABASE {name}")).await;
    Database { name, server }
}

impl Database {
    /// Over the socket, without a password.
    pub fn url(&self) -> String {
        format!(
            "postgres://mpegflow@:{}/{}?host={}",
            self.server.port,
            self.name,
            self.server.dir.path().display()
        )
    }

    pub fn config(&self) -> DatabaseConfig {
        DatabaseConfig::new(UrlSource::Plain(DatabaseUrl::parse(&self.url()).unwrap()))
    }

    /// A store with a pool of its own, on the database's time: what one broker has.
    pub async fn store(&self) -> PostgresStore {
        PostgresStore::open(self.config()).await.unwrap()
    }

    /// Runs statements as the owner of the tables.
    pub async fn execute(&self, sql: &str) {
        self.server.execute(&self.name, sql).await;
    }

    pub async fn connect(&self) -> PgConnection {
        self.server.connect(&self.name).await
    }
}
