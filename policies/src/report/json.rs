//! For programs. The shape is `policies/schema/audit-v1.schema.json`; a field is never taken away within `v1`.

use super::packet;
use crate::audit::{DecidingRule, Finding, Outcome, catalog, word};
use crate::source::At;
use crate::truth::Doubt;
use serde_json::{Value, json};

/// The outcome as one JSON document; [`headed`] makes a text of it.
pub fn json(outcome: &Outcome) -> Value {
    let input = &outcome.input;
    json!({
        "sentence": outcome.sentence,
        "version": "v1",
        "verdict": outcome.word(),
        "profile": outcome.profile.to_string(),
        "assumptions": outcome.assumptions,
        "input": {
            "namespaces": input.namespaces, "pods": input.pods, "nodes": input.nodes,
            "services": input.services, "policies": input.policies, "complete": input.complete,
        },
        "intents": outcome.intents.iter().map(|intent| json!({
            "name": &*intent.name,
            "from": &*intent.from,
            "verdict": word(intent.proved),
            "pods": intent.pods,
            "doubts": doubts(&intent.doubts),
        })).collect::<Vec<_>>(),
        "findings": outcome.findings.iter().map(finding).collect::<Vec<_>>(),
        "accepted": outcome.accepted.iter().map(|accepted| json!({
            "finding": finding(&accepted.finding),
            "owner": accepted.owner, "reason": accepted.reason, "expires": accepted.expires,
        })).collect::<Vec<_>>(),
        "reach": outcome.reach.iter().map(|reach| json!({
            "from": reach.from, "to": reach.to, "traffic": reach.traffic, "intended": reach.intended,
            "passes": if reach.passes.must() { "yes" } else { "unknown" },
        })).collect::<Vec<_>>(),
    })
}

/// A document as text, with one of its fields on the first line: `{ "sentence": "Proved …",`, so that `head -1` of every format
/// shows the verdict.
pub fn headed(document: &Value, first: &str) -> String {
    let mut rest = document.clone();
    let head = rest.as_object_mut().and_then(|fields| fields.remove(first));
    let text = serde_json::to_string_pretty(&rest).unwrap_or_else(|_| "null".into());
    let (Some(head), Some(body)) = (head, text.strip_prefix('{')) else { return text };
    let comma = if body == "}" { " " } else { "," };
    format!("{{ {}: {head}{comma}{body}", Value::from(first))
}

/// One finding.
pub(crate) fn finding(finding: &Finding) -> Value {
    json!({
        "id": finding.id,
        "name": catalog::by_id(finding.id).map_or("", |kind| kind.name),
        "severity": finding.severity.name(),
        "certain": finding.certain.must(),
        "object": {
            "group": &*finding.object.group, "kind": &*finding.object.kind,
            "namespace": finding.object.namespace.as_deref(), "name": &*finding.object.name,
        },
        "at": finding.at.as_ref().map(at),
        "reason": finding.reason,
        "witness": finding.witness.as_ref().map(|witness| json!({
            "packet": packet(witness),
            "source": witness.source, "destination": witness.destination,
            "protocol": witness.protocol.to_string(), "port": witness.port,
            "rules": witness.rules.iter().map(rule).collect::<Vec<_>>(),
        })),
        "fix": finding.fix,
        "doubts": doubts(&finding.doubts),
        "fingerprint": finding.fingerprint(),
    })
}

fn rule(rule: &DecidingRule) -> Value {
    json!({
        "direction": rule.direction.to_string(),
        "policy": rule.policy.as_ref().map(ToString::to_string),
        "rule": rule.rule.as_deref(),
        "at": rule.at.as_ref().map(at),
    })
}

fn at(at: &At) -> Value {
    json!({ "file": &*at.file, "line": at.line, "column": at.column })
}

fn doubts(doubts: &[Doubt]) -> Vec<Value> {
    doubts.iter().map(|doubt| json!({ "what": &*doubt.what, "at": doubt.at.as_ref().map(at) })).collect()
}
