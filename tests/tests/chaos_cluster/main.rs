//! Broker replicas, workers, PostgreSQL, Redis and an S3 server that are killed, paused, cut off, slowed, filled up and given wrong
//! clocks at random while thousands of short tasks go through. Afterwards every job has ended, what it made is whole and right, no
//! job is lost, none was committed twice, the audit log verifies, nothing is left over, and no log and no span has a secret in it.
//!
//! A run goes on for its time, and where the machine is slow until enough tasks are done, but not for more than three times as long. It
//! says its seed: `CHAOS_SEED=n` repeats one, `CHAOS_SECONDS=n` makes it longer, `CHAOS_ROUNDS=n` makes more of them, each of its
//! own seed; `CHAOS_KEEP=dir` keeps the logs.

#[path = "../../../broker/tests/support/collector.rs"]
mod collector;
#[path = "../../../broker/tests/common/mod.rs"]
mod common;
mod crew;
mod faults;
#[path = "../../../broker/tests/support/link.rs"]
mod link;
#[path = "../../../broker/tests/support/postgres.rs"]
mod postgres;
mod random;
#[path = "../../../broker/tests/support/redis.rs"]
mod redis_server;
#[path = "../../../broker/tests/support/s3.rs"]
mod s3;
mod site;
mod space;
mod verdict;

use crew::{Shared, Tenant};
use faults::{Crew, Menu, Planned};
use mpegflow_tests::media;
use random::Random;
use s3::Kind;
use site::{REAL, Site};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// After the last fault everything ends, also on a machine that is busy.
const DRAINED: Duration = Duration::from_secs(300);
/// After Redis was wiped, and nothing else happened, within this time.
const DRAINED_OF_REDIS: Duration = Duration::from_secs(60);
/// Made-up workers.
const WORKERS: usize = 32;
/// Unfinished jobs at a time, at most.
const IN_FLIGHT: u64 = 60;
/// Tasks that a run does at least, where the machine lets it.
const TASKS: u64 = 700;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// The made-up workers.
struct Workers {
    shared: Arc<Shared>,
    random: Random,
    running: Vec<tokio::task::JoinHandle<()>>,
}

impl Workers {
    fn start(shared: &Arc<Shared>, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let running =
            (0..WORKERS).map(|n| tokio::spawn(crew::work(Arc::clone(shared), n, random.next()))).collect();
        Self { shared: Arc::clone(shared), random, running }
    }
}

impl Crew for Workers {
    /// They are gone in the middle of whatever they did, and others take their places.
    fn kill_some(&mut self) {
        for n in 0..self.running.len() {
            if self.random.below(4) == 0 {
                self.running[n].abort();
                self.running[n] = tokio::spawn(crew::work(Arc::clone(&self.shared), n, self.random.next()));
            }
        }
    }

    fn freeze_some(&mut self, freeze: bool) {
        let below = if freeze { 1 + self.random.below(WORKERS / 2) } else { 0 };
        self.shared.freeze(below);
    }
}

/// One run: some time of faults, the end of them, and the verdict.
fn run(test: &str, kind: Kind, menu: Menu, seed: u64, seconds: u64) {
    let seconds = number("CHAOS_SECONDS").unwrap_or(seconds);
    let first = number("CHAOS_SEED").unwrap_or(seed);
    let rounds = number("CHAOS_ROUNDS").unwrap_or(1);
    // One at a time: each of them wants the whole machine.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    if !space::enter(test, Duration::from_secs(rounds * (seconds * 3 + 600))) {
        return;
    }
    for seed in first..first + rounds {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(round(test, kind, menu, seed, Duration::from_secs(seconds)));
        runtime.shutdown_timeout(Duration::from_secs(5));
    }
}

async fn round(test: &str, kind: Kind, menu: Menu, seed: u64, lasts: Duration) {
    let real = if menu == Menu::Everything { 2 } else { 0 };
    println!("{test}: CHAOS_SEED={seed} CHAOS_SECONDS={}, {kind:?}", lasts.as_secs());
    let plan = faults::plan(seed, lasts * 3, menu, real);
    let mut site = Site::start(kind, real).await;
    let kept = Keep(site.dir.path().to_owned());
    let shared = Shared::new(&site).await;
    let mut random = Random::new(seed);
    tokio::spawn(Arc::clone(&shared).count());
    let mut workers = Workers::start(&shared, random.next());
    let mut tenants = Vec::new();
    for number in 0..REAL {
        let mut tenant = Tenant::new(&shared, number, random.next());
        tenant.begin().await;
        tenants.push(tokio::spawn(tenant.run(IN_FLIGHT)));
    }
    let (films, mut owner) = (Arc::clone(&shared), Tenant::new(&shared, REAL, random.next()));
    let real_jobs = tokio::spawn(async move {
        if real > 0 {
            submit_films(&films, &mut owner).await;
        }
    });

    let started = Instant::now();
    // What begins and what ends, in the order of time.
    let mut moves: Vec<(Duration, bool, Planned)> =
        plan.iter().flat_map(|p| [(p.at, true, *p), (p.until, false, *p)]).collect();
    moves.sort_by_key(|(at, begins, _)| (*at, *begins));
    let mut moves = moves.into_iter().peekable();
    let mut begun: Vec<Planned> = Vec::new();
    let is_enough = || started.elapsed() >= lasts && shared.done.load(Ordering::Relaxed) >= TASKS;
    while moves.peek().is_some() && !is_enough() {
        while let Some((_, begins, planned)) = moves.next_if(|(at, ..)| *at <= started.elapsed()) {
            if begins {
                println!("  {planned}");
                planned.begin(&mut site, &mut workers);
                begun.push(planned);
            } else {
                planned.end(&mut site, &mut workers);
                begun.retain(|other| *other != planned);
            }
        }
        site.tend();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for planned in begun {
        planned.end(&mut site, &mut workers);
    }
    shared.enough.store(true, Ordering::Relaxed);
    let quiet = Instant::now();
    let ended = async {
        for tenant in tenants {
            tenant.await.unwrap();
        }
        real_jobs.await.unwrap();
    };
    tokio::pin!(ended);
    let (mut submitted, mut drained) = (false, false);
    let within = if menu == Menu::RedisWiped { DRAINED_OF_REDIS } else { DRAINED };
    while !drained {
        assert!(quiet.elapsed() < within, "{}", verdict::stuck(&site).await);
        site.tend();
        if submitted {
            drained = verdict::is_drained(&site).await;
        }
        tokio::select! {
            () = &mut ended, if !submitted => submitted = true,
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
        }
    }
    println!("  drained {:.1} s after the last fault", quiet.elapsed().as_secs_f64());
    verdict::judge(&mut site, &shared, menu).await;
    for worker in workers.running {
        worker.abort();
    }
    drop(kept);
}

/// Tiny clips for the real workers, a few at a time.
async fn submit_films(shared: &Arc<Shared>, owner: &mut Tenant) {
    let clip = std::fs::read(media::clip(1, 160, 120)).unwrap();
    let upload = owner.upload(&clip).await;
    let enough = || shared.enough.load(Ordering::Relaxed);
    while !enough() {
        let jobs =
            [owner.submit(&upload, crew::Kind::Film).await, owner.submit(&upload, crew::Kind::Film).await];
        for id in jobs {
            // No more than the few real workers can do: encodes take their time.
            while !enough() && !owner.has_ended(&id).await {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    }
}

/// Keeps the logs of a run for somebody to read.
struct Keep(std::path::PathBuf);

impl Drop for Keep {
    fn drop(&mut self) {
        if let Ok(to) = std::env::var("CHAOS_KEEP") {
            let _ = std::fs::create_dir_all(&to);
            let _ = std::process::Command::new("cp").arg("-r").arg(&self.0).arg(to).status();
        }
    }
}

#[test]
fn chaos_loses_nothing_and_commits_nothing_twice_over_versitygw() {
    let test = "chaos_loses_nothing_and_commits_nothing_twice_over_versitygw";
    run(test, Kind::Versitygw, Menu::Everything, 1, 45);
}

#[test]
fn chaos_loses_nothing_and_commits_nothing_twice_over_minio() {
    let test = "chaos_loses_nothing_and_commits_nothing_twice_over_minio";
    run(test, Kind::Minio, Menu::Everything, 2, 45);
}

#[test]
fn redis_wiped_under_load_loses_nothing_commits_nothing_twice_and_is_drained_within_a_minute() {
    let test = "redis_wiped_under_load_loses_nothing_commits_nothing_twice_and_is_drained_within_a_minute";
    run(test, Kind::Versitygw, Menu::RedisWiped, 3, 15);
}
