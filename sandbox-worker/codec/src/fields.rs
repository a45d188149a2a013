//! Whether lines are from two moments, as the pictures themselves show it: cameras, capture cards and re-encodes flag frames
//! wrongly, both ways. A line of one frame is put between two lines of another; what is from the same moment fits best.

use crate::ff::frame::Frame;
use crate::ff::names;
use std::collections::VecDeque;

/// Lines that are looked at: two of every so many.
const STEP: usize = 8;
/// Frames that an opinion is made of.
const WINDOW: usize = 8;
/// So many frames that say the same, and none that says the opposite, are an opinion.
const ENOUGH: usize = 3;

/// What the pictures show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lines {
    /// Of one moment.
    Progressive,
    /// Of two moments, the top line first.
    TopFirst,
    /// Of two moments, the bottom line first.
    BottomFirst,
}

/// An opinion about a stream, from the last frames in which something moved.
#[derive(Debug, Default)]
pub(crate) struct Opinion {
    seen: VecDeque<Lines>,
    now: Option<Lines>,
}

impl Opinion {
    /// What is held to be true of the stream now; `None` where nothing has moved enough to tell.
    pub(crate) fn now(&self) -> Option<Lines> {
        self.now
    }

    /// Looks at a frame between its neighbours, all of the same kind.
    pub(crate) fn look(&mut self, before: &Frame, frame: &Frame, after: &Frame) {
        let bytes = names::layout(frame.picture().format).map_or(1, |l| l.bytes);
        let sums =
            if bytes == 1 { sums::<1>([before, frame, after]) } else { sums::<2>([before, frame, after]) };
        if let Some(lines) = sums.and_then(judge) {
            self.add(lines);
        }
    }

    fn add(&mut self, lines: Lines) {
        if self.seen.len() >= WINDOW {
            self.seen.pop_front();
        }
        self.seen.push_back(lines);
        let count = |what: Lines| self.seen.iter().filter(|l| **l == what).count();
        let (top, bottom, whole) =
            (count(Lines::TopFirst), count(Lines::BottomFirst), count(Lines::Progressive));
        // Film that was made video of (telecine) has whole frames between the others.
        self.now = match (top, bottom) {
            (ENOUGH.., 0) => Some(Lines::TopFirst),
            (0, ENOUGH..) => Some(Lines::BottomFirst),
            (0, 0) if whole >= ENOUGH => Some(Lines::Progressive),
            _ => self.now,
        };
    }
}

/// How badly lines fit between others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sums {
    /// Between lines of the same frame.
    within: u64,
    /// Between lines of a neighbour, where those would be the next moment if the top line came first.
    top: u64,
    /// The same if the bottom line came first.
    bottom: u64,
}

#[allow(
    clippy::arithmetic_side_effects,
    reason = "a row has at most 8192 samples of 16 bits, a frame 8192 rows"
)]
fn sums<const BYTES: usize>([before, frame, after]: [&Frame; 3]) -> Option<Sums> {
    let (width, rows) = frame.plane_size(0)?;
    let planes = [before.plane(0)?, frame.plane(0)?, after.plane(0)?];
    let row = |plane: usize, y: usize| -> Option<&[u8]> {
        let (data, stride) = planes.get(plane)?;
        data.get(y.checked_mul(*stride)?..)?.get(..width)
    };
    let mut sums = Sums::default();
    for start in (2..rows.checked_sub(3)?).step_by(STEP) {
        for y in [start, start + 1] {
            let (above, below) = (row(1, y - 1)?, row(1, y + 1)?);
            sums.within += misfit::<BYTES>(above, row(1, y)?, below);
            let (past, next) =
                (misfit::<BYTES>(above, row(0, y)?, below), misfit::<BYTES>(above, row(2, y)?, below));
            // Of frames whose top line came first, the bottom lines of the frame before and the top lines of the one after
            // are one moment away from what they are put between.
            if y % 2 == 0 {
                sums.top += next;
                sums.bottom += past;
            } else {
                sums.top += past;
                sums.bottom += next;
            }
        }
    }
    Some(sums)
}

#[allow(
    clippy::arithmetic_side_effects,
    reason = "sums of 16-bit samples in 32 bits, of at most 8192 of them in 64"
)]
fn misfit<const BYTES: usize>(above: &[u8], line: &[u8], below: &[u8]) -> u64 {
    let sample = |s: &[u8]| match *s {
        [low, high] => i32::from(u16::from_le_bytes([low, high])),
        [one] => i32::from(one),
        _ => 0,
    };
    above
        .chunks_exact(BYTES)
        .zip(line.chunks_exact(BYTES))
        .zip(below.chunks_exact(BYTES))
        .map(|((a, l), b)| u64::from((sample(a) + sample(b) - 2 * sample(l)).unsigned_abs()))
        .sum()
}

/// Thresholds as FFmpeg's `idet` has them; besides, a frame of two moments must not fit better within itself than with its
/// neighbours.
fn judge(sums: Sums) -> Option<Lines> {
    let Sums { within, top, bottom } = sums;
    let more = |a: u64, b: u64, percent: u64| a.saturating_mul(100) > b.saturating_mul(percent);
    if more(top.min(bottom), within, 150) {
        Some(Lines::Progressive)
    } else if more(top.min(bottom), within, 125) {
        None
    } else if more(bottom, top, 104) {
        Some(Lines::TopFirst)
    } else if more(top, bottom, 104) {
        Some(Lines::BottomFirst)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_within_itself_is_whole_and_what_fits_its_neighbours_is_not() {
        let judge = |within, top, bottom| judge(Sums { within, top, bottom });
        assert_eq!(judge(100, 300, 310), Some(Lines::Progressive));
        assert_eq!(judge(200, 200, 420), Some(Lines::TopFirst));
        assert_eq!(judge(200, 420, 200), Some(Lines::BottomFirst));
        // Nothing moves, or all is noise.
        assert_eq!(judge(200, 200, 201), None);
        assert_eq!(judge(0, 0, 0), None);
        // It moves up or down: one direction fits better, and the frame itself best.
        assert_eq!(judge(100, 140, 190), None);
    }

    #[test]
    fn an_opinion_takes_three_and_changes_when_the_window_does() {
        let mut opinion = Opinion::default();
        let mut said = |lines: Lines| {
            opinion.add(lines);
            opinion.now()
        };
        assert_eq!(said(Lines::TopFirst), None);
        assert_eq!(said(Lines::TopFirst), None);
        assert_eq!(said(Lines::TopFirst), Some(Lines::TopFirst));
        // Telecine: whole frames between.
        for _ in 0..5 {
            assert_eq!(said(Lines::Progressive), Some(Lines::TopFirst));
        }
        for _ in 0..3 {
            said(Lines::Progressive);
        }
        assert_eq!(said(Lines::Progressive), Some(Lines::Progressive));
        // One frame that looks like it is not enough.
        assert_eq!(said(Lines::BottomFirst), Some(Lines::Progressive));
    }
}
