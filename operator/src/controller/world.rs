//! The cluster around the pools: where the broker is, and which kinds there are.

use crate::cluster;
use crate::desired::{Broker, Kind, World};
use crate::settings::Settings;
use futures_util::{StreamExt as _, pin_mut};
use k8s_openapi::api::core::v1::Service;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::watch;

/// What is known of the cluster, or why pools cannot be made.
pub(super) type Known = Result<World, NoBroker>;

/// Nobody knows where the broker is. What stands around pods is kept in place all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NoBroker {
    /// Why: a sentence.
    pub(super) why: String,
    kinds: BTreeSet<Kind>,
    /// Where it was when that was known last.
    last: Option<Broker>,
}

/// The kinds that the cluster knows.
pub(super) fn kinds_of(known: &Known) -> &BTreeSet<Kind> {
    known.as_ref().map_or_else(|none| &none.kinds, |world| &world.kinds)
}

/// The cluster as it is, or was when the broker was there last. Before that nobody is the broker.
pub(super) fn last(known: &Known) -> (World, bool) {
    match known {
        Ok(world) => (world.clone(), true),
        Err(none) => {
            let broker = none.last.clone().unwrap_or_else(Broker::nobody);
            (World { broker, kinds: none.kinds.clone() }, none.last.is_some())
        }
    }
}

/// Looks once, and again until the API server answers.
pub(super) async fn first(client: &Client, settings: &Settings) -> Known {
    let mut wait = Duration::from_millis(200);
    loop {
        match look(client, settings, None).await {
            Some(known) => return known,
            None => tokio::time::sleep(wait).await,
        }
        wait = wait.saturating_mul(2).min(Duration::from_secs(30));
    }
}

/// Keeps it up to date: at once when the Service changes, now and then for kinds, which nobody can watch.
pub(super) async fn keep(client: Client, settings: Settings, known: watch::Sender<Known>) {
    let services: Api<Service> = Api::namespaced(client.clone(), &settings.broker.namespace);
    let only_it = watcher::Config::default().fields(&format!("metadata.name={}", settings.broker.name));
    let events = watcher(services, only_it).default_backoff();
    pin_mut!(events);
    let mut ticks = tokio::time::interval(settings.discover_every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            event = events.next() => match event {
                Some(Ok(_)) => {}
                // The API server is away, or the right to watch; the next tick looks anyway.
                Some(Err(_)) => continue,
                None => return,
            },
        }
        let before = known.borrow().clone();
        if let Some(now) = look(&client, &settings, Some(&before)).await {
            known.send_if_modified(|known| {
                let is_new = *known != now;
                if is_new {
                    log(&now);
                    *known = now;
                }
                is_new
            });
        }
    }
}

/// `None`: the API server does not answer, and what was known stays.
async fn look(client: &Client, settings: &Settings, before: Option<&Known>) -> Option<Known> {
    let kinds = match cluster::known(client).await {
        Ok(kinds) => kinds,
        Err(error) => {
            // An aggregated API server that is down must not look like a kind that is gone.
            tracing::warn!(error = super::chain(&error), "the kinds of the cluster cannot be listed");
            before.map(|known| kinds_of(known).clone())?
        }
    };
    match cluster::broker(client, &settings.broker).await {
        Ok(broker) => Some(Ok(World { broker, kinds })),
        // An API server that starts refuses what it has not read the roles of yet; what was known stays known.
        Err(cluster::BrokerError::Unreadable(_, error)) if before.is_some() || !is_answer(&error) => {
            tracing::warn!(error = super::chain(&error), "the broker's Service cannot be read");
            None
        }
        Err(error) => {
            let last = before.and_then(|known| match known {
                Ok(world) => Some(world.broker.clone()),
                Err(none) => none.last.clone(),
            });
            Some(Err(NoBroker { why: super::chain(&error), kinds, last }))
        }
    }
}

fn is_answer(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code < 500 && status.code != 429)
}

fn log(known: &Known) {
    match known {
        Ok(world) => {
            let kinds: BTreeSet<Kind> = world.kinds.clone();
            tracing::info!(broker = ?world.broker.addresses, ?kinds, "the cluster around the pools changed");
        }
        Err(none) => tracing::warn!(why = none.why, "pools wait"),
    }
}
