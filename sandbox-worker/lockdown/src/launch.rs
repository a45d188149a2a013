//! Starts a codec process with exactly the descriptors it is given.

#![allow(unsafe_code, reason = "between fork and exec only async-signal-safe system calls may run")]

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

/// Highest descriptor number that can be asked for.
pub const MAX_TARGET: RawFd = 255;

/// A process to be started: no environment, working directory `/`, a session of its own (a terminal's Ctrl-C does not reach
/// it), default signal handling, and no descriptor but those given. Where 0, 1 or 2 is not given it is `/dev/null`.
#[derive(Debug)]
pub struct Launch {
    program: PathBuf,
    arguments: Vec<CString>,
    descriptors: Vec<(OwnedFd, RawFd)>,
}

impl Launch {
    /// A launch of `program`, which must be an absolute path.
    pub fn new(program: impl AsRef<Path>) -> Self {
        Self { program: program.as_ref().to_owned(), arguments: Vec::new(), descriptors: Vec::new() }
    }

    /// Adds an argument. Arguments are public on the machine: nothing secret.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<Vec<u8>>) -> Self {
        // Cut at a NUL, which no argument can hold.
        let bytes: Vec<u8> = argument.into().into_iter().take_while(|b| *b != 0).collect();
        self.arguments.extend(CString::new(bytes));
        self
    }

    /// Hands `descriptor` over as number `target`.
    #[must_use]
    pub fn fd(mut self, descriptor: impl Into<OwnedFd>, target: RawFd) -> Self {
        self.descriptors.push((descriptor.into(), target));
        self
    }

    /// Starts the process. Returns when exec has succeeded.
    ///
    /// All processes are started by one thread that lives as long as this one: a process that asks to end with its parent ends
    /// when the *thread* that started it does, which in a thread pool can be any moment.
    ///
    /// # Errors
    /// The step that failed, exec included. No process is left.
    pub fn spawn(self) -> io::Result<Child> {
        let (answer, result) = mpsc::sync_channel(1);
        launcher()?.send((self, answer)).map_err(|_| io::Error::other("the launching thread is gone"))?;
        result.recv().map_err(|_| io::Error::other("the launching thread is gone"))?
    }
}

type Request = (Launch, mpsc::SyncSender<io::Result<Child>>);

/// Requests that may wait.
const QUEUE: usize = 64;

fn launcher() -> io::Result<mpsc::SyncSender<Request>> {
    static LAUNCHER: Mutex<Option<mpsc::SyncSender<Request>>> = Mutex::new(None);
    let mut slot = LAUNCHER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(sender) = slot.as_ref() {
        return Ok(sender.clone());
    }
    let (sender, requests) = mpsc::sync_channel::<Request>(QUEUE);
    thread::Builder::new().name(String::from("launcher")).spawn(move || {
        for (launch, answer) in requests {
            // Nobody waits for the answer any more: the process is not wanted.
            if let Err(mpsc::SendError(Ok(mut child))) = answer.send(start(launch)) {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    })?;
    *slot = Some(sender.clone());
    Ok(sender)
}

/// What runs between fork and exec, with everything allocated beforehand.
struct Prepared {
    program: CString,
    /// Pointers into `_arguments`, ended by null.
    argv: Vec<*const libc::c_char>,
    _arguments: Vec<CString>,
    /// Source, then target. Sources are replaced by their copies above all targets.
    moves: Vec<(RawFd, RawFd)>,
    /// Where the child tells which step failed.
    report: RawFd,
    parent: libc::pid_t,
    _descriptors: Vec<OwnedFd>,
}

// SAFETY: the pointers lead into `_arguments`, whose heap blocks move with this value and are not changed.
unsafe impl Send for Prepared {}
// SAFETY: as above; nothing is changed through a shared reference.
unsafe impl Sync for Prepared {}

fn start(launch: Launch) -> io::Result<Child> {
    let (mut errors, report) = io::pipe()?;
    let mut prepared = prepare(launch, report.as_raw_fd())?;
    let mut command = Command::new(std::ffi::OsStr::from_bytes(prepared.program.as_bytes()));
    // Only so that the standard library prepares nothing of its own; the closure below does all of it, exec included.
    command.env_clear().stdin(Stdio::inherit()).stdout(Stdio::inherit()).stderr(Stdio::inherit());
    // SAFETY: `run` makes async-signal-safe calls only and never returns.
    unsafe { command.pre_exec(move || prepared.run()) };
    let spawned = command.spawn();
    // The closure's copies of what was handed over, and our end of the report: end of file then means that exec succeeded.
    drop(command);
    drop(report);
    let mut child = spawned?;
    let mut failure = [0_u8; 5];
    let mut length = 0;
    while let Some(rest) = failure.get_mut(length..).filter(|r| !r.is_empty()) {
        match errors.read(rest) {
            Ok(0) => break,
            Ok(n) => length = length.saturating_add(n),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(e);
            }
        }
    }
    if length == 0 {
        return Ok(child);
    }
    let _ = child.kill();
    let _ = child.wait();
    let [step, errno @ ..] = failure;
    let cause = io::Error::from_raw_os_error(i32::from_le_bytes(errno));
    Err(io::Error::new(cause.kind(), format!("{}: {cause}", Step::name(step))))
}

fn prepare(launch: Launch, report: RawFd) -> io::Result<Prepared> {
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidInput, what);
    if !launch.program.is_absolute() {
        return Err(invalid(format!("{} is not an absolute path", launch.program.display())));
    }
    let program = CString::new(launch.program.as_os_str().as_bytes())?;
    let mut descriptors = launch.descriptors;
    for standard in 0..3 {
        if descriptors.iter().all(|(_, target)| *target != standard) {
            let null = File::options().read(standard == 0).write(standard != 0).open("/dev/null")?;
            descriptors.push((null.into(), standard));
        }
    }
    let mut targets: Vec<RawFd> = descriptors.iter().map(|(_, target)| *target).collect();
    targets.sort_unstable();
    if let Some(bad) = targets.iter().find(|t| !(0..=MAX_TARGET).contains(*t)) {
        return Err(invalid(format!("descriptor {bad} is not between 0 and {MAX_TARGET}")));
    }
    if let Some([twice, _]) = targets.array_windows().find(|[a, b]| a == b) {
        return Err(invalid(format!("descriptor {twice} is given twice")));
    }
    let arguments: Vec<CString> = std::iter::once(program.clone()).chain(launch.arguments).collect();
    let argv = arguments.iter().map(|a| a.as_ptr()).chain(std::iter::once(std::ptr::null())).collect();
    Ok(Prepared {
        program,
        argv,
        _arguments: arguments,
        moves: descriptors.iter().map(|(fd, target)| (fd.as_raw_fd(), *target)).collect(),
        report,
        parent: std::process::id().cast_signed(),
        _descriptors: descriptors.into_iter().map(|(fd, _)| fd).collect(),
    })
}

/// What failed in the child.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Step {
    Descriptors = 1,
    Close,
    Signals,
    Session,
    Directory,
    Parent,
    Exec,
}

impl Step {
    fn name(step: u8) -> &'static str {
        const NAMES: [&str; 7] = [
            "placing the descriptors",
            "closing the other descriptors",
            "resetting the signals",
            "starting a session",
            "entering /",
            "the parent ended",
            "exec",
        ];
        usize::from(step).checked_sub(1).and_then(|i| NAMES.get(i)).copied().unwrap_or("an unknown step")
    }
}

impl Prepared {
    /// Runs in the child. Ends in exec or in `_exit`: the standard library's own error pipe may by now be one of the targets,
    /// so it must not be written to.
    fn run(&mut self) -> io::Result<()> {
        let Err((step, errno)) = self.exec();
        let [a, b, c, d] = errno.to_le_bytes();
        let message = [step as u8, a, b, c, d];
        // SAFETY: writes five bytes to our own pipe, then ends without running destructors.
        unsafe {
            libc::write(self.report, message.as_ptr().cast(), message.len());
            libc::_exit(127)
        }
    }

    fn exec(&mut self) -> Result<std::convert::Infallible, (Step, i32)> {
        let above = MAX_TARGET.saturating_add(1);
        // First all copies above every target, so that placing one cannot overwrite another's source.
        for (source, _) in &mut self.moves {
            // SAFETY: a number in, a number out.
            *source =
                check(Step::Descriptors, unsafe { libc::fcntl(*source, libc::F_DUPFD_CLOEXEC, above) })?;
        }
        // SAFETY: as above.
        self.report =
            check(Step::Descriptors, unsafe { libc::fcntl(self.report, libc::F_DUPFD_CLOEXEC, above) })?;
        for target in 0..above {
            // SAFETY: every descriptor below `above` is the standard library's or a source that has been copied.
            unsafe { libc::close(target) };
        }
        for (source, target) in &self.moves {
            // SAFETY: numbers; the copy is not close-on-exec.
            check(Step::Descriptors, unsafe { libc::dup2(*source, *target) })?;
        }
        // Marked, not closed: the report pipe has to live until exec.
        // SAFETY: numbers.
        let marked = unsafe {
            libc::syscall(libc::SYS_close_range, above.unsigned_abs(), u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
        };
        check(Step::Close, i32::try_from(marked).unwrap_or(-1))?;
        reset_signals()?;
        // SAFETY: no argument. Cannot fail: a forked child leads no group.
        check(Step::Session, unsafe { libc::setsid() })?;
        // SAFETY: a constant path.
        check(Step::Directory, unsafe { libc::chdir(c"/".as_ptr()) })?;
        // SAFETY: numbers. The locks set this again; here it covers the time until then.
        check(Step::Parent, unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) })?;
        // SAFETY: no argument.
        if unsafe { libc::getppid() } != self.parent {
            return Err((Step::Parent, libc::ESRCH));
        }
        let environment = [std::ptr::null::<libc::c_char>()];
        // SAFETY: path, arguments and environment end in NUL or null, and were allocated before the fork.
        check(Step::Exec, unsafe {
            libc::execve(self.program.as_ptr(), self.argv.as_ptr(), environment.as_ptr())
        })?;
        Err((Step::Exec, libc::EINVAL))
    }
}

fn reset_signals() -> Result<(), (Step, i32)> {
    // The kernel's `struct sigaction`, all zero: the default action, no flag, no mask. Past the C library, which does not let its
    // own two signals be reset.
    let default = [0_u64; 4];
    for signal in 1..=64_i32 {
        // SAFETY: reads the four words; fails harmlessly for SIGKILL and SIGSTOP.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<u64>(),
                size_of::<u64>(),
            )
        };
    }
    // SAFETY: an empty set on the stack, filled before use.
    check(Step::Signals, unsafe {
        let mut none = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut())
    })?;
    Ok(())
}

fn check(step: Step, result: libc::c_int) -> Result<libc::c_int, (Step, i32)> {
    if result >= 0 {
        return Ok(result);
    }
    // SAFETY: the C library's errno of this thread.
    Err((step, unsafe { *libc::__errno_location() }))
}
