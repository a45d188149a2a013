//! Connections on which nothing is asked for: the first to go where there is no room for one that is new. So silence, however much of
//! it, keeps nobody out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio_util::sync::CancellationToken;

/// The connections of one port that are idle.
#[derive(Debug, Clone, Default)]
pub(super) struct Idle(Arc<Mutex<Waiting>>);

/// Bounded by the port's connections: each is in here once or not at all.
#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    /// In the order in which they fell silent.
    since: BTreeMap<u64, CancellationToken>,
}

impl Idle {
    /// A connection that has just been made.
    pub(super) fn enter(&self) -> Place {
        let place = Place { idle: self.clone(), turn: Mutex::default(), told: CancellationToken::new() };
        place.falls_silent();
        place
    }

    /// Tells the one that has been silent for the longest to go. False where none is.
    pub(super) fn make_room(&self) -> bool {
        let first = self.with(|waiting| waiting.since.pop_first());
        first.map(|(_, told)| told.cancel()).is_some()
    }

    fn with<T>(&self, what: impl FnOnce(&mut Waiting) -> T) -> T {
        what(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Place {
    idle: Idle,
    turn: Mutex<Turn>,
    told: CancellationToken,
}

#[derive(Debug, Default)]
struct Turn {
    /// Requests that are under way.
    requests: usize,
    /// Where it is among the silent ones.
    silent: Option<u64>,
}

impl Place {
    /// Waits until it is told to go.
    pub(super) async fn told(&self) {
        self.told.cancelled().await;
    }

    /// A request has begun: nobody tells the connection to go until this is dropped.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        self.with(|turn| {
            turn.requests = turn.requests.saturating_add(1);
            if let Some(at) = turn.silent.take() {
                self.idle.with(|waiting| waiting.since.remove(&at));
            }
        });
        Busy(Arc::clone(self))
    }

    fn falls_silent(&self) {
        self.with(|turn| {
            turn.silent = Some(self.idle.with(|waiting| {
                let at = waiting.next;
                waiting.next = at.wrapping_add(1);
                waiting.since.insert(at, self.told.clone());
                at
            }));
        });
    }

    /// The turn's lock is always taken before the port's.
    fn with<T>(&self, what: impl FnOnce(&mut Turn) -> T) -> T {
        what(&mut self.turn.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.with(|turn| {
            if let Some(at) = turn.silent.take() {
                self.idle.with(|waiting| waiting.since.remove(&at));
            }
        });
    }
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Busy(Arc<Place>);

impl Drop for Busy {
    fn drop(&mut self) {
        let last = self.0.with(|turn| {
            turn.requests = turn.requests.saturating_sub(1);
            turn.requests == 0
        });
        if last {
            self.0.falls_silent();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_silent_for_the_longest_goes_first_and_who_asks_for_something_stays() {
        let idle = Idle::default();
        let places = [(); 3].map(|()| Arc::new(idle.enter()));
        let told = || places.each_ref().map(|place| place.told.is_cancelled());
        let busy = places[0].busy();
        assert!(idle.make_room());
        assert_eq!(told(), [false, true, false]);
        drop(busy);
        assert!(idle.make_room());
        assert_eq!(told(), [false, true, true], "the first has fallen silent after the third");
        let (one, two) = (places[0].busy(), places[0].busy());
        drop(one);
        assert!(!idle.make_room(), "a request is under way");
        drop(two);
        assert!(idle.make_room());
        assert_eq!(told(), [true; 3]);
    }

    #[test]
    fn nothing_is_kept_of_a_connection_that_has_ended() {
        let idle = Idle::default();
        for _ in 0..100 {
            let place = Arc::new(idle.enter());
            drop(place.busy());
        }
        assert_eq!(idle.with(|waiting| waiting.since.len()), 0);
        assert!(!idle.make_room());
    }
}
