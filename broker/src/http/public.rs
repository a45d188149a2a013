//! The public API.

use super::openapi;
use super::problem::{Kind, Problem};
use super::range::{self, Wanted};
use super::{auth, body, cors, sse, tus};
use crate::engine::{self, Engine, Served};
use crate::model::ManifestEntry;
use crate::plan::playlists::{self, Playlist};
use crate::plan::presets::PresetName;
use crate::scopes::Scope;
use crate::secret;
use crate::store::Idempotency;
use crate::trace::Remote;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, Method, Response, StatusCode, Uri, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use mpegflow_protocol::api::{CreateUpload, Job, JobLogs, JobPage, JobState, Preset, Upload};
use mpegflow_protocol::ids::JobId;
use mpegflow_protocol::job::JobSpec;
use mpegflow_protocol::limits::MAX_API_BODY;
use mpegflow_protocol::{from_json, text, to_json};
use serde::Serialize;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

const IDEMPOTENCY_KEY: &str = "idempotency-key";
const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");
const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
pub(super) const MAX_PAGE: u32 = 200;
pub(super) const DEFAULT_PAGE: u32 = 50;

#[derive(Clone)]
pub(super) struct App {
    pub(super) engine: Arc<Engine>,
    stop: CancellationToken,
    streams: sse::Open,
}

pub(super) type Answer = Result<Response<Body>, Problem>;

/// Every route of the public API, by method.
pub const ROUTES: &[(&str, &str)] = &[
    ("POST", "/v1/uploads"),
    ("GET", "/v1/uploads/{id}"),
    ("PUT", "/v1/uploads/{id}"),
    ("PATCH", "/v1/uploads/{id}"),
    ("DELETE", "/v1/uploads/{id}"),
    ("POST", "/v1/jobs"),
    ("GET", "/v1/jobs"),
    ("GET", "/v1/jobs/{id}"),
    ("DELETE", "/v1/jobs/{id}"),
    ("POST", "/v1/jobs/{id}/cancel"),
    ("GET", "/v1/jobs/{id}/logs"),
    ("GET", "/v1/jobs/{id}/events"),
    ("GET", "/v1/events"),
    ("GET", "/v1/objects/{job}/{name}"),
    ("GET", "/v1/files/{path}"),
    ("GET", "/v1/presets"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/openapi.json"),
];

/// The public API's routes, and `extra` beside them. Pages of `origins` may call them. `stop` ends event streams.
pub fn router(
    engine: Arc<Engine>,
    extra: Option<Router>,
    origins: cors::Origins,
    stop: CancellationToken,
) -> Router {
    let router = Router::new()
        .route("/v1/uploads", post(create_upload))
        .route("/v1/uploads/{id}", get(show_upload).put(put_upload).patch(patch_upload).delete(delete_upload))
        .route("/v1/jobs", post(submit).get(list_jobs))
        .route("/v1/jobs/{id}", get(show_job).delete(delete_job))
        .route("/v1/jobs/{id}/cancel", post(cancel_job))
        .route("/v1/jobs/{id}/logs", get(job_logs))
        .route("/v1/jobs/{id}/events", get(job_events))
        .route("/v1/events", get(events))
        .route("/v1/objects/{job}/{name}", get(object))
        .route("/v1/files/{*path}", get(file))
        .route("/v1/presets", get(presets))
        .merge(tus::routes())
        .merge(super::webhooks::routes())
        .merge(super::intake::routes())
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/openapi.json", get(openapi_json))
        .method_not_allowed_fallback(async || Problem::new(Kind::MethodNotAllowed))
        .with_state(App { engine: Arc::clone(&engine), stop, streams: sse::Open::default() });
    let router = match extra {
        Some(extra) => router.merge(extra),
        None => router,
    };
    let router = router.fallback(async || Problem::new(Kind::NotFound));
    let router = router.layer(axum::middleware::from_fn_with_state(origins, cors::answer));
    router.layer(axum::middleware::from_fn_with_state(engine, observed))
}

/// Measures each request, and lets no connection live on when the broker is about to end: who is in front would send the next
/// request into its close.
async fn observed(
    State(engine): State<Arc<Engine>>,
    request: Request,
    next: axum::middleware::Next,
) -> Response<Body> {
    let matched = request.extensions().get::<axum::extract::MatchedPath>();
    let all = ROUTES.iter().chain(super::webhooks::ROUTES).chain(super::intake::ROUTES).chain(tus::ROUTES);
    let mut known = all.map(|(_, path)| *path);
    let route = matched.and_then(|path| known.find(|known| *known == path.as_str())).unwrap_or("other");
    let start = std::time::Instant::now();
    let mut response = next.run(request).await;
    engine.meters().answered(route, response.status().as_u16(), start.elapsed());
    if engine.is_draining() {
        response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    }
    response
}

pub(super) fn json<T: Serialize>(status: StatusCode, value: &T) -> Response<Body> {
    json_bytes(status, to_json(value))
}

pub(super) fn json_bytes(status: StatusCode, bytes: Vec<u8>) -> Response<Body> {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (status, headers, bytes).into_response()
}

/// An id in a path: one that is none names nothing.
pub(super) fn id<K: mpegflow_protocol::ids::Kind>(
    text: &str,
) -> Result<mpegflow_protocol::ids::Id<K>, Problem> {
    text.parse().map_err(|_| Problem::new(Kind::NotFound))
}

pub(super) fn idempotency(
    headers: &HeaderMap,
    method: &str,
    path: &str,
    body: &[u8],
) -> Result<Option<Idempotency>, Problem> {
    let Some(key) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let key = key.to_str().ok().filter(|key| text::is_label(key, 128)).ok_or_else(|| {
        Problem::new(Kind::InvalidField).detail("1 to 128 printable characters").field("Idempotency-Key")
    })?;
    let mut request = format!("{method} {path}\n").into_bytes();
    request.extend_from_slice(body);
    Ok(Some(Idempotency { key: key.to_owned(), request: secret::sha256(&request) }))
}

/// The query's parameters, each of which has to be known: a misspelt filter must not show everything.
pub(super) fn query<'a>(uri: &'a Uri, known: &[&str]) -> Result<Vec<(&'a str, &'a str)>, Problem> {
    let pairs = uri.query().unwrap_or("").split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if known.contains(&name) {
                return Ok((name, value));
            }
            let known = known.join(", ");
            Err(Problem::new(Kind::InvalidField)
                .detail(format!("There is no such parameter; there are: {known}."))
                .field(text::clean(name, 64)))
        })
        .collect()
}

pub(super) fn wrong(field: &str, detail: &str) -> Problem {
    Problem::new(Kind::InvalidField).detail(detail).field(field)
}

// === uploads

#[utoipa::path(post, path = "/v1/uploads", request_body = CreateUpload, params(("Idempotency-Key" = Option<String>, Header, description = "A repeated call with the same key gets the same answer")), responses((status = 201, body = Upload)))]
async fn create_upload(State(app): State<App>, request: Request) -> Answer {
    let tenant = auth::may(&app.engine, request.headers(), Scope::Upload).await?;
    let (head, body) = request.into_parts();
    let body = body::read(body, MAX_API_BODY).await?;
    let wanted: CreateUpload = from_json("upload", &body, MAX_API_BODY)?;
    let once = idempotency(&head.headers, "POST", head.uri.path(), &body)?;
    let answer = app.engine.create_upload(tenant, &wanted, once.as_ref()).await?;
    created("/v1/uploads", answer)
}

/// 201 with where the new thing is.
pub(super) fn created(under: &str, answer: Vec<u8>) -> Answer {
    #[derive(serde::Deserialize)]
    struct HasId {
        id: String,
    }
    let id = serde_json::from_slice::<HasId>(&answer).map_err(|_| Problem::new(Kind::Internal))?.id;
    let mut response = json_bytes(StatusCode::CREATED, answer);
    let location = format!("{under}/{id}").parse().map_err(|_| Problem::new(Kind::Internal))?;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

fn upload_answer(upload: &Upload) -> Response<Body> {
    let mut response = json(StatusCode::OK, upload);
    response.headers_mut().insert(UPLOAD_OFFSET, upload.offset.into());
    response.headers_mut().insert(UPLOAD_LENGTH, upload.size.into());
    response
}

#[utoipa::path(get, path = "/v1/uploads/{id}", params(("id" = String, Path)), responses((status = 200, body = Upload)))]
async fn show_upload(State(app): State<App>, Path(upload): Path<String>, request: Request) -> Answer {
    let tenant = auth::may_one(&app.engine, request.headers(), [Scope::Read, Scope::Upload]).await?;
    Ok(upload_answer(&app.engine.upload(tenant, id(&upload)?).await?))
}

#[utoipa::path(put, path = "/v1/uploads/{id}", params(("id" = String, Path), ("offset" = Option<u64>, Query, description = "Where these bytes start: the upload's offset; 0 where it is left out")), request_body(content = Vec<u8>, content_type = "application/octet-stream"), responses((status = 200, body = Upload)))]
async fn put_upload(State(app): State<App>, Path(upload): Path<String>, request: Request) -> Answer {
    let mut offset = 0;
    for (name, value) in query(request.uri(), &["offset"])? {
        offset = value.parse().map_err(|_| wrong(name, "a number of bytes"))?;
    }
    write_upload(app, upload, offset, request).await
}

#[utoipa::path(patch, path = "/v1/uploads/{id}", params(("id" = String, Path), ("Upload-Offset" = u64, Header, description = "Where these bytes start: the upload's offset")), request_body(content = Vec<u8>, content_type = "application/offset+octet-stream"), responses((status = 200, body = Upload)))]
async fn patch_upload(State(app): State<App>, Path(upload): Path<String>, request: Request) -> Answer {
    let offset = request.headers().get(UPLOAD_OFFSET).and_then(|h| h.to_str().ok()?.parse().ok());
    let offset = offset.ok_or_else(|| wrong("Upload-Offset", "a number of bytes"))?;
    write_upload(app, upload, offset, request).await
}

async fn write_upload(app: App, upload: String, offset: u64, request: Request) -> Answer {
    let tenant = auth::may(&app.engine, request.headers(), Scope::Upload).await?;
    let upload = id(&upload)?;
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|h| h.to_str().ok()?.parse().ok());
    let body = body::stream(request.into_body());
    Ok(upload_answer(&app.engine.write_upload(tenant, upload, offset, announced, body).await?))
}

#[utoipa::path(delete, path = "/v1/uploads/{id}", params(("id" = String, Path)), responses((status = 204)))]
async fn delete_upload(State(app): State<App>, Path(upload): Path<String>, request: Request) -> Answer {
    let tenant = auth::may(&app.engine, request.headers(), Scope::Delete).await?;
    app.engine.delete_upload(tenant, id(&upload)?, false).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

// === jobs

#[utoipa::path(post, path = "/v1/jobs", request_body = JobSpec, params(("Idempotency-Key" = Option<String>, Header, description = "A repeated call with the same key gets the same answer")), responses((status = 201, body = Job)))]
async fn submit(State(app): State<App>, request: Request) -> Answer {
    let engine = Arc::clone(&app.engine);
    let traced = engine.begin_request(traceparent(&engine, request.headers()));
    let answer = create_job(app, request, traced.as_ref()).await;
    if let Some(traced) = &traced {
        let status = match &answer {
            Ok(response) => response.status(),
            Err(problem) => problem.status(),
        };
        engine.end_request(traced, status.as_u16());
    }
    answer
}

/// What the caller says of its own trace, where that is looked at. Said twice, it says nothing.
fn traceparent(engine: &Engine, headers: &HeaderMap) -> Option<Remote> {
    let mut said = headers.get_all("traceparent").iter().take_while(|_| engine.reads_context());
    let first = said.next()?.to_str().ok()?;
    first.parse().ok().filter(|_| said.next().is_none())
}

async fn create_job(app: App, request: Request, traced: Option<&engine::Request>) -> Answer {
    let tenant = auth::may(&app.engine, request.headers(), Scope::Submit).await?;
    if let Some(traced) = traced {
        traced.of(tenant);
    }
    let (head, body) = request.into_parts();
    let body = body::read(body, MAX_API_BODY).await?;
    let spec = JobSpec::parse(&body)?;
    let once = idempotency(&head.headers, "POST", head.uri.path(), &body)?;
    let answer = app.engine.submit(tenant, spec, once.as_ref(), traced).await?;
    created("/v1/jobs", answer)
}

#[utoipa::path(get, path = "/v1/jobs", params(("state" = Option<JobState>, Query), ("limit" = Option<u32>, Query, description = "1 to 200; 50 where it is left out"), ("after" = Option<String>, Query, description = "The `next` of the page before")), responses((status = 200, body = JobPage)))]
async fn list_jobs(State(app): State<App>, request: Request) -> Answer {
    let tenant = auth::may(&app.engine, request.headers(), Scope::Read).await?;
    let (mut state, mut after, mut limit) = (None, None, DEFAULT_PAGE);
    for (name, value) in query(request.uri(), &["state", "limit", "after"])? {
        match name {
            "state" => {
                let word = serde_json::Value::String(value.to_owned());
                let parsed: JobState = serde_json::from_value(word)
                    .map_err(|_| wrong(name, "queued, running, canceling, succeeded, failed or canceled"))?;
                state = Some(parsed);
            }
            "limit" => {
                let parsed: Option<u32> = value.parse().ok().filter(|n| (1..=MAX_PAGE).contains(n));
                limit = parsed.ok_or_else(|| wrong(name, "a number from 1 to 200"))?;
            }
            _ => after = Some(value.parse::<JobId>().map_err(|_| wrong(name, "the id of a job"))?),
        }
    }
    Ok(json(StatusCode::OK, &app.engine.jobs(tenant, state, after, limit).await?))
}

#[utoipa::path(get, path = "/v1/jobs/{id}", params(("id" = String, Path)), responses((status = 200, body = Job)))]
async fn show_job(State(app): State<App>, Path(job): Path<String>, request: Request) -> Answer {
    let tenant = auth::may(&app.engine, request.headers(), Scope::Read).await?;
    Ok(json(StatusCode::OK, &app.engine.job(tenant, id(&job)?).await?))
}

#[utoipa::path(delete, path = "/v1/jobs/{id}", params(("id" = String, Path)), responses((status = 204, description = "It is gone; its output and what its events say are removed within a minute"), (status = 409, description = "It has not ended")))]
async fn delete_job(State(app): State<App>, Path(job): Path<String>, request: Request) -> Answer {
    let tenant = auth::may(&app.engine, request.headers(), Scope::Delete).await?;
    app.engine.delete_job(tenant, id(&job)?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[utoipa::path(post, path = "/v1/jobs/{id}/cancel", params(("id" = String, Path)), responses((status = 200, body = Job)))]
async fn cancel_job(State(app): State<App>, Path(job): Path<String>, request: Request) -> Answer {
    let tenant = auth::may(&app.engine, request.headers(), Scope::Submit).await?;
    let (head, body) = request.into_parts();
    let body = body::read(body, MAX_API_BODY).await?;
    let once = idempotency(&head.headers, "POST", head.uri.path(), &body)?;
    Ok(json(StatusCode::OK, &app.engine.cancel(tenant, id(&job)?, once.as_ref()).await?))
}

#[utoipa::path(get, path = "/v1/jobs/{id}/logs", params(("id" = String, Path)), responses((status = 200, body = JobLogs)))]
async fn job_logs(State(app): State<App>, Path(job): Path<String>, request: Request) -> Answer {
    let tenant = auth::may(&app.engine, request.headers(), Scope::Read).await?;
    Ok(json(StatusCode::OK, &app.engine.logs(tenant, id(&job)?).await?))
}

// === events

fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    let number = value.to_str().ok().and_then(|v| v.trim().parse().ok());
    number.map(Some).ok_or_else(|| wrong("Last-Event-ID", "the id of an event"))
}

#[utoipa::path(get, path = "/v1/jobs/{id}/events", params(("id" = String, Path), ("Last-Event-ID" = Option<u64>, Header, description = "Only what came after it")), responses((status = 200, description = "Server-sent events, from the job's first to its last; data is an Event", content_type = "text/event-stream", body = mpegflow_protocol::api::Event)))]
async fn job_events(State(app): State<App>, Path(job): Path<String>, request: Request) -> Answer {
    let tenant = auth::may(&app.engine, request.headers(), Scope::Read).await?;
    let job = id(&job)?;
    app.engine.job(tenant, job).await?;
    let after = last_event_id(request.headers())?.unwrap_or(0);
    sse::stream(app.engine, tenant, Some(job), after, app.stop, &app.streams)
}

#[utoipa::path(get, path = "/v1/events", params(("job" = Option<String>, Query, description = "Only of this job, from its first event on"), ("Last-Event-ID" = Option<u64>, Header, description = "What came after it; where it is left out, what comes from now on")), responses((status = 200, description = "Server-sent events; data is an Event", content_type = "text/event-stream", body = mpegflow_protocol::api::Event)))]
async fn events(State(app): State<App>, request: Request) -> Answer {
    let tenant = auth::may(&app.engine, request.headers(), Scope::Read).await?;
    let mut job = None;
    for (_, value) in query(request.uri(), &["job"])? {
        job = Some(id(value)?);
    }
    if let Some(job) = job {
        app.engine.job(tenant, job).await?;
    }
    let after = match last_event_id(request.headers())? {
        Some(after) => after,
        None if job.is_some() => 0,
        None => app.engine.store().last_event(tenant).await?,
    };
    sse::stream(app.engine, tenant, job, after, app.stop, &app.streams)
}

// === objects

#[utoipa::path(get, path = "/v1/objects/{job}/{name}", params(("job" = String, Path), ("name" = String, Path), ("Range" = Option<String>, Header), ("If-Range" = Option<String>, Header), ("If-None-Match" = Option<String>, Header)), responses((status = 200, description = "The object", content_type = "application/octet-stream", body = Vec<u8>), (status = 206, description = "A part of it", content_type = "application/octet-stream", body = Vec<u8>), (status = 304), (status = 416)))]
async fn object(
    State(app): State<App>,
    Path((job, name)): Path<(String, String)>,
    request: Request,
) -> Answer {
    let tenant = auth::may(&app.engine, request.headers(), Scope::Read).await?;
    let job = id(&job)?;
    send_object(&app, tenant, job, &name, request.into_parts().0).await
}

#[utoipa::path(get, path = "/v1/files/{path}", params(("path" = String, Path, description = "The path that the job's `output.path` came to, slashes and all"), ("Range" = Option<String>, Header), ("If-Range" = Option<String>, Header), ("If-None-Match" = Option<String>, Header)), responses((status = 200, description = "The object", content_type = "application/octet-stream", body = Vec<u8>), (status = 206, description = "A part of it", content_type = "application/octet-stream", body = Vec<u8>), (status = 304), (status = 416)))]
async fn file(State(app): State<App>, Path(path): Path<String>, request: Request) -> Answer {
    let tenant = auth::may(&app.engine, request.headers(), Scope::Read).await?;
    let (folder, name) = mpegflow_protocol::path::split(&path).ok_or_else(|| Problem::new(Kind::NotFound))?;
    let job = app.engine.job_at(tenant, folder).await?;
    send_object(&app, tenant, job, name, request.into_parts().0).await
}

async fn send_object(
    app: &App,
    tenant: mpegflow_protocol::ids::TenantId,
    job: JobId,
    name: &str,
    head: axum::http::request::Parts,
) -> Answer {
    let entry = match app.engine.object(tenant, job, name).await? {
        Served::File(entry) => {
            Stored { size: entry.size, digest: entry.digest.clone(), from: Source::File(entry) }
        }
        // It is another one the next time that somebody asks.
        Served::Playlist { list, lasting: false } => return Ok(growing(&head.method, list)),
        Served::Playlist { list, lasting: true } => Stored {
            size: u64::try_from(list.text.len()).unwrap_or(u64::MAX),
            digest: list.digest(),
            from: Source::Text(list.text),
        },
    };
    let headers = &head.headers;
    let text = |name: HeaderName| headers.get(name).and_then(|h| h.to_str().ok());
    let etag = format!("\"{}\"", entry.digest);
    let base = || {
        Response::builder()
            .header(header::ETAG, &etag)
            .header(header::ACCEPT_RANGES, "bytes")
            .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
            // Committed objects never change; who may see them can.
            .header(header::CACHE_CONTROL, "private, max-age=3600, immutable")
    };
    let done = |response: axum::http::response::Builder, body| {
        response.body(body).map_err(|_| Problem::new(Kind::Internal))
    };
    let matches =
        |list: &str| list.split(',').any(|t| t.trim() == "*" || t.trim().trim_start_matches("W/") == etag);
    if text(header::IF_NONE_MATCH).is_some_and(matches) {
        return done(base().status(StatusCode::NOT_MODIFIED), Body::empty());
    }
    // A range of another version would be stitched to this one.
    let range_wanted = text(header::RANGE).filter(|_| text(header::IF_RANGE).is_none_or(|tag| tag == etag));
    let (status, range) = match range::parse(range_wanted, entry.size) {
        Wanted::Whole => (StatusCode::OK, 0..entry.size),
        Wanted::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Wanted::Unsatisfiable => {
            return Err(Problem::new(Kind::RangeNotSatisfiable)
                .header(header::CONTENT_RANGE, format!("bytes */{}", entry.size)));
        }
    };
    let mut response = base()
        .status(status)
        .header(header::CONTENT_TYPE, entry.content_type())
        .header(header::CONTENT_LENGTH, range.end.saturating_sub(range.start));
    if status == StatusCode::PARTIAL_CONTENT {
        response = response.header(header::CONTENT_RANGE, range::content_range(&range, entry.size));
    }
    if head.method == Method::HEAD {
        return done(response, Body::empty());
    }
    match &entry.from {
        Source::File(file) => {
            let bytes = app.engine.read_object(tenant, job, file, range).await?;
            done(response, Body::from_stream(bytes))
        }
        Source::Text(text) => {
            let at = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
            let part = text.as_bytes().get(at(range.start)..at(range.end)).unwrap_or_default();
            done(response, Body::from(part.to_vec()))
        }
    }
}

/// An object as it is sent.
struct Stored {
    size: u64,
    digest: String,
    from: Source,
}

/// Where its bytes are.
enum Source {
    File(ManifestEntry),
    Text(String),
}

impl Stored {
    fn content_type(&self) -> &str {
        match &self.from {
            Source::File(entry) => &entry.content_type,
            Source::Text(_) => playlists::CONTENT_TYPE,
        }
    }
}

/// A playlist that is not what it will be.
fn growing(method: &Method, list: Playlist) -> Response<Body> {
    let headers = [
        (header::CONTENT_TYPE, playlists::CONTENT_TYPE),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    let length = list.text.len();
    let body = if *method == Method::HEAD { Body::empty() } else { Body::from(list.text) };
    (headers, [(header::CONTENT_LENGTH, length)], body).into_response()
}

// === the rest

#[utoipa::path(get, path = "/v1/presets", responses((status = 200, body = Vec<Preset>)))]
async fn presets(State(app): State<App>, request: Request) -> Answer {
    auth::may(&app.engine, request.headers(), Scope::Read).await?;
    let presets: Vec<Preset> = PresetName::ALL.iter().map(|p| p.describe()).collect();
    Ok(json(StatusCode::OK, &presets))
}

#[utoipa::path(get, path = "/healthz", security(()), responses((status = 200, description = "The process answers")))]
async fn healthz() -> &'static str {
    "ok\n"
}

#[utoipa::path(get, path = "/readyz", security(()), responses((status = 200, description = "The store and storage answer"), (status = 503)))]
async fn readyz(State(app): State<App>) -> Answer {
    if !app.engine.is_draining() && app.engine.ready().await {
        Ok("ready\n".into_response())
    } else {
        Err(Problem::new(Kind::NotReady))
    }
}

#[utoipa::path(get, path = "/openapi.json", security(()), responses((status = 200, description = "This document")))]
async fn openapi_json() -> Response<Body> {
    json(StatusCode::OK, &openapi::document())
}
