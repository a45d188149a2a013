//! An outcome as table, JSON, SARIF, HTML or DOT. The first line of each is, or holds, one sentence: the verdict
//! (JSON and SARIF through [`headed`]).

mod dot;
mod html;
mod json;
mod sarif;
mod table;

pub use dot::dot;
pub use html::html;
pub use json::{headed, json};
pub use sarif::sarif;
pub use table::{clean, table};

use crate::audit::{DecidingRule, Summary, Witness};
use crate::sets::Protocol;

/// What an audit looked at, counted: `1 pod or template, 0 namespaces, 3 nodes, 2 services and 1 policy`.
pub(crate) fn looked_at(input: &Summary) -> String {
    let count = |many: usize, one: &str, more: &str| format!("{many} {}", if many == 1 { one } else { more });
    format!(
        "{}, {}, {}, {} and {}",
        count(input.pods, "pod or template", "pods and templates"),
        count(input.namespaces, "namespace", "namespaces"),
        count(input.nodes, "node", "nodes"),
        count(input.services, "service", "services"),
        count(input.policies, "policy", "policies"),
    )
}

/// A packet in words: `Deployment media/worker → 169.254.169.254 TCP 80`.
pub(crate) fn packet(witness: &Witness) -> String {
    let traffic = match witness.protocol {
        Protocol::Icmp | Protocol::Icmpv6 => {
            format!("{} type {} code {}", witness.protocol, witness.port >> 8, witness.port & 255)
        }
        Protocol::Other(_) => witness.protocol.to_string(),
        protocol => format!("{protocol} {}", witness.port),
    };
    format!("{} → {} {traffic}", witness.source, witness.destination)
}

/// A deciding rule in words: `egress NetworkPolicy media/worker spec.egress[1] (np.yaml:22:5)`.
pub(crate) fn deciding(rule: &DecidingRule) -> String {
    let mut text = rule.direction.to_string();
    match &rule.policy {
        Some(policy) => text.push_str(&format!(" {policy}")),
        None => text.push_str(" no policy selects it"),
    }
    if let Some(path) = &rule.rule {
        text.push_str(&format!(" {path}"));
    }
    if let Some(at) = &rule.at {
        text.push_str(&format!(" ({at})"));
    }
    text
}
