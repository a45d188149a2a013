//! RBAC: roles and bindings.

use super::core::{cluster_ref, object_ref};
use super::object::{Invalid, Object};
use super::{Document, ReadError};
use crate::cluster::Cluster;
use crate::rbac::{AccessRule, Binding, Role, Subject};
use std::sync::Arc;

/// Group, versions and kind of what is read here.
pub(super) const KINDS: &[(&str, &[&str], &str)] = &[
    ("rbac.authorization.k8s.io", &["v1"], "Role"),
    ("rbac.authorization.k8s.io", &["v1"], "ClusterRole"),
    ("rbac.authorization.k8s.io", &["v1"], "RoleBinding"),
    ("rbac.authorization.k8s.io", &["v1"], "ClusterRoleBinding"),
];

/// Reads one of [`KINDS`] into the cluster.
pub(super) fn read(document: &Document, cluster: &mut Cluster) -> Result<(), ReadError> {
    let root = Object::of(document);
    let is_cluster_wide = document.kind.starts_with("Cluster");
    let object = if is_cluster_wide { cluster_ref(document)? } else { object_ref(document)? };
    if document.kind.ends_with("Binding") {
        let role = root.required("roleRef")?.object()?;
        let mut subjects = Vec::new();
        for field in root.list("subjects")? {
            let entry = field.object()?;
            let name = Arc::from(entry.required("name")?.string()?);
            let kind = entry.required("kind")?;
            subjects.push(match kind.string()? {
                "User" => Subject::User(name),
                "Group" => Subject::Group(name),
                "ServiceAccount" => {
                    let own = object.namespace.clone();
                    let namespace = entry.string("namespace")?.map(Arc::from).or(own);
                    Subject::ServiceAccount(namespace.unwrap_or_else(|| "default".into()), name)
                }
                _ => return Err(kind.invalid("one of User, Group, ServiceAccount").into()),
            });
        }
        cluster.rbac.bindings.push(Binding {
            object,
            at: document.at.clone(),
            role_kind: role.required("kind")?.string()?.into(),
            role: role.required("name")?.string()?.into(),
            subjects,
        });
    } else {
        let mut rules = Vec::new();
        for field in root.list("rules")? {
            let entry = field.object()?;
            let texts = |key| -> Result<Vec<Arc<str>>, Invalid> {
                entry.list(key)?.iter().map(|field| field.string().map(Arc::from)).collect()
            };
            rules.push(AccessRule {
                at: field.at(),
                groups: texts("apiGroups")?,
                resources: texts("resources")?,
                names: texts("resourceNames")?,
                verbs: texts("verbs")?,
            });
        }
        let aggregates = root.optional("aggregationRule").is_some();
        cluster.rbac.roles.push(Role { object, at: document.at.clone(), rules, aggregates });
    }
    root.ignore_rest();
    Ok(())
}
