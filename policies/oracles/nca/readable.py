"""Writes policies so that NCA reads what is meant, and refuses those that it cannot be made to read. README.md lists each
rewriting and each refusal with the sentence of the specification."""

import copy
import ipaddress
import itertools

# A policy's types, and where the rules of each are.
DIRECTIONS = (("Ingress", "ingress"), ("Egress", "egress"))

# Stands for the empty value of a namespace's label, which NCA takes for an absent label. No generated label has it, and none
# of its characters is searched for.
EMPTY = "000"

# A label that Calico gives to every pod and to nothing else.
POD_LABEL = "projectcalico.org/orchestrator"


class Refused(Exception):
    """The case or the packet is outside of what NCA can answer; the text says why."""


class Facts:
    """What the rewriting of one policy needs to know of the whole cluster."""

    def __init__(self, documents):
        self.policies = [d for d in documents if d.get("kind") in ("NetworkPolicy", "GlobalNetworkPolicy")]
        self.has_network_sets = any(d.get("kind") in ("NetworkSet", "GlobalNetworkSet") for d in documents)
        pods = [d for d in documents if d.get("kind") == "Pod"]
        # All values that pods have, by label key.
        self.values = {}
        for pod in pods:
            for key, value in (pod["metadata"].get("labels") or {}).items():
                self.values.setdefault(key, set()).add(value)
        blocks = [ipaddress.ip_network(b, strict=False) for b in blocks_of(documents)]
        # Pods with an address that some block of some policy covers.
        self.pods_in_blocks = {
            f"{pod['metadata'].get('namespace', 'default')}/{pod['metadata']['name']}"
            for pod in pods
            if any(address in block for address in addresses_of(pod) for block in blocks)
        }


def blocks_of(value):
    """Every block that is written anywhere; one inside another's `except` is inside the other."""
    if isinstance(value, list):
        return itertools.chain.from_iterable(map(blocks_of, value))
    if not isinstance(value, dict):
        return iter(())
    own = [value["cidr"]] if "cidr" in value else []
    own += (value.get("nets") or []) + (value.get("notNets") or [])
    return itertools.chain(own, itertools.chain.from_iterable(map(blocks_of, value.values())))


def addresses_of(pod):
    status = pod.get("status") or {}
    listed = [entry["ip"] for entry in status.get("podIPs") or []] or [status.get("podIP")]
    return [ipaddress.ip_address(address) for address in listed if address]


def with_calico_labels(document):
    """A pod or a network set with the labels that Calico adds."""
    if document.get("kind") not in ("Pod", "NetworkSet"):
        return document
    labelled = copy.deepcopy(document)
    labels = labelled["metadata"].get("labels") or {}
    labels["projectcalico.org/namespace"] = labelled["metadata"].get("namespace", "default")
    if document["kind"] == "Pod":
        labels[POD_LABEL] = "k8s"
    labelled["metadata"]["labels"] = labels
    return labelled


def evaluation_tie(policy):
    """Calico's order of policies with equal `order`: by name, namespace and kind. NCA keeps the order of the input."""
    metadata = policy["metadata"]
    kind = "KubernetesNetworkPolicy" if is_kubernetes(policy) else policy["kind"]
    return f"{metadata['name']}/{metadata.get('namespace', '')}/{kind}"


def is_kubernetes(policy):
    return policy["apiVersion"].startswith("networking.k8s.io/")


def readable(policy, facts):
    """A copy of the policy that NCA reads as the specification reads the original."""
    policy = copy.deepcopy(policy)
    if is_kubernetes(policy):
        rewrite_kubernetes(policy["spec"], facts)
    else:
        rewrite_calico(policy, facts)
    return policy


def rewrite_kubernetes(spec, facts):
    types = spec.get("policyTypes") or (["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])
    # NCA knows only this order of the two.
    spec["policyTypes"] = [t for t in ("Ingress", "Egress") if t in types]
    drop_rules_of_other_types(spec, types)
    for _, rules in DIRECTIONS:
        for rule in spec.get(rules) or []:
            for peer in (rule.get("from") or []) + (rule.get("to") or []):
                mark_empty_values(peer.get("namespaceSelector") or {})
                if peer.get("namespaceSelector") is not None:
                    spell_out_existence(peer.get("podSelector") or {}, facts.values)


def drop_rules_of_other_types(spec, types):
    """Rules of a direction that is not among the types do nothing; NCA refuses them."""
    for direction, rules in DIRECTIONS:
        if direction not in types:
            spec.pop(rules, None)


def mark_empty_values(selector):
    for key, value in (selector.get("matchLabels") or {}).items():
        selector["matchLabels"][key] = value or EMPTY
    for requirement in selector.get("matchExpressions") or []:
        if requirement.get("values"):
            requirement["values"] = [value or EMPTY for value in requirement["values"]]


def spell_out_existence(selector, values):
    """Exists and DoesNotExist of a podSelector beside a namespaceSelector, which NCA looks up in the policy's own namespace
    alone, become In and NotIn over the values that there are."""
    for requirement in selector.get("matchExpressions") or []:
        operator = {"Exists": "In", "DoesNotExist": "NotIn"}.get(requirement["operator"])
        if operator:
            requirement["operator"] = operator
            requirement["values"] = sorted(values.get(requirement["key"], {EMPTY}))


def rewrite_calico(policy, facts):
    spec = policy["spec"]
    # NCA knows no tiers; this one is where all policies live that name none.
    if spec.get("tier") == "default":
        del spec["tier"]
    egress, ingress = bool(spec.get("egress")), bool(spec.get("ingress"))
    # An empty list of rules is no rule; NCA looks whether the field is there.
    types = spec.get("types") or (["Egress"] if egress and not ingress else ["Ingress"] + ["Egress"] * egress)
    spec["types"] = types
    drop_rules_of_other_types(spec, types)
    namespaced = policy["kind"] == "NetworkPolicy"
    for _, rules in DIRECTIONS:
        if spec.get(rules):
            spec[rules] = [new for rule in spec[rules] for new in calico_rules(rule, namespaced, facts)]


def calico_rules(rule, namespaced, facts):
    """One or more rules with the same action that together match what `rule` matches."""
    if "ipVersion" in rule:
        raise Refused("a rule with ipVersion: NCA ignores the field")
    for field in ("icmp", "notICMP"):
        # NCA takes type 0 and code 0 for absent; all types and codes, of packets too, count from 1 here.
        rule[field] = {key: shifted(value) for key, value in (rule.get(field) or {}).items()}
        if not rule[field]:
            del rule[field]
    sides = [(side, entities(rule[side], namespaced, facts)) for side in ("source", "destination") if rule.get(side)]
    return [
        {**rule, **{side: entity for (side, _), entity in zip(sides, choice)}}
        for choice in itertools.product(*(choices for _, choices in sides))
    ]


def shifted(number):
    return number + 1


def entities(entity, namespaced, facts):
    """One or more entities that together match what `entity` matches."""
    selects = "selector" in entity or "namespaceSelector" in entity
    if (selects or "notSelector" in entity) and ("nets" in entity or "notNets" in entity) and facts.has_network_sets:
        raise Refused("selectors with nets, and network sets: NCA matches nothing")
    if entity.get("notPorts") and any(isinstance(p, str) and ":" not in p for p in entity.get("ports") or []):
        raise Refused("a named port with notPorts: NCA subtracts before it looks the name up")
    if "notNets" in entity and "nets" not in entity:
        if selects:
            # Selectors select pods alone here, and blocks cover none of the pods that are asked about.
            return [{key: value for key, value in entity.items() if key != "notNets"}]
        if "notSelector" in entity:
            raise Refused("notNets with notSelector")
        # NCA takes notNets for addresses outside only; Calico lets all pods match that are in no block.
        pods = {key: value for key, value in entity.items() if key != "notNets"}
        return [entity, {**pods, "namespaceSelector": "all()", "selector": f"has({POD_LABEL})"}]
    if namespaced and "notSelector" in entity and not selects and "nets" not in entity:
        # Calico keeps a namespaced policy to its namespace as soon as any selector is used; NCA does not for this one.
        return [{**entity, "selector": "all()"}]
    return [entity]
