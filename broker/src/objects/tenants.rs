//! Storage of all tenants: each one's own where it has some, else what all share. Which of them, is decided here and nowhere else, for
//! each call and by the tenant in the key; what cannot be decided is an error, and the shared place is never a way out.

use super::own::{OwnStorage, Setup};
use super::s3::{Connections, S3Objects};
use super::{Appended, Body, Bytestream, Cursor, Found, Key, ObjectError, Objects, Owners, Page, PartHead};
use crate::store::Store;
use async_trait::async_trait;
use mpegflow_protocol::ids::{AttemptId, JobId, TenantId, UploadId};
use mpegflow_protocol::worker::Signed;
use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A change reaches every broker within this time.
const FRESH: Duration = Duration::from_secs(2);
/// Tenants that are remembered at once.
const MAX_TENANTS: usize = 10_000;
/// Tenants whose trouble is remembered at once.
const MAX_TROUBLE: usize = 1_000;
/// Of them, those that are looked at in one go.
const LOOKS: usize = 16;
/// A look takes no longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// A tenant's own place, opened.
struct Own {
    storage: OwnStorage,
    objects: S3Objects,
}

/// What is known of a tenant.
#[derive(Default)]
struct Known {
    heard: Mutex<Heard>,
    /// Held by who asks the store. The others wait for what it hears: a thousand streams that begin at once ask once.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Heard {
    /// The last answer, and when it came.
    answer: Option<(Instant, Option<Arc<Own>>)>,
    /// When the store last gave none.
    failed: Option<Instant>,
}

impl Known {
    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last answer, while it counts.
    fn fresh(&self) -> Option<Option<Arc<Own>>> {
        self.heard().answer.as_ref().filter(|(at, _)| at.elapsed() < FRESH).map(|(_, own)| own.clone())
    }

    /// Whether somebody got no answer since then.
    fn failed_since(&self, then: Instant) -> bool {
        self.heard().failed.is_some_and(|at| at >= then)
    }
}

/// Where a tenant's objects are.
enum Place<'a> {
    Shared(&'a dyn Objects),
    Own(Arc<Own>),
}

/// Storage of all tenants.
pub struct TenantObjects {
    shared: Arc<dyn Objects>,
    store: Arc<dyn Store>,
    setup: Arc<Setup>,
    connections: Connections,
    known: Mutex<HashMap<TenantId, Arc<Known>>>,
    trouble: Mutex<HashMap<TenantId, String>>,
}

impl TenantObjects {
    /// Gets ready. Whose storage is whose, is in the store.
    ///
    /// # Errors
    /// The authorities to trust cannot be read.
    pub fn new(shared: Arc<dyn Objects>, store: Arc<dyn Store>, setup: Arc<Setup>) -> io::Result<Self> {
        let connections = Connections::open(setup.ca_file.as_deref())?;
        Ok(Self { shared, store, setup, connections, known: Mutex::default(), trouble: Mutex::default() })
    }

    async fn place(&self, tenant: TenantId) -> Result<Place<'_>, ObjectError> {
        let known = self.known(tenant);
        let own = match known.fresh() {
            Some(own) => own,
            None => self.ask(tenant, &known).await?,
        };
        Ok(own.map_or(Place::Shared(&*self.shared), Place::Own))
    }

    fn open(&self, tenant: TenantId, storage: OwnStorage) -> Result<Own, ObjectError> {
        let failed = |e: &dyn Error| {
            let error = ObjectError::Own { bucket: storage.bucket.clone(), reason: chain(e) };
            self.note(tenant, Some(&error));
            error
        };
        storage.check(&self.setup).map_err(|e| failed(&e))?;
        let config = storage.config(tenant, &self.setup);
        let objects = S3Objects::open_over(&config, self.connections.clone()).map_err(|e| failed(&e))?;
        Ok(Own { storage, objects })
    }

    /// What is known of a tenant: nothing yet, of one that is new.
    fn known(&self, tenant: TenantId) -> Arc<Known> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_TENANTS && !known.contains_key(&tenant) {
            known.retain(|_, known| known.fresh().is_some());
            if known.len() >= MAX_TENANTS {
                known.clear();
            }
        }
        Arc::clone(known.entry(tenant).or_default())
    }

    /// Asks the store, or hears what somebody else asks it.
    async fn ask(&self, tenant: TenantId, known: &Known) -> Result<Option<Arc<Own>>, ObjectError> {
        let since = Instant::now();
        let _asking = known.asking.lock().await;
        if let Some(own) = known.fresh() {
            return Ok(own);
        }
        // Where the store does not answer, those who waited do not each wait for it once more, one after another.
        if known.failed_since(since) {
            return Err(unknown("the store gave no answer to another call"));
        }
        let storage = match self.store.storage_of(tenant).await {
            Ok(storage) => storage,
            Err(e) => {
                known.heard().failed = Some(Instant::now());
                return Err(unknown(e));
            }
        };
        let before = known.heard().answer.clone().and_then(|(_, own)| own);
        let own = match (storage, before) {
            (None, _) => None,
            // The same as before: its sessions and what it remembers stay.
            (Some(storage), Some(own)) if own.storage == storage => Some(own),
            (Some(storage), _) => Some(Arc::new(self.open(tenant, storage)?)),
        };
        known.heard().answer = Some((Instant::now(), own.clone()));
        Ok(own)
    }

    /// Notes whether a tenant's own storage did its part.
    fn note(&self, tenant: TenantId, error: Option<&ObjectError>) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        match error {
            None => drop(trouble.remove(&tenant)),
            Some(error) if trouble.len() < MAX_TROUBLE || trouble.contains_key(&tenant) => {
                trouble.insert(tenant, error.to_string());
            }
            Some(_) => {}
        }
    }

    async fn owners_of(&self, tenant: TenantId, from: &Cursor, most: u32) -> Result<Owners, ObjectError> {
        let place = self.place(tenant).await?;
        // It has none any more.
        let Place::Own(own) = &place else { return Ok(Owners::default()) };
        let done = own.objects.owners(from, most).await;
        place.judged(self, tenant, done)
    }
}

impl Place<'_> {
    fn objects(&self) -> &dyn Objects {
        match self {
            Self::Shared(objects) => *objects,
            Self::Own(own) => &own.objects,
        }
    }

    /// The result, with the bucket's name where it is the tenant's own that failed.
    fn judged<T>(
        &self,
        all: &TenantObjects,
        tenant: TenantId,
        done: Result<T, ObjectError>,
    ) -> Result<T, ObjectError> {
        let Self::Own(own) = self else { return done };
        match done {
            Err(error @ ObjectError::Io { .. }) => {
                let error = ObjectError::Own { bucket: own.storage.bucket.clone(), reason: chain(&error) };
                all.note(tenant, Some(&error));
                Err(error)
            }
            done => {
                if done.is_ok() {
                    all.note(tenant, None);
                }
                done
            }
        }
    }
}

fn unknown(error: impl Into<Box<dyn Error + Send + Sync>>) -> ObjectError {
    ObjectError::Io { step: "find out whose storage it is", source: io::Error::other(error) }
}

/// An error and the next one behind it. Further ones are of the network, and name its addresses.
fn chain(error: &dyn Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

#[async_trait]
impl Objects for TenantObjects {
    async fn append(
        &self,
        key: &Key,
        offset: u64,
        body: &mut Body,
        some: u64,
        most: u64,
    ) -> Result<Appended, ObjectError> {
        let place = self.place(key.tenant()).await?;
        let done = place.objects().append(key, offset, body, some, most).await;
        let mut done = place.judged(self, key.tenant(), done)?;
        if let Some(error) = done.error.take() {
            done.error = place.judged::<()>(self, key.tenant(), Err(error)).err();
        }
        Ok(done)
    }

    async fn finish_upload(&self, tenant: TenantId, upload: UploadId, size: u64) -> Result<(), ObjectError> {
        let place = self.place(tenant).await?;
        let done = place.objects().finish_upload(tenant, upload, size).await;
        place.judged(self, tenant, done)
    }

    async fn put_part(&self, key: &Key, head: &PartHead, body: Body) -> Result<(), ObjectError> {
        let place = self.place(key.tenant()).await?;
        let done = place.objects().put_part(key, head, body).await;
        place.judged(self, key.tenant(), done)
    }

    async fn finish(&self, key: &Key, parts: &[PartHead]) -> Result<(), ObjectError> {
        let place = self.place(key.tenant()).await?;
        let done = place.objects().finish(key, parts).await;
        place.judged(self, key.tenant(), done)
    }

    async fn read(&self, key: &Key, range: Range<u64>) -> Result<Bytestream, ObjectError> {
        let place = self.place(key.tenant()).await?;
        let done = place.objects().read(key, range).await;
        place.judged(self, key.tenant(), done)
    }

    async fn version(&self, key: &Key) -> Result<Option<String>, ObjectError> {
        let place = self.place(key.tenant()).await?;
        let done = place.objects().version(key).await;
        place.judged(self, key.tenant(), done)
    }

    async fn read_version(
        &self,
        key: &Key,
        range: Range<u64>,
        version: &str,
    ) -> Result<Bytestream, ObjectError> {
        let place = self.place(key.tenant()).await?;
        let done = place.objects().read_version(key, range, version).await;
        place.judged(self, key.tenant(), done)
    }

    async fn sign_read(
        &self,
        key: &Key,
        range: Range<u64>,
        version: &str,
        life: Duration,
    ) -> Result<Option<Signed>, ObjectError> {
        let place = self.place(key.tenant()).await?;
        let done = place.objects().sign_read(key, range, version, life).await;
        place.judged(self, key.tenant(), done)
    }

    async fn sign_part(
        &self,
        key: &Key,
        head: &PartHead,
        life: Duration,
    ) -> Result<Option<Signed>, ObjectError> {
        let place = self.place(key.tenant()).await?;
        let done = place.objects().sign_part(key, head, life).await;
        place.judged(self, key.tenant(), done)
    }

    async fn holds_part(&self, key: &Key, head: &PartHead) -> Result<(), ObjectError> {
        let place = self.place(key.tenant()).await?;
        let done = place.objects().holds_part(key, head).await;
        place.judged(self, key.tenant(), done)
    }

    async fn look_up(&self, key: &Key) -> Result<Found, ObjectError> {
        let place = self.place(key.tenant()).await?;
        let done = place.objects().look_up(key).await;
        place.judged(self, key.tenant(), done)
    }

    async fn list_stored(
        &self,
        tenant: TenantId,
        prefix: &str,
        after: &str,
        most: u32,
    ) -> Result<Page, ObjectError> {
        let place = self.place(tenant).await?;
        let done = place.objects().list_stored(tenant, prefix, after, most).await;
        place.judged(self, tenant, done)
    }

    fn trouble(&self, tenant: TenantId) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).get(&tenant).cloned()
    }

    async fn look_at_trouble(&self) {
        let some: Vec<TenantId> = {
            let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
            // Another part of them each time, where they are many.
            let from =
                usize::from(uuid::Uuid::new_v4().as_fields().1).checked_rem(trouble.len()).unwrap_or(0);
            trouble.keys().cycle().skip(from).take(LOOKS.min(trouble.len())).copied().collect()
        };
        let looks = some.into_iter().map(|tenant| async move {
            match self.place(tenant).await {
                Ok(Place::Own(own)) => {
                    if let Ok(Ok(())) = tokio::time::timeout(PATIENCE, own.objects.ping()).await {
                        self.note(tenant, None);
                    }
                }
                // It has none any more.
                Ok(Place::Shared(_)) => self.note(tenant, None),
                Err(_) => {}
            }
        });
        futures_util::future::join_all(looks).await;
    }

    async fn remove_upload(&self, tenant: TenantId, upload: UploadId) -> Result<(), ObjectError> {
        let place = self.place(tenant).await?;
        let done = place.objects().remove_upload(tenant, upload).await;
        place.judged(self, tenant, done)
    }

    async fn remove_attempt(
        &self,
        tenant: TenantId,
        job: JobId,
        attempt: AttemptId,
    ) -> Result<(), ObjectError> {
        let place = self.place(tenant).await?;
        let done = place.objects().remove_attempt(tenant, job, attempt).await;
        place.judged(self, tenant, done)
    }

    /// What all share comes first, and then each tenant's own. One of those that fails keeps nobody else's from being listed.
    async fn owners(&self, from: &Cursor, most: u32) -> Result<Owners, ObjectError> {
        let mut page = match from.own {
            None => self.shared.owners(from, most).await?,
            Some(tenant) => self.owners_of(tenant, from, most).await.unwrap_or_else(|error| {
                tracing::warn!(%tenant, %error, "cannot list what is in a tenant's own storage");
                Owners::default()
            }),
        };
        page.next = match page.next {
            Some(next) => Some(Cursor { own: from.own, ..next }),
            None => {
                let tenants = self.store.storages().await.map_err(unknown)?;
                let tenants = tenants.into_iter().map(|(tenant, _)| Some(tenant));
                let next = tenants.filter(|tenant| *tenant > from.own).min();
                next.map(|own| Cursor { own, after: String::new() })
            }
        };
        Ok(page)
    }

    /// Whether the shared storage answers: a tenant's own that does not keeps nobody else waiting.
    async fn ping(&self) -> Result<(), ObjectError> {
        self.shared.ping().await
    }
}
