//! The real codec process: what it inherits, and what happens when a lock does not go on.
//!
//! Faults are injected from outside, by strace, into the program as it is shipped: it has no switch for it.

use mpegflow_lockdown::policy::{ALLOW, Seen};
use mpegflow_lockdown::{Observed, Report, observe, verify};
use mpegflow_protocol::codec::FromCodec;
use mpegflow_protocol::encoder::{EncoderSpeed, Tuning, VideoCodec};
use mpegflow_protocol::evidence::SelfReport;
use mpegflow_protocol::failure::FailureCode;
use mpegflow_protocol::job::DecoderSet;
use mpegflow_protocol::task::{AudioEncode, EncodeTask, ProbeTask, Rung, TaskResult, TaskSpec, VideoEncode};
use mpegflow_tests::codec_session::Session;
use mpegflow_tests::escape::syscalls_used;
use mpegflow_tests::{media, program};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

fn probe() -> TaskSpec {
    TaskSpec::Probe(ProbeTask { decoders: DecoderSet::Core, partial: false })
}

fn clip() -> Vec<u8> {
    std::fs::read(media::clip(2, 320, 240)).unwrap()
}

fn report(said: &SelfReport) -> Report {
    Report {
        landlock_abi: said.landlock_abi,
        landlock_refused_open: said.landlock_refused_open,
        open_fds: said.open_fds,
        not_dumpable: said.not_dumpable,
        environment_empty: said.environment_empty,
    }
}

/// Starts the codec under strace, which hands its place to it: the codec is our own child, as for a supervisor.
fn traced(trace: &Path, options: &[&str]) -> Session {
    let codec = program("mpegflow-codec");
    let mut arguments = vec!["-D", "-f", "-qq", "-o", trace.to_str().unwrap()];
    arguments.extend(options);
    arguments.push(codec.to_str().unwrap());
    Session::start(Path::new("/usr/bin/strace"), &arguments, 1)
}

/// What the supervisor would decide.
fn accepted(session: &mut Session) -> Result<Observed, String> {
    match session.prepare(1) {
        Some(FromCodec::Locked(said)) => {
            let seen = observe(session.child.id()).map_err(|e| e.to_string())?;
            verify(&seen, &report(&said)).map_err(|e| e.to_string())?;
            Ok(seen)
        }
        Some(FromCodec::Failed(failure)) => {
            assert_eq!(failure.code, FailureCode::LockFailed, "{failure}");
            Err(failure.message)
        }
        other => Err(format!("{other:?}")),
    }
}

#[test]
fn the_codec_locks_itself_and_then_does_its_task() {
    let mut session = Session::start(&program("mpegflow-codec"), &[], 1);
    let seen = accepted(&mut session).unwrap();
    assert_eq!((seen.seccomp_mode, seen.no_new_privs, seen.capabilities, seen.threads), (2, true, 0, 1));
    let ended = session.work(probe(), vec![clip()]);
    assert!(ended.status.success(), "{:?} {}", ended.status, ended.log);
    assert!(
        matches!(ended.frames.last(), Some(FromCodec::Done(result)) if matches!(**result, TaskResult::Probe(_)))
    );
    assert!(ended.bytes_fed > 0);
}

#[test]
fn nothing_of_the_supervisor_is_inherited() {
    // A secret in our environment, and one behind a descriptor that survives exec.
    let secret = tempfile::tempfile().unwrap();
    let leaked = inheritable(&secret);
    let mut session = Session::start(&program("mpegflow-codec"), &[], 1);
    let pid = session.child.id();
    accepted(&mut session).unwrap();
    assert_eq!(std::fs::read(format!("/proc/{pid}/environ")).unwrap(), b"");
    let mut open: Vec<u32> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().parse().unwrap())
        .collect();
    open.sort_unstable();
    assert_eq!(open, [0, 1, 2, 3, 4, 5]);
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    assert_eq!(command.iter().filter(|b| **b == 0).count(), 1, "no arguments");
    drop((leaked, secret));
    let _ = session.abandon_killed();
}

/// A copy of the descriptor that survives exec.
fn inheritable(file: &std::fs::File) -> std::fs::File {
    use std::os::fd::AsRawFd;
    let copy = file.try_clone().unwrap();
    #[allow(unsafe_code, reason = "std cannot clear close-on-exec")]
    // SAFETY: a flag of a descriptor that we own.
    let cleared = unsafe { libc::fcntl(copy.as_raw_fd(), libc::F_SETFD, 0) };
    assert_eq!(cleared, 0);
    copy
}

/// The calls that the locks are made of.
const LOCKING: [&str; 12] = [
    "close_range",
    "setgroups",
    "setresgid",
    "setresuid",
    "capset",
    "prctl",
    "prlimit64",
    "setrlimit",
    "landlock_create_ruleset",
    "landlock_restrict_self",
    "seccomp",
    "unshare",
];

/// How often each of [`LOCKING`] is called until the codec says that it is locked.
fn calls_until_locked() -> BTreeMap<String, usize> {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let mut session = traced(&trace, &[]);
    accepted(&mut session).unwrap();
    let _ = session.abandon_killed();
    let text = std::fs::read_to_string(&trace).unwrap();
    let mut calls = BTreeMap::new();
    for line in text.lines() {
        let call = line.split_once(' ').map_or(line, |(_, rest)| rest.trim_start());
        let name = call.split('(').next().unwrap_or_default();
        if LOCKING.contains(&name) {
            *calls.entry(name.to_owned()).or_default() += 1;
        }
    }
    assert!(calls.get("seccomp").is_some_and(|n| *n >= 2), "two filters are loaded: {calls:?}");
    assert_eq!(calls.get("landlock_restrict_self"), Some(&1), "{calls:?}");
    calls
}

#[test]
fn a_fault_at_any_lock_step_lets_no_media_byte_through() {
    let folder = tempfile::tempdir().unwrap();
    let mut survived = Vec::new();
    for (name, count) in calls_until_locked() {
        for nth in 1..=count {
            for fault in ["error=EPERM", "retval=0"] {
                let trace = folder.path().join("trace");
                let inject = format!("inject={name}:{fault}:when={nth}");
                let mut session = traced(&trace, &["-e", &inject]);
                match accepted(&mut session) {
                    Ok(seen) => {
                        // The loader and the C library make some of these calls too, and can do without. Then every
                        // lock is on all the same.
                        assert_eq!((seen.seccomp_mode, seen.capabilities), (2, 0), "{inject}");
                        survived.push(format!("{name} {nth} {fault}"));
                        let _ = session.abandon_killed();
                    }
                    Err(_) => {
                        // A hostile or broken supervisor that serves anyway: even then nothing is read.
                        let ended = session.tempt(vec![clip()]);
                        assert_eq!(ended.bytes_fed, 0, "{inject}");
                        assert!(!ended.status.success(), "{inject}");
                    }
                }
            }
        }
    }
    println!("survived, with every lock on: {survived:?}");
    for lock in [
        "landlock_restrict_self",
        "landlock_create_ruleset",
        "seccomp",
        "setresuid",
        "setresgid",
        "capset",
        "close_range",
    ] {
        let slipped: Vec<_> =
            survived.iter().filter(|s| s.starts_with(&format!("{lock} ")) && s.ends_with("EPERM")).collect();
        assert!(slipped.is_empty(), "a refused {lock} was not noticed: {slipped:?}");
    }
}

fn encode(video: bool, audio: Option<u32>) -> TaskSpec {
    let rung = |output: u32, width: u32, height: u32| Rung {
        output,
        codec: VideoCodec::H264,
        width,
        height,
        crf_tenths: 230,
        max_bit_rate: 2_000_000,
        buffer_bits: 4_000_000,
        speed: EncoderSpeed::Fast,
        tuning: Tuning::default(),
        copy: false,
    };
    let video = video.then(|| VideoEncode {
        stream: 0,
        rotation: 90,
        mirrored: false,
        max_frame_rate: 60,
        deinterlace: true,
        poster: None,
        sprites: None,
        rungs: vec![rung(0, 240, 320), rung(1, 180, 240)],
    });
    let output = if video.is_some() { 2 } else { 0 };
    let audio = audio.map(|stream| AudioEncode {
        output,
        stream,
        bit_rate: 64_000,
        sample_rate: 48_000,
        channels: 1,
    });
    TaskSpec::Encode(EncodeTask {
        decoders: DecoderSet::Core,
        segment_ms: 2000,
        video,
        audio: audio.into_iter().collect(),
        expected_duration_ms: Some(2000),
        partial: false,
        timeline: None,
        chunk: None,
    })
}

/// The calls a codec made after its last filter went on.
fn calls_of(task: &TaskSpec, outputs: u32, input: &Path) -> BTreeSet<String> {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let codec = program("mpegflow-codec");
    let arguments = ["-D", "-f", "-qq", "-o", trace.to_str().unwrap(), codec.to_str().unwrap()];
    let mut session = Session::start(Path::new("/usr/bin/strace"), &arguments, outputs);
    assert!(matches!(session.prepare(2), Some(FromCodec::Locked(_))));
    let ended = session.work(task.clone(), vec![std::fs::read(input).unwrap()]);
    assert!(
        matches!(ended.frames.last(), Some(FromCodec::Done(_))),
        "{}: {:?} {}",
        input.display(),
        ended.frames.last(),
        ended.log
    );
    let text = std::fs::read_to_string(&trace).unwrap();
    let locked = text.rfind(" seccomp(").expect("filters went on");
    syscalls_used(&text[locked..]).into_iter().skip(1).map(|(name, _)| name).collect()
}

#[test]
fn no_call_is_allowed_that_nothing_needs() {
    let video = "-f lavfi -i testsrc2=size=320x240:rate=25:duration=2";
    let mut used = calls_of(&probe(), 0, &media::clip(2, 320, 240));
    used.extend(calls_of(&encode(true, Some(1)), 3, &media::clip(2, 320, 240)));
    for (name, make) in [
        ("needs-hevc.mkv", "-c:v libx265 -preset ultrafast -x265-params log-level=error"),
        ("needs-vp9.webm", "-c:v libvpx-vp9 -deadline realtime -cpu-used 8"),
        ("needs-av1.mkv", "-c:v libsvtav1 -preset 12"),
        ("needs-vp8.webm", "-c:v libvpx -deadline realtime"),
        ("needs-prores.mov", "-c:v prores_ks"),
        ("needs-mpeg4.ts", "-c:v mpeg4"),
    ] {
        used.extend(calls_of(&encode(true, None), 2, &media::ffmpeg(name, &format!("{video} {make}"))));
    }
    for (name, make) in [
        ("needs-opus.ogg", "-c:a libopus"),
        ("needs-mp3.mp3", "-c:a libmp3lame"),
        ("needs-flac.flac", "-c:a flac"),
    ] {
        let input = media::ffmpeg(name, &format!("-f lavfi -i sine=duration=2 {make}"));
        used.extend(calls_of(&encode(false, Some(0)), 1, &input));
    }
    for codec in [VideoCodec::Hevc, VideoCodec::Vp9, VideoCodec::Av1] {
        let mut task = encode(true, None);
        if let TaskSpec::Encode(EncodeTask { video: Some(video), .. }) = &mut task {
            video.rungs.iter_mut().for_each(|rung| rung.codec = codec);
        }
        used.extend(calls_of(&task, 2, &media::clip(2, 320, 240)));
    }
    // What no ordinary task shows: a test elsewhere needs it, or a machine unlike this one.
    let elsewhere = [
        ("rt_sigreturn", "escape_handover: a_crash_ends_as_a_crash_and_not_as_an_escape (stack_overflow)"),
        ("getpid", "escape_handover: a_crash_ends_as_a_crash_and_not_as_an_escape (abort)"),
        ("tgkill", "escape_handover: a_crash_ends_as_a_crash_and_not_as_an_escape (abort)"),
        ("mremap", "escape_handover: threads_memory_and_sorting_work_under_the_locks"),
        ("sched_yield", "more threads than processors: the standard library's channels back off with it"),
        (
            "clock_nanosleep",
            "run_presets: the_newer_codecs_make_ladders_that_are_checked_and_decode (x265, now and then)",
        ),
        ("clock_gettime", "kernels whose clock the vDSO cannot read (Xen, hpet)"),
        ("gettimeofday", "kernels whose clock the vDSO cannot read (Xen, hpet)"),
    ];
    let unneeded: Vec<_> = ALLOW
        .iter()
        .filter(|a| !used.contains(a.name))
        .filter(|a| a.seen == Seen::Traced || elsewhere.iter().all(|(name, _)| *name != a.name))
        .map(|a| (a.name, a.reason))
        .collect();
    assert!(unneeded.is_empty(), "allowed, and needed by nothing: {unneeded:?}");
}
