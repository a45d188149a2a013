//! What a pod's security settings say, as far as a worker's isolation depends on them.

use crate::source::At;
use std::sync::Arc;

/// Security settings of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodSecurity {
    /// `automountServiceAccountToken` of the pod; its service account's counts where this is unset.
    pub automount_token: Option<bool>,
    /// Audiences of projected service account tokens that it mounts; an empty text is the API server's own audience.
    pub projected_audiences: Vec<Arc<str>>,
    /// `hostPID`.
    pub host_pid: bool,
    /// `hostIPC`.
    pub host_ipc: bool,
    /// Paths of the node that it mounts.
    pub host_paths: Vec<(Arc<str>, At)>,
    /// Secrets that it mounts or reads into its environment.
    pub secrets: Vec<(Arc<str>, At)>,
    /// `securityContext.runAsNonRoot` of the pod.
    pub run_as_non_root: Option<bool>,
    /// `securityContext.runAsUser` of the pod.
    pub run_as_user: Option<i64>,
    /// `securityContext.seccompProfile.type` of the pod.
    pub seccomp: Option<Arc<str>>,
    /// `shareProcessNamespace`.
    pub share_process_namespace: bool,
    /// Its containers, the ones that run first included.
    pub containers: Vec<ContainerSecurity>,
}

/// Security settings of a container; where unset, the pod's count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerSecurity {
    /// Its name.
    pub name: Arc<str>,
    /// Its place.
    pub at: At,
    /// Whether it runs before the others (`initContainers`).
    pub init: bool,
    /// Its image.
    pub image: Arc<str>,
    /// `privileged`.
    pub privileged: bool,
    /// `allowPrivilegeEscalation`, if set.
    pub allow_privilege_escalation: Option<bool>,
    /// `readOnlyRootFilesystem`, if set.
    pub read_only_root: Option<bool>,
    /// `runAsNonRoot`, if set.
    pub run_as_non_root: Option<bool>,
    /// `runAsUser`, if set.
    pub run_as_user: Option<i64>,
    /// `seccompProfile.type`, if set.
    pub seccomp: Option<Arc<str>>,
    /// `capabilities.add`.
    pub capabilities_added: Vec<Arc<str>>,
    /// `capabilities.drop`.
    pub capabilities_dropped: Vec<Arc<str>>,
    /// `procMount: Unmasked`.
    pub unmasked_proc: bool,
    /// Arguments `--key=value` and plain variables, of agents that enforce policies alone.
    pub settings: Vec<(Arc<str>, Arc<str>)>,
}

impl PodSecurity {
    /// The same without what differs between a template and the pods that it became: places, images (which admission may pin to a
    /// digest), and the token that the API server mounts, which `automountServiceAccountToken` stands for.
    pub(crate) fn bare(&self) -> Self {
        let nowhere = At::whole(&"".into());
        let unplaced = |all: &[(Arc<str>, At)]| -> Vec<(Arc<str>, At)> {
            all.iter().map(|(what, _)| (what.clone(), nowhere.clone())).collect()
        };
        let is_mounted = self.automount_token != Some(false);
        let audiences =
            self.projected_audiences.iter().filter(|audience| !(is_mounted && audience.is_empty()));
        Self {
            projected_audiences: audiences.cloned().collect(),
            host_paths: unplaced(&self.host_paths),
            secrets: unplaced(&self.secrets),
            containers: self
                .containers
                .iter()
                .map(|container| ContainerSecurity {
                    at: nowhere.clone(),
                    image: "".into(),
                    ..container.clone()
                })
                .collect(),
            ..self.clone()
        }
    }
}

impl ContainerSecurity {
    /// A container of which nothing is said.
    pub(crate) fn named(name: &str, at: &At) -> Self {
        Self {
            name: name.into(),
            at: at.clone(),
            init: false,
            image: "".into(),
            privileged: false,
            allow_privilege_escalation: None,
            read_only_root: None,
            run_as_non_root: None,
            run_as_user: None,
            seccomp: None,
            capabilities_added: Vec::new(),
            capabilities_dropped: Vec::new(),
            unmasked_proc: false,
            settings: Vec::new(),
        }
    }
}
