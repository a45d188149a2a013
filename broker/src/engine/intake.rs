//! The intake: objects that arrive in a tenant's own storage become jobs, by events that storage sends and by looking.
//!
//! Both ways come to one place, which asks storage what the object is now and believes nothing else: neither a size, nor an ETag, nor the
//! order that events come in. What storage says (its ETag, its length, when it was written) is noted with the job in one transaction, so
//! that whatever comes again, here or elsewhere, finds it.

use super::leader::Fence;
use super::{Engine, PushError, SubmitError};
use crate::intake::Event;
use crate::model::Time;
use crate::objects::own::OwnStorage;
use crate::objects::{Found, Key, Listed, ObjectError};
use crate::plan::presets::PresetName;
use crate::secret::{fresh_id, hex, sha256};
use crate::store::intake::{Arrival, Looked, ManagedRule, RuleRecord, Trouble};
use crate::store::{Idempotency, Once, StoreError};
use futures_util::StreamExt as _;
use mpegflow_protocol::control::{self, MAX_MANAGED_RULES};
use mpegflow_protocol::ids::{JobId, RuleId, TenantId};
use mpegflow_protocol::intake::{CreateRule, RefusedObject, Rule, RuleProblem, Taken};
use mpegflow_protocol::path::{BadKey, MAX_KEY, StoredKey};
use mpegflow_protocol::{ParseError, text, to_json};
use std::collections::HashSet;
use std::error::Error;
use std::time::Duration;

/// Rules that one tenant has made. What its resource manages is beside that.
const MAX_RULES: u32 = 16;
/// An object that was written longer ago than this is not taken any more, so that what is known of objects may be forgotten then.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3_600);
/// How long beyond that it is kept, whatever the clocks are.
const SLACK: Duration = Duration::from_secs(24 * 3_600);
/// What was written this long before a rule was made is taken: clocks differ.
const BEFORE: Duration = Duration::from_secs(60);
/// Objects in a page of a look.
const PAGE: u32 = 500;
/// Rules that are looked at in one go.
const AT_ONCE: u32 = 8;
/// Goes of one round.
const GOES: u32 = 100;
/// A page takes no longer; the next round goes on where it was.
const PATIENCE: Duration = Duration::from_secs(60);
/// What could not be done is tried again after this.
const AGAIN: Duration = Duration::from_secs(30);
/// After all names of the broker's own, below the tenant's prefix.
const BEHIND_OURS: &str = "tnt_~";

/// Why a rule was not made or changed, or events were not taken.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// A field is wrong.
    #[error("the rule is wrong")]
    Rule(#[from] ParseError),
    /// Its job cannot be.
    #[error("the rule's job cannot be")]
    Job(#[source] SubmitError),
    /// The tenant has no such rule.
    #[error("there is no such rule")]
    NotFound,
    /// The tenant has too many.
    #[error("there are too many rules; at most {0}")]
    TooMany(u32),
    /// The tenant's resource manages it, under that name.
    #[error("the tenant's resource manages the rule, as {0}: it is changed and deleted there")]
    Managed(String),
    /// The idempotency key was used for another request.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// The tenant has no storage of its own.
    #[error("the tenant has no storage of its own")]
    NoStorage,
    /// The events are of another bucket than the tenant's.
    #[error("the events are of the bucket `{0}`, which is not the tenant's")]
    OtherBucket(String),
    /// No job could be made now.
    #[error("no job could be made")]
    Submit(#[source] SubmitError),
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
}

/// What became of one object by one rule.
enum Outcome {
    Made(JobId),
    Known,
    /// It is empty, gone, too old, or the rule is.
    Ignored,
    Refused(String),
}

/// An object as storage has it, on its way to a job.
pub(super) struct Stored {
    pub(super) key: StoredKey,
    pub(super) found: Found,
    pub(super) arrival: Arrival,
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

const fn seconds(time: Time) -> i64 {
    time.0.div_euclid(1_000)
}

/// What tells these bytes, written then, from others of the name.
fn version(etag: &str, size: u64, modified: i64) -> String {
    hex(&sha256(format!("{etag}\n{size}\n{modified}").as_bytes()))
}

/// An error and what is behind it, for whoever made the rule.
fn told(error: &SubmitError) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

/// Whether the same object and rule come to the same end whenever it is tried.
const fn is_final(error: &SubmitError) -> bool {
    matches!(
        error,
        SubmitError::UnknownPreset(_)
            | SubmitError::Contradiction(_)
            | SubmitError::Key(_)
            | SubmitError::TooLarge(_)
            | SubmitError::Quarantined
            | SubmitError::PathTaken(_)
            | SubmitError::Path(_)
            | SubmitError::Spec(_)
            | SubmitError::TooExpensive(_)
    )
}

impl RuleRecord {
    fn takes(&self, key: &str) -> bool {
        key.starts_with(&self.prefix) && key.ends_with(&self.suffix)
    }

    /// What was written before is not taken by a look.
    fn floor(&self, now: Time) -> i64 {
        let kept = now.minus_ms(ms(KEPT));
        let made = self.created_at.minus_ms(ms(BEFORE));
        seconds(if self.existing { kept } else { kept.max(made) })
    }
}

fn shown(rule: &RuleRecord) -> Rule {
    let problem = rule.problem.as_ref();
    Rule {
        id: rule.id,
        prefix: rule.prefix.clone(),
        suffix: rule.suffix.clone(),
        job: rule.job.clone(),
        poll_seconds: rule.poll_seconds,
        existing: rule.existing,
        managed: rule.managed.clone(),
        created_at: rule.created_at.rfc3339(),
        looked_at: rule.looked_at.map(Time::rfc3339),
        problem: problem.map(|p| RuleProblem {
            at: p.at.rfc3339(),
            key: p.key.clone(),
            reason: p.reason.clone(),
        }),
    }
}

/// Checks what a rule says by itself.
fn check(wanted: &CreateRule) -> Result<(), IntakeError> {
    let example = wanted.check()?;
    let preset = PresetName::find(&example.preset)
        .ok_or_else(|| IntakeError::Job(SubmitError::UnknownPreset(text::clean(&example.preset, 64))))?;
    preset.check(&example).map_err(|c| IntakeError::Job(SubmitError::Contradiction(c)))
}

/// Checks the rules that a tenant's resource names, as those that tenants make themselves are.
pub(super) fn managed_rules(
    wanted: Vec<control::Rule>,
    has_storage: bool,
) -> Result<Vec<ManagedRule>, PushError> {
    let count = wanted.len();
    let names = wanted.iter().map(|rule| &*rule.name);
    super::cluster::named("intake", count, MAX_MANAGED_RULES, names)?;
    if count > 0 && !has_storage {
        let reason =
            "objects arrive in a tenant's own storage, and it has none: give it some, in storage".into();
        return Err(PushError::Field { field: "intake".into(), reason });
    }
    let managed = wanted.into_iter().map(|control::Rule { name, rule }| {
        if let Err(error) = check(&rule) {
            return Err(PushError::Rule { name, error });
        }
        let CreateRule { prefix, suffix, job, poll_seconds, existing } = rule;
        let job = String::from_utf8_lossy(&to_json(&job)).into_owned();
        Ok(ManagedRule { name, id: fresh_id(), prefix, suffix, job, poll_seconds, existing })
    });
    managed.collect()
}

impl Engine {
    // === rules

    /// Makes a rule; the answer as JSON.
    ///
    /// # Errors
    /// A field is wrong, its job cannot be, or there are too many.
    pub async fn create_rule(
        &self,
        tenant: TenantId,
        wanted: CreateRule,
        once: Option<&Idempotency>,
    ) -> Result<Vec<u8>, IntakeError> {
        check(&wanted)?;
        if self.store.storage_of(tenant).await?.is_none() {
            return Err(IntakeError::NoStorage);
        }
        let CreateRule { prefix, suffix, job, poll_seconds, existing } = wanted;
        let now = self.now();
        let record = RuleRecord {
            id: fresh_id(),
            tenant,
            prefix,
            suffix,
            job,
            poll_seconds,
            existing,
            managed: None,
            created_at: now,
            cursor: String::new(),
            next_look_at: poll_seconds.map(|_| now),
            looked_at: None,
            problem: None,
        };
        let answer = to_json(&shown(&record));
        match self.store.add_rule(&record, MAX_RULES, once, &answer).await? {
            Once::Done(true) => {
                tracing::info!(%tenant, rule = %record.id, "a rule of the intake was made");
                Ok(answer)
            }
            Once::Done(false) => Err(IntakeError::TooMany(MAX_RULES)),
            Once::Replay(answer) => Ok(answer),
            Once::Mismatch => Err(IntakeError::KeyReused),
        }
    }

    /// The tenant's rules.
    ///
    /// # Errors
    /// The store failed.
    pub async fn rules(&self, tenant: TenantId) -> Result<Vec<Rule>, IntakeError> {
        Ok(self.store.rules(tenant).await?.iter().map(shown).collect())
    }

    /// A rule of the tenant.
    ///
    /// # Errors
    /// There is none.
    pub async fn rule(&self, tenant: TenantId, id: RuleId) -> Result<Rule, IntakeError> {
        let rules = self.store.rules(tenant).await?;
        rules.iter().find(|rule| rule.id == id).map(shown).ok_or(IntakeError::NotFound)
    }

    /// Deletes a rule. Jobs that it made stay.
    ///
    /// # Errors
    /// There is none, or the tenant's resource manages it.
    pub async fn delete_rule(&self, tenant: TenantId, id: RuleId) -> Result<(), IntakeError> {
        if let Some(name) = self.rule(tenant, id).await?.managed {
            return Err(IntakeError::Managed(name));
        }
        if self.store.delete_rule(tenant, id).await? { Ok(()) } else { Err(IntakeError::NotFound) }
    }

    /// Has a rule look at the storage now, and try again what was refused.
    ///
    /// # Errors
    /// There is none.
    pub async fn look_again(&self, tenant: TenantId, id: RuleId) -> Result<Rule, IntakeError> {
        if !self.store.look_again(tenant, id, self.now()).await? {
            return Err(IntakeError::NotFound);
        }
        self.rule(tenant, id).await
    }

    // === events

    /// Makes jobs of the objects that have arrived. What was made stays, also where a later one fails: sent again, it is known.
    ///
    /// # Errors
    /// The events are not of the tenant's bucket, or a job could not be made now; they are to be sent again.
    pub async fn take(&self, tenant: TenantId, events: Vec<Event>) -> Result<Taken, IntakeError> {
        let mut taken = Taken::default();
        if events.is_empty() {
            return Ok(taken);
        }
        let storage = self.store.storage_of(tenant).await?.ok_or(IntakeError::NoStorage)?;
        if let Some(other) = events.iter().find(|event| event.bucket != storage.bucket) {
            return Err(IntakeError::OtherBucket(text::clean(&other.bucket, 64)));
        }
        let rules = self.store.rules(tenant).await?;
        for event in events {
            self.take_one(&storage, &rules, event, &mut taken).await?;
        }
        Ok(taken)
    }

    async fn take_one(
        &self,
        storage: &OwnStorage,
        rules: &[RuleRecord],
        event: Event,
        taken: &mut Taken,
    ) -> Result<(), IntakeError> {
        let Event { key, size, sequencer, .. } = event;
        let key = key.as_deref().and_then(|key| key.strip_prefix(&storage.prefix));
        // Folders are objects without a byte whose names end so.
        let key = key.filter(|key| size != Some(0) && !key.ends_with('/'));
        let mut some = false;
        for rule in rules {
            let Some(key) = key.filter(|key| rule.takes(key)) else { continue };
            let outcome = match key.parse::<StoredKey>() {
                // The broker's own objects lie there as well.
                Err(BadKey::Reserved) => continue,
                Err(bad) => {
                    self.trouble(rule.id, Some(key), &bad.to_string()).await?;
                    Outcome::Refused(bad.to_string())
                }
                Ok(key) => self
                    .arrive(storage, rule, &key, sequencer.as_deref())
                    .await
                    .map_err(IntakeError::Submit)?,
            };
            some = true;
            match outcome {
                Outcome::Made(job) => taken.jobs.push(job),
                Outcome::Known => taken.known = taken.known.saturating_add(1),
                Outcome::Ignored => taken.ignored = taken.ignored.saturating_add(1),
                Outcome::Refused(reason) => taken.refused.push(RefusedObject {
                    key: text::clean(key, MAX_KEY),
                    rule: rule.id,
                    reason,
                }),
            }
        }
        if !some {
            taken.ignored = taken.ignored.saturating_add(1);
        }
        Ok(())
    }

    async fn trouble(&self, rule: RuleId, key: Option<&str>, reason: &str) -> Result<(), StoreError> {
        self.store.note(rule, &self.troubled(key, reason)).await
    }

    fn troubled(&self, key: Option<&str>, reason: &str) -> Trouble {
        let key = key.map(|key| text::clean(key, MAX_KEY));
        Trouble { at: self.now(), key, reason: text::clean(reason, 512) }
    }

    /// Makes a job of an object, unless one was made of it as it is now.
    async fn arrive(
        &self,
        storage: &OwnStorage,
        rule: &RuleRecord,
        key: &StoredKey,
        sequencer: Option<&str>,
    ) -> Result<Outcome, SubmitError> {
        let object = format!("{}{}", storage.prefix, key.as_str());
        // The very same event again: nobody need be asked.
        if let Some(sequencer) = sequencer
            && self.store.heard(rule.id, &storage.bucket, &object, sequencer).await?
        {
            return Ok(Outcome::Known);
        }
        let found = match self.objects.look_up(&Key::Stored(rule.tenant, key.clone())).await {
            Ok(found) => found,
            Err(ObjectError::Missing) => return Ok(Outcome::Ignored),
            Err(e) => return Err(SubmitError::Objects(e)),
        };
        if found.size == 0 || found.modified < seconds(self.now().minus_ms(ms(KEPT))) {
            return Ok(Outcome::Ignored);
        }
        let arrival = Arrival {
            rule: rule.id,
            bucket: storage.bucket.clone(),
            object,
            version: version(&found.version, found.size, found.modified),
            modified: found.modified,
            sequencer: sequencer.map(str::to_owned),
        };
        let stored = Stored { key: key.clone(), found, arrival: arrival.clone() };
        let made = match rule.job.spec(key) {
            Ok(spec) => self.submit_of(rule.tenant, spec, stored).await,
            Err(e) => Err(SubmitError::Spec(e)),
        };
        match made {
            Ok(job) => Ok(Outcome::Made(job)),
            Err(SubmitError::Known) => Ok(Outcome::Known),
            // Deleted just now.
            Err(SubmitError::NoRule) => Ok(Outcome::Ignored),
            Err(error) if is_final(&error) => {
                let reason = told(&error);
                let trouble = self.troubled(Some(key.as_str()), &reason);
                let new = self.store.refuse(&arrival, &trouble).await?;
                Ok(if new { Outcome::Refused(trouble.reason) } else { Outcome::Known })
            }
            Err(error) => Err(error),
        }
    }

    // === looking

    /// Looks at the storage of rules that are due, a page of each at a time, while the leader's place is this one's.
    ///
    /// # Errors
    /// The store failed. Storage that fails is told in the rule.
    pub async fn look_at_arrivals(&self, fence: &Fence) -> Result<(), StoreError> {
        for _ in 0..GOES {
            let rules = self.store.rules_to_look(self.now(), AT_ONCE).await?;
            if rules.is_empty() || !fence.holds(self).await? {
                return Ok(());
            }
            let looks = futures_util::stream::iter(rules).map(|rule| async move {
                if let Err(error) = self.look(&rule, fence).await {
                    tracing::warn!(%error, rule = %rule.id, "cannot look at what has arrived");
                }
            });
            looks.buffer_unordered(usize::try_from(AT_ONCE).unwrap_or(1)).collect::<()>().await;
        }
        Ok(())
    }

    async fn look(&self, rule: &RuleRecord, fence: &Fence) -> Result<(), StoreError> {
        let page = tokio::time::timeout(PATIENCE, self.look_at_page(rule, fence));
        let page = page.await.unwrap_or_else(|_| Err(Stopped::Failed("it took too long".into())));
        let later = |time: Duration| Some(self.now().plus_ms(ms(time)));
        let pause = rule.poll_seconds.map(|s| Duration::from_secs(s.into()));
        let (to, next_at, problem) = match page {
            Ok(to) if to.is_empty() => (to, pause.and_then(later), None),
            Ok(to) => (to, Some(self.now()), None),
            // Another one leads.
            Err(Stopped::Fenced) => return Ok(()),
            Err(Stopped::Failed(reason)) => (rule.cursor.clone(), later(AGAIN), Some(reason)),
        };
        let problem = problem.map(|reason| text::clean(&reason, 512));
        let looked =
            Looked { rule: rule.id, from: &rule.cursor, to: &to, next_at, problem: problem.as_deref() };
        self.store.looked(&looked, self.now()).await.map(drop)
    }

    /// Looks at a page; where the next one begins.
    async fn look_at_page(&self, rule: &RuleRecord, fence: &Fence) -> Result<String, Stopped> {
        let storage = self.store.storage_of(rule.tenant).await?;
        let storage =
            storage.ok_or_else(|| Stopped::Failed("the tenant has no storage of its own".into()))?;
        let page = self.objects.list_stored(rule.tenant, &rule.prefix, &rule.cursor, PAGE).await;
        let page = page.map_err(|e| Stopped::Failed(e.to_string()))?;
        let floor = rule.floor(self.now());
        let candidates: Vec<(&Listed, StoredKey)> = page
            .objects
            .iter()
            .filter(|o| o.size > 0 && o.modified >= floor && rule.takes(&o.key))
            .filter_map(|o| Some((o, o.key.parse().ok()?)))
            .collect();
        let whole = |key: &StoredKey| format!("{}{}", storage.prefix, key.as_str());
        let names: Vec<String> = candidates.iter().map(|(_, key)| whole(key)).collect();
        let known = self.store.known(rule.id, &storage.bucket, &names).await?;
        let known: HashSet<(String, String)> = known.into_iter().collect();
        for (object, key) in candidates {
            let as_listed = version(&object.version, object.size, object.modified);
            if known.contains(&(whole(&key), as_listed)) {
                continue;
            }
            if !fence.holds(self).await? {
                return Err(Stopped::Fenced);
            }
            if let Err(error) = self.arrive(&storage, rule, &key, None).await {
                return Err(Stopped::Failed(told(&error)));
            }
        }
        let last = page.objects.last().filter(|_| page.more);
        Ok(match last {
            None => String::new(),
            // They may be many, and none is looked for.
            Some(last) if last.key.starts_with("tnt_") => BEHIND_OURS.to_owned(),
            Some(last) => last.key.clone(),
        })
    }

    /// Forgets objects that are not taken any more, whatever comes.
    pub(super) async fn forget_arrivals(&self) -> Result<u64, StoreError> {
        let before = self.now().minus_ms(ms(KEPT.saturating_add(SLACK)));
        self.store.forget_arrivals(seconds(before), before).await
    }
}

/// Why a look stopped.
enum Stopped {
    /// This broker does not lead any more.
    Fenced,
    /// It could not go on.
    Failed(String),
}

impl From<StoreError> for Stopped {
    fn from(error: StoreError) -> Self {
        tracing::warn!(%error, "a look at what has arrived stopped");
        Self::Failed("the broker's database failed".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(prefix: &str, suffix: &str, existing: bool) -> RuleRecord {
        RuleRecord {
            id: RuleId::from_u128(1),
            tenant: TenantId::from_u128(2),
            prefix: prefix.into(),
            suffix: suffix.into(),
            job: serde_json::from_str(r#"{"version":1,"preset":"web"}"#).unwrap(),
            poll_seconds: None,
            existing,
            managed: None,
            created_at: Time(100_000_000_000),
            cursor: String::new(),
            next_look_at: None,
            looked_at: None,
            problem: None,
        }
    }

    #[test]
    fn a_rule_takes_what_begins_and_ends_as_it_says_and_nothing_old() {
        let some = rule("in/", ".mov", false);
        assert!(some.takes("in/a.mov") && some.takes("in/b/a.mov"));
        for other in ["in/a.mp4", "out/a.mov", "a.mov", "in/.mo"] {
            assert!(!some.takes(other), "{other}");
        }
        let now = some.created_at.plus_ms(1_000);
        assert_eq!(some.floor(now), seconds(some.created_at) - 60);
        let all = rule("", "", true);
        assert_eq!(all.floor(now), seconds(now) - 30 * 24 * 3_600);
        let late = some.created_at.plus_ms(ms(KEPT) * 2);
        assert_eq!(some.floor(late), seconds(late) - 30 * 24 * 3_600);
    }

    #[test]
    fn a_version_is_bytes_at_a_time() {
        let one = version("\"a\"", 1, 2);
        assert_eq!(one, version("\"a\"", 1, 2));
        for other in [version("\"b\"", 1, 2), version("\"a\"", 2, 2), version("\"a\"", 1, 3)] {
            assert_ne!(one, other);
        }
    }
}
