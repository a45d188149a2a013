//! The isolation gate: whether the policies around a pool hold, on each node where its workers are.
//!
//! A canary is a pod that is to policies what a worker is; it looks at what no worker may reach and says what it saw. What it says is
//! judged here, against the operator's own looks at the same addresses: silence proves something only where somebody answers others. The
//! broker is given the verdict, and gives a worker no lease without a fresh one for its node and for the policies as they are.
//!
//! Who is trusted for what: of a canary's report only an answer counts by itself. A report is read of no pod but the one whose UID the API
//! server gave to this process when it made it, so that whoever can make pods makes no verdicts; who can write a pod's *status* (a node
//! for its own pods, and whom RBAC lets, where no admission policy stands before it) can. A pool's image is what its workers are made
//! of, and so is trusted for what it says of them.
//!
//! | module | holds |
//! |---|---|
//! | [`judge`] | what a report is worth. Pure |
//! | `controls` | the operator's own looks |
//! | `workers` | where workers are |
//! | `state` | what is due, what was found, what the broker was told. Pure |
//! | `keep` | the loop around it: watches, pods, calls |

mod controls;
pub mod judge;
mod keep;
mod state;
mod workers;

pub(crate) use keep::{Around, keep};

use crate::control::Seen;
use crate::crd::ConditionStatus;
use crate::desired::Target;
use controls::Controls;
use serde_json::Value;
use state::State;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Namespace and name of a pool.
pub(crate) type Key = (String, String);

/// What is to be verified of a pool.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Wanted {
    /// UID of the resource.
    pub(crate) uid: String,
    /// Digest of what the verdict is about.
    pub(crate) digest: String,
    /// Its canary, but for name and node.
    pub(crate) template: Arc<Value>,
    /// What the canary looks at.
    pub(crate) targets: Arc<[Target]>,
    /// How often.
    pub(crate) period: Duration,
}

/// What is known of a pool's isolation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Isolation {
    /// Whether it is isolated.
    pub(crate) status: ConditionStatus,
    /// Why, as one word.
    pub(crate) reason: &'static str,
    /// Why, as a sentence.
    pub(crate) message: String,
}

impl Isolation {
    pub(crate) fn unknown(reason: &'static str, message: &str) -> Self {
        Self { status: ConditionStatus::Unknown, reason, message: message.to_owned() }
    }
}

/// The gate, as reconcilers see it.
#[derive(Debug)]
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Notify,
}

impl Gate {
    /// With room for so many canaries at once.
    pub(crate) fn new(most: u16) -> Self {
        Self { state: Mutex::new(State::new(usize::from(most))), changed: Notify::new() }
    }

    /// A pool's objects are in place, and the broker knows it: it is to be verified. What is known of that, if anything is.
    pub(crate) fn wants(&self, key: &Key, wanted: Wanted) -> Option<Isolation> {
        let mut state = self.lock();
        state.wants(key, wanted);
        let isolation = state.isolation(key, Instant::now());
        drop(state);
        self.changed.notify_one();
        isolation
    }

    /// A pool's policies were touched by somebody, and were not as they should be where `mended`.
    pub(crate) fn touched(&self, key: &Key, mended: bool) {
        self.lock().touched(key, mended, Instant::now());
        self.changed.notify_one();
    }

    /// A pool ends.
    pub(crate) fn forget(&self, key: &Key) {
        self.lock().forget(key);
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self, controls: &Controls, seen: &Seen) -> Vec<state::Step> {
        self.lock().next(Instant::now(), controls, seen, keep::draw)
    }
}
