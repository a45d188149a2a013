//! Every body of the worker API, either way, and a canary's report.
#![no_main]
use libfuzzer_sys::fuzz_target;
use mpegflow_protocol::{canary::Report, from_json, limits::MAX_WORKER_BODY, to_json, worker::*};
use serde::{Serialize, de::DeserializeOwned};

fn round<T: Serialize + DeserializeOwned + PartialEq>(bytes: &[u8]) {
    if let Ok(value) = from_json::<T>("message", bytes, MAX_WORKER_BODY) {
        let again = from_json::<T>("message", &to_json(&value), usize::MAX);
        assert!(again.is_ok_and(|again| again == value));
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, body)) = bytes.split_first() else { return };
    match kind % 11 {
        0 => round::<Enroll>(body),
        1 => round::<Renew>(body),
        2 => round::<Enrolled>(body),
        3 => round::<LeaseRequest>(body),
        4 => round::<LeaseReply>(body),
        5 => round::<Heartbeat>(body),
        6 => round::<HeartbeatReply>(body),
        7 => round::<Complete>(body),
        8 => round::<Fail>(body),
        9 => round::<Report>(body),
        _ => round::<JoinFile>(body),
    }
});
