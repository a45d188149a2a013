//! Calls that come at about the same time, done together: one transaction with one flush to disk, or one script, for many
//! callers. Whatever is asked for while one batch is under way goes into the next. Each caller gets its own answer, and gets
//! it when the whole batch is done; nobody is answered before.

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::Instant;

/// A batch that is smaller than the one before waits this long for those who were in that one: they tend to come again together.
/// Who calls alone never waits.
const LINGER: Duration = Duration::from_millis(1);
/// Asks that wait for their batch; beyond, callers wait to be let in.
const WAITING: usize = 4_096;

/// What is done for many at once.
pub(crate) trait Batch: Send + Sync + 'static {
    /// What one caller asks for.
    type Ask: Send + 'static;
    /// What one caller is answered.
    type Answer: Send + 'static;

    /// What may be asked for once in a batch: of two asks that have one of these in common, the later goes into a later batch.
    fn keys(ask: &Self::Ask) -> impl IntoIterator<Item = u128>;

    /// Does it: one answer for each ask, in their order.
    fn run(&self, asks: Vec<Self::Ask>) -> impl Future<Output = Vec<Self::Answer>> + Send;
}

type Waiting<B> = (<B as Batch>::Ask, oneshot::Sender<<B as Batch>::Answer>);

/// Where asks are handed in. What does the batches ends with the last clone of this.
pub(crate) struct Batcher<B: Batch>(mpsc::Sender<Waiting<B>>);

impl<B: Batch> Clone for Batcher<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<B: Batch> std::fmt::Debug for Batcher<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Batcher")
    }
}

impl<B: Batch> Batcher<B> {
    /// Batches of at most `most`, so many of them at a time. Needs a runtime.
    pub(crate) fn start(batch: B, at_a_time: usize, most: usize) -> Self {
        let (asks, asked) = mpsc::channel(WAITING);
        let (batch, asked) = (Arc::new(batch), Arc::new(Mutex::new(asked)));
        for _ in 0..at_a_time.max(1) {
            tokio::spawn(lane(Arc::clone(&batch), Arc::clone(&asked), most.max(1)));
        }
        Self(asks)
    }

    /// Asks, and waits for the answer. `None` only where the runtime is about to end. A caller that goes away before its batch
    /// begins is not in it; later it is, and nobody hears the answer.
    pub(crate) async fn ask(&self, ask: B::Ask) -> Option<B::Answer> {
        let (answer, answered) = oneshot::channel();
        self.0.send((ask, answer)).await.ok()?;
        answered.await.ok()
    }
}

async fn lane<B: Batch>(batch: Arc<B>, asked: Arc<Mutex<mpsc::Receiver<Waiting<B>>>>, most: usize) {
    let mut put_off = Vec::new();
    let mut before = 1;
    loop {
        let gathered = gather::<B>(&asked, &mut put_off, before.min(most), most).await;
        if gathered.is_empty() {
            return;
        }
        before = gathered.len();
        let (asks, answers): (Vec<_>, Vec<_>) = gathered.into_iter().unzip();
        for (answer, told) in answers.into_iter().zip(batch.run(asks).await) {
            // Who asked may have gone.
            let _ = answer.send(told);
        }
    }
}

/// The next batch: what was put off, what waits, and for a moment what may still come. Empty when nobody is left to ask.
async fn gather<B: Batch>(
    asked: &Mutex<mpsc::Receiver<Waiting<B>>>,
    put_off: &mut Vec<Waiting<B>>,
    expected: usize,
    most: usize,
) -> Vec<Waiting<B>> {
    let mut keys = HashSet::new();
    let mut gathered = Vec::new();
    let mut later = Vec::new();
    let mut sort = |waiting: Waiting<B>, gathered: &mut Vec<Waiting<B>>, later: &mut Vec<Waiting<B>>| {
        if waiting.1.is_closed() {
            return;
        }
        let wanted: Vec<u128> = B::keys(&waiting.0).into_iter().collect();
        if gathered.len() >= most || wanted.iter().any(|key| keys.contains(key)) {
            later.push(waiting);
        } else {
            keys.extend(wanted);
            gathered.push(waiting);
        }
    };
    for waiting in put_off.drain(..) {
        sort(waiting, &mut gathered, &mut later);
    }
    // What was put off does not wait for a lane that holds the receiver and has nothing to do.
    let held = if gathered.is_empty() { Some(asked.lock().await) } else { asked.try_lock().ok() };
    let Some(mut asked) = held else {
        *put_off = later;
        return gathered;
    };
    while gathered.is_empty() {
        let Some(waiting) = asked.recv().await else { return gathered };
        sort(waiting, &mut gathered, &mut later);
    }
    let until = Instant::now().checked_add(LINGER);
    // What is put off counts for nothing here, but must not grow without end.
    while gathered.len() < most && later.len() < most {
        let waiting = match asked.try_recv() {
            Ok(waiting) => waiting,
            Err(_) if gathered.len() >= expected => break,
            Err(_) => {
                let Some(until) = until else { break };
                let Ok(Some(waiting)) = tokio::time::timeout_at(until, asked.recv()).await else { break };
                waiting
            }
        };
        sort(waiting, &mut gathered, &mut later);
    }
    *put_off = later;
    gathered
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::Semaphore;

    type Batches = Arc<std::sync::Mutex<Vec<Vec<u128>>>>;

    /// Answers each number with the batch that it was in, once it may.
    struct Slow {
        may: Arc<Semaphore>,
        batches: Batches,
    }

    impl Batch for Slow {
        type Ask = u128;
        type Answer = (u128, usize);

        fn keys(ask: &u128) -> impl IntoIterator<Item = u128> {
            [*ask % 100]
        }

        async fn run(&self, asks: Vec<u128>) -> Vec<(u128, usize)> {
            self.may.acquire().await.unwrap().forget();
            let answers = asks.iter().map(|ask| (*ask, asks.len())).collect();
            self.batches.lock().unwrap().push(asks);
            answers
        }
    }

    fn slow() -> (Batcher<Slow>, Arc<Semaphore>, Batches) {
        let (may, batches) = (Arc::new(Semaphore::new(0)), Arc::default());
        let batch = Slow { may: Arc::clone(&may), batches: Arc::clone(&batches) };
        (Batcher::start(batch, 1, 8), may, batches)
    }

    #[tokio::test]
    async fn what_comes_while_a_batch_is_under_way_is_the_next_one_and_each_gets_its_own_answer() {
        let (batcher, may, batches) = slow();
        let mut callers = Vec::new();
        for n in 0..20 {
            let batcher = batcher.clone();
            callers.push(tokio::spawn(async move { batcher.ask(n).await }));
            tokio::task::yield_now().await;
        }
        may.add_permits(20);
        for (n, caller) in callers.into_iter().enumerate() {
            assert_eq!(caller.await.unwrap().unwrap().0, n as u128);
        }
        let batches = batches.lock().unwrap().clone();
        assert!(batches.len() <= 5, "{batches:?}");
        assert!(batches.iter().all(|batch| batch.len() <= 8), "{batches:?}");
    }

    #[tokio::test]
    async fn two_that_exclude_each_other_are_never_in_one_batch_and_both_are_answered() {
        let (batcher, may, batches) = slow();
        let callers: Vec<_> = [1, 101, 2, 201, 102]
            .into_iter()
            .map(|n| {
                let batcher = batcher.clone();
                tokio::spawn(async move { batcher.ask(n).await })
            })
            .collect();
        may.add_permits(10);
        for caller in callers {
            assert!(caller.await.unwrap().is_some());
        }
        for batch in &*batches.lock().unwrap() {
            let keys: HashSet<_> = batch.iter().map(|n| n % 100).collect();
            assert_eq!(keys.len(), batch.len(), "{batch:?}");
        }
    }

    #[tokio::test]
    async fn what_was_put_off_does_not_wait_for_a_lane_that_has_nothing_to_do() {
        let (may, batches) = (Arc::new(Semaphore::new(100)), Arc::default());
        let batcher = Batcher::start(Slow { may, batches: Arc::clone(&batches) }, 2, 8);
        let callers: Vec<_> = (0..6)
            .map(|n| {
                let batcher = batcher.clone();
                tokio::spawn(async move { batcher.ask(n * 100 + 1).await })
            })
            .collect();
        for caller in callers {
            let answered = tokio::time::timeout(Duration::from_secs(30), caller).await;
            assert!(answered.expect("it is answered").unwrap().is_some());
        }
        assert_eq!(batches.lock().unwrap().len(), 6);
    }

    #[tokio::test]
    async fn who_has_gone_before_the_batch_is_not_in_it() {
        let (batcher, may, batches) = slow();
        let first = tokio::spawn({
            let batcher = batcher.clone();
            async move { batcher.ask(1).await }
        });
        tokio::task::yield_now().await;
        let gone = tokio::spawn({
            let batcher = batcher.clone();
            async move { batcher.ask(2).await }
        });
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        gone.abort();
        assert!(gone.await.unwrap_err().is_cancelled());
        may.add_permits(10);
        assert!(first.await.unwrap().is_some());
        assert_eq!(batcher.ask(3).await.unwrap().0, 3);
        assert!(!batches.lock().unwrap().iter().flatten().any(|n| *n == 2));
    }
}
