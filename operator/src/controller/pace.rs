//! When to look: after a moment of quiet, and during a storm now and then all the same.

use futures_util::{Stream, StreamExt as _, stream};
use std::collections::HashMap;
use std::hash::Hash;
use std::pin::Pin;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::time::{DelayQueue, delay_queue};

/// How long a stream is held back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Until so long nothing new came of the same key.
    pub(super) quiet: Duration,
    /// And never longer than this: whoever writes into a pool's objects without a pause would otherwise decide that it is not
    /// looked at.
    pub(super) longest: Duration,
}

struct Held<T> {
    item: T,
    latest: Instant,
    slot: delay_queue::Key,
}

struct Paced<S: Stream, K, F> {
    items: Pin<Box<S>>,
    key: F,
    pace: Pace,
    held: HashMap<K, Held<S::Item>>,
    due: DelayQueue<K>,
    has_ended: bool,
}

/// `items`, of each key the latest alone when it is time. What has no key comes through at once. It holds no more than there
/// are keys: those of objects that a watch's store holds anyway.
pub(super) fn paced<S, K, F>(
    items: S,
    pace: Pace,
    key: F,
) -> impl Stream<Item = S::Item> + Send + 'static + use<S, K, F>
where
    S: Stream + Send + 'static,
    S::Item: Send,
    K: Hash + Eq + Clone + Send + 'static,
    F: Fn(&S::Item) -> Option<K> + Send + 'static,
{
    let paced = Paced {
        items: Box::pin(items),
        key,
        pace,
        held: HashMap::new(),
        due: DelayQueue::new(),
        has_ended: false,
    };
    stream::unfold(paced, |mut paced| async move { paced.next().await.map(|item| (item, paced)) })
}

impl<S, K, F> Paced<S, K, F>
where
    S: Stream,
    K: Hash + Eq + Clone,
    F: Fn(&S::Item) -> Option<K>,
{
    async fn next(&mut self) -> Option<S::Item> {
        while !(self.has_ended && self.held.is_empty()) {
            tokio::select! {
                // First what is due: a storm never ends.
                biased;
                Some(due) = self.due.next(), if !self.held.is_empty() => {
                    if let Some(held) = self.held.remove(due.get_ref()) {
                        return Some(held.item);
                    }
                }
                item = self.items.next(), if !self.has_ended => match item {
                    Some(item) => match (self.key)(&item) {
                        Some(key) => self.hold(key, item),
                        None => return Some(item),
                    },
                    None => self.has_ended = true,
                },
            }
        }
        None
    }

    fn hold(&mut self, key: K, item: S::Item) {
        let now = Instant::now();
        if let Some(held) = self.held.get_mut(&key) {
            held.item = item;
            self.due.reset_at(&held.slot, held.latest.min(now + self.pace.quiet));
            return;
        }
        let slot = self.due.insert_at(key.clone(), now + self.pace.quiet.min(self.pace.longest));
        self.held.insert(key, Held { item, latest: now + self.pace.longest, slot });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use tokio::sync::mpsc;

    const NAMED: fn(&(&'static str, u32)) -> Option<&'static str> =
        |(key, _)| (*key != "at once").then_some(*key);

    fn looks(
        receiver: mpsc::Receiver<(&'static str, u32)>,
        quiet: Duration,
        longest: Duration,
    ) -> Pin<Box<impl Stream<Item = (&'static str, u32)>>> {
        let items = stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|item| (item, receiver))
        });
        Box::pin(paced(items, Pace { quiet, longest }, NAMED))
    }

    #[tokio::test]
    async fn what_comes_together_is_one_look_with_the_latest_and_nothing_is_lost_at_the_end() {
        let (sender, receiver) = mpsc::channel(256);
        for n in 0..100 {
            sender.send(("a", n)).await.unwrap();
            sender.send(("b", n)).await.unwrap();
        }
        sender.send(("at once", 0)).await.unwrap();
        drop(sender);
        let paced = looks(receiver, Duration::from_millis(100), Duration::from_secs(600));
        let mut came: Vec<_> = paced.collect().await;
        assert_eq!(came.remove(0), ("at once", 0));
        came.sort_unstable();
        assert_eq!(came, [("a", 99), ("b", 99)]);
    }

    #[tokio::test]
    async fn nobody_is_held_back_by_somebody_who_never_stops() {
        let (sender, receiver) = mpsc::channel(8);
        // Longer than the storm's pauses by far, so that there is no quiet.
        let mut paced = looks(receiver, Duration::from_secs(600), Duration::from_millis(50));
        let mut came: Vec<(&str, u32)> = Vec::new();
        let often = |came: &[(&str, u32)], it| came.iter().filter(|(key, _)| *key == it).count() >= 3;
        for n in 0.. {
            if often(&came, "a") && often(&came, "b") {
                break;
            }
            // Full: the next is as good.
            let _ = sender.try_send(("a", n));
            let _ = sender.try_send(("b", n));
            while let Some(look) = paced.next().now_or_never() {
                came.push(look.unwrap());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for it in ["a", "b"] {
            assert!(came.iter().filter(|(key, _)| *key == it).is_sorted_by_key(|(_, n)| *n), "{came:?}");
        }
    }
}
