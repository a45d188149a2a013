//! The dispatch queue against BullMQ, Graphile Worker and River: leases with their completions per second, each durable before it
//! is answered. One PostgreSQL and one Redis for all of a run, started here, with the settings that each comes with: PostgreSQL
//! commits to disk; Redis, which for us is only an index and for BullMQ is all there is, writes its log to disk at every command
//! in BullMQ's turn (`appendfsync always`).
//!
//! `bench-queue [CYCLES]`, 2,000 unless it is said. Runs alternate, and the medians are compared.

#[path = "../../../broker/tests/support/postgres.rs"]
mod postgres;
#[path = "../../../broker/tests/support/redis.rs"]
mod redis_server;

mod ours;

use ours::Ours;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Jobs at a time, on every side.
const WORKERS: usize = 32;

fn main() {
    let cycles: usize = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(2_000);
    let runs: usize = std::env::var("RUNS").ok().and_then(|r| r.parse().ok()).unwrap_or(3);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let site = Site { server: postgres::Server::start(&[]) };
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/queue");
    let river = build_river(&here);
    let mut rates: Vec<(&str, Vec<f64>)> =
        ["mpegflow", "bullmq", "graphile-worker", "graphile-worker, batched", "river (batches)"]
            .map(|name| (name, Vec::new()))
            .into();
    for _ in 0..runs {
        let seconds = [
            runtime.block_on(site.ours(cycles)),
            site.bullmq(&here, cycles),
            site.graphile(&here, cycles, "single"),
            site.graphile(&here, cycles, "batched"),
            site.river(&river, cycles),
        ];
        for ((name, rates), seconds) in rates.iter_mut().zip(seconds) {
            rates.push(cycles as f64 / seconds);
            println!("{name}: {:.0}/s", cycles as f64 / seconds);
        }
    }
    let median = |values: &[f64]| {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let (few, many) = runtime.block_on(async { (site.lease_p99(100).await, site.lease_p99(100_000).await) });
    println!("\n{:<28} {:>10} {:>8}", "lease and complete", "cycles/s", "ratio");
    let ours = median(&rates[0].1);
    let mut metrics: Vec<Value> = Vec::new();
    for (name, rates) in &rates {
        let rate = median(rates);
        println!("{name:<28} {rate:>10.0} {:>8.2}", ours / rate);
        metrics.push(
            json!({ "what": "cycles/s", "who": name, "median": rate, "all": rates, "ratio": ours / rate }),
        );
    }
    println!("p99 of a lease: {few:.2} ms with 100 tasks queued, {many:.2} ms with 100,000");
    metrics.push(json!({ "what": "p99 lease ms", "queued_100": few, "queued_100000": many }));
    let row =
        json!({ "name": "queue", "cycles": cycles, "workers": WORKERS, "runs": runs, "metrics": metrics });
    let file = mpegflow_tests::target_folder().join("bench-queue.json");
    std::fs::write(&file, serde_json::to_vec_pretty(&row).unwrap()).unwrap();
    println!("as JSON: {}", file.display());
}

struct Site {
    server: postgres::Server,
}

impl Site {
    /// URL of a fresh database.
    fn database(&self) -> String {
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

    async fn ours(&self, cycles: usize) -> f64 {
        let redis = redis_server::Server::start(&[]);
        let ours = Ours::new(&self.database(), redis.config(), WORKERS, cycles).await;
        let seconds = ours.cycles(cycles).await;
        ours.close().await;
        seconds
    }

    async fn lease_p99(&self, queued: usize) -> f64 {
        let redis = redis_server::Server::start(&[]);
        let samples = 2_000.min(queued);
        let ours = Ours::new(&self.database(), redis.config(), WORKERS, queued.max(samples)).await;
        let mut times = ours.lease_times(samples).await;
        ours.close().await;
        times.sort_by(f64::total_cmp);
        times[times.len() * 99 / 100]
    }

    fn bullmq(&self, here: &Path, cycles: usize) -> f64 {
        let redis = redis_server::Server::start(&["--appendonly", "yes", "--appendfsync", "always"]);
        let args = [redis.port.to_string(), cycles.to_string()];
        seconds(Command::new("node").arg("bullmq.mjs").args(args).current_dir(here.join("peers")))
    }

    fn graphile(&self, here: &Path, cycles: usize, mode: &str) -> f64 {
        let args = [self.database(), cycles.to_string(), mode.into()];
        seconds(Command::new("node").arg("graphile.mjs").args(args).current_dir(here.join("peers")))
    }

    fn river(&self, program: &Path, cycles: usize) -> f64 {
        seconds(Command::new(program).args([self.database(), cycles.to_string()]))
    }
}

fn seconds(command: &mut Command) -> f64 {
    let out = command.stderr(Stdio::inherit()).output().unwrap();
    assert!(out.status.success(), "{command:?}");
    let said: Value = serde_json::from_slice(&out.stdout).unwrap();
    said["seconds"].as_f64().unwrap()
}

fn build_river(here: &Path) -> PathBuf {
    let program = mpegflow_tests::target_folder().join("bench-river");
    let built = Command::new("go")
        .args(["build", "-o"])
        .arg(&program)
        .arg(".")
        .current_dir(here.join("river"))
        .status();
    assert!(built.unwrap().success());
    program
}
