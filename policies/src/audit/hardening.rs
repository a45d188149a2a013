//! Security settings of the pods under audit: what would help whoever takes one over.

use super::{Finding, catalog};
use crate::cluster::{Cluster, Pod};
use crate::hardening::ContainerSecurity;

/// Findings about one pod.
pub(super) fn findings(pod: &Pod, cluster: &Cluster) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut add = |kind: &'static catalog::Kind, at: &crate::source::At, reason: String| {
        found.push(Finding::certain(kind, pod.object.clone(), Some(at.clone()), reason).of_pod(pod));
    };
    let security = &pod.security;

    // The pod's word counts, then the account's, then the default, which is to mount.
    let account = cluster.service_accounts.get(&(pod.namespace.clone(), pod.service_account.clone()));
    let mounts = security.automount_token.or(account.and_then(|a| a.automount_token)).unwrap_or(true);
    if mounts {
        add(
            &catalog::TOKEN_MOUNTED,
            &pod.at,
            format!("the token of service account {} is mounted by default", pod.service_account),
        );
    }
    if security.projected_audiences.iter().any(|audience| audience.is_empty()) {
        add(
            &catalog::TOKEN_MOUNTED,
            &pod.at,
            "it mounts a projected token for the API server's own audience".into(),
        );
    }
    let shared =
        [("hostNetwork", pod.host_network), ("hostPID", security.host_pid), ("hostIPC", security.host_ipc)];
    for (field, _) in shared.into_iter().filter(|(_, is_set)| *is_set) {
        add(&catalog::HOST_NAMESPACES, &pod.at, format!("{field} is true"));
    }
    for (path, at) in &security.host_paths {
        add(&catalog::HOST_PATH, at, format!("it mounts {path} of its node"));
    }
    for (secret, at) in &security.secrets {
        add(&catalog::HOLDS_SECRETS, at, format!("it holds the Secret {secret}"));
    }
    for port in pod.ports.iter().filter_map(|port| port.host_port) {
        add(&catalog::HOST_PORT, &pod.at, format!("hostPort {port} is open on its node"));
    }
    for container in &security.containers {
        for (kind, reason) in container_findings(container, pod) {
            add(kind, &container.at, format!("container {}: {reason}", container.name));
        }
    }
    found
}

fn container_findings(container: &ContainerSecurity, pod: &Pod) -> Vec<(&'static catalog::Kind, String)> {
    let mut found = Vec::new();
    let user = container.run_as_user.or(pod.security.run_as_user);
    let non_root = container.run_as_non_root.or(pod.security.run_as_non_root) == Some(true);
    match user {
        Some(0) => found.push((&catalog::MAY_BE_ROOT, "runAsUser is 0".into())),
        // Any other number is not root, whatever the image says.
        Some(_) => {}
        None if !non_root => found.push((&catalog::MAY_BE_ROOT, "runAsNonRoot is not true".into())),
        None => {}
    }
    if container.privileged {
        found.push((&catalog::PRIVILEGED, "privileged is true".into()));
    }
    let drops_all = container.capabilities_dropped.iter().any(|name| name.eq_ignore_ascii_case("all"));
    if !drops_all {
        found.push((&catalog::HAS_CAPABILITIES, "capabilities.drop does not name ALL".into()));
    }
    if !container.capabilities_added.is_empty() {
        let added = container.capabilities_added.join(", ");
        found.push((&catalog::HAS_CAPABILITIES, format!("capabilities.add has {added}")));
    }
    match container.seccomp.as_deref().or(pod.security.seccomp.as_deref()) {
        Some("RuntimeDefault" | "Localhost") => {}
        Some(other) => found.push((&catalog::NO_SECCOMP, format!("seccompProfile.type is {other}"))),
        None => found.push((&catalog::NO_SECCOMP, "no seccompProfile is set".into())),
    }
    if container.read_only_root != Some(true) {
        found.push((&catalog::WRITABLE_ROOT, "readOnlyRootFilesystem is not true".into()));
    }
    // Unset means allowed.
    if container.allow_privilege_escalation != Some(false) {
        found.push((&catalog::MAY_GAIN_PRIVILEGES, "allowPrivilegeEscalation is not false".into()));
    }
    if container.unmasked_proc {
        found.push((&catalog::UNMASKED_PROC, "procMount is Unmasked".into()));
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::read::{Input, Limits, ReadOptions};

    fn ids(pod: &str) -> Vec<&'static str> {
        let mut input = Input::new(Limits::default());
        input.add("pod.yaml", pod).unwrap();
        let cluster = crate::read::cluster(&input, &ReadOptions::default()).unwrap().cluster;
        findings(cluster.pods.first().unwrap(), &cluster).iter().map(|finding| finding.id).collect()
    }

    const HARD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  automountServiceAccountToken: false
  securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: c
    image: i
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities: {drop: [ALL]}
";

    #[test]
    fn a_hardened_pod_has_no_finding() {
        assert_eq!(ids(HARD), [""; 0]);
    }

    #[test]
    fn each_softening_has_its_finding() {
        let cases = [
            ("  automountServiceAccountToken: false\n", "", vec!["MF401"]),
            (
                "spec:\n",
                "spec:\n  volumes: [{name: t, projected: {sources: [{serviceAccountToken: {path: t}}]}}]\n",
                vec!["MF401"],
            ),
            ("runAsNonRoot: true, ", "", vec!["MF402"]),
            ("runAsNonRoot: true, ", "runAsNonRoot: true, runAsUser: 0, ", vec!["MF402"]),
            ("{drop: [ALL]}", "{drop: [NET_RAW]}", vec!["MF403"]),
            ("{drop: [ALL]}", "{drop: [ALL], add: [NET_ADMIN]}", vec!["MF403"]),
            ("RuntimeDefault", "Unconfined", vec!["MF404"]),
            (", seccompProfile: {type: RuntimeDefault}", "", vec!["MF404"]),
            (
                "spec:\n",
                "spec:\n  hostNetwork: true\n  hostPID: true\n  hostIPC: true\n",
                vec!["MF405", "MF405", "MF405"],
            ),
            ("      readOnlyRootFilesystem: true\n", "", vec!["MF406"]),
            ("      readOnly", "      privileged: true\n      readOnly", vec!["MF407"]),
            ("spec:\n", "spec:\n  volumes: [{name: h, hostPath: {path: /}}]\n", vec!["MF408"]),
            ("      allowPrivilegeEscalation: false\n", "", vec!["MF409"]),
            ("    image: i\n", "    image: i\n    envFrom: [{secretRef: {name: s}}]\n", vec!["MF410"]),
            (
                "    image: i\n",
                "    image: i\n    ports: [{containerPort: 80, hostPort: 80}]\n",
                vec!["MF411"],
            ),
            ("      readOnly", "      procMount: Unmasked\n      readOnly", vec!["MF412"]),
        ];
        for (from, to, expected) in cases {
            assert_eq!(ids(&HARD.replacen(from, to, 1)), expected, "{from:?} → {to:?}");
        }
    }
}
