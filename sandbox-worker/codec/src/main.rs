//! The codec process: FFmpeg over numbered descriptors, locked before the first media byte.
//!
//! One process does one task: it reads what the locks need, locks itself, says so, is looked at from outside, is told the
//! task, and ends. It knows "input 0" and "output 1", never a name, a key or an address.

mod bitstream;
mod caps;
mod check;
mod clock;
mod control;
mod convert;
mod copy;
mod damage;
mod decoders;
mod deinterlace;
mod encode;
mod ff;
mod fields;
mod fmp4;
mod fragments;
mod hls;
mod input;
mod jpeg;
mod jumps;
mod lock;
mod mp4;
mod mpd;
mod nal;
mod output;
mod package;
mod pictures;
mod playlist;
mod probe;
mod rotate;
mod rung;
mod sniff;
mod sound;
mod source;
mod stills;
mod tone;
mod track;
mod truncated;

use control::Control;
use ff::{fds, log};
use input::InputSocket;
use mpegflow_protocol::codec::{CONTROL_FD, FromCodec, INPUT_FD, Prepare, Start, ToCodec};
use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::limits;
use mpegflow_protocol::task::{TaskResult, TaskSpec};
use mpegflow_protocol::telemetry::Phase;
use output::Outputs;
use source::Inputs;
use std::process::ExitCode;

fn main() -> ExitCode {
    let control = Control::new(fds::take(CONTROL_FD));
    let prepare = match control.receive() {
        Ok(ToCodec::Prepare(prepare)) => prepare,
        Ok(ToCodec::Start(_)) => {
            return refused(&control, FailureCode::WorkerError, "start came before the locks");
        }
        Err(e) => return refused(&control, FailureCode::WorkerError, &format!("no prepare frame: {e}")),
    };
    // Before the locks: all that would want a file or a terminal later.
    log::install();
    ff::cap_allocations(prepare.limits.single_allocation);
    let report = match lock::enter(&prepare) {
        Ok(report) => report,
        Err(e) => return refused(&control, FailureCode::LockFailed, &e),
    };
    if control.send(&FromCodec::Locked(report)).is_err() {
        return ExitCode::FAILURE;
    }
    let start = match control.receive() {
        Ok(ToCodec::Start(start)) => start,
        // The supervisor did not like what it saw, and closed.
        _ => return ExitCode::FAILURE,
    };
    control.starts();
    decoders::ban(&start.banned);
    let answer = match run(&control, &prepare, &start) {
        Ok(result) => FromCodec::Done(Box::new(result)),
        Err(failure) => {
            log::line(&failure.to_string());
            FromCodec::Failed(failure)
        }
    };
    match control.send(&answer) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn refused(control: &Control, code: FailureCode, message: &str) -> ExitCode {
    let _ = control.send(&FromCodec::Failed(Failure::new(code, message)));
    ExitCode::FAILURE
}

fn run(control: &Control, prepare: &Prepare, start: &Start) -> Result<TaskResult, Failure> {
    let outputs = usize::try_from(prepare.outputs).unwrap_or(usize::MAX);
    if start.inputs.len() > limits::MAX_INPUTS
        || outputs > limits::MAX_OUTPUTS
        || outputs != start.outputs.len()
    {
        return Err(Failure::new(FailureCode::WorkerError, "the start frame does not fit the prepare frame"));
    }
    let inputs = Inputs::new(InputSocket::new(fds::take(INPUT_FD)), start.inputs.clone());
    let outputs = Outputs::new(outputs);
    let threads = prepare.threads.clamp(1, 16);
    Ok(match &start.task {
        TaskSpec::Probe(task) => {
            let _timed = control.phase(Phase::Probe);
            TaskResult::Probe(probe::run(task, &inputs)?)
        }
        TaskSpec::Encode(task) => TaskResult::Encode(encode::run(
            task,
            encode::Given { inputs: &inputs, outputs, control, threads },
        )?),
        TaskSpec::Package(task) => {
            let _timed = control.phase(Phase::Package);
            TaskResult::Package(package::run(task, &inputs, outputs, control)?)
        }
        TaskSpec::Check(task) => {
            let _timed = control.phase(Phase::Check);
            TaskResult::Check(check::run(task, &inputs, control)?)
        }
    })
}
