//! As managed services have it: TLS with a private authority, passwords that change while we run, a pooler in between.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs,
    reason = "tests"
)]

#[path = "support/postgres.rs"]
mod postgres;

use mpegflow_broker::conformance;
use mpegflow_broker::conformance::store::{make, submit};
use mpegflow_broker::store::postgres::{DatabaseConfig, DatabaseUrl, PostgresStore, UrlSource};
use mpegflow_broker::store::{Store as _, StoreError};
use postgres::{PASSWORD, Server};
use std::sync::Arc;

fn config(url: &str) -> DatabaseConfig {
    DatabaseConfig::new(UrlSource::Plain(DatabaseUrl::parse(url).unwrap()))
}

/// The error with all that is behind it.
fn whole(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

async fn refused(config: DatabaseConfig) -> String {
    whole(&PostgresStore::open(config).await.unwrap_err())
}

struct Authority {
    issuer: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        Self { issuer: rcgen::CertifiedIssuer::self_signed(params, key).unwrap() }
    }

    /// Certificate and key of a server of that name.
    fn server(&self, name: &str) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

#[tokio::test]
async fn over_tls_only_a_server_that_the_authority_knows_by_that_name_is_talked_to() {
    let server = Arc::new(Server::start(&["-c", "fsync=off"]));
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (certificate, key) = ours.server("127.0.0.1");
    let certificate = server.put("server.crt", certificate.as_bytes());
    let key = server.put("server.key", key.as_bytes());
    let our_ca = server.put("ours.pem", ours.issuer.pem().as_bytes());
    let their_ca = server.put("theirs.pem", theirs.issuer.pem().as_bytes());
    let password = server.put("password", format!("{PASSWORD}\n").as_bytes());
    let hba = server.put("hba", b"local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n");
    for (name, value) in [
        ("ssl_cert_file", certificate.display().to_string()),
        ("ssl_key_file", key.display().to_string()),
        ("ssl", "on".into()),
    ] {
        server.execute("postgres", &format!("ALTER SYSTEM SET {name} = '{value}'")).await;
    }
    std::fs::copy(hba, server.dir().join("data/pg_hba.conf")).unwrap();
    server.execute("postgres", "SELECT pg_reload_conf()").await;
    server.execute("postgres", "CREATE DATABASE managed").await;

    let with = |host: &str, parameters: String| {
        let port = server.port();
        let mut config = config(&format!("postgres://mpegflow@{host}:{port}/managed?{parameters}"));
        config.password_file = Some(password.clone());
        config
    };
    let (ours, theirs) = (our_ca.display(), their_ca.display());
    // The reload takes a moment.
    let mut opened =
        PostgresStore::open(with("127.0.0.1", format!("sslmode=verify-full&sslrootcert={ours}"))).await;
    for _ in 0..600 {
        if opened.is_ok() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        opened =
            PostgresStore::open(with("127.0.0.1", format!("sslmode=verify-full&sslrootcert={ours}"))).await;
    }
    let store = opened.unwrap();
    store.ping().await.unwrap();
    let encrypted: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid)
         WHERE s.ssl AND s.version = 'TLSv1.3' AND a.application_name = 'mpegflow-broker'",
    )
    .fetch_one(&mut server.connect("managed").await)
    .await
    .unwrap();
    assert!(encrypted >= 1);

    let unknown = refused(with("127.0.0.1", "sslmode=verify-full".into())).await;
    assert!(unknown.contains("UnknownIssuer"), "{unknown}");
    let stranger = refused(with("127.0.0.1", format!("sslmode=verify-full&sslrootcert={theirs}"))).await;
    assert!(stranger.contains("certificate"), "{stranger}");
    let name = refused(with("localhost", format!("sslmode=verify-full&sslrootcert={ours}"))).await;
    assert!(name.contains("not valid for name"), "{name}");
    PostgresStore::open(with("localhost", format!("sslmode=verify-ca&sslrootcert={ours}"))).await.unwrap();
    let plain = refused(with("127.0.0.1", "sslmode=disable".into())).await;
    assert!(plain.contains("no encryption"), "{plain}");
}

#[tokio::test]
async fn a_password_that_changes_is_read_again_for_the_next_connection() {
    let server = Arc::new(Server::start(&["-c", "fsync=off"]));
    server.execute("postgres", "CREATE DATABASE managed").await;
    let port = server.port();
    let cut =
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'mpegflow-broker'";
    let with_file = |text: &str| server.put("secret", text.as_bytes());
    let url = |password: &str| format!("postgres://mpegflow{password}@127.0.0.1:{port}/managed");

    let mut from_file = config(&url(""));
    from_file.password_file = Some(with_file(&format!("{PASSWORD}\n")));
    let whole_url = server.put("url", url(&format!(":{PASSWORD}")).as_bytes());
    let from_url_file = DatabaseConfig::new(UrlSource::File(whole_url));
    let stores =
        [PostgresStore::open(from_file).await.unwrap(), PostgresStore::open(from_url_file).await.unwrap()];

    for password in ["new one", "p@ss:w%rd"] {
        server.execute("postgres", &format!("ALTER ROLE mpegflow PASSWORD '{password}'")).await;
        with_file(&format!("{password}\n"));
        let encoded =
            password.replace('%', "%25").replace(' ', "%20").replace('@', "%40").replace(':', "%3A");
        server.put("url", url(&format!(":{encoded}")).as_bytes());
        server.execute("postgres", cut).await;
        for store in &stores {
            // The calls that find the cut connections fail, the ones that make new ones do not.
            let mut answered = false;
            for _ in 0..20 {
                answered = answered || store.ping().await.is_ok();
            }
            assert!(answered, "{password}");
            store.ping().await.unwrap();
        }
    }
    with_file("wrong-password-in-the-file");
    server.execute("postgres", cut).await;
    let mut last = String::new();
    for _ in 0..20 {
        last = stores[0].ping().await.err().as_ref().map(whole).unwrap_or_default();
    }
    assert!(last.contains("authentication failed"), "{last}");
    assert!(!last.contains("wrong-password"), "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn through_a_pooler_in_transaction_mode_it_is_a_store_too() {
    let database = postgres::database().await;
    let pooler = postgres::Pooler::start(&database.server);
    let config = config(&pooler.url(&database.name));
    let store = PostgresStore::open(config.clone()).await.unwrap();
    conformance::store::all(Arc::new(store.clone().trusting_callers_time())).await;
    // Two brokers with twenty connections on three of the server's: whatever a session would hold gets mixed up.
    let stores = [store, PostgresStore::open(config).await.unwrap()];
    let mut tenants = Vec::new();
    for n in 0..10 {
        tenants.push(make(&stores[n % 2], &format!("tenant {n}")).await);
    }
    let calls = (0..200).map(|i| {
        let (store, made) = (stores[i % 2].clone(), tenants[i % 10]);
        tokio::spawn(async move {
            let (job, _) = submit(&store, &made).await;
            assert!(store.job(made.tenant, job).await.unwrap().is_some());
            assert!(!store.events(made.tenant, Some(job), 0, 10).await.unwrap().is_empty());
        })
    });
    futures_util::future::join_all(calls).await.into_iter().for_each(|done| done.unwrap());
    let checkpoint = stores[0].checkpoint().await.unwrap();
    assert!(stores[1].audit(&[checkpoint]).await.unwrap().iter().all(|(_, answer)| answer.is_ok()));
    let connections: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'mpegflow-broker' AND datname = $1",
    )
    .bind(&database.name)
    .fetch_one(&mut database.connect().await)
    .await
    .unwrap();
    assert!((1..=3).contains(&connections), "{connections} connections of the server");
}
