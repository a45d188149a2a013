//! Damaged files, hundreds of them, through the real locked codec: each ends by itself, is refused or taken for what it is, and
//! none gets out. Everything is drawn from one seed, so that a run can be repeated; `MUTATIONS` says how many (3,000).

use mpegflow_broker::model::InputSource;
use mpegflow_broker::plan::{Settings, graph, verify};
use mpegflow_protocol::codec::{FromCodec, ProcessLimits};
use mpegflow_protocol::encoder::{EncoderSpeed, Tuning, VideoCodec};
use mpegflow_protocol::failure::FailureClass;
use mpegflow_protocol::ids::{AttemptId, UploadId};
use mpegflow_protocol::job::{DecoderSet, JobSpec};
use mpegflow_protocol::task::{
    AudioEncode, EncodeResult, EncodeTask, ProbeTask, Rung, TaskResult, TaskSpec, VideoEncode,
};
use mpegflow_protocol::worker::OutputDigest;
use mpegflow_tests::codec_session::{Ended, Session};
use mpegflow_tests::system::{run, signal_pid, text};
use mpegflow_tests::{media, program};
use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

const SEED: u64 = 0x006d_7065_6766_6c6f;
/// Far above what any of these small files needs; a codec that is still there then hangs.
const DEADLINE: Duration = Duration::from_secs(60);
const LIMITS: ProcessLimits =
    ProcessLimits { address_space: 3 << 30, cpu_seconds: 30, file_size: 0, single_allocation: 256 << 20 };

/// A file to damage.
struct Sample {
    name: String,
    bytes: Vec<u8>,
    video: Option<u32>,
    audio: Option<u32>,
    /// It says how long it is, so that one that is cut must not pass for whole.
    says_length: bool,
}

/// Random numbers (xorshift64*), the same for the same seed.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, most: usize) -> usize {
        (self.next() >> 16) as usize % most.max(1)
    }
}

fn samples() -> Vec<Sample> {
    let video = "-f lavfi -i testsrc2=size=64x48:rate=12:duration=1";
    let sound = "-f lavfi -i sine=duration=1:sample_rate=16000";
    let x264 = "-c:v libx264 -preset ultrafast -g 6 -pix_fmt yuv420p";
    let mut found = Vec::new();
    for (name, args, says_length) in [
        ("h264.mp4", format!("{x264} -bf 2 -c:a aac"), true),
        ("h264-fast.mp4", format!("{x264} -c:a aac -movflags +faststart"), true),
        ("h264-fragments.mp4", format!("{x264} -c:a aac -movflags frag_keyframe+empty_moov"), true),
        ("hevc.mp4", "-c:v libx265 -x265-params log-level=none -c:a aac".into(), true),
        ("mpeg4.mov", "-c:v mpeg4 -c:a pcm_s16le -timecode 01:00:00:00".into(), true),
        ("prores.mov", "-c:v prores_ks -c:a alac".into(), true),
        ("mjpeg.mov", "-c:v mjpeg -c:a pcm_s24le".into(), true),
        ("h264.mkv", format!("{x264} -c:a flac"), true),
        ("vp8.webm", "-c:v libvpx -deadline realtime -c:a libvorbis -ac 2".into(), true),
        ("vp9.webm", "-c:v libvpx-vp9 -deadline realtime -c:a libopus".into(), true),
        ("av1.mkv", "-s 64x64 -c:v libsvtav1 -preset 12 -c:a libopus".into(), true),
        ("h264.ts", format!("{x264} -c:a aac"), false),
        ("mpeg2.ts", "-c:v mpeg2video -c:a mp2 -ar 32000".into(), false),
        ("mpeg2.mpg", "-r 25 -c:v mpeg2video -c:a mp2 -ar 32000".into(), false),
        ("mpeg4.avi", "-c:v mpeg4 -c:a libmp3lame".into(), true),
        ("flv1.flv", "-c:v flv -c:a libmp3lame -ar 22050".into(), true),
        ("wmv2.asf", "-c:v wmv2 -c:a wmav2".into(), true),
        ("h263.3gp", "-s 176x144 -c:v h263 -c:a aac".into(), true),
        ("theora.ogv", "-c:v libtheora -c:a libvorbis -ac 2".into(), false),
    ] {
        let file = media::ffmpeg(&format!("mutate-{name}"), &format!("{video} {sound} {args}"));
        found.push(sample(name, &file, Some(0), Some(1), says_length));
    }
    for (name, args) in [
        ("sound.mp3", "-c:a libmp3lame"),
        ("sound.flac", "-c:a flac"),
        ("sound.ogg", "-c:a libopus"),
        ("sound.wav", "-c:a pcm_s16le"),
        ("sound.aac", "-c:a aac"),
        ("sound.m4a", "-c:a aac"),
    ] {
        let file = media::ffmpeg(&format!("mutate-{name}"), &format!("{sound} {args}"));
        let says_length = matches!(name, "sound.m4a" | "sound.wav" | "sound.mp3" | "sound.flac");
        found.push(sample(name, &file, None, Some(0), says_length));
    }
    // The beginning of each of the samples that people made with other programs.
    let folder = iscc();
    for extension in ["3gp", "avi", "flv", "m4v", "mkv", "mov", "mp4", "mpg", "ogv", "webm", "wmv"] {
        let whole = folder.join(format!("demo.{extension}"));
        let file = media::ffmpeg(
            &format!("mutate-demo.{extension}"),
            &format!("-i {} -map 0:v:0 -map 0:a:0? -c copy -t 0.4", whole.display()),
        );
        found.push(sample(&format!("demo.{extension}"), &file, Some(0), None, false));
    }
    found
}

fn sample(name: &str, file: &Path, video: Option<u32>, audio: Option<u32>, says_length: bool) -> Sample {
    Sample { name: name.into(), bytes: std::fs::read(file).unwrap(), video, audio, says_length }
}

fn iscc() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/samples");
    let output = run(&mut Command::new(script), Duration::from_secs(300));
    assert!(output.status.success(), "{}", text(&output));
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
}

/// Damages a file in one to three ways; whether it was only cut, and to how many percent.
fn mutate(sample: &Sample, other: &Sample, draw: &mut Draw) -> (Vec<u8>, Option<usize>) {
    let mut bytes = sample.bytes.clone();
    let mut cut = None;
    let rounds = 1 + draw.below(3);
    for round in 0..rounds {
        let len = bytes.len().max(1);
        // Half of the damage goes where the structure is.
        let at = if draw.below(2) == 0 { draw.below(len.min(1024)) } else { draw.below(len) };
        let some = 1 + draw.below(64.min(len));
        let end = (at + some).min(bytes.len());
        let mut write = |value: &[u8]| {
            for (byte, new) in bytes.iter_mut().skip(at).zip(value) {
                *byte = *new;
            }
        };
        match draw.below(10) {
            0 | 1 => write(&[(draw.next() & 0xff) as u8]),
            2 => {
                let bit = 1u8 << draw.below(8);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= bit;
                }
            }
            3 => {
                let values: [u32; 8] = [0, 1, 7, 8, 0x7fff_ffff, 0x8000_0000, u32::MAX, 0x00ff_ffff];
                write(&values[draw.below(8)].to_be_bytes());
            }
            4 => {
                bytes.drain(at..end);
            }
            5 => {
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            6 => bytes[at..end].fill(if draw.below(2) == 0 { 0 } else { 0xff }),
            7 => {
                let from = draw.below(other.bytes.len());
                let piece: Vec<u8> = other.bytes.iter().skip(from).take(some * 8).copied().collect();
                write(&piece);
            }
            8 => {
                let target = draw.below(len);
                for k in 0..some {
                    if at + k < bytes.len() && target + k < bytes.len() {
                        bytes.swap(at + k, target + k);
                    }
                }
            }
            _ => {
                let percent = 5 + draw.below(90);
                bytes.truncate(len * percent / 100);
                if rounds == 1 && round == 0 {
                    cut = Some(percent);
                }
            }
        }
        if bytes.is_empty() {
            bytes.push(0);
        }
    }
    (bytes, cut)
}

fn encode_of(sample: &Sample) -> EncodeTask {
    let rung = Rung {
        output: 0,
        codec: VideoCodec::H264,
        width: 64,
        height: 48,
        crf_tenths: 300,
        max_bit_rate: 200_000,
        buffer_bits: 400_000,
        speed: EncoderSpeed::Ultrafast,
        tuning: Tuning::default(),
        copy: false,
    };
    let video = sample.video.map(|stream| VideoEncode {
        stream,
        rotation: 0,
        mirrored: false,
        max_frame_rate: 30,
        deinterlace: true,
        rungs: vec![rung],
        poster: None,
        sprites: None,
    });
    let output = u32::from(video.is_some());
    let sound = |stream| AudioEncode { output, stream, bit_rate: 64_000, sample_rate: 48_000, channels: 2 };
    EncodeTask {
        decoders: DecoderSet::Legacy,
        segment_ms: 500,
        audio: sample.audio.map(sound).into_iter().collect(),
        video,
        expected_duration_ms: Some(1_000),
        partial: false,
        timeline: None,
        chunk: None,
    }
}

/// Runs a task in a locked codec of its own, and ends it at the deadline; whether that was needed.
fn locked(task: TaskSpec, inputs: Vec<Vec<u8>>, outputs: u32) -> (Ended, bool) {
    let mut session = Session::start(&program("mpegflow-codec"), &[], outputs);
    let pid = session.child.id();
    assert!(matches!(session.prepare_with(1, LIMITS), Some(FromCodec::Locked(_))), "the locks go on");
    let (done, over) = mpsc::channel::<()>();
    let watch = std::thread::spawn(move || {
        let late = over.recv_timeout(DEADLINE) == Err(mpsc::RecvTimeoutError::Timeout);
        if late {
            signal_pid(pid, "KILL");
        }
        late
    });
    let ended = session.work(task, inputs);
    let _ = done.send(());
    (ended, watch.join().unwrap())
}

/// What of a run is wrong, and what class it ended in.
#[derive(Default)]
struct Tally {
    classes: BTreeMap<String, usize>,
    wrong: Vec<String>,
}

/// The encode that a file's own probe leads to, as on the real path; or the class that it ended in before.
fn planned(bytes: &[u8]) -> Result<Result<EncodeTask, String>, String> {
    let size = bytes.len() as u64;
    let task = TaskSpec::Probe(ProbeTask { decoders: DecoderSet::Legacy, partial: false });
    let (ended, late) = locked(task, vec![bytes.to_vec()], 0);
    let probe = match outcome(ended, late)? {
        Ok(TaskResult::Probe(probe)) => probe,
        Ok(other) => return Err(format!("a probe gave {other:?}")),
        Err(class) => return Ok(Err(class)),
    };
    let plan = probe
        .media
        .bounded(size)
        .and_then(|media| graph::encode(&spec(), &media, UploadId::from_u128(1), size, Settings::default()));
    Ok(match plan.map(|plan| plan.spec) {
        Ok(TaskSpec::Encode(task)) => Ok(task),
        Ok(other) => return Err(format!("an encode was planned as {other:?}")),
        Err(failure) => Err(format!("probed, refused: {}", failure.code)),
    })
}

/// One damaged file: the class it ended in, or what is wrong with how it ended.
fn judge(number: usize, sample: &Sample, bytes: Vec<u8>, cut: Option<usize>) -> Result<String, String> {
    let size = bytes.len() as u64;
    // One in four is looked at as a new upload is, and planned for.
    if number.is_multiple_of(4) {
        let task =
            TaskSpec::Probe(ProbeTask { decoders: DecoderSet::Legacy, partial: number.is_multiple_of(8) });
        let (ended, late) = locked(task, vec![bytes], 0);
        return match outcome(ended, late)? {
            Ok(TaskResult::Probe(probe)) => {
                let planned = probe.media.bounded(size).and_then(|media| {
                    graph::encode(&spec(), &media, UploadId::from_u128(1), size, Settings::default())
                        .map(drop)
                });
                Ok(planned
                    .map_or_else(|f| format!("probed, refused: {}", f.code), |()| "probed, planned".into()))
            }
            Ok(other) => Err(format!("a probe gave {other:?}")),
            Err(class) => Ok(class),
        };
    }
    // Whether a cut is found out may hang on what the planner was told of the file.
    let task = match cut {
        Some(_) => match planned(&bytes)? {
            Ok(task) => task,
            Err(class) => return Ok(class),
        },
        None => encode_of(sample),
    };
    let outputs = task.video.as_ref().map_or(0, |v| v.rungs.len()) as u32 + task.audio.len() as u32;
    let (mut ended, late) = locked(TaskSpec::Encode(task.clone()), vec![bytes], outputs);
    let tracks = std::mem::take(&mut ended.outputs);
    let result = match outcome(ended, late)? {
        Ok(TaskResult::Encode(result)) => result,
        Ok(other) => return Err(format!("an encode gave {other:?}")),
        Err(class) => return Ok(class),
    };
    // Behind nine tenths of so small a file there may be no more than its tags.
    if sample.says_length && cut.is_some_and(|percent| percent < 90) {
        return Err(format!("cut to {cut:?} % and passed for whole: {result:?}"));
    }
    let digests: Vec<OutputDigest> = tracks
        .iter()
        .map(|t| OutputDigest { size: t.len() as u64, parts: 1, digest: String::new() })
        .collect();
    verify::encode(&task, &result, &digests).map_err(|f| f.to_string())?;
    // One in ten goes through the packager and the check, as all do on the real path.
    if number % 10 == 1 {
        whole(&task, &result, &digests, tracks)?;
        return Ok("encoded, packaged, checked".into());
    }
    Ok(if result.decode_errors > 0 { "encoded, damage counted" } else { "encoded" }.into())
}

fn spec() -> JobSpec {
    let text = r#"{"version":1,"input":{"upload":"upl_0192f0c1a2b37c4d8e9f001122334455"},"preset":"web","decoders":"legacy","thumbnails":{"enabled":false}}"#;
    JobSpec::parse(text.as_bytes()).unwrap()
}

fn whole(
    task: &EncodeTask,
    result: &EncodeResult,
    digests: &[OutputDigest],
    tracks: Vec<Vec<u8>>,
) -> Result<(), String> {
    let (spec, attempt, settings) = (spec(), AttemptId::from_u128(1), Settings::default());
    let plan =
        graph::package(&spec, task, result, digests, attempt, None, settings).map_err(|f| f.to_string())?;
    let TaskSpec::Package(package) = &plan.spec else { return Err("no package was planned".into()) };
    let (mut ended, late) =
        locked(plan.spec.clone(), taken(&plan.inputs, &tracks), plan.outputs.len() as u32);
    let objects = std::mem::take(&mut ended.outputs);
    match outcome(ended, late)? {
        Ok(TaskResult::Package(_)) => {}
        other => return Err(format!("what was encoded was not packaged: {other:?}")),
    }
    let sizes: Vec<OutputDigest> = objects
        .iter()
        .map(|o| OutputDigest { size: o.len() as u64, parts: 1, digest: String::new() })
        .collect();
    let plan = graph::check(&spec, package, &sizes, attempt, None, settings).map_err(|f| f.to_string())?;
    let (ended, late) = locked(plan.spec, taken(&plan.inputs, &objects), 0);
    match outcome(ended, late)? {
        Ok(TaskResult::Check(check)) if check.problems.is_empty() => Ok(()),
        other => Err(format!("what was packaged did not pass the check: {other:?}")),
    }
}

/// The outputs of the task before, in the order in which a plan takes them as inputs.
fn taken(inputs: &[InputSource], outputs: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let output = |input: &InputSource| match input {
        InputSource::Output { output, .. } => outputs[*output as usize].clone(),
        other => panic!("not an output: {other:?}"),
    };
    inputs.iter().map(output).collect()
}

/// The result, or the class of a documented end; an error is what must not happen.
fn outcome(ended: Ended, late: bool) -> Result<Result<TaskResult, String>, String> {
    if late {
        return Err(format!("it was still there after {DEADLINE:?}"));
    }
    match (ended.frames.into_iter().last(), ended.status.signal()) {
        (_, Some(libc::SIGSYS)) => Err(format!("it tried a call that is not allowed: {}", ended.log)),
        (_, Some(libc::SIGXCPU | libc::SIGKILL)) => Err("it ran until its time was over".into()),
        (_, Some(signal)) => Ok(Err(format!("crashed, signal {signal}"))),
        (Some(FromCodec::Done(result)), None) => Ok(Ok(*result)),
        (Some(FromCodec::Failed(failure)), None) if failure.class() == FailureClass::Media => {
            Ok(Err(format!("refused: {}", failure.code)))
        }
        (Some(FromCodec::Failed(failure)), None) => Err(format!("blamed on others: {failure}")),
        (other, None) => Err(format!("it ended without an answer: {other:?} {} {}", ended.status, ended.log)),
    }
}

#[test]
fn no_damaged_file_hangs_passes_for_whole_or_gets_out() {
    let count: usize = std::env::var("MUTATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(3_000);
    let samples = samples();
    let (next, tally) = (AtomicUsize::new(0), Mutex::new(Tally::default()));
    let workers = std::thread::available_parallelism().map_or(2, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    let mut draw = Draw(SEED ^ (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
                    let sample = &samples[number % samples.len()];
                    let other = &samples[draw.below(samples.len())];
                    let (bytes, cut) = mutate(sample, other, &mut draw);
                    let kept = bytes.clone();
                    let judged = judge(number, sample, bytes, cut);
                    let mut tally = tally.lock().unwrap();
                    match judged {
                        Ok(class) => *tally.classes.entry(class).or_default() += 1,
                        Err(what) => {
                            // Kept for whoever looks into it.
                            let file = media::folder().join(format!("mutant-{number}-{}", sample.name));
                            let _ = std::fs::write(&file, kept);
                            tally.wrong.push(format!("{}: {what}", file.display()));
                        }
                    }
                }
            });
        }
    });
    let tally = tally.into_inner().unwrap();
    println!("{count} damaged files of {} samples:", samples.len());
    for (class, number) in &tally.classes {
        println!("{number:6}  {class}");
    }
    assert!(tally.wrong.is_empty(), "{} of {count}:\n{}", tally.wrong.len(), tally.wrong.join("\n"));
}
