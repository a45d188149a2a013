//! Tenants with storage of their own, on real servers: whose objects lie where, how the broker gets in, what happens when it does not,
//! and inputs that a tenant names there.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs,
    reason = "tests"
)]

mod common;
#[path = "support/s3_front.rs"]
mod front;
#[path = "support/minio_user.rs"]
mod minio_user;
#[path = "support/s3.rs"]
mod s3;
#[path = "support/signed.rs"]
mod signed;

use common::*;
use front::Front;
use mpegflow_broker::conformance::objects::{chunked, head, owners, pattern, read};
use mpegflow_broker::engine::Swept;
use mpegflow_broker::objects::own::Setup;
use mpegflow_broker::objects::s3::{S3Config, S3Objects};
use mpegflow_broker::objects::{Key, ObjectError, Objects as _};
use mpegflow_protocol::api::{Job, JobState, Waiting, WaitingReason};
use mpegflow_protocol::control::Storage;
use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::ids::{TenantId, UploadId};
use mpegflow_protocol::limits::PART_SIZE;
use mpegflow_protocol::worker::{Fail, Lease, LeaseReply};
use s3::{BUCKET, Kind, OWN, Server};
use signed::{path, root, send};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

const ROLE: &str = "arn:aws:iam::123456789012:role/films";

/// A broker whose bucket is one of the server's, and that takes what is in the server's folder for tenants' secrets.
async fn world_on(server: &Server, change: impl FnOnce(&mut Setup)) -> World {
    let (objects, dir) = (Arc::new(server.objects()), server.dir.path().to_owned());
    world_with(|config| {
        config.objects = Some(objects);
        let setup = &mut config.tenant_storage;
        (setup.secrets, setup.credentials_file) = (Some(dir.clone()), Some(dir.join("credentials")));
        (setup.allow_http, setup.shared) = (true, Some((BUCKET.into(), "mpegflow/".into())));
        change(setup);
    })
    .await
}

/// The server's other bucket, by the server's own credentials.
fn films(server: &Server, prefix: &str) -> Storage {
    Storage {
        bucket: OWN.into(),
        prefix: prefix.into(),
        endpoint: Some(server.endpoint()),
        region: None,
        path_style: true,
        role_arn: None,
        secret: Some("credentials".into()),
    }
}

fn by_role(storage: Storage) -> Storage {
    Storage { secret: None, role_arn: Some(ROLE.into()), ..storage }
}

async fn give(world: &World, name: &str, storage: Storage) -> TenantId {
    let id = world.broker().ensure_tenant(name).await.unwrap();
    world.broker().engine().set_storage(id, Some(storage), false).await.unwrap();
    id
}

/// What lies in a bucket below a prefix, as the server keeps it: names of files are names of objects, of folders with MinIO.
fn below(server: &Server, bucket: &str, prefix: &str) -> (usize, usize) {
    let root = server.dir.path().join("data").join(bucket);
    let kept: Vec<_> = server.kept_in(bucket).into_iter().filter(|path| path.starts_with(&root)).collect();
    let inside = kept.iter().filter(|path| path.starts_with(root.join(prefix))).count();
    (inside, kept.len() - inside)
}

/// Puts an object where a tenant would.
async fn put(server: &Server, name: &str, content: &[u8]) {
    let answer = send(server, &root(server), "PUT", &path(OWN, name), content).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

fn from_storage(key: &str) -> String {
    serde_json::json!({ "version": 1, "preset": "web", "input": { "storage": key } }).to_string()
}

async fn submit_stored(client: &Client, key: &str) -> Job {
    let answer = client.call("POST", "/v1/jobs", from_storage(key)).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()
}

async fn fail(worker: &Worker, lease: &Lease, code: FailureCode) {
    let fail = Fail { failure: Failure::new(code, "reading the input: 503"), evidence: None };
    let answer = worker.end(lease, "fail", serde_json::to_vec(&fail).unwrap()).await;
    assert_eq!(answer.status, 204, "{}", answer.text());
}

/// The code of a problem and what it says.
fn problem(answer: &Answer) -> (u16, String, String) {
    let document: serde_json::Value = answer.json();
    (answer.status.as_u16(), answer.problem(), document["detail"].as_str().unwrap_or_default().to_owned())
}

// === whose objects lie where

#[tokio::test(flavor = "multi_thread")]
async fn what_a_tenant_with_storage_of_its_own_has_is_there_and_nowhere_else() {
    for kind in Kind::ALL {
        let server = Server::start(kind);
        let world = world_on(&server, |_| {}).await;
        let id = give(&world, "own", films(&server, "newsroom/")).await;
        let (own, shared) = (world.tenant("own").await, world.tenant("shared").await);
        let content = pattern(0, PART_SIZE + 77);
        let input = upload(&own, &content).await;
        let job: Job = own.call("POST", "/v1/jobs", spec(&input)).await.json();
        assert_eq!(world.worker().await.run().await, 4, "{kind:?}");
        let done = show(&own, &job).await;
        assert_eq!(done.state, JobState::Succeeded, "{kind:?}");
        for output in &done.outputs {
            let whole = own.get(&output.url).await;
            assert_eq!((whole.status.as_u16(), whole.body.len() as u64), (200, output.size), "{kind:?}");
        }
        let place = format!("newsroom/{id}/");
        assert!(below(&server, OWN, &place).0 > 0 && below(&server, OWN, &place).1 == 0, "{kind:?}");
        assert_eq!(below(&server, BUCKET, "").0, 0, "{kind:?}: nothing of it is with all others'");
        // Everybody else's is where it was.
        let before = below(&server, OWN, &place);
        submit(&shared, b"shared").await;
        assert_eq!(world.worker().await.run().await, 4);
        assert_eq!(below(&server, OWN, &place), before, "{kind:?}");
        assert!(below(&server, BUCKET, "mpegflow").0 > 0, "{kind:?}");
        // What nothing needs goes from there as well, and what the tenant keeps in its bucket besides does not.
        put(&server, "newsroom/kept.mov", b"the tenant's").await;
        put(
            &server,
            &format!("newsroom/{}/uploads/{}", TenantId::from_u128(9), UploadId::from_u128(9)),
            b"x",
        )
        .await;
        let engine = world.broker().engine();
        assert!(engine.sweep().await.unwrap().attempts > 0, "{kind:?}");
        let orphan = UploadId::from_u128(0xabc);
        let config =
            S3Config { bucket: OWN.into(), prefix: "newsroom/".into(), tenant: Some(id), ..server.config() };
        let direct = S3Objects::open(&config).unwrap();
        direct.append(&Key::Upload(id, orphan), 0, &mut chunked(b"left over"), 9, 9).await.unwrap();
        assert_eq!(
            engine.sweep_orphans(None).await.unwrap(),
            Swept { uploads: 1, ..Swept::default() },
            "{kind:?}"
        );
        let deleted = own.call("DELETE", &format!("/v1/uploads/{}", input.id), "").await;
        assert_eq!(deleted.status, 204, "{}", deleted.text());
        for output in &done.outputs {
            assert_eq!(own.get(&output.url).await.status, 200, "{kind:?}");
        }
        assert_eq!(engine.delete_tenant("own").await.unwrap(), Some(id));
        eventually("all of it is gone", async || {
            engine.retain(None).await.unwrap();
            engine.sweep().await.unwrap();
            below(&server, OWN, &place).0 == 0
        })
        .await;
        assert_eq!(below(&server, OWN, "newsroom").0, 2, "{kind:?}: what is not ours stays");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_is_opened_for_one_tenant_and_a_key_of_another_is_not_looked_for() {
    let server = Server::start(Kind::Versitygw);
    let (mine, theirs) = (TenantId::from_u128(1), TenantId::from_u128(2));
    let open = |tenant| {
        let config = S3Config { bucket: OWN.into(), prefix: "p/".into(), tenant, ..server.config() };
        S3Objects::open(&config).unwrap()
    };
    let upload = UploadId::from_u128(3);
    let key = Key::Upload(theirs, upload);
    open(Some(theirs)).append(&key, 0, &mut chunked(b"secret"), 6, 6).await.unwrap();
    assert_eq!(read(&open(Some(theirs)), &key, 0..6).await, b"secret");
    let own = open(Some(mine));
    let stored = |tenant, name: &str| Key::Stored(tenant, name.parse().unwrap());
    put(&server, "p/film.mov", b"film").await;
    for (what, refused) in [
        ("read", own.read(&key, 0..6).await.err()),
        ("version", own.version(&key).await.err()),
        ("part", own.put_part(&Key::Upload(theirs, upload), &head(0, b"x"), chunked(b"x")).await.err()),
        ("append", own.append(&key, 0, &mut chunked(b"x"), 1, 1).await.err()),
        ("remove", own.remove_upload(theirs, upload).await.err()),
        ("look up", own.look_up(&stored(theirs, "film.mov")).await.err()),
        // What a tenant has put there is never written, and in the place of all there is none.
        ("overwrite", own.append(&stored(mine, "film.mov"), 0, &mut chunked(b"x"), 1, 1).await.err()),
        ("write", own.put_part(&stored(mine, "new.mov"), &head(0, b"x"), chunked(b"x")).await.err()),
        ("shared", open(None).look_up(&stored(mine, "film.mov")).await.err()),
    ] {
        assert!(matches!(refused, Some(ObjectError::Missing)), "{what}: {refused:?}");
    }
    assert_eq!(own.look_up(&stored(mine, "film.mov")).await.unwrap().size, 4);
    assert_eq!(read(&open(Some(theirs)), &key, 0..6).await, b"secret");
    assert_eq!(owners(&own, 1_000).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_would_hold_anothers_objects_is_refused_and_a_place_in_use_stays() {
    let server = Server::start(Kind::Versitygw);
    let world = world_on(&server, |_| {}).await;
    let engine = world.broker().engine();
    give(&world, "a", films(&server, "a/")).await;
    let b = world.broker().ensure_tenant("b").await.unwrap();
    let within = |bucket: &str, prefix: &str| Storage { bucket: bucket.into(), ..films(&server, prefix) };
    // Another name of the same server is no way around it.
    let alias = Some(format!("http://localhost:{}", server.address.port()));
    for (bad, part) in [
        (within(OWN, ""), "tenant a"),
        (within(OWN, "a/"), "tenant a"),
        (within(OWN, "a/b/"), "tenant a"),
        (Storage { endpoint: alias.clone(), ..within(OWN, "a/") }, "tenant a"),
        (within(BUCKET, ""), "other tenants"),
        (within(BUCKET, "mpegflow/"), "other tenants"),
        (within(BUCKET, "mpegflow/x/"), "other tenants"),
        (Storage { endpoint: alias, ..within(BUCKET, "mpegflow/") }, "other tenants"),
    ] {
        let refused = engine.set_storage(b, Some(bad.clone()), false).await.unwrap_err();
        let text = format!("{:#}", anyhow::Error::from(refused));
        assert!(text.contains(part), "{bad:?}: {text}");
    }
    assert_eq!(engine.store().storage_of(b).await.unwrap(), None);
    engine.set_storage(b, Some(within(OWN, "ab/")), false).await.unwrap();
    let client = world.tenant("b").await;
    upload(&client, b"x").await;
    assert!(engine.set_storage(b, None, false).await.is_err(), "its upload would be nowhere");
    assert!(engine.set_storage(b, Some(within(OWN, "c/")), false).await.is_err());
}

// === how the broker gets in

/// The values of the last session that STS gave.
fn session(forms: &[(String, String)]) -> aws_credential_types::Credentials {
    let answer = &forms.last().unwrap().1;
    let tag = |name: &str| {
        let (_, rest) = answer.split_once(&format!("<{name}>")).unwrap();
        rest.split_once('<').unwrap().0.to_owned()
    };
    let (id, secret) = (tag("AccessKeyId"), tag("SecretAccessKey"));
    aws_credential_types::Credentials::new(id, secret, Some(tag("SessionToken")), None, "test")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_a_role_gets_at_the_tenants_prefix_and_at_nothing_else() {
    let server = Server::start(Kind::Minio);
    // The broker's own user may do everything in the tenant's bucket: the session must not.
    let all = serde_json::json!({ "Version": "2012-10-17", "Statement": [
        { "Effect": "Allow", "Action": ["s3:*"], "Resource": [format!("arn:aws:s3:::{OWN}"), format!("arn:aws:s3:::{OWN}/*")] },
    ] });
    let (user, secret) = ("broker-user", "broker-secret-1");
    minio_user::add(&server, user, secret, &all.to_string()).await;
    let sts = Front::before(server.address).await;
    let endpoint = sts.endpoint();
    let world = world_on(&server, |setup| setup.sts_endpoint = Some(endpoint)).await;
    server.credentials(user, secret);
    let id = give(&world, "own", by_role(films(&server, "in/"))).await;
    put(&server, "in/film.mov", &pattern(0, 100_000)).await;
    put(&server, "outside.mov", b"outside").await;
    put(&server, "input/other.mov", b"another prefix that begins alike").await;
    world.broker().engine().try_storage(id).await.unwrap();
    let client = world.tenant("own").await;
    let content = pattern(0, 2 * PART_SIZE + 5);
    let input = upload(&client, &content).await;
    let worker = world.worker().await;
    let of_upload: Job = client.call("POST", "/v1/jobs", spec(&input)).await.json();
    let of_object = submit_stored(&client, "film.mov").await;
    assert_eq!(worker.run().await, 8);
    for job in [of_upload, of_object] {
        assert_eq!(show(&client, &job).await.state, JobState::Succeeded);
    }
    let forms = sts.forms();
    assert!(forms.len() <= 2, "one session for the trial and one for all the rest: {}", forms.len());
    for part in [
        format!("RoleArn={}", ROLE.replace(':', "%3A").replace('/', "%2F")),
        format!("ExternalId={id}"),
        format!("RoleSessionName=mpegflow-{id}"),
    ] {
        assert!(forms.iter().all(|(form, _)| form.contains(&part)), "{part}");
    }
    // What the session itself may do, whatever the broker asks for.
    let session = session(&forms);
    let tries = async |method: &str, wire: String| send(&server, &session, method, &wire, b"").await;
    assert_eq!(tries("GET", path(OWN, "in/film.mov")).await.status, 200);
    let listing = |prefix: &str| format!("/{OWN}?list-type=2&prefix={prefix}");
    assert_eq!(tries("GET", listing("in%2F")).await.status, 200);
    for (method, wire) in [
        ("GET", path(OWN, "outside.mov")),
        ("GET", path(OWN, "input/other.mov")),
        ("PUT", path(OWN, "outside.mov")),
        ("PUT", path(OWN, "input/new.mov")),
        ("DELETE", path(OWN, "outside.mov")),
        ("GET", listing("")),
        ("GET", listing("input%2F")),
        ("GET", path(BUCKET, "anything")),
        ("GET", format!("/{BUCKET}?list-type=2")),
        ("PUT", path(BUCKET, "anything")),
        ("DELETE", format!("/{OWN}")),
        ("GET", format!("/{OWN}?policy")),
        ("GET", format!("{}?acl", path(OWN, "in/film.mov"))),
        ("GET", "/".into()),
    ] {
        let answer = tries(method, wire.clone()).await;
        let nothing = wire == "/" && !answer.text().contains(BUCKET) && !answer.text().contains("<Key>");
        assert!(answer.status == 403 || nothing, "{method} {wire}: {} {}", answer.status, answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_where_there_is_no_sts_is_told_and_nothing_lies_elsewhere() {
    // versitygw has no STS at all.
    let server = Server::start(Kind::Versitygw);
    let world = world_on(&server, |_| {}).await;
    let id = give(&world, "own", by_role(films(&server, "in/"))).await;
    assert!(world.broker().engine().try_storage(id).await.is_err());
    let client = world.tenant("own").await;
    let created = client.call("POST", "/v1/uploads", r#"{"size":1}"#).await;
    let input: mpegflow_protocol::api::Upload = created.json();
    let refused = client.call("PUT", &format!("/v1/uploads/{}?offset=0", input.id), "x").await;
    let (status, code, detail) = problem(&refused);
    assert_eq!((status, code.as_str()), (503, "tenant_storage"), "{detail}");
    assert!(detail.contains("`films`") && detail.contains("role cannot be assumed"), "{detail}");
    assert_eq!((server.kept_in(OWN).len(), server.kept().len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_rotated_without_a_restart_and_is_in_no_row() {
    for kind in Kind::ALL {
        let server = Server::start(kind);
        let world = world_on(&server, |_| {}).await;
        // As Kubernetes mounts it.
        let secret = server.dir.path().join("newsroom");
        std::fs::create_dir(&secret).unwrap();
        let write = |id: &str, key: &str| {
            for (name, value) in [("access-key-id", id), ("secret-access-key", key)] {
                std::fs::write(secret.join("new"), value).unwrap();
                std::fs::rename(secret.join("new"), secret.join(name)).unwrap();
            }
        };
        write(&server.user, &server.password);
        let storage = Storage { secret: Some("newsroom".into()), ..films(&server, "in/") };
        give(&world, "own", storage).await;
        let client = world.tenant("own").await;
        upload(&client, b"first").await;
        write("nobody", "nothing");
        let created = client.call("POST", "/v1/uploads", r#"{"size":6}"#).await;
        let input: mpegflow_protocol::api::Upload = created.json();
        let send = async || client.call("PUT", &format!("/v1/uploads/{}?offset=0", input.id), "second").await;
        let (status, code, detail) = problem(&send().await);
        assert_eq!((status, code.as_str()), (503, "tenant_storage"), "{kind:?}: {detail}");
        assert!(detail.contains("`films`"), "{detail}");
        write(&server.user, &server.password);
        assert_eq!(send().await.status, 200, "{kind:?}");
        for file in files(&world.config.data_dir) {
            let bytes = std::fs::read(&file).unwrap();
            let holds = bytes.windows(server.password.len()).any(|w| w == server.password.as_bytes());
            assert!(!holds, "{kind:?}: a secret is in {file}");
        }
    }
}

// === what happens when it does not

async fn waits(client: &Client, job: &Job) -> Option<Waiting> {
    show(client, job).await.waiting
}

/// A broker whose shared bucket is on one server, and that has its tenants' secrets from the folder of the other.
async fn world_over(shared: &Server, own: &Server) -> World {
    let objects = Arc::new(shared.objects());
    let secrets = own.dir.path().to_owned();
    world_with(|config| {
        config.objects = Some(objects);
        (config.tenant_storage.secrets, config.tenant_storage.allow_http) = (Some(secrets), true);
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_that_is_gone_fails_the_job_by_a_code_that_names_the_bucket_and_is_never_replaced_by_another()
{
    for kind in Kind::ALL {
        let shared = Server::start(kind);
        let mut own = Server::start(kind);
        let world = world_over(&shared, &own).await;
        let id = give(&world, "own", films(&own, "in/")).await;
        let (client, worker) = (world.tenant("own").await, world.worker().await);
        let job = submit(&client, b"input").await;
        let lease = worker.lease().await;
        assert_eq!(worker.read(&lease, 0).await, "input");
        own.kill();
        // The worker learns that storage fails, and not whose.
        let input =
            worker.granted(&lease).get(&format!("/worker/v1/attempts/{}/inputs/0", lease.attempt)).await;
        assert_eq!(input.status, 503);
        let told = input.text();
        assert!(!told.contains(OWN) && !told.contains(&own.address.to_string()), "{told}");
        // Its tenant learns it, and so does whatever needs the bucket.
        let created = client.call("POST", "/v1/uploads", r#"{"size":1}"#).await;
        let input: mpegflow_protocol::api::Upload = created.json();
        let send = async || client.call("PUT", &format!("/v1/uploads/{}?offset=0", input.id), "x").await;
        let (status, code, detail) = problem(&send().await);
        assert_eq!((status, code.as_str()), (503, "tenant_storage"), "{kind:?}");
        assert!(detail.contains("`films`") && !detail.contains(&own.address.to_string()), "{detail}");
        // Others' work goes on, and their files are swept as ever.
        let other = world.tenant("other").await;
        let others = submit(&other, b"other").await;
        assert_eq!(world.worker().await.run().await, 4, "{kind:?}");
        assert_eq!(show(&other, &others).await.state, JobState::Succeeded);
        assert!(world.broker().engine().sweep().await.unwrap().attempts > 0, "{kind:?}");
        let shared_only = shared.kept().iter().all(|path| !path.to_string_lossy().contains(&id.to_string()));
        assert!(shared_only, "{kind:?}: nothing of it is in the bucket of all");
        // It is tried again, and in the end it fails.
        fail(&worker, &lease, FailureCode::StorageError).await;
        let last = show(&client, &job).await.tasks[0].last_failure.clone().unwrap();
        assert_eq!(last.code, FailureCode::TenantStorage, "{kind:?}");
        let message = last.message;
        assert!(message.contains("`films`") && !message.contains(&own.address.to_string()), "{message}");
        for _ in 0..64 {
            match worker.ask(2_000).await {
                LeaseReply::Lease(lease) => fail(&worker, &lease, FailureCode::StorageError).await,
                _ if show(&client, &job).await.state == JobState::Failed => break,
                _ => {}
            }
        }
        let failure = show(&client, &job).await.failure.unwrap();
        assert_eq!(failure.code, FailureCode::TenantStorage, "{kind:?}");
        assert!(failure.message.contains("`films`"), "{}", failure.message);
        own.restart();
        assert_eq!(send().await.status, 200, "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_storage_is_told_by_name_and_a_job_that_waits_says_so_until_it_is_right() {
    for kind in Kind::ALL {
        let server = Server::start(kind);
        let world = world_on(&server, |_| {}).await;
        let engine = world.broker().engine();
        let id = world.broker().ensure_tenant("own").await.unwrap();
        let client = world.tenant("own").await;
        let set = async |storage: Storage| engine.set_storage(id, Some(storage), false).await.unwrap();
        let nobody = mpegflow_test_ports::address();
        put(&server, "in/film.mov", b"film").await;
        for (wrong, bucket, part) in [
            (Storage { bucket: "no-such-bucket".into(), ..films(&server, "in/") }, "`no-such-bucket`", ""),
            (
                Storage { secret: Some("no-such-secret".into()), ..films(&server, "in/") },
                "`films`",
                "credentials",
            ),
            (
                Storage { endpoint: Some(format!("http://{nobody}")), ..films(&server, "in/") },
                "`films`",
                "connection",
            ),
        ] {
            set(wrong.clone()).await;
            // Every broker follows within seconds.
            eventually("it is told", async || {
                let answer = client.call("POST", "/v1/jobs", from_storage("film.mov")).await;
                let (_, code, detail) = problem(&answer);
                assert!(!detail.contains(&nobody.to_string()), "{detail}");
                code == "tenant_storage" && detail.contains(bucket) && detail.contains(part)
            })
            .await;
            assert!(engine.try_storage(id).await.is_err(), "{kind:?}: {wrong:?}");
        }
        set(films(&server, "in/")).await;
        engine.try_storage(id).await.unwrap();
        eventually("it is right", async || {
            client.call("POST", "/v1/jobs", from_storage("film.mov")).await.status == 201
        })
        .await;
        assert_eq!(server.kept().len(), 0, "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_waits_for_its_tenants_storage_says_so_until_that_is_back() {
    let shared = Server::start(Kind::Versitygw);
    let mut own = Server::start(Kind::Minio);
    let world = world_over(&shared, &own).await;
    give(&world, "own", films(&own, "in/")).await;
    let client = world.tenant("own").await;
    let job = submit(&client, b"input").await;
    own.kill();
    let created = client.call("POST", "/v1/uploads", r#"{"size":1}"#).await;
    let input: mpegflow_protocol::api::Upload = created.json();
    let refused = client.call("PUT", &format!("/v1/uploads/{}?offset=0", input.id), "x").await;
    assert_eq!(problem(&refused).1, "tenant_storage");
    let waiting = waits(&client, &job).await.unwrap();
    assert_eq!(waiting.reason, WaitingReason::StorageDown);
    assert!(waiting.message.contains("`films`"), "{}", waiting.message);
    own.restart();
    eventually("it is back", async || {
        waits(&client, &job).await.is_some_and(|w| w.reason == WaitingReason::NoWorker)
    })
    .await;
}

// === inputs that a tenant names there

#[tokio::test(flavor = "multi_thread")]
async fn an_object_of_the_tenants_own_storage_is_an_input() {
    for kind in Kind::ALL {
        let server = Server::start(kind);
        let world = world_on(&server, |_| {}).await;
        give(&world, "own", films(&server, "in/")).await;
        let (client, worker) = (world.tenant("own").await, world.worker().await);
        let content = pattern(0, PART_SIZE + 1_234);
        for key in ["film.mov", "2026 (1)/a+b,c=d&e'f!~@.mov", "deep/er/.hidden-1"] {
            put(&server, &format!("in/{key}"), &content).await;
            let job = submit_stored(&client, key).await;
            let lease = worker.lease().await;
            assert_eq!(lease.inputs[0].size, content.len() as u64);
            assert!(worker.read(&lease, 0).await == content, "{kind:?} {key}");
            let part = worker.granted(&lease).with("range", "bytes=5-9");
            let part = part.get(&format!("/worker/v1/attempts/{}/inputs/0", lease.attempt)).await;
            assert_eq!((part.status.as_u16(), &part.body[..]), (206, &content[5..10]));
            assert_eq!(worker.finish(&lease).await.status, 204);
            assert_eq!(worker.run().await, 3, "{kind:?} {key}");
            assert_eq!(show(&client, &job).await.state, JobState::Succeeded);
        }
        // What was found out of it holds for this version: a cap is a refusal at once.
        let capped =
            r#"{"version":1,"preset":"web","input":{"storage":"film.mov"},"max_spend":{"core_seconds":1}}"#;
        let refused = client.call("POST", "/v1/jobs", capped).await;
        assert_eq!((refused.status.as_u16(), refused.problem().as_str()), (422, "spend_exceeded"));
        // The tenant's own object is nobody's to delete, whatever of ours goes.
        let id = world.broker().ensure_tenant("own").await.unwrap();
        let engine = world.broker().engine();
        engine.delete_tenant("own").await.unwrap();
        eventually("nothing of ours is left", async || {
            engine.retain(None).await.unwrap();
            engine.sweep().await.unwrap();
            below(&server, OWN, &format!("in/{id}")).0 == 0
        })
        .await;
        let kept = send(&server, &root(&server), "GET", &path(OWN, "in/film.mov"), b"").await;
        assert!(kept.status == 200 && kept.body[..] == content, "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_leads_out_of_the_tenants_prefix() {
    for kind in Kind::ALL {
        let server = Server::start(kind);
        let world = world_on(&server, |_| {}).await;
        let victim = give(&world, "victim", films(&server, "victim/")).await;
        give(&world, "own", films(&server, "own/")).await;
        let (client, theirs) = (world.tenant("own").await, world.tenant("victim").await);
        put(&server, "victim/film.mov", b"secret").await;
        put(&server, "own/film.mov", b"mine").await;
        put(&server, "root.mov", b"above").await;
        let input = upload(&theirs, b"secret upload").await;
        let uploaded = format!("victim/{victim}/uploads/{}", input.id);
        let kept = send(&server, &root(&server), "GET", &path(OWN, &uploaded), b"").await;
        assert_eq!(kept.status, 200, "it is there: {}", kept.text());
        for key in [
            "../victim/film.mov",
            "x/../../victim/film.mov",
            "./../victim/film.mov",
            "/victim/film.mov",
            "//victim/film.mov",
            "..%2fvictim/film.mov",
            "%2e%2e/victim/film.mov",
            "%2e%2e%2fvictim%2ffilm.mov",
            "%252e%252e/victim/film.mov",
            "..\\victim\\film.mov",
            "film.mov\0",
            "film.mov\0/../../victim/film.mov",
            "\u{ff0e}\u{ff0e}/victim/film.mov",
            "\u{2024}\u{2024}\u{2215}victim/film.mov",
            "..\u{2215}victim\u{2215}film.mov",
            "s3://films/victim/film.mov",
            "film.mov?versionId=null",
            "film.mov#x",
            ".../film.mov",
            "film.mov/",
            "",
            " ",
        ] {
            let answer = client.call("POST", "/v1/jobs", from_storage(key)).await;
            let code = answer.problem();
            assert!(
                answer.status == 422 && (code == "invalid_field" || code == "unknown_object"),
                "{kind:?} {key:?}: {} {}",
                answer.status,
                answer.text()
            );
        }
        // Plain names of others' objects are names below one's own prefix, where there is nothing of the kind.
        for key in ["victim/film.mov", "films/victim/film.mov", "root.mov", &uploaded] {
            let answer = client.call("POST", "/v1/jobs", from_storage(key)).await;
            assert_eq!(
                (answer.status.as_u16(), answer.problem().as_str()),
                (422, "unknown_object"),
                "{kind:?} {key}"
            );
        }
        // The broker's own objects are no inputs, the tenant's own neither: a quarantined upload would be one again.
        let own = format!("{victim}/uploads/{}", input.id);
        let answer = theirs.call("POST", "/v1/jobs", from_storage(&own)).await;
        assert_eq!(
            (answer.status.as_u16(), answer.problem().as_str()),
            (422, "invalid_field"),
            "{}",
            answer.text()
        );
        // A tenant without storage of its own has no such inputs, though the bucket of all has the object.
        let nobody = world.tenant("nobody").await;
        let answer = nobody.call("POST", "/v1/jobs", from_storage("film.mov")).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (422, "no_storage"));
        assert_eq!(world.worker().await.run().await, 0, "no job came of any of it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_reads_its_object_as_it_was_and_a_replaced_one_fails_it_whichever_broker_is_asked() {
    for kind in Kind::ALL {
        let server = Server::start(kind);
        let mut world = world_on(&server, |_| {}).await;
        give(&world, "own", films(&server, "in/")).await;
        let (client, worker) = (world.tenant("own").await, world.worker().await);
        let (first, second) = (pattern(0, 300_000), pattern(7, 300_007));
        put(&server, "in/film.mov", &first).await;
        let job = submit_stored(&client, "film.mov").await;
        // Replaced before anybody has read a byte: the job came with the first one.
        put(&server, "in/film.mov", &second).await;
        let lease = worker.lease().await;
        let read = async |worker: &Worker| {
            let granted = worker.granted(&lease).with("range", "bytes=0-9");
            granted.get(&format!("/worker/v1/attempts/{}/inputs/0", lease.attempt)).await
        };
        let refused = read(&worker).await;
        assert_eq!((refused.status.as_u16(), refused.problem().as_str()), (412, "input_changed"), "{kind:?}");
        world.config.objects = Some(Arc::new(server.objects()));
        world.crash_and_restart().await;
        let join = world.join_file().await;
        let address = format!("https://{}", world.broker().worker_addr());
        let again = Client::new(address, Some(&join.ca), Some((&worker.certificate, &worker.key)));
        let worker = Worker { client: again, ..worker };
        assert_eq!(read(&worker).await.status, 412, "{kind:?}");
        fail(&worker, &lease, FailureCode::InputChanged).await;
        let client = world.tenant("own").await;
        let last = show(&client, &job).await.tasks[0].last_failure.clone().unwrap();
        assert_eq!(last.code, FailureCode::InputChanged);
        assert_eq!(client.call("POST", &format!("/v1/jobs/{}/cancel", job.id), "").await.status, 200);
        // A new job takes it as it is now, also when it is gone in the middle.
        submit_stored(&client, "film.mov").await;
        let lease = worker.lease().await;
        assert!(worker.read(&lease, 0).await == second, "{kind:?}");
        let gone = send(&server, &root(&server), "DELETE", &path(OWN, "in/film.mov"), b"").await;
        assert!(gone.status.is_success());
        let missing =
            worker.granted(&lease).get(&format!("/worker/v1/attempts/{}/inputs/0", lease.attempt)).await;
        assert!(missing.status.is_server_error(), "{kind:?}: {}", missing.status);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_broke_a_lock_is_quarantined_as_it_is_and_quotas_hold() {
    for kind in Kind::ALL {
        let server = Server::start(kind);
        let world = world_on(&server, |_| {}).await;
        give(&world, "own", films(&server, "in/")).await;
        let (client, worker) = (world.tenant("own").await, world.worker().await);
        put(&server, "in/film.mov", b"hostile").await;
        submit_stored(&client, "film.mov").await;
        let lease = worker.lease().await;
        fail(&worker, &lease, FailureCode::LockViolation).await;
        for _ in 0..2 {
            let answer = client.call("POST", "/v1/jobs", from_storage("film.mov")).await;
            assert_eq!(
                (answer.status.as_u16(), answer.problem().as_str()),
                (409, "input_quarantined"),
                "{kind:?}"
            );
        }
        put(&server, "in/film.mov", b"another").await;
        submit_stored(&client, "film.mov").await;
        let id = world.broker().ensure_tenant("own").await.unwrap();
        let limits = mpegflow_broker::model::TenantLimits {
            unfinished_jobs: Some(1),
            ..mpegflow_broker::model::TenantLimits::default()
        };
        world.broker().engine().store().set_tenant_limits(id, &limits).await.unwrap();
        eventually("its quota holds", async || {
            let answer = client.call("POST", "/v1/jobs", from_storage("film.mov")).await;
            answer.status == 429 && answer.problem() == "quota_exceeded"
        })
        .await;
    }
}

// === whoever runs a broker

#[tokio::test(flavor = "multi_thread")]
async fn the_program_sets_shows_tries_and_clears_a_tenants_storage() {
    let server = Server::start(Kind::Versitygw);
    let dir = tempfile::tempdir().unwrap();
    let program = env!("CARGO_BIN_EXE_mpegflow-broker");
    let run = |args: &[&str]| -> Output {
        Command::new(program)
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
    let endpoint = server.endpoint();
    let set = |more: &[&str]| {
        let place =
            ["storage", "set", "--tenant", "a", "--bucket", OWN, "--endpoint", &endpoint, "--path-style"];
        run(&[&place[..], more].concat())
    };
    let unknown = set(&["--secret", "credentials"]);
    assert!(!unknown.status.success() && text(&unknown).contains("no tenant `a`"), "{}", text(&unknown));
    let key = run(&["api-key", "create", "--tenant", "a"]);
    assert!(key.status.success(), "{}", text(&key));
    for (bad, part) in [
        (&["--secret", "../credentials"][..], "secret's name"),
        (&["--secret", "credentials", "--prefix", "no-slash"][..], "prefix"),
        (&["--role-arn", "arn:nonsense"][..], "ARN"),
        (&["--role-arn", ROLE][..], "tenant_storage.credentials"),
        (&["--role-arn", ROLE, "--secret", "credentials"][..], "cannot be used with"),
        (&[][..], "required"),
    ] {
        let refused = set(bad);
        assert!(!refused.status.success() && text(&refused).contains(part), "{bad:?}: {}", text(&refused));
    }
    let none = run(&["storage", "check", "--tenant", "a"]);
    assert!(!none.status.success() && text(&none).contains("no storage of its own"), "{}", text(&none));
    assert!(set(&["--secret", "credentials", "--prefix", "in/"]).status.success());
    let checked = run(&["storage", "check", "--tenant", "a"]);
    assert!(checked.status.success() && text(&checked).contains("does what it has to"), "{}", text(&checked));
    assert_eq!(server.kept_in(OWN).len(), 0, "it leaves nothing");
    let shown = run(&["storage", "show", "--tenant", "a"]);
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(
        (shown["storage"]["bucket"].as_str(), shown["storage"]["secret"].as_str()),
        (Some(OWN), Some("credentials"))
    );
    assert!(shown["tenant"].as_str().unwrap().starts_with("tnt_"));
    server.credentials("nobody", "nothing");
    let refused = run(&["storage", "check", "--tenant", "a"]);
    assert!(!refused.status.success() && !text(&refused).contains("nothing"), "{}", text(&refused));
    assert!(run(&["storage", "clear", "--tenant", "a"]).status.success());
    let shown = run(&["storage", "show", "--tenant", "a"]);
    assert!(serde_json::from_slice::<serde_json::Value>(&shown.stdout).unwrap()["storage"].is_null());
}
