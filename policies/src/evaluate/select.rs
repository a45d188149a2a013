//! Which endpoints an expression matches, for all of them at once: an index of labels, and algebra on bits.

use super::bits::{Bits, Tri};
use super::endpoints::{Item, Shape};
use crate::cluster::{ADDED_BY_CONTROLLERS, Cluster};
use crate::matching::{DomainPattern, Kind, LabelOwner, Match, Test};
use crate::policy::{ClusterTier, Dialect};
use crate::profile::{Fact, Profile};
use crate::sets::AddressSet;
use crate::truth::{Doubt, Truth};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Postings of one label key: value → endpoints, ascending.
type Postings<'a> = HashMap<&'a str, Vec<u32>>;

/// Answers which endpoints match.
pub(super) struct Select<'a> {
    cluster: &'a Cluster,
    profile: Profile,
    trusted: &'a [Arc<str>],
    items: &'a [Item<'a>],
    labels: HashMap<&'a str, Postings<'a>>,
    namespaces: BTreeMap<&'a str, Vec<u32>>,
    templates: Vec<u32>,
    host_pods: Vec<u32>,
    /// Addresses of the API server, where the input has them.
    kube_api: AddressSet,
    known: HashMap<(Match, Option<Dialect>), u32>,
    results: Vec<Tri>,
}

impl<'a> Select<'a> {
    pub(super) fn new(
        cluster: &'a Cluster,
        profile: Profile,
        trusted: &'a [Arc<str>],
        items: &'a [Item<'a>],
    ) -> Self {
        let mut select = Self {
            cluster,
            profile,
            trusted,
            items,
            labels: HashMap::new(),
            namespaces: BTreeMap::new(),
            templates: Vec::new(),
            host_pods: Vec::new(),
            kube_api: crate::places::kube_api_addresses(cluster),
            known: HashMap::new(),
            results: Vec::new(),
        };
        for (i, item) in items.iter().enumerate() {
            let i = u32::try_from(i).unwrap_or(u32::MAX);
            for (key, value) in item.labels.into_iter().flatten() {
                select.labels.entry(key).or_default().entry(value).or_default().push(i);
            }
            if let Some(namespace) = item.namespace {
                select.namespaces.entry(namespace).or_default().push(i);
            }
            if item.is_template {
                select.templates.push(i);
            }
            if item.shape == Shape::HostPod {
                select.host_pods.push(i);
            }
        }
        select
    }

    /// The number of a result, computed once for each expression and dialect.
    pub(super) fn number(&mut self, what: &Match, dialect: Option<Dialect>) -> u32 {
        let key = (what.clone(), dialect);
        if let Some(number) = self.known.get(&key) {
            return *number;
        }
        let tri = self.all(what, dialect);
        let number = u32::try_from(self.results.len()).unwrap_or(u32::MAX);
        self.results.push(tri);
        self.known.insert(key, number);
        number
    }

    /// Everything that was asked for, by number.
    pub(super) fn into_results(self) -> Vec<Tri> {
        self.results
    }

    /// Which endpoints match. Without a dialect an expression is an intent's: host-network pods are pods, and addresses are
    /// just addresses.
    pub(super) fn all(&self, what: &Match, dialect: Option<Dialect>) -> Tri {
        let len = self.items.len();
        match what {
            Match::Anything => Tri::all(len),
            Match::Nothing => Tri::none(len),
            Match::All(parts) => {
                let mut all = Tri::all(len);
                for part in parts {
                    all.and(&self.all(part, dialect));
                }
                all
            }
            Match::OneOf(parts) => {
                let mut any = Tri::none(len);
                for part in parts {
                    any.or(&self.all(part, dialect));
                }
                any
            }
            Match::Not(inner) => self.all(inner, dialect).negate(),
            Match::Label { owner: LabelOwner::Endpoint, key, test } => self.own_label(key, test, dialect),
            Match::Label { owner: LabelOwner::Namespace, .. } | Match::Namespace(_) => {
                let mut tri = Tri::none(len);
                for members in self.namespaces.values() {
                    // Imagined namespaces share names with real ones never, but may with each other.
                    for member in members.iter().filter_map(|i| usize::try_from(*i).ok()) {
                        if let Some(item) = self.items.get(member) {
                            tri.set(member, self.one(what, item, dialect));
                        }
                    }
                }
                tri
            }
            Match::Fact(fact) => match self.profile.fact(*fact).truth {
                Truth::Yes => Tri::all(len),
                Truth::Unknown => Tri::unknown(len),
                Truth::No => Tri::none(len),
            },
            Match::Doubt(_) => Tri::unknown(len),
            _ => {
                let mut tri = Tri::none(len);
                for (i, item) in self.items.iter().enumerate() {
                    tri.set(i, self.one(what, item, dialect));
                }
                tri
            }
        }
    }

    fn own_label(&self, key: &str, test: &Test, dialect: Option<Dialect>) -> Tri {
        let len = self.items.len();
        let mut found = Bits::empty(len);
        if let Some(postings) = self.labels.get(key) {
            let mut add = |members: &Vec<u32>| {
                for member in members {
                    found.set(usize::try_from(*member).unwrap_or(usize::MAX));
                }
            };
            match test {
                Test::Is(value) => postings.get(&**value).into_iter().for_each(add),
                Test::In(values) => values.iter().filter_map(|v| postings.get(&**v)).for_each(add),
                _ => postings.iter().filter(|(value, _)| test.passes(value)).for_each(|(_, m)| add(m)),
            }
        }
        let mut tri = Tri { must: found.clone(), may: found };
        if dialect.is_none() {
            return tri;
        }
        if ADDED_BY_CONTROLLERS.contains(&key) {
            for template in &self.templates {
                tri.may.set(usize::try_from(*template).unwrap_or(usize::MAX));
            }
        }
        // A dropped label is on nobody; a node's labels are not a pod's and are not dropped, but no policy of a dialect with
        // dropped labels selects nodes by them.
        match self.profile.fact(Fact::DropsLabel(key)).truth {
            Truth::Yes => return Tri::none(len),
            Truth::Unknown => tri.must = Bits::empty(len),
            Truth::No => {}
        }
        let hidden = self.host_pods_hidden(dialect);
        if hidden.may() {
            for host_pod in self.host_pods.iter().filter_map(|i| usize::try_from(*i).ok()) {
                let truth = tri.get(host_pod).and(!hidden);
                let mut only = Bits::empty(len);
                only.set(host_pod);
                let rest = only.complement();
                tri.must.and(&rest);
                tri.may.and(&rest);
                tri.set(host_pod, truth);
            }
        }
        tri
    }

    /// Whether selectors of a dialect do not see host-network pods.
    fn host_pods_hidden(&self, dialect: Option<Dialect>) -> Truth {
        let Some(dialect) = dialect else { return Truth::No };
        let sees = match dialect {
            Dialect::ClusterNetworkPolicy | Dialect::AdminNetworkPolicy => {
                // One expression may serve policies of both tiers: sure is what holds in both.
                let of = |tier| self.profile.fact(Fact::TierSeesHostNetwork(tier)).truth;
                let (admin, baseline) = (of(ClusterTier::Admin), of(ClusterTier::Baseline));
                if admin == baseline { admin } else { Truth::Unknown }
            }
            _ => self.profile.fact(Fact::HostNetworkIsPeer(dialect)).truth,
        };
        !sees
    }

    /// Whether one endpoint matches. Says the same as [`Select::all`]; compound expressions are put together from leaves.
    pub(super) fn one(&self, what: &Match, item: &Item<'_>, dialect: Option<Dialect>) -> Truth {
        let is_pod = matches!(item.shape, Shape::Pod | Shape::HostPod);
        let seen = || {
            if item.shape == Shape::HostPod { !self.host_pods_hidden(dialect) } else { Truth::Yes }
        };
        match what {
            Match::Anything => Truth::Yes,
            Match::Nothing => Truth::No,
            Match::All(parts) => {
                parts.iter().fold(Truth::Yes, |all, part| all.and(self.one(part, item, dialect)))
            }
            Match::OneOf(parts) => {
                parts.iter().fold(Truth::No, |any, part| any.or(self.one(part, item, dialect)))
            }
            Match::Not(inner) => !self.one(inner, item, dialect),
            Match::Kind(kind) => match (kind, item.shape) {
                (Kind::Pod, Shape::Pod)
                | (Kind::LocalNode, Shape::LocalNode)
                | (Kind::RemoteNode, Shape::RemoteNode) => Truth::Yes,
                (Kind::Pod, Shape::HostPod) => seen(),
                // To everyone but an intent a host-network pod is its node: whose, depends on who looks.
                (Kind::RemoteNode | Kind::LocalNode, Shape::HostPod) => {
                    Truth::from(dialect.is_some()).and(!seen()).and(Truth::Unknown)
                }
                (Kind::External, Shape::Outside | Shape::ServiceAddress | Shape::Name) => Truth::Yes,
                _ => Truth::No,
            },
            Match::Label { owner: LabelOwner::Endpoint, key, test } => {
                let has =
                    Truth::from(item.labels.and_then(|l| l.get(key)).is_some_and(|value| test.passes(value)));
                if dialect.is_none() {
                    return has;
                }
                let added = item.is_template && ADDED_BY_CONTROLLERS.contains(&&**key);
                let has = if added { has.or(Truth::Unknown) } else { has };
                has.and(!self.profile.fact(Fact::DropsLabel(key)).truth).and(seen())
            }
            Match::Label { owner: LabelOwner::Namespace, key, test } => {
                let Some(namespace) = item.namespace.filter(|_| is_pod) else { return Truth::No };
                let labels = item
                    .namespace_labels
                    .or_else(|| self.cluster.namespaces.get(namespace).map(|namespace| &namespace.labels));
                match labels {
                    Some(labels) => labels.get(key).is_some_and(|value| test.passes(value)).into(),
                    None if **key == *"kubernetes.io/metadata.name" => test.passes(namespace).into(),
                    None => Truth::Unknown,
                }
            }
            Match::Label { owner: LabelOwner::ServiceAccount, key, test } => {
                let Some((namespace, account)) = item.namespace.zip(item.service_account) else {
                    return if item.is_imagined { Truth::Unknown } else { Truth::No };
                };
                match self.cluster.service_accounts.get(&(namespace.clone(), account.clone())) {
                    Some(account) => account.labels.get(key).is_some_and(|value| test.passes(value)).into(),
                    None => Truth::Unknown,
                }
            }
            Match::Namespace(test) => item.namespace.is_some_and(|namespace| test.passes(namespace)).into(),
            Match::ServiceAccount(test) => match item.service_account {
                Some(account) => test.passes(account).into(),
                None => {
                    if item.is_imagined {
                        Truth::Unknown
                    } else {
                        Truth::No
                    }
                }
            },
            Match::Name(test) => match item.name {
                Some(_) if item.is_template => Truth::Unknown,
                Some(name) => test.passes(name).into(),
                None => {
                    if item.is_imagined {
                        Truth::Unknown
                    } else {
                        Truth::No
                    }
                }
            },
            Match::Cidr(set) => self.in_block(set, item, dialect),
            Match::Address(set) => item.addresses.within(set),
            Match::Domain(pattern) => self.domain(pattern, item),
            Match::KubeApiServer => self.kube_api(item),
            Match::Fact(fact) => self.profile.fact(*fact).truth,
            Match::Doubt(_) => Truth::Unknown,
        }
    }

    fn in_block(&self, set: &AddressSet, item: &Item<'_>, dialect: Option<Dialect>) -> Truth {
        let within = item.addresses.within(set);
        let Some(dialect) = dialect else { return within };
        match item.shape {
            Shape::Pod => within.and(self.profile.fact(Fact::CidrMatchesPods(dialect)).truth),
            Shape::HostPod | Shape::LocalNode | Shape::RemoteNode => {
                within.and(self.profile.fact(Fact::CidrMatchesNodes(dialect)).truth)
            }
            Shape::Outside | Shape::ServiceAddress => within,
            // Which address a name has is not known; a block with all of them has it.
            Shape::Name => within,
        }
    }

    fn domain(&self, pattern: &DomainPattern, item: &Item<'_>) -> Truth {
        match (&item.endpoint, item.shape) {
            (super::Endpoint::Domain(name), _) => matches_name(pattern, name).into(),
            (_, Shape::Outside) => {
                // A pattern that admits one trusted name is no doubt about addresses; any other may mean each of them.
                let trusted = matches!(pattern, DomainPattern::Name(name) if self.trusted.contains(name));
                if trusted { Truth::No } else { Truth::Unknown }
            }
            _ => Truth::No,
        }
    }

    fn kube_api(&self, item: &Item<'_>) -> Truth {
        let addresses = &self.kube_api;
        match item.shape {
            Shape::Outside | Shape::ServiceAddress if !addresses.is_empty() => {
                item.addresses.within(addresses)
            }
            Shape::Outside | Shape::ServiceAddress => Truth::No,
            Shape::Pod | Shape::Name => Truth::No,
            Shape::LocalNode | Shape::RemoteNode | Shape::HostPod => {
                let control = item.labels.is_some_and(|labels| {
                    ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"]
                        .iter()
                        .any(|key| labels.contains_key(*key))
                });
                match (control, addresses.is_empty()) {
                    (true, _) => Truth::Yes,
                    (false, true) => Truth::Unknown,
                    (false, false) => item.addresses.within(addresses),
                }
            }
        }
    }

    /// Why an expression is unknown for an endpoint, each reason once.
    pub(super) fn doubts(
        &self,
        what: &Match,
        item: &Item<'_>,
        dialect: Option<Dialect>,
        name: &str,
        into: &mut Vec<Doubt>,
    ) {
        if self.one(what, item, dialect) != Truth::Unknown {
            return;
        }
        let mut push = |doubt: Doubt| {
            if !into.contains(&doubt) {
                into.push(doubt);
            }
        };
        match what {
            Match::All(parts) | Match::OneOf(parts) => {
                for part in parts {
                    self.doubts(part, item, dialect, name, into);
                }
            }
            Match::Not(inner) => self.doubts(inner, item, dialect, name, into),
            Match::Doubt(doubt) => push(doubt.clone()),
            Match::Label { owner: LabelOwner::Namespace, key, .. } => {
                let namespace = item.namespace.map(|n| n.to_string()).unwrap_or_default();
                push(Doubt::new(format!(
                    "the label {key} of namespace {namespace} is not known: the namespace is not in the input"
                )));
            }
            Match::Label { owner: LabelOwner::ServiceAccount, key, .. } => {
                push(Doubt::new(format!("the label {key} of the service account of {name} is not known")));
            }
            Match::Label { key, .. } => {
                push(Doubt::new(format!("whether {name} has the label {key} is not known")))
            }
            Match::Cidr(set) => {
                let fact = dialect.map(|dialect| match item.shape {
                    Shape::Pod => Fact::CidrMatchesPods(dialect),
                    _ => Fact::CidrMatchesNodes(dialect),
                });
                let answer =
                    fact.map(|fact| self.profile.fact(fact)).filter(|answer| answer.truth == Truth::Unknown);
                match answer {
                    Some(answer) => push(Doubt::new(format!(
                        "whether the block {set} matches {name} differs between implementations ({}); name one with --cni",
                        answer.why
                    ))),
                    None => push(Doubt::new(format!(
                        "whether {name} has an address in {set} is not known; --pod-cidr or a cluster tells"
                    ))),
                }
            }
            Match::Address(set) => {
                push(Doubt::new(format!("whether {name} has an address in {set} is not known")))
            }
            Match::Domain(pattern) => push(Doubt::new(format!(
                "which addresses {} resolves to is not known",
                match pattern {
                    DomainPattern::Name(name) | DomainPattern::Labels(name) => name.to_string(),
                    DomainPattern::Under(name) => format!("*.{name}"),
                }
            ))),
            Match::KubeApiServer => push(Doubt::new("where the API server runs is not known".to_owned())),
            Match::Fact(fact) => push(Doubt::new(self.profile.fact(*fact).why)),
            _ => push(Doubt::new(format!(
                "whether it is about {name} differs between implementations; name one with --cni"
            ))),
        }
    }
}

fn matches_name(pattern: &DomainPattern, name: &str) -> bool {
    match pattern {
        DomainPattern::Name(own) => **own == *name,
        DomainPattern::Under(suffix) => name
            .strip_suffix(&**suffix)
            .and_then(|rest| rest.strip_suffix('.'))
            .is_some_and(|rest| !rest.is_empty()),
        DomainPattern::Labels(labels) => {
            let (mut want, mut have) = (labels.split('.'), name.split('.'));
            loop {
                match (want.next(), have.next()) {
                    (None, None) => return true,
                    (Some(want), Some(have)) if glob(want.as_bytes(), have.as_bytes()) => {}
                    _ => return false,
                }
            }
        }
    }
}

/// `*` stands for any characters. Linear in the product of the lengths, which DNS bounds.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => {
            (0..=text.len()).any(|skip| text.get(skip..).is_some_and(|text| glob(rest, text)))
        }
        Some((c, rest)) => text.split_first().is_some_and(|(d, text)| c == d && glob(rest, text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_as_their_pattern_says() {
        let labels = |p: &str| DomainPattern::Labels(p.into());
        assert!(matches_name(&labels("*.example.com"), "s3.example.com"));
        assert!(!matches_name(&labels("*.example.com"), "a.s3.example.com"));
        assert!(matches_name(&labels("s*-x.example.com"), "s3-x.example.com"));
        assert!(matches_name(&DomainPattern::Under("example.com".into()), "a.s3.example.com"));
        assert!(!matches_name(&DomainPattern::Under("example.com".into()), "example.com"));
        assert!(!matches_name(&DomainPattern::Under("example.com".into()), "badexample.com"));
    }
}
