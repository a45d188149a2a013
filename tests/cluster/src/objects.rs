//! Objects from manifests, and waiting for what controllers do.

use crate::Cluster;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::discovery;
use std::time::Duration;

/// The documents of a YAML text; `---` stands between two.
///
/// # Panics
/// One of them is not an object with a kind.
pub fn documents(text: &str) -> Vec<DynamicObject> {
    let parts = text.split("\n---").map(|part| part.trim_start_matches("---"));
    let objects = parts.filter(|part| {
        part.lines().any(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
    });
    objects.map(|part| serde_saphyr::from_str(part).unwrap_or_else(|e| panic!("{e} in\n{part}"))).collect()
}

/// Asks again and again until there is an answer, for a minute at least and longer on a busy machine.
///
/// # Panics
/// There is none in three minutes.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    for _ in 0..1800 {
        if let Some(answer) = ask().await {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("in three minutes: not {what}");
}

impl Cluster {
    /// Applies all objects of a YAML text as the administrator, by server-side apply. Kinds of definitions among them may
    /// be used by the next call.
    ///
    /// # Panics
    /// The API server refuses one.
    pub async fn apply(&self, text: &str) {
        for object in documents(text) {
            if let Err(error) = self.try_apply(&object).await {
                panic!("{} is refused: {error}", serde_json::to_string(&object).expect("JSON"));
            }
        }
    }

    /// Applies one object as the administrator.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn try_apply(&self, object: &DynamicObject) -> kube::Result<DynamicObject> {
        let client = self.client();
        let types = object.types.clone().expect("a kind");
        let version = kube::core::GroupVersionKind::try_from(&types).expect("a group and a version");
        // A definition that was applied a moment ago is not served yet.
        let (resource, capabilities) = until(&format!("{} served", types.kind), || async {
            discovery::pinned_kind(&client, &version).await.ok()
        })
        .await;
        let api: Api<DynamicObject> = match (&capabilities.scope, &object.metadata.namespace) {
            (discovery::Scope::Namespaced, Some(namespace)) => {
                Api::namespaced_with(client, namespace, &resource)
            }
            (discovery::Scope::Namespaced, None) => Api::namespaced_with(client, "default", &resource),
            _ => Api::all_with(client, &resource),
        };
        let name = object.metadata.name.as_deref().expect("a name");
        api.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(object)).await
    }
}
