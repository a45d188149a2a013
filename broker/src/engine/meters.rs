//! What is measured for the metrics. Labels come from closed lists alone: no id, no name that a tenant or a worker chose.

use crate::state::{Ending, TaskMove};
use mpegflow_protocol::failure::FailureCode;
use mpegflow_protocol::ids::PoolName;
use mpegflow_protocol::telemetry::Counts;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Label sets: names and values that are known when the program is made.
type Labels = Vec<(&'static str, &'static str)>;

/// Buckets in seconds: from what a fast machine does to what nobody waits for.
const BUCKETS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0];

/// Makes histograms of those buckets.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seconds;

impl MetricConstructor<Histogram> for Seconds {
    fn new_metric(&self) -> Histogram {
        Histogram::new(BUCKETS)
    }
}

/// What is measured.
#[derive(Debug)]
pub struct Meters {
    attempts: Family<Labels, Counter>,
    failures: Family<Labels, Counter>,
    lease_wait: Histogram,
    storage: Family<Labels, Histogram, Seconds>,
    requests: Family<Labels, Counter>,
    request_time: Family<Labels, Histogram, Seconds>,
    /// What workers say that they did, by pool.
    work: Mutex<BTreeMap<PoolName, Counts>>,
}

/// Pools whose workers' counts are kept. A pool is an operator's to make, so these are more than there are.
const MOST_POOLS: usize = 1_000;

impl Default for Meters {
    fn default() -> Self {
        Self {
            attempts: Family::default(),
            failures: Family::default(),
            lease_wait: Seconds.new_metric(),
            storage: Family::new_with_constructor(Seconds),
            requests: Family::default(),
            request_time: Family::new_with_constructor(Seconds),
            work: Mutex::default(),
        }
    }
}

impl Meters {
    /// A worker of a pool did more, as it says.
    pub fn worked(&self, pool: &PoolName, counts: Counts) {
        let counts = counts.clamped();
        if counts.is_empty() {
            return;
        }
        let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = work.get_mut(pool) {
            *known = known.plus(counts);
        } else if work.len() < MOST_POOLS {
            work.insert(pool.clone(), counts);
        }
    }

    /// What workers of each pool did, as they say.
    pub fn work(&self) -> Vec<(PoolName, Counts)> {
        let work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        work.iter().map(|(pool, counts)| (pool.clone(), *counts)).collect()
    }

    /// A task waited this long from when it could start until it was leased.
    pub fn leased_after(&self, wait: Duration) {
        self.lease_wait.observe(wait.as_secs_f64());
    }

    /// An attempt at a task of that kind ended.
    pub fn ended(&self, kind: &'static str, ending: &Ending, task: &TaskMove, failure: Option<FailureCode>) {
        let outcome = match (ending, task) {
            (_, TaskMove::Succeed { .. }) => "succeeded",
            (_, TaskMove::Cancel) => "canceled",
            (Ending::Lost { .. }, _) => "lost",
            (Ending::Released, _) => "released",
            _ => "failed",
        };
        self.attempts.get_or_create(&vec![("task", kind), ("outcome", outcome)]).inc();
        if let Some(code) = failure {
            self.failures.get_or_create(&vec![("code", code.as_str())]).inc();
        }
    }

    /// Storage took this long over an operation.
    pub fn stored(&self, operation: &'static str, good: bool, took: Duration) {
        let result = if good { "ok" } else { "error" };
        self.storage
            .get_or_create(&vec![("operation", operation), ("result", result)])
            .observe(took.as_secs_f64());
    }

    /// A request on a route was answered: time to the answer's head.
    pub fn answered(&self, route: &'static str, status: u16, took: Duration) {
        let class = match status {
            100..200 => "1xx",
            200..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            _ => "5xx",
        };
        self.requests.get_or_create(&vec![("route", route), ("status", class)]).inc();
        self.request_time.get_or_create(&vec![("route", route)]).observe(took.as_secs_f64());
    }

    /// Puts all of it into a registry.
    pub fn register(&self, registry: &mut Registry) {
        let seconds = || Unit::Seconds;
        registry.register("attempts", "Attempts that ended, by task and outcome", self.attempts.clone());
        registry.register(
            "attempt_failures",
            "Attempts that failed, by documented code",
            self.failures.clone(),
        );
        let help = "From when a task could start until a worker had it";
        registry.register_with_unit("lease_wait", help, seconds(), self.lease_wait.clone());
        let help = "Operations of storage, to their end; of reads, to their first byte";
        registry.register_with_unit("storage", help, seconds(), self.storage.clone());
        registry.register(
            "http_requests",
            "Requests of the public API, by route and status",
            self.requests.clone(),
        );
        let help = "Requests of the public API, to the head of the answer";
        registry.register_with_unit("http_request", help, seconds(), self.request_time.clone());
    }
}
