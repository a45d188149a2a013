//! A proxy before an S3 server that keeps what it was asked and makes answers and bodies go wrong on demand. Requests reach the
//! server as they came, signature and all.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test file uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "test support"
)]

use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::{Method, Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

type Error = Box<dyn std::error::Error + Send + Sync>;
type AnyBody = UnsyncBoxBody<Bytes, Error>;

/// What happens to a request.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The server never sees it; this is the answer: status and S3 error code.
    Answer(u16, &'static str),
    /// The answer's body breaks off after so many bytes.
    CutAnswer(usize),
    /// The answer's body stops after so many bytes, and the connection stays open.
    StallAnswer(usize),
    /// One bit of the request's body is another when it reaches the server.
    FlipRequest,
    /// A header of the answer is this.
    Header(&'static str, &'static str),
    /// A header of the answer is left out.
    NoHeader(&'static str),
    /// The server sees it when there is a permit.
    Hold(Arc<Semaphore>),
}

/// Requests that a fault is for.
type Applies = Arc<dyn Fn(&Seen) -> bool + Send + Sync>;

/// What came.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The connection that it came on.
    pub connection: usize,
    pub method: Method,
    pub path: String,
    pub query: String,
    pub headers: Vec<(String, String)>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
    /// A request with a URL that was signed.
    pub fn presigned(&self) -> bool {
        self.query.contains("X-Amz-Signature=")
    }
}

#[derive(Default)]
struct State {
    seen: Vec<Seen>,
    /// Connections that have not ended.
    open: BTreeSet<usize>,
    /// Forms that were posted, with their answers: what STS is asked.
    forms: Vec<(String, String)>,
    faults: Vec<(Applies, Fault, u32)>,
}

#[derive(Clone)]
pub struct Front {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Front {
    /// Before the server at this address.
    pub async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let front = Self { address: listener.local_addr().unwrap(), state: Arc::default() };
        let (state, client) =
            (Arc::clone(&front.state), Client::builder(TokioExecutor::new()).build_http::<AnyBody>());
        tokio::spawn(async move {
            for connection in 0.. {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (state, client) = (Arc::clone(&state), client.clone());
                state.lock().unwrap().open.insert(connection);
                tokio::spawn(async move {
                    let all = Arc::clone(&state);
                    let service = hyper::service::service_fn(move |request| {
                        serve(Arc::clone(&state), client.clone(), (connection, server), request)
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .preserve_header_case(true)
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                    all.lock().unwrap().open.remove(&connection);
                });
            }
        });
        front
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next `times` requests that `applies` to go wrong so.
    pub fn fault(&self, times: u32, fault: Fault, applies: impl Fn(&Seen) -> bool + Send + Sync + 'static) {
        self.state.lock().unwrap().faults.push((Arc::new(applies), fault, times));
    }

    /// From now on nothing goes wrong.
    pub fn heal(&self) {
        self.state.lock().unwrap().faults.clear();
    }

    /// What came since this was last asked.
    pub fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.state.lock().unwrap().seen)
    }

    /// Whether a connection has not ended.
    pub fn is_open(&self, connection: usize) -> bool {
        self.state.lock().unwrap().open.contains(&connection)
    }

    /// Forms that were posted since this was last asked, with their answers.
    pub fn forms(&self) -> Vec<(String, String)> {
        std::mem::take(&mut self.state.lock().unwrap().forms)
    }

    /// Faults that no request met.
    pub fn unmet(&self) -> usize {
        self.state.lock().unwrap().faults.len()
    }
}

async fn serve(
    state: Arc<Mutex<State>>,
    client: Client<hyper_util::client::legacy::connect::HttpConnector, AnyBody>,
    (connection, server): (usize, SocketAddr),
    request: Request<Incoming>,
) -> Result<Response<AnyBody>, Error> {
    let headers = request.headers().iter().map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned()));
    let seen = Seen {
        connection,
        method: request.method().clone(),
        path: request.uri().path().to_owned(),
        query: request.uri().query().unwrap_or_default().to_owned(),
        headers: headers.collect(),
    };
    let fault = {
        let mut state = state.lock().unwrap();
        let at = state.faults.iter().position(|(applies, _, _)| applies(&seen));
        state.seen.push(seen);
        at.map(|at| {
            state.faults[at].2 -= 1;
            let fault = state.faults[at].1.clone();
            if state.faults[at].2 == 0 {
                state.faults.remove(at);
            }
            fault
        })
    };
    if let Some(Fault::Hold(gate)) = &fault {
        gate.acquire().await?.forget();
    }
    if let Some(Fault::Answer(status, code)) = fault {
        // As storage does it: the answer names what was asked for.
        let text = format!(
            "<Error><Code>{code}</Code><Message>m</Message><Key>{}</Key><Resource>{}</Resource></Error>",
            request.uri().path(),
            request.uri()
        );
        // Taken to its end, so that the answer is not lost to a reset.
        let _ = request.into_body().collect().await;
        let body = Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync();
        return Ok(Response::builder().status(status).body(body)?);
    }
    let (mut head, body) = request.into_parts();
    let uri = format!("http://{server}{}", head.uri.path_and_query().unwrap());
    head.uri = uri.parse()?;
    if head.method == Method::POST && head.uri.path() == "/" {
        let form = body.collect().await?.to_bytes();
        let sent = Full::new(form.clone()).map_err(|never| match never {}).boxed_unsync();
        let (head, body) = client.request(Request::from_parts(head, sent)).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        state.lock().unwrap().forms.push((text(&form), text(&body)));
        let body = Full::new(body).map_err(|never| match never {}).boxed_unsync();
        return Ok(Response::from_parts(head, body));
    }
    let flip = matches!(fault, Some(Fault::FlipRequest));
    let answer = client.request(Request::from_parts(head, sent_on(body, flip))).await?;
    let (mut head, body) = answer.into_parts();
    match fault {
        Some(Fault::Header(name, value)) => drop(head.headers.insert(name, value.parse()?)),
        Some(Fault::NoHeader(name)) => drop(head.headers.remove(name)),
        _ => {}
    }
    Ok(Response::from_parts(head, spoiled(body, fault)))
}

fn sent_on(body: Incoming, flip: bool) -> AnyBody {
    // Without a body there is none to frame.
    if body.is_end_stream() {
        return body.map_err(Into::into).boxed_unsync();
    }
    let mut flip = flip;
    let frames = body.into_data_stream().map(move |chunk| {
        let mut chunk = chunk?.to_vec();
        if std::mem::take(&mut flip) {
            chunk[0] ^= 1;
        }
        Ok(Frame::data(Bytes::from(chunk)))
    });
    StreamBody::new(frames).boxed_unsync()
}

fn spoiled(body: Incoming, fault: Option<Fault>) -> AnyBody {
    let (cut, stall) = match fault {
        Some(Fault::CutAnswer(at)) => (Some(at), false),
        Some(Fault::StallAnswer(at)) => (Some(at), true),
        _ => (None, false),
    };
    let Some(mut left) = cut else { return body.map_err(Into::into).boxed_unsync() };
    let frames = body.into_data_stream().then(move |chunk| {
        let chunk = chunk.map(|chunk| chunk.slice(..chunk.len().min(left)));
        let spent = left == 0;
        left -= chunk.as_ref().map_or(0, Bytes::len);
        async move {
            if spent && stall {
                tokio::time::sleep(Duration::from_secs(3_600)).await;
            }
            if spent {
                return Err(Error::from("cut"));
            }
            Ok(Frame::data(chunk?))
        }
    });
    StreamBody::new(frames).boxed_unsync()
}
