//! Selectors → [`Match`]: pods by their labels, and the addresses of the sets that are selected, too.

use super::selector::{
    NAME, NAMESPACE, OF_NAMESPACE, OF_SERVICE_ACCOUNT, ORCHESTRATOR, SERVICE_ACCOUNT, Selector,
};
use super::set::LabelledNets;
use crate::cluster::Cluster;
use crate::matching::{Kind, LabelOwner, Match, Test};
use crate::sets::{AddressSet, Cidr};
use crate::truth::{Doubt, Truth};
use std::sync::Arc;

/// What selectors are read against.
pub(super) struct Members<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) sets: Vec<&'a LabelledNets>,
    /// Whether a pod has labels of its own that look inherited. They then win over what it does inherit
    /// (`endpointData.GetHandle` of `felix/labelindex/named_port_index.go`): whoever labels a pod `pcns.…` chooses its namespace
    /// labels.
    disguised: bool,
}

impl<'a> Members<'a> {
    pub(super) fn new(cluster: &'a Cluster, sets: Vec<&'a LabelledNets>) -> Self {
        let inherited = |key: &Arc<str>| key.starts_with(OF_NAMESPACE) || key.starts_with(OF_SERVICE_ACCOUNT);
        let disguised = cluster.pods.iter().any(|pod| pod.labels.keys().any(inherited));
        Self { cluster, sets, disguised }
    }

    /// Pods, with what is selected beside them: the addresses of NetworkSets and host endpoints. Calico makes one set of
    /// addresses of all.
    pub(super) fn of(&self, selector: &Selector) -> Match {
        let (mut sure, mut unsure, mut parts) = (Vec::new(), Vec::new(), vec![self.pods(selector)]);
        for set in &self.sets {
            let nets: &mut Vec<Cidr> = match selector.holds(&|key, test| set.passes(self.cluster, key, test))
            {
                Truth::No => continue,
                Truth::Unknown => &mut unsure,
                Truth::Yes => &mut sure,
            };
            nets.extend(&set.nets);
            parts.extend(set.doubts.iter().cloned().map(Match::Doubt));
        }
        if !sure.is_empty() {
            parts.push(Match::Cidr(AddressSet::blocks(sure)));
        }
        if !unsure.is_empty() {
            let what = "whether the selector matches a NetworkSet hangs on labels of a namespace that is not in the input";
            parts.push(all([Match::Cidr(AddressSet::blocks(unsure)), Match::Doubt(Doubt::new(what))]));
        }
        any(parts)
    }

    /// The pods that a selector matches. Host-network pods are not endpoints of Calico.
    pub(super) fn pods(&self, selector: &Selector) -> Match {
        all([Match::Kind(Kind::Pod), self.labels(selector)])
    }

    fn labels(&self, selector: &Selector) -> Match {
        match selector {
            Selector::All | Selector::Global => Match::Anything,
            Selector::Label(key, test) => self.label(key, test),
            Selector::Not(inner) => not(self.labels(inner)),
            Selector::And(parts) => all(parts.iter().map(|part| self.labels(part))),
            Selector::Or(parts) => any(parts.iter().map(|part| self.labels(part))),
        }
    }

    /// A label as pods have it: their own, what Calico adds, what they inherit
    /// (`libcalico-go/lib/backend/k8s/conversion/workload_endpoint_default.go`, `conversion.go`).
    fn label(&self, key: &Arc<str>, test: &Test) -> Match {
        let of = |owner, key: &str| Match::Label { owner, key: key.into(), test: test.clone() };
        match &**key {
            NAMESPACE if *test == Test::Exists => return Match::Anything,
            NAMESPACE => return Match::Namespace(test.clone()),
            ORCHESTRATOR if test.passes("k8s") => return Match::Anything,
            ORCHESTRATOR => return Match::Nothing,
            SERVICE_ACCOUNT => return account(test),
            _ => {}
        }
        let inherited = if let Some(key) = key.strip_prefix(OF_NAMESPACE) {
            if key == NAME { Match::Namespace(test.clone()) } else { of(LabelOwner::Namespace, key) }
        } else if let Some(key) = key.strip_prefix(OF_SERVICE_ACCOUNT) {
            if key == NAME {
                Match::ServiceAccount(test.clone())
            } else {
                of(LabelOwner::ServiceAccount, key)
            }
        } else {
            return of(LabelOwner::Endpoint, key);
        };
        if !self.disguised {
            return inherited;
        }
        let own = Match::Label { owner: LabelOwner::Endpoint, key: key.clone(), test: Test::Exists };
        any([of(LabelOwner::Endpoint, key), all([inherited, not(own)])])
    }
}

/// The label with a service account's name, which only names of fewer than 63 characters get.
fn account(test: &Test) -> Match {
    const TOO_LONG: usize = 63;
    match test {
        Test::Is(name) if name.len() >= TOO_LONG => Match::Nothing,
        Test::In(names) => {
            let names: Vec<Arc<str>> = names.iter().filter(|name| name.len() < TOO_LONG).cloned().collect();
            if names.is_empty() { Match::Nothing } else { Match::ServiceAccount(Test::In(names)) }
        }
        other => Match::ServiceAccount(other.clone()),
    }
}

/// What this does not match.
pub(super) fn not(this: Match) -> Match {
    match this {
        Match::Anything => Match::Nothing,
        Match::Nothing => Match::Anything,
        Match::Not(inner) => *inner,
        other => other.negate(),
    }
}

/// What all of these match, without needless nesting and repetition.
pub(super) fn all(parts: impl IntoIterator<Item = Match>) -> Match {
    let mut kept: Vec<Match> = Vec::new();
    let mut keep = |part: Match| {
        if !kept.contains(&part) {
            kept.push(part);
        }
    };
    for part in parts {
        match part {
            Match::Anything => {}
            Match::Nothing => return Match::Nothing,
            Match::All(inner) => inner.into_iter().for_each(&mut keep),
            other => keep(other),
        }
    }
    match kept.pop() {
        None => Match::Anything,
        Some(only) if kept.is_empty() => only,
        Some(last) => {
            kept.push(last);
            Match::All(kept)
        }
    }
}

/// What at least one of these matches, without needless nesting.
pub(super) fn any(parts: impl IntoIterator<Item = Match>) -> Match {
    let mut kept = Vec::new();
    for part in parts {
        match part {
            Match::Nothing => {}
            Match::Anything => return Match::Anything,
            other => kept.push(other),
        }
    }
    match kept.pop() {
        None => Match::Nothing,
        Some(only) if kept.is_empty() => only,
        Some(last) => {
            kept.push(last);
            Match::OneOf(kept)
        }
    }
}
