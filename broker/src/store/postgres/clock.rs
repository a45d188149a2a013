//! The database's time, for decisions outside it: replicas whose clocks differ still agree on when a lease ends.

use crate::model::{Clock, Time};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

/// The database's clock as this process knows it: set from time to time, and in between carried on by a clock that no
/// administrator turns. Right to about half of a round trip.
#[derive(Debug, Clone)]
pub struct DatabaseClock {
    started: Instant,
    at_start: Arc<AtomicI64>,
}

impl DatabaseClock {
    /// From the time that the database told in answer to a question that was asked at `asked`.
    pub(super) fn new(asked: Instant, told: Time) -> Self {
        let clock = Self { started: asked, at_start: Arc::new(AtomicI64::new(0)) };
        clock.set(asked, told);
        clock
    }

    /// Takes a newer answer.
    pub(super) fn set(&self, asked: Instant, told: Time) {
        let half_way = asked.elapsed().mul_f64(0.5);
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
}
