//! Worker processes: started, started again when they die, and never left behind.
//!
//! Each worker has a thread that starts it and waits for it. The kernel is asked to kill the worker when that thread dies
//! (`PR_SET_PDEATHSIG`), so that not even `kill -9` of this program leaves one; that has to be asked for in the new process,
//! before it becomes the worker, so this program starts itself under the hidden command [`SHIM`], which asks and then
//! executes the worker. A worker is a process group of its own: a Ctrl-C in the terminal reaches only this program, which
//! then decides.

use crate::args::Shim;
use crate::exit::{Exit, Failed};
use crate::lock;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::fs::File;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Name of the hidden command.
pub(crate) const SHIM: &str = "become-worker";

const POLL: Duration = Duration::from_millis(40);
/// A worker that lived this long had started well.
const SETTLED: Duration = Duration::from_secs(10);
/// Quick deaths in a row after which it is said that workers do not start.
const TROUBLE: u32 = 4;
/// How long workers have to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);

/// The two programs beside this one.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    /// mpegflow-worker.
    pub(crate) worker: PathBuf,
    /// mpegflow-codec.
    pub(crate) codec: PathBuf,
}

impl Programs {
    /// Finds both in `libexec`, or else beside this program or in ../libexec/mpegflow.
    pub(crate) fn find(libexec: Option<&Path>) -> Result<Self, Failed> {
        Ok(Self { worker: find("mpegflow-worker", libexec)?, codec: find("mpegflow-codec", libexec)? })
    }
}

/// Finds one program.
pub(crate) fn find(name: &str, libexec: Option<&Path>) -> Result<PathBuf, Failed> {
    let folders = match libexec {
        Some(folder) => vec![folder.to_owned()],
        None => std::env::current_exe()
            .and_then(|exe| exe.canonicalize())
            .ok()
            .and_then(|exe| exe.parent().map(|bin| vec![bin.to_owned(), bin.join("../libexec/mpegflow")]))
            .unwrap_or_default(),
    };
    // The worker runs with `/` as its folder and no PATH, so the path has to be absolute.
    let found =
        folders.iter().filter_map(|folder| folder.join(name).canonicalize().ok()).find(|path| path.is_file());
    found.ok_or_else(|| {
        let looked: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
        Failed::new(Exit::Failed, "program_missing", format!("{name} is not in {}", looked.join(" nor in ")))
            .help("Install it beside mpegflow, or say where it is by --libexec or MPEGFLOW_LIBEXEC.")
    })
}

/// Where what workers say goes.
#[derive(Debug, Clone)]
pub(crate) enum WorkerLog {
    /// To this program's standard error.
    Inherit,
    /// To a file, appended.
    File(PathBuf),
}

/// Running workers. All are ended when dropped.
pub(crate) struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    trouble: watch::Receiver<Option<String>>,
}

struct Shared {
    programs: Programs,
    join_file: PathBuf,
    scratch: PathBuf,
    log: WorkerLog,
    slots: Vec<Mutex<Option<Child>>>,
    stopping: Mutex<bool>,
    stopped: Condvar,
    trouble: watch::Sender<Option<String>>,
}

impl Workers {
    /// Starts `count` workers and keeps that many running.
    ///
    /// `scratch` is made for their unlinked files; `join_file` tells them where their broker is.
    pub(crate) fn start(
        count: u16,
        programs: Programs,
        join_file: PathBuf,
        scratch: PathBuf,
        log: WorkerLog,
    ) -> io::Result<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&scratch)?;
        let (sender, trouble) = watch::channel(None);
        let shared = Arc::new(Shared {
            programs,
            join_file,
            scratch,
            log,
            slots: (0..count).map(|_| Mutex::new(None)).collect(),
            stopping: Mutex::new(false),
            stopped: Condvar::new(),
            trouble: sender,
        });
        let mut workers = Self { shared: Arc::clone(&shared), threads: Vec::new(), trouble };
        for index in 0..usize::from(count) {
            let shared = Arc::clone(&shared);
            // Should a later thread not start, dropping `workers` ends the earlier ones.
            let thread = std::thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || shared.keep(index))?;
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    /// Waits until workers turn out not to start, and says why.
    pub(crate) fn trouble(&self) -> impl Future<Output = Failed> + use<> {
        let mut receiver = self.trouble.clone();
        async move {
            loop {
                if let Some(why) = receiver.borrow_and_update().clone() {
                    return Failed::new(Exit::Failed, "worker_does_not_start", why)
                        .help("Run `mpegflow doctor`; see what the worker says with --verbose.");
                }
                if receiver.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    /// What kills all of them at once, for a second Ctrl-C.
    pub(crate) fn killer(&self) -> impl FnOnce() + Send + use<> {
        let shared = Arc::clone(&self.shared);
        move || {
            *lock(&shared.stopping) = true;
            shared.signal(Signal::KILL);
        }
    }

    /// Asks all to end, waits a little, and kills those that do not.
    pub(crate) async fn stop(mut self) {
        // Blocking waits; the runtime goes on with the broker, which the workers still talk to.
        let _ = tokio::task::spawn_blocking(move || self.end()).await;
    }

    fn end(&mut self) {
        *lock(&self.shared.stopping) = true;
        self.shared.stopped.notify_all();
        self.shared.signal(Signal::TERM);
        let deadline = Instant::now().checked_add(GRACE);
        while self.threads.iter().any(|t| !t.is_finished()) && deadline.is_some_and(|d| Instant::now() < d) {
            std::thread::sleep(POLL);
        }
        self.shared.signal(Signal::KILL);
        for thread in self.threads.drain(..) {
            // A thread that panicked has no worker to wait for.
            let _ = thread.join();
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    /// Keeps one worker running until told to stop.
    fn keep(&self, index: usize) {
        let Some(slot) = self.slots.get(index) else { return };
        let mut quick_deaths = 0_u32;
        loop {
            let started = Instant::now();
            let end = self.run_one(slot);
            if *lock(&self.stopping) {
                return;
            }
            let (well, what) = match end {
                // A worker ends by itself to make room for a fresh one (one worker, one tenant).
                Ok(status) => (status.success(), describe(status)),
                Err(e) => (false, format!("cannot be started: {e}")),
            };
            if well || started.elapsed() > SETTLED {
                quick_deaths = 0;
            } else {
                quick_deaths = quick_deaths.saturating_add(1);
                tracing::warn!(worker = index, "mpegflow-worker {what}");
            }
            if quick_deaths >= TROUBLE {
                self.trouble.send_replace(Some(format!(
                    "mpegflow-worker ({}) {what}, {quick_deaths} times in a row{}",
                    self.programs.worker.display(),
                    self.last_words()
                )));
            }
            self.pause(crate::client::backoff(quick_deaths));
        }
    }

    fn run_one(&self, slot: &Mutex<Option<Child>>) -> io::Result<ExitStatus> {
        {
            // Under the slot's lock, so that a stop cannot miss a worker that is just being started.
            let mut slot = lock(slot);
            if *lock(&self.stopping) {
                return Err(io::Error::other("stopping"));
            }
            *slot = Some(self.spawn()?);
        }
        loop {
            std::thread::sleep(POLL);
            let mut slot = lock(slot);
            let Some(child) = slot.as_mut() else { return Err(io::Error::other("no child")) };
            if let Some(status) = child.try_wait()? {
                *slot = None;
                return Ok(status);
            }
        }
    }

    fn spawn(&self) -> io::Result<Child> {
        let log = match &self.log {
            WorkerLog::Inherit => Stdio::inherit(),
            WorkerLog::File(path) => Stdio::from(File::options().append(true).create(true).open(path)?),
        };
        // /proc/self/exe stays right when the program's file was replaced by an upgrade.
        Command::new("/proc/self/exe")
            .arg(SHIM)
            .arg(std::process::id().to_string())
            .arg(&self.programs.worker)
            .arg("--join")
            .arg(&self.join_file)
            .arg("--codec")
            .arg(&self.programs.codec)
            .arg("--scratch")
            .arg(&self.scratch)
            // They are told to end only when their broker ends too: there is nobody left to finish anything for.
            .args(["--grace", "0", "--log", "text"])
            // Nothing of ours is the worker's business: not the API key in the environment, not the current folder.
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .spawn()
    }

    /// Signals each worker that is still ours. The slot's lock keeps it from being waited for meanwhile, so its process id
    /// cannot have become another's.
    fn signal(&self, signal: Signal) {
        for slot in &self.slots {
            let mut slot = lock(slot);
            let Some(child) = slot.as_mut() else { continue };
            if !matches!(child.try_wait(), Ok(None)) {
                continue;
            }
            let pid = Pid::from_child(child);
            // Already dead is as good as signalled.
            let _ = if signal == Signal::KILL {
                kill_process_group(pid, signal)
            } else {
                kill_process(pid, signal)
            };
        }
    }

    fn pause(&self, time: Duration) {
        let stopping = lock(&self.stopping);
        // A poisoned lock means that a panic is under way elsewhere; the loop looks at the flag again anyway.
        drop(self.stopped.wait_timeout_while(stopping, time, |stopping| !*stopping));
    }

    /// The end of the log, where it is ours to read.
    fn last_words(&self) -> String {
        let WorkerLog::File(path) = &self.log else { return String::new() };
        let text = std::fs::read(path).unwrap_or_default();
        let tail = text.get(text.len().saturating_sub(4_096)..).unwrap_or_default();
        let tail = String::from_utf8_lossy(tail);
        tail.lines()
            .rev()
            .find(|line| !line.trim().is_empty())
            .map(|line| format!("; it said: {line}"))
            .unwrap_or_default()
    }
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".into(),
    }
}

/// The hidden command: asks to die with the parent, then becomes the worker.
pub(crate) fn become_worker(shim: &Shim) -> Failed {
    let failed = |what: &str, e: &dyn std::fmt::Display| {
        Failed::new(Exit::Failed, "worker_start", format!("{what}: {e}"))
    };
    if let Err(e) = rustix::process::set_parent_process_death_signal(Some(Signal::KILL)) {
        return failed("cannot ask to die with the parent", &e);
    }
    // The parent may have died before the request, and then nothing would ever come of it.
    let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
    if parent.and_then(|pid| u32::try_from(pid).ok()) != Some(shim.parent) {
        return failed("not started by mpegflow", &"the parent is gone");
    }
    let error = Command::new(&shim.program).args(&shim.arguments).exec();
    failed(&format!("cannot execute {}", shim.program.display()), &error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_libexec_or_the_error_says_where_they_were_sought() {
        let dir = tempfile::tempdir().unwrap();
        let error = Programs::find(Some(dir.path())).unwrap_err();
        assert!(
            error.what.contains("mpegflow-worker") && error.what.contains(&dir.path().display().to_string())
        );
        for name in ["mpegflow-worker", "mpegflow-codec"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        assert!(Programs::find(Some(dir.path())).is_ok());
    }
}
