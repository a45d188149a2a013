//! What does not borrow: everything that a verdict is computed from, and the outcome of one pair.

use super::applied::Applied;
use super::bits::Tri;
use super::endpoints::{Item, Shape};
use super::lower::{asks_for_names, lower, names_asked, source_atoms};
use super::one::One;
use super::port_names::port_names;
use super::select::Select;
use super::side::{ALLOWED, Join, Outcome, OutcomeId, Sides, UNKNOWN};
use super::stages::{CompiledRule, Expressions, Stage, stages};
use super::traffic_table::{ALL, NONE, TrafficId, TrafficTable};
use super::{ClassId, EndpointId};
use crate::cluster::ContainerPort;
use crate::policy::{Dialect, Direction};
use crate::profile::Fact;
use crate::sets::{Protocol, Traffic};
use crate::truth::Truth;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// What does not borrow: everything that a verdict is computed from.
pub(super) struct Core {
    pub(super) stages: Vec<Stage>,
    pub(super) selections: Vec<Tri>,
    /// What each traffic expression surely and possibly matches.
    pub(super) lowered: Vec<Lowered>,
    pub(super) shapes: Vec<Shape>,
    /// For each endpoint, the number of its table of port names; 0 is for who has none, 1 for whose are not known.
    pub(super) port_names: Vec<u32>,
    /// Groups of source ports that some rule tells apart; one where none does.
    pub(super) source_groups: usize,
    pub(super) classes: Vec<ClassId>,
    pub(super) class_members: Vec<Vec<EndpointId>>,
    /// By direction and class, the steps that select it.
    pub(super) applied: [Vec<Vec<Applied>>; 2],
    /// Protocols that NetworkPolicies apply to, surely and possibly.
    pub(super) network_policy_lanes: (TrafficId, TrafficId),
    pub(super) is_network_policy: Vec<bool>,
    own_node_in: Truth,
    own_node_out: Truth,
    host_network_subject: Truth,
    sees_service_address: Truth,
    /// Endpoints that policies may apply to although they are nodes.
    pub(super) node_subjects: Truth,
    /// The numbers that the rest of this speaks in, and what single pairs have added to them.
    pub(super) sides: Mutex<Sides>,
}

/// What a traffic expression surely and possibly matches, for each group of source ports.
pub(super) enum Lowered {
    /// Whatever the destination calls its ports.
    Same(Vec<(TrafficId, TrafficId)>),
    /// By the number of the destination's table of port names.
    ByNames(Vec<Vec<(TrafficId, TrafficId)>>),
}

impl Core {
    pub(super) fn new(one: One<'_>, items: &[Item<'_>]) -> Self {
        let One { cluster, profile, .. } = one;
        let mut sides = Sides::new();
        let mut select = Select::new(one, items);
        let mut expressions = Expressions::default();
        let stages = stages(cluster, profile, &mut select, &mut expressions);
        let selections = select.into_results();
        let shapes: Vec<Shape> = items.iter().map(|item| item.shape).collect();

        let atoms = source_atoms(&expressions);
        let (port_names, name_tables) = port_names(&expressions, items);
        let lowered: Vec<Lowered> = expressions
            .all
            .iter()
            .map(|(what, dialect)| {
                let mut table = |ports: Option<&[ContainerPort]>| -> Vec<(TrafficId, TrafficId)> {
                    (0..atoms.len())
                        .map(|group| {
                            let (lo, hi) = lower(what, ports, &atoms, group, Some((*dialect, profile)));
                            (sides.traffic.id(lo), sides.traffic.id(hi))
                        })
                        .collect()
                };
                if asks_for_names(what) {
                    // Most tables do not differ in the names that one expression asks for.
                    let asked = names_asked(what);
                    let mut known: HashMap<Option<Vec<&ContainerPort>>, Vec<(TrafficId, TrafficId)>> =
                        HashMap::new();
                    let each = name_tables.iter().map(|ports| {
                        let asked_of = ports.as_ref().map(|ports| {
                            let is_asked = |port: &&ContainerPort| {
                                let name = port.name.as_ref();
                                name.is_some_and(|name| asked.contains(&(&**name, port.protocol)))
                            };
                            ports.iter().filter(is_asked).collect::<Vec<_>>()
                        });
                        known.entry(asked_of).or_insert_with(|| table(ports.as_deref())).clone()
                    });
                    Lowered::ByNames(each.collect())
                } else {
                    Lowered::Same(table(None))
                }
            })
            .collect();
        let port_lanes = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
            .iter()
            .fold(Traffic::none(), |all, protocol| all.union(&protocol.traffic()));
        let port_lanes = sides.traffic.id(port_lanes);
        // Where SCTP is not filtered for sure, being isolated does not stop it for sure.
        let sctp_lane = sides.traffic.id(Protocol::Sctp.traffic());
        let without_sctp = |table: &mut TrafficTable, id| match profile.fact(Fact::IsolationStopsSctp).truth {
            Truth::Yes => id,
            Truth::Unknown | Truth::No => table.difference(id, sctp_lane),
        };
        let (surely, possibly) = match profile.fact(Fact::PolicesOtherProtocols).truth {
            Truth::Yes => (ALL, ALL),
            Truth::Unknown => (port_lanes, ALL),
            Truth::No => (port_lanes, port_lanes),
        };
        let network_policy_lanes = (without_sctp(&mut sides.traffic, surely), possibly);
        // Policies for nodes (Calico's host endpoints, Cilium's host firewall) are not modelled: what they may select is open.
        let selects_nodes = stages.iter().flat_map(|stage| stage.bands.iter().flatten()).any(|step| {
            let subject = usize::try_from(step.subject).ok().and_then(|i| selections.get(i));
            subject.is_some_and(|tri| {
                shapes.iter().enumerate().any(|(i, shape)| {
                    matches!(shape, Shape::LocalNode | Shape::RemoteNode) && tri.get(i).may()
                })
            })
        });
        let node_subjects =
            if selects_nodes || !cluster.host_endpoints.is_empty() { Truth::Unknown } else { Truth::No };
        let truth = |fact| profile.fact(fact).truth;
        let mut core = Self {
            stages,
            selections,
            lowered,
            shapes,
            port_names,
            source_groups: atoms.len(),
            classes: Vec::new(),
            class_members: Vec::new(),
            applied: [Vec::new(), Vec::new()],
            network_policy_lanes,
            is_network_policy: cluster.policies.iter().map(|p| p.dialect == Dialect::NetworkPolicy).collect(),
            own_node_in: truth(Fact::OwnNodeIsLetIn),
            own_node_out: truth(Fact::OwnNodeIsLetOut),
            host_network_subject: truth(Fact::HostNetworkIsSubject),
            sees_service_address: truth(Fact::SeesClusterIp),
            node_subjects,
            sides: Mutex::new(sides),
        };
        core.classify(items);
        core.apply();
        core
    }

    /// The numbers, for one who goes on counting on its own.
    pub(super) fn sides(&self) -> Sides {
        self.sides.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn is_subject(&self, endpoint: usize) -> bool {
        matches!(self.shapes.get(endpoint), Some(Shape::Pod))
    }

    /// Why a pair passes without any policy's say.
    pub(super) fn exempt(&self, from: usize, to: usize) -> Option<&'static str> {
        let shape = |i: usize| self.shapes.get(i);
        if from == to {
            Some("traffic of a pod to itself is never filtered")
        } else if shape(from) == Some(&Shape::HostPod) {
            Some("the source is on its node's network, outside every policy for pods")
        } else if shape(from) == Some(&Shape::LocalNode) && self.own_node_in.must() {
            Some("a pod's own node always reaches it")
        } else {
            None
        }
    }

    /// The outcome of a pair.
    pub(super) fn pair(&self, sides: &mut Sides, from: usize, to: usize) -> OutcomeId {
        if from == to { ALLOWED } else { self.judged(sides, from, to) }
    }

    /// The same where policies judge what a pod sends to itself, as it comes back through a Service.
    pub(super) fn judged(&self, sides: &mut Sides, from: usize, to: usize) -> OutcomeId {
        let mut joined = None;
        for group in 0..self.source_groups {
            let egress = self.side(sides, Direction::Egress, from, to, group);
            let ingress = self.side(sides, Direction::Ingress, to, from, group);
            let both = sides.join(Join::Both, egress, ingress);
            joined = Some(match joined {
                None => both,
                Some(before) => sides.join(Join::Pick, before, both),
            });
        }
        joined.unwrap_or(UNKNOWN)
    }

    /// The outcome of one side of a pair.
    pub(super) fn side(
        &self,
        sides: &mut Sides,
        direction: Direction,
        subject: usize,
        peer: usize,
        group: usize,
    ) -> OutcomeId {
        let outcome = match self.shapes.get(subject) {
            Some(Shape::Pod) => {
                let state = self.run(sides, direction, subject, peer, group, &mut None);
                sides.end(state)
            }
            Some(Shape::HostPod) if self.host_network_subject != Truth::No => UNKNOWN,
            Some(Shape::HostPod | Shape::LocalNode | Shape::RemoteNode) if self.node_subjects.may() => {
                UNKNOWN
            }
            _ => ALLOWED,
        };
        self.exempted(sides, direction, subject, peer, outcome)
    }

    /// Whether a profile lets it through whatever policies say.
    pub(super) fn let_through(&self, direction: Direction, subject: usize, peer: usize) -> Truth {
        let shape = |i: usize| self.shapes.get(i).copied();
        match (direction, shape(peer)) {
            _ if shape(subject) != Some(Shape::Pod) => Truth::No,
            (Direction::Ingress, Some(Shape::LocalNode)) => self.own_node_in,
            (Direction::Egress, Some(Shape::LocalNode)) => self.own_node_out,
            // It may run on the same node, and then counts as that.
            (Direction::Ingress, Some(Shape::HostPod)) => self.own_node_in.and(Truth::Unknown),
            (Direction::Egress, Some(Shape::HostPod)) => self.own_node_out.and(Truth::Unknown),
            _ => Truth::No,
        }
    }

    /// What a profile lets through, or may, whatever policies say.
    pub(super) fn exempted(
        &self,
        sides: &mut Sides,
        direction: Direction,
        subject: usize,
        peer: usize,
        outcome: OutcomeId,
    ) -> OutcomeId {
        let shape = |i: usize| self.shapes.get(i).copied();
        let outcome = match self.let_through(direction, subject, peer) {
            Truth::Yes => ALLOWED,
            Truth::Unknown => sides.join(Join::Either, outcome, ALLOWED),
            Truth::No => outcome,
        };
        // Where it is not known whether policies see a Service's own address, a packet to it may also stand for one to a
        // backend, whose verdict is its own.
        let service = direction == Direction::Egress && shape(peer) == Some(Shape::ServiceAddress);
        if service && self.sees_service_address == Truth::Unknown {
            let denied = sides.outcome_id(Outcome { allowed: NONE, denied: ALL, unknown: NONE });
            return sides.join(Join::Either, outcome, denied);
        }
        outcome
    }

    /// The outcome of the source's side alone.
    pub(super) fn egress(&self, sides: &mut Sides, from: usize, to: usize) -> OutcomeId {
        self.one_side(sides, Direction::Egress, from, to)
    }

    /// The outcome of the destination's side alone.
    pub(super) fn ingress(&self, sides: &mut Sides, from: usize, to: usize) -> OutcomeId {
        self.one_side(sides, Direction::Ingress, to, from)
    }

    fn one_side(&self, sides: &mut Sides, direction: Direction, subject: usize, peer: usize) -> OutcomeId {
        let mut joined = None;
        for group in 0..self.source_groups {
            let own = self.side(sides, direction, subject, peer, group);
            joined = Some(match joined {
                None => own,
                Some(before) => sides.join(Join::Pick, before, own),
            });
        }
        joined.unwrap_or(UNKNOWN)
    }

    pub(super) fn selected(&self, selection: u32, endpoint: usize) -> Truth {
        let index = usize::try_from(selection).unwrap_or(usize::MAX);
        self.selections.get(index).map_or(Truth::No, |tri| tri.get(endpoint))
    }

    /// What a rule surely and possibly matches of traffic to a destination.
    pub(super) fn lowered(
        &self,
        rule: &CompiledRule,
        destination: usize,
        group: usize,
    ) -> (TrafficId, TrafficId) {
        let at = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
        let groups = match self.lowered.get(at(rule.traffic)) {
            Some(Lowered::Same(groups)) => Some(groups),
            Some(Lowered::ByNames(tables)) => {
                tables.get(at(self.port_names.get(destination).copied().unwrap_or_default()))
            }
            None => None,
        };
        groups.and_then(|groups| groups.get(group)).copied().unwrap_or((NONE, ALL))
    }
}
