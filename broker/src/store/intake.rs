//! What the store keeps of the intake: rules, and which objects jobs were made of.

use super::{Idempotency, Once, StoreError};
use crate::model::Time;
use async_trait::async_trait;
use mpegflow_protocol::ids::{RuleId, TenantId};
use mpegflow_protocol::intake::JobTemplate;

/// A rule of a tenant's intake.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleRecord {
    /// Its id.
    pub id: RuleId,
    /// Whose it is.
    pub tenant: TenantId,
    /// What keys begin with, from the tenant's prefix on.
    pub prefix: String,
    /// What keys end with.
    pub suffix: String,
    /// The job of each object.
    pub job: JobTemplate,
    /// Seconds between two looks at the storage; none where events alone bring jobs.
    pub poll_seconds: Option<u32>,
    /// Whether a look takes what was written before the rule was made.
    pub existing: bool,
    /// Its name in the resource that manages it; none where the tenant made it. Never changes.
    pub managed: Option<String>,
    /// When it was made; of a managed one, when what it takes was last changed.
    pub created_at: Time,
    /// The key after which a look goes on; empty at its beginning.
    pub cursor: String,
    /// When the next page is looked at.
    pub next_look_at: Option<Time>,
    /// When a look last came to its end.
    pub looked_at: Option<Time>,
    /// The last thing that kept an object from becoming a job.
    pub problem: Option<Trouble>,
}

/// A rule as a tenant's resource has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagedRule {
    /// Its name there.
    pub name: String,
    /// Its id; of one that is wanted, the one that it gets where it is not here yet.
    pub id: RuleId,
    /// What keys begin with.
    pub prefix: String,
    /// What keys end with.
    pub suffix: String,
    /// The job of each object, as it is written down: two texts of one job may differ once they are read, by a number's last digit.
    pub job: String,
    /// Seconds between two looks.
    pub poll_seconds: Option<u32>,
    /// Whether a look takes what was written before.
    pub existing: bool,
}

impl ManagedRule {
    /// Whether one that is here is as this one; `None` where it is another.
    pub(super) fn is(&self, here: &Self) -> Option<bool> {
        (here.name == self.name).then(|| *here == Self { id: here.id, ..self.clone() })
    }
}

/// What kept an object from becoming a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// When.
    pub at: Time,
    /// The object's key, where it was one object.
    pub key: Option<String>,
    /// What it was.
    pub reason: String,
}

/// An object as storage has it when a job is to be made of it, by one rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// The rule.
    pub rule: RuleId,
    /// The bucket.
    pub bucket: String,
    /// Its whole name there.
    pub object: String,
    /// What tells these bytes, written then, from all others that may come to have the name.
    pub version: String,
    /// When they were written, in seconds since 1970, on storage's clock.
    pub modified: i64,
    /// The event's place among those of the object, such that later ones sort after it.
    pub sequencer: Option<String>,
}

/// A look at storage came to a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looked<'a> {
    /// The rule.
    pub rule: RuleId,
    /// Where the look had been.
    pub from: &'a str,
    /// Where it goes on; empty at the end.
    pub to: &'a str,
    /// When it goes on; never where there is none.
    pub next_at: Option<Time>,
    /// What went wrong.
    pub problem: Option<&'a str>,
}

/// The intake.
#[async_trait]
pub trait Intake: Send + Sync + 'static {
    /// Adds a rule, unless the tenant has made `most`; whether it did. What its resource manages does not count.
    async fn add_rule(
        &self,
        new: &RuleRecord,
        most: u32,
        once: Option<&Idempotency>,
        answer: &[u8],
    ) -> Result<Once<bool>, StoreError>;
    /// The tenant's rules, oldest first.
    async fn rules(&self, tenant: TenantId) -> Result<Vec<RuleRecord>, StoreError>;
    /// Deletes a rule and what is known of its objects; whether there was one.
    async fn delete_rule(&self, tenant: TenantId, id: RuleId) -> Result<bool, StoreError>;
    /// Has a rule look at the storage now, from its beginning, and try again what was refused; whether there is one.
    async fn look_again(&self, tenant: TenantId, id: RuleId, now: Time) -> Result<bool, StoreError>;

    /// Whether this very event has led to an object that is known.
    async fn heard(
        &self,
        rule: RuleId,
        bucket: &str,
        object: &str,
        sequencer: &str,
    ) -> Result<bool, StoreError>;
    /// The versions that are known of these objects.
    async fn known(
        &self,
        rule: RuleId,
        bucket: &str,
        objects: &[String],
    ) -> Result<Vec<(String, String)>, StoreError>;
    /// Notes that no job can be made of an object, in its rule too, unless it or a newer one is known; whether it did.
    async fn refuse(&self, arrival: &Arrival, trouble: &Trouble) -> Result<bool, StoreError>;
    /// Notes in a rule what kept an object from becoming a job.
    async fn note(&self, rule: RuleId, trouble: &Trouble) -> Result<(), StoreError>;

    /// Rules whose next page is due, the longest first.
    async fn rules_to_look(&self, now: Time, limit: u32) -> Result<Vec<RuleRecord>, StoreError>;
    /// Moves a rule's look on, if it is still where it was; whether it was.
    async fn looked(&self, looked: &Looked<'_>, now: Time) -> Result<bool, StoreError>;
    /// Forgets objects that were written before `modified`, in seconds since 1970, and noted before `noted`; how many.
    async fn forget_arrivals(&self, modified: i64, noted: Time) -> Result<u64, StoreError>;
}
