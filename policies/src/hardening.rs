//! What a pod's security settings say, as far as a worker's isolation depends on them.

use crate::source::At;
use std::sync::Arc;

/// Security settings of a pod.
#[derive(Debug, Clone, Default)]
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
#[derive(Debug, Clone)]
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
