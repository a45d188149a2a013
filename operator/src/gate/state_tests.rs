//! The gate's decisions, on a clock of the test's own.
#![allow(clippy::arithmetic_side_effects, reason = "tests")]

use super::*;
use crate::desired::{CANARY_LABEL, Target};
use mpegflow_protocol::canary::{Look, Outcome, Report};
use mpegflow_protocol::control::{NodeVerdict, PoolStatus};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;

const API: &str = "10.96.0.1:443";
const PERIOD: u64 = 300;

/// A gate, its controls, what the broker told last, and the time.
struct World {
    state: State,
    controls: Controls,
    seen: Seen,
    now: Instant,
    drawn: u32,
    /// Canaries that were made and that no test has asked for yet.
    begun: Vec<(Key, String, String)>,
    /// What the broker was told and no test has asked for yet: node, verified, seconds.
    said: Vec<(String, bool, u32)>,
    /// Whether somebody is at the control's address.
    api: bool,
}

fn key(name: &str) -> Key {
    ("media".into(), name.into())
}

fn wanted(digest: &str) -> Wanted {
    let template = json!({
        "metadata": { "namespace": "media", "labels": { "mpegflow.io/pool": "cpu" } }, "spec": { "restartPolicy": "Never" },
    });
    Wanted {
        uid: "u1".into(),
        digest: digest.into(),
        template: Arc::new(template),
        targets: Arc::new([Target { name: "API server".into(), address: api(), asked: true }]),
        period: Duration::from_secs(PERIOD),
    }
}

fn api() -> SocketAddr {
    API.parse().unwrap()
}

fn report(is: Outcome) -> Ending {
    let report = Report { broker: true, node: Outcome::Silent, looks: vec![Look { at: api(), is }] };
    Ending::Said(String::from_utf8(mpegflow_protocol::to_json(&report)).unwrap())
}

fn at_broker(name: &str, digest: &str, verdicts: &[(&str, bool, u32)]) -> PoolStatus {
    let verdict = |(node, verified, expires_in_s): &(&str, bool, u32)| NodeVerdict {
        node: (*node).into(),
        verified: *verified,
        reason: "as before".into(),
        expires_in_s: *expires_in_s,
    };
    PoolStatus {
        pool: name.parse().unwrap(),
        uid: "u1".into(),
        observed_generation: 1,
        queued: 0,
        idle: 0,
        waiting: None,
        workers: Vec::new(),
        policy: Some(digest.into()),
        verdicts: verdicts.iter().map(verdict).collect(),
    }
}

impl World {
    fn new(most: usize) -> Self {
        let now = Instant::now();
        let mut world = Self {
            state: State::new(most),
            controls: Controls::new([api()]),
            seen: Seen::of(vec![at_broker("cpu", "d1", &[])], now),
            now,
            drawn: 0,
            begun: Vec::new(),
            said: Vec::new(),
            api: true,
        };
        world.state.workers.list_begins();
        world.state.workers.list_ends();
        world
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    /// Steps but for looks at the controls, which are done at once, and reports.
    fn steps(&mut self) -> Vec<Step> {
        let mut all = Vec::new();
        loop {
            let steps = self.state.next(self.now, &self.controls, &self.seen, || {
                self.drawn += 1;
                format!("{:010}", self.drawn)
            });
            let looks = steps.contains(&Step::Look);
            all.extend(steps.into_iter().filter(|step| !matches!(step, Step::Look | Step::Report(_))));
            if !looks {
                return all;
            }
            let here = if self.api { vec![api()] } else { Vec::new() };
            self.controls.looked(self.now, &here);
            self.state.has_looked();
        }
    }

    /// Does what is due: the API server gives each canary its run's UID, the broker takes each verdict and says so when it is asked.
    fn work(&mut self) {
        for step in self.steps() {
            match step {
                Step::Create { key, run, pod } => {
                    let node = pod["spec"]["nodeName"].as_str().unwrap().to_owned();
                    let name = pod["metadata"]["name"].as_str().unwrap();
                    assert_eq!(pod["metadata"]["labels"][CANARY_LABEL], json!(run));
                    self.state.created(&key, &run, name, Ok(format!("uid-{run}")), self.now);
                    self.begun.push((key, run, node));
                }
                Step::Tell { key, node, verdict } => {
                    self.state.told(&key, &node, &verdict.policy, true, self.now);
                    let told = [(node.as_str(), verdict.verified, verdict.expires_in_s)];
                    self.seen = Seen::of(vec![at_broker(&key.1, &verdict.policy, &told)], self.now);
                    self.said.push((node, verdict.verified, verdict.expires_in_s));
                }
                Step::Delete { uid, .. } => self.state.deleted(&uid),
                Step::Look | Step::Report(_) => {}
            }
        }
    }

    /// The canaries that are made now, each with its run and node.
    fn made(&mut self) -> Vec<(Key, String, String)> {
        self.work();
        std::mem::take(&mut self.begun)
    }

    /// The only canary of the pool `cpu` that is made now.
    fn one(&mut self) -> String {
        let made = self.made();
        assert_eq!(made.len(), 1, "{made:?}");
        made[0].1.clone()
    }

    fn ends(&mut self, run: &str, ending: Ending) {
        self.pod(run, &format!("uid-{run}"), Some(ending));
    }

    fn pod(&mut self, run: &str, uid: &str, ending: Option<Ending>) {
        let pod = Pod { name: format!("cpu-canary-{run}"), uid: uid.into(), run: run.into(), ending };
        self.state.pod(&key("cpu"), pod, self.now);
    }

    /// What the broker is told now: node, verified, seconds.
    fn told(&mut self) -> Vec<(String, bool, u32)> {
        self.work();
        std::mem::take(&mut self.said)
    }

    fn isolation(&mut self) -> (ConditionStatus, &'static str) {
        let isolation = self.state.isolation(&key("cpu"), self.now).expect("it is known");
        (isolation.status, isolation.reason)
    }
}

/// The pool `cpu` with a worker on n1.
fn world() -> World {
    let mut world = World::new(10);
    world.state.wants(&key("cpu"), wanted("d1"));
    world.state.workers.are(&key("cpu"), "a", "n1");
    world
}

use ConditionStatus::{False, True, Unknown};

#[test]
fn a_canary_runs_where_workers_are_and_what_it_proves_lasts_two_periods_and_is_renewed_after_one() {
    let mut world = world();
    assert_eq!(world.state.isolation(&key("cpu"), world.now), None, "nothing was asked yet");
    let run = world.one();
    assert_eq!(world.isolation(), (Unknown, "Pending"));
    assert!(world.made().is_empty(), "one is enough");
    world.wait(5);
    world.ends(&run, report(Outcome::Silent));
    assert_eq!(world.told(), [("n1".into(), true, 595)]);
    assert_eq!(world.isolation(), (True, "Verified"));
    // A steady state: nothing until the period has passed.
    for _ in 0..29 {
        world.wait(10);
        assert_eq!(world.steps(), []);
    }
    world.wait(10);
    let run = world.one();
    world.ends(&run, report(Outcome::Refused));
    assert_eq!(world.told(), [("n1".into(), true, 600)]);
    // Nobody is there any more: nothing is tried, and what was proved counts as long as it does.
    world.state.workers.left(&key("cpu"), "a");
    assert_eq!(world.isolation(), (Unknown, "NoWorkers"));
    world.wait(400);
    assert_eq!(world.steps(), []);
    world.state.workers.are(&key("cpu"), "b", "n1");
    assert_eq!(world.isolation(), (True, "Verified"));
    assert_eq!(world.made().len(), 1, "it is due");
    assert_eq!(world.isolation(), (True, "Verified"));
    world.wait(149);
    assert_eq!(world.isolation(), (True, "Verified"));
    world.wait(51);
    world.steps();
    assert_eq!(world.isolation(), (Unknown, "CanaryTimedOut"), "the proof has expired");
}

#[test]
fn one_answer_ends_work_at_once_and_the_next_canary_comes_soon() {
    let mut world = world();
    let run = world.one();
    world.ends(&run, report(Outcome::Silent));
    world.told();
    world.wait(PERIOD);
    let run = world.one();
    world.ends(&run, report(Outcome::Answered));
    assert_eq!(world.told(), [("n1".into(), false, 600)]);
    assert_eq!(world.isolation(), (False, "Reachable"));
    world.wait(59);
    assert!(world.made().is_empty());
    world.wait(1);
    // A canary that cannot say anything does not mend what another has seen.
    let run = world.one();
    world.ends(&run, Ending::Died("Evicted".into()));
    assert_eq!(world.told(), [("n1".into(), false, 600)]);
    assert_eq!(world.isolation(), (False, "Reachable"));
    world.wait(60);
    let run = world.one();
    world.ends(&run, report(Outcome::Silent));
    assert_eq!(world.told(), [("n1".into(), true, 600)]);
    assert_eq!(world.isolation(), (True, "Verified"));
}

#[test]
fn what_says_nothing_proves_nothing_and_takes_nothing_back_before_its_time() {
    let endings = [
        (Ending::Said("{}".into()), "BadReport"),
        (Ending::Said("x".repeat(100_000)), "BadReport"),
        (Ending::Died("exit code 2".into()), "CanaryFailed"),
        (Ending::Gone, "CanaryGone"),
        (Ending::Refused("forbidden".into()), "CanaryRefused"),
    ];
    for (ending, reason) in endings {
        let mut world = world();
        let run = world.one();
        world.ends(&run, ending.clone());
        assert_eq!(world.told(), [("n1".into(), false, 600)], "{reason}");
        assert_eq!(world.isolation(), (Unknown, reason));
        world.wait(60);
        let run = world.one();
        world.ends(&run, report(Outcome::Silent));
        assert_eq!(world.told(), [("n1".into(), true, 600)], "{reason}");
        world.wait(PERIOD);
        let run = world.one();
        world.ends(&run, ending);
        assert_eq!(world.told(), [], "{reason}: the proof before it counts");
        assert_eq!(world.isolation(), (True, "Verified"));
        world.wait(PERIOD);
        world.steps();
        assert_eq!(world.isolation(), (Unknown, reason), "until it expires");
    }
}

#[test]
fn a_target_that_answers_nobody_is_untested() {
    let mut world = world();
    world.api = false;
    let run = world.one();
    world.ends(&run, report(Outcome::Silent));
    assert_eq!(world.told(), [("n1".into(), false, 600)]);
    assert_eq!(world.isolation(), (Unknown, "Untested"));
    // It comes back while a canary runs: still nobody knows whether it was there all the while.
    world.wait(60);
    let run = world.one();
    world.api = true;
    world.wait(5);
    world.ends(&run, report(Outcome::Silent));
    assert_eq!(world.told(), [("n1".into(), false, 600)]);
    // It goes while a canary runs.
    world.wait(60);
    let run = world.one();
    world.api = false;
    world.wait(5);
    world.ends(&run, report(Outcome::Silent));
    world.told();
    assert_eq!(world.isolation(), (Unknown, "Untested"));
    world.api = true;
    world.wait(60);
    let run = world.one();
    world.wait(5);
    world.ends(&run, report(Outcome::Silent));
    assert_eq!(world.told(), [("n1".into(), true, 595)]);
}

#[test]
fn a_report_is_read_of_no_pod_but_the_one_that_was_made() {
    let mut world = world();
    let steps = world.steps();
    let Some(Step::Create { key: of, run, pod }) = steps.into_iter().next() else { panic!("no canary") };
    let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
    // Before the API server has answered, one comes along that says to be it; and one that says to be another.
    world.pod(&run, "forged", Some(report(Outcome::Silent)));
    world.pod("0000000099", "forged-too", Some(report(Outcome::Silent)));
    assert_eq!(world.told(), []);
    world.state.created(&of, &run, &name, Ok("its-own".into()), world.now);
    let deleted = |steps: &[Step]| -> Vec<String> {
        let uid = |step: &Step| match step {
            Step::Delete { uid, .. } => Some(uid.clone()),
            _ => None,
        };
        steps.iter().filter_map(uid).collect()
    };
    let steps = world.steps();
    assert_eq!(deleted(&steps), ["forged"], "the other was deleted before");
    assert!(!steps.iter().any(|step| matches!(step, Step::Tell { .. })), "{steps:?}");
    world.pod(&run, "forged-later", Some(report(Outcome::Silent)));
    let steps = world.steps();
    assert_eq!(deleted(&steps), ["forged-later"]);
    assert_eq!(world.isolation(), (Unknown, "Pending"));
    world.pod(&run, "its-own", Some(report(Outcome::Answered)));
    assert_eq!(world.told(), [("n1".into(), false, 600)]);
}

#[test]
fn what_was_seen_of_other_policies_counts_for_nothing() {
    let mut world = world();
    let run = world.one();
    world.ends(&run, report(Outcome::Silent));
    world.told();
    // Another template: the proof is about what is no more.
    world.state.wants(&key("cpu"), wanted("d2"));
    assert_eq!(world.isolation(), (Unknown, "Pending"));
    let second = world.one();
    // And another, while the canary runs.
    world.state.wants(&key("cpu"), wanted("d3"));
    world.ends(&second, report(Outcome::Silent));
    assert_eq!(world.told(), []);
    let third = world.one();
    // Somebody edits a policy, and it is mended: what the canary saw may be what was there in between.
    world.state.touched(&key("cpu"), true, world.now);
    world.ends(&third, report(Outcome::Silent));
    assert_eq!(world.told(), []);
    let fourth = world.one();
    world.ends(&fourth, report(Outcome::Silent));
    assert_eq!(world.told(), [("n1".into(), true, 600)]);
    // Mended between two canaries: the next one comes at once, and until then what was proved counts.
    world.wait(10);
    world.state.touched(&key("cpu"), true, world.now);
    assert_eq!(world.isolation(), (True, "Verified"));
    let fifth = world.one();
    // Touched and put back by whoever did it.
    world.state.touched(&key("cpu"), false, world.now);
    world.ends(&fifth, report(Outcome::Silent));
    assert_eq!(world.told(), []);
}

#[test]
fn a_node_that_is_gone_is_not_asked_for_and_holds_up_nobody() {
    let mut world = world();
    let run = world.one();
    world.ends(&run, report(Outcome::Answered));
    world.told();
    world.state.workers.are(&key("cpu"), "b", "n2");
    world.state.workers.left(&key("cpu"), "a");
    let run = world.one();
    world.ends(&run, report(Outcome::Silent));
    assert_eq!(world.told(), [("n2".into(), true, 600)]);
    assert_eq!(world.isolation(), (True, "Verified"));
    // The worker goes while a canary is beside it.
    world.wait(PERIOD);
    world.one();
    world.state.workers.left(&key("cpu"), "b");
    let steps = world.steps();
    assert!(matches!(&steps[..], [Step::Delete { .. }]), "{steps:?}");
}

#[test]
fn a_canary_that_never_ends_is_taken_away() {
    let mut world = world();
    let run = world.one();
    world.wait(149);
    assert_eq!(world.steps(), []);
    world.wait(1);
    let steps = world.steps();
    let uid = format!("uid-{run}");
    assert!(
        steps.iter().any(|step| matches!(step, Step::Delete { uid: other, .. } if *other == uid)),
        "{steps:?}"
    );
    assert_eq!(world.isolation(), (Unknown, "CanaryTimedOut"));
    // The API server does not answer: it is deleted again.
    world.wait(30);
    let steps = world.steps();
    assert!(matches!(&steps[..], [Step::Delete { uid: other, .. }] if *other == uid), "{steps:?}");
    world.state.pod_is_gone(&key("cpu"), &run, &uid, world.now);
    world.wait(30);
    assert_eq!(world.made().len(), 1);
}

#[test]
fn a_thousand_pools_have_few_canaries_at_once_and_those_without_a_proof_come_first() {
    let mut world = World::new(8);
    let pools: Vec<Key> = (0..1000).map(|i| key(&format!("pool-{i}"))).collect();
    for pool in &pools {
        world.state.wants(pool, wanted("d1"));
        for node in 0..5 {
            world.state.workers.are(pool, &format!("pod-{node}"), &format!("n{node}"));
        }
    }
    let first = world.made();
    assert_eq!(first.len(), 8);
    for pool in &pools {
        assert!(first.iter().filter(|(of, ..)| of == pool).count() <= MOST_OF_POOL);
    }
    assert!(world.made().is_empty(), "no more until one has gone");
    // One ends; until its pod is gone it counts.
    let (of, run, _) = &first[0];
    let pod = Pod {
        name: format!("{}-canary-{run}", of.1),
        uid: format!("uid-{run}"),
        run: run.clone(),
        ending: Some(report(Outcome::Silent)),
    };
    world.state.pod(of, pod, world.now);
    let steps = world.steps();
    assert!(!steps.iter().any(|step| matches!(step, Step::Create { .. })), "{steps:?}");
    world.state.deleted(&format!("uid-{run}"));
    assert_eq!(world.made().len(), 1);
    // A proof that is due again waits for who has none.
    world.wait(PERIOD);
    // The hung ones go first.
    world.work();
    let due = world.made();
    assert!(
        !due.is_empty() && due.iter().all(|(other, _, node)| (other, node) != (of, &first[0].2)),
        "{due:?}"
    );
}

#[test]
fn an_operator_that_starts_takes_over_what_is_proved_and_sweeps_what_is_left() {
    let mut world = world();
    world.seen = Seen::of(vec![at_broker("cpu", "d1", &[("n1", true, 400), ("n2", false, 400)])], world.now);
    world.state.workers.are(&key("cpu"), "b", "n2");
    // A canary of the process before this one.
    world.pod("0000000007", "uid-old", None);
    let made = world.made();
    assert_eq!(
        made.iter().map(|(.., node)| node.as_str()).collect::<Vec<_>>(),
        ["n2"],
        "what failed is tried at once"
    );
    world.wait(99);
    assert!(world.made().is_empty());
    world.wait(1);
    assert_eq!(world.made().len(), 1, "the proof's period has passed");
    let fresh = |seen: Vec<PoolStatus>| {
        let mut world = super::tests::world();
        world.seen = Seen::of(seen, world.now);
        world.made().len()
    };
    assert_eq!(fresh(vec![at_broker("cpu", "d0", &[("n1", true, 400)])]), 1, "of other policies");
    let other = PoolStatus { uid: "u0".into(), ..at_broker("cpu", "d1", &[("n1", true, 400)]) };
    assert_eq!(fresh(vec![other]), 1, "of another resource");
}

#[test]
fn a_broker_that_is_away_or_has_lost_what_it_knew_is_told_again() {
    let mut world = world();
    world.seen = Seen::default();
    assert!(world.made().is_empty(), "without a broker nobody is asked");
    world.seen = Seen::of(vec![at_broker("cpu", "d1", &[])], world.now);
    let run = world.one();
    world.ends(&run, report(Outcome::Silent));
    let steps = world.steps();
    assert!(steps.iter().any(|step| matches!(step, Step::Tell { .. })));
    world.state.told(&key("cpu"), "n1", "d1", false, world.now);
    world.wait(4);
    assert_eq!(world.told(), []);
    world.wait(1);
    assert_eq!(world.told(), [("n1".into(), true, 595)], "with what is left of its time");
    world.seen = Seen::of(vec![at_broker("cpu", "d1", &[("n1", true, 595)])], world.now);
    world.wait(60);
    assert_eq!(world.told(), []);
    // Another database.
    world.seen = Seen::of(vec![at_broker("cpu", "d1", &[])], world.now);
    assert_eq!(world.told(), [("n1".into(), true, 535)]);
    world.wait(10);
    assert_eq!(world.told(), [], "it is given time to say so");
}

#[test]
fn a_pool_that_ends_takes_its_canaries_with_it() {
    let mut world = world();
    let run = world.one();
    world.state.forget(&key("cpu"));
    let steps = world.steps();
    assert!(matches!(&steps[..], [Step::Delete { uid, .. }] if *uid == format!("uid-{run}")), "{steps:?}");
    // One whose creation is answered only now.
    world.state.created(&key("cpu"), "0000000042", "cpu-canary-0000000042", Ok("late".into()), world.now);
    let steps = world.steps();
    assert!(matches!(&steps[..], [Step::Delete { uid, .. }] if uid == "late"), "{steps:?}");
}
