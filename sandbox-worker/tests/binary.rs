//! The binary as an operator meets it: its help, and what its exit codes say.
#![allow(clippy::unwrap_used, reason = "test helpers")]

use std::process::{Command, Output};

fn worker(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mpegflow-worker"))
        .args(args)
        .env_remove("MPEGFLOW_LOG")
        .output()
        .unwrap()
}

#[test]
fn help_shows_an_example_and_the_exit_codes() {
    let help = worker(&["--help"]);
    let text = String::from_utf8(help.stdout).unwrap();
    assert!(help.status.success());
    for part in ["Example:", "--join /run/mpegflow/join.json", "Exit codes:", "130", "--codec", "--grace"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn what_cannot_be_used_is_named_and_ends_with_3() {
    let folder = tempfile::tempdir().unwrap();
    let join = folder.path().join("join.json");
    let join = join.to_str().unwrap();
    for (content, codec, says) in [
        (None, "/bin/true", "reading"),
        (Some("{}"), "/bin/true", "missing field `broker`"),
        (
            Some(r#"{"broker":"b:1","server_name":"b","ca":"","token":"hush-hush","pool":"p"}"#),
            "/bin/true",
            "`ca`",
        ),
        (Some("{}"), "/nonexistent/codec", "/nonexistent/codec"),
        (Some("{}"), "/", "is not a file"),
    ] {
        if let Some(content) = content {
            std::fs::write(join, content).unwrap();
        }
        let ended = worker(&["--join", join, "--codec", codec, "--log", "json"]);
        let log = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(3), "{log}");
        assert!(log.contains(says), "{says}: {log}");
        assert!(!log.contains("hush-hush"), "{log}");
    }
    assert_eq!(worker(&["--no-such-flag"]).status.code(), Some(2));
}

#[test]
fn a_canary_writes_what_it_saw_where_it_is_told_and_needs_neither_token_nor_codec() {
    let folder = tempfile::tempdir().unwrap();
    let (join, report) = (folder.path().join("join.json"), folder.path().join("termination-log"));
    let broker_listens = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (broker, closed) = (broker_listens.local_addr().unwrap(), mpegflow_test_ports::address());
    let key = rcgen::KeyPair::generate().unwrap();
    let ca = rcgen::CertificateParams::default().self_signed(&key).unwrap().pem();
    let file = mpegflow_protocol::worker::JoinFile {
        broker: broker.to_string(),
        server_name: "mpegflow-broker".into(),
        ca,
        token: String::new(),
        token_file: Some("token".into()),
        pool: "default".parse().unwrap(),
        storage: Vec::new(),
        unreachable: vec![mpegflow_protocol::worker::ProbeTarget { name: "closed".into(), address: closed }],
    };
    std::fs::write(&join, mpegflow_protocol::to_json(&file)).unwrap();
    std::fs::write(&report, "").unwrap();
    let args =
        ["--join", join.to_str().unwrap(), "--canary", report.to_str().unwrap(), "--node", "127.0.0.1"];
    let ended = worker(&args);
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let text = std::fs::read(&report).unwrap();
    let report: mpegflow_protocol::canary::Report =
        mpegflow_protocol::from_json("report", &text, 4096).unwrap();
    let refused = mpegflow_protocol::canary::Outcome::Refused;
    assert_eq!((report.broker, report.node), (true, refused));
    assert_eq!(report.looks, [mpegflow_protocol::canary::Look { at: closed, is: refused }]);
    drop(broker_listens);
    // It is a canary or a worker, and never without its node.
    for more in [&["--identity", "/run/identity"][..], &["--codec", "/bin/true"]] {
        assert_eq!(worker(&[&args[..], more].concat()).status.code(), Some(2), "{more:?}");
    }
    assert_eq!(worker(&args[..4]).status.code(), Some(2));
}
