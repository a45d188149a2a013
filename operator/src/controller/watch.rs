//! Watches over the objects of pools. They tell which pool to look at; nothing but a version is kept of what they bring.

use crate::cluster::{Seen, Versions};
use crate::desired::Kind;
use crate::settings::MANAGER;
use futures_util::{StreamExt as _, pin_mut};
use kube::core::{DynamicObject, PartialObjectMeta};
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use std::sync::Arc;
use tokio::sync::mpsc;

/// What a watch tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Look {
    /// Look at this pool.
    At {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// Look at all: what was missed nobody knows.
    Everywhere,
}

/// Watches one kind until its task is dropped.
pub(super) async fn children(client: Client, kind: Kind, versions: Arc<Versions>, looks: mpsc::Sender<Look>) {
    let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(client, &kind.resource());
    let only_ours = Config::default().labels(&format!("app.kubernetes.io/managed-by={MANAGER}"));
    let events = watcher(api, only_ours).default_backoff();
    pin_mut!(events);
    let mut is_first = true;
    while let Some(event) = events.next().await {
        let look = match event {
            Ok(Event::Apply(object) | Event::InitApply(object)) => changed(&versions, kind, &object, false),
            Ok(Event::Delete(object)) => changed(&versions, kind, &object, true),
            Ok(Event::Init) => {
                // What was deleted while nobody watched is not told.
                versions.forget(kind);
                None
            }
            // At the start all pools are looked at anyway.
            Ok(Event::InitDone) if is_first => {
                is_first = false;
                None
            }
            Ok(Event::InitDone) => Some(Look::Everywhere),
            Err(error) => {
                tracing::debug!(?kind, error = super::chain(&error), "a watch broke and starts again");
                None
            }
        };
        if let Some(look) = look
            && looks.send(look).await.is_err()
        {
            return;
        }
    }
}

fn changed(
    versions: &Versions,
    kind: Kind,
    object: &PartialObjectMeta<DynamicObject>,
    is_gone: bool,
) -> Option<Look> {
    let (namespace, name) = (object.namespace()?, object.name_any());
    let pool = name.strip_suffix("-worker")?.to_owned();
    let version = if is_gone { String::new() } else { object.resource_version().unwrap_or_default() };
    let is_news = versions.saw(Seen { kind, namespace: namespace.clone(), name, version });
    is_news.then_some(Look::At { namespace, name: pool })
}
