//! How long to wait before the next try, and when to give up.

use std::time::{Duration, Instant};

/// Exponential back-off with full jitter: each wait is drawn evenly from half of the current ceiling to all of it, so that a
/// thousand workers that lost one broker do not come back in the same millisecond.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    ceiling: Duration,
}

impl Backoff {
    /// Starts at `first` and doubles up to `most`.
    pub const fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, ceiling: first }
    }

    /// The next wait.
    pub fn next_wait(&mut self) -> Duration {
        let ceiling = self.ceiling;
        self.ceiling = ceiling.saturating_mul(2).min(self.most);
        ceiling.mul_f64(0.5 + jitter() / 2.0)
    }

    /// Back to the first wait: something worked.
    pub const fn reset(&mut self) {
        self.ceiling = self.first;
    }
}

/// The longest wait between two tries of a transfer.
pub const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Tries with a [`Backoff`] between them, until some time has passed in which nothing worked.
#[derive(Debug)]
pub struct Tries {
    backoff: Backoff,
    patience: Duration,
    give_up: Option<Instant>,
}

impl Tries {
    /// Tries for `patience` from now on, with waits up to `longest`.
    pub fn new(longest: Duration, patience: Duration) -> Self {
        let backoff = Backoff::new(Duration::from_millis(100), longest);
        Self { backoff, patience, give_up: Instant::now().checked_add(patience) }
    }

    /// Something worked: patience and waits start anew.
    pub fn worked(&mut self) {
        self.backoff.reset();
        self.give_up = Instant::now().checked_add(self.patience);
    }

    /// Waits for the next try, and says whether there is one. The last one is made just before patience ends.
    pub async fn again(&mut self) -> bool {
        let left = self.give_up.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            return false;
        }
        tokio::time::sleep(self.backoff.next_wait().min(left)).await;
        true
    }
}

// 0 to 1. Where the kernel gives no randomness the waits are merely less spread.
fn jitter() -> f64 {
    let mut bytes = [0u8; 4];
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        return 0.5;
    }
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_ceiling_and_start_over_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(400));
        for ceiling in [100, 200, 400, 400] {
            let wait = backoff.next_wait();
            assert!(
                wait >= Duration::from_millis(ceiling / 2) && wait <= Duration::from_millis(ceiling),
                "{wait:?}"
            );
        }
        backoff.reset();
        assert!(backoff.next_wait() <= Duration::from_millis(100));
    }
}
