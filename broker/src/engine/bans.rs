//! Bans on decoders and demuxers: read again all the time, so that one holds everywhere within seconds, and no program is started anew.

use super::{CallError, Engine};
use crate::model::Time;
use crate::plan::bans::{self, Ban, Bans};
use crate::state::Ending;
use crate::store::{LeaseIs, StoreError};
use mpegflow_protocol::api::JobState;
use mpegflow_protocol::ids::JobId;
use mpegflow_protocol::task::TaskSpec;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A ban reaches every broker within this time.
const FRESH: Duration = Duration::from_secs(1);
/// Jobs that are looked through at once.
const PAGE: u32 = 500;

/// What was read lately.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<Option<(Instant, Arc<Bans>)>>);

/// A job that has ended and used a decoder, or may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Used {
    /// The job.
    pub job: JobId,
    /// Its tenant's name.
    pub tenant: String,
    /// How it ended.
    pub state: JobState,
    /// When.
    pub finished_at: Option<Time>,
    /// Whether what its input was is known; else the job ended before that, and may have used anything.
    pub known: bool,
}

impl Engine {
    /// The bans that hold now, or held a moment ago.
    ///
    /// # Errors
    /// The store failed: then nothing is leased, rather than without a ban.
    pub async fn bans(&self) -> Result<Arc<Bans>, StoreError> {
        let known = || self.bans.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, bans)) = &*known()
            && at.elapsed() < FRESH
        {
            return Ok(Arc::clone(bans));
        }
        let bans = Arc::new(Bans::new(self.store.bans().await?));
        *known() = Some((Instant::now(), Arc::clone(&bans)));
        Ok(bans)
    }

    /// Ends what runs here and was leased before a ban on what it uses; a probe, which may use anything, is begun anew. How many.
    ///
    /// # Errors
    /// The store failed.
    pub async fn enforce_bans(&self) -> Result<u64, StoreError> {
        let bans = self.bans().await?;
        let mut ended = 0_u64;
        for claim in self.live.claims() {
            let Some(live) = self.live.get(&claim) else { continue };
            if live.bans.load(Ordering::Relaxed) == bans.version() {
                continue;
            }
            let Some(attempt) = self.store.live_attempt(&claim).await? else { continue };
            let media = self.store.job(attempt.tenant, attempt.job).await?.and_then(|view| view.job.media);
            let spec = &attempt.task.plan.spec;
            let ending = match spec {
                TaskSpec::Probe(_) if bans.version() != 0 => Some(Ending::Released),
                spec => bans
                    .refuse_running(spec, media.as_ref())
                    .map(|failure| Ending::Failed { failure, evidence: None }),
            };
            live.bans.store(bans.version(), Ordering::Relaxed);
            let Some(ending) = ending else { continue };
            match self.settle(&claim, None, LeaseIs::Held, &ending).await {
                Ok(_) => {
                    ended = ended.saturating_add(1);
                    tracing::warn!(job = %attempt.job, attempt = %claim.attempt, task = spec.name(), "ended by a ban");
                }
                // It ended by itself.
                Err(CallError::LeaseLost) => {}
                Err(CallError::Store(e)) => return Err(e),
                Err(e) => {
                    tracing::error!(error = %e, attempt = %claim.attempt, "a ban could not end an attempt")
                }
            }
        }
        Ok(ended)
    }

    /// Bans a decoder or demuxer by its canonical name.
    ///
    /// # Errors
    /// The store failed.
    pub async fn ban(&self, name: &str, reason: &str) -> Result<(), StoreError> {
        let ban = Ban { name: name.to_owned(), reason: reason.to_owned(), at: self.now() };
        self.store.ban(&ban).await
    }

    /// Of a page of the jobs that have ended, those that used a decoder or demuxer or may have; and where the next page begins.
    ///
    /// # Errors
    /// The store failed.
    pub async fn jobs_using(
        &self,
        name: &str,
        after: Option<JobId>,
    ) -> Result<(Vec<Used>, Option<JobId>), StoreError> {
        let page = self.store.ended_jobs(after, PAGE).await?;
        let next = if page.len() < usize::try_from(PAGE).unwrap_or(usize::MAX) {
            None
        } else {
            page.last().map(|job| job.id)
        };
        let used = page
            .into_iter()
            .filter(|job| job.media.as_ref().is_none_or(|media| bans::used(name, media)))
            .map(|job| Used {
                job: job.id,
                tenant: job.tenant,
                state: job.state,
                finished_at: job.finished_at,
                known: job.media.is_some(),
            })
            .collect();
        Ok((used, next))
    }
}
