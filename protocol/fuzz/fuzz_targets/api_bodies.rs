//! Bodies of the public API that the broker and the command line parse.
#![no_main]
use libfuzzer_sys::fuzz_target;
use mpegflow_protocol::{api::*, from_json, intake::CreateRule, limits::MAX_API_BODY, to_json};

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, body)) = bytes.split_first() else { return };
    match kind % 5 {
        0 => drop(from_json::<CreateUpload>("upload", body, MAX_API_BODY).map(|v| to_json(&v))),
        1 => drop(from_json::<Job>("job", body, MAX_API_BODY).map(|v| to_json(&v))),
        2 => drop(from_json::<Event>("event", body, MAX_API_BODY).map(|v| to_json(&v))),
        3 => drop(from_json::<CreateRule>("rule", body, MAX_API_BODY).map(|v| v.check().map(|spec| to_json(&spec)))),
        _ => drop(from_json::<Problem>("problem", body, MAX_API_BODY).map(|v| to_json(&v))),
    }
});
