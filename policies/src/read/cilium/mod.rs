//! CiliumNetworkPolicy, CiliumClusterwideNetworkPolicy and CiliumCIDRGroup of `cilium.io` → [`Policy`].
//!
//! | module | job |
//! |---|---|
//! | [`labels`] | endpoint selectors, with Cilium's own keys |
//! | [`rules`], [`ports`] | whom and which packets a rule names |
//! | [`link`] | what needs the rest: CIDR groups, Services, DNS rules of other policies |
//! | [`check`] | what the API server refuses (errors), what agents refuse (without effect) |
//!
//! Paths in comments name files of github.com/cilium/cilium at the tags v1.13.0 to v1.19.0. What differs between these is
//! written down as [`Match::Fact`], since a parser does not know which version will read its policies.

mod check;
mod labels;
mod link;
mod ports;
mod rules;

pub(super) use link::link;
pub(crate) use ports::LISTED_NAMES_ONLY;

use super::problems::{Problems, cidr, doubts, policy_ref};
use super::selector::all;
use super::{Document, Field, Object, ReadError, object};
use crate::cluster::Labels;
use crate::matching::{Kind, Match};
use crate::policy::{Action, Direction};
use crate::profile::{CiliumChange, Fact};
use crate::sets::AddressSet;
use crate::source::{At, ObjectRef};
use crate::truth::Doubt;
use check::Check;
use labels::Selector;
use rules::{Context, Raw};
use std::convert::Infallible;
use std::sync::Arc;

const CLUSTERWIDE: &str = "CiliumClusterwideNetworkPolicy";
const GROUP: &str = "CiliumCIDRGroup";

/// What this reads: group, versions, kind.
pub(super) const KINDS: &[(&str, &[&str], &str)] = &[
    ("cilium.io", &["v2"], "CiliumNetworkPolicy"),
    ("cilium.io", &["v2"], CLUSTERWIDE),
    ("cilium.io", &["v2", "v2alpha1"], GROUP),
];

/// A document of Cilium, read alone.
#[derive(Debug, Clone)]
pub(super) enum Parsed {
    /// Blocks of addresses that policies name.
    Group(Group),
    /// The rules of a policy: `spec` and each item of `specs`.
    Policy(Vec<Block>),
}

/// A CiliumCIDRGroup.
#[derive(Debug, Clone)]
pub(super) struct Group {
    name: Arc<str>,
    labels: Labels,
    addresses: AddressSet,
    doubts: Vec<Doubt>,
}

/// A rule in Cilium's sense: a selector with its sections.
#[derive(Debug, Clone)]
pub(super) struct Block {
    object: ObjectRef,
    at: At,
    subject: Match,
    ingress: Side,
    egress: Side,
    doubts: Vec<Doubt>,
    inert: Option<Arc<str>>,
    /// Whether a rule makes agents read the DNS answers of these pods.
    dns: bool,
}

/// What a block says of one direction.
#[derive(Debug, Clone, Default)]
struct Side {
    rules: Vec<Raw>,
    /// `enableDefaultDeny`.
    default_deny: Option<bool>,
}

/// Reads one.
///
/// # Errors
/// All that the schema of the custom resource refuses. What only agents refuse becomes a policy without effect.
pub(super) fn read(document: &Document) -> Result<Parsed, Vec<ReadError>> {
    let mut problems = Problems::default();
    let parsed = if *document.kind == *GROUP {
        Parsed::Group(group(document, &mut problems))
    } else {
        Parsed::Policy(policy(document, &mut problems))
    };
    problems.or(parsed)
}

fn group(document: &Document, problems: &mut Problems) -> Group {
    let object = policy_ref(document, false, problems);
    let mut blocks = Vec::new();
    let Ok((labels, unknown)) = object::read::<_, Infallible>(document, |root| {
        root.ignore(&["status"]);
        if let Some(spec) = problems.keep(root.object("spec")).flatten() {
            for field in problems.list(&spec, "externalCIDRs") {
                blocks.extend(cidr(&field, problems));
            }
        }
        let Some(metadata) = problems.keep(root.object("metadata")).flatten() else { return Ok(None) };
        metadata.ignore_rest();
        Ok(problems.keep(super::core::labels(metadata.optional("labels"))))
    });
    Group {
        name: object.name,
        labels: labels.unwrap_or_default(),
        addresses: AddressSet::blocks(blocks),
        doubts: doubts(&unknown).collect(),
    }
}

fn policy(document: &Document, problems: &mut Problems) -> Vec<Block> {
    let clusterwide = *document.kind == *CLUSTERWIDE;
    let object = policy_ref(document, !clusterwide, problems);
    let mut check = Check::new(problems);
    let Ok(((mut blocks, status), unknown)) = object::read::<_, Infallible>(document, |root| {
        let mut blocks = Vec::new();
        let spec = root.optional("spec");
        let specs = root.optional("specs").and_then(|list| check.problems.keep(list.list()));
        if spec.is_none() && specs.is_none() {
            let message = format!("{document} has neither spec nor specs");
            check.problems.add(document.at.clone(), message, "give it a spec");
        }
        for field in spec.iter().chain(specs.iter().flatten()) {
            blocks.extend(block(field, &object, &mut check));
        }
        Ok((blocks, status(root, &mut check)))
    });
    let (refused, unless) = check.end();
    let left: Vec<Doubt> = doubts(&unknown).collect();
    // Agents take an object whole or not at all (CiliumNetworkPolicy.Parse, pkg/k8s/apis/cilium.io/v2/cnp_types.go).
    for block in &mut blocks {
        block.inert = refused.clone().or_else(|| status.clone());
        block.doubts.extend(left.iter().cloned());
        let subject = std::mem::replace(&mut block.subject, Match::Nothing);
        block.subject = all(std::iter::once(subject).chain(unless.iter().cloned()).collect());
    }
    blocks
}

/// The operator's verdict on a policy: a condition `Valid` that is `False`.
fn status(root: &Object<'_>, check: &mut Check<'_>) -> Option<Arc<str>> {
    let status = check.problems.keep(root.object("status")).flatten()?;
    let mut found = None;
    for field in check.problems.list(&status, "conditions") {
        let Some(condition) = check.problems.keep(field.object()) else { continue };
        let text = |key, check: &mut Check<'_>| check.problems.keep(condition.string(key)).flatten();
        let invalid = (text("type", check), text("status", check)) == (Some("Valid"), Some("False"));
        let message = text("message", check).unwrap_or("no message");
        if invalid {
            found = Some(format!("its status says that it is not valid: {message}").into());
        }
        condition.ignore_rest();
    }
    status.ignore_rest();
    found
}

fn block(field: &Field<'_>, object: &ObjectRef, check: &mut Check<'_>) -> Option<Block> {
    let spec = check.problems.keep(field.object())?;
    spec.ignore(&["description", "labels", "log"]);
    let namespace = object.namespace.as_ref();
    let endpoints = spec.optional("endpointSelector");
    let nodes = spec.optional("nodeSelector");
    let mut left: Vec<Doubt> = Vec::new();
    let (subject, init) = match (endpoints, nodes) {
        (Some(selector), None) => {
            let selector = Selector::read(check.problems.keep(selector.object())?, check);
            left.extend(selector.doubts().iter().cloned());
            (selector.subject(namespace), selector.init())
        }
        (None, Some(selector)) => {
            if namespace.is_some() {
                check.reject(format!("{}: only a cluster-wide policy may select nodes", selector.path()));
            }
            // Policies of nodes need the host firewall (computePolicyEnforcementAndRules, pkg/policy/repository.go).
            let what =
                format!("{}: policies of nodes are enforced only with the host firewall", selector.path());
            let doubt = Match::Doubt(Doubt::at(what, &selector.at()));
            let selector = Selector::read(check.problems.keep(selector.object())?, check);
            let node = Match::OneOf(vec![Match::Kind(Kind::LocalNode), Match::Kind(Kind::RemoteNode)]);
            (Match::All(vec![node, selector.nodes(), doubt]), false)
        }
        _ => {
            let message = format!("{} must have one of endpointSelector and nodeSelector", field.path());
            check.problems.add(field.at(), message, "every pod of the namespace is endpointSelector: {}");
            return None;
        }
    };
    let keys = ["ingress", "ingressDeny", "egress", "egressDeny"];
    if !spec.keys().any(|key| keys.contains(&key)) {
        let message = format!("{} has none of ingress, ingressDeny, egress and egressDeny", field.path());
        check.problems.add(field.at(), message, "to deny all of a direction, give it one empty rule: [{}]");
    }
    let side = |direction: Direction, allow: &str, deny: &str, check: &mut Check<'_>| {
        let mut rules = Vec::new();
        for (key, action) in [(allow, Action::Allow), (deny, Action::Deny)] {
            for field in check.problems.list(&spec, key) {
                rules.extend(rules::read(&field, Context { namespace, direction, action, init }, check));
            }
        }
        Side { rules, default_deny: None }
    };
    let mut ingress = side(Direction::Ingress, "ingress", "ingressDeny", check);
    let mut egress = side(Direction::Egress, "egress", "egressDeny", check);
    if ingress.rules.is_empty() && egress.rules.is_empty() {
        // Refused from 1.17 on, of no effect before: either way nobody is isolated.
        check.reject_where_checked();
    }
    if let Some(deny) = check.problems.keep(spec.object("enableDefaultDeny")).flatten() {
        ingress.default_deny = check.problems.keep(deny.bool("ingress")).flatten();
        egress.default_deny = check.problems.keep(deny.bool("egress")).flatten();
    }
    let dns = egress.rules.iter().any(|rule| rule.action == Action::Allow && rule.ports.dns);
    let wide = ingress.rules.iter().chain(&egress.rules).flat_map(|rule| &rule.wide_doubts);
    left.extend(wide.cloned());
    // What a field that is not understood narrows or widens, nobody knows.
    left.extend(doubts(&spec.finish()));
    Some(Block {
        object: object.clone(),
        at: field.at(),
        subject,
        ingress,
        egress,
        doubts: left,
        inert: None,
        dns,
    })
}

/// Whether versions differ in what `enableDefaultDeny` does here: before 1.16 the API server drops it.
fn differs(side: &Side) -> bool {
    !side.rules.is_empty() && side.default_deny == Some(false)
}

/// Holds where the profile says yes.
fn fact(change: CiliumChange) -> Match {
    Match::Fact(Fact::Cilium(change))
}

#[cfg(test)]
mod tests;
