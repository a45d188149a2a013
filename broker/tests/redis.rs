//! The index on real Redis servers: the suite of every queue, alone, behind Sentinel and in a cluster, and who may see what.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs,
    reason = "tests"
)]

#[path = "support/redis.rs"]
mod redis_server;

use mpegflow_broker::conformance;
use mpegflow_broker::model::{ReadyTask, Time};
use mpegflow_broker::queue::redis::{RedisQueue, broker_user, keda_user};
use mpegflow_broker::queue::{Queue, RunningTask, Take};
use mpegflow_protocol::ids::{PoolName, TaskId, TenantId};
use redis_server::{Cluster, Server, Watched, config};
use std::time::Duration;

fn ready(task: u128) -> ReadyTask {
    ReadyTask {
        task: TaskId::from_u128(task),
        tenant: TenantId::from_u128(1),
        pool: PoolName::default(),
        priority: 5,
        not_before: Time(0),
    }
}

async fn take(queue: &RedisQueue) -> Option<TaskId> {
    match queue.take(&PoolName::default(), None, Time(1_000)).await {
        Ok(Take::Task(task)) => Some(task.task),
        _ => None,
    }
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..600 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("not within 60 s: {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_server_is_a_queue() {
    let server = Server::start(&[]);
    conformance::queue::all(&RedisQueue::new(server.config())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_a_queue() {
    let cluster = Cluster::start();
    conformance::queue::all(&RedisQueue::new(config(&cluster.url()))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_master_behind_sentinels_is_a_queue_and_the_next_one_after_it() {
    let mut watched = Watched::start();
    let queue = RedisQueue::new(config(&watched.url()));
    conformance::queue::all(&queue).await;
    queue.offer(&[ready(1)], Time(0)).await.unwrap();
    watched.servers[0].kill();
    eventually("another master takes over", async || queue.offer(&[ready(2)], Time(0)).await.is_ok()).await;
    eventually("and gives tasks", async || take(&queue).await.is_some()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_takes_first_among_many_brokers_has_the_task_alone() {
    let server = Server::start(&[]);
    let queues: Vec<_> = (0..4).map(|_| std::sync::Arc::new(RedisQueue::new(server.config()))).collect();
    let tasks: Vec<_> = (0..1_000).map(ready).collect();
    queues[0].offer(&tasks, Time(0)).await.unwrap();
    let takers = queues.iter().map(|queue| {
        let queue = std::sync::Arc::clone(queue);
        tokio::spawn(async move {
            let mut taken = Vec::new();
            while let Some(task) = take(&queue).await {
                taken.push(task);
            }
            taken
        })
    });
    let mut taken: Vec<TaskId> = Vec::new();
    for taker in takers.collect::<Vec<_>>() {
        taken.extend(taker.await.unwrap());
    }
    taken.sort_unstable();
    assert_eq!(taken, tasks.iter().map(|t| t.task).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_of_one_broker_wakes_the_polls_of_another() {
    let server = Server::start(&[]);
    let (one, other) = (RedisQueue::new(server.config()), RedisQueue::new(server.config()));
    let mut heard = other.watch();
    // The subscription itself is the first change.
    tokio::time::timeout(Duration::from_secs(10), heard.changed()).await.unwrap().unwrap();
    one.offer(&[ready(1)], Time(0)).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), heard.changed()).await.unwrap().unwrap();
}

/// What KEDA's redis trigger runs (kedacore/keda, pkg/scalers/redis_scaler.go).
const KEDA: &str = "local listType = redis.call('type', KEYS[1]).ok \
    local cmd = {zset = 'zcard', set = 'scard', list = 'llen', hash = 'hlen', none = 'llen'} \
    return redis.call(cmd[listType], KEYS[1])";

#[tokio::test(flavor = "multi_thread")]
async fn keda_reads_queued_and_running_and_its_account_sees_nothing_else() {
    let server = Server::start(&[]);
    let pool = PoolName::default();
    let set = |name: &str, rules: Vec<String>| {
        let mut args = vec!["acl", "setuser", name];
        args.extend(rules.iter().map(String::as_str));
        assert_eq!(server.cli(&args), "OK");
    };
    set("keda", keda_user("mpegflow", &pool, "scale"));
    set("broker", broker_user("mpegflow", "lease"));
    set("default", vec!["off".into()]);

    // The brokers' account does all of a queue's work.
    let dir = tempfile::tempdir().unwrap();
    let password = dir.path().join("password");
    std::fs::write(&password, "lease\n").unwrap();
    let mut config = config(&format!("redis://broker@127.0.0.1:{}", server.port));
    config.password_file = Some(password);
    let queue = RedisQueue::new(config);
    conformance::queue::all(&queue).await;
    queue.offer(&[ready(1), ready(2), ready(3)], Time(0)).await.unwrap();
    assert!(take(&queue).await.is_some());

    let keda = |args: &[&str]| {
        let mut all = vec!["--user", "keda", "--pass", "scale", "--no-auth-warning"];
        all.extend(args);
        server.cli(&all)
    };
    let depth = "{mpegflow:default}:depth";
    assert_eq!(keda(&["eval", KEDA, "1", depth]), "3", "two wait, one runs");
    let ended = RunningTask { task: TaskId::from_u128(1), tenant: TenantId::from_u128(1), pool };
    queue.settled(&ended, None, Time(0)).await.unwrap();
    assert_eq!(keda(&["eval", KEDA, "1", depth]), "2");

    queue.remove(None, &[TaskId::from_u128(2), TaskId::from_u128(3)]).await.unwrap();
    assert_eq!(keda(&["eval", KEDA, "1", depth]), "0", "a key that is not there");
    sees_only_the_depth(&server, ("keda", "scale"));
    is_no_administrator(&server, ("broker", "lease"));
}

fn as_user(server: &Server, (user, password): (&str, &str), args: &[&str]) -> String {
    let mut all = vec!["--user", user, "--pass", password, "--no-auth-warning"];
    all.extend(args);
    server.cli(&all)
}

fn refused(answer: String) {
    let words = ["NOPERM", "No permissions", "no permissions", "can't run", "can't access"];
    assert!(words.iter().any(|word| answer.contains(word)), "{answer}");
}

/// KEDA's account: the length of one key, and nothing else.
fn sees_only_the_depth(server: &Server, keda: (&str, &str)) {
    let depth = "{mpegflow:default}:depth";
    for args in [
        &["hgetall", depth][..],
        &["hset", depth, "a", "b"],
        &["del", depth],
        &["type", "{mpegflow:default}:ready"],
        &["eval", KEDA, "1", "{mpegflow:gpu}:depth"],
        &["eval", "return redis.call('hgetall', KEYS[1])", "1", depth],
        &["eval", "return redis.call('hset', KEYS[1], 'a', 'b')", "1", depth],
        &["eval", "return redis.call('keys', '*')", "0"],
        &["keys", "*"],
        &["flushall"],
        &["config", "get", "*"],
        &["acl", "list"],
        &["subscribe", "mpegflow:wake"],
        &["publish", "mpegflow:wake", ""],
    ] {
        refused(as_user(server, keda, args));
    }
}

/// The brokers' own account does the queue's work, and that alone.
fn is_no_administrator(server: &Server, broker: (&str, &str)) {
    for args in [
        &["flushall"][..],
        &["config", "get", "*"],
        &["keys", "*"],
        &["set", "other", "1"],
        &["hget", "other", "1"],
    ] {
        refused(as_user(server, broker, args));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_acl_file_that_is_printed_is_one_that_redis_takes_and_nobody_else_gets_in() {
    let printed = |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_mpegflow-broker"));
        let output = command.args(args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    // As the guide says: print it, and put passwords in place of PASSWORD.
    let text = printed(&["redis-acl", "--file"]);
    let text = text.replacen("PASSWORD", "lease", 1).replacen("PASSWORD", "scale", 1);
    assert!(!text.contains("PASSWORD"), "{text}");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("users.acl");
    std::fs::write(&file, text).unwrap();
    let server = Server::start(&["--aclfile", file.to_str().unwrap()]);
    let password = dir.path().join("password");
    std::fs::write(&password, "lease\n").unwrap();
    let mut config = config(&format!("redis://mpegflow-broker@127.0.0.1:{}", server.port));
    config.password_file = Some(password);
    let queue = RedisQueue::new(config);
    eventually("the broker signs in", async || queue.offer(&[ready(1), ready(2)], Time(0)).await.is_ok())
        .await;
    let keda = ("mpegflow-keda-default", "scale");
    assert_eq!(as_user(&server, keda, &["eval", KEDA, "1", "{mpegflow:default}:depth"]), "2");
    sees_only_the_depth(&server, keda);
    is_no_administrator(&server, ("mpegflow-broker", "lease"));
    // Without an account nobody is anybody, and each password is good for its own account.
    assert!(server.cli(&["ping"]).contains("NOAUTH"), "{}", server.cli(&["ping"]));
    for (user, password) in
        [("mpegflow-broker", "scale"), ("mpegflow-keda-default", "lease"), ("default", "")]
    {
        let answer = as_user(&server, (user, password), &["ping"]);
        assert!(
            answer.contains("WRONGPASS") || answer.contains("NOAUTH") || answer.contains("invalid"),
            "{user}: {answer}"
        );
    }
    // The same as commands, for a Redis that somebody else manages.
    let commands = printed(&["redis-acl", "--pool", "gpu"]);
    assert!(commands.lines().all(|line| line.starts_with("ACL SETUSER mpegflow-")), "{commands}");
    assert!(
        commands.contains("{mpegflow:gpu}:depth") && !commands.contains("{mpegflow:default}:depth"),
        "{commands}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_password_and_a_moved_server_need_no_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (url, password) = (dir.path().join("url"), dir.path().join("password"));
    let mut first = Server::start(&["--requirepass", "one"]);
    std::fs::write(&url, first.url()).unwrap();
    std::fs::write(&password, "one").unwrap();
    let mut config = config("redis://unused");
    config.url = mpegflow_broker::queue::redis::RedisUrlSource::File(url.clone());
    config.password_file = Some(password.clone());
    let queue = RedisQueue::new(config);
    eventually("the server answers", async || queue.offer(&[ready(1)], Time(0)).await.is_ok()).await;

    first.restart_with(&["--requirepass", "two"]);
    eventually("the old password is refused", async || {
        queue.offer(&[ready(1)], Time(0)).await.is_err_and(|e| !format!("{e:?}").contains("one"))
    })
    .await;
    std::fs::write(&password, "two").unwrap();
    eventually("the new one is read", async || queue.offer(&[ready(1)], Time(0)).await.is_ok()).await;

    let second = Server::start(&["--requirepass", "two"]);
    std::fs::write(&url, second.url()).unwrap();
    first.kill();
    eventually("the new address is read", async || queue.offer(&[ready(1)], Time(0)).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_costs_callers_a_moment_and_then_nothing() {
    let server = Server::start(&[]);
    let queue = RedisQueue::new(server.config());
    queue.offer(&[ready(1)], Time(0)).await.unwrap();
    server.signal("STOP");
    assert!(queue.offer(&[ready(2)], Time(0)).await.is_err());
    // While it hangs, most calls are not even tried.
    let mut at_once = 0;
    for _ in 0..50 {
        let asked = std::time::Instant::now();
        assert!(queue.depth().await.is_err());
        at_once += u32::from(asked.elapsed() < Duration::from_millis(100));
    }
    assert!(at_once >= 40, "{at_once}");
    server.signal("CONT");
    eventually("it goes on", async || take(&queue).await == Some(TaskId::from_u128(1))).await;
}

/// An authority, and a key with its certificate for this machine: PEM files in the folder.
fn authority(dir: &std::path::Path) -> [std::path::PathBuf; 3] {
    let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let leaf = rcgen::CertificateParams::new(names).unwrap().signed_by(&key, &ca).unwrap();
    let files = ["ca.pem", "server.pem", "server.key"].map(|name| dir.join(name));
    for (file, text) in files.iter().zip([ca.pem(), leaf.pem(), key.serialize_pem()]) {
        std::fs::write(file, text).unwrap();
    }
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_trusts_the_authority_that_is_named_and_no_other() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let [ca, certificate, key] = authority(dir.path());
    let [wrong, ..] = authority(other.path());
    let port = mpegflow_test_ports::port().to_string();
    let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let settings = [
        ["--tls-port".to_owned(), port.clone()],
        ["--tls-cert-file".to_owned(), text(&certificate)],
        ["--tls-key-file".to_owned(), text(&key)],
        ["--tls-ca-cert-file".to_owned(), text(&ca)],
        ["--tls-auth-clients".to_owned(), "no".to_owned()],
    ];
    let settings: Vec<&str> = settings.iter().flatten().map(String::as_str).collect();
    let server = Server::start(&settings);
    let mut config = config(&format!("rediss://127.0.0.1:{port}"));
    for (named, trusted) in [(Some(ca), true), (Some(wrong), false), (None, false)] {
        config.ca_file = named;
        let queue = RedisQueue::new(config.clone());
        let offered = queue.offer(&[ready(1)], Time(0)).await;
        assert_eq!(offered.is_ok(), trusted, "{offered:?}");
    }
    assert_eq!(server.cli(&["hlen", "{mpegflow:default}:depth"]), "1");
}
