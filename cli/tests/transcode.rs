//! `mpegflow transcode` against the embedded broker with workers that misbehave: whatever happens, the output folder is
//! untouched and no process is left.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const MPEGFLOW: &str = env!("CARGO_BIN_EXE_mpegflow");

/// A folder with an input, a place for the output, and a worker that does what `script` says.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new(script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let libexec = dir.path().join("libexec");
        fs::create_dir(&libexec).unwrap();
        fs::create_dir(dir.path().join("work")).unwrap();
        fs::write(dir.path().join("in.mp4"), "not a video").unwrap();
        for (name, text) in [("mpegflow-worker", script), ("mpegflow-codec", "exit 1")] {
            let path = libexec.join(name);
            fs::write(&path, format!("#!/bin/sh\necho $$ >> \"${{0%/*}}/pids\"\n{text}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Self { dir }
    }

    fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    fn start(&self) -> Child {
        Command::new(MPEGFLOW)
            .args(["transcode", "../in.mp4", "--out", "dist", "--libexec"])
            .arg(self.dir.path().join("libexec"))
            .current_dir(self.work())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Started, and a worker runs.
    fn started(&self) -> Child {
        let child = self.start();
        assert!(within(Duration::from_secs(20), || !self.workers().is_empty()), "a worker was started");
        // Long enough for the upload of eleven bytes and the submission.
        std::thread::sleep(Duration::from_millis(700));
        child
    }

    fn workers(&self) -> Vec<i32> {
        let pids = fs::read_to_string(self.dir.path().join("libexec/pids")).unwrap_or_default();
        pids.lines().filter_map(|line| line.parse().ok()).collect()
    }

    fn living_workers(&self) -> usize {
        self.workers().into_iter().filter(|pid| is_alive(*pid)).count()
    }

    fn left(&self) -> BTreeSet<String> {
        fs::read_dir(self.work()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn is_alive(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains('Z'))
}

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

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn workers_that_do_not_start_are_reported_with_what_they_said() {
    let bench = Bench::new("echo 'no such library' >&2; exit 3");
    let output = bench.start().wait_with_output().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("exit code 3") && said.contains("no such library") && said.contains("doctor"),
        "{said}"
    );
    assert_eq!((bench.left(), bench.living_workers()), (BTreeSet::new(), 0));
}

#[test]
fn ctrl_c_cancels_and_leaves_nothing() {
    let bench = Bench::new("exec /bin/sleep 300");
    let child = bench.started();
    signal(&child, Signal::INT);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output));
    assert_eq!((bench.left(), bench.living_workers()), (BTreeSet::new(), 0));
}

#[test]
fn ctrl_c_twice_ends_at_once_even_with_workers_that_do_not_listen() {
    let bench = Bench::new("trap '' TERM INT; while :; do /bin/sleep 1; done");
    let child = bench.started();
    let start = Instant::now();
    signal(&child, Signal::INT);
    std::thread::sleep(Duration::from_millis(150));
    // Canceling a job that no worker holds may take no longer than that; then the first signal has already ended it.
    let _ = kill_process(Pid::from_child(&child), Signal::INT);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output));
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert!(within(Duration::from_secs(2), || bench.living_workers() == 0));
    assert_eq!(bench.left(), BTreeSet::new());
}

#[test]
fn killed_in_the_middle_it_leaves_no_process_and_no_output_and_the_next_run_cleans_up() {
    let bench = Bench::new("exec /bin/sleep 300");
    let mut child = bench.started();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(within(Duration::from_secs(3), || bench.living_workers() == 0), "workers die with it");
    let left: Vec<String> = bench.left().into_iter().collect();
    assert!(left.len() == 1 && left[0].starts_with("dist.partial-"), "{left:?}");
    // As if that had been a minute ago.
    let old = std::time::SystemTime::now() - Duration::from_secs(60);
    fs::File::open(bench.work().join(&left[0])).unwrap().set_modified(old).unwrap();
    let child = bench.started();
    assert!(!bench.left().contains(&left[0]));
    signal(&child, Signal::TERM);
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130));
    assert_eq!((bench.left(), bench.living_workers()), (BTreeSet::new(), 0));
}

#[test]
fn a_worker_that_dies_is_started_again() {
    let bench = Bench::new("exec /bin/sleep 300");
    let child = bench.started();
    let first = bench.workers();
    kill_process(Pid::from_raw(first[0]).unwrap(), Signal::KILL).unwrap();
    assert!(
        within(Duration::from_secs(10), || bench.workers().len() > first.len()),
        "another took its place"
    );
    signal(&child, Signal::INT);
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130));
    assert!(Path::new(&bench.work()).exists() && bench.left().is_empty());
}
