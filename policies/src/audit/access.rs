//! Who may change what a proof rests on: policies, labels, the pods of workers, tokens.
//!
//! System components (`system:` users and groups, accounts of `kube-system`, and `cluster-admin` bound to `system:masters`)
//! are expected to and are not reported.

use super::{Finding, catalog};
use crate::cluster::Cluster;
use crate::rbac::{AccessRule, Binding, Role, Subject};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Rights that matter, each with the finding it makes: group, resource, verbs.
const RIGHTS: &[(&catalog::Kind, &str, &str, &[&str])] = &[
    (&catalog::MAY_CHANGE_POLICIES, "networking.k8s.io", "networkpolicies", CHANGE),
    (&catalog::MAY_CHANGE_POLICIES, "cilium.io", "ciliumnetworkpolicies", CHANGE),
    (&catalog::MAY_CHANGE_POLICIES, "cilium.io", "ciliumclusterwidenetworkpolicies", CHANGE),
    (&catalog::MAY_CHANGE_POLICIES, "cilium.io", "ciliumcidrgroups", CHANGE),
    (&catalog::MAY_CHANGE_POLICIES, "projectcalico.org", "networkpolicies", CHANGE),
    (&catalog::MAY_CHANGE_POLICIES, "projectcalico.org", "globalnetworkpolicies", CHANGE),
    (&catalog::MAY_CHANGE_POLICIES, "projectcalico.org", "networksets", CHANGE),
    (&catalog::MAY_CHANGE_POLICIES, "projectcalico.org", "globalnetworksets", CHANGE),
    (&catalog::MAY_CHANGE_POLICIES, "projectcalico.org", "tiers", CHANGE),
    (&catalog::MAY_CHANGE_POLICIES, "crd.projectcalico.org", "networkpolicies", CHANGE),
    (&catalog::MAY_CHANGE_POLICIES, "crd.projectcalico.org", "globalnetworkpolicies", CHANGE),
    (&catalog::MAY_CHANGE_POLICIES, "crd.projectcalico.org", "tiers", CHANGE),
    (&catalog::MAY_CHANGE_POLICIES, "policy.networking.k8s.io", "clusternetworkpolicies", CHANGE),
    (&catalog::MAY_CHANGE_POLICIES, "policy.networking.k8s.io", "adminnetworkpolicies", CHANGE),
    (&catalog::MAY_CHANGE_POLICIES, "policy.networking.k8s.io", "baselineadminnetworkpolicies", CHANGE),
    (&catalog::MAY_CHANGE_LABELS, "", "pods", &["update", "patch"]),
    (&catalog::MAY_CHANGE_LABELS, "", "namespaces", &["update", "patch"]),
    (&catalog::MAY_CHANGE_LABELS, "", "nodes", &["update", "patch"]),
    (&catalog::MAY_ENTER_WORKERS, "", "pods", &["create"]),
    // A websocket opens exec with `get`, SPDY with `create`.
    (&catalog::MAY_ENTER_WORKERS, "", "pods/exec", &["create", "get"]),
    (&catalog::MAY_ENTER_WORKERS, "", "pods/attach", &["create", "get"]),
    (&catalog::MAY_ENTER_WORKERS, "", "pods/portforward", &["create", "get"]),
    (&catalog::MAY_ENTER_WORKERS, "", "pods/ephemeralcontainers", &["update", "patch"]),
    (&catalog::MAY_ENTER_WORKERS, "apps", "deployments", &["create", "update", "patch"]),
    (&catalog::MAY_ENTER_WORKERS, "apps", "statefulsets", &["create", "update", "patch"]),
    (&catalog::MAY_ENTER_WORKERS, "apps", "daemonsets", &["create", "update", "patch"]),
    (&catalog::MAY_ENTER_WORKERS, "apps", "replicasets", &["create", "update", "patch"]),
    (&catalog::MAY_ENTER_WORKERS, "batch", "jobs", &["create", "update", "patch"]),
    (&catalog::MAY_ENTER_WORKERS, "batch", "cronjobs", &["create", "update", "patch"]),
    (&catalog::MAY_MAKE_TOKENS, "", "serviceaccounts/token", &["create"]),
    (&catalog::MAY_MAKE_TOKENS, "", "serviceaccounts", &["impersonate"]),
    (&catalog::MAY_MAKE_TOKENS, "", "users", &["impersonate"]),
    (&catalog::MAY_MAKE_TOKENS, "", "groups", &["impersonate"]),
    (&catalog::MAY_MAKE_TOKENS, "rbac.authorization.k8s.io", "roles", &["bind", "escalate"]),
    (&catalog::MAY_MAKE_TOKENS, "rbac.authorization.k8s.io", "clusterroles", &["bind", "escalate"]),
];

const CHANGE: &[&str] = &["create", "update", "patch", "delete", "deletecollection"];

/// Findings about bindings that touch these namespaces, or all, and about accounts (namespace, name) that must have no right.
pub(super) fn findings(
    cluster: &Cluster,
    namespaces: &BTreeSet<Arc<str>>,
    accounts: &BTreeSet<(Arc<str>, Arc<str>)>,
) -> Vec<Finding> {
    let mut found = Vec::new();
    for binding in &cluster.rbac.bindings {
        let role = role_of(cluster, binding);
        for subject in &binding.subjects {
            if let Some((account, role)) = own_account(subject, accounts).zip(role)
                && role.aggregates | role.rules.iter().any(|rule| !rule.verbs.is_empty())
            {
                let reason = format!("{} gives {} to {account}", binding.object, role.object);
                let kind = &catalog::WORKER_HAS_RIGHTS;
                found.push(Finding::certain(kind, binding.object.clone(), Some(binding.at.clone()), reason));
            }
        }
        if binding.object.namespace.as_ref().is_some_and(|namespace| !namespaces.contains(namespace)) {
            continue;
        }
        let others: Vec<String> = binding.subjects.iter().filter(|s| !is_system(s)).map(name).collect();
        if others.is_empty() {
            continue;
        }
        let Some(role) = role else { continue };
        let mut kinds: Vec<&catalog::Kind> = Vec::new();
        for (kind, group, resource, verbs) in RIGHTS {
            let rule = role.rules.iter().find(|rule| allows(rule, group, resource, verbs));
            if let Some(rule) = rule.filter(|_| !kinds.contains(kind)) {
                kinds.push(kind);
                let reason = format!(
                    "{} may {} {resource} through {} and {}",
                    listed(&others),
                    verbs.iter().filter(|verb| has(&rule.verbs, verb)).copied().collect::<Vec<_>>().join("/"),
                    binding.object,
                    role.object
                );
                found.push(Finding::certain(kind, binding.object.clone(), Some(rule.at.clone()), reason));
            }
        }
    }
    found
}

fn role_of<'a>(cluster: &'a Cluster, binding: &Binding) -> Option<&'a Role> {
    let namespace = (&*binding.role_kind == "Role").then_some(binding.object.namespace.as_ref()).flatten();
    cluster.rbac.roles.iter().find(|role| {
        role.object.kind == binding.role_kind
            && role.object.name == binding.role
            && role.object.namespace.as_ref() == namespace
    })
}

fn has(list: &[Arc<str>], wanted: &str) -> bool {
    list.iter().any(|entry| **entry == *"*" || **entry == *wanted)
}

fn allows(rule: &AccessRule, group: &str, resource: &str, verbs: &[&str]) -> bool {
    let subresource = resource.split_once('/').map(|(_, sub)| format!("*/{sub}"));
    let named = has(&rule.resources, resource) || subresource.is_some_and(|any| has(&rule.resources, &any));
    named && has(&rule.groups, group) && verbs.iter().any(|verb| has(&rule.verbs, verb))
}

fn own_account(subject: &Subject, accounts: &BTreeSet<(Arc<str>, Arc<str>)>) -> Option<String> {
    match subject {
        Subject::ServiceAccount(namespace, account) => accounts
            .contains(&(namespace.clone(), account.clone()))
            .then(|| format!("service account {namespace}/{account}")),
        Subject::Group(group) => accounts
            .iter()
            .find(|(namespace, _)| **group == *format!("system:serviceaccounts:{namespace}"))
            .map(|(namespace, _)| format!("every service account of {namespace}")),
        Subject::User(user) => accounts
            .iter()
            .find(|(namespace, account)| **user == *format!("system:serviceaccount:{namespace}:{account}"))
            .map(|(namespace, account)| format!("service account {namespace}/{account}")),
    }
}

fn is_system(subject: &Subject) -> bool {
    match subject {
        Subject::ServiceAccount(namespace, _) => **namespace == *"kube-system",
        // Everyone, and everyone who is logged in, are "system:" by name only.
        Subject::Group(group) => {
            group.starts_with("system:")
                && !matches!(&**group, "system:authenticated" | "system:unauthenticated")
                && !group.starts_with("system:serviceaccounts")
        }
        Subject::User(user) => {
            user.starts_with("system:")
                && !user.starts_with("system:serviceaccount:")
                && **user != *"system:anonymous"
        }
    }
}

fn name(subject: &Subject) -> String {
    match subject {
        Subject::User(user) => format!("user {user}"),
        Subject::Group(group) => format!("group {group}"),
        Subject::ServiceAccount(namespace, account) => format!("service account {namespace}/{account}"),
    }
}

fn listed(names: &[String]) -> String {
    match names {
        [a, b, c, rest @ ..] if !rest.is_empty() => format!("{a}, {b}, {c} and {} more", rest.len()),
        _ => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::read::{Input, Limits, ReadOptions};

    fn found(rules: &str, subject: &str, namespace: Option<&str>) -> Vec<(&'static str, String)> {
        let kind = if namespace.is_some() { "RoleBinding" } else { "ClusterRoleBinding" };
        let place = namespace.map(|n| format!(", namespace: {n}")).unwrap_or_default();
        let text = format!(
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {{name: r}}\nrules: {rules}\n---\n\
             apiVersion: rbac.authorization.k8s.io/v1\nkind: {kind}\nmetadata: {{name: b{place}}}\n\
             roleRef: {{kind: ClusterRole, name: r}}\nsubjects: [{subject}]\n"
        );
        let mut input = Input::new(Limits::default());
        input.add("rbac.yaml", text).unwrap();
        let cluster = crate::read::cluster(&input, &ReadOptions::default()).unwrap().cluster;
        let namespaces = [Arc::from("media")].into();
        let accounts = [(Arc::from("media"), Arc::from("worker"))].into();
        findings(&cluster, &namespaces, &accounts).into_iter().map(|f| (f.id, f.reason)).collect()
    }

    const POLICIES: &str =
        "[{apiGroups: [networking.k8s.io], resources: [networkpolicies], verbs: [get, patch]}]";
    const ANN: &str = "{kind: User, name: ann}";

    #[test]
    fn who_may_change_policies_is_named_with_the_verb() {
        let reason = "user ann may patch networkpolicies through ClusterRoleBinding b and ClusterRole r";
        assert_eq!(found(POLICIES, ANN, None), [("MF301", reason.into())]);
    }

    #[test]
    fn a_binding_in_another_namespace_is_of_no_concern() {
        assert_eq!(found(POLICIES, ANN, Some("elsewhere")), []);
        assert_eq!(found(POLICIES, ANN, Some("media")).len(), 1);
    }

    #[test]
    fn stars_and_subresources_count() {
        let ids = |rules: &str| found(rules, ANN, None).into_iter().map(|(id, _)| id).collect::<Vec<_>>();
        assert_eq!(
            ids("[{apiGroups: ['*'], resources: ['*'], verbs: ['*']}]"),
            ["MF301", "MF302", "MF303", "MF304"]
        );
        assert_eq!(ids("[{apiGroups: [''], resources: ['*/exec'], verbs: [create]}]"), ["MF303"]);
        assert_eq!(ids("[{apiGroups: [''], resources: [pods], verbs: [get, list, watch]}]"), [""; 0]);
        assert_eq!(ids("[{apiGroups: [apps], resources: [pods], verbs: [patch]}]"), [""; 0]);
    }

    #[test]
    fn system_components_are_expected_and_everybody_is_not() {
        for system in [
            "{kind: Group, name: 'system:masters'}",
            "{kind: ServiceAccount, name: x, namespace: kube-system}",
        ] {
            assert_eq!(found(POLICIES, system, None), [], "{system}");
        }
        assert_eq!(found(POLICIES, "{kind: Group, name: 'system:authenticated'}", None).len(), 1);
    }

    #[test]
    fn a_worker_that_has_any_right_is_an_error() {
        let rules = "[{apiGroups: [''], resources: [configmaps], verbs: [get]}]";
        for subject in [
            "{kind: ServiceAccount, name: worker, namespace: media}",
            "{kind: Group, name: 'system:serviceaccounts:media'}",
            "{kind: User, name: 'system:serviceaccount:media:worker'}",
        ] {
            let ids: Vec<_> = found(rules, subject, None).into_iter().map(|(id, _)| id).collect();
            assert_eq!(ids, ["MF305"], "{subject}");
        }
    }
}
