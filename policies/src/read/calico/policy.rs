//! Policies of Calico: documents → what they say, checked as by `libcalico-go/lib/validator/v3` (3.26 to 3.32).

use super::members::all;
use super::rule::{Around, Globals, RawRule, rule, selector};
use super::selector::{NAMESPACE, OF_NAMESPACE, OF_SERVICE_ACCOUNT, Selector};
use super::{GROUP, named, number, set};
use crate::matching::{Kind, LabelOwner, Match, Test};
use crate::policy::{Dialect, Direction, Place, Policy};
use crate::read::problems::{Problems, doubts};
use crate::read::selector::label_selector;
use crate::read::{Document, Field, Object};
use crate::source::{At, ObjectRef};
use crate::truth::Doubt;
use std::sync::Arc;

/// The tier of policies that name none, and of the NetworkPolicies.
const DEFAULT_TIER: &str = "default";

/// A NetworkPolicy or a GlobalNetworkPolicy, as written.
#[derive(Debug)]
pub(super) struct RawPolicy {
    pub(super) object: ObjectRef,
    pub(super) at: At,
    pub(super) tier: Arc<str>,
    pub(super) order: Option<f64>,
    /// Whom it selects, over labels with what they inherit.
    pub(super) subject: Selector,
    /// Its rules of ingress, if it has a say there.
    pub(super) ingress: Option<Vec<RawRule>>,
    /// Its rules of egress, if it has a say there.
    pub(super) egress: Option<Vec<RawRule>>,
    pub(super) doubts: Vec<Doubt>,
    pub(super) inert: Option<Arc<str>>,
    /// Rules of a direction that `types` does not name.
    pub(super) inert_rules: Vec<At>,
}

/// Reads a (Staged)NetworkPolicy or (Staged)GlobalNetworkPolicy.
pub(super) fn policy(document: &Document, root: Object<'_>, problems: &mut Problems) -> Option<RawPolicy> {
    let stored = set::stored(document, &root, problems)?;
    let mut object = named(document, problems)?;
    let spec = problems.keep(root.object("spec")).flatten();
    let staged = document.kind.starts_with("Staged");
    let mut policy = RawPolicy {
        at: document.at.clone(),
        tier: DEFAULT_TIER.into(),
        order: None,
        subject: Selector::All,
        ingress: None,
        egress: None,
        doubts: Vec::new(),
        inert: staged.then(|| "it is staged: Calico reports what it would do, and does nothing".into()),
        inert_rules: Vec::new(),
        object: object.clone(),
    };
    let mut types = Types::default();
    match &spec {
        Some(spec) => body(spec, &mut policy, &mut types, problems),
        None => policy.subject = subject(None, &policy.object, problems),
    }
    drop(spec);
    // Without types, Calico's API sets them by the rules (`api/pkg/defaults/networkpolicy.go`). What is written below the API,
    // in the stored form, keeps none, and Felix then takes both (`felix/calc/policy_sorter.go`).
    let (ingress, egress) = types.given.unwrap_or_else(|| {
        let stored = document.group() != GROUP;
        (stored || types.has_ingress || !types.has_egress, stored || types.has_egress)
    });
    let undeclared =
        [(ingress, &policy.ingress), (egress, &policy.egress)].into_iter().filter(|(declared, _)| !declared);
    policy.inert_rules =
        undeclared.flat_map(|(_, rules)| rules.iter().flatten()).map(|rule| rule.at.clone()).collect();
    policy.ingress = policy.ingress.or_else(|| Some(Vec::new())).filter(|_| ingress);
    policy.egress = policy.egress.or_else(|| Some(Vec::new())).filter(|_| egress);
    if document.group() != GROUP {
        // The stored name starts with the tier's; users know a policy of the default tier without it.
        let short = object.name.strip_prefix("default.").map(Arc::from);
        object.name = stored.name.or(short).unwrap_or(object.name);
        policy.object = object;
    }
    policy.doubts = doubts(&root.finish()).collect();
    Some(policy)
}

#[derive(Default)]
struct Types {
    /// For ingress and for egress, where the policy says.
    given: Option<(bool, bool)>,
    has_ingress: bool,
    has_egress: bool,
}

fn body(spec: &Object<'_>, policy: &mut RawPolicy, types: &mut Types, problems: &mut Problems) {
    // Hints and reports change nothing of what passes.
    spec.ignore(&["performanceHints"]);
    if policy.inert.is_some() {
        spec.ignore(&["stagedAction"]);
    }
    let tier = problems.keep(spec.string("tier")).flatten().filter(|tier| !tier.is_empty());
    policy.tier = tier.unwrap_or(DEFAULT_TIER).into();
    policy.order = spec.optional("order").and_then(|field| problems.keep(number(&field)));
    policy.subject = subject(Some(spec), &policy.object, problems);
    let fields = problems.list(spec, "types");
    if !fields.is_empty() {
        let (mut ingress, mut egress) = (0_u8, 0_u8);
        for field in &fields {
            match problems
                .keep(field.choice(&[("Ingress", Direction::Ingress), ("Egress", Direction::Egress)]))
            {
                Some(Direction::Ingress) => ingress = ingress.saturating_add(1),
                Some(Direction::Egress) => egress = egress.saturating_add(1),
                None => {}
            }
        }
        if let (true, Some(first)) = (ingress > 1 || egress > 1, fields.first()) {
            problems.add(first.at(), "spec.types names a type twice", "name each once");
        }
        types.given = Some((ingress > 0, egress > 0));
    }
    let namespaced = policy.object.namespace.is_some();
    let mut rules = |key: &str, direction: Direction| -> Vec<RawRule> {
        let around = Around { direction, namespaced };
        let fields: Vec<Field<'_>> = problems.list(spec, key);
        fields.iter().filter_map(|field| rule(field, around, problems)).collect()
    };
    let (ingress, egress) = (rules("ingress", Direction::Ingress), rules("egress", Direction::Egress));
    (types.has_ingress, types.has_egress) = (!ingress.is_empty(), !egress.is_empty());
    (policy.ingress, policy.egress) = (Some(ingress), Some(egress));
    if !namespaced {
        host_flags(spec, policy, types, problems);
    }
}

/// Whom a policy selects (`networkpolicyprocessor.go`, `globalnetworkpolicyprocessor.go`).
fn subject(spec: Option<&Object<'_>>, object: &ObjectRef, problems: &mut Problems) -> Selector {
    let mut parts = Vec::new();
    let mut read = |key: &str| selector(spec?, key, Globals::Refused, problems);
    parts.extend(read("selector"));
    match &object.namespace {
        Some(namespace) => parts.push(Selector::Label(NAMESPACE.into(), Test::Is(namespace.clone()))),
        None => parts.extend(read("namespaceSelector").map(|s| s.inherited(OF_NAMESPACE))),
    }
    parts.extend(read("serviceAccountSelector").map(|s| s.inherited(OF_SERVICE_ACCOUNT)));
    Selector::And(parts)
}

/// Flags of global policies that concern host endpoints. Felix keeps untracked and pre-DNAT policies from workloads;
/// `applyOnForward` adds to what the policy does and takes nothing away (`tierInfoToProtoTierInfo` of
/// `felix/calc/event_sequencer.go`).
fn host_flags(spec: &Object<'_>, policy: &mut RawPolicy, types: &Types, problems: &mut Problems) {
    let mut flag = |key: &str| problems.keep(spec.bool(key)).flatten().unwrap_or(false);
    let (untracked, pre_dnat, forward) = (flag("doNotTrack"), flag("preDNAT"), flag("applyOnForward"));
    if untracked && pre_dnat {
        problems.add(
            spec.at(),
            "spec has both doNotTrack and preDNAT",
            "a policy has one of them; make it two",
        );
    }
    if (untracked || pre_dnat) && !forward {
        let message = "spec.applyOnForward must be true with doNotTrack or preDNAT";
        problems.add(spec.at(), message, "set it to true");
    }
    if pre_dnat && (types.has_egress || types.given.is_some_and(|(_, egress)| egress)) {
        problems.add(
            spec.at(),
            "a preDNAT policy cannot speak of egress",
            "take egress out of rules and types",
        );
    }
    if policy.inert.is_none() && (untracked || pre_dnat) {
        policy.inert =
            Some("a doNotTrack or preDNAT policy applies to host endpoints only, never to pods".into());
    }
}

/// Reads a StagedKubernetesNetworkPolicy, as far as whom it selects.
pub(super) fn staged_kubernetes(
    document: &Document,
    root: Object<'_>,
    problems: &mut Problems,
) -> Option<Policy> {
    let object = named(document, problems)?;
    let mut parts = vec![Match::Kind(Kind::Pod)];
    parts.extend(object.namespace.iter().cloned().map(|name| Match::Namespace(Test::Is(name))));
    if let Some(spec) = problems.keep(root.object("spec")).flatten() {
        let pods = spec.optional("podSelector").and_then(|field| problems.keep(field.object()));
        parts.extend(pods.map(|pods| label_selector(pods, LabelOwner::Endpoint, problems)));
        spec.ignore_rest();
    }
    root.ignore_rest();
    Some(Policy {
        object,
        at: document.at.clone(),
        dialect: Dialect::Calico,
        place: Place::Calico { tier: DEFAULT_TIER.into(), order: Some(1000.0) },
        subject: all(parts),
        ingress: None,
        egress: None,
        doubts: Vec::new(),
        inert: Some("it is staged: Calico reports what it would do, and does nothing".into()),
        inert_rules: Vec::new(),
    })
}
