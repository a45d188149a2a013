//! What codecs wrote: taken from heartbeats, bounded, and shown to the job's tenant. Every character of it may be hostile.

use super::{Engine, JobError};
use crate::model::{Claim, Time};
use mpegflow_protocol::api::{AttemptLog, JobLogs};
use mpegflow_protocol::ids::{JobId, TenantId};
use mpegflow_protocol::{limits, text};

/// Attempts whose logs are shown.
const ATTEMPTS: u32 = 16;

impl Engine {
    /// Keeps the lines of one heartbeat. A log that cannot be written is no reason to lose an attempt.
    pub(super) async fn keep_log(&self, claim: &Claim, lines: &[String], now: Time) {
        if lines.is_empty() {
            return;
        }
        let mut kept = String::new();
        for line in lines.iter().take(limits::MAX_LOG_LINES) {
            let line = text::clean(line, limits::MAX_LOG_LINE);
            tracing::debug!(attempt = %claim.attempt, %line, "codec");
            kept.push_str(&line);
            kept.push('\n');
        }
        let most = u32::try_from(limits::MAX_CODEC_LOG).unwrap_or(u32::MAX);
        if let Err(error) = self.store.append_log(claim, &kept, most, now).await {
            tracing::warn!(attempt = %claim.attempt, %error, "lines of a codec's log are lost");
        }
    }

    /// What the codecs of a job's attempts wrote.
    ///
    /// # Errors
    /// The tenant has no such job.
    pub async fn logs(&self, tenant: TenantId, job: JobId) -> Result<JobLogs, JobError> {
        self.store.job(tenant, job).await?.ok_or(JobError::NotFound)?;
        let logs = self.store.logs(tenant, job, ATTEMPTS).await?;
        let attempts = logs.into_iter().map(|log| AttemptLog {
            attempt: log.attempt,
            task: log.kind.as_str().into(),
            number: log.number,
            state: log.state.as_str().into(),
            started_at: log.started_at.rfc3339(),
            lines: log.text.lines().map(str::to_owned).collect(),
            cut: log.cut,
        });
        Ok(JobLogs { job, attempts: attempts.collect() })
    }
}
