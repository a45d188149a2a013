//! Threads that each carry some of the workers' connections, from the worker's socket to storage's and back.
//!
//! Bytes that go through the broker pass two tasks, that of the worker's connection and that of storage's. Tokio's pool of threads
//! runs them on two of them as often as not, and each piece then wakes a thread that sleeps: a fifth of all that a stream costs.
//! On a lane both are on one thread, which finds the next piece when it comes round. What else a request does works there as anywhere.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::runtime::{Builder, Handle};

/// Lanes of one process at most.
pub const MOST: usize = 16;

/// Turns of tasks after which a lane looks for what has come to its sockets and from other threads. A turn moves up to 48 KiB, which
/// takes a tenth of a millisecond: after the 61 turns of tokio's own accord, whoever is new would wait for several.
const TURNS: u32 = 8;

thread_local! {
    static HERE: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Which lane this thread is, below [`MOST`]; most threads are none.
pub(crate) fn here() -> Option<usize> {
    HERE.get()
}

/// The lanes of a process. They end with it: what was opened on one may be used by anybody.
#[derive(Debug, Clone, Default)]
pub struct Lanes(Arc<[Lane]>);

#[derive(Debug)]
struct Lane {
    handle: Handle,
    /// Connections on it.
    carries: Arc<AtomicUsize>,
}

/// A connection's place on a lane, until it is dropped.
#[derive(Debug)]
pub(crate) struct OnLane {
    handle: Handle,
    carries: Arc<AtomicUsize>,
}

impl OnLane {
    pub(crate) const fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for OnLane {
    fn drop(&mut self) {
        self.carries.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Lanes {
    /// One for each processor that this process may use.
    ///
    /// # Errors
    /// The system gives no thread, or no poll.
    pub fn start() -> io::Result<Self> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self::of(processors.min(MOST))
    }

    fn of(count: usize) -> io::Result<Self> {
        (0..count).map(Lane::start).collect::<io::Result<_>>().map(Self)
    }

    /// A place on the lane that carries least; none where there are no lanes.
    pub(crate) fn pick(&self) -> Option<OnLane> {
        let lane = self.0.iter().min_by_key(|lane| lane.carries.load(Ordering::Relaxed))?;
        lane.carries.fetch_add(1, Ordering::Relaxed);
        Some(OnLane { handle: lane.handle.clone(), carries: Arc::clone(&lane.carries) })
    }
}

impl Lane {
    fn start(number: usize) -> io::Result<Self> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .event_interval(TURNS)
            .global_queue_interval(TURNS)
            .build()?;
        let handle = runtime.handle().clone();
        std::thread::Builder::new().name(format!("lane-{number}")).spawn(move || {
            HERE.set(Some(number));
            runtime.block_on(std::future::pending::<()>());
        })?;
        Ok(Self { handle, carries: Arc::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_are_spread_and_know_their_lane() {
        let lanes = Lanes::of(3).unwrap();
        let places: Vec<OnLane> = (0..6).map(|_| lanes.pick().unwrap()).collect();
        let mut carried = Vec::new();
        for place in &places {
            carried.push(place.handle().spawn(async { here() }).await.unwrap());
        }
        carried.sort_unstable();
        assert_eq!(carried, [0, 0, 1, 1, 2, 2].map(Some));
        assert_eq!(here(), None);
        drop(places);
        assert!(lanes.0.iter().all(|lane| lane.carries.load(Ordering::Relaxed) == 0));
        assert!(Lanes::default().pick().is_none());
    }
}
