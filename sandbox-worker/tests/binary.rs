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
