//! The worker API, as `mpegflow_protocol::worker` documents it.

use super::auth;
use super::body::{self, json, parse};
use super::problem::{Kind, Problem};
use super::range::{self, Wanted};
use super::serve::TlsPeer;
use crate::ca::{self, Ca, CaError, WORKER_CERTIFICATE, Who};
use crate::engine::{Engine, Granted, LeaseAnswer, PodRefused};
use crate::enrol::{self, Enrolment, TokenError};
use crate::model::Part;
use crate::secret;
use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, Path, RawPathParams, Request, State};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, Response, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post, put};
use mpegflow_protocol::ids::{AttemptId, PoolName, WorkerId};
use mpegflow_protocol::to_json;
use mpegflow_protocol::worker::{
    Complete, Enroll, Enrolled, Fail, Heartbeat, Lease, LeaseReply, LeaseRequest, PART_DIGEST_HEADER,
    PartUrl, ReadUrl, Renew,
};
use std::sync::Arc;
use std::time::Duration;

const MAX_WAIT: Duration = Duration::from_secs(30);

/// What the handlers need.
#[derive(Clone)]
struct App {
    engine: Arc<Engine>,
    ca: Arc<Ca>,
    enrolment: Arc<Enrolment>,
}

/// The worker whose certificate was shown.
struct Peer {
    worker: WorkerId,
    pool: PoolName,
}

/// The worker API's routes.
pub fn router(engine: Arc<Engine>, ca: Arc<Ca>, enrolment: Arc<Enrolment>) -> Router {
    Router::new()
        .route("/worker/v1/enroll", post(enroll))
        .route("/worker/v1/renew", post(renew))
        .route("/worker/v1/lease", post(lease))
        .route("/worker/v1/attempts/{attempt}/inputs/{input}", get(read_input))
        .route("/worker/v1/attempts/{attempt}/inputs/{input}/url", post(read_url))
        .route("/worker/v1/attempts/{attempt}/outputs/{output}/parts/{part}", put(put_part))
        .route("/worker/v1/attempts/{attempt}/outputs/{output}/parts/{part}/url", post(part_url))
        .route("/worker/v1/attempts/{attempt}/outputs/{output}/parts/{part}/stored", post(part_stored))
        .route("/worker/v1/attempts/{attempt}/heartbeat", post(heartbeat))
        .route("/worker/v1/attempts/{attempt}/complete", post(complete))
        .route("/worker/v1/attempts/{attempt}/fail", post(fail))
        .route("/worker/v1/attempts/{attempt}/release", post(release))
        .method_not_allowed_fallback(async || Problem::new(Kind::MethodNotAllowed))
        .fallback(async || Problem::new(Kind::NotFound))
        .with_state(App { engine, ca, enrolment })
}

/// The worker whose certificate was shown.
fn peer(app: &App, of: &Extensions) -> Result<Peer, Problem> {
    let connection = of.get::<TlsPeer>();
    let shown = connection.and_then(|peer| peer.0.clone());
    // The handshake checked the dates once; the connection may have outlived the certificate.
    let peer = match shown.filter(|peer| peer.expires > app.engine.now()).map(|peer| peer.who) {
        Some(Who::Worker { worker, pool }) if !app.engine.is_revoked(worker) => Peer { worker, pool },
        _ => return Err(Problem::new(Kind::Unauthorized)),
    };
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

/// Every call after the lease begins with it: the worker, and the attempt in the path that its capability is for.
struct Holder {
    peer: Peer,
    grant: Granted,
}

impl FromRequestParts<App> for Holder {
    type Rejection = Response<Body>;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Response<Body>> {
        let path =
            RawPathParams::from_request_parts(parts, app).await.map_err(IntoResponse::into_response)?;
        let attempt = path.iter().find(|(name, _)| *name == "attempt").map_or("", |(_, attempt)| attempt);
        let holder = || {
            let peer = peer(app, &parts.extensions)?;
            let grant = grant(app, peer.worker, attempt, &parts.headers)?;
            Ok(Self { peer, grant })
        };
        holder().map_err(|problem: Problem| problem.into_response())
    }
}

fn position(text: &str) -> Result<u32, Problem> {
    text.parse().map_err(|_| Problem::new(Kind::NotFound))
}

/// What join tokens begin with; a pod's token does not.
const JOIN: &str = "mfj_";

async fn enroll(State(app): State<App>, request: Request) -> Result<Response<Body>, Problem> {
    let enroll: Enroll = parse("enrolment", request.into_body()).await?;
    let version = mpegflow_protocol::text::clean(&enroll.version, 64);
    if !enroll.token.starts_with(JOIN) {
        let pod = app.enrolment.stranger(&enroll.token).await.map_err(refused_token)?;
        let enrolled = of_pod(&app, &pod, &enroll.csr).await?;
        tracing::info!(worker = %enrolled.worker, pod = pod.name, account = %pod.account, version, "a pod enrolled");
        return Ok(json(&enrolled));
    }
    let pool = app.engine.store().join_token(secret::sha256(enroll.token.as_bytes())).await?;
    // One answer for a wrong token and for a right one of another pool.
    let pool = pool.filter(|pool| *pool == enroll.pool).ok_or_else(|| Problem::new(Kind::Unauthorized))?;
    let worker = secret::fresh_id();
    let enrolled = certificate(&app, &enroll.csr, worker, &pool)?;
    let now = app.engine.now();
    let expires = now.plus_ms(enrolled.expires_in_s.saturating_mul(1000));
    app.engine.store().add_worker(worker, &pool, expires, now).await?;
    tracing::info!(%worker, %pool, version, "a worker enrolled");
    Ok(json(&enrolled))
}

async fn renew(State(app): State<App>, request: Request) -> Result<Response<Body>, Problem> {
    let peer = peer(&app, request.extensions())?;
    let renew: Renew = parse("renewal", request.into_body()).await?;
    let worker = app.engine.identity(peer.worker, &peer.pool).await?;
    if worker.pod.is_some() {
        // A pod that is gone, or whose pool is, gets nothing more.
        let token = renew.token.as_deref().ok_or_else(|| {
            Problem::new(Kind::Unauthorized)
                .detail("A pod renews with its token as it is now.")
                .field("token")
        })?;
        let pod = app.enrolment.known(token).await.map_err(refused_token)?;
        if enrol::worker_of(&pod) != worker.id {
            return Err(Problem::new(Kind::Forbidden).detail("The token is another pod's."));
        }
        return Ok(json(&of_pod(&app, &pod, &renew.csr).await?));
    }
    let enrolled = certificate(&app, &renew.csr, worker.id, &worker.pool)?;
    let expires = app.engine.now().plus_ms(enrolled.expires_in_s.saturating_mul(1000));
    app.engine.store().renew_worker(worker.id, expires).await?;
    Ok(json(&enrolled))
}

/// The identity of a pod that Kubernetes has vouched for.
async fn of_pod(app: &App, pod: &enrol::Pod, csr: &str) -> Result<Enrolled, Problem> {
    let key = ca::key_of(csr).map_err(|_| Problem::new(Kind::InvalidField).field("csr"))?;
    let life = u64::try_from(WORKER_CERTIFICATE.as_millis()).unwrap_or(u64::MAX);
    let configured = app.enrolment.configured_pool(&pod.account);
    let expires = app.engine.now().plus_ms(life);
    let (worker, pool) = app.engine.enrol_pod(pod, configured, key, expires).await.map_err(refused_pod)?;
    certificate(app, csr, worker, &pool)
}

/// A token that was not taken: whoever showed it is told why.
pub(super) fn refused_token(error: TokenError) -> Problem {
    let text = error.to_string();
    match error {
        TokenError::NotHere | TokenError::Refused(_) => {
            tracing::info!(why = text, "a pod's token was refused");
            Problem::new(Kind::Unauthorized).detail(text)
        }
        TokenError::Away => Problem::new(Kind::NotReady).detail(text).header(header::RETRY_AFTER, "5"),
        TokenError::Busy(wait) => {
            let seconds = wait.as_secs().saturating_add(1).to_string();
            Problem::new(Kind::RateLimited).detail(text).header(header::RETRY_AFTER, seconds)
        }
    }
}

fn refused_pod(error: PodRefused) -> Problem {
    let text = error.to_string();
    let kind = match error {
        PodRefused::Store(error) => return error.into(),
        PodRefused::TooMany => Kind::RateLimited,
        PodRefused::NoPool(_) | PodRefused::Other | PodRefused::Revoked => Kind::Forbidden,
    };
    tracing::warn!(why = text, "a pod was refused");
    Problem::new(kind).detail(text)
}

fn certificate(app: &App, csr: &str, worker: WorkerId, pool: &PoolName) -> Result<Enrolled, Problem> {
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
    let peer = peer(&app, request.extensions())?;
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
    Path((_, input)): Path<(String, String)>,
    Holder { grant, .. }: Holder,
    request: Request,
) -> Result<Response<Body>, Problem> {
    let input = position(&input)?;
    let headers = request.headers();
    // An input has no name for its version here, so that no condition on a range holds (RFC 9110, 13.1.5).
    let header = headers.get(header::RANGE).filter(|_| !headers.contains_key(header::IF_RANGE));
    let header = header.and_then(|h| h.to_str().ok());
    let mut status = StatusCode::OK;
    let wanted = |total| match range::parse(header, total) {
        Wanted::Whole => Some(0..total),
        Wanted::Part(range) => {
            status = StatusCode::PARTIAL_CONTENT;
            Some(range)
        }
        Wanted::Unsatisfiable => None,
    };
    let opened = app.engine.read_input(grant, input, wanted).await?;
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
    Path((_, output, part)): Path<(String, String, String)>,
    Holder { grant, .. }: Holder,
    request: Request,
) -> Result<StatusCode, Problem> {
    let headers = request.headers();
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

async fn read_url(
    State(app): State<App>,
    Path((_, input)): Path<(String, String)>,
    Holder { peer, grant }: Holder,
    request: Request,
) -> Result<Response<Body>, Problem> {
    let input = position(&input)?;
    let ReadUrl { start, end } = parse("range", request.into_body()).await?;
    Ok(json(&app.engine.sign_read(grant, &peer.pool, input, start..end).await?))
}

async fn part_url(
    State(app): State<App>,
    Path((_, output, part)): Path<(String, String, String)>,
    Holder { peer, grant }: Holder,
    request: Request,
) -> Result<Response<Body>, Problem> {
    let (output, part) = (position(&output)?, position(&part)?);
    let part = announced(part, parse("part", request.into_body()).await?)?;
    Ok(json(&app.engine.sign_part(grant, &peer.pool, output, part).await?))
}

async fn part_stored(
    State(app): State<App>,
    Path((_, output, part)): Path<(String, String, String)>,
    Holder { grant, .. }: Holder,
    request: Request,
) -> Result<StatusCode, Problem> {
    let (output, part) = (position(&output)?, position(&part)?);
    let part = announced(part, parse("part", request.into_body()).await?)?;
    app.engine.part_stored(grant, output, part).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn announced(part: u32, said: PartUrl) -> Result<Part, Problem> {
    let sha256 = secret::from_hex(&said.sha256);
    let sha256 = sha256.ok_or_else(|| Problem::new(Kind::InvalidField).field("sha256"))?;
    Ok(Part { part, size: said.size, sha256 })
}

async fn heartbeat(
    State(app): State<App>,
    Holder { peer, grant }: Holder,
    request: Request,
) -> Result<Response<Body>, Problem> {
    let beat: Heartbeat = parse("heartbeat", request.into_body()).await?;
    Ok(json(&app.engine.heartbeat(grant, &peer.pool, &beat).await?))
}

async fn complete(
    State(app): State<App>,
    Holder { grant, .. }: Holder,
    request: Request,
) -> Result<StatusCode, Problem> {
    let complete: Complete = parse("completion", request.into_body()).await?;
    app.engine.complete(grant, complete).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn fail(
    State(app): State<App>,
    Holder { grant, .. }: Holder,
    request: Request,
) -> Result<StatusCode, Problem> {
    let fail: Fail = parse("failure", request.into_body()).await?;
    app.engine.fail(grant, fail).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn release(State(app): State<App>, Holder { grant, .. }: Holder) -> Result<StatusCode, Problem> {
    app.engine.release(grant).await?;
    Ok(StatusCode::NO_CONTENT)
}
