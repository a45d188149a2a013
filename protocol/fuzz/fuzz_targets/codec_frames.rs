//! Control frames, as a hostile codec (or a confused supervisor) may send them.
#![no_main]
use libfuzzer_sys::fuzz_target;
use mpegflow_protocol::codec::{FromCodec, HEADER_LEN, ToCodec, decode_header};

fuzz_target!(|bytes: &[u8]| {
    let Some((header, payload)) = bytes.split_first_chunk::<HEADER_LEN>() else { return };
    let _ = decode_header(*header);
    let kind = header[4];
    if let Ok(frame) = FromCodec::decode(kind, payload) {
        let wire = frame.encode();
        assert_eq!(FromCodec::decode(wire[4], &wire[HEADER_LEN..]).as_ref(), Ok(&frame));
    }
    if let Ok(frame) = ToCodec::decode(kind, payload) {
        let wire = frame.encode();
        assert_eq!(ToCodec::decode(wire[4], &wire[HEADER_LEN..]).as_ref(), Ok(&frame));
    }
});
