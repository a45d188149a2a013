//! The worker API against a hostile worker.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, reason = "tests")]

mod common;

use common::*;
use mpegflow_protocol::limits::PART_SIZE;
use mpegflow_protocol::worker::{Enroll, Enrolled, Lease, PART_DIGEST_HEADER, Renew, TaskProgress};
use std::time::Duration;

async fn at_encode(world: &World, tenant: &Client) -> (Worker, Lease) {
    let worker = world.worker().await;
    submit(tenant, b"x").await;
    let lease = worker.lease().await;
    assert_eq!(worker.finish(&lease).await.status, 204);
    let lease = worker.lease().await;
    (worker, lease)
}

#[tokio::test]
async fn a_capability_is_good_for_one_worker_one_attempt_and_its_slots() {
    let world = world().await;
    let (a, b) = (world.tenant("a").await, world.tenant("b").await);
    let (one, lease) = at_encode(&world, &a).await;
    let (two, other) = at_encode(&world, &b).await;
    let (one_granted, two_granted) = (one.granted(&lease), two.granted(&other));
    let input = |l: &Lease, n: u32| format!("/worker/v1/attempts/{}/inputs/{n}", l.attempt);

    // No certificate, no or a made-up capability, another's capability, another's attempt, no such slot.
    let join = world.join_file().await;
    let base = format!("https://{}", world.broker().worker_addr());
    let nobody =
        Client::new(base, Some(&join.ca), None).with("authorization", format!("Bearer {}", lease.capability));
    for (client, path, status) in [
        (&nobody, input(&lease, 0), 401),
        (&one.client, input(&lease, 0), 401),
        (&one.client.with("authorization", "Bearer mfc_AAAA"), input(&lease, 0), 401),
        (&one.client.with("authorization", format!("Bearer {}", other.capability)), input(&lease, 0), 403),
        (&one.client.with("authorization", format!("Bearer {}", other.capability)), input(&other, 0), 403),
        (&two.client.with("authorization", format!("Bearer {}", lease.capability)), input(&lease, 0), 403),
        (&two_granted, input(&lease, 0), 403),
        (&one_granted, input(&lease, 1), 404),
        (&one_granted, input(&lease, 4_000_000_000), 404),
        (&one_granted, "/worker/v1/attempts/att_x/inputs/0".into(), 404),
        (&one_granted, input(&lease, 0), 200),
    ] {
        let answer = client.get(&path).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        if status != 200 {
            assert!(
                !answer.text().contains("tnt_") && !answer.text().contains("detail"),
                "{}",
                answer.text()
            );
        }
    }
    for path in ["renew", "lease"] {
        assert_eq!(nobody.call("POST", &format!("/worker/v1/{path}"), "{}").await.status, 401);
    }
}

#[tokio::test]
async fn an_older_epoch_is_refused_everywhere() {
    let world = world().await;
    let tenant = world.tenant("a").await;
    let (worker, old) = at_encode(&world, &tenant).await;
    assert_eq!(worker.end(&old, "release", vec![]).await.status, 204);
    let new = worker.lease().await;
    assert_ne!(old.attempt, new.attempt);
    // The same worker, the same task: only the attempt and its epoch are another's.
    assert_eq!(worker.put(&old, 0, 0, b"late").await.status, 409);
    assert_eq!(worker.beat(&old, TaskProgress::default()).await.status, 409);
    assert_eq!(worker.end(&old, "release", vec![]).await.status, 409);
    let answer = worker
        .granted(&old)
        .call("PUT", &format!("/worker/v1/attempts/{}/outputs/0/parts/0", new.attempt), "x")
        .await;
    assert_eq!(answer.status, 403);
    assert_eq!(worker.finish(&new).await.status, 204);
}

#[tokio::test]
async fn a_part_counts_only_whole_and_once_and_none_before_the_first() {
    let world = world().await;
    let tenant = world.tenant("a").await;
    let (worker, lease) = at_encode(&world, &tenant).await;
    let path = |part: u32| format!("/worker/v1/attempts/{}/outputs/0/parts/{part}", lease.attempt);
    let granted = worker.granted(&lease);

    assert_eq!(granted.call("PUT", &path(0), "x").await.status, 422, "no digest");
    assert_eq!(granted.with(PART_DIGEST_HEADER, "zz").call("PUT", &path(0), "x").await.status, 422);
    let wrong = granted.with(PART_DIGEST_HEADER, hex(&sha256(b"y")));
    assert_eq!(wrong.call("PUT", &path(0), "x").await.status, 422, "another digest");
    let objects = world.dir.path().join("data/objects");
    let kept: u64 = files(&objects)
        .iter()
        .filter(|f| f.contains(&lease.attempt.to_string()))
        .map(|f| std::fs::metadata(f).unwrap().len())
        .sum();
    assert_eq!(kept, 0, "nothing of it is kept");

    assert_eq!(worker.put(&lease, 0, 1, b"second").await.status, 409, "none is there before the first");
    assert_eq!(worker.put(&lease, 0, 0, b"").await.status, 411, "empty");
    assert_eq!(worker.put(&lease, 99, 0, b"x").await.status, 404, "no such slot");

    let whole = vec![7_u8; PART_SIZE as usize];
    assert_eq!(worker.put(&lease, 0, 0, &whole).await.status, 204);
    assert_eq!(worker.put(&lease, 0, 0, &whole).await.status, 204, "the same again");
    let mut changed = whole.clone();
    changed[12] ^= 1;
    assert_eq!(worker.put(&lease, 0, 0, &changed).await.status, 409, "another under its name");
    assert_eq!(worker.put(&lease, 0, 1, b"short").await.status, 204);
    assert_eq!(worker.put(&lease, 0, 2, b"after a short one").await.status, 409);
    let mut too_long = vec![0_u8; PART_SIZE as usize];
    too_long.push(0);
    assert_eq!(worker.put(&lease, 1, 0, &too_long).await.status, 409, "longer than a part");

    // What is said at the end has to be what was received.
    let mut outputs = vec![output_digest(&[&whole, b"short"])];
    for n in 1..lease.outputs.len() {
        assert_eq!(worker.put(&lease, n, 0, b"x").await.status, 204);
        outputs.push(output_digest(&[b"x"]));
    }
    let complete = |outputs: &[mpegflow_protocol::worker::OutputDigest]| {
        serde_json::to_vec(&mpegflow_protocol::worker::Complete {
            result: result_for(&lease, outputs),
            outputs: outputs.to_vec(),
            evidence: evidence(),
        })
        .unwrap()
    };
    let mut lie = outputs.clone();
    lie[0].size += 1;
    assert_eq!(worker.end(&lease, "complete", complete(&lie)).await.status, 422);
    let mut lie = outputs.clone();
    lie[0].digest = "0".repeat(64);
    assert_eq!(worker.end(&lease, "complete", complete(&lie)).await.status, 422);
    assert_eq!(worker.end(&lease, "complete", complete(&outputs)).await.status, 204);
}

#[tokio::test]
async fn parts_come_in_any_order_and_at_once_but_close_together_and_without_a_gap() {
    let world = world().await;
    let tenant = world.tenant("a").await;
    let (worker, lease) = at_encode(&world, &tenant).await;
    let whole: Vec<Vec<u8>> = (1..=5).map(|n| vec![n; PART_SIZE as usize]).collect();
    let put = |part: u32| worker.put(&lease, 0, part, &whole[part as usize]);
    assert_eq!(put(0).await.status, 204);
    assert_eq!(put(4).await.status, 204, "as far ahead as may be");
    assert_eq!(worker.put(&lease, 0, 5, b"x").await.status, 409, "further");
    assert_eq!(worker.put(&lease, 0, 3, b"short").await.status, 409, "a short one before one that is there");

    // What is said at the end leaves out what is missing, and counts as nothing.
    let mut others = Vec::new();
    for n in 1..lease.outputs.len() {
        assert_eq!(worker.put(&lease, n, 0, b"x").await.status, 204);
        others.push(output_digest(&[b"x"]));
    }
    let complete = |parts: &[&[u8]]| {
        let outputs: Vec<_> = std::iter::once(output_digest(parts)).chain(others.iter().cloned()).collect();
        serde_json::to_vec(&mpegflow_protocol::worker::Complete {
            result: result_for(&lease, &outputs),
            outputs,
            evidence: evidence(),
        })
        .unwrap()
    };
    let gap = complete(&[&whole[0], &whole[4]]);
    assert_eq!(worker.end(&lease, "complete", gap).await.status, 422);

    let together = futures_util::future::join_all([3, 1, 2].map(put)).await;
    assert!(together.iter().all(|answer| answer.status == 204));
    assert_eq!(worker.put(&lease, 0, 5, b"the last").await.status, 204);
    assert_eq!(worker.put(&lease, 0, 6, b"after a short one").await.status, 409);
    let parts: Vec<&[u8]> = whole.iter().map(Vec::as_slice).chain([&b"the last"[..]]).collect();
    assert_eq!(worker.end(&lease, "complete", complete(&parts)).await.status, 204);
}

#[tokio::test]
async fn an_output_cannot_outgrow_its_slot() {
    let world = world().await;
    let tenant = world.tenant("a").await;
    let (worker, lease) = at_encode(&world, &tenant).await;
    let audio = lease.outputs.len() - 1;
    let max = lease.outputs[audio].max_bytes;
    let whole = vec![0_u8; PART_SIZE as usize];
    let parts = (max / PART_SIZE) as u32;
    for part in 0..parts {
        assert_eq!(worker.put(&lease, audio, part, &whole).await.status, 204);
    }
    let left = (max % PART_SIZE) as usize;
    assert_eq!(worker.put(&lease, audio, parts, &vec![0; left + 1]).await.status, 413);
    assert_eq!(worker.put(&lease, audio, parts, &vec![0; left]).await.status, 204);
}

#[tokio::test]
async fn ranges_outside_an_input_are_416() {
    let world = world().await;
    let tenant = world.tenant("a").await;
    let worker = world.worker().await;
    submit(&tenant, b"0123456789").await;
    let lease = worker.lease().await;
    let path = format!("/worker/v1/attempts/{}/inputs/0", lease.attempt);
    for (range, status, body) in [
        ("bytes=10-", 416, ""),
        ("bytes=0-0", 206, "0"),
        ("bytes=8-99", 206, "89"),
        ("bytes=-4", 206, "6789"),
    ] {
        let answer = worker.granted(&lease).with("range", range).get(&path).await;
        assert_eq!(answer.status, status, "{range}");
        if status == 206 {
            assert_eq!(answer.text(), body);
        } else {
            assert_eq!(answer.headers["content-range"], "bytes */10");
        }
    }
}

#[tokio::test]
async fn only_a_join_token_of_the_pool_enrols_until_it_is_revoked() {
    let world = world().await;
    let join = world.join_file().await;
    let base = format!("https://{}", world.broker().worker_addr());
    let anonymous = Client::new(base, Some(&join.ca), None);
    let csr = || {
        let key = rcgen::KeyPair::generate().unwrap();
        rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap()
    };
    let enroll = async |token: &str, pool: &str, csr: String| {
        let body = Enroll { token: token.into(), csr, pool: pool.parse().unwrap(), version: "t".into() };
        anonymous.call("POST", "/worker/v1/enroll", serde_json::to_vec(&body).unwrap()).await.status.as_u16()
    };
    assert_eq!(enroll(&join.token, "default", csr()).await, 200);
    assert_eq!(enroll(&join.token, "default", csr()).await, 200, "a token is for all workers of a pool");
    assert_eq!(enroll(&join.token, "gpu", csr()).await, 401);
    assert_eq!(enroll("mfj_0", "default", csr()).await, 401);
    assert_eq!(enroll(&join.token, "default", "nonsense".into()).await, 422);
    let engine = world.broker().engine();
    engine.store().revoke_join_tokens(&join.pool, engine.now()).await.unwrap();
    assert_eq!(enroll(&join.token, "default", csr()).await, 401);
}

#[tokio::test]
async fn a_renewed_certificate_keeps_the_identity_and_the_lease() {
    let world = world().await;
    let tenant = world.tenant("a").await;
    let join = world.join_file().await;
    let worker = world.worker().await;
    submit(&tenant, b"x").await;
    let lease = worker.lease().await;
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let answer = worker
        .client
        .call("POST", "/worker/v1/renew", serde_json::to_vec(&Renew { csr, token: None }).unwrap())
        .await;
    let enrolled: Enrolled = answer.json();
    assert_eq!((enrolled.worker, enrolled.expires_in_s), (worker.id, 3600));
    let key = key.serialize_der();
    let client = Client::new(
        format!("https://{}", world.broker().worker_addr()),
        Some(&join.ca),
        Some((&enrolled.certificate, &key)),
    );
    let renewed = Worker { client, key, certificate: enrolled.certificate, id: worker.id };
    assert_eq!(renewed.finish(&lease).await.status, 204);
}

#[tokio::test]
async fn a_certificate_of_another_authority_does_not_get_in() {
    let world = world().await;
    let join = world.join_file().await;
    let other = tempfile::tempdir().unwrap();
    let ca = mpegflow_broker::ca::Ca::open(other.path()).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let worker = world.worker().await;
    let certificate = ca.sign_worker(&csr, worker.id, &join.pool).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
    roots.add(CertificateDer::from_pem_slice(join.ca.as_bytes()).unwrap()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    let socket = tokio::net::TcpStream::connect(world.broker().worker_addr()).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let name = ServerName::try_from("mpegflow-broker").unwrap();
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let refused = async {
        // In TLS 1.3 the client is done before the server has looked at its certificate.
        let mut stream = connector.connect(name, socket).await.ok()?;
        stream
            .write_all(
                b"POST /worker/v1/lease HTTP/1.1\r\nhost: x\r\ncontent-length: 13\r\n\r\n{\"wait_ms\":0}",
            )
            .await
            .ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok()?;
        Some(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = tokio::time::timeout(Duration::from_secs(5), refused).await.unwrap();
    assert!(answer.is_none_or(|a| a.is_empty()), "it got in");
}
