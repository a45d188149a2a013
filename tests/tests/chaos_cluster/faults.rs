//! What goes wrong when: drawn from a seed, so that a run can be repeated as far as the machine lets it.

use crate::link::Way;
use crate::random::Random;
use crate::site::{REPLICAS, Site, can_turn_clocks};
use crate::space;
use mpegflow_tests::system::signal_pid;
use std::io::Write as _;
use std::time::Duration;

/// What is hit. One fault at a time is at each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    Replica(usize),
    /// A way of a replica, by its place in [`crate::site::Replica::links`].
    Way(usize, usize),
    Clock,
    Cable,
    Redis,
    Postgres,
    Storage,
    Crew,
    Real(usize),
}

/// What is done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// SIGKILL, and started again.
    Kill,
    /// SIGSTOP, and SIGCONT.
    Pause,
    /// Some process of it is killed, not all.
    KillPart,
    /// All that it knows is deleted.
    Wipe,
    /// Its disk is full.
    Fill,
    Link(Way),
    /// A clock is off by so many seconds.
    Turn(i64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) at: Duration,
    pub(crate) until: Duration,
    pub(crate) subject: Subject,
    pub(crate) fault: Fault,
}

/// Which faults there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Menu {
    Everything,
    /// Redis loses everything, and nothing else happens.
    RedisWiped,
}

const WAYS: [&str; 5] = ["public API", "worker API", "database", "Redis", "storage"];

impl std::fmt::Display for Planned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (at, lasts) = (self.at.as_millis(), (self.until - self.at).as_millis());
        match self.subject {
            Subject::Way(replica, way) => {
                write!(f, "{at:>6} ms: {:?} for {lasts} ms: replica {replica}, {}", self.fault, WAYS[way])
            }
            subject => write!(f, "{at:>6} ms: {:?} for {lasts} ms: {subject:?}", self.fault),
        }
    }
}

/// Everything that can be drawn, each as often as it stands here, with the longest time that it lasts, in ms.
fn menu(menu: Menu, workers: usize) -> Vec<(Subject, Fault, u64)> {
    use Fault::{Fill, Kill, KillPart, Link, Pause, Turn, Wipe};
    let mut all = vec![(Subject::Redis, Wipe, 1)];
    if menu == Menu::RedisWiped {
        return all;
    }
    all.extend([
        (Subject::Redis, Kill, 3_000),
        (Subject::Redis, Pause, 6_000),
        (Subject::Postgres, Kill, 1_500),
        (Subject::Postgres, KillPart, 1),
        (Subject::Postgres, Pause, 9_000),
        (Subject::Storage, Kill, 3_000),
        (Subject::Storage, Pause, 6_000),
        // One that is frozen for longer than a lease wakes with a lease that is over.
        (Subject::Crew, Pause, 12_000),
        (Subject::Crew, Kill, 1),
    ]);
    if space::is_own() {
        all.extend([
            (Subject::Storage, Fill, 3_000),
            (Subject::Postgres, Fill, 2_000),
            (Subject::Cable, Link(Way::Mute), 8_000),
        ]);
    }
    if can_turn_clocks() {
        all.extend([(Subject::Clock, Turn(-50), 8_000), (Subject::Clock, Turn(70), 8_000)]);
    }
    for replica in 0..REPLICAS {
        all.push((Subject::Replica(replica), Kill, 2_000));
        // Longer than a leader's term.
        all.push((Subject::Replica(replica), Pause, 9_000));
    }
    for worker in 0..workers {
        all.extend([
            (Subject::Real(worker), Kill, 1_500),
            (Subject::Real(worker), Pause, 12_000),
            (Subject::Real(worker), KillPart, 1),
        ]);
    }
    all
}

/// A plan for so long.
pub(crate) fn plan(seed: u64, lasts: Duration, kind: Menu, workers: usize) -> Vec<Planned> {
    let mut random = Random::new(seed);
    let mut planned: Vec<Planned> = Vec::new();
    let (mut at, mut deck) = (1_000, Vec::new());
    let last = u64::try_from(lasts.as_millis()).unwrap();
    while at < last {
        if deck.is_empty() {
            deck = menu(kind, workers);
            if kind == Menu::Everything {
                // Of the ways, some each time.
                for _ in 0..8 {
                    let subject = Subject::Way(random.below(REPLICAS), random.below(WAYS.len()));
                    let slow = Way::Slow(Duration::from_millis(20 + random.below(180) as u64));
                    let way = [Way::Cut, Way::Mute, slow][random.below(3)];
                    deck.push((subject, Fault::Link(way), 7_000));
                }
            }
        }
        let (subject, fault, most) = deck.swap_remove(random.below(deck.len()));
        let time = 1.max(most * (20 + random.below(81) as u64) / 100);
        let until = Duration::from_millis((at + time).min(last + 1));
        let free = |p: &Planned| p.subject != subject || p.until <= Duration::from_millis(at);
        if planned.iter().all(free) {
            planned.push(Planned { at: Duration::from_millis(at), until, subject, fault });
            at += if kind == Menu::RedisWiped { 2_500 } else { 500 + random.below(1_900) as u64 };
        }
    }
    planned
}

/// What fills a disk.
const BALLAST: &str = "ballast";

fn fill(dir: &std::path::Path) {
    let Ok(mut file) = std::fs::File::options().create(true).append(true).open(dir.join(BALLAST)) else {
        return;
    };
    for size in [1 << 20, 4 << 10, 1] {
        let block = vec![7; size];
        while file.write_all(&block).is_ok() {}
    }
}

/// What the crew needs besides: how many are killed, and what starts others.
pub(crate) trait Crew {
    fn kill_some(&mut self);
    fn freeze_some(&mut self, freeze: bool);
}

impl Planned {
    pub(crate) fn begin(&self, site: &mut Site, crew: &mut dyn Crew) {
        match (self.subject, self.fault) {
            (Subject::Replica(n), Fault::Kill) => site.replicas[n].kill(),
            (Subject::Replica(n), _) => site.replicas[n].signal("STOP"),
            (Subject::Way(n, way), Fault::Link(how)) => site.replicas[n].links()[way].set(how),
            (Subject::Way(..), _) => {}
            (Subject::Clock, Fault::Turn(seconds)) => site.turn_clock(seconds),
            (Subject::Clock, _) => {}
            (Subject::Cable, _) => site.plug(false),
            (Subject::Redis, Fault::Kill) => site.redis.kill(),
            (Subject::Redis, Fault::Pause) => site.redis.signal("STOP"),
            (Subject::Redis, _) => site.wipe_redis(),
            (Subject::Postgres, Fault::Kill) => {
                site.postgres_wanted = false;
                site.postgres.kill();
            }
            (Subject::Postgres, Fault::Pause) => site.postgres.signal("STOP"),
            (Subject::Postgres, Fault::Fill) => fill(site.postgres.dir()),
            // A server process: the whole server throws its connections away and recovers.
            (Subject::Postgres, _) => {
                if let Some(pid) = site.postgres_pids().last() {
                    signal_pid(*pid, "KILL");
                }
            }
            (Subject::Storage, Fault::Kill) => site.s3.kill(),
            (Subject::Storage, Fault::Pause) => site.s3.pause(),
            (Subject::Storage, _) => fill(site.s3.dir.path()),
            (Subject::Crew, Fault::Pause) => crew.freeze_some(true),
            (Subject::Crew, _) => crew.kill_some(),
            (Subject::Real(n), Fault::Kill) => site.workers[n].kill(),
            (Subject::Real(n), Fault::Pause) => site.workers[n].signal("STOP"),
            (Subject::Real(n), _) => site.workers[n].kill_codec(),
        }
    }

    pub(crate) fn end(&self, site: &mut Site, crew: &mut dyn Crew) {
        match (self.subject, self.fault) {
            (Subject::Replica(n), Fault::Kill) => site.replicas[n].wanted = true,
            (Subject::Replica(n), _) => site.replicas[n].signal("CONT"),
            (Subject::Way(n, way), _) => site.replicas[n].links()[way].set(Way::Open),
            (Subject::Clock, _) => site.turn_clock(0),
            (Subject::Cable, _) => site.plug(true),
            (Subject::Redis, Fault::Kill) => site.redis.restart(),
            (Subject::Redis, Fault::Pause) => site.redis.signal("CONT"),
            (Subject::Redis, _) => {}
            (Subject::Postgres, Fault::Kill) => site.postgres_wanted = true,
            (Subject::Postgres, Fault::Pause) => site.postgres.signal("CONT"),
            (Subject::Postgres, Fault::Fill) => drop(std::fs::remove_file(site.postgres.dir().join(BALLAST))),
            (Subject::Postgres, _) => {}
            (Subject::Storage, Fault::Kill) => site.s3.restart(),
            (Subject::Storage, Fault::Pause) => site.s3.resume(),
            (Subject::Storage, _) => drop(std::fs::remove_file(site.s3.dir.path().join(BALLAST))),
            (Subject::Crew, Fault::Pause) => crew.freeze_some(false),
            (Subject::Crew, _) => {}
            (Subject::Real(n), Fault::Kill) => site.workers[n].wanted = true,
            (Subject::Real(n), Fault::Pause) => site.workers[n].signal("CONT"),
            (Subject::Real(_), _) => {}
        }
    }
}
