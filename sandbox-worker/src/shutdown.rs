//! How a supervisor is asked to stop, and how urgently.

use std::time::Duration;
use tokio::sync::watch;

/// How far a stop is. Only ever moves down this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Take work.
    Run,
    /// Take no more work; finish what is there.
    Drain,
    /// The grace period is over: kill the codec and give the work back.
    Release,
    /// A second signal: stop at once.
    Abort,
}

/// Moves the phase on.
#[derive(Debug, Clone)]
pub struct Stopper(watch::Sender<Phase>);

/// Sees the phase.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<Phase>, Stopper);

/// A fresh pair, in [`Phase::Run`].
pub fn channel() -> (Stopper, Shutdown) {
    let (sender, receiver) = watch::channel(Phase::Run);
    let stopper = Stopper(sender);
    (stopper.clone(), Shutdown(receiver, stopper))
}

impl Stopper {
    /// Moves on to `phase`; never back.
    pub fn advance(&self, phase: Phase) {
        self.0.send_if_modified(|now| {
            let later = phase > *now;
            if later {
                *now = phase;
            }
            later
        });
    }

    /// Drains now, and releases after `grace`.
    pub async fn drain_within(&self, grace: Duration) {
        self.advance(Phase::Drain);
        tokio::time::sleep(grace).await;
        self.advance(Phase::Release);
    }
}

impl Shutdown {
    /// The phase now.
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Waits until the phase is at least `phase`, and says which it is.
    pub async fn reached(&mut self, phase: Phase) -> Phase {
        // The sender lives as long as this receiver, which holds one.
        match self.0.wait_for(|now| *now >= phase).await {
            Ok(now) => *now,
            Err(_) => Phase::Abort,
        }
    }

    /// Starts a drain without a time limit: the broker asked for it.
    pub fn drain(&self) {
        self.1.advance(Phase::Drain);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_drain_becomes_a_release_after_its_grace_and_never_goes_back() {
        let (stopper, mut shutdown) = channel();
        let started = std::time::Instant::now();
        let draining = tokio::spawn({
            let stopper = stopper.clone();
            async move { stopper.drain_within(Duration::from_millis(50)).await }
        });
        assert_eq!(shutdown.reached(Phase::Drain).await, Phase::Drain);
        assert_eq!(shutdown.reached(Phase::Release).await, Phase::Release);
        assert!(started.elapsed() >= Duration::from_millis(50));
        draining.await.unwrap();
        stopper.advance(Phase::Drain);
        assert_eq!(shutdown.phase(), Phase::Release);
    }
}
