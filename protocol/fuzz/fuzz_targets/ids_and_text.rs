//! Ids and names have one spelling, and cleaned text holds nothing that could fool a terminal.
#![no_main]
use libfuzzer_sys::fuzz_target;
use mpegflow_protocol::{ids::*, text};

fuzz_target!(|input: &str| {
    if let Ok(id) = input.parse::<JobId>() {
        assert_eq!(id.to_string(), input);
    }
    if let Ok(id) = input.parse::<AttemptId>() {
        assert_eq!(id.to_string(), input);
    }
    if let Ok(pool) = input.parse::<PoolName>() {
        assert_eq!(pool.as_str(), input);
        assert!(!input.contains(['/', '.', '%']));
    }
    let clean = text::clean(input, 64);
    assert!(clean.chars().count() <= 64 && !clean.chars().any(char::is_control));
    assert_eq!(text::clean(&clean, 64), clean);
});
