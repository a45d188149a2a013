//! The timeline of an encode: which frames are kept, when each is shown, and where segments begin. Pure; all rungs share it,
//! so their segments line up.

use mpegflow_protocol::task::Cut;

/// Ticks per second of video time stamps: exact for 24, 25, 30, 50 and 60 frames a second and for 30000/1001.
pub(crate) const VIDEO_SCALE: i32 = 90_000;
/// Ticks after which a jump backwards is a new beginning rather than a frame out of order.
const RESTART: i64 = VIDEO_SCALE as i64;

/// What to do with a decoded frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Encode it, shown at `time`; `key` where a segment begins.
    Keep {
        /// Ticks from the start.
        time: i64,
        /// A segment begins here.
        key: bool,
    },
    /// It comes too soon after the one before, or is out of order.
    Drop,
}

/// The clock of one video stream.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    segment: i64,
    interval: i64,
    offset: i64,
    last: Option<i64>,
    last_length: i64,
    due: i64,
    segment_index: i64,
}

impl Clock {
    /// A clock that starts a segment every `segment_ms` and keeps at most `max_rate` frames a second.
    pub(crate) fn new(segment_ms: u32, max_rate: u32) -> Self {
        let scale = i64::from(VIDEO_SCALE);
        Self {
            segment: i64::from(segment_ms.max(1)).saturating_mul(scale) / 1_000,
            interval: scale.checked_div(i64::from(max_rate)).unwrap_or(1).max(1),
            offset: 0,
            last: None,
            last_length: 0,
            due: 0,
            segment_index: -1,
        }
    }

    /// A clock that goes on where another one was cut.
    pub(crate) fn resumed(cut: &Cut, segment_ms: u32, max_rate: u32) -> Self {
        Self {
            offset: cut.offset,
            last: Some(cut.last),
            last_length: cut.last_length,
            due: cut.due,
            segment_index: cut.segment,
            ..Self::new(segment_ms, max_rate)
        }
    }

    /// What another clock has to know to go on before a frame that this one, as it is, would show at `time`.
    pub(crate) fn cut(&self, time: i64) -> Cut {
        Cut {
            time,
            last: self.last.unwrap_or(0),
            last_length: self.last_length,
            due: self.due,
            offset: self.offset,
            segment: self.segment_index,
        }
    }

    /// Places a frame that the source shows at `time` (ticks from the start; `None` where unknown) for `length` ticks (0
    /// where unknown). The first frame is always shown from the start.
    pub(crate) fn place(&mut self, time: Option<i64>, length: i64) -> Verdict {
        // Far beyond every cap, and far from overflowing: hostile times are anywhere.
        const FAR: i64 = 1 << 50;
        let time = time.map(|t| t.clamp(-FAR, FAR));
        let Some(last) = self.last else {
            let length = length.max(0);
            self.last = Some(0);
            self.last_length = length;
            self.due = self.interval;
            self.segment_index = 0;
            // A first frame from before the start moves everything.
            self.offset = time.filter(|t| *t < 0).map_or(0, i64::saturating_neg);
            return Verdict::Keep { time: 0, key: true };
        };
        let step = if self.last_length > 0 { self.last_length } else { self.interval };
        let mut time = time.map_or(last.saturating_add(step), |t| t.saturating_add(self.offset));
        if time <= last {
            if last.saturating_sub(time) < RESTART {
                return Verdict::Drop;
            }
            self.offset = self.offset.saturating_add(last.saturating_add(step).saturating_sub(time));
            time = last.saturating_add(step);
        }
        // A quarter of the interval is the jitter of time stamps in milliseconds, with room.
        if time.saturating_add(self.interval / 4) < self.due {
            return Verdict::Drop;
        }
        self.due = self.due.max(time.saturating_sub(self.interval)).saturating_add(self.interval);
        self.last_length = if length > 0 { length } else { time.saturating_sub(last) };
        self.last = Some(time);
        let index = time.checked_div(self.segment).unwrap_or(0);
        let key = index > self.segment_index;
        self.segment_index = self.segment_index.max(index);
        Verdict::Keep { time, key }
    }

    /// When the last kept frame ends.
    pub(crate) fn end(&self) -> i64 {
        let length = if self.last_length > 0 { self.last_length } else { self.interval };
        // A container may claim anything for the last frame.
        let length = length.clamp(1, i64::from(VIDEO_SCALE).saturating_mul(10));
        self.last.map_or(0, |t| t.saturating_add(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(clock: &mut Clock, times: impl IntoIterator<Item = i64>) -> Vec<(i64, bool)> {
        times
            .into_iter()
            .filter_map(|t| match clock.place(Some(t), 0) {
                Verdict::Keep { time, key } => Some((time, key)),
                Verdict::Drop => None,
            })
            .collect()
    }

    #[test]
    fn a_segment_begins_at_the_first_frame_at_or_after_each_multiple() {
        let mut clock = Clock::new(1_000, 60);
        let kept = run(&mut clock, (0..91).map(|n| n * 3_003));
        let keys: Vec<i64> = kept.iter().filter(|(_, key)| *key).map(|(t, _)| *t).collect();
        assert_eq!(keys, [0, 30 * 3_003, 60 * 3_003, 90 * 3_003]);
        assert_eq!(clock.end(), 91 * 3_003);
    }

    #[test]
    fn a_clock_that_goes_on_at_a_cut_places_what_follows_as_if_there_was_none() {
        // Twice the cap, with jitter: which of two frames is dropped depends on the ones before.
        let times: Vec<i64> = (0..1_000).map(|n| n * 750 + (n % 3) * 90).collect();
        let mut whole = Clock::new(1_000, 60);
        let kept = run(&mut whole, times.iter().copied());
        for until in [90_000, 180_000, 450_000] {
            let mut clock = Clock::new(1_000, 60);
            let (mut first, mut cut) = (Vec::new(), None);
            for t in &times {
                let before = clock.clone();
                if let Verdict::Keep { time, key } = clock.place(Some(*t), 0) {
                    if time >= until {
                        cut = Some(before.cut(time));
                        break;
                    }
                    first.push((time, key));
                }
            }
            let cut = cut.unwrap();
            let mut rest = Clock::resumed(&cut, 1_000, 60);
            first.extend(run(&mut rest, times.iter().copied().filter(|t| *t >= cut.time)));
            assert_eq!(first, kept);
            assert_eq!(rest.end(), whole.end());
        }
    }

    #[test]
    fn frames_above_the_rate_are_dropped_and_jitter_is_not() {
        let kept = run(&mut Clock::new(2_000, 60), (0..240).map(|n| n * 750));
        assert_eq!(kept.len(), 120);
        let jitter = (0..600).map(|n| (n * 1_000 / 60) * 90);
        assert_eq!(run(&mut Clock::new(2_000, 60), jitter).len(), 600);
    }

    #[test]
    fn times_always_go_up_whatever_the_source_says() {
        let mut clock = Clock::new(2_000, 60);
        let kept =
            run(&mut clock, [-9_000, -6_000, -6_000, 0, 900_000, 3_000, 6_000, i64::MAX, i64::MIN + 1]);
        assert!(kept.windows(2).all(|w| w[0].0 < w[1].0), "{kept:?}");
        assert_eq!(kept[..3], [(0, true), (3_000, false), (9_000, false)]);
    }
}
