//! Spans wait here until they are sent. Taking one never waits, and there are never more than [`ROOM`].

use super::encode;
use super::send::{Refused, Sender};
use crate::trace::{Span, SpanCounts, Spans};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// Spans that wait at most; of about half a kilobyte each.
pub const ROOM: usize = 4_096;
/// Spans of one request.
const BATCH: usize = 512;
/// Spans wait this long for others to go with them.
const GATHER: Duration = Duration::from_secs(2);
/// Waits after a failure: the first, and the longest.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// A batch is sent this often before it is given up. Newer spans wait meanwhile, as far as there is room.
const MOST_TRIES: u32 = 5;
/// What is left at the end may take this long.
const AT_THE_END: Duration = Duration::from_secs(5);

/// Takes spans.
#[derive(Debug)]
pub struct Queue {
    sender: mpsc::Sender<Span>,
    counts: SpanCounts,
}

impl Spans for Queue {
    fn record(&self, span: Span) {
        if self.sender.try_send(span).is_err() {
            self.counts.dropped.fetch_add(1, Relaxed);
        }
    }

    fn counts(&self) -> &SpanCounts {
        &self.counts
    }
}

/// A queue, and the end of it that [`run`] takes.
pub fn new() -> (Arc<Queue>, Waiting) {
    let (sender, receiver) = mpsc::channel(ROOM);
    (Arc::new(Queue { sender, counts: SpanCounts::default() }), Waiting(receiver))
}

/// Spans that wait.
#[derive(Debug)]
pub struct Waiting(mpsc::Receiver<Span>);

/// How the collector is known to be.
struct Collector<'a> {
    sender: Sender,
    instance: &'a str,
    queue: &'a Queue,
    failing: Option<Failing>,
}

/// Since when it does not take what it is sent, and when it is asked again.
struct Failing {
    since: Instant,
    wait: Duration,
    next: Instant,
    lost: u64,
}

/// Sends what comes until `stop`, and then what is left, within a bound.
pub async fn run(
    queue: Arc<Queue>,
    waiting: Waiting,
    sender: Sender,
    instance: String,
    stop: CancellationToken,
) {
    let Waiting(mut receiver) = waiting;
    let mut collector = Collector { sender, instance: &instance, queue: &queue, failing: None };
    let mut batch = Vec::with_capacity(BATCH);
    // Without an end of its own it goes on until it is stopped, which may be in the middle of anything.
    let working = async {
        loop {
            gather(&mut receiver, &mut batch).await;
            collector.deliver(&mut batch).await;
        }
    };
    tokio::select! {
        never = working => never,
        () = stop.cancelled() => {}
    }
    let left = async {
        loop {
            while batch.len() < BATCH {
                let Ok(span) = receiver.try_recv() else { break };
                batch.push(span);
            }
            if batch.is_empty() || collector.attempt(&mut batch).await.is_err() {
                return;
            }
        }
    };
    let _ = timeout(AT_THE_END, left).await;
    let left = batch.len().saturating_add(receiver.len());
    if left > 0 {
        collector.lost(left);
        tracing::warn!(spans = left, "spans are lost: the collector did not take them before the end");
    }
}

/// Waits for spans, and a moment for more.
async fn gather(receiver: &mut mpsc::Receiver<Span>, batch: &mut Vec<Span>) {
    if receiver.recv_many(batch, BATCH).await == 0 {
        return std::future::pending().await;
    }
    let more = async {
        while batch.len() < BATCH {
            let room = BATCH.saturating_sub(batch.len());
            if receiver.recv_many(batch, room).await == 0 {
                return;
            }
        }
    };
    let _ = timeout(GATHER, more).await;
}

impl Collector<'_> {
    /// Sends a batch, as often as it is worth it. It is empty afterwards.
    async fn deliver(&mut self, batch: &mut Vec<Span>) {
        for _ in 0..MOST_TRIES {
            if let Some(failing) = &self.failing {
                sleep_until(failing.next).await;
            }
            match self.attempt(batch).await {
                Ok(()) => return,
                Err(refused) if refused.again => {}
                Err(_) => break,
            }
        }
        self.lost(batch.len());
        batch.clear();
    }

    async fn attempt(&mut self, batch: &mut Vec<Span>) -> Result<(), Refused> {
        let body = encode::request(batch, self.instance);
        match self.sender.send(body.into()).await {
            Ok(()) => {
                self.queue.counts.sent.fetch_add(u64::try_from(batch.len()).unwrap_or(u64::MAX), Relaxed);
                batch.clear();
                self.works();
                Ok(())
            }
            Err(refused) => {
                self.fails(&refused);
                Err(refused)
            }
        }
    }

    fn works(&mut self) {
        if let Some(failing) = self.failing.take() {
            let (seconds, lost) = (failing.since.elapsed().as_secs(), failing.lost);
            tracing::info!(seconds, lost, "the collector of traces takes spans again");
        }
    }

    /// Says it once, and then leaves the collector alone for longer and longer.
    fn fails(&mut self, refused: &Refused) {
        let now = Instant::now();
        let wait = match &self.failing {
            None => FIRST_WAIT,
            Some(failing) => failing.wait.saturating_mul(2).min(LONGEST_WAIT),
        };
        let wait = refused.after.unwrap_or(wait);
        let next = now.checked_add(wait).unwrap_or(now);
        match &mut self.failing {
            None => {
                tracing::warn!(
                    why = refused.why,
                    "the collector of traces takes no spans; jobs go on without them"
                );
                self.failing = Some(Failing { since: now, wait, next, lost: 0 });
            }
            Some(failing) => (failing.wait, failing.next) = (wait, next),
        }
    }

    fn lost(&mut self, spans: usize) {
        let spans = u64::try_from(spans).unwrap_or(u64::MAX);
        self.queue.counts.lost.fetch_add(spans, Relaxed);
        if let Some(failing) = &mut self.failing {
            failing.lost = failing.lost.saturating_add(spans);
        }
    }
}
