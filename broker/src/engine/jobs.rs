//! Jobs: submitted, shown, canceled; and their objects.

use super::intake::Stored;
use super::{Engine, Notice, render};
use crate::model::{InputSource, JobRecord, JobView, ManifestEntry};
use crate::objects::{Bytestream, Found, Key, ObjectError};
use crate::plan::estimate::Exceeded;
use crate::plan::graph;
use crate::plan::planned::Planned;
use crate::plan::playlists::{self, Playlist};
use crate::plan::presets::{Contradiction, PresetName};
use crate::secret::{fresh_id, sha256};
use crate::store::{Canceled, Idempotency, NewJob, Once, StoreError, Submitted};
use mpegflow_protocol::api::{Job, JobPage, JobState, TaskState};
use mpegflow_protocol::encoder::VideoCodec;
use mpegflow_protocol::ids::{JobId, PoolName, TaskId, TenantId, UploadId};
use mpegflow_protocol::job::{InputRef, JobSpec};
use mpegflow_protocol::path::{self, BadKey, StoredKey};
use mpegflow_protocol::{limits, text, to_json};
use std::ops::Range;

/// An object of a job, as it is served.
#[derive(Debug, Clone, PartialEq)]
pub enum Served {
    /// One that is stored.
    File(ManifestEntry),
    /// A playlist that is written for whoever asks.
    Playlist {
        /// The playlist.
        list: Playlist,
        /// Whether it stays as it is.
        lasting: bool,
    },
}

/// Why a job was not created.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// There is no such preset.
    #[error("there is no preset `{0}`")]
    UnknownPreset(String),
    /// A field does not go with the preset.
    #[error("a field does not go with the preset")]
    Contradiction(#[source] Contradiction),
    /// There is no such pool for the tenant.
    #[error("there is no pool `{0}`")]
    NoPool(PoolName),
    /// The tenant has no such upload.
    #[error("there is no such upload")]
    NoUpload,
    /// The tenant has no such object.
    #[error("there is no such object")]
    NoObject,
    /// The tenant has no storage of its own.
    #[error("the tenant has no storage of its own")]
    NoStorage,
    /// The tenant's own storage has no such object.
    #[error("the tenant's own storage has no such object")]
    NoStored,
    /// The key is none.
    #[error("the key is none")]
    Key(#[source] BadKey),
    /// The object is longer than is accepted.
    #[error("the object has {0} bytes")]
    TooLarge(u64),
    /// The upload is not finished.
    #[error("the upload is not finished")]
    Unfinished,
    /// The input is quarantined.
    #[error("the input is quarantined")]
    Quarantined,
    /// Another job has the path that the output was to have.
    #[error("job {0} has the path")]
    PathTaken(JobId),
    /// The intake has made a job of the object as it is, or of a newer one.
    #[error("a job was made of the object as it is, or of a newer one")]
    Known,
    /// The rule of the intake is gone.
    #[error("the rule of the intake is gone")]
    NoRule,
    /// A rule of the intake comes to no job spec for this object.
    #[error("the rule comes to no job spec for this object")]
    Spec(#[source] mpegflow_protocol::ParseError),
    /// The path is none.
    #[error("the output's path is wrong")]
    Path(#[source] mpegflow_protocol::ParseError),
    /// Too many unfinished jobs.
    #[error("there are too many unfinished jobs; at most {0}")]
    TooMany(u32),
    /// It would cost more than it may.
    #[error("it would cost more than it may")]
    TooExpensive(Exceeded),
    /// The tenant's minutes of the day are used up.
    #[error("the {most} minutes of the day are used up")]
    NoMinutes {
        /// How many there are.
        most: u32,
        /// Seconds until the next day.
        next_day_s: u64,
    },
    /// The idempotency key was used for another request.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// Storage failed.
    #[error("storage failed")]
    Objects(#[source] ObjectError),
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
}

/// Why a job could not be shown or changed.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The tenant has no such job or object.
    #[error("there is no such job")]
    NotFound,
    /// It has ended.
    #[error("the job has ended")]
    Final(JobState),
    /// It has not ended.
    #[error("the job has not ended")]
    Active,
    /// The idempotency key was used for another request.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// The bytes are missing or cannot be read.
    #[error("storage failed")]
    Objects(#[source] ObjectError),
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
}

/// Writes into a spec whether its tenant may copy, so that the plan needs no more than the spec: copying is what happens where it
/// may and nothing else was said.
fn copying(spec: &mut JobSpec, preset: PresetName, allowed: bool) -> Result<(), SubmitError> {
    if spec.video.copy == Some(true) && !allowed {
        return Err(SubmitError::Contradiction(Contradiction {
            field: "video.copy",
            reason: "this tenant may not copy a source's pictures; leave the field out, or ask the operator of the broker".into(),
        }));
    }
    if allowed && spec.video.copy.is_none() && preset.recipe().video == Some(VideoCodec::H264) {
        spec.video.copy = Some(true);
    }
    Ok(())
}

fn stored_input(
    tenant: TenantId,
    key: StoredKey,
    found: Found,
) -> Result<(UploadId, InputSource), SubmitError> {
    let Found { size, version, .. } = found;
    if size > limits::MAX_UPLOAD {
        return Err(SubmitError::TooLarge(size));
    }
    let identity = format!("{tenant}\n{}\n{version}\n{size}", key.as_str());
    let id = sha256(identity.as_bytes()).first_chunk().map_or(0, |id| u128::from_be_bytes(*id));
    Ok((UploadId::from_u128(id), InputSource::Stored { key, version, size }))
}

impl Engine {
    /// Creates a job; the answer as JSON. Its spans belong to the trace of the request.
    ///
    /// # Errors
    /// The spec names something that is not there, or a quota is reached.
    pub async fn submit(
        &self,
        tenant: TenantId,
        spec: JobSpec,
        once: Option<&Idempotency>,
        request: Option<&super::Request>,
    ) -> Result<Vec<u8>, SubmitError> {
        Ok(self.submit_from(tenant, spec, once, request, None).await?.1)
    }

    /// Creates the job of an object that has arrived in the tenant's storage.
    pub(super) async fn submit_of(
        &self,
        tenant: TenantId,
        spec: JobSpec,
        stored: Stored,
    ) -> Result<JobId, SubmitError> {
        Ok(self.submit_from(tenant, spec, None, None, Some(stored)).await?.0)
    }

    /// The id that a new job has, and the answer: of a repetition, the first one's.
    async fn submit_from(
        &self,
        tenant: TenantId,
        mut spec: JobSpec,
        once: Option<&Idempotency>,
        request: Option<&super::Request>,
        stored: Option<Stored>,
    ) -> Result<(JobId, Vec<u8>), SubmitError> {
        let preset = PresetName::find(&spec.preset)
            .ok_or_else(|| SubmitError::UnknownPreset(text::clean(&spec.preset, 64)))?;
        preset.check(&spec).map_err(SubmitError::Contradiction)?;
        let own = self.limits(tenant).await?;
        copying(&mut spec, preset, own.copy)?;
        let pool = self.pool_for(tenant, spec.pool.as_ref()).await?;
        let now = self.now();
        // No upload has the id that comes with an object: whatever asks for the job's upload finds none.
        let mut arrival = None;
        let (upload, object) = match (&spec.input, stored) {
            (_, Some(Stored { key, found, arrival: of })) => {
                arrival = Some(of);
                let (id, object) = stored_input(tenant, key, found)?;
                (id, Some(object))
            }
            (InputRef::Upload(upload), None) => (*upload, None),
            (InputRef::Object(path), None) => (fresh_id(), Some(self.input_object(tenant, path).await?)),
            (InputRef::Storage(key), None) => {
                let (id, object) = self.stored_object(tenant, key).await?;
                (id, Some(object))
            }
        };
        // The plan needs the size; the transaction looks at the upload again.
        let record = self.store.upload(tenant, upload).await?;
        let object_size = object.as_ref().map(InputSource::size);
        let size = object_size.or(record.as_ref().map(|u| u.size)).unwrap_or(0);
        if record.is_some_and(|u| u.received == u.size) {
            // Usually done already, by the call that brought the last byte.
            self.objects.finish_upload(tenant, upload, size).await.map_err(|e| match e {
                // Deleted just now.
                ObjectError::Missing => SubmitError::NoUpload,
                e => SubmitError::Objects(e),
            })?;
        }
        let estimate = self.may_cost(tenant, &spec, upload, size).await?;
        let mut task = graph::probe(&spec, upload, size, self.settings);
        if let Some(object) = object {
            task.inputs = vec![object];
        }
        let job = JobRecord {
            id: fresh_id(),
            tenant,
            upload,
            input_size: size,
            spec: spec.clone(),
            pool: pool.clone(),
            state: JobState::Queued,
            media: None,
            planned: None,
            failure: None,
            created_at: now,
            finished_at: None,
            trace: None,
        };
        let id = job.id;
        let folder = job.spec.folder(id).map_err(SubmitError::Path)?;
        let planned = estimate.map(|known| Planned { estimate: Some(known), whole_because: None });
        let view = JobView { job, tasks: Vec::new(), objects: Vec::new() };
        let answer = to_json(&render::job(&view, None, None, planned));
        let quotas = own.quotas;
        let new = NewJob {
            id,
            tenant,
            spec,
            path: folder,
            upload,
            object_size,
            task_id: fresh_id(),
            task,
            pool: pool.clone(),
            max_unfinished: quotas.unfinished_jobs,
            arrival,
            answer: answer.clone(),
            trace: request.and_then(super::Request::job),
        };
        match self.store.submit(&new, once, now).await? {
            Once::Done(Submitted::Created) => {
                if let Some(request) = request {
                    request.made(id);
                }
                let priority = new.spec.priority.0;
                let ready =
                    crate::model::ReadyTask { task: new.task_id, tenant, pool, priority, not_before: now };
                self.offer(std::slice::from_ref(&ready)).await;
                self.live.tell(Notice::Stored(tenant));
                Ok((id, answer))
            }
            Once::Replay(answer) => Ok((id, answer)),
            Once::Mismatch => Err(SubmitError::KeyReused),
            Once::Done(Submitted::Known) => Err(SubmitError::Known),
            Once::Done(Submitted::NoRule) => Err(SubmitError::NoRule),
            Once::Done(Submitted::NoUpload) => Err(SubmitError::NoUpload),
            Once::Done(Submitted::Unfinished) => Err(SubmitError::Unfinished),
            Once::Done(Submitted::Quarantined) => Err(SubmitError::Quarantined),
            Once::Done(Submitted::PathTaken(job)) => Err(SubmitError::PathTaken(job)),
            Once::Done(Submitted::TooMany) => Err(SubmitError::TooMany(new.max_unfinished)),
        }
    }

    /// The object behind a path of the tenant: below one of its jobs' ids, or where a job's output was asked to be.
    async fn input_object(&self, tenant: TenantId, path: &str) -> Result<InputSource, SubmitError> {
        let (folder, name) = path::split(path).ok_or(SubmitError::NoObject)?;
        let job = match folder.parse() {
            Ok(job) => Some(job),
            Err(_) => self.store.job_at(tenant, folder).await?,
        };
        let Some(job) = job else { return Err(SubmitError::NoObject) };
        let view = self.store.job(tenant, job).await?.ok_or(SubmitError::NoObject)?;
        let found = view.objects.into_iter().find(|object| object.name == name);
        let found = found.ok_or(SubmitError::NoObject)?;
        Ok(InputSource::Object { job, attempt: found.attempt, output: found.output, size: found.size })
    }

    /// An object of the tenant's own storage as it is now, and the id that this version of it always has: what is known of it, a
    /// quarantine too, holds for whichever job names it.
    async fn stored_object(
        &self,
        tenant: TenantId,
        key: &str,
    ) -> Result<(UploadId, InputSource), SubmitError> {
        let key: StoredKey = key.parse().map_err(SubmitError::Key)?;
        if self.store.storage_of(tenant).await?.is_none() {
            return Err(SubmitError::NoStorage);
        }
        let named = Key::Stored(tenant, key.clone());
        let found = self.objects.look_up(&named).await.map_err(|e| match e {
            ObjectError::Missing => SubmitError::NoStored,
            e => SubmitError::Objects(e),
        })?;
        stored_input(tenant, key, found)
    }

    /// A job of the tenant.
    ///
    /// # Errors
    /// There is none.
    pub async fn job(&self, tenant: TenantId, id: JobId) -> Result<Job, JobError> {
        let view = self.store.job(tenant, id).await?.ok_or(JobError::NotFound)?;
        let full = self.is_full(tenant).await?;
        Ok(self.render(&view, full))
    }

    fn render(&self, view: &JobView, full: bool) -> Job {
        let (running, waiting) = (self.live.of_job(view.job.id), self.waiting(view, full));
        render::job(view, running, waiting, self.planned(&view.job))
    }

    /// A page of the tenant's jobs, newest first.
    ///
    /// # Errors
    /// The store failed.
    pub async fn jobs(
        &self,
        tenant: TenantId,
        state: Option<JobState>,
        after: Option<JobId>,
        limit: u32,
    ) -> Result<JobPage, JobError> {
        let mut views = self.store.jobs(tenant, state, after, limit.saturating_add(1)).await?;
        let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = views.len() > wanted;
        views.truncate(wanted);
        let next = if more { views.last().map(|v| v.job.id) } else { None };
        let full = self.is_full(tenant).await?;
        let jobs = views.iter().map(|view| self.render(view, full)).collect();
        Ok(JobPage { jobs, next })
    }

    /// Cancels a job.
    ///
    /// # Errors
    /// There is none, or it has ended.
    pub async fn cancel(
        &self,
        tenant: TenantId,
        id: JobId,
        once: Option<&Idempotency>,
    ) -> Result<Job, JobError> {
        match self.store.cancel(tenant, id, once, self.now()).await? {
            Once::Mismatch => return Err(JobError::KeyReused),
            Once::Done(Canceled::NotFound) => return Err(JobError::NotFound),
            Once::Done(Canceled::AlreadyFinal(state)) => return Err(JobError::Final(state)),
            Once::Replay(_) => {}
            Once::Done(canceled @ (Canceled::Now | Canceled::Soon)) => {
                self.live.tell(Notice::Stored(tenant));
                self.unqueue(tenant, id, canceled).await?;
            }
        }
        self.job(tenant, id).await
    }

    /// Takes a canceled job's tasks out of the index.
    async fn unqueue(&self, tenant: TenantId, id: JobId, canceled: Canceled) -> Result<(), JobError> {
        let Some(view) = self.store.job(tenant, id).await? else { return Ok(()) };
        if canceled == Canceled::Now {
            self.trace_job(&view.job);
        }
        let canceled = view.tasks.iter().filter(|task| task.state == TaskState::Canceled);
        let canceled: Vec<TaskId> = canceled.map(|task| task.id).collect();
        if !canceled.is_empty() {
            self.told(self.queue.remove(None, &canceled).await);
        }
        Ok(())
    }

    /// An object of the tenant's job: committed, or one that a job that plays early has come to.
    ///
    /// # Errors
    /// There is none.
    pub async fn object(&self, tenant: TenantId, job: JobId, name: &str) -> Result<Served, JobError> {
        let view = self.store.job(tenant, job).await?.ok_or(JobError::NotFound)?;
        if let Some(entry) = view.objects.iter().find(|o| o.name == name) {
            return Ok(Served::File(entry.clone()));
        }
        let playable = playlists::of(&view).ok_or(JobError::NotFound)?;
        if let Some(list) = playable.lists.into_iter().find(|list| list.name == name) {
            let lasting = view.job.state == JobState::Succeeded;
            return Ok(Served::Playlist { list, lasting });
        }
        playable.files.into_iter().find(|file| file.name == name).map(Served::File).ok_or(JobError::NotFound)
    }

    /// The job of the tenant whose output is to be found in a folder.
    ///
    /// # Errors
    /// There is none.
    pub async fn job_at(&self, tenant: TenantId, folder: &str) -> Result<JobId, JobError> {
        self.store.job_at(tenant, folder).await?.ok_or(JobError::NotFound)
    }

    /// The bytes of a range of a committed object.
    ///
    /// # Errors
    /// Storage failed.
    pub async fn read_object(
        &self,
        tenant: TenantId,
        job: JobId,
        entry: &ManifestEntry,
        range: Range<u64>,
    ) -> Result<Bytestream, JobError> {
        let key = Key::Output(tenant, job, entry.attempt, entry.output);
        match self.objects.read(&key, range).await {
            // Of a job that failed after it began to play: they went with its other files.
            Err(ObjectError::Missing) if self.has_ended_badly(tenant, job).await? => Err(JobError::NotFound),
            read => read.map_err(JobError::Objects),
        }
    }

    async fn has_ended_badly(&self, tenant: TenantId, job: JobId) -> Result<bool, JobError> {
        let view = self.store.job(tenant, job).await?;
        Ok(view.is_none_or(|view| matches!(view.job.state, JobState::Failed | JobState::Canceled)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_copies_where_it_may_and_is_told_where_it_may_not() {
        let spec = |preset: &str, video: &str| {
            let text = format!(
                r#"{{"version":1,"input":{{"upload":"upl_0192f0c1a2b37c4d8e9f001122334455"}},"preset":"{preset}"{video}}}"#
            );
            JobSpec::parse(text.as_bytes()).unwrap()
        };
        let after = |preset: &str, video: &str, allowed: bool| {
            let mut spec = spec(preset, video);
            copying(&mut spec, PresetName::find(preset).unwrap(), allowed).map(|()| spec.video.copy)
        };
        assert_eq!(after("web", "", false).unwrap(), None);
        assert_eq!(after("web", "", true).unwrap(), Some(true));
        assert_eq!(after("web", r#","video":{"copy":false}"#, true).unwrap(), Some(false));
        assert_eq!(after("hevc", "", true).unwrap(), None);
        let refused = after("web", r#","video":{"copy":true}"#, false);
        assert!(matches!(refused, Err(SubmitError::Contradiction(c)) if c.field == "video.copy"));
    }
}
