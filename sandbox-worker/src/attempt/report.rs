//! Tells the broker how an attempt ended. The lease bounds how long that is tried: its heartbeat goes on meanwhile.

use crate::attempt::log::Log;
use crate::attempt::meter::Meters;
use crate::backoff::Backoff;
use crate::broker::{Broker, CallError, Grant};
use mpegflow_protocol::evidence::Evidence;
use mpegflow_protocol::failure::Failure;
use mpegflow_protocol::worker::{Complete, Fail, Heartbeat};
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// The attempt succeeded.
pub(super) async fn complete<B: Broker>(
    broker: &B,
    grant: &Grant,
    complete: &Complete,
    within: Duration,
) -> Result<(), CallError> {
    retried(within, || broker.complete(grant, complete)).await
}

/// The attempt failed. Its last log lines go first; they often say more than the code.
pub(super) async fn fail<B: Broker>(
    broker: &B,
    grant: &Grant,
    failure: Failure,
    evidence: Option<Evidence>,
    (log, meters): (&Log, &Meters),
    within: Duration,
) -> Result<(), CallError> {
    let lines = log.take();
    if !lines.is_empty() {
        let beat = Heartbeat { progress: meters.snapshot(0, 0), log: lines };
        let _ = timeout(Duration::from_secs(2), broker.heartbeat(grant, &beat)).await;
    }
    let fail = Fail { failure, evidence };
    retried(within, || broker.fail(grant, &fail)).await
}

/// The attempt is given back, uncounted.
pub(super) async fn release<B: Broker>(broker: &B, grant: &Grant, within: Duration) -> Result<(), CallError> {
    retried(within, || broker.release(grant)).await
}

async fn retried<F: Future<Output = Result<(), CallError>>>(
    within: Duration,
    mut call: impl FnMut() -> F,
) -> Result<(), CallError> {
    let started = Instant::now();
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(3));
    loop {
        match call().await {
            Err(error) if error.is_transient() && started.elapsed() < within => {
                tokio::time::sleep(backoff.next_wait()).await;
            }
            result => return result,
        }
    }
}
