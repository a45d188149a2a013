//! Damaged inputs by the hundred, tampered outputs, and tracks that are not what was planned.

use crate::supervisor::{self, Bytes};
use crate::whole::{self, Packaged};
use crate::{media, plans};
use mpegflow_protocol::failure::FailureCode;
use mpegflow_protocol::job::DecoderSet;
use mpegflow_protocol::task::{CheckTask, ExpectTrack};
use std::sync::Arc;
use std::time::Duration;

type Edit = Box<dyn FnOnce(&mut Vec<u8>)>;

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

fn mutated(bytes: &[u8], random: &mut Random) -> Bytes {
    let mut out = bytes.to_vec();
    for _ in 0..1 + random.below(12) {
        let at = random.below(out.len());
        match random.below(4) {
            0 => out[at] = random.below(256) as u8,
            1 => out[at] ^= 1 << random.below(8),
            2 => {
                let end = out.len().min(at + 1 + random.below(64));
                out[at..end].fill([0, 0xff][random.below(2)]);
            }
            _ => {
                let number = [0u32, 1, 0x7fff_ffff, 0xffff_ffff][random.below(4)].to_be_bytes();
                let end = out.len().min(at + 4);
                out[at..end].copy_from_slice(&number[..end - at]);
            }
        }
    }
    if random.below(8) == 0 {
        out.truncate(1 + random.below(out.len()));
    }
    Arc::new(out)
}

#[test]
fn mutated_files_neither_hang_nor_break_the_locks() {
    let source = "-f lavfi -i testsrc2=s=96x64:r=25:d=0.4 -f lavfi -i sine=440:d=0.4:r=48000";
    let seeds: Vec<Bytes> = [
        ("m.mp4", "-c:v libx264 -preset ultrafast -c:a aac -movflags faststart"),
        ("mf.mp4", "-c:v libx264 -preset ultrafast -c:a aac -movflags frag_keyframe+empty_moov"),
        ("m.mkv", "-c:v libx265 -preset ultrafast -x265-params log-level=none -c:a flac"),
        ("m.webm", "-c:v libvpx-vp9 -deadline realtime -c:a libopus"),
        ("m.ts", "-c:v mpeg2video -c:a mp2"),
        ("m.avi", "-c:v msmpeg4 -c:a libmp3lame"),
        ("m.mov", "-c:v prores_ks -c:a pcm_s16le"),
        ("m.ogv", "-c:v libtheora -c:a libvorbis -ac 2"),
    ]
    .map(|(name, args)| media::make(&format!("{source} {args}"), name))
    .into();
    let mut task =
        plans::encode(Some(plans::video(0, vec![plans::rung(0, 96, 64)])), vec![plans::audio(1, 1)]);
    task.decoders = DecoderSet::Legacy;
    let mut limits = supervisor::LIMITS;
    limits.single_allocation = 128 << 20;
    let mut random = Random(20_251_123);
    let (mut done, mut failed) = (0, 0);
    for round in 0..200 {
        let input = mutated(&seeds[round % seeds.len()], &mut random);
        let outcome = supervisor::run_with(limits, task.clone(), std::slice::from_ref(&input), 2);
        // A crash inside FFmpeg would be a signal of its own; SIGSYS would be our policy's gap.
        assert_eq!(outcome.killed_by(), None, "round {round}: {}", outcome.log);
        assert!(outcome.wall < Duration::from_secs(60), "round {round}: {:?}", outcome.wall);
        match outcome.answer.as_ref().unwrap() {
            Ok(_) => done += 1,
            Err(f) => {
                failed += 1;
                let honest = !matches!(
                    f.code,
                    FailureCode::WorkerError | FailureCode::ProtocolViolation | FailureCode::LockFailed
                );
                assert!(honest, "round {round}: {f}");
            }
        }
    }
    eprintln!("{done} done, {failed} refused");
    assert!(done > 20 && failed > 5, "{done} {failed}");
}

fn packaged(name: &str) -> Packaged {
    let task = plans::encode(Some(plans::video(0, vec![plans::rung(0, 160, 120)])), vec![plans::audio(1, 1)]);
    whole::run(name, &task, &media::plain(), Some(4_000))
}

fn problems(check: &CheckTask, objects: &[Bytes]) -> Vec<String> {
    let outcome = supervisor::run(check.clone(), objects, 0);
    let problems = outcome.check().problems.clone();
    assert!(problems.len() <= 16 && problems.iter().all(|p| p.chars().count() <= 256));
    problems
}

fn edited(objects: &[Bytes], index: usize, edit: impl FnOnce(&mut Vec<u8>)) -> Vec<Bytes> {
    let mut out = objects.to_vec();
    let mut bytes = out[index].to_vec();
    edit(&mut bytes);
    out[index] = Arc::new(bytes);
    out
}

fn replaced(from: &str, to: &str) -> impl FnOnce(&mut Vec<u8>) {
    move |bytes| {
        let text = String::from_utf8(bytes.clone()).unwrap();
        assert!(text.contains(from), "{text}");
        *bytes = text.replace(from, to).into_bytes();
    }
}

#[test]
fn the_check_finds_every_kind_of_tampering() {
    let p = packaged("tampered");
    let (check, objects) = (&p.plan.check, &p.objects);
    assert_eq!(problems(check, objects), Vec::<String>::new());
    let found = |what: &str, index: usize, edit: Edit| {
        let problems = problems(check, &edited(objects, index, edit));
        assert!(!problems.is_empty(), "{what} went unseen");
    };
    found("another variant", 0, Box::new(replaced("video-120p.m3u8", "http://evil/x.m3u8")));
    found(
        "a session key",
        0,
        Box::new(replaced("#EXT-X-INDEPENDENT", "#EXT-X-SESSION-DATA:DATA-ID=\"x\"\n#EXT-X-INDEPENDENT")),
    );
    found("a wrong size", 0, Box::new(replaced("160x120", "1600x1200")));
    found("a wrong codec", 0, Box::new(replaced("avc1.", "avc3.")));
    found("a low bandwidth", 0, Box::new(replaced("BANDWIDTH=", "BANDWIDTH=1,X=")));
    found("a key", 2, Box::new(replaced("#EXTINF:1.0", "#EXT-X-KEY:METHOD=NONE\n#EXTINF:1.0")));
    found("a wrong duration", 2, Box::new(replaced("1.000000", "1.010000")));
    found("another file", 2, Box::new(replaced("video-120p.mp4", "video-121p.mp4")));
    found("an open end", 2, Box::new(replaced("#EXT-X-ENDLIST\n", "")));
    found("a cut file", 3, Box::new(|b| b.truncate(b.len() - 100)));
    found("a longer file", 3, Box::new(|b| b.extend_from_slice(b"\0\0\0\x08free")));
    found(
        "another box",
        3,
        Box::new(|b| {
            let at = b.windows(4).position(|w| w == b"moof").unwrap();
            b[at..at + 4].copy_from_slice(b"free");
        }),
    );
    found(
        "another brand of sample",
        3,
        Box::new(|b| {
            let at = b.windows(4).position(|w| w == b"avc1").unwrap();
            b[at..at + 4].copy_from_slice(b"hev1");
        }),
    );
    found(
        "damaged pictures",
        3,
        Box::new(|b| {
            let at = b.windows(4).position(|w| w == b"mdat").unwrap() + 200;
            b[at..at + 600].fill(0xaa);
        }),
    );
    found("an empty list", 4, Box::new(Vec::clear));
    found("another file in the DASH description", 1, Box::new(replaced("video-120p.mp4<", "audio-1.mp4<")));
    found("another place in it", 1, Box::new(replaced("<BaseURL>", "<BaseURL>http://evil/")));
    found("an event stream in it", 1, Box::new(replaced("<Period id", "<EventStream/><Period id")));
    found("a wrong range in it", 1, Box::new(replaced("range=\"0-", "range=\"1-")));
    found("a wrong codec in it", 1, Box::new(replaced("codecs=\"avc1", "codecs=\"avc3")));
    found("a wrong duration in it", 1, Box::new(replaced("\"PT4.", "\"PT9.")));
    found(
        "a wrong index",
        3,
        Box::new(|b| {
            let at = b.windows(4).position(|w| w == b"sidx").unwrap();
            b[at + 39] ^= 1;
        }),
    );
    // Sound and pictures swapped.
    let mut swapped = objects.clone();
    swapped.swap(3, 5);
    assert!(!problems(check, &swapped).is_empty());
    // Not what was planned.
    let mut other = check.clone();
    if let ExpectTrack::Video { frames, .. } = &mut other.tracks[0].expect {
        *frames += 1;
    }
    assert!(problems(&other, objects).iter().any(|p| p.contains("100 frames")));
    let mut other = check.clone();
    other.source_duration_ms = Some(60_000);
    assert!(!problems(&other, objects).is_empty());
}

#[test]
fn a_track_that_is_not_what_was_planned_is_not_packaged() {
    let p = packaged("unplanned");
    let run = |tracks: &[Bytes]| supervisor::run(p.plan.package.clone(), tracks, 6);
    let cut = edited(&p.tracks, 0, |b| b.truncate(b.len() / 2));
    let swapped = vec![p.tracks[1].clone(), p.tracks[0].clone()];
    let other = vec![media::plain(), p.tracks[1].clone()];
    let text = vec![Arc::new(b"#EXTM3U\n".to_vec()), p.tracks[1].clone()];
    for tracks in [cut, swapped, other, text] {
        assert_eq!(run(&tracks).code(), FailureCode::OutputRejected);
    }
    let mut random = Random(7);
    for _ in 0..40 {
        let tracks = vec![mutated(&p.tracks[0], &mut random), mutated(&p.tracks[1], &mut random)];
        let outcome = run(&tracks);
        assert_eq!(outcome.killed_by(), None, "{}", outcome.log);
        let objects: Vec<Bytes> = outcome.outputs.iter().cloned().map(Arc::new).collect();
        if matches!(outcome.answer, Some(Ok(_))) {
            // It may be whole but for a few pixels; the check must not fall over it either.
            let checked = supervisor::run(p.plan.check.clone(), &objects, 0);
            assert!(checked.killed_by().is_none() && matches!(checked.answer, Some(Ok(_))));
        }
    }
}
