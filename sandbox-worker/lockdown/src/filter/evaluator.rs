//! Runs a filter program as the kernel does (`seccomp_run_filters`), for tests: the instructions that seccompiler emits, and an
//! error for any other.

#![allow(clippy::arithmetic_side_effects, reason = "test code; an overflow is a failed test")]

use seccompiler::sock_filter;

/// What a filter is shown: `struct seccomp_data`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Call {
    pub(super) number: u32,
    pub(super) architecture: u32,
    pub(super) arguments: [u64; 6],
}

impl Call {
    fn word(&self, offset: u32) -> Option<u32> {
        match offset {
            0 => Some(self.number),
            4 => Some(self.architecture),
            16..64 if offset.is_multiple_of(4) => {
                let argument = self.arguments[(offset as usize - 16) / 8];
                Some(if offset.is_multiple_of(8) { argument as u32 } else { (argument >> 32) as u32 })
            }
            _ => None,
        }
    }
}

/// The verdict, and which instructions ran.
pub(super) fn evaluate(program: &[sock_filter], call: &Call, ran: &mut [bool]) -> Result<u32, String> {
    let (mut accumulator, mut at) = (0_u32, 0_usize);
    loop {
        let i = program.get(at).ok_or_else(|| format!("ran off the program at {at}"))?;
        ran[at] = true;
        at += 1;
        let jump = |holds: bool| usize::from(if holds { i.jt } else { i.jf });
        match i.code {
            // BPF_LD | BPF_W | BPF_ABS
            0x20 => accumulator = call.word(i.k).ok_or_else(|| format!("loads from {}", i.k))?,
            // BPF_ALU | BPF_AND | BPF_K
            0x54 => accumulator &= i.k,
            // BPF_JMP | BPF_JA
            0x05 => at += i.k as usize,
            // JEQ, JGT, JGE with a constant
            0x15 => at += jump(accumulator == i.k),
            0x25 => at += jump(accumulator > i.k),
            0x35 => at += jump(accumulator >= i.k),
            // BPF_RET | BPF_K
            0x06 => return Ok(i.k),
            other => return Err(format!("instruction {other:#x}")),
        }
    }
}
