//! Kubernetes' own kinds among Calico's tiers.

use super::*;

/// A NetworkPolicy in namespace `a` that selects the server.
fn network_policy(name: &str, rules: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: a}}\nspec: {{podSelector: {{matchLabels: {{app: server}}}}, policyTypes: [Ingress], {rules}}}\n---\n"
    )
}

#[test]
fn a_network_policy_stands_at_order_1000_of_the_default_tier() {
    let nobody = || network_policy("np", "ingress: []");
    let everybody = || network_policy("np", "ingress: [{}]");
    let calico = |order: &str, action: &str| {
        in_a("x", &format!("{order} ingress: [{{action: {action}, protocol: TCP}}]"))
    };
    let udp = "a/client a/server UDP 53";
    judge(&[nobody()], &[(WEB, NO), (udp, NO)]);
    // An earlier Allow undoes the isolation that the NetworkPolicy promises.
    judge(&[nobody(), calico("order: 999,", "Allow")], &[(WEB, YES), (udp, NO)]);
    // A later one still adds to it: the tier goes on to its end.
    judge(&[nobody(), calico("order: 1001,", "Allow")], &[(WEB, YES), (udp, NO)]);
    judge(&[everybody(), calico("order: 999,", "Deny")], &[(WEB, NO), (udp, YES)]);
    judge(&[everybody(), calico("order: 1001,", "Deny")], &[(WEB, YES), (udp, YES)]);
    judge(&[everybody(), calico("", "Deny")], &[(WEB, YES)]);
    // At the same order the name decides.
    let named = |name: &str| in_a(name, "order: 1000, ingress: [{action: Deny}]");
    judge(&[everybody(), named("m")], &[(WEB, NO)]);
    judge(&[everybody(), named("o")], &[(WEB, YES)]);
}

#[test]
fn an_earlier_tier_decides_before_any_network_policy() {
    let first = |action: &str| {
        [
            tier("first", "order: 1"),
            global("first.x", &format!("tier: first, ingress: [{{action: {action}}}]")),
            network_policy("np", "ingress: []"),
        ]
    };
    judge(&first("Allow"), &[(WEB, YES)]);
    judge(&first("Pass"), &[(WEB, NO), ("a/client b/other TCP 80", YES)]);
}

fn cluster_network_policy(tier: &str, action: &str) -> String {
    format!(
        "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {{name: k}}\nspec: {{tier: {tier}, priority: 5, subject: {{namespaces: {{}}}}, ingress: [{{action: {action}, from: [{{namespaces: {{}}}}]}}]}}\n---\n"
    )
}

#[test]
fn cluster_network_policies_stand_in_tiers_of_order_1000_and_10000000_from_3_32_on() {
    let deny = cluster_network_policy("Admin", "Deny");
    let only = std::slice::from_ref(&deny);
    judge(only, &[(WEB, NO), (OUTSIDE, YES)]);
    judge_under("calico@3.31", only, &[(WEB, YES)]);
    judge(&[deny.clone(), network_policy("np", "ingress: [{}]")], &[(WEB, NO)]);
    // A tier of the administrator's own may stand before it.
    let before = [tier("first", "order: 999"), global("first.x", "tier: first, ingress: [{action: Allow}]")];
    judge(&[before[0].clone(), before[1].clone(), deny.clone()], &[(WEB, YES)]);
    let after = [tier("first", "order: 1001"), global("first.x", "tier: first, ingress: [{action: Allow}]")];
    judge(&[after[0].clone(), after[1].clone(), deny], &[(WEB, NO)]);
    let baseline = cluster_network_policy("Baseline", "Deny");
    judge(std::slice::from_ref(&baseline), &[(WEB, NO)]);
    judge(&[baseline, network_policy("np", "ingress: [{}]")], &[(WEB, YES), ("a/client b/other TCP 80", NO)]);
}

#[test]
fn a_block_of_a_network_policy_matches_pods_by_address() {
    let block = network_policy("np", "ingress: [{from: [{ipBlock: {cidr: 10.0.1.0/24}}]}]");
    judge(&[block], &[(OTHER, YES), (WEB, NO)]);
}
