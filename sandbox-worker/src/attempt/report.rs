//! Tells the broker how an attempt ended. The lease bounds how long that is tried: its heartbeat goes on meanwhile.

use crate::attempt::log::Log;
use crate::attempt::meter::Meters;
use crate::backoff::Tries;
use crate::broker::{Broker, CallError, Grant};
use mpegflow_protocol::evidence::Evidence;
use mpegflow_protocol::failure::Failure;
use mpegflow_protocol::telemetry::{Counts, WorkerSpans};
use mpegflow_protocol::worker::{Complete, Fail, Heartbeat, HeartbeatReply, TaskProgress};
use std::time::Duration;
use tokio::time::timeout;

/// One heartbeat with what is to be told. What does not arrive is told by the next one.
pub(super) async fn beat<B: Broker>(
    broker: &B,
    grant: &Grant,
    progress: TaskProgress,
    (log, meters): (&Log, &Meters),
) -> Result<HeartbeatReply, CallError> {
    let spans = meters.traced().take();
    let beat = Heartbeat { progress, log: log.take(), spans, counts: meters.take_counts() };
    send(broker, grant, beat, (log, meters)).await
}

async fn send<B: Broker>(
    broker: &B,
    grant: &Grant,
    beat: Heartbeat,
    (log, meters): (&Log, &Meters),
) -> Result<HeartbeatReply, CallError> {
    let reply = match broker.heartbeat(grant, &beat).await {
        // A broker of another version may not know what is told: the lease is worth more than that.
        Err(CallError::Refused { .. }) if !(beat.spans.is_empty() && beat.counts.is_empty()) => {
            let plain =
                Heartbeat { spans: WorkerSpans::default(), counts: Counts::default(), ..beat.clone() };
            broker.heartbeat(grant, &plain).await
        }
        reply => reply,
    };
    if reply.is_err() {
        log.put_back(beat.log);
        meters.traced().put_back(&beat.spans);
        meters.put_back(beat.counts);
    }
    reply
}

/// What was not told yet, before the attempt ends. Not for long: the end is what matters.
async fn last_words<B: Broker>(broker: &B, grant: &Grant, around: (&Log, &Meters)) {
    let (log, meters) = around;
    let spans = meters.traced();
    spans.finish();
    let progress = meters.snapshot(0, 0);
    let beat = Heartbeat { progress, log: log.take(), spans: spans.take(), counts: meters.take_counts() };
    if !(beat.log.is_empty() && beat.spans.is_empty() && beat.counts.is_empty()) {
        let _ = timeout(LAST_WORDS, send(broker, grant, beat, around)).await;
    }
}

/// How long last words may take.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The attempt succeeded. What is left to tell of it goes first.
pub(super) async fn complete<B: Broker>(
    broker: &B,
    grant: &Grant,
    complete: &Complete,
    around: (&Log, &Meters),
    within: Duration,
) -> Result<(), CallError> {
    last_words(broker, grant, around).await;
    retried(within, || broker.complete(grant, complete)).await
}

/// The attempt failed. Its last log lines go first; they often say more than the code.
pub(super) async fn fail<B: Broker>(
    broker: &B,
    grant: &Grant,
    failure: Failure,
    evidence: Option<Evidence>,
    around: (&Log, &Meters),
    within: Duration,
) -> Result<(), CallError> {
    last_words(broker, grant, around).await;
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
