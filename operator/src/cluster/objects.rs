//! The objects of a pool, read and written one by one.

use super::Versions;
use crate::desired::{Child, Kind};
use crate::drift::{self, Mend, Taken};
use crate::settings::MANAGER;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::Value;
use std::sync::Arc;

/// Pods that are counted for one pool at most; a pool has no more.
const MOST_PODS: u32 = 10_000;

/// What a ReplicaSet goes by when it has to end a pod: the lowest first.
pub(crate) const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// What keeps autoscalers of nodes away from a pod, the cluster autoscaler's first.
pub(crate) const KEPT: [&str; 2] =
    ["cluster-autoscaler.kubernetes.io/safe-to-evict", "karpenter.sh/do-not-disrupt"];

/// A pod that has started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartedPod {
    /// Its name.
    pub name: String,
    /// Its UID: to the broker, who it is.
    pub uid: String,
    /// Whether it was confirmed idle, and is to go first.
    pub is_victim: bool,
    /// Whether autoscalers of nodes are told to leave it alone.
    pub is_kept: bool,
}

/// Why an object is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// It is somebody else's.
    #[error(transparent)]
    Taken(#[from] Taken),
    /// The API server said no.
    #[error("{kind:?} {name}")]
    Refused {
        /// Kind of the object.
        kind: Kind,
        /// Its name.
        name: String,
        /// What the API server said.
        #[source]
        source: kube::Error,
    },
}

/// An object after it was looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// As it is now.
    pub object: Value,
    /// Whether it was written.
    pub changed: bool,
}

/// Reads and writes objects.
#[derive(Clone)]
pub struct Objects {
    client: Client,
    versions: Arc<Versions>,
}

impl Objects {
    /// Over a client, with what watches tell.
    pub fn new(client: Client, versions: Arc<Versions>) -> Self {
        Self { client, versions }
    }

    /// Reads one.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn get(&self, kind: Kind, namespace: &str, name: &str) -> Result<Option<Value>, ApplyError> {
        match self.api(kind, namespace).get_opt(name).await {
            Ok(object) => Ok(object.and_then(|object| serde_json::to_value(object).ok())),
            Err(source) => Err(ApplyError::Refused { kind, name: name.into(), source }),
        }
    }

    /// Makes an object what it should be, without a write where it is so already, and without a read where nothing has
    /// happened to it since it was last found right. `None`: nothing has happened.
    ///
    /// # Errors
    /// It is somebody else's, or the API server said no.
    pub async fn ensure(&self, namespace: &str, child: &Child) -> Result<Option<Written>, ApplyError> {
        if self.versions.still_right((child.kind, namespace, &child.name), child.digest()) {
            return Ok(None);
        }
        let live = self.get(child.kind, namespace, &child.name).await?;
        self.mend(namespace, child, live).await.map(Some)
    }

    /// Keeps an object of which nobody can say what it should be: one that only we have written stays, and one that others have written
    /// into becomes `strict`. Where there is none it is made, if it was there before (`had`). `None`: it stayed.
    ///
    /// # Errors
    /// It is somebody else's, or the API server said no.
    pub async fn keep(
        &self,
        namespace: &str,
        strict: &Child,
        had: bool,
    ) -> Result<Option<Written>, ApplyError> {
        let live = self.get(strict.kind, namespace, &strict.name).await?;
        let stays = match &live {
            Some(live) => drift::is_untouched(strict, live)?,
            None => !had,
        };
        if stays {
            return Ok(None);
        }
        self.mend(namespace, strict, live).await.map(Some)
    }

    /// The same as [`Objects::ensure`] for an object that was read already.
    ///
    /// # Errors
    /// It is somebody else's, or the API server said no.
    pub async fn mend(
        &self,
        namespace: &str,
        child: &Child,
        live: Option<Value>,
    ) -> Result<Written, ApplyError> {
        let mend = match &live {
            Some(live) => drift::compare(child, live)?,
            None => Mend::Apply,
        };
        let api = self.api(child.kind, namespace);
        let failed = |source| ApplyError::Refused { kind: child.kind, name: child.name.clone(), source };
        let written = match (mend, live) {
            (Mend::Nothing, Some(object)) => Written { object, changed: false },
            (Mend::Replace, Some(live)) => {
                let object = drift::replacement(child, &live);
                let object =
                    serde_json::from_value(object).map_err(|e| failed(kube::Error::SerdeError(e)))?;
                let params = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
                let object = api.replace(&child.name, &params, &object).await.map_err(failed)?;
                Written { object: serde_json::to_value(object).unwrap_or_default(), changed: true }
            }
            _ => {
                let params = PatchParams::apply(MANAGER).force();
                let patch = Patch::Apply(&child.object);
                let object = api.patch(&child.name, &params, &patch).await.map_err(failed)?;
                Written { object: serde_json::to_value(object).unwrap_or_default(), changed: true }
            }
        };
        let version = written.object.pointer("/metadata/resourceVersion").and_then(Value::as_str);
        if let Some(version) = version {
            self.versions.is_right((child.kind, namespace, &child.name), version, child.digest());
        }
        Ok(written)
    }

    /// Deletes an object if it is there and this owner's.
    ///
    /// # Errors
    /// The API server said no.
    pub async fn delete(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
        owner: &str,
    ) -> Result<bool, ApplyError> {
        let Some(live) = self.get(kind, namespace, name).await? else { return Ok(false) };
        let is_ours =
            live.pointer("/metadata/ownerReferences").and_then(Value::as_array).is_some_and(|owners| {
                owners.iter().any(|entry| entry.get("uid").and_then(Value::as_str) == Some(owner))
            });
        if !is_ours {
            return Ok(false);
        }
        match self.api(kind, namespace).delete(name, &DeleteParams::background()).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
            Err(source) => Err(ApplyError::Refused { kind, name: name.into(), source }),
        }
    }

    /// How many pods with a selector there are.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn pods(&self, namespace: &str, selector: &str) -> kube::Result<i32> {
        let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(self.client.clone(), namespace);
        let params = ListParams::default().labels(selector).limit(MOST_PODS);
        let list = pods.list_metadata(&params).await?;
        Ok(i32::try_from(list.items.len()).unwrap_or(i32::MAX))
    }

    /// The pods with a selector that have started and not ended, and are not being deleted.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn started(&self, namespace: &str, selector: &str) -> kube::Result<Vec<StartedPod>> {
        let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(self.client.clone(), namespace);
        let params = ListParams::default().labels(selector).limit(MOST_PODS);
        // An unknown phase counts: somebody may be at work there.
        let params = params.fields("status.phase!=Pending,status.phase!=Succeeded,status.phase!=Failed");
        let list = pods.list_metadata(&params).await?;
        let here = list.items.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        Ok(here
            .map(|pod| {
                let annotations = pod.metadata.annotations.unwrap_or_default();
                StartedPod {
                    name: pod.metadata.name.unwrap_or_default(),
                    uid: pod.metadata.uid.unwrap_or_default(),
                    is_victim: annotations.contains_key(DELETION_COST),
                    is_kept: annotations.contains_key(KEPT[0]),
                }
            })
            .collect())
    }

    /// Deletes a pod, if it is still that one.
    ///
    /// # Errors
    /// The API server said no. A pod that is gone is no error.
    pub async fn delete_pod(&self, namespace: &str, pod: &StartedPod) -> kube::Result<()> {
        let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(self.client.clone(), namespace);
        let same = kube::api::Preconditions { uid: Some(pod.uid.clone()), resource_version: None };
        let params = DeleteParams { preconditions: Some(same), ..DeleteParams::default() };
        match pods.delete(&pod.name, &params).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Sets annotations of a pod, or takes them away.
    ///
    /// # Errors
    /// The API server said no. A pod that is gone is no error.
    pub async fn annotate(&self, namespace: &str, pod: &str, annotations: Value) -> kube::Result<()> {
        let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(self.client.clone(), namespace);
        let patch = serde_json::json!({ "metadata": { "annotations": annotations } });
        let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        match pods.patch_metadata(pod, &params, &Patch::Merge(patch)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn api(&self, kind: Kind, namespace: &str) -> Api<kube::core::DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &kind.resource())
    }
}
