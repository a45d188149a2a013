//! Real Redis servers for tests: alone, a master with a replica and Sentinels, a cluster of three masters. Nothing is assumed to
//! run; Debian's `redis-server` and `redis-sentinel` are enough.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test support")]

use mpegflow_broker::queue::redis::{RedisConfig, RedisUrl, RedisUrlSource};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// One server. Gone, with its files, when this is.
pub struct Server {
    pub dir: tempfile::TempDir,
    pub port: u16,
    settings: Vec<String>,
    guard: Option<Child>,
}

impl Server {
    pub fn start(settings: &[&str]) -> Self {
        Self::start_on(mpegflow_test_ports::port(), settings)
    }

    pub fn start_on(port: u16, settings: &[&str]) -> Self {
        let settings = settings.iter().map(|s| (*s).to_owned()).collect();
        let mut server = Self { dir: tempfile::tempdir().unwrap(), port, settings, guard: None };
        server.restart();
        server
    }

    /// Starts it again, as it was or with other settings.
    pub fn restart_with(&mut self, settings: &[&str]) {
        self.settings = settings.iter().map(|s| (*s).to_owned()).collect();
        self.restart();
    }

    pub fn restart(&mut self) {
        self.stop("KILL");
        let mut command = Command::new("redis-server");
        command.args([
            "--port",
            &self.port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        command.args(["--maxmemory-policy", "noeviction"]).arg("--dir").arg(self.dir.path());
        command.args(&self.settings);
        self.guard = Some(guarded(&command, &self.dir.path().join("log")));
        for _ in 0..2400 {
            // Any answer at all: it may want a password or TLS.
            if std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        panic!("redis did not start: {}", std::fs::read_to_string(self.dir.path().join("log")).unwrap());
    }

    pub fn pid(&self) -> u32 {
        // The shell's only child.
        let shell = self.guard.as_ref().unwrap().id();
        let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).unwrap();
        children.split_whitespace().next().unwrap().parse().unwrap()
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status().unwrap();
        assert!(sent.success());
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        self.stop("KILL");
    }

    fn stop(&mut self, _signal: &str) {
        if let Some(mut guard) = self.guard.take() {
            drop(guard.stdin.take());
            let _ = guard.wait();
        }
    }

    /// What `redis-cli` says.
    pub fn cli(&self, args: &[&str]) -> String {
        cli(self.port, args)
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn config(&self) -> RedisConfig {
        config(&self.url())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop("KILL");
    }
}

pub fn config(url: &str) -> RedisConfig {
    RedisConfig::new(RedisUrlSource::Plain(RedisUrl::parse_without_password(url).unwrap()))
}

pub fn cli(port: u16, args: &[&str]) -> String {
    let out = Command::new("redis-cli").args(["-p", &port.to_string()]).args(args).output().unwrap();
    String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).trim().to_owned()
}

pub fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1_200 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("not within 60 s: {what}");
}

/// A master, a replica, and three Sentinels that watch them.
pub struct Watched {
    pub servers: Vec<Server>,
    pub sentinels: Vec<Server>,
}

impl Watched {
    pub fn start() -> Self {
        let master = Server::start(&[]);
        let of = master.port.to_string();
        let replica = Server::start(&["--replicaof", "127.0.0.1", &of]);
        wait_for("the replica follows", || {
            replica.cli(&["info", "replication"]).contains("master_link_status:up")
        });
        let sentinels: Vec<Server> = (0..3)
            .map(|_| {
                let dir = tempfile::tempdir().unwrap();
                let port = mpegflow_test_ports::port();
                let file = dir.path().join("sentinel.conf");
                let text = format!(
                    "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor main 127.0.0.1 {of} 2\n\
                     sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 5000\n",
                    dir.path().display()
                );
                std::fs::write(&file, text).unwrap();
                let mut command = Command::new("redis-server");
                command.arg(file).arg("--sentinel");
                let guard = Some(guarded(&command, &dir.path().join("log")));
                Server { dir, port, settings: Vec::new(), guard }
            })
            .collect();
        for sentinel in &sentinels {
            wait_for("the sentinels know each other and the replica", || {
                let said = sentinel.cli(&["sentinel", "master", "main"]);
                let value = |name: &str| said.lines().skip_while(|l| *l != name).nth(1).map(str::to_owned);
                value("num-other-sentinels").as_deref() == Some("2")
                    && value("num-slaves").as_deref() == Some("1")
            });
        }
        Self { servers: vec![master, replica], sentinels }
    }

    pub fn url(&self) -> String {
        let hosts: Vec<String> = self.sentinels.iter().map(|s| format!("127.0.0.1:{}", s.port)).collect();
        format!("redis+sentinel://{}/main", hosts.join(","))
    }
}

/// Three masters that share the slots.
pub struct Cluster {
    pub servers: Vec<Server>,
}

impl Cluster {
    pub fn start() -> Self {
        let settings = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"];
        let servers: Vec<Server> = (0..3).map(|_| Server::start(&settings)).collect();
        let hosts: Vec<String> = servers.iter().map(|s| format!("127.0.0.1:{}", s.port)).collect();
        let made = Command::new("redis-cli")
            .args(["--cluster", "create"])
            .args(&hosts)
            .args(["--cluster-replicas", "0", "--cluster-yes"])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
        for server in &servers {
            wait_for("the cluster is one", || server.cli(&["cluster", "info"]).contains("cluster_state:ok"));
        }
        Self { servers }
    }

    pub fn url(&self) -> String {
        let hosts: Vec<String> = self.servers.iter().map(|s| format!("127.0.0.1:{}", s.port)).collect();
        format!("redis+cluster://{}", hosts.join(","))
    }
}

/// Starts a program behind a shell that kills it when our end of a pipe closes: also when the tests are killed. SIGKILL, which
/// ends one that is stopped, too.
fn guarded(program: &Command, log: &std::path::Path) -> Child {
    let log = std::fs::File::create(log).unwrap();
    Command::new("sh")
        .args(["-c", r#""$@" & p=$!; read -r _; kill -KILL "$p"; wait "$p""#, "sh"])
        .arg(program.get_program())
        .args(program.get_args())
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}
