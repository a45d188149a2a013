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

use crate::audit::{DecidingRule, Witness};
use crate::sets::Protocol;

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
