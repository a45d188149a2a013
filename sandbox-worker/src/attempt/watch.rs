//! What may end an attempt from outside the codec: the lease, its deadline, a stall, and the supervisor's own end.

use crate::attempt::log::Log;
use crate::attempt::meter::{Meters, Speed, resident_memory};
use crate::attempt::report;
use crate::attempt::stop::Stop;
use crate::backoff::Backoff;
use crate::broker::{Broker, CallError, Grant};
use crate::shutdown::{Phase, Shutdown};
use mpegflow_protocol::failure::FailureCode;
use mpegflow_protocol::worker::HeartbeatReply;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// Renews a lease and reports how far its codec is.
#[derive(Debug)]
pub struct Heart<B> {
    /// The broker.
    pub broker: Arc<B>,
    /// The attempt.
    pub grant: Grant,
    /// What to report.
    pub meters: Arc<Meters>,
    /// Lines to report.
    pub log: Arc<Log>,
    /// The codec's process id; 0 while there is none.
    pub pid: Arc<AtomicU32>,
    /// Where to pass on that the broker drains this worker.
    pub shutdown: Shutdown,
    /// The longest time between two beats.
    pub every: Duration,
}

impl<B: Broker> Heart<B> {
    /// Beats until the lease is lost or the job canceled.
    pub async fn beat(self, lease_ms: u32) -> Stop {
        let mut lease = Duration::from_millis(lease_ms.into());
        let mut lost_at = Instant::now().checked_add(lease);
        let mut speed = Speed::over(Duration::from_secs(10));
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        let mut wait = self.pause(lease);
        loop {
            sleep(wait).await;
            // From the sending, not from the answer: the broker's clock started somewhere between the two.
            let sent = Instant::now();
            let left = lost_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(sent));
            if left.is_zero() {
                return Stop::LeaseLost;
            }
            match timeout(left, self.send(&mut speed)).await {
                Ok(Ok(reply)) => {
                    if reply.cancel {
                        return Stop::Canceled;
                    }
                    if reply.drain {
                        self.shutdown.drain();
                    }
                    lease = Duration::from_millis(reply.lease_ms.into());
                    lost_at = sent.checked_add(lease);
                    backoff.reset();
                    wait = self.pause(lease);
                }
                Ok(Err(CallError::LeaseLost | CallError::UnknownIdentity)) | Err(_) => {
                    return Stop::LeaseLost;
                }
                Ok(Err(error)) => {
                    tracing::debug!(%error, "a heartbeat did not arrive");
                    wait = backoff.next_wait().min(left);
                }
            }
        }
    }

    fn pause(&self, lease: Duration) -> Duration {
        lease.checked_div(4).unwrap_or_default().min(self.every)
    }

    async fn send(&self, speed: &mut Speed) -> Result<HeartbeatReply, CallError> {
        let pid = self.pid.load(Ordering::Relaxed);
        let memory = if pid == 0 { 0 } else { resident_memory(pid) };
        let mut progress = self.meters.snapshot(0, memory);
        progress.speed_milli = speed.sample(std::time::Instant::now(), progress.time_ms);
        report::beat(&*self.broker, &self.grant, progress, (&*self.log, &*self.meters)).await
    }
}

/// Waits for the deadline of an attempt.
pub async fn deadline(after: Duration) -> Stop {
    sleep(after).await;
    Stop::fail(
        FailureCode::DeadlineExceeded,
        format!("the task ran past its deadline of {} s", after.as_secs()),
    )
}

/// Waits until a codec has done nothing at all for `after`: no progress, no read, no output.
pub async fn stall(meters: Arc<Meters>, after: Duration) -> Stop {
    let mut last = (meters.signs_of_life(), Instant::now());
    loop {
        sleep(after.checked_div(8).unwrap_or_default().max(Duration::from_millis(10))).await;
        let now = meters.signs_of_life();
        if now != last.0 {
            last = (now, Instant::now());
        } else if last.1.elapsed() >= after {
            let what = format!("the codec did nothing for {} s", after.as_secs());
            return Stop::fail(FailureCode::DeadlineExceeded, what);
        }
    }
}

/// Waits until the supervisor itself has to end.
pub async fn shutdown(mut shutdown: Shutdown) -> Stop {
    match shutdown.reached(Phase::Release).await {
        Phase::Abort => Stop::Aborted,
        _ => Stop::Drained,
    }
}
