//! Frames whose lines are from two moments become frames of one: the lines of the first moment stay, the others are made of
//! their neighbours in time where nothing moves, and along edges in space where something does.
//!
//! Which frames those are the pictures say (see [`crate::fields`]); where they do not tell, the source's flags do.

use crate::ff::AvError;
use crate::ff::frame::Frame;
use crate::ff::names;
use crate::fields::{Lines, Opinion};
use std::collections::VecDeque;

/// Pixels beyond a row's ends that the search along edges looks at.
const PAD: usize = 3;
/// Frames that wait at the start for something to move.
const WAIT: usize = 6;
/// Pixels that wait at most.
const WAITING_PIXELS: i64 = 8 * 1920 * 1088;

/// One video stream's deinterlacer. Holds a frame until the next one is there, and more at the start.
#[derive(Default)]
pub(crate) struct Deinterlacer {
    /// The one before the first that waits.
    before: Option<Frame>,
    waiting: VecDeque<Frame>,
    opinion: Opinion,
    rows: Rows,
}

impl Deinterlacer {
    /// Takes a decoded frame and hands on those that are finished.
    ///
    /// # Errors
    /// Out of memory.
    pub(crate) fn push(&mut self, frame: Frame) -> Result<Vec<Frame>, AvError> {
        let mut out = Vec::with_capacity(2);
        let can = names::layout(frame.picture().format).is_some_and(|l| l.planes == 3);
        if !can || self.waiting.back().is_some_and(|last| !alike(last, &frame)) {
            out = self.flush()?;
            self.before = None;
        }
        if !can {
            out.push(frame);
            return Ok(out);
        }
        if let Some(last) = self.waiting.back() {
            let before = self.waiting.len().checked_sub(2).and_then(|n| self.waiting.get(n));
            let before = before.or(self.before.as_ref()).unwrap_or(last);
            self.opinion.look(before, last, &frame);
        }
        let picture = frame.picture();
        let area = i64::from(picture.width).saturating_mul(i64::from(picture.height));
        let most = WAITING_PIXELS.checked_div(area).and_then(|n| usize::try_from(n).ok()).unwrap_or(WAIT);
        self.waiting.push_back(frame);
        while self.waiting.len() > 1 && (self.opinion.now().is_some() || self.waiting.len() > most.min(WAIT))
        {
            out.extend(self.finish()?);
        }
        Ok(out)
    }

    /// Hands on what waits.
    ///
    /// # Errors
    /// Out of memory.
    pub(crate) fn flush(&mut self) -> Result<Vec<Frame>, AvError> {
        let mut out = Vec::with_capacity(self.waiting.len());
        while let Some(frame) = self.finish()? {
            out.push(frame);
        }
        Ok(out)
    }

    /// Hands on the first that waits.
    fn finish(&mut self) -> Result<Option<Frame>, AvError> {
        let Some(frame) = self.waiting.pop_front() else { return Ok(None) };
        let flagged = frame.is_interlaced();
        let top_first = match self.opinion.now() {
            Some(Lines::Progressive) => None,
            Some(_) | None if flagged => Some(frame.top_field_first()),
            Some(lines) => Some(lines == Lines::TopFirst),
            None => None,
        };
        let out = match top_first {
            Some(top_first) => self.whole(&frame, top_first)?,
            None => frame.share()?,
        };
        self.before = Some(frame);
        Ok(Some(out))
    }

    fn whole(&mut self, frame: &Frame, top_first: bool) -> Result<Frame, AvError> {
        let before = self.before.as_ref().filter(|b| alike(b, frame)).unwrap_or(frame);
        let next = self.waiting.front().filter(|f| alike(f, frame)).unwrap_or(frame);
        let mut out = frame.like()?;
        let bytes = names::layout(frame.picture().format).map_or(1, |l| l.bytes);
        for plane in 0..3 {
            let kept = usize::from(!top_first);
            if self.rows.plane([before, frame, next], &mut out, plane, kept, bytes).is_none() {
                return Err(AvError::INVALID_ARGUMENT);
            }
        }
        out.set_progressive();
        Ok(out)
    }
}

fn alike(a: &Frame, b: &Frame) -> bool {
    let (a, b) = (a.picture(), b.picture());
    (a.width, a.height, a.format) == (b.width, b.height, b.format)
}

/// Rows unpacked to numbers, with their ends repeated.
#[derive(Default)]
struct Rows {
    above: Vec<i32>,
    below: Vec<i32>,
    made: Vec<i32>,
}

/// What is looked at for one missing row: the row itself and its neighbours, in three frames.
struct Around<'a> {
    before: [&'a [u8]; 3],
    now: [&'a [u8]; 3],
    after: [&'a [u8]; 2],
    /// Two rows up and two down, before and now; where the picture has them.
    far: Option<[&'a [u8]; 4]>,
}

impl Rows {
    fn plane(
        &mut self,
        [before, now, after]: [&Frame; 3],
        out: &mut Frame,
        plane: usize,
        kept: usize,
        bytes: usize,
    ) -> Option<()> {
        let (width, rows) = now.plane_size(plane)?;
        let (b, b_stride) = before.plane(plane)?;
        let (n, n_stride) = now.plane(plane)?;
        let (a, a_stride) = after.plane(plane)?;
        let (target, stride) = out.plane_mut(plane)?;
        let row = |data: &'_ [u8], stride: usize, y: usize| -> Option<(usize, usize)> {
            let start = y.checked_mul(stride)?;
            let end = start.checked_add(width)?;
            (end <= data.len()).then_some((start, end))
        };
        macro_rules! line {
            ($data:expr, $stride:expr, $y:expr) => {{
                let (start, end) = row($data, $stride, $y)?;
                $data.get(start..end)?
            }};
        }
        for y in 0..rows {
            let (start, end) = row(target, stride, y)?;
            let to = target.get_mut(start..end)?;
            if y % 2 == kept || rows < 2 {
                to.copy_from_slice(line!(n, n_stride, y));
                continue;
            }
            let up = y.checked_sub(1).unwrap_or(1);
            let below = y.checked_add(1)?;
            let down = if below < rows { below } else { up };
            let far = match (y.checked_sub(2), y.checked_add(2).filter(|d| *d < rows)) {
                (Some(u), Some(d)) => Some([
                    line!(b, b_stride, u),
                    line!(n, n_stride, u),
                    line!(b, b_stride, d),
                    line!(n, n_stride, d),
                ]),
                _ => None,
            };
            let around = Around {
                before: [line!(b, b_stride, up), line!(b, b_stride, y), line!(b, b_stride, down)],
                now: [line!(n, n_stride, up), line!(n, n_stride, y), line!(n, n_stride, down)],
                after: [line!(a, a_stride, up), line!(a, a_stride, down)],
                far,
            };
            if bytes == 1 {
                self.row::<1>(&around, to)?;
            } else {
                self.row::<2>(&around, to)?;
            }
        }
        Some(())
    }

    fn row<const BYTES: usize>(&mut self, around: &Around<'_>, to: &mut [u8]) -> Option<()> {
        let count = to.len().checked_div(BYTES)?;
        unpack::<BYTES>(around.now[0], &mut self.above);
        unpack::<BYTES>(around.now[2], &mut self.below);
        self.made.clear();
        for x in 0..count {
            let up = self.above.get(x..)?.first_chunk::<7>()?;
            let down = self.below.get(x..)?.first_chunk::<7>()?;
            let before = around.before.map(|row| sample::<BYTES>(row, x));
            let now = around.now.map(|row| sample::<BYTES>(row, x));
            let after = around.after.map(|row| sample::<BYTES>(row, x));
            let far = around.far.map(|rows| rows.map(|row| sample::<BYTES>(row, x)));
            self.made.push(predict(up, down, before, now, after, far));
        }
        for (target, value) in to.chunks_exact_mut(BYTES).zip(&self.made) {
            let bytes = u16::try_from(*value).unwrap_or(0).to_le_bytes();
            target.copy_from_slice(bytes.get(..BYTES)?);
        }
        Some(())
    }
}

fn sample<const BYTES: usize>(row: &[u8], x: usize) -> i32 {
    if BYTES == 1 {
        row.get(x).copied().map_or(0, i32::from)
    } else {
        let at = x.saturating_mul(2);
        let pair = row.get(at..at.saturating_add(2)).and_then(|p| p.first_chunk::<2>());
        pair.map_or(0, |p| i32::from(u16::from_le_bytes(*p)))
    }
}

fn unpack<const BYTES: usize>(row: &[u8], out: &mut Vec<i32>) {
    out.clear();
    let count = row.len().checked_div(BYTES).unwrap_or(0);
    let first = sample::<BYTES>(row, 0);
    let last = sample::<BYTES>(row, count.saturating_sub(1));
    out.extend(std::iter::repeat_n(first, PAD));
    out.extend((0..count).map(|x| sample::<BYTES>(row, x)));
    out.extend(std::iter::repeat_n(last, PAD.saturating_add(1)));
}

/// One missing pixel. `up` and `down` are seven pixels of the rows above and below, this one's column in the middle; `before`,
/// `now` and `after` are this column above, here and below in three frames (the last without here), `far` two rows away.
#[allow(clippy::arithmetic_side_effects, reason = "sums of a few 16-bit samples in 32 bits")]
fn predict(
    up: &[i32; 7],
    down: &[i32; 7],
    before: [i32; 3],
    now: [i32; 3],
    after: [i32; 2],
    far: Option<[i32; 4]>,
) -> i32 {
    let [above, other, below] = now;
    let still = (before[1] + other) / 2;
    // How much moves here: against both fields of the other moment, and against both neighbours of this one.
    let flicker = (before[1] - other).abs() / 2;
    let past = ((before[0] - above).abs() + (before[2] - below).abs()) / 2;
    let future = ((after[0] - above).abs() + (after[1] - below).abs()) / 2;
    let mut room = flicker.max(past).max(future);
    let mut made = (above + below) / 2;
    let mut best = (up[2] - down[2]).abs() + (up[3] - down[3]).abs() + (up[4] - down[4]).abs() - 1;
    // Along an edge that leans either way; further only where nearer was better.
    let lean = |a: [i32; 3], b: [i32; 3]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<i32>();
    let near = lean([up[1], up[2], up[3]], [down[3], down[4], down[5]]);
    if near < best {
        (best, made) = (near, (up[2] + down[4]) / 2);
        let further = lean([up[0], up[1], up[2]], [down[4], down[5], down[6]]);
        if further < best {
            (best, made) = (further, (up[1] + down[5]) / 2);
        }
    }
    let near = lean([up[3], up[4], up[5]], [down[1], down[2], down[3]]);
    if near < best {
        (best, made) = (near, (up[4] + down[2]) / 2);
        let further = lean([up[4], up[5], up[6]], [down[0], down[1], down[2]]);
        if further < best {
            made = (up[5] + down[1]) / 2;
        }
    }
    if let Some([up_before, up_now, down_before, down_now]) = far {
        let (b, f) = ((up_before + up_now) / 2, (down_before + down_now) / 2);
        let most = (still - below).max(still - above).max((b - above).min(f - below));
        let least = (still - below).min(still - above).min((b - above).max(f - below));
        room = room.max(least).max(-most);
    }
    made.clamp(still - room, still + room)
}

#[cfg(test)]
mod tests {
    use super::predict;

    #[test]
    fn what_does_not_move_is_kept_and_what_moves_is_made_of_its_neighbours() {
        // A row of 200 between rows of 10, in every frame.
        let row = [10; 7];
        assert_eq!(predict(&row, &row, [10, 200, 10], [10, 200, 10], [10, 10], Some([10; 4])), 200);
        // The other moment shows something else: the neighbours decide.
        let moved = predict(&row, &row, [90, 90, 90], [10, 200, 10], [10, 10], Some([10; 4]));
        assert!((10..=100).contains(&moved), "{moved}");
    }
}
