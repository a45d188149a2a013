//! `mpegflow transcode`: a real file through the real path (public API, broker, supervisor, locked codec, checked output).

use mpegflow_tests::media::{self, ffprobe};
use mpegflow_tests::system::{files, last_json, mpegflow, run, text};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(240);

struct Result {
    _folder: tempfile::TempDir,
    out: PathBuf,
    said: Value,
}

fn transcode(input: &Path, options: &[&str]) -> Result {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let output = run(
        mpegflow()
            .args(["transcode", input.to_str().unwrap(), "--out", out.to_str().unwrap(), "--output", "json"])
            .args(options),
        LIMIT,
    );
    assert!(output.status.success(), "{}", text(&output));
    let said = last_json(&output);
    // Nothing is left beside the result: no state, no partial folder.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "{:?}", files(folder.path()));
    Result { _folder: folder, out, said }
}

/// Names of the video tracks, widest first, from the multivariant playlist.
fn resolutions(out: &Path) -> Vec<String> {
    let master = std::fs::read_to_string(out.join("master.m3u8")).unwrap();
    master
        .lines()
        .filter_map(|line| line.strip_prefix("#EXT-X-STREAM-INF:"))
        .map(|attributes| {
            let (_, rest) = attributes.split_once("RESOLUTION=").expect("a video rendition has a resolution");
            rest.split(',').next().unwrap().to_owned()
        })
        .collect()
}

fn video_tracks(out: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = files(out)
        .into_iter()
        .filter(|f| f.starts_with("video-") && f.ends_with(".mp4"))
        .map(|f| out.join(f))
        .collect();
    found.sort_by_key(|f| std::cmp::Reverse(std::fs::metadata(f).unwrap().len()));
    found
}

/// Structural similarity of two videos, scaled to the same size: 1.0 is the same.
fn ssim(a: &Path, b: &Path, filter_a: &str, size: &str) -> f64 {
    let scaled = format!("scale={size}:flags=bicubic,setsar=1");
    media::ssim(a, b, [&format!("{filter_a}{scaled}"), &scaled])
}

#[test]
fn a_clip_becomes_a_ladder_that_is_checked_and_says_how_it_was_isolated() {
    let clip = media::clip(8, 1280, 720);
    let result = transcode(&clip, &[]);
    let job = &result.said["job"];
    assert_eq!(job["state"], "succeeded");

    // The ladder comes from the source's size and is never upscaled.
    let resolutions = resolutions(&result.out);
    assert_eq!(resolutions.first().map(String::as_str), Some("1280x720"));
    assert!(resolutions.len() >= 3, "{resolutions:?}");

    // Every rung has every frame, and its picture is the source's.
    let tracks = video_tracks(&result.out);
    assert_eq!(tracks.len(), resolutions.len());
    for track in &tracks {
        assert_eq!(
            ffprobe(track, "v:0", "stream=codec_name,nb_read_frames"),
            "h264,240",
            "{}",
            track.display()
        );
    }
    let similar = ssim(&clip, &tracks[0], "", "1280:720");
    assert!(similar > 0.95, "SSIM {similar}");

    // Sound: all of it, in step to within an AAC frame or two.
    let audio = files(&result.out)
        .into_iter()
        .find(|f| f.starts_with("audio") && f.ends_with(".mp4"))
        .expect("an audio track");
    let duration: f64 = ffprobe(&result.out.join(audio), "a:0", "format=duration").parse().unwrap();
    assert!((duration - 8.0).abs() < 0.1, "{duration}");

    // Four tasks, each in a process of its own whose locks were seen from outside.
    let tasks = job["tasks"].as_array().unwrap();
    let kinds: Vec<&str> = tasks.iter().map(|t| t["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["probe", "encode", "package", "check"]);
    for task in tasks {
        let (seen, said) = (&task["evidence"]["observed"], &task["evidence"]["self_reported"]);
        assert_eq!(seen["seccomp_mode"], 2, "{task}");
        assert_eq!(seen["seccomp_filters"], mpegflow_lockdown::policy::filters(), "{task}");
        assert_eq!(
            (&seen["no_new_privs"], &seen["capabilities"], &seen["threads"]),
            (&true.into(), &0.into(), &1.into())
        );
        assert_ne!(seen["uid"], 0, "the codec runs as root");
        assert_eq!(
            (&said["landlock_refused_open"], &said["environment_empty"]),
            (&true.into(), &true.into())
        );
    }
    assert!(result.out.join("index.html").exists(), "a page that plays it: {:?}", files(&result.out));
}

#[test]
fn the_end_says_what_came_out_and_where_and_how_it_was_isolated() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let clip = media::clip(2, 320, 240);
    let output =
        run(mpegflow().args(["transcode", clip.to_str().unwrap(), "--out", out.to_str().unwrap()]), LIMIT);
    assert!(output.status.success(), "{}", text(&output));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    for part in
        ["made", "240p", out.to_str().unwrap(), "isolated", "3 seccomp filters", "Landlock ABI", "play"]
    {
        assert!(said.contains(part), "no {part:?} in:\n{said}");
    }
    assert!(!said.contains('\u{1b}'), "colour only on a terminal");
}

#[test]
fn a_picture_filmed_upside_down_or_sideways_comes_out_upright() {
    let upright = media::clip(2, 320, 240);
    for (turn, size) in [(90, "240x320"), (180, "320x240"), (270, "240x320")] {
        // The muxer turns the tag into a display matrix, as a phone writes it.
        let turned = media::ffmpeg(
            &format!("turned-{turn}.mp4"),
            &format!("-i {} -c copy -metadata:s:v:0 rotate={turn}", upright.display()),
        );
        assert!(
            !ffprobe(&turned, "v:0", "stream_side_data=rotation").is_empty(),
            "no display matrix was written"
        );
        let result = transcode(&turned, &[]);
        assert_eq!(resolutions(&result.out), [size], "turned by {turn}");
        let track = &video_tracks(&result.out)[0];
        // What a player shows of the source is what ffmpeg decodes of it, turned by itself.
        let similar = ssim(&turned, track, "", &size.replace('x', ":"));
        let wrong = ssim(&upright, track, "", &size.replace('x', ":"));
        assert!(similar > 0.9, "turned by {turn}: SSIM {similar}");
        assert!(
            similar > wrong + 0.2,
            "turned by {turn}: as much like the source as it was stored ({similar}, {wrong})"
        );
    }
}

#[test]
fn pixels_that_are_not_square_come_out_in_the_right_shape() {
    // PAL DV: 720 × 576 with pixels of 64:45 is 1024 × 576 on a screen.
    let clip = media::ffmpeg(
        "anamorphic.mp4",
        "-f lavfi -i testsrc2=size=720x576:rate=25:duration=2 -vf setsar=64/45 -c:v libx264 -preset veryfast -pix_fmt yuv420p",
    );
    let result = transcode(&clip, &[]);
    assert_eq!(resolutions(&result.out)[0], "1024x576");
    for track in video_tracks(&result.out) {
        let aspect = ffprobe(&track, "v:0", "stream=sample_aspect_ratio");
        assert!(["1:1", "N/A"].contains(&aspect.as_str()), "{aspect}");
    }
}

#[test]
fn sound_without_picture_and_picture_without_sound_come_out() {
    let sound = media::ffmpeg("sound.m4a", "-f lavfi -i sine=frequency=440:duration=4 -c:a aac");
    let result = transcode(&sound, &[]);
    assert!(video_tracks(&result.out).is_empty());
    assert!(std::fs::read_to_string(result.out.join("master.m3u8")).unwrap().contains("mp4a.40.2"));
    let silent = media::ffmpeg(
        "silent.webm",
        "-f lavfi -i testsrc2=size=320x240:rate=25:duration=2 -c:v libvpx -b:v 500k",
    );
    let result = transcode(&silent, &[]);
    assert_eq!(ffprobe(&video_tracks(&result.out)[0], "v:0", "stream=nb_read_frames"), "50");
}

#[test]
fn location_and_device_tags_do_not_reach_the_output() {
    let tagged = media::ffmpeg(
        "tagged.mov",
        &format!(
            "-i {} -c copy -movflags use_metadata_tags -metadata location=+52.5200+013.4050/ -metadata com.apple.quicktime.model=SecretPhone -metadata title=SecretTitle",
            media::clip(2, 320, 240).display()
        ),
    );
    let result = transcode(&tagged, &[]);
    for file in files(&result.out) {
        let bytes = std::fs::read(result.out.join(&file)).unwrap();
        for secret in [&b"52.5200"[..], b"SecretPhone", b"SecretTitle"] {
            assert!(
                !bytes.windows(secret.len()).any(|w| w == secret),
                "{file} holds {}",
                String::from_utf8_lossy(secret)
            );
        }
    }
}

#[test]
fn a_folder_with_something_in_it_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("mine.txt"), "mine").unwrap();
    for force in [&[][..], &["--force"]] {
        let output = run(
            mpegflow()
                .args([
                    "transcode",
                    media::clip(2, 320, 240).to_str().unwrap(),
                    "--out",
                    folder.path().to_str().unwrap(),
                ])
                .args(force),
            LIMIT,
        );
        assert!(!force.is_empty() || !output.status.success(), "{}", text(&output));
        assert_eq!(std::fs::read_to_string(folder.path().join("mine.txt")).unwrap(), "mine");
    }
}
