//! The lease loop: one attempt at a time, until there is a reason to stop.

use crate::attempt::{self, Outcome};
use crate::backoff::Backoff;
use crate::broker::{Broker, CallError};
use crate::settings::Settings;
use crate::shutdown::{Phase, Shutdown};
use mpegflow_protocol::failure::FailureCode;
use mpegflow_protocol::worker::LeaseReply;
use std::sync::Arc;
use std::time::{Duration, Instant};

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
        let asked = Instant::now();
        // A poll that is cut off here may have been granted work in the same moment. That lease is never renewed, so it
        // comes back by itself; waiting for the poll's end would cost every idle worker its whole grace period.
        let reply = tokio::select! {
            biased;
            phase = shutdown.reached(Phase::Drain) => return ended(phase),
            reply = broker.lease(settings.lease_wait) => reply,
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
