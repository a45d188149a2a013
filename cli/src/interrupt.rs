//! Ctrl-C once asks, twice insists.

use crate::exit::Exit;
use crate::lock;
use std::io;
use std::sync::{Arc, Mutex};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

type Hook = Box<dyn FnOnce() + Send>;

/// Hears SIGINT, SIGTERM and SIGHUP.
#[derive(Clone)]
pub(crate) struct Interrupt {
    asked: CancellationToken,
    hooks: Arc<Mutex<Vec<Hook>>>,
}

impl Interrupt {
    /// Starts to listen. From now on the first signal only sets [`Interrupt::asked`]; the second runs what
    /// [`Interrupt::on_abort`] was given and ends the process.
    pub(crate) fn listen() -> io::Result<Self> {
        let interrupt = Self { asked: CancellationToken::new(), hooks: Arc::default() };
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
                    for hook in lock(&this.hooks).drain(..).rev() {
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
    pub(crate) fn on_abort(&self, hook: impl FnOnce() + Send + 'static) {
        lock(&self.hooks).push(Box::new(hook));
    }
}
