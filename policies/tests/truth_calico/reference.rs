//! Judges one packet by walking Calico's tiers rule after rule, the way Felix renders its chains (`endpointIptablesChain` of
//! `felix/rules/endpoints.go`). Slow and plain: it shares nothing with the evaluator but the model.

use mpegflow_policies::cluster::{Cluster, Pod};
use mpegflow_policies::matching::{Kind, LabelOwner, Match, Test, TrafficMatch};
use mpegflow_policies::policy::{Action, ClusterTier, Dialect, Direction, Place, Policy};
use mpegflow_policies::profile::{Fact, Profile};
use mpegflow_policies::sets::Protocol;
use mpegflow_policies::truth::Truth;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// An end of a packet.
#[derive(Clone, Copy)]
pub(crate) struct End<'a> {
    pub(crate) pod: Option<&'a Pod>,
    pub(crate) address: IpAddr,
}

/// A packet.
#[derive(Clone, Copy)]
pub(crate) struct Packet<'a> {
    pub(crate) source: End<'a>,
    pub(crate) destination: End<'a>,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
}

/// Whether a packet passes both ends under a version of Calico.
pub(crate) fn passes(cluster: &Cluster, profile: Profile, packet: Packet<'_>) -> Truth {
    let ends = [
        (packet.source, packet.destination, Direction::Egress),
        (packet.destination, packet.source, Direction::Ingress),
    ];
    ends.into_iter().fold(Truth::Yes, |all, (subject, peer, direction)| {
        all.and(
            subject.pod.map_or(Truth::Yes, |_| {
                Walk { cluster, profile, packet, subject, peer, direction }.outcome()
            }),
        )
    })
}

struct Walk<'a> {
    cluster: &'a Cluster,
    profile: Profile,
    packet: Packet<'a>,
    subject: End<'a>,
    peer: End<'a>,
    direction: Direction,
}

/// What may have become of a packet so far; several at once where something is not known.
type Fates = BTreeSet<Option<Action>>;

impl Walk<'_> {
    fn outcome(&self) -> Truth {
        let mut tiers: BTreeMap<&str, Vec<&Policy>> = BTreeMap::new();
        for policy in &self.cluster.policies {
            if self.profile.fact(Fact::Enforces(policy.dialect)).truth.may() {
                tiers.entry(tier(policy)).or_default().push(policy);
            }
        }
        let order = |tier: &str| match (self.cluster.tiers.get(tier), tier) {
            (Some(tier), _) => tier.order.unwrap_or(f64::INFINITY),
            (None, "default") => 1e6,
            (None, "kube-admin" | "adminnetworkpolicy") => 1e3,
            (None, "kube-baseline" | "baselineadminnetworkpolicy") => 1e7,
            (None, _) => f64::INFINITY,
        };
        let mut tiers: Vec<(&str, Vec<&Policy>)> = tiers.into_iter().collect();
        tiers.sort_by(|(a, _), (b, _)| order(a).total_cmp(&order(b)));
        let mut undecided = true;
        let (mut may_pass, mut may_drop) = (false, false);
        for (name, mut policies) in tiers {
            policies.sort_by(|a, b| key(a).0.total_cmp(&key(b).0).then_with(|| key(a).1.cmp(&key(b).1)));
            let cluster_wide = name.starts_with("kube-") || name.ends_with("adminnetworkpolicy");
            let pass_at_end =
                cluster_wide || self.cluster.tiers.get(name).is_some_and(|tier| tier.default_pass);
            let fates = self.tier(&policies, pass_at_end, false);
            may_pass |= fates.contains(&Some(Action::Allow));
            may_drop |= fates.contains(&Some(Action::Deny));
            undecided = fates.contains(&Some(Action::Pass));
            if !undecided {
                break;
            }
        }
        // What no tier decides, the profile of the namespace allows.
        match (may_pass || undecided, may_drop) {
            (true, false) => Truth::Yes,
            (true, true) => Truth::Unknown,
            (false, _) => Truth::No,
        }
    }

    /// What a tier may make of the packet: allow, deny, or pass.
    fn tier(&self, policies: &[&Policy], pass_at_end: bool, applied: bool) -> Fates {
        let Some((policy, rest)) = policies.split_first() else {
            let end = if applied && !pass_at_end { Action::Deny } else { Action::Pass };
            return Fates::from([Some(end)]);
        };
        let section = match self.direction {
            Direction::Ingress => &policy.ingress,
            Direction::Egress => &policy.egress,
        };
        let (Some(section), None) = (section, &policy.inert) else {
            return self.tier(rest, pass_at_end, applied);
        };
        let selected = self.matches(&policy.subject, self.subject);
        let mut fates = Fates::new();
        if selected.may() {
            for fate in self.rules(&section.rules) {
                match fate {
                    None => fates.extend(self.tier(rest, pass_at_end, true)),
                    decided => fates.extend([decided]),
                }
            }
            if !policy.doubts.is_empty() {
                fates.extend([Action::Allow, Action::Deny, Action::Pass].map(Some));
            }
        }
        if !selected.must() {
            fates.extend(self.tier(rest, pass_at_end, applied));
        }
        fates
    }

    fn rules(&self, rules: &[mpegflow_policies::policy::Rule]) -> Fates {
        let mut fates = Fates::new();
        for rule in rules {
            let hit = self.matches(&rule.peer, self.peer).and(self.traffic(&rule.traffic));
            if hit.may() {
                fates.insert(Some(rule.action));
            }
            if hit.must() {
                return fates;
            }
        }
        fates.insert(None);
        fates
    }

    fn matches(&self, which: &Match, end: End<'_>) -> Truth {
        match which {
            Match::Anything => Truth::Yes,
            Match::Nothing => Truth::No,
            Match::All(parts) => parts.iter().map(|m| self.matches(m, end)).fold(Truth::Yes, Truth::and),
            Match::OneOf(parts) => parts.iter().map(|m| self.matches(m, end)).fold(Truth::No, Truth::or),
            Match::Not(inner) => !self.matches(inner, end),
            Match::Kind(Kind::Pod) => end.pod.is_some_and(|pod| !pod.host_network).into(),
            Match::Kind(Kind::External) => end.pod.is_none().into(),
            Match::Kind(_) => Truth::No,
            Match::Label { owner, key, test } => {
                end.pod.map_or(Truth::No, |pod| self.label(pod, *owner, key, test))
            }
            Match::Namespace(test) => end.pod.is_some_and(|pod| test.passes(&pod.namespace)).into(),
            Match::ServiceAccount(test) => {
                end.pod.is_some_and(|pod| test.passes(&pod.service_account)).into()
            }
            Match::Name(test) => end.pod.is_some_and(|pod| test.passes(&pod.object.name)).into(),
            Match::Cidr(set) | Match::Address(set) => set.contains(end.address).into(),
            Match::Fact(fact) => self.profile.fact(*fact).truth,
            Match::Domain(_) | Match::KubeApiServer | Match::Doubt(_) => Truth::Unknown,
        }
    }

    fn label(&self, pod: &Pod, owner: LabelOwner, key: &str, test: &Test) -> Truth {
        let labels = match owner {
            LabelOwner::Endpoint => Some(&pod.labels),
            LabelOwner::Namespace => self.cluster.namespaces.get(&pod.namespace).map(|owner| &owner.labels),
            LabelOwner::ServiceAccount => {
                let name = (pod.namespace.clone(), pod.service_account.clone());
                self.cluster.service_accounts.get(&name).map(|owner| &owner.labels)
            }
        };
        labels.map_or(Truth::Unknown, |labels| labels.get(key).is_some_and(|value| test.passes(value)).into())
    }

    fn traffic(&self, which: &TrafficMatch) -> Truth {
        let Packet { protocol, port, destination, .. } = self.packet;
        match which {
            TrafficMatch::Anything => Truth::Yes,
            TrafficMatch::Nothing => Truth::No,
            TrafficMatch::All(parts) => parts.iter().map(|t| self.traffic(t)).fold(Truth::Yes, Truth::and),
            TrafficMatch::OneOf(parts) => parts.iter().map(|t| self.traffic(t)).fold(Truth::No, Truth::or),
            TrafficMatch::Not(inner) => !self.traffic(inner),
            TrafficMatch::Protocol(wanted) => (*wanted == protocol).into(),
            TrafficMatch::Ports(wanted, ports) => (*wanted == protocol && ports.contains(port)).into(),
            TrafficMatch::NamedPort(wanted, name) => {
                let named = |p: &mpegflow_policies::cluster::ContainerPort| {
                    p.name.as_ref() == Some(name) && p.protocol == protocol && p.port == port
                };
                (*wanted == protocol && destination.pod.is_some_and(|pod| pod.ports.iter().any(named))).into()
            }
            TrafficMatch::SourcePorts(wanted, _) if *wanted != protocol => Truth::No,
            TrafficMatch::SourcePorts(..) | TrafficMatch::Doubt(_) => Truth::Unknown,
        }
    }
}

/// The tier of a policy, Kubernetes' own kinds included (`libcalico-go/lib/backend/k8s/conversion`).
fn tier(policy: &Policy) -> &str {
    match (&policy.place, policy.dialect) {
        (Place::Calico { tier, .. }, _) => tier,
        (Place::Cluster { tier: ClusterTier::Admin, .. }, Dialect::AdminNetworkPolicy) => {
            "adminnetworkpolicy"
        }
        (Place::Cluster { tier: ClusterTier::Admin, .. }, _) => "kube-admin",
        (Place::Cluster { tier: ClusterTier::Baseline, .. }, Dialect::AdminNetworkPolicy) => {
            "baselineadminnetworkpolicy"
        }
        (Place::Cluster { tier: ClusterTier::Baseline, .. }, _) => "kube-baseline",
        _ => "default",
    }
}

/// Order, then name, namespace and kind: `PolKVLess` of `felix/calc/policy_sorter.go` in 3.32.
fn key(policy: &Policy) -> (f64, String) {
    let (order, prefix) = match policy.place {
        Place::Calico { order, .. } => (order.unwrap_or(f64::INFINITY), ""),
        Place::Cluster { priority, .. } => (f64::from(priority), "Kubernetes"),
        _ => (1000.0, "Kubernetes"),
    };
    let object = &policy.object;
    let namespace = object.namespace.as_deref().unwrap_or("");
    (order, format!("{}/{namespace}/{prefix}{}", object.name, object.kind))
}
