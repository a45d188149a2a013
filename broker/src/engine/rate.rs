//! How many requests a tenant may make: a token bucket each. In this process alone: behind a load balancer each broker has its own.

use mpegflow_protocol::ids::TenantId;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Tenants whose buckets are kept. A bucket that is full again says nothing and goes first.
const MAX_TENANTS: usize = 10_000;

/// A rate, and how much may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests a second over time.
    pub per_second: u32,
    /// Requests at once.
    pub burst: u32,
}

impl Default for Rate {
    fn default() -> Self {
        Self { per_second: 100, burst: 1_000 }
    }
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

/// The buckets of all tenants.
#[derive(Debug)]
pub(super) struct Buckets {
    buckets: Mutex<HashMap<TenantId, Bucket>>,
    most: usize,
}

impl Default for Buckets {
    fn default() -> Self {
        Self { buckets: Mutex::default(), most: MAX_TENANTS }
    }
}

impl Buckets {
    /// Takes one token at `now`.
    ///
    /// # Errors
    /// There is none: how long until there is.
    pub(super) fn take(&self, tenant: TenantId, rate: Rate, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= self.most && !buckets.contains_key(&tenant) {
            // Full by the smallest rate there is: after this long an empty one is.
            let (per_second, burst) = (f64::from(rate.per_second.max(1)), f64::from(rate.burst));
            buckets.retain(|_, b| refilled(b, now, per_second, burst) < burst);
            if buckets.len() >= self.most {
                // Everybody is busy. Whoever is forgotten starts anew with a full bucket: too kind rather than too strict.
                let oldest = buckets.iter().min_by_key(|(_, b)| b.at).map(|(id, _)| *id);
                oldest.and_then(|id| buckets.remove(&id));
            }
        }
        let (per_second, burst) = (f64::from(rate.per_second), f64::from(rate.burst.max(1)));
        let bucket = buckets.entry(tenant).or_insert(Bucket { tokens: burst, at: now });
        bucket.tokens = refilled(bucket, now, per_second, burst);
        bucket.at = now;
        if bucket.tokens >= 1.0 {
            bucket.tokens -= 1.0;
            return Ok(());
        }
        let missing = 1.0 - bucket.tokens;
        // Without a rate, nothing ever comes back: an hour is as good as any time.
        let wait = if per_second > 0.0 { missing / per_second } else { 3_600.0 };
        Err(Duration::from_secs_f64(wait.min(3_600.0)))
    }
}

/// One bucket for whoever comes.
#[derive(Debug)]
pub struct Throttle {
    bucket: Mutex<Bucket>,
    per_second: f64,
    burst: f64,
}

impl Throttle {
    /// A full one.
    pub fn new(per_second: u32, burst: u32) -> Self {
        let burst = f64::from(burst.max(1));
        let bucket = Mutex::new(Bucket { tokens: burst, at: Instant::now() });
        Self { bucket, per_second: f64::from(per_second.max(1)), burst }
    }

    /// Takes one token.
    ///
    /// # Errors
    /// There is none: how long until there is.
    pub fn take(&self) -> Result<(), Duration> {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        bucket.tokens = refilled(&bucket, now, self.per_second, self.burst);
        bucket.at = now;
        if bucket.tokens >= 1.0 {
            bucket.tokens -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - bucket.tokens) / self.per_second))
    }
}

fn refilled(bucket: &Bucket, now: Instant, per_second: f64, burst: f64) -> f64 {
    let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
    (bucket.tokens + passed * per_second).min(burst)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_the_rate_does_and_another_tenant_has_its_own() {
        let buckets = Buckets::default();
        let rate = Rate { per_second: 10, burst: 3 };
        let (one, other) = (TenantId::from_u128(1), TenantId::from_u128(2));
        let start = Instant::now();
        for _ in 0..3 {
            assert_eq!(buckets.take(one, rate, start), Ok(()));
        }
        let wait = buckets.take(one, rate, start).unwrap_err();
        assert!((wait.as_secs_f64() - 0.1).abs() < 1e-6, "{wait:?}");
        assert_eq!(buckets.take(other, rate, start), Ok(()));
        assert_eq!(buckets.take(one, rate, start + Duration::from_millis(101)), Ok(()));
        assert!(buckets.take(one, rate, start + Duration::from_millis(102)).is_err());
        // A long pause gives a burst, not more.
        let later = start + Duration::from_secs(3_600);
        assert_eq!((0..10).filter(|_| buckets.take(one, rate, later).is_ok()).count(), 3);
    }

    #[test]
    fn a_tenant_without_a_rate_gets_its_burst_and_no_more() {
        let buckets = Buckets::default();
        let rate = Rate { per_second: 0, burst: 1 };
        let now = Instant::now();
        assert_eq!(buckets.take(TenantId::from_u128(1), rate, now), Ok(()));
        assert_eq!(buckets.take(TenantId::from_u128(1), rate, now), Err(Duration::from_secs(3_600)));
    }

    #[test]
    fn buckets_are_bounded_and_the_busy_ones_stay() {
        let buckets = Buckets { most: 4, ..Buckets::default() };
        let rate = Rate { per_second: 1, burst: 2 };
        let start = Instant::now();
        for n in 0..4 {
            buckets.take(TenantId::from_u128(n), rate, start).unwrap();
        }
        let later = start + Duration::from_secs(10);
        buckets.take(TenantId::from_u128(0), rate, later).unwrap();
        buckets.take(TenantId::from_u128(0), rate, later).unwrap();
        buckets.take(TenantId::from_u128(9), rate, later).unwrap();
        assert!(buckets.buckets.lock().unwrap().len() <= 4);
        assert!(buckets.take(TenantId::from_u128(0), rate, later).is_err(), "it was not forgotten");
        for n in 10..100 {
            let _ = buckets.take(TenantId::from_u128(n), rate, later);
        }
        assert!(buckets.buckets.lock().unwrap().len() <= 4);
    }
}
