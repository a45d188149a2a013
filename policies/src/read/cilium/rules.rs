//! Rules of Cilium's policies: whom they name. What needs the rest of the cluster is kept as [`Peer`] for [`super::link`].

use super::super::network_policy::overlap;
use super::super::problems::doubts;
use super::super::{Field, Object};
use super::check::Check;
use super::labels::{Selector, reserved};
use super::ports::{self, Ports};
use crate::matching::{DomainPattern, Match};
use crate::policy::{Action, Direction};
use crate::profile::{CiliumChange, Fact};
use crate::sets::{AddressSet, Cidr, Family};
use crate::source::At;
use crate::truth::Doubt;
use std::sync::Arc;

/// A rule as far as it can be read alone.
#[derive(Debug, Clone)]
pub(super) struct Raw {
    pub(super) path: Arc<str>,
    pub(super) at: At,
    pub(super) action: Action,
    /// `None` where no list of peers is given.
    pub(super) peers: Option<Vec<Peer>>,
    /// Lists that are there and empty.
    pub(super) empty: Empty,
    pub(super) ports: Arc<Ports>,
    /// Names what the whole rule depends on: an unknown field, authentication.
    pub(super) doubts: Vec<Doubt>,
    /// Names what every policy of the same pods depends on.
    pub(super) wide_doubts: Vec<Doubt>,
}

/// Whether a list of peers is given and empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Empty {
    /// None is.
    No,
    /// One is that makes the rule match nobody.
    Nobody,
}

/// Whom a rule names.
#[derive(Debug, Clone)]
pub(super) enum Peer {
    /// Known.
    Known(Match),
    /// Names that the DNS proxy must have seen.
    Domain(Match),
    /// The blocks of CiliumCIDRGroups.
    Groups(Which, At),
    /// The backends of Services.
    Services(Which, Option<Arc<str>>, At),
}

/// Objects by name or by labels.
#[derive(Debug, Clone)]
pub(super) enum Which {
    Named(Arc<str>),
    Selected(Selector),
}

/// Where a rule stands.
#[derive(Clone, Copy)]
pub(super) struct Context<'c> {
    pub(super) namespace: Option<&'c Arc<str>>,
    pub(super) direction: Direction,
    pub(super) action: Action,
    /// The policy is about initializing pods.
    pub(super) init: bool,
}

/// Reads a rule.
pub(super) fn read(field: &Field<'_>, context: Context<'_>, check: &mut Check<'_>) -> Option<Raw> {
    let object = check.problems.keep_or(field.object(), "a rule that matches nobody is written {}")?;
    let ingress = context.direction == Direction::Ingress;
    let deny = context.action == Action::Deny;
    let ports = ports::read(&object, deny, ingress, check);
    let mut lists = Lists {
        object: &object,
        prefix: if ingress { "from" } else { "to" },
        peers: None,
        empty: Empty::No,
        given: Vec::new(),
    };
    let (mut doubted, mut wide) = (Vec::new(), Vec::new());
    lists.each("Endpoints", true, check, |field, check| {
        let selector = Selector::read(check.problems.keep(field.object())?, check);
        Some(Peer::Known(selector.peers(context.namespace, context.init)))
    });
    lists.each("Entities", true, check, |field, check| entity(field, check));
    lists.each("CIDR", true, check, |field, check| {
        block(field, check).map(|block| Peer::Known(blocks(block, &[])))
    });
    lists.each("CIDRSet", true, check, cidr_rule);
    lists.each("Nodes", true, check, |field, check| {
        let selector = Selector::read(check.problems.keep(field.object())?, check);
        let what = format!(
            "{}: nodes by label are known only with --enable-node-selector-labels (1.16 and later)",
            field.path()
        );
        Some(Peer::Known(Match::All(vec![selector.nodes(), Match::Doubt(Doubt::at(what, &field.at()))])))
    });
    lists.each("Groups", false, check, |field, check| {
        check.problems.keep(field.object())?.ignore_rest();
        let what = format!("{}: which addresses the cloud's groups have is not known", field.path());
        Some(Peer::Known(Match::Doubt(Doubt::at(what, &field.at()))))
    });
    if !ingress {
        lists.each("Services", false, check, service);
        if !deny {
            lists.each("FQDNs", false, check, domain);
        }
    }
    let (peers, empty, given) = (lists.peers, lists.empty, lists.given);
    if let [first, second, ..] = given.as_slice() {
        let why = format!("{} combines {first} and {second}; make two rules of it", field.path());
        if deny { check.reject_where_checked() } else { check.reject(why) }
    }
    if given.iter().any(|list| list == "toServices") && ports.named {
        check.reject_unless(CiliumChange::ServicesWithPorts);
    }
    let requires = if ingress { "fromRequires" } else { "toRequires" };
    if let Some(list) = object.optional(requires)
        && check.problems.keep(list.list()).is_some_and(|items| !items.is_empty())
    {
        let what = format!(
            "{}: it narrows the rules of all policies for these pods, and is gone in 1.19",
            list.path()
        );
        wide.push(Doubt::at(what, &list.at()));
    }
    if !deny && let Some(mode) = check.problems.keep(object.object("authentication")).flatten() {
        let mode = check.problems.keep(mode.required("mode"));
        let words = [("disabled", false), ("required", true), ("test-always-fail", true)];
        if let Some(mode) = mode
            && check.problems.keep(mode.choice(&words)) == Some(true)
        {
            let what = format!("{}: whether the peer can authenticate is not known", mode.path());
            doubted.push(Doubt::at(what, &mode.at()));
        }
    }
    let (path, at) = (field.path().into(), object.at());
    doubted.extend(doubts(&object.finish()));
    Some(Raw {
        path,
        at,
        action: context.action,
        peers,
        empty,
        ports: Arc::new(ports),
        doubts: doubted,
        wide_doubts: wide,
    })
}

/// The lists of peers of a rule. A rule may have one of them only; before 1.17 a denying rule's are joined by *or*.
struct Lists<'o, 'a> {
    object: &'o Object<'a>,
    prefix: &'static str,
    peers: Option<Vec<Peer>>,
    empty: Empty,
    /// Lists that have members.
    given: Vec<String>,
}

impl<'a> Lists<'_, 'a> {
    fn each(
        &mut self,
        name: &str,
        nobody_if_empty: bool,
        check: &mut Check<'_>,
        mut read: impl FnMut(&Field<'a>, &mut Check<'_>) -> Option<Peer>,
    ) {
        let key = format!("{}{name}", self.prefix);
        let Some(list) = self.object.optional(&key) else { return };
        let Some(items) = check.problems.keep(list.list()) else { return };
        if items.is_empty() {
            if nobody_if_empty {
                self.empty = Empty::Nobody;
            }
            return;
        }
        let peers = self.peers.get_or_insert_default();
        for item in &items {
            peers.extend(read(item, check));
        }
        self.given.push(key);
    }
}

fn entity(field: &Field<'_>, check: &mut Check<'_>) -> Option<Peer> {
    // The schema does not list world-ipv4 and world-ipv6, which the agent knows.
    const WORDS: [&str; 11] = [
        "all",
        "world",
        "cluster",
        "host",
        "init",
        "ingress",
        "unmanaged",
        "remote-node",
        "health",
        "none",
        "kube-apiserver",
    ];
    let word = check.problems.keep_or(
        field.choice(&WORDS.map(|word| (word, word))),
        "of the world, a family's addresses are toCIDR 0.0.0.0/0 or ::/0",
    )?;
    // All that Cilium knows to be in the cluster, and the API server, wherever it runs (InitEntities, pkg/policy/api/entity.go).
    let known = if word == "cluster" {
        use crate::matching::Kind::{LocalNode, Pod, RemoteNode};
        Match::OneOf(vec![
            Match::Kind(Pod),
            Match::Kind(LocalNode),
            Match::Kind(RemoteNode),
            Match::KubeApiServer,
        ])
    } else {
        reserved(word, &Some(field.at()))?
    };
    Some(Peer::Known(known))
}

/// A block, for which the schema has a format.
fn block(field: &Field<'_>, check: &mut Check<'_>) -> Option<Cidr> {
    super::super::problems::cidr(field, check.problems)
}

/// Addresses by block, less exceptions. Before 1.15 a block of a whole family is the label `reserved:world`, both families'
/// (GetCIDRLabels, pkg/labels/cidr).
fn blocks(block: Cidr, except: &[Cidr]) -> Match {
    let hole = AddressSet::blocks(except.iter().copied());
    let known = Match::Cidr(AddressSet::block(block).difference(&hole));
    if block.prefix() > 0 {
        return known;
    }
    let other = if block.base().is_ipv4() { Family::V6 } else { Family::V4 };
    let older = Match::Fact(Fact::Cilium(CiliumChange::WorldByFamily)).negate();
    Match::OneOf(vec![known, Match::All(vec![older, Match::Cidr(AddressSet::family(other))])])
}

fn cidr_rule(field: &Field<'_>, check: &mut Check<'_>) -> Option<Peer> {
    let object = check.problems.keep(field.object())?;
    let keys = ["cidr", "cidrGroupRef", "cidrGroupSelector"];
    if object.keys().filter(|key| keys.contains(key)).count() != 1 {
        let message = format!("{} must have one of cidr, cidrGroupRef and cidrGroupSelector", field.path());
        check.problems.add(field.at(), message, "make an item of each");
        return None;
    }
    let mut excepted = Vec::new();
    let exceptions = check.problems.list(&object, "except");
    for field in &exceptions {
        let Some(except) = block(field, check) else { continue };
        overlap(field, except, &excepted, check.problems);
        excepted.push(except);
    }
    let known = if let Some(cidr) = object.optional("cidr") {
        let whole = block(&cidr, check)?;
        let set = AddressSet::block(whole);
        for (except, field) in excepted.iter().zip(&exceptions) {
            if !set.contains(except.base()) {
                check.reject(format!("{}: {except} does not lie in {whole}", field.path()));
            }
        }
        Peer::Known(blocks(whole, &excepted))
    } else if !exceptions.is_empty() {
        object.ignore(&keys);
        let what = format!("{}: exceptions of a group are not supported by Cilium", field.path());
        Peer::Known(Match::Doubt(Doubt::at(what, &field.at())))
    } else if let Some(name) = object.optional("cidrGroupRef") {
        Peer::Groups(Which::Named(check.problems.keep(name.string())?.into()), field.at())
    } else {
        let selector = check.problems.keep(object.object("cidrGroupSelector")).flatten()?;
        Peer::Groups(Which::Selected(Selector::read(selector, check)), field.at())
    };
    Some(doubts(&object.finish()).next().map_or(known, |doubt| Peer::Known(Match::Doubt(doubt))))
}

fn service(field: &Field<'_>, check: &mut Check<'_>) -> Option<Peer> {
    let object = check.problems.keep(field.object())?;
    let by_name = check.problems.keep(object.object("k8sService")).flatten();
    let by_label = check.problems.keep(object.object("k8sServiceSelector")).flatten();
    let namespace = |object: &Object<'_>, check: &mut Check<'_>| {
        check
            .problems
            .keep(object.string("namespace"))
            .flatten()
            .filter(|text| !text.is_empty())
            .map(Arc::from)
    };
    // A selector goes before a name (processRule, pkg/policy/k8s/service.go).
    let known = if let Some(part) = by_label {
        if let Some(by_name) = by_name {
            by_name.ignore_rest();
        }
        let selector = check.problems.keep(part.required("selector"))?;
        let selector = Selector::read(check.problems.keep(selector.object())?, check);
        Peer::Services(Which::Selected(selector), namespace(&part, check), field.at())
    } else if let Some(part) = by_name {
        let name = check.problems.keep(part.string("serviceName")).flatten().unwrap_or_default();
        Peer::Services(Which::Named(name.into()), namespace(&part, check), field.at())
    } else {
        Peer::Known(Match::Nothing)
    };
    Some(doubts(&object.finish()).next().map_or(known, |doubt| Peer::Known(Match::Doubt(doubt))))
}

fn domain(field: &Field<'_>, check: &mut Check<'_>) -> Option<Peer> {
    let object = check.problems.keep(field.object())?;
    let hint = "write one DNS name; in a matchPattern, `*` stands for characters but dots";
    let word = |key: &str, star: bool, check: &mut Check<'_>| {
        let field = object.optional(key)?;
        let text = check.problems.keep(field.string())?;
        let plain =
            |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.') || (star && b == b'*');
        if text.is_empty()
            || text.len() > 255
            || text.starts_with('.')
            || text.contains("..")
            || !text.bytes().all(plain)
        {
            check.problems.invalid(&field, "a DNS name", hint);
            return None;
        }
        Some(text.trim_end_matches('.').to_ascii_lowercase())
    };
    let (name, pattern) = (word("matchName", false, check), word("matchPattern", true, check));
    let known = match (name, pattern) {
        (Some(name), None) => Match::Domain(DomainPattern::Name(name.into())),
        (None, Some(pattern)) => self::pattern(&pattern, field),
        (None, None) => return None,
        (Some(_), Some(_)) => {
            let message = format!("{} has both matchName and matchPattern", field.path());
            check.problems.add(field.at(), message, "make an item of each");
            return None;
        }
    };
    Some(
        doubts(&object.finish()).next().map_or(Peer::Domain(known), |doubt| Peer::Known(Match::Doubt(doubt))),
    )
}

/// A pattern (pkg/fqdn/matchpattern/matchpattern.go): `*` alone is every name; else `*` stands for any characters but dots,
/// and since 1.19 `**.` at the start for one or more labels.
fn pattern(pattern: &str, field: &Field<'_>) -> Match {
    let labels = |text: String| Match::Domain(DomainPattern::Labels(text.into()));
    let newer = Match::Fact(Fact::Cilium(CiliumChange::SubdomainPattern));
    let mut single = String::new();
    for c in pattern.chars() {
        if c != '*' || !single.ends_with('*') {
            single.push(c);
        }
    }
    if pattern == "*" {
        return Match::Domain(DomainPattern::Under("".into()));
    }
    if single == "*" {
        let every = Match::Domain(DomainPattern::Under("".into()));
        return Match::OneOf(vec![Match::All(vec![newer, every]), labels(single)]);
    }
    let stars = pattern.bytes().take_while(|b| *b == b'*').count();
    match single.strip_prefix("*.") {
        Some(suffix) if stars > 1 => {
            let under = if suffix.contains('*') {
                let what = format!("{}: names under a pattern are not followed", field.path());
                Match::Doubt(Doubt::at(what, &field.at()))
            } else {
                Match::Domain(DomainPattern::Under(suffix.into()))
            };
            Match::OneOf(vec![Match::All(vec![newer, under]), labels(single.clone())])
        }
        _ => labels(single),
    }
}
