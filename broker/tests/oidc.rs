//! Tenants by tokens of an issuer that this test runs: who gets in, and every forgery that does not.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs,
    reason = "tests"
)]

mod common;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use axum::Router;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::{Client, World};
use mpegflow_broker::engine::{TokenError, Tokens as _};
use mpegflow_broker::model::{Clock as _, SystemClock, Time};
use mpegflow_broker::oidc::{Algorithm, Oidc, OidcConfig, Times};
use mpegflow_broker::scopes::Scopes;
use mpegflow_protocol::api::Job;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

struct Rsa(RsaKeyPair);

impl Rsa {
    fn new() -> Self {
        Self(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    /// Modulus and exponent, from `SEQUENCE { INTEGER, INTEGER }` (RFC 8017, A.1.1).
    fn numbers(&self) -> (Vec<u8>, Vec<u8>) {
        fn element(der: &[u8]) -> (&[u8], &[u8]) {
            let (len, at) = match der[1] {
                short @ 0..0x80 => (usize::from(short), 2),
                long => {
                    let n = usize::from(long & 0x7f);
                    (der[2..2 + n].iter().fold(0, |len, b| len << 8 | usize::from(*b)), 2 + n)
                }
            };
            (&der[at..at + len], &der[at + len..])
        }
        let (sequence, _) = element(self.0.public_key().as_ref());
        let (n, rest) = element(sequence);
        let (e, _) = element(rest);
        let number = |bytes: &[u8]| bytes[usize::from(bytes[0] == 0)..].to_vec();
        (number(n), number(e))
    }

    fn modulus(&self) -> Vec<u8> {
        self.numbers().0
    }

    fn jwk(&self, kid: &str) -> Value {
        let e = self.numbers().1;
        json!({"kty": "RSA", "use": "sig", "kid": kid, "n": b64(self.modulus()), "e": b64(e)})
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let mut signature = vec![0; self.0.public_modulus_len()];
        self.0.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).unwrap();
        signature
    }

    fn token(&self, head: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", b64(head.to_string()), b64(claims.to_string()));
        format!("{signed}.{}", b64(self.sign(signed.as_bytes())))
    }
}

/// An issuer: its discovery document, its keys, and how often these were asked for.
struct Issuer {
    url: String,
    keys: Arc<Mutex<Option<String>>>,
    asked: Arc<AtomicUsize>,
}

impl Issuer {
    async fn start(keys: &[Value]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/realms/a", listener.local_addr().unwrap());
        let issuer = Self { url: url.clone(), keys: Arc::default(), asked: Arc::default() };
        issuer.set(keys);
        let (served, asked) = (Arc::clone(&issuer.keys), Arc::clone(&issuer.asked));
        let discovery = json!({"issuer": url, "jwks_uri": format!("{url}/keys")}).to_string();
        let answer = move || {
            asked.fetch_add(1, Ordering::SeqCst);
            let keys = served.lock().unwrap().clone();
            async move { keys.ok_or(axum::http::StatusCode::SERVICE_UNAVAILABLE) }
        };
        let router = Router::new()
            .route("/realms/a/.well-known/openid-configuration", get(move || async move { discovery }))
            .route("/realms/a/keys", get(answer));
        tokio::spawn(async move { axum_serve(listener, router).await });
        issuer
    }

    fn set(&self, keys: &[Value]) {
        *self.keys.lock().unwrap() = Some(json!({ "keys": keys }).to_string());
    }

    fn stop(&self) {
        *self.keys.lock().unwrap() = None;
    }

    fn config(&self) -> OidcConfig {
        OidcConfig {
            issuer: self.url.parse().unwrap(),
            jwks: None,
            audience: "mpegflow".into(),
            algorithm: Algorithm::Rs256,
            tenant_claim: "mpegflow_tenant".into(),
            ca_file: None,
        }
    }

    /// Good claims, with changes; null removes.
    fn claims(&self, changes: Value) -> Value {
        let now = SystemClock.now().0 / 1_000;
        let mut claims = json!({
            "iss": self.url, "aud": "mpegflow", "sub": "someone", "mpegflow_tenant": "a",
            "iat": now, "nbf": now, "exp": now + 300,
        });
        for (name, value) in changes.as_object().unwrap() {
            if value.is_null() {
                claims.as_object_mut().unwrap().remove(name);
            } else {
                claims[name] = value.clone();
            }
        }
        claims
    }
}

async fn axum_serve(listener: tokio::net::TcpListener, router: Router) {
    let stop = tokio_util::sync::CancellationToken::new();
    mpegflow_broker::http::serve::run(listener, None, router, Default::default(), Default::default(), stop)
        .await;
}

fn head(kid: &str) -> Value {
    json!({"alg": "RS256", "typ": "JWT", "kid": kid})
}

async fn world_with(issuer: &Issuer, scopes: Scopes) -> World {
    let config = issuer.config();
    common::world_with(|c| c.oidc = Some((config, scopes))).await
}

fn bearer(world: &World, token: impl std::fmt::Display) -> Client {
    world.anonymous().with("authorization", format!("Bearer {token}"))
}

async fn status(world: &World, token: impl std::fmt::Display) -> u16 {
    bearer(world, token).get("/v1/jobs").await.status.as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_signs_in_as_the_tenant_that_it_names_and_as_no_other() {
    let key = Rsa::new();
    let issuer = Issuer::start(&[key.jwk("k1")]).await;
    let world = world_with(&issuer, Scopes::ALL).await;
    let (by_key, other) = (world.tenant("a").await, world.tenant("b").await);
    let by_token = bearer(&world, key.token(&head("k1"), &issuer.claims(json!({}))));
    let job = common::submit(&by_token, b"x").await;
    assert_eq!(common::show(&by_key, &job).await.id, job.id, "the same tenant by its key");
    assert_eq!(other.get(&format!("/v1/jobs/{}", job.id)).await.status, 404);
    let of_b = bearer(&world, key.token(&head("k1"), &issuer.claims(json!({"mpegflow_tenant": "b"}))));
    assert_eq!(of_b.get(&format!("/v1/jobs/{}", job.id)).await.status, 404);
    let theirs: Job = common::submit(&of_b, b"x").await;
    assert_eq!(other.get(&format!("/v1/jobs/{}", theirs.id)).await.status, 200);
    // No token makes a tenant, and one that was deleted is none.
    assert_eq!(
        status(&world, key.token(&head("k1"), &issuer.claims(json!({"mpegflow_tenant": "c"})))).await,
        401
    );
    assert_eq!(world.broker().engine().store().tenant_named("c").await.unwrap(), None);
    world.broker().engine().delete_tenant("b").await.unwrap().unwrap();
    assert_eq!(of_b.get("/v1/jobs").await.status, 401);
    assert_eq!(issuer.asked.load(Ordering::SeqCst), 1, "the keys were asked for once");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_forged_stale_or_misdirected_token_is_taken() {
    let (key, attacker) = (Rsa::new(), Rsa::new());
    let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let point = ec.public_key().as_ref();
    let ec_jwk =
        json!({"kty": "EC", "crv": "P-256", "kid": "ec", "x": b64(&point[1..33]), "y": b64(&point[33..])});
    let issuer = Issuer::start(&[key.jwk("k1"), ec_jwk]).await;
    let world = world_with(&issuer, Scopes::ALL).await;
    world.tenant("a").await;
    let good = issuer.claims(json!({}));
    assert_eq!(
        status(&world, key.token(&head("k1"), &good)).await,
        200,
        "the token that all others are made from"
    );

    let part = |value: &Value| b64(value.to_string());
    let mut forged: Vec<(&str, String)> = Vec::new();
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        let head = json!({"alg": alg, "kid": "k1"});
        forged.push(("no signature", format!("{}.{}.", part(&head), part(&good))));
        let real = key.sign(format!("{}.{}", part(&head), part(&good)).as_bytes());
        forged.push(("none with a real signature", format!("{}.{}.{}", part(&head), part(&good), b64(real))));
    }
    // The public key as an HMAC's secret, in the forms that libraries were fooled with.
    let jwk = key.jwk("k1").to_string().into_bytes();
    for secret in [key.modulus(), b64(key.modulus()).into_bytes(), jwk, Vec::new()] {
        for (alg, kid) in [("HS256", "k1"), ("HS256", "ec"), ("RS256", "k1")] {
            let signed = format!("{}.{}", part(&json!({"alg": alg, "kid": kid})), part(&good));
            let tag = aws_lc_rs::hmac::sign(
                &aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &secret),
                signed.as_bytes(),
            );
            forged.push(("HMAC", format!("{signed}.{}", b64(tag))));
        }
    }
    let signed = format!("{}.{}", part(&json!({"alg": "ES256", "kid": "ec"})), part(&good));
    let signature = ec.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
    forged.push(("another algorithm with a real key of it", format!("{signed}.{}", b64(signature))));
    forged.push(("another key", attacker.token(&head("k1"), &good)));
    forged.push(("another key by its own name", attacker.token(&head("k2"), &good)));
    for (what, more) in [
        ("a key of its own", json!({"jwk": attacker.jwk("k1")})),
        ("a set of its own", json!({"jku": format!("{}/keys", issuer.url)})),
        ("a certificate of its own", json!({"x5u": "http://127.0.0.1:1/", "x5c": ["AA"]})),
    ] {
        let mut head = head("k1");
        head.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        forged.push((what, attacker.token(&head, &good)));
    }
    forged.push((
        "critical extensions",
        key.token(&json!({"alg": "RS256", "kid": "k1", "crit": ["b64"], "b64": false}), &good),
    ));
    forged.push(("an algorithm's other spelling", key.token(&json!({"alg": "rs256", "kid": "k1"}), &good)));
    forged.push(("an algorithm that is no text", key.token(&json!({"alg": ["RS256"], "kid": "k1"}), &good)));
    let now = SystemClock.now().0 / 1_000;
    for (what, changes) in [
        ("expired", json!({"exp": now - 120})),
        ("without an end", json!({"exp": null})),
        ("an end that is a text", json!({"exp": format!("{}", now + 300)})),
        ("an end beyond numbers", json!({"exp": -1.0e300})),
        ("not yet", json!({"nbf": now + 120})),
        ("issued in the future", json!({"iat": now + 120})),
        ("another audience", json!({"aud": "mpegflow2"})),
        ("other audiences", json!({"aud": ["x", "MPEGFLOW", {"a": "mpegflow"}]})),
        ("no audience", json!({"aud": null})),
        ("no audience at all", json!({"aud": []})),
        ("another issuer", json!({"iss": format!("{}/", issuer.url)})),
        ("no issuer", json!({"iss": null})),
        ("no tenant", json!({"mpegflow_tenant": null})),
        ("an empty tenant", json!({"mpegflow_tenant": ""})),
        ("a list of tenants", json!({"mpegflow_tenant": ["a"]})),
    ] {
        forged.push((what, key.token(&head("k1"), &issuer.claims(changes))));
    }
    let token = key.token(&head("k1"), &good);
    let parts: Vec<&str> = token.split('.').collect();
    let other = part(&issuer.claims(json!({"mpegflow_tenant": "b"})));
    forged.push(("other claims under the signature", format!("{}.{other}.{}", parts[0], parts[2])));
    forged.push(("half a signature", format!("{}.{}.{}", parts[0], parts[1], &parts[2][..100])));
    forged.push(("a signature too many", format!("{token}.{}", parts[2])));
    forged.push(("padding", format!("{token}==")));
    forged.push(("two parts", format!("{}.{}", parts[0], parts[1])));
    forged.push(("not base64url", token.replace('.', ".+")));
    forged.push(("claims that are a list", {
        let signed = format!("{}.{}", part(&head("k1")), b64("[]"));
        format!("{signed}.{}", b64(key.sign(signed.as_bytes())))
    }));
    forged.push(("a header twice", {
        let signed = format!("{}.{}", b64(r#"{"alg":"none","alg":"RS256","kid":"k1"}"#), part(&good));
        format!("{signed}.{}", b64(key.sign(signed.as_bytes())))
    }));
    forged.push(("too long", key.token(&head("k1"), &issuer.claims(json!({"x": "y".repeat(9_000)})))));
    forged.push(("nothing", "..".into()));
    assert!(forged.len() > 50);
    for (what, token) in &forged {
        assert_eq!(status(&world, token).await, 401, "{what}: {token}");
    }
    // What is allowed: clocks that differ a little, one of several audiences, times with fractions.
    for changes in [
        json!({"exp": now - 20}),
        json!({"nbf": now + 20, "iat": now + 20}),
        json!({"aud": ["x", "mpegflow"]}),
        json!({"exp": now as f64 + 300.5}),
    ] {
        assert_eq!(
            status(&world, key.token(&head("k1"), &issuer.claims(changes.clone()))).await,
            200,
            "{changes}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_may_do_what_the_operator_says_and_no_more() {
    let key = Rsa::new();
    let issuer = Issuer::start(&[key.jwk("k1")]).await;
    let world = world_with(&issuer, Scopes::read("read")).await;
    world.tenant("a").await;
    let reader = bearer(&world, key.token(&head("k1"), &issuer.claims(json!({}))));
    assert_eq!(reader.get("/v1/jobs").await.status, 200);
    let refused = reader.call("POST", "/v1/uploads", r#"{"size":1}"#).await;
    assert_eq!((refused.status.as_u16(), refused.problem().as_str()), (403, "forbidden"));
}

fn times(fresh_ms: u64, again_ms: u64, stale_ms: u64) -> Times {
    Times {
        fresh: Duration::from_millis(fresh_ms),
        again: Duration::from_millis(again_ms),
        stale: Duration::from_millis(stale_ms),
    }
}

#[tokio::test]
async fn keys_are_rotated_without_a_restart_and_made_up_names_cost_the_issuer_nothing() {
    let (old, new) = (Rsa::new(), Rsa::new());
    let issuer = Issuer::start(&[old.jwk("old")]).await;
    let oidc = Oidc::new(issuer.config()).unwrap().with_times(times(600_000, 300, 600_000));
    let now = SystemClock.now();
    let claims = issuer.claims(json!({}));
    let (by_old, by_new) = (old.token(&head("old"), &claims), new.token(&head("new"), &claims));
    assert_eq!(oidc.tenant_named_by(&by_old, now).await.as_deref(), Ok("a"));
    // A flood of names that nobody has.
    for n in 0..200 {
        let token = new.token(&head(&format!("made-up-{n}")), &claims);
        assert!(matches!(oidc.tenant_named_by(&token, now).await, Err(TokenError::Refused(_))));
    }
    let asked = issuer.asked.load(Ordering::SeqCst);
    // RSA signatures of 200 tokens take a while on a slow machine: one question for each 300 ms of it.
    assert!(asked < 100, "{asked}");
    issuer.set(&[old.jwk("old"), new.jwk("new")]);
    tokio::time::sleep(Duration::from_millis(350)).await;
    assert_eq!(oidc.tenant_named_by(&by_new, now).await.as_deref(), Ok("a"), "the new one, at once");
    assert_eq!(
        oidc.tenant_named_by(&by_old, now).await.as_deref(),
        Ok("a"),
        "and the old one while it is there"
    );
    // Withdrawn: gone with the next look at the issuer's keys.
    issuer.set(&[new.jwk("new")]);
    tokio::time::sleep(Duration::from_millis(350)).await;
    let unknown = new.token(&head("other"), &claims);
    assert!(oidc.tenant_named_by(&unknown, now).await.is_err());
    assert!(matches!(oidc.tenant_named_by(&by_old, now).await, Err(TokenError::Refused(_))));
    assert_eq!(oidc.tenant_named_by(&by_new, now).await.as_deref(), Ok("a"));
    assert!(
        oidc.tenant_named_by(&by_new, Time(now.0 + 3_600_000)).await.is_err(),
        "it ends by the broker's clock"
    );
}

#[tokio::test]
async fn an_issuer_that_does_not_answer_lets_known_keys_go_on_for_a_while_and_nobody_in_by_itself() {
    let key = Rsa::new();
    let issuer = Issuer::start(&[key.jwk("k1")]).await;
    let token = key.token(&head("k1"), &issuer.claims(json!({})));
    let now = SystemClock.now();
    issuer.stop();
    let oidc = Oidc::new(issuer.config()).unwrap().with_times(times(0, 0, 1_500));
    assert_eq!(oidc.tenant_named_by(&token, now).await, Err(TokenError::NoKeys), "nobody can say");
    issuer.set(&[key.jwk("k1")]);
    assert_eq!(oidc.tenant_named_by(&token, now).await.as_deref(), Ok("a"));
    issuer.stop();
    assert_eq!(oidc.tenant_named_by(&token, now).await.as_deref(), Ok("a"), "by the keys that are known");
    tokio::time::sleep(Duration::from_millis(1_600)).await;
    assert_eq!(oidc.tenant_named_by(&token, now).await, Err(TokenError::NoKeys), "but not for ever");
    // An answer without end is cut off, and is no set of keys.
    let endless = json!({"keys": [key.jwk("k1")], "x": "y".repeat(300 << 10)}).to_string();
    *issuer.keys.lock().unwrap() = Some(endless);
    assert_eq!(oidc.tenant_named_by(&token, now).await, Err(TokenError::NoKeys));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_told_when_nobody_can_verify_its_token() {
    let key = Rsa::new();
    let issuer = Issuer::start(&[key.jwk("k1")]).await;
    issuer.stop();
    let world = world_with(&issuer, Scopes::ALL).await;
    let by_key = world.tenant("a").await;
    let answer = bearer(&world, key.token(&head("k1"), &issuer.claims(json!({})))).get("/v1/jobs").await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (503, "not_ready"));
    assert!(answer.headers.contains_key("retry-after"));
    assert_eq!(by_key.get("/v1/jobs").await.status, 200, "API keys need no issuer");
}
