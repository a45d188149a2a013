//! Who writes an upload: one call at a time, here and among all brokers. A call may ask for the place of another, whose client
//! may be long gone while its connection still stands; the other lets go of the upload before the new one begins.

use super::Engine;
use super::uploads::UploadError;
use crate::objects::{Body, BodyError};
use crate::store::Store;
use futures_util::StreamExt as _;
use mpegflow_protocol::ids::UploadId;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long a broker that is gone keeps others from going on with an upload.
const WRITER_TTL_MS: u64 = 15_000;
const RENEW: Duration = Duration::from_secs(2);
/// How long a call waits for the one whose place it takes: longer than a broker that is gone holds an upload.
const PATIENCE: Duration = Duration::from_secs(20);
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// The uploads that are being written here.
#[derive(Debug, Default)]
pub(super) struct Writing(Mutex<HashMap<UploadId, Turn>>);

#[derive(Debug, Clone, Default)]
struct Turn {
    /// Somebody else wants to write.
    asked: CancellationToken,
    /// The turn is over.
    over: CancellationToken,
}

/// The right to write one upload; ends with this.
pub(super) struct Writer<'a> {
    writing: &'a Writing,
    id: UploadId,
    turn: Turn,
}

impl Writing {
    /// The turn, or the one that is in the way.
    fn begin(&self, id: UploadId) -> Result<Writer<'_>, Turn> {
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(id) {
            Entry::Occupied(other) => Err(other.get().clone()),
            Entry::Vacant(free) => {
                let turn = free.insert(Turn::default()).clone();
                Ok(Writer { writing: self, id, turn })
            }
        }
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        self.writing.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
        self.turn.over.cancel();
    }
}

/// The right to write one upload, here and among all brokers.
pub(super) struct Right<'a> {
    // Given back first: who waits here asks for it next.
    _elsewhere: Elsewhere,
    here: Writer<'a>,
}

impl Right<'_> {
    /// The body until somebody else wants to write: then it breaks off.
    pub(super) fn body(&self, body: Body) -> Body {
        let asked = self.here.turn.asked.clone();
        Box::pin(futures_util::stream::unfold(Some((body, asked)), |state| async move {
            let (mut body, asked) = state?;
            tokio::select! {
                biased;
                () = asked.cancelled() => {
                    let other = std::io::Error::other("another call goes on with the upload");
                    Some((Err(BodyError::Broken(other.into())), None))
                }
                chunk = body.next() => chunk.map(|chunk| (chunk, Some((body, asked)))),
            }
        }))
    }
}

/// The right to write one upload among all brokers, renewed until this ends.
struct Elsewhere {
    store: Arc<dyn Store>,
    id: UploadId,
    holder: String,
    renewal: tokio::task::JoinHandle<()>,
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        self.renewal.abort();
        let (store, id, holder) = (Arc::clone(&self.store), self.id, std::mem::take(&mut self.holder));
        // Not given back, it ends by itself.
        tokio::spawn(async move { store.wrote_upload(id, &holder).await });
    }
}

impl Engine {
    /// The right to write an upload. `preempt`: whoever has it is asked to let go, and waited for.
    pub(super) async fn begin_writing(&self, id: UploadId, preempt: bool) -> Result<Right<'_>, UploadError> {
        let patience = Instant::now().checked_add(PATIENCE);
        let waits = || preempt && patience.is_some_and(|end| Instant::now() < end);
        let here = loop {
            match self.writing.begin(id) {
                Ok(here) => break here,
                Err(other) if waits() => {
                    other.asked.cancel();
                    // Two that wait may both be told; only one gets it, and the other asks that one.
                    let _ = tokio::time::timeout(ASK_AGAIN, other.over.cancelled()).await;
                }
                Err(_) => return Err(UploadError::Busy),
            }
        };
        // One for each call, so that what an earlier call gives back late is not this one's.
        let holder = uuid::Uuid::new_v4().to_string();
        while !self.store.write_upload(id, &holder, WRITER_TTL_MS).await? {
            if !waits() {
                return Err(UploadError::Busy);
            }
            self.store.ask_for_upload(id).await?;
            tokio::time::sleep(ASK_AGAIN).await;
        }
        let renewal =
            tokio::spawn(renew(Arc::clone(&self.store), id, holder.clone(), here.turn.asked.clone()));
        let elsewhere = Elsewhere { store: Arc::clone(&self.store), id, holder, renewal };
        Ok(Right { _elsewhere: elsewhere, here })
    }
}

/// Keeps the right, and hears whether another broker's call asks for it.
async fn renew(store: Arc<dyn Store>, id: UploadId, holder: String, asked: CancellationToken) {
    loop {
        tokio::time::sleep(RENEW).await;
        // Whoever has lost it finds the count moved, and stops.
        let _ = store.write_upload(id, &holder, WRITER_TTL_MS).await;
        if store.is_asked_for(id, &holder).await.unwrap_or(false) {
            asked.cancel();
        }
    }
}
