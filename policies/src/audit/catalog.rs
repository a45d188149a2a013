//! Every kind of finding, with its id. Ids are stable: baselines and code scanners hold on to them.
//!
//! 100–199 are about what may be reached, 200–299 about policies themselves, 300–399 about who may change the proof, 400–499
//! about the pods of workers, 500–599 about what was observed.

use super::Severity;

/// A kind of finding.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// Its id, such as `MF101`.
    pub id: &'static str,
    /// Its name, such as `reaches-pods`.
    pub name: &'static str,
    /// How bad it is where it is sure.
    pub severity: Severity,
    /// What it says, a sentence.
    pub title: &'static str,
    /// What to do, a sentence.
    pub fix: &'static str,
}

macro_rules! catalog {
    ($($constant:ident = $id:literal, $name:literal, $severity:ident: $title:literal, $fix:literal;)*) => {
        $(
            #[doc = $title]
            pub static $constant: Kind =
                Kind { id: $id, name: $name, severity: Severity::$severity, title: $title, fix: $fix };
        )*
        /// All of them, by id.
        pub static ALL: &[&Kind] = &[$(&$constant),*];
    };
}

catalog! {
    REACHES_PODS = "MF101", "reaches-pods", Error:
        "It can reach pods that its intent does not name.",
        "Narrow the rule that lets it to the pods that the intent names, or add them to the intent.";
    REACHES_METADATA = "MF102", "reaches-metadata", Error:
        "It can reach a cloud's metadata service, which hands out the node's credentials.",
        "Allow no address block that contains 169.254.0.0/16, 168.63.129.16, 100.100.100.200, 192.0.0.192, fd00:ec2::/64 or fd20:ce::254; use `except` in each block that does.";
    REACHES_KUBE_API = "MF103", "reaches-kube-api", Error:
        "It can reach the Kubernetes API server.",
        "Deny the address of the Service `kubernetes`, its endpoints and port 6443 of the nodes.";
    REACHES_KUBELET = "MF104", "reaches-kubelet", Error:
        "It can reach a kubelet.",
        "Deny port 10250 (and 10255) of every node.";
    REACHES_NODES = "MF105", "reaches-nodes", Error:
        "It can reach a node, and with it node ports and host-network pods.",
        "Deny the addresses of the nodes.";
    DNS_TO_ANYONE = "MF106", "dns-to-anyone", Error:
        "It may send to port 53 of any address: DNS is a way out for data, and nothing says that DNS is what answers there.",
        "Name the cluster's DNS pods in the rule, or drop DNS: a worker that is given the broker's address needs none.";
    REACHES_TENANT = "MF107", "reaches-other-tenant", Error:
        "It can reach pods of another tenant.",
        "Isolate the tenants' namespaces from each other.";
    REACHES_OUTSIDE = "MF108", "reaches-outside", Error:
        "It can reach addresses outside the cluster that its intent does not name.",
        "Remove the address block or entity from the rule, or narrow it to the endpoint that is meant.";
    IS_REACHED = "MF109", "is-reached", Error:
        "Others than its intent names can connect to it.",
        "Isolate it for ingress and allow nobody, or only whom the intent names.";
    CANNOT_REACH = "MF110", "cannot-reach", Error:
        "It cannot reach what its intent says it must.",
        "Allow it in the source's egress and in the destination's ingress.";
    FORBIDDEN = "MF111", "forbidden", Error:
        "It can reach what its intent forbids.",
        "Narrow or remove the rule that lets it.";
    ADMITS_FUTURE_PODS = "MF112", "admits-future-pods", Warning:
        "Pods that do not exist yet, but that somebody could make, would be reachable.",
        "Select by namespace and by labels that only the intended pods may carry.";
    DNS_RESOLVER = "MF113", "dns-resolver", Warning:
        "It may ask a DNS server, as its intent says: one that resolves any name is a way out for data, in the names it is asked for.",
        "Drop DNS: a worker that is given the broker's address needs none. Where it must stay, let the CNI admit the needed names only, as Cilium's `rules.dns` with `matchName` does.";
    SHARED_STORAGE = "MF114", "shared-storage", Warning:
        "The pool's workers fetch from storage themselves: a worker that is taken over can send data to any bucket there that its attacker has a key for.",
        "Use `access: Brokered`, or storage of the pool's own at an address that serves nobody else.";
    NOTHING_TO_AUDIT = "MF120", "intent-matches-nobody", Warning:
        "The intent selects no pod of the input: it is true of nothing.",
        "Correct the selector, or add the manifests of the pods that are meant.";
    SELECTS_NOBODY = "MF201", "selects-nobody", Warning:
        "The policy selects no pod of the input.",
        "Correct its selector, or remove it.";
    SHADOWED = "MF202", "shadowed", Note:
        "The rule decides nothing: what comes before it or beside it has decided all that it matches.",
        "Remove it, or move it to where it counts.";
    DROPPED_LABEL = "MF203", "dropped-label", Error:
        "The policy relies on a label that the CNI does not count as part of a pod's identity.",
        "Select by a label of your own domain.";
    INVALID = "MF204", "invalid-policy", Error:
        "The policy has no effect: it is invalid to the CNI.",
        "Correct what its status or the reason names.";
    UNDONE = "MF205", "undone", Error:
        "An allow of another policy comes before this one's isolation and undoes it.",
        "Narrow the other policy, or give it an order after this one.";
    NOT_ENFORCED = "MF206", "not-enforced", Error:
        "The CNI does not enforce policies of this kind.",
        "Write it in a kind that the CNI enforces, or choose the profile of the CNI in use.";
    STAGED = "MF207", "staged", Warning:
        "The policy is staged: it is watched and not enforced.",
        "Promote it when its effects are as wanted.";
    PEER_MATCHES_NOBODY = "MF208", "peer-matches-nobody", Note:
        "The rule's peer selector matches no pod of the input.",
        "Correct the selector, or remove the rule.";
    AMBIGUOUS_ORDER = "MF209", "ambiguous-order", Warning:
        "Two policies of equal priority select the same pods: which comes first is not defined.",
        "Give them different priorities.";
    ALLOWS_ALL = "MF210", "allows-all", Warning:
        "The rule allows all traffic with everybody.",
        "Name the peers and ports that are meant.";
    NOT_ISOLATED = "MF211", "not-isolated", Warning:
        "No policy isolates the pod in this direction: all traffic passes.",
        "Add a policy that selects it with no rules, and allow from there.";
    INERT_RULES = "MF212", "inert-rules", Warning:
        "The policy has rules for a direction that its `policyTypes` does not declare: they should have no effect, and under Cilium they have one.",
        "Add the direction to `policyTypes`, or remove the rules.";
    UNKNOWN_PORT_NAME = "MF213", "unknown-port-name", Warning:
        "No pod that the rule reaches names a port so: the rule allows nothing.",
        "Use the port's number, or name it on the pods.";
    NOT_UNDERSTOOD = "MF214", "not-understood", Warning:
        "The policy says something that is not understood, or that hangs on what is not in the input: verdicts which depend on it are unknown.",
        "Remove the field, use a version that knows it, or add what is missing to the input.";
    ENFORCEMENT_OFF = "MF215", "enforcement-off", Error:
        "The agent that should enforce policies is set not to: what policies deny passes.",
        "Set it to enforce: enable-policy: default and policy-audit-mode: false for Cilium, enable-network-policy for the VPC CNI.";
    OPENS_AT_TIMES = "MF216", "opens-at-times", Warning:
        "There are moments at which the agent lets packets pass that policies deny.",
        "Set NETWORK_POLICY_ENFORCING_MODE=strict for the VPC CNI, --fail-open=false for kube-network-policies.";
    NOT_AS_ASSUMED = "MF217", "not-as-assumed", Warning:
        "The agent is set to do something else than its profile assumes: no verdict under that profile is sure.",
        "Take the setting back, or judge the cluster by what it does there.";
    NOT_MANAGED = "MF218", "not-managed", Error:
        "The agent does not manage the pod: no policy applies to it.",
        "Restart the pod: Cilium manages pods that start after it, and for them there is a CiliumEndpoint.";
    MAY_CHANGE_POLICIES = "MF301", "may-change-policies", Warning:
        "Someone may change the policies that the proof rests on.",
        "Take the verbs create, update, patch and delete on policies from the role, or the binding from the subject.";
    MAY_CHANGE_LABELS = "MF302", "may-change-labels", Warning:
        "Someone may change labels of pods, namespaces or nodes, and so who is selected.",
        "Take the verbs update and patch on pods, namespaces and nodes from the role.";
    MAY_ENTER_WORKERS = "MF303", "may-enter-workers", Warning:
        "Someone may make pods or containers, or run commands, where workers run.",
        "Take create on pods, pods/exec, pods/ephemeralcontainers and on workloads from the role, in the namespaces of workers.";
    MAY_MAKE_TOKENS = "MF304", "may-make-tokens", Warning:
        "Someone may make tokens of service accounts, or impersonate them.",
        "Take create on serviceaccounts/token and the verb impersonate from the role.";
    WORKER_HAS_RIGHTS = "MF305", "worker-has-rights", Error:
        "The service account of the pods under audit has rights in the Kubernetes API.",
        "Remove the binding: a worker needs no right at all.";
    TOKEN_MOUNTED = "MF401", "token-mounted", Error:
        "A token for the Kubernetes API is mounted into the pod.",
        "Set automountServiceAccountToken: false on the pod.";
    MAY_BE_ROOT = "MF402", "may-be-root", Error:
        "The container may run as root.",
        "Set securityContext.runAsNonRoot: true.";
    HAS_CAPABILITIES = "MF403", "has-capabilities", Error:
        "The container keeps or adds Linux capabilities.",
        "Set securityContext.capabilities.drop: [ALL] and add none.";
    NO_SECCOMP = "MF404", "no-seccomp", Error:
        "No seccomp profile is set.",
        "Set securityContext.seccompProfile.type: RuntimeDefault, or a Localhost profile.";
    HOST_NAMESPACES = "MF405", "host-namespaces", Error:
        "The pod shares a namespace of its node.",
        "Remove hostNetwork, hostPID and hostIPC; a host-network pod is outside every network policy.";
    WRITABLE_ROOT = "MF406", "writable-root", Warning:
        "The container's root file system is writable.",
        "Set securityContext.readOnlyRootFilesystem: true, and mount an emptyDir where it must write.";
    PRIVILEGED = "MF407", "privileged", Error:
        "The container is privileged: it is the node.",
        "Remove privileged: true.";
    HOST_PATH = "MF408", "host-path", Error:
        "The pod mounts a path of its node.",
        "Use an emptyDir or a claim.";
    MAY_GAIN_PRIVILEGES = "MF409", "may-gain-privileges", Error:
        "The container may gain privileges through a set-uid program.",
        "Set securityContext.allowPrivilegeEscalation: false.";
    HOLDS_SECRETS = "MF410", "holds-secrets", Warning:
        "The pod holds a Secret, which a taken-over worker reads.",
        "Leave it to the broker; a worker needs none that outlives its pod.";
    HOST_PORT = "MF411", "host-port", Warning:
        "The container has a port on its node.",
        "Remove hostPort.";
    UNMASKED_PROC = "MF412", "unmasked-proc", Error:
        "The container's /proc is unmasked.",
        "Remove procMount: Unmasked.";
    FLOW_CONTRADICTS = "MF501", "flow-contradicts", Error:
        "A packet was seen to pass that the policies deny: they are not enforced, or the input is not what runs.",
        "Compare the live policies with the input, and check that the CNI enforces them on that node.";
    STALE_BASELINE = "MF502", "stale-baseline", Warning:
        "The baseline accepts a finding that is no longer there.",
        "Remove the entry.";
    EXPIRED_BASELINE = "MF503", "expired-baseline", Warning:
        "The baseline's acceptance of a finding has expired.",
        "Mend the finding, or have its owner accept it again with a new date.";
    FLOWS_NOT_JUDGED = "MF504", "flows-not-judged", Warning:
        "Packets were seen to pass of which the log says too little to hold them against the policies: that nothing contradicts them is not shown.",
        "Export flows with the pods' names or addresses, and add the pods that they name to the input.";
}

/// A kind by its id.
pub fn by_id(id: &str) -> Option<&'static Kind> {
    ALL.iter().find(|kind| kind.id == id).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_names_are_unique_and_ascending() {
        assert!(ALL.is_sorted_by(|a, b| a.id < b.id));
        let names: std::collections::BTreeSet<_> = ALL.iter().map(|kind| kind.name).collect();
        assert_eq!(names.len(), ALL.len());
    }
}
