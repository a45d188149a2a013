//! The definitions as manifests, for chart/mpegflow-crds.

use super::{Tenant, WorkerPool};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;
use serde_json::{Value, json};

/// File name and definition of each kind.
pub fn definitions() -> [(&'static str, CustomResourceDefinition); 2] {
    [("tenants.yaml", Tenant::crd()), ("workerpools.yaml", WorkerPool::crd())]
        .map(|(name, definition)| (name, kept(definition)))
}

/// A definition as YAML.
pub fn to_yaml(definition: &CustomResourceDefinition) -> String {
    let value = serde_json::to_value(definition).unwrap_or_default();
    format!(
        "# Made by `mpegflow-operator crds`; a test compares it with the types in operator/src/crd.\n{}",
        mpegflow_policies::emit::to_yaml(&value)
    )
}

/// Deleting a chart must not delete every pool with it.
fn kept(definition: CustomResourceDefinition) -> CustomResourceDefinition {
    let mut value = serde_json::to_value(&definition).unwrap_or_default();
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("annotations".into(), json!({ "helm.sh/resource-policy": "keep" }));
    }
    serde_json::from_value(value).unwrap_or(definition)
}
