//! `mpegflow serve` and the commands that talk to a broker.

use mpegflow_tests::media;
use mpegflow_tests::system::{Serve, files, run, text};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(180);

#[test]
fn upload_submit_watch_download_and_a_second_start_with_the_same_key() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut serve = Serve::start(&data, 0, &[]);
    let upload = serve.client.json(&["upload", media::clip(2, 320, 240).to_str().unwrap()]);
    let upload = upload["id"].as_str().unwrap();
    let job = serve.client.json(&["jobs", "submit", upload, "--preset", "web"]);
    let id = job["id"].as_str().unwrap().to_owned();
    let watched = run(serve.client.command().args(["jobs", "watch", &id]), LIMIT);
    assert!(watched.status.success(), "{}", text(&watched));
    let out = folder.path().join("out");
    let downloaded =
        run(serve.client.command().args(["download", &id, "--out", out.to_str().unwrap()]), LIMIT);
    assert!(downloaded.status.success(), "{}", text(&downloaded));
    assert!(files(&out).contains(&"master.m3u8".to_owned()), "{:?}", files(&out));
    assert!(serve.client.json(&["jobs", "list"]).to_string().contains(&id));
    assert!(serve.client.json(&["presets"]).to_string().contains("web"));

    serve.process.signal("TERM");
    assert!(serve.process.wait(Duration::from_secs(30)).success());
    let again = Serve::start(&data, 0, &[]);
    assert_eq!(again.client.key, serve.client.key);
    assert_eq!(again.client.job(&id)["state"], "succeeded");
}

#[test]
fn the_broker_goes_on_with_the_jobs_behind_bad_ones() {
    let folder = tempfile::tempdir().unwrap();
    let serve = Serve::start(&folder.path().join("data"), 0, &[]);
    let bad: Vec<_> =
        media::bad_inputs().into_iter().map(|bad| (serve.client.submit(&bad.path, &[]), bad)).collect();
    let good = serve.client.submit(&media::clip(2, 320, 240), &[]);
    assert_eq!(serve.client.ended(&good, LIMIT)["state"], "succeeded");
    for (id, bad) in bad {
        let job = serve.client.ended(&id, LIMIT);
        assert_eq!(
            (&job["state"], &job["failure"]["code"]),
            (&"failed".into(), &bad.code.into()),
            "{}: {job}",
            bad.what
        );
        assert_eq!(job["outputs"].as_array().unwrap().len(), 0, "{}", bad.what);
        assert!(!job["failure"]["message"].as_str().unwrap().contains('/'), "a path in a message: {job}");
    }
}

#[test]
fn a_job_can_be_canceled_while_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let serve = Serve::start(&folder.path().join("data"), 0, &[]);
    let id = serve.client.submit(&media::clip(20, 1280, 720), &[]);
    mpegflow_tests::system::until("the encode", LIMIT, || {
        (serve.client.job(&id)["tasks"]
            .as_array()
            .unwrap()
            .iter()
            .any(|t| t["kind"] == "encode" && t["state"] == "running"))
        .then_some(())
    });
    serve.client.json(&["jobs", "cancel", &id]);
    let job = serve.client.ended(&id, LIMIT);
    assert_eq!(job["state"], "canceled", "{job}");
    assert!(serve.running("mpegflow-codec").is_empty());
}

#[test]
fn probe_says_what_ffprobe_says() {
    let clip = media::clip(2, 320, 240);
    let ours = run(mpegflow_tests::system::mpegflow().args(["probe", clip.to_str().unwrap()]), LIMIT);
    assert!(ours.status.success(), "{}", text(&ours));
    let ours: serde_json::Value = serde_json::from_slice(&ours.stdout).unwrap();
    let theirs = run(
        std::process::Command::new("ffprobe")
            .args(["-v", "error", "-show_format", "-show_streams", "-of", "json"])
            .arg(&clip),
        LIMIT,
    );
    let theirs: serde_json::Value = serde_json::from_slice(&theirs.stdout).unwrap();
    let streams = theirs["streams"].as_array().unwrap();
    assert_eq!(ours["streams"].as_array().unwrap().len(), streams.len());
    for (ours, theirs) in ours["streams"].as_array().unwrap().iter().zip(streams) {
        for field in [
            "index",
            "codec_name",
            "codec_type",
            "profile",
            "width",
            "height",
            "pix_fmt",
            "r_frame_rate",
            "avg_frame_rate",
            "time_base",
            "sample_rate",
            "channels",
            "channel_layout",
            "nb_frames",
        ] {
            assert_eq!(ours[field], theirs[field], "{field}");
        }
    }
    for field in ["format_name", "size", "nb_streams"] {
        assert_eq!(ours["format"][field], theirs["format"][field], "{field}");
    }
}

#[test]
fn doctor_finds_this_machine_fit() {
    let output = run(mpegflow_tests::system::mpegflow().arg("doctor"), LIMIT);
    assert!(output.status.success(), "{}", text(&output));
    let said = String::from_utf8_lossy(&output.stdout).to_lowercase();
    for part in ["landlock", "seccomp", "mpegflow-codec", "mpegflow-worker"] {
        assert!(said.contains(part), "no {part} in:\n{said}");
    }
}
