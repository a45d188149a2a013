//! A tenant's job spec: any bytes give a spec or an error, and a spec survives being written and read again.
#![no_main]
use libfuzzer_sys::fuzz_target;
use mpegflow_protocol::{job::JobSpec, to_json};

fuzz_target!(|bytes: &[u8]| {
    match JobSpec::parse(bytes) {
        Ok(spec) => assert_eq!(JobSpec::parse(&to_json(&spec)).as_ref(), Ok(&spec)),
        Err(error) => assert!(!error.to_string().chars().any(char::is_control)),
    }
});
