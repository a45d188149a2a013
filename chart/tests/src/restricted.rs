//! Kubernetes' Pod Security Standard *restricted* (v1.35), rule by rule, for pods of Linux. What the API server's own admission
//! says of the same pods is another test; this one says which field is wrong, and needs no server.
//! Source: <https://kubernetes.io/docs/concepts/security/pod-security-standards/>.

use serde_json::Value;

/// Volumes that *restricted* admits.
const VOLUMES: [&str; 8] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

/// What of a pod's `spec` is not restricted.
pub fn violations(pod: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for field in ["hostNetwork", "hostPID", "hostIPC"] {
        if pod[field].as_bool() == Some(true) {
            found.push(format!("{field} is true"));
        }
    }
    for volume in pod["volumes"].as_array().into_iter().flatten() {
        let kinds = volume.as_object().into_iter().flat_map(|volume| volume.keys());
        for kind in kinds.filter(|kind| *kind != "name" && !VOLUMES.contains(&kind.as_str())) {
            found.push(format!("volume {} is a {kind}", volume["name"]));
        }
    }
    let whole = &pod["securityContext"];
    for part in ["initContainers", "containers", "ephemeralContainers"] {
        for container in pod[part].as_array().into_iter().flatten() {
            let own = &container["securityContext"];
            let mut add = |what: String| found.push(format!("container {}: {what}", container["name"]));
            if own["privileged"].as_bool() == Some(true) {
                add("privileged is true".into());
            }
            if own["allowPrivilegeEscalation"].as_bool() != Some(false) {
                add("allowPrivilegeEscalation is not false".into());
            }
            let either = |key: &str| if own[key].is_null() { whole[key].clone() } else { own[key].clone() };
            if either("runAsNonRoot").as_bool() != Some(true) {
                add("runAsNonRoot is not true".into());
            }
            if either("runAsUser").as_i64() == Some(0) {
                add("runAsUser is 0".into());
            }
            let seccomp = either("seccompProfile");
            if !matches!(seccomp["type"].as_str(), Some("RuntimeDefault" | "Localhost")) {
                add(format!("seccompProfile.type is {}", seccomp["type"]));
            }
            let drops = own["capabilities"]["drop"].as_array().into_iter().flatten();
            if !drops.into_iter().any(|name| name == "ALL") {
                add("capabilities.drop has no ALL".into());
            }
            let adds = own["capabilities"]["add"].as_array().into_iter().flatten();
            for name in adds.filter(|name| *name != "NET_BIND_SERVICE") {
                add(format!("capabilities.add has {name}"));
            }
            if !matches!(own["procMount"].as_str(), None | Some("Default")) {
                add("procMount is not Default".into());
            }
            for port in container["ports"].as_array().into_iter().flatten() {
                if port["hostPort"].as_i64().is_some_and(|port| port != 0) {
                    add(format!("hostPort {}", port["hostPort"]));
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn hard() -> Value {
        json!({
            "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
            "volumes": [{ "name": "v", "emptyDir": {} }],
            "containers": [{ "name": "c", "securityContext": {
                "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] },
            } }],
        })
    }

    #[test]
    fn a_restricted_pod_has_no_violation_and_each_softening_has_one() {
        assert_eq!(violations(&hard()), [""; 0]);
        let cases = [
            ("/hostNetwork", json!(true)),
            ("/volumes/0", json!({ "name": "v", "hostPath": { "path": "/" } })),
            ("/securityContext/runAsNonRoot", json!(false)),
            ("/securityContext/seccompProfile/type", json!("Unconfined")),
            ("/containers/0/securityContext/runAsUser", json!(0)),
            ("/containers/0/securityContext/privileged", json!(true)),
            ("/containers/0/securityContext/allowPrivilegeEscalation", json!(true)),
            ("/containers/0/securityContext/capabilities/drop", json!(["NET_RAW"])),
            ("/containers/0/securityContext/capabilities/add", json!(["SYS_ADMIN"])),
            ("/containers/0/securityContext/procMount", json!("Unmasked")),
            ("/containers/0/ports", json!([{ "hostPort": 80 }])),
        ];
        for (path, value) in cases {
            let mut pod = hard();
            let (parent, key) = path.rsplit_once('/').unwrap();
            match pod.pointer_mut(parent).unwrap() {
                Value::Array(list) => list[0] = value,
                object => object[key] = value,
            }
            assert_eq!(violations(&pod).len(), 1, "{path}: {:?}", violations(&pod));
        }
    }
}
