//! Pictures: looked through, and copied; and the index of a sprite sheet.

use crate::input;
use crate::jpeg;
use crate::output::Outputs;
use crate::source::{self, Inputs};
use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::task::{PackageStill, SpriteIndex};
use std::fmt::Write as _;

/// Bytes of one picture.
const MAX_PICTURE: u64 = 32 << 20;

/// Writes a picture, and its index where it has one.
///
/// # Errors
/// [`FailureCode::OutputRejected`] where the input is not the JPEG that was planned.
pub(super) fn package(plan: &PackageStill, inputs: &Inputs, outputs: &mut Outputs) -> Result<(), Failure> {
    let mut source = inputs.get(plan.input)?;
    let reject = |what: String| Failure::new(FailureCode::OutputRejected, format!("{}: {what}", plan.uri));
    let length = crate::ff::io::ReadAt::len(&source);
    if length > MAX_PICTURE {
        return Err(reject(format!("it has {length} bytes")));
    }
    let bytes = input::read_all(&mut source, MAX_PICTURE).map_err(|_| source::storage())?;
    jpeg::check(&bytes, plan.width, plan.height).map_err(reject)?;
    outputs.take(plan.output)?.append(&bytes)?;
    if let Some((output, index)) = &plan.index {
        outputs.take(*output)?.append(vtt(&plan.uri, index).as_bytes())?;
    }
    Ok(())
}

/// The WebVTT of a sprite sheet, as players read it: for each moment a region of the sheet (W3C Media Fragments).
pub(crate) fn vtt(sheet: &str, index: &SpriteIndex) -> String {
    let mut out = String::from("WEBVTT\n");
    for tile in 0..index.tiles {
        let start = u64::from(tile).saturating_mul(u64::from(index.interval_ms));
        let end = start
            .saturating_add(u64::from(index.interval_ms))
            .min(index.duration_ms)
            .max(start.saturating_add(1));
        let column = tile.checked_rem(index.columns).unwrap_or(0);
        let row = tile.checked_div(index.columns).unwrap_or(0);
        // Writing to a string cannot fail.
        let _ = write!(
            out,
            "\n{} --> {}\n{sheet}#xywh={},{},{},{}\n",
            clock(start),
            clock(end),
            column.saturating_mul(index.tile_width),
            row.saturating_mul(index.tile_height),
            index.tile_width,
            index.tile_height
        );
    }
    out
}

fn clock(ms: u64) -> String {
    format!("{:02}:{:02}:{:02}.{:03}", ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60, ms % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_names_a_region_for_each_moment_until_the_end() {
        let index = SpriteIndex {
            uri: "sprites.vtt".into(),
            tile_width: 160,
            tile_height: 90,
            columns: 2,
            tiles: 3,
            interval_ms: 2_000,
            duration_ms: 5_500,
        };
        assert_eq!(
            vtt("sprites.jpg", &index),
            "WEBVTT\n\n00:00:00.000 --> 00:00:02.000\nsprites.jpg#xywh=0,0,160,90\n\n00:00:02.000 --> 00:00:04.000\n\
             sprites.jpg#xywh=160,0,160,90\n\n00:00:04.000 --> 00:00:05.500\nsprites.jpg#xywh=0,90,160,90\n"
        );
    }
}
