//! Rows to records. A row that no version of this program could have written is an error, never a guess.

use crate::model::{
    AttemptState, InputSource, JobRecord, ManifestEntry, NewTask, Stage, StoredEvent, TaskKind, TaskRecord,
    Time, UploadRecord,
};
use crate::store::StoreError;
use mpegflow_protocol::api::{EventKind, JobState, TaskState};
use mpegflow_protocol::codec::ProcessLimits;
use mpegflow_protocol::ids::{Id, Kind};
use mpegflow_protocol::task::TaskSpec;
use mpegflow_protocol::worker::OutputSlot;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

/// One column of a row, with errors that name the table.
pub(super) struct Cells<'a> {
    pub(super) table: &'static str,
    pub(super) row: &'a SqliteRow,
}

impl<'a> Cells<'a> {
    pub(super) const fn of(table: &'static str, row: &'a SqliteRow) -> Self {
        Self { table, row }
    }

    fn bad(&self, column: &str, reason: &dyn std::fmt::Display) -> StoreError {
        StoreError::Row { table: self.table, reason: format!("{column}: {reason}") }
    }

    pub(super) fn text(&self, column: &str) -> Result<&'a str, StoreError> {
        Ok(self.row.try_get(column)?)
    }

    pub(super) fn text_or_null(&self, column: &str) -> Result<Option<&'a str>, StoreError> {
        Ok(self.row.try_get(column)?)
    }

    pub(super) fn id<K: Kind>(&self, column: &str) -> Result<Id<K>, StoreError> {
        self.text(column)?.parse().map_err(|e| self.bad(column, &e))
    }

    pub(super) fn id_or_null<K: Kind>(&self, column: &str) -> Result<Option<Id<K>>, StoreError> {
        self.text_or_null(column)?.map(|t| t.parse().map_err(|e| self.bad(column, &e))).transpose()
    }

    pub(super) fn number(&self, column: &str) -> Result<u64, StoreError> {
        let n: i64 = self.row.try_get(column)?;
        u64::try_from(n).map_err(|e| self.bad(column, &e))
    }

    pub(super) fn small(&self, column: &str) -> Result<u32, StoreError> {
        let n: i64 = self.row.try_get(column)?;
        u32::try_from(n).map_err(|e| self.bad(column, &e))
    }

    pub(super) fn time(&self, column: &str) -> Result<Time, StoreError> {
        Ok(Time(self.row.try_get(column)?))
    }

    pub(super) fn time_or_null(&self, column: &str) -> Result<Option<Time>, StoreError> {
        Ok(self.row.try_get::<Option<i64>, _>(column)?.map(Time))
    }

    pub(super) fn sha256(&self, column: &str) -> Result<[u8; 32], StoreError> {
        let bytes: &[u8] = self.row.try_get(column)?;
        bytes.try_into().map_err(|e| self.bad(column, &e))
    }

    pub(super) fn json<T: DeserializeOwned>(&self, column: &str) -> Result<T, StoreError> {
        serde_json::from_str(self.text(column)?).map_err(|e| self.bad(column, &e))
    }

    pub(super) fn json_or_null<T: DeserializeOwned>(&self, column: &str) -> Result<Option<T>, StoreError> {
        self.text_or_null(column)?
            .map(|t| serde_json::from_str(t).map_err(|e| self.bad(column, &e)))
            .transpose()
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

/// Numbers are signed in SQLite; everything stored here is far below the sign bit.
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
}

pub(super) fn plan_json(task: &NewTask) -> String {
    json(&Plan {
        spec: task.spec.clone(),
        inputs: task.inputs.clone(),
        outputs: task.outputs.clone(),
        limits: task.limits,
        wall_ms: task.wall_ms,
        threads: task.threads,
    })
}

pub(super) fn ordinal(kind: TaskKind) -> i64 {
    match kind {
        TaskKind::Probe => 0,
        TaskKind::Encode => 1,
        TaskKind::Package => 2,
        TaskKind::Check => 3,
    }
}

pub(super) fn task(row: &SqliteRow) -> Result<TaskRecord, StoreError> {
    let cells = Cells::of("tasks", row);
    let Plan { spec, inputs, outputs, limits, wall_ms, threads } = cells.json("plan")?;
    Ok(TaskRecord {
        id: cells.id("id")?,
        plan: NewTask { kind: cells.word("kind")?, spec, inputs, outputs, limits, wall_ms, threads },
        state: cells.word::<TaskState>("state")?,
        epoch: cells.number("epoch")?,
        tries: cells.json("tries")?,
        memory_class: cells.small("memory_class")?,
        done_by: cells.id_or_null("done_by")?,
        result: cells.json_or_null("result")?,
        digests: cells.json("digests")?,
        evidence: cells.json_or_null("evidence")?,
        last_failure: cells.json_or_null("last_failure")?,
    })
}

pub(super) fn job(row: &SqliteRow) -> Result<JobRecord, StoreError> {
    let cells = Cells::of("jobs", row);
    Ok(JobRecord {
        id: cells.id("id")?,
        tenant: cells.id("tenant")?,
        upload: cells.id("upload")?,
        input_size: cells.number("input_size")?,
        spec: cells.json("spec")?,
        state: cells.word::<JobState>("state")?,
        media: cells.json_or_null("media")?,
        failure: cells.json_or_null("failure")?,
        created_at: cells.time("created_at")?,
        finished_at: cells.time_or_null("finished_at")?,
    })
}

pub(super) fn object(row: &SqliteRow) -> Result<ManifestEntry, StoreError> {
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

pub(super) fn event(row: &SqliteRow) -> Result<StoredEvent, StoreError> {
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

pub(super) fn upload(row: &SqliteRow) -> Result<UploadRecord, StoreError> {
    let cells = Cells::of("uploads", row);
    Ok(UploadRecord {
        id: cells.id("id")?,
        tenant: cells.id("tenant")?,
        size: cells.number("size")?,
        received: cells.number("received")?,
        name: cells.text_or_null("name")?.map(str::to_owned),
        quarantined: cells.number("quarantined")? != 0,
        created_at: cells.time("created_at")?,
    })
}

pub(super) const LIVE: &str = AttemptState::Live.as_str();
