//! When a failed delivery is tried again: the example schedule of the Standard Webhooks specification, ten attempts over 75 hours,
//! each pause a little longer or shorter by chance, so that what failed together does not come back together.

use std::time::Duration;

/// Pauses after the first, second, … failed attempt, in seconds.
const PAUSES: [u64; 9] = [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400];
/// What a `Retry-After` may ask for at most.
const MOST: Duration = Duration::from_secs(24 * 3_600);

/// How long to wait after the attempt of that number (from 1) has failed; `None` where the message is given up. `chance` is
/// between 0 and 1; `asked` is what the receiver's `Retry-After` asked for.
pub fn pause(attempt: u32, chance: f64, asked: Option<Duration>) -> Option<Duration> {
    let index = usize::try_from(attempt.checked_sub(1)?).ok()?;
    let pause = Duration::from_secs(*PAUSES.get(index)?);
    let pause = pause.mul_f64(0.9 + 0.2 * chance.clamp(0.0, 1.0));
    Some(pause.max(asked.unwrap_or_default().min(MOST)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_attempts_spread_over_more_than_a_day_and_then_it_ends() {
        for chance in [0.0, 1.0] {
            let pauses: Vec<Duration> = (1..=9).map(|n| pause(n, chance, None).unwrap()).collect();
            assert!(pauses.iter().sum::<Duration>() > Duration::from_secs(60 * 3_600));
            assert!(pauses.is_sorted());
        }
        assert_eq!(pause(10, 0.5, None), None);
        assert_eq!(pause(0, 0.5, None), None);
        assert_eq!(pause(u32::MAX, 0.5, None), None);
    }

    #[test]
    fn retry_after_makes_a_pause_longer_and_never_shorter_or_endless() {
        assert_eq!(pause(1, 0.5, Some(Duration::from_secs(120))), Some(Duration::from_secs(120)));
        assert_eq!(pause(2, 0.5, Some(Duration::from_secs(1))), Some(Duration::from_secs(300)));
        assert_eq!(pause(1, 0.5, Some(Duration::from_secs(u64::MAX))), Some(MOST));
        assert_eq!(pause(10, 0.5, Some(Duration::from_secs(1))), None, "it does not go on for ever");
    }
}
