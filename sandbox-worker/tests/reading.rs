//! The block reader against a broker in memory: what it asks for, and that the bytes are right.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "test helpers"
)]

mod common;

use common::MemoryBroker;
use mpegflow_protocol::failure::FailureCode;
use mpegflow_protocol::ids::AttemptId;
use mpegflow_worker::attempt::blocks::{BLOCK, BlockId};
use mpegflow_worker::attempt::meter::Meters;
use mpegflow_worker::attempt::reader::Reader;
use mpegflow_worker::attempt::stop::Stop;
use mpegflow_worker::broker::{CallError, Grant};
use mpegflow_worker::secret::Secret;
use std::sync::Arc;
use std::time::Duration;

const MIB: usize = 1 << 20;

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from((i ^ (i >> 8) ^ (i >> 16)) & 0xff).unwrap()).collect()
}

fn reader(broker: &Arc<MemoryBroker>) -> Reader<MemoryBroker> {
    let sizes = broker.state().inputs.iter().map(|i| u64::try_from(i.len()).unwrap()).collect();
    let grant = Grant { attempt: AttemptId::from_u128(1), capability: Secret::new("the-capability".into()) };
    Reader::new(Arc::clone(broker), grant, sizes, Arc::new(Meters::default()), Duration::from_secs(5))
}

async fn block(reader: &mut Reader<MemoryBroker>, number: u64) -> Result<bytes::Bytes, Stop> {
    reader.block(BlockId { input: 0, number }).await
}

#[tokio::test]
async fn reading_on_costs_two_requests_and_gives_every_byte() {
    let data = pattern(10 * MIB + 12_345);
    let broker = Arc::new(MemoryBroker::with_input(data.clone()));
    let mut reader = reader(&broker);
    let mut all = Vec::new();
    for number in 0..11 {
        all.extend_from_slice(&block(&mut reader, number).await.unwrap());
    }
    assert!(all == data);
    assert_eq!(broker.state().reads, [(0, 0..BLOCK), (0, BLOCK..u64::try_from(data.len()).unwrap())]);
}

#[tokio::test]
async fn jumps_fetch_single_blocks_and_a_block_that_is_kept_is_not_fetched_again() {
    let data = pattern(20 * MIB);
    let broker = Arc::new(MemoryBroker::with_input(data));
    let mut reader = reader(&broker);
    for number in [0, 19, 0, 19, 7, 19, 0] {
        let start = usize::try_from(number * BLOCK).unwrap();
        let bytes = block(&mut reader, number).await.unwrap();
        assert!(bytes == broker.state().inputs[0].slice(start..start + MIB));
    }
    assert_eq!(broker.state().reads, [(0, 0..BLOCK), (0, 19 * BLOCK..20 * BLOCK), (0, 7 * BLOCK..8 * BLOCK)]);
}

#[tokio::test]
async fn two_places_that_are_read_in_turns_each_get_one_long_range() {
    let broker = Arc::new(MemoryBroker::with_input(pattern(24 * MIB)));
    let mut reader = reader(&broker);
    for step in 0..10 {
        block(&mut reader, step).await.unwrap();
        block(&mut reader, 12 + step).await.unwrap();
    }
    let reads = broker.state().reads.len();
    assert!(reads <= 4, "{reads} requests");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_taken_up_where_it_broke() {
    let data = pattern(6 * MIB);
    let broker = Arc::new(MemoryBroker::with_input(data.clone()));
    broker.state().break_after = Some(300_000);
    broker.state().breaks_left = 5;
    let mut reader = reader(&broker);
    let mut all = Vec::new();
    for number in 0..6 {
        all.extend_from_slice(&block(&mut reader, number).await.unwrap());
    }
    assert!(all == data);
}

#[tokio::test]
async fn an_input_that_is_not_what_the_lease_says_fails_as_changed() {
    let broker = Arc::new(MemoryBroker::with_input(pattern(MIB)));
    broker.state().claimed_total = Some(7);
    let failed = block(&mut reader(&broker), 0).await;
    assert!(matches!(failed, Err(Stop::Fail(f)) if f.code == FailureCode::InputChanged));
    broker.state().read_errors.push_back(CallError::Changed("404".into()));
    let failed = block(&mut reader(&broker), 0).await;
    assert!(matches!(failed, Err(Stop::Fail(f)) if f.code == FailureCode::InputChanged));
    broker.state().read_errors.push_back(CallError::LeaseLost);
    assert_eq!(block(&mut reader(&broker), 0).await, Err(Stop::LeaseLost));
}
