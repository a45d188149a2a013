//! Answers the codec's reads. It cannot exist before the locks were seen to hold: it is made from a [`VerifiedInput`].

use crate::attempt::blocks::BlockId;
use crate::attempt::lock::VerifiedInput;
use crate::attempt::meter::Meters;
use crate::attempt::reader::Reader;
use crate::attempt::stop::Stop;
use crate::broker::Broker;
use bytes::Bytes;
use mpegflow_protocol::codec::{ReadReply, ReadRequest};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// The server of one codec process's reads.
#[derive(Debug)]
pub struct InputServer<B: Broker> {
    socket: UnixStream,
    reader: Reader<B>,
    meters: Arc<Meters>,
}

impl<B: Broker> InputServer<B> {
    /// A server that has not read a request yet.
    pub fn new(input: VerifiedInput, reader: Reader<B>, meters: Arc<Meters>) -> Self {
        Self { socket: input.into_stream(), reader, meters }
    }

    /// Answers reads until the codec closes its end.
    ///
    /// # Errors
    /// A request that no honest codec makes, or an input that cannot be read any more.
    pub async fn serve(mut self) -> Result<(), Stop> {
        loop {
            let mut request = [0; ReadRequest::LEN];
            if self.socket.read_exact(&mut request).await.is_err() {
                // Closed, or dead in the middle of a request: its exit says which.
                return Ok(());
            }
            let request = ReadRequest::decode(request).map_err(|e| Stop::violation(e.to_string()))?;
            let Some(size) = self.reader.size(request.input.into()) else {
                return Err(Stop::violation(format!(
                    "the codec read input {}, which does not exist",
                    request.input
                )));
            };
            // No `Gone` where it fails: the codec is killed at once, and what it would say of it could only be another cause.
            let pieces = self.pieces(request, size).await?;
            let len = pieces.iter().map(Bytes::len).fold(0usize, usize::saturating_add);
            let len = u32::try_from(len).unwrap_or(u32::MAX);
            self.meters.fed(len.into());
            if self.answer(len, &pieces).await.is_err() {
                return Ok(());
            }
        }
    }

    async fn answer(&mut self, len: u32, pieces: &[Bytes]) -> std::io::Result<()> {
        self.socket.write_all(&ReadReply::Bytes(len).encode()).await?;
        for piece in pieces {
            self.socket.write_all(piece).await?;
        }
        Ok(())
    }

    /// The bytes of a request, cut at the end of the input; nothing where it starts beyond.
    async fn pieces(&mut self, request: ReadRequest, size: u64) -> Result<Vec<Bytes>, Stop> {
        let input = u32::from(request.input);
        let end = request.offset.saturating_add(request.len.into()).min(size);
        let mut at = request.offset;
        let mut pieces = Vec::with_capacity(2);
        while at < end {
            let id = BlockId::at(input, at);
            let block = self.reader.block(id).await?;
            let until = id.end(size).min(end);
            let slice =
                |offset: u64| usize::try_from(offset.saturating_sub(id.start())).unwrap_or(usize::MAX);
            let (from, to) = (slice(at), slice(until));
            if to > block.len() || from >= to {
                return Err(Stop::fail(
                    mpegflow_protocol::failure::FailureCode::WorkerError,
                    "a block is shorter than it should be",
                ));
            }
            pieces.push(block.slice(from..to));
            at = until;
        }
        Ok(pieces)
    }
}
