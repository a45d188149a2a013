//! Plays the supervisor to the real codec process under its real locks, with inputs and outputs in memory.

use mpegflow_lockdown::launch::Launch;
use mpegflow_protocol::codec::{
    CONTROL_FD, FIRST_OUTPUT_FD, FromCodec, HEADER_LEN, INPUT_FD, OutputKind, Prepare, ProcessLimits,
    Progress, ReadReply, ReadRequest, Start, ToCodec, decode_header,
};
use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::task::{
    CheckResult, CheckTask, EncodeResult, EncodeTask, PackageResult, PackageTask, ProbeResult, ProbeTask,
    TaskResult, TaskSpec,
};
use mpegflow_protocol::telemetry::PhaseTime;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// One input, shared without a copy.
pub type Bytes = Arc<Vec<u8>>;

/// How a process ended and what came out of it.
pub struct Outcome {
    /// What it said last; `None` where it died without a word.
    pub answer: Option<Result<TaskResult, Failure>>,
    pub outputs: Vec<Vec<u8>>,
    pub log: String,
    pub progress: Vec<Progress>,
    pub phases: Vec<PhaseTime>,
    /// Reads that were asked for.
    pub reads: usize,
    pub status: ExitStatus,
    pub wall: Duration,
}

impl Outcome {
    pub fn failure(&self) -> &Failure {
        match &self.answer {
            Some(Err(failure)) => failure,
            other => panic!("no failure but {other:?}; {:?}; log: {}", self.status, self.log),
        }
    }

    pub fn code(&self) -> FailureCode {
        self.failure().code
    }

    fn done(&self) -> &TaskResult {
        match &self.answer {
            Some(Ok(result)) => result,
            other => panic!("not done but {other:?}; {:?}; log: {}", self.status, self.log),
        }
    }

    pub fn probe(&self) -> &ProbeResult {
        match self.done() {
            TaskResult::Probe(r) => r,
            other => panic!("{other:?}"),
        }
    }

    pub fn encode(&self) -> &EncodeResult {
        match self.done() {
            TaskResult::Encode(r) => r,
            other => panic!("{other:?}"),
        }
    }

    pub fn package(&self) -> &PackageResult {
        match self.done() {
            TaskResult::Package(r) => r,
            other => panic!("{other:?}"),
        }
    }

    pub fn check(&self) -> &CheckResult {
        match self.done() {
            TaskResult::Check(r) => r,
            other => panic!("{other:?}"),
        }
    }

    /// Whether the locks or a crash ended it. The kernel's word for a violated filter is SIGSYS.
    pub fn killed_by(&self) -> Option<i32> {
        self.status.signal()
    }
}

/// The task's kinds, so that tests need not wrap.
pub trait IntoSpec {
    fn spec(self) -> TaskSpec;
}

macro_rules! into_spec {
    ($($task:ident $variant:ident),*) => {
        $(impl IntoSpec for $task { fn spec(self) -> TaskSpec { TaskSpec::$variant(self) } })*
    };
}
into_spec!(ProbeTask Probe, EncodeTask Encode, PackageTask Package, CheckTask Check);

pub const LIMITS: ProcessLimits =
    ProcessLimits { address_space: 6 << 30, cpu_seconds: 120, file_size: 0, single_allocation: 512 << 20 };

pub fn run(task: impl IntoSpec, inputs: &[Bytes], outputs: usize) -> Outcome {
    run_with(LIMITS, task, inputs, outputs)
}

pub fn run_with(limits: ProcessLimits, task: impl IntoSpec, inputs: &[Bytes], outputs: usize) -> Outcome {
    run_all(limits, &[], task, inputs, outputs)
}

pub fn run_banned(banned: &[&str], task: impl IntoSpec, inputs: &[Bytes], outputs: usize) -> Outcome {
    run_all(LIMITS, banned, task, inputs, outputs)
}

fn run_all(
    limits: ProcessLimits,
    banned: &[&str],
    task: impl IntoSpec,
    inputs: &[Bytes],
    outputs: usize,
) -> Outcome {
    let began = Instant::now();
    let task = task.spec();
    let (mut control, codec_control) = UnixStream::pair().unwrap();
    let (input, codec_input) = UnixStream::pair().unwrap();
    let (mut log, codec_log) = std::io::pipe().unwrap();
    let mut launch = Launch::new(env!("CARGO_BIN_EXE_mpegflow-codec"))
        .fd(codec_log, 2)
        .fd(codec_control, CONTROL_FD)
        .fd(codec_input, INPUT_FD);
    let mut readers = Vec::new();
    for number in 0..outputs {
        let (mut reader, writer) = std::io::pipe().unwrap();
        launch = launch.fd(writer, FIRST_OUTPUT_FD + number as i32);
        readers.push(thread::spawn(move || {
            let mut out = Vec::new();
            reader.read_to_end(&mut out).unwrap();
            out
        }));
    }
    let mut child = launch.spawn().unwrap();
    let log = thread::spawn(move || {
        let mut out = Vec::new();
        let _ = log.read_to_end(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    });
    let served = inputs.to_vec();
    let feeder = thread::spawn(move || serve(input, &served));
    let prepare = Prepare { parent: std::process::id(), outputs: outputs as u32, limits, threads: 2 };
    control.write_all(&ToCodec::Prepare(prepare).encode()).unwrap();
    let mut answer = None;
    let (mut progress, mut phases) = (Vec::new(), Vec::new());
    while let Some(frame) = read_frame(&mut control) {
        match frame {
            FromCodec::Locked(report) => {
                assert!(
                    report.not_dumpable && report.environment_empty && report.landlock_refused_open,
                    "{report:?}"
                );
                let start = Start {
                    task: task.clone(),
                    inputs: inputs.iter().map(|i| i.len() as u64).collect(),
                    outputs: vec![OutputKind::Stream; outputs],
                    banned: banned.iter().map(|name| (*name).to_owned()).collect(),
                };
                control.write_all(&ToCodec::Start(Box::new(start)).encode()).unwrap();
            }
            FromCodec::Progress(p) => progress.push(p),
            FromCodec::Phase(time) => phases.push(time),
            FromCodec::Done(result) => answer = Some(Ok(*result)),
            FromCodec::Failed(failure) => answer = Some(Err(failure)),
        }
    }
    let status = child.wait().unwrap();
    Outcome {
        answer,
        outputs: readers.into_iter().map(|r| r.join().unwrap()).collect(),
        log: log.join().unwrap(),
        progress,
        phases,
        reads: feeder.join().unwrap(),
        status,
        wall: began.elapsed(),
    }
}

fn read_frame(control: &mut UnixStream) -> Option<FromCodec> {
    control.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    let mut header = [0; HEADER_LEN];
    control.read_exact(&mut header).ok()?;
    let (kind, len) = decode_header(header).unwrap();
    let mut payload = vec![0; len];
    control.read_exact(&mut payload).ok()?;
    Some(FromCodec::decode(kind, &payload).unwrap())
}

fn serve(mut socket: UnixStream, inputs: &[Bytes]) -> usize {
    let mut reads = 0;
    let mut request = [0; ReadRequest::LEN];
    while socket.read_exact(&mut request).is_ok() {
        reads += 1;
        let request = ReadRequest::decode(request).unwrap();
        let input = &inputs[usize::from(request.input)];
        let start = usize::try_from(request.offset).unwrap();
        assert!(start < input.len(), "a read beyond the end: {request:?}");
        let bytes = &input[start..input.len().min(start + request.len as usize)];
        let reply = ReadReply::Bytes(bytes.len() as u32).encode();
        if socket.write_all(&reply).and_then(|()| socket.write_all(bytes)).is_err() {
            break;
        }
    }
    reads
}
