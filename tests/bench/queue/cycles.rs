//! Leases with their completions per second.

use super::{Ours, Site, WORKERS, median, metric, ours, redis_server};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tokio::runtime::Runtime;

/// Who is measured, and how.
const SIDES: [&str; 8] = [
    "mpegflow",
    "mpegflow, each move alone",
    "mpegflow, chain and relay caught up",
    "BullMQ, appendfsync always",
    "BullMQ, appendfsync everysec",
    "Graphile Worker",
    "Graphile Worker, batched",
    "River (batches)",
];

pub(crate) fn run(site: &Site, runtime: &Runtime, cycles: usize, runs: usize) -> Vec<Value> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/queue");
    let river = build_river(&here);
    let mut metrics = Vec::new();
    for workers in WORKERS {
        let mut rates: Vec<Vec<f64>> = SIDES.iter().map(|_| Vec::new()).collect();
        for _ in 0..runs {
            let together = runtime.block_on(site.ours(cycles, workers, ours::TOGETHER));
            let alone = runtime.block_on(site.ours(cycles, workers, 1));
            let seconds = [
                together.moves,
                alone.moves,
                together.all,
                site.bullmq(&here, cycles, workers, "always"),
                site.bullmq(&here, cycles, workers, "everysec"),
                site.graphile(&here, cycles, workers, "single"),
                site.graphile(&here, cycles, workers, "batched"),
                site.river(&river, cycles, workers),
            ];
            for ((name, rates), seconds) in SIDES.iter().zip(&mut rates).zip(seconds) {
                rates.push(cycles as f64 / seconds);
                println!("{workers} at a time, {name}: {:.0}/s", cycles as f64 / seconds);
            }
        }
        let medians: Vec<f64> = rates.iter().map(|rates| median(rates.clone())).collect();
        let row = |ours: usize, peer: usize, goal: &str| {
            let what = format!("cycles/s, {workers} at a time: {} / {}", SIDES[ours], SIDES[peer]);
            let mut row = metric(&what, goal, "per second", medians[ours], medians[peer]);
            row["all_ours"] = json!(rates[ours]);
            row["all_peer"] = json!(rates[peer]);
            row
        };
        metrics.extend([row(0, 3, "> 1.0x"), row(0, 4, "-"), row(0, 6, "> 1.0x"), row(0, 7, "> 1.0x")]);
        metrics.extend([row(1, 3, "> 1.0x"), row(1, 5, "> 1.0x"), row(2, 7, "-")]);
    }
    metrics
}

impl Site {
    async fn ours(&self, cycles: usize, workers: usize, together: usize) -> ours::Seconds {
        let redis = redis_server::Server::start(&[]);
        let ours = Ours::new(&self.database(), redis.config(), workers, cycles, together).await;
        let seconds = ours.cycles(cycles).await;
        ours.close().await;
        seconds
    }

    fn bullmq(&self, here: &Path, cycles: usize, workers: usize, fsync: &str) -> f64 {
        let redis = redis_server::Server::start(&["--appendonly", "yes", "--appendfsync", fsync]);
        let args = [redis.port.to_string(), cycles.to_string(), workers.to_string()];
        seconds(Command::new("node").arg("bullmq.mjs").args(args).current_dir(here.join("peers")))
    }

    fn graphile(&self, here: &Path, cycles: usize, workers: usize, mode: &str) -> f64 {
        let args = [self.database(), cycles.to_string(), workers.to_string(), mode.into()];
        seconds(Command::new("node").arg("graphile.mjs").args(args).current_dir(here.join("peers")))
    }

    fn river(&self, program: &Path, cycles: usize, workers: usize) -> f64 {
        seconds(Command::new(program).args([self.database(), cycles.to_string(), workers.to_string()]))
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
    assert!(built.unwrap().success(), "River did not build: it needs Go 1.23 or later");
    program
}
