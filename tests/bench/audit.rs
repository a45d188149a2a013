//! `audit`: what passes between all pairs of pods, from manifests on disk, by ours and by two engines in Go.
//!
//! The clusters are `policies/generator`'s large ones. Ours is the whole command as a user runs it, and once more without
//! process and files, to show what evaluating alone costs. A peer reads the same folder and runs where it can finish: each
//! up to a size of its own, since it takes minutes beyond. cyclonus is asked for one port, which is the least that can be asked;
//! ours and netpol-analyzer answer for all. Where cyclonus finishes, its count of allowed pairs must be ours.

use super::measure::{Cost, median};
use mpegflow_lockdown::supervise::Supervised;
use mpegflow_policies::evaluate::{Evaluation, Options};
use mpegflow_policies::read::{self, Input, Limits, ReadOptions};
use mpegflow_policies::sets::Protocol;
use mpegflow_policies_generator::large::{Cluster, Shape};
use mpegflow_policies_generator::yaml::{Document, stream};
use mpegflow_tests::program;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The size of the goal: pods and policies.
const FULL: (usize, usize) = (10_000, 1_000);
/// Sizes for the peers, pods and policies; each peer goes as far as it finishes.
const SIZES: [(usize, usize); 4] = [(250, 25), (500, 50), (1_000, 100), (2_000, 200)];
/// How long a peer may take for one size.
const LIMIT: Duration = Duration::from_secs(120);
/// A peer that takes longer than this is run once.
const LONG: Duration = Duration::from_secs(10);
const PROFILES: [&str; 3] = ["calico", "cilium", "generic"];

pub(super) fn run(runs: usize) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let mut metrics = Vec::new();
    for (name, all_distinct) in [("1,250 label sets", false), ("10,000 label sets", true)] {
        let cluster = Cluster::generate(shape(FULL, all_distinct));
        let yaml = folder.path().join(format!("full-{all_distinct}"));
        write_yaml(&cluster, &yaml);
        for profile in PROFILES {
            let title = format!("10,000 x 1,000, {name}, {profile}");
            metrics.extend(alone(&title, &(0..runs).map(|_| ours(&yaml, profile)).collect::<Vec<_>>()));
            metrics.push(evaluation(&title, &yaml, profile, runs));
        }
        let json = folder.path().join(format!("full-json-{all_distinct}"));
        write_json(&cluster, &json);
        let costs: Vec<Cost> = (0..runs).map(|_| ours(&json, "calico")).collect();
        metrics.extend(alone(&format!("10,000 x 1,000, {name}, calico, JSON"), &costs));
    }
    let peers = peers();
    let mut finishes: Vec<bool> = peers.iter().map(|_| true).collect();
    for size in SIZES {
        let cluster = folder.path().join(format!("{}", size.0));
        write_yaml(&Cluster::generate(shape(size, false)), &cluster);
        for ((name, engine), finishes) in peers.iter().zip(&mut finishes).filter(|(_, finishes)| **finishes) {
            match against(name, engine, &cluster, size, runs) {
                Some(found) => metrics.extend(found),
                None => *finishes = false,
            }
        }
    }
    json!({ "name": "audit", "runs": runs, "clusters": "policies/generator, seed 1", "metrics": metrics })
}

fn shape((pods, policies): (usize, usize), all_distinct: bool) -> Shape {
    Shape { pods, policies, seed: 1, all_distinct }
}

/// As `generate-cluster large` writes them.
fn write_yaml(cluster: &Cluster, folder: &Path) {
    std::fs::create_dir(folder).unwrap();
    std::fs::write(folder.join("namespaces.yaml"), stream(&cluster.namespaces)).unwrap();
    std::fs::write(folder.join("policies.yaml"), stream(&cluster.policies)).unwrap();
    for (at, pods) in cluster.pods.chunks(1_000).enumerate() {
        std::fs::write(folder.join(format!("pods-{at:03}.yaml")), stream(pods)).unwrap();
    }
}

/// As `kubectl get -A -o json` prints them: one list of each kind.
fn write_json(cluster: &Cluster, folder: &Path) {
    std::fs::create_dir(folder).unwrap();
    let list = |documents: &[Document]| {
        let items: Vec<&Value> = documents.iter().map(|document| &document.0).collect();
        serde_json::to_vec_pretty(&json!({ "apiVersion": "v1", "kind": "List", "items": items })).unwrap()
    };
    std::fs::write(folder.join("namespaces.json"), list(&cluster.namespaces)).unwrap();
    std::fs::write(folder.join("policies.json"), list(&cluster.policies)).unwrap();
    std::fs::write(folder.join("pods.json"), list(&cluster.pods)).unwrap();
}

/// One run of the whole command.
fn ours(folder: &Path, profile: &str) -> Cost {
    let (cost, out) = output(
        Command::new(program("mpegflow"))
            .args(["audit", "pairs", "--cni", profile, "--format", "json"])
            .arg(folder),
    );
    let answer: Value = serde_json::from_slice(&out).unwrap();
    assert!(answer["pairs"].as_u64().unwrap() > 0, "{answer}");
    cost
}

/// Runs a command, and returns what it cost and what it wrote to standard output.
fn output(command: &mut Command) -> (Cost, Vec<u8>) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let out = File::options().write(true).open(file.path()).unwrap();
    let started = Instant::now();
    let child = command.stdin(Stdio::null()).stdout(out).stderr(Stdio::inherit()).spawn().unwrap();
    let exit = Supervised::adopt(child).wait().unwrap();
    let wall = started.elapsed();
    assert!(exit.status.success(), "{command:?}: {:?}", exit.status);
    (Cost { wall, cpu: exit.cpu, memory: exit.peak_memory }, std::fs::read(file.path()).unwrap())
}

/// Rows of ours without a peer.
fn alone(title: &str, costs: &[Cost]) -> Vec<Value> {
    let metric = |what: String, goal: &str, unit: &str, of: fn(&Cost) -> f64| {
        let all: Vec<f64> = costs.iter().map(of).collect();
        json!({ "what": what, "goal": goal, "unit": unit, "ours": median(all.clone()), "all_ours": all })
    };
    vec![
        metric(format!("wall s, {title}"), "< 1", "seconds", |c| c.wall.as_secs_f64()),
        metric(format!("CPU s, {title}"), "", "seconds", |c| c.cpu.as_secs_f64()),
        metric(format!("MiB, {title}"), "< 512", "mebibytes", mebibytes),
    ]
}

fn mebibytes(cost: &Cost) -> f64 {
    cost.memory as f64 / f64::from(1 << 20)
}

fn cluster(folder: &Path) -> mpegflow_policies::cluster::Cluster {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut input = Input::new(Limits::default());
    for file in files {
        input.add(&file.to_string_lossy(), std::fs::read(&file).unwrap()).unwrap();
    }
    read::cluster(&input, &ReadOptions::default()).unwrap().cluster
}

/// What evaluating alone takes, without reading.
fn evaluation(title: &str, folder: &Path, profile: &str, runs: usize) -> Value {
    let (cluster, profile) = (cluster(folder), profile.parse().unwrap());
    let mut all = Vec::new();
    let mut seen = None;
    for _ in 0..runs {
        let started = Instant::now();
        let evaluation = Evaluation::new(&cluster, profile, Options::default()).unwrap();
        let (tally, work) = evaluation.matrix().tally_and_work();
        all.push(started.elapsed().as_secs_f64());
        seen = Some((tally, work));
    }
    let (tally, work) = seen.unwrap();
    json!({ "what": format!("wall s, {title}, evaluating"), "goal": "", "unit": "seconds", "ours": median(all.clone()),
            "all_ours": all, "pairs": tally.pairs, "connected": tally.connected, "separated": tally.separated,
            "unknown": tally.unknown, "classes": work.classes, "rows": work.rows, "steps": work.steps,
            "cells": work.cells })
}

/// The peers' programs, built once (`policies/oracles/build`).
fn peers() -> BTreeMap<String, PathBuf> {
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/oracles/build");
    let names = ["cyclonus", "netpol-analyzer"];
    let out = Command::new(build).args(names).stderr(Stdio::inherit()).output().unwrap();
    assert!(out.status.success(), "the peers could not be built");
    let text = String::from_utf8(out.stdout).unwrap();
    let lines = text.lines().filter_map(|line| line.split_once('\t'));
    lines.map(|(name, program)| (name.to_owned(), program.into())).collect()
}

/// One size of one peer; `None` where it does not finish.
fn against(
    name: &str,
    engine: &Path,
    folder: &Path,
    size: (usize, usize),
    runs: usize,
) -> Option<Vec<Value>> {
    let (mut all_ours, mut all_peer) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let limit = format!("{}s", LIMIT.as_secs());
        let (cost, out) =
            output(Command::new(engine).args(["bench", "--limit", &limit, "--dir"]).arg(folder));
        let answer: Value = serde_json::from_slice(&out).unwrap();
        println!("audit: {name} at {} pods: {answer}", size.0);
        if answer["finished"] != json!(true) {
            return None;
        }
        if let Some(allowed) = answer["allowed"].as_u64() {
            assert_eq!(allowed, web_pairs(folder), "{name} and ours disagree on TCP 80 at {} pods", size.0);
        }
        all_ours.push(ours(folder, "calico"));
        all_peer.push(cost);
        if cost.wall > LONG {
            break;
        }
    }
    let title = format!("{} x {}, {name}", size.0, size.1);
    let metric = |what: &str, goal: &str, unit: &str, of: fn(&Cost) -> f64| {
        let [ours, peer] = [&all_ours, &all_peer].map(|costs| costs.iter().map(of).collect::<Vec<f64>>());
        let [our, their] = [ours.clone(), peer.clone()].map(median);
        json!({ "what": format!("{what}, {title}"), "goal": goal, "unit": unit, "ours": our, "peer": their,
                "ratio": our / their, "all_ours": ours, "all_peer": peer })
    };
    Some(vec![
        metric("wall s", "<= 0.02", "seconds", |c| c.wall.as_secs_f64()),
        metric("CPU s", "", "seconds", |c| c.cpu.as_secs_f64()),
        metric("MiB", "", "mebibytes", mebibytes),
    ])
}

/// Ordered pairs of different pods between which TCP to port 80 passes.
fn web_pairs(folder: &Path) -> u64 {
    let cluster = cluster(folder);
    let evaluation = Evaluation::new(&cluster, "calico".parse().unwrap(), Options::default()).unwrap();
    let pods: Vec<_> = (0..cluster.pods.len()).map(|pod| evaluation.pod(pod).unwrap()).collect();
    let mut members: BTreeMap<_, u64> = BTreeMap::new();
    for pod in &pods {
        *members.entry(evaluation.class(*pod)).or_default() += 1;
    }
    let mut sum = 0;
    evaluation.matrix().for_each(|from, to, verdict| {
        if verdict.allowed.contains(Protocol::Tcp, 80) {
            let (from, to) = (evaluation.class(from), evaluation.class(to));
            sum += members[&from] * (members[&to] - u64::from(from == to));
        }
    });
    sum
}
