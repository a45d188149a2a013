//! API keys: what each may do, until when, and how it is replaced. Over whichever store the file that takes this in makes its worlds
//! with.

use super::common::*;
use super::world;
use mpegflow_broker::engine::NewKey;
use mpegflow_broker::model::Time;
use mpegflow_broker::scopes::Scopes;
use mpegflow_protocol::ids::{KeyId, TenantId};
use std::time::Duration;

async fn key(world: &World, tenant: TenantId, scopes: &str, expires_at: Option<Time>) -> (KeyId, Client) {
    let new = NewKey { tenant, label: "test".into(), scopes: Scopes::read(scopes), expires_at };
    let text = world.broker().engine().create_key(&new).await.unwrap();
    (id_of(&text), world.anonymous().with("authorization", format!("Bearer {text}")))
}

fn id_of(text: &str) -> KeyId {
    format!("key_{}", text.split('_').nth(1).unwrap()).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_may_do_what_its_scopes_name_and_nothing_else() {
    let world = world().await;
    let all = world.tenant("a").await;
    let id = world.broker().ensure_tenant("a").await.unwrap();
    let input = upload(&all, b"x").await;
    let job = submit(&all, b"x").await;
    let (job, input) = (format!("/v1/jobs/{}", job.id), format!("/v1/uploads/{}", input.id));
    let hook = "/v1/webhooks/whk_0192f0c1a2b37c4d8e9f001122334455";
    let routes: Vec<(&str, String, &[&str])> = vec![
        ("GET", "/v1/jobs".into(), &["read"]),
        ("GET", job.clone(), &["read"]),
        ("GET", format!("{job}/logs"), &["read"]),
        ("GET", "/v1/presets".into(), &["read"]),
        ("GET", format!("/v1/objects/{}/x", &job[9..]), &["read"]),
        ("GET", "/v1/webhooks".into(), &["read"]),
        ("GET", hook.into(), &["read"]),
        ("GET", format!("{hook}/deliveries"), &["read"]),
        ("GET", input.clone(), &["read", "upload"]),
        ("POST", "/v1/uploads".into(), &["upload"]),
        ("PUT", format!("{input}?offset=0"), &["upload"]),
        ("POST", "/v1/jobs".into(), &["submit"]),
        ("POST", format!("{job}/cancel"), &["submit"]),
        ("POST", "/v1/webhooks".into(), &["webhooks"]),
        ("POST", format!("{hook}/rotate"), &["webhooks"]),
        ("POST", format!("{hook}/enable"), &["webhooks"]),
        ("DELETE", hook.into(), &["webhooks"]),
        ("DELETE", "/v1/jobs/job_0192f0c1a2b37c4d8e9f001122334455".into(), &["delete"]),
        ("DELETE", "/v1/uploads/upl_0192f0c1a2b37c4d8e9f001122334455".into(), &["delete"]),
    ];
    for scope in ["read", "upload", "submit", "delete", "webhooks", ""] {
        let (_, client) = key(&world, id, scope, None).await;
        for (method, path, needs) in &routes {
            let status = client.call(method, path, "").await.status.as_u16();
            assert_eq!(status != 403, needs.contains(&scope), "`{scope}` {method} {path}: {status}");
            assert_ne!(status, 401, "`{scope}` {method} {path}");
        }
    }
    let (_, both) = key(&world, id, "upload,submit", None).await;
    submit(&both, b"y").await;
    assert_eq!(both.get("/v1/jobs").await.problem(), "forbidden");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_ends_when_it_expires_and_an_old_one_after_its_overlap() {
    let world = world().await;
    let id = world.broker().ensure_tenant("a").await.unwrap();
    let engine = world.broker().engine();
    let (_, gone) = key(&world, id, "all", Some(engine.now())).await;
    assert_eq!(gone.get("/v1/jobs").await.status, 401);
    let (old, client) = key(&world, id, "read", Some(engine.now().plus_ms(3_600_000))).await;
    assert_eq!(client.get("/v1/jobs").await.status, 200);
    let text = engine.rotate_api_key(old, Duration::from_secs(3_600)).await.unwrap();
    let fresh = world.anonymous().with("authorization", format!("Bearer {text}"));
    assert_eq!(
        (client.get("/v1/jobs").await.status.as_u16(), fresh.get("/v1/jobs").await.status.as_u16()),
        (200, 200)
    );
    assert_eq!(
        fresh.call("POST", "/v1/uploads", r#"{"size":1}"#).await.status,
        403,
        "it may do no more than the old one"
    );
    let shown = engine.store().api_keys(id).await.unwrap();
    let made = shown.iter().find(|k| k.id == id_of(&text)).unwrap();
    assert_eq!((made.label.as_str(), made.scopes), ("test", Scopes::read("read")));
    assert!(made.expires_at.unwrap() > engine.now().plus_ms(3_500_000), "and lives as long");
    // Without an overlap the old one ends at once, and cannot be rotated again.
    let newest = engine.rotate_api_key(id_of(&text), Duration::ZERO).await.unwrap();
    assert_eq!(fresh.get("/v1/jobs").await.status, 401);
    assert!(engine.rotate_api_key(id_of(&text), Duration::ZERO).await.is_err());
    let last = world.anonymous().with("authorization", format!("Bearer {newest}"));
    assert_eq!(last.get("/v1/jobs").await.status, 200);
    assert!(engine.store().revoke_api_key(id_of(&newest), engine.now()).await.unwrap());
    assert_eq!(last.get("/v1/jobs").await.status, 401);
}
