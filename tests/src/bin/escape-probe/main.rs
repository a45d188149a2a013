//! Locks itself as a codec process does, tries one thing, and says what came of it.
//!
//! `escape-probe MODE PARENT FIRST_FREE_FD PROBE [ARGUMENT]…`. MODE is `free` (no lock: the control that shows that a probe
//! works at all), `landlock` or `seccomp` (that layer alone), or `locked` ([`mpegflow_lockdown::enter`]). Lines on standard
//! output: `locked REPORT`, then `result N`, where a negative N is an error number. A probe that the kernel kills says nothing.
//!
//! `escape-probe sabotage CALL FIRST ERRNO PROGRAM [ARGUMENT]…` becomes PROGRAM, under a kernel that fails the system call
//! number CALL (when its first argument is FIRST, or always where that is `any`) with ERRNO; with 0 the kernel lies: it reports
//! success and does nothing. `escape-probe nest` starts a locked probe that never ends, tells its process id, and waits for it.

#![allow(unsafe_code, reason = "probes ask the kernel for what a taken-over codec would ask it for")]
#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a probe that fails to start fails its test"
)]

mod files;
mod kernel;
mod memory;
mod nest;
mod network;
mod processes;
mod raw;
mod sabotage;
mod workload;

use mpegflow_lockdown::{Limits, Plan, enter, steps};

/// What the test hands to a probe.
pub(crate) struct Given {
    pub(crate) parent: u64,
    pub(crate) arguments: Vec<String>,
}

impl Given {
    pub(crate) fn text(&self, i: usize) -> &str {
        self.arguments.get(i).map_or("", String::as_str)
    }

    pub(crate) fn number(&self, i: usize) -> u64 {
        self.text(i).parse().unwrap()
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    if std::env::args().nth(1).as_deref() == Some("sabotage") {
        let error = sabotage::become_program(arguments.skip(1).collect());
        raw::say(&format!("unfit {error}\n"));
        std::process::exit(98);
    }
    if std::env::args().nth(1).as_deref() == Some("nest") {
        nest::start_another();
    }
    let mut next = || arguments.next().unwrap_or_default();
    let (mode, parent, first_free, probe) = (next(), next(), next(), next());
    let parent: u32 = parent.parse().unwrap();
    let given = Given { parent: parent.into(), arguments: arguments.collect() };
    if let Err(e) = workload::before(&probe) {
        raw::say(&format!("unfit {e}\n"));
        std::process::exit(98);
    }
    // Little, for the one that runs out of it.
    let cpu_seconds = if probe == "run_out_of_time" { 1 } else { 30 };
    let plan = Plan {
        parent,
        first_free_fd: first_free.parse().unwrap(),
        limits: Limits { address_space: 4 << 30, cpu_seconds, file_size: 4096 },
    };
    let locked = match mode.as_str() {
        "free" => Ok(String::from("nothing")),
        "landlock" => steps::landlock().map(|abi| format!("abi={abi}")),
        "seccomp" => steps::seccomp().map(|()| String::from("filters")),
        "locked" => enter(&plan).map(|r| {
            format!(
                "abi={} refused={} fds={} undumpable={} noenv={}",
                r.landlock_abi, r.landlock_refused_open, r.open_fds, r.not_dumpable, r.environment_empty
            )
        }),
        _ => std::process::exit(97),
    };
    match locked {
        Ok(report) => raw::say(&format!("locked {report}\n")),
        Err(e) => {
            raw::say(&format!("refused {e:?}\n"));
            std::process::exit(96);
        }
    }
    let found = files::run(&probe, &given)
        .or_else(|| network::run(&probe, &given))
        .or_else(|| processes::run(&probe, &given))
        .or_else(|| kernel::run(&probe, &given))
        .or_else(|| memory::run(&probe, &given))
        .or_else(|| workload::run(&probe, &given));
    match found {
        Some(result) => raw::say(&format!("result {result}\n")),
        None => {
            raw::say("no such probe\n");
            std::process::exit(95);
        }
    }
}
