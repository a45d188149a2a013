//! What `transcode` makes plays, seeks and switches rung in the players that people use, in headless Chromium. One player after
//! the other, and in a test program of their own: a browser that decodes in software beside other tests' encodes shows how slow
//! the machine is, and nothing else.

use mpegflow_tests::media;
use mpegflow_tests::system::{Serve, last_json, mpegflow, run, text};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

/// One browser at a time.
static BROWSER: Mutex<()> = Mutex::new(());

/// Each wait in a page has its own limit, and names what it waited for; this one is for a process that is stuck.
const LIMIT: Duration = Duration::from_secs(400);

/// What `transcode` made, for as long as it is held.
struct Made {
    _folder: tempfile::TempDir,
    out: std::path::PathBuf,
}

/// Eight seconds of 16:9 as the web preset makes them.
fn transcode(options: &[&str]) -> Made {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let clip = media::clip(8, 640, 360);
    let mut command = mpegflow();
    command.args(["transcode", clip.to_str().unwrap(), "--out", out.to_str().unwrap()]).args(options);
    let output = run(&mut command, LIMIT);
    assert!(output.status.success(), "{}", text(&output));
    Made { _folder: folder, out }
}

/// Plays the folder with a script of `tests/playback`, and gives what the page saw.
fn play(script: &str, arguments: &[&str], made: &Made) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("playback").join(script);
    let output = run(Command::new("node").arg(script).arg(&made.out).args(arguments), LIMIT);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    let seen = last_json(&output);
    assert!((seen["duration"].as_f64().unwrap() - 8.0).abs() < 0.1, "{seen}");
    assert_eq!(seen["corrupted"], 0, "{seen}");
    assert!(seen["audioBytes"].as_u64().unwrap() > 0, "no sound was decoded: {seen}");
    assert_ne!(seen["first"], seen["last"], "the rung never changed: {seen}");
    seen
}

#[test]
fn hls_plays_seeks_and_switches_rung_in_a_browser() {
    let _alone = BROWSER.lock().unwrap_or_else(|e| e.into_inner());
    let made = transcode(&[]);
    let seen = play("play.mjs", &[], &made);
    let rungs =
        std::fs::read_to_string(made.out.join("master.m3u8")).unwrap().matches("#EXT-X-STREAM-INF").count();
    assert!(rungs > 1);
    assert_eq!(seen["levels"].as_array().unwrap().len(), rungs, "{seen}");
}

#[test]
fn dash_and_hls_play_seek_and_switch_rung_in_browsers_players() {
    let _alone = BROWSER.lock().unwrap_or_else(|e| e.into_inner());
    let made = transcode(&["--max-height", "360"]);
    for player in ["dashjs", "shaka-dash", "shaka-hls"] {
        play("players.mjs", &[player], &made);
    }
}

#[test]
fn av1_plays_seeks_and_switches_rung_in_a_browsers_player() {
    let _alone = BROWSER.lock().unwrap_or_else(|e| e.into_inner());
    let made = transcode(&["--preset", "av1", "--max-height", "360"]);
    for player in ["shaka-dash", "shaka-hls"] {
        play("players.mjs", &[player], &made);
    }
}

#[test]
fn what_is_still_made_plays_from_its_beginning_to_its_end_in_a_browser() {
    let _alone = BROWSER.lock().unwrap_or_else(|e| e.into_inner());
    let folder = tempfile::tempdir().unwrap();
    let serve = Serve::start(&folder.path().join("data"), 0, &[]);
    // Decoding 1080p takes longer than playing at four times the speed begins.
    let id = serve.client.submit(&media::clip(60, 1920, 1080), &["--early"]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("playback/early.mjs");
    let master = format!("/v1/objects/{id}/master.m3u8");
    let output =
        run(Command::new("node").arg(script).args([&serve.client.url, &serve.client.key, &master]), LIMIT);
    assert!(output.status.success(), "{}", text(&output));
    let seen = last_json(&output);
    assert_eq!(
        (&seen["grew"], &seen["levels"], &seen["height"]),
        (&true.into(), &1.into(), &240.into()),
        "{seen}"
    );
    assert!(seen["start"].as_f64().unwrap() < 0.1, "it did not begin at the beginning: {seen}");
    assert!((seen["duration"].as_f64().unwrap() - 60.0).abs() < 0.1, "{seen}");
    assert!(seen["corrupted"] == 0 && seen["audioBytes"].as_u64().unwrap() > 0, "{seen}");
    let lengths: Vec<u64> = seen["lengths"].as_array().unwrap().iter().filter_map(Value::as_u64).collect();
    assert!(lengths.is_sorted() && lengths.first() < lengths.last(), "{lengths:?}");
}
