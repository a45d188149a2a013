//! The compiled programs say what the tables say, for every call and argument.

use super::evaluator::{Call, evaluate};
use super::{Programs, programs};
use crate::policy::{ALLOW, Check, ERRNO, Value, Width};
use proptest::prelude::*;

const X86_64: u32 = 0xc000_003e;
const PID: u32 = 4711;

const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;
const ALLOWED: u32 = libc::SECCOMP_RET_ALLOW;

/// The kernel's rule over several filters: the strictest verdict.
fn verdict(programs: &Programs, call: &Call) -> u32 {
    programs
        .errno
        .iter()
        .chain([&programs.kill])
        .map(|p| evaluate(p, call, &mut vec![false; p.len()]).unwrap())
        // Actions are ordered by their high half, as signed numbers.
        .min_by_key(|v| (v & 0xffff_0000).cast_signed())
        .unwrap()
}

/// The same from the tables, written without a look at the compiler.
fn expected(call: &Call) -> u32 {
    if call.architecture != X86_64 {
        return KILL;
    }
    if let Some(r) = ERRNO.iter().find(|r| r.number == i64::from(call.number)) {
        return libc::SECCOMP_RET_ERRNO | r.errno.1.unsigned_abs();
    }
    let holds = |c: &Check| {
        let (value, all) = match c.width {
            Width::Int => (call.arguments[usize::from(c.argument)], u64::from(u32::MAX)),
            Width::Long => (call.arguments[usize::from(c.argument)], u64::MAX),
        };
        let wanted = match c.value {
            Value::Fixed(v) => v,
            Value::OwnPid => PID.into(),
        };
        value & c.mask & all == wanted & c.mask & all
    };
    match ALLOW.iter().find(|a| i64::from(call.number) == a.number) {
        Some(a) if a.when.is_empty() || a.when.iter().any(|all| all.iter().all(holds)) => ALLOWED,
        _ => KILL,
    }
}

/// Numbers that are listed, near to listed, x32, or anything.
fn number() -> impl Strategy<Value = u32> {
    let listed: Vec<u32> = ALLOW
        .iter()
        .map(|a| a.number)
        .chain(ERRNO.iter().map(|r| r.number))
        .map(|n| u32::try_from(n).unwrap())
        .collect();
    prop_oneof![
        6 => proptest::sample::select(listed.clone()),
        2 => 0..600_u32,
        1 => proptest::sample::select(listed).prop_map(|n| n | 0x4000_0000),
        1 => any::<u32>(),
    ]
}

/// Values that rules ask for, with a bit changed, or anything.
fn argument() -> impl Strategy<Value = u64> {
    let mut asked: Vec<u64> = ALLOW
        .iter()
        .flat_map(|a| a.when.iter().flat_map(|all| all.iter()))
        .flat_map(|c| match c.value {
            Value::Fixed(v) => vec![v, v | !c.mask],
            Value::OwnPid => vec![PID.into()],
        })
        .collect();
    asked.extend([0, 1, 2, 3, 7, u64::from(u32::MAX), u64::MAX]);
    prop_oneof![
        4 => proptest::sample::select(asked.clone()),
        3 => (proptest::sample::select(asked), 0..64_u32).prop_map(|(v, bit)| v ^ (1 << bit)),
        1 => any::<u64>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn the_programs_judge_every_call_as_the_tables_do(
        number in number(),
        arguments in proptest::array::uniform6(argument()),
        architecture in prop_oneof![9 => Just(X86_64), 1 => any::<u32>()],
    ) {
        let call = Call { number, architecture, arguments };
        prop_assert_eq!(verdict(&programs(PID).unwrap(), &call), expected(&call), "{:?}", call);
    }
}

#[test]
fn i386_and_x32_are_killed_whatever_the_call() {
    let programs = programs(PID).unwrap();
    for number in 0..1024 {
        let i386 = Call { number, architecture: 0x4000_0003, ..Call::default() };
        let x32 = Call { number: number | 0x4000_0000, architecture: X86_64, ..Call::default() };
        assert_eq!((verdict(&programs, &i386), verdict(&programs, &x32)), (KILL, KILL), "call {number}");
    }
}

#[test]
fn every_instruction_that_decides_is_reached() {
    let programs = programs(PID).unwrap();
    let mut ran = vec![false; programs.kill.len()];
    let mut run = |call: &Call| evaluate(&programs.kill, call, &mut ran).map(drop).unwrap();
    run(&Call::default());
    for number in (0..600).map(|n: u32| Call { number: n, architecture: X86_64, ..Call::default() }) {
        run(&number);
    }
    for a in ALLOW {
        let number = u32::try_from(a.number).unwrap();
        for all in a.when {
            let mut right = Call { number, architecture: X86_64, arguments: [0; 6] };
            for c in *all {
                right.arguments[usize::from(c.argument)] = match c.value {
                    Value::Fixed(v) => v,
                    Value::OwnPid => PID.into(),
                };
            }
            run(&right);
            for c in *all {
                for bit in 0..64 {
                    let mut wrong = right;
                    wrong.arguments[usize::from(c.argument)] ^= 1 << bit;
                    run(&wrong);
                }
            }
        }
    }
    // seccompiler puts a verdict behind a call without conditions, and another behind that, which nothing reaches.
    let unreached: Vec<usize> =
        (0..ran.len()).filter(|i| !ran[*i] && programs.kill[*i].code != 0x06).collect();
    let only_jumps = unreached.iter().all(|i| programs.kill[*i].code == 0x05);
    assert!(only_jumps, "conditions that nothing reaches: {unreached:?}");
}

#[test]
fn the_kernel_takes_programs_of_this_length() {
    let programs = programs(PID).unwrap();
    assert!(programs.kill.len() < 1024, "{} instructions slow every call down", programs.kill.len());
}
