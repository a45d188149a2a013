//! Time stamps of transport and program streams start over: at midnight of a 33-bit clock, or where recordings were joined.
//! The jump is taken out of all streams alike, so that they stay together.

use crate::ff::rescale;

/// Beyond this a step is a jump, in microseconds.
const JUMP: i64 = 10_000_000;
const MICRO: (i32, i32) = (1, 1_000_000);

/// Takes jumps out.
#[derive(Debug)]
pub(crate) struct Jumps {
    active: bool,
    offset: i64,
    next: Vec<Option<i64>>,
}

impl Jumps {
    /// `active` where the container may jump; others mean what they say.
    pub(crate) fn new(active: bool) -> Self {
        Self { active, offset: 0, next: Vec::new() }
    }

    /// What to add to a packet's times, in its time base; `None` for nothing.
    pub(crate) fn shift(
        &mut self,
        stream: usize,
        time: Option<i64>,
        length: i64,
        base: (i32, i32),
    ) -> Option<i64> {
        if !self.active || stream >= crate::caps::MAX_STREAMS {
            return None;
        }
        let raw = rescale(time?, base, MICRO);
        if self.next.len() <= stream {
            self.next.resize(stream.saturating_add(1), None);
        }
        let next = self.next.get_mut(stream)?;
        if let Some(expected) = *next {
            let off = expected.saturating_sub(raw.saturating_add(self.offset));
            if off.saturating_abs() > JUMP {
                self.offset = self.offset.saturating_add(off);
            }
        }
        *next = Some(raw.saturating_add(self.offset).saturating_add(rescale(length, base, MICRO)));
        (self.offset != 0).then(|| rescale(self.offset, MICRO, base))
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
        assert_eq!(Jumps::new(false).shift(0, Some(1), 1, base), None);
    }
}
