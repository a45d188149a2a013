//! Every system call by number, by every convention the processor has, and every argument rule at its border: what the policy
//! lists runs as listed, and all else ends the process.

#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "test code"
)]

use mpegflow_lockdown::policy::{ALLOW, ERRNO, EXEMPT};
use mpegflow_tests::escape::{Outcome, Probe, in_parallel};
use std::collections::BTreeSet;

const PROBE: &str = env!("CARGO_BIN_EXE_escape-probe");

/// Linux 6.18 has none above 469.
const HIGHEST: i64 = 500;

fn call(number: i64, arguments: &[&str]) -> Outcome {
    arguments.iter().fold(Probe::new(PROBE, "locked", "call").arg(number), Probe::arg).run()
}

#[test]
fn every_call_number_is_listed_or_ends_the_process() {
    let numbers: Vec<i64> = (0..=HIGHEST).collect();
    let (zeros, hostile) = (["0"; 6], ["max"; 6]);
    let outcomes = in_parallel(&numbers, |n| [call(*n, &zeros), call(*n, &hostile)]);
    let (mut killed, mut wrong) = (0, Vec::new());
    println!("{:>4} {:22} {:26} all arguments -1", "call", "listed", "all arguments 0");
    for (number, [zero, max]) in numbers.iter().zip(outcomes) {
        let fails = ERRNO.iter().find(|r| r.number == *number);
        let runs = ALLOW.iter().find(|a| a.number == *number);
        let exempt = EXEMPT.iter().find(|e| e.number == *number);
        let (name, right) = match (fails, runs) {
            // What the kernel hides from filters does nothing for us either: killed by an older kernel, useless in a newer.
            (None, None) if exempt.is_some() => {
                let useless = |o: &Outcome| {
                    let died = Outcome::Other(format!("signal {}", libc::SIGILL));
                    [Outcome::Killed, died, Outcome::Refused(libc::ENXIO)].contains(o)
                };
                (exempt.map_or("", |e| e.name).to_owned(), useless(&zero) && useless(&max))
            }
            (Some(r), _) => {
                let refused = Outcome::Refused(r.errno.1);
                (format!("{} {}", r.name, r.errno.0), zero == refused && max == refused)
            }
            (_, Some(a)) if a.when.is_empty() => (format!("{} allowed", a.name), true),
            // No rule is met by all ones.
            (_, Some(a)) => (format!("{} by argument", a.name), max == Outcome::Killed),
            (None, None) => (String::new(), zero == Outcome::Killed && max == Outcome::Killed),
        };
        if name.is_empty() && right {
            killed += 1;
            continue;
        }
        println!("{number:>4} {name:22} {:26} {max}", zero.to_string());
        if !right {
            wrong.push(format!("{number} {name}: {zero}, {max}"));
        }
    }
    println!("and {killed} numbers that are not listed: killed");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(usize::try_from(HIGHEST + 1).unwrap(), killed + ALLOW.len() + ERRNO.len() + EXEMPT.len());
}

#[test]
fn every_x32_call_ends_the_process() {
    let numbers: Vec<u32> = (0..=547).collect();
    let outcomes = in_parallel(&numbers, |n| Probe::new(PROBE, "locked", "call_x32").arg(n).run());
    for (number, outcome) in numbers.iter().zip(outcomes) {
        assert_eq!(outcome, Outcome::Killed, "x32 call {number}");
    }
}

#[test]
fn every_i386_call_ends_the_process() {
    let numbers: Vec<i64> = (0..=HIGHEST).collect();
    let outcomes = in_parallel(&numbers, |n| Probe::new(PROBE, "locked", "call_i386").arg(n).run());
    for (number, outcome) in numbers.iter().zip(outcomes) {
        assert_eq!(outcome, Outcome::Killed, "i386 call {number}");
    }
}

/// A rule's name, arguments that it lets pass, and arguments that it must not.
struct Border {
    name: &'static str,
    allowed: Vec<Vec<String>>,
    altered: Vec<Vec<String>>,
}

fn list(arguments: &[&str]) -> Vec<String> {
    arguments.iter().map(|a| (*a).to_owned()).collect()
}

/// `template` with `{}` replaced by each value.
fn each(template: &[&str], values: impl IntoIterator<Item = u64>) -> Vec<Vec<String>> {
    values.into_iter().map(|v| template.iter().map(|a| a.replace("{}", &v.to_string())).collect()).collect()
}

/// No flag at all, and each bit of a 64-bit word that `but` does not hold, together with `base`.
fn with_each_bit(base: u64, but: u64) -> impl Iterator<Item = u64> {
    (0..64).map(|bit| 1_u64 << bit).filter(move |bit| (base | but) & bit == 0).map(move |bit| base | bit)
}

fn borders() -> Vec<Border> {
    const ANONYMOUS: u64 = 0x22;
    const HINTS: u64 = 0x4000 | 0x2_0000;
    const THREAD: u64 = 0x3d_0f00;
    let map_protection = ["0", "4096", "{}", "34", "max", "0"];
    let map_flags = ["0", "4096", "3", "{}", "max", "0"];
    let futex = ["buffer", "{}", "1", "0", "0", "4294967295"];
    let futex_hints = [0, 128, 256, 384];
    let listed_futex = |op: u64| [0, 1, 9].contains(&(op & !384));
    vec![
        Border {
            name: "mmap",
            allowed: [each(&map_protection, 0..=3), each(&map_flags, [ANONYMOUS, ANONYMOUS | HINTS])]
                .concat(),
            altered: [
                each(&map_protection, with_each_bit(0, 3)),
                each(&map_protection, [4, 5, 6, 7]),
                each(&map_flags, with_each_bit(ANONYMOUS, HINTS)),
                // Shared, of a file, neither.
                each(&map_flags, [0x21, 0x23, 0x02, 0x01, 0]),
            ]
            .concat(),
        },
        Border {
            name: "mprotect",
            allowed: each(&["page", "4096", "{}"], 0..=3),
            altered: each(&["page", "4096", "{}"], with_each_bit(0, 3).chain([4, 5, 6, 7])),
        },
        Border {
            name: "mremap",
            allowed: each(&["page", "4096", "4096", "{}"], 0..=1),
            altered: each(&["page", "4096", "4096", "{}", "page"], with_each_bit(1, 0).chain([2, 4])),
        },
        Border {
            name: "madvise",
            allowed: each(&["page", "4096", "{}"], [4, 8, 14]),
            altered: each(
                &["page", "4096", "{}"],
                (0..=25).chain([100, 101, 102, 103]).filter(|a| ![4, 8, 14].contains(a)),
            ),
        },
        Border {
            name: "futex",
            allowed: each(&futex, futex_hints.iter().flat_map(|h| [*h, 1 | h, 9 | h])),
            altered: each(
                &futex,
                (0..=15)
                    .flat_map(|op| futex_hints.map(|h| op | h))
                    .filter(|op| !listed_futex(*op))
                    .chain([512, 1 << 31]),
            ),
        },
        Border {
            name: "clone",
            allowed: each(&["{}"], [THREAD]),
            altered: each(
                &["{}"],
                // One flag more, one less, and an exit signal.
                with_each_bit(THREAD, 0)
                    .chain((0..32).map(|b| 1 << b).filter(|b| THREAD & b != 0).map(|b| THREAD & !b))
                    .chain([0, 17, THREAD | 17]),
            ),
        },
        Border {
            name: "clock_nanosleep",
            // For no time at all.
            allowed: vec![list(&["0", "0", "buffer", "0"])],
            altered: [
                each(&["{}", "0", "buffer", "0"], (1..=11).chain((4..32).map(|bit| 1 << bit))),
                // Until a moment, and flags that there are not.
                each(&["0", "{}", "buffer", "0"], (0..32).map(|bit| 1 << bit)),
            ]
            .concat(),
        },
        Border {
            name: "prctl",
            // The kernel looks at the low half only, and so does the rule.
            allowed: each(&["{}", "buffer"], [15, 15 | (1 << 32)]),
            altered: each(
                &["{}", "1"],
                (0..=80).filter(|o| *o != 15).chain([0x5961_6d61, 0x5356_4d41, u64::MAX]),
            ),
        },
        Border {
            name: "tgkill",
            allowed: vec![list(&["pid", "tid", "6"])],
            altered: [
                each(&["pid", "tid", "{}"], (0..=64).filter(|s| *s != 6)),
                vec![
                    list(&["parent", "parent", "6"]),
                    list(&["1", "1", "6"]),
                    list(&["max", "tid", "6"]),
                    list(&["0", "tid", "6"]),
                ],
            ]
            .concat(),
        },
    ]
}

#[test]
fn every_argument_rule_lets_its_own_pass_and_nothing_beyond_its_border() {
    let borders = borders();
    let ruled: BTreeSet<&str> = ALLOW.iter().filter(|a| !a.when.is_empty()).map(|a| a.name).collect();
    assert_eq!(
        borders.iter().map(|b| b.name).collect::<BTreeSet<_>>(),
        ruled,
        "each rule has its border tested"
    );
    for border in borders {
        let number = ALLOW.iter().find(|a| a.name == border.name).unwrap().number;
        let run = |arguments: &Vec<String>| match border.name {
            // A new thread has to end by itself.
            "clone" => Probe::new(PROBE, "locked", "clone").arg(&arguments[0]).run(),
            _ => call(number, &arguments.iter().map(String::as_str).collect::<Vec<_>>()),
        };
        for (arguments, outcome) in border.allowed.iter().zip(in_parallel(&border.allowed, run)) {
            let ran = match border.name {
                "tgkill" => outcome == Outcome::Other(String::from("signal 6")),
                // A value that is not awaited: the call ran and said so.
                "futex" => {
                    matches!(outcome, Outcome::Escaped(_) | Outcome::Refused(libc::EAGAIN | libc::ENOSYS))
                }
                _ => matches!(outcome, Outcome::Escaped(_)),
            };
            assert!(ran, "{} {arguments:?} has to run: {outcome}", border.name);
        }
        for (arguments, outcome) in border.altered.iter().zip(in_parallel(&border.altered, run)) {
            assert_eq!(outcome, Outcome::Killed, "{} {arguments:?}", border.name);
        }
        println!("{:9} {} allowed, {} altered", border.name, border.allowed.len(), border.altered.len());
    }
}
