//! What a codec process may ask of the kernel, as reviewed data: each entry with its reason.
//!
//! Three tables. [`ERRNO`]: calls that libraries make and can do without; they fail and the library goes on. [`ALLOW`]: calls
//! that decoding and encoding need, with the arguments they need. Whatever is in neither ends the process. [`LIMITS`]: the
//! kernel limits. All tiers are filters stacked on one another, and the kernel obeys the strictest verdict.
//!
//! Arguments are compared in the width in which the kernel reads them: an `int` by its low 32 bits, a `long` whole. Pointers
//! are never judged, since what they point to can change after the check.

use aws_lc_rs::digest::{SHA256, digest as hash};
use std::fmt::Write as _;

/// One call that fails instead of running.
#[derive(Debug, Clone, Copy)]
pub struct Refused {
    /// Name as in the kernel's table.
    pub name: &'static str,
    /// Number on this architecture.
    pub number: i64,
    /// Name and value of the error it fails with.
    pub errno: (&'static str, i32),
    /// Who calls it, and what happens then.
    pub reason: &'static str,
}

/// One call that runs if its arguments pass.
#[derive(Debug, Clone, Copy)]
pub struct Allowed {
    /// Name as in the kernel's table.
    pub name: &'static str,
    /// Number on this architecture.
    pub number: i64,
    /// Alternatives, each a list of conditions that must all hold; no alternative means any arguments.
    pub when: &'static [&'static [Check]],
    /// Whether an ordinary encode shows the call.
    pub seen: Seen,
    /// What needs it.
    pub reason: &'static str,
}

/// Whether a trace of an ordinary encode shows a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Yes: an entry that no trace shows is to be removed.
    Traced,
    /// Only in the stated circumstances.
    Only(&'static str),
}

/// A condition on one argument.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    /// Position, from 0.
    pub argument: u8,
    /// How the kernel reads it.
    pub width: Width,
    /// The bits that are looked at.
    pub mask: u64,
    /// What those bits must be.
    pub value: Value,
}

/// Width of an argument in the kernel's signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// `int`: the upper half of the register is ignored, by the kernel and here.
    Int,
    /// `long` or pointer size.
    Long,
}

/// What an argument is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// This.
    Fixed(u64),
    /// The id of the process that locks itself.
    OwnPid,
}

const fn is(argument: u8, width: Width, value: u64) -> Check {
    Check { argument, width, mask: u64::MAX, value: Value::Fixed(value) }
}

/// All bits but `free` must be as in `value`.
const fn is_except(argument: u8, width: Width, free: u64, value: u64) -> Check {
    Check { argument, width, mask: !free, value: Value::Fixed(value) }
}

const EACCES: (&str, i32) = ("EACCES", libc::EACCES);
const ENOSYS: (&str, i32) = ("ENOSYS", libc::ENOSYS);

macro_rules! refused {
    ($($name:ident $number:ident $errno:ident $reason:literal;)*) => {
        &[$(Refused { name: stringify!($name), number: libc::$number, errno: $errno, reason: $reason }),*]
    };
}

/// Calls that fail, and are survived.
pub const ERRNO: &[Refused] = refused! {
    clone3 SYS_clone3 ENOSYS "glibc starts threads with it; its flags are behind a pointer and cannot be judged. Told that it does not exist, glibc uses clone";
    openat SYS_openat EACCES "character set tables, /dev/urandom, CPU topology: all optional";
    newfstatat SYS_newfstatat EACCES "stdio asks what a stream is before it picks a buffer";
    getcwd SYS_getcwd EACCES "a panic that cannot unwind, as in a callback of FFmpeg, prints a backtrace; killed for it, a crash would look like an escape";
    readlink SYS_readlink EACCES "the same backtrace asks for the program's name";
    sysinfo SYS_sysinfo EACCES "glibc's qsort asks for the memory size of arrays above 1 KiB, and goes on without";
    get_mempolicy SYS_get_mempolicy EACCES "libnuma, by way of x265: takes it for a machine without NUMA";
    set_mempolicy SYS_set_mempolicy EACCES "libnuma, by way of x265";
    geteuid SYS_geteuid EACCES "SVT-AV1 asks before each thread whether it is root and may want real-time priority; what it is told is not root's number";
    sched_setscheduler SYS_sched_setscheduler EACCES "SVT-AV1 asks for real-time priority for each thread";
    sched_setaffinity SYS_sched_setaffinity EACCES "encoders pin threads to processors";
    getpriority SYS_getpriority EACCES "encoders that lower the priority of look-ahead threads";
    setpriority SYS_setpriority EACCES "encoders that lower the priority of look-ahead threads";
};

macro_rules! allowed {
    ($($name:ident $number:ident $when:expr, $seen:expr, $reason:literal;)*) => {
        &[$(Allowed { name: stringify!($name), number: libc::$number, when: $when, seen: $seen, reason: $reason }),*]
    };
}

const ANY: &[&[Check]] = &[];
const TRACED: Seen = Seen::Traced;

const READ_WRITE: u64 = (libc::PROT_READ | libc::PROT_WRITE) as u64;
const PRIVATE_MEMORY: u64 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
const MEMORY_HINTS: u64 = (libc::MAP_NORESERVE | libc::MAP_STACK) as u64;
/// What glibc passes for a thread, and nothing more: no namespace, no new process, no exit signal.
const THREAD: u64 = (libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM
    | libc::CLONE_SETTLS
    | libc::CLONE_PARENT_SETTID
    | libc::CLONE_CHILD_CLEARTID) as u64;
const FUTEX_HINTS: u64 = (libc::FUTEX_PRIVATE_FLAG | libc::FUTEX_CLOCK_REALTIME) as u64;

/// Calls that run.
pub const ALLOW: &[Allowed] = allowed! {
    read SYS_read ANY, TRACED, "input and control, by descriptor";
    write SYS_write ANY, TRACED, "output, control and log, by descriptor";
    close SYS_close ANY, TRACED, "an output that is complete is closed";

    brk SYS_brk ANY, TRACED, "malloc; cannot give executable memory";
    mmap SYS_mmap &[&[
        is_except(2, Width::Long, READ_WRITE, 0),
        is_except(3, Width::Long, MEMORY_HINTS, PRIVATE_MEMORY),
    ]], TRACED, "malloc and thread stacks: fresh private memory, never executable, never of a file, never at a fixed place";
    munmap SYS_munmap ANY, TRACED, "malloc and thread stacks";
    mremap SYS_mremap &[&[is_except(3, Width::Long, libc::MREMAP_MAYMOVE as u64, 0)]],
        Seen::Only("realloc of a block above 128 KiB"), "realloc; keeps the protection it had";
    mprotect SYS_mprotect &[&[is_except(2, Width::Long, READ_WRITE, 0)]], TRACED, "guard pages and malloc arenas; never executable";
    madvise SYS_madvise &[
        &[is(2, Width::Int, libc::MADV_DONTNEED as u64)],
        &[is(2, Width::Int, libc::MADV_FREE as u64)],
        &[is(2, Width::Int, libc::MADV_HUGEPAGE as u64)],
    ], TRACED, "thread exit gives its stack back; x264 asks for huge pages";

    futex SYS_futex &[
        &[is_except(1, Width::Int, FUTEX_HINTS, libc::FUTEX_WAIT as u64)],
        &[is_except(1, Width::Int, FUTEX_HINTS, libc::FUTEX_WAKE as u64)],
        &[is_except(1, Width::Int, FUTEX_HINTS, libc::FUTEX_WAIT_BITSET as u64)],
    ], TRACED, "locks. Priority inheritance and requeueing are left out: unused, and a source of kernel bugs (CVE-2014-3153, CVE-2021-3347)";
    clone SYS_clone &[&[is(0, Width::Long, THREAD)]], TRACED, "threads, with glibc's flags exactly";
    set_robust_list SYS_set_robust_list ANY, TRACED, "thread start";
    rseq SYS_rseq ANY, TRACED, "thread start";
    sched_yield SYS_sched_yield ANY, Seen::Only("contended channels"), "the standard library's channels between decoding and encoding threads back off with it";
    sched_getaffinity SYS_sched_getaffinity ANY, TRACED, "how many processors there are";
    exit SYS_exit ANY, TRACED, "thread end";
    exit_group SYS_exit_group ANY, TRACED, "process end";

    rt_sigaction SYS_rt_sigaction ANY, Seen::Only("abort"), "abort restores the default action";
    rt_sigprocmask SYS_rt_sigprocmask ANY, TRACED, "thread start";
    rt_sigreturn SYS_rt_sigreturn ANY, Seen::Only("stack overflow"), "the return from the handler that reports a stack overflow";
    sigaltstack SYS_sigaltstack ANY, TRACED, "a stack to report stack overflow on";

    clock_gettime SYS_clock_gettime ANY, Seen::Only("a clock that the vDSO cannot read, such as CPU time"), "time";
    gettimeofday SYS_gettimeofday ANY, Seen::Only("a clock source that the vDSO cannot read"), "time; x264";

    clock_nanosleep SYS_clock_nanosleep &[&[
        is(0, Width::Int, libc::CLOCK_REALTIME as u64),
        is(1, Width::Int, 0),
    ]], Seen::Only("H.265"), "usleep: x265 sleeps until a picture's turn comes. For a length of time only, never until a moment";

    getpid SYS_getpid ANY, Seen::Only("abort"), "abort, and seeds";
    gettid SYS_gettid ANY, Seen::Only("abort"), "abort";
    prctl SYS_prctl &[&[is(0, Width::Int, libc::PR_SET_NAME as u64)]], TRACED, "names threads, and nothing else";
    tgkill SYS_tgkill &[&[
        Check { argument: 0, width: Width::Int, mask: u64::MAX, value: Value::OwnPid },
        is(2, Width::Int, libc::SIGABRT as u64),
    ]], Seen::Only("abort"), "abort: without it an assertion would look like an escape";
};

/// One kernel limit.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// Name without `RLIMIT_`.
    pub name: &'static str,
    /// Number.
    pub resource: u32,
    /// Where its value comes from.
    pub value: LimitValue,
    /// What it is for.
    pub reason: &'static str,
}

/// Where a limit's value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitValue {
    /// 0.
    Zero,
    /// [`crate::Limits::address_space`].
    AddressSpace,
    /// [`crate::Limits::cpu_seconds`]; the hard limit is [`CPU_GRACE`] more.
    CpuSeconds,
    /// [`crate::Limits::file_size`].
    FileSize,
    /// [`crate::Plan::first_free_fd`]: as many as were handed over, so that no new one can be made. Set last.
    HandedOver,
}

/// Seconds between SIGXCPU, which tells the supervisor what ended the process, and SIGKILL.
pub const CPU_GRACE: u64 = 2;

/// Kernel limits. Threads are not among them: RLIMIT_NPROC counts all processes of the user on the machine.
pub const LIMITS: &[Limit] = &[
    Limit {
        name: "CORE",
        resource: libc::RLIMIT_CORE,
        value: LimitValue::Zero,
        reason: "a dump would hold tenant media",
    },
    Limit {
        name: "MEMLOCK",
        resource: libc::RLIMIT_MEMLOCK,
        value: LimitValue::Zero,
        reason: "pins no memory",
    },
    Limit { name: "MSGQUEUE", resource: libc::RLIMIT_MSGQUEUE, value: LimitValue::Zero, reason: "no queues" },
    Limit {
        name: "NICE",
        resource: libc::RLIMIT_NICE,
        value: LimitValue::Zero,
        reason: "raises no priority",
    },
    Limit {
        name: "RTPRIO",
        resource: libc::RLIMIT_RTPRIO,
        value: LimitValue::Zero,
        reason: "no real-time priority",
    },
    Limit {
        name: "AS",
        resource: libc::RLIMIT_AS,
        value: LimitValue::AddressSpace,
        reason: "bombs end in a failed allocation",
    },
    Limit {
        name: "CPU",
        resource: libc::RLIMIT_CPU,
        value: LimitValue::CpuSeconds,
        reason: "ends loops, whatever the supervisor does",
    },
    Limit {
        name: "FSIZE",
        resource: libc::RLIMIT_FSIZE,
        value: LimitValue::FileSize,
        reason: "caps a seekable output",
    },
    Limit {
        name: "NOFILE",
        resource: libc::RLIMIT_NOFILE,
        value: LimitValue::HandedOver,
        reason: "no descriptor can be added",
    },
];

/// A call that the kernel lets pass whatever the filters say.
#[derive(Debug, Clone, Copy)]
pub struct Exempt {
    /// Name as in the kernel's table.
    pub name: &'static str,
    /// Number on this architecture.
    pub number: i64,
    /// Since when, and why it gives nothing away.
    pub reason: &'static str,
}

/// Calls that x86_64 kernels do not show to filters at all. Both are for code that the kernel itself placed in a traced process.
pub const EXEMPT: &[Exempt] = &[
    Exempt {
        name: "uretprobe",
        number: 335,
        reason: "since Linux 6.14; from anywhere but the kernel's trampoline it ends the process (SIGILL)",
    },
    Exempt {
        name: "uprobe",
        number: 336,
        reason: "since Linux 6.18; from anywhere but the kernel's trampoline it fails with ENXIO",
    },
];

/// Filters that [`crate::enter`] stacks: one for each error of [`ERRNO`], and the one that kills.
pub fn filters() -> u32 {
    let errnos = errors().count();
    u32::try_from(errnos.saturating_add(1)).unwrap_or(u32::MAX)
}

/// The distinct errors of [`ERRNO`], in order of first use.
pub(crate) fn errors() -> impl Iterator<Item = i32> {
    let first = |i: usize, e: i32| ERRNO.iter().take(i).all(|r| r.errno.1 != e);
    ERRNO.iter().enumerate().filter(move |(i, r)| first(*i, r.errno.1)).map(|(_, r)| r.errno.1)
}

/// The whole policy as text, one rule a line, reasons left out: two builds with the same text enforce the same.
pub fn render() -> String {
    let mut text = String::from("profile strict\narchitecture x86_64\n");
    for r in ERRNO {
        let _ = writeln!(text, "errno {} {} {}", r.name, r.number, r.errno.0);
    }
    for a in ALLOW {
        let _ = write!(text, "allow {} {}", a.name, a.number);
        for alternative in a.when {
            let checks: Vec<String> = alternative.iter().map(render_check).collect();
            let _ = write!(text, " [{}]", checks.join(" and "));
        }
        text.push('\n');
    }
    text.push_str("otherwise kill\n");
    for l in LIMITS {
        let _ = writeln!(text, "limit {} {:?}", l.name, l.value);
    }
    let _ = writeln!(text, "limit CPU hard +{CPU_GRACE}");
    for r in crate::rights::RIGHTS {
        let _ = writeln!(text, "landlock {} abi {} allowed nowhere", r.name, r.abi);
    }
    let _ = writeln!(text, "landlock floor {}", crate::rights::FLOOR);
    text
}

fn render_check(c: &Check) -> String {
    let (register, all) = match c.width {
        Width::Int => (format!("int{}", c.argument), u64::from(u32::MAX)),
        Width::Long => (format!("long{}", c.argument), u64::MAX),
    };
    let value = match c.value {
        Value::Fixed(v) => format!("{:#x}", v & all),
        Value::OwnPid => String::from("own pid"),
    };
    match c.mask & all {
        mask if mask == all => format!("{register} = {value}"),
        mask => format!("{register} & {mask:#x} = {value}"),
    }
}

/// SHA-256 of [`render`], hexadecimal.
pub fn digest() -> String {
    let mut hex = String::with_capacity(64);
    for byte in hash(&SHA256, render().as_bytes()).as_ref() {
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_call_is_listed_twice_and_each_has_a_reason() {
        let mut seen = BTreeSet::new();
        for (name, number, reason) in ERRNO
            .iter()
            .map(|r| (r.name, r.number, r.reason))
            .chain(ALLOW.iter().map(|a| (a.name, a.number, a.reason)))
        {
            assert!(seen.insert(number), "{name} is listed twice");
            assert!(reason.len() > 3, "{name} has no reason");
        }
    }

    #[test]
    fn the_policy_is_about_thirty_calls() {
        assert!(ALLOW.len() <= 29, "{} calls are allowed; remove one before adding one", ALLOW.len());
    }

    #[test]
    fn the_policy_changes_only_on_purpose() {
        // A reviewer of a change to the tables sees this line change with them.
        assert_eq!(
            digest(),
            "768aa693c731dae2b69008675b64057ee16d5a10e1c4476a1b919883edfe3738",
            "{}",
            render()
        );
    }
}
