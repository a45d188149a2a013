//! What a hostile codec says of a file: held to the limits or refused, and bounding it twice changes nothing.
#![no_main]
use libfuzzer_sys::fuzz_target;
use mpegflow_protocol::{from_json, limits, media::MediaInfo};

fuzz_target!(|bytes: &[u8]| {
    let Ok(media) = from_json::<MediaInfo>("media", bytes, limits::MAX_CONTROL_FRAME) else { return };
    let size = media.size;
    if let Ok(bounded) = media.bounded(size) {
        assert!(bounded.streams.len() <= limits::MAX_STREAMS && bounded.tags.len() <= 64);
        let video = bounded.streams.iter().filter_map(|s| s.video());
        assert!(video.into_iter().all(|v| v.width <= limits::MAX_FRAME_SIDE && v.height <= limits::MAX_FRAME_SIDE));
        assert_eq!(bounded.clone().bounded(size), Ok(bounded));
    }
});
