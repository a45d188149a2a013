//! Connections that carry media, read in large pieces.
//!
//! rustls asks its socket for a record at a time, 16 KiB and what is around them, and hands out a record at a time. Each costs a call
//! of the kernel, a wake-up of the task at the other leg, and a write there. [`ReadAhead`] goes below TLS, [`Gather`] above it; neither
//! waits for anything: they take what is there already. A connection that is idle or slow holds no buffer of either. [`Sending`] goes
//! above TLS too, and keeps rustls from queueing for a reader who is slow.

use bytes::{Buf as _, BytesMut};
use hyper_util::client::legacy::connect::{Connected, Connection};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is read ahead at most, in bytes.
const AHEAD: usize = 48 << 10;

/// hyper's own buffers of a connection of this kind: what was read ahead goes through in one piece. Its default grows to 400 KiB for
/// each fast connection, and of a stream whose reader is slow the larger part of all memory is in these.
pub(crate) const BUFFER: usize = AHEAD;

/// Reads ahead once a read filled all that it was given.
#[derive(Debug)]
pub(crate) struct ReadAhead<S> {
    inner: S,
    ahead: BytesMut,
    /// The last read left more behind.
    is_bulk: bool,
}

impl<S> ReadAhead<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner, ahead: BytesMut::new(), is_bulk: false }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAhead<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.ahead.is_empty() {
            if !this.is_bulk || buf.remaining() >= AHEAD {
                let before = buf.remaining();
                ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
                this.is_bulk = buf.remaining() == 0 && before > 0;
                return Poll::Ready(Ok(()));
            }
            this.ahead.reserve(AHEAD);
            let read = tokio_util::io::poll_read_buf(Pin::new(&mut this.inner), cx, &mut this.ahead);
            let Poll::Ready(Ok(read)) = read else {
                this.ahead = BytesMut::new();
                return read.map_ok(drop);
            };
            // So little is read as well without a buffer.
            this.is_bulk = read > AHEAD / 4;
        }
        let len = this.ahead.len().min(buf.remaining());
        if let Some(some) = this.ahead.get(..len) {
            buf.put_slice(some);
        }
        this.ahead.advance(len);
        if this.ahead.is_empty() && !this.is_bulk {
            this.ahead = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

/// Reads on until the reader's buffer is full, or nothing more is there.
#[derive(Debug)]
pub(crate) struct Gather<S> {
    inner: S,
    /// What ended a read that had brought something.
    failed: Option<io::Error>,
}

impl<S> Gather<S> {
    pub(crate) const fn new(inner: S) -> Self {
        Self { inner, failed: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gather<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(failed) = self.failed.take() {
            return Poll::Ready(Err(failed));
        }
        let before = buf.filled().len();
        loop {
            let had = buf.filled().len();
            let poll = Pin::new(&mut self.inner).poll_read(cx, buf);
            let has = buf.filled().len();
            match poll {
                Poll::Ready(Ok(())) if has > had && buf.remaining() > 0 => {}
                // The waker is known to the connection, which calls it once more than is needed.
                _ if has > before => {
                    if let Poll::Ready(Err(e)) = poll {
                        self.failed = Some(e);
                    }
                    return Poll::Ready(Ok(()));
                }
                other => return other,
            }
        }
    }
}

/// What TLS may hold of a connection that waits for its reader, in bytes: a record, and four.
const LITTLE: usize = 16 << 10;
const MUCH: usize = 64 << 10;
/// Whoever took so much without a pause reads fast: more than a kernel takes in for one that does not read.
const FLUENT: usize = 8 << 20;
/// Whoever goes on reading within this time is not slow: it only shares a processor.
const PAUSE: Duration = Duration::from_millis(50);

/// A connection whose queue of encrypted bytes has a bound.
pub(crate) trait Queues {
    /// No more than about so many bytes are taken before the socket takes some.
    fn queue_at_most(&mut self, bytes: usize);
}

impl<S> Queues for tokio_rustls::server::TlsStream<S> {
    fn queue_at_most(&mut self, bytes: usize) {
        self.get_mut().1.set_buffer_limit(Some(bytes));
    }
}

/// Has much queued for a reader that reads on, so that one call of the kernel takes it, and little for one that is slow or not
/// known yet: a thousand of these are what a broker's memory goes to.
#[derive(Debug)]
pub(crate) struct Sending<S> {
    inner: S,
    queue: usize,
    /// What went out since the last pause.
    fluent: usize,
    /// Since when the reader takes nothing.
    waits: Option<Instant>,
}

impl<S: Queues> Sending<S> {
    pub(crate) fn new(inner: S) -> Self {
        let mut sending = Self { inner, queue: 0, fluent: 0, waits: None };
        sending.queue_at_most(LITTLE);
        sending
    }

    fn queue_at_most(&mut self, bytes: usize) {
        if self.queue != bytes {
            self.queue = bytes;
            self.inner.queue_at_most(bytes);
        }
    }

    /// What a write or a flush came to, and how many bytes that was.
    fn came(&mut self, poll: &Poll<io::Result<usize>>) {
        match poll {
            Poll::Pending => _ = self.waits.get_or_insert_with(Instant::now),
            Poll::Ready(Err(_)) => {}
            Poll::Ready(Ok(bytes)) => {
                if let Some(since) = self.waits.take() {
                    self.fluent = 0;
                    self.queue_at_most(if since.elapsed() < PAUSE { MUCH } else { LITTLE });
                }
                self.fluent = self.fluent.saturating_add(*bytes);
                if self.fluent >= FLUENT {
                    self.queue_at_most(MUCH);
                }
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Sending<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Queues + Unpin> AsyncWrite for Sending<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let sent = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.came(&sent);
        sent
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = Pin::new(&mut self.inner).poll_flush(cx).map_ok(|()| 0);
        self.came(&sent);
        sent.map_ok(drop)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let sent = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.came(&sent);
        sent
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

macro_rules! writes_go_through {
    ($($stream:ident),*) => {$(
        impl<S: AsyncWrite + Unpin> AsyncWrite for $stream<S> {
            fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.inner).poll_write(cx, buf)
            }

            fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.inner).poll_flush(cx)
            }

            fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.inner).poll_shutdown(cx)
            }

            fn poll_write_vectored(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
            }

            fn is_write_vectored(&self) -> bool {
                self.inner.is_write_vectored()
            }
        }

        impl<S: Connection> Connection for $stream<S> {
            fn connected(&self) -> Connected {
                self.inner.connected()
            }
        }
    )*};
}

writes_go_through!(ReadAhead, Gather);

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use tokio::io::AsyncReadExt as _;

    /// A socket on which these pieces have come, or an error.
    struct Came {
        pieces: VecDeque<io::Result<Vec<u8>>>,
        reads: usize,
    }

    impl AsyncRead for Came {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            self.reads = self.reads.saturating_add(1);
            match self.pieces.pop_front() {
                None => Poll::Pending,
                Some(Err(e)) => Poll::Ready(Err(e)),
                Some(Ok(piece)) if piece.is_empty() => {
                    self.pieces.push_front(Ok(piece));
                    Poll::Ready(Ok(()))
                }
                Some(Ok(mut piece)) => {
                    let rest = piece.split_off(piece.len().min(buf.remaining()));
                    buf.put_slice(&piece);
                    if !rest.is_empty() {
                        self.pieces.push_front(Ok(rest));
                    }
                    Poll::Ready(Ok(()))
                }
            }
        }
    }

    fn came(pieces: impl IntoIterator<Item = io::Result<Vec<u8>>>) -> Came {
        Came { pieces: pieces.into_iter().collect(), reads: 0 }
    }

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|n| u8::try_from(n % 251).unwrap()).collect()
    }

    /// All that is there, read so many bytes at a time.
    fn read(stream: &mut (impl AsyncRead + Unpin), at_a_time: usize) -> (Vec<u8>, Poll<io::Result<()>>) {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut all = Vec::new();
        loop {
            let mut piece = vec![0; at_a_time];
            let mut buf = ReadBuf::new(&mut piece);
            match Pin::new(&mut *stream).poll_read(&mut cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => all.extend_from_slice(buf.filled()),
                end => return (all, end),
            }
        }
    }

    #[test]
    fn bulk_takes_a_call_for_each_48_kib_and_nothing_is_lost() {
        let all = bytes(1 << 20);
        let mut stream = ReadAhead::new(came([Ok(all.clone())]));
        let (got, end) = read(&mut stream, 5_000);
        assert!(got == all && end.is_pending());
        assert!(stream.inner.reads <= 26, "{} reads", stream.inner.reads);
        assert_eq!(stream.ahead.capacity(), 0, "whoever is silent holds no buffer");
    }

    #[test]
    fn what_comes_slowly_is_not_buffered() {
        let mut stream = ReadAhead::new(came((0..50).map(|_| Ok(bytes(700)))));
        let (got, _) = read(&mut stream, 4_096);
        assert_eq!((got.len(), stream.inner.reads, stream.ahead.capacity()), (35_000, 51, 0));
    }

    #[test]
    fn records_are_gathered_and_an_end_or_an_error_comes_after_what_was_there() {
        let records = || (0..4).map(|_| Ok(bytes(16 << 10)));
        let (got, end) = read(&mut Gather::new(came(records().chain([Ok(Vec::new())]))), 1 << 20);
        assert!(got.len() == 64 << 10 && matches!(end, Poll::Ready(Ok(()))));
        let broken = [Err(io::ErrorKind::InvalidData.into())];
        let (got, end) = read(&mut Gather::new(came(records().chain(broken))), 1 << 20);
        assert!(
            got.len() == 64 << 10
                && matches!(end, Poll::Ready(Err(e)) if e.kind() == io::ErrorKind::InvalidData)
        );
        let mut one_by_one = Gather::new(came(records()));
        let mut buf = [0; 40 << 10];
        let read = futures_util::FutureExt::now_or_never(one_by_one.read(&mut buf)).unwrap().unwrap();
        assert_eq!((read, one_by_one.inner.reads), (40 << 10, 3));
    }

    /// A connection under TLS whose socket takes all, or nothing.
    struct Takes {
        nothing: bool,
        queue: usize,
    }

    impl Queues for Takes {
        fn queue_at_most(&mut self, bytes: usize) {
            self.queue = bytes;
        }
    }

    impl AsyncWrite for Takes {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            if self.nothing { Poll::Pending } else { Poll::Ready(Ok(buf.len().min(self.queue))) }
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            if self.nothing { Poll::Pending } else { Poll::Ready(Ok(())) }
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn little_is_queued_for_a_slow_reader_and_much_for_one_that_reads_on() {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut sending = Sending::new(Takes { nothing: false, queue: usize::MAX });
        let all = bytes(48 << 10);
        let write = |sending: &mut Sending<Takes>, cx: &mut Context<'_>| {
            Pin::new(sending).poll_write(cx, &all).map(Result::unwrap)
        };
        // Nobody knows it yet.
        assert_eq!(sending.inner.queue, LITTLE);
        let mut sent = 0;
        while sent < FLUENT {
            let Poll::Ready(some) = write(&mut sending, &mut cx) else { panic!("it takes all") };
            assert_eq!(sending.inner.queue == MUCH, sent + some >= FLUENT);
            sent += some;
        }
        // It stops, seen by a write or by a flush, for longer than a busy machine makes anybody wait.
        for by_flush in [false, true] {
            sending.queue_at_most(MUCH);
            sending.inner.nothing = true;
            if by_flush {
                assert!(Pin::new(&mut sending).poll_flush(&mut cx).is_pending());
            } else {
                assert!(write(&mut sending, &mut cx).is_pending());
            }
            std::thread::sleep(PAUSE * 2);
            sending.inner.nothing = false;
            assert!(write(&mut sending, &mut cx).is_ready());
            assert_eq!((sending.inner.queue, sending.waits), (LITTLE, None));
        }
    }

    #[test]
    fn an_end_is_an_end_read_ahead_or_not() {
        for chunk in [100, 4_096] {
            let mut stream = ReadAhead::new(came([Ok(bytes(4_096 * 3)), Ok(Vec::new())]));
            let (got, end) = read(&mut stream, chunk);
            assert!(got == bytes(4_096 * 3) && matches!(end, Poll::Ready(Ok(()))));
        }
    }
}
