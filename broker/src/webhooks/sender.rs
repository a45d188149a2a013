//! The sender: makes messages of events, claims what is due, and sends it. Any number of them may run on one store.

use super::post::{Answer, PATIENCE, Poster};
use super::schedule;
use super::secret;
use super::url::WebhookUrl;
use crate::engine::{Engine, Notice};
use crate::store::webhooks::{AttemptEnd, DeliveryRecord, Disabled, WebhookRecord};
use mpegflow_protocol::ids::WebhookId;
use mpegflow_protocol::webhook::DeliveryState;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Attempts at once.
const AT_ONCE: usize = 64;
/// Attempts at once of one webhook: one that is slow must not hold up the others.
const EACH: u32 = 4;
/// A claim lasts for longer than an attempt can.
const CLAIM: Duration = Duration::from_secs(20);
/// What is due is looked for this often; what happens here is heard of at once.
const TICK: Duration = Duration::from_millis(500);
/// Between two rounds.
const PAUSE: Duration = Duration::from_millis(50);
/// How long messages that ended are kept.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3_600);

/// Counts for the metrics.
#[derive(Debug, Default)]
pub struct Counts {
    /// Messages accepted.
    pub delivered: AtomicU64,
    /// Attempts that failed and are tried again.
    pub retried: AtomicU64,
    /// Messages given up.
    pub failed: AtomicU64,
}

/// Sends until `stop`; attempts under way end first.
pub async fn run(engine: Arc<Engine>, poster: Poster, stop: CancellationToken) {
    let mut notices = engine.subscribe();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut attempts: JoinSet<WebhookId> = JoinSet::new();
    let mut busy: HashMap<WebhookId, u32> = HashMap::new();
    let mut rounds = 0_u64;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = tick.tick() => {}
            // Which of the events it was does not matter; a burst of them is one round.
            notice = notices.recv() => if matches!(notice, Ok(Notice::Progress(..))) { continue },
            Some(ended) = attempts.join_next() => {
                if let Ok(webhook) = ended && let Some(n) = busy.get_mut(&webhook) {
                    *n = n.saturating_sub(1);
                }
                busy.retain(|_, n| *n > 0);
            }
        }
        while let Ok(_) | Err(tokio::sync::broadcast::error::TryRecvError::Lagged(_)) = notices.try_recv() {}
        if let Err(error) = round(&engine, &poster, &mut attempts, &mut busy).await {
            tracing::error!(%error, "cannot look for messages that are due");
            // The store is asked again at the next tick, not by every notice.
            tokio::select! { () = stop.cancelled() => break, () = tokio::time::sleep(TICK) => {} }
        }
        // A burst of events is a few rounds, not one for each.
        tokio::select! { () = stop.cancelled() => break, () = tokio::time::sleep(PAUSE) => {} }
        rounds = rounds.saturating_add(1);
        if rounds.is_multiple_of(10_000) {
            let before = engine.now().minus_ms(u64::try_from(KEPT.as_millis()).unwrap_or(u64::MAX));
            if let Err(error) = engine.store().forget_deliveries(before).await {
                tracing::warn!(%error, "cannot forget old messages");
            }
        }
    }
    // What is not over by then is tried again by the next sender: its claim runs out.
    let ended = async { while attempts.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(PATIENCE, ended).await;
}

async fn round(
    engine: &Arc<Engine>,
    poster: &Poster,
    attempts: &mut JoinSet<WebhookId>,
    busy: &mut HashMap<WebhookId, u32>,
) -> Result<(), crate::store::StoreError> {
    engine.fan_out().await?;
    let room = AT_ONCE.saturating_sub(attempts.len());
    if room == 0 {
        return Ok(());
    }
    let now = engine.now();
    let until = now.plus_ms(u64::try_from(CLAIM.as_millis()).unwrap_or(u64::MAX));
    let full: Vec<WebhookId> = busy.keys().copied().collect();
    let limit = u32::try_from(room).unwrap_or(u32::MAX);
    for (delivery, webhook) in engine.store().claim_deliveries(now, until, limit, EACH, &full).await? {
        let count = busy.entry(webhook.id).or_default();
        *count = count.saturating_add(1);
        let (engine, poster) = (Arc::clone(engine), poster.clone());
        attempts.spawn(async move {
            attempt(&engine, &poster, &delivery, &webhook).await;
            webhook.id
        });
    }
    Ok(())
}

async fn attempt(engine: &Engine, poster: &Poster, delivery: &DeliveryRecord, webhook: &WebhookRecord) {
    let outcome = match WebhookUrl::parse(&webhook.url, poster.policy()) {
        Ok(url) => {
            let body = delivery.body.clone().into_bytes();
            let at = engine.now().0.div_euclid(1_000);
            let headers = secret::headers(&engine.signing(webhook), delivery.id, at, &body);
            poster.post(&url, &headers, body).await.map_err(|e| e.to_string())
        }
        // The policy has changed since it was made.
        Err(e) => Err(format!("the URL is not allowed any more: {e}")),
    };
    let now = engine.now();
    let end = end(delivery.attempts, outcome, chance(), now);
    let counts = engine.webhook_counts();
    let count = match end.state {
        DeliveryState::Delivered => &counts.delivered,
        DeliveryState::Pending => &counts.retried,
        DeliveryState::Failed => &counts.failed,
    };
    count.fetch_add(1, Ordering::Relaxed);
    tracing::info!(
        webhook = %webhook.id, message = %delivery.id, job = %delivery.job, attempt = delivery.attempts,
        status = end.status, error = end.error.as_deref(), state = end.state.as_str(), "message sent"
    );
    match engine.store().end_attempt(delivery.id, delivery.attempts, &end, now).await {
        Ok(true) => {}
        Ok(false) => {
            tracing::info!(message = %delivery.id, "another attempt at the message was begun meanwhile")
        }
        // The claim runs out, and it is sent once more.
        Err(error) => {
            tracing::error!(message = %delivery.id, %error, "cannot write down how an attempt ended")
        }
    }
}

/// Between 0 and 1.
fn chance() -> f64 {
    let mut bytes = [0; 2];
    // Without randomness every pause is as the schedule says.
    let drawn = aws_lc_rs::rand::fill(&mut bytes).is_ok();
    if drawn { f64::from(u16::from_le_bytes(bytes)) / f64::from(u16::MAX) } else { 0.5 }
}

/// What follows from an attempt's outcome.
fn end(attempt: u32, outcome: Result<Answer, String>, chance: f64, now: crate::model::Time) -> AttemptEnd {
    let (status, asked, error) = match outcome {
        Ok(Answer { status, .. }) if (200..300).contains(&status) => {
            let state = DeliveryState::Delivered;
            return AttemptEnd { state, next_at: now, status: Some(status), error: None, disable: None };
        }
        Ok(Answer { status: 410, .. }) => {
            return AttemptEnd {
                state: DeliveryState::Failed,
                next_at: now,
                status: Some(410),
                error: Some("it answered that it is gone".into()),
                disable: Some(Disabled::Gone),
            };
        }
        Ok(Answer { status, retry_after }) => {
            let redirect = if (300..400).contains(&status) { "; redirects are not followed" } else { "" };
            (Some(status), retry_after, format!("it answered {status}{redirect}"))
        }
        Err(text) => (None, None, text),
    };
    match schedule::pause(attempt, chance, asked) {
        Some(pause) => AttemptEnd {
            state: DeliveryState::Pending,
            next_at: now.plus_ms(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)),
            status,
            error: Some(error),
            disable: None,
        },
        None => AttemptEnd {
            state: DeliveryState::Failed,
            next_at: now,
            status,
            error: Some(error),
            disable: Some(Disabled::Failing),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::post::PostError;
    use super::*;
    use crate::model::Time;

    const NOW: Time = Time(1_700_000_000_000);

    fn answered(
        attempt: u32,
        status: u16,
        retry_after: Option<u64>,
    ) -> (DeliveryState, u64, Option<Disabled>) {
        let answer = Answer { status, retry_after: retry_after.map(Duration::from_secs) };
        let end = end(attempt, Ok(answer), 0.5, NOW);
        assert_eq!(end.status, Some(status));
        (end.state, NOW.until_ms(end.next_at) / 1_000, end.disable)
    }

    #[test]
    fn only_2xx_is_accepted_410_ends_it_and_anything_else_is_tried_again_until_it_is_given_up() {
        use DeliveryState::{Delivered, Failed, Pending};
        for status in [200, 202, 204, 299] {
            assert_eq!(answered(1, status, None), (Delivered, 0, None));
        }
        for status in [100, 301, 302, 307, 308, 400, 401, 404, 429, 500, 503] {
            assert_eq!(answered(1, status, None), (Pending, 5, None), "{status}");
            assert_eq!(answered(10, status, None), (Failed, 0, Some(Disabled::Failing)), "{status}");
        }
        assert_eq!(answered(1, 410, None), (Failed, 0, Some(Disabled::Gone)));
        assert_eq!(answered(1, 429, Some(90)), (Pending, 90, None));
        let broken = end(2, Err(PostError::Timeout.to_string()), 0.5, NOW);
        assert_eq!((broken.state, broken.status), (Pending, None));
        assert_eq!(broken.error.as_deref(), Some("no answer within 15 s"));
    }
}
