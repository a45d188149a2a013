//! kill -9 of any process at any moment: the job still finishes, once, and nothing is left behind.

use mpegflow_tests::media;
use mpegflow_tests::system::{Serve, alive, files, mpegflow, run, signal_pid, text, until};
use serde_json::Value;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(300);
const SOON: Duration = Duration::from_secs(60);

fn task<'a>(job: &'a Value, kind: &str) -> &'a Value {
    job["tasks"].as_array().unwrap().iter().find(|t| t["kind"] == kind).unwrap_or(&Value::Null)
}

/// Waits until the task of that kind runs and its codec process is there.
fn codec_of(serve: &Serve, id: &str, kind: &str) -> u32 {
    until(&format!("the {kind} of {id}"), SOON, || {
        (task(&serve.client.job(id), kind)["state"] == "running")
            .then(|| serve.running("mpegflow-codec").first().copied())
            .flatten()
    })
}

/// The job succeeded, its output is whole, and it ended exactly once.
fn finished_once(serve: &Serve, id: &str, folder: &Path) -> Value {
    let job = serve.client.ended(id, LIMIT);
    assert_eq!(job["state"], "succeeded", "{job}");
    let out = folder.join(id);
    let output = run(serve.client.command().args(["download", id, "--out", out.to_str().unwrap()]), SOON);
    assert!(output.status.success(), "{}", text(&output));
    let names: Vec<&str> =
        job["outputs"].as_array().unwrap().iter().map(|o| o["name"].as_str().unwrap()).collect();
    for name in &names {
        assert!(out.join(name).exists(), "{name} is missing: {:?}", files(&out));
    }
    assert!(names.contains(&"master.m3u8"));
    let mut sorted = names.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), names.len(), "an output is there twice: {names:?}");
    job
}

#[test]
fn a_killed_codec_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let serve = Serve::start(&folder.path().join("data"), 0, &[]);
    let id = serve.client.submit(&media::clip(20, 1280, 720), &[]);
    signal_pid(codec_of(&serve, &id, "encode"), "KILL");
    let job = finished_once(&serve, &id, folder.path());
    let encode = task(&job, "encode");
    assert_eq!(encode["attempts"], 2, "{encode}");
    assert_eq!(encode["last_failure"]["code"], "codec_killed", "{encode}");
}

#[test]
fn a_killed_worker_takes_its_codec_along_and_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let serve = Serve::start(&folder.path().join("data"), 0, &[]);
    let id = serve.client.submit(&media::clip(20, 1280, 720), &[]);
    let codec = codec_of(&serve, &id, "encode");
    let worker = serve.running("mpegflow-worker")[0];
    signal_pid(worker, "KILL");
    until("the end of the codec", SOON, || (!alive(codec)).then_some(()));
    let job = finished_once(&serve, &id, folder.path());
    assert_eq!(task(&job, "encode")["last_failure"]["code"], "worker_lost", "{job}");
    assert_ne!(serve.running("mpegflow-worker"), [worker]);
}

/// The process that started this one.
fn parent(pid: u32) -> u32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(')').next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_paused_worker_that_wakes_after_its_lease_ended_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let serve = Serve::start(&folder.path().join("data"), 0, &["--workers", "2"]);
    let id = serve.client.submit(&media::clip(20, 1280, 720), &[]);
    let codec = codec_of(&serve, &id, "encode");
    let worker = parent(codec);
    for pid in [worker, codec] {
        signal_pid(pid, "STOP");
    }
    // Another takes over once the lease has ended, and finishes the job.
    let before = finished_once(&serve, &id, folder.path());
    let encode = task(&before, "encode");
    assert_eq!(
        (&encode["attempts"], &encode["last_failure"]["code"]),
        (&2.into(), &"worker_lost".into()),
        "{encode}"
    );
    assert!(alive(worker) && alive(codec), "they are still there, and stand still");
    for pid in [codec, worker] {
        signal_pid(pid, "CONT");
    }
    // It goes on with what it had, is told that its lease is over, and ends its codec.
    until("the end of the codec", SOON, || (!alive(codec)).then_some(()));
    let other = serve.client.submit(&media::clip(2, 320, 240), &[]);
    finished_once(&serve, &other, folder.path());
    assert_eq!(serve.client.job(&id), before);
    let out = folder.path().join("again");
    let output = run(serve.client.command().args(["download", &id, "--out", out.to_str().unwrap()]), SOON);
    assert!(output.status.success(), "{}", text(&output));
    for name in files(&out) {
        let both = [&out, &folder.path().join(&id)].map(|dir| std::fs::read(dir.join(&name)).unwrap());
        assert!(both[0] == both[1], "{name} has changed");
    }
}

#[test]
fn a_killed_broker_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let (data, port) = (folder.path().join("data"), mpegflow_test_ports::port());
    let mut serve = Serve::start(&data, port, &[]);
    let id = serve.client.submit(&media::clip(20, 1280, 720), &[]);
    let waiting = serve.client.submit(&media::clip(2, 320, 240), &[]);
    let codec = codec_of(&serve, &id, "encode");
    let worker = serve.running("mpegflow-worker")[0];
    let key = serve.client.key.clone();
    serve.process.kill();
    // No worker goes on without the program that started it.
    until("the end of its processes", SOON, || (!alive(codec) && !alive(worker)).then_some(()));
    let serve = Serve::start(&data, port, &[]);
    assert_eq!(serve.client.key, key, "the key still opens the door");
    finished_once(&serve, &id, folder.path());
    finished_once(&serve, &waiting, folder.path());
}

#[test]
fn random_kills_lose_no_job_and_run_none_twice_to_success() {
    let folder = tempfile::tempdir().unwrap();
    let (data, port) = (folder.path().join("data"), mpegflow_test_ports::port());
    let mut serve = Serve::start(&data, port, &[]);
    let jobs: Vec<String> = [(6, 640, 360), (2, 320, 240), (8, 320, 240)]
        .iter()
        .map(|(s, w, h)| serve.client.submit(&media::clip(*s, *w, *h), &[]))
        .collect();
    // A seeded walk: which process dies when is the same every time; where the job is by then is not.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    for _ in 0..9 {
        std::thread::sleep(Duration::from_millis(100 + random(700)));
        match random(3) {
            0 => serve.running("mpegflow-codec").into_iter().for_each(|pid| signal_pid(pid, "KILL")),
            1 => serve.running("mpegflow-worker").into_iter().for_each(|pid| signal_pid(pid, "KILL")),
            _ => {
                serve.process.kill();
                serve = Serve::start(&data, port, &[]);
            }
        }
    }
    for id in &jobs {
        let job = serve.client.ended(id, LIMIT);
        // Nine kills can use up a task's attempts; a job may then fail, and must say that its worker was lost.
        if job["state"] == "failed" {
            let code = job["failure"]["code"].as_str().unwrap();
            assert!(["worker_lost", "codec_killed"].contains(&code), "{job}");
        } else {
            finished_once(&serve, id, folder.path());
        }
    }
}

#[test]
fn ctrl_c_cancels_and_leaves_nothing_and_twice_aborts_at_once() {
    for times in [1, 2] {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let mut command = mpegflow();
        command.args([
            "transcode",
            media::clip(20, 1280, 720).to_str().unwrap(),
            "--out",
            out.to_str().unwrap(),
        ]);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let codec = until("a codec", SOON, || {
            let all = mpegflow_tests::system::descendants(child.id());
            all.iter().find(|(_, name)| name == "mpegflow-codec").map(|(pid, _)| *pid)
        });
        let others: Vec<u32> =
            mpegflow_tests::system::descendants(child.id()).into_iter().map(|(pid, _)| pid).collect();
        for _ in 0..times {
            signal_pid(child.id(), "INT");
            std::thread::sleep(Duration::from_millis(100));
        }
        let asked = Instant::now();
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(130), "{times}");
        assert!(asked.elapsed() < SOON);
        until("the end of every process", SOON, || others.iter().all(|pid| !alive(*pid)).then_some(()));
        assert!(!alive(codec));
        assert_eq!(files(folder.path()), [""; 0], "Ctrl-C {times} times");
    }
}
