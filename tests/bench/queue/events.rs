//! Reads of jobs and events where the events of years lie: 10 million rows, a tenth of them one tenant's.

use super::{metric, percentile, postgres};
use mpegflow_broker::store::Store as _;
use mpegflow_broker::store::postgres::{DatabaseConfig, DatabaseUrl, PostgresStore, UrlSource};
use mpegflow_protocol::api::JobState;
use mpegflow_protocol::ids::{JobId, TenantId};
use serde_json::Value;
use sqlx::{Connection as _, Executor as _};
use std::time::Instant;

/// `EVENTS=100000` for a quick look.
fn wanted() -> u64 {
    std::env::var("EVENTS").ok().and_then(|n| n.parse().ok()).unwrap_or(10_000_000)
}

/// Events of a job.
const EACH: u64 = 10;
/// Tenants beside the large one, which has a tenth.
const TENANTS: u64 = 90;
/// Calls of each kind.
const CALLS: u64 = 2_000;

pub(crate) async fn run() -> Vec<Value> {
    // What is measured are reads; how durable the rows are that are made here does not matter.
    let server = postgres::Server::start(&[
        "-c",
        "fsync=off",
        "-c",
        "max_wal_size=4GB",
        "-c",
        "maintenance_work_mem=256MB",
    ]);
    let url = format!(
        "postgres://mpegflow:{}@127.0.0.1:{}/postgres?sslmode=disable",
        postgres::PASSWORD,
        server.port()
    );
    let source = UrlSource::Plain(DatabaseUrl::parse(&url).unwrap());
    let store = PostgresStore::open(DatabaseConfig::new(source)).await.unwrap();
    let began = Instant::now();
    let rows = wanted();
    fill(&url, rows).await;
    println!("{rows} events made in {:.0} s", began.elapsed().as_secs_f64());
    let large = TenantId::from_u128(1);
    let job = |n: u64| JobId::from_u128(u128::from(n % (rows / EACH / 10)) * 100 + 1);
    let mut metrics = Vec::new();
    let mut measured = |what: &str, times: Vec<f64>| {
        let p50 = percentile(times.clone(), 50);
        let mut row = metric(what, "< 10 ms", "ms", percentile(times, 99), f64::NAN);
        row["p50"] = p50.into();
        metrics.push(row);
    };
    let mut times: [Vec<f64>; 5] = Default::default();
    let timed = |began: Instant| began.elapsed().as_secs_f64() * 1e3;
    for n in 0..CALLS {
        // Spread over everything there is.
        let at = n.wrapping_mul(2_654_435_761) % (rows / 10);
        let began = Instant::now();
        let jobs = store.jobs(large, None, Some(job(at)), 50).await.unwrap();
        times[0].push(timed(began));
        let began = Instant::now();
        let state = if n % 2 == 0 { JobState::Succeeded } else { JobState::Queued };
        store.jobs(large, Some(state), Some(job(at)), 50).await.unwrap();
        times[1].push(timed(began));
        let began = Instant::now();
        let events = store.events(large, None, at, 256).await.unwrap();
        times[2].push(timed(began));
        let began = Instant::now();
        let of_job = store.events(large, Some(job(at)), 0, 256).await.unwrap();
        times[3].push(timed(began));
        let began = Instant::now();
        store.last_event(large).await.unwrap();
        times[4].push(timed(began));
        assert!(
            !events.is_empty() && of_job.len() as u64 == EACH,
            "{} {} {}",
            jobs.len(),
            events.len(),
            of_job.len()
        );
    }
    let names =
        ["jobs, 50", "jobs in one state, 50", "events, 256", "events of one job", "number of the last event"];
    for (name, times) in names.iter().zip(times) {
        measured(&format!("p99 at {rows} events: {name}"), times);
    }
    store.close().await;
    metrics
}

/// Jobs and events as the broker writes them, but for the hashes, which nothing here reads.
async fn fill(url: &str, rows: u64) {
    let mut conn = sqlx::PgConnection::connect(url).await.unwrap();
    let jobs = rows / EACH;
    let tenant = |n: &str| format!("'tnt_' || lpad(to_hex({n}), 32, '0')");
    // Every tenth job is the large tenant's, and has the ids that run() asks for.
    let whose = format!("CASE WHEN j % 10 = 0 THEN 1 ELSE 2 + j % {TENANTS} END");
    let id = "'job_' || lpad(to_hex(j / 10 * 100 + 1 + j % 10), 32, '0')";
    let statements = [
        format!("INSERT INTO tenants (id, name, created_at) SELECT {}, 'bench ' || n, 0 FROM generate_series(1, {}) n", tenant("n"), TENANTS + 1),
        format!(
            "INSERT INTO jobs (id, tenant, upload, input_size, spec, pool, state, stage, created_at)
            SELECT {id}, {}, 'upl_' || lpad('1', 32, '0'), 1,
                '{{\"version\":1,\"input\":{{\"upload\":\"upl_' || lpad('1', 32, '0') || '\"}},\"preset\":\"web\"}}', 'default',
                CASE WHEN j % 100 < 99 THEN 'succeeded' ELSE 'queued' END, '{{\"done\":4,\"frames\":100}}', j
            FROM generate_series(0, {}) j",
            tenant(&whose),
            jobs - 1
        ),
        "CREATE TEMPORARY TABLE made AS SELECT tenant, id, row_number() OVER (PARTITION BY tenant ORDER BY id) n FROM jobs".into(),
        format!(
            "INSERT INTO events (tenant, seq, chained_at, digest, hash, salt, job, kind, state, stage, at)
            SELECT m.tenant, (m.n - 1) * {EACH} + e, (extract(epoch FROM now()) * 1000)::bigint, sha256(m.id::bytea), sha256(m.id::bytea),
                '\\x000102030405060708090a0b0c0d0e0f', m.id,
                CASE WHEN e = 1 THEN 'created' WHEN e = {EACH} THEN 'finished' WHEN e % 2 = 0 THEN 'task_started' ELSE 'task_succeeded' END,
                'running', '{{\"done\":1,\"frames\":0}}', e
            FROM made m, generate_series(1, {EACH}) e"
        ),
        "INSERT INTO chains (tenant, seq, hash) SELECT tenant, max(seq), '\\x00' FROM events GROUP BY tenant".into(),
        "VACUUM ANALYZE".into(),
    ];
    for statement in statements {
        conn.execute(sqlx::AssertSqlSafe(statement)).await.unwrap();
    }
}
