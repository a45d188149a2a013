//! Pods enrol by their own tokens, against a real API server: what gets in, and everything that must not.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs,
    reason = "tests"
)]

mod common;
#[path = "support/pods.rs"]
mod pods;

use common::{Client, World, submit, world_with};
use mpegflow_broker::ca::{self, Who};
use mpegflow_broker::enrol::Reviewer as _;
use mpegflow_broker::enrol::kubernetes::ApiServer;
use mpegflow_protocol::ids::WorkerId;
use mpegflow_protocol::worker::{Enrolled, LeaseReply, LeaseRequest, Renew};
use mpegflow_test_cluster::until;
use pods::{AUDIENCE, Turn, csr, enrol, signed, turn};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::json;

async fn world(turn: &Turn) -> (World, Client) {
    let tokens = turn.tokens().await;
    let world = world_with(|config| config.pods = Some(tokens)).await;
    let ca = world.join_file().await.ca;
    let anonymous = Client::new(format!("https://{}", world.broker().worker_addr()), Some(&ca), None);
    (world, anonymous)
}

async fn identified(world: &World, enrolled: &Enrolled, key: &rcgen::KeyPair) -> Client {
    let ca = world.join_file().await.ca;
    let key = key.serialize_der();
    let base = format!("https://{}", world.broker().worker_addr());
    Client::new(base, Some(&ca), Some((&enrolled.certificate, &key)))
}

async fn renew(client: &Client, token: Option<&str>, key: &rcgen::KeyPair) -> (u16, String) {
    let body = Renew { csr: csr(key), token: token.map(str::to_owned) };
    let answer = client.call("POST", "/worker/v1/renew", serde_json::to_vec(&body).unwrap()).await;
    (answer.status.as_u16(), answer.text())
}

fn key() -> rcgen::KeyPair {
    rcgen::KeyPair::generate().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_is_who_kubernetes_says_whatever_it_says_itself() {
    let turn = turn().await;
    let (world, anonymous) = world(&turn).await;
    let pod = turn.pod("media", "cpu-worker").await;
    let token = turn.token(&pod, AUDIENCE).await;
    let own = key();
    // It asks for the pool `gpu`; its account is that of `default`.
    let (status, text) = enrol(&anonymous, &token, &own).await;
    assert_eq!(status, 200, "{text}");
    let enrolled: Enrolled = serde_json::from_str(&text).unwrap();
    let uid: uuid::Uuid = pod.metadata.uid.as_deref().unwrap().parse().unwrap();
    assert_eq!(enrolled.worker, WorkerId::from_u128(uid.as_u128()), "the identity is the pod's UID");
    assert_eq!(enrolled.expires_in_s, 3_600);
    let der = CertificateDer::from_pem_slice(enrolled.certificate.as_bytes()).unwrap();
    let who = Who::Worker { worker: enrolled.worker, pool: "default".parse().unwrap() };
    assert_eq!(ca::peer(&der).unwrap().who, who);
    let record = world.broker().engine().store().worker(enrolled.worker).await.unwrap().unwrap();
    assert_eq!(record.node.as_deref(), Some("node-1"));
    assert_eq!(record.pod, Some(format!("media/{}", pod.metadata.name.clone().unwrap())));

    let tenant = world.tenant("a").await;
    submit(&tenant, b"x").await;
    let worker = identified(&world, &enrolled, &own).await;
    let body = serde_json::to_vec(&LeaseRequest { wait_ms: 5_000 }).unwrap();
    let answer = worker.call("POST", "/worker/v1/lease", body).await;
    assert!(matches!(answer.json::<LeaseReply>(), LeaseReply::Lease(_)), "and it gets work");

    // It renews with its token and its key, and so it stays the same worker.
    let fresh = turn.token(&pod, AUDIENCE).await;
    let (status, text) = renew(&worker, Some(&fresh), &own).await;
    assert_eq!(status, 200, "{text}");
    assert_eq!(serde_json::from_str::<Enrolled>(&text).unwrap().worker, enrolled.worker);
    // A container that starts again enrols again, with the key that its pod keeps.
    assert_eq!(enrol(&anonymous, &fresh, &own).await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_token_but_a_pods_own_for_this_broker_enrols_and_the_answer_says_why() {
    let turn = turn().await;
    let (_world, anonymous) = world(&turn).await;
    let pod = turn.pod("media", "cpu-worker").await;
    let good = turn.token(&pod, AUDIENCE).await;
    let stranger = turn.pod("media", "stranger").await;
    let wrong_audience = turn.token(&pod, "https://kubernetes.default.svc").await;
    let unbound = turn.request("media", "cpu-worker", AUDIENCE, None).await;
    let of_stranger = turn.token(&stranger, AUDIENCE).await;
    let expired = turn.resigned(&good, |claims| claims["exp"] = json!(claims["iat"].as_i64().unwrap() - 120));
    let forged = signed(&good, key().serialize_pem().as_bytes(), |_| {});
    let altered = {
        // Another pod's name under the old signature.
        let mut parts: Vec<&str> = good.split('.').collect();
        let other = turn.resigned(&good, |c| c["kubernetes.io"]["pod"]["name"] = json!("other"));
        let payload = other.split('.').nth(1).unwrap().to_owned();
        parts[1] = &payload;
        parts.join(".")
    };
    let promoted = turn.resigned(&unbound, |claims| {
        // Claims of a pod that never was, signed by the cluster's own key.
        claims["kubernetes.io"]["pod"] = json!({ "name": "ghost", "uid": uuid::Uuid::new_v4().to_string() });
    });
    for (name, token, status, says) in [
        ("another audience", &wrong_audience, 401, "audience"),
        ("bound to no pod", &unbound, 401, "not bound to a pod"),
        ("another account's", &of_stranger, 403, "media/stranger"),
        ("expired", &expired, 401, "expired"),
        ("signed by another key", &forged, 401, "does not take the token"),
        ("altered", &altered, 401, "does not take the token"),
        ("a pod that is not there", &promoted, 401, "does not take the token"),
        ("no token", &"a.b.c".to_owned(), 401, "no token of a pod"),
        ("nothing", &String::new(), 401, "no token of a pod"),
    ] {
        let (got, text) = enrol(&anonymous, token, &key()).await;
        assert!(got == status && text.contains(says), "{name}: {got} {text}");
        assert!(!text.contains(token.as_str()) || token.is_empty(), "{name}: the token is repeated");
    }
    // Past the look at its claims, the API server says no as well.
    let kubeconfig = turn.cluster.kubeconfig_of("mpegflow", "mpegflow-broker").await;
    let server = ApiServer::find(Some(&kubeconfig)).await.unwrap();
    for token in [&expired, &forged, &altered, &promoted] {
        assert!(!server.review(token, AUDIENCE).await.unwrap().authenticated);
    }
    assert!(server.review(&wrong_audience, AUDIENCE).await.unwrap().audiences.is_empty());
    assert_eq!(enrol(&anonymous, &good, &key()).await.0, 200, "and the good one is good");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_replayed_gives_nobody_else_the_pods_identity() {
    let turn = turn().await;
    let (world, anonymous) = world(&turn).await;
    let (pod, other) = (turn.pod("media", "cpu-worker").await, turn.pod("media", "cpu-worker").await);
    let (token, others) = (turn.token(&pod, AUDIENCE).await, turn.token(&other, AUDIENCE).await);
    let (own, own_of_other) = (key(), key());
    let enrolled: Enrolled = serde_json::from_str(&enrol(&anonymous, &token, &own).await.1).unwrap();
    let other: Enrolled = serde_json::from_str(&enrol(&anonymous, &others, &own_of_other).await.1).unwrap();

    let (status, text) = enrol(&anonymous, &token, &key()).await;
    assert!(status == 403 && text.contains("another key"), "a thief's key: {status} {text}");
    let thief = identified(&world, &other, &own_of_other).await;
    let (status, text) = renew(&thief, Some(&token), &own_of_other).await;
    assert!(status == 403 && text.contains("another pod"), "another worker with the token: {status} {text}");
    let worker = identified(&world, &enrolled, &own).await;
    let (status, text) = renew(&worker, Some(&token), &key()).await;
    assert!(status == 403 && text.contains("another key"), "another key at renewal: {status} {text}");
    let (status, text) = renew(&worker, None, &own).await;
    assert!(status == 401 && text.contains("token"), "without a token: {status} {text}");
    let (status, _) = renew(&worker, Some(&turn.token(&pod, "another").await), &own).await;
    assert_eq!(status, 401);
    assert_eq!(renew(&worker, Some(&token), &own).await.0, 200);

    // A certificate is taken away for good.
    let engine = world.broker().engine();
    assert!(engine.store().revoke_worker(enrolled.worker, engine.now()).await.unwrap());
    let refused = async || renew(&worker, Some(&token), &own).await.0 == 401;
    until("it is refused", || async { refused().await.then_some(()) }).await;
    let body = serde_json::to_vec(&LeaseRequest { wait_ms: 0 }).unwrap();
    assert_eq!(worker.call("POST", "/worker/v1/lease", body).await.status, 401);
    let (status, text) = enrol(&anonymous, &token, &own).await;
    assert!(status == 403 && text.contains("revoked"), "{status} {text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_was_deleted_neither_enrols_nor_renews() {
    let turn = turn().await;
    let (world, anonymous) = world(&turn).await;
    let pod = turn.pod("media", "cpu-worker").await;
    let token = turn.token(&pod, AUDIENCE).await;
    let own = key();
    let enrolled: Enrolled = serde_json::from_str(&enrol(&anonymous, &token, &own).await.1).unwrap();
    let worker = identified(&world, &enrolled, &own).await;
    turn.delete(&pod).await;
    // The API server remembers a good token for ten seconds.
    until("its renewal is refused", || async {
        (renew(&worker, Some(&token), &own).await.0 == 401).then_some(())
    })
    .await;
    let (status, text) = enrol(&anonymous, &token, &own).await;
    assert!(status == 401 && text.contains("its pod is gone"), "{status} {text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_api_server_is_away_nobody_enrols_or_renews_and_work_goes_on() {
    let turn = turn().await;
    let (world, anonymous) = world(&turn).await;
    let (pod, late) = (turn.pod("media", "cpu-worker").await, turn.pod("media", "cpu-worker").await);
    let (token, lates) = (turn.token(&pod, AUDIENCE).await, turn.token(&late, AUDIENCE).await);
    let own = key();
    let enrolled: Enrolled = serde_json::from_str(&enrol(&anonymous, &token, &own).await.1).unwrap();
    let worker = identified(&world, &enrolled, &own).await;
    let tenant = world.tenant("a").await;
    submit(&tenant, b"x").await;

    turn.cluster.stop_api_server();
    let (status, text) = enrol(&anonymous, &lates, &key()).await;
    assert!(status == 503 && text.contains("API server"), "{status} {text}");
    assert_eq!(renew(&worker, Some(&token), &own).await.0, 503);
    let body = serde_json::to_vec(&LeaseRequest { wait_ms: 5_000 }).unwrap();
    let answer = worker.call("POST", "/worker/v1/lease", body).await;
    assert!(matches!(answer.json::<LeaseReply>(), LeaseReply::Lease(_)), "{}", answer.text());

    turn.cluster.restart_api_server().await;
    until("it enrols", || async { (enrol(&anonymous, &lates, &key()).await.0 == 200).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_brokers_account_may_ask_about_tokens_and_nothing_else() {
    use k8s_openapi::api::authorization::v1::{SelfSubjectRulesReview, SelfSubjectRulesReviewSpec};
    use kube::api::{Api, PostParams};
    let turn = turn().await;
    let client = turn.cluster.client_of("mpegflow", "mpegflow-broker").await;
    let api: Api<SelfSubjectRulesReview> = Api::all(client);
    let spec = SelfSubjectRulesReviewSpec { namespace: Some("mpegflow".into()) };
    let review = SelfSubjectRulesReview { spec, ..Default::default() };
    let answer = api.create(&PostParams::default(), &review).await.unwrap();
    let mut rules = answer.status.unwrap().resource_rules;
    // What every account may: ask about itself.
    rules.retain(|rule| {
        let groups = rule.api_groups.clone().unwrap_or_default();
        !(groups == ["authorization.k8s.io"] || rule.resources == Some(vec!["selfsubjectreviews".into()]))
    });
    assert_eq!(rules.len(), 1, "{rules:?}");
    assert_eq!(rules[0].verbs, ["create"]);
    assert_eq!(rules[0].resources.as_deref(), Some(["tokenreviews".to_owned()].as_slice()));
}
