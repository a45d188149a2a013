//! The configuration, as whoever starts the real binary meets it.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::path::Path;
use std::process::{Command, Output};

fn broker(args: &[&str], env: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mpegflow-broker"))
        .args(args)
        .env_clear()
        .envs(env.iter().copied())
        .current_dir("/")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn file(dir: &Path, text: &str) -> String {
    let path = dir.join("broker.toml");
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn check_config_prints_what_all_layers_come_to_and_where_each_value_is_from() {
    let dir = tempfile::tempdir().unwrap();
    let password = dir.path().join("password");
    std::fs::write(&password, "swordfish").unwrap();
    let path = file(
        dir.path(),
        &format!(
            "[database]\nurl = \"postgres://u@db.example/d\"\npassword_file = \"{}\"\nconnections = 7\n[public]\nlisten = \"0.0.0.0:80\"\n",
            password.display()
        ),
    );
    let env = [("MPEGFLOW_BROKER_DATABASE_CONNECTIONS", "8"), ("MPEGFLOW_S3_REGION", "eu-west-1")];
    let flags = ["--lease", "20", "--public-connections", "4096"];
    let done = broker(&[&["--config", &path, "--check-config"][..], &flags[..]].concat(), &env);
    let (out, err) = (text(&done.stdout), text(&done.stderr));
    assert_eq!(done.status.code(), Some(0), "{err}");
    let line = |start: &str| {
        out.lines().find(|l| l.starts_with(start)).unwrap_or_else(|| panic!("{start}: {out}")).to_owned()
    };
    assert!(line("connections = 8").ends_with("# environment MPEGFLOW_BROKER_DATABASE_CONNECTIONS"));
    assert!(line("lease = \"20s\"").ends_with("# --lease"));
    assert!(line("connections = 4096").ends_with("# --public-connections"));
    assert!(line("connections = 1024").ends_with("# default"));
    assert!(line("listen = \"0.0.0.0:80\"").ends_with("broker.toml:6"));
    assert!(line("region = \"eu-west-1\"").ends_with("# environment MPEGFLOW_S3_REGION"));
    assert!(line("data = ").ends_with("# default"));
    assert!(line("password_file = ").contains("from this file"));
    assert!(!out.contains("swordfish") && !err.contains("swordfish"));
    // The file by the environment, and flags behind the subcommand as ever.
    let done =
        broker(&["serve", "--listen", "127.0.0.1:1", "--check-config"], &[("MPEGFLOW_BROKER_CONFIG", &path)]);
    assert!(text(&done.stdout).contains("listen = \"127.0.0.1:1\""), "{}", text(&done.stderr));
}

#[test]
fn everything_that_is_wrong_is_told_at_once_by_check_config_and_by_serve() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(
        dir.path(),
        "[databse]\nurl = \"x\"\n[database]\nurl = \"postgres://u:swordfish@db/d\"\n[worker]\nlease = \"1h\"\nconnections = 100\n[s3]\nkms_key = \"k\"\n",
    );
    for command in ["--check-config", "serve"] {
        let done = broker(&["--config", &path, command], &[("MPEGFLOW_BROKER_PUBLIC_LISTN", "x")]);
        assert_eq!(done.status.code(), Some(2));
        let err = text(&done.stderr);
        for part in [
            "broker.toml:1: there is no key `databse",
            "broker.toml:4: database.url: the password belongs into a file",
            "broker.toml:6: worker.lease: it is no time from 2s to 10m",
            "broker.toml:7: worker.connections: it is no number from 128 to 65536",
            "broker.toml:9: s3.kms_key needs s3.bucket",
            "MPEGFLOW_BROKER_PUBLIC_LISTN: there is no such key; did you mean `MPEGFLOW_BROKER_PUBLIC_LISTEN`?",
        ] {
            assert!(err.contains(part), "{part}: {err}");
        }
        assert!(!err.contains("swordfish"), "{err}");
        assert!(done.stdout.is_empty());
    }
}

#[test]
fn files_with_secrets_are_tried_before_the_broker_is_started_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(
        dir.path(),
        "[database]\nurl_file = \"/nowhere/url\"\n[s3]\nbucket = \"media\"\ncredentials = \"/nowhere/credentials\"\n[webhooks]\nca = \"/nowhere/ca.pem\"\n",
    );
    let done = broker(&["--config", &path, "--check-config"], &[]);
    let err = text(&done.stderr);
    assert_eq!(done.status.code(), Some(2), "{err}");
    for part in ["database: cannot read /nowhere/url", "s3: ", "webhooks.ca: "] {
        assert!(err.contains(part), "{part}: {err}");
    }
    assert!(!Path::new("/mpegflow-data").exists(), "it makes nothing");
}

#[test]
fn without_a_command_it_says_what_there_is() {
    let done = broker(&[], &[]);
    assert_eq!(done.status.code(), Some(2));
    assert!(text(&done.stderr).contains("serve"));
}

#[test]
fn the_log_is_one_json_object_a_line_where_that_is_asked_for() {
    use std::io::BufRead as _;
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_mpegflow-broker"))
        .args(["--data", &dir.path().join("data").display().to_string(), "--log-format", "json", "serve"])
        .args(["--listen", "127.0.0.1:0", "--worker-listen", "127.0.0.1:0"])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(child.stderr.take().unwrap()).lines();
    let serving = lines
        .by_ref()
        .map(|line| serde_json::from_str::<serde_json::Value>(&line.unwrap()).unwrap())
        .find(|line| line["message"] == "serving");
    child.kill().unwrap();
    child.wait().unwrap();
    let serving = serving.unwrap();
    assert_eq!(serving["level"], "INFO");
    assert!(serving["public"].as_str().unwrap().starts_with("127.0.0.1:"), "{serving}");
    assert!(serving["timestamp"].is_string());
}
