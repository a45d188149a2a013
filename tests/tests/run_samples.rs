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
/// The one whose pictures FFmpeg 5.1's decoder refuses in part.
const DAMAGED: &str = "ogv";

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
        // One that loses most of its pictures ends well, too; what is shown in place of them goes by its threads.
        .args(["-nostdin", "-v", "error", "-y", "-max_error_rate", "1", "-threads", "1", "-i"])
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

/// Where sound leads, the first picture is held here and not there: pictures are paired by number.
fn by_number() -> String {
    media::by_number(24)
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

/// Makes an MP4 of the sample with this in its spec, and says what of it is not as ffmpeg makes it by hand.
fn differs(extension: &str, rest: &str) -> Result<(), String> {
    let input = samples().join(format!("demo.{extension}"));
    let folder = tempfile::tempdir().unwrap();
    let spec = format!(
        "version: 1\npreset: mp4\nvideo:\n  encoder: crf=23:preset=veryfast\naudio: {{tracks: default}}\n{rest}"
    );
    let output = transcode(&input, folder.path(), &spec);
    if !output.status.success() {
        return Err(format!("{extension}: {}", text(&output)));
    }
    let ours = folder.path().join("out/video.mp4");
    let size = ffprobe(&ours, "v:0", "stream=width,height").replace(',', ":");
    let theirs = folder.path().join("by-hand.mp4");
    by_hand(&input, &theirs, &size);
    let ((frames, lasts), (their_frames, their_end)) = (facts(&ours), facts(&theirs));
    let their_end = their_end + lead(&input);
    let pairing = by_number();
    let similar = media::ssim(&ours, &theirs, [&pairing; 2]);
    let frame = lasts / frames as f64;
    let said = format!(
        "{extension}: {frames} frames ({their_frames}), {lasts:.3} s ({their_end:.3}), SSIM {similar:.4}"
    );
    println!("{said}");
    if frames.abs_diff(their_frames) > 1 || (lasts - their_end).abs() > frame * 1.05 || similar < 0.98 {
        return Err(said);
    }
    if ffprobe(&input, "a:0", "stream=codec_type").starts_with("audio") {
        let sound: f64 = ffprobe(&ours, "a:0", "stream=duration").parse().unwrap();
        if (sound - lasts).abs() > 1.5 {
            return Err(format!("{extension}: sound lasts {sound}, pictures {lasts}"));
        }
    }
    Ok(())
}

#[test]
fn each_sample_comes_out_as_ffmpeg_makes_it() {
    let sets = CORE.map(|e| (e, "core")).into_iter().chain(LEGACY.map(|e| (e, "legacy")));
    let wrong: Vec<String> =
        sets.filter_map(|(e, set)| differs(e, &format!("decoders: {set}\n")).err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_sample_that_debians_decoder_loses_most_of_is_refused_unless_what_there_is_is_asked_for() {
    // The file is whole: libtheora decodes it all. FFmpeg's own decoder, the only one there is in Debian's, does not.
    let input = samples().join(format!("demo.{DAMAGED}"));
    let output = Command::new("ffprobe")
        .args(["-v", "quiet", "-count_frames", "-count_packets", "-select_streams", "v"])
        .args(["-show_entries", "stream=nb_read_frames,nb_read_packets", "-of", "csv=p=0"])
        .arg(&input)
        .output()
        .unwrap();
    let counted = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let (frames, packets) = counted.split_once(',').unwrap();
    let (frames, packets): (u64, u64) = (frames.parse().unwrap(), packets.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let output = transcode(&input, folder.path(), "version: 1\npreset: mp4\ndecoders: legacy\n");
    if frames * 10 >= packets * 9 {
        // A decoder that was mended.
        assert!(output.status.success(), "{}", text(&output));
    } else {
        assert_eq!(output.status.code(), Some(3), "{}", text(&output));
        let said = text(&output);
        let lost = format!("{frames} frames were decoded");
        assert!(said.contains("input_corrupt") && said.contains(&lost), "no {lost} in {said}");
        let spec = "version: 1\npreset: mp4\ndecoders: legacy\nallow_partial: true\n";
        let output = transcode(&input, folder.path(), spec);
        assert!(output.status.success(), "{}", text(&output));
        let report = std::fs::read(folder.path().join("out/mpegflow.json")).unwrap();
        let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
        let damage = &report["job"]["damage"];
        assert_eq!(damage["partial"], true, "{damage}");
        assert!(damage["decode_errors"].as_u64().unwrap().abs_diff(packets - frames) <= 1, "{damage}");
    }
    // What ffmpeg makes of it by hand has as few frames, and they look the same.
    differs(DAMAGED, "decoders: legacy\nallow_partial: true\n").unwrap();
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
