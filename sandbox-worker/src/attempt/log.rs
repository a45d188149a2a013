//! The codec's log: a pipe from a hostile process, made into a bounded number of clean lines.

use mpegflow_protocol::limits::{MAX_CODEC_LOG, MAX_LOG_LINE, MAX_LOG_LINES};
use mpegflow_protocol::text;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

/// Lines that wait for a heartbeat.
const MOST_WAITING: usize = 256;

/// Lines of one codec process that wait for the next heartbeat, and its last words.
#[derive(Debug, Default)]
pub struct Log(Mutex<Lines>);

#[derive(Debug, Default)]
struct Lines {
    waiting: VecDeque<String>,
    dropped: u64,
    last: String,
    allocation_failed: bool,
}

impl Log {
    fn push(&self, raw: &[u8]) {
        let line = text::clean(String::from_utf8_lossy(raw).trim_end(), MAX_LOG_LINE);
        if line.is_empty() {
            return;
        }
        tracing::debug!(target: "mpegflow_worker::codec", line);
        let mut lines = self.lock();
        // What Rust's allocation failure writes before it aborts. A lie here turns one worker-class code into another.
        lines.allocation_failed |= line.starts_with("memory allocation of ");
        lines.last.clone_from(&line);
        if lines.waiting.len() < MOST_WAITING {
            lines.waiting.push_back(line);
        } else {
            lines.dropped = lines.dropped.saturating_add(1);
        }
    }

    fn dropped(&self, lines: u64) {
        let mut inner = self.lock();
        inner.dropped = inner.dropped.saturating_add(lines);
    }

    /// Takes the lines of one heartbeat. Give them back by [`Log::put_back`] where it did not arrive.
    pub fn take(&self) -> Vec<String> {
        let mut lines = self.lock();
        let room = MAX_LOG_LINES.saturating_sub(1);
        let count = lines.waiting.len().min(room);
        let mut taken: Vec<_> = lines.waiting.drain(..count).collect();
        if lines.waiting.is_empty() && lines.dropped > 0 {
            taken.push(format!("({} more lines or blocks of the codec's log were dropped)", lines.dropped));
            lines.dropped = 0;
        }
        taken
    }

    /// Returns lines that a heartbeat could not deliver.
    pub fn put_back(&self, taken: Vec<String>) {
        let mut lines = self.lock();
        for line in taken.into_iter().rev() {
            lines.waiting.push_front(line);
        }
        lines.waiting.truncate(MOST_WAITING);
    }

    /// The last line, for the message of a failure; empty where there was none.
    pub fn last_words(&self) -> String {
        self.lock().last.clone()
    }

    /// Whether the process said that an allocation failed.
    pub fn allocation_failed(&self) -> bool {
        self.lock().allocation_failed
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the log pipe to its end. The first [`MAX_CODEC_LOG`] bytes become lines; the rest is thrown away at a bounded rate,
/// so that a codec that floods its log spends its own deadline and not the supervisor's CPU.
pub async fn pump(mut pipe: pipe::Receiver, log: &Log) {
    let mut splitter = Splitter::default();
    let mut buffer = vec![0u8; 16 << 10];
    let mut total = 0usize;
    loop {
        let read = match pipe.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(n) => n,
        };
        let room = MAX_CODEC_LOG.saturating_sub(total).min(read);
        total = total.saturating_add(room);
        let (kept, excess) = buffer.get(..read).unwrap_or_default().split_at(room);
        splitter.feed(kept, |line| log.push(line));
        if !excess.is_empty() {
            log.dropped(1);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    splitter.finish(|line| log.push(line));
}

/// Cuts bytes into lines no longer than a line may be in UTF-8; what is beyond is dropped up to the line's end.
#[derive(Debug, Default)]
struct Splitter {
    line: Vec<u8>,
}

impl Splitter {
    const LONGEST: usize = MAX_LOG_LINE * 4;

    fn feed(&mut self, bytes: &[u8], mut push: impl FnMut(&[u8])) {
        for piece in bytes.split_inclusive(|b| *b == b'\n' || *b == b'\r') {
            let room = Self::LONGEST.saturating_sub(self.line.len());
            self.line.extend_from_slice(piece.get(..room.min(piece.len())).unwrap_or_default());
            if piece.ends_with(b"\n") || piece.ends_with(b"\r") {
                push(&self.line);
                self.line.clear();
            }
        }
    }

    fn finish(self, mut push: impl FnMut(&[u8])) {
        push(&self.line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(bytes: &[u8]) -> Vec<String> {
        let log = Log::default();
        let mut splitter = Splitter::default();
        for chunk in bytes.chunks(7) {
            splitter.feed(chunk, |line| log.push(line));
        }
        splitter.finish(|line| log.push(line));
        log.take()
    }

    #[test]
    fn lines_are_cut_cleaned_and_never_empty() {
        assert_eq!(logged(b"one\r\n\n\x1b[31mtwo\nthree"), ["one", " [31mtwo", "three"]);
        let long = logged(&[b'x'; 10_000]);
        assert_eq!(long.len(), 1);
        assert_eq!(long[0].len(), MAX_LOG_LINE);
    }

    #[test]
    fn a_heartbeat_takes_a_bounded_number_and_says_what_was_dropped() {
        let log = Log::default();
        for n in 0..400 {
            log.push(format!("line {n}").as_bytes());
        }
        let first = log.take();
        assert_eq!((first.len(), first[0].as_str()), (MAX_LOG_LINES - 1, "line 0"));
        log.put_back(first);
        let mut all = Vec::new();
        loop {
            let lines = log.take();
            if lines.is_empty() {
                break;
            }
            assert!(lines.len() <= MAX_LOG_LINES);
            all.extend(lines);
        }
        assert_eq!(all.len(), MOST_WAITING + 1);
        assert_eq!(all[MOST_WAITING], "(144 more lines or blocks of the codec's log were dropped)");
        assert_eq!(log.last_words(), "line 399");
    }
}
