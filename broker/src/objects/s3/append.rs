//! Uploads: a body of any length, from any offset, into an object whose parts all have one length.
//!
//! What is whole of a part goes to the object's multipart upload; the last part too, when the body reaches the announced end
//! (an upload that is a single part is written as the object itself). What a call leaves over is an object of its own, a piece
//! named after where it starts and ends, and the pieces before an offset are the part's beginning when a later call goes on
//! there. Names are offsets, so a piece says by itself what it holds, and nothing has to be known about earlier calls. Pieces
//! that lie beyond the offset of a call are of one that was never counted, and go before it writes.

use super::Inner;
use super::bucket::{Target, again};
use super::fault::Fault;
use super::incoming::Reading;
use super::names::{piece, piece_range, pieces};
use super::spool::{Spooled, Spooling};
use super::wire::streamed;
use crate::objects::{Appended, Body, ObjectError};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use mpegflow_protocol::limits::PART_SIZE;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio_util::task::AbortOnDropHandle;

/// Pieces that a part may begin with. One more, and they are put together: calls of a byte each must not cost a request for
/// each byte later on, nor a rewritten part each now.
const MAX_PIECES: usize = 32;
/// Parts on their way to storage while the next one fills. More would only help storage that is slower than a tenant, and each
/// costs a stream's memory again.
const IN_FLIGHT: usize = 1;

/// A piece of a part's beginning.
#[derive(Clone)]
struct Piece {
    name: String,
    start: u64,
    end: u64,
}

/// A stretch that is being stored, and where it ends.
type Storing = (u64, AbortOnDropHandle<Result<(), Fault>>);

/// One call.
pub(super) struct Append<'a> {
    inner: &'a Arc<Inner>,
    object: String,
    /// Where the object ends.
    total: u64,
    /// How far everything is stored.
    safe: u64,
    /// How far the body has been taken.
    at: u64,
    /// The pieces that the part at `at` begins with.
    begun: Vec<Piece>,
    storing: VecDeque<Storing>,
    /// What the last chunk brought beyond the part's end.
    rest: Bytes,
}

/// Why the body is not read on.
enum Stop {
    Enough,
    Ended,
    Failed(ObjectError),
}

impl<'a> Append<'a> {
    /// Gets ready to go on at `offset` with an object that lacks `most` bytes there.
    pub(super) async fn at(
        inner: &'a Arc<Inner>,
        object: String,
        offset: u64,
        most: u64,
    ) -> Result<Self, Fault> {
        // Nothing can follow the announced end, so nothing has to precede it.
        let begun = if most == 0 { Vec::new() } else { begun(inner, &object, offset).await? };
        Ok(Self {
            inner,
            object,
            total: offset.saturating_add(most),
            safe: offset,
            at: offset,
            begun,
            storing: VecDeque::new(),
            rest: Bytes::new(),
        })
    }

    /// Takes the body until it ends or `some` bytes are taken.
    pub(super) async fn take(mut self, body: &mut Body, some: u64) -> Appended {
        let from = self.at;
        let enough = from.saturating_add(some);
        let (mut ended, mut error) = (false, None);
        loop {
            let stop = match self.fill(body, enough).await {
                Ok(stop) => stop,
                Err(fault) => Some(Stop::Failed(fault.during("store an upload"))),
            };
            match stop {
                None => continue,
                Some(Stop::Enough) => {}
                Some(Stop::Ended) => ended = true,
                Some(Stop::Failed(e)) => error = Some(e),
            }
            break;
        }
        // Whatever stopped the body, what is on its way may still arrive.
        while let Some(stored) = self.settle().await {
            if let Err(fault) = stored {
                error = Some(fault.during("store an upload"));
                break;
            }
        }
        let len = self.safe.saturating_sub(from);
        // A body that ended with bytes that were not stored has not ended for the caller: they have to come again.
        Appended { len, ended: ended && error.is_none(), error }
    }

    /// Fills one part, or what there is of it, and sends it on its way. `None` when there may be more.
    async fn fill(&mut self, body: &mut Body, enough: u64) -> Result<Option<Stop>, Fault> {
        let start = self.at;
        let part = start / PART_SIZE;
        let end = part.saturating_add(1).saturating_mul(PART_SIZE).min(self.total);
        let mut spooled = self.inner.spool.file().await.map_err(Fault::Spool)?;
        let mut stop = None;
        loop {
            if self.rest.is_empty() {
                if self.at >= enough {
                    stop = Some(Stop::Enough);
                } else if self.at < end || self.at == self.total {
                    // At the announced end too: there may be more than was announced.
                    match body.next().await {
                        None => stop = Some(Stop::Ended),
                        Some(Err(e)) => stop = Some(Stop::Failed(e.into())),
                        Some(Ok(chunk)) if length(&chunk) > self.total.saturating_sub(self.at) => {
                            stop = Some(Stop::Failed(ObjectError::Length));
                        }
                        Some(Ok(chunk)) => self.rest = chunk,
                    }
                } else {
                    break;
                }
            }
            if stop.is_some() || (self.at == end && !self.rest.is_empty()) {
                break;
            }
            let room = usize::try_from(end.saturating_sub(self.at)).unwrap_or(usize::MAX);
            let chunk = self.rest.split_to(room.min(self.rest.len()));
            self.at = self.at.saturating_add(length(&chunk));
            spooled.push(chunk).await.map_err(Fault::Spool)?;
        }
        if self.at > start {
            let whole = self.at == end;
            self.store(spooled, start, part, whole).await?;
        }
        Ok(stop)
    }

    /// Sends the bytes from `start` on their way: with the part's beginning, as a part, when it is `whole`.
    async fn store(&mut self, spooled: Spooled, start: u64, part: u64, whole: bool) -> Result<(), Fault> {
        let begun = std::mem::take(&mut self.begun);
        let spooled = spooled.finish().await.map_err(Fault::Spool)?;
        let place = if !whole {
            let together = begun.len() >= MAX_PIECES;
            let from = if together { part.saturating_mul(PART_SIZE) } else { start };
            Place {
                object: piece(&self.object, from, self.at),
                multipart: None,
                begun: if together { begun } else { Vec::new() },
            }
        } else if self.total <= PART_SIZE {
            Place { object: self.object.clone(), multipart: None, begun }
        } else {
            let id = self.inner.multiparts.id(&self.inner.bucket, &self.object).await?;
            let number = i32::try_from(part.saturating_add(1)).map_err(|_| Fault::Request)?;
            Place { object: self.object.clone(), multipart: Some((id, number)), begun }
        };
        while self.storing.len() >= IN_FLIGHT {
            if let Some(stored) = self.settle().await {
                stored?;
            }
        }
        let inner = Arc::clone(self.inner);
        let task = tokio::spawn(async move { place.write(&inner, spooled).await });
        self.storing.push_back((self.at, AbortOnDropHandle::new(task)));
        Ok(())
    }

    /// Waits for the oldest stretch that is on its way.
    async fn settle(&mut self) -> Option<Result<(), Fault>> {
        let (to, task) = self.storing.pop_front()?;
        let stored = task.await.unwrap_or(Err(Fault::Request));
        if stored.is_ok() {
            self.safe = to;
        } else {
            // What follows a gap is worth nothing.
            self.storing.clear();
        }
        Some(stored)
    }
}

/// Where a stretch goes.
struct Place {
    object: String,
    multipart: Option<(String, i32)>,
    /// Pieces that come before it in there.
    begun: Vec<Piece>,
}

impl Place {
    async fn write(&self, inner: &Arc<Inner>, spooled: Spooling) -> Result<(), Fault> {
        let spooled =
            if self.begun.is_empty() { spooled } else { joined(inner, &self.begun, &spooled).await? };
        let target = match &self.multipart {
            None => Target::Object(&self.object),
            Some((id, number)) => Target::Part { object: &self.object, id, number: *number },
        };
        let put = || inner.bucket.put(target, spooled.len, &spooled.sha256, streamed(spooled.bytes()));
        let put = again(put).await;
        if put.as_ref().is_err_and(Fault::is_missing) {
            inner.multiparts.forget(&self.object);
        }
        put
    }
}

/// The pieces, and after them what is spooled.
async fn joined(inner: &Arc<Inner>, begun: &[Piece], last: &Spooling) -> Result<Spooling, Fault> {
    let mut whole = inner.spool.file().await.map_err(Fault::Spool)?;
    for piece in begun {
        let len = piece.end.saturating_sub(piece.start);
        let reading = Reading::open(&inner.bucket, piece.name.clone(), 0..len, None).await?;
        let mut bytes = std::pin::pin!(reading.bytes());
        while let Some(chunk) = bytes.try_next().await? {
            whole.push(chunk).await.map_err(Fault::Spool)?;
        }
    }
    let mut bytes = std::pin::pin!(last.bytes());
    while let Some(chunk) = bytes.next().await {
        let chunk = chunk.map_err(|e| Fault::Spool(std::io::Error::other(e)))?;
        whole.push(chunk).await.map_err(Fault::Spool)?;
    }
    whole.finish().await.map_err(Fault::Spool)
}

/// The pieces that the part with `offset` in it begins with, in order, up to there. Removes those that do not count.
async fn begun(inner: &Inner, object: &str, offset: u64) -> Result<Vec<Piece>, Fault> {
    let start = offset.saturating_sub(offset % PART_SIZE);
    let mut found = Vec::new();
    inner
        .bucket
        .list(&pieces(object), |name, size| {
            if let Some((start, end)) =
                piece_range(object, name).filter(|(start, end)| end.saturating_sub(*start) == size)
            {
                found.push(Piece { name: name.to_owned(), start, end });
            }
        })
        .await?;
    // Beyond the offset: never counted. Before the part: in the part before, which counts.
    let (keep, drop): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|piece| piece.end <= offset && piece.start >= start);
    inner.delete(drop.into_iter().map(|piece| piece.name).collect()).await?;
    let mut chain = Vec::new();
    let mut at = offset;
    while at > start {
        let before = keep.iter().filter(|piece| piece.end == at).min_by_key(|piece| piece.start);
        let before = before.ok_or(Fault::Strange("a piece of the upload is missing"))?;
        at = before.start;
        chain.push(before.clone());
    }
    chain.reverse();
    Ok(chain)
}

fn length(bytes: &Bytes) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
