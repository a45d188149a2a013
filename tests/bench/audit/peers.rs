//! Ours beside two engines in Go, each on the same folder, up to the size that it can finish.
//!
//! All are processes that start, read the folder and answer; rows named *evaluating* leave starting and reading out, for all of
//! them. cyclonus is asked for one port, which is the least that it can be asked, on as many threads as there are cores; ours and
//! netpol-analyzer answer for all ports. What both sides can say is compared: with cyclonus the pairs between which TCP to port 80
//! passes, with netpol-analyzer those between which anything does.

use super::clusters::{self, Manifests};
use super::{evaluate, mebibytes, ours, output};
use crate::measure::{Cost, median};
use mpegflow_policies::cluster::Cluster as World;
use mpegflow_policies::evaluate::{Evaluation, Options};
use mpegflow_policies::sets::Protocol;
use mpegflow_policies_generator::large::Cluster;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Sizes, pods and policies; each peer goes as far as it finishes.
const SIZES: [(usize, usize); 5] = [(250, 25), (500, 50), (1_000, 100), (2_000, 200), (3_000, 300)];
/// How long a peer may take for one size.
const LIMIT: Duration = Duration::from_secs(120);
/// A peer that takes longer than this is run once.
const LONG: Duration = Duration::from_secs(10);

/// All sizes of all peers.
pub(super) fn run(folder: &Path, runs: usize) -> Vec<Value> {
    let peers = peers();
    let mut finishes: Vec<bool> = peers.iter().map(|_| true).collect();
    let mut metrics = Vec::new();
    for size in SIZES {
        let made = Cluster::generate(clusters::shape(size, false));
        let manifests = Manifests::yaml(&made, &folder.join(format!("{}", size.0)));
        for ((name, engine), finishes) in peers.iter().zip(&mut finishes).filter(|(_, finishes)| **finishes) {
            match against(name, engine, &manifests, size, runs) {
                Some(found) => metrics.extend(found),
                None => *finishes = false,
            }
        }
    }
    metrics
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

/// A peer's run: what it cost, and its own account.
fn theirs(name: &str, engine: &Path, folder: &Path) -> (Cost, Value) {
    let mut command = Command::new(engine);
    command.args(["bench", "--limit", &format!("{}s", LIMIT.as_secs()), "--dir"]).arg(folder);
    if name == "cyclonus" {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        command.args(["--workers", &cores.to_string()]);
    }
    let (cost, out) = output(&mut command);
    (cost, serde_json::from_slice(&out).unwrap())
}

/// One size of one peer; `None` where it does not finish.
fn against(
    name: &str,
    engine: &Path,
    manifests: &Manifests,
    size: (usize, usize),
    runs: usize,
) -> Option<Vec<Value>> {
    let folder = &manifests.folder;
    let cluster = manifests.read().0;
    let (mut all_ours, mut all_peer) = (Vec::new(), Vec::new());
    let (mut our_evaluating, mut their_evaluating) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let (cost, answer) = theirs(name, engine, folder);
        println!("audit: {name} at {} pods: {answer}", size.0);
        if answer["finished"] != json!(true) {
            return None;
        }
        let (own, said) = ours(folder, "calico");
        agree(name, &answer, &said, &cluster);
        all_ours.push(own);
        all_peer.push(cost);
        our_evaluating.push(evaluate(&cluster, "calico").0.as_secs_f64());
        let seconds = |key: &str| answer[key].as_f64().unwrap_or_default();
        their_evaluating.push(seconds("build_s") + seconds("evaluate_s"));
        if cost.wall > LONG {
            break;
        }
    }
    let title = format!("{} x {}, {name}", size.0, size.1);
    let metric = |what: String, goal: &str, unit: &str, ours: Vec<f64>, peer: Vec<f64>| {
        let [our, their] = [ours.clone(), peer.clone()].map(median);
        json!({ "what": what, "goal": goal, "unit": unit, "ours": our, "peer": their, "ratio": our / their,
                "times": their / our, "all_ours": ours, "all_peer": peer })
    };
    let of =
        |of: fn(&Cost) -> f64| [&all_ours, &all_peer].map(|costs| costs.iter().map(of).collect::<Vec<f64>>());
    let ([wall, their_wall], [cpu, their_cpu], [memory, their_memory]) =
        (of(|c| c.wall.as_secs_f64()), of(|c| c.cpu.as_secs_f64()), of(mebibytes));
    Some(vec![
        metric(format!("wall s, {title}"), "<= 0.02", "seconds", wall, their_wall),
        metric(format!("CPU s, {title}"), "", "seconds", cpu, their_cpu),
        metric(
            format!("wall s, {title}, evaluating"),
            "<= 0.02",
            "seconds",
            our_evaluating,
            their_evaluating,
        ),
        metric(format!("MiB, {title}"), "", "mebibytes", memory, their_memory),
    ])
}

/// What both sides say of the same pairs must be the same.
fn agree(name: &str, answer: &Value, said: &Value, cluster: &World) {
    if let Some(allowed) = answer["allowed"].as_u64() {
        assert_eq!(allowed, web_pairs(cluster), "{name} and ours disagree on TCP 80");
    }
    if let Some(pairs) = answer["pod_pairs"].as_u64() {
        assert_eq!(
            Some(pairs),
            said["connected"].as_u64(),
            "{name} and ours disagree on connected pairs: {said}"
        );
    }
}

/// Ordered pairs of different pods between which TCP to port 80 passes.
fn web_pairs(cluster: &World) -> u64 {
    let evaluation = Evaluation::new(cluster, "calico".parse().unwrap(), Options::default()).unwrap();
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
