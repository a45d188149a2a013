//! The worker API, as `mpegflow_protocol::worker` documents it.

use super::problem::{Kind, Problem};
use super::range::{self, Wanted};
use super::serve::TlsPeer;
use super::{auth, body};
use crate::ca::{Ca, CaError, Peer, WORKER_CERTIFICATE};
use crate::engine::{Engine, Granted, LeaseAnswer};
use crate::secret;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, Response, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post, put};
use mpegflow_protocol::ids::{AttemptId, WorkerId};
use mpegflow_protocol::limits::MAX_WORKER_BODY;
use mpegflow_protocol::worker::{
    Complete, Enroll, Enrolled, Fail, Heartbeat, Lease, LeaseReply, LeaseRequest, PART_DIGEST_HEADER, Renew,
};
use mpegflow_protocol::{from_json, to_json};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;

const MAX_WAIT: Duration = Duration::from_secs(30);

/// What the handlers need.
#[derive(Clone)]
struct App {
    engine: Arc<Engine>,
    ca: Arc<Ca>,
}

/// The worker API's routes.
pub fn router(engine: Arc<Engine>, ca: Arc<Ca>) -> Router {
    Router::new()
        .route("/worker/v1/enroll", post(enroll))
        .route("/worker/v1/renew", post(renew))
        .route("/worker/v1/lease", post(lease))
        .route("/worker/v1/attempts/{attempt}/inputs/{input}", get(read_input))
        .route("/worker/v1/attempts/{attempt}/outputs/{output}/parts/{part}", put(put_part))
        .route("/worker/v1/attempts/{attempt}/heartbeat", post(heartbeat))
        .route("/worker/v1/attempts/{attempt}/complete", post(complete))
        .route("/worker/v1/attempts/{attempt}/fail", post(fail))
        .route("/worker/v1/attempts/{attempt}/release", post(release))
        .method_not_allowed_fallback(async || Problem::new(Kind::MethodNotAllowed))
        .fallback(async || Problem::new(Kind::NotFound))
        .with_state(App { engine, ca })
}

async fn parse<T: DeserializeOwned>(what: &'static str, body: Body) -> Result<T, Problem> {
    let bytes = body::read(body, MAX_WORKER_BODY).await?;
    Ok(from_json(what, &bytes, MAX_WORKER_BODY)?)
}

fn json<T: Serialize>(value: &T) -> Response<Body> {
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], to_json(value))
        .into_response()
}

/// The worker whose certificate was shown.
fn peer(app: &App, request: &Request) -> Result<Peer, Problem> {
    let connection = request.extensions().get::<TlsPeer>();
    let shown = connection.and_then(|peer| peer.0.clone());
    // The handshake checked the dates once; the connection may have outlived the certificate.
    let peer = shown
        .filter(|peer| peer.expires > app.engine.now())
        .ok_or_else(|| Problem::new(Kind::Unauthorized))?;
    let presence = app.engine.presence();
    if let Some(connection) = connection {
        connection.count(|| presence.connect(&peer.pool));
    }
    presence.heard(&peer.pool);
    Ok(peer)
}

fn grant(app: &App, worker: WorkerId, attempt: &str, headers: &HeaderMap) -> Result<Granted, Problem> {
    let capability = auth::bearer(headers).ok_or_else(|| Problem::new(Kind::Unauthorized))?;
    let attempt: AttemptId = attempt.parse().map_err(|_| Problem::new(Kind::NotFound))?;
    Ok(app.engine.authorize(worker, attempt, capability)?)
}

fn position(text: &str) -> Result<u32, Problem> {
    text.parse().map_err(|_| Problem::new(Kind::NotFound))
}

async fn enroll(State(app): State<App>, request: Request) -> Result<Response<Body>, Problem> {
    let enroll: Enroll = parse("enrolment", request.into_body()).await?;
    let pool = app.engine.store().join_token(secret::sha256(enroll.token.as_bytes())).await?;
    // One answer for a wrong token and for a right one of another pool.
    let pool = pool.filter(|pool| *pool == enroll.pool).ok_or_else(|| Problem::new(Kind::Unauthorized))?;
    let worker = secret::fresh_id();
    let enrolled = certificate(&app, &enroll.csr, worker, &pool)?;
    let now = app.engine.now();
    let expires = now.plus_ms(enrolled.expires_in_s.saturating_mul(1000));
    app.engine.store().add_worker(worker, &pool, expires, now).await?;
    tracing::info!(%worker, %pool, version = %mpegflow_protocol::text::clean(&enroll.version, 64), "a worker enrolled");
    Ok(json(&enrolled))
}

async fn renew(State(app): State<App>, request: Request) -> Result<Response<Body>, Problem> {
    let peer = peer(&app, &request)?;
    let renew: Renew = parse("renewal", request.into_body()).await?;
    let worker = app.engine.store().worker(peer.worker).await?;
    let worker = worker.filter(|w| w.pool == peer.pool).ok_or_else(|| Problem::new(Kind::Unauthorized))?;
    let enrolled = certificate(&app, &renew.csr, worker.id, &worker.pool)?;
    let expires = app.engine.now().plus_ms(enrolled.expires_in_s.saturating_mul(1000));
    app.engine.store().renew_worker(worker.id, expires).await?;
    Ok(json(&enrolled))
}

fn certificate(
    app: &App,
    csr: &str,
    worker: WorkerId,
    pool: &mpegflow_protocol::ids::PoolName,
) -> Result<Enrolled, Problem> {
    let certificate = app.ca.sign_worker(csr, worker, pool).map_err(|e| match e {
        CaError::Request => Problem::new(Kind::InvalidField).field("csr"),
        e => {
            tracing::error!(error = %e, "cannot sign a worker's certificate");
            Problem::new(Kind::Internal)
        }
    })?;
    Ok(Enrolled { worker, certificate, expires_in_s: WORKER_CERTIFICATE.as_secs() })
}

async fn lease(State(app): State<App>, request: Request) -> Result<Response<Body>, Problem> {
    let peer = peer(&app, &request)?;
    let wanted: LeaseRequest = parse("lease request", request.into_body()).await?;
    let wait = Duration::from_millis(u64::from(wanted.wait_ms)).min(MAX_WAIT);
    let reply = match app.engine.lease(peer.worker, wait).await? {
        LeaseAnswer::Lease(lease) => {
            let handed = Handed { engine: app.engine, worker: peer.worker, lease: Some(lease.clone()) };
            let bytes = bytes::Bytes::from(to_json(&LeaseReply::Lease(lease)));
            let length = bytes.len();
            // The guard goes with the bytes: a connection that is gone before they are written drops both.
            let body = futures_util::stream::once(async move {
                handed.over();
                Ok::<_, std::convert::Infallible>(bytes)
            });
            let headers = [
                (header::CONTENT_TYPE, "application/json".to_owned()),
                (header::CACHE_CONTROL, "no-store".to_owned()),
                (header::CONTENT_LENGTH, length.to_string()),
            ];
            return Ok((headers, Body::from_stream(body)).into_response());
        }
        LeaseAnswer::Idle => LeaseReply::Idle {},
        LeaseAnswer::Retire => LeaseReply::Retire {},
    };
    Ok(json(&reply))
}

/// A lease on its way to its worker; given back when it does not get there.
struct Handed {
    engine: Arc<Engine>,
    worker: WorkerId,
    lease: Option<Box<Lease>>,
}

impl Handed {
    /// The connection took it.
    fn over(mut self) {
        self.lease = None;
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        if let (Some(lease), Ok(runtime)) = (self.lease.take(), tokio::runtime::Handle::try_current()) {
            let (engine, worker) = (Arc::clone(&self.engine), self.worker);
            runtime.spawn(async move { engine.give_back(worker, &lease).await });
        }
    }
}

async fn read_input(
    State(app): State<App>,
    Path((attempt, input)): Path<(String, String)>,
    request: Request,
) -> Result<Response<Body>, Problem> {
    let peer = peer(&app, &request)?;
    let grant = grant(&app, peer.worker, &attempt, request.headers())?;
    let input = position(&input)?;
    let total = app.engine.input_size(grant, input).await?;
    let header = request.headers().get(header::RANGE).and_then(|h| h.to_str().ok());
    let (status, range) = match range::parse(header, total) {
        Wanted::Whole => (StatusCode::OK, 0..total),
        Wanted::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Wanted::Unsatisfiable => return Err(crate::engine::CallError::Range(total).into()),
    };
    let opened = app.engine.read_input(grant, input, range).await?;
    let mut response = Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::CONTENT_LENGTH, opened.range.end.saturating_sub(opened.range.start));
    if status == StatusCode::PARTIAL_CONTENT {
        response = response.header(header::CONTENT_RANGE, range::content_range(&opened.range, opened.total));
    }
    response.body(Body::from_stream(opened.bytes)).map_err(|_| Problem::new(Kind::Internal))
}

async fn put_part(
    State(app): State<App>,
    Path((attempt, output, part)): Path<(String, String, String)>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let peer = peer(&app, &request)?;
    let headers = request.headers();
    let grant = grant(&app, peer.worker, &attempt, headers)?;
    let (output, part) = (position(&output)?, position(&part)?);
    let size = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|h| h.to_str().ok()?.parse::<u64>().ok())
        .ok_or_else(|| Problem::new(Kind::LengthRequired))?;
    let digest = headers
        .get(PART_DIGEST_HEADER)
        .and_then(|h| secret::from_hex(h.to_str().ok()?))
        .ok_or_else(|| Problem::new(Kind::InvalidField).field(PART_DIGEST_HEADER))?;
    app.engine.put_part(grant, output, part, size, digest, body::stream(request.into_body())).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn heartbeat(
    State(app): State<App>,
    Path(attempt): Path<String>,
    request: Request,
) -> Result<Response<Body>, Problem> {
    let peer = peer(&app, &request)?;
    let grant = grant(&app, peer.worker, &attempt, request.headers())?;
    let beat: Heartbeat = parse("heartbeat", request.into_body()).await?;
    Ok(json(&app.engine.heartbeat(grant, &beat).await?))
}

async fn complete(
    State(app): State<App>,
    Path(attempt): Path<String>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let peer = peer(&app, &request)?;
    let grant = grant(&app, peer.worker, &attempt, request.headers())?;
    let complete: Complete = parse("completion", request.into_body()).await?;
    app.engine.complete(grant, complete).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn fail(
    State(app): State<App>,
    Path(attempt): Path<String>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let peer = peer(&app, &request)?;
    let grant = grant(&app, peer.worker, &attempt, request.headers())?;
    let fail: Fail = parse("failure", request.into_body()).await?;
    app.engine.fail(grant, fail).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn release(
    State(app): State<App>,
    Path(attempt): Path<String>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let peer = peer(&app, &request)?;
    let grant = grant(&app, peer.worker, &attempt, request.headers())?;
    app.engine.release(grant).await?;
    Ok(StatusCode::NO_CONTENT)
}
