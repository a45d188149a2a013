//! Each preset through the real path: what comes out is what the preset says, plays, and is refused where the spec makes no
//! sense.

use mpegflow_tests::media::{self, ffprobe};
use mpegflow_tests::system::{files, last_json, mpegflow, run, text};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(300);

struct Made {
    _folder: tempfile::TempDir,
    out: PathBuf,
    said: Value,
}

fn attempt(input: &Path, out: &Path, options: &[&str]) -> Output {
    let mut command = mpegflow();
    command.args(["transcode", input.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    run(command.args(["--output", "json"]).args(options), LIMIT)
}

fn transcode(input: &Path, options: &[&str]) -> Made {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let output = attempt(input, &out, options);
    assert!(output.status.success(), "{}", text(&output));
    Made { said: last_json(&output), _folder: folder, out }
}

/// A film with sound in two languages, and a subtitle track nobody asked for.
fn two_languages() -> PathBuf {
    media::ffmpeg(
        "two-languages.mkv",
        "-f lavfi -i testsrc2=size=640x360:rate=25:duration=6 -f lavfi -i sine=frequency=440:duration=6:sample_rate=48000 \
         -f lavfi -i sine=frequency=880:duration=6:sample_rate=44100 -map 0 -map 1 -map 2 -c:v libx264 -preset veryfast \
         -pix_fmt yuv420p -c:a aac -ac:a:0 2 -ac:a:1 1 -metadata:s:a:0 language=eng -metadata:s:a:1 language=deu",
    )
}

#[test]
fn web_has_hls_and_dash_over_the_same_files_all_languages_and_pictures() {
    let made = transcode(&two_languages(), &[]);
    let found = files(&made.out);
    for name in [
        "master.m3u8",
        "manifest.mpd",
        "video-360p.mp4",
        "audio.mp4",
        "audio-2.mp4",
        "poster.jpg",
        "sprites.jpg",
        "sprites.vtt",
    ] {
        assert!(found.iter().any(|f| f == name), "no {name} in {found:?}");
    }
    let master = std::fs::read_to_string(made.out.join("master.m3u8")).unwrap();
    assert!(master.contains("LANGUAGE=\"en\"") && master.contains("LANGUAGE=\"de\""), "{master}");
    let dash = std::fs::read_to_string(made.out.join("manifest.mpd")).unwrap();
    assert!(dash.contains("lang=\"en\"") && dash.contains("lang=\"de\""), "{dash}");
    // The tones are still in their own tracks.
    for (file, channels) in [("audio.mp4", "2"), ("audio-2.mp4", "1")] {
        assert_eq!(ffprobe(&made.out.join(file), "a:0", "stream=channels"), channels);
    }
    // FFmpeg, which shares nothing with the writer of the description, plays it.
    let whole = ffprobe(&made.out.join("manifest.mpd"), "v:0", "stream=width,height,nb_read_frames");
    assert!(whole.starts_with("640,360,150"), "{whole}");
    assert_eq!(ffprobe(&made.out.join("poster.jpg"), "v:0", "stream=width,height"), "640,360");
    let types: Vec<&str> = made.said["job"]["outputs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|o| o["content_type"].as_str().unwrap())
        .collect();
    for kind in ["application/dash+xml", "image/jpeg", "text/vtt"] {
        assert!(types.contains(&kind), "{types:?}");
    }
}

#[test]
fn mp4_is_one_file_with_its_index_first_and_fits_its_source() {
    let clip = media::clip(4, 640, 360);
    let made = transcode(&clip, &["--preset", "mp4"]);
    assert_eq!(files(&made.out).iter().filter(|f| !f.ends_with(".json")).collect::<Vec<_>>(), ["video.mp4"]);
    let file = made.out.join("video.mp4");
    let head = std::fs::read(&file).unwrap();
    let place = |kind: &[u8]| head.windows(4).position(|w| w == kind).unwrap();
    assert!(place(b"moov") < place(b"mdat"));
    assert_eq!(ffprobe(&file, "v:0", "stream=codec_name,width,height,nb_read_frames"), "h264,640,360,120");
    let lasts: f64 = ffprobe(&file, "a:0", "format=duration").parse().unwrap();
    assert!((lasts - 4.0).abs() < 0.1, "{lasts}");
}

#[test]
fn audio_and_thumbnail_make_what_they_are_called() {
    let clip = media::clip(4, 640, 360);
    let sound = transcode(&clip, &["--preset", "audio"]);
    let file = sound.out.join("audio.m4a");
    assert_eq!(ffprobe(&file, "a:0", "stream=codec_name,channels"), "aac,2");
    assert_eq!(ffprobe(&file, "v", "stream=codec_name"), "");
    let pictures = transcode(&clip, &["--preset", "thumbnail"]);
    let found: Vec<String> = files(&pictures.out).into_iter().filter(|f| !f.ends_with(".json")).collect();
    assert_eq!(found, ["poster.jpg", "sprites.jpg", "sprites.vtt"]);
    // Neither can be made of what is not there.
    let folder = tempfile::tempdir().unwrap();
    for (input, preset) in [(file, "thumbnail"), (silent(), "audio")] {
        let output = attempt(&input, &folder.path().join("out"), &["--preset", preset]);
        assert_eq!(output.status.code(), Some(3), "{}", text(&output));
        assert!(text(&output).contains("no_streams"), "{}", text(&output));
    }
}

#[test]
fn thumbnail_writes_one_picture_of_the_moment_that_was_asked_for() {
    let clip = media::clip(4, 640, 360);
    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("poster.jpg");
    let thumbnail = |options: &[&str]| {
        let mut command = mpegflow();
        command.args(["thumbnail", clip.to_str().unwrap(), picture.to_str().unwrap()]);
        run(command.args(options), LIMIT)
    };
    let output = thumbnail(&["--at", "3", "--max-height", "180"]);
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(ffprobe(&picture, "v:0", "stream=codec_name,width,height"), "mjpeg,320,180");
    assert_eq!(files(folder.path()), ["poster.jpg"]);
    // What is there stays there, unless it is given up.
    let before = std::fs::read(&picture).unwrap();
    assert!(!thumbnail(&["--at", "1"]).status.success());
    assert_eq!(std::fs::read(&picture).unwrap(), before);
    assert!(thumbnail(&["--at", "1", "--force"]).status.success());
    assert_ne!(std::fs::read(&picture).unwrap(), before);
}

fn silent() -> PathBuf {
    media::ffmpeg(
        "silent.mp4",
        "-f lavfi -i testsrc2=size=320x240:rate=25:duration=2 -c:v libx264 -preset veryfast -pix_fmt yuv420p",
    )
}

#[test]
fn the_newer_codecs_make_ladders_that_are_checked_and_decode() {
    let clip = media::clip(2, 320, 240);
    for (preset, codec) in ["hevc", "vp9"].map(|name| (name, name)) {
        let made = transcode(&clip, &["--preset", preset]);
        let track = made.out.join("video-240p.mp4");
        assert_eq!(ffprobe(&track, "v:0", "stream=codec_name,nb_read_frames"), format!("{codec},60"));
        let dash = ffprobe(&made.out.join("manifest.mpd"), "v:0", "stream=codec_name");
        assert_eq!(dash.lines().next(), Some(codec));
    }
}

#[test]
fn a_spec_in_yaml_reaches_the_encoder_and_nonsense_is_refused_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let spec = |content: &str| {
        let file = folder.path().join("job.yaml");
        std::fs::write(&file, content).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let clip = media::clip(2, 320, 240);
    let fine = "version: 1\npreset: mp4\nvideo:\n  encoder: crf=12:preset=veryfast\n  max_frame_rate: 15\naudio: {tracks: none}\n";
    let large = transcode(&clip, &["--spec", &spec(fine)]);
    let small = transcode(&clip, &["--spec", &spec(&fine.replace("crf=12", "crf=40"))]);
    let size = |made: &Made| std::fs::metadata(made.out.join("video.mp4")).unwrap().len();
    assert!(size(&large) > 2 * size(&small), "{} {}", size(&large), size(&small));
    assert_eq!(ffprobe(&large.out.join("video.mp4"), "v:0", "stream=nb_read_frames"), "30");
    assert_eq!(ffprobe(&large.out.join("video.mp4"), "a", "stream=codec_name"), "");
    for (content, field) in [
        ("version: 1\npreset: mp4\nvideo: {segment_seconds: 4}\n", "video.segment_seconds"),
        ("version: 1\npreset: web\nvideo: {encoder: 'stats=/etc/passwd'}\n", "video.encoder"),
        ("version: 1\npreset: audio\nthumbnails: {poster_seconds: 1}\n", "thumbnails"),
        ("version: 1\npreset: web\naudio: {bit_rate_kbps: 9999}\n", "audio.bit_rate_kbps"),
        ("version: 1\npreset: hevc\nvideo: {max_height: 2160, encoder: preset=slow}\n", "video.encoder"),
    ] {
        let output = attempt(&clip, &folder.path().join("out"), &["--spec", &spec(content)]);
        let said = text(&output);
        assert!(!output.status.success() && said.contains(field), "{content}: {said}");
        assert!(!folder.path().join("out").exists());
    }
}

#[test]
fn the_presets_are_explained_without_a_broker() {
    let output = run(mpegflow().args(["presets", "--local"]), LIMIT);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    for name in ["web", "mp4", "hevc", "vp9", "audio", "thumbnail"] {
        assert!(said.lines().any(|l| l.starts_with(name) && l.len() > 40), "{name}: {said}");
    }
}
