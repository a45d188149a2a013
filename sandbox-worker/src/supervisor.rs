//! The lease loop: one attempt at a time, until there is a reason to stop.

use crate::attempt::{self, Outcome};
use crate::backoff::Backoff;
use crate::broker::{Broker, CallError, Grant};
use crate::secret::Secret;
use crate::settings::Settings;
use crate::shutdown::{Phase, Shutdown};
use mpegflow_protocol::failure::FailureCode;
use mpegflow_protocol::worker::LeaseReply;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A poll that a drain cuts off may have been granted work in the same moment: its answer gets this long to arrive, and
/// what it brings goes back at once. The broker takes back what it could not hand over; waiting for the poll's own end would
/// cost every idle worker its whole grace period.
const LAST_WORD: Duration = Duration::from_millis(250);
/// Giving a lease back may take this long; then its expiry has to do.
const GIVE_BACK: Duration = Duration::from_secs(5);

/// Why a lease loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to, by a signal or by the broker, and nothing is left running.
    Drained,
    /// The broker wants a fresh process in its place.
    Retired,
    /// It was asked twice.
    Aborted,
    /// The broker does not know this worker: enrol again and call [`run`] again.
    Unknown,
}

/// Leases and runs attempts until something ends it.
pub async fn run<B: Broker>(broker: &Arc<B>, settings: &Settings, mut shutdown: Shutdown) -> Ended {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
    let mut trouble = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
    loop {
        if shutdown.phase() >= Phase::Drain {
            return ended(shutdown.phase());
        }
        let asked = Instant::now();
        let poll = broker.lease(settings.lease_wait);
        tokio::pin!(poll);
        let reply = tokio::select! {
            biased;
            phase = shutdown.reached(Phase::Drain) => {
                if phase < Phase::Abort && let Ok(Ok(reply)) = tokio::time::timeout(LAST_WORD, poll).await {
                    give_back(broker, reply).await;
                }
                return ended(phase);
            }
            reply = &mut poll => reply,
        };
        match reply {
            Ok(LeaseReply::Lease(lease)) => {
                backoff.reset();
                let (name, attempt, started) = (lease.task.name(), lease.attempt, Instant::now());
                tracing::info!(%attempt, task = name, "leased");
                let outcome = attempt::run(Arc::clone(broker), *lease, settings, shutdown.clone()).await;
                let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
                match &outcome {
                    Outcome::Failed(failure) => {
                        let (code, message) = (failure.code, &failure.message);
                        tracing::warn!(%attempt, task = name, ms, %code, message, "failed");
                        // A worker that cannot work must not burn through a queue; bad media is no reason to wait.
                        if matches!(code, FailureCode::LockFailed | FailureCode::WorkerError) {
                            pause(&mut shutdown, trouble.next_wait()).await;
                        }
                    }
                    outcome => {
                        trouble.reset();
                        tracing::info!(%attempt, task = name, ms, ?outcome, "ended");
                    }
                }
            }
            // A broker that does not hold the call must not be asked in a loop.
            Ok(LeaseReply::Idle {}) if asked.elapsed() < settings.lease_wait.min(Duration::from_secs(1)) => {
                pause(&mut shutdown, backoff.next_wait()).await;
            }
            Ok(LeaseReply::Idle {}) => backoff.reset(),
            Ok(LeaseReply::Retire {}) => return Ended::Retired,
            Err(CallError::UnknownIdentity) => return Ended::Unknown,
            Err(error) => {
                tracing::warn!(%error, "no lease");
                pause(&mut shutdown, backoff.next_wait()).await;
            }
        }
    }
}

async fn give_back<B: Broker>(broker: &Arc<B>, reply: LeaseReply) {
    let LeaseReply::Lease(lease) = reply else { return };
    let attempt = lease.attempt;
    let grant = Grant { attempt, capability: Secret::new(lease.capability) };
    match tokio::time::timeout(GIVE_BACK, broker.release(&grant)).await {
        Ok(Ok(())) => tracing::info!(%attempt, "a lease that came with the end was given back"),
        Ok(Err(error)) => tracing::warn!(%attempt, %error, "a lease was not given back"),
        Err(_) => tracing::warn!(%attempt, "a lease was not given back in time"),
    }
}

const fn ended(phase: Phase) -> Ended {
    match phase {
        Phase::Abort => Ended::Aborted,
        _ => Ended::Drained,
    }
}

async fn pause(shutdown: &mut Shutdown, wait: Duration) {
    tokio::select! {
        _ = shutdown.reached(Phase::Drain) => {}
        () = tokio::time::sleep(wait) => {}
    }
}
