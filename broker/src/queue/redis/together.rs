//! Takes and ends of many callers in one run of the script: see [`crate::batch`].

use super::script::Pools;
use super::{offer_args, taken};
use crate::batch::Batch;
use crate::model::{ReadyTask, Time};
use crate::queue::{QueueError, RunningTask, Take};
use mpegflow_protocol::ids::{PoolName, TenantId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most in one run of the script, which holds up everybody else's.
pub(super) const MOST: usize = 64;

/// A task that is asked for.
#[derive(Debug)]
pub(super) struct TakeAsk {
    pub(super) pool: PoolName,
    pub(super) tenant: Option<TenantId>,
    pub(super) now: Time,
}

/// Takes.
pub(super) struct Takes(pub(super) Arc<Pools>);

impl Takes {
    async fn of_pool(
        &self,
        pool: &PoolName,
        asks: &[TakeAsk],
    ) -> Result<Vec<Result<Take, QueueError>>, QueueError> {
        let now = asks.iter().map(|ask| ask.now).max().unwrap_or(Time(0));
        let mut invocation = self.0.invocation(pool, "take", now);
        for ask in asks {
            invocation.arg(ask.tenant.map_or_else(String::new, |tenant| tenant.to_string()));
        }
        let answers: Vec<Vec<Option<String>>> = self.0.run(&invocation).await?;
        let unread = || QueueError::Failed("an answer that cannot be read".into());
        Ok(answers.iter().map(|answer| taken(pool, answer).ok_or_else(unread)).collect())
    }
}

impl Batch for Takes {
    type Ask = TakeAsk;
    type Answer = Result<Take, QueueError>;

    fn keys(_: &TakeAsk) -> impl IntoIterator<Item = u128> {
        []
    }

    async fn run(&self, asks: Vec<TakeAsk>) -> Vec<Self::Answer> {
        let mut answers = Answers::of(asks.len());
        for (pool, (places, asks)) in by_pool(asks, |ask| &ask.pool) {
            answers.put(&places, self.of_pool(&pool, &asks).await);
        }
        answers.all()
    }
}

/// An attempt that ended, and the task that waits after it in the same pool.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) ended: RunningTask,
    pub(super) next: Option<ReadyTask>,
    pub(super) now: Time,
}

/// Ends of attempts.
pub(super) struct Ends(pub(super) Arc<Pools>);

impl Ends {
    async fn of_pool(
        &self,
        pool: &PoolName,
        asks: &[Ended],
    ) -> Result<Vec<Result<(), QueueError>>, QueueError> {
        let now = asks.iter().map(|ask| ask.now).max().unwrap_or(Time(0));
        let mut invocation = self.0.invocation(pool, "settle", now);
        for ask in asks {
            invocation.arg(ask.ended.task.to_string());
            match &ask.next {
                Some(next) => offer_args(&mut invocation, next),
                None => ["", "", "", ""].iter().for_each(|nothing| {
                    invocation.arg(*nothing);
                }),
            }
        }
        let _: redis::Value = self.0.run(&invocation).await?;
        Ok(asks.iter().map(|_| Ok(())).collect())
    }
}

impl Batch for Ends {
    type Ask = Ended;
    type Answer = Result<(), QueueError>;

    fn keys(_: &Ended) -> impl IntoIterator<Item = u128> {
        []
    }

    async fn run(&self, asks: Vec<Ended>) -> Vec<Self::Answer> {
        let mut answers = Answers::of(asks.len());
        for (pool, (places, asks)) in by_pool(asks, |ask| &ask.ended.pool) {
            answers.put(&places, self.of_pool(&pool, &asks).await);
        }
        answers.all()
    }
}

/// The asks of each pool, with their places among all asks.
fn by_pool<A>(asks: Vec<A>, pool: impl Fn(&A) -> &PoolName) -> BTreeMap<PoolName, (Vec<usize>, Vec<A>)> {
    let mut pools: BTreeMap<PoolName, (Vec<usize>, Vec<A>)> = BTreeMap::new();
    for (place, ask) in asks.into_iter().enumerate() {
        let (places, asks) = pools.entry(pool(&ask).clone()).or_default();
        places.push(place);
        asks.push(ask);
    }
    pools
}

/// Answers, put in the places of those who asked.
struct Answers<T>(Vec<Result<T, QueueError>>);

impl<T> Answers<T> {
    fn of(asks: usize) -> Self {
        Self((0..asks).map(|_| Err(QueueError::Failed("an answer is missing".into()))).collect())
    }

    fn put(&mut self, places: &[usize], done: Result<Vec<Result<T, QueueError>>, QueueError>) {
        let answers = done.unwrap_or_else(|e| places.iter().map(|_| Err(again(&e))).collect());
        for (place, answer) in places.iter().zip(answers) {
            if let Some(here) = self.0.get_mut(*place) {
                *here = answer;
            }
        }
    }

    fn all(self) -> Vec<Result<T, QueueError>> {
        self.0
    }
}

/// The same error for another caller.
fn again(error: &QueueError) -> QueueError {
    match error {
        QueueError::Down => QueueError::Down,
        QueueError::Failed(what) => QueueError::Failed(what.clone()),
        e => QueueError::Failed(e.to_string()),
    }
}
