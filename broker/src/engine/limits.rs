//! What a tenant may do and have: the same for all, but for what its row says otherwise.

use super::rate::Rate;
use super::{Engine, Quotas};
use crate::model::TenantLimits;
use crate::plan::estimate::Caps;
use crate::store::StoreError;
use mpegflow_protocol::ids::TenantId;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A change reaches every broker within this time.
const FRESH: Duration = Duration::from_secs(2);
/// How long a count of running tasks holds.
const COUNTED: Duration = Duration::from_millis(500);
/// Tenants that are remembered at once.
const MAX_TENANTS: usize = 10_000;

/// What holds for one tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// What it may have at once.
    pub quotas: Quotas,
    /// How many requests it may make.
    pub rate: Rate,
    /// Whether it may have a source's own pictures in its output.
    pub copy: bool,
}

impl Limits {
    fn with(self, own: &TenantLimits) -> Self {
        Self {
            quotas: Quotas {
                unfinished_jobs: own.unfinished_jobs.unwrap_or(self.quotas.unfinished_jobs),
                running_tasks: own.running_tasks.or(self.quotas.running_tasks),
                unfinished_uploads: own.unfinished_uploads.unwrap_or(self.quotas.unfinished_uploads),
                upload_bytes: own.upload_bytes.unwrap_or(self.quotas.upload_bytes),
                caps: Caps {
                    output_minutes: own.job_output_minutes.or(self.quotas.caps.output_minutes),
                    core_seconds: own.job_core_seconds.or(self.quotas.caps.core_seconds),
                },
                minutes_per_day: own.minutes_per_day.or(self.quotas.minutes_per_day),
            },
            rate: Rate {
                per_second: own.requests_per_second.unwrap_or(self.rate.per_second),
                burst: own.burst.unwrap_or(self.rate.burst),
            },
            copy: own.copy.unwrap_or(self.copy),
        }
    }
}

/// What was looked up lately, by tenant. Bounded: when there is no room, what is stale goes, and then everything.
#[derive(Debug)]
pub(super) struct Lately<T> {
    known: Mutex<HashMap<TenantId, (Instant, T)>>,
    fresh: Duration,
}

impl<T: Copy> Lately<T> {
    fn new(fresh: Duration) -> Self {
        Self { known: Mutex::default(), fresh }
    }

    fn get(&self, tenant: TenantId) -> Option<T> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&tenant).filter(|(at, _)| at.elapsed() < self.fresh).map(|(_, value)| *value)
    }

    fn put(&self, tenant: TenantId, value: T) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_TENANTS {
            known.retain(|_, (at, _)| at.elapsed() < self.fresh);
            if known.len() >= MAX_TENANTS {
                known.clear();
            }
        }
        known.insert(tenant, (Instant::now(), value));
    }
}

/// Limits and counts of tenants.
#[derive(Debug)]
pub(super) struct Tenants {
    limits: Lately<Limits>,
    full: Lately<bool>,
    /// Counting and leasing go together, for tenants that may have so many running and no more.
    pub(super) leasing: tokio::sync::Mutex<()>,
}

impl Default for Tenants {
    fn default() -> Self {
        Self {
            limits: Lately::new(FRESH),
            full: Lately::new(COUNTED),
            leasing: tokio::sync::Mutex::default(),
        }
    }
}

impl Engine {
    /// What holds for a tenant now, or held a moment ago.
    ///
    /// # Errors
    /// The store failed.
    pub async fn limits(&self, tenant: TenantId) -> Result<Limits, StoreError> {
        if let Some(limits) = self.tenants.limits.get(tenant) {
            return Ok(limits);
        }
        let all = Limits { quotas: self.quotas, rate: self.rate, copy: false };
        let own = self.store.tenant_limits(tenant).await?;
        let limits = own.map_or(all, |own| all.with(&own));
        self.tenants.limits.put(tenant, limits);
        Ok(limits)
    }

    /// Takes one request of a tenant's rate. `Ok(Err)` says how long until there is one.
    ///
    /// # Errors
    /// The store failed.
    pub async fn admit(&self, tenant: TenantId) -> Result<Result<(), Duration>, StoreError> {
        let rate = self.limits(tenant).await?.rate;
        Ok(self.buckets.take(tenant, rate, Instant::now()))
    }

    /// Whether a tenant has as many tasks running as it may, as counted a moment ago.
    pub(super) async fn is_full(&self, tenant: TenantId) -> Result<bool, StoreError> {
        if let Some(full) = self.tenants.full.get(tenant) {
            return Ok(full);
        }
        self.count_running(tenant).await
    }

    /// The same, counted now.
    pub(super) async fn count_running(&self, tenant: TenantId) -> Result<bool, StoreError> {
        let full = match self.limits(tenant).await?.quotas.running_tasks {
            None => false,
            Some(most) => self.store.running_of_tenant(tenant).await? >= u64::from(most),
        };
        self.tenants.full.put(tenant, full);
        Ok(full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_tenants_row_says_holds_and_the_rest_is_as_for_all() {
        let all = Limits { quotas: Quotas::default(), rate: Rate::default(), copy: false };
        assert_eq!(all.with(&TenantLimits::default()), all);
        let own = TenantLimits {
            unfinished_jobs: Some(0),
            running_tasks: Some(3),
            burst: Some(7),
            ..TenantLimits::default()
        };
        let limits = all.with(&own);
        assert_eq!(
            (limits.quotas.unfinished_jobs, limits.quotas.running_tasks),
            (0, Some(3)),
            "none at all is a limit"
        );
        assert_eq!((limits.rate.burst, limits.rate.per_second), (7, all.rate.per_second));
        assert_eq!(limits.quotas.upload_bytes, all.quotas.upload_bytes);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_runs_out() {
        let lately = Lately::new(Duration::from_secs(3_600));
        for n in 0..20_000 {
            lately.put(TenantId::from_u128(n), n);
        }
        assert!(lately.known.lock().unwrap().len() <= MAX_TENANTS);
        assert_eq!(lately.get(TenantId::from_u128(19_999)), Some(19_999));
        let over = Lately::new(Duration::ZERO);
        over.put(TenantId::from_u128(1), 1);
        assert_eq!(over.get(TenantId::from_u128(1)), None);
    }
}
