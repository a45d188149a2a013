//! Time stamps of transport and program streams start over: at midnight of a 33-bit clock, or where recordings were joined.
//! The jump is taken out of all streams alike, so that they stay together.
//!
//! In other containers a step forward is meant: nothing is there for so long. A step back is not, and is taken out.

use crate::ff::rescale;

/// Beyond this a step is a jump, in microseconds.
const JUMP: i64 = 10_000_000;
/// Beyond this a step back is one, where steps forward are meant. What is less is put in order by the clock and cut by the sound.
const BACK: i64 = 1_000_000;
const MICRO: (i32, i32) = (1, 1_000_000);

/// Takes jumps out.
#[derive(Debug)]
pub(crate) struct Jumps {
    active: bool,
    /// Of a transport or program stream.
    offset: i64,
    /// Of others: of each stream.
    offsets: Vec<i64>,
    next: Vec<Option<i64>>,
}

impl Jumps {
    /// `active` where the container may jump both ways.
    pub(crate) fn new(active: bool) -> Self {
        Self { active, offset: 0, offsets: Vec::new(), next: Vec::new() }
    }

    /// What to add to a packet's times, in its time base; `None` for nothing.
    pub(crate) fn shift(
        &mut self,
        stream: usize,
        time: Option<i64>,
        length: i64,
        base: (i32, i32),
    ) -> Option<i64> {
        if stream >= crate::caps::MAX_STREAMS {
            return None;
        }
        let raw = rescale(time?, base, MICRO);
        if self.next.len() <= stream {
            self.next.resize(stream.saturating_add(1), None);
            self.offsets.resize(stream.saturating_add(1), 0);
        }
        let expected = *self.next.get(stream)?;
        let offset = match expected {
            Some(expected) if self.active => {
                let off = expected.saturating_sub(raw.saturating_add(self.offset));
                if off.saturating_abs() > JUMP {
                    self.offset = self.offset.saturating_add(off);
                }
                self.offset
            }
            Some(expected) => self.back(stream, expected, raw)?,
            None if self.active => self.offset,
            None => *self.offsets.get(stream)?,
        };
        *self.next.get_mut(stream)? =
            Some(raw.saturating_add(offset).saturating_add(rescale(length, base, MICRO)));
        (offset != 0).then(|| rescale(offset, MICRO, base))
    }

    /// The offset of a stream whose times only go forward. Streams jump together, but not at the same packet: the one that
    /// jumps later takes what the first one took.
    fn back(&mut self, stream: usize, expected: i64, raw: i64) -> Option<i64> {
        let mine = *self.offsets.get(stream)?;
        let off = expected.saturating_sub(raw.saturating_add(mine));
        if off <= BACK {
            return Some(mine);
        }
        let wanted = mine.saturating_add(off);
        let near = |o: &&i64| o.saturating_sub(wanted).saturating_abs() <= BACK;
        let taken = self.offsets.iter().filter(near).max().copied().unwrap_or(wanted);
        *self.offsets.get_mut(stream)? = taken;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_moves_all_streams_together_and_a_gap_moves_none() {
        let mut jumps = Jumps::new(true);
        let base = (1, 1_000);
        assert_eq!(jumps.shift(0, Some(1_000), 40, base), None);
        assert_eq!(jumps.shift(1, Some(1_000), 20, base), None);
        assert_eq!(jumps.shift(0, Some(5_000), 40, base), None);
        assert_eq!(jumps.shift(0, Some(95_000_000), 40, base), Some(5_040 - 95_000_000));
        assert_eq!(jumps.shift(1, Some(95_000_000), 20, base), Some(5_040 - 95_000_000));
    }

    #[test]
    fn elsewhere_only_a_step_back_is_taken_out_and_both_streams_take_the_same() {
        let mut jumps = Jumps::new(false);
        let base = (1, 1_000);
        assert_eq!(jumps.shift(0, Some(1_000), 40, base), None);
        assert_eq!(jumps.shift(0, Some(95_000), 40, base), None);
        assert_eq!(jumps.shift(1, Some(94_990), 21, base), None);
        // A picture out of order is none.
        assert_eq!(jumps.shift(0, Some(94_500), 40, base), None);
        assert_eq!(jumps.shift(0, Some(0), 40, base), Some(94_540));
        // Still before the jump, then at it.
        assert_eq!(jumps.shift(1, Some(95_011), 21, base), None);
        assert_eq!(jumps.shift(1, Some(11), 21, base), Some(94_540));
        assert_eq!(jumps.shift(1, Some(32), 21, base), Some(94_540));
    }
}
