//! When damage fails an encode, and when it is skipped and counted.

use crate::supervisor::{Bytes, Outcome};
use crate::{media, plans, supervisor};
use mpegflow_protocol::codec::ProcessLimits;
use mpegflow_protocol::failure::FailureCode;
use mpegflow_protocol::job::DecoderSet;
use mpegflow_protocol::task::EncodeTask;
use std::sync::Arc;

const CLIP: &str = "-f lavfi -i testsrc2=s=160x120:r=25:d=10 -f lavfi -i sine=440:d=10:r=48000 -c:v libx264 -preset ultrafast \
                    -g 25 -pix_fmt yuv420p -c:a aac";

fn task() -> EncodeTask {
    let video = plans::video(0, vec![plans::rung(0, 160, 120)]);
    EncodeTask { decoders: DecoderSet::Legacy, ..plans::encode(Some(video), vec![plans::audio(1, 1)]) }
}

fn encode(input: Bytes) -> Outcome {
    let outcome = supervisor::run(task(), &[input], 2);
    assert_eq!(outcome.killed_by(), None, "{}", outcome.log);
    outcome
}

fn cut(clip: &Bytes, percent: usize) -> Bytes {
    Arc::new(clip[..clip.len() * percent / 100].to_vec())
}

#[test]
fn a_file_cut_at_six_tenths_or_shortly_before_its_end_never_succeeds_as_if_whole() {
    for (name, args) in [
        ("cut-f.mp4", "-movflags frag_keyframe+empty_moov"),
        ("cut-fast.mp4", "-movflags +faststart"),
        ("cut.ts", ""),
        ("cut.mkv", ""),
        ("cut-live.mkv", "-live 1"),
        ("cut.avi", "-c:a libmp3lame"),
        ("cut.flv", "-ar 44100"),
        ("cut.wmv", "-c:v wmv2 -c:a wmav2"),
        ("cut.mpg", "-c:v mpeg2video -c:a mp2"),
    ] {
        let clip = media::make(&format!("{CLIP} {args}"), name);
        let whole = encode(clip.clone());
        assert_eq!(whole.encode().decode_errors, 0, "{name}: {}", whole.log);
        // Six tenths of the program stream end between two packs, which nobody can tell from a whole one.
        for percent in [if name == "cut.mpg" { 61 } else { 60 }, 97] {
            let failure = encode(cut(&clip, percent)).failure().clone();
            assert_eq!(failure.code, FailureCode::InputTruncated, "{name} {percent}: {failure}");
        }
    }
}

#[test]
fn sound_cut_anywhere_never_succeeds_as_if_whole() {
    let sound = |input: Bytes| {
        let mut task = plans::encode(None, vec![plans::audio(0, 0)]);
        task.decoders = DecoderSet::Legacy;
        supervisor::run(task, &[input], 1)
    };
    for (name, args) in [
        ("cut.wav", "-c:a pcm_s16le"),
        ("cut-wide.wav", "-c:a pcm_s24le -rf64 always"),
        ("cut.mp3", "-c:a libmp3lame"),
        ("cut-vbr.mp3", "-c:a libmp3lame -q:a 4"),
        ("cut.ogg", "-c:a libvorbis -ac 2"),
        ("cut.aac", "-c:a aac"),
        ("cut.wma", "-c:a wmav2"),
        ("cut.flac", "-c:a flac"),
    ] {
        let clip = media::make(&format!("-f lavfi -i sine=440:d=4:r=48000 {args}"), name);
        let whole = sound(clip.clone());
        assert_eq!(whole.encode().decode_errors, 0, "{name}: {}", whole.log);
        for percent in [30, 50, 80, 97] {
            let failure = sound(cut(&clip, percent)).failure().clone();
            assert_eq!(failure.code, FailureCode::InputTruncated, "{name} {percent}: {failure}");
        }
    }
    // What is written to a pipe states no size, and is whole.
    let piped = media::make("-f lavfi -i sine=440:d=4:r=48000 -c:a pcm_s16le", "piped.wav");
    let mut bytes = piped.to_vec();
    let data = bytes.windows(4).position(|w| w == b"data").unwrap();
    for at in [4, data + 4] {
        bytes[at..at + 4].fill(0xff);
    }
    assert_eq!(sound(Arc::new(bytes)).encode().decode_errors, 0);
}

#[test]
fn a_few_lost_frames_at_the_end_are_no_reason_to_fail() {
    let clip = media::make(&format!("{CLIP} -movflags +faststart"), "nearly.mp4");
    let outcome = encode(dented(&clip, 97, 100, 40));
    let result = outcome.encode();
    let track = &result.tracks[0];
    assert!(result.decode_errors > 0 && !result.partial, "{result:?}");
    assert!((225..250).contains(&track.units) && track.duration_ms > 9_000, "{result:?}");
}

#[test]
fn a_picture_that_grows_beyond_the_caps_fails_at_once() {
    let small = media::make(
        "-f lavfi -i testsrc2=s=320x240:r=30:d=12 -c:v libx264 -b:v 4M -preset ultrafast",
        "grow-a.ts",
    );
    let large = media::make(
        "-f lavfi -i color=s=8400x4400:r=5:d=0.4 -preset ultrafast -output_ts_offset 12 -c:v libx264 -threads 1 \
         -x264-params ref=1:keyint=1",
        "grow-b.ts",
    );
    let outcome = encode_pictures([&small[..], &large[..]].concat(), supervisor::LIMITS);
    assert_eq!(outcome.code(), FailureCode::FrameTooLarge, "{}", outcome.log);
}

#[test]
fn a_picture_that_memory_is_refused_for_in_mid_stream_fails_at_once() {
    let small = media::make("-f lavfi -i testsrc2=s=320x240:r=30:d=12 -c:v libx264 -b:v 4M", "mem-a.ts");
    let large = media::make(
        "-f lavfi -i color=s=4096x2304:r=5:d=0.4 -c:v libx264 -preset ultrafast -output_ts_offset 12",
        "mem-b.ts",
    );
    let limits = ProcessLimits { single_allocation: 4 << 20, ..supervisor::LIMITS };
    let outcome = encode_pictures([&small[..], &large[..]].concat(), limits);
    assert_eq!(outcome.code(), FailureCode::ResourceLimit, "{}", outcome.log);
}

fn encode_pictures(input: Vec<u8>, limits: ProcessLimits) -> Outcome {
    let task = plans::encode(Some(plans::video(0, vec![plans::rung(0, 320, 240)])), vec![]);
    supervisor::run_with(limits, task, &[Arc::new(input)], 1)
}

/// Overwrites one byte in so many of the file's part from `from` to `to` (percent).
fn dented(clip: &Bytes, from: usize, to: usize, one_in: usize) -> Bytes {
    let mut bytes = clip.to_vec();
    for at in (bytes.len() * from / 100..bytes.len() * to / 100).step_by(one_in) {
        bytes[at] ^= 0x55;
    }
    Arc::new(bytes)
}

#[test]
fn a_stream_with_a_third_of_it_gone_is_corrupt() {
    let clip = media::make(&format!("{CLIP} -movflags +faststart"), "third.mp4");
    let input = dented(&clip, 40, 80, 3);
    let failure = encode(input.clone()).failure().clone();
    assert_eq!(failure.code, FailureCode::InputCorrupt, "{failure}");
    // What is left of it is had for the asking, and marked.
    let mut task = task();
    task.partial = true;
    let outcome = supervisor::run(task, &[input], 2);
    let result = outcome.encode();
    assert!(result.partial && result.decode_errors > 10, "{result:?}");
    assert!((50..200).contains(&result.tracks[0].units), "{result:?}");
}

#[test]
fn sound_that_cannot_be_decoded_is_not_replaced_by_silence() {
    let clip = media::make(
        "-f lavfi -i testsrc2=s=160x120:r=25:d=10 -f lavfi -i sine=440:d=10:r=48000 -c:v libx264 -c:a flac -strict -2",
        "mute.mkv",
    );
    let mut bytes = clip.to_vec();
    // Every FLAC frame's first sync byte.
    for at in 4_000..bytes.len() - 1 {
        if bytes[at..at + 2] == [0xff, 0xf8] {
            bytes[at] = 0;
        }
    }
    let failure = encode(Arc::new(bytes)).failure().clone();
    assert_eq!(failure.code, FailureCode::InputCorrupt, "{failure}");
}
