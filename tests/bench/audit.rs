//! `audit`: what passes between all pairs of pods, from manifests on disk, by ours and by two engines in Go.
//!
//! The clusters are `policies/generator`'s large ones. Ours is the whole command as a user runs it: it starts, reads the folder,
//! and answers for all traffic of all pairs. What of that is reading and what evaluating is measured once more inside this
//! process. With [`peers`] it is the same: each is a process that reads the same folder, and says what of its time was reading.
//!
//! Rows that show what the cost depends on: as many pods with more and more different sets of labels, and more and more pods with
//! as many sets.

mod clusters;
mod peers;

use super::measure::{Cost, median};
use clusters::Manifests;
use mpegflow_lockdown::supervise::Supervised;
use mpegflow_policies::cluster::Cluster as World;
use mpegflow_policies::evaluate::{Evaluation, Options};
use mpegflow_policies_generator::large::{Cluster, LABEL_SETS};
use mpegflow_tests::program;
use serde_json::{Value, json};
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The size of the goal: pods and policies.
const FULL: (usize, usize) = (10_000, 1_000);
/// Who reaches whom, of all pairs.
const PAIRS: &[&str] = &["audit", "pairs"];
/// The audit itself: what is wrong with these policies, and what is reached that should not be.
const FINDINGS: &[&str] = &["audit", "--assume-complete"];
const PROFILES: [&str; 3] = ["calico", "cilium", "generic"];

pub(super) fn run(runs: usize) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let mut metrics = Vec::new();
    for (name, all_distinct) in [("1,250 label sets", false), ("10,000 label sets", true)] {
        let shape = clusters::shape(FULL, all_distinct);
        let made = Cluster::generate(shape);
        let yaml = Manifests::yaml(&made, &folder.path().join(format!("full-{all_distinct}")));
        for profile in PROFILES {
            let title = format!("10,000 x 1,000, {name}, {profile}");
            metrics.extend(whole(&title, &yaml, PAIRS, profile, runs));
            metrics.extend(whole(&format!("{title}, findings"), &yaml, FINDINGS, profile, runs));
            metrics.extend(parts(&title, &yaml, profile, runs));
        }
        let json = Manifests::json(&made, &folder.path().join(format!("full-json-{all_distinct}")));
        metrics.extend(whole(&format!("10,000 x 1,000, {name}, calico, JSON"), &json, PAIRS, "calico", runs));
    }
    for sets in [LABEL_SETS, 2 * LABEL_SETS, 4 * LABEL_SETS, 8 * LABEL_SETS] {
        metrics.push(series(FULL, sets, runs));
    }
    for times in [2, 4] {
        metrics.push(series((times * FULL.0, FULL.1), LABEL_SETS, runs));
    }
    metrics.extend(peers::run(folder.path(), runs));
    json!({ "name": "audit", "runs": runs, "clusters": "policies/generator, seed 1", "metrics": metrics })
}

/// One run of the whole command; what it says of pairs.
fn ours(folder: &Path, profile: &str) -> (Cost, Value) {
    let (cost, answer) = command(PAIRS, folder, profile);
    assert!(answer["pairs"].as_u64().unwrap() > 0, "{answer}");
    (cost, answer)
}

/// One run of a command over a folder, and its answer.
fn command(words: &[&str], folder: &Path, profile: &str) -> (Cost, Value) {
    let mut command = Command::new(program("mpegflow"));
    let (cost, out) = output(command.args(words).args(["--cni", profile, "--format", "json"]).arg(folder));
    (cost, serde_json::from_slice(&out).unwrap())
}

/// Runs a command, and returns what it cost and what it wrote to standard output.
fn output(command: &mut Command) -> (Cost, Vec<u8>) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let out = File::options().write(true).open(file.path()).unwrap();
    let started = Instant::now();
    let child = command.stdin(Stdio::null()).stdout(out).stderr(Stdio::inherit()).spawn().unwrap();
    let (pid, ended) = (child.id(), AtomicBool::new(false));
    let (exit, wall, memory) = std::thread::scope(|scope| {
        let watching = scope.spawn(|| most_resident(pid, &ended));
        let exit = Supervised::adopt(child).wait().unwrap();
        let wall = started.elapsed();
        ended.store(true, Ordering::Relaxed);
        (exit, wall, watching.join().unwrap())
    });
    assert!(exit.status.success(), "{command:?}: {:?}", exit.status);
    (Cost { wall, cpu: exit.cpu, memory }, std::fs::read(file.path()).unwrap())
}

/// The most memory that a process had, in bytes, as it was seen last. What the kernel says when it has ended (`ru_maxrss`) counts
/// what was this process's when it was forked.
fn most_resident(pid: u32, ended: &AtomicBool) -> u64 {
    let mut most = 0;
    while !ended.load(Ordering::Relaxed) {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        // The last word counts: before its own program is loaded, a child has its parent's memory.
        most = kib.map_or(most, |kib| kib << 10);
        std::thread::sleep(Duration::from_millis(2));
    }
    most
}

/// The whole command, some times.
fn whole(title: &str, manifests: &Manifests, words: &[&str], profile: &str, runs: usize) -> Vec<Value> {
    let costs: Vec<Cost> = (0..runs).map(|_| command(words, &manifests.folder, profile).0).collect();
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

/// Reading and evaluating apart, without a process and without files.
fn parts(title: &str, manifests: &Manifests, profile: &str, runs: usize) -> Vec<Value> {
    let reading: Vec<f64> = (0..runs).map(|_| manifests.read().1.as_secs_f64()).collect();
    let what = format!("wall s, {title}, reading");
    let read = json!({ "what": what, "goal": "", "unit": "seconds", "ours": median(reading.clone()),
                       "all_ours": reading, "bytes": manifests.bytes() });
    vec![read, evaluating(&format!("wall s, {title}, evaluating"), &manifests.read().0, profile, runs)]
}

/// Evaluating alone, with how much was computed.
fn evaluating(what: &str, cluster: &World, profile: &str, runs: usize) -> Value {
    let mut all = Vec::new();
    let mut seen = None;
    for _ in 0..runs {
        let (took, tally, work) = evaluate(cluster, profile);
        all.push(took.as_secs_f64());
        seen = Some((tally, work));
    }
    let (tally, work) = seen.unwrap();
    json!({ "what": what, "goal": "", "unit": "seconds", "ours": median(all.clone()), "all_ours": all,
            "pairs": tally.pairs, "connected": tally.connected, "separated": tally.separated, "unknown": tally.unknown,
            "classes": work.classes, "rows": work.rows, "steps": work.steps, "cells": work.cells })
}

fn evaluate(
    cluster: &World,
    profile: &str,
) -> (Duration, mpegflow_policies::evaluate::Tally, mpegflow_policies::evaluate::Work) {
    let started = Instant::now();
    let evaluation = Evaluation::new(cluster, profile.parse().unwrap(), Options::default()).unwrap();
    let (tally, work) = evaluation.matrix().tally_and_work();
    (started.elapsed(), tally, work)
}

/// Evaluating alone, for as many pods with as many different sets of labels, which the policies tell apart.
fn series((pods, policies): (usize, usize), sets: usize, runs: usize) -> Value {
    let made = Cluster::with_label_sets(clusters::shape((pods, policies), true), sets);
    let what = format!("wall s, {pods} x {policies}, {sets} label sets told apart, evaluating");
    evaluating(&what, &clusters::in_memory(&made), "calico", runs)
}
