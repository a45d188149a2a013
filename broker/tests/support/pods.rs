//! A real API server with namespaces, accounts and pods, and tokens of them. There is no kubelet: what one would mount is asked for.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test file uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "test support"
)]

use crate::common::Client;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::{Api, DeleteParams, PostParams};
use mpegflow_broker::enrol::PodTokens;
use mpegflow_broker::enrol::kubernetes::ApiServer;
use mpegflow_protocol::worker::Enroll;
use mpegflow_test_cluster::{Cluster, Options};
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{Mutex, MutexGuard, OnceCell};

pub const AUDIENCE: &str = "mpegflow-broker";

const SURROUNDINGS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: mpegflow}
---
apiVersion: v1
kind: Namespace
metadata: {name: media}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: cpu-worker, namespace: media}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: gpu-worker, namespace: media}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: stranger, namespace: media}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: mpegflow-operator, namespace: mpegflow}
---
apiVersion: v1
kind: Node
metadata: {name: node-1}
";

/// The cluster of this test binary, for one test at a time: some take its API server away.
pub struct Turn {
    pub cluster: &'static Cluster,
    _turn: MutexGuard<'static, ()>,
}

pub async fn turn() -> Turn {
    static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();
    static TURN: Mutex<()> = Mutex::const_new(());
    let _turn = TURN.lock().await;
    let cluster = CLUSTER
        .get_or_init(|| async {
            let cluster = Cluster::start(Options::default()).await;
            cluster.apply(SURROUNDINGS).await;
            cluster.apply(include_str!("../../rbac.yaml")).await;
            cluster
        })
        .await;
    Turn { cluster, _turn }
}

impl Turn {
    /// How a broker with exactly the rights of rbac.yaml asks.
    pub async fn tokens(&self) -> PodTokens {
        let kubeconfig = self.cluster.kubeconfig_of("mpegflow", "mpegflow-broker").await;
        PodTokens {
            reviewer: Arc::new(ApiServer::find(Some(&kubeconfig)).await.unwrap()),
            audience: AUDIENCE.into(),
            operator: Some("mpegflow/mpegflow-operator".parse().unwrap()),
            accounts: BTreeMap::from([
                ("media/cpu-worker".parse().unwrap(), "default".parse().unwrap()),
                ("media/gpu-worker".parse().unwrap(), "gpu".parse().unwrap()),
            ]),
        }
    }

    fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.cluster.client(), namespace)
    }

    /// A pod of an account.
    pub async fn pod(&self, namespace: &str, account: &str) -> Pod {
        let pod = json!({
            "metadata": { "generateName": format!("{account}-"), "namespace": namespace },
            "spec": {
                "serviceAccountName": account, "nodeName": "node-1",
                "containers": [{ "name": "worker", "image": "registry.example.com/worker" }],
            },
        });
        let pod = serde_json::from_value(pod).unwrap();
        self.pods(namespace).create(&PostParams::default(), &pod).await.unwrap()
    }

    /// Ends a pod at once.
    pub async fn delete(&self, pod: &Pod) {
        let params = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        let namespace = pod.metadata.namespace.as_deref().unwrap();
        self.pods(namespace).delete(pod.metadata.name.as_deref().unwrap(), &params).await.unwrap();
    }

    /// The token of a pod for an audience, as its kubelet would mount it.
    pub async fn token(&self, pod: &Pod, audience: &str) -> String {
        let bound = BoundObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
        };
        let account = pod.spec.as_ref().unwrap().service_account_name.clone().unwrap();
        self.request(pod.metadata.namespace.as_deref().unwrap(), &account, audience, Some(bound)).await
    }

    /// A token of an account that is bound to what is given.
    pub async fn request(
        &self,
        namespace: &str,
        account: &str,
        audience: &str,
        bound: Option<BoundObjectReference>,
    ) -> String {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.cluster.client(), namespace);
        let spec = TokenRequestSpec {
            audiences: vec![audience.into()],
            expiration_seconds: Some(600),
            bound_object_ref: bound,
        };
        let request = TokenRequest { spec, ..TokenRequest::default() };
        let answer = accounts.create_token_request(account, &PostParams::default(), &request).await.unwrap();
        answer.status.unwrap().token
    }

    /// The same claims with a change, signed by the cluster's own key: as if time had passed.
    pub fn resigned(&self, token: &str, change: impl FnOnce(&mut Value)) -> String {
        let key = std::fs::read(self.cluster.dir().join("pki/accounts.key")).unwrap();
        signed(token, &key, change)
    }
}

/// The claims of a token with a change, signed by a key.
pub fn signed(token: &str, key: &[u8], change: impl FnOnce(&mut Value)) -> String {
    let mut parts = token.split('.');
    let (header, payload) = (parts.next().unwrap(), parts.next().unwrap());
    // The cluster's key is of the curve P-256; its header says another kind where it is RSA.
    let mut head: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
    head["alg"] = json!("ES256");
    let mut claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
    change(&mut claims);
    let text = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(head.to_string()),
        URL_SAFE_NO_PAD.encode(claims.to_string())
    );
    let key = PrivatePkcs8KeyDer::from_pem_slice(key).unwrap();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.secret_pkcs8_der()).unwrap();
    let signature = key.sign(&SystemRandom::new(), text.as_bytes()).unwrap();
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
}

pub fn csr(key: &rcgen::KeyPair) -> String {
    rcgen::CertificateParams::default().serialize_request(key).unwrap().pem().unwrap()
}

/// Status and text of an enrolment with a token.
pub async fn enrol(anonymous: &Client, token: &str, key: &rcgen::KeyPair) -> (u16, String) {
    let body =
        Enroll { token: token.into(), csr: csr(key), pool: "gpu".parse().unwrap(), version: "t".into() };
    let answer = anonymous.call("POST", "/worker/v1/enroll", serde_json::to_vec(&body).unwrap()).await;
    (answer.status.as_u16(), answer.text())
}
