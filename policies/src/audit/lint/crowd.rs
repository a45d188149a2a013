//! The pods of the input, found by what expressions ask of them: a rule that names a label is asked of the pods that have it, not of all.

use crate::audit::select::Select;
use crate::cluster::{ADDED_BY_CONTROLLERS, Cluster, Pod};
use crate::matching::{Kind, LabelOwner, Match, Test};
use std::collections::{BTreeMap, HashMap};

/// Places of pods in the cluster's list, in its order.
type Places = Vec<usize>;

/// All pods, by what is known of them.
pub(super) struct Crowd<'a> {
    cluster: &'a Cluster,
    by_namespace: BTreeMap<&'a str, Places>,
    by_label: HashMap<&'a str, HashMap<&'a str, Places>>,
    /// What a controller makes pods of, with labels that it adds.
    templates: Places,
    on_host: Places,
}

impl<'a> Crowd<'a> {
    pub(super) fn new(cluster: &'a Cluster) -> Self {
        let mut crowd = Self {
            cluster,
            by_namespace: BTreeMap::new(),
            by_label: HashMap::new(),
            templates: Vec::new(),
            on_host: Vec::new(),
        };
        for (place, pod) in cluster.pods.iter().enumerate() {
            crowd.by_namespace.entry(&pod.namespace).or_default().push(place);
            for (key, value) in &pod.labels {
                crowd.by_label.entry(key).or_default().entry(value).or_default().push(place);
            }
            if pod.is_template {
                crowd.templates.push(place);
            }
            if pod.host_network {
                crowd.on_host.push(place);
            }
        }
        crowd
    }

    /// How many pods a namespace has, or all.
    pub(super) fn count(&self, namespace: Option<&str>) -> usize {
        match namespace {
            Some(namespace) => self.by_namespace.get(namespace).map_or(0, Vec::len),
            None => self.cluster.pods.len(),
        }
    }

    /// All pods whom an expression may mean, among others perhaps; in a namespace alone where one is given.
    pub(super) fn perhaps(
        &self,
        select: &Select<'a>,
        what: &Match,
        namespace: Option<&str>,
    ) -> impl Iterator<Item = &'a Pod> + use<'a> {
        let near = namespace.map(|namespace| self.by_namespace.get(namespace).map_or(&[][..], Vec::as_slice));
        let meant = match (self.places(select, what), near) {
            (Some(meant), Some(near)) if meant.len() <= near.len() => Some(meant),
            (_, Some(near)) => Some(near.to_vec()),
            (meant, None) => meant,
        };
        let pods = &self.cluster.pods;
        let (some, all) = match meant {
            Some(places) => (places, None),
            None => (Vec::new(), Some(pods)),
        };
        some.into_iter().filter_map(|place| pods.get(place)).chain(all.into_iter().flatten())
    }

    /// The same as places; `None` where it is no shorter way than to ask all.
    fn places(&self, select: &Select<'a>, what: &Match) -> Option<Places> {
        match what {
            Match::Nothing | Match::Domain(_) | Match::Kind(Kind::External) => Some(Vec::new()),
            Match::All(parts) => {
                parts.iter().filter_map(|part| self.places(select, part)).min_by_key(Vec::len)
            }
            Match::OneOf(parts) => {
                let all: Option<Vec<Places>> = parts.iter().map(|part| self.places(select, part)).collect();
                Some(union(all?.into_iter().flatten()))
            }
            Match::Kind(Kind::LocalNode | Kind::RemoteNode) => Some(self.on_host.clone()),
            Match::Label { owner: LabelOwner::Endpoint, key, test } => {
                let values = self.by_label.get(&**key);
                let has = |value: &str| values.and_then(|values| values.get(value));
                let labelled: Vec<&Places> = match test {
                    Test::Is(value) => has(value).into_iter().collect(),
                    Test::In(among) => among.iter().filter_map(|value| has(value)).collect(),
                    _ => {
                        let values = values.into_iter().flatten();
                        values.filter(|(value, _)| test.passes(value)).map(|(_, places)| places).collect()
                    }
                };
                let added = ADDED_BY_CONTROLLERS.contains(&&**key).then_some(&self.templates);
                Some(union(labelled.into_iter().chain(added).flatten().copied()))
            }
            Match::Label { owner: LabelOwner::Namespace, key, test } => {
                let cluster = self.cluster;
                Some(self.of_namespaces(|namespace| cluster.namespace_label(namespace, key, test).may()))
            }
            Match::Namespace(test) => Some(self.of_namespaces(|namespace| test.passes(namespace))),
            Match::Fact(fact) => (!select.fact(*fact).may()).then(Vec::new),
            _ => None,
        }
    }

    fn of_namespaces(&self, is_meant: impl Fn(&str) -> bool) -> Places {
        let meant = self.by_namespace.iter().filter(|(namespace, _)| is_meant(namespace));
        union(meant.flat_map(|(_, places)| places).copied())
    }
}

fn union(places: impl Iterator<Item = usize>) -> Places {
    let mut places: Places = places.collect();
    if !places.is_sorted_by(|a, b| a < b) {
        places.sort_unstable();
        places.dedup();
    }
    places
}
