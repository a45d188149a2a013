//! Leader election on a Lease, by client-go's rules (client-go/tools/leaderelection):
//!
//! - A candidate times the lease by its own clock, from when it saw the record change last; the times in the record are for
//!   people. Clocks of two machines need not agree, only run at about the same speed.
//! - The holder renews every `retry`; if it has not succeeded for `renew_deadline`, it stops leading, before anybody else may
//!   start, because `renew_deadline` is shorter than `duration`.
//! - At its end the holder releases the lease, so that the next need not wait.
//! - Every write is a compare-and-set by resource version.

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease as Record, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// How long things take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// A record that has not changed for so long is anybody's.
    pub duration: Duration,
    /// A holder that has not renewed for so long stops. Shorter than `duration`.
    pub renew_deadline: Duration,
    /// Between two tries. Shorter than `renew_deadline`.
    pub retry: Duration,
}

impl Default for Timing {
    /// client-go's: 15, 10 and 2 seconds.
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// Why somebody no longer leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// Somebody else holds the lease.
    #[error("somebody else holds the lease")]
    Taken,
    /// It could not be renewed in time.
    #[error("the lease could not be renewed in time")]
    NotRenewed,
}

/// A candidate for a lease.
pub struct Candidate {
    api: Api<Record>,
    name: String,
    identity: String,
    timing: Timing,
    observed: Option<Observed>,
}

/// The record as it was when it last changed, and when that was seen.
struct Observed {
    record: Record,
    since: Instant,
}

enum Attempt {
    Held,
    Others,
    Failed(kube::Error),
}

impl Candidate {
    /// A candidate with an identity that no other process has.
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str, timing: Timing) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.into(),
            identity: identity.into(),
            timing,
            observed: None,
        }
    }

    /// Waits until the lease is held. `false`: `stop` came first.
    pub async fn acquire(&mut self, stop: &CancellationToken) -> bool {
        loop {
            let attempt = tokio::select! {
                () = stop.cancelled() => return false,
                attempt = self.attempt() => attempt,
            };
            match attempt {
                Attempt::Held => return true,
                Attempt::Others => {}
                Attempt::Failed(error) => {
                    tracing::warn!(
                        error = crate::controller::chain(&error),
                        "the lease could not be looked at"
                    );
                }
            }
            tokio::select! {
                () = stop.cancelled() => return false,
                () = sleep(self.timing.retry) => {}
            }
        }
    }

    /// Renews the lease until it is lost, or until `stop`; then releases it.
    ///
    /// # Errors
    /// It was lost. Whoever hears that must stop at once: from `duration` after the last renewal another may lead.
    pub async fn keep(&mut self, stop: &CancellationToken) -> Result<(), Lost> {
        let mut renewed = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    self.release().await;
                    return Ok(());
                }
                () = sleep(self.timing.retry) => {}
            }
            let left = self.timing.renew_deadline.saturating_sub(renewed.elapsed());
            // Begun before the answer: what the server stamped cannot be later than that.
            let begun = Instant::now();
            match timeout(left, self.attempt()).await {
                Ok(Attempt::Held) => renewed = begun,
                Ok(Attempt::Others) => return Err(Lost::Taken),
                Ok(Attempt::Failed(error)) => {
                    tracing::warn!(error = crate::controller::chain(&error), "the lease was not renewed");
                }
                Err(_) => return Err(Lost::NotRenewed),
            }
            if renewed.elapsed() >= self.timing.renew_deadline {
                return Err(Lost::NotRenewed);
            }
        }
    }

    /// Takes the lease if it is free, or renews it if it is ours.
    async fn attempt(&mut self) -> Attempt {
        let found = match self.api.get_opt(&self.name).await {
            Ok(found) => found,
            Err(error) => return Attempt::Failed(error),
        };
        let Some(record) = found else {
            let record = Record {
                metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
                spec: Some(self.spec(None)),
            };
            let made = self.api.create(&PostParams::default(), &record).await;
            return self.wrote(made);
        };
        let spec = record.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        self.observe(&record);
        let age = self.observed.as_ref().map_or(Duration::ZERO, |observed| observed.since.elapsed());
        // The holder says for how long its record counts; a released one says a second.
        let seconds = spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok());
        let lasts = seconds.map_or(self.timing.duration, Duration::from_secs);
        if !holder.is_empty() && holder != self.identity && age < lasts {
            return Attempt::Others;
        }
        let mut next = record;
        next.spec = Some(self.spec(Some(&spec)));
        let wrote = self.api.replace(&self.name, &PostParams::default(), &next).await;
        self.wrote(wrote)
    }

    fn wrote(&mut self, answer: kube::Result<Record>) -> Attempt {
        match answer {
            Ok(record) => {
                self.observe(&record);
                Attempt::Held
            }
            // Somebody was faster; whether they hold it the next look will say.
            Err(error) => Attempt::Failed(error),
        }
    }

    fn observe(&mut self, record: &Record) {
        let changed = self.observed.as_ref().is_none_or(|old| old.record.spec != record.spec);
        if changed {
            self.observed = Some(Observed { record: record.clone(), since: Instant::now() });
        }
    }

    fn spec(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let ours = before.filter(|spec| spec.holder_identity.as_deref() == Some(&self.identity));
        let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or_default();
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(
                i32::try_from(self.timing.duration.as_secs().max(1)).unwrap_or(i32::MAX),
            ),
            acquire_time: ours.and_then(|spec| spec.acquire_time.clone()).or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(match (before, ours) {
                (Some(_), None) => transitions.saturating_add(1),
                _ => transitions,
            }),
            ..LeaseSpec::default()
        }
    }

    /// Gives the lease back, if it is still ours.
    async fn release(&mut self) {
        let Some(observed) = &self.observed else { return };
        let mut record = observed.record.clone();
        let Some(spec) = &mut record.spec else { return };
        if spec.holder_identity.as_deref() != Some(&self.identity) {
            return;
        }
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        let answer = timeout(
            self.timing.renew_deadline,
            self.api.replace(&self.name, &PostParams::default(), &record),
        )
        .await;
        if !matches!(answer, Ok(Ok(_))) {
            tracing::warn!("the lease was not released; it runs out by itself");
        }
    }
}
