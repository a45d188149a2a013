//! Ctrl-C once asks, twice insists.

use crate::exit::Exit;
use crate::lock;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

type Hook = Box<dyn FnOnce() + Send>;
type Hooks = Arc<Mutex<Vec<(u64, Hook)>>>;

/// What [`Interrupt::on_abort`] was given counts for as long as this lives: a run that goes on for days must not gather them.
#[must_use = "without it the hook is gone at once"]
pub(crate) struct Hooked {
    hooks: Hooks,
    number: u64,
}

impl Drop for Hooked {
    fn drop(&mut self) {
        lock(&self.hooks).retain(|(number, _)| *number != self.number);
    }
}

/// Hears SIGINT, SIGTERM and SIGHUP.
#[derive(Clone)]
pub(crate) struct Interrupt {
    asked: CancellationToken,
    hooks: Hooks,
    next: Arc<AtomicU64>,
}

impl Interrupt {
    /// Starts to listen. From now on the first signal only sets [`Interrupt::asked`]; the second runs what
    /// [`Interrupt::on_abort`] was given and ends the process.
    pub(crate) fn listen() -> io::Result<Self> {
        let interrupt = Self { asked: CancellationToken::new(), hooks: Arc::default(), next: Arc::default() };
        let mut signals = (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        );
        let this = interrupt.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = signals.0.recv() => {}
                    _ = signals.1.recv() => {}
                    _ = signals.2.recv() => {}
                }
                if this.asked.is_cancelled() {
                    let hooks: Vec<_> = lock(&this.hooks).drain(..).rev().collect();
                    for (_, hook) in hooks {
                        hook();
                    }
                    std::process::exit(Exit::Interrupted as i32);
                }
                this.asked.cancel();
            }
        });
        Ok(interrupt)
    }

    /// Waits for the first signal.
    pub(crate) async fn asked(&self) {
        self.asked.cancelled().await;
    }

    /// What has to be done before the process ends on the second signal; the last one given is done first.
    pub(crate) fn on_abort(&self, hook: impl FnOnce() + Send + 'static) -> Hooked {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.hooks).push((number, Box::new(hook)));
        Hooked { hooks: Arc::clone(&self.hooks), number }
    }

    /// Whether the first signal has come.
    pub(crate) fn is_asked(&self) -> bool {
        self.asked.is_cancelled()
    }
}
