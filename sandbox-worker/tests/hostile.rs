//! Attempts with codec processes that do everything wrong, each in its own way. Each has to end in exactly the failure that
//! fits, with no media sent where no lock was seen, and with no process left.
//!
//! The test binary is the codec too, started under a name such as `codec-segv`; so there is no libtest here.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::print_stdout,
    clippy::panic,
    clippy::await_holding_lock,
    reason = "a test: a panic is the report; guards are dropped by hand before an await"
)]

#[path = "hostile/codec.rs"]
mod codec;
mod common;

use common::{MemoryBroker, State};
use mpegflow_protocol::codec::OutputKind;
use mpegflow_protocol::failure::FailureCode;
use mpegflow_protocol::telemetry::{Counts, SpanName, WorkerSpan};
use mpegflow_protocol::worker::{Lease, LeaseReply};
use mpegflow_worker::attempt::{Outcome, run};
use mpegflow_worker::broker::CallError;
use mpegflow_worker::settings::Settings;
use mpegflow_worker::shutdown::{self, Phase, Stopper};
use mpegflow_worker::supervisor;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;

fn main() {
    let name = std::env::args().next().unwrap_or_default();
    if let Some(part) =
        Path::new(&name).file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_prefix("codec-"))
    {
        codec::act(part);
    }
    let filters: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let stage = Stage::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (mut passed, mut failed) = (0, Vec::new());
    for (name, test) in tests() {
        if !filters.is_empty() && !filters.iter().any(|f| name.contains(f.as_str())) {
            continue;
        }
        let started = Instant::now();
        let verdict = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            runtime
                .block_on(async { tokio::time::timeout(Duration::from_secs(60), test(&stage)).await })
                .unwrap();
            stage.assert_nothing_left();
        }));
        println!(
            "test {name} ... {} ({} ms)",
            if verdict.is_ok() { "ok" } else { "FAILED" },
            started.elapsed().as_millis()
        );
        match verdict {
            Ok(()) => passed += 1,
            Err(_) => failed.push(name),
        }
    }
    // As libtest says it: `make test` adds these lines up.
    let all = if failed.is_empty() { "ok" } else { "FAILED" };
    println!("test result: {all}. {passed} passed; {} failed; 0 ignored", failed.len());
    assert!(failed.is_empty(), "failed: {failed:?}");
}

/// A folder where the codec has all its names.
struct Stage {
    folder: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn settings(&self, part: &str) -> Settings {
        let codec = self.folder.path().join(format!("codec-{part}"));
        if !codec.exists() {
            std::os::unix::fs::symlink(std::env::current_exe().unwrap(), &codec).unwrap();
        }
        Settings {
            lock_within: Duration::from_millis(1_500),
            exit_within: Duration::from_millis(700),
            stalled_after: Duration::from_secs(5),
            heartbeat_every: Duration::from_millis(100),
            retry_for: Duration::from_secs(1),
            lease_wait: Duration::from_millis(50),
            ..Settings::new(codec, self.folder.path().into())
        }
    }

    /// Nothing that this test started is alive: neither children nor what they forked.
    fn assert_nothing_left(&self) {
        let started = Instant::now();
        loop {
            let left = alive();
            if left.is_empty() {
                break;
            }
            assert!(started.elapsed() < Duration::from_secs(3), "processes are left: {left:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(std::fs::read_dir(self.folder.path()).unwrap().filter(|e| !is_link(e)).count(), 0);
    }
}

fn is_link(entry: &std::io::Result<std::fs::DirEntry>) -> bool {
    entry.as_ref().unwrap().file_type().unwrap().is_symlink()
}

/// Other processes whose command line names one of our codecs, and our own children, zombies included.
fn alive() -> Vec<u32> {
    let own = std::process::id();
    let numbers =
        std::fs::read_dir("/proc").unwrap().filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok());
    numbers
        .filter(|pid: &u32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let after_name = stat.rsplit_once(") ").map(|(_, rest)| rest.to_owned()).unwrap_or_default();
            let parent = after_name.split(' ').nth(1).and_then(|p| p.parse().ok());
            let same_program =
                std::fs::read_link(format!("/proc/{pid}/exe")).ok() == std::env::current_exe().ok();
            *pid != own && (parent == Some(own) || same_program)
        })
        .collect()
}

type Test = for<'a> fn(&'a Stage) -> std::pin::Pin<Box<dyn Future<Output = ()> + 'a>>;

macro_rules! tests {
    ($($name:ident)*) => { vec![$((stringify!($name), (|stage| Box::pin($name(stage))) as Test)),*] };
}

fn tests() -> Vec<(&'static str, Test)> {
    tests! {
        an_honest_codec_gets_its_bytes_and_its_outputs_arrive_whole
        without_seen_locks_not_one_media_byte_flows
        a_codec_that_breaks_the_protocol_is_a_violation
        crashes_and_signals_have_their_classes
        what_a_codec_may_say_of_itself_is_passed_on_cleaned
        limits_end_a_codec_that_takes_too_much
        a_flood_of_log_or_progress_is_bounded_and_harmless
        a_traced_attempt_tells_where_its_time_went_and_a_codec_lies_only_within_its_own
        a_broker_that_does_not_know_what_is_told_keeps_the_lease_alive
        a_codec_killed_from_outside_is_killed_and_not_crashed
        a_canceled_or_drained_attempt_is_released
        a_lost_lease_ends_the_codec_and_all_calls
        transfers_survive_a_broker_that_is_away_for_a_moment
        inputs_that_changed_or_vanished_fail_the_attempt
        a_codec_that_waits_for_the_broker_is_not_stalled
        a_codec_that_cannot_be_started_is_the_workers_fault
        the_lease_loop_runs_attempts_until_it_is_drained_or_retired
        a_lease_that_comes_with_the_drain_is_given_back
    }
}

fn media(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from((i ^ (i >> 8) ^ (i >> 16)) & 0xff).unwrap()).collect()
}

fn broker() -> Arc<MemoryBroker> {
    Arc::new(MemoryBroker::with_input(media(3 * MIB + 17)))
}

const ONE_STREAM: &[(OutputKind, u64)] = &[(OutputKind::Stream, 64 << 20)];

async fn play(
    stage: &Stage,
    broker: &Arc<MemoryBroker>,
    part: &str,
    change: impl FnOnce(&mut Lease),
) -> Outcome {
    let (_stopper, outcome) = play_with(stage, broker, part, change, |_| ()).await;
    outcome
}

async fn play_with(
    stage: &Stage,
    broker: &Arc<MemoryBroker>,
    part: &str,
    change: impl FnOnce(&mut Lease),
    then: impl FnOnce(Stopper),
) -> (Stopper, Outcome) {
    let (stopper, shutdown) = shutdown::channel();
    let mut lease = broker.lease(ONE_STREAM);
    change(&mut lease);
    then(stopper.clone());
    let outcome = run(Arc::clone(broker), lease, &stage.settings(part), shutdown).await;
    (stopper, outcome)
}

async fn code_of(stage: &Stage, part: &str) -> FailureCode {
    failure_of(stage, &broker(), part, |_| ()).await
}

async fn failure_of(
    stage: &Stage,
    broker: &Arc<MemoryBroker>,
    part: &str,
    change: impl FnOnce(&mut Lease),
) -> FailureCode {
    match play(stage, broker, part, change).await {
        Outcome::Failed(failure) => {
            let state = broker.state();
            assert_eq!(state.failed.len(), 1, "{part}");
            assert_eq!(state.failed[0].failure, failure, "{part}");
            assert!(state.completed.is_empty() && state.released == 0, "{part}");
            println!("    {part}: {failure}");
            failure.code
        }
        other => panic!("{part}: {other:?}"),
    }
}

// === what works ===

async fn an_honest_codec_gets_its_bytes_and_its_outputs_arrive_whole(stage: &Stage) {
    let data = media(19 * MIB + 17);
    let broker = Arc::new(MemoryBroker::with_input(data.clone()));
    let outcome = play(stage, &broker, "honest", |lease| {
        let slot = |kind| mpegflow_protocol::worker::OutputSlot { kind, max_bytes: 64 << 20 };
        lease.outputs = vec![slot(OutputKind::Stream), slot(OutputKind::Seekable), slot(OutputKind::Stream)];
    });
    assert_eq!(outcome.await, Outcome::Completed);
    for output in 0..3 {
        assert!(broker.output(output) == data, "output {output}");
    }
    let state = broker.state();
    let sizes: Vec<_> = state.parts.iter().filter(|((o, _), _)| *o == 1).map(|(_, (b, _))| b.len()).collect();
    assert_eq!(sizes, [8 * MIB, 8 * MIB, 3 * MIB + 17]);
    let complete = &state.completed[0];
    assert_eq!((complete.outputs.len(), complete.outputs[2].parts), (3, 3));
    assert_eq!(complete.outputs[0], complete.outputs[1]);
    let evidence = &complete.evidence;
    assert_eq!((evidence.observed.seccomp_mode, evidence.observed.no_new_privs), (2, true));
    assert_eq!(evidence.observed.capabilities, 0);
    let usage = evidence.usage.as_ref().unwrap();
    assert_eq!((usage.bytes_in, usage.bytes_out), (19 * 1024 * 1024 + 17, 3 * (19 * 1024 * 1024 + 17)));
    assert!(usage.peak_memory > 0 && usage.wall_ms > 0);
    // Empty inputs and outputs are not special.
    drop(state);
    let empty = Arc::new(MemoryBroker::with_input(vec![]));
    assert_eq!(play(stage, &empty, "honest", |_| ()).await, Outcome::Completed);
    let state = empty.state();
    assert!(state.parts.is_empty());
    assert_eq!((state.completed[0].outputs[0].size, state.completed[0].outputs[0].parts), (0, 0));
    assert!(state.completed[0].outputs[0].digest.starts_with("e3b0c442"), "SHA-256 of nothing");
    drop(state);
    assert_eq!(play(stage, &broker_of_three(), "reads-beyond", |_| ()).await, Outcome::Completed);
}

async fn a_traced_attempt_tells_where_its_time_went_and_a_codec_lies_only_within_its_own(stage: &Stage) {
    for (part, traced) in [("honest", false), ("honest", true), ("lies-about-time", true)] {
        let broker = broker();
        assert_eq!(play(stage, &broker, part, |lease| lease.traced = traced).await, Outcome::Completed);
        let state = broker.state();
        let told: Vec<_> = state.beats.iter().flat_map(|beat| beat.spans.as_slice()).copied().collect();
        let mut names: Vec<_> = told.iter().map(|span| span.name).collect();
        names.sort_by_key(|name| name.as_str());
        let mut expected = match (traced, part) {
            (false, _) => vec![],
            (true, "honest") => vec![],
            (true, _) => vec![SpanName::Open, SpanName::Decode, SpanName::Encode],
        };
        if traced {
            let own = [SpanName::Launch, SpanName::Lock, SpanName::Codec, SpanName::Fetch, SpanName::Upload];
            expected.extend(own);
        }
        expected.sort_by_key(|name| name.as_str());
        assert_eq!(names, expected, "{part}");
        let find = |name| told.iter().find(|span| span.name == name);
        if let Some(codec) = find(SpanName::Codec) {
            let end = |span: &WorkerSpan| span.start_us + span.duration_us;
            for span in told.iter().filter(|span| span.name.parent() == Some(SpanName::Codec)) {
                assert!(codec.start_us <= span.start_us && end(span) <= end(codec), "{span:?} in {codec:?}");
            }
            let upload = find(SpanName::Upload).unwrap();
            assert_eq!((upload.bytes, upload.parts), (Some(3 * (1 << 20) + 17), Some(1)));
        }
        // Counts are told whether it is traced or not.
        let counts = state.beats.iter().fold(Counts::default(), |sum, beat| sum.plus(beat.counts));
        assert_eq!((counts.codec_starts, counts.sent_bytes), (1, 3 * (1 << 20) + 17), "{part}");
    }
    for part in ["tells-a-phase-twice", "invents-a-phase"] {
        assert_eq!(code_of(stage, part).await, FailureCode::ProtocolViolation);
    }
}

async fn a_broker_that_does_not_know_what_is_told_keeps_the_lease_alive(stage: &Stage) {
    let broker = broker();
    broker.state().knows_no_spans = true;
    let change = |lease: &mut Lease| (lease.lease_ms, lease.traced) = (600, true);
    assert_eq!(play(stage, &broker, "waits", change).await, Outcome::Completed);
    let state = broker.state();
    assert!(state.beats.len() > 2, "its lease was renewed");
    assert!(state.beats.iter().all(|beat| beat.spans.is_empty() && beat.counts.is_empty()));
}

fn broker_of_three() -> Arc<MemoryBroker> {
    Arc::new(MemoryBroker::with_input(b"three bytes and some".to_vec()))
}

// === locks ===

async fn without_seen_locks_not_one_media_byte_flows(stage: &Stage) {
    for part in [
        "dies-at-once",
        "never-locks",
        "garbage-unlocked",
        "claims-locked",
        "fails-to-lock",
        "forks-unlocked",
        "talks-before-start",
    ] {
        let broker = broker();
        assert_eq!(failure_of(stage, &broker, part, |_| ()).await, FailureCode::LockFailed, "{part}");
        assert_eq!(broker.state().reads, [], "{part}");
        stage.assert_nothing_left();
    }
}

// === the protocol ===

async fn a_codec_that_breaks_the_protocol_is_a_violation(stage: &Stage) {
    for part in [
        "garbage",
        "unknown-kind",
        "huge-header",
        "locked-twice",
        "wrong-result",
        "lies-about-bytes",
        "reads-missing-input",
        "reads-nonsense",
        "exits-silently",
        "done-hangs",
        "done-talks",
        "closes-everything",
        "claims-policy",
    ] {
        assert_eq!(code_of(stage, part).await, FailureCode::ProtocolViolation, "{part}");
        stage.assert_nothing_left();
    }
}

async fn crashes_and_signals_have_their_classes(stage: &Stage) {
    for (part, code) in [
        ("segv", FailureCode::CodecCrashed),
        ("aborts", FailureCode::CodecCrashed),
        ("exits-with-5", FailureCode::CodecCrashed),
        ("done-crashes", FailureCode::CodecCrashed),
        ("forks", FailureCode::LockViolation),
        ("connects", FailureCode::LockViolation),
    ] {
        assert_eq!(code_of(stage, part).await, code, "{part}");
    }
    let little = |lease: &mut Lease| lease.limits.address_space = 512 << 20;
    assert_eq!(failure_of(stage, &broker(), "eats-memory", little).await, FailureCode::OutOfMemory);
    let broker = broker();
    let burned = failure_of(stage, &broker, "burns-cpu", |lease| lease.limits.cpu_seconds = 1).await;
    assert_eq!(burned, FailureCode::DeadlineExceeded);
    // The limit counts whole ticks of a clock that others share, the usage what was really used.
    assert!(broker.state().failed[0].evidence.as_ref().unwrap().usage.as_ref().unwrap().cpu_ms >= 400);
}

async fn what_a_codec_may_say_of_itself_is_passed_on_cleaned(stage: &Stage) {
    let broker = broker();
    assert_eq!(failure_of(stage, &broker, "no-frames", |_| ()).await, FailureCode::NoFrames);
    assert_eq!(broker.state().failed[0].failure.message, "not one  frame");
}

async fn limits_end_a_codec_that_takes_too_much(stage: &Stage) {
    let small = |lease: &mut Lease| lease.outputs[0].max_bytes = 5 << 20;
    assert_eq!(failure_of(stage, &broker(), "writes-too-much", small).await, FailureCode::ResourceLimit);
    let file = |lease: &mut Lease| {
        lease.outputs[0].kind = OutputKind::Seekable;
        lease.outputs[0].max_bytes = 1 << 20;
        lease.limits.file_size = 1 << 20;
    };
    assert_eq!(failure_of(stage, &broker(), "writes-too-much", file).await, FailureCode::ResourceLimit);
    let started = Instant::now();
    assert_eq!(code_of(stage, "sleeps").await, FailureCode::DeadlineExceeded);
    assert_eq!(code_of(stage, "repeats-itself").await, FailureCode::DeadlineExceeded);
    assert!(started.elapsed() < Duration::from_secs(40));
    let short = |lease: &mut Lease| lease.deadline_ms = 1_000;
    assert_eq!(failure_of(stage, &broker(), "sleeps", short).await, FailureCode::DeadlineExceeded);
}

async fn a_flood_of_log_or_progress_is_bounded_and_harmless(stage: &Stage) {
    let broker = broker();
    assert_eq!(play(stage, &broker, "floods-log", |_| ()).await, Outcome::Completed);
    let state = broker.state();
    let lines: Vec<_> = state.beats.iter().flat_map(|b| &b.log).collect();
    assert!(state.beats.iter().all(|b| b.log.len() <= mpegflow_protocol::limits::MAX_LOG_LINES));
    assert!(lines.len() <= 600 && lines.iter().all(|l| l.chars().count() <= 512 && !l.contains('\u{1b}')));
    drop(state);
    let broker = self::broker();
    assert_eq!(play(stage, &broker, "floods-progress", |_| ()).await, Outcome::Completed);
}

async fn a_codec_killed_from_outside_is_killed_and_not_crashed(stage: &Stage) {
    let broker = broker();
    let killer = std::thread::spawn(|| {
        std::thread::sleep(Duration::from_millis(800));
        let codecs = alive();
        assert_eq!(codecs.len(), 1);
        assert!(
            std::process::Command::new("kill")
                .args(["-9", &codecs[0].to_string()])
                .status()
                .unwrap()
                .success()
        );
    });
    assert_eq!(failure_of(stage, &broker, "sleeps", |_| ()).await, FailureCode::CodecKilled);
    killer.join().unwrap();
}

// === the broker's side ===

async fn a_canceled_or_drained_attempt_is_released(stage: &Stage) {
    let broker = broker();
    broker.state().cancel = true;
    assert_eq!(play(stage, &broker, "sleeps", |_| ()).await, Outcome::Released);
    assert_eq!(broker.state().released, 1);
    for (phase, outcome, released) in
        [(Phase::Release, Outcome::Released, 1), (Phase::Abort, Outcome::Aborted, 0)]
    {
        let broker = self::broker();
        let (_, ended) = play_with(
            stage,
            &broker,
            "sleeps",
            |_| (),
            |stopper| {
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(400)).await;
                    stopper.advance(phase);
                });
            },
        )
        .await;
        assert_eq!(ended, outcome);
        let state = broker.state();
        assert_eq!((state.released, state.failed.len()), (released, 0));
        drop(state);
        stage.assert_nothing_left();
    }
    // A drain lets it finish.
    let broker = self::broker();
    let (_, ended) = play_with(stage, &broker, "honest", |_| (), |s| s.advance(Phase::Drain)).await;
    assert_eq!(ended, Outcome::Completed);
}

async fn a_lost_lease_ends_the_codec_and_all_calls(stage: &Stage) {
    let quiet = |state: &State| (state.failed.len(), state.completed.len(), state.released);
    let broker = self::broker();
    broker.state().put_errors.push_back(CallError::LeaseLost);
    assert_eq!(play(stage, &broker, "honest", |_| ()).await, Outcome::Lost);
    assert_eq!(quiet(&broker.state()), (0, 0, 0));
    for error in [CallError::LeaseLost, CallError::Unavailable("away".into())] {
        let broker = self::broker();
        broker.state().beat_error = Some(error);
        let started = Instant::now();
        assert_eq!(play(stage, &broker, "sleeps", |l| l.lease_ms = 800).await, Outcome::Lost);
        assert!(started.elapsed() < Duration::from_millis(1_900));
        assert_eq!(quiet(&broker.state()), (0, 0, 0));
        stage.assert_nothing_left();
    }
}

async fn transfers_survive_a_broker_that_is_away_for_a_moment(stage: &Stage) {
    let data = media(9 * MIB);
    let broker = Arc::new(MemoryBroker::with_input(data.clone()));
    {
        let mut state = broker.state();
        let away = || CallError::Unavailable("503".into());
        state.put_errors.extend([away(), away()]);
        state.read_errors.extend([away(), away()]);
        state.complete_errors.push_back(away());
        (state.break_after, state.breaks_left) = (Some(700_000), 3);
    }
    assert_eq!(play(stage, &broker, "honest", |_| ()).await, Outcome::Completed);
    assert!(broker.output(0) == data);
}

async fn inputs_that_changed_or_vanished_fail_the_attempt(stage: &Stage) {
    let broker = self::broker();
    broker.state().claimed_total = Some(99);
    assert_eq!(failure_of(stage, &broker, "honest", |_| ()).await, FailureCode::InputChanged);
    let broker = self::broker();
    broker.state().read_errors.extend(std::iter::repeat_n(CallError::Unavailable("503".into()), 1000));
    assert_eq!(failure_of(stage, &broker, "honest", |_| ()).await, FailureCode::StorageError);
}

/// Longer away than a codec may do nothing: it is still the storage that failed, not the codec that stalled.
async fn a_codec_that_waits_for_the_broker_is_not_stalled(stage: &Stage) {
    for reads in [true, false] {
        let broker = self::broker();
        let away = std::iter::repeat_n(CallError::Unavailable("503".into()), 1000);
        if reads {
            broker.state().read_errors.extend(away);
        } else {
            broker.state().put_errors.extend(away);
        }
        let settings = Settings {
            retry_for: Duration::from_secs(3),
            stalled_after: Duration::from_secs(2),
            ..stage.settings("honest")
        };
        assert!(settings.retry_for > settings.stalled_after);
        let (_stopper, shutdown) = shutdown::channel();
        let outcome = run(Arc::clone(&broker), broker.lease(ONE_STREAM), &settings, shutdown).await;
        assert!(matches!(&outcome, Outcome::Failed(f) if f.code == FailureCode::StorageError), "{outcome:?}");
    }
}

async fn a_codec_that_cannot_be_started_is_the_workers_fault(stage: &Stage) {
    let broker = self::broker();
    let (_stopper, shutdown) = shutdown::channel();
    let settings = Settings { codec: "/nonexistent/codec".into(), ..stage.settings("honest") };
    let outcome = run(Arc::clone(&broker), broker.lease(ONE_STREAM), &settings, shutdown).await;
    assert!(matches!(outcome, Outcome::Failed(f) if f.code == FailureCode::WorkerError));
    let largest = |lease: &mut Lease| {
        lease.outputs[0].kind = OutputKind::Seekable;
        lease.limits.file_size = 0;
    };
    assert_eq!(failure_of(stage, &self::broker(), "honest", largest).await, FailureCode::BrokerError);
}

async fn the_lease_loop_runs_attempts_until_it_is_drained_or_retired(stage: &Stage) {
    let broker = self::broker();
    let lease = || LeaseReply::Lease(Box::new(broker.lease(ONE_STREAM)));
    let (two, retire) = ([lease(), lease()], LeaseReply::Retire {});
    broker.state().leases.extend(two);
    broker.state().leases.push_back(retire);
    let (_stopper, shutdown) = shutdown::channel();
    let ended = supervisor::run(&broker, &stage.settings("honest"), shutdown).await;
    assert_eq!((ended, broker.state().completed.len()), (supervisor::Ended::Retired, 2));
    // The broker asks for a drain in a heartbeat: the attempt ends as it would, and then the loop.
    let broker = self::broker();
    let leases = [(); 2].map(|()| LeaseReply::Lease(Box::new(broker.lease(ONE_STREAM))));
    broker.state().leases.extend(leases);
    broker.state().drain = true;
    let (_stopper, shutdown) = shutdown::channel();
    let ended = supervisor::run(&broker, &stage.settings("sleeps"), shutdown).await;
    assert_eq!((ended, broker.state().failed.len()), (supervisor::Ended::Drained, 1));
}

async fn a_lease_that_comes_with_the_drain_is_given_back(stage: &Stage) {
    let broker = self::broker();
    let (stopper, shutdown) = shutdown::channel();
    let settings = Settings { lease_wait: Duration::from_millis(200), ..stage.settings("honest") };
    let late = async {
        tokio::time::sleep(Duration::from_millis(60)).await;
        let lease = LeaseReply::Lease(Box::new(broker.lease(ONE_STREAM)));
        broker.state().leases.push_back(lease);
        stopper.advance(Phase::Drain);
    };
    let (ended, ()) = tokio::join!(supervisor::run(&broker, &settings, shutdown), late);
    assert_eq!((ended, broker.state().released), (supervisor::Ended::Drained, 1));
    assert_eq!(broker.state().completed.len(), 0);
}
