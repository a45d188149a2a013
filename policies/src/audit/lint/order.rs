//! What policies do to each other: an allow that comes before an isolation, and ties that nothing breaks.

use super::{Lint, section, sections};
use crate::audit::select::Party;
use crate::audit::{DecidingRule, Finding, Witness, catalog};
use crate::cluster::Pod;
use crate::matching::Match;
use crate::policy::{Action, ClusterTier, Dialect, Direction, Place, Policy, Rule, Section};
use crate::profile::{Pipeline, Standing};
use crate::sets::{AddressSet, Protocol, Traffic};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

/// An address that stands for the outside where a rule names none: TEST-NET-3 of RFC 5737.
const OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 77));
/// Pods of a policy that are tried for an example; the first one nearly always is one.
const MOST_TRIES: usize = 3;
/// Peers of a rule that are tried for an example.
const MOST_EXAMPLES: usize = 50;

/// A policy that comes before NetworkPolicies, with what it allows.
struct Early<'a> {
    policy: &'a Policy,
    allows: Vec<Allow<'a>>,
}

/// A rule that allows.
struct Allow<'a> {
    direction: Direction,
    /// Its place in its section.
    index: usize,
    rule: &'a Rule,
    /// Some of those whom it surely means.
    others: Vec<Party<'a>>,
}

/// A pod in one direction, and who is at the other end.
#[derive(Clone, Copy)]
struct Pair<'a> {
    pod: &'a Pod,
    direction: Direction,
    other: Party<'a>,
}

/// Where a policy stands among all; less comes first.
enum Rank {
    /// Outside Calico: stage (0 Admin, 1 NetworkPolicies, 2 Baseline), priority.
    Standard(u8, u16),
    /// Calico's own order.
    Calico(Standing),
}

impl<'a> Lint<'a> {
    /// Isolations of NetworkPolicies that an earlier allow undoes.
    pub(super) fn undone(&self, found: &mut Vec<Finding>) {
        let early: Vec<Early<'a>> = self.live.iter().filter_map(|policy| self.early(policy)).collect();
        if early.is_empty() {
            return;
        }
        for policy in self.live.iter().filter(|policy| policy.dialect == Dialect::NetworkPolicy) {
            let isolating = sections(policy).filter(|(_, section)| section.isolates.must());
            for (direction, _) in isolating.filter(|_| policy.doubts.is_empty()) {
                let mut told = BTreeSet::new();
                for other in &early {
                    if told.contains(&other.policy.object)
                        || self.order(other.policy, policy) != Some(Ordering::Less)
                    {
                        continue;
                    }
                    if let Some(finding) = self.undone_by(policy, other, direction) {
                        told.insert(&other.policy.object);
                        found.push(finding);
                    }
                }
            }
        }
    }

    /// A policy that stands before NetworkPolicies and allows something.
    fn early(&self, policy: &'a Policy) -> Option<Early<'a>> {
        let is_early =
            matches!(policy.place, Place::Calico { .. } | Place::Cluster { tier: ClusterTier::Admin, .. });
        let is_sure = policy.doubts.is_empty() && self.select.profile.enforces(policy).truth.must();
        if !is_early || !is_sure {
            return None;
        }
        let rules = sections(policy).flat_map(|(direction, section)| {
            section.rules.iter().enumerate().map(move |(index, rule)| (direction, index, rule))
        });
        let allows = rules.filter(|(.., rule)| rule.action == Action::Allow);
        let allows: Vec<_> = allows
            .map(|(direction, index, rule)| Allow {
                direction,
                index,
                rule,
                others: self.examples(rule, policy.dialect),
            })
            .collect();
        (!allows.is_empty()).then_some(Early { policy, allows })
    }

    fn undone_by(&self, policy: &'a Policy, early: &Early<'a>, direction: Direction) -> Option<Finding> {
        let both = self.near(policy).filter(|pod| {
            !pod.host_network
                && !pod.finished
                && self.selects(policy, pod).must()
                && self.selects(early.policy, pod).must()
        });
        for pod in both.take(MOST_TRIES) {
            let involved: Vec<&'a Policy> =
                self.live.iter().copied().filter(|other| self.selects(other, pod).may()).collect();
            for allow in early.allows.iter().filter(|allow| allow.direction == direction) {
                for other in allow.others.iter().filter(|other| !is_pod(**other, pod)) {
                    let pair = Pair { pod, direction, other: *other };
                    let traffic = self.undoes(policy, early.policy, allow, &involved, pair);
                    if let Some(packet) = traffic.example() {
                        return Some(undone(policy, early.policy, allow.rule, pair, packet));
                    }
                }
            }
        }
        None
    }

    /// Traffic that a rule surely lets through, and that the NetworkPolicies would surely not.
    fn undoes(
        &self,
        policy: &'a Policy,
        early: &'a Policy,
        allow: &Allow<'a>,
        involved: &[&'a Policy],
        pair: Pair<'a>,
    ) -> Traffic {
        let mut left = self.traffic(early, allow.rule, pair).0;
        let own = section(early, pair.direction).into_iter().flat_map(|section| &section.rules);
        for before in own.take(allow.index) {
            left = left.difference(&self.possibly(early, before, pair, |action| action != Action::Allow));
        }
        for other in involved.iter().copied().filter(|other| !std::ptr::eq(*other, early)) {
            let Some(section) = section(other, pair.direction) else { continue };
            // What is not asked in any known place may be asked before.
            if !other.doubts.is_empty() || self.rank(other).is_none() {
                return Traffic::none();
            }
            let is_before = self.order(other, early) != Some(Ordering::Greater);
            if is_before && self.ends_in_denial(other, early) {
                return Traffic::none();
            }
            // Of what comes before, denials count; of what stands with the NetworkPolicy, what is allowed anyway.
            if is_before || self.stands_with(other, policy) {
                let counts =
                    |action| if is_before { action != Action::Allow } else { action != Action::Deny };
                for rule in &section.rules {
                    left = left.difference(&self.possibly(other, rule, pair, counts));
                }
            }
        }
        left
    }

    /// Traffic of a rule between a pair: surely and possibly.
    fn traffic(&self, policy: &Policy, rule: &Rule, pair: Pair<'a>) -> (Traffic, Traffic) {
        let destination = if pair.direction == Direction::Egress { pair.other } else { Party::Pod(pair.pod) };
        self.select.traffic(&rule.traffic, destination, policy.dialect)
    }

    fn possibly(
        &self,
        policy: &Policy,
        rule: &Rule,
        pair: Pair<'a>,
        counts: impl Fn(Action) -> bool,
    ) -> Traffic {
        if counts(rule.action) && self.select.truth(&rule.peer, pair.other, policy.dialect).may() {
            self.traffic(policy, rule, pair).1
        } else {
            Traffic::none()
        }
    }

    /// Some of those whom a rule surely means: pods, then addresses.
    fn examples(&self, rule: &Rule, dialect: Dialect) -> Vec<Party<'a>> {
        let is_peer = |party: &Party<'a>| self.select.truth(&rule.peer, *party, dialect).must();
        let pods = self.crowd.perhaps(&self.select, &rule.peer, None);
        let pods = pods.filter(|other| !other.host_network && !other.finished);
        let mut sets = vec![AddressSet::full()];
        blocks(&rule.peer, &mut sets);
        let is_ours = |address: &IpAddr| {
            self.cluster.pods.iter().any(|pod| pod.addresses.contains(address))
                || self
                    .cluster
                    .nodes
                    .iter()
                    .any(|node| node.addresses.contains(address) || node.pod_cidrs.contains(*address))
        };
        let addresses =
            sets.iter().filter_map(|set| if set.contains(OUTSIDE) { Some(OUTSIDE) } else { set.example() });
        let outside = addresses.filter(|address| !is_ours(address)).map(|a| Party::Outside(Some(a)));
        let mut examples: Vec<Party<'a>> = pods.map(Party::Pod).filter(is_peer).take(MOST_EXAMPLES).collect();
        examples.extend(outside.filter(is_peer).take(MOST_EXAMPLES));
        examples
    }

    /// Which of two policies is asked first; `None` where that is not defined or one is not asked.
    fn order(&self, a: &Policy, b: &Policy) -> Option<Ordering> {
        match (self.rank(a)?, self.rank(b)?) {
            (Rank::Standard(stage, priority), Rank::Standard(other_stage, other_priority)) => {
                match (stage, priority).cmp(&(other_stage, other_priority)) {
                    // Between different policies nothing says which.
                    Ordering::Equal if a.object != b.object => None,
                    order => Some(order),
                }
            }
            (Rank::Calico(a), Rank::Calico(b)) => Some(a.compare(&b)),
            _ => None,
        }
    }

    fn rank(&self, policy: &Policy) -> Option<Rank> {
        match self.select.profile.pipeline() {
            Pipeline::CalicoTiers => {
                Standing::of(self.select.profile, &self.cluster.tiers, policy).map(Rank::Calico)
            }
            Pipeline::Standard => match policy.place {
                Place::Cluster { tier: ClusterTier::Admin, priority } => Some(Rank::Standard(0, priority)),
                Place::Kubernetes | Place::Cilium => Some(Rank::Standard(1, 0)),
                Place::Cluster { tier: ClusterTier::Baseline, priority } => Some(Rank::Standard(2, priority)),
                Place::Calico { .. } => None,
            },
        }
    }

    /// Whether a policy makes its tier end in denial before another's tier is asked.
    fn ends_in_denial(&self, policy: &Policy, other: &Policy) -> bool {
        match (self.rank(policy), self.rank(other)) {
            (Some(Rank::Calico(a)), Some(Rank::Calico(b))) => a.tier != b.tier && !a.default_pass,
            _ => false,
        }
    }

    /// Whether what a policy allows passes a NetworkPolicy, too.
    fn stands_with(&self, policy: &Policy, network_policy: &Policy) -> bool {
        match (self.rank(policy), self.rank(network_policy)) {
            (Some(Rank::Calico(a)), Some(Rank::Calico(b))) => {
                policy.dialect == Dialect::NetworkPolicy
                    || (a.tier == b.tier && a.compare(&b) != Ordering::Less)
            }
            (Some(Rank::Standard(a, _)), Some(Rank::Standard(b, _))) => a == b,
            // What is not asked in any known place may be asked here.
            _ => true,
        }
    }

    /// Cluster-wide policies of equal priority that do different things to the same packet.
    pub(super) fn ambiguous(&self, found: &mut Vec<Finding>) {
        let mut bands: BTreeMap<(Dialect, ClusterTier, u16), Vec<&'a Policy>> = BTreeMap::new();
        for policy in &self.live {
            if let Place::Cluster { tier, priority } = policy.place {
                bands.entry((policy.dialect, tier, priority)).or_default().push(policy);
            }
        }
        for ((.., priority), band) in bands {
            for (index, second) in band.iter().enumerate() {
                for first in band.iter().take(index).filter(|first| first.object != second.object) {
                    let Some(pod) = self.disputed(first, second) else { continue };
                    let reason = format!(
                        "{} and {} both have priority {priority} and say different things of the same traffic of {}",
                        first.object, second.object, pod.object
                    );
                    let at = Some(second.at.clone());
                    found.push(Finding::certain(
                        &catalog::AMBIGUOUS_ORDER,
                        second.object.clone(),
                        at,
                        reason,
                    ));
                }
            }
        }
    }

    /// A pod that two policies surely select and surely treat differently.
    fn disputed(&self, first: &'a Policy, second: &'a Policy) -> Option<&'a Pod> {
        let pods = self.cluster.pods.iter().filter(|pod| {
            !pod.host_network && self.selects(first, pod).must() && self.selects(second, pod).must()
        });
        pods.take(MOST_TRIES).find(|pod| {
            [Direction::Ingress, Direction::Egress].into_iter().any(|direction| {
                let Some((a, b)) = section(first, direction).zip(section(second, direction)) else {
                    return false;
                };
                self.differ((first, a), (second, b), pod, direction)
            })
        })
    }

    /// Whether the first rule of one that decides some packet does something else than the other's.
    fn differ(
        &self,
        (first, a): (&Policy, &Section),
        (second, b): (&Policy, &Section),
        pod: &'a Pod,
        direction: Direction,
    ) -> bool {
        let known = |action: Action| action != Action::Unknown;
        let pairs = a
            .rules
            .iter()
            .enumerate()
            .flat_map(|(i, x)| b.rules.iter().enumerate().map(move |(j, y)| (i, x, j, y)));
        let mut different =
            pairs.filter(|(_, x, _, y)| known(x.action) && known(y.action) && x.action != y.action);
        different.any(|(i, x, j, y)| {
            let others = self.examples(x, first.dialect).into_iter().chain(self.examples(y, second.dialect));
            others.filter(|other| !is_pod(*other, pod)).any(|other| {
                let pair = Pair { pod, direction, other };
                let must = |policy: &Policy, rule: &Rule| {
                    self.select.truth(&rule.peer, other, policy.dialect).must()
                };
                if !must(first, x) || !must(second, y) {
                    return false;
                }
                let mut both = self.traffic(first, x, pair).0.intersection(&self.traffic(second, y, pair).0);
                let before = a.rules.iter().take(i).map(|rule| (first, rule));
                for (policy, rule) in before.chain(b.rules.iter().take(j).map(|rule| (second, rule))) {
                    both = both.difference(&self.possibly(policy, rule, pair, |_| true));
                }
                !both.is_none()
            })
        })
    }
}

fn undone(
    policy: &Policy,
    early: &Policy,
    rule: &Rule,
    pair: Pair<'_>,
    (protocol, port): (Protocol, u16),
) -> Finding {
    let Pair { pod, direction, other } = pair;
    let (own, other) = (pod.object.to_string(), name(other));
    let reason = format!(
        "{} isolates {own} for {direction}, but {} {} ({}) comes first and lets through what it does not",
        policy.object, early.object, rule.path, rule.at
    );
    let (source, destination) = match direction {
        Direction::Ingress => (other, own),
        Direction::Egress => (own, other),
    };
    let deciding = DecidingRule {
        direction,
        policy: Some(early.object.clone()),
        rule: Some(rule.path.clone()),
        at: Some(rule.at.clone()),
    };
    let witness = Witness { source, destination, protocol, port, rules: vec![deciding] };
    let finding = Finding::certain(&catalog::UNDONE, policy.object.clone(), Some(policy.at.clone()), reason);
    Finding { witness: Some(witness), ..finding }
}

fn is_pod(party: Party<'_>, pod: &Pod) -> bool {
    matches!(party, Party::Pod(other) if std::ptr::eq(other, pod))
}

/// Sets of addresses that an expression names.
fn blocks(what: &Match, sets: &mut Vec<AddressSet>) {
    match what {
        Match::All(parts) | Match::OneOf(parts) => parts.iter().for_each(|part| blocks(part, sets)),
        Match::Cidr(set) | Match::Address(set) => sets.push(set.clone()),
        _ => {}
    }
}

fn name(party: Party<'_>) -> String {
    match party {
        Party::Pod(pod) => pod.object.to_string(),
        Party::Outside(Some(address)) => address.to_string(),
        Party::Node(node) => format!("Node {}", node.name),
        _ => "somebody".to_owned(),
    }
}
