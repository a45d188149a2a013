//! Rows to records, for every adapter that speaks SQL: they spell ids, words and documents the same way. A row that no
//! version of this program could have written is an error, never a guess.

use crate::enrol::Account;
use crate::model::{
    AttemptState, InputSource, JobRecord, ManifestEntry, NewTask, Part, Stage, Step, StoredEvent, TaskKind,
    TaskRecord, TenantLimits, Time, UploadRecord, WorkerRecord,
};
use crate::objects::own::OwnStorage;
use crate::plan::bans::Ban;
use crate::scopes::Scopes;
use crate::store::identity::{PodAdded, PodWorker, PoolRecord, Pushed, PushedTenant, Verdict, WorkerSeen};
use crate::store::intake::{ManagedRule, RuleRecord, Trouble};
use crate::store::operations::{ApiKeyShown, AttemptLog, EndedJob};
use crate::store::storage::Neighbour;
use crate::store::webhooks::{DeliveryRecord, Disabled, WebhookRecord};
use crate::store::{ApiKeyRecord, StoreError};
use crate::trace::JobTrace;
use mpegflow_protocol::api::{EventKind, JobState, TaskState};
use mpegflow_protocol::codec::ProcessLimits;
use mpegflow_protocol::control;
use mpegflow_protocol::endpoint::StorageEndpoint;
use mpegflow_protocol::ids::{Id, Kind, PoolName};
use mpegflow_protocol::task::TaskSpec;
use mpegflow_protocol::worker::OutputSlot;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        // SQLITE_FULL with the extended I/O errors of a full disk; SQLSTATE 53100, disk_full.
        let full =
            error.as_database_error().and_then(|e| e.code()).is_some_and(|c| c == "13" || c == "53100");
        if full { Self::Full } else { Self::Database(Box::new(error)) }
    }
}

/// What a database's row holds, in the four types that are stored.
pub(super) trait Columns {
    fn text(&self, column: &str) -> Result<Option<&str>, sqlx::Error>;
    fn integer(&self, column: &str) -> Result<Option<i64>, sqlx::Error>;
    fn bytes(&self, column: &str) -> Result<Option<&[u8]>, sqlx::Error>;
    fn flag(&self, column: &str) -> Result<bool, sqlx::Error>;
}

macro_rules! columns {
    ($($row:ty)*) => {$(
        impl Columns for $row {
            fn text(&self, column: &str) -> Result<Option<&str>, sqlx::Error> {
                sqlx::Row::try_get(self, column)
            }
            fn integer(&self, column: &str) -> Result<Option<i64>, sqlx::Error> {
                sqlx::Row::try_get(self, column)
            }
            fn bytes(&self, column: &str) -> Result<Option<&[u8]>, sqlx::Error> {
                sqlx::Row::try_get(self, column)
            }
            fn flag(&self, column: &str) -> Result<bool, sqlx::Error> {
                sqlx::Row::try_get(self, column)
            }
        }
    )*};
}
columns!(SqliteRow PgRow);

/// The columns of a row, with errors that name the table.
pub(super) struct Cells<'a, R> {
    table: &'static str,
    row: &'a R,
}

impl<'a, R: Columns> Cells<'a, R> {
    pub(super) const fn of(table: &'static str, row: &'a R) -> Self {
        Self { table, row }
    }

    fn bad(&self, column: &str, reason: &dyn std::fmt::Display) -> StoreError {
        StoreError::Row { table: self.table, reason: format!("{column}: {reason}") }
    }

    fn there<T>(&self, column: &str, value: Option<T>) -> Result<T, StoreError> {
        value.ok_or_else(|| self.bad(column, &"null"))
    }

    pub(super) fn text(&self, column: &str) -> Result<&'a str, StoreError> {
        self.there(column, self.row.text(column)?)
    }

    pub(super) fn text_or_null(&self, column: &str) -> Result<Option<&'a str>, StoreError> {
        Ok(self.row.text(column)?)
    }

    pub(super) fn id<K: Kind>(&self, column: &str) -> Result<Id<K>, StoreError> {
        self.text(column)?.parse().map_err(|e| self.bad(column, &e))
    }

    pub(super) fn id_or_null<K: Kind>(&self, column: &str) -> Result<Option<Id<K>>, StoreError> {
        self.text_or_null(column)?.map(|t| t.parse().map_err(|e| self.bad(column, &e))).transpose()
    }

    /// Where a job's spans belong.
    pub(super) fn trace(&self, column: &str) -> Result<Option<JobTrace>, StoreError> {
        self.text_or_null(column)?.map(|t| t.parse().map_err(|e| self.bad(column, &e))).transpose()
    }

    pub(super) fn pool(&self, column: &str) -> Result<PoolName, StoreError> {
        self.text(column)?.parse().map_err(|_| self.bad(column, &"not a pool's name"))
    }

    fn integer(&self, column: &str) -> Result<i64, StoreError> {
        self.there(column, self.row.integer(column)?)
    }

    pub(super) fn number(&self, column: &str) -> Result<u64, StoreError> {
        u64::try_from(self.integer(column)?).map_err(|e| self.bad(column, &e))
    }

    pub(super) fn small(&self, column: &str) -> Result<u32, StoreError> {
        u32::try_from(self.integer(column)?).map_err(|e| self.bad(column, &e))
    }

    pub(super) fn time(&self, column: &str) -> Result<Time, StoreError> {
        Ok(Time(self.integer(column)?))
    }

    pub(super) fn time_or_null(&self, column: &str) -> Result<Option<Time>, StoreError> {
        Ok(self.row.integer(column)?.map(Time))
    }

    pub(super) fn flag(&self, column: &str) -> Result<bool, StoreError> {
        Ok(self.row.flag(column)?)
    }

    pub(super) fn bytes(&self, column: &str) -> Result<&'a [u8], StoreError> {
        self.there(column, self.row.bytes(column)?)
    }

    pub(super) fn bytes_or_null(&self, column: &str) -> Result<Option<&'a [u8]>, StoreError> {
        Ok(self.row.bytes(column)?)
    }

    pub(super) fn sha256(&self, column: &str) -> Result<[u8; 32], StoreError> {
        self.bytes(column)?.try_into().map_err(|e| self.bad(column, &e))
    }

    pub(super) fn json<T: DeserializeOwned>(&self, column: &str) -> Result<T, StoreError> {
        serde_json::from_str(self.text(column)?).map_err(|e| self.bad(column, &e))
    }

    pub(super) fn json_or_null<T: DeserializeOwned>(&self, column: &str) -> Result<Option<T>, StoreError> {
        self.text_or_null(column)?
            .map(|t| serde_json::from_str(t).map_err(|e| self.bad(column, &e)))
            .transpose()
    }

    /// What a task is for, of what [`kind`] wrote.
    fn kind(&self, column: &str) -> Result<TaskKind, StoreError> {
        let text = self.text(column)?;
        let word = text.split_once('-').map_or(text, |(kind, _)| kind);
        TaskKind::ALL
            .into_iter()
            .find(|k| k.as_str() == word)
            .ok_or_else(|| self.bad(column, &"not a kind of task"))
    }

    /// A word of an enumeration, as serde spells it.
    pub(super) fn word<T: DeserializeOwned>(&self, column: &str) -> Result<T, StoreError> {
        let word = serde_json::Value::String(self.text(column)?.to_owned());
        serde_json::from_value(word).map_err(|e| self.bad(column, &e))
    }
}

/// A document for a JSON column.
pub(super) fn json<T: Serialize>(value: &T) -> String {
    // Every type stored here has string keys only, so this cannot fail; `null` would be refused when it is read.
    serde_json::to_string(value).unwrap_or_else(|_| "null".into())
}

/// A word of an enumeration, as serde spells it.
pub(super) fn word<T: Serialize>(value: &T) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

/// The storage that a pool's workers reach, and the copy that says so: a broker of the version before writes a later copy without it.
#[derive(Serialize, Deserialize)]
struct PoolStorage {
    uid: String,
    generation: u64,
    endpoints: Vec<StorageEndpoint>,
}

/// That, for its column; null where they reach none.
pub(super) fn storage_column(pool: &PoolRecord) -> Option<String> {
    let PoolRecord { uid, generation, storage, .. } = pool;
    let written = PoolStorage { uid: uid.clone(), generation: *generation, endpoints: storage.clone() };
    (!storage.is_empty()).then(|| json(&written))
}

/// A pool of a cluster.
pub(super) fn pool(row: &impl Columns) -> Result<PoolRecord, StoreError> {
    let cells = Cells::of("pools", row);
    let (uid, generation) = (cells.text("uid")?.to_owned(), cells.number("generation")?);
    let storage: Option<PoolStorage> = cells.json_or_null("storage")?;
    let storage = storage.filter(|storage| storage.uid == uid && storage.generation == generation);
    Ok(PoolRecord {
        name: cells.pool("name")?,
        account: Account {
            namespace: cells.text("namespace")?.to_owned(),
            name: cells.text("account")?.to_owned(),
        },
        uid,
        generation,
        tenant: cells.id_or_null("tenant")?,
        max_workers: cells.number("max_workers")?,
        closed: cells.flag("closed")?,
        policy: cells.text_or_null("policy")?.map(str::to_owned),
        storage: storage.map(|storage| storage.endpoints).unwrap_or_default(),
    })
}

/// Why a tenant that is pushed cannot be this row's, where it cannot.
pub(super) fn tenant_conflict(row: &impl Columns, new: &PushedTenant) -> Result<Option<Pushed>, StoreError> {
    let cells = Cells::of("tenants", row);
    let (id, name) = (cells.text("id")?, cells.text("name")?);
    if id != new.id.to_string() || name != new.name {
        return Ok(Some(Pushed::Taken(format!("the tenant {name} with the id {id}"))));
    }
    let generation = if cells.text_or_null("pushed_uid")? == Some(new.uid.as_str()) {
        cells.number("pushed_generation")?
    } else {
        0
    };
    Ok((generation > new.generation).then_some(Pushed::Stale(generation)))
}

/// The limits of a tenant once it is pushed, from its row where there is one.
pub(super) fn pushed_limits(
    row: Option<&impl Columns>,
    new: &PushedTenant,
) -> Result<TenantLimits, StoreError> {
    let here: Option<TenantLimits> = match row {
        Some(row) => Cells::of("tenants", row).json_or_null("limits")?,
        None => None,
    };
    Ok(new.limits.pushed_onto(here.unwrap_or_default()))
}

/// A tenant's own storage, where it has some.
pub(super) fn own_storage(row: &impl Columns) -> Result<Option<OwnStorage>, StoreError> {
    let cells = Cells::of("tenants", row);
    let raw: Option<control::Storage> = cells.json_or_null("storage")?;
    raw.map(|raw| OwnStorage::new(raw).map_err(|e| cells.bad("storage", &e))).transpose()
}

/// A tenant that has storage of its own.
pub(super) fn neighbour(row: &impl Columns) -> Result<Neighbour, StoreError> {
    let cells = Cells::of("tenants", row);
    let storage = cells.there("storage", own_storage(row)?)?;
    Ok(Neighbour { id: cells.id("id")?, name: cells.text("name")?.to_owned(), storage })
}

/// Why a pod cannot have the identity of a row, where it cannot.
pub(super) fn pod_conflict(row: &impl Columns, pod: &PodWorker) -> Result<Option<PodAdded>, StoreError> {
    let cells = Cells::of("workers", row);
    if cells.time_or_null("revoked_at")?.is_some() {
        return Ok(Some(PodAdded::Revoked));
    }
    // A row without a key was made by a cordon, before the pod came.
    let other_key = cells.bytes_or_null("key_sha256")?.is_some_and(|key| key != pod.key);
    Ok((other_key || cells.pool("pool")? != pod.pool).then_some(PodAdded::Other))
}

/// A worker of a pool of a cluster.
pub(super) fn worker_seen(row: &impl Columns) -> Result<(PoolName, WorkerSeen), StoreError> {
    let cells = Cells::of("workers", row);
    let seen = WorkerSeen {
        id: cells.id("id")?,
        pod: cells.text_or_null("pod")?.map(str::to_owned),
        node: cells.text_or_null("node")?.map(str::to_owned),
        busy: cells.flag("busy")?,
        cordoned: cells.flag("cordoned")?,
        retired: cells.flag("retired")?,
    };
    Ok((cells.pool("pool")?, seen))
}

/// A worker.
pub(super) fn worker(row: &impl Columns) -> Result<WorkerRecord, StoreError> {
    let cells = Cells::of("workers", row);
    Ok(WorkerRecord {
        id: cells.id("id")?,
        pool: cells.pool("pool")?,
        tenant: cells.id_or_null("tenant")?,
        pod: cells.text_or_null("pod")?.map(str::to_owned),
        node: cells.text_or_null("node")?.map(str::to_owned),
        cordoned: cells.time_or_null("cordoned_at")?.is_some(),
        revoked: cells.time_or_null("revoked_at")?.is_some(),
        retired: cells.time_or_null("retired_at")?.is_some(),
    })
}

/// A verdict.
pub(super) fn verdict(row: &impl Columns) -> Result<Verdict, StoreError> {
    let cells = Cells::of("verdicts", row);
    Ok(Verdict {
        pool: cells.pool("pool")?,
        policy: cells.text("policy")?.to_owned(),
        node: cells.text("node")?.to_owned(),
        verified: cells.flag("verified")?,
        reason: cells.text("reason")?.to_owned(),
        expires: cells.time("expires_at")?,
    })
}

/// Numbers are signed in SQL; everything stored here is far below the sign bit.
pub(super) fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// The plan of a task as it is stored.
#[derive(Serialize, Deserialize)]
struct Plan {
    spec: TaskSpec,
    inputs: Vec<InputSource>,
    outputs: Vec<OutputSlot>,
    limits: ProcessLimits,
    wall_ms: u64,
    threads: u32,
    #[serde(default, skip_serializing_if = "Step::is_whole")]
    step: Step,
}

pub(super) fn plan_json(task: &NewTask) -> String {
    json(&Plan {
        spec: task.spec.clone(),
        inputs: task.inputs.clone(),
        outputs: task.outputs.clone(),
        limits: task.limits,
        wall_ms: task.wall_ms,
        threads: task.threads,
        step: task.step,
    })
}

/// The place of a task in its job.
pub(super) fn ordinal(task: &NewTask) -> i64 {
    // Far behind every chunk.
    const REST: i64 = 1 << 40;
    let kind = match task.kind {
        TaskKind::Probe => 0,
        TaskKind::Encode => 1,
        TaskKind::Package => 2,
        TaskKind::Check => 3,
    };
    match task.step {
        Step::Whole | Step::Sound => kind,
        Step::Chunk(n) => i64::from(n).saturating_mul(3).saturating_add(3).saturating_add(kind),
        Step::Rest => REST.saturating_add(kind),
    }
}

/// What a task is for, as the database has it: no two tasks of a job have the same, so a job that plays early adds which of them.
pub(super) fn kind(task: &NewTask) -> String {
    let kind = task.kind.as_str();
    match task.step {
        Step::Whole => kind.to_owned(),
        Step::Sound => format!("{kind}-sound"),
        Step::Chunk(n) => format!("{kind}-{n}"),
        Step::Rest => format!("{kind}-rest"),
    }
}

pub(super) fn task(row: &impl Columns) -> Result<TaskRecord, StoreError> {
    let cells = Cells::of("tasks", row);
    let Plan { spec, inputs, outputs, limits, wall_ms, threads, step } = cells.json("plan")?;
    Ok(TaskRecord {
        id: cells.id("id")?,
        plan: NewTask { kind: cells.kind("kind")?, step, spec, inputs, outputs, limits, wall_ms, threads },
        state: cells.word::<TaskState>("state")?,
        epoch: cells.number("epoch")?,
        tries: cells.json("tries")?,
        memory_class: cells.small("memory_class")?,
        not_before: cells.time("not_before")?,
        done_by: cells.id_or_null("done_by")?,
        result: cells.json_or_null("result")?,
        digests: cells.json("digests")?,
        evidence: cells.json_or_null("evidence")?,
        last_failure: cells.json_or_null("last_failure")?,
    })
}

pub(super) fn job(row: &impl Columns) -> Result<JobRecord, StoreError> {
    let cells = Cells::of("jobs", row);
    Ok(JobRecord {
        id: cells.id("id")?,
        tenant: cells.id("tenant")?,
        upload: cells.id("upload")?,
        input_size: cells.number("input_size")?,
        spec: cells.json("spec")?,
        pool: cells.pool("pool")?,
        state: cells.word::<JobState>("state")?,
        media: cells.json_or_null("media")?,
        planned: cells.json_or_null("planned")?,
        failure: cells.json_or_null("failure")?,
        created_at: cells.time("created_at")?,
        finished_at: cells.time_or_null("finished_at")?,
        trace: cells.trace("trace")?,
    })
}

pub(super) fn object(row: &impl Columns) -> Result<ManifestEntry, StoreError> {
    let cells = Cells::of("objects", row);
    Ok(ManifestEntry {
        name: cells.text("name")?.to_owned(),
        attempt: cells.id("attempt")?,
        output: cells.small("output")?,
        size: cells.number("size")?,
        parts: cells.small("parts")?,
        digest: cells.text("digest")?.to_owned(),
        content_type: cells.text("content_type")?.to_owned(),
    })
}

pub(super) fn event(row: &impl Columns) -> Result<StoredEvent, StoreError> {
    let cells = Cells::of("events", row);
    Ok(StoredEvent {
        seq: cells.number("seq")?,
        job: cells.id("job")?,
        kind: cells.word::<EventKind>("kind")?,
        state: cells.word::<JobState>("state")?,
        stage: cells.json::<Stage>("stage")?,
        at: cells.time("at")?,
        failure: cells.json_or_null("failure")?,
    })
}

pub(super) fn part(row: &impl Columns) -> Result<Part, StoreError> {
    let cells = Cells::of("parts", row);
    Ok(Part { part: cells.small("part")?, size: cells.number("size")?, sha256: cells.sha256("sha256")? })
}

pub(super) fn upload(row: &impl Columns) -> Result<UploadRecord, StoreError> {
    let cells = Cells::of("uploads", row);
    Ok(UploadRecord {
        id: cells.id("id")?,
        tenant: cells.id("tenant")?,
        size: cells.number("size")?,
        received: cells.number("received")?,
        name: cells.text_or_null("name")?.map(str::to_owned),
        metadata: cells.text_or_null("metadata")?.map(str::to_owned),
        quarantined: cells.flag("quarantined")?,
        created_at: cells.time("created_at")?,
        touched_at: cells.time("touched_at")?,
    })
}

pub(super) fn ban(row: &impl Columns) -> Result<Ban, StoreError> {
    let cells = Cells::of("decoder_bans", row);
    Ok(Ban {
        name: cells.text("name")?.to_owned(),
        reason: cells.text("reason")?.to_owned(),
        at: cells.time("at")?,
    })
}

pub(super) fn ended_job(row: &impl Columns) -> Result<EndedJob, StoreError> {
    let cells = Cells::of("jobs", row);
    Ok(EndedJob {
        id: cells.id("id")?,
        tenant: cells.text("name")?.to_owned(),
        state: cells.word("state")?,
        finished_at: cells.time_or_null("finished_at")?,
        media: cells.json_or_null("media")?,
    })
}

pub(super) fn api_key(row: &impl Columns) -> Result<ApiKeyRecord, StoreError> {
    let cells = Cells::of("api_keys", row);
    Ok(ApiKeyRecord {
        tenant: cells.id("tenant")?,
        secret_sha256: cells.sha256("secret_sha256")?,
        scopes: Scopes::read(cells.text("scopes")?),
        expires_at: cells.time_or_null("expires_at")?,
    })
}

pub(super) fn api_key_shown(row: &impl Columns) -> Result<ApiKeyShown, StoreError> {
    let cells = Cells::of("api_keys", row);
    Ok(ApiKeyShown {
        id: cells.id("id")?,
        label: cells.text("label")?.to_owned(),
        scopes: Scopes::read(cells.text("scopes")?),
        created_at: cells.time("created_at")?,
        expires_at: cells.time_or_null("expires_at")?,
        revoked_at: cells.time_or_null("revoked_at")?,
    })
}

pub(super) fn attempt_log(row: &impl Columns) -> Result<AttemptLog, StoreError> {
    let cells = Cells::of("attempt_logs", row);
    let state = cells.text("state")?;
    Ok(AttemptLog {
        attempt: cells.id("attempt")?,
        kind: cells.kind("kind")?,
        number: cells.number("epoch")?,
        state: AttemptState::parse(state).ok_or_else(|| cells.bad("state", &"not a state"))?,
        started_at: cells.time("started_at")?,
        text: cells.text("text")?.to_owned(),
        cut: cells.flag("cut")?,
    })
}

pub(super) fn webhook(row: &impl Columns) -> Result<WebhookRecord, StoreError> {
    let cells = Cells::of("webhooks", row);
    let disabled = match cells.text_or_null("disabled")? {
        None => None,
        Some("gone") => Some(Disabled::Gone),
        Some("failing") => Some(Disabled::Failing),
        Some(_) => return Err(cells.bad("disabled", &"not a reason")),
    };
    Ok(WebhookRecord {
        id: cells.id("id")?,
        tenant: cells.id("tenant")?,
        url: cells.text("url")?.to_owned(),
        types: cells.json("types")?,
        description: cells.text_or_null("description")?.map(str::to_owned),
        managed: cells.text_or_null("managed")?.map(str::to_owned),
        disabled,
        cursor: cells.number("cursor")?,
        salts: cells.json("secrets")?,
        created_at: cells.time("created_at")?,
        succeeded_at: cells.time_or_null("succeeded_at")?,
    })
}

pub(super) fn rule(row: &impl Columns) -> Result<RuleRecord, StoreError> {
    let cells = Cells::of("intake_rules", row);
    let problem = match (cells.text_or_null("problem")?, cells.time_or_null("problem_at")?) {
        (Some(reason), Some(at)) => {
            let key = cells.text_or_null("problem_key")?.map(str::to_owned);
            Some(Trouble { at, key, reason: reason.to_owned() })
        }
        _ => None,
    };
    let seconds = cells.time_or_null("poll_seconds")?.map(|t| u32::try_from(t.0));
    Ok(RuleRecord {
        id: cells.id("id")?,
        tenant: cells.id("tenant")?,
        prefix: cells.text("prefix")?.to_owned(),
        suffix: cells.text("suffix")?.to_owned(),
        job: cells.json("job")?,
        poll_seconds: seconds.transpose().map_err(|e| cells.bad("poll_seconds", &e))?,
        existing: cells.flag("existing")?,
        managed: cells.text_or_null("managed")?.map(str::to_owned),
        created_at: cells.time("created_at")?,
        cursor: cells.text("cursor")?.to_owned(),
        next_look_at: cells.time_or_null("next_look_at")?,
        looked_at: cells.time_or_null("looked_at")?,
        problem,
    })
}

/// A managed rule, as far as its resource says what it is.
pub(super) fn managed_rule(row: &impl Columns) -> Result<ManagedRule, StoreError> {
    let cells = Cells::of("intake_rules", row);
    let name = cells.text_or_null("managed")?.map(str::to_owned);
    let RuleRecord { id, prefix, suffix, poll_seconds, existing, .. } = rule(row)?;
    let job = cells.text("job")?.to_owned();
    Ok(ManagedRule { name: cells.there("managed", name)?, id, prefix, suffix, job, poll_seconds, existing })
}

pub(super) fn known_object(row: &impl Columns) -> Result<(String, String), StoreError> {
    let cells = Cells::of("intake_objects", row);
    Ok((cells.text("object")?.to_owned(), cells.text("version")?.to_owned()))
}

pub(super) fn delivery(row: &impl Columns) -> Result<DeliveryRecord, StoreError> {
    let cells = Cells::of("deliveries", row);
    let status = cells.time_or_null("last_status")?.map(|t| u16::try_from(t.0));
    Ok(DeliveryRecord {
        id: cells.id("id")?,
        webhook: cells.id("webhook")?,
        kind: cells.word("type")?,
        job: cells.id("job")?,
        body: cells.text("body")?.to_owned(),
        state: cells.word("state")?,
        attempts: cells.small("attempts")?,
        next_at: cells.time("next_at")?,
        last_status: status.transpose().map_err(|e| cells.bad("last_status", &e))?,
        last_error: cells.text_or_null("last_error")?.map(str::to_owned),
        created_at: cells.time("created_at")?,
        ended_at: cells.time_or_null("ended_at")?,
    })
}

pub(super) const LIVE: &str = AttemptState::Live.as_str();
