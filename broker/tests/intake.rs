//! The intake on real servers: objects that arrive in a tenant's own storage become jobs, each once, however often it is said and by
//! whichever way; and what hostile senders get out of it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs,
    reason = "tests"
)]

mod common;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/s3.rs"]
mod s3;
#[path = "support/signed.rs"]
mod signed;

use common::*;
use futures_util::StreamExt as _;
use mpegflow_broker::embedded::{self, Config, Running};
use mpegflow_broker::engine::NewKey;
use mpegflow_broker::model::TenantLimits;
use mpegflow_broker::scopes::Scopes;
use mpegflow_protocol::api::{Job, JobPage, JobState};
use mpegflow_protocol::control::Storage;
use mpegflow_protocol::ids::TenantId;
use mpegflow_protocol::intake::{MAX_EVENTS, MAX_RECORDS, Rule, Taken};
use mpegflow_protocol::job::InputRef;
use s3::{BUCKET, Kind, OWN, Server};
use serde_json::json;
use signed::{path, root, send};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

/// What the brokers of these tests take from a server.
fn on(server: &Server) -> impl FnOnce(&mut Config) + use<> {
    let (objects, dir) = (Arc::new(server.objects()), server.dir.path().to_owned());
    move |config: &mut Config| {
        config.objects = Some(objects);
        let setup = &mut config.tenant_storage;
        (setup.secrets, setup.allow_http) = (Some(dir), true);
        setup.shared = Some((BUCKET.into(), "mpegflow/".into()));
    }
}

async fn give(broker: &Running, server: &Server, name: &str, prefix: &str) -> TenantId {
    let id = broker.ensure_tenant(name).await.unwrap();
    let storage = Storage {
        bucket: OWN.into(),
        prefix: prefix.into(),
        endpoint: Some(server.endpoint()),
        region: None,
        path_style: true,
        role_arn: None,
        secret: Some("credentials".into()),
    };
    broker.engine().set_storage(id, Some(storage), false).await.unwrap();
    id
}

/// A key of these scopes.
async fn key(broker: &Running, tenant: TenantId, scopes: &str) -> String {
    let new = NewKey { tenant, label: scopes.into(), scopes: Scopes::read(scopes), expires_at: None };
    broker.engine().create_key(&new).await.unwrap()
}

fn client(broker: &Running, key: &str) -> Client {
    let client = Client::new(format!("http://{}", broker.public_addr()), None, None);
    client.with("authorization", format!("Bearer {key}"))
}

async fn put(server: &Server, name: &str, content: &[u8]) {
    let answer = send(server, &root(server), "PUT", &path(OWN, name), content).await;
    assert_eq!(answer.status, 200, "{name}: {}", answer.text());
}

async fn rule(client: &Client, body: serde_json::Value) -> Rule {
    let made = client.call("POST", "/v1/intake/rules", body.to_string()).await;
    assert_eq!(made.status, 201, "{}", made.text());
    made.json()
}

fn web() -> serde_json::Value {
    json!({ "version": 1, "preset": "web" })
}

/// A record as S3 sends it; the key is encoded already.
fn record(name: &str, bucket: &str, key: &str, sequencer: &str) -> serde_json::Value {
    let object = json!({ "key": key, "size": 4, "eTag": "forged", "versionId": "v", "sequencer": sequencer });
    json!({ "eventVersion": "2.1", "eventSource": "aws:s3", "eventName": name,
        "s3": { "bucket": { "name": bucket, "arn": "x" }, "object": object } })
}

fn body(records: &[serde_json::Value]) -> String {
    json!({ "Records": records }).to_string()
}

fn event(key: &str, sequencer: &str) -> String {
    body(&[record("ObjectCreated:Put", OWN, key, sequencer)])
}

async fn tell(client: &Client, body: impl Into<bytes::Bytes>) -> Taken {
    let answer = client.call("POST", "/v1/intake/events", body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// What became of a body, in numbers: jobs, known, ignored, refused.
async fn counts(client: &Client, body: impl Into<bytes::Bytes>) -> (usize, u32, u32, usize) {
    let taken = tell(client, body).await;
    (taken.jobs.len(), taken.known, taken.ignored, taken.refused.len())
}

async fn jobs(client: &Client) -> Vec<Job> {
    client.get("/v1/jobs?limit=200").await.json::<JobPage>().jobs
}

fn input(job: &Job) -> &str {
    match &job.spec.input {
        InputRef::Storage(key) => key,
        other => panic!("{other:?}"),
    }
}

fn inputs(jobs: &[Job]) -> Vec<&str> {
    let mut all: Vec<_> = jobs.iter().map(input).collect();
    all.sort_unstable();
    all
}

// === once

/// Two brokers on one database.
async fn pair(server: &Server) -> (World, Running) {
    let database = postgres::database().await;
    let identity = tempfile::tempdir().unwrap();
    let shared = identity.path().join("identity");
    embedded::create_identity(&shared).unwrap();
    let change = on(server);
    let mut world = world_with(|config| {
        change(config);
        config.database = Some(database.config());
        config.identity = Some(shared.clone());
    })
    .await;
    let mut config = world.config.clone();
    config.data_dir = world.dir.path().join("other");
    let other = embedded::start(config).await.unwrap();
    world.kept = Some(Box::new((database, identity)));
    (world, other)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_equal_events_make_one_job_at_two_brokers_in_any_order_and_after_a_restart() {
    let server = Server::start(Kind::Versitygw);
    let (mut world, other) = pair(&server).await;
    let id = give(world.broker(), &server, "own", "in/").await;
    let all = key(world.broker(), id, "all").await;
    let (here, there) = (client(world.broker(), &all), client(&other, &all));
    rule(&here, json!({ "suffix": ".mov", "job": web() })).await;
    put(&server, "in/a b.mov", b"film").await;
    // Between the equal ones are older and newer ones about the same bytes, and bodies of another kind.
    let bridge = json!({ "version": "0", "detail-type": "Object Created", "source": "aws.s3",
        "detail": { "bucket": { "name": OWN }, "object": { "key": "in/a b.mov", "size": 4, "sequencer": "05" } } });
    let bodies = [event("in%2Fa+b.mov", "05"), event("in%2Fa%20b.mov", "04"), bridge.to_string()];
    let told = async |from: [&Client; 2], times: usize, rules: usize| {
        let calls = (0..times).map(|n| {
            let (client, body) =
                (from[n % 2].clone(), bodies[if n % 10 > 1 { 0 } else { 1 + n % 10 }].clone());
            async move { tell(&client, body).await }
        });
        let taken: Vec<Taken> = futures_util::stream::iter(calls).buffer_unordered(40).collect().await;
        let (made, known) =
            taken.iter().fold((0, 0), |(made, known), t| (made + t.jobs.len(), known + t.known));
        assert_eq!(made + known as usize, times * rules, "each is told as what it is");
        made
    };
    assert_eq!(told([&here, &there], 1_000, 1).await, 1);
    world.crash_and_restart().await;
    let here = client(world.broker(), &all);
    assert_eq!(told([&here, &there], 100, 1).await, 0);
    // The other way beside it.
    let looking = rule(&here, json!({ "poll_seconds": 10, "existing": true, "job": web() })).await;
    eventually("the look has come to its end", async || {
        let rule: Rule = there.get(&format!("/v1/intake/rules/{}", looking.id)).await.json();
        rule.looked_at.is_some()
    })
    .await;
    // One by the first rule, and one by the rule that looks, which then knows what it is told.
    assert_eq!(inputs(&jobs(&here).await), ["a b.mov", "a b.mov"]);
    assert_eq!(counts(&there, event("in%2Fa+b.mov", "06")).await, (0, 2, 0, 0));
    // New bytes are a new job of each; what was said of the old ones comes to none.
    put(&server, "in/a b.mov", b"another").await;
    tell(&there, event("in%2Fa+b.mov", "07")).await;
    assert_eq!(counts(&here, event("in%2Fa+b.mov", "05")).await, (0, 2, 0, 0));
    assert_eq!(told([&here, &there], 50, 2).await, 0);
    assert_eq!(jobs(&here).await.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_of_both_ways_is_first_the_other_makes_no_second_job() {
    for kind in Kind::ALL {
        let server = Server::start(kind);
        let world = world_with(on(&server)).await;
        let id = give(world.broker(), &server, "own", "in/").await;
        let tenant = client(world.broker(), &key(world.broker(), id, "all").await);
        put(&server, "in/looked.mov", b"film").await;
        let rule = rule(&tenant, json!({ "suffix": ".mov", "poll_seconds": 10, "job": web() })).await;
        eventually("a look finds it", async || !jobs(&tenant).await.is_empty()).await;
        assert_eq!(counts(&tenant, event("in/looked.mov", "01")).await, (0, 1, 0, 0), "{kind:?}");
        put(&server, "in/told.mov", b"film").await;
        let ends = futures_util::future::join_all((0..20).map(|_| tell(&tenant, event("in/told.mov", "02"))));
        let before = looked_at(&tenant, &rule).await;
        drop(ends.await);
        let again = tenant.call("POST", &format!("/v1/intake/rules/{}/look", rule.id), "").await;
        assert_eq!(again.status, 202, "{}", again.text());
        eventually("it has looked again", async || looked_at(&tenant, &rule).await != before).await;
        assert_eq!(inputs(&jobs(&tenant).await), ["looked.mov", "told.mov"], "{kind:?}");
    }
}

async fn looked_at(client: &Client, rule: &Rule) -> Option<String> {
    client.get(&format!("/v1/intake/rules/{}", rule.id)).await.json::<Rule>().looked_at
}

// === real events

#[tokio::test(flavor = "multi_thread")]
async fn minio_sends_its_events_and_each_object_becomes_one_job_also_when_the_broker_was_away() {
    let mut server = Server::start(Kind::Minio);
    let public = mpegflow_test_ports::address();
    let change = on(&server);
    let mut world = world_with(|config| {
        change(config);
        config.public = public;
    })
    .await;
    let id = give(world.broker(), &server, "own", "in/").await;
    let tenant = client(world.broker(), &key(world.broker(), id, "all").await);
    let token = key(world.broker(), id, "intake").await;
    rule(&tenant, json!({ "prefix": "new/", "suffix": ".mov", "job": web() })).await;
    // As its operator sets it up.
    let queue = server.dir.path().join("queue").to_str().unwrap().to_owned();
    server.env = [
        ("ENABLE", "on".to_owned()),
        ("ENDPOINT", format!("http://{public}/v1/intake/events")),
        ("AUTH_TOKEN", token),
        ("QUEUE_DIR", queue),
    ]
    .map(|(name, value)| (format!("MINIO_NOTIFY_WEBHOOK_{name}_INTAKE"), value))
    .to_vec();
    server.restart();
    let notify = "<NotificationConfiguration><QueueConfiguration><Queue>arn:minio:sqs::INTAKE:webhook</Queue>\
        <Event>s3:ObjectCreated:*</Event><Event>s3:ObjectRemoved:*</Event></QueueConfiguration></NotificationConfiguration>";
    let wanted = format!("/{OWN}?notification=");
    let set = send(&server, &root(&server), "PUT", &wanted, notify.as_bytes()).await;
    assert_eq!(set.status, 200, "{}", set.text());
    let names = ["film.mov", "2026 (1)/a+b,c=d&e'f!~@.mov", "deep/er/.hidden-1.mov"];
    for name in names {
        put(&server, &format!("in/new/{name}"), b"film").await;
    }
    // What makes none: a folder, an empty object, another name, another place, an end.
    for (name, content) in
        [("in/new/folder/", &b""[..]), ("in/new/empty.mov", b""), ("in/new/a.txt", b"x"), ("new/a.mov", b"x")]
    {
        put(&server, name, content).await;
    }
    let gone = send(&server, &root(&server), "DELETE", &path(OWN, "in/new/a.txt"), b"").await;
    assert!(gone.status.is_success());
    let mut expected: Vec<String> = names.iter().map(|name| format!("new/{name}")).collect();
    expected.sort_unstable();
    eventually("all have come", async || jobs(&tenant).await.len() >= names.len()).await;
    assert_eq!(inputs(&jobs(&tenant).await), expected);
    // Whatever of the broker's own lies there makes none: a job reads an upload there and writes its outputs there.
    let upload = upload(&tenant, b"an upload").await;
    assert_eq!(tenant.call("POST", "/v1/jobs", spec(&upload)).await.status, 201);
    assert_eq!(world.worker().await.run().await, 4 * (names.len() as u32 + 1));
    // While the broker is away, nothing is lost.
    drop(world.broker.take());
    put(&server, "in/new/away.mov", b"film").await;
    put(&server, "in/new/film.mov", b"a new version").await;
    // The one before lets go of its port and its folder in its own time.
    eventually("it is back", async || {
        world.broker = embedded::start(world.config.clone()).await.ok();
        world.broker.is_some()
    })
    .await;
    eventually("they have come", async || jobs(&tenant).await.len() >= names.len() + 3).await;
    let mut made: Vec<String> = jobs(&tenant)
        .await
        .iter()
        .filter_map(|job| match &job.spec.input {
            InputRef::Storage(key) => Some(key.clone()),
            _ => None,
        })
        .collect();
    made.sort_unstable();
    expected.extend(["new/away.mov".to_owned(), "new/film.mov".to_owned()]);
    expected.sort_unstable();
    assert_eq!(made, expected);
}

// === looking

#[tokio::test(flavor = "multi_thread")]
async fn a_look_goes_page_by_page_past_what_is_the_brokers_and_finds_what_came_behind_it() {
    for kind in Kind::ALL {
        let server = Server::start(kind);
        let mut world = world_with(on(&server)).await;
        let id = give(world.broker(), &server, "own", "in/").await;
        let tenant = client(world.broker(), &key(world.broker(), id, "all").await);
        // Two pages of what the rule does not take, around what it does; and the broker's own between them.
        let other =
            (0..1_050_u32).map(|n| {
                let server = &server;
                async move {
                    put(server, &format!("in/{}/{n:04}.txt", if n < 600 { "a" } else { "z" }), b"x").await
                }
            });
        futures_util::stream::iter(other).buffer_unordered(16).collect::<()>().await;
        for name in ["in/a/0000.mov", "in/m/film (1).mov", "in/z/9999.mov"] {
            put(&server, name, b"film").await;
        }
        put(&server, "in/a/empty.mov", b"").await;
        put(&server, "outside.mov", b"film").await;
        put(&server, &format!("in/{id}/uploads/forged.mov"), b"film").await;
        put(&server, "in/z/caf\u{e9}.mov", b"no key of an input").await;
        let rule =
            rule(&tenant, json!({ "suffix": ".mov", "poll_seconds": 10, "existing": true, "job": web() }))
                .await;
        eventually("it has come to its end", async || looked_at(&tenant, &rule).await.is_some()).await;
        let first = ["a/0000.mov", "m/film (1).mov", "z/9999.mov"];
        assert_eq!(inputs(&jobs(&tenant).await), first, "{kind:?}");
        // Behind where it was, and by the next broker.
        put(&server, "in/a/0001.mov", b"film").await;
        world.config.objects = Some(Arc::new(server.objects()));
        world.crash_and_restart().await;
        let tenant = client(world.broker(), &key(world.broker(), id, "all").await);
        eventually("it is found", async || jobs(&tenant).await.len() == 4).await;
        let before = looked_at(&tenant, &rule).await;
        eventually("it looks again", async || looked_at(&tenant, &rule).await != before).await;
        assert_eq!(jobs(&tenant).await.len(), 4, "{kind:?}: nothing comes twice");
    }
}

// === what cannot be now, and what cannot be

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_now_is_to_be_sent_again_and_is_then_done() {
    let shared = Server::start(Kind::Versitygw);
    let mut own = Server::start(Kind::Versitygw);
    let (objects, dir) = (Arc::new(shared.objects()), own.dir.path().to_owned());
    let world = world_with(|config| {
        config.objects = Some(objects);
        (config.tenant_storage.secrets, config.tenant_storage.allow_http) = (Some(dir), true);
    })
    .await;
    let id = give(world.broker(), &own, "own", "in/").await;
    // Before anybody has asked for its limits.
    let limits = TenantLimits { unfinished_jobs: Some(1), ..TenantLimits::default() };
    world.broker().engine().store().set_tenant_limits(id, &limits).await.unwrap();
    let tenant = client(world.broker(), &key(world.broker(), id, "all").await);
    rule(&tenant, json!({ "job": web() })).await;
    put(&own, "in/1.mov", b"film").await;
    put(&own, "in/2.mov", b"film").await;
    let both = body(&[
        record("ObjectCreated:Put", OWN, "in/1.mov", "01"),
        record("ObjectCreated:Put", OWN, "in/2.mov", "02"),
    ]);
    // The first is done; for the second there is no room, and the sender is told to come again.
    let full = tenant.call("POST", "/v1/intake/events", both.clone()).await;
    assert_eq!((full.status.as_u16(), full.problem().as_str()), (429, "quota_exceeded"));
    assert!(full.headers.contains_key("retry-after"));
    let made = jobs(&tenant).await;
    assert_eq!(inputs(&made), ["1.mov"]);
    assert_eq!(tenant.call("POST", &format!("/v1/jobs/{}/cancel", made[0].id), "").await.status, 200);
    own.kill();
    let away = tenant.call("POST", "/v1/intake/events", both.clone()).await;
    assert_eq!((away.status.as_u16(), away.problem().as_str()), (503, "tenant_storage"), "{}", away.text());
    assert!(away.headers.contains_key("retry-after"));
    own.restart();
    assert_eq!(counts(&tenant, both.clone()).await, (1, 1, 0, 0));
    assert_eq!(counts(&tenant, both).await, (0, 2, 0, 0));
    assert_eq!(inputs(&jobs(&tenant).await), ["1.mov", "2.mov"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_cannot_become_a_job_is_told_once_and_tried_again_when_somebody_asks() {
    let server = Server::start(Kind::Minio);
    let world = world_with(on(&server)).await;
    let id = give(world.broker(), &server, "own", "in/").await;
    let tenant = client(world.broker(), &key(world.broker(), id, "all").await);
    let job = json!({ "version": 1, "preset": "web", "priority": 7, "external_id": "{stem}",
        "output": { "path": "films/{external_id}/{name}" } });
    let made = rule(&tenant, json!({ "suffix": ".mov", "job": job })).await;
    for name in ["in/a.mov", "in/b/a.mov", "in/not a path.mov"] {
        put(&server, name, b"film").await;
    }
    assert_eq!(counts(&tenant, event("in/a.mov", "01")).await, (1, 0, 0, 0));
    let first = jobs(&tenant).await.remove(0);
    assert_eq!((first.spec.external_id.as_deref(), first.spec.priority.0), (Some("a"), 7));
    // The same name elsewhere would have the same path; a name with spaces is no path at all.
    let taken = tell(&tenant, event("in%2Fb%2Fa.mov", "02")).await;
    assert_eq!((taken.jobs.len(), taken.refused.len()), (0, 1));
    assert!(taken.refused[0].reason.contains(&first.id.to_string()), "{taken:?}");
    let shown = async || tenant.get(&format!("/v1/intake/rules/{}", made.id)).await.json::<Rule>();
    assert_eq!(shown().await.problem.unwrap().key.as_deref(), Some("b/a.mov"));
    let taken = tell(&tenant, event("in%2Fnot+a+path.mov", "03")).await;
    assert!(taken.refused[0].reason.contains("external_id"), "{taken:?}");
    let problem = shown().await.problem.unwrap();
    assert_eq!((problem.key.as_deref(), &problem.reason), (Some("not a path.mov"), &taken.refused[0].reason));
    // Said again, it is known, and nothing is tried.
    assert_eq!(counts(&tenant, event("in%2Fb%2Fa.mov", "02")).await, (0, 1, 0, 0));
    assert_eq!(tenant.call("POST", &format!("/v1/jobs/{}/cancel", first.id), "").await.status, 200);
    assert_eq!(counts(&tenant, event("in%2Fb%2Fa.mov", "02")).await, (0, 1, 0, 0));
    // The path is free, and whoever mended it says so.
    assert_eq!(tenant.call("POST", &format!("/v1/intake/rules/{}/look", made.id), "").await.status, 202);
    eventually("it is a job", async || jobs(&tenant).await.len() == 2).await;
    assert_eq!(inputs(&jobs(&tenant).await), ["a.mov", "b/a.mov"]);
    eventually("the other is told again", async || shown().await.problem.is_some()).await;
    // An object that is gone before its job runs fails that job.
    let gone = send(&server, &root(&server), "DELETE", &path(OWN, "in/b/a.mov"), b"").await;
    assert!(gone.status.is_success());
    let worker = world.worker().await;
    let lease = worker.lease().await;
    let read = worker.granted(&lease).get(&format!("/worker/v1/attempts/{}/inputs/0", lease.attempt)).await;
    assert!(read.status.is_server_error(), "{}", read.status);
    assert_eq!(counts(&tenant, event("in%2Fb%2Fa.mov", "09")).await, (0, 0, 1, 0), "nothing is there");
}

// === attacks

#[tokio::test(flavor = "multi_thread")]
async fn no_event_leads_out_of_the_tenants_place_or_speaks_for_another() {
    for kind in Kind::ALL {
        let server = Server::start(kind);
        let world = world_with(on(&server)).await;
        let broker = world.broker();
        let victim = give(broker, &server, "victim", "victim/").await;
        let own = give(broker, &server, "own", "own/").await;
        let (theirs, mine) = (
            client(broker, &key(broker, victim, "all").await),
            client(broker, &key(broker, own, "all").await),
        );
        for tenant in [&theirs, &mine] {
            rule(tenant, json!({ "job": web() })).await;
        }
        for name in ["victim/film.mov", "own/film.mov", "root.mov"] {
            put(&server, name, b"film").await;
        }
        put(&server, &format!("own/{own}/uploads/x.mov"), b"film").await;
        // Another tenant's object, by whatever spelling; the broker's own; nothing at all.
        for hostile in [
            "victim/film.mov",
            "victim%2Ffilm.mov",
            "own/../victim/film.mov",
            "own%2F..%2Fvictim%2Ffilm.mov",
            "own/%252e%252e/victim/film.mov",
            "own/..%5cvictim%5cfilm.mov",
            "own//film.mov",
            "own/./film.mov",
            "own/film.mov%00",
            "own/film.mov%00/../../victim/film.mov",
            "own/%EF%BC%8E%EF%BC%8E/victim/film.mov",
            "own/%ff%fe",
            "own/film.mov?versionId=null",
            "own/film.mov#x",
            "own/",
            "own/missing.mov",
            "root.mov",
            "",
            "/own/film.mov",
            "films/own/film.mov",
            &format!("own/{own}/uploads/x.mov"),
            &format!("own/{}", "a".repeat(2_000)),
        ] {
            let taken = tell(&mine, event(hostile, "01")).await;
            assert!(taken.jobs.is_empty() && taken.known == 0, "{kind:?} {hostile}: {taken:?}");
            let shown = serde_json::to_string(&taken).unwrap();
            assert!(shown.len() < 2_000 && !shown.contains('\0'), "{shown}");
        }
        // Another bucket, also among events of one's own: nothing of the body is taken.
        for bucket in [BUCKET, "no-such-bucket", "", "FILMS", "films/own", &"b".repeat(5_000)] {
            let records = [
                record("ObjectCreated:Put", OWN, "own/film.mov", "01"),
                record("ObjectCreated:Put", bucket, "own/film.mov", "01"),
            ];
            let refused = mine.call("POST", "/v1/intake/events", body(&records)).await;
            assert_eq!(
                (refused.status.as_u16(), refused.problem().as_str()),
                (422, "invalid_field"),
                "{bucket}"
            );
            assert!(refused.body.len() < 1_000);
        }
        // Whose event it is, the token says and nothing in it.
        let nobody = give(broker, &server, "third", "third/").await;
        let third = client(broker, &key(broker, nobody, "intake").await);
        assert_eq!(counts(&third, event("own/film.mov", "01")).await, (0, 0, 1, 0));
        let without = broker.ensure_tenant("without").await.unwrap();
        let without = client(broker, &key(broker, without, "intake").await);
        let refused = without.call("POST", "/v1/intake/events", event("own/film.mov", "01")).await;
        assert_eq!((refused.status.as_u16(), refused.problem().as_str()), (422, "no_storage"));
        // A key for events is for nothing else, and no other key is for events.
        let token = client(broker, &key(broker, own, "intake").await);
        for (method, route) in [
            ("GET", "/v1/jobs"),
            ("POST", "/v1/jobs"),
            ("POST", "/v1/uploads"),
            ("GET", "/v1/intake/rules"),
            ("POST", "/v1/intake/rules"),
            ("GET", "/v1/events"),
            ("POST", "/v1/webhooks"),
        ] {
            assert_eq!(token.call(method, route, "{}").await.status, 403, "{method} {route}");
        }
        for scopes in ["read,upload,submit,delete,webhooks,rules", "submit"] {
            let other = client(broker, &key(broker, own, scopes).await);
            let refused = other.call("POST", "/v1/intake/events", event("own/film.mov", "01")).await;
            assert_eq!(refused.status, 403, "{scopes}");
        }
        assert_eq!(
            world.anonymous().call("POST", "/v1/intake/events", event("own/film.mov", "01")).await.status,
            401
        );
        assert_eq!(
            (jobs(&mine).await.len(), jobs(&theirs).await.len()),
            (0, 0),
            "{kind:?}: no job came of any of it"
        );
        // And what is right is still right, once, however often it is replayed, whatever the sender says of its order.
        assert_eq!(counts(&token, event("own/film.mov", "FFFFFFFFFFFFFFFF")).await, (1, 0, 0, 0));
        assert_eq!(counts(&token, event("own/film.mov", "FFFFFFFFFFFFFFFF")).await, (0, 1, 0, 0));
        tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
        put(&server, "own/film.mov", b"the next version").await;
        assert_eq!(
            counts(&token, event("own/film.mov", "01")).await,
            (1, 0, 0, 0),
            "a forged order suppresses none"
        );
        assert_eq!(inputs(&jobs(&mine).await), ["film.mov", "film.mov"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_event_is_refused_by_its_own_code_and_what_is_of_no_interest_is_taken() {
    let server = Server::start(Kind::Versitygw);
    let world = world_with(on(&server)).await;
    let id = give(world.broker(), &server, "own", "").await;
    let tenant = client(world.broker(), &key(world.broker(), id, "all").await);
    rule(&tenant, json!({ "job": web() })).await;
    put(&server, "film.mov", b"film").await;
    let one = record("ObjectRemoved:Delete", OWN, "film.mov", "01");
    let many = body(&vec![one.clone(); MAX_RECORDS + 1]);
    let mut long = event("film.mov", "01");
    long.push_str(&" ".repeat(MAX_EVENTS + 1 - long.len()));
    let sns =
        json!({ "Type": "Notification", "TopicArn": "arn:aws:sns:x", "Message": event("film.mov", "01") });
    for (bad, status, code) in [
        (String::new(), 400, "malformed"),
        ("{".into(), 400, "malformed"),
        ("[".repeat(60_000), 400, "malformed"),
        ("{}".into(), 400, "malformed"),
        (sns.to_string(), 400, "malformed"),
        (many, 413, "too_large"),
        (long, 413, "too_large"),
    ] {
        let refused = tenant.call("POST", "/v1/intake/events", bad.clone()).await;
        let start: String = bad.chars().take(40).collect();
        assert_eq!((refused.status.as_u16(), refused.problem().as_str()), (status, code), "{start}");
    }
    let test = json!({ "Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": OWN });
    for nothing in [
        test.to_string(),
        body(&[]),
        body(&[one]),
        body(&[record("s3:ObjectRemoved:DeleteMarkerCreated", OWN, "film.mov", "01")]),
        body(&[record("s3:ObjectAccessed:Get", "another-bucket", "film.mov", "01")]),
        body(&[record("s3:SomethingNew", OWN, "film.mov", "01")]),
    ] {
        assert_eq!(tell(&tenant, nothing.clone()).await, Taken::default(), "{nothing}");
    }
    assert_eq!(jobs(&tenant).await.len(), 0);
}

// === rules

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_is_checked_made_once_for_one_key_and_nobody_elses() {
    let server = Server::start(Kind::Versitygw);
    let world = world_with(on(&server)).await;
    let id = give(world.broker(), &server, "own", "in/").await;
    let tenant = client(world.broker(), &key(world.broker(), id, "read,rules").await);
    for (bad, field) in [
        (json!({ "job": { "version": 1, "preset": "nothing" } }), "job.preset"),
        (
            json!({ "job": { "version": 1, "preset": "web", "video": { "max_height": 7 } } }),
            "job.video.max_height",
        ),
        (json!({ "job": { "version": 1, "preset": "audio", "video": { "max_height": 360 } } }), "job.video"),
        (json!({ "job": web(), "prefix": "../" }), "prefix"),
        (json!({ "job": web(), "poll_seconds": 1 }), "poll_seconds"),
        (json!({ "job": web(), "every": 10 }), "every"),
        (json!({}), "job"),
    ] {
        let refused = tenant.call("POST", "/v1/intake/rules", bad.to_string()).await;
        let problem: serde_json::Value = refused.json();
        assert_eq!(refused.status, 422, "{bad}: {problem}");
        assert!(problem.to_string().contains(field), "{bad}: {problem}");
    }
    // One key, a hundred calls at once, one rule.
    let keyed = tenant.with("idempotency-key", "one");
    let wanted = json!({ "prefix": "new/", "job": web() }).to_string();
    let calls = (0..100).map(|_| keyed.call("POST", "/v1/intake/rules", wanted.clone()));
    let answers = futures_util::future::join_all(calls).await;
    assert!(answers.iter().all(|a| a.status == 201 && a.body == answers[0].body), "{}", answers[0].text());
    let made: Rule = answers[0].json();
    assert_eq!(tenant.get("/v1/intake/rules").await.json::<Vec<Rule>>(), std::slice::from_ref(&made));
    let reused = keyed.call("POST", "/v1/intake/rules", json!({ "job": web() }).to_string()).await;
    assert_eq!((reused.status.as_u16(), reused.problem().as_str()), (422, "idempotency_mismatch"));
    let other = world.tenant("other").await;
    let path = format!("/v1/intake/rules/{}", made.id);
    for (method, path) in [("GET", path.clone()), ("DELETE", path.clone()), ("POST", format!("{path}/look"))]
    {
        assert_eq!(other.call(method, &path, "").await.status, 404, "{method} {path}");
    }
    let none = other.call("POST", "/v1/intake/rules", wanted).await;
    assert_eq!((none.status.as_u16(), none.problem().as_str()), (422, "no_storage"));
    for _ in 1..16 {
        rule(&tenant, json!({ "job": web() })).await;
    }
    let more = tenant.call("POST", "/v1/intake/rules", json!({ "job": web() }).to_string()).await;
    assert_eq!((more.status.as_u16(), more.problem().as_str()), (429, "quota_exceeded"));
    assert_eq!(tenant.call("DELETE", &path, "").await.status, 204);
    assert_eq!(tenant.get(&path).await.status, 404);
    // With the tenant go its rules and what they know.
    let engine = world.broker().engine();
    engine.delete_tenant("own").await.unwrap();
    assert_eq!(engine.rules(id).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_adds_lists_and_removes_rules() {
    let server = Server::start(Kind::Versitygw);
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| -> Output {
        Command::new(env!("CARGO_BIN_EXE_mpegflow-broker"))
            .arg("--data")
            .arg(dir.path().join("data"))
            .args(["--tenant-storage-secrets", server.dir.path().to_str().unwrap()])
            .arg("--tenant-storage-allow-http")
            .args(args)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    let text = |output: &Output| {
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    let add = |more: &[&str]| run(&[&["intake", "add", "--tenant", "a"][..], more].concat());
    let unknown = add(&["--preset", "web"]);
    assert!(!unknown.status.success() && text(&unknown).contains("no tenant `a`"), "{}", text(&unknown));
    assert!(run(&["api-key", "create", "--tenant", "a", "--scope", "intake"]).status.success());
    let none = add(&["--preset", "web"]);
    assert!(!none.status.success() && text(&none).contains("no storage of its own"), "{}", text(&none));
    let endpoint = server.endpoint();
    let storage =
        ["storage", "set", "--tenant", "a", "--bucket", OWN, "--endpoint", &endpoint, "--path-style"];
    assert!(run(&[&storage[..], &["--secret", "credentials"]].concat()).status.success());
    for (bad, part) in [
        (&["--preset", "nothing"][..], "no preset `nothing`"),
        (&["--preset", "web", "--prefix", "/x"][..], "prefix"),
        (&["--preset", "web", "--poll-seconds", "1"][..], "poll_seconds"),
        (&["--preset", "web", "--priority", "10"][..], "priority"),
        (&["--job", "/nowhere"][..], "/nowhere"),
        (&[][..], "required"),
    ] {
        let refused = add(bad);
        assert!(!refused.status.success() && text(&refused).contains(part), "{bad:?}: {}", text(&refused));
    }
    let made = add(&[
        "--preset",
        "web",
        "--prefix",
        "in/",
        "--output-path",
        "x/{job}/{name}",
        "--poll-seconds",
        "60",
    ]);
    assert!(made.status.success(), "{}", text(&made));
    let made: Rule = serde_json::from_slice(&made.stdout).unwrap();
    let job = dir.path().join("job.json");
    std::fs::write(&job, r#"{"version":1,"preset":"mp4"}"#).unwrap();
    assert!(add(&["--job", job.to_str().unwrap(), "--existing"]).status.success());
    let listed = run(&["intake", "list", "--tenant", "a"]);
    let listed: Vec<Rule> = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!((listed.len(), &listed[0], listed[1].existing), (2, &made, true));
    let rule = made.id.to_string();
    assert!(run(&["intake", "look", "--tenant", "a", "--rule", &rule]).status.success());
    assert!(run(&["intake", "remove", "--tenant", "a", "--rule", &rule]).status.success());
    let gone = run(&["intake", "remove", "--tenant", "a", "--rule", &rule]);
    assert!(!gone.status.success() && text(&gone).contains("no such rule"), "{}", text(&gone));
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_the_intake_run_to_their_end() {
    let server = Server::start(Kind::Versitygw);
    let world = world_with(on(&server)).await;
    let id = give(world.broker(), &server, "own", "in/").await;
    let tenant = client(world.broker(), &key(world.broker(), id, "all").await);
    rule(&tenant, json!({ "job": web() })).await;
    put(&server, "in/film.mov", b"film").await;
    tell(&tenant, event("in/film.mov", "01")).await;
    assert_eq!(world.worker().await.run().await, 4);
    let done = jobs(&tenant).await.remove(0);
    assert_eq!(done.state, JobState::Succeeded);
    // Deleted, it does not come again.
    assert_eq!(tenant.call("DELETE", &format!("/v1/jobs/{}", done.id), "").await.status, 204);
    assert_eq!(counts(&tenant, event("in/film.mov", "01")).await, (0, 1, 0, 0));
    assert_eq!(counts(&tenant, event("in/film.mov", "02")).await, (0, 1, 0, 0));
}
