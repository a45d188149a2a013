//! Pods without a cluster: whoever is asked whose a token is believes what is in it. How a real API server answers is tested
//! elsewhere.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test support")]

use crate::common::{Client, World, world_with};
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mpegflow_broker::embedded::Config;
use mpegflow_broker::enrol::{Answer, PodTokens, Reviewer};
use mpegflow_protocol::control;
use mpegflow_protocol::worker::{Enroll, Enrolled};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;

pub struct Believer;

#[async_trait]
impl Reviewer for Believer {
    async fn review(&self, token: &str, audience: &str) -> Result<Answer, String> {
        let payload = token.split('.').nth(1).unwrap_or_default();
        let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
        let text =
            |path: &str| vec![claims.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned()];
        let prefix = "authentication.kubernetes.io";
        Ok(Answer {
            authenticated: true,
            audiences: vec![audience.to_owned()],
            username: text("/sub").remove(0),
            extra: BTreeMap::from([
                (format!("{prefix}/pod-name"), text("/kubernetes.io/pod/name")),
                (format!("{prefix}/pod-uid"), text("/kubernetes.io/pod/uid")),
                (format!("{prefix}/node-name"), text("/kubernetes.io/node/name")),
            ]),
        })
    }
}

pub fn token(account: &str, uid: Uuid, node: &str) -> String {
    let claims = json!({
        "aud": ["mpegflow-broker"], "exp": 4_102_444_800_u64,
        "sub": format!("system:serviceaccount:{}", account.replace('/', ":")),
        "kubernetes.io": { "pod": { "name": "p", "uid": uid.to_string() }, "node": { "name": node } },
    });
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

pub const OPERATOR: &str = "mpegflow/mpegflow-operator";

pub async fn world(change: impl FnOnce(&mut Config)) -> World {
    world_with(|config| {
        config.control = Some(([127, 0, 0, 1], 0).into());
        config.pods = Some(PodTokens {
            reviewer: Arc::new(Believer),
            audience: "mpegflow-broker".into(),
            operator: Some(OPERATOR.parse().unwrap()),
            accounts: BTreeMap::new(),
        });
        change(config);
    })
    .await
}

pub fn csr(key: &rcgen::KeyPair) -> String {
    rcgen::CertificateParams::default().serialize_request(key).unwrap().pem().unwrap()
}

/// The control API without a certificate.
pub async fn control(world: &World) -> Client {
    let ca = world.join_file().await.ca;
    Client::new(format!("https://{}", world.broker().control_addr().unwrap()), Some(&ca), None)
}

/// The control API with whatever certificate.
pub async fn control_as(world: &World, certificate: &str, key: &[u8]) -> Client {
    let ca = world.join_file().await.ca;
    let base = format!("https://{}", world.broker().control_addr().unwrap());
    Client::new(base, Some(&ca), Some((certificate, key)))
}

/// The operator.
pub async fn operator(world: &World) -> Client {
    let key = rcgen::KeyPair::generate().unwrap();
    let enroll = control::Enroll { token: token(OPERATOR, Uuid::new_v4(), "n0"), csr: csr(&key) };
    let body = serde_json::to_vec(&enroll).unwrap();
    let answer = control(world).await.call("POST", "/control/v1/enroll", body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let enrolled: Enrolled = answer.json();
    control_as(world, &enrolled.certificate, &key.serialize_der()).await
}

/// Tries to enrol a pod of an account.
pub async fn pod(
    world: &World,
    account: &str,
    uid: Uuid,
    node: &str,
) -> Result<crate::common::Worker, (u16, String)> {
    let ca = world.join_file().await.ca;
    let base = format!("https://{}", world.broker().worker_addr());
    let key = rcgen::KeyPair::generate().unwrap();
    let enroll = Enroll {
        token: token(account, uid, node),
        csr: csr(&key),
        pool: "whatever".parse().unwrap(),
        version: "t".into(),
    };
    let anonymous = Client::new(base.clone(), Some(&ca), None);
    let answer = anonymous.call("POST", "/worker/v1/enroll", serde_json::to_vec(&enroll).unwrap()).await;
    if answer.status != 200 {
        return Err((answer.status.as_u16(), answer.text()));
    }
    let enrolled: Enrolled = answer.json();
    let key = key.serialize_der();
    let client = Client::new(base, Some(&ca), Some((&enrolled.certificate, &key)));
    Ok(crate::common::Worker { id: enrolled.worker, client, certificate: enrolled.certificate, key })
}

/// The pool `default`, whose pods are of media/default-worker.
pub fn pool() -> control::Pool {
    control::Pool {
        namespace: "media".into(),
        account: "default-worker".into(),
        uid: "uid-1".into(),
        observed_generation: 1,
        tenant: None,
        max_workers: 10,
        closed: false,
        policy: None,
        storage: Vec::new(),
    }
}

pub async fn put(operator: &Client, path: &str, body: &impl serde::Serialize) -> (u16, String) {
    let answer = operator.call("PUT", path, serde_json::to_vec(body).unwrap()).await;
    (answer.status.as_u16(), answer.text())
}

pub async fn status(operator: &Client) -> control::Status {
    let answer = operator.get("/control/v1/status").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}
