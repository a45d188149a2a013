//! Inputs over the input socket: requests of whole blocks, and a few blocks kept.

use crate::ff::fds::Descriptor;
use crate::ff::io::ReadAt;
use mpegflow_protocol::codec::{ReadReply, ReadRequest};
use mpegflow_protocol::limits;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of one request: large, since each may be a trip to the broker.
const BLOCK: u64 = 512 << 10;
/// Blocks kept of each input: containers that are badly interleaved jump between a few places.
const KEPT: usize = 8;
const _: () = assert!(BLOCK <= limits::MAX_INPUT_READ as u64);

/// The socket, shared by all inputs: one request and its answer at a time.
#[derive(Clone)]
pub(crate) struct InputSocket(Arc<Mutex<Descriptor>>);

impl InputSocket {
    /// Takes the socket over.
    pub(crate) fn new(socket: Descriptor) -> Self {
        Self(Arc::new(Mutex::new(socket)))
    }

    fn fetch(&self, input: u8, offset: u64, len: u32) -> io::Result<Vec<u8>> {
        let mut socket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        socket.write_all(&ReadRequest { input, len, offset }.encode())?;
        let mut header = [0; ReadReply::LEN];
        socket.read_exact(&mut header)?;
        match ReadReply::decode(header).map_err(io::Error::other)? {
            ReadReply::Bytes(n) if n <= len => {
                let mut bytes = vec![0; usize::try_from(n).unwrap_or(0)];
                socket.read_exact(&mut bytes)?;
                Ok(bytes)
            }
            ReadReply::Bytes(_) => Err(io::Error::other("more bytes came than were asked for")),
            ReadReply::Gone => Err(io::Error::other("the input is gone")),
        }
    }
}

/// One input.
pub(crate) struct Input {
    socket: InputSocket,
    number: u8,
    len: u64,
    block: u64,
    // Most recently used first.
    blocks: VecDeque<(u64, Vec<u8>)>,
}

impl Input {
    /// Input `number` of `len` bytes.
    pub(crate) fn new(socket: InputSocket, number: u8, len: u64) -> Self {
        Self { socket, number, len, block: BLOCK, blocks: VecDeque::with_capacity(KEPT) }
    }

    /// The same for a reader that only looks at headers far apart.
    #[must_use]
    pub(crate) fn small_reads(mut self) -> Self {
        self.block = 4 << 10;
        self.blocks.clear();
        self
    }

    fn block(&mut self, index: u64) -> io::Result<&[u8]> {
        if let Some(at) = self.blocks.iter().position(|(i, _)| *i == index) {
            if at > 0
                && let Some(found) = self.blocks.remove(at)
            {
                self.blocks.push_front(found);
            }
        } else {
            let offset = index.saturating_mul(self.block);
            let len = self.len.saturating_sub(offset).min(self.block);
            let bytes = self.socket.fetch(self.number, offset, u32::try_from(len).unwrap_or(0))?;
            if bytes.len() as u64 != len {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            self.blocks.truncate(KEPT.saturating_sub(1));
            self.blocks.push_front((index, bytes));
        }
        Ok(self.blocks.front().map_or(&[], |(_, bytes)| bytes))
    }
}

impl ReadAt for Input {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        if offset >= self.len || buf.is_empty() {
            return Ok(0);
        }
        let skip = usize::try_from(offset.checked_rem(self.block).unwrap_or(0)).unwrap_or(0);
        let block = self.block(offset.checked_div(self.block).unwrap_or(0))?;
        let rest = block.get(skip..).unwrap_or(&[]);
        let n = rest.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..n), rest.get(..n)) {
            to.copy_from_slice(from);
        }
        Ok(n)
    }

    fn len(&self) -> u64 {
        self.len
    }
}

/// Reads a whole input of at most `max` bytes.
///
/// # Errors
/// A longer input, or the socket's.
pub(crate) fn read_all(input: &mut dyn ReadAt, max: u64) -> io::Result<Vec<u8>> {
    if input.len() > max {
        return Err(io::Error::other(format!("{} bytes; at most {max} are read", input.len())));
    }
    let mut out = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match input.read_at(out.len() as u64, &mut buffer)? {
            0 => return Ok(out),
            n => out.extend_from_slice(buffer.get(..n).unwrap_or(&[])),
        }
    }
}
