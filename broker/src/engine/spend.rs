//! What jobs cost: estimated, capped, and taken from a tenant's minutes of the day.

use super::Engine;
use super::jobs::SubmitError;
use crate::model::{JobRecord, LiveAttempt, TaskKind, Time};
use crate::plan::estimate::{self, Estimate};
use crate::plan::planned::Planned;
use crate::plan::{Settings, graph};
use crate::store::StoreError;
use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::ids::{TenantId, UploadId};
use mpegflow_protocol::job::JobSpec;
use mpegflow_protocol::media::MediaInfo;
use mpegflow_protocol::task::TaskResult;

const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;

/// Days since 1970, UTC.
fn day(now: Time) -> u64 {
    u64::try_from(now.0).unwrap_or(0) / DAY_MS
}

fn until_next_day_s(now: Time) -> u64 {
    let into = u64::try_from(now.0).unwrap_or(0) % DAY_MS;
    DAY_MS.saturating_sub(into).div_ceil(1_000)
}

impl Engine {
    /// What plans of this tenant's jobs follow.
    pub(super) async fn settings_of(&self, tenant: TenantId) -> Result<Settings, StoreError> {
        Ok(Settings { caps: self.limits(tenant).await?.quotas.caps, ..self.settings })
    }

    /// What is planned for a job, once its input is known.
    pub(super) fn planned(&self, job: &JobRecord) -> Option<Planned> {
        // One that a broker of the release before has probed is planned again whenever it is asked for.
        let again = || self.plan(&job.spec, job.media.as_ref()?, job.upload, job.input_size);
        job.planned.clone().or_else(again)
    }

    fn plan(&self, spec: &JobSpec, media: &MediaInfo, upload: UploadId, size: u64) -> Option<Planned> {
        // What cannot be planned costs nothing, and fails for a reason of its own.
        let task = graph::encode(spec, media, upload, size, self.settings).ok()?;
        Some(Planned::of(spec, media, &task))
    }

    /// What a job will cost, where an earlier job on the same upload has found out what it is: then one that may not cost as much
    /// is refused before anything runs. Else that is found out after the probe, and nothing is encoded.
    pub(super) async fn may_cost(
        &self,
        tenant: TenantId,
        spec: &JobSpec,
        upload: UploadId,
        size: u64,
    ) -> Result<Option<Estimate>, SubmitError> {
        let quotas = self.limits(tenant).await?.quotas;
        let capped = !spec.max_spend.is_unlimited()
            || quotas.caps.output_minutes.is_some()
            || quotas.caps.core_seconds.is_some();
        let day_most = quotas.minutes_per_day.filter(|_| !spec.dry_run);
        if !capped && day_most.is_none() {
            return Ok(None);
        }
        let Some(media) = self.store.media_of_upload(tenant, upload).await? else {
            return self.minutes_left(tenant, day_most, 1).await.map(|()| None);
        };
        let planned = self.plan(spec, &media, upload, size);
        let estimate = planned.and_then(|planned| planned.estimate);
        if let Some(exceeded) = estimate::exceeded(estimate, &spec.max_spend, quotas.caps) {
            return Err(SubmitError::TooExpensive(exceeded));
        }
        self.minutes_left(tenant, day_most, estimate.map_or(1, |e| e.input_ms)).await?;
        Ok(estimate)
    }

    async fn minutes_left(&self, tenant: TenantId, most: Option<u32>, ms: u64) -> Result<(), SubmitError> {
        let Some(most) = most else { return Ok(()) };
        let now = self.now();
        let taken = self.store.minutes_taken(tenant, day(now)).await?;
        if taken.saturating_add(ms) > u64::from(most).saturating_mul(MINUTE_MS) {
            return Err(SubmitError::NoMinutes { most, next_day_s: until_next_day_s(now) });
        }
        Ok(())
    }

    /// Takes a probed job's minutes from its tenant's of the day, where these are limited; why it may not go on where there are not
    /// as many. Taken before the job moves on and only once for each job, so that a broker that dies in between takes them neither
    /// twice nor never.
    pub(super) async fn reserve_minutes(
        &self,
        attempt: &LiveAttempt,
        result: &TaskResult,
        settings: Settings,
    ) -> Result<Option<Failure>, StoreError> {
        let (TaskKind::Probe, TaskResult::Probe(probe)) = (attempt.task.plan.kind, result) else {
            return Ok(None);
        };
        let Some(most) = self.limits(attempt.tenant).await?.quotas.minutes_per_day else { return Ok(None) };
        let Some(view) = self.store.job(attempt.tenant, attempt.job).await? else { return Ok(None) };
        let job = view.job;
        if job.spec.dry_run {
            return Ok(None);
        }
        // One that fails for another reason takes nothing.
        let Ok(media) = probe.media.clone().bounded(job.input_size) else { return Ok(None) };
        let Ok(task) = graph::encode(&job.spec, &media, job.upload, job.input_size, settings) else {
            return Ok(None);
        };
        let estimate = estimate::of(&task, &media);
        if estimate::exceeded(estimate, &job.spec.max_spend, settings.caps).is_some() {
            return Ok(None);
        }
        let refused = |what: &str| {
            let text = format!(
                "{what} `minutes_per_day` allows {most} minutes of input. {}",
                FailureCode::MinutesExhausted.help()
            );
            Some(Failure::new(FailureCode::MinutesExhausted, text))
        };
        let Some(estimate) = estimate else {
            return Ok(refused("The input does not say how long it is, so that it cannot be counted."));
        };
        let most_ms = u64::from(most).saturating_mul(MINUTE_MS);
        let today = day(self.now());
        let reserved = self
            .store
            .reserve_minutes(attempt.tenant, attempt.job, today, estimate.input_ms, most_ms)
            .await?;
        Ok(if reserved { None } else { refused("The job needs more minutes than are left of this day.") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_ends_at_midnight_utc() {
        let midnight = Time(1_772_323_200_000);
        assert_eq!(day(midnight), day(midnight.minus_ms(1)) + 1);
        assert_eq!((until_next_day_s(midnight.minus_ms(1)), until_next_day_s(midnight)), (1, 86_400));
    }
}
