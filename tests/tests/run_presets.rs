//! Each preset through the real path: what comes out is what the preset says, plays, and is refused where the spec makes no
//! sense.

use mpegflow_broker::plan::presets::PresetName;
use mpegflow_tests::media::{self, ffprobe};
use mpegflow_tests::system::{files, last_json, mpegflow, run, text};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
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
    // The tones are still in their own tracks, which say their language themselves too.
    for (file, sound) in [("audio.mp4", "2,eng"), ("audio-2.mp4", "1,deu")] {
        assert_eq!(ffprobe(&made.out.join(file), "a:0", "stream=channels:stream_tags=language"), sound);
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
    for (preset, codec) in ["hevc", "vp9", "av1"].map(|name| (name, name)) {
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

/// A film whose every box and stream says where, when and with what it was made.
fn telling() -> PathBuf {
    let clip = media::clip(2, 320, 240);
    media::ffmpeg(
        "telling.mov",
        &format!(
            "-i {} -t 1 -c copy -movflags use_metadata_tags -metadata location=+52.5200+013.4050/ \
             -metadata com.apple.quicktime.location.ISO6709=+52.5200+013.4050+034.000/ \
             -metadata com.apple.quicktime.make=SecretMaker -metadata com.apple.quicktime.model=SecretPhone \
             -metadata com.apple.quicktime.software=SecretSystem -metadata serial=SecretSerial-4711 \
             -metadata title=SecretTitle -metadata artist=SecretArtist -metadata creation_time=2019-08-07T06:05:04Z \
             -metadata:s:v:0 handler_name=SecretHandler -metadata:s:v:0 encoder=SecretEncoder \
             -metadata:s:a:0 handler_name=SecretMicrophone",
            clip.display()
        ),
    )
}

/// Which of the secrets are in which files of a folder.
fn told(out: &Path) -> Vec<String> {
    let mut found = Vec::new();
    // The player beside them is ours.
    for file in files(out).into_iter().filter(|file| !file.starts_with("player/")) {
        let bytes = std::fs::read(out.join(&file)).unwrap();
        for secret in ["Secret", "52.5200", "13.4050", "4711", "2019-08", "com.apple"] {
            if bytes.windows(secret.len()).any(|w| w == secret.as_bytes()) {
                found.push(format!("{file}: {secret}"));
            }
        }
    }
    found
}

#[test]
fn nothing_of_place_time_and_device_is_in_what_any_preset_makes() {
    let input = telling();
    let source = std::fs::read(&input).unwrap();
    for secret in ["SecretPhone", "SecretSerial-4711", "+52.5200+013.4050", "SecretHandler"] {
        assert!(
            source.windows(secret.len()).any(|w| w == secret.as_bytes()),
            "the source does not say {secret}"
        );
    }
    for preset in PresetName::ALL {
        let made = transcode(&input, &["--preset", preset.as_str()]);
        assert_eq!(told(&made.out), [""; 0], "{}", preset.as_str());
    }
}

#[test]
fn a_tag_is_kept_where_the_spec_names_it_and_no_other_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let spec = folder.path().join("job.yaml");
    for (preset, file) in [("mp4", "video.mp4"), ("audio", "audio.m4a")] {
        std::fs::write(
            &spec,
            format!("version: 1\npreset: {preset}\nmetadata: {{keep: [title, location]}}\n"),
        )
        .unwrap();
        let made = transcode(&telling(), &["--spec", spec.to_str().unwrap()]);
        let tags = ffprobe(&made.out.join(file), "0", "format_tags");
        assert!(tags.contains("SecretTitle") && tags.contains("+52.5200+013.4050"), "{preset}: {tags}");
        let others = [
            "SecretArtist",
            "SecretPhone",
            "SecretMaker",
            "SecretSystem",
            "4711",
            "SecretHandler",
            "2019-08",
        ];
        let bytes = std::fs::read(made.out.join(file)).unwrap();
        for other in others {
            assert!(!bytes.windows(other.len()).any(|w| w == other.as_bytes()), "{preset}: {other}");
        }
    }
    // Where there is no place for tags, the field is refused rather than passed over.
    std::fs::write(&spec, "version: 1\npreset: web\nmetadata: {keep: [title]}\n").unwrap();
    let output = attempt(&telling(), &folder.path().join("out"), &["--spec", spec.to_str().unwrap()]);
    assert!(!output.status.success() && text(&output).contains("metadata.keep"), "{}", text(&output));
}

/// Seconds at which decoding can start, as the decoder sees it and not as the container says.
fn key_frames(track: &Path) -> Vec<String> {
    let shown = ffprobe(track, "v:0", "frame=pts_time,pict_type");
    let keys = shown.lines().filter_map(|l| l.trim_end_matches(',').split_once(",I").map(|(time, _)| time));
    keys.map(str::to_owned).collect()
}

#[test]
fn av1_has_the_grid_of_the_plan_whatever_the_frame_rate_and_looks_as_ffmpeg_makes_it() {
    // 29.97 frames a second: no number of frames is two seconds, and the grid goes by time.
    let clip = media::ffmpeg(
        "grid.mp4",
        "-f lavfi -i testsrc2=size=320x180:rate=30000/1001:duration=7 -c:v libx264 -preset veryfast -crf 12 -pix_fmt yuv420p",
    );
    // And one whose frames are not evenly spaced.
    let uneven = media::ffmpeg(
        "grid-uneven.mkv",
        "-f lavfi -i testsrc2=size=320x180:rate=25:duration=7 -vf select=not(eq(mod(n\\,7)\\,3)) -fps_mode vfr -c:v libx264 -preset veryfast -crf 12 -pix_fmt yuv420p",
    );
    let folder = tempfile::tempdir().unwrap();
    for (input, keys) in [
        (&clip, ["0.000000", "2.002000", "4.004000", "6.006000"]),
        (&uneven, ["0.000000", "2.000000", "4.000000", "6.000000"]),
    ] {
        let spec = folder.path().join("job.yaml");
        std::fs::write(
            &spec,
            "version: 1\npreset: av1\nvideo: {segment_seconds: 2}\nthumbnails: {enabled: false}\n",
        )
        .unwrap();
        let made = transcode(input, &["--spec", spec.to_str().unwrap()]);
        let track = made.out.join("video-180p.mp4");
        let found = key_frames(&track);
        if input == &clip {
            assert_eq!(found, keys);
        } else {
            assert_eq!(found.len(), keys.len(), "{found:?}");
        }
        // Each segment decodes by itself: cut out behind the header, it has no lost references.
        let playlist = std::fs::read_to_string(made.out.join("video-180p.m3u8")).unwrap();
        let object = std::fs::read(&track).unwrap();
        let range = |text: &str| -> (usize, usize) {
            let (bytes, offset) = text.split_once('@').unwrap();
            (bytes.parse().unwrap(), offset.parse().unwrap())
        };
        let map = playlist.split_once("BYTERANGE=\"").unwrap().1.split_once('"').unwrap().0;
        let mut frames = 0;
        for (number, line) in playlist.lines().filter_map(|l| l.strip_prefix("#EXT-X-BYTERANGE:")).enumerate()
        {
            let (bytes, offset) = range(line);
            let alone = folder.path().join(format!("alone-{number}.mp4"));
            std::fs::write(&alone, [&object[..range(map).0], &object[offset..offset + bytes]].concat())
                .unwrap();
            frames += ffprobe(&alone, "v:0", "stream=nb_read_frames").parse::<u32>().unwrap();
        }
        assert_eq!(frames.to_string(), ffprobe(&track, "v:0", "stream=nb_read_frames"));
        assert_eq!(frames.to_string(), ffprobe(input, "v:0", "stream=nb_read_frames"));
        // By hand at the same quantiser, with the same distance of key frames.
        let theirs = folder.path().join("by-hand.mp4");
        let output = Command::new("ffmpeg")
            .args(["-nostdin", "-v", "error", "-y", "-i"])
            .arg(input)
            .args(["-c:v", "libsvtav1", "-preset", "10", "-crf", "35", "-g", "60", "-pix_fmt", "yuv420p"])
            .args(["-svtav1-params", "scd=0:lp=2", "-fps_mode", "vfr"])
            .arg(&theirs)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let (ours, theirs) = (similar(&track, input), similar(&theirs, input));
        println!("SSIM against the source: {ours:.4}, by hand {theirs:.4}");
        assert!(ours > 0.95 && ours > theirs - 0.01, "{ours} {theirs}");
    }
}

/// SSIM, frame by frame.
fn similar(a: &Path, b: &Path) -> f64 {
    let by_number = media::by_number(25);
    media::ssim(a, b, [&by_number; 2])
}

#[test]
fn a_picture_too_small_for_the_codec_is_refused_with_the_way_out() {
    let tiny = media::ffmpeg(
        "tiny.mp4",
        "-f lavfi -i testsrc2=size=48x32:rate=25:duration=1 -c:v libx264 -preset veryfast -pix_fmt yuv420p",
    );
    let folder = tempfile::tempdir().unwrap();
    let output = attempt(&tiny, &folder.path().join("out"), &["--preset", "av1"]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("frame_too_small") && said.contains("web"), "{said}");
    for preset in ["web", "hevc", "vp9"] {
        assert_eq!(
            ffprobe(
                &transcode(&tiny, &["--preset", preset]).out.join("video-32p.mp4"),
                "v:0",
                "stream=nb_read_frames"
            ),
            "25"
        );
    }
}

#[test]
fn the_presets_are_explained_without_a_broker() {
    let output = run(mpegflow().args(["presets", "--local"]), LIMIT);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    for name in ["web", "mp4", "hevc", "vp9", "av1", "audio", "thumbnail"] {
        assert!(said.lines().any(|l| l.starts_with(name) && l.len() > 40), "{name}: {said}");
    }
}
