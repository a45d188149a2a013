//! Errors on the wire: RFC 9457, made here and nowhere else. What is internal goes to the log and stays there.

use crate::engine::{CallError, IntakeError, JobError, PushError, SubmitError, UploadError, WebhookError};
use crate::objects::ObjectError;
use crate::plan::presets::PresetName;
use crate::store::StoreError;
use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use mpegflow_protocol::ParseError;
use mpegflow_protocol::api::Problem as Document;
use std::error::Error;

/// The kinds of problems: a stable code, an HTTP status and a title each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No such route, or nothing of this tenant there.
    NotFound,
    /// The route has no such method.
    MethodNotAllowed,
    /// No valid key.
    Unauthorized,
    /// A capability for something else.
    Forbidden,
    /// A body that cannot be read.
    Malformed,
    /// A field is wrong.
    InvalidField,
    /// A body is too long.
    TooLarge,
    /// There is no such preset.
    UnknownPreset,
    /// There is no such upload, or it cannot be used.
    UnknownUpload,
    /// There is no such object.
    UnknownObject,
    /// The tenant has no storage of its own.
    NoStorage,
    /// The tenant's own storage does not do its part.
    TenantStorage,
    /// The input is another one than it was.
    InputChanged,
    /// The upload is not finished.
    UploadUnfinished,
    /// The upload is quarantined.
    InputQuarantined,
    /// The upload has got elsewhere.
    OffsetMismatch,
    /// The bytes do not have the digest that came with them.
    ChecksumMismatch,
    /// The client speaks another version of a protocol.
    ProtocolVersion,
    /// The body is of another type than is taken here.
    MediaType,
    /// The upload is being written.
    UploadBusy,
    /// Another job has the path.
    PathTaken,
    /// A job needs the upload.
    UploadInUse,
    /// A quota is reached.
    QuotaExceeded,
    /// The job would cost more than it may.
    SpendExceeded,
    /// Too many requests.
    RateLimited,
    /// Too many bytes for the tenant.
    StorageQuota,
    /// The job has ended.
    JobFinal,
    /// The job has not ended.
    JobActive,
    /// The idempotency key was used for another request.
    IdempotencyMismatch,
    /// The range cannot be served.
    RangeNotSatisfiable,
    /// The body stopped coming.
    BodyTimeout,
    /// A length is needed first.
    LengthRequired,
    /// A resource of the cluster manages it.
    Managed,
    /// The lease is over.
    LeaseLost,
    /// What was sent is not what was announced, or out of turn.
    Conflict,
    /// What was sent is not what it is said to be.
    Unprocessable,
    /// Storage is full.
    StorageFull,
    /// The broker failed.
    Internal,
    /// The broker cannot do its work now.
    NotReady,
}

impl Kind {
    const fn parts(self) -> (&'static str, u16, &'static str) {
        match self {
            Self::NotFound => ("not_found", 404, "There is nothing here"),
            Self::MethodNotAllowed => ("method_not_allowed", 405, "This cannot be done here"),
            Self::Unauthorized => ("unauthorized", 401, "A valid key is needed"),
            Self::Forbidden => ("forbidden", 403, "This is not allowed"),
            Self::Malformed => ("malformed", 400, "That cannot be read"),
            Self::InvalidField => ("invalid_field", 422, "A field is wrong"),
            Self::TooLarge => ("too_large", 413, "That is too large"),
            Self::UnknownPreset => ("unknown_preset", 422, "There is no such preset"),
            Self::UnknownUpload => ("unknown_upload", 422, "There is no such upload"),
            Self::UnknownObject => ("unknown_object", 422, "There is no such object"),
            Self::NoStorage => ("no_storage", 422, "The tenant has no storage of its own"),
            Self::TenantStorage => ("tenant_storage", 503, "The tenant's storage does not do its part"),
            Self::InputChanged => ("input_changed", 412, "The input is another one than it was"),
            Self::UploadUnfinished => ("upload_unfinished", 409, "The upload is not finished"),
            Self::InputQuarantined => ("input_quarantined", 409, "The upload is quarantined"),
            Self::OffsetMismatch => ("offset_mismatch", 409, "The upload has got elsewhere"),
            Self::ChecksumMismatch => ("checksum_mismatch", 460, "The checksum does not match"),
            Self::ProtocolVersion => {
                ("protocol_version", 412, "Another version of the protocol is spoken here")
            }
            Self::MediaType => ("media_type", 415, "The body has to be of another type"),
            Self::UploadBusy => ("upload_busy", 409, "The upload is being written"),
            Self::PathTaken => ("path_taken", 409, "Another job has that path"),
            Self::UploadInUse => ("upload_in_use", 409, "A job needs the upload"),
            Self::QuotaExceeded => ("quota_exceeded", 429, "A quota is reached"),
            Self::SpendExceeded => ("spend_exceeded", 422, "The job would cost more than it may"),
            Self::RateLimited => ("rate_limited", 429, "There are too many requests"),
            Self::StorageQuota => ("storage_quota", 413, "The tenant has too many bytes"),
            Self::JobFinal => ("job_final", 409, "The job has ended"),
            Self::JobActive => ("job_active", 409, "The job has not ended"),
            Self::IdempotencyMismatch => {
                ("idempotency_mismatch", 422, "The idempotency key was used for another request")
            }
            Self::RangeNotSatisfiable => ("range_not_satisfiable", 416, "The range cannot be served"),
            Self::BodyTimeout => ("body_timeout", 408, "The body stopped coming"),
            Self::LengthRequired => ("length_required", 411, "The length is needed first"),
            Self::Managed => ("managed", 409, "A resource of the cluster manages this"),
            Self::LeaseLost => ("lease_lost", 409, "The lease is over"),
            Self::Conflict => ("conflict", 409, "That does not follow what came before"),
            Self::Unprocessable => ("unprocessable", 422, "That is not what it is said to be"),
            Self::StorageFull => ("storage_full", 507, "Storage is full"),
            Self::Internal => ("internal", 500, "The broker failed"),
            Self::NotReady => ("not_ready", 503, "The broker cannot do its work now"),
        }
    }
}

/// An error on its way to a client.
#[derive(Debug)]
pub struct Problem {
    kind: Kind,
    detail: Option<String>,
    field: Option<String>,
    headers: Vec<(header::HeaderName, String)>,
}

impl Problem {
    /// Of this kind.
    pub const fn new(kind: Kind) -> Self {
        Self { kind, detail: None, field: None, headers: Vec::new() }
    }

    /// Its HTTP status.
    pub fn status(&self) -> StatusCode {
        let (_, status, _) = self.kind.parts();
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// What is wrong here, and what to do.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// The field at fault.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// With a header.
    #[must_use]
    pub fn header(mut self, name: header::HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// What a tenant learns of storage: of its own, what that said.
    fn tenants_storage(error: &ObjectError) -> Self {
        match error {
            ObjectError::Own { bucket, reason } => {
                tracing::warn!(bucket, reason, "a tenant's own storage does not do its part");
                Self::new(Kind::TenantStorage)
                    .detail(format!("The bucket `{bucket}`: {reason}. Whoever runs the broker has to look at bucket, role or secret. What was acknowledged is kept."))
                    .header(header::RETRY_AFTER, "30")
            }
            error => Self::storage(error),
        }
    }

    /// A failure of the broker itself: the chain goes to the log, the client learns only that it happened.
    /// Storage that fails may work again soon; an object that is not what it has to be will not.
    fn storage(error: &ObjectError) -> Self {
        if matches!(error, ObjectError::Changed) {
            return Self::new(Kind::InputChanged);
        }
        let internal = Self::internal(error);
        if !matches!(error, ObjectError::Io { .. } | ObjectError::Own { .. }) {
            return internal;
        }
        Self::new(Kind::NotReady)
            .detail("Storage does not answer as it should; the broker's log says how. What was acknowledged is kept. Try again.")
            .header(header::RETRY_AFTER, "5")
    }

    fn internal(error: &dyn Error) -> Self {
        tracing::error!(error = %mpegflow_protocol::text::chain(error), "a call failed");
        Self::new(Kind::Internal).detail("The broker could not do its part; its log says why. Try again.")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        let (code, status, title) = self.kind.parts();
        let document = Document {
            kind: format!("/problems/{code}"),
            title: title.into(),
            status,
            detail: self.detail,
            field: self.field,
        };
        let mut response = Response::new(Body::from(mpegflow_protocol::to_json(&document)));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if self.kind == Kind::Unauthorized {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        }
        response
    }
}

impl From<ParseError> for Problem {
    fn from(error: ParseError) -> Self {
        match error {
            ParseError::TooLong { got, max, .. } => Self::new(Kind::TooLarge)
                .detail(format!("The body has {got} bytes; at most {max} are accepted.")),
            ParseError::Field { what, field, reason } => {
                Self::new(Kind::InvalidField).detail(format!("{what}: {reason}")).field(field)
            }
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full => full(),
            error => Self::internal(&error),
        }
    }
}

fn full() -> Problem {
    Problem::new(Kind::StorageFull)
        .detail("The broker's storage is full. Nothing of this call was kept that was not acknowledged; free space and send it again.")
}

fn key_reused() -> Problem {
    Problem::new(Kind::IdempotencyMismatch).detail("Use a new Idempotency-Key for a new request.")
}

fn managed(name: &str, list: &str) -> Problem {
    Problem::new(Kind::Managed).detail(format!(
        "Whoever runs the cluster has it in the Tenant resource, as `{name}` in spec.{list}. It is changed and deleted there."
    ))
}

impl From<UploadError> for Problem {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::Field { field, reason } => Self::new(Kind::InvalidField).detail(reason).field(field),
            UploadError::NotFound => Self::new(Kind::NotFound),
            UploadError::TooMany(max) => Self::new(Kind::QuotaExceeded)
                .detail(format!(
                    "There are {max} unfinished uploads, the most allowed. Finish or delete some."
                ))
                .header(header::RETRY_AFTER, "30"),
            UploadError::Quota(max) => Self::new(Kind::StorageQuota).detail(format!(
                "The uploads would exceed {max} bytes in all. Delete some that no job needs."
            )),
            UploadError::Busy => Self::new(Kind::UploadBusy)
                .detail("Another call is writing this upload. Wait for it to end, then go on."),
            UploadError::Offset(at) => Self::new(Kind::OffsetMismatch)
                .detail(format!("The next byte this upload needs is byte {at}."))
                .header(header::HeaderName::from_static("upload-offset"), at.to_string()),
            UploadError::TooLong => {
                Self::new(Kind::TooLarge).detail("The bytes would go beyond the length that was announced.")
            }
            UploadError::Checksum => Self::new(Kind::ChecksumMismatch)
                .detail("The bytes do not have the digest that came with them. None of them was kept; send them again."),
            UploadError::InUse => {
                Self::new(Kind::UploadInUse).detail("A job that has not ended reads this upload.")
            }
            UploadError::KeyReused => key_reused(),
            UploadError::Body(_) => Self::new(Kind::BodyTimeout).detail(
                "The body broke off. What was acknowledged is kept; ask for the offset and go on from there.",
            ),
            UploadError::Full => full(),
            UploadError::Objects(e) => Self::tenants_storage(&e),
            UploadError::Store(e) => e.into(),
        }
    }
}

impl From<WebhookError> for Problem {
    fn from(error: WebhookError) -> Self {
        match error {
            WebhookError::Field { field, reason } => {
                Self::new(Kind::InvalidField).detail(format!("{reason}.")).field(field)
            }
            WebhookError::NotFound => Self::new(Kind::NotFound),
            WebhookError::TooMany(max) => Self::new(Kind::QuotaExceeded)
                .detail(format!("There are {max} webhooks, the most allowed. Delete one."))
                .header(header::RETRY_AFTER, "30"),
            WebhookError::Managed(name) => managed(&name, "webhooks"),
            WebhookError::KeyReused => key_reused(),
            WebhookError::Changed => Self::new(Kind::Conflict)
                .detail("Another call changed the webhook at the same time. Try again."),
            WebhookError::Randomness => Self::internal(&error),
            WebhookError::Store(e) => e.into(),
        }
    }
}

impl From<PushError> for Problem {
    fn from(error: PushError) -> Self {
        match error {
            PushError::Field { field, reason } => {
                Self::new(Kind::InvalidField).detail(format!("{reason}.")).field(field)
            }
            PushError::Rule { name, error } => {
                let problem = Self::from(error);
                let field = problem.field.as_deref().map_or_else(String::new, |field| format!(".{field}"));
                Self { field: Some(format!("intake[{name}]{field}")), ..problem }
            }
            PushError::Randomness => Self::internal(&error),
            PushError::Store(e) => e.into(),
        }
    }
}

impl From<SubmitError> for Problem {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::UnknownPreset(name) => {
                let known: Vec<_> = PresetName::ALL.iter().map(|p| p.as_str()).collect();
                Self::new(Kind::UnknownPreset)
                    .detail(format!("There is no preset `{name}`; there are: {}.", known.join(", ")))
                    .field("preset")
            }
            SubmitError::Contradiction(c) => Self::new(Kind::InvalidField).detail(c.to_string()).field(c.field),
            SubmitError::NoPool(name) => Self::new(Kind::InvalidField)
                .detail(format!(
                    "There is no pool `{name}` for this tenant: none of its own, and no shared one that was made or has a worker. Leave the field out for the usual one."
                ))
                .field("pool"),
            SubmitError::NoUpload => Self::new(Kind::UnknownUpload).detail("There is no such upload.").field("input.upload"),
            SubmitError::NoObject => Self::new(Kind::UnknownObject).detail("There is no such object.").field("input.object"),
            SubmitError::Unfinished => Self::new(Kind::UploadUnfinished)
                .detail("Send the rest of the upload first.")
                .field("input.upload"),
            SubmitError::NoStorage => Self::new(Kind::NoStorage)
                .detail("Upload the file, or have whoever runs the broker give this tenant storage of its own.")
                .field("input.storage"),
            SubmitError::NoStored => {
                Self::new(Kind::UnknownObject).detail("There is no such object in the tenant's storage.").field("input.storage")
            }
            SubmitError::Key(bad) => Self::new(Kind::InvalidField).detail(format!("{bad}.")).field("input.storage"),
            SubmitError::TooLarge(size) => Self::new(Kind::TooLarge)
                .detail(format!("The object has {size} bytes; at most {} are accepted.", mpegflow_protocol::limits::MAX_UPLOAD))
                .field("input.storage"),
            SubmitError::Quarantined => Self::new(Kind::InputQuarantined)
                .detail("An earlier job on this input broke a lock or the codec's protocol; it is not decoded again.")
                .field("input"),
            SubmitError::Path(e) | SubmitError::Spec(e) => e.into(),
            SubmitError::Known | SubmitError::NoRule => Self::new(Kind::Conflict).detail(format!("{error}.")),
            SubmitError::PathTaken(job) => Self::new(Kind::PathTaken)
                .detail(format!("The output of {job} is there. Use another path, such as one with {{job}} in it."))
                .field("output.path"),
            SubmitError::TooMany(max) => Self::new(Kind::QuotaExceeded)
                .detail(format!("There are {max} jobs that have not ended, the most allowed. Wait for some."))
                .header(header::RETRY_AFTER, "30"),
            SubmitError::TooExpensive(exceeded) => {
                Self::new(Kind::SpendExceeded).detail(format!("{exceeded}.")).field(exceeded.field)
            }
            SubmitError::NoMinutes { most, next_day_s } => Self::new(Kind::QuotaExceeded)
                .detail(format!("The {most} minutes of input that this tenant has a day do not leave enough for this job; there are new ones at midnight, UTC."))
                .field("minutes_per_day")
                .header(header::RETRY_AFTER, next_day_s.to_string()),
            SubmitError::KeyReused => key_reused(),
            SubmitError::Objects(ObjectError::Full) => full(),
            SubmitError::Objects(e) => Self::tenants_storage(&e),
            SubmitError::Store(e) => e.into(),
        }
    }
}

impl From<IntakeError> for Problem {
    fn from(error: IntakeError) -> Self {
        match error {
            IntakeError::Rule(e) => e.into(),
            IntakeError::Job(e) => {
                let problem = Self::from(e);
                let field = problem.field.as_deref().map(|field| format!("job.{field}"));
                Self { field, ..problem }
            }
            IntakeError::NotFound => Self::new(Kind::NotFound),
            IntakeError::TooMany(max) => Self::new(Kind::QuotaExceeded)
                .detail(format!("There are {max} rules, the most allowed. Delete one."))
                .header(header::RETRY_AFTER, "30"),
            IntakeError::Managed(name) => managed(&name, "intake"),
            IntakeError::KeyReused => key_reused(),
            IntakeError::NoStorage => Self::new(Kind::NoStorage)
                .detail("Objects arrive in a tenant's own storage: have whoever runs the broker give this tenant some."),
            IntakeError::OtherBucket(bucket) => Self::new(Kind::InvalidField)
                .detail(format!("The bucket `{bucket}` is not this tenant's own. No event of the body was taken; send those of the tenant's bucket alone."))
                .field("Records.s3.bucket.name"),
            IntakeError::Submit(e) => e.into(),
            IntakeError::Store(e) => e.into(),
        }
    }
}

impl From<JobError> for Problem {
    fn from(error: JobError) -> Self {
        match error {
            JobError::NotFound => Self::new(Kind::NotFound),
            JobError::Final(state) => Self::new(Kind::JobFinal)
                .detail(format!("The job is {}; there is nothing to cancel.", state.as_str())),
            JobError::Active => Self::new(Kind::JobActive)
                .detail("The job has not ended. Cancel it and wait for its end, then delete it."),
            JobError::KeyReused => key_reused(),
            JobError::Objects(e) => Self::tenants_storage(&e),
            JobError::Store(e) => e.into(),
        }
    }
}

// A worker is hostile: it learns what it needs to go on, and nothing of why.
impl From<CallError> for Problem {
    fn from(error: CallError) -> Self {
        match error {
            CallError::BadCapability | CallError::UnknownWorker => Self::new(Kind::Unauthorized),
            CallError::NotYours | CallError::NoUrl => Self::new(Kind::Forbidden),
            CallError::LeaseLost => Self::new(Kind::LeaseLost),
            CallError::NoSlot => Self::new(Kind::NotFound),
            CallError::Range(total) => {
                Self::new(Kind::RangeNotSatisfiable).header(header::CONTENT_RANGE, format!("bytes */{total}"))
            }
            CallError::TooLarge => Self::new(Kind::TooLarge),
            CallError::PartOrder | CallError::PartConflict => Self::new(Kind::Conflict),
            CallError::PartBody(_) => {
                Self::new(Kind::Unprocessable).detail("the body is not what was announced")
            }
            CallError::OutputDiffers(n) => {
                Self::new(Kind::Unprocessable).detail(format!("output {n} is not what was received"))
            }
            CallError::Refused(failure) => Self::new(Kind::Unprocessable).detail(failure.to_string()),
            CallError::Full => Self::new(Kind::StorageFull),
            CallError::Objects(e) => Self::storage(&e),
            CallError::Store(e) => e.into(),
        }
    }
}
