//! Connections: accepted within a bound, read and written within time limits, drained at the end.

use super::idle::{Busy, Idle, Place};
use super::problem::{Kind, Problem};
use crate::bulk::{BUFFER, Gather, ReadAhead, Sending};
use crate::ca::{self, Peer};
use crate::engine::Connected;
use crate::lanes::Lanes;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::IntoResponse as _;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// What connections are held to.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once. Who is new takes the place of who has been silent for the longest; where requests are under way on all,
    /// it waits in the kernel's backlog.
    pub connections: usize,
    /// Time for a request's head, and for the next one on an idle connection.
    pub head: Duration,
    /// Time in which a peer has to take some bytes that wait for it.
    pub write_stall: Duration,
    /// A connection of this age, more or less, is closed with its next answer.
    pub age: Duration,
    /// Time that requests under way get at the end.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1_024,
            head: Duration::from_secs(30),
            write_stall: Duration::from_secs(30),
            age: Duration::from_secs(3_600),
            drain: Duration::from_secs(5),
        }
    }
}

/// The handshake has to be done within this time.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A silent connection that is told to go has gone within this time.
const LEAVING: Duration = Duration::from_millis(100);
/// A connection that was made just before the end has this long to send its first request.
const FIRST: Duration = Duration::from_secs(1);
const MAX_HEADERS: usize = 64;

/// The verified client certificate's owner, if one was shown; in every request's extensions on the worker port.
#[derive(Debug, Clone)]
pub struct TlsPeer(pub Option<Peer>, Arc<OnceLock<Connected>>);

impl TlsPeer {
    /// Whoever it is, on a connection that nobody has counted yet.
    pub fn new(peer: Option<Peer>) -> Self {
        Self(peer, Arc::default())
    }

    /// Counts the connection, once, until it ends.
    pub fn count(&self, count: impl FnOnce() -> Connected) {
        self.1.get_or_init(count);
    }
}

/// Serves a router until `stop`; on the caller's threads where there are no lanes.
pub async fn run(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    limits: Limits,
    lanes: Lanes,
    stop: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(limits.connections));
    let idle = Idle::default();
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let socket = match accepted {
            Ok((socket, _)) => socket,
            Err(e) => {
                // Out of descriptors: spinning would not free one.
                tracing::warn!(error = %e, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        // At the end nobody waits for a place.
        let slot = tokio::select! {
            slot = room(&slots, &idle) => slot,
            () = stop.cancelled() => None,
        };
        let (tls, router, stop, place) = (tls.clone(), router.clone(), stop.clone(), idle.enter());
        carry(&mut connections, &lanes, socket, move |socket| async move {
            connection(socket, tls, router, limits, stop, place).await;
            drop(slot);
        });
    }
    // Whoever got through to the kernel before it is told to refuse is served too. Asked of the kernel itself: tokio answers from
    // what it heard last.
    if let Ok(listener) = listener.into_std() {
        while let Ok((socket, _)) = listener.accept() {
            let socket = socket.set_nonblocking(true).and_then(|()| TcpStream::from_std(socket));
            let Ok(socket) = socket else { continue };
            let (tls, router, stop, place) = (tls.clone(), router.clone(), stop.clone(), idle.enter());
            carry(&mut connections, &lanes, socket, move |socket| {
                connection(socket, tls, router, limits, stop, place)
            });
        }
    }
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.drain, drained).await.is_err() {
        connections.shutdown().await;
    }
}

/// Serves a connection on the lane that carries least, which its socket then belongs to, or here.
fn carry<F: Future<Output = ()> + Send>(
    connections: &mut JoinSet<()>,
    lanes: &Lanes,
    socket: TcpStream,
    serve: impl FnOnce(TcpStream) -> F + Send + 'static,
) {
    let Some(lane) = lanes.pick() else {
        connections.spawn(async move { serve(socket).await });
        return;
    };
    let handle = lane.handle().clone();
    let on_lane = async move {
        let _place = lane;
        match socket.into_std().and_then(TcpStream::from_std) {
            Ok(socket) => serve(socket).await,
            Err(e) => tracing::warn!(error = %e, "cannot serve a connection"),
        }
    };
    connections.spawn_on(on_lane, &handle);
}

/// Waits for room for one more connection, and has silent ones leave until there is some.
async fn room(slots: &Arc<Semaphore>, idle: &Idle) -> Option<OwnedSemaphorePermit> {
    loop {
        if let Ok(slot) = Arc::clone(slots).try_acquire_owned() {
            return Some(slot);
        }
        // One that was told while its request came in leaves with its answer, and another has to be told.
        idle.make_room();
        if let Ok(slot) = tokio::time::timeout(LEAVING, Arc::clone(slots).acquire_owned()).await {
            return slot.ok();
        }
    }
}

async fn connection(
    socket: TcpStream,
    tls: Option<TlsAcceptor>,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
    place: Place,
) {
    let _ = socket.set_nodelay(true);
    let socket = Patient::new(socket, limits.write_stall);
    let place = Arc::new(place);
    let Some(tls) = tls else { return http(socket, TlsPeer::new(None), router, limits, stop, place).await };
    ask_now_and_then(&socket.socket);
    let handshake = tokio::select! {
        handshake = tokio::time::timeout(HANDSHAKE, tls.accept(ReadAhead::new(socket))) => handshake,
        () = place.told() => return,
    };
    match handshake {
        Ok(Ok(stream)) => {
            let certificates = stream.get_ref().1.peer_certificates();
            let peer = certificates.and_then(<[_]>::first).and_then(ca::peer);
            http(Gather::new(Sending::new(stream)), TlsPeer::new(peer), router, limits, stop, place).await;
        }
        Ok(Err(e)) => tracing::debug!(error = %e, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

async fn http<S>(
    stream: S,
    peer: TlsPeer,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
    place: Arc<Place>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (since, age) = (Instant::now(), about(limits.age));
    let begun = CancellationToken::new();
    let begins = begun.clone();
    let asked = Arc::clone(&place);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        begins.cancel();
        let busy = asked.busy();
        let router = router.clone();
        request.extensions_mut().insert(peer.clone());
        async move {
            // hyper drops a Content-Length beside a Transfer-Encoding, so that what is left cannot be told from an honest
            // request; the connection of every chunked one ends with its answer, as RFC 9112 (6.1) demands for that case.
            let chunked = request.headers().contains_key(header::TRANSFER_ENCODING);
            let mut response = if chunked && !is_plainly_chunked(&request) {
                // Somebody in front may have cut the body elsewhere: nothing after it is read as a request.
                Problem::new(Kind::Unprocessable)
                    .detail("The body's length has to be given once.")
                    .into_response()
            } else {
                router.oneshot(request.map(Body::new)).await?
            };
            if chunked || since.elapsed() >= age {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, std::convert::Infallible>(response.map(|body| Answer { body, _busy: busy }))
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        // Without a timer the next line does nothing.
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(BUFFER)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = place.told() => {
            // What no request is under way on is closed at once.
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        () = stop.cancelled() => {
            // hyper would close at once what no request has come on yet, but one may be on its way.
            let first = tokio::time::timeout(FIRST, begun.cancelled());
            tokio::select! {
                result = connection.as_mut() => result,
                _ = first => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        }
    };
    if let Err(e) = result {
        tracing::debug!(error = %e, "a connection ended");
    }
}

/// An answer's body: as long as it is sent, its connection is not idle.
struct Answer {
    body: Body,
    _busy: Busy,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

/// Seconds of silence after which a peer is asked whether it is there, between two questions, and questions without an answer.
const ASK: (u64, u64, u32) = (2, 1, 2);

/// Has the kernel ask whether the other end is there: a worker whose node is gone sends no goodbye, and would be taken for one that
/// waits for work.
fn ask_now_and_then(socket: &TcpStream) {
    use rustix::net::sockopt;
    let (idle, interval, count) = ASK;
    let asked = sockopt::set_tcp_keepidle(socket, Duration::from_secs(idle))
        .and_then(|()| sockopt::set_tcp_keepintvl(socket, Duration::from_secs(interval)))
        .and_then(|()| sockopt::set_tcp_keepcnt(socket, count))
        .and_then(|()| sockopt::set_socket_keepalive(socket, true));
    if let Err(e) = asked {
        tracing::debug!(error = %e, "the kernel does not ask whether a worker is there");
    }
}

/// Up to a quarter less: connections that were made together do not end together.
fn about(age: Duration) -> Duration {
    let spread = u32::from(uuid::Uuid::new_v4().as_bytes()[0]);
    age.saturating_sub(age.saturating_mul(spread).checked_div(1_024).unwrap_or_default())
}

/// Whether the body is framed by chunks and by nothing else.
fn is_plainly_chunked(request: &hyper::Request<Incoming>) -> bool {
    let headers = request.headers();
    let mut encodings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let one = encodings.next().is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"chunked"));
    one && encodings.next().is_none()
        && !headers.contains_key(header::CONTENT_LENGTH)
        && request.version() == hyper::Version::HTTP_11
}

/// A socket whose peer has to take bytes now and then: one that stops reading would hold a stream, and its file, for ever.
struct Patient {
    socket: TcpStream,
    stall: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    const fn new(socket: TcpStream, stall: Duration) -> Self {
        Self { socket, stall, waiting: None }
    }

    fn watch<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.waiting = None;
            return poll;
        }
        let stall = self.stall;
        let sleep = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall)));
        ready!(sleep.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.watch(cx, poll)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        self.watch(cx, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::sockopt;

    #[tokio::test]
    async fn a_worker_whose_other_end_is_gone_is_asked_for_and_given_up_within_five_seconds() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        ask_now_and_then(&socket);
        assert!(sockopt::socket_keepalive(&socket).unwrap());
        let (idle, interval) =
            (sockopt::tcp_keepidle(&socket).unwrap(), sockopt::tcp_keepintvl(&socket).unwrap());
        let count = sockopt::tcp_keepcnt(&socket).unwrap();
        assert!(idle + interval * count < Duration::from_secs(5), "{idle:?} {interval:?} {count}");
    }
}
