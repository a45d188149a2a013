//! Processes that mpegflow starts do not outlive it.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const MPEGFLOW: &str = env!("CARGO_BIN_EXE_mpegflow");

fn within(time: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < time {
        if holds() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

/// The program a process runs; `None` once it is gone or a zombie.
fn runs(pid: &str) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned()
    };
    (!field("State:").starts_with('Z')).then(|| field("Name:"))
}

#[test]
fn a_worker_dies_with_its_parent_even_when_that_is_killed() {
    let mut parent = Command::new("sh")
        .args(["-c", "\"$0\" become-worker $$ /bin/sleep 300 & echo $!; wait", MPEGFLOW])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pid = String::new();
    BufReader::new(parent.stdout.take().unwrap()).read_line(&mut pid).unwrap();
    let pid = pid.trim();
    assert!(
        within(Duration::from_secs(10), || runs(pid).as_deref() == Some("sleep")),
        "it became the worker"
    );
    parent.kill().unwrap();
    parent.wait().unwrap();
    assert!(within(Duration::from_secs(5), || runs(pid).is_none()), "it died with its parent");
}

#[test]
fn a_worker_whose_parent_is_already_gone_does_not_start() {
    let out = Command::new(MPEGFLOW).args(["become-worker", "1", "/bin/echo", "started"]).output().unwrap();
    assert!(!out.status.success() && out.stdout.is_empty());
}

#[test]
fn errors_name_the_way_out_and_the_exit_code_says_whose_fault_it_was() {
    let dir = std::env::temp_dir();
    let run = |args: &[&str]| {
        let out = Command::new(MPEGFLOW).args(args).current_dir(&dir).env("NO_COLOR", "1").output().unwrap();
        (out.status.code().unwrap(), String::from_utf8(out.stderr).unwrap())
    };
    let (code, text) = run(&["presets", "--url", "http://127.0.0.1:9"]);
    assert!(code == 4 && text.contains("http://127.0.0.1:9") && text.contains("mpegflow serve"), "{text}");
    let (code, text) = run(&["transcode", "/nonexistent.mp4", "--out", "never-made"]);
    assert!(code == 3 && text.contains("/nonexistent.mp4"), "{text}");
    let (code, text) = run(&["--output", "json", "presets", "--url", "nowhere"]);
    let error: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, error["error"]["code"].as_str()), (2, Some("usage")));
    assert!(!text.contains('\u{1b}') && !Path::new(&dir).join("never-made").exists());
}
