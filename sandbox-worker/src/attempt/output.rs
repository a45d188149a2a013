//! Takes an output from the codec, cuts it into parts, and sends several up while the next is filled: the first alone, since it opens
//! what the others go to.
//!
//! Memory: each output fills one part at a time, and all outputs together have at most [`IN_FLIGHT`] parts on their way. An
//! output whose full part finds no place stops reading, its pipe fills up, and the codec waits.

use crate::attempt::AbortOnDrop;
use crate::attempt::meter::Meters;
use crate::attempt::stop::Stop;
use crate::backoff::{LONGEST_WAIT, Tries};
use crate::broker::{Broker, CallError, Grant};
use aws_lc_rs::digest::{Context, SHA256};
use bytes::{Bytes, BytesMut};
use mpegflow_protocol::failure::FailureCode;
use mpegflow_protocol::limits::{MAX_PARTS, PART_SIZE, PARTS_AT_ONCE};
use mpegflow_protocol::worker::OutputDigest;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::Semaphore;

/// Parts of one attempt that are on their way at once.
pub const IN_FLIGHT: usize = 3;
/// The first allocation for a part; playlists never need more, media doubles it a few times.
const FIRST_BUFFER: usize = 64 << 10;
/// The answer to a part that does not follow those that are there.
const CONFLICT: u16 = 409;
/// One read of a pipe.
const READ: usize = 256 << 10;

/// What the outputs of an attempt share.
#[derive(Debug)]
pub struct Uploads<B> {
    broker: Arc<B>,
    grant: Grant,
    meters: Arc<Meters>,
    places: Arc<Semaphore>,
    retry_for: Duration,
}

impl<B: Broker> Uploads<B> {
    /// For one attempt.
    pub fn new(broker: Arc<B>, grant: Grant, meters: Arc<Meters>, retry_for: Duration) -> Self {
        Self { broker, grant, meters, places: Arc::new(Semaphore::new(IN_FLIGHT)), retry_for }
    }

    /// Reads a pipe to its end and sends it up.
    ///
    /// # Errors
    /// More than `max_bytes` came, or a part could not be sent.
    pub async fn stream(
        self: Arc<Self>,
        output: u32,
        mut pipe: pipe::Receiver,
        max_bytes: u64,
    ) -> Result<OutputDigest, Stop> {
        let mut object = Object::new(self, output, max_bytes);
        loop {
            let read = pipe.read_buf(&mut object.room()).await;
            let read =
                read.map_err(|e| Stop::fail(FailureCode::WorkerError, format!("output {output}: {e}")))?;
            if read == 0 {
                return object.finish().await;
            }
            object.took(read).await?;
        }
    }

    /// Sends up a file that the codec has left. The codec is gone, so the file is still.
    ///
    /// # Errors
    /// It is longer than `max_bytes`, cannot be read, or a part could not be sent.
    pub async fn file(
        self: Arc<Self>,
        output: u32,
        file: File,
        max_bytes: u64,
    ) -> Result<OutputDigest, Stop> {
        let unreadable =
            |e: std::io::Error| Stop::fail(FailureCode::WorkerError, format!("output {output}: {e}"));
        let size = file.metadata().map_err(unreadable)?.len();
        if size > max_bytes {
            return Err(too_long(output, max_bytes));
        }
        let mut object = Object::new(self, output, max_bytes);
        let file = Arc::new(file);
        let mut at = 0u64;
        while at < size {
            let want = size.saturating_sub(at).min(u64::try_from(READ).unwrap_or(u64::MAX));
            let source = Arc::clone(&file);
            let piece = tokio::task::spawn_blocking(move || {
                let mut piece = vec![0; usize::try_from(want).unwrap_or(0)];
                source.read_exact_at(&mut piece, at).map(|()| piece)
            });
            let piece = piece.await.map_err(|e| unreadable(e.into()))?.map_err(unreadable)?;
            at = at.saturating_add(want);
            object.write(&piece).await?;
        }
        object.finish().await
    }

    async fn send(&self, output: u32, number: u32, bytes: Bytes, digest: &str) -> Result<(), Stop> {
        let mut tries = Tries::new(LONGEST_WAIT, self.retry_for);
        let began = Instant::now();
        loop {
            let error = match self.broker.put_part(&self.grant, output, number, bytes.clone(), digest).await {
                Ok(()) => {
                    self.meters.sent(began, u64::try_from(bytes.len()).unwrap_or(u64::MAX));
                    return Ok(());
                }
                Err(error) => error,
            };
            // A broker of the release before takes a part only after all those before it.
            let overtook = number > 0 && matches!(error, CallError::Refused { status: CONFLICT, .. });
            if !(error.is_transient() || overtook) || !tries.again().await {
                return Err(Stop::of_call(&error, &format!("sending part {number} of output {output}")));
            }
            self.meters.tried_again();
            tracing::debug!(output, part = number, %error, "a part is sent again");
        }
    }
}

/// One output on its way.
struct Object<B> {
    uploads: Arc<Uploads<B>>,
    output: u32,
    max_bytes: u64,
    part: BytesMut,
    hasher: Context,
    // Over the parts' digests.
    all: Context,
    size: u64,
    parts: u32,
    /// In the order of their numbers.
    sending: VecDeque<Sending>,
}

/// A part on its way.
type Sending = AbortOnDrop<Result<(), Stop>>;

impl<B: Broker> Object<B> {
    fn new(uploads: Arc<Uploads<B>>, output: u32, max_bytes: u64) -> Self {
        Self {
            uploads,
            output,
            max_bytes,
            part: BytesMut::new(),
            hasher: Context::new(&SHA256),
            all: Context::new(&SHA256),
            size: 0,
            parts: 0,
            sending: VecDeque::new(),
        }
    }

    /// The part with room for one read, and for no byte beyond a full part.
    fn room(&mut self) -> bytes::buf::Limit<&mut BytesMut> {
        let part_size = usize::try_from(PART_SIZE).unwrap_or(usize::MAX);
        let want = part_size.saturating_sub(self.part.len()).min(READ);
        if self.part.capacity().saturating_sub(self.part.len()) < want.min(FIRST_BUFFER) {
            let grown = self.part.capacity().saturating_mul(2).clamp(FIRST_BUFFER, part_size);
            self.part.reserve(grown.saturating_sub(self.part.len()).max(want.min(FIRST_BUFFER)));
        }
        let free = self.part.capacity().saturating_sub(self.part.len());
        bytes::BufMut::limit(&mut self.part, want.min(free))
    }

    /// Takes note of bytes that a read put into the part.
    async fn took(&mut self, read: usize) -> Result<(), Stop> {
        let fresh = self.part.len().saturating_sub(read);
        self.hasher.update(self.part.get(fresh..).unwrap_or_default());
        let read = u64::try_from(read).unwrap_or(u64::MAX);
        self.size = self.size.saturating_add(read);
        self.uploads.meters.took(read);
        if self.size > self.max_bytes {
            return Err(too_long(self.output, self.max_bytes));
        }
        if u64::try_from(self.part.len()).is_ok_and(|len| len >= PART_SIZE) {
            self.send_part().await?;
        }
        Ok(())
    }

    async fn write(&mut self, mut piece: &[u8]) -> Result<(), Stop> {
        while !piece.is_empty() {
            let mut room = self.room();
            let fits = bytes::BufMut::remaining_mut(&room).min(piece.len());
            let (now, later) = piece.split_at(fits);
            bytes::BufMut::put_slice(&mut room, now);
            piece = later;
            self.took(fits).await?;
        }
        Ok(())
    }

    /// Hands the part over, once those that it may not overtake are through.
    async fn send_part(&mut self) -> Result<(), Stop> {
        let at_once = if self.parts == 1 { 1 } else { PARTS_AT_ONCE };
        self.wait_for_all_but(at_once.saturating_sub(1)).await?;
        if self.parts >= MAX_PARTS {
            return Err(too_long(self.output, self.max_bytes));
        }
        let digest = std::mem::replace(&mut self.hasher, Context::new(&SHA256)).finish();
        self.all.update(digest.as_ref());
        let digest = hex(digest.as_ref());
        let bytes = std::mem::take(&mut self.part).freeze();
        let (uploads, output, number) = (Arc::clone(&self.uploads), self.output, self.parts);
        self.parts = self.parts.saturating_add(1);
        let place = Arc::clone(&self.uploads.places).acquire_owned().await;
        let place = place.map_err(|e| Stop::fail(FailureCode::WorkerError, e.to_string()))?;
        self.sending.push_back(AbortOnDrop(tokio::spawn(async move {
            let _place = place;
            uploads.send(output, number, bytes, &digest).await
        })));
        Ok(())
    }

    /// Waits until no more than so many parts are on their way.
    async fn wait_for_all_but(&mut self, some: u32) -> Result<(), Stop> {
        while u32::try_from(self.sending.len()).is_ok_and(|sending| sending > some) {
            if let Some(first) = self.sending.pop_front() {
                first.join().await?;
            }
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<OutputDigest, Stop> {
        if !self.part.is_empty() {
            self.send_part().await?;
        }
        self.wait_for_all_but(0).await?;
        Ok(OutputDigest { size: self.size, parts: self.parts, digest: hex(self.all.finish().as_ref()) })
    }
}

fn too_long(output: u32, max_bytes: u64) -> Stop {
    Stop::fail(FailureCode::ResourceLimit, format!("output {output} has more than its {max_bytes} bytes"))
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().saturating_mul(2));
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
