//! The intake, in the public API: its rules, and what storage sends when objects arrive.

use super::problem::{Kind, Problem};
use super::public::{Answer, App, created, id, idempotency, json};
use super::{auth, body};
use crate::intake;
use crate::scopes::Scope;
use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use axum::routing::{get, post};
use mpegflow_protocol::from_json;
use mpegflow_protocol::intake::{CreateRule, MAX_EVENTS, Rule, Taken};
use mpegflow_protocol::limits::MAX_API_BODY;

/// The routes, by method.
pub const ROUTES: &[(&str, &str)] = &[
    ("POST", "/v1/intake/events"),
    ("POST", "/v1/intake/rules"),
    ("GET", "/v1/intake/rules"),
    ("GET", "/v1/intake/rules/{id}"),
    ("DELETE", "/v1/intake/rules/{id}"),
    ("POST", "/v1/intake/rules/{id}/look"),
];

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/v1/intake/events", post(events))
        .route("/v1/intake/rules", post(create).get(list))
        .route("/v1/intake/rules/{id}", get(show).delete(delete))
        .route("/v1/intake/rules/{id}/look", post(look))
}

/// Takes what storage says has arrived: S3's event notifications, MinIO's, or *Object Created* of Amazon EventBridge. An event that is
/// sent again, also at once and to another broker, makes no second job, with or without an `Idempotency-Key`. Where it is answered 429
/// or 503, it is to be sent again.
#[utoipa::path(post, path = "/v1/intake/events", request_body(content = Object, content_type = "application/json"), responses((status = 200, body = Taken), (status = 400, description = "It is no event"), (status = 413, description = "There are too many records or bytes"), (status = 422, description = "It is of another bucket than the tenant's"), (status = 429, description = "A quota is reached: send it again"), (status = 503, description = "Send it again")))]
pub(super) async fn events(State(app): State<App>, request: Request) -> Answer {
    let tenant = auth::may(&app.engine, request.headers(), Scope::Intake).await?;
    let bytes = body::read(request.into_body(), MAX_EVENTS).await?;
    let events = intake::read(&bytes).map_err(|bad| match bad {
        bad @ intake::BadEvents::TooMany(_) => Problem::new(Kind::TooLarge).detail(format!("{bad}.")),
        bad => Problem::new(Kind::Malformed).detail(format!("{bad}.")),
    })?;
    Ok(json(StatusCode::OK, &app.engine.take(tenant, events).await?))
}

#[utoipa::path(post, path = "/v1/intake/rules", request_body = CreateRule, params(("Idempotency-Key" = Option<String>, Header, description = "A repeated call with the same key gets the same answer")), responses((status = 201, body = Rule)))]
pub(super) async fn create(State(app): State<App>, request: Request) -> Answer {
    let tenant = auth::may(&app.engine, request.headers(), Scope::Rules).await?;
    let (head, body) = request.into_parts();
    let bytes = body::read(body, MAX_API_BODY).await?;
    let wanted: CreateRule = from_json("rule", &bytes, MAX_API_BODY)?;
    let once = idempotency(&head.headers, "POST", head.uri.path(), &bytes)?;
    created("/v1/intake/rules", app.engine.create_rule(tenant, wanted, once.as_ref()).await?)
}

#[utoipa::path(get, path = "/v1/intake/rules", responses((status = 200, body = Vec<Rule>)))]
pub(super) async fn list(State(app): State<App>, request: Request) -> Answer {
    let tenant = auth::may(&app.engine, request.headers(), Scope::Read).await?;
    Ok(json(StatusCode::OK, &app.engine.rules(tenant).await?))
}

#[utoipa::path(get, path = "/v1/intake/rules/{id}", params(("id" = String, Path)), responses((status = 200, body = Rule)))]
pub(super) async fn show(State(app): State<App>, Path(rule): Path<String>, request: Request) -> Answer {
    let tenant = auth::may(&app.engine, request.headers(), Scope::Read).await?;
    Ok(json(StatusCode::OK, &app.engine.rule(tenant, id(&rule)?).await?))
}

#[utoipa::path(delete, path = "/v1/intake/rules/{id}", params(("id" = String, Path)), responses((status = 204, description = "It is gone; jobs that it made stay")))]
pub(super) async fn delete(State(app): State<App>, Path(rule): Path<String>, request: Request) -> Answer {
    let tenant = auth::may(&app.engine, request.headers(), Scope::Rules).await?;
    app.engine.delete_rule(tenant, id(&rule)?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Has the rule look at the storage now, once, and try again what was refused. Again does nothing more, so that a repeated call needs
/// no `Idempotency-Key`.
#[utoipa::path(post, path = "/v1/intake/rules/{id}/look", params(("id" = String, Path)), responses((status = 202, body = Rule)))]
pub(super) async fn look(State(app): State<App>, Path(rule): Path<String>, request: Request) -> Answer {
    let tenant = auth::may(&app.engine, request.headers(), Scope::Rules).await?;
    Ok(json(StatusCode::ACCEPTED, &app.engine.look_again(tenant, id(&rule)?).await?))
}
