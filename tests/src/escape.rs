//! Runs `escape-probe` as a codec process is run, and tells what became of it.

use mpegflow_lockdown::launch::Launch;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Child;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// First descriptor that a probe does not have: 0 to 2, a socket, a file.
pub const FIRST_FREE: i32 = 5;

/// What became of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The call failed with this error number.
    Refused(i32),
    /// The kernel ended the process for the call.
    Killed,
    /// The call did what it was made for.
    Escaped(i64),
    /// The process became another program.
    Replaced,
    /// A lock step failed, with this message, and the probe was not made.
    NotLocked(String),
    /// It ended otherwise: signal or exit status, and what it said.
    Other(String),
}

impl Outcome {
    /// Nothing was reached.
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Killed | Self::Refused(_))
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(errno) => write!(f, "{}", errno_name(*errno)),
            Self::Killed => f.write_str("killed"),
            Self::Escaped(_) => f.write_str("PASSED"),
            Self::Replaced => f.write_str("PASSED (exec)"),
            Self::NotLocked(why) => write!(f, "not locked: {why}"),
            Self::Other(what) => f.write_str(what),
        }
    }
}

fn errno_name(errno: i32) -> String {
    match errno {
        libc::EACCES => String::from("EACCES"),
        libc::EPERM => String::from("EPERM"),
        libc::ENOSYS => String::from("ENOSYS"),
        libc::EXDEV => String::from("EXDEV"),
        libc::EINVAL => String::from("EINVAL"),
        libc::EBADF => String::from("EBADF"),
        other => format!("errno {other}"),
    }
}

/// A running probe and the test's ends of its descriptors.
#[derive(Debug)]
pub struct Running {
    /// The process.
    pub child: Child,
    /// The other end of its descriptor 3.
    pub socket: UnixStream,
    /// Its descriptor 4, a file that it may write.
    pub file: File,
    output: UnixStream,
    errors: UnixStream,
}

/// How a probe is to run.
#[derive(Debug, Clone)]
pub struct Probe {
    program: PathBuf,
    mode: &'static str,
    name: String,
    arguments: Vec<String>,
    sabotage: Vec<String>,
    first_free: i32,
    parent: u32,
    extra: bool,
}

/// Longest a probe may take. Generous, since tests share the machine.
const PATIENCE: Duration = Duration::from_secs(60);

impl Probe {
    /// Probe `name` of the `program` (`escape-probe`), in `mode`: `free`, `landlock`, `seccomp` or `locked`.
    pub fn new(program: impl Into<PathBuf>, mode: &'static str, name: impl Into<String>) -> Self {
        Self {
            program: program.into(),
            mode,
            name: name.into(),
            arguments: Vec::new(),
            sabotage: Vec::new(),
            first_free: FIRST_FREE,
            parent: std::process::id(),
            extra: false,
        }
    }

    /// Adds an argument of the probe.
    #[must_use]
    pub fn arg(mut self, argument: impl ToString) -> Self {
        self.arguments.push(argument.to_string());
        self
    }

    /// Under a kernel that fails `call` with `errno` (0: says that it worked) where its first argument is `first`.
    #[must_use]
    pub fn sabotage(mut self, call: i64, first: Option<u64>, errno: i32) -> Self {
        let first = first.map_or_else(|| String::from("any"), |f| f.to_string());
        self.sabotage = vec![String::from("sabotage"), call.to_string(), first, errno.to_string()];
        self
    }

    /// Tells the probe that `pid` is its parent.
    #[must_use]
    pub fn parent(mut self, pid: u32) -> Self {
        self.parent = pid;
        self
    }

    /// Hands over one descriptor more than the probe is told of.
    #[must_use]
    pub fn with_a_descriptor_too_many(mut self) -> Self {
        self.extra = true;
        self
    }

    /// Starts it.
    pub fn start(self) -> Running {
        let (output, theirs_out) = UnixStream::pair().expect("a socket pair");
        let (errors, theirs_err) = UnixStream::pair().expect("a socket pair");
        let (socket, theirs) = UnixStream::pair().expect("a socket pair");
        (&socket).write_all(b"x").expect("room for a byte");
        let file = tempfile::tempfile().expect("a temporary file");
        let mut launch = Launch::new(&self.program)
            .fd(theirs_out, 1)
            .fd(theirs_err, 2)
            .fd(theirs, 3)
            .fd(OwnedFd::from(file.try_clone().expect("a second descriptor")), 4);
        if self.extra {
            launch = launch.fd(File::open("/dev/null").expect("/dev/null"), 5);
        }
        if !self.sabotage.is_empty() {
            for argument in &self.sabotage {
                launch = launch.arg(argument.as_str());
            }
            launch = launch.arg(self.program.to_str().expect("a path in UTF-8"));
        }
        let head = [self.mode.into(), self.parent.to_string(), self.first_free.to_string(), self.name];
        for argument in head.into_iter().chain(self.arguments) {
            launch = launch.arg(argument);
        }
        Running { child: launch.spawn().expect("the probe starts"), socket, file, output, errors }
    }

    /// Starts it and waits for its end.
    pub fn run(self) -> Outcome {
        self.start().finish().0
    }
}

impl Running {
    /// Waits for its end. Returns what became of it and all that it said, errors last.
    pub fn finish(mut self) -> (Outcome, String) {
        // Read meanwhile: a backtrace in many small writes fills a socket.
        let output = thread::spawn(move || read_all(self.output));
        let errors = thread::spawn(move || read_all(self.errors));
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            match self.child.try_wait().expect("a child can be waited for") {
                Some(status) => break status,
                None if Instant::now() > deadline => {
                    self.child.kill().expect("a child can be killed");
                    let _ = self.child.wait();
                    return (Outcome::Other(String::from("hung")), String::new());
                }
                None => thread::sleep(Duration::from_millis(1)),
            }
        };
        let (said, errors) = (output.join().expect("read"), errors.join().expect("read"));
        let result = said.lines().find_map(|l| l.strip_prefix("result ")?.parse::<i64>().ok());
        let refused = said.lines().find_map(|l| l.strip_prefix("refused ")).map(str::to_owned);
        let outcome = match (status.signal(), status.code(), result, refused) {
            (Some(libc::SIGSYS), ..) => Outcome::Killed,
            (_, Some(96), _, Some(why)) => Outcome::NotLocked(why),
            (_, Some(0), Some(n), _) if (-4095..0).contains(&n) => {
                Outcome::Refused(i32::try_from(-n).expect("small"))
            }
            (_, Some(0), Some(n), _) => Outcome::Escaped(n),
            (_, Some(0), None, _) if said.starts_with("locked") => Outcome::Replaced,
            (Some(signal), ..) => Outcome::Other(format!("signal {signal}")),
            (_, code, ..) => Outcome::Other(format!("exit {code:?}, said {said:?}")),
        };
        (outcome, said + &errors)
    }

    /// Waits until it says that it is locked, and returns that line.
    pub fn wait_until_locked(&mut self) -> String {
        let mut line = Vec::new();
        let mut byte = [0_u8; 1];
        self.output.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        while self.output.read(&mut byte).expect("the probe speaks in time") == 1 && byte != *b"\n" {
            line.push(byte[0]);
        }
        String::from_utf8(line).expect("UTF-8")
    }
}

fn read_all(mut from: UnixStream) -> String {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).expect("a socket can be read");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Runs `work` on several threads at once, and returns the results in order.
pub fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<(usize, R)>> = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some((i, item)) = {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    items.get(i).map(|item| (i, item))
                } {
                    let result = work(item);
                    results.lock().unwrap().push((i, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap();
    results.sort_by_key(|(i, _)| *i);
    results.into_iter().map(|(_, r)| r).collect()
}

/// The system calls in a trace made with `strace -f`, each with its arguments as strace writes them. Lines that tell of signals,
/// exits and resumed calls are left out.
pub fn syscalls_used(trace: &str) -> Vec<(String, String)> {
    trace
        .lines()
        .filter_map(|line| {
            // `[pid 12] `, `12 ` or nothing, then perhaps a time.
            let call = line.split_once('(')?;
            let name = call.0.rsplit([' ', ']']).next()?;
            let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            is_name.then(|| {
                (name.to_owned(), call.1.rsplit_once(')').map_or(call.1, |(args, _)| args).to_owned())
            })
        })
        .collect()
}

/// Calls that the policy allows as ones that every encode makes, and that this trace does not hold: candidates for removal.
pub fn allowed_but_unused(trace: &str) -> Vec<&'static str> {
    use mpegflow_lockdown::policy::{ALLOW, Seen};
    let used = syscalls_used(trace);
    let in_trace = |name: &str| used.iter().any(|(call, _)| call == name);
    ALLOW.iter().filter(|a| a.seen == Seen::Traced && !in_trace(a.name)).map(|a| a.name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_gives_its_calls_and_nothing_else() {
        let trace = "12 read(3, \"(\", 4) = 4\n[pid 13] futex(0x1, FUTEX_WAIT_PRIVATE, 2, NULL <unfinished ...>\n\
                     [pid 12] <... futex resumed>) = 0\n--- SIGCHLD {si_signo=SIGCHLD} ---\n+++ exited with 0 +++\nbrk(NULL) = 1\n";
        let names: Vec<_> = syscalls_used(trace).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["read", "futex", "brk"]);
    }
}
