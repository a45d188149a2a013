//! Webhooks, in the public API.

use super::problem::Problem;
use super::public::{Answer, App, created, id, idempotency, json, json_bytes, query, wrong};
use super::{auth, body};
use crate::scopes::Scope;
use crate::store::Idempotency;
use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::IntoResponse as _;
use axum::routing::{get, post};
use mpegflow_protocol::ids::{MessageId, WebhookId};
use mpegflow_protocol::limits::MAX_API_BODY;
use mpegflow_protocol::webhook::{CreateWebhook, Delivery, DeliveryPage, RotateWebhook, Webhook};
use mpegflow_protocol::{from_json, to_json};
use std::time::Duration;

/// The routes, by method.
pub const ROUTES: &[(&str, &str)] = &[
    ("POST", "/v1/webhooks"),
    ("GET", "/v1/webhooks"),
    ("GET", "/v1/webhooks/{id}"),
    ("DELETE", "/v1/webhooks/{id}"),
    ("POST", "/v1/webhooks/{id}/rotate"),
    ("POST", "/v1/webhooks/{id}/enable"),
    ("GET", "/v1/webhooks/{id}/deliveries"),
    ("POST", "/v1/webhooks/{id}/deliveries/{message}/redeliver"),
];

/// A request's small body, and what makes a repetition of it the same call.
async fn sent(request: Request) -> Result<(bytes::Bytes, Option<Idempotency>), Problem> {
    let (head, body) = request.into_parts();
    let bytes = body::read(body, MAX_API_BODY).await?;
    let once = idempotency(&head.headers, "POST", head.uri.path(), &bytes)?;
    Ok((bytes, once))
}

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/v1/webhooks", post(create).get(list))
        .route("/v1/webhooks/{id}", get(show).delete(delete))
        .route("/v1/webhooks/{id}/rotate", post(rotate))
        .route("/v1/webhooks/{id}/enable", post(enable))
        .route("/v1/webhooks/{id}/deliveries", get(deliveries))
        .route("/v1/webhooks/{id}/deliveries/{message}/redeliver", post(redeliver))
}

#[utoipa::path(post, path = "/v1/webhooks", request_body = CreateWebhook, params(("Idempotency-Key" = Option<String>, Header, description = "A repeated call with the same key gets the same answer")), responses((status = 201, description = "The webhook, with its secret: this once", body = Webhook)))]
pub(super) async fn create(State(app): State<App>, request: Request) -> Answer {
    let tenant = auth::may(&app.engine, request.headers(), Scope::Webhooks).await?;
    let (bytes, once) = sent(request).await?;
    let wanted: CreateWebhook = from_json("webhook", &bytes, MAX_API_BODY)?;
    created("/v1/webhooks", to_json(&app.engine.create_webhook(tenant, wanted, once.as_ref()).await?))
}

#[utoipa::path(get, path = "/v1/webhooks", responses((status = 200, body = Vec<Webhook>)))]
pub(super) async fn list(State(app): State<App>, request: Request) -> Answer {
    let tenant = auth::may(&app.engine, request.headers(), Scope::Read).await?;
    Ok(json(StatusCode::OK, &app.engine.webhooks(tenant).await?))
}

#[utoipa::path(get, path = "/v1/webhooks/{id}", params(("id" = String, Path)), responses((status = 200, body = Webhook)))]
pub(super) async fn show(State(app): State<App>, Path(webhook): Path<String>, request: Request) -> Answer {
    let tenant = auth::may(&app.engine, request.headers(), Scope::Read).await?;
    Ok(json(StatusCode::OK, &app.engine.webhook(tenant, id(&webhook)?).await?))
}

#[utoipa::path(delete, path = "/v1/webhooks/{id}", params(("id" = String, Path)), responses((status = 204)))]
pub(super) async fn delete(State(app): State<App>, Path(webhook): Path<String>, request: Request) -> Answer {
    let tenant = auth::may(&app.engine, request.headers(), Scope::Webhooks).await?;
    app.engine.delete_webhook(tenant, id(&webhook)?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[utoipa::path(post, path = "/v1/webhooks/{id}/rotate", params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header, description = "A repeated call with the same key gets the same answer")), request_body = RotateWebhook, responses((status = 200, description = "The webhook, with its new secret: this once", body = Webhook)))]
pub(super) async fn rotate(State(app): State<App>, Path(webhook): Path<String>, request: Request) -> Answer {
    let tenant = auth::may(&app.engine, request.headers(), Scope::Webhooks).await?;
    let (bytes, once) = sent(request).await?;
    let bytes = if bytes.is_empty() { bytes::Bytes::from_static(b"{}") } else { bytes };
    let wanted: RotateWebhook = from_json("rotation", &bytes, MAX_API_BODY)?;
    let overlap = Duration::from_secs(wanted.overlap_s.into());
    let webhook = app.engine.rotate_webhook(tenant, id(&webhook)?, overlap, once.as_ref()).await?;
    Ok(json(StatusCode::OK, &webhook))
}

#[utoipa::path(post, path = "/v1/webhooks/{id}/enable", params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header, description = "A repeated call with the same key gets the same answer")), responses((status = 200, body = Webhook)))]
pub(super) async fn enable(State(app): State<App>, Path(webhook): Path<String>, request: Request) -> Answer {
    let tenant = auth::may(&app.engine, request.headers(), Scope::Webhooks).await?;
    let (_, once) = sent(request).await?;
    Ok(json(StatusCode::OK, &app.engine.enable_webhook(tenant, id(&webhook)?, once.as_ref()).await?))
}

#[utoipa::path(get, path = "/v1/webhooks/{id}/deliveries", params(("id" = String, Path), ("limit" = Option<u32>, Query, description = "1 to 200; 50 where it is left out"), ("after" = Option<String>, Query, description = "The `next` of the page before")), responses((status = 200, body = DeliveryPage)))]
pub(super) async fn deliveries(
    State(app): State<App>,
    Path(webhook): Path<String>,
    request: Request,
) -> Answer {
    let tenant = auth::may(&app.engine, request.headers(), Scope::Read).await?;
    let webhook: WebhookId = id(&webhook)?;
    let (after, limit) = page(request.uri())?;
    Ok(json(StatusCode::OK, &app.engine.deliveries(tenant, webhook, after, limit).await?))
}

fn page(uri: &Uri) -> Result<(Option<MessageId>, u32), Problem> {
    let (mut after, mut limit) = (None, super::public::DEFAULT_PAGE);
    for (name, value) in query(uri, &["limit", "after"])? {
        if name == "limit" {
            let parsed = value.parse().ok().filter(|n| (1..=super::public::MAX_PAGE).contains(n));
            limit = parsed.ok_or_else(|| wrong(name, "a number from 1 to 200"))?;
        } else {
            after = Some(value.parse().map_err(|_| wrong(name, "the id of a message"))?);
        }
    }
    Ok((after, limit))
}

#[utoipa::path(post, path = "/v1/webhooks/{id}/deliveries/{message}/redeliver", params(("id" = String, Path), ("message" = String, Path), ("Idempotency-Key" = Option<String>, Header, description = "A repeated call with the same key gets the same answer")), responses((status = 202, description = "It is sent again, with the same id", body = Delivery)))]
pub(super) async fn redeliver(
    State(app): State<App>,
    Path((webhook, message)): Path<(String, String)>,
    request: Request,
) -> Answer {
    let tenant = auth::may(&app.engine, request.headers(), Scope::Webhooks).await?;
    let (_, once) = sent(request).await?;
    let answer = app.engine.redeliver(tenant, id(&webhook)?, id(&message)?, once.as_ref()).await?;
    Ok(json_bytes(StatusCode::ACCEPTED, answer))
}
