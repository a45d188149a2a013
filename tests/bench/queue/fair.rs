//! What a busy neighbour costs the others: 100 tenants with ten jobs each, and the same where one of them has 9,000 more, or where
//! it had them before the others came.

use super::{Site, median, metric, ours, percentile, redis_server};
use ours::Ours;
use serde_json::Value;
use std::time::Duration;

/// Workers, which do one job after the other, of one tenant each until that has nothing more.
const WORKERS: usize = 16;
/// What a job takes.
const TAKES: Duration = Duration::from_millis(20);
const TENANTS: usize = 100;
/// Jobs of each.
const JOBS: usize = 10;
/// Jobs of the busy one.
const MANY: usize = 9_000;

pub(crate) async fn run(site: &Site, runs: usize) -> Vec<Value> {
    let mut waits: [Vec<(f64, f64)>; 2] = Default::default();
    for _ in 0..runs.min(3) {
        for (many, waits) in [0, MANY].into_iter().zip(&mut waits) {
            let redis = redis_server::Server::start(&[]);
            let ours = Ours::of_tenants(&site.database(), redis.config(), WORKERS, TENANTS, JOBS, many).await;
            let waited = ours.waits((TENANTS - 1) * JOBS, TAKES).await;
            ours.close().await;
            waits.push((percentile(waited.clone(), 50), percentile(waited, 99)));
        }
    }
    let of = |at: usize, f: fn(&(f64, f64)) -> f64| median(waits[at].iter().map(f).collect());
    vec![
        metric(
            "wait of 99 tenants, p50: with 9,000 jobs of the 100th / without",
            "1.0x",
            "s",
            of(1, |w| w.0),
            of(0, |w| w.0),
        ),
        metric(
            "wait of 99 tenants, p99: with 9,000 jobs of the 100th / without",
            "1.0x",
            "s",
            of(1, |w| w.1),
            of(0, |w| w.1),
        ),
    ]
}
