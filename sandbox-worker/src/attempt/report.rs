//! Tells the broker how an attempt ended. The lease bounds how long that is tried: its heartbeat goes on meanwhile.

use crate::attempt::log::Log;
use crate::attempt::meter::Meters;
use crate::backoff::Tries;
use crate::broker::{Broker, CallError, Grant};
use mpegflow_protocol::evidence::Evidence;
use mpegflow_protocol::failure::Failure;
use mpegflow_protocol::worker::{Complete, Fail, Heartbeat};
use std::time::Duration;
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
    let mut tries = Tries::new(Duration::from_secs(3), within);
    loop {
        match call().await {
            Err(error) if error.is_transient() && tries.again().await => (),
            result => return result,
        }
    }
}
