//! What is counted while an attempt runs.

use crate::attempt::spans::Spans;
use mpegflow_protocol::codec::Progress;
use mpegflow_protocol::telemetry::{Counts, SpanName};
use mpegflow_protocol::worker::TaskProgress;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Counters shared by the tasks of one attempt.
#[derive(Debug, Default)]
pub struct Meters {
    frames: AtomicU64,
    time_ms: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    fetched: AtomicU64,
    sent: AtomicU64,
    retries: AtomicU64,
    cpu_ms: AtomicU64,
    starts: AtomicU64,
    signs_of_life: AtomicU64,
    /// What heartbeats have told of the counts.
    told: Mutex<Counts>,
    spans: Spans,
}

impl Meters {
    /// Of an attempt that has just begun.
    pub fn new(traced: bool) -> Self {
        Self { spans: Spans::new(traced), ..Self::default() }
    }

    /// Where its time goes.
    pub const fn traced(&self) -> &Spans {
        &self.spans
    }

    /// Counts a codec process that was started.
    pub fn started(&self) {
        self.starts.fetch_add(1, Relaxed);
    }

    /// Counts the CPU time of a codec process that has ended.
    pub fn used_cpu(&self, ms: u64) {
        self.cpu_ms.fetch_add(ms, Relaxed);
    }

    /// Counts a part of an output that the broker has taken.
    pub fn sent(&self, began: Instant, bytes: u64) {
        self.sent.fetch_add(bytes, Relaxed);
        self.spans.moved(SpanName::Upload, began, bytes);
    }

    /// What was counted since it was asked last. Give it back by [`Meters::put_back`] where it did not arrive.
    pub fn take_counts(&self) -> Counts {
        let now = Counts {
            codec_starts: self.starts.load(Relaxed),
            codec_cpu_ms: self.cpu_ms.load(Relaxed),
            frames: self.frames.load(Relaxed),
            media_ms: self.time_ms.load(Relaxed),
            fetched_bytes: self.fetched.load(Relaxed),
            sent_bytes: self.sent.load(Relaxed),
            transfer_retries: self.retries.load(Relaxed),
        };
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let new = now.minus(*told).clamped();
        *told = told.plus(new);
        new
    }

    /// Takes counts back that a heartbeat could not deliver.
    pub fn put_back(&self, counts: Counts) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        *told = told.minus(counts);
    }

    /// Takes the codec's word for how far it is. Only a move forward is a sign of life: a hostile codec that repeats itself
    /// still counts as stalled.
    pub fn progress(&self, progress: Progress) {
        let frames = self.frames.fetch_max(progress.frames, Relaxed);
        let time = self.time_ms.fetch_max(progress.time_ms, Relaxed);
        if progress.frames > frames || progress.time_ms > time {
            self.alive();
        }
    }

    /// Counts input bytes fed to the codec.
    pub fn fed(&self, bytes: u64) {
        self.bytes_in.fetch_add(bytes, Relaxed);
        self.alive();
    }

    /// Counts output bytes taken from the codec.
    pub fn took(&self, bytes: u64) {
        self.bytes_out.fetch_add(bytes, Relaxed);
        self.alive();
    }

    /// Counts input bytes fetched from the broker, and says how many there are now.
    pub fn fetched(&self, bytes: u64) -> u64 {
        self.spans.moved(SpanName::Fetch, Instant::now(), bytes);
        self.fetched.fetch_add(bytes, Relaxed).saturating_add(bytes)
    }

    /// Notes that a transfer failed and is tried again: while the broker is away, a codec that waits for its bytes is not
    /// the one that stalls. A codec cannot keep itself alive by this, since each transfer gives up after a while.
    pub fn tried_again(&self) {
        self.retries.fetch_add(1, Relaxed);
        self.alive();
    }

    fn alive(&self) {
        self.signs_of_life.fetch_add(1, Relaxed);
    }

    /// Changes whenever the codec did something, or could not because a transfer has to be tried again.
    pub fn signs_of_life(&self) -> u64 {
        self.signs_of_life.load(Relaxed)
    }

    /// Input bytes fed, and output bytes taken.
    pub fn bytes(&self) -> (u64, u64) {
        (self.bytes_in.load(Relaxed), self.bytes_out.load(Relaxed))
    }

    /// The counters as a heartbeat reports them.
    pub fn snapshot(&self, speed_milli: u64, memory: u64) -> TaskProgress {
        TaskProgress {
            frames: self.frames.load(Relaxed),
            time_ms: self.time_ms.load(Relaxed),
            speed_milli,
            bytes_in: self.bytes_in.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
            memory,
        }
    }
}

/// Media time over wall time, over a sliding window.
#[derive(Debug)]
pub struct Speed {
    window: Duration,
    samples: VecDeque<(Instant, u64)>,
}

impl Speed {
    const MOST_SAMPLES: usize = 64;

    /// A speed over the last `window`.
    pub const fn over(window: Duration) -> Self {
        Self { window, samples: VecDeque::new() }
    }

    /// Adds a sample and returns the speed in thousandths: 1000 is real time.
    pub fn sample(&mut self, now: Instant, time_ms: u64) -> u64 {
        while self.samples.len() >= Self::MOST_SAMPLES
            || (self.samples.len() > 1
                && self.samples.front().is_some_and(|(at, _)| now.duration_since(*at) > self.window))
        {
            self.samples.pop_front();
        }
        self.samples.push_back((now, time_ms));
        let Some((then, first)) = self.samples.front() else { return 0 };
        let wall = u64::try_from(now.duration_since(*then).as_millis()).unwrap_or(u64::MAX);
        time_ms.saturating_sub(*first).saturating_mul(1000).checked_div(wall).unwrap_or(0)
    }
}

/// Resident memory of a process in bytes, as `/proc/PID/status` says; 0 where it does not (it has just ended).
pub fn resident_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speed_is_media_time_over_wall_time_of_the_window() {
        let mut speed = Speed::over(Duration::from_secs(10));
        let start = Instant::now();
        assert_eq!(speed.sample(start, 0), 0);
        assert_eq!(speed.sample(start + Duration::from_secs(1), 2_000), 2_000);
        assert_eq!(speed.sample(start + Duration::from_secs(20), 2_000), 0);
    }

    #[test]
    fn only_a_move_forward_is_a_sign_of_life() {
        let meters = Meters::default();
        meters.progress(Progress { frames: 1, time_ms: 40 });
        let then = meters.signs_of_life();
        meters.progress(Progress { frames: 1, time_ms: 40 });
        meters.progress(Progress { frames: 0, time_ms: 0 });
        assert_eq!(meters.signs_of_life(), then);
        meters.progress(Progress { frames: 2, time_ms: 0 });
        assert!(meters.signs_of_life() > then);
    }

    #[test]
    fn counts_are_told_once_and_again_where_they_did_not_arrive() {
        let meters = Meters::default();
        meters.progress(Progress { frames: 5, time_ms: 200 });
        let first = meters.take_counts();
        assert_eq!((first.frames, first.media_ms), (5, 200));
        assert!(meters.take_counts().is_empty());
        meters.put_back(first);
        meters.progress(Progress { frames: 6, time_ms: 200 });
        assert_eq!(meters.take_counts().frames, 6);
        // What a hostile codec says is cut to what may be told, and never told twice.
        meters.progress(Progress { frames: u64::MAX, time_ms: 0 });
        assert!(meters.take_counts().frames <= 1_000_000_000);
    }

    #[test]
    fn the_memory_of_this_process_is_known() {
        assert!(resident_memory(std::process::id()) > 0);
        assert_eq!(resident_memory(u32::MAX), 0);
    }
}
