//! A picture: its structure, its pixels, and the index of a sprite sheet.

use super::{Problems, text};
use crate::ff::decoder::Decoder;
use crate::ff::demux::Demuxer;
use crate::ff::frame::Frame;
use crate::ff::packet::Packet;
use crate::input;
use crate::jpeg;
use crate::source::{self, Inputs};
use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::task::{CheckStill, SpriteIndex};

/// Bytes of one picture.
const MAX_PICTURE: u64 = 32 << 20;

/// Checks one picture.
///
/// # Errors
/// Only where it could not be read.
pub(super) fn check(still: &CheckStill, inputs: &Inputs, problems: &mut Problems) -> Result<(), Failure> {
    let mut media = inputs.get(still.input)?;
    if crate::ff::io::ReadAt::len(&media) > MAX_PICTURE {
        problems.add(&still.uri, "it is too long");
        return Ok(());
    }
    let bytes = input::read_all(&mut media, MAX_PICTURE).map_err(|_| source::storage())?;
    if let Err(what) = jpeg::check(&bytes, still.width, still.height) {
        problems.add(&still.uri, what);
    } else if let Err(what) = decoded(still, inputs)? {
        problems.add(&still.uri, what);
    }
    if let Some((input, index)) = &still.index {
        match text(inputs, *input)?.and_then(|t| cues(&t, &still.uri, index)) {
            Ok(()) => {}
            Err(what) => problems.add(&index.uri, what),
        }
    }
    Ok(())
}

fn decoded(still: &CheckStill, inputs: &Inputs) -> Result<Result<(), String>, Failure> {
    let memory = |e: crate::ff::AvError| Failure::new(FailureCode::OutOfMemory, e.to_string());
    let media = inputs.get(still.input)?;
    let opened = Demuxer::open(Box::new(media), "jpeg_pipe", "none");
    let mut demuxer = match opened {
        Ok(demuxer) => demuxer,
        Err(e) => return Ok(Err(format!("it cannot be read: {e}"))),
    };
    let (mut packet, mut frame) = (Packet::new().map_err(memory)?, Frame::new().map_err(memory)?);
    let mut decoder = match Decoder::open(&demuxer, 0, "mjpeg", 1) {
        Ok(decoder) => decoder,
        Err(e) => return Ok(Err(format!("no decoder: {e}"))),
    };
    decoder.be_strict();
    let mut pictures = 0u32;
    let result: Result<(), String> = (|| {
        let broken = |e: crate::ff::AvError| format!("it cannot be decoded: {e}");
        while demuxer.read(&mut packet).map_err(broken)? {
            decoder.send(Some(&packet)).map_err(broken)?;
            while decoder.receive(&mut frame).map_err(broken)? {
                pictures = pictures.saturating_add(1);
            }
        }
        decoder.send(None).map_err(broken)?;
        while decoder.receive(&mut frame).map_err(broken)? {
            pictures = pictures.saturating_add(1);
        }
        if pictures == 1 { Ok(()) } else { Err(format!("it holds {pictures} pictures")) }
    })();
    if demuxer.read_failed() {
        return Err(source::storage());
    }
    Ok(result)
}

/// Reads an index and holds each cue against the plan: it takes what may be written and nothing else.
fn cues(text: &[u8], sheet: &str, index: &SpriteIndex) -> Result<(), String> {
    let text = std::str::from_utf8(text).map_err(|_| "it is not text".to_owned())?;
    let mut lines = text.split('\n');
    if lines.next() != Some("WEBVTT") {
        return Err("it does not start like WebVTT".into());
    }
    let (mut at, mut tiles) = (0u64, 0u32);
    loop {
        match (lines.next(), lines.next(), lines.next()) {
            (Some(""), Some(times), Some(place)) => {
                let times = times.split_once(" --> ").and_then(|(a, b)| Some((millis(a)?, millis(b)?)));
                let place = place.strip_prefix(sheet).and_then(|p| p.strip_prefix("#xywh="));
                let numbers: Option<Vec<u32>> =
                    place.map(|p| p.split(',').map(|n| n.parse().ok()).collect()).unwrap_or(None);
                let (Some((start, end)), Some([x, y, w, h])) = (times, numbers.as_deref()) else {
                    return Err(format!("cue {tiles} cannot be read"));
                };
                let column = tiles.checked_rem(index.columns).unwrap_or(0).saturating_mul(index.tile_width);
                let row = tiles.checked_div(index.columns).unwrap_or(0).saturating_mul(index.tile_height);
                if start != at
                    || end <= start
                    || (*x, *y) != (column, row)
                    || (*w, *h) != (index.tile_width, index.tile_height)
                {
                    return Err(format!("cue {tiles} is not the planned tile"));
                }
                (at, tiles) = (end, tiles.saturating_add(1));
            }
            // The last line ends with a line break.
            (Some(""), None, None) if tiles == index.tiles => break,
            _ => return Err(format!("it ends badly after {tiles} cues")),
        }
    }
    if at.abs_diff(index.duration_ms) > u64::from(index.interval_ms) {
        return Err(format!("its cues end at {at} ms instead of {}", index.duration_ms));
    }
    Ok(())
}

fn millis(text: &str) -> Option<u64> {
    let (clock, ms) = text.split_once('.').filter(|(_, ms)| ms.len() == 3)?;
    let parts: Vec<u64> = clock.split(':').map(|p| p.parse().ok()).collect::<Option<_>>()?;
    let [h, m, s] = parts.as_slice() else { return None };
    let seconds = h.checked_mul(3_600)?.checked_add(m.checked_mul(60)?)?.checked_add(*s)?;
    seconds.checked_mul(1_000)?.checked_add(ms.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_read_and_one_that_points_elsewhere_is_not() {
        let index = SpriteIndex {
            uri: "s.vtt".into(),
            tile_width: 160,
            tile_height: 90,
            columns: 2,
            tiles: 3,
            interval_ms: 2_000,
            duration_ms: 5_500,
        };
        let good = crate::package::vtt("s.jpg", &index);
        assert_eq!(cues(good.as_bytes(), "s.jpg", &index), Ok(()));
        for (from, to) in [
            ("s.jpg", "http://x/s.jpg"),
            ("160,0,", "161,0,"),
            ("00:00:02.000 --> 00:00:04", "00:00:01.000 --> 00:00:04"),
            ("05.500", "50.500"),
            ("WEBVTT", "WEBVTT\nNOTE x"),
        ] {
            assert!(cues(good.replacen(from, to, 1).as_bytes(), "s.jpg", &index).is_err(), "{from} {to}");
        }
    }
}
