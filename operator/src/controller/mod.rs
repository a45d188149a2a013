//! Watches, queues and reconcilers.
//!
//! A reconciler gets a name, never a reason: it starts from the beginning each time, so that a missed event, a restart or a
//! failure in the middle heals with the next look. One pool is never looked at twice at once, and so many at once as
//! [`Settings::concurrency`] says; one that fails waits for itself alone.

mod context;
mod fallback;
mod pace;
mod pool;
mod push;
mod scale_in;
mod status;
mod tenant;
mod watch;
mod world;

pub use pool::{FINALIZER, PoolError};
pub use tenant::{TENANT_FINALIZER, TenantError};

use crate::control::{self, Control, Seen};
use crate::crd::{Read, Readable, Tenant, WorkerPool};
use crate::desired::{self, Kind};
use crate::gate::{self, Gate};
use crate::settings::Settings;
use context::Context;
use futures_util::{Stream, StreamExt as _, stream};
use kube::runtime::controller::{Config, Controller};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{PredicateConfig, WatchStreamExt as _, predicates, watcher};
use kube::{Api, Client, ResourceExt as _};
use pace::{Pace, paced};
use std::collections::BTreeMap;
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use watch::Look;

/// Looks that wait to be queued; a watch waits when there are more.
const MOST_LOOKS: usize = 1024;
/// Changes of one pool's objects that follow each other closely are one look. The controllers' own `debounce` has no longest: each
/// change starts it anew.
const PACE: Pace = Pace { quiet: Duration::from_millis(300), longest: Duration::from_secs(2) };

/// Runs the reconcilers until `stop`. Only the leader does.
pub async fn run(client: Client, settings: Settings, instance: String, stop: CancellationToken) {
    let first = tokio::select! {
        () = stop.cancelled() => return,
        first = world::first(&client, &settings) => first,
    };
    let (known, world) = tokio::sync::watch::channel(first);
    let (looks, looked) = mpsc::channel(MOST_LOOKS);
    let (tenant_looks, tenants_looked) = mpsc::channel(MOST_LOOKS);
    // A tenant's change is a change for each pool that names it, and the other way round.
    let (pool_store, pools) = stored::<WorkerPool, _>(&client, move |pool| {
        if let Some(tenant) = &pool.spec.tenant {
            // Full: tenants are looked at now and then anyway.
            let _ = tenant_looks.try_send(tenant.clone());
        }
    });
    let (tenant_store, tenants) = stored::<Tenant, _>(&client, {
        let (pools, looks) = (pool_store.clone(), looks.clone());
        move |tenant| look_at_pools_of(tenant, &pools, &looks)
    });
    let (telling, seen) = tokio::sync::watch::channel(Seen::default());
    let broker = settings.control.clone().map(|settings| Arc::new(Control::new(settings)));
    let gate = broker.is_some().then(|| Arc::new(Gate::new(settings.canaries)));
    let context = Context::new(
        client.clone(),
        settings.clone(),
        world.clone(),
        (pool_store.clone(), tenant_store.clone()),
        (broker.clone(), seen.clone(), gate.clone()),
        &instance,
    );
    let context = Arc::new(context);

    let mut tasks = JoinSet::new();
    tasks.spawn(world::keep(client.clone(), settings.clone(), known));
    tasks.spawn(watch_children(client.clone(), Arc::clone(&context), looks.clone()));
    if let Some((gate, control)) = gate.zip(broker.clone()) {
        let asked = desired::targets(&settings).into_iter().filter(|target| target.asked);
        let asked = asked.map(|target| target.address).collect();
        let around = gate::Around { client, control, seen, pools: pool_store.clone(), asked };
        let looks = looks.clone();
        tasks.spawn(gate::keep(gate, around, move |(namespace, name)| {
            looks.try_send(Look::At { namespace: namespace.clone(), name: name.clone() }).is_ok()
        }));
    }
    if let Some(broker) = broker {
        let (pools, looks) = (pool_store.clone(), looks.clone());
        tasks.spawn(control::keep(broker, telling, move |name| look_at_pools_named(name, &pools, &looks)));
    }

    let config = Config::default().concurrency(settings.concurrency.max(1));
    let pools = Controller::for_stream(pools, pool_store.clone())
        .with_config(config.clone())
        .reconcile_on(paced(pools_to_look_at(looked, pool_store), PACE, |pool| Some(pool.clone())))
        .reconcile_all_on(changes(world))
        .graceful_shutdown_on(stop.clone().cancelled_owned())
        .run(pool::reconcile, pool::retry, Arc::clone(&context))
        .for_each(|_| std::future::ready(()));
    let tenants = Controller::for_stream(tenants, tenant_store)
        .with_config(config)
        .reconcile_on(
            paced(received(tenants_looked), PACE, |name| Some(name.clone()))
                .map(|name| ObjectRef::new(&name)),
        )
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(tenant::reconcile, tenant::retry, context)
        .for_each(|_| std::future::ready(()));
    tokio::join!(pools, tenants);
    tasks.shutdown().await;
}

/// A watch with a store behind it. What cannot be read as a whole is there in parts. Only what changes the meaning of an object comes through: a status that we wrote does
/// not. What comes by, deleted objects among it, is shown to `touched` first.
fn stored<K, F>(
    client: &Client,
    touched: F,
) -> (Store<Read<K>>, impl Stream<Item = Result<Read<K>, watcher::Error>> + Send + 'static + use<K, F>)
where
    K: Readable + Clone + std::fmt::Debug + Send + Sync + 'static,
    F: Fn(&K) + Send + 'static,
{
    let (store, writer) = reflector::store();
    let objects = watcher(Api::<Read<K>>::all(client.clone()), watcher::Config::default())
        .default_backoff()
        // Half of an object's bytes, and nothing that is asked of these.
        .modify(|object| object.managed_fields_mut().clear())
        .reflect(writer)
        .touched_objects()
        .inspect(move |object| {
            if let Ok(object) = object {
                touched(object);
            }
        })
        .predicate_filter(meaning, PredicateConfig::default());
    (store, paced(objects, PACE, |object| object.as_ref().ok().map(ObjectRef::from_obj)))
}

/// What of an object changes its meaning: its spec, that it is being deleted (both raise the generation), and our finalizer.
fn meaning<K: kube::Resource>(object: &K) -> Option<u64> {
    let mut hasher = std::hash::DefaultHasher::new();
    (predicates::generation(object), predicates::finalizers(object)).hash(&mut hasher);
    Some(hasher.finish())
}

/// Watches the kinds that are known, and those that become known.
async fn watch_children(client: Client, context: Arc<Context>, looks: mpsc::Sender<Look>) {
    let mut world = context.world.clone();
    let mut watched: BTreeMap<Kind, tokio::task::AbortHandle> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    loop {
        let known = world::kinds_of(&world.borrow_and_update()).clone();
        for kind in Kind::ALL {
            let is_known = !kind.is_optional() || known.contains(&kind);
            if is_known && !watched.contains_key(&kind) {
                let versions = Arc::clone(&context.versions);
                let task = watch::children(client.clone(), kind, versions, looks.clone());
                watched.insert(kind, tasks.spawn(task));
            } else if !is_known && let Some(task) = watched.remove(&kind) {
                task.abort();
                context.versions.forget(kind);
            }
        }
        if world.changed().await.is_err() {
            return;
        }
    }
}

fn look_at_pools_named(name: &str, pools: &Store<Read<WorkerPool>>, looks: &mpsc::Sender<Look>) {
    for pool in pools.state().iter().filter(|pool| pool.name_any() == name) {
        // Full: the next change says so again.
        let _ = looks
            .try_send(Look::At { namespace: pool.namespace().unwrap_or_default(), name: name.to_owned() });
    }
}

fn look_at_pools_of(tenant: &Tenant, pools: &Store<Read<WorkerPool>>, looks: &mpsc::Sender<Look>) {
    let name = tenant.name_any();
    for pool in pools.state() {
        if pool.spec.tenant.as_deref() == Some(&name) {
            let look = Look::At { namespace: pool.namespace().unwrap_or_default(), name: pool.name_any() };
            if looks.try_send(look).is_err() {
                // Too many to name them one by one.
                let looks = looks.clone();
                tokio::spawn(async move { looks.send(Look::Everywhere).await });
                return;
            }
        }
    }
}

fn pools_to_look_at(
    looks: mpsc::Receiver<Look>,
    pools: Store<Read<WorkerPool>>,
) -> impl Stream<Item = ObjectRef<Read<WorkerPool>>> + Send + 'static {
    received(looks).flat_map(move |look| {
        let found = match look {
            // What is not a pool's is not looked at: an object may be left of a pool that is gone.
            Look::At { namespace, name } => {
                let pool = ObjectRef::new(&name).within(&namespace);
                pools.get(&pool).map(|_| pool).into_iter().collect()
            }
            Look::Everywhere => {
                pools.state().iter().map(|pool| ObjectRef::from_obj(&**pool)).collect::<Vec<_>>()
            }
        };
        stream::iter(found)
    })
}

fn received<T: Send + 'static>(receiver: mpsc::Receiver<T>) -> impl Stream<Item = T> + Send + 'static {
    stream::unfold(receiver, |mut receiver| async move { receiver.recv().await.map(|item| (item, receiver)) })
}

fn changes<T: Send + Sync + 'static>(
    receiver: tokio::sync::watch::Receiver<T>,
) -> impl Stream<Item = ()> + Send + 'static {
    stream::unfold(
        receiver,
        |mut receiver| async move { receiver.changed().await.ok().map(|()| ((), receiver)) },
    )
}

/// An error and what caused it, as one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !line.ends_with(&cause_text) {
            line.push_str(": ");
            line.push_str(&cause_text);
        }
        next = cause.source();
    }
    line
}
