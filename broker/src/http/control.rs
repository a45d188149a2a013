//! The control API, as `mpegflow_protocol::control` documents it: for the operator of the cluster and nobody else.

use super::body::{json, parse};
use super::problem::{Kind, Problem};
use super::serve::TlsPeer;
use super::worker::refused_token;
use crate::ca::{Ca, CaError, WORKER_CERTIFICATE, Who};
use crate::engine::Engine;
use crate::enrol::{self, Account, Enrolment};
use crate::queue::MAX_WEIGHT;
use crate::store::identity::{PoolRecord, Pushed, Verdict};
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{Response, StatusCode};
use axum::routing::{get, post, put};
use mpegflow_protocol::control::{self, MAX_CORDON, MAX_VERDICT_S};
use mpegflow_protocol::endpoint::MAX_ENDPOINTS;
use mpegflow_protocol::ids::{PoolName, TenantId, WorkerId};
use mpegflow_protocol::text;
use mpegflow_protocol::worker::Enrolled;
use std::sync::Arc;

/// Longest sentence of a verdict that is kept.
const MAX_REASON: usize = 512;

#[derive(Clone)]
struct App {
    engine: Arc<Engine>,
    ca: Arc<Ca>,
    enrolment: Arc<Enrolment>,
}

/// Every route, by method.
pub const ROUTES: &[(&str, &str)] = &[
    ("POST", "/control/v1/enroll"),
    ("PUT", "/control/v1/tenants/{id}"),
    ("PUT", "/control/v1/pools/{pool}"),
    ("DELETE", "/control/v1/pools/{pool}"),
    ("POST", "/control/v1/pools/{pool}/cordon"),
    ("POST", "/control/v1/pools/{pool}/uncordon"),
    ("PUT", "/control/v1/pools/{pool}/verdicts/{node}"),
    ("GET", "/control/v1/status"),
];

/// The control API's routes.
pub fn router(engine: Arc<Engine>, ca: Arc<Ca>, enrolment: Arc<Enrolment>) -> Router {
    Router::new()
        .route("/control/v1/enroll", post(enroll))
        .route("/control/v1/tenants/{id}", put(put_tenant))
        .route("/control/v1/pools/{pool}", put(put_pool).delete(forget_pool))
        .route("/control/v1/pools/{pool}/cordon", post(cordon))
        .route("/control/v1/pools/{pool}/uncordon", post(uncordon))
        .route("/control/v1/pools/{pool}/verdicts/{node}", put(put_verdict))
        .route("/control/v1/status", get(status))
        .method_not_allowed_fallback(async || Problem::new(Kind::MethodNotAllowed))
        .fallback(async || Problem::new(Kind::NotFound))
        .with_state(App { engine, ca, enrolment })
}

/// Lets the operator through. A worker's certificate is a good one, and still nobody's here.
fn operator(app: &App, request: &Request) -> Result<(), Problem> {
    let shown = request.extensions().get::<TlsPeer>().and_then(|peer| peer.0.clone());
    match shown.filter(|peer| peer.expires > app.engine.now()).map(|peer| peer.who) {
        Some(Who::Operator(_)) => Ok(()),
        Some(Who::Worker { worker, .. }) => {
            tracing::warn!(%worker, "a worker called the control API");
            Err(Problem::new(Kind::Forbidden))
        }
        None => Err(Problem::new(Kind::Unauthorized)),
    }
}

fn pool_name(text: &str) -> Result<PoolName, Problem> {
    text.parse().map_err(|_| Problem::new(Kind::NotFound))
}

fn pushed(what: Pushed) -> Result<StatusCode, Problem> {
    match what {
        Pushed::Done => Ok(StatusCode::NO_CONTENT),
        Pushed::Stale(here) => {
            Err(Problem::new(Kind::Conflict).detail(format!("generation {here} is here already")))
        }
        Pushed::Taken(by) => Err(Problem::new(Kind::Conflict).detail(format!("this is taken by {by}"))),
        Pushed::Storage(no) => Err(Problem::new(Kind::Conflict).field("storage").detail(format!("{no}."))),
        Pushed::Missing(field) => Err(Problem::new(Kind::InvalidField)
            .field(field)
            .detail(format!("the {field} was not pushed yet"))),
    }
}

async fn enroll(State(app): State<App>, request: Request) -> Result<Response<Body>, Problem> {
    let enroll: control::Enroll = parse("enrolment", request.into_body()).await?;
    let pod = app.enrolment.stranger(&enroll.token).await.map_err(refused_token)?;
    if !app.enrolment.is_operator(&pod.account) {
        tracing::warn!(account = %pod.account, pod = pod.name, "a pod that is not the operator asked for its certificate");
        let text = format!("The service account {} is not the operator's.", pod.account);
        return Err(Problem::new(Kind::Forbidden).detail(text));
    }
    let worker = enrol::worker_of(&pod);
    let certificate = app.ca.sign_operator(&enroll.csr, worker).map_err(|e| match e {
        CaError::Request => Problem::new(Kind::InvalidField).field("csr"),
        e => {
            tracing::error!(error = %e, "cannot sign the operator's certificate");
            Problem::new(Kind::Internal)
        }
    })?;
    tracing::info!(pod = pod.name, account = %pod.account, "the operator enrolled");
    Ok(json(&Enrolled { worker, certificate, expires_in_s: WORKER_CERTIFICATE.as_secs() }))
}

async fn put_tenant(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<StatusCode, Problem> {
    operator(&app, &request)?;
    let id: TenantId = id.parse().map_err(|_| Problem::new(Kind::NotFound))?;
    let tenant: control::Tenant = parse("tenant", request.into_body()).await?;
    if !text::is_label(&tenant.name, 128) {
        return Err(Problem::new(Kind::InvalidField).field("name"));
    }
    if !(1..=MAX_WEIGHT).contains(&tenant.weight) {
        return Err(Problem::new(Kind::InvalidField).field("weight"));
    }
    pushed(app.engine.push_tenant(id, tenant).await?)
}

async fn put_pool(
    State(app): State<App>,
    Path(name): Path<String>,
    request: Request,
) -> Result<StatusCode, Problem> {
    operator(&app, &request)?;
    let name = pool_name(&name)?;
    let pool: control::Pool = parse("pool", request.into_body()).await?;
    let account: Account = format!("{}/{}", pool.namespace, pool.account)
        .parse()
        .map_err(|_| Problem::new(Kind::InvalidField).field("account"))?;
    // The operator's pods are nobody's workers, and a pool that the configuration names is not pushed.
    if app.enrolment.is_operator(&account) || app.enrolment.configured_pool(&account).is_some() {
        return pushed(Pushed::Taken("the broker's configuration".into()));
    }
    let label = |text: &str| text::is_label(text, 128);
    if !label(&pool.uid) || pool.policy.as_deref().is_some_and(|policy| !label(policy)) {
        return Err(Problem::new(Kind::InvalidField).field("uid"));
    }
    if pool.storage.len() > MAX_ENDPOINTS {
        return Err(Problem::new(Kind::InvalidField).field("storage"));
    }
    let record = PoolRecord {
        name,
        account,
        uid: pool.uid,
        generation: pool.observed_generation,
        tenant: pool.tenant,
        max_workers: u64::from(pool.max_workers),
        closed: pool.closed,
        policy: pool.policy,
        storage: pool.storage,
    };
    let answer = pushed(app.engine.store().put_pool(&record).await?);
    app.engine.look_at_cluster().await?;
    answer
}

async fn forget_pool(
    State(app): State<App>,
    Path(name): Path<String>,
    request: Request,
) -> Result<StatusCode, Problem> {
    operator(&app, &request)?;
    let forget: control::Forget = parse("pool", request.into_body()).await?;
    // One that is not there is gone: the call may be a repetition.
    app.engine.store().delete_pool(&pool_name(&name)?, &forget.uid).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn cordon(
    State(app): State<App>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response<Body>, Problem> {
    operator(&app, &request)?;
    let name = pool_name(&name)?;
    let asked: control::Cordon = parse("pods", request.into_body()).await?;
    let bad = || Problem::new(Kind::InvalidField).field("pods");
    if asked.pods.len() > MAX_CORDON {
        return Err(bad());
    }
    let mut ids = Vec::with_capacity(asked.pods.len());
    for pod in &asked.pods {
        let uid = uuid::Uuid::try_parse(pod).map_err(|_| bad())?;
        ids.push(WorkerId::from_u128(uid.as_u128()));
    }
    let done = app.engine.store().cordon(&name, &ids, app.engine.now()).await?;
    let pods = done.iter().map(|id| uuid::Uuid::from_u128(id.as_u128()).to_string()).collect();
    Ok(json(&control::Cordon { pods }))
}

async fn uncordon(
    State(app): State<App>,
    Path(name): Path<String>,
    request: Request,
) -> Result<StatusCode, Problem> {
    operator(&app, &request)?;
    app.engine.store().uncordon(&pool_name(&name)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn put_verdict(
    State(app): State<App>,
    Path((name, node)): Path<(String, String)>,
    request: Request,
) -> Result<StatusCode, Problem> {
    operator(&app, &request)?;
    let verdict: control::Verdict = parse("verdict", request.into_body()).await?;
    if !text::is_label(&node, 253) || !text::is_label(&verdict.policy, 128) {
        return Err(Problem::new(Kind::InvalidField).field("policy"));
    }
    let seconds = verdict.expires_in_s.min(MAX_VERDICT_S);
    let record = Verdict {
        pool: pool_name(&name)?,
        policy: verdict.policy,
        node,
        verified: verdict.verified,
        reason: text::clean(&verdict.reason, MAX_REASON),
        expires: app.engine.now().plus_ms(u64::from(seconds).saturating_mul(1000)),
    };
    if !app.engine.store().put_verdict(&record, app.engine.now()).await? {
        return Err(Problem::new(Kind::NotFound));
    }
    app.engine.look_at_cluster().await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn status(State(app): State<App>, request: Request) -> Result<Response<Body>, Problem> {
    operator(&app, &request)?;
    Ok(json(&app.engine.cluster_status().await?))
}
