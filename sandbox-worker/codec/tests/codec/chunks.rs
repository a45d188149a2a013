//! A video that is encoded, packaged and checked chunk by chunk: frame for frame what one encode would have made.

use crate::supervisor::{self, Bytes};
use crate::{media, plans};
use mpegflow_protocol::encoder::EncoderSpeed;
use mpegflow_protocol::failure::FailureCode;
use mpegflow_protocol::task::{
    CheckChunk, CheckResult, CheckTask, CheckTrack, Chunk, ChunkPlace, EncodeResult, EncodeTask, ExpectTrack,
    JoinedChunk, MadeChunk, Manifests, PackageTask, PackageTrack, Timeline,
};
use std::path::PathBuf;
use std::sync::Arc;

struct Made {
    result: EncodeResult,
    encoded: Bytes,
}

impl Made {
    fn place(&self) -> MadeChunk {
        self.result.chunk.unwrap()
    }
}

/// The chunks of an input that end at these milliseconds, and the last one.
fn chunks(name: &str, task: &EncodeTask, input: &Bytes, ends: &[u64]) -> Vec<Made> {
    let mut made: Vec<Made> = Vec::new();
    for until_ms in ends.iter().copied().map(Some).chain([None]) {
        let from = made.last().map(|m| m.place().next.unwrap_or_else(|| panic!("{name}: it has ended")));
        let task = EncodeTask { chunk: Some(Chunk { from, until_ms }), ..task.clone() };
        let outcome = supervisor::run(task, std::slice::from_ref(input), 1);
        assert!(
            matches!(outcome.answer, Some(Ok(_))),
            "{name} {until_ms:?}: {:?} {}",
            outcome.answer,
            outcome.log
        );
        let result = outcome.encode().clone();
        let place = result.chunk.unwrap();
        assert_eq!(place.start, from.map_or(0, |cut| cut.time), "{name}");
        assert_eq!(place.next.map(|cut| cut.time), until_ms.map(|_| place.end), "{name}");
        made.push(Made { result, encoded: Arc::new(outcome.outputs[0].clone()) });
    }
    made
}

fn expect(task: &EncodeTask, frames: u64, duration_ms: u64) -> ExpectTrack {
    let rung = &task.video.as_ref().unwrap().rungs[0];
    ExpectTrack::Video { codec: rung.codec, width: rung.width, height: rung.height, frames, duration_ms }
}

fn package_of(task: &EncodeTask, made: &Made, lead: u32) -> PackageTask {
    let track = &made.result.tracks[0];
    PackageTask {
        tracks: vec![PackageTrack {
            input: 0,
            media_output: 1,
            playlist_output: 0,
            media_uri: "v.mp4".into(),
            playlist_uri: "v.m3u8".into(),
            expect: expect(task, track.units, track.duration_ms),
            language: None,
            chunk: Some(ChunkPlace { start: made.place().start, lead }),
            joined: vec![],
        }],
        segment_ms: task.segment_ms,
        manifests: None,
        file: None,
        stills: vec![],
    }
}

fn check_of(package: &PackageTask, place: MadeChunk, first: bool) -> CheckTask {
    let track = &package.tracks[0];
    CheckTask {
        tracks: vec![CheckTrack {
            playlist_input: 0,
            media_input: 1,
            media_uri: track.media_uri.clone(),
            playlist_uri: track.playlist_uri.clone(),
            expect: track.expect.clone(),
            chunk: Some(CheckChunk { start: place.start, end: place.end, like: (!first).then_some(2) }),
        }],
        segment_ms: package.segment_ms,
        source_duration_ms: None,
        manifests: None,
        file: None,
        stills: vec![],
        list: true,
    }
}

struct Packaged {
    package: PackageTask,
    list: Bytes,
    media: Bytes,
}

fn package(task: &EncodeTask, made: &Made, lead: u32) -> Packaged {
    let package = package_of(task, made, lead);
    let outcome = supervisor::run(package.clone(), std::slice::from_ref(&made.encoded), 2);
    outcome.package();
    let [list, media] = &outcome.outputs[..] else { panic!() };
    Packaged { package, list: Arc::new(list.clone()), media: Arc::new(media.clone()) }
}

fn check(task: CheckTask, packaged: &Packaged, first: Option<&Packaged>) -> CheckResult {
    let mut inputs = vec![Arc::clone(&packaged.list), Arc::clone(&packaged.media)];
    inputs.extend(first.map(|f| Arc::clone(&f.media)));
    supervisor::run(task, &inputs, 0).check().clone()
}

/// All chunks as one track, with its manifests; and their check.
fn join(task: &EncodeTask, made: &[Made]) -> (PathBuf, CheckResult) {
    let frames = made.iter().map(|m| m.result.tracks[0].units).sum();
    let end = made.last().unwrap().place().end;
    let expect = expect(task, frames, (end / 90) as u64);
    let joined = made.iter().enumerate().skip(1);
    let track = PackageTrack {
        input: 0,
        media_output: 3,
        playlist_output: 2,
        media_uri: "v.mp4".into(),
        playlist_uri: "v.m3u8".into(),
        expect: expect.clone(),
        language: None,
        chunk: None,
        joined: joined.map(|(n, m)| JoinedChunk { input: n as u32, start: m.place().start }).collect(),
    };
    let manifests = Some(Manifests { hls: 0, dash: 1 });
    let package = PackageTask {
        tracks: vec![track],
        segment_ms: task.segment_ms,
        manifests,
        file: None,
        stills: vec![],
    };
    let inputs: Vec<Bytes> = made.iter().map(|m| Arc::clone(&m.encoded)).collect();
    let outcome = supervisor::run(package, &inputs, 4);
    outcome.package();
    let check = CheckTask {
        tracks: vec![CheckTrack {
            playlist_input: 2,
            media_input: 3,
            media_uri: "v.mp4".into(),
            playlist_uri: "v.m3u8".into(),
            expect,
            chunk: None,
        }],
        segment_ms: task.segment_ms,
        source_duration_ms: None,
        manifests,
        file: None,
        stills: vec![],
        list: true,
    };
    let objects: Vec<Bytes> = outcome.outputs.iter().cloned().map(Arc::new).collect();
    let checked = supervisor::run(check, &objects, 0).check().clone();
    (media::save(&outcome.outputs[3], "joined.mp4"), checked)
}

fn task(width: u32, height: u32, speed: EncoderSpeed) -> EncodeTask {
    let mut rung = plans::rung(0, width, height);
    rung.speed = speed;
    let mut task = plans::encode(Some(plans::video(0, vec![rung])), vec![]);
    task.expected_duration_ms = Some(8_000);
    task
}

fn times(path: &std::path::Path) -> String {
    media::ffprobe("-show_entries packet=pts_time,dts_time -of csv=p=0", path)
}

#[test]
fn chunks_are_together_frame_for_frame_what_one_encode_makes() {
    let lavfi = "-f lavfi -i testsrc2=s=320x240";
    let sources = [
        // Long groups of pictures with frames that refer across their borders.
        (
            "open.mp4",
            format!(
                "{lavfi}:r=25:d=8 -c:v libx264 -preset fast -g 75 -bf 3 -x264-params open-gop=1 -pix_fmt yuv420p"
            ),
        ),
        (
            "ntsc.mkv",
            format!("{lavfi}:r=30000/1001:d=8 -c:v libx264 -preset veryfast -g 300 -pix_fmt yuv420p"),
        ),
        // Twice the cap of the frame rate: every second frame goes, and always the same ones.
        ("fast.mp4", format!("{lavfi}:r=120:d=8 -c:v libx264 -preset ultrafast -g 250 -pix_fmt yuv420p")),
        (
            "uneven.mp4",
            format!(
                "{lavfi}:r=25:d=8 -vf select=not(between(mod(n\\,50)\\,10\\,19)) -vsync vfr -c:v libx264 -preset veryfast -pix_fmt yuv420p"
            ),
        ),
        (
            "hevc.mkv",
            format!(
                "{lavfi}:r=25:d=8 -c:v libx265 -preset ultrafast -x265-params log-level=none:keyint=90 -pix_fmt yuv420p"
            ),
        ),
        ("vp9.webm", format!("{lavfi}:r=25:d=8 -c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 120")),
        (
            "fragments.mp4",
            format!(
                "{lavfi}:r=25:d=8 -c:v libx264 -preset ultrafast -g 50 -pix_fmt yuv420p -movflags frag_keyframe+empty_moov"
            ),
        ),
    ];
    for (name, args) in sources {
        let input = media::make(&args, name);
        let task = task(160, 120, EncoderSpeed::Veryfast);
        let whole = supervisor::run(task.clone(), std::slice::from_ref(&input), 1);
        let whole_path = media::save(&whole.outputs[0], "whole-encode.mp4");
        let made = chunks(name, &task, &input, &[1_000, 3_000, 6_000]);
        let units: u64 = made.iter().map(|m| m.result.tracks[0].units).sum();
        assert_eq!(units, whole.encode().tracks[0].units, "{name}");
        let lead = made[0].place().lead;
        let packaged: Vec<Packaged> = made.iter().map(|m| package(&task, m, lead)).collect();
        let places: Vec<MadeChunk> = made.iter().map(Made::place).collect();
        assert!(places.windows(2).all(|w| w[0].end == w[1].start), "{name}: {places:?}");
        let mut appended = Vec::new();
        for (n, (made, one)) in made.iter().zip(&packaged).enumerate() {
            let result =
                check(check_of(&one.package, made.place(), n == 0), one, (n > 0).then(|| &packaged[0]));
            assert_eq!(result.problems, Vec::<String>::new(), "{name}, chunk {n}");
            let listed = result.tracks[0].listed.as_ref().unwrap();
            let end = listed.segments.iter().fold(listed.first, |at, s| at + s.bytes);
            assert_eq!((end, listed.header), (one.media.len() as u64, listed.first), "{name}");
            // A player keeps the first chunk's header, and appends the segments of all.
            appended.extend_from_slice(&one.media[if n == 0 { 0 } else { listed.first as usize }..]);
        }
        let (joined, checked) = join(&task, &made);
        assert_eq!(checked.problems, Vec::<String>::new(), "{name}");
        let shown = |path| -> Vec<String> {
            let mut all: Vec<String> = media::ffprobe("-show_entries packet=pts_time -of csv=p=0", path)
                .lines()
                .map(|l| l.trim_end_matches(',').to_owned())
                .collect();
            all.sort_by(|a, b| a.parse::<f64>().unwrap().total_cmp(&b.parse().unwrap()));
            all
        };
        assert_eq!(shown(&joined), shown(&whole_path), "{name}: {}", times(&joined));
        // The same pictures at the same times: a frame too many or too few would move all behind it.
        let ssim = media::ssim(&whole_path, &joined, "null");
        assert!(ssim > 0.97, "{name}: {ssim}");
        let appended = media::save(&appended, "appended.mp4");
        assert_eq!(shown(&appended), shown(&whole_path), "{name}");
    }
}

#[test]
fn sound_and_pictures_that_are_made_apart_keep_the_timeline_of_both() {
    let pictures = "-f lavfi -i testsrc2=s=320x240:r=25:d=5";
    let sound = "-f lavfi -i sine=440:d=5:r=48000";
    let coded = "-map 0 -map 1 -c:v libx264 -preset ultrafast -pix_fmt yuv420p -c:a aac";
    for (name, args) in [
        ("late-picture.mp4", format!("-itsoffset 0.3 {pictures} {sound} {coded}")),
        ("late-sound.mp4", format!("{pictures} -itsoffset 0.3 {sound} {coded}")),
    ] {
        let input = media::make(&args, name);
        let both =
            plans::encode(Some(plans::video(0, vec![plans::rung(0, 160, 120)])), vec![plans::audio(1, 1)]);
        let whole = supervisor::run(both, std::slice::from_ref(&input), 2);
        let (video, sound) = (&whole.encode().tracks[0], &whole.encode().tracks[1]);
        let timeline = Some(Timeline { video: Some(0), audio: vec![1] });
        let task = EncodeTask { timeline: timeline.clone(), ..task(160, 120, EncoderSpeed::Ultrafast) };
        let made = chunks(name, &task, &input, &[1_000, 2_000]);
        assert_eq!(made.iter().map(|m| m.result.tracks[0].units).sum::<u64>(), video.units, "{name}");
        assert_eq!((made.last().unwrap().place().end / 90) as u64, video.duration_ms, "{name}");
        let only = plans::encode(None, vec![plans::audio(0, 1)]);
        let timed = EncodeTask { timeline, ..only.clone() };
        let alone = supervisor::run(timed, std::slice::from_ref(&input), 1);
        assert!(*alone.outputs[0] == *whole.outputs[1], "{name}: the same sound, byte for byte");
        if name == "late-sound.mp4" {
            // Without that it would begin with the sound.
            let lost = supervisor::run(only, std::slice::from_ref(&input), 1);
            assert_ne!(lost.encode().tracks[0].units, sound.units);
        }
    }
}

#[test]
fn a_chunk_that_is_not_what_it_is_said_to_be_is_refused() {
    media::plain();
    let input = media::make(
        "-f lavfi -i testsrc2=s=320x240:r=25:d=6 -c:v libx264 -preset ultrafast -g 50 -pix_fmt yuv420p",
        "six.mp4",
    );
    let task = task(160, 120, EncoderSpeed::Veryfast);
    let made = chunks("six", &task, &input, &[1_000, 3_000]);
    let lead = made[0].place().lead;
    let (first, second) = (package(&task, &made[0], lead), package(&task, &made[1], lead));
    let good = check_of(&second.package, made[1].place(), false);
    assert_eq!(check(good.clone(), &second, Some(&first)).problems, Vec::<String>::new());
    let with = |change: &dyn Fn(&mut CheckTrack)| {
        let mut task = good.clone();
        change(&mut task.tracks[0]);
        check(task, &second, Some(&first)).problems
    };
    let place = |change: &dyn Fn(&mut CheckChunk)| with(&|t| change(t.chunk.as_mut().unwrap()));
    for (what, problems, expected) in [
        ("starts elsewhere", place(&|c| c.start += 3_600), "it starts at"),
        ("longer", place(&|c| c.end += 90_000), "it ends at"),
        ("shorter", place(&|c| c.end -= 3_600), "it ends at"),
        (
            "frames",
            with(&|t| {
                if let ExpectTrack::Video { frames, .. } = &mut t.expect {
                    *frames += 1
                }
            }),
            "frames instead of",
        ),
        (
            "size",
            with(&|t| {
                if let ExpectTrack::Video { width, .. } = &mut t.expect {
                    *width += 2
                }
            }),
            "pixels",
        ),
        (
            "codec",
            with(&|t| {
                if let ExpectTrack::Video { codec, .. } = &mut t.expect {
                    *codec = mpegflow_protocol::encoder::VideoCodec::Hevc
                }
            }),
            "h264",
        ),
    ] {
        assert!(problems.iter().any(|p| p.contains(expected)), "{what}: {problems:?}");
    }
    // Segments off the grid: too long for it, and too short.
    for segment_ms in [500, 3_000] {
        let task = CheckTask { segment_ms, ..good.clone() };
        let problems = check(task, &second, Some(&first)).problems;
        assert!(!problems.is_empty(), "{segment_ms}");
    }
    // Another header than the first chunk's, such as another encoder's.
    let mut other = task.clone();
    other.video.as_mut().unwrap().rungs[0].speed = EncoderSpeed::Ultrafast;
    let stranger = package(&other, &chunks("six", &other, &input, &[1_000])[0], lead);
    let problems = check(good.clone(), &second, Some(&stranger)).problems;
    assert!(problems.iter().any(|p| p.contains("header")), "{problems:?}");
    // The first chunk again in the place of the second: its frames are not those that were counted.
    let mut package = package_of(&task, &made[1], lead);
    let refused = supervisor::run(package.clone(), std::slice::from_ref(&made[0].encoded), 2);
    assert_eq!(refused.code(), FailureCode::OutputRejected);
    // Chunks joined with a hole, and out of order.
    package.tracks[0].chunk = None;
    package.manifests = Some(Manifests { hls: 2, dash: 3 });
    for (order, starts) in [([0, 2], [0, made[2].place().start]), ([1, 0], [0, made[1].place().start])] {
        let mut joined = package.clone();
        joined.tracks[0].joined = vec![JoinedChunk { input: 1, start: starts[1] }];
        let inputs: Vec<Bytes> = order.iter().map(|n: &usize| Arc::clone(&made[*n].encoded)).collect();
        let refused = supervisor::run(joined, &inputs, 4);
        assert_eq!(refused.code(), FailureCode::OutputRejected, "{order:?}");
    }
}

#[test]
fn a_cut_that_is_not_in_the_input_is_not_made_up() {
    let input = media::plain();
    let task = task(160, 120, EncoderSpeed::Ultrafast);
    let outcome = {
        let task = EncodeTask { chunk: Some(Chunk { from: None, until_ms: Some(1_000) }), ..task.clone() };
        supervisor::run(task, std::slice::from_ref(&input), 1)
    };
    let cut = outcome.encode().chunk.unwrap().next.unwrap();
    for (what, cut) in [
        ("between two frames", mpegflow_protocol::task::Cut { time: cut.time + 1, ..cut }),
        ("behind the end", mpegflow_protocol::task::Cut { time: cut.time + 90_000_000, ..cut }),
    ] {
        let task = EncodeTask { chunk: Some(Chunk { from: Some(cut), until_ms: None }), ..task.clone() };
        let refused = supervisor::run(task, std::slice::from_ref(&input), 1);
        assert!(matches!(refused.answer, Some(Err(_))), "{what}");
        assert_eq!(refused.killed_by(), None);
    }
    // What jumps in time is not cut at all.
    let stream = media::make("-i plain.mp4 -c copy -f mpegts", "plain.ts");
    let refused = supervisor::run(
        EncodeTask { chunk: Some(Chunk { from: None, until_ms: Some(1_000) }), ..task },
        std::slice::from_ref(&stream),
        1,
    );
    assert_eq!(refused.code(), FailureCode::WorkerError);
}
