//! Encodes of many kinds of input.

use crate::supervisor::{Bytes, Outcome};
use crate::{media, plans, supervisor};
use mpegflow_protocol::codec::ProcessLimits;
use mpegflow_protocol::encoder::EncoderSpeed;
use mpegflow_protocol::failure::FailureCode;
use mpegflow_protocol::job::DecoderSet;
use mpegflow_protocol::task::EncodeTask;
use mpegflow_protocol::telemetry::Phase;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

#[test]
fn a_plain_clip_becomes_two_rungs_and_a_sound_track() {
    let task = plans::encode(
        Some(plans::video(0, vec![plans::rung(0, 320, 240), plans::rung(1, 160, 120)])),
        vec![plans::audio(2, 1)],
    );
    let outcome = supervisor::run(task, &[media::plain()], 3);
    let result = outcome.encode();
    assert_eq!((result.frames_decoded, result.frames_dropped, result.decode_errors), (100, 0, 0));
    assert!(outcome.progress.is_sorted_by_key(|p| p.frames), "progress goes back: {:?}", outcome.progress);
    let units: Vec<u64> = result.tracks.iter().map(|t| t.units).collect();
    assert_eq!(units[..2], [100, 100]);
    assert!((190_000..=194_000).contains(&units[2]), "{units:?}");
    for (track, bytes) in result.tracks.iter().zip(&outcome.outputs) {
        assert_eq!(track.bytes, bytes.len() as u64);
    }
    let source = media::folder().join("plain.mp4");
    for (index, size) in [(0, "320,240"), (1, "160,120")] {
        let path = media::save(&outcome.outputs[index], &format!("plain-{index}.mp4"));
        let facts = media::ffprobe(
            "-count_frames -show_entries stream=width,height,nb_read_frames,start_time,duration -of csv=p=0",
            &path,
        );
        assert_eq!(facts, format!("{size},0.000000,4.000000,100"));
        let ssim = media::ssim(&source, &path, &format!("scale={}:flags=bicubic", size.replace(',', ":")));
        assert!(ssim > 0.97, "{ssim}");
        let keys = media::ffprobe("-skip_frame nokey -show_entries frame=pts_time -of csv=p=0", &path);
        assert_eq!(keys.replace(",\n", "\n").trim_end_matches(','), "0.000000\n1.000000\n2.000000\n3.000000");
    }
    let path = media::save(&outcome.outputs[2], "plain-2.mp4");
    let facts = media::ffprobe("-show_entries stream=codec_name,sample_rate,channels -of csv=p=0", &path);
    assert_eq!(facts, "aac,48000,2");
}

/// Encodes and returns the outcome and the first output as a file.
fn encode(name: &str, input: &Bytes, task: EncodeTask) -> (Outcome, PathBuf) {
    let outputs = task.audio.len() + task.video.as_ref().map_or(0, |v| v.rungs.len());
    let outcome = supervisor::run(task, std::slice::from_ref(input), outputs);
    assert_eq!(outcome.killed_by(), None, "{name}: {}", outcome.log);
    let path = media::save(&outcome.outputs[0], &format!("out-{name}.mp4"));
    (outcome, path)
}

fn video_only(width: u32, height: u32) -> EncodeTask {
    let mut task = plans::encode(Some(plans::video(0, vec![plans::rung(0, width, height)])), vec![]);
    task.decoders = DecoderSet::Legacy;
    task
}

fn audio_only() -> EncodeTask {
    let mut task = plans::encode(None, vec![plans::audio(0, 0)]);
    task.decoders = DecoderSet::Legacy;
    task
}

#[test]
fn each_phase_is_told_once_and_only_names_and_times_are() {
    let phases = |outcome: &supervisor::Outcome| outcome.phases.iter().map(|t| t.phase).collect::<Vec<_>>();
    let (outcome, _) = encode("phases", &media::plain(), video_only(160, 120));
    assert_eq!(phases(&outcome), [Phase::Open, Phase::Decode, Phase::Encode]);
    let ends: Vec<u64> = outcome.phases.iter().map(|t| t.start_us + t.duration_us).collect();
    assert!(ends.is_sorted(), "{ends:?}");
    let outcome = supervisor::run(plans::probe(DecoderSet::Core), &[media::plain()], 0);
    assert_eq!(phases(&outcome), [Phase::Probe]);
    // Also of one that fails.
    let outcome = supervisor::run(video_only(160, 120), &[std::sync::Arc::new(vec![0; 4_096])], 1);
    assert_eq!(phases(&outcome), [Phase::Open], "{:?}", outcome.answer);
}

#[test]
fn a_turned_clip_comes_out_upright() {
    media::plain();
    for (degrees, mirrored, filter) in [
        (90, false, "transpose=1"),
        (180, false, "hflip,vflip"),
        (270, false, "transpose=2"),
        (0, true, "hflip"),
        (90, true, "hflip,transpose=1"),
        (270, true, "hflip,transpose=2"),
    ] {
        let (w, h) = if degrees % 180 == 0 { (160, 120) } else { (120, 160) };
        let mut task = video_only(w, h);
        let video = task.video.as_mut().unwrap();
        (video.rotation, video.mirrored) = (degrees, mirrored);
        let (_, path) = encode(&format!("turn-{degrees}-{mirrored}"), &media::plain(), task);
        let source = media::folder().join("plain.mp4");
        let ssim = media::ssim(&source, &path, &format!("{filter},scale={w}:{h}:flags=bicubic"));
        assert!(ssim > 0.95, "{degrees} {mirrored}: {ssim}");
    }
}

#[test]
fn a_clip_with_a_display_matrix_looks_as_ffmpeg_shows_it() {
    media::plain();
    let input = media::make("-i plain.mp4 -c copy -metadata:s:v:0 rotate=90", "matrix.mp4");
    let shown = media::ffmpeg("-i matrix.mp4 -c:v libx264 -crf 10 -preset ultrafast -an", "matrix-shown.mp4");
    let probe = supervisor::run(plans::probe(DecoderSet::Core), std::slice::from_ref(&input), 0);
    let facts = probe.probe().media.streams[0].video().unwrap().clone();
    let mut task = video_only(240, 320);
    let video = task.video.as_mut().unwrap();
    (video.rotation, video.mirrored) = (facts.rotation, facts.mirrored);
    let (_, path) = encode("matrix", &input, task);
    let ssim = media::ssim(&shown, &path, "null");
    assert!(ssim > 0.95, "{ssim}");
}

#[test]
fn every_family_of_pictures_is_decoded_under_the_locks() {
    let source = "-f lavfi -i testsrc2=s=176x144:r=25:d=1";
    for (name, args) in [
        ("h264.mp4", "-c:v libx264 -pix_fmt yuv420p"),
        ("h264-422.mkv", "-c:v libx264 -pix_fmt yuv422p10le"),
        ("h264-444.mov", "-c:v libx264 -pix_fmt yuv444p"),
        ("h264-full.mp4", "-c:v libx264 -pix_fmt yuvj420p"),
        ("h264.ts", "-c:v libx264 -pix_fmt yuv420p"),
        ("hevc.mp4", "-c:v libx265 -pix_fmt yuv420p10le -x265-params log-level=none"),
        ("vp8.webm", "-c:v libvpx -deadline realtime"),
        ("vp9.webm", "-c:v libvpx-vp9 -deadline realtime"),
        ("av1.mkv", "-c:v libaom-av1 -usage realtime -cpu-used 8"),
        ("mpeg4.mp4", "-c:v mpeg4 -q:v 2"),
        ("prores.mov", "-c:v prores_ks"),
        ("mjpeg.mov", "-c:v mjpeg -q:v 2 -strict unofficial"),
        ("mpeg2.mpg", "-c:v mpeg2video -q:v 2"),
        ("mpeg1.mpg", "-c:v mpeg1video -q:v 2"),
        ("mpeg2.ts", "-c:v mpeg2video -q:v 2"),
        ("msmpeg4.avi", "-c:v msmpeg4 -q:v 2"),
        ("wmv2.asf", "-c:v wmv2 -q:v 2"),
        ("flv1.flv", "-c:v flv -q:v 2"),
        ("h263.3gp", "-c:v h263 -q:v 2"),
        ("theora.ogv", "-c:v libtheora -q:v 10"),
    ] {
        let input = media::make(&format!("{source} {args}"), name);
        let (outcome, path) = encode(name, &input, video_only(176, 144));
        let result = outcome.encode();
        assert_eq!((result.frames_decoded, result.decode_errors), (25, 0), "{name}: {}", outcome.log);
        let ssim = media::ssim(&media::folder().join(name), &path, "format=yuv420p");
        assert!(ssim > 0.93, "{name}: {ssim}");
    }
}

#[test]
fn every_family_of_sound_is_decoded_under_the_locks() {
    let source = "-f lavfi -i sine=440:d=1:r=48000";
    for (name, args) in [
        ("aac.aac", "-c:a aac"),
        ("mp3.mp3", "-c:a libmp3lame"),
        ("opus.ogg", "-c:a libopus"),
        ("opus.webm", "-c:a libopus"),
        ("vorbis.ogg", "-c:a libvorbis -ac 2"),
        ("flac.flac", "-c:a flac"),
        ("alac.m4a", "-c:a alac"),
        ("pcm.wav", "-c:a pcm_s16le"),
        ("pcm24.mov", "-c:a pcm_s24le"),
        ("ac3-51.ts", "-c:a ac3 -ac 6"),
        ("eac3.mkv", "-c:a eac3"),
        ("mp2.mpg", "-c:a mp2"),
        ("wma.asf", "-c:a wmav2"),
        ("adpcm.wav", "-c:a adpcm_ms"),
    ] {
        let input = media::make(&format!("{source} {args}"), name);
        let (outcome, path) = encode(name, &input, audio_only());
        assert!(matches!(outcome.answer, Some(Ok(_))), "{name}: {:?} {}", outcome.answer, outcome.log);
        let result = outcome.encode();
        assert_eq!(result.decode_errors, 0, "{name}: {}", outcome.log);
        assert!((950..=1_100).contains(&result.tracks[0].duration_ms), "{name}: {:?}", result.tracks);
        assert_eq!(
            media::ffprobe("-show_entries stream=codec_name,sample_rate,channels -of csv=p=0", &path),
            "aac,48000,2"
        );
    }
}

#[test]
fn odd_sizes_and_pixel_shapes_and_uneven_times_are_kept() {
    let odd = media::make("-f lavfi -i testsrc2=s=177x143:r=25:d=1 -c:v libx264 -pix_fmt yuv444p", "odd.mp4");
    let (outcome, path) = encode("odd", &odd, video_only(176, 142));
    assert_eq!(outcome.encode().tracks[0].units, 25);
    assert_eq!(
        media::ffprobe("-show_entries stream=width,height,sample_aspect_ratio -of csv=p=0", &path),
        "176,142,1:1"
    );
    // Frames 10 to 19 are missing: the one before is shown for longer.
    let uneven = media::make(
        "-f lavfi -i testsrc2=s=160x120:r=25:d=2 -vf select=not(between(n\\,10\\,19)) -vsync vfr -c:v libx264 -pix_fmt yuv420p",
        "uneven.mp4",
    );
    let mut task = video_only(160, 120);
    task.video.as_mut().unwrap().rungs[0].speed = EncoderSpeed::Veryfast;
    let (outcome, path) = encode("uneven", &uneven, task);
    assert_eq!(outcome.encode().tracks[0].units, 40);
    let times = media::ffprobe("-show_entries frame=pts_time -of csv=p=0", &path);
    let times: Vec<&str> = times.lines().map(|l| l.trim_end_matches(',')).collect();
    assert_eq!((times[9], times[10], times[39]), ("0.360000", "0.800000", "1.960000"));
}

#[test]
fn frames_above_the_cap_are_dropped() {
    let fast =
        media::make("-f lavfi -i testsrc2=s=160x120:r=120:d=1 -c:v libx264 -preset ultrafast", "fast.mp4");
    let (outcome, _) = encode("fast", &fast, video_only(160, 120));
    let result = outcome.encode();
    assert_eq!((result.frames_decoded, result.frames_dropped, result.tracks[0].units), (120, 60, 60));
}

#[test]
fn sound_that_starts_late_stays_late() {
    let late = media::make(
        "-f lavfi -i testsrc2=s=160x120:r=25:d=3 -itsoffset 1.5 -f lavfi -i sine=1000:d=1.5:r=48000 -map 0 -map 1 \
         -c:v libx264 -preset ultrafast -c:a aac",
        "late.mkv",
    );
    let task = plans::encode(Some(plans::video(0, vec![plans::rung(0, 160, 120)])), vec![plans::audio(1, 1)]);
    let (outcome, _) = encode("late", &late, task);
    let path = media::save(&outcome.outputs[1], "late-audio.mp4");
    let output = Command::new("ffmpeg")
        .args(["-hide_banner", "-nostdin", "-i"])
        .arg(path)
        .args(["-af", "silencedetect=n=-40dB:d=0.5", "-f", "null", "-"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let end: f64 = text
        .split("silence_end: ")
        .nth(1)
        .and_then(|t| t.split_whitespace().next())
        .unwrap()
        .parse()
        .unwrap();
    assert!((end - 1.5).abs() < 0.03, "{end}");
}

#[test]
fn what_cannot_be_decoded_is_named() {
    let forbidden =
        media::make("-f lavfi -i testsrc2=s=160x120:r=25:d=0.4 -c:v magicyuv -pix_fmt gbrp", "magic.mkv");
    assert_eq!(encode("magic", &forbidden, video_only(160, 120)).0.code(), FailureCode::DecoderNotAllowed);
    // Every byte of the pictures is gone; the headers are whole.
    let mut broken =
        media::make("-f lavfi -i testsrc2=s=160x120:r=25:d=1 -c:v libx264 -movflags faststart", "broken.mp4")
            .to_vec();
    let start = broken.windows(4).position(|w| w == b"mdat").unwrap() + 4;
    broken[start..].fill(0x55);
    assert_eq!(encode("broken", &Arc::new(broken), video_only(160, 120)).0.code(), FailureCode::NoFrames);
    // The container says 160 × 120; memory for one 4K frame is not given.
    let large = media::make(
        "-f lavfi -i color=s=4096x2304:r=5:d=1 -c:v libx264 -preset ultrafast -pix_fmt yuv420p",
        "large.mp4",
    );
    let limits = ProcessLimits { single_allocation: 4 << 20, ..supervisor::LIMITS };
    let outcome = supervisor::run_with(limits, video_only(160, 90), &[large], 1);
    assert_eq!(outcome.code(), FailureCode::ResourceLimit, "{}", outcome.failure());
}

#[test]
fn broken_packets_are_skipped_and_counted() {
    let mut clip = media::make(
        "-f lavfi -i testsrc2=s=160x120:r=25:d=4 -c:v libx264 -preset ultrafast -g 25 -bf 0 -pix_fmt yuv420p",
        "dented.mp4",
    )
    .to_vec();
    let middle = clip.len() / 2;
    clip[middle..middle + 2_000].fill(0);
    let (outcome, _) = encode("dented", &Arc::new(clip), video_only(160, 120));
    let result = outcome.encode();
    assert!(result.decode_errors > 0 && result.tracks[0].units > 60, "{result:?}");
}

#[test]
fn nothing_of_the_sources_tags_is_in_the_output() {
    media::plain();
    let tagged = media::make(
        "-i plain.mp4 -c copy -movflags use_metadata_tags -metadata title=SECRETTITLE -metadata location=+48.8584+002.2945/ \
         -metadata:s:v:0 handler_name=SECRETHANDLER -metadata com.apple.quicktime.make=SECRETMAKE",
        "tagged.mp4",
    );
    let task = plans::encode(Some(plans::video(0, vec![plans::rung(0, 160, 120)])), vec![plans::audio(1, 1)]);
    let (outcome, _) = encode("tagged", &tagged, task);
    for output in &outcome.outputs {
        for word in [&b"SECRET"[..], b"48.8584", b"x264", b"Lavc"] {
            assert!(!output.windows(word.len()).any(|w| w == word), "{}", String::from_utf8_lossy(word));
        }
    }
}
