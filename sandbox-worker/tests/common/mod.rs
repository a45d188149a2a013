//! A broker in memory, for tests of attempts and of the lease loop.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use bytes::Bytes;
use mpegflow_protocol::codec::{OutputKind, ProcessLimits};
use mpegflow_protocol::ids::AttemptId;
use mpegflow_protocol::job::DecoderSet;
use mpegflow_protocol::task::{EncodeTask, TaskSpec};
use mpegflow_protocol::worker::{
    Complete, Fail, Heartbeat, HeartbeatReply, InputSlot, Lease, LeaseReply, OutputSlot,
};
use mpegflow_worker::broker::{Body, Broker, CallError, Chunks, Grant};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Mutex;
use std::time::Duration;

/// What a broker was told, and how it is to answer.
#[derive(Debug, Default)]
pub struct State {
    pub inputs: Vec<Bytes>,
    /// Leases to hand out; then idle.
    pub leases: VecDeque<LeaseReply>,
    pub reads: Vec<(u32, Range<u64>)>,
    pub parts: BTreeMap<(u32, u32), (Bytes, String)>,
    /// Parts that are refused with 409 the next time they come.
    pub put_conflicts: Vec<u32>,
    /// How long the storing of a part takes.
    pub put_takes: Duration,
    /// Parts that are being stored, and those that were beside each when it came, itself included.
    pub putting: Vec<u32>,
    pub beside: Vec<Vec<u32>>,
    pub beats: Vec<Heartbeat>,
    pub completed: Vec<Complete>,
    pub failed: Vec<Fail>,
    pub released: u32,
    /// Errors that the next calls of a kind get.
    pub read_errors: VecDeque<CallError>,
    pub put_errors: VecDeque<CallError>,
    pub complete_errors: VecDeque<CallError>,
    /// Every heartbeat gets this, if set.
    pub beat_error: Option<CallError>,
    /// It is of a version that has no spans and counts in heartbeats.
    pub knows_no_spans: bool,
    pub cancel: bool,
    pub drain: bool,
    pub lease_ms: u32,
    /// What is claimed of an input's length, if not the truth.
    pub claimed_total: Option<u64>,
    /// A body breaks off after this many bytes, this many times.
    pub break_after: Option<u64>,
    pub breaks_left: u32,
}

#[derive(Debug, Default)]
pub struct MemoryBroker(pub Mutex<State>);

impl MemoryBroker {
    pub fn with_input(input: Vec<u8>) -> Self {
        Self(Mutex::new(State { inputs: vec![input.into()], lease_ms: 60_000, ..State::default() }))
    }

    pub fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// An output as it was put together from its parts.
    pub fn output(&self, output: u32) -> Vec<u8> {
        let state = self.state();
        state
            .parts
            .range((output, 0)..=(output, u32::MAX))
            .flat_map(|(_, (bytes, _))| bytes.to_vec())
            .collect()
    }

    /// A lease of a task with these outputs over the inputs here.
    pub fn lease(&self, outputs: &[(OutputKind, u64)]) -> Lease {
        let state = self.state();
        Lease {
            attempt: AttemptId::from_u128(1),
            capability: "the-capability".into(),
            lease_ms: state.lease_ms,
            banned: Vec::new(),
            traced: false,
            task: TaskSpec::Encode(EncodeTask {
                decoders: DecoderSet::Core,
                segment_ms: 4000,
                video: None,
                audio: vec![],
                expected_duration_ms: None,
                partial: false,
                timeline: None,
                chunk: None,
            }),
            inputs: state
                .inputs
                .iter()
                .map(|input| InputSlot { size: u64::try_from(input.len()).unwrap() })
                .collect(),
            outputs: outputs
                .iter()
                .map(|(kind, max_bytes)| OutputSlot { kind: *kind, max_bytes: *max_bytes })
                .collect(),
            limits: ProcessLimits {
                address_space: 2 << 30,
                cpu_seconds: 60,
                file_size: 1 << 30,
                single_allocation: 1 << 30,
            },
            threads: 1,
            deadline_ms: 60_000,
        }
    }
}

#[derive(Debug)]
pub struct MemoryChunks(VecDeque<Result<Bytes, CallError>>);

impl Chunks for MemoryChunks {
    async fn next(&mut self) -> Option<Result<Bytes, CallError>> {
        self.0.pop_front()
    }
}

impl Broker for MemoryBroker {
    type Chunks = MemoryChunks;

    async fn lease(&self, wait: Duration) -> Result<LeaseReply, CallError> {
        let next = self.state().leases.pop_front();
        match next {
            Some(reply) => Ok(reply),
            None => {
                tokio::time::sleep(wait).await;
                Ok(self.state().leases.pop_front().unwrap_or(LeaseReply::Idle {}))
            }
        }
    }

    async fn read(
        &self,
        grant: &Grant,
        input: u32,
        range: Range<u64>,
    ) -> Result<Body<MemoryChunks>, CallError> {
        assert_eq!(grant.capability.expose(), "the-capability");
        let mut state = self.state();
        if let Some(error) = state.read_errors.pop_front() {
            return Err(error);
        }
        state.reads.push((input, range.clone()));
        let bytes = state.inputs[usize::try_from(input).unwrap()].clone();
        let total = state.claimed_total.unwrap_or(u64::try_from(bytes.len()).unwrap());
        let slice = bytes.slice(usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap());
        // Odd lengths, as a network gives them.
        let mut chunks: VecDeque<_> = slice.chunks(65_521).map(|c| Ok(slice.slice_ref(c))).collect();
        if let Some(after) = state.break_after
            && state.breaks_left > 0
        {
            state.breaks_left -= 1;
            chunks.truncate(usize::try_from(after / 65_521).unwrap());
            chunks.push_back(Err(CallError::Unavailable("broken off".into())));
        }
        Ok(Body { total, version: Some("v1".into()), chunks: MemoryChunks(chunks) })
    }

    async fn put_part(
        &self,
        _grant: &Grant,
        output: u32,
        part: u32,
        bytes: Bytes,
        digest: &str,
    ) -> Result<(), CallError> {
        let takes = {
            let mut state = self.state();
            if let Some(error) = state.put_errors.pop_front() {
                return Err(error);
            }
            if let Some(at) = state.put_conflicts.iter().position(|other| *other == part) {
                state.put_conflicts.remove(at);
                return Err(CallError::Refused { status: 409, detail: "that does not follow".into() });
            }
            state.putting.push(part);
            let beside = state.putting.clone();
            state.beside.push(beside);
            state.put_takes
        };
        tokio::time::sleep(takes).await;
        let mut state = self.state();
        state.putting.retain(|other| *other != part);
        state.parts.insert((output, part), (bytes, digest.into()));
        Ok(())
    }

    async fn heartbeat(&self, _grant: &Grant, beat: &Heartbeat) -> Result<HeartbeatReply, CallError> {
        let mut state = self.state();
        if let Some(error) = &state.beat_error {
            return Err(error.clone());
        }
        if state.knows_no_spans && !(beat.spans.is_empty() && beat.counts.is_empty()) {
            return Err(CallError::Refused { status: 422, detail: "unknown field".into() });
        }
        state.beats.push(beat.clone());
        Ok(HeartbeatReply { lease_ms: state.lease_ms, cancel: state.cancel, drain: state.drain })
    }

    async fn complete(&self, _grant: &Grant, complete: &Complete) -> Result<(), CallError> {
        let mut state = self.state();
        if let Some(error) = state.complete_errors.pop_front() {
            return Err(error);
        }
        state.completed.push(complete.clone());
        Ok(())
    }

    async fn fail(&self, _grant: &Grant, fail: &Fail) -> Result<(), CallError> {
        self.state().failed.push(fail.clone());
        Ok(())
    }

    async fn release(&self, _grant: &Grant) -> Result<(), CallError> {
        self.state().released += 1;
        Ok(())
    }
}
