//! Multipart uploads. Which one of an object is open is known to storage; what is remembered here only saves asking.

use super::bounded::Bounded;
use super::bucket::{Bucket, Target, again};
use super::control::Held;
use super::fault::Fault;
use super::limits::REMEMBERED;
use super::{names, wire};
use crate::secret::sha256;
use bytes::Bytes;
use std::sync::{Arc, Mutex, PoisonError};

/// The id of an object's open multipart upload, once it is known. Locked while it is found out.
type Known = Arc<tokio::sync::Mutex<Option<String>>>;

/// The multipart uploads that this broker writes to.
pub(super) struct Multiparts {
    open: Mutex<Bounded<String, Known>>,
}

impl Multiparts {
    pub(super) fn new() -> Self {
        Self { open: Mutex::new(Bounded::new(REMEMBERED)) }
    }

    fn known(&self, object: &str) -> Known {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.get(&object.to_owned()).unwrap_or_else(|| {
            let fresh = Known::default();
            open.put(object.to_owned(), Arc::clone(&fresh));
            fresh
        })
    }

    /// Storage is asked again the next time.
    pub(super) fn forget(&self, prefix: &str) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.remove_where(|object| object.starts_with(prefix));
    }

    /// The object's open multipart upload, where there is one.
    pub(super) async fn find(&self, bucket: &Bucket, object: &str) -> Result<Option<String>, Fault> {
        let known = self.known(object);
        let mut known = known.lock().await;
        if known.is_none() {
            *known = bucket.multiparts(object).await?.into_iter().next();
        }
        Ok(known.clone())
    }

    /// The object's open multipart upload, opened where there is none.
    pub(super) async fn id(&self, bucket: &Bucket, object: &str) -> Result<String, Fault> {
        let known = self.known(object);
        let mut known = known.lock().await;
        if let Some(id) = &*known {
            return Ok(id.clone());
        }
        let id = match bucket.multiparts(object).await?.into_iter().next() {
            Some(id) => id,
            None => {
                // The mark first: whatever happens after it, removal knows that it has to look for a multipart upload, which
                // a list of objects does not show.
                put_small(bucket, &names::mark(object), Bytes::new()).await?;
                bucket.create(object).await?
            }
        };
        *known = Some(id.clone());
        Ok(id)
    }
}

/// Writes a small object.
pub(super) async fn put_small(bucket: &Bucket, object: &str, bytes: Bytes) -> Result<(), Fault> {
    let digest = sha256(&bytes);
    let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    again(|| bucket.put(Target::Object(object), size, &digest, wire::whole(bytes.clone()))).await
}

/// Completes the multipart upload of the object that `choose` finds the wanted parts in. Whether one was completed; `choose`'s
/// last refusal where there was one and none would do.
pub(super) async fn complete(
    bucket: &Bucket,
    object: &str,
    choose: impl Fn(Vec<Held>) -> Result<Vec<Held>, Fault> + Send,
) -> Result<bool, Fault> {
    let mut refused = None;
    for id in bucket.multiparts(object).await? {
        let held = match bucket.parts(object, &id).await {
            // Completed or given up by another broker just now.
            Err(fault) if fault.is_missing() => continue,
            held => held?,
        };
        match choose(held) {
            Ok(parts) => match bucket.complete(object, &id, &parts).await {
                Err(fault) if fault.is_missing() => return Ok(false),
                done => return done.map(|()| true),
            },
            Err(fault) => refused = Some(fault),
        }
    }
    refused.map_or(Ok(false), Err)
}

/// Gives up every open multipart upload of the object, and then takes the mark away.
pub(super) async fn clear(bucket: &Bucket, object: &str) -> Result<(), Fault> {
    for id in bucket.multiparts(object).await? {
        bucket.abort(object, &id).await?;
    }
    bucket.delete(&names::mark(object)).await
}
