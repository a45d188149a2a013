//! The dispatch queue against BullMQ, Graphile Worker and River: leases with their completions per second, each durable before it
//! is answered; and what long queues, busy neighbours and old events do to those who wait.
//!
//! One PostgreSQL for all of a run, started here with what it comes with: `fsync`, `synchronous_commit` and `full_page_writes` on,
//! so that every side's commits are on disk before they are answered. Redis is for us only an index that is made again from
//! PostgreSQL, and writes nothing to disk; for BullMQ it is all there is, so it is measured with its log flushed at every command
//! (`appendfsync always`, which is what the others do) and once a second (`everysec`, which may lose a second of answered moves).
//! Each side has one process and as many jobs at a time, and jobs do nothing.
//!
//! `bench-queue [CYCLES]`, 5,000 unless it is said; `PARTS=cycles,latency,fair,events` for some of it. Runs alternate, and the medians
//! are compared.

#[path = "../../../broker/tests/support/postgres.rs"]
mod postgres;
#[path = "../../../broker/tests/support/redis.rs"]
mod redis_server;

mod cycles;
mod events;
mod fair;
mod ours;

use ours::Ours;
use serde_json::{Value, json};
use std::process::Command;

/// Jobs at a time, on every side.
const WORKERS: [usize; 2] = [32, 256];

fn main() {
    let cycles: usize = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(5_000);
    let runs: usize = std::env::var("RUNS").ok().and_then(|r| r.parse().ok()).unwrap_or(3);
    let parts = std::env::var("PARTS").unwrap_or_else(|_| "cycles,latency,fair,events".into());
    let wanted = |part: &str| parts.split(',').any(|p| p == part);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut metrics: Vec<Value> = Vec::new();
    if ["cycles", "latency", "fair"].iter().any(|part| wanted(part)) {
        let site = Site { server: postgres::Server::start(&[]) };
        if wanted("cycles") {
            metrics.extend(cycles::run(&site, &runtime, cycles, runs));
        }
        if wanted("latency") {
            let few = median((0..runs).map(|_| runtime.block_on(site.lease_p99(100))).collect());
            let many = median((0..runs).map(|_| runtime.block_on(site.lease_p99(100_000))).collect());
            metrics.push(metric(
                "p99 of a lease with 100,000 queued, against 100",
                "<= 1.0x",
                "ms",
                many,
                few,
            ));
        }
        if wanted("fair") {
            metrics.extend(runtime.block_on(fair::run(&site, runs)));
        }
    }
    if wanted("events") {
        metrics.extend(runtime.block_on(events::run()));
    }
    println!("\n{:<66} {:>10} {:>10} {:>8}  goal", "queue", "ours", "peer", "ratio");
    for m in &metrics {
        let number = |value: &Value| value.as_f64().map_or_else(|| "-".into(), |n| format!("{n:.2}"));
        let text = |name: &str| m[name].as_str().unwrap_or_default().to_owned();
        let (ours, peer, ratio) = (number(&m["ours"]), number(&m["peer"]), number(&m["ratio"]));
        println!("{:<66} {ours:>10} {peer:>10} {ratio:>8}  {}", text("what"), text("goal"));
    }
    let row = json!({ "name": "queue", "cycles": cycles, "runs": runs, "metrics": metrics });
    let file = mpegflow_tests::target_folder().join("bench-queue.json");
    std::fs::write(&file, serde_json::to_vec_pretty(&row).unwrap()).unwrap();
    println!("as JSON: {}", file.display());
}

/// A line of the table: what was measured, and against what.
pub(crate) fn metric(what: &str, goal: &str, unit: &str, ours: f64, peer: f64) -> Value {
    json!({ "what": what, "goal": goal, "unit": unit, "ours": ours, "peer": peer, "ratio": ours / peer })
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The value that so many of a hundred are not above.
pub(crate) fn percentile(mut values: Vec<f64>, percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() * percent / 100).min(values.len() - 1)]
}

pub(crate) struct Site {
    server: postgres::Server,
}

impl Site {
    /// URL of a fresh database.
    pub(crate) fn database(&self) -> String {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let name = format!("bench_{}", NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        let url = |name: &str| {
            format!(
                "postgres://mpegflow:{}@127.0.0.1:{}/{name}?sslmode=disable",
                postgres::PASSWORD,
                self.server.port()
            )
        };
        let made = Command::new("psql")
            .arg(url("postgres"))
            .args(["-qc", &format!("CREATE DATABASE {name}")])
            .status();
        assert!(made.unwrap().success());
        url(&name)
    }

    async fn lease_p99(&self, queued: usize) -> f64 {
        let redis = redis_server::Server::start(&[]);
        let ours = Ours::new(&self.database(), redis.config(), WORKERS[0], queued, ours::TOGETHER).await;
        let times = ours.lease_times(2_000, queued).await;
        ours.close().await;
        percentile(times, 99)
    }
}
