//! Read requests and replies: whatever is accepted has exactly one spelling.
#![no_main]
use libfuzzer_sys::fuzz_target;
use mpegflow_protocol::codec::{ReadReply, ReadRequest};

fuzz_target!(|bytes: ([u8; ReadRequest::LEN], [u8; ReadReply::LEN])| {
    if let Ok(request) = ReadRequest::decode(bytes.0) {
        assert_eq!(request.encode(), bytes.0);
    }
    if let Ok(reply) = ReadReply::decode(bytes.1) {
        assert_eq!(reply.encode(), bytes.1);
    }
});
