//! The sample videos of the PyPI package iscc-samples, one of each container, through the real path and through Debian's ffmpeg
//! at the same settings: the results last equally long, have as many frames, and look alike.

use mpegflow_tests::media::{self, ffprobe};
use mpegflow_tests::system::{mpegflow, run, text};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(300);

/// Containers of today, and those that a tenant opts into.
const CORE: [&str; 5] = ["m4v", "mkv", "mov", "mp4", "webm"];
const LEGACY: [&str; 5] = ["3gp", "avi", "flv", "mpg", "wmv"];

fn samples() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/samples");
    let output = run(&mut Command::new(script), LIMIT);
    assert!(output.status.success(), "{}", text(&output));
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
}

fn transcode(input: &Path, folder: &Path, spec: &str) -> std::process::Output {
    let file = folder.join("job.yaml");
    std::fs::write(&file, spec).unwrap();
    let out = folder.join("out");
    let mut command = mpegflow();
    command.args(["transcode", input.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    run(command.args(["--force", "--spec", file.to_str().unwrap()]), LIMIT)
}

/// The same by hand. The bit rate is the cap that the ladder gives to a picture of this size.
fn by_hand(input: &Path, out: &Path, size: &str) {
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-y", "-i"])
        .arg(input)
        .args([
            "-map",
            "0:v:0",
            "-an",
            "-vf",
            &format!("scale={size}:flags=bicubic,setsar=1,setpts=PTS-STARTPTS"),
        ])
        .args([
            "-c:v",
            "libx264",
            "-profile:v",
            "high",
            "-pix_fmt",
            "yuv420p",
            "-preset",
            "veryfast",
            "-crf",
            "23",
        ])
        .args(["-maxrate", "220k", "-bufsize", "440k", "-g", "100000", "-sc_threshold", "0"])
        .args([
            "-force_key_frames",
            "expr:gte(t,n_forced*4)",
            "-fps_mode",
            "vfr",
            "-enc_time_base",
            "1:90000",
        ])
        .args(["-video_track_timescale", "90000"])
        .arg(out)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}: {}", input.display(), String::from_utf8_lossy(&output.stderr));
}

fn ssim(a: &Path, b: &Path) -> f64 {
    // Where sound leads, the first picture is held here and not there.
    let by_number = media::by_number(24);
    media::ssim(a, b, [&by_number; 2])
}

/// Frames, and the end of the last one in seconds.
fn facts(file: &Path) -> (u64, f64) {
    let found = ffprobe(file, "v:0", "stream=nb_read_frames,duration");
    let (duration, frames) = found.split_once(',').unwrap();
    (frames.parse().unwrap(), duration.parse().unwrap())
}

/// Seconds by which the sound starts before the pictures, where that is more than goes unnoticed: the first picture is then
/// held from the start.
fn lead(input: &Path) -> f64 {
    let start = |select: &str| ffprobe(input, select, "stream=start_time").parse::<f64>().unwrap_or(f64::MAX);
    let lead = start("v:0") - start("a:0");
    if lead > 0.04 { lead } else { 0.0 }
}

#[test]
fn each_sample_comes_out_as_ffmpeg_makes_it() {
    let samples = samples();
    let folder = tempfile::tempdir().unwrap();
    let mut wrong = Vec::new();
    for (extension, set) in CORE.map(|e| (e, "core")).into_iter().chain(LEGACY.map(|e| (e, "legacy"))) {
        let input = samples.join(format!("demo.{extension}"));
        let spec = format!(
            "version: 1\npreset: mp4\ndecoders: {set}\nvideo:\n  encoder: crf=23:preset=veryfast\naudio: {{tracks: default}}\n"
        );
        let output = transcode(&input, folder.path(), &spec);
        if !output.status.success() {
            wrong.push(format!("{extension}: {}", text(&output)));
            continue;
        }
        let ours = folder.path().join("out/video.mp4");
        let size = ffprobe(&ours, "v:0", "stream=width,height").replace(',', ":");
        let theirs = folder.path().join(format!("{extension}.mp4"));
        by_hand(&input, &theirs, &size);
        let ((frames, lasts), (their_frames, their_end)) = (facts(&ours), facts(&theirs));
        let their_end = their_end + lead(&input);
        let similar = ssim(&ours, &theirs);
        let frame = lasts / frames as f64;
        println!(
            "{extension}: {frames} frames ({their_frames}), {lasts:.3} s ({their_end:.3}), SSIM {similar:.4}"
        );
        if frames.abs_diff(their_frames) > 1 || (lasts - their_end).abs() > frame * 1.05 || similar < 0.98 {
            wrong.push(format!(
                "{extension}: {frames}/{their_frames} frames, {lasts}/{their_end} s, SSIM {similar}"
            ));
        }
        if ffprobe(&input, "a:0", "stream=codec_type").starts_with("audio") {
            let sound: f64 = ffprobe(&ours, "a:0", "stream=duration").parse().unwrap();
            if (sound - lasts).abs() > 1.5 {
                wrong.push(format!("{extension}: sound lasts {sound}, pictures {lasts}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_sample_that_debians_decoder_loses_most_of_is_refused_rather_than_passed_off_as_whole() {
    // FFmpeg 5.1's Theora decoder refuses three quarters of this file's packets.
    let input = samples().join("demo.ogv");
    let output = Command::new("ffprobe")
        .args([
            "-v",
            "quiet",
            "-count_frames",
            "-select_streams",
            "v",
            "-show_entries",
            "stream=nb_read_frames",
        ])
        .args(["-of", "csv=p=0"])
        .arg(&input)
        .output()
        .unwrap();
    let frames: u64 = String::from_utf8_lossy(&output.stdout).trim().parse().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let output = transcode(&input, folder.path(), "version: 1\npreset: mp4\ndecoders: legacy\n");
    if frames < 1_200 {
        assert_eq!(output.status.code(), Some(3), "{}", text(&output));
        assert!(text(&output).contains("input_corrupt"), "{}", text(&output));
    } else {
        assert!(output.status.success(), "{}", text(&output));
    }
}

#[test]
fn the_formats_of_the_past_need_to_be_asked_for() {
    let samples = samples();
    let folder = tempfile::tempdir().unwrap();
    for extension in ["avi", "flv", "wmv", "mpg"] {
        let output =
            transcode(&samples.join(format!("demo.{extension}")), folder.path(), "version: 1\npreset: mp4\n");
        assert_eq!(output.status.code(), Some(3), "{extension}: {}", text(&output));
        assert!(text(&output).contains("legacy"), "{extension}: {}", text(&output));
    }
}
