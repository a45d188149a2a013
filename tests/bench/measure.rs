//! Running a command, and comparing runs of ours with runs of a peer's.

use mpegflow_lockdown::supervise::Supervised;
use serde_json::{Value, json};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// One run of one side.
#[derive(Clone, Copy)]
pub(super) struct Cost {
    pub(super) wall: Duration,
    /// User and system time, of the command and every process it started.
    pub(super) cpu: Duration,
    /// Peak resident memory in bytes.
    pub(super) memory: u64,
}

pub(super) fn measure(command: &mut Command) -> Cost {
    let started = Instant::now();
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap();
    let exit = Supervised::adopt(child).wait().unwrap();
    let wall = started.elapsed();
    assert!(exit.status.success(), "{command:?}: {:?}", exit.status);
    Cost { wall, cpu: exit.cpu, memory: exit.peak_memory }
}

pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

pub(super) fn compare(
    what: &str,
    goal: &str,
    ours: &[Cost],
    peer: &[Cost],
    of: fn(&Cost) -> Duration,
) -> Value {
    let seconds = |costs: &[Cost]| costs.iter().map(|c| of(c).as_secs_f64()).collect::<Vec<_>>();
    let (all_ours, all_peer) = (seconds(ours), seconds(peer));
    let (ours, peer) = (median(all_ours.clone()), median(all_peer.clone()));
    json!({ "what": what, "goal": goal, "unit": "seconds", "ours": ours, "peer": peer, "ratio": ours / peer,
            "all_ours": all_ours, "all_peer": all_peer })
}
