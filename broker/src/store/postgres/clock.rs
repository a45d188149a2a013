//! The database's time, for decisions outside it: replicas whose clocks differ still agree on when a lease ends.

use crate::model::{Clock, Time};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

/// The database's clock as this process knows it: set from time to time, and in between carried on by a clock that no
/// administrator turns. Right to about half of a second, unless the database never answers faster.
#[derive(Debug, Clone)]
pub struct DatabaseClock {
    started: Instant,
    at_start: Arc<AtomicI64>,
    /// The fastest answer so far took so many milliseconds.
    fastest: Arc<AtomicI64>,
}

/// An answer that took longer says too little of when it was given: this process, the database or the way between them stood still, at
/// one end of it or the other.
const TELLS_ENOUGH_MS: i64 = 1_000;

impl DatabaseClock {
    /// From the time that the database told in answer to a question that was asked at `asked`.
    pub(super) fn new(asked: Instant, told: Time) -> Self {
        let (at_start, fastest) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(i64::MAX)));
        let clock = Self { started: asked, at_start, fastest };
        clock.set(asked, told);
        clock
    }

    /// Takes a newer answer, unless it took too long to come.
    pub(super) fn set(&self, asked: Instant, told: Time) {
        let took = asked.elapsed();
        let fastest = self.fastest.fetch_min(millis(took), Ordering::Relaxed);
        if millis(took) > TELLS_ENOUGH_MS.max(fastest) {
            return;
        }
        let half_way = took.mul_f64(0.5);
        let since_start = asked.saturating_duration_since(self.started).saturating_add(half_way);
        self.at_start.store(told.0.saturating_sub(millis(since_start)), Ordering::Relaxed);
    }
}

impl Clock for DatabaseClock {
    fn now(&self) -> Time {
        Time(self.at_start.load(Ordering::Relaxed).saturating_add(millis(self.started.elapsed())))
    }
}

fn millis(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_from_what_the_database_told() {
        let asked = Instant::now();
        let clock = DatabaseClock::new(asked, Time(5_000));
        let close = |time: Time| (time.0..time.0.saturating_add(500)).contains(&clock.now().0);
        assert!(close(Time(5_000)), "{:?}", clock.now());
        clock.set(Instant::now(), Time(1_000_000));
        assert!(close(Time(1_000_000)), "{:?}", clock.now());
    }

    #[test]
    fn an_answer_that_took_long_changes_nothing_once_there_was_a_better_one() {
        let long_ago = Instant::now().checked_sub(std::time::Duration::from_secs(10)).unwrap();
        let clock = DatabaseClock::new(long_ago, Time(100_000));
        assert!(clock.now().0 >= 105_000, "the only one there is");
        clock.set(Instant::now(), Time(110_000));
        clock.set(long_ago, Time(100_000));
        assert!((110_000..110_500).contains(&clock.now().0), "{:?}", clock.now());
    }
}
