//! What is wanted of each pool, which canaries there are, and what was found. Pure: time, pods and answers come in, steps go out.

use super::controls::Controls;
use super::judge::{Code, Finding, judge};
use super::workers::Workers;
use super::{Isolation, Key, Wanted};
use crate::control::{self, Seen};
use crate::crd::ConditionStatus;
use crate::desired::canary_on;
use mpegflow_protocol::control::{MAX_VERDICT_S, Verdict};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// Most canaries of one pool at once.
const MOST_OF_POOL: usize = 3;
/// Most pools that are kept. One beyond gets no verdict, and so no work.
const MOST_POOLS: usize = 50_000;
/// Most pods that are to be deleted; one beyond is told of again with the next list.
const MOST_STRAYS: usize = 10_000;
/// Pods that are being deleted at once.
const MOST_DELETIONS: usize = 32;
/// Verdicts that are on their way to the broker at once.
const MOST_TELLINGS: usize = 32;
/// A canary ends within this time, or counts for nothing; its kubelet ends it earlier.
const PATIENCE: Duration = Duration::from_secs(150);
/// The longest between two canaries on a node: half of what a verdict may last.
const LONGEST_PERIOD: Duration = Duration::from_secs(MAX_VERDICT_S as u64 / 2);
/// How soon a canary follows one that did not find its pool isolated.
const RETRY: Duration = Duration::from_secs(60);
/// How soon a verdict is told again that the broker did not take, and a pod deleted again that is still there.
const TELL_AGAIN: Duration = Duration::from_secs(5);
const DELETE_AGAIN: Duration = Duration::from_secs(30);
/// What the broker was told it says itself within this time.
const TOLD: Duration = Duration::from_secs(20);
/// Nodes that a sentence names.
const NAMED: usize = 3;

/// How a canary ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ending {
    /// With a termination message.
    Said(String),
    /// Without one, for a reason.
    Died(String),
    /// It is gone.
    Gone,
    /// It was never made, for a reason.
    Refused(String),
}

/// Something to be done.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// Look at all controls.
    Look,
    /// Make a canary.
    Create { key: Key, run: String, pod: Value },
    /// Delete a pod, if it is still that one.
    Delete { namespace: String, name: String, uid: String },
    /// Tell the broker.
    Tell { key: Key, node: String, verdict: Verdict },
    /// Look at a pool: what is known of its isolation has changed.
    Report(Key),
}

/// What a watch tells of a canary's pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pod {
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) run: String,
    /// How it has ended, where it has.
    pub(super) ending: Option<Ending>,
}

/// Everything that the gate knows.
#[derive(Debug)]
pub(super) struct State {
    most: usize,
    pools: HashMap<Key, Pool>,
    pub(super) workers: Workers,
    /// Canaries that are no use, or not the operator's, by UID.
    strays: HashMap<String, Stray>,
    is_looking: bool,
}

#[derive(Debug)]
struct Pool {
    wanted: Wanted,
    /// Goes up when somebody has touched its policies.
    touched: u64,
    nodes: BTreeMap<String, Node>,
    canaries: HashMap<String, Canary>,
    /// Whether what the broker had was looked at.
    is_resumed: bool,
    reported: Option<Isolation>,
}

/// A node where workers of a pool are, or were a short while ago.
#[derive(Debug)]
struct Node {
    finding: Option<Finding>,
    /// Until when the last proof counts.
    good_until: Option<Instant>,
    /// When the next canary is due.
    due: Instant,
    tell: Option<Tell>,
}

#[derive(Debug)]
struct Tell {
    verified: bool,
    reason: String,
    until: Instant,
    is: Telling,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Telling {
    WaitsUntil(Instant),
    Asked,
    Done(Instant),
}

#[derive(Debug)]
struct Canary {
    node: String,
    name: String,
    digest: String,
    touched: u64,
    begun: Instant,
    /// Its UID, as the API server answered to the operator: whatever else says that it is this canary is not.
    uid: Option<String>,
    /// What the watch told before that answer came.
    early: Option<Pod>,
    ended: Option<(Instant, Ending)>,
}

#[derive(Debug)]
struct Stray {
    namespace: String,
    name: String,
    tried: Option<Instant>,
}

impl State {
    /// With room for so many canaries at once.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most: most.max(1),
            pools: HashMap::new(),
            workers: Workers::default(),
            strays: HashMap::new(),
            is_looking: false,
        }
    }

    /// A pool is to be verified.
    pub(super) fn wants(&mut self, key: &Key, wanted: Wanted) {
        let has_room = self.pools.len() < MOST_POOLS;
        match self.pools.get_mut(key) {
            Some(pool) if pool.wanted.uid == wanted.uid => {
                if pool.wanted.digest != wanted.digest {
                    // What was found was about something else.
                    pool.nodes.clear();
                }
                pool.wanted = wanted;
            }
            Some(_) => {
                self.forget(key);
                self.wants(key, wanted);
            }
            None if has_room => {
                let pool = Pool {
                    wanted,
                    touched: 0,
                    nodes: BTreeMap::new(),
                    canaries: HashMap::new(),
                    is_resumed: false,
                    reported: None,
                };
                self.pools.insert(key.clone(), pool);
            }
            None => {}
        }
    }

    /// A pool's policies were touched by somebody, and, where `mended`, were not as they should be: what was seen while that was so
    /// counts for nothing.
    pub(super) fn touched(&mut self, key: &Key, mended: bool, now: Instant) {
        let Some(pool) = self.pools.get_mut(key) else { return };
        pool.touched = pool.touched.saturating_add(1);
        if mended {
            pool.nodes.values_mut().for_each(|node| node.due = now);
        }
    }

    /// A pool has ended, and its canaries with it.
    pub(super) fn forget(&mut self, key: &Key) {
        let Some(pool) = self.pools.remove(key) else { return };
        for canary in pool.canaries.into_values() {
            if let Some(uid) = canary.uid {
                self.stray(key, uid, canary.name);
            }
        }
    }

    /// The pools that are known, with the UIDs of their resources.
    pub(super) fn pools(&self) -> Vec<(Key, String)> {
        self.pools.iter().map(|(key, pool)| (key.clone(), pool.wanted.uid.clone())).collect()
    }

    /// What is known of a pool's isolation; nothing before the broker has told once what it has, and the API server where workers are.
    /// It counts as reported.
    pub(super) fn isolation(&mut self, key: &Key, now: Instant) -> Option<Isolation> {
        let Some(pool) = self.pools.get_mut(key) else {
            return Some(Isolation::unknown(
                "TooManyPools",
                "there are more pools than the operator can verify",
            ));
        };
        if !pool.is_resumed || !self.workers.are_known() {
            return None;
        }
        let isolation = pool.isolation(&self.workers.nodes(key), now);
        pool.reported = Some(isolation.clone());
        Some(isolation)
    }

    /// A report could not be delivered; it is due again.
    pub(super) fn is_unreported(&mut self, key: &Key) {
        if let Some(pool) = self.pools.get_mut(key) {
            pool.reported = None;
        }
    }

    /// A watch tells of a canary's pod.
    pub(super) fn pod(&mut self, key: &Key, pod: Pod, now: Instant) {
        let canary = self.pools.get_mut(key).and_then(|pool| pool.canaries.get_mut(&pod.run));
        match canary {
            Some(canary) if canary.name == pod.name && canary.uid.is_none() => canary.early = Some(pod),
            Some(canary) if canary.uid.as_ref() == Some(&pod.uid) => {
                if let (Some(ending), None) = (pod.ending, &canary.ended) {
                    canary.ended = Some((now, ending));
                }
            }
            // One of a process before this, or one that somebody else made: it is not even read.
            _ => self.stray(key, pod.uid, pod.name),
        }
    }

    /// A watch tells that a canary's pod is gone.
    pub(super) fn pod_is_gone(&mut self, key: &Key, run: &str, uid: &str, now: Instant) {
        self.strays.remove(uid);
        let canary = self.pools.get_mut(key).and_then(|pool| pool.canaries.get_mut(run));
        if let Some(canary) = canary
            && canary.uid.as_deref() == Some(uid)
            && canary.ended.is_none()
        {
            canary.ended = Some((now, Ending::Gone));
        }
    }

    /// The API server has answered to a [`Step::Create`].
    pub(super) fn created(
        &mut self,
        key: &Key,
        run: &str,
        name: &str,
        answer: Result<String, String>,
        now: Instant,
    ) {
        let canary = self.pools.get_mut(key).and_then(|pool| pool.canaries.get_mut(run));
        match (canary, answer) {
            (Some(canary), Ok(uid)) => {
                let early = canary.early.take();
                canary.uid = Some(uid.clone());
                if let Some(early) = early {
                    self.pod(key, early, now);
                }
            }
            (Some(canary), Err(why)) => canary.ended = Some((now, Ending::Refused(why))),
            // Nobody wants it any more.
            (None, Ok(uid)) => self.stray(key, uid, name.to_owned()),
            (None, Err(_)) => {}
        }
    }

    /// A pod was deleted, or was not there.
    pub(super) fn deleted(&mut self, uid: &str) {
        self.strays.remove(uid);
    }

    /// The broker has answered to a [`Step::Tell`] about a digest.
    pub(super) fn told(&mut self, key: &Key, node: &str, digest: &str, taken: bool, now: Instant) {
        let Some(pool) = self.pools.get_mut(key).filter(|pool| pool.wanted.digest == digest) else { return };
        let tell = pool.nodes.get_mut(node).and_then(|node| node.tell.as_mut());
        if let Some(tell) = tell.filter(|tell| tell.is == Telling::Asked) {
            tell.is = if taken { Telling::Done(now) } else { Telling::WaitsUntil(after(now, TELL_AGAIN)) };
        }
    }

    /// A look at the controls has ended, whatever it saw.
    pub(super) fn has_looked(&mut self) {
        self.is_looking = false;
    }

    fn stray(&mut self, key: &Key, uid: String, name: String) {
        if self.strays.len() < MOST_STRAYS {
            self.strays.entry(uid).or_insert(Stray { namespace: key.0.clone(), name, tried: None });
        }
    }

    /// What is to be done now. `draw` makes a name that was never there before.
    pub(super) fn next(
        &mut self,
        now: Instant,
        controls: &Controls,
        seen: &Seen,
        mut draw: impl FnMut() -> String,
    ) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut wants_look = false;
        let mut due: Vec<(bool, Instant, Key, String)> = Vec::new();
        let mut useless: Vec<(Key, String, String)> = Vec::new();
        for (key, pool) in &mut self.pools {
            let workers = self.workers.nodes(key);
            let at_broker = seen.pool(&key.1).filter(|other| pool.is_at(other));
            if seen.answers() && !pool.is_resumed {
                pool.is_resumed = true;
                pool.resume(at_broker, now);
            }
            for node in &workers {
                if !pool.nodes.contains_key(*node) {
                    pool.nodes.insert((*node).to_owned(), Node::due(now));
                }
            }
            wants_look |= pool.settle(&workers, controls, now, |canary| {
                if let Some(uid) = canary.uid {
                    useless.push((key.clone(), uid, canary.name));
                }
            });
            pool.expire(&workers, now);
            for (name, node) in &pool.nodes {
                let is_looked_at = pool.canaries.values().any(|canary| canary.node == *name);
                if seen.answers() && workers.contains(name.as_str()) && node.due <= now && !is_looked_at {
                    due.push((node.good_until.is_some(), node.due, key.clone(), name.clone()));
                }
            }
            if seen.answers() {
                pool.doubt(at_broker, now);
            }
            if !pool.is_resumed || !self.workers.are_known() {
                continue;
            }
            let isolation = pool.isolation(&workers, now);
            if pool.reported.as_ref() != Some(&isolation) {
                pool.reported = Some(isolation);
                steps.push(Step::Report(key.clone()));
            }
        }
        useless.into_iter().for_each(|(key, uid, name)| self.stray(&key, uid, name));
        wants_look |= !due.is_empty() && !controls.is_fresh(now);
        if controls.is_fresh(now) {
            self.begin(due, now, &mut draw, &mut steps);
        }
        if seen.answers() {
            self.tell(now, &mut steps);
        }
        let is_tried = |stray: &Stray| {
            stray.tried.is_some_and(|tried| now.saturating_duration_since(tried) < DELETE_AGAIN)
        };
        let room =
            MOST_DELETIONS.saturating_sub(self.strays.values().filter(|stray| is_tried(stray)).count());
        for (uid, stray) in self.strays.iter_mut().filter(|(_, stray)| !is_tried(stray)).take(room) {
            stray.tried = Some(now);
            let (namespace, name) = (stray.namespace.clone(), stray.name.clone());
            steps.push(Step::Delete { namespace, name, uid: uid.clone() });
        }
        if wants_look && !self.is_looking {
            self.is_looking = true;
            steps.push(Step::Look);
        }
        steps
    }

    /// Begins canaries where they are due, as many as may be: first where no proof counts.
    fn begin(
        &mut self,
        mut due: Vec<(bool, Instant, Key, String)>,
        now: Instant,
        draw: &mut impl FnMut() -> String,
        steps: &mut Vec<Step>,
    ) {
        due.sort();
        let there: usize = self.pools.values().map(|pool| pool.canaries.len()).sum();
        // Until it is gone, one that is to be deleted is one as well.
        let mut room = self.most.saturating_sub(there.saturating_add(self.strays.len()));
        for (_, _, key, node) in due {
            let Some(pool) = self.pools.get_mut(&key) else { continue };
            if room == 0 {
                return;
            }
            if pool.canaries.len() >= MOST_OF_POOL {
                continue;
            }
            let run = draw();
            let name = format!("{}-canary-{run}", key.1);
            let pod = canary_on(&pool.wanted.template, &name, &run, &node);
            let canary = Canary {
                node,
                name,
                digest: pool.wanted.digest.clone(),
                touched: pool.touched,
                begun: now,
                uid: None,
                early: None,
                ended: None,
            };
            pool.canaries.insert(run.clone(), canary);
            room = room.saturating_sub(1);
            steps.push(Step::Create { key, run, pod });
        }
    }

    fn tell(&mut self, now: Instant, steps: &mut Vec<Step>) {
        let all =
            || self.pools.values().flat_map(|pool| pool.nodes.values()).filter_map(|node| node.tell.as_ref());
        let mut room = MOST_TELLINGS.saturating_sub(all().filter(|tell| tell.is == Telling::Asked).count());
        for (key, pool) in &mut self.pools {
            for (name, node) in &mut pool.nodes {
                if node.tell.as_ref().is_some_and(|tell| tell.until <= now) {
                    node.tell = None;
                }
                let Some(tell) = &mut node.tell else { continue };
                if room == 0 || !matches!(tell.is, Telling::WaitsUntil(time) if time <= now) {
                    continue;
                }
                room = room.saturating_sub(1);
                tell.is = Telling::Asked;
                let left = tell.until.saturating_duration_since(now).as_secs();
                let verdict = Verdict {
                    policy: pool.wanted.digest.clone(),
                    verified: tell.verified,
                    reason: tell.reason.clone(),
                    expires_in_s: u32::try_from(left).unwrap_or(MAX_VERDICT_S),
                };
                steps.push(Step::Tell { key: key.clone(), node: name.clone(), verdict });
            }
        }
    }
}

impl Node {
    fn due(now: Instant) -> Self {
        Self { finding: None, good_until: None, due: now, tell: None }
    }

    fn is_good(&self, now: Instant) -> bool {
        self.good_until.is_some_and(|until| until > now)
    }

    fn is_told(&mut self, verified: bool, reason: &str, until: Instant, now: Instant) {
        let is = Telling::WaitsUntil(now);
        self.tell = Some(Tell { verified, reason: reason.to_owned(), until, is });
    }
}

impl Pool {
    fn period(&self) -> Duration {
        self.wanted.period.min(LONGEST_PERIOD)
    }

    /// How long a verdict counts: a canary may be late once.
    fn lifetime(&self) -> Duration {
        self.period().saturating_mul(2)
    }

    /// Whether what the broker has is this pool, with these policies.
    fn is_at(&self, other: &control::Pool) -> bool {
        other.uid == self.wanted.uid && other.policy.as_ref() == Some(&self.wanted.digest)
    }

    /// Takes over proofs that an operator before this one gave to the broker. Whatever else it was given is found out again.
    fn resume(&mut self, at_broker: Option<&control::Pool>, now: Instant) {
        let (period, lifetime) = (self.period(), self.lifetime());
        for (name, verdict) in at_broker.into_iter().flat_map(|pool| &pool.verdicts) {
            if !verdict.verified || verdict.until <= now || self.nodes.contains_key(name) {
                continue;
            }
            let left = verdict.until.saturating_duration_since(now);
            let node = Node {
                finding: Some(Finding::new(Code::Verified, &verdict.reason)),
                good_until: Some(verdict.until),
                due: after(now, left.saturating_sub(lifetime.saturating_sub(period))),
                tell: Some(Tell {
                    verified: true,
                    reason: verdict.reason.clone(),
                    until: verdict.until,
                    is: Telling::Done(now),
                }),
            };
            self.nodes.insert(name.clone(), node);
        }
    }

    /// Ends canaries: those that say something are judged, those that nobody needs are let go. Whether a look at the controls is needed.
    fn settle(
        &mut self,
        workers: &BTreeSet<&str>,
        controls: &Controls,
        now: Instant,
        mut gone: impl FnMut(Canary),
    ) -> bool {
        let mut wants_look = false;
        let runs: Vec<String> = self.canaries.keys().cloned().collect();
        for run in runs {
            let Some(canary) = self.canaries.get(&run) else { continue };
            let is_stale = canary.digest != self.wanted.digest || canary.touched != self.touched;
            let is_late = now.saturating_duration_since(canary.begun) >= PATIENCE;
            let finding = match &canary.ended {
                // What stood around it while it looked was not what stands there now.
                _ if is_stale || !workers.contains(canary.node.as_str()) => None,
                Some((at, Ending::Said(_))) if !controls.has_looked_since(*at) => {
                    wants_look = true;
                    continue;
                }
                Some((at, ending)) => Some(found(ending, canary, &self.wanted, controls, *at)),
                None if is_late => {
                    let sentence = "the canary did not end in time; does its image start?";
                    Some(Finding::new(Code::CanaryTimedOut, sentence))
                }
                None => continue,
            };
            let Some(canary) = self.canaries.remove(&run) else { continue };
            let (period, lifetime) = (self.period(), self.lifetime());
            if let Some(node) = self.nodes.get_mut(&canary.node) {
                match finding {
                    Some(finding) => node.settle(finding, &canary, (period, lifetime), now),
                    None => node.due = now,
                }
            }
            gone(canary);
        }
        wants_look
    }

    /// Lets go of what has expired.
    fn expire(&mut self, workers: &BTreeSet<&str>, now: Instant) {
        let lifetime = self.lifetime();
        for node in self.nodes.values_mut() {
            if node.good_until.is_some_and(|until| until <= now) {
                node.good_until = None;
                match &node.finding {
                    // Nothing came after the proof; that it expired the broker knows itself.
                    Some(finding) if finding.code == Code::Verified => node.finding = None,
                    Some(finding) => {
                        let reason = finding.sentence.clone();
                        node.is_told(false, &reason, after(now, lifetime), now);
                    }
                    None => {}
                }
            }
        }
        let canaries = &self.canaries;
        self.nodes.retain(|name, node| {
            workers.contains(name.as_str())
                || node.is_good(now)
                || canaries.values().any(|canary| canary.node == *name)
        });
    }

    /// Tells the broker again what it should know and does not, because it lost it.
    fn doubt(&mut self, at_broker: Option<&control::Pool>, now: Instant) {
        let Some(at_broker) = at_broker else { return };
        for (name, node) in &mut self.nodes {
            let Some(tell) = &mut node.tell else { continue };
            let Telling::Done(at) = tell.is else { continue };
            let has_it =
                at_broker.verdicts.get(name).is_some_and(|verdict| verdict.verified == tell.verified);
            if !has_it && now.saturating_duration_since(at) >= TOLD {
                tell.is = Telling::WaitsUntil(now);
            }
        }
    }

    fn isolation(&self, workers: &BTreeSet<&str>, now: Instant) -> Isolation {
        if workers.is_empty() {
            return Isolation::unknown(
                "NoWorkers",
                "no worker is on a node, so that there is nothing to try",
            );
        }
        let mut open: Vec<(&str, &str)> = Vec::new();
        let (mut unknown, mut pending, mut good) = (None, 0_usize, None);
        for name in workers {
            let node = self.nodes.get(*name);
            let finding = node.and_then(|node| node.finding.as_ref());
            match finding {
                Some(finding) if finding.code == Code::Reachable => open.push((name, &finding.sentence)),
                _ if node.is_some_and(|node| node.is_good(now)) => {
                    good = good.or(finding.filter(|finding| finding.code == Code::Verified));
                }
                Some(finding) => unknown = unknown.or(Some((name, finding))),
                None => pending = pending.saturating_add(1),
            }
        }
        if !open.is_empty() {
            let named: Vec<String> = open
                .iter()
                .take(NAMED)
                .map(|(name, sentence)| format!("on node {name}: {sentence}"))
                .collect();
            let more = match open.len().saturating_sub(NAMED) {
                0 => String::new(),
                more => format!("; and on {more} more"),
            };
            let message = format!("{}{more}", named.join("; "));
            return Isolation { status: ConditionStatus::False, reason: Code::Reachable.as_str(), message };
        }
        if let Some((name, finding)) = unknown {
            let message = format!("on node {name}: {}", finding.sentence);
            return Isolation { status: finding.code.status(), reason: finding.code.as_str(), message };
        }
        if pending > 0 {
            return Isolation::unknown("Pending", "canaries have not ended yet on every node with workers");
        }
        // A canary that could not say anything does not take back what the one before it has proved.
        let message =
            good.map_or_else(|| "the last proof still counts".to_owned(), |finding| finding.sentence.clone());
        Isolation { status: ConditionStatus::True, reason: Code::Verified.as_str(), message }
    }
}

impl Node {
    fn settle(
        &mut self,
        finding: Finding,
        canary: &Canary,
        (period, lifetime): (Duration, Duration),
        now: Instant,
    ) {
        match finding.code.status() {
            ConditionStatus::True => {
                let until = after(canary.begun, lifetime);
                self.good_until = Some(until);
                self.due = after(canary.begun, period);
                self.is_told(true, &finding.sentence, until, now);
            }
            ConditionStatus::False => {
                self.good_until = None;
                self.due = after(now, RETRY.min(period));
                self.is_told(false, &finding.sentence, after(now, lifetime), now);
            }
            ConditionStatus::Unknown => {
                self.due = after(now, RETRY.min(period));
                // Once what was disproved cannot be looked at, it stays disproved; once what was proved cannot, it stays until it expires.
                if self.finding.as_ref().is_some_and(|before| before.code == Code::Reachable) {
                    let reason =
                        self.finding.as_ref().map(|before| before.sentence.clone()).unwrap_or_default();
                    self.is_told(false, &reason, after(now, lifetime), now);
                    return;
                }
                if !self.is_good(now) {
                    self.is_told(false, &finding.sentence, after(now, lifetime), now);
                }
            }
        }
        self.finding = Some(finding);
    }
}

fn found(ending: &Ending, canary: &Canary, wanted: &Wanted, controls: &Controls, at: Instant) -> Finding {
    match ending {
        Ending::Said(report) => {
            judge(report, &wanted.targets, |address| controls.is_tested(address, canary.begun, at))
        }
        Ending::Died(why) => {
            Finding::new(Code::CanaryFailed, format!("the canary ended without a report: {why}"))
        }
        Ending::Gone => Finding::new(Code::CanaryGone, "somebody deleted the canary before it ended"),
        Ending::Refused(why) => Finding::new(Code::CanaryRefused, format!("no canary can be made: {why}")),
    }
}

fn after(time: Instant, duration: Duration) -> Instant {
    time.checked_add(duration).unwrap_or(time)
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
