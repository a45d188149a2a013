//! One codec process: spawned, watched and reaped by a thread of its own, killed when its guard is dropped.

use mpegflow_lockdown::launch::Launch;
use mpegflow_lockdown::supervise::{Exit, Supervised};
use std::io;
use std::sync::Arc;
use tokio::sync::oneshot;

/// A running codec process. Dropping it kills the process; its thread reaps it.
#[derive(Debug)]
pub struct Process {
    handle: Arc<Supervised>,
    exit: oneshot::Receiver<io::Result<Exit>>,
    ended: Option<Exit>,
}

impl Process {
    /// Starts a process on a thread that lives exactly as long as the process. PR_SET_PDEATHSIG is sent when the *thread*
    /// that forked ends, so neither a runtime's worker nor its blocking pool may be that thread.
    ///
    /// # Errors
    /// The thread or the process could not be made.
    pub async fn spawn(launch: Launch) -> io::Result<Self> {
        let (started, starting) = oneshot::channel();
        let (ending, exit) = oneshot::channel();
        std::thread::Builder::new().name("codec".into()).stack_size(256 << 10).spawn(move || {
            let handle = match launch.spawn() {
                Ok(child) => Arc::new(Supervised::adopt(child)),
                Err(error) => {
                    let _ = started.send(Err(error));
                    return;
                }
            };
            if started.send(Ok(Arc::clone(&handle))).is_err() {
                // Nobody waits for it any more.
                handle.kill();
            }
            let _ = ending.send(handle.wait());
        })?;
        let handle =
            starting.await.map_err(|_| io::Error::other("the thread of the codec process died"))??;
        Ok(Self { handle, exit, ended: None })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.handle.pid()
    }

    /// Kills it; it is reaped by its thread.
    pub fn kill(&self) {
        self.handle.kill();
    }

    /// Waits until it was reaped. May be called again, and may be dropped at any await.
    ///
    /// # Errors
    /// It could not be waited for.
    pub async fn exited(&mut self) -> io::Result<Exit> {
        if let Some(exit) = self.ended {
            return Ok(exit);
        }
        let exit =
            (&mut self.exit).await.map_err(|_| io::Error::other("the codec process was not reaped"))??;
        self.ended = Some(exit);
        Ok(exit)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.handle.kill();
    }
}
