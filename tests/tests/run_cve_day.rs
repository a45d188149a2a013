//! The day of a vulnerability: one command bans a decoder everywhere at once, and says which jobs had used it.

use mpegflow_tests::media;
use mpegflow_tests::program;
use mpegflow_tests::system::{Serve, run, text, until};
use serde_json::Value;
use std::process::{Command, Output};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(240);
const SOON: Duration = Duration::from_secs(60);

struct Bench {
    folder: tempfile::TempDir,
    serve: Serve,
}

impl Bench {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let serve = Serve::start(&folder.path().join("data"), 0, &[]);
        Self { folder, serve }
    }

    /// `mpegflow-broker decoders …`, beside the broker that runs.
    fn decoders(&self, args: &[&str]) -> Output {
        let mut command = Command::new(program("mpegflow-broker"));
        command.arg("--data").arg(self.folder.path().join("data/broker")).arg("decoders").args(args);
        run(&mut command, SOON)
    }

    /// A running broker holds the list of bans for up to a second; what is asked of it afterwards knows of this one.
    fn known(&self, args: &[&str]) {
        self.lines(args);
        std::thread::sleep(Duration::from_millis(1_500));
    }

    fn lines(&self, args: &[&str]) -> Vec<Value> {
        let output = self.decoders(args);
        assert!(output.status.success(), "{}", text(&output));
        String::from_utf8_lossy(&output.stdout).lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    }
}

fn code(job: &Value) -> &str {
    job["failure"]["code"].as_str().unwrap_or_default()
}

#[test]
fn a_ban_fails_jobs_by_a_code_that_names_it_until_it_is_lifted_and_finds_the_jobs_before_it() {
    let bench = Bench::start();
    let clip = media::clip(2, 320, 240);
    let client = &bench.serve.client;
    let before = client.submit(&clip, &["--preset", "audio"]);
    assert_eq!(client.ended(&before, LIMIT)["state"], "succeeded");

    bench.known(&["ban", "h264", "--reason", "CVE-2026-12345"]);
    assert_eq!(bench.lines(&["list"])[0]["name"], "h264");
    let banned = client.ended(&client.submit(&clip, &["--preset", "mp4"]), LIMIT);
    assert_eq!((banned["state"].as_str(), code(&banned)), (Some("failed"), "decoder_banned"), "{banned}");
    let message = banned["failure"]["message"].as_str().unwrap();
    assert!(message.contains("h264") && message.contains("CVE-2026-12345"), "{message}");
    assert!(banned["tasks"].as_array().unwrap().iter().all(|task| task["kind"] == "probe"), "{banned}");
    // What needs no such decoder goes on.
    let sound = media::ffmpeg("sound.m4a", "-f lavfi -i sine=frequency=440:duration=4 -c:a aac");
    let sound = client.ended(&client.submit(&sound, &["--preset", "audio"]), LIMIT);
    assert_eq!(sound["state"], "succeeded", "{sound}");

    bench.known(&["lift", "h264"]);
    assert!(bench.lines(&["list"]).is_empty());
    let after = client.submit(&clip, &["--preset", "mp4"]);
    assert_eq!(client.ended(&after, LIMIT)["state"], "succeeded");
    let used = bench.lines(&["jobs-using", "h264"]);
    let known: Vec<&str> =
        used.iter().filter(|j| j["known"] == true).map(|j| j["job"].as_str().unwrap()).collect();
    assert!(known.contains(&before.as_str()) && known.contains(&after.as_str()), "{used:?}");
    assert_eq!(bench.lines(&["jobs-using", "wmv3"]).iter().filter(|j| j["known"] == true).count(), 0);
}

#[test]
fn a_banned_container_is_not_opened_and_the_reason_is_told() {
    let bench = Bench::start();
    bench.known(&["ban", "mp4", "--reason", "CVE-2026-54321"]);
    let client = &bench.serve.client;
    let job = client.ended(&client.submit(&media::clip(2, 320, 240), &[]), LIMIT);
    assert_eq!((job["state"].as_str(), code(&job)), (Some("failed"), "decoder_banned"), "{job}");
    assert!(
        job["failure"]["message"]
            .as_str()
            .unwrap()
            .contains("mov, which is banned here for now: CVE-2026-54321"),
        "{job}"
    );
    // It failed before anything was known of its input.
    assert_eq!(bench.lines(&["jobs-using", "h264"])[0]["known"], false);
}

#[test]
fn a_ban_ends_what_runs_within_seconds() {
    let bench = Bench::start();
    let client = &bench.serve.client;
    let id = client.submit(&media::clip(20, 1280, 720), &["--preset", "mp4"]);
    until("the encode runs", SOON, || {
        let job = client.job(&id);
        let tasks = job["tasks"].as_array().unwrap();
        tasks.iter().any(|task| task["kind"] == "encode" && task["state"] == "running").then_some(())
    });
    bench.lines(&["ban", "h264", "--reason", "CVE-2026-12345"]);
    let job = client.ended(&id, SOON);
    assert_eq!((job["state"].as_str(), code(&job)), (Some("failed"), "decoder_banned"), "{job}");
    until("its codec is gone", SOON, || bench.serve.running("mpegflow-codec").is_empty().then_some(()));
}

#[test]
fn a_name_that_is_none_bans_nothing_and_says_so() {
    let bench = Bench::start();
    let output = bench.decoders(&["ban", "h26", "--reason", "CVE"]);
    assert!(!output.status.success());
    assert!(
        text(&output).contains("there is no decoder or demuxer `h26`") && text(&output).contains("matroska"),
        "{}",
        text(&output)
    );
    assert!(!bench.decoders(&["lift", "h264"]).status.success());
}
