//! Reads inputs from the broker: one block where the codec jumps, a long range with read-ahead where it goes on.

use crate::attempt::AbortOnDrop;
use crate::attempt::blocks::{BLOCK, BlockId, Blocks};
use crate::attempt::meter::Meters;
use crate::attempt::stop::Stop;
use crate::backoff::{LONGEST_WAIT, Tries};
use crate::broker::{Body, Broker, CallError, Chunks, Grant};
use bytes::{Bytes, BytesMut};
use mpegflow_protocol::failure::FailureCode;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::mpsc;

/// Blocks that a stream fetches ahead of the codec.
const READ_AHEAD: usize = 4;
/// Streams at once: video and audio of a file that interleaves them far apart, and room for a third and a fourth.
const MOST_STREAMS: usize = 4;
/// A stream this many blocks behind a wanted block is read up to it rather than replaced.
const WORTH_SKIPPING: u64 = 4;
/// One range request of a stream. Long enough that requests cost nothing; short enough that one which is thrown away, because
/// the codec jumped, does not make the storage read ahead for nobody.
const STREAM_RANGE: u64 = 64 << 20;
/// Blocks kept for seeks back; at least two for each input, so that interleaved inputs do not drive each other out.
const KEPT_BLOCKS: usize = 8;
/// Blocks asked for that are remembered to tell going on from jumping.
const REMEMBERED: usize = 16;
/// The most that an attempt may fetch: this many times its inputs, and some. A hostile codec that jumps about costs the
/// broker a block for each byte it asks for.
const MOST_FETCHES: u64 = 16;
const FETCH_ALLOWANCE: u64 = 1 << 30;

/// What every fetch of an attempt needs.
#[derive(Debug)]
struct Source<B> {
    broker: Arc<B>,
    grant: Grant,
    sizes: Vec<u64>,
    versions: Vec<OnceLock<String>>,
    meters: Arc<Meters>,
    most_fetched: u64,
    retry_for: Duration,
}

/// The inputs of an attempt, as blocks.
#[derive(Debug)]
pub struct Reader<B: Broker> {
    source: Arc<Source<B>>,
    blocks: Blocks,
    // Most recently used last.
    streams: Vec<Stream>,
    recent: VecDeque<BlockId>,
}

/// A range that is being fetched ahead of the codec.
#[derive(Debug)]
struct Stream {
    next: BlockId,
    blocks: mpsc::Receiver<Result<Bytes, Stop>>,
    _task: AbortOnDrop<()>,
}

impl<B: Broker> Reader<B> {
    /// A reader of inputs of these sizes.
    pub fn new(
        broker: Arc<B>,
        grant: Grant,
        sizes: Vec<u64>,
        meters: Arc<Meters>,
        retry_for: Duration,
    ) -> Self {
        let all = sizes.iter().fold(0u64, |sum, size| sum.saturating_add(*size));
        let inputs = sizes.len();
        let source = Source {
            broker,
            grant,
            versions: sizes.iter().map(|_| OnceLock::new()).collect(),
            sizes,
            meters,
            most_fetched: all.saturating_mul(MOST_FETCHES).saturating_add(FETCH_ALLOWANCE),
            retry_for,
        };
        Self {
            source: Arc::new(source),
            blocks: Blocks::new(KEPT_BLOCKS.max(inputs.saturating_mul(2))),
            streams: Vec::new(),
            recent: VecDeque::with_capacity(REMEMBERED),
        }
    }

    /// Length of an input; `None` where there is none at that position.
    pub fn size(&self, input: u32) -> Option<u64> {
        self.source.size(input)
    }

    /// A block that lies in an input.
    ///
    /// # Errors
    /// It cannot be read any more.
    pub async fn block(&mut self, id: BlockId) -> Result<Bytes, Stop> {
        let went_on = self.note(id);
        if let Some(bytes) = self.blocks.get(id) {
            return Ok(bytes);
        }
        let at = self.streams.iter().position(|s| {
            s.next.input == id.input
                && (s.next.number..=s.next.number.saturating_add(WORTH_SKIPPING)).contains(&id.number)
        });
        let mut stream = match at {
            Some(at) => self.streams.remove(at),
            None if went_on => self.open(id),
            None => {
                let bytes = self.source.fetch_block(id).await?;
                self.blocks.put(id, bytes.clone());
                return Ok(bytes);
            }
        };
        loop {
            let here = stream.next;
            let Some(bytes) = stream.blocks.recv().await else {
                return Err(Stop::fail(FailureCode::WorkerError, "the read-ahead ended early"));
            };
            let bytes = bytes?;
            stream.next = here.next();
            self.blocks.put(here, bytes.clone());
            if here == id {
                self.keep(stream);
                return Ok(bytes);
            }
        }
    }

    // Whether the block before this one was asked for lately. Not only just before: a demuxer that takes video here and audio
    // there goes on in two places by turns.
    fn note(&mut self, id: BlockId) -> bool {
        let went_on = self.recent.iter().any(|recent| recent.next() == id);
        if self.recent.back() != Some(&id) {
            if self.recent.len() >= REMEMBERED {
                self.recent.pop_front();
            }
            self.recent.push_back(id);
        }
        went_on
    }

    fn open(&self, from: BlockId) -> Stream {
        let (sender, blocks) = mpsc::channel(READ_AHEAD);
        let source = Arc::clone(&self.source);
        let task = tokio::spawn(async move { source.stream(from, sender).await });
        Stream { next: from, blocks, _task: AbortOnDrop(task) }
    }

    fn keep(&mut self, stream: Stream) {
        let size = self.source.size(stream.next.input).unwrap_or(0);
        if stream.next.start() >= size {
            return;
        }
        if self.streams.len() >= MOST_STREAMS {
            self.streams.remove(0);
        }
        self.streams.push(stream);
    }
}

impl<B: Broker> Source<B> {
    fn size(&self, input: u32) -> Option<u64> {
        usize::try_from(input).ok().and_then(|at| self.sizes.get(at)).copied()
    }

    async fn fetch_block(&self, id: BlockId) -> Result<Bytes, Stop> {
        let end = id.end(self.size(id.input).unwrap_or(0));
        let (sender, mut receiver) = mpsc::channel(1);
        match self.fetch(id.input, id.start()..end, &sender).await? {
            Flow::Closed => Err(Stop::fail(FailureCode::WorkerError, "a read was abandoned")),
            Flow::Open => match receiver.recv().await {
                Some(block) => block,
                None => Err(Stop::fail(FailureCode::WorkerError, "a read gave no block")),
            },
        }
    }

    async fn stream(&self, from: BlockId, sink: mpsc::Sender<Result<Bytes, Stop>>) {
        let size = self.size(from.input).unwrap_or(0);
        let mut at = from.start();
        while at < size {
            let end = at.saturating_add(STREAM_RANGE).min(size);
            match self.fetch(from.input, at..end, &sink).await {
                Ok(Flow::Open) => at = end,
                Ok(Flow::Closed) => return,
                Err(stop) => {
                    let _ = sink.send(Err(stop)).await;
                    return;
                }
            }
        }
    }

    /// Fetches a range that starts at a block and gives it out block by block, going on where a connection broke.
    async fn fetch(
        &self,
        input: u32,
        range: Range<u64>,
        sink: &mpsc::Sender<Result<Bytes, Stop>>,
    ) -> Result<Flow, Stop> {
        let mut cutter = Cutter { at: range.start, end: range.end, block: BytesMut::new() };
        let mut tries = Tries::new(LONGEST_WAIT, self.retry_for);
        let failed = |e: &CallError| Stop::of_call(e, &format!("reading input {input}"));
        loop {
            let before = cutter.at;
            let error = match self.broker.read(&self.grant, input, cutter.at..range.end).await {
                Ok(body) => match self.pour(input, body, &mut cutter, sink).await {
                    Ok(flow) => return Ok(flow),
                    Err(Broken::Stop(stop)) => return Err(stop),
                    Err(Broken::Call(error)) => error,
                },
                Err(error) => error,
            };
            if cutter.at > before {
                tries.worked();
            }
            if !error.is_transient() || !tries.again().await {
                return Err(failed(&error));
            }
            self.meters.tried_again();
        }
    }

    async fn pour(
        &self,
        input: u32,
        mut body: Body<B::Chunks>,
        cutter: &mut Cutter,
        sink: &mpsc::Sender<Result<Bytes, Stop>>,
    ) -> Result<Flow, Broken> {
        self.same_version(input, &body)?;
        while cutter.at < cutter.end {
            let bytes = match body.chunks.next().await {
                Some(bytes) => bytes?,
                None => return Err(CallError::Unavailable("the body ended early".into()).into()),
            };
            let fetched = self.meters.fetched(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
            if fetched > self.most_fetched {
                let what = "the codec had the input fetched far more often than any reader needs";
                return Err(Stop::fail(FailureCode::ResourceLimit, what).into());
            }
            let mut bytes = bytes;
            while !bytes.is_empty() {
                let Some(block) = cutter.take(&mut bytes)? else { continue };
                if sink.send(Ok(block)).await.is_err() {
                    return Ok(Flow::Closed);
                }
            }
        }
        match body.chunks.next().await {
            None => Ok(Flow::Open),
            Some(Err(error)) => Err(error.into()),
            Some(Ok(_)) => Err(CallError::Malformed("a body longer than its range".into()).into()),
        }
    }

    fn same_version(&self, input: u32, body: &Body<B::Chunks>) -> Result<(), CallError> {
        if self.size(input) != Some(body.total) {
            return Err(CallError::Changed(format!("input {input} is {} bytes long now", body.total)));
        }
        let known = usize::try_from(input).ok().and_then(|at| self.versions.get(at));
        if let (Some(known), Some(version)) = (known, &body.version)
            && known.get_or_init(|| version.clone()) != version
        {
            return Err(CallError::Changed(format!("input {input} is another version now")));
        }
        Ok(())
    }
}

/// Whether anybody still wants what is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Open,
    Closed,
}

#[derive(Debug)]
enum Broken {
    Call(CallError),
    Stop(Stop),
}

impl From<CallError> for Broken {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

impl From<Stop> for Broken {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

/// Cuts bytes that arrive in any lengths into blocks.
#[derive(Debug)]
struct Cutter {
    at: u64,
    end: u64,
    block: BytesMut,
}

impl Cutter {
    // Takes what belongs to the current block, and gives the block once it is whole.
    fn take(&mut self, bytes: &mut Bytes) -> Result<Option<Bytes>, CallError> {
        let block_end = (self.at / BLOCK).saturating_add(1).saturating_mul(BLOCK).min(self.end);
        let room = usize::try_from(block_end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        if room == 0 {
            return Err(CallError::Malformed("a body longer than its range".into()));
        }
        let taken = bytes.split_to(room.min(bytes.len()));
        if self.block.capacity() == 0 {
            self.block.reserve(room);
        }
        self.block.extend_from_slice(&taken);
        self.at = self.at.saturating_add(u64::try_from(taken.len()).unwrap_or(u64::MAX));
        Ok((self.at == block_end).then(|| std::mem::take(&mut self.block).freeze()))
    }
}
