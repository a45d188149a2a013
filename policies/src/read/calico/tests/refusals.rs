#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "tests")]
use super::{error, global, namespaced, try_read};
use serde_json::{Value, json};

#[test]
fn what_calico_refuses_is_an_error_with_its_place_and_a_way_out() {
    for (spec, expected) in [
        (
            "selector: \"app = 'x'\"",
            "in.yaml:4:18: spec.selector is no selector: column 5: expected `==`, `!=`, `in`, `not in`, `contains`, `starts with` \
             or `ends with` after \"app\", not \"=\"; write it such as: app == \"web\" && env in {\"a\", \"b\"}",
        ),
        (
            "selector: global()",
            "in.yaml:4:18: spec.selector cannot have global() there; global() stands alone, in a rule's namespaceSelector only",
        ),
        ("types: [Ingress, Ingress]", "in.yaml:4:16: spec.types names a type twice; name each once"),
        (
            "ingress: [{action: Reject}]",
            "in.yaml:4:27: spec.ingress[0].action must be one of Allow, Deny, Pass, Log, is a string (\"Reject\")",
        ),
        (
            "ingress: [{action: Allow, protocol: tcp}]",
            "in.yaml:4:44: spec.ingress[0].protocol must be TCP, UDP, SCTP, ICMP, ICMPv6, UDPLite or a number from 1 to 255, is a \
             string (\"tcp\"); Calico takes no other name, and no other case",
        ),
        (
            "ingress: [{action: Allow, destination: {ports: [80]}}]",
            "in.yaml:4:56: spec.ingress[0].destination.ports needs a protocol that has ports; set protocol to TCP, UDP or SCTP",
        ),
        (
            "ingress: [{action: Allow, protocol: TCP, destination: {ports: [0]}}]",
            "in.yaml:4:71: spec.ingress[0].destination.ports[0] must be a port from 1 to 65535, or a range of them, is an integer \
             (0); a range is written \"8000:9000\"",
        ),
        (
            "ingress: [{action: Allow, protocol: TCP, destination: {ports: ['9000:8000']}}]",
            "in.yaml:4:71: spec.ingress[0].destination.ports[0] must be a port from 1 to 65535, or a range of them, is a string \
             (\"9000:8000\"); a range is written \"8000:9000\"",
        ),
        (
            "ingress: [{action: Allow, source: {nets: [10.0.0.1/8]}}]",
            "in.yaml:4:50: spec.ingress[0].source.nets[0]: \"10.0.0.1/8\" has bits set beyond its prefix; the block is \
             10.0.0.0/8; write 10.0.0.0/8, if that is meant",
        ),
        (
            "ingress: [{action: Allow, source: {nets: [10.0.0.0/8, 'fd00::/8']}}]",
            "in.yaml:4:42: spec.ingress[0].source has IPv4 and IPv6 blocks; a rule's blocks are of one family; make it two rules",
        ),
        (
            "ingress: [{action: Allow, ipVersion: 6, source: {nets: [10.0.0.0/8]}}]",
            "in.yaml:4:18: spec.ingress[0].ipVersion is not that of its blocks; make them one family",
        ),
        (
            "ingress: [{action: Allow, icmp: {type: 8}}]",
            "in.yaml:4:18: spec.ingress[0].icmp needs the protocol ICMP or ICMPv6; set protocol to one of them",
        ),
        (
            "ingress: [{action: Allow, protocol: ICMP, icmp: {code: 8}}]",
            "in.yaml:4:56: spec.ingress[0].icmp has a code and no type; give the type, too",
        ),
        (
            "egress: [{action: Allow, http: {methods: [GET]}}]",
            "in.yaml:4:39: spec.egress[0].http cannot stand there; HTTP is matched by rules of ingress that allow, of TCP or no \
             named protocol",
        ),
        (
            "egress: [{action: Allow, source: {services: {name: s}}}]",
            "in.yaml:4:17: spec.egress[0].source.services must be absent in an egress rule; an egress rule's services are those of \
             its destination",
        ),
        (
            "egress: [{action: Allow, destination: {services: {name: s}, selector: all()}}]",
            "in.yaml:4:78: spec.egress[0].destination.selector cannot stand beside services; make it a rule of its own",
        ),
        (
            "ingress: [{action: Allow, source: {namespaceSelector: \"global() || all()\"}}]",
            "in.yaml:4:62: spec.ingress[0].source.namespaceSelector cannot have global() there; global() stands alone, in a rule's \
             namespaceSelector only",
        ),
    ] {
        assert_eq!(error(&namespaced(spec)), expected, "{spec}");
    }
    for (spec, expected) in [
        ("doNotTrack: true, preDNAT: true, applyOnForward: true", "spec has both doNotTrack and preDNAT"),
        ("doNotTrack: true", "spec.applyOnForward must be true"),
        ("preDNAT: true, applyOnForward: true, types: [Egress]", "a preDNAT policy cannot speak of egress"),
        ("egress: [{action: Allow, destination: {services: {name: s}}}]", "names no Service"),
    ] {
        assert!(error(&global(spec)).contains(expected), "{spec}");
    }
    let tier = "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: default}\nspec: {order: 5}\n";
    assert_eq!(
        error(tier),
        "in.yaml:1:1: the tier default has an order and a default action that cannot be changed; write order: 1000000 and \
         defaultAction: Deny"
    );
}

/// The value with each of its parts, in turn, replaced by `with`.
fn replaced(value: &Value, with: &Value) -> Vec<Value> {
    let mut all = vec![with.clone()];
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                all.extend(replaced(inner, with).into_iter().map(|inner| {
                    let mut map = map.clone();
                    map.insert(key.clone(), inner);
                    Value::Object(map)
                }));
            }
        }
        Value::Array(list) => {
            for (n, inner) in list.iter().enumerate() {
                all.extend(replaced(inner, with).into_iter().map(|inner| {
                    let mut list = list.clone();
                    list[n] = inner;
                    Value::Array(list)
                }));
            }
        }
        _ => {}
    }
    all
}

#[test]
fn whatever_stands_in_a_field_reading_ends_in_a_policy_or_in_errors_with_places() {
    let entity = json!({
        "selector": "has(a)", "notSelector": "a == 'b'", "namespaceSelector": "all()", "nets": ["10.0.0.0/8"],
        "notNets": ["10.1.0.0/16"], "serviceAccounts": { "names": ["x"], "selector": "has(b)" },
        "ports": [80, "90:99", "http"], "notPorts": [95],
    });
    let rule = json!({
        "action": "Allow", "ipVersion": 4, "protocol": "TCP", "notProtocol": 47, "notICMP": { "type": 8, "code": 0 },
        "http": { "methods": ["GET"] }, "metadata": { "annotations": { "a": "b" } },
        "source": entity, "destination": entity,
    });
    let service =
        json!({ "action": "Pass", "destination": { "services": { "name": "s", "namespace": "b" } } });
    let spec = json!({
        "tier": "default", "order": 1.5, "selector": "all()", "namespaceSelector": "has(c)",
        "serviceAccountSelector": "has(d)", "types": ["Ingress", "Egress"], "applyOnForward": true,
        "performanceHints": ["AssumeNeededOnEveryNode"], "ingress": [rule], "egress": [service],
    });
    let global = |spec: Value| {
        json!({
            "apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy", "metadata": { "name": "g" }, "spec": spec,
        })
        .to_string()
    };
    assert!(try_read(&global(spec.clone())).unwrap().policies.iter().all(|policy| policy.doubts.is_empty()));
    let (mut read, mut refused) = (0, 0);
    let wrong = [
        json!(null),
        json!(true),
        json!(-1),
        json!(1e99),
        json!(""),
        json!("x"),
        json!([]),
        json!([null]),
        json!({}),
    ];
    for with in wrong {
        for spec in replaced(&spec, &with) {
            match try_read(&global(spec)) {
                Ok(cluster) => {
                    assert!(!cluster.policies.is_empty());
                    read += 1;
                }
                Err(errors) => {
                    assert!(
                        errors.errors().iter().all(|error| error.at.line > 0 && !error.message.is_empty())
                    );
                    refused += 1;
                }
            }
        }
    }
    // Null is absent, and many a text may be any text; the rest is refused.
    assert!(read > 50 && refused > 300, "{read} read, {refused} refused");
}
