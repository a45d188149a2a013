//! Webhooks over real sockets. Over whichever store the file that takes this in makes its worlds with.

use super::common::*;
use super::receiver::{Got, Receiver};
use super::{world, world_with};
use async_trait::async_trait;
use mpegflow_broker::embedded::Config;
use mpegflow_broker::webhooks::address::Ports;
use mpegflow_broker::webhooks::post::Resolve;
use mpegflow_protocol::api::{Job, JobState};
use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::ids::WebhookId;
use mpegflow_protocol::webhook::{Delivery, DeliveryPage, DeliveryState, Webhook};
use mpegflow_protocol::worker::Fail;
use std::io::Write as _;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Receivers of these tests are on this machine, without TLS, on any port.
fn local(config: &mut Config) {
    config.webhooks.allow_networks = vec!["127.0.0.0/8".parse().unwrap()];
    anywhere(config);
}

/// Any port, with TLS or without; no network but the public ones.
fn anywhere(config: &mut Config) {
    config.webhooks.ports = Ports::new(vec![1..=65_535]);
    config.webhooks.allow_http = true;
}

async fn create(tenant: &Client, url: &str) -> Webhook {
    let answer = tenant.call("POST", "/v1/webhooks", format!(r#"{{"url":"{url}"}}"#)).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()
}

async fn page(tenant: &Client, webhook: &Webhook) -> Vec<Delivery> {
    page_of(tenant, webhook.id).await
}

async fn page_of(tenant: &Client, webhook: WebhookId) -> Vec<Delivery> {
    let page: DeliveryPage = tenant.get(&format!("/v1/webhooks/{webhook}/deliveries")).await.json();
    page.deliveries
}

/// Makes one message: a job that is created.
async fn message(tenant: &Client) -> Job {
    submit(tenant, b"x").await
}

async fn first_tried(tenant: &Client, webhook: &Webhook) -> Delivery {
    eventually("the message was tried", async || {
        page(tenant, webhook).await.first().is_some_and(|d| d.last_error.is_some() || d.ended_at.is_some())
    })
    .await;
    page(tenant, webhook).await.remove(0)
}

/// What the library of the Standard Webhooks project says of each message.
fn verify(messages: &[(String, Got)]) -> Vec<String> {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/standardwebhooks");
    assert!(dir.join("node_modules").exists(), "the library is not installed: run tools/setup test");
    let mut node = Command::new("node")
        .arg("verify.mjs")
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = node.stdin.take().unwrap();
    for (secret, got) in messages {
        let line = serde_json::json!({ "secret": secret, "headers": got.headers, "body": got.body });
        writeln!(input, "{line}").unwrap();
    }
    drop(input);
    let said = node.wait_with_output().unwrap().stdout;
    String::from_utf8(said).unwrap().lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_arrive_once_signed_so_that_a_stock_library_accepts_them() {
    let world = world_with(local).await;
    let receiver = Receiver::start().await;
    let (tenant, other) = (world.tenant("a").await, world.tenant("b").await);
    let webhook = create(&tenant, &receiver.url()).await;
    let secret = webhook.secret.clone().unwrap();
    let input = upload(&tenant, b"x").await;
    let labelled = spec(&input).replace(r#""preset""#, r#""external_id":"a-7","labels":{"k":"v"},"preset""#);
    let job: Job = tenant.call("POST", "/v1/jobs", labelled).await.json();
    message(&other).await;
    let worker = world.worker().await;
    assert_eq!(worker.run().await, 4);
    eventually("both arrived", async || receiver.got().len() >= 2).await;
    // Two that are due at once may come in any order.
    let mut got = receiver.got();
    got.sort_by_key(Got::kind);
    assert_eq!(got.iter().map(Got::kind).collect::<Vec<_>>(), ["job.created", "job.succeeded"]);
    for message in &got {
        let data = &message.json()["data"];
        assert_eq!(
            (data["job"].as_str().unwrap(), data["external_id"].as_str().unwrap()),
            (job.id.to_string().as_str(), "a-7")
        );
        assert_eq!((&data["labels"]["k"], message.path.as_str()), (&"v".into(), "/in?token=t"));
        assert_eq!(message.headers["content-type"], "application/json");
        assert_eq!(message.headers["host"], receiver.address.to_string());
    }
    assert_ne!(got[0].id(), got[1].id());

    // A changed body, another secret, another id and an old time are refused: the library looks at all of them.
    let mut tampered = got[0].clone();
    tampered.body = tampered.body.replace("created", "deleted");
    let mut renamed = got[0].clone();
    renamed.headers.insert("webhook-id".into(), got[1].id().into());
    let stranger = create(&tenant, "http://127.0.0.1:9/").await.secret.unwrap();
    let cases = [
        (secret.clone(), got[0].clone()),
        (secret.clone(), got[1].clone()),
        (secret.clone(), tampered),
        (secret, renamed),
        (stranger, got[0].clone()),
    ];
    let said = verify(&cases);
    assert_eq!(said[..2], ["ok", "ok"]);
    assert_eq!(said.iter().filter(|s| s.starts_with("refused")).count(), 3, "{said:?}");

    // The secret is shown once, and its salt is no secret.
    let path = format!("/v1/webhooks/{}", webhook.id);
    assert_eq!(tenant.get(&path).await.json::<Webhook>().secret, None);
    eventually("both are delivered", async || {
        page(&tenant, &webhook).await.iter().filter(|d| d.state == DeliveryState::Delivered).count() == 2
    })
    .await;
    assert_eq!(receiver.got().len(), 2, "once each");

    // Nothing of it is another tenant's.
    for (method, path) in [
        ("GET", path.clone()),
        ("DELETE", path.clone()),
        ("POST", format!("{path}/rotate")),
        ("POST", format!("{path}/enable")),
        ("GET", format!("{path}/deliveries")),
        ("POST", format!("{path}/deliveries/{}/redeliver", got[0].id())),
    ] {
        assert_eq!(other.call(method, &path, "").await.status, 404, "{method} {path}");
        assert_eq!(world.anonymous().call(method, &path, "").await.status, 401, "{method} {path}");
    }
    assert_eq!(other.get("/v1/webhooks").await.json::<Vec<Webhook>>(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_and_a_hundred_calls_are_one_webhook_one_secret_and_one_redelivery() {
    let world = world_with(local).await;
    let receiver = Receiver::start().await;
    let tenant = world.tenant("a").await;
    let hundred = async |key: &str, path: &str, body: &str, status: u16| {
        let keyed = tenant.with("idempotency-key", key);
        let calls = (0..100).map(|_| keyed.call("POST", path, body.to_owned()));
        let answers = futures_util::future::join_all(calls).await;
        let same = answers.iter().all(|a| a.status == status && a.body == answers[0].body);
        assert!(same, "{path}: {} {}", answers[0].status, answers[0].text());
        answers[0].body.clone()
    };
    let wanted = format!(r#"{{"url":"{}"}}"#, receiver.url());
    let made: Webhook = serde_json::from_slice(&hundred("make", "/v1/webhooks", &wanted, 201).await).unwrap();
    assert_eq!(tenant.get("/v1/webhooks").await.json::<Vec<Webhook>>().len(), 1);
    let path = format!("/v1/webhooks/{}", made.id);
    let rotated: Webhook = serde_json::from_slice(
        &hundred("rotate", &format!("{path}/rotate"), r#"{"overlap_s":0}"#, 200).await,
    )
    .unwrap();
    assert_ne!(rotated.secret, made.secret);
    // The key of a call long since overtaken still gives what that call gave, and a key is for one request.
    let again = tenant.with("idempotency-key", "make").call("POST", "/v1/webhooks", wanted.clone()).await;
    assert_eq!(again.json::<Webhook>().secret, made.secret);
    for (key, path, body) in [
        ("make", "/v1/webhooks".to_owned(), r#"{"url":"http://127.0.0.1:9/"}"#),
        ("make", format!("{path}/rotate"), ""),
        ("rotate", format!("{path}/enable"), ""),
    ] {
        let reused = tenant.with("idempotency-key", key).call("POST", &path, body).await;
        assert_eq!(
            (reused.status.as_u16(), reused.problem().as_str()),
            (422, "idempotency_mismatch"),
            "{path}"
        );
    }
    hundred("enable", &format!("{path}/enable"), "", 200).await;
    message(&tenant).await;
    eventually("it arrives", async || receiver.got().len() == 1).await;
    // The newest secret signs it, as the one rotation has told.
    let got = receiver.got().remove(0);
    let said = verify(&[(rotated.secret.unwrap(), got.clone()), (made.secret.unwrap(), got.clone())]);
    assert!(said[0] == "ok" && said[1] != "ok", "{said:?}");
    eventually("it is delivered", async || {
        page_of(&tenant, made.id).await[0].state == DeliveryState::Delivered
    })
    .await;
    hundred("again", &format!("{path}/deliveries/{}/redeliver", got.id()), "", 202).await;
    eventually("it is delivered again", async || {
        receiver.got().len() == 2 && page_of(&tenant, made.id).await[0].state == DeliveryState::Delivered
    })
    .await;
    assert_eq!(receiver.got().len(), 2, "a hundred calls are one redelivery");
    // No secret is kept for a repetition.
    for file in files(&world.config.data_dir) {
        let bytes = std::fs::read(&file).unwrap();
        assert!(!bytes.windows(6).any(|w| w == b"whsec_"), "{file}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_message_is_tried_again_by_itself_and_by_the_api_with_the_same_id() {
    let world = world_with(local).await;
    let receiver = Receiver::start().await;
    let tenant = world.tenant("a").await;
    let webhook = create(&tenant, &receiver.url()).await;
    receiver.answer(500, None);
    receiver.answer(503, Some(("retry-after", "3600".into())));
    message(&tenant).await;
    let tried = first_tried(&tenant, &webhook).await;
    assert_eq!((tried.state, tried.attempts, tried.last_status), (DeliveryState::Pending, 1, Some(500)));
    // By itself after about five seconds.
    eventually("it came again", async || receiver.got().len() == 2).await;
    eventually("it is written down", async || page(&tenant, &webhook).await[0].last_status == Some(503))
        .await;
    let waiting = page(&tenant, &webhook).await.remove(0);
    let next: jiff::Timestamp = waiting.next_attempt_at.unwrap().parse().unwrap();
    assert!(next.as_second() - jiff::Timestamp::now().as_second() > 3_000, "Retry-After is obeyed");
    assert_eq!(waiting.last_error.as_deref(), Some("it answered 503"), "nothing of the answer's body");
    let path = format!("/v1/webhooks/{}/deliveries/{}/redeliver", webhook.id, waiting.id);
    assert_eq!(tenant.call("POST", &path, "").await.status, 202);
    eventually("it arrived", async || page(&tenant, &webhook).await[0].state == DeliveryState::Delivered)
        .await;
    // And once more, although it was delivered.
    assert_eq!(tenant.call("POST", &path, "").await.status, 202);
    eventually("it came again", async || receiver.got().len() == 4).await;
    let got = receiver.got();
    assert!(got.iter().all(|g| g.id() == waiting.id.to_string() && g.body == got[0].body), "{got:?}");
    let secret = webhook.secret.unwrap();
    assert_eq!(verify(&[(secret, got[3].clone())]), ["ok"], "signed with the time of the attempt");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_is_gone_is_disabled_and_can_be_enabled() {
    let world = world_with(local).await;
    let receiver = Receiver::start().await;
    let tenant = world.tenant("a").await;
    let webhook = create(&tenant, &receiver.url()).await;
    receiver.answer(410, None);
    let job = message(&tenant).await;
    let path = format!("/v1/webhooks/{}", webhook.id);
    eventually("it is disabled", async || !tenant.get(&path).await.json::<Webhook>().enabled).await;
    assert_eq!(tenant.get(&path).await.json::<Webhook>().disabled_reason.as_deref(), Some("gone"));
    assert_eq!(page(&tenant, &webhook).await[0].state, DeliveryState::Failed);
    tenant.call("POST", &format!("/v1/jobs/{}/cancel", job.id), "").await;
    // Over a round of the sender.
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    assert_eq!(receiver.got().len(), 1, "nothing is sent");
    assert!(tenant.call("POST", &format!("{path}/enable"), "").await.json::<Webhook>().enabled);
    message(&tenant).await;
    eventually("it hears again", async || receiver.got().len() == 2).await;
    assert_eq!(receiver.got()[1].kind(), "job.created");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_a_rotation_messages_verify_with_the_old_and_the_new_secret() {
    let world = world_with(local).await;
    let receiver = Receiver::start().await;
    let tenant = world.tenant("a").await;
    let webhook = create(&tenant, &receiver.url()).await;
    let (path, old) = (format!("/v1/webhooks/{}/rotate", webhook.id), webhook.secret.unwrap());
    let rotated: Webhook = tenant.call("POST", &path, "").await.json();
    let new = rotated.secret.unwrap();
    assert_eq!((rotated.secrets, old == new), (2, false));
    message(&tenant).await;
    eventually("it arrived", async || receiver.got().len() == 1).await;
    let newest: Webhook = tenant.call("POST", &path, r#"{"overlap_s":0}"#).await.json();
    assert_eq!(newest.secrets, 1, "the leaked ones sign no more");
    message(&tenant).await;
    eventually("it arrived", async || receiver.got().len() == 2).await;
    let got = receiver.got();
    let newest = newest.secret.unwrap();
    let said = verify(&[
        (old.clone(), got[0].clone()),
        (new.clone(), got[0].clone()),
        (newest.clone(), got[0].clone()),
        (old, got[1].clone()),
        (new, got[1].clone()),
        (newest, got[1].clone()),
    ]);
    let accepted: Vec<bool> = said.iter().map(|s| s == "ok").collect();
    assert_eq!(accepted, [true, true, false, false, false, true], "{said:?}");
    for overlap in ["604801", "-1", "\"x\""] {
        let answer = tenant.call("POST", &path, format!(r#"{{"overlap_s":{overlap}}}"#)).await;
        assert_eq!(answer.problem(), "invalid_field");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_while_the_broker_was_down_is_told_after_it() {
    let mut world = world_with(local).await;
    let receiver = Receiver::start().await;
    let tenant = world.tenant("a").await;
    create(&tenant, &receiver.url()).await;
    message(&tenant).await;
    // Nobody knows how far it came.
    world.crash_and_restart().await;
    // An attempt that the crash cut off is begun anew when its claim has run out.
    for _ in 0..60 {
        if receiver.got().is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        }
    }
    eventually("it arrived", async || !receiver.got().is_empty()).await;
    let ids: std::collections::BTreeSet<String> = receiver.got().iter().map(|g| g.id().to_owned()).collect();
    assert_eq!(ids.len(), 1, "one message, however often it was sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_not_followed() {
    let world = world_with(local).await;
    let (receiver, inner) = (Receiver::start().await, Receiver::start().await);
    let tenant = world.tenant("a").await;
    let webhook = create(&tenant, &receiver.url()).await;
    for status in [301, 302, 303, 307, 308] {
        receiver.answer(status, Some(("location", inner.url())));
        message(&tenant).await;
    }
    eventually("all were tried", async || {
        let tried = page(&tenant, &webhook).await;
        tried.len() == 5 && tried.iter().all(|d| d.last_status.is_some_and(|s| (300..400).contains(&s)))
    })
    .await;
    assert_eq!(inner.got().len(), 0);
    assert!(page(&tenant, &webhook).await[0].last_error.as_ref().unwrap().contains("not followed"));
}

/// Says that a name has these addresses, and counts how often it was asked.
struct Zone(Vec<IpAddr>, AtomicU32);

#[async_trait]
impl Resolve for Zone {
    async fn resolve(&self, _: &str, _: u16) -> std::io::Result<Vec<IpAddr>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        if self.0.is_empty() { Err(std::io::Error::other("no such name")) } else { Ok(self.0.clone()) }
    }
}

fn zone(addresses: &[&str]) -> Arc<Zone> {
    Arc::new(Zone(addresses.iter().map(|a| a.parse().unwrap()).collect(), AtomicU32::new(0)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_leads_inside_is_not_followed_there_and_all_refusals_look_alike() {
    let receiver = Receiver::start().await;
    let mut said = std::collections::BTreeSet::new();
    for addresses in [
        &["127.0.0.1"] as &[&str],
        &["::ffff:127.0.0.1"],
        &["::1"],
        &["10.0.0.1"],
        &["169.254.169.254"],
        &["fd00:ec2::254"],
        // The first one is public: the answer as a whole is refused all the same.
        &["192.0.43.8", "127.0.0.1"],
        &["2606:4700::1111", "::ffff:10.0.0.1"],
        // There is no such name.
        &[],
    ] {
        let zone = zone(addresses);
        let resolver: Arc<dyn Resolve> = zone.clone();
        let world = world_with(|c| {
            anywhere(c);
            c.resolver = resolver;
        })
        .await;
        let tenant = world.tenant("a").await;
        let url = format!("http://inside.example.com:{}/", receiver.address.port());
        let webhook = create(&tenant, &url).await;
        message(&tenant).await;
        let tried = first_tried(&tenant, &webhook).await;
        assert_eq!((tried.state, tried.last_status), (DeliveryState::Pending, None), "{addresses:?}");
        said.insert(tried.last_error.unwrap());
        assert_eq!(zone.1.load(Ordering::Relaxed), 1, "what is checked is what is connected to: asked once");
    }
    // An address in the URL itself goes the same way.
    let world = world_with(anywhere).await;
    let tenant = world.tenant("a").await;
    let webhook = create(&tenant, &receiver.url()).await;
    message(&tenant).await;
    said.insert(first_tried(&tenant, &webhook).await.last_error.unwrap());
    assert_eq!(receiver.got().len(), 0, "nobody was reached");
    assert_eq!(said.len(), 1, "whether a name is one of the inside is not told: {said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_checked_address_is_connected_to_with_the_name_of_the_url_in_tls_and_http() {
    let dir = tempfile::tempdir().unwrap();
    let (receiver, ca) = Receiver::start_tls("hooks.example.com", dir.path()).await;
    let world = world_with(|c| {
        local(c);
        c.webhooks.allow_http = false;
        c.webhooks.ca_file = Some(ca);
        c.resolver = zone(&["127.0.0.1"]);
    })
    .await;
    let tenant = world.tenant("a").await;
    let port = receiver.address.port();
    let right = create(&tenant, &format!("https://hooks.example.com:{port}/a")).await;
    let wrong = create(&tenant, &format!("https://other.example.com:{port}/a")).await;
    message(&tenant).await;
    eventually("it arrived", async || receiver.got().len() == 1).await;
    assert_eq!(receiver.got()[0].headers["host"], format!("hooks.example.com:{port}"));
    let tried = first_tried(&tenant, &wrong).await;
    assert!(tried.last_error.unwrap().starts_with("TLS failed"));
    eventually("it is delivered", async || page(&tenant, &right).await[0].state == DeliveryState::Delivered)
        .await;
    assert_eq!(receiver.got().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn new_certificate_authorities_hold_without_a_restart() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (receiver, right) = Receiver::start_tls("hooks.example.com", dir.path()).await;
    let (_, wrong) = Receiver::start_tls("hooks.example.com", other.path()).await;
    let trusted = dir.path().join("trusted.pem");
    std::fs::copy(&wrong, &trusted).unwrap();
    let world = world_with(|c| {
        local(c);
        c.webhooks.ca_file = Some(trusted.clone());
        c.resolver = zone(&["127.0.0.1"]);
    })
    .await;
    let tenant = world.tenant("a").await;
    let url = format!("https://hooks.example.com:{}/", receiver.address.port());
    let webhook = create(&tenant, &url).await;
    message(&tenant).await;
    let tried = first_tried(&tenant, &webhook).await;
    assert!(tried.last_error.unwrap().starts_with("TLS failed"));
    // A file that is none changes nothing, and a good one holds with the next attempt.
    std::fs::write(&trusted, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    message(&tenant).await;
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    std::fs::copy(&right, &trusted).unwrap();
    message(&tenant).await;
    eventually("it arrives", async || !receiver.got().is_empty()).await;
}

#[tokio::test]
async fn urls_that_lead_elsewhere_than_they_seem_are_not_taken() {
    let world = world().await;
    let tenant = world.tenant("a").await;
    for url in [
        "http://example.com/",
        "https://example.com:22/",
        "https://user@example.com/",
        "https://example.com#@10.0.0.1/",
        "https://localhost/",
        "https://0x7f000001/",
        "https://2130706433/",
        "file:///etc/passwd",
        "",
    ] {
        let answer = tenant.call("POST", "/v1/webhooks", serde_json::json!({ "url": url }).to_string()).await;
        assert_eq!(answer.problem(), "invalid_field", "{url}");
        assert_eq!(answer.json::<serde_json::Value>()["field"], "url", "{url}");
    }
    for body in [
        r#"{"url":"https://example.com/","types":[]}"#,
        r#"{"url":"https://example.com/","types":["job.exploded"]}"#,
        r#"{"url":"https://example.com/","secret":"whsec_x"}"#,
        r#"{"url":"https://example.com/","description":""}"#,
    ] {
        assert_eq!(tenant.call("POST", "/v1/webhooks", body).await.problem(), "invalid_field", "{body}");
    }
    for n in 0..16 {
        create(&tenant, &format!("https://example.com/{n}")).await;
    }
    let full = tenant.call("POST", "/v1/webhooks", r#"{"url":"https://example.com/"}"#).await;
    assert_eq!((full.status.as_u16(), full.problem().as_str()), (429, "quota_exceeded"));
    let listed: Vec<Webhook> = tenant.get("/v1/webhooks").await.json();
    assert_eq!(listed.len(), 16);
    assert_eq!(tenant.call("DELETE", &format!("/v1/webhooks/{}", listed[0].id), "").await.status, 204);
    assert_eq!(tenant.call("DELETE", &format!("/v1/webhooks/{}", listed[0].id), "").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_types_that_were_asked_for_are_sent_and_a_failure_says_why() {
    let world = world_with(local).await;
    let receiver = Receiver::start().await;
    let tenant = world.tenant("a").await;
    let wanted = serde_json::json!({ "url": receiver.url(), "types": ["job.failed"] });
    assert_eq!(tenant.call("POST", "/v1/webhooks", wanted.to_string()).await.status, 201);
    let canceled = message(&tenant).await;
    tenant.call("POST", &format!("/v1/jobs/{}/cancel", canceled.id), "").await;
    let job = message(&tenant).await;
    let worker = world.worker().await;
    let lease = worker.lease().await;
    let fail = Fail { failure: Failure::new(FailureCode::InputTruncated, "no moov"), evidence: None };
    worker.end(&lease, "fail", serde_json::to_vec(&fail).unwrap()).await;
    eventually("it arrived", async || receiver.got().len() == 1).await;
    let data = receiver.got()[0].json()["data"].clone();
    assert_eq!(data["job"], job.id.to_string());
    assert_eq!((&data["state"], &data["failure"]["code"]), (&"failed".into(), &"input_truncated".into()));
    let shown = show(&tenant, &job).await;
    assert_eq!(shown.state, JobState::Failed);
}
