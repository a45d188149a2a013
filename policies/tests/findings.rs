//! A broken example for every kind of finding, and its mended twin: `examples/findings/MF###-name.yaml`.
//!
//! Comments at the top of an example are its settings:
//!
//! | comment | says |
//! |---|---|
//! | `# profile: cilium@1.18` | the CNI |
//! | `# also: MF112` | other findings that it cannot do without |
//! | `# mended: FROM → TO` | how to mend it; `\n` is a new line |
//!
//! A line that ends in `# here` is where the finding must be. After the line `--- # intents` come the intents. The input is
//! taken for complete.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests"
)]

mod support;

use mpegflow_policies::audit::{
    self, Outcome, Request, Severity, baseline::Baseline, catalog, flows, intent,
};
use mpegflow_policies::read::{self, Input, Limits, ReadOptions};
use mpegflow_policies::sets::AddressSet;
use mpegflow_policies::truth::Truth;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use support::request;

const FILE: &str = "example.yaml";
/// Kinds that no manifest makes: they come of observed flows and baselines, which are below.
const OBSERVED: [&str; 4] = ["MF501", "MF502", "MF503", "MF504"];

struct Example {
    text: String,
    profile: String,
    also: BTreeSet<String>,
    mended: Vec<(String, String)>,
}

impl Example {
    fn of(text: String) -> Self {
        let settings = |name: &str| -> Vec<String> {
            let start = format!("# {name}: ");
            text.lines().filter_map(|line| line.strip_prefix(&start)).map(str::to_owned).collect()
        };
        let mended = settings("mended").into_iter().map(|change| {
            let (from, to) = change.split_once(" → ").unwrap_or_else(|| panic!("{change:?} has no arrow"));
            (from.replace("\\n", "\n"), to.replace("\\n", "\n"))
        });
        let mended = mended.collect();
        let also = settings("also").iter().flat_map(|ids| ids.split(", ")).map(str::to_owned).collect();
        let profile = settings("profile").first().unwrap().clone();
        Self { mended, also, profile, text }
    }

    /// The same without what is wrong with it. Each change must change something beside its own comment.
    fn mend(&self) -> Self {
        let mut text: String = self
            .text
            .lines()
            .filter(|line| !line.starts_with("# mended: "))
            .fold(String::new(), |text, line| text + line + "\n");
        for (from, to) in &self.mended {
            assert!(text.contains(from), "{from:?} is not in the example");
            text = text.replacen(from, to, 1);
        }
        Self::of(text)
    }

    fn line(&self) -> Option<u32> {
        let line = self.text.lines().position(|line| line.ends_with("# here") && !line.starts_with('#'))?;
        u32::try_from(line).ok().map(|line| line + 1)
    }

    fn audit(&self) -> Outcome {
        self.audit_with("")
    }

    /// The audit, with these intents where the example has none.
    fn audit_with(&self, otherwise: &str) -> Outcome {
        let (manifests, intents) = self.text.split_once("--- # intents\n").unwrap_or((&self.text, otherwise));
        // The line of the intents in their own file is that in the example.
        let offset = "\n".repeat(manifests.lines().count() + 1);
        let manifests = input(manifests.to_owned());
        let intents =
            if intents.is_empty() { Vec::new() } else { intent::read(&input(offset + intents)).unwrap() };
        let cluster = read::cluster(&manifests, &ReadOptions::default()).unwrap().cluster;
        let request = Request {
            pod_cidrs: Some(AddressSet::block("10.0.0.0/8".parse().unwrap())),
            ..request(&cluster, &self.profile, intents)
        };
        audit::run(&request).unwrap()
    }
}

fn input(text: String) -> Input {
    let mut input = Input::new(Limits::default());
    input.add(FILE, text).unwrap();
    input
}

/// Ids of what is surely found, each once.
fn ids(outcome: &Outcome) -> BTreeSet<String> {
    outcome
        .findings
        .iter()
        .filter(|finding| finding.certain.must())
        .map(|finding| finding.id.to_owned())
        .collect()
}

fn examples() -> Vec<(String, PathBuf)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/findings");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), path)).collect()
}

#[test]
fn every_kind_of_finding_has_an_example() {
    let of_catalogue: BTreeSet<String> = catalog::ALL
        .iter()
        .filter(|kind| !OBSERVED.contains(&kind.id))
        .map(|kind| format!("{}-{}", kind.id, kind.name))
        .collect();
    let of_folder: BTreeSet<String> = examples().into_iter().map(|(name, _)| name).collect();
    assert_eq!(of_folder, of_catalogue);
}

#[test]
fn every_example_is_found_where_it_is_broken_and_nothing_else() {
    let mut wrong = Vec::new();
    for (name, path) in examples() {
        let (id, _) = name.split_once('-').unwrap();
        let example = Example::of(std::fs::read_to_string(path).unwrap());
        let outcome = example.audit();
        let mut expected = example.also.clone();
        expected.insert(id.to_owned());
        let lines: BTreeSet<Option<u32>> = outcome
            .findings
            .iter()
            .filter(|finding| finding.id == id)
            .map(|finding| finding.at.as_ref().map(|at| at.line))
            .collect();
        let all: Vec<String> = outcome
            .findings
            .iter()
            .map(|f| format!("  {} {:?} {}: {}", f.id, f.at.as_ref().map(|at| at.line), f.object, f.reason))
            .collect();
        if ids(&outcome) != expected || lines != [example.line()].into() {
            wrong.push(format!("{name}: not just {expected:?} at {:?}:\n{}", example.line(), all.join("\n")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Errors about a policy's text: the policy has less effect than its author meant, and its packets are judged by what it has.
/// docs/audit.md says so.
const OF_POLICIES: [&str; 4] = ["MF203", "MF204", "MF205", "MF206"];

/// Something that is always true of every pod.
const ANYTHING: &str = "apiVersion: mpegflow.io/v1alpha1
kind: NetworkIntents
intents:
- name: anything goes
  from: {namespaces: {}}
  may: [{group: any}]
";

#[test]
fn no_example_of_an_error_is_proved() {
    let mut judged = BTreeSet::new();
    for (name, path) in examples() {
        let (id, _) = name.split_once('-').unwrap();
        if catalog::by_id(id).unwrap().severity != Severity::Error || OF_POLICIES.contains(&id) {
            continue;
        }
        let example = Example::of(std::fs::read_to_string(path).unwrap());
        let outcome = example.audit_with(ANYTHING);
        assert_eq!(outcome.proved, Truth::No, "{name}: {}", outcome.sentence);
        assert_eq!(outcome.exit_code(), 1, "{name}");
        judged.insert(id.to_owned());
    }
    // Those that come of flows are judged by a test of their own.
    let errors = catalog::ALL.iter().filter(|kind| kind.severity == Severity::Error);
    let errors = errors.filter(|kind| !OF_POLICIES.contains(&kind.id) && !OBSERVED.contains(&kind.id));
    assert_eq!(judged, errors.map(|kind| kind.id.to_owned()).collect());
}

#[test]
fn what_has_no_error_is_proved_of_anything() {
    let outcome = Example::of(format!("# profile: calico@3.30\n{CLOSED}")).audit_with(ANYTHING);
    assert_eq!(outcome.proved, Truth::Yes, "{}", outcome.sentence);
}

#[test]
fn every_mended_example_is_free_of_the_finding() {
    let mut wrong = Vec::new();
    for (name, path) in examples() {
        let (id, _) = name.split_once('-').unwrap();
        let example = Example::of(std::fs::read_to_string(path).unwrap());
        assert!(!example.mended.is_empty(), "{name} cannot be mended");
        let outcome = example.mend().audit();
        for finding in outcome.findings.iter().filter(|finding| finding.id == id) {
            wrong.push(format!("{name}: {} {}", finding.object, finding.reason));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A pod that may be talked to by nobody.
const CLOSED: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: a, labels: {app: web}}
spec: {}
status: {podIP: 10.0.0.7}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: a, labels: {app: db}}
spec: {}
status: {podIP: 10.0.0.8}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: a}
spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress]}
";

/// Audits the closed pod under observed flows and a baseline: id, line, and file of what is found.
fn observed(flow: &str, accepted: &str) -> Vec<(&'static str, String)> {
    let outcome = outcome(flow, accepted);
    outcome.findings.iter().map(|finding| (finding.id, finding.at.as_ref().unwrap().to_string())).collect()
}

fn outcome(flow: &str, accepted: &str) -> Outcome {
    let cluster = read::cluster(&input(CLOSED.to_owned()), &ReadOptions::default()).unwrap().cluster;
    let header = "apiVersion: mpegflow.io/v1alpha1\nkind: AuditBaseline\naccepted:";
    let baseline = Baseline::read(&input(format!("{header} {accepted}\n"))).unwrap();
    let flows = [flows::read("flows.json", flow.as_bytes()).unwrap()];
    let request =
        Request { baseline: Some(&baseline), flows: &flows, ..request(&cluster, "calico@3.30", Vec::new()) };
    audit::run(&request).unwrap()
}

/// A packet that Hubble saw, from the database to the closed pod or back.
fn hubble(source: &str, destination: &str) -> String {
    format!(
        r#"{{"flow":{{"verdict":"FORWARDED","is_reply":false,"IP":{{"source":"{source}","destination":"{destination}"}},"l4":{{"TCP":{{"source_port":40000,"destination_port":80}}}}}}}}"#
    )
}

#[test]
fn a_flow_that_policies_deny_is_found_and_one_that_they_allow_is_not() {
    let denied = hubble("10.0.0.8", "10.0.0.7");
    let allowed = hubble("10.0.0.7", "10.0.0.8");
    assert_eq!(observed(&format!("{allowed}\n{denied}"), "[]"), [("MF501", "flows.json:2:1".to_owned())]);
    assert_eq!(observed(&allowed, "[]"), []);
}

#[test]
fn a_baseline_entry_for_nothing_is_stale_and_one_of_yesterday_has_expired() {
    let denied = hubble("10.0.0.8", "10.0.0.7");
    let fingerprint = outcome(&denied, "[]").findings[0].fingerprint();
    let entry = |expires: &str| {
        format!("[{{fingerprint: '{fingerprint}', owner: o, reason: r, expires: {expires}}}]")
    };
    let stale = observed("", &entry("2026-06-01"));
    assert_eq!(stale, [("MF502", "example.yaml:3:12".to_owned())]);
    assert_eq!(observed(&denied, &entry("2026-06-01")), [], "in time");
    let expired: Vec<_> = observed(&denied, &entry("2025-12-31")).into_iter().map(|(id, _)| id).collect();
    assert_eq!(expired, ["MF501", "MF503"]);
}
