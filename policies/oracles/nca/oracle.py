"""Answers "may this packet pass?" with network-config-analyzer (NCA), an engine that shares no code with this repository.

Reads one JSON case a line from standard input and writes one JSON answer a line to standard output, like the Go program
beside it:

    {"id": "1", "manifests": "YAML documents", "queries": [
        {"src": {"pod": "ns/name"}, "dst": {"ip": "203.0.113.9"}, "protocol": "TCP", "port": 80, "src_port": 40000}]}
    {"id": "1", "verdicts": [{"ingress": true, "egress": false, "allowed": false}]}

`src_port` (default 40000), `icmp_type` and `icmp_code` (default 8 and 0) are optional. A case that NCA refuses is answered
by {"id", "error"}, a packet that it cannot judge by {"error"} in its place. NCA is driven through its classes: a process
for each case would cost 0.6 s, a case here costs milliseconds.
"""

import contextlib
import ipaddress
import json
import os
import sys

import yaml

from nca.CoreDS.DimensionsManager import DimensionsManager
from nca.CoreDS.Peer import BasePeerSet
from nca.NetworkConfig.NetworkConfig import NetworkConfig
from nca.NetworkConfig.NetworkLayer import NetworkLayerName
from nca.NetworkConfig.ResourcesHandler import ResourcesParser
from nca.Resources.PolicyResources.NetworkPolicy import PolicyConnectionsFilter
from nca.Utils.NcaLogger import NcaLogger

from readable import EMPTY, Facts, Refused, evaluation_tie, readable, shifted, with_calico_labels

PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132, "ICMP": 1, "ICMPv6": 58}

# The longest line that is read; see maxLine of the Go program.
MAX_LINE = 64 << 20



def main():
    # NCA prints warnings wherever it goes. Answers go to a copy of standard output; NCA's words go nowhere.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    NcaLogger().dont_collect_msgs()
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        while line := sys.stdin.buffer.readline(MAX_LINE):
            if not line.endswith(b"\n") and len(line) == MAX_LINE:
                sys.exit(f"a line of the input is longer than {MAX_LINE} bytes")
            case = json.loads(line)
            with contextlib.redirect_stderr(nowhere):
                answer = answer_case(case)
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


def answer_case(case):
    try:
        cluster = Cluster(case["manifests"])
    # NCA reports bad input by SyntaxError, and what it did not foresee by any other exception.
    except Exception as error:  # pylint: disable=broad-except
        return {"id": case["id"], "error": f"{type(error).__name__}: {error}"}
    return {"id": case["id"], "verdicts": [cluster.answer(query) for query in case["queries"]]}


class Cluster:
    """The connections that NCA computes for a cluster, one set for each direction."""

    def __init__(self, manifests):
        # Singletons that grow with every cluster.
        BasePeerSet.reset()
        DimensionsManager.reset()
        documents = [d for d in yaml.load_all(manifests, Loader=yaml.CSafeLoader) if d is not None]
        parser = ResourcesParser()
        for document in documents:
            parser.ns_finder.parse_yaml_code_for_ns(document)
        for namespace in parser.ns_finder.namespaces.values():
            for key, value in namespace.labels.items():
                namespace.labels[key] = value or EMPTY
            # Calico adds this label to every namespace; "projectcalico.org/name", tiered policy and selectors reference.
            namespace.set_label("projectcalico.org/name", namespace.name)
        parser.pods_finder.namespaces_finder = parser.ns_finder
        for document in documents:
            parser.pods_finder.add_eps_from_yaml(with_calico_labels(document))
        peers = parser.build_peer_container("case")
        self.index = {peer.full_name(): BasePeerSet().peer_to_index[peer] for peer in BasePeerSet().ordered_peer_list}
        parser.policies_finder.set_peer_container(peers)
        self.facts = Facts(documents)
        for policy in sorted(self.facts.policies, key=evaluation_tie):
            parser.policies_finder.parse_yaml_code_for_policy(readable(policy, self.facts), "case")
        parser.policies_finder.parse_policies_in_parse_queue()
        config = NetworkConfig("case", peers, parser.policies_finder)
        layer = config.policies_container.layers[NetworkLayerName.K8s_Calico]
        wanted = PolicyConnectionsFilter()
        # The two halves of NetworkLayer.allowed_connections, before it intersects them.
        # pylint: disable=protected-access
        self.ingress = Connections(layer._allowed_xgress_conns(True, peers, wanted).all_allowed_conns)
        self.egress = Connections(layer._allowed_xgress_conns(False, peers, wanted).all_allowed_conns)

    def answer(self, query):
        try:
            packet = self.packet(query)
        except (Refused, ValueError) as error:
            return {"error": str(error)}
        # Policies bind pods only: an address outside may send and receive.
        ingress = "pod" not in query["dst"] or self.ingress.hold(packet)
        egress = "pod" not in query["src"] or self.egress.hold(packet)
        return {"ingress": ingress, "egress": egress, "allowed": ingress and egress}

    def packet(self, query):
        protocol = PROTOCOLS.get(query["protocol"])
        if protocol is None:
            raise Refused(f"no protocol {query['protocol']!r}")
        if "pod" in query["src"] and query["src"]["pod"] == query["dst"].get("pod"):
            raise Refused("traffic of a pod to itself: NCA applies policies to it")
        for end in (query["src"], query["dst"]):
            if end.get("pod") in self.facts.pods_in_blocks:
                raise Refused("an address block covers this pod: NCA matches blocks with addresses outside only")
        icmp = protocol in (1, 58)
        return {
            "src_peers": self.endpoint(query["src"]),
            "dst_peers": self.endpoint(query["dst"]),
            "protocols": protocol,
            # Cubes of ICMP hold all ports and those of other protocols all ICMP types.
            "src_ports": 1 if icmp else query.get("src_port", 40000),
            "dst_ports": 1 if icmp else query["port"],
            "icmp_type": shifted(query.get("icmp_type", 8)) if icmp else 0,
            "icmp_code": shifted(query.get("icmp_code", 0)) if icmp else 0,
        }

    def endpoint(self, end):
        """The number that stands for an endpoint in NCA's cubes."""
        base = BasePeerSet()
        if "pod" in end:
            if end["pod"] not in self.index:
                raise Refused(f"there is no pod {end['pod']!r}")
            return base.min_pod_index + self.index[end["pod"]]
        address = ipaddress.ip_address(end["ip"])
        return int(address) + (base.min_ipv4_index if address.version == 4 else base.min_ipv6_index)


class Connections:
    """A set of packets: a union of cubes, each an interval set for every dimension that restricts it."""

    def __init__(self, properties):
        # Dimensions of HTTP are active in no policy that is read here.
        self.cubes = [
            [(name, [(i.start, i.end) for i in values]) for name, values in zip(properties.active_dimensions, cube)]
            for cube in properties
        ]

    def hold(self, packet):
        return any(
            all(any(low <= packet[name] <= high for low, high in intervals) for name, intervals in cube)
            for cube in self.cubes
        )


if __name__ == "__main__":
    main()
