//! What `transcode` makes plays, seeks and switches rung in the players that people use, in headless Chromium, without a stall and
//! with sound and pictures in step, as the page sees and hears them (`tests/playback/watch.mjs`). One player after the other, and in
//! a test program of their own: a browser that decodes in software beside other tests' encodes shows how slow the machine is, and
//! nothing else.

use mpegflow_tests::media;
use mpegflow_tests::system::{Serve, last_json, mpegflow, run, text};
use serde_json::Value;
use std::path::{Path, PathBuf};
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

/// What the preset makes of a clip, a few rungs of 16:9.
fn transcode(clip: &Path, preset: &str) -> Made {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let mut command = mpegflow();
    command.args(["transcode", clip.to_str().unwrap(), "--out", out.to_str().unwrap(), "--preset", preset]);
    let output = run(&mut command, LIMIT);
    assert!(output.status.success(), "{}", text(&output));
    Made { _folder: folder, out }
}

const SECONDS: u32 = 16;

/// A moving picture, a corner of which is white for the first fifth of each second while there is a tone, so much later.
fn flashing(late_ms: u32) -> PathBuf {
    let late = f64::from(late_ms) / 1e3;
    media::ffmpeg(
        &format!("flashing-{late_ms}.mp4"),
        &format!(
            "-f lavfi -i testsrc2=size=640x360:rate=25:duration={SECONDS},drawbox=w=160:h=120:c=black:t=fill,\
             drawbox=w=160:h=120:c=white:t=fill:enable='lt(mod(t\\,1)\\,0.2)' \
             -f lavfi -i aevalsrc=0.5*sin(2*PI*1000*t)*lt(mod(t+1-{late}\\,1)\\,0.2):s=48000:d={SECONDS} \
             -c:v libx264 -preset veryfast -crf 18 -pix_fmt yuv420p -c:a aac -ac 2"
        ),
    )
}

/// Plays the folder in a player, and gives what the page saw and heard. A page that got too little time to look, on a machine with more
/// to do, looks again, twice.
fn play(player: &str, made: &Made) -> Value {
    let once = || {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("playback/players.mjs");
        let output = run(Command::new("node").arg(script).arg(&made.out).arg(player), LIMIT);
        assert!(output.status.success(), "{player}: {}", text(&output));
        last_json(&output)
    };
    let enough = |seen: &Value| {
        let looked = |colour: &str| seen["pictures"][colour].as_u64().unwrap();
        looked("white") >= 4 && looked("black") >= 20 && times(seen, "heard").len() >= 4
    };
    let mut seen = once();
    for _ in 0..2 {
        if enough(&seen) {
            break;
        }
        seen = once();
    }
    assert!(enough(&seen), "the page saw and heard too little: {seen}");
    seen
}

fn times(seen: &Value, name: &str) -> Vec<f64> {
    seen[name].as_array().unwrap().iter().map(|t| t.as_f64().unwrap()).collect()
}

/// By how much the tones came later than whole seconds of the media, in seconds: the middle of all whose time the machine was not too
/// busy to tell.
fn sound_behind(seen: &Value) -> f64 {
    let mut behind: Vec<f64> = times(seen, "heard").into_iter().map(|h| h - h.round()).collect();
    behind.sort_by(f64::total_cmp);
    behind[behind.len() / 2]
}

/// Playing, seeking and switching rung worked, nothing waited for media that is not there, and sound and pictures were in step.
fn well(seen: &Value, made: &Made) {
    let rungs =
        std::fs::read_to_string(made.out.join("master.m3u8")).unwrap().matches("#EXT-X-STREAM-INF").count();
    assert!(rungs > 1 && seen["heights"].as_array().unwrap().len() == rungs, "{seen}");
    assert!((seen["duration"].as_f64().unwrap() - f64::from(SECONDS)).abs() < 0.1, "{seen}");
    assert_eq!(seen["corrupted"], 0, "{seen}");
    assert!(seen["audioBytes"].as_u64().unwrap() > 0, "no sound was decoded: {seen}");
    assert_ne!(seen["first"], seen["last"], "the rung never changed: {seen}");
    // A wait with media there to play is the machine's, which decodes in software.
    let waits = seen["waits"].as_array().unwrap();
    let in_vain: Vec<_> = waits.iter().filter(|w| w["buffered"].as_f64().unwrap() < 0.25).collect();
    assert!(in_vain.is_empty(), "playback stalled: {seen}");
    assert_eq!(seen["ranges"], 1, "there are holes between segments: {seen}");
    // Every picture that was looked at is white or black as the source is at its time; how many were is the machine's.
    assert_eq!(seen["wrong"].as_array().unwrap().len(), 0, "pictures are not at their times: {seen}");
    let shown = times(seen, "shown");
    assert!(shown.iter().all(|s| (s - s.round()).abs() < 0.02), "flashes are not at whole seconds: {seen}");
    // EBU R37: sound at most 40 ms before the picture, and at most 60 ms behind it.
    let behind = sound_behind(seen);
    println!("{}: sound {:.0} ms behind, {} flashes, {waits:?}", seen["player"], behind * 1e3, shown.len());
    assert!((-0.04..=0.06).contains(&behind), "sound is {behind} s behind: {seen}");
}

#[test]
fn hls_and_dash_play_seek_and_switch_rung_without_a_stall_and_in_step() {
    let _alone = BROWSER.lock().unwrap_or_else(|e| e.into_inner());
    let made = transcode(&flashing(0), "web");
    for player in ["hlsjs", "dashjs", "shaka-dash", "shaka-hls"] {
        well(&play(player, &made), &made);
    }
}

// Chromium has no decoder for H.265, so that the preset `hevc` is not among these.
#[test]
fn vp9_and_av1_play_seek_and_switch_rung_without_a_stall_and_in_step() {
    let _alone = BROWSER.lock().unwrap_or_else(|e| e.into_inner());
    for preset in ["vp9", "av1"] {
        let made = transcode(&flashing(0), preset);
        for player in ["hlsjs", "dashjs", "shaka-dash", "shaka-hls"] {
            well(&play(player, &made), &made);
        }
    }
}

#[test]
fn sound_that_is_out_of_step_in_the_source_is_seen_to_be() {
    let _alone = BROWSER.lock().unwrap_or_else(|e| e.into_inner());
    let behind = sound_behind(&play("hlsjs", &transcode(&flashing(200), "web")));
    assert!((0.16..=0.26).contains(&behind), "sound is {behind} s behind, and not 0.2");
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
