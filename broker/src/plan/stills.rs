//! Pictures: which moments of a video, and how large.

use super::budget;
use super::graph::push;
use mpegflow_protocol::job::JobSpec;
use mpegflow_protocol::task::{PosterEncode, SpritesEncode};
use mpegflow_protocol::worker::OutputSlot;

/// Tiles of a sprite sheet at most.
const MAX_TILES: u64 = 100;
const COLUMNS: u32 = 10;
/// Long side of a tile in pixels where the job asks for nothing else.
const TILE: u32 = 160;
/// Seconds between tiles where the job asks for nothing else.
const INTERVAL_S: u32 = 2;

/// The upright picture that stills are made from: the highest rung's, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Width.
    pub width: u32,
    /// Height.
    pub height: u32,
}

/// The poster: as large as the highest rung.
pub fn poster(
    shape: Shape,
    duration_ms: Option<u64>,
    spec: &JobSpec,
    outputs: &mut Vec<OutputSlot>,
) -> PosterEncode {
    let at_ms = match spec.thumbnails.poster_seconds {
        Some(moment) => u64::from(moment.milliseconds()),
        // Recordings often begin in the dark.
        None => duration_ms.unwrap_or(0) / 10,
    };
    PosterEncode {
        output: push(outputs, budget::STILL_BYTES),
        width: shape.width,
        height: shape.height,
        at_ms,
    }
}

/// The sprite sheet: at most 100 tiles, further apart in a longer video.
pub fn sprites(
    shape: Shape,
    duration_ms: Option<u64>,
    spec: &JobSpec,
    outputs: &mut Vec<OutputSlot>,
) -> SpritesEncode {
    let asked = u64::from(spec.thumbnails.interval_seconds.unwrap_or(INTERVAL_S)).saturating_mul(1000);
    // Where nobody knows how long it is, an hour is taken for likely; later tiles are left out.
    let lasts = duration_ms.unwrap_or(3_600_000).max(1);
    let interval = asked.max(lasts.div_ceil(MAX_TILES));
    let tiles = u32::try_from(lasts.div_ceil(interval.max(1)).clamp(1, MAX_TILES)).unwrap_or(COLUMNS);
    let (tile_width, tile_height) = tile(shape, spec.thumbnails.tile_size.unwrap_or(TILE));
    SpritesEncode {
        output: push(outputs, budget::STILL_BYTES),
        tile_width,
        tile_height,
        columns: tiles.min(COLUMNS),
        rows: tiles.div_ceil(COLUMNS),
        interval_ms: u32::try_from(interval).unwrap_or(u32::MAX),
    }
}

/// The shape fitted into a square, even, never enlarged.
fn tile(shape: Shape, side: u32) -> (u32, u32) {
    let (w, h) = (u64::from(shape.width.max(2)), u64::from(shape.height.max(2)));
    let longest = w.max(h);
    let side = u64::from(side).min(longest);
    let fit = |v: u64| {
        let scaled = v.saturating_mul(side).checked_div(longest).unwrap_or(2);
        u32::try_from(scaled / 2).unwrap_or(1).max(1).saturating_mul(2)
    };
    (fit(w), fit(h))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(rest: &str) -> JobSpec {
        let text = format!(
            r#"{{"version":1,"input":{{"upload":"upl_0192f0c1a2b37c4d8e9f001122334455"}},"preset":"web"{rest}}}"#
        );
        JobSpec::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_sheet_has_at_most_a_hundred_tiles_whatever_the_length() {
        let shape = Shape { width: 1920, height: 1080 };
        for (ms, expected) in [
            (Some(1), (160, 90, 1, 1, 2_000)),
            (Some(8_000), (160, 90, 4, 1, 2_000)),
            (Some(60_000), (160, 90, 10, 3, 2_000)),
            (Some(24 * 3_600_000), (160, 90, 10, 10, 864_000)),
            (None, (160, 90, 10, 10, 36_000)),
        ] {
            let s = sprites(shape, ms, &spec(""), &mut Vec::new());
            let found = (s.tile_width, s.tile_height, s.columns, s.rows, s.interval_ms);
            assert_eq!(found, expected, "{ms:?}");
        }
        let asked = spec(r#","thumbnails":{"interval_seconds":1,"tile_size":320}"#);
        let s = sprites(Shape { width: 1080, height: 1920 }, Some(20_000), &asked, &mut Vec::new());
        assert_eq!((s.tile_width, s.tile_height, s.columns, s.rows), (180, 320, 10, 2));
        let tiny = sprites(Shape { width: 2, height: 2 }, Some(1), &spec(""), &mut Vec::new());
        assert_eq!((tiny.tile_width, tiny.tile_height), (2, 2));
    }

    #[test]
    fn a_poster_shows_a_tenth_in_or_the_moment_that_was_asked_for() {
        let shape = Shape { width: 640, height: 360 };
        let at = |text: &str| poster(shape, Some(60_000), &spec(text), &mut Vec::new()).at_ms;
        assert_eq!((at(""), at(r#","thumbnails":{"poster_seconds":7}"#)), (6_000, 7_000));
        assert_eq!(at(r#","thumbnails":{"poster_seconds":7.04}"#), 7_040);
    }
}
