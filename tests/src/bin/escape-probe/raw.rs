//! System calls without the C library in between: what the kernel is asked is exactly what is written here.

use std::arch::asm;

/// The 64-bit call. A negative result is an error number.
pub(crate) fn call(number: i64, args: &[u64]) -> i64 {
    let arg = |i: usize| args.get(i).copied().unwrap_or(0);
    let result: i64;
    // SAFETY: the probes pass either numbers or addresses of live buffers; a call that harms this process harms nothing else.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") arg(0), in("rsi") arg(1), in("rdx") arg(2), in("r10") arg(3), in("r8") arg(4), in("r9") arg(5),
            lateout("rcx") _, lateout("r11") _,
        );
    }
    result
}

/// The 32-bit call of i386, with up to three arguments.
pub(crate) fn call_i386(number: u32, args: [u32; 3]) -> i64 {
    let [b, c, d] = args;
    let result: u64;
    // SAFETY: as above. rbx belongs to the compiler, so it is swapped in and out.
    unsafe {
        asm!(
            "xchg {b}, rbx",
            "int 0x80",
            "xchg {b}, rbx",
            b = inout(reg) u64::from(b) => _,
            inlateout("rax") u64::from(number) => result,
            in("rcx") u64::from(c), in("rdx") u64::from(d),
            lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _,
        );
    }
    // 32-bit results are errors from the top of their own range.
    i64::from((result as u32).cast_signed())
}

/// A call that may return twice: the second time, in a new process, it ends at once.
pub(crate) fn call_and_end_child(number: i64, first: u64, second: u64) -> i64 {
    let result: i64;
    // SAFETY: the child runs two instructions of its own and touches no memory, so a shared stack stays as it is.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor edi, edi",
            "mov eax, 60",
            "syscall",
            "2:",
            inlateout("rax") number => result,
            inlateout("rdi") first => _, in("rsi") second, in("rdx") 0, in("r10") 0, in("r8") 0, in("r9") 0,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    result
}

/// Writes a line to descriptor 1, which every mode may do.
pub(crate) fn say(line: &str) {
    let _ = call(libc::SYS_write, &[1, line.as_ptr() as u64, line.len() as u64]);
}
