//! Who may do what: roles and bindings, as far as they touch policies, labels and tokens.

use crate::source::{At, ObjectRef};
use std::sync::Arc;

/// Roles and bindings of a cluster.
#[derive(Debug, Clone, Default)]
pub struct Rbac {
    /// Roles and ClusterRoles.
    pub roles: Vec<Role>,
    /// RoleBindings and ClusterRoleBindings.
    pub bindings: Vec<Binding>,
}

/// A Role or ClusterRole.
#[derive(Debug, Clone)]
pub struct Role {
    /// Its object; without a namespace it is a ClusterRole.
    pub object: ObjectRef,
    /// Its place.
    pub at: At,
    /// What it allows.
    pub rules: Vec<AccessRule>,
    /// Label selectors of ClusterRoles whose rules it takes over (`aggregationRule`): its rules are then not known from itself.
    pub aggregates: bool,
}

/// One rule of a role.
#[derive(Debug, Clone)]
pub struct AccessRule {
    /// Its place.
    pub at: At,
    /// API groups; `*` for all.
    pub groups: Vec<Arc<str>>,
    /// Resources, subresources as `pods/ephemeralcontainers`; `*` for all.
    pub resources: Vec<Arc<str>>,
    /// Names that it is limited to; empty for no limit.
    pub names: Vec<Arc<str>>,
    /// Verbs; `*` for all.
    pub verbs: Vec<Arc<str>>,
}

/// A RoleBinding or ClusterRoleBinding.
#[derive(Debug, Clone)]
pub struct Binding {
    /// Its object; without a namespace it is a ClusterRoleBinding.
    pub object: ObjectRef,
    /// Its place.
    pub at: At,
    /// `Role` or `ClusterRole`.
    pub role_kind: Arc<str>,
    /// Name of the role.
    pub role: Arc<str>,
    /// Who gets it.
    pub subjects: Vec<Subject>,
}

/// Someone who may be given a role.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// A user.
    User(Arc<str>),
    /// A group.
    Group(Arc<str>),
    /// A service account: namespace, name.
    ServiceAccount(Arc<str>, Arc<str>),
}
