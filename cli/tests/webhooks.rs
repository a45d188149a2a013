//! Webhooks, waiting jobs and their logs from the command line, against a broker without workers.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, reason = "tests")]

use mpegflow_broker::embedded::{self, Config, Running};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

struct Broker {
    dir: tempfile::TempDir,
    running: Running,
    key: String,
}

async fn broker() -> Broker {
    let dir = tempfile::tempdir().unwrap();
    let running = embedded::start(Config::new(dir.path().join("data"))).await.unwrap();
    let tenant = running.ensure_tenant("a").await.unwrap();
    let key = running.create_api_key(tenant, "test").await.unwrap();
    Broker { dir, running, key }
}

impl Broker {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mpegflow"));
        command
            .args(args)
            .env("MPEGFLOW_URL", format!("http://{}", self.running.public_addr()))
            .env("MPEGFLOW_API_KEY", &self.key)
            .env("NO_COLOR", "1");
        command
    }

    async fn run(&self, args: &[&str]) -> String {
        let mut command = self.command(args);
        let out = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }
}

/// A server on this machine: its address, and each request's head and body.
fn server() -> (String, mpsc::Receiver<(String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hooks?x=1", listener.local_addr().unwrap());
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut reader = BufReader::new(socket.unwrap());
            let (mut head, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap_or(0) <= 2 {
                    break;
                }
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
                    length = value.trim().parse().unwrap();
                }
                head.push_str(&line);
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let answer = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
            reader.get_mut().write_all(answer).unwrap();
            if sender.send((head, String::from_utf8(body).unwrap())).is_err() {
                return;
            }
        }
    });
    (url, receiver)
}

#[tokio::test(flavor = "multi_thread")]
async fn listen_forwards_events_signed_with_the_secret_that_it_prints() {
    let broker = broker().await;
    let (url, got) = server();
    let mut listening = broker
        .command(&["webhooks", "listen", "--forward", &url])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(listening.stdout.take().unwrap()).lines();
    let secret = lines.next().unwrap().unwrap();
    assert!(secret.starts_with("whsec_"), "{secret}");
    let file = broker.dir.path().join("in.mp4");
    std::fs::write(&file, "x").unwrap();
    // It hears of what happens from its connection on: until that is there, a job is no message.
    let mut message = None;
    for _ in 0..40 {
        broker.run(&["jobs", "submit", file.to_str().unwrap()]).await;
        if let Ok(found) = got.recv_timeout(Duration::from_millis(500)) {
            message = Some(found);
            break;
        }
    }
    listening.kill().unwrap();
    listening.wait().unwrap();
    let (head, body) = message.unwrap();
    assert!(head.starts_with("POST /hooks?x=1 HTTP/1.1\r\n"), "{head}");
    let field = |name: &str| {
        let line = head.lines().find(|l| l.to_ascii_lowercase().starts_with(name)).unwrap();
        line.split_once(": ").unwrap().1.to_owned()
    };
    assert!(!head.to_ascii_lowercase().contains("authorization"), "the API key stays here: {head}");
    let said: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(said["type"], "job.created");
    let (id, at) = (field("webhook-id"), field("webhook-timestamp"));
    let bytes = mpegflow_broker::webhooks::secret::Secret::parse(&secret).unwrap();
    let expected = bytes.sign(id.parse().unwrap(), at.parse().unwrap(), body.as_bytes());
    assert_eq!(field("webhook-signature"), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_are_made_listed_rotated_and_deleted() {
    let broker = broker().await;
    let made = broker.run(&["webhooks", "create", "https://example.com/in", "--type", "job.failed"]).await;
    let (id, secret) = made.trim().split_once('\n').unwrap();
    assert!(id.starts_with("whk_") && secret.starts_with("whsec_"), "{made}");
    let listed = broker.run(&["webhooks", "list"]).await;
    assert!(listed.contains(id) && listed.contains("job.failed") && !listed.contains("whsec_"), "{listed}");
    let rotated = broker.run(&["webhooks", "rotate", id, "--overlap", "0"]).await;
    assert!(rotated.contains("whsec_") && !rotated.contains(secret), "{rotated}");
    assert_eq!(broker.run(&["webhooks", "deliveries", id]).await, "");
    assert!(broker.run(&["webhooks", "enable", id]).await.contains("enabled"));
    broker.run(&["webhooks", "delete", id]).await;
    assert_eq!(broker.run(&["webhooks", "list"]).await, "");
    let refused = broker.command(&["webhooks", "create", "http://10.0.0.1/"]).output().unwrap();
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(3) && told.contains("https"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_waits_says_why() {
    let broker = broker().await;
    let file = broker.dir.path().join("in.mp4");
    std::fs::write(&file, "x").unwrap();
    let id = broker.run(&["jobs", "submit", file.to_str().unwrap()]).await.trim().to_owned();
    for command in [&["jobs", "list"] as &[&str], &["jobs", "show", &id]] {
        let said = broker.run(command).await;
        assert!(said.contains("no_worker") && said.contains("pool `default`"), "{said}");
    }
    let logs = broker.run(&["jobs", "logs", &id, "--output", "json"]).await;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&logs).unwrap()["attempts"], serde_json::json!([]));
}
