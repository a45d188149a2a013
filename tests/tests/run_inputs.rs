//! What people really have, through the real path: each kind of input comes out as Debian's ffmpeg makes it at the same settings.
//! The length is the same within a frame, there are as many frames, and the pictures are alike (SSIM of at least 0.98).

use mpegflow_broker::plan::ladder;
use mpegflow_tests::media::{self, ffprobe};
use mpegflow_tests::system::{last_json, mpegflow, run, text};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(240);
const X264: &str = "-preset veryfast -pix_fmt yuv420p";
const PICTURE: &str = "-f lavfi -i testsrc2=size=320x180:rate=25:duration=2";

struct Made {
    _folder: tempfile::TempDir,
    file: PathBuf,
    job: Value,
}

fn attempt(input: &Path, out: &Path, spec: &str) -> Output {
    let file = out.with_extension("yaml");
    std::fs::write(&file, format!("version: 1\n{spec}")).unwrap();
    let mut command = mpegflow();
    command.args(["transcode", input.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    run(command.args(["--output", "json", "--spec", file.to_str().unwrap()]), LIMIT)
}

/// One MP4 of the input; `rest` is more of the spec.
fn transcode(input: &Path, rest: &str) -> Made {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let spec = format!("preset: mp4\nvideo: {{encoder: 'crf=18:preset=veryfast'}}\n{rest}");
    let output = attempt(input, &out, &spec);
    assert!(output.status.success(), "{}: {}", input.display(), text(&output));
    Made { job: last_json(&output)["job"].clone(), file: out.join("video.mp4"), _folder: folder }
}

/// The same by hand, `filter` being what the input needs.
fn by_hand(input: &Path, made: &Path, filter: &str) -> PathBuf {
    let out = made.with_file_name("by-hand.mp4");
    let size = ffprobe(made, "v:0", "stream=width,height");
    let (width, height) = size.split_once(',').unwrap();
    let cap = ladder::bit_rate(width.parse().unwrap(), height.parse().unwrap(), 25.0);
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-y", "-i"])
        .arg(input)
        .args(["-map", "0:v:0", "-an", "-vf"])
        .arg(format!("{filter}scale={width}:{height}:flags=bicubic,format=yuv420p,setsar=1"))
        .args("-c:v libx264 -profile:v high -preset veryfast -crf 18 -g 100000 -sc_threshold 0".split(' '))
        .args(["-maxrate", &cap.to_string(), "-bufsize", &(2 * cap).to_string()])
        .args("-fps_mode vfr -enc_time_base 1:90000 -video_track_timescale 90000".split(' '))
        .args(["-force_key_frames", "expr:gte(t,n_forced*4)"])
        .arg(&out)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}: {}", input.display(), String::from_utf8_lossy(&output.stderr));
    out
}

/// Frame by frame.
fn ssim(a: &Path, b: &Path) -> f64 {
    let by_number = media::by_number(25);
    media::ssim(a, b, [&by_number; 2])
}

/// Frames, and when the last one ends. Where sound leads the picture, ffmpeg's picture begins late and ours is held from the
/// start, so it is the ends that are alike.
fn facts(file: &Path) -> (u64, f64) {
    let found = ffprobe(file, "v:0", "stream=start_time,duration,nb_read_frames");
    let mut found = found.split(',').map(|v| v.parse::<f64>().unwrap());
    let (start, lasts) = (found.next().unwrap(), found.next().unwrap());
    (found.next().unwrap() as u64, start + lasts)
}

/// Holds what was made of the input against ffmpeg's.
fn same(input: &Path, made: &Made, filter: &str) {
    let theirs = by_hand(input, &made.file, filter);
    let ((frames, lasts), (their_frames, their_length)) = (facts(&made.file), facts(&theirs));
    let similar = ssim(&made.file, &theirs);
    let said = format!(
        "{}: {frames} frames ({their_frames}), {lasts:.3} s ({their_length:.3}), SSIM {similar:.4}",
        input.file_name().unwrap().to_string_lossy()
    );
    println!("{said}");
    assert_eq!(frames, their_frames, "{said}");
    assert!((lasts - their_length).abs() <= lasts / frames as f64 * 1.05, "{said}");
    assert!(similar >= 0.98, "{said}");
}

fn tags(file: &Path) -> String {
    ffprobe(file, "v:0", "stream=color_range,color_space,color_transfer,color_primaries")
}

#[test]
fn a_turned_picture_is_upright() {
    let upright = media::ffmpeg("in-upright.mp4", &format!("{PICTURE} -c:v libx264 {X264}"));
    for turn in [90, 180, 270] {
        let input = media::ffmpeg(
            &format!("in-turned-{turn}.mp4"),
            &format!("-i {} -c copy -metadata:s:v:0 rotate={turn}", upright.display()),
        );
        same(&input, &transcode(&input, ""), "");
    }
}

#[test]
fn a_mirrored_picture_is_as_its_camera_saw_it() {
    let upright = media::ffmpeg("in-upright.mp4", &format!("{PICTURE} -c:v libx264 {X264}"));
    let whole = std::fs::read(upright).unwrap();
    let track = whole.windows(4).position(|w| w == b"tkhd").unwrap();
    for (name, [a, b, c, d]) in [
        ("from-side-to-side", [-1_i32, 0, 0, 1]),
        ("upside-down", [1, 0, 0, -1]),
        ("turned-left", [0, 1, 1, 0]),
        ("turned-right", [0, -1, -1, 0]),
    ] {
        let input = media::made(&format!("in-mirrored-{name}.mp4"), |path| {
            let mut bytes = whole.clone();
            // ISO/IEC 14496-12, 8.3.2: the matrix stands 44 bytes behind the name, with 16 bits behind the point.
            for (place, value) in [(0, a), (4, b), (12, c), (16, d)] {
                let at = track + 44 + place;
                bytes[at..at + 4].copy_from_slice(&(value << 16).to_be_bytes());
            }
            std::fs::write(path, bytes).unwrap();
        });
        same(&input, &transcode(&input, ""), "");
    }
}

#[test]
fn pixels_that_are_not_square_become_square() {
    for (name, shape) in [("wide", "64/45"), ("narrow", "8/9")] {
        let input = media::ffmpeg(
            &format!("in-{name}.mp4"),
            &format!(
                "-f lavfi -i testsrc2=size=180x144:rate=25:duration=2 -vf setsar={shape} -c:v libx264 {X264}"
            ),
        );
        let made = transcode(&input, "");
        let (width, _) = ffprobe(&made.file, "v:0", "stream=width,height")
            .split_once(',')
            .map(|(w, h)| (w.to_owned(), h.to_owned()))
            .unwrap();
        assert_eq!(width, if name == "wide" { "256" } else { "160" });
        same(&input, &made, "");
    }
}

/// What the pictures say of their colours without a container that could say it for them.
fn bitstream(file: &Path, folder: &Path) -> String {
    let bare = folder.join("bare.ivf");
    let (format, bare) = match ffprobe(file, "v:0", "stream=codec_name").as_str() {
        "h264" => ("h264", bare.with_extension("h264")),
        "hevc" => ("hevc", bare.with_extension("hevc")),
        _ => ("ivf", bare),
    };
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-y", "-i"])
        .arg(file)
        .args(["-map", "0:v:0", "-c", "copy", "-f", format])
        .arg(&bare)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    tags(&bare)
}

#[test]
fn colours_stay_what_they_were_and_are_said() {
    for (name, primaries, transfer, matrix) in [
        ("601", "smpte170m", "smpte170m", "smpte170m"),
        ("pal", "bt470bg", "gamma28", "bt470bg"),
        ("709", "bt709", "bt709", "bt709"),
    ] {
        let input = media::ffmpeg(
            &format!("in-color-{name}.mp4"),
            &format!(
                "{PICTURE} -c:v libx264 {X264} -color_primaries {primaries} -color_trc {transfer} -colorspace {matrix}"
            ),
        );
        let said = tags(&input).replace("unknown", "tv");
        let made = transcode(&input, "");
        assert_eq!(tags(&made.file), said);
        same(&input, &made, "");
        for preset in ["web", "hevc", "vp9", "av1"] {
            let folder = tempfile::tempdir().unwrap();
            let out = folder.path().join("out");
            let output =
                attempt(&input, &out, &format!("preset: {preset}\nthumbnails: {{enabled: false}}\n"));
            assert!(output.status.success(), "{preset}: {}", text(&output));
            let file = out.join("video-180p.mp4");
            assert_eq!(tags(&file), said, "{preset} {name}");
            // Players go by the pictures themselves where those say something else than their container.
            let bare = bitstream(&file, &out);
            if preset == "vp9" {
                // Its pictures say no more than the matrix.
                assert_eq!(bare.split(',').nth(1), said.split(',').nth(1), "{preset} {name}: {bare}");
            } else {
                assert_eq!(bare, said, "{preset} {name}");
            }
        }
    }
    // Full range becomes limited range.
    let input = media::ffmpeg(
        "in-full.mp4",
        &format!("{PICTURE} -vf scale=out_range=pc,format=yuvj420p -c:v libx264 -preset veryfast"),
    );
    let made = transcode(&input, "");
    assert!(tags(&made.file).starts_with("tv,"), "{}", tags(&made.file));
    same(&input, &made, "scale=in_range=pc:out_range=tv,");
}

/// Fields of a moving picture, woven into frames.
fn woven(name: &str, first: &str, args: &str) -> PathBuf {
    let (weave, order) =
        if first == "top" { ("interleave_top", "tff") } else { ("interleave_bottom", "bff") };
    media::ffmpeg(
        name,
        &format!(
            "-f lavfi -i testsrc2=size=320x180:rate=50:duration=3 -vf tinterlace={weave},fieldorder={order},fps=25 {args}"
        ),
    )
}

#[test]
fn lines_of_two_moments_are_told_by_flags() {
    for (first, top) in [("top", "1"), ("bottom", "0")] {
        let input = woven(
            &format!("in-flagged-{first}.mpg"),
            first,
            &format!("-c:v mpeg2video -q:v 2 -flags +ilme+ildct -top {top}"),
        );
        same(&input, &transcode(&input, "decoders: legacy\n"), "yadif=deint=interlaced,");
    }
}

#[test]
fn lines_of_two_moments_are_told_by_what_they_show_where_no_flag_says_so() {
    for (first, parity) in [("top", "tff"), ("bottom", "bff")] {
        let input = woven(
            &format!("in-unflagged-{first}.mp4"),
            first,
            &format!("-c:v libx264 -crf 12 {X264} -field_order progressive -x264-params interlaced=0:tff=0"),
        );
        let said = ffprobe(&input, "v:0", "frame=interlaced_frame");
        assert!(!said.contains('1'), "the source is to be flagged progressive: {said}");
        same(&input, &transcode(&input, ""), &format!("yadif=deint=all:parity={parity},"));
    }
}

#[test]
fn whole_frames_that_are_flagged_as_two_moments_are_left_whole() {
    let input = media::ffmpeg(
        "in-wrongly-flagged.mpg",
        "-f lavfi -i testsrc2=size=320x180:rate=25:duration=3 -c:v mpeg2video -q:v 2 -flags +ilme+ildct -top 1",
    );
    assert!(ffprobe(&input, "v:0", "frame=interlaced_frame").starts_with('1'));
    same(&input, &transcode(&input, "decoders: legacy\n"), "");
}

#[test]
fn pictures_that_are_shown_for_uneven_times_stay_so() {
    let input = media::ffmpeg(
        "in-vfr.mkv",
        &format!(
            "{PICTURE} -vf select=not(between(n\\,10\\,19))*not(eq(mod(n\\,7)\\,3)) -fps_mode vfr -c:v libx264 {X264}"
        ),
    );
    let made = transcode(&input, "");
    same(&input, &made, "");
    let times = |file: &Path| -> Vec<i64> {
        let all = ffprobe(file, "v:0", "frame=pts_time");
        // Side data of a frame takes a line of its own, with nothing in it.
        let lines = all.lines().map(|l| l.trim_end_matches(',')).filter(|l| !l.is_empty());
        let times: Vec<f64> = lines.map(|l| l.parse().unwrap()).collect();
        times.iter().map(|t| ((t - times[0]) * 1000.0).round() as i64).collect()
    };
    let (ours, theirs) = (times(&made.file), times(&input));
    assert_eq!(ours.len(), theirs.len());
    assert!(ours.iter().zip(&theirs).all(|(a, b)| (a - b).abs() <= 1), "{ours:?} {theirs:?}");
}

#[test]
fn pictures_that_are_few_a_second_last_as_long_as_they_did() {
    for (name, rate, seconds) in
        [("slides", "1/3", 12), ("one", "1", 4), ("ten", "10", 2), ("fifteen", "15", 2)]
    {
        let input = media::ffmpeg(
            &format!("in-few-{name}.mp4"),
            &format!("-f lavfi -i testsrc2=size=320x180:rate={rate}:duration={seconds} -c:v libx264 {X264}"),
        );
        same(&input, &transcode(&input, ""), "");
    }
}

#[test]
fn what_an_edit_list_leaves_out_is_left_out() {
    let whole = media::ffmpeg(
        "in-long-gop.mp4",
        "-f lavfi -i testsrc2=size=320x180:rate=25:duration=4 -f lavfi -i sine=duration=4:sample_rate=48000 \
         -c:v libx264 -preset veryfast -pix_fmt yuv420p -g 100 -bf 2 -c:a aac",
    );
    // Copied from the middle of a GOP: the pictures before are stored, and an edit list says not to show them.
    let input = media::ffmpeg("in-edited.mp4", &format!("-ss 1.4 -i {} -c copy", whole.display()));
    let stored: u64 = ffprobe(&input, "v:0", "stream=nb_frames").split(',').next().unwrap().parse().unwrap();
    let made = transcode(&input, "");
    same(&input, &made, "");
    assert!(facts(&made.file).0 < stored, "nothing was left out of {stored} frames");
}

#[test]
fn odd_sizes_and_every_depth_and_chroma_come_out() {
    for (name, size, args) in [
        ("odd.mp4", "177x143", "-c:v libx264 -preset veryfast -pix_fmt yuv444p"),
        ("10-bit.mp4", "320x180", "-c:v libx265 -pix_fmt yuv420p10le -x265-params log-level=none"),
        ("422.mkv", "320x180", "-c:v libx264 -preset veryfast -pix_fmt yuv422p"),
        ("422-10.mov", "320x180", "-c:v prores_ks -profile:v 2"),
        ("444.mp4", "320x180", "-c:v libx264 -preset veryfast -pix_fmt yuv444p"),
        ("444-10.mkv", "320x180", "-c:v libx264 -preset veryfast -pix_fmt yuv444p10le"),
        ("444-12.mov", "320x180", "-c:v prores_ks -profile:v 4 -pix_fmt yuv444p10le"),
    ] {
        let input = media::ffmpeg(
            &format!("in-{name}"),
            &format!("-f lavfi -i testsrc2=size={size}:rate=25:duration=1 {args}"),
        );
        same(&input, &transcode(&input, ""), "");
    }
}

/// Volume of each channel in dB.
fn levels(file: &Path) -> Vec<f64> {
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-hide_banner", "-i"])
        .arg(file)
        .args([
            "-map",
            "0:a:0",
            "-af",
            "astats=measure_overall=none:measure_perchannel=RMS_level",
            "-f",
            "null",
            "-",
        ])
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    let level =
        |line: &str| line.rsplit_once("RMS level dB: ").map(|(_, v)| v.trim().parse().unwrap_or(-120.0));
    log.lines().filter_map(level).collect()
}

#[test]
fn sound_of_one_to_eight_channels_is_mixed_as_ffmpeg_mixes_it() {
    for layout in ["mono", "stereo", "3.0", "4.0", "5.0", "5.1", "6.1", "7.1"] {
        let count = match layout {
            "mono" => 1,
            "stereo" => 2,
            other => other.split('.').map(|d| d.parse::<usize>().unwrap()).sum(),
        };
        let tones: Vec<String> = (0..count).map(|c| format!("0.1*sin(2*PI*{}*t)", 300 + 170 * c)).collect();
        let input = media::ffmpeg(
            &format!("in-{layout}.mkv"),
            &format!(
                "{PICTURE} -f lavfi -i aevalsrc={}:c={layout}:s=48000:d=2 -c:v libx264 {X264} -c:a flac",
                tones.join("|")
            ),
        );
        let made = transcode(&input, "");
        let theirs = made.file.with_file_name("sound.wav");
        let channels = if layout == "mono" { "1" } else { "2" };
        let output = Command::new("ffmpeg")
            .args(["-nostdin", "-v", "error", "-i"])
            .arg(&input)
            // Floats, as AAC takes them: into whole numbers ffmpeg mixes more softly, so that nothing can be clipped.
            .args(["-map", "0:a:0", "-ac", channels, "-c:a", "pcm_f32le"])
            .arg(&theirs)
            .output()
            .unwrap();
        assert!(output.status.success());
        let (ours, theirs) = (levels(&made.file), levels(&theirs));
        println!("{layout}: {ours:?} {theirs:?}");
        assert_eq!(ours.len(), theirs.len(), "{layout}");
        assert!(ours.iter().zip(&theirs).all(|(a, b)| (a - b).abs() < 1.0), "{layout}: {ours:?} {theirs:?}");
    }
}

#[test]
fn one_frame_is_enough_for_every_codec() {
    let input = media::ffmpeg(
        "in-one-frame.mp4",
        &format!("-f lavfi -i testsrc2=size=320x180:rate=25 -frames:v 1 -c:v libx264 {X264}"),
    );
    same(&input, &transcode(&input, ""), "");
    for preset in ["web", "hevc", "vp9", "av1"] {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let output = attempt(&input, &out, &format!("preset: {preset}\n"));
        assert!(output.status.success(), "{preset}: {}", text(&output));
        assert_eq!(ffprobe(&out.join("video-180p.mp4"), "v:0", "stream=nb_read_frames"), "1", "{preset}");
    }
}

#[test]
fn a_fragmented_mp4_is_taken_whole() {
    let input = media::ffmpeg(
        "in-fragmented.mp4",
        &format!(
            "{PICTURE} -f lavfi -i sine=duration=2 -c:v libx264 {X264} -g 12 -c:a aac -movflags frag_keyframe+empty_moov+default_base_moof"
        ),
    );
    same(&input, &transcode(&input, ""), "");
}

#[test]
fn cover_art_is_no_film_and_beside_one_it_is_left_out() {
    let cover = media::ffmpeg("in-cover.jpg", "-f lavfi -i testsrc2=size=400x400 -frames:v 1");
    let song = media::ffmpeg(
        "in-song.mp3",
        &format!(
            "-f lavfi -i sine=duration=2 -i {} -map 0 -map 1 -c:a libmp3lame -c:v copy -disposition:v attached_pic",
            cover.display()
        ),
    );
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let output = attempt(&song, &out, "preset: mp4\ndecoders: legacy\n");
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(ffprobe(&out.join("video.mp4"), "v", "stream=codec_name"), "");
    let film = media::ffmpeg(
        "in-film-with-cover.mp4",
        &format!(
            "{PICTURE} -i {} -map 1 -map 0 -c:v:0 copy -c:v:1 libx264 {X264} -disposition:v:0 attached_pic",
            cover.display()
        ),
    );
    let made = transcode(&film, "");
    assert_eq!(ffprobe(&made.file, "v:0", "stream=width,height,nb_read_frames"), "320,180,50");
}

#[test]
fn a_stream_that_is_not_needed_may_be_of_a_codec_that_nobody_decodes() {
    let film = media::ffmpeg(
        "in-dts.mkv",
        &format!("{PICTURE} -f lavfi -i sine=duration=2 -c:v libx264 {X264} -c:a dca -strict -2"),
    );
    let song =
        media::ffmpeg("in-ffv1.mkv", &format!("{PICTURE} -f lavfi -i sine=duration=2 -c:v ffv1 -c:a aac"));
    for (input, spec, made) in [
        (&film, "preset: thumbnail\n", "poster.jpg"),
        (&film, "preset: mp4\naudio: {tracks: none}\n", "video.mp4"),
        (&song, "preset: audio\n", "audio.m4a"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let output = attempt(input, &out, spec);
        assert!(output.status.success(), "{spec}: {}", text(&output));
        assert!(out.join(made).exists(), "{spec}");
    }
    // What is needed is refused, and no set is named that has no decoder either.
    for (input, preset, codec) in [(&film, "mp4", "dts"), (&film, "audio", "dts"), (&song, "mp4", "ffv1")] {
        let folder = tempfile::tempdir().unwrap();
        let output = attempt(input, &folder.path().join("out"), &format!("preset: {preset}\n"));
        assert_eq!(output.status.code(), Some(3), "{preset}: {}", text(&output));
        let said = text(&output);
        let message = said.split("\"message\":").nth(1).unwrap_or_default();
        assert!(message.contains(codec) && !message.contains("--legacy-decoders"), "{preset}: {said}");
    }
}

#[test]
fn time_code_and_data_tracks_are_passed_over() {
    let timecode = media::ffmpeg(
        "in-timecode.mov",
        &format!("{PICTURE} -f lavfi -i sine=duration=2 -c:v libx264 {X264} -c:a aac -timecode 01:00:00:00"),
    );
    assert!(ffprobe(&timecode, "d", "stream=codec_tag_string").contains("tmcd"));
    same(&timecode, &transcode(&timecode, ""), "");
    let telemetry = media::folder().join("telemetry.bin");
    std::fs::write(&telemetry, media::noise(40_000)).unwrap();
    let data = media::ffmpeg(
        "in-telemetry.ts",
        &format!("{PICTURE} -f data -i {} -map 0 -map 1 -c:v libx264 {X264} -c:d copy", telemetry.display()),
    );
    assert!(!ffprobe(&data, "d", "stream=codec_type").is_empty());
    same(&data, &transcode(&data, ""), "");
}

/// A white picture and a tone together for a fifth of each second, black and silent between.
fn flashes(name: &str, seconds: u32, args: &str) -> PathBuf {
    media::ffmpeg(
        name,
        &format!(
            "-f lavfi -i color=black:size=160x120:rate=25:duration={seconds},drawbox=c=white:t=fill:enable='lt(mod(t\\,1)\\,0.2)' \
             -f lavfi -i aevalsrc=0.5*sin(2*PI*1000*t)*lt(mod(t\\,1)\\,0.2):s=48000:d={seconds} \
             -c:v libx264 {X264} -g 25 {args}"
        ),
    )
}

/// Times at which a filter says that something begins.
fn beginnings(file: &Path, args: &[&str], mark: &str) -> Vec<f64> {
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-hide_banner", "-i"])
        .arg(file)
        .args(args)
        .args(["-f", "null", "-"])
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    log.split(mark)
        .skip(1)
        .filter_map(|rest| rest.split(|c: char| c.is_whitespace()).next()?.parse().ok())
        .collect()
}

/// Flashes and beeps of what was made are as many as `seconds` and come together.
fn in_step(made: &Made, least: usize) {
    let seen = beginnings(&made.file, &["-vf", "blackdetect=d=0.1:pix_th=0.5"], "black_end:");
    let heard = beginnings(&made.file, &["-af", "silencedetect=n=-30dB:d=0.1"], "silence_end: ");
    println!("{seen:?}\n{heard:?}");
    // At the end of the file both filters say that black and silence end, which is no flash: the last picture's time, and
    // behind it the end of the sound's last frame.
    let last = facts(&made.file).1 - 0.06;
    let seen: Vec<f64> = seen.into_iter().filter(|s| *s < last).collect();
    let pairs = seen.iter().filter_map(|s| {
        let nearest = heard.iter().map(|h| (h - s).abs()).fold(f64::MAX, f64::min);
        Some((s, nearest)).filter(|(_, d)| *d < 0.5)
    });
    let pairs: Vec<_> = pairs.collect();
    // Matroska states no priming, so that sound is 21 ms late there (1024 samples); a sound frame that overlaps the one before
    // by less than 40 ms is not cut; and a picture is shown for 40 ms.
    assert!(pairs.len() >= least, "{seen:?} {heard:?}");
    assert!(pairs.iter().all(|(_, apart)| *apart < 0.06), "{pairs:?}");
}

#[test]
fn times_below_zero_stay_in_step() {
    let input = flashes("in-negative.mkv", 6, "-c:a aac -output_ts_offset -2.5 -avoid_negative_ts disabled");
    let made = transcode(&input, "");
    in_step(&made, 4);
    assert!(facts(&made.file).1 > 5.8, "{:?}", facts(&made.file));
}

#[test]
fn times_that_start_over_stay_in_step() {
    let one = flashes("in-part.mkv", 3, "-c:a aac");
    // Two recordings behind each other, as a recorder that was paused writes them: cluster times start over.
    let bytes = std::fs::read(&one).unwrap();
    let clusters = bytes.windows(4).position(|w| w == [0x1f, 0x43, 0xb6, 0x75]).unwrap();
    let end = bytes.windows(4).rposition(|w| w == [0x1c, 0x53, 0xbb, 0x6b]).unwrap();
    assert!(clusters < end);
    let joined = media::made("in-joined.mkv", |path| {
        let mut all = bytes[..end].to_vec();
        // Of unknown size, so that it holds whatever follows.
        let segment = all.windows(4).position(|w| w == [0x18, 0x53, 0x80, 0x67]).unwrap() + 4;
        all[segment..segment + 8].copy_from_slice(&[1, 255, 255, 255, 255, 255, 255, 255]);
        all.extend_from_slice(&bytes[clusters..end]);
        std::fs::write(path, all).unwrap();
    });
    let made = transcode(&joined, "");
    in_step(&made, 4);
    assert!((facts(&made.file).1 - 6.0).abs() < 0.2, "{:?}", facts(&made.file));
}

#[test]
fn transport_streams_that_were_joined_or_whose_clock_starts_over_stay_in_step() {
    let first = flashes("in-joined-a.ts", 3, "-c:a aac");
    let second = flashes("in-joined-b.ts", 3, "-c:a aac -output_ts_offset 500");
    let joined = media::made("in-joined.ts", |path| {
        std::fs::write(path, [std::fs::read(first).unwrap(), std::fs::read(second).unwrap()].concat())
            .unwrap();
    });
    let made = transcode(&joined, "");
    in_step(&made, 4);
    assert!((facts(&made.file).1 - 6.0).abs() < 0.2, "{:?}", facts(&made.file));
    // 2^33 ticks of 90 kHz are 95,443.7 s.
    let wraps = flashes("in-wraps.ts", 6, "-c:a aac -output_ts_offset 95440");
    let made = transcode(&wraps, "");
    in_step(&made, 4);
    assert!((facts(&made.file).1 - 6.0).abs() < 0.2, "{:?}", facts(&made.file));
}

#[test]
fn pictures_without_times_get_them_from_their_rate() {
    let input = flashes("in-no-times.avi", 4, "-bf 2 -c:a libmp3lame");
    let made = transcode(&input, "decoders: legacy\n");
    in_step(&made, 3);
    same(&input, &made, "");
}

/// Which part of a file of so many milliseconds a refusal says is good: `N of M ms`, `N of M bytes`, or `good to N ms`.
fn good_part(message: &str, whole_ms: f64) -> f64 {
    let words: Vec<&str> =
        message.split(|c: char| c.is_whitespace() || c == ',').filter(|w| !w.is_empty()).collect();
    let number = |at: usize| words.get(at).and_then(|w| w.parse::<f64>().ok());
    let of = words.iter().enumerate().filter(|(_, w)| **w == "of");
    let mut shares = of.filter_map(|(at, _)| Some(number(at.checked_sub(1)?)? / number(at + 1)?));
    let mut times = words.windows(4).filter(|w| w[..2] == ["good", "to"] && w[3] == "ms");
    let time = times.next().and_then(|w| w[2].parse::<f64>().ok());
    shares.next().or(time.map(|ms| ms / whole_ms)).unwrap_or_else(|| panic!("no number: {message}"))
}

#[test]
fn an_input_that_is_cut_off_is_refused_with_how_much_was_good_or_taken_and_marked() {
    for (name, args) in [
        ("in-cut.ts", "-c:a aac"),
        ("in-cut.mkv", "-c:a aac"),
        ("in-cut.mp4", "-c:a aac -movflags +faststart"),
        ("in-cut.wmv", "-c:v wmv2 -b:v 400k -c:a wmav2"),
        ("in-cut.flv", "-c:a aac"),
    ] {
        let whole = std::fs::read(flashes(&format!("whole-{name}"), 6, args)).unwrap();
        let old = if name.ends_with("wmv") || name.ends_with("flv") { "decoders: legacy\n" } else { "" };
        let at = whole.len() * 6 / 10;
        let at = if name.ends_with("ts") { at / 188 * 188 + 100 } else { at };
        let input = media::made(name, |path| std::fs::write(path, &whole[..at]).unwrap());
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let output = attempt(&input, &out, &format!("preset: mp4\n{old}"));
        assert_eq!(output.status.code(), Some(3), "{name}: {}", text(&output));
        assert!(text(&output).contains("input_truncated"), "{name}: {}", text(&output));
        let good = good_part(&text(&output), 6_000.0);
        assert!((0.5..0.7).contains(&good), "{name}: {good} of it: {}", text(&output));
        let made = transcode(&input, &format!("allow_partial: true\n{old}"));
        let damage = &made.job["damage"];
        println!("{name}: {damage}");
        assert_eq!(damage["partial"], true, "{name}: {damage}");
        let good = damage["good_ms"].as_u64().unwrap();
        assert!((1_500..5_500).contains(&good), "{name}: {damage}");
        let (_, lasts) = facts(&made.file);
        assert!((lasts - good as f64 / 1000.0).abs() < 0.5, "{name}: {lasts} {damage}");
        in_step(&made, 1);
        // Less than a second is missing.
        let at = whole.len() * 97 / 100;
        let at = if name.ends_with("ts") { at / 188 * 188 + 100 } else { at };
        let input = media::made(&format!("97-{name}"), |path| std::fs::write(path, &whole[..at]).unwrap());
        let output = attempt(&input, &folder.path().join("out"), &format!("preset: mp4\n{old}"));
        assert_eq!(output.status.code(), Some(3), "{name}: {}", text(&output));
        assert!(text(&output).contains("input_truncated"), "{name}: {}", text(&output));
    }
    // Sound alone, whose containers state a size, or have pages or frames that are whole or not.
    for (name, args) in [
        ("in-cut.wav", "-c:a pcm_s16le"),
        ("in-cut.mp3", "-c:a libmp3lame"),
        ("in-cut.opus", "-c:a libopus"),
        ("in-cut.aac", "-c:a aac"),
        ("in-cut.flac", "-c:a flac"),
        ("in-cut.mpg", "-f lavfi -i testsrc2=size=160x120:rate=25:duration=4 -c:v mpeg2video -c:a mp2"),
    ] {
        let whole = media::ffmpeg(
            &format!("whole-{name}"),
            &format!("-f lavfi -i sine=duration=4:sample_rate=48000 {args}"),
        );
        let whole = std::fs::read(whole).unwrap();
        for percent in [30, 50, 80, 97] {
            let cut = whole.len() * percent / 100;
            let input =
                media::made(&format!("{percent}-{name}"), |p| std::fs::write(p, &whole[..cut]).unwrap());
            let folder = tempfile::tempdir().unwrap();
            let spec = "preset: mp4\ndecoders: legacy\n";
            let output = attempt(&input, &folder.path().join("out"), spec);
            assert_eq!(output.status.code(), Some(3), "{name} {percent}: {}", text(&output));
            assert!(text(&output).contains("input_truncated"), "{name} {percent}: {}", text(&output));
        }
    }
    // Cut off where it says what is in it: still the file's fault, and not the storage's.
    let bytes = std::fs::read(media::folder().join("whole-in-cut.mkv")).unwrap();
    for length in [100, 300, 600] {
        let input =
            media::made(&format!("in-cut-{length}.mkv"), |p| std::fs::write(p, &bytes[..length]).unwrap());
        let folder = tempfile::tempdir().unwrap();
        let output = attempt(&input, &folder.path().join("out"), "preset: mp4\n");
        assert_eq!(output.status.code(), Some(3), "{length}: {}", text(&output));
        assert!(text(&output).contains("input_truncated"), "{length}: {}", text(&output));
    }
    // A whole one says nothing of damage.
    let whole = transcode(&media::folder().join("whole-in-cut.mkv"), "allow_partial: true\n");
    assert!(whole.job["damage"].is_null(), "{}", whole.job["damage"]);
}
