//! Outputs on their way to a broker in memory: how many parts go at once, and that what arrives is what was written.
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
use mpegflow_protocol::limits::PART_SIZE;
use mpegflow_protocol::worker::OutputDigest;
use mpegflow_worker::attempt::meter::Meters;
use mpegflow_worker::attempt::output::{IN_FLIGHT, Uploads};
use mpegflow_worker::attempt::stop::Stop;
use mpegflow_worker::broker::Grant;
use mpegflow_worker::secret::Secret;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

/// Sends a file of so many parts, and half of one.
async fn sent(broker: &Arc<MemoryBroker>, parts: u64) -> Result<OutputDigest, Stop> {
    let grant = Grant { attempt: AttemptId::from_u128(1), capability: Secret::new("the-capability".into()) };
    let uploads =
        Uploads::new(Arc::clone(broker), grant, Arc::new(Meters::default()), Duration::from_secs(5));
    let mut file = tempfile::tempfile().unwrap();
    for part in 0..=parts {
        let size = if part < parts { PART_SIZE } else { PART_SIZE / 2 };
        file.write_all(&vec![u8::try_from(part).unwrap(); usize::try_from(size).unwrap()]).unwrap();
    }
    Arc::new(uploads).file(0, file, u64::MAX).await
}

fn arrived(broker: &MemoryBroker, parts: u64) {
    let state = broker.state();
    for part in 0..=parts {
        let (bytes, _) = &state.parts[&(0, u32::try_from(part).unwrap())];
        assert_eq!(bytes.len() as u64, if part < parts { PART_SIZE } else { PART_SIZE / 2 });
        assert!(bytes.iter().all(|byte| u64::from(*byte) == part), "part {part}");
    }
    assert_eq!(state.parts.len() as u64, parts + 1);
}

#[tokio::test]
async fn parts_go_at_once_but_the_first_alone() {
    let broker = Arc::new(MemoryBroker::with_input(Vec::new()));
    broker.state().put_takes = Duration::from_millis(200);
    let digest = sent(&broker, 7).await.unwrap();
    assert_eq!((digest.size, digest.parts), (PART_SIZE * 15 / 2, 8));
    arrived(&broker, 7);
    let beside = broker.state().beside.clone();
    assert_eq!(beside[..2], [vec![0], vec![1]], "nothing goes beside the first");
    assert_eq!(beside.iter().map(Vec::len).max(), Some(IN_FLIGHT));
}

#[tokio::test]
async fn a_part_that_overtook_at_a_broker_of_the_release_before_is_sent_again_and_a_first_one_is_not() {
    let broker = Arc::new(MemoryBroker::with_input(Vec::new()));
    broker.state().put_conflicts = vec![2, 3, 2];
    sent(&broker, 4).await.unwrap();
    arrived(&broker, 4);
    assert!(broker.state().put_conflicts.is_empty());
    broker.state().put_conflicts = vec![0];
    let stop = sent(&broker, 2).await.unwrap_err();
    assert!(matches!(stop, Stop::Fail(failure) if failure.code == FailureCode::BrokerError));
}
