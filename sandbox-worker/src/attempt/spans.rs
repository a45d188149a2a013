//! Where an attempt's time goes: one span for each name of a closed list, for heartbeats to carry. Nothing is kept of an attempt that
//! is not traced.

use mpegflow_protocol::telemetry::{PhaseTime, SpanName, WorkerSpan, WorkerSpans};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The spans of one attempt.
#[derive(Debug, Default)]
pub struct Spans(Option<Traced>);

#[derive(Debug)]
struct Traced {
    began: Instant,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Names that were taken: a bit for each.
    known: u32,
    /// At most one for each name.
    waiting: Vec<WorkerSpan>,
    fetched: Option<Moved>,
    sent: Option<Moved>,
}

/// What was moved in one direction.
#[derive(Debug, Clone, Copy)]
struct Moved {
    first: Instant,
    last: Instant,
    bytes: u64,
    parts: u64,
}

impl Spans {
    /// Of an attempt that has just begun.
    pub fn new(traced: bool) -> Self {
        Self(traced.then(|| Traced { began: Instant::now(), inner: Mutex::default() }))
    }

    /// Something is over that began then. Only the first under a name counts.
    pub fn over(&self, name: SpanName, began: Instant) {
        let Some(traced) = &self.0 else { return };
        traced.add(traced.span(name, began, Instant::now()));
    }

    /// A codec process says how long a phase took. Whatever it says, the span lies between its start and now.
    pub fn phase(&self, time: PhaseTime, started: Instant) {
        let Some(traced) = &self.0 else { return };
        let now = Instant::now();
        let start = started.checked_add(Duration::from_micros(time.start_us)).map_or(now, |at| at.min(now));
        let end = start.checked_add(Duration::from_micros(time.duration_us)).map_or(now, |at| at.min(now));
        traced.add(traced.span(time.phase.span(), start, end));
    }

    /// Bytes were moved, since then until now.
    pub fn moved(&self, name: SpanName, began: Instant, bytes: u64) {
        let Some(traced) = &self.0 else { return };
        let mut inner = traced.lock();
        let moved = if name == SpanName::Fetch { &mut inner.fetched } else { &mut inner.sent };
        let now = Instant::now();
        let moved = moved.get_or_insert(Moved { first: began, last: now, bytes: 0, parts: 0 });
        moved.last = now;
        moved.bytes = moved.bytes.saturating_add(bytes);
        moved.parts = moved.parts.saturating_add(1);
    }

    /// Nothing more is moved: what was is over.
    pub fn finish(&self) {
        let Some(traced) = &self.0 else { return };
        let (fetched, sent) = {
            let inner = traced.lock();
            (inner.fetched, inner.sent)
        };
        for (name, moved) in [(SpanName::Fetch, fetched), (SpanName::Upload, sent)] {
            let Some(moved) = moved else { continue };
            let span = traced.span(name, moved.first, moved.last);
            // What a connection gave at once is no part of anything.
            let parts = (name == SpanName::Upload).then_some(moved.parts);
            traced.add(WorkerSpan { bytes: Some(moved.bytes), parts, ..span });
        }
    }

    /// Takes what is over for a heartbeat. Give it back by [`Spans::put_back`] where it did not arrive.
    pub fn take(&self) -> WorkerSpans {
        let Some(traced) = &self.0 else { return WorkerSpans::default() };
        WorkerSpans::new(std::mem::take(&mut traced.lock().waiting))
    }

    /// Returns what a heartbeat could not deliver.
    pub fn put_back(&self, spans: &WorkerSpans) {
        let Some(traced) = &self.0 else { return };
        traced.lock().waiting.extend_from_slice(spans.as_slice());
    }
}

impl Traced {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn span(&self, name: SpanName, start: Instant, end: Instant) -> WorkerSpan {
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        WorkerSpan {
            name,
            start_us: us(start.saturating_duration_since(self.began)),
            duration_us: us(end.saturating_duration_since(start)),
            bytes: None,
            parts: None,
        }
    }

    fn add(&self, span: WorkerSpan) {
        let mut inner = self.lock();
        if inner.known & span.name.bit() == 0 {
            inner.known |= span.name.bit();
            inner.waiting.push(span);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mpegflow_protocol::telemetry::Phase;

    #[test]
    fn a_codec_puts_no_span_outside_its_own_time_and_no_second_one_under_a_name() {
        let spans = Spans::new(true);
        let started = Instant::now();
        for (phase, start_us, duration_us) in [
            (Phase::Open, u64::MAX, u64::MAX),
            (Phase::Decode, 0, u64::MAX),
            (Phase::Encode, u64::MAX, 0),
            (Phase::Open, 0, 0),
        ] {
            spans.phase(PhaseTime { phase, start_us, duration_us }, started);
        }
        let taken = spans.take();
        let most = u64::try_from(started.elapsed().as_micros()).unwrap() + 10_000_000;
        assert_eq!(taken.as_slice().len(), 3);
        for span in taken.as_slice() {
            assert!(span.start_us + span.duration_us <= most, "{span:?}");
        }
    }

    #[test]
    fn what_did_not_arrive_is_told_again_and_what_did_is_not() {
        let spans = Spans::new(true);
        spans.over(SpanName::Launch, Instant::now());
        spans.moved(SpanName::Upload, Instant::now(), 5);
        spans.moved(SpanName::Upload, Instant::now(), 6);
        spans.finish();
        let taken = spans.take();
        assert_eq!(taken.as_slice().len(), 2);
        assert_eq!((taken.as_slice()[1].bytes, taken.as_slice()[1].parts), (Some(11), Some(2)));
        assert!(spans.take().is_empty());
        spans.put_back(&taken);
        spans.over(SpanName::Launch, Instant::now());
        assert_eq!(spans.take(), taken);
    }

    #[test]
    fn nothing_is_kept_of_what_is_not_traced() {
        let spans = Spans::new(false);
        spans.over(SpanName::Launch, Instant::now());
        spans.moved(SpanName::Fetch, Instant::now(), 1);
        spans.finish();
        assert!(spans.take().is_empty());
    }
}
