//! Leaves out of a failing cluster whatever the failure does not need.

use serde_json::Value;

use crate::small::Case;
use crate::yaml::Document;

/// How often `still_fails` is asked at most: an engine may need milliseconds for each answer.
const MOST_ATTEMPTS: usize = 2_000;

/// The smallest cluster that greedy leaving-out finds: whole documents first, then items of lists and entries of label maps.
///
/// `still_fails` gets candidates that may be invalid (a requirement without values, a pod without its namespace); it must
/// answer `false` for what its engines refuse. The result always fails, provided that `case` does.
pub fn shrink(case: &Case, mut still_fails: impl FnMut(&Case) -> bool) -> Case {
    let mut best = case.clone();
    let mut attempts = 0_usize;
    loop {
        let mut smaller = false;
        for part in [Part::Policies, Part::Pods, Part::Namespaces] {
            let mut at = part.of(&best).len();
            while let Some(next) = at.checked_sub(1) {
                at = next;
                for candidate in part.without(&best, at).into_iter().chain(part.with_less_inside(&best, at)) {
                    attempts = attempts.saturating_add(1);
                    if attempts > MOST_ATTEMPTS {
                        return best;
                    }
                    if still_fails(&candidate) {
                        best = candidate;
                        smaller = true;
                        break;
                    }
                }
            }
        }
        if !smaller {
            return best;
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Namespaces,
    Pods,
    Policies,
}

impl Part {
    const fn of(self, case: &Case) -> &Vec<Document> {
        match self {
            Self::Namespaces => &case.namespaces,
            Self::Pods => &case.pods,
            Self::Policies => &case.policies,
        }
    }

    const fn of_mut(self, case: &mut Case) -> &mut Vec<Document> {
        match self {
            Self::Namespaces => &mut case.namespaces,
            Self::Pods => &mut case.pods,
            Self::Policies => &mut case.policies,
        }
    }

    /// The cluster without one document; none where pods or policies still live in that namespace.
    fn without(self, case: &Case, at: usize) -> Option<Case> {
        let document = self.of(case).get(at)?;
        if self == Self::Namespaces
            && case.pods.iter().chain(&case.policies).any(|d| d.namespace() == document.name())
        {
            return None;
        }
        let mut candidate = case.clone();
        self.of_mut(&mut candidate).remove(at);
        Some(candidate)
    }

    /// Clusters with one item less inside one document.
    fn with_less_inside(self, case: &Case, at: usize) -> Vec<Case> {
        let Some(document) = self.of(case).get(at) else { return Vec::new() };
        let mut smaller = Vec::new();
        less(&document.0, "", &mut |value| smaller.push(value));
        smaller
            .into_iter()
            .map(|value| {
                let mut candidate = case.clone();
                if let Some(place) = self.of_mut(&mut candidate).get_mut(at) {
                    place.0 = value;
                }
                candidate
            })
            .collect()
    }
}

/// Calls `found` with `value` less one item, for each item that may be missing; `key` is what holds `value`.
fn less(value: &Value, key: &str, found: &mut dyn FnMut(Value)) {
    match value {
        Value::Array(items) => {
            for at in 0..items.len() {
                let mut shorter = items.clone();
                shorter.remove(at);
                found(Value::Array(shorter));
            }
            for (at, item) in items.iter().enumerate() {
                less(item, "", &mut |smaller| {
                    let mut changed = items.clone();
                    if let Some(place) = changed.get_mut(at) {
                        *place = smaller;
                    }
                    found(Value::Array(changed));
                });
            }
        }
        Value::Object(map) => {
            for (name, inner) in map {
                if may_be_missing(key, name) {
                    let mut smaller = map.clone();
                    smaller.remove(name);
                    found(Value::Object(smaller));
                }
                less(inner, name, &mut |changed| {
                    let mut smaller = map.clone();
                    smaller.insert(name.clone(), changed);
                    found(Value::Object(smaller));
                });
            }
        }
        _ => {}
    }
}

/// Fields whose absence leaves a valid object. What identifies an object, and its addresses, stays.
fn may_be_missing(holder: &str, name: &str) -> bool {
    const OPTIONAL: [&str; 28] = [
        "policyTypes",
        "ingress",
        "egress",
        "from",
        "to",
        "ports",
        "except",
        "endPort",
        "protocol",
        "matchLabels",
        "matchExpressions",
        "order",
        "tier",
        "types",
        "selector",
        "notSelector",
        "namespaceSelector",
        "nets",
        "notNets",
        "notPorts",
        "source",
        "destination",
        "icmp",
        "notICMP",
        "notProtocol",
        "ipVersion",
        "code",
        "podIPs",
    ];
    matches!(holder, "labels" | "matchLabels") || OPTIONAL.contains(&name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::shrink;
    use crate::small::{Case, Dialect};
    use crate::yaml::{Document, stream};

    #[test]
    fn only_what_the_failure_needs_is_left() {
        let policy = |name: &str, ports: &[u16]| {
            Document(json!({
                "kind": "NetworkPolicy", "metadata": {"name": name, "namespace": "alpha"},
                "spec": {"podSelector": {}, "ingress": [
                    {"ports": ports.iter().map(|p| json!({"port": p, "protocol": "TCP"})).collect::<Vec<_>>()},
                    {"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]},
                ]},
            }))
        };
        let mut case = Case::generate(1, Dialect::Kubernetes);
        case.policies = vec![policy("one", &[1, 2]), policy("two", &[7, 8, 9]), policy("three", &[])];
        // It fails while some policy names port 8.
        let mut asked = 0;
        let least = shrink(&case, |candidate| {
            asked += 1;
            stream(&candidate.policies).contains("port: 8\n")
        });
        let want = json!({
            "kind": "NetworkPolicy", "metadata": {"name": "two", "namespace": "alpha"},
            "spec": {"podSelector": {}, "ingress": [{"ports": [{"port": 8}]}]},
        });
        assert_eq!(least.policies, vec![Document(want)]);
        assert!(least.pods.is_empty());
        assert!(least.namespaces.iter().all(|n| n.name() == "alpha"));
        assert!(asked < super::MOST_ATTEMPTS);
    }

    #[test]
    fn a_namespace_stays_while_something_lives_in_it() {
        let case = Case::generate(5, Dialect::Kubernetes);
        let pods = case.pods.len();
        let least = shrink(&case, |candidate| candidate.pods.len() == pods);
        for pod in &least.pods {
            assert!(least.namespaces.iter().any(|n| n.name() == pod.namespace()));
        }
        assert!(least.policies.is_empty());
    }
}
