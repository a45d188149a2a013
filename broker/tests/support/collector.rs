//! A collector of traces: a real server that decodes OTLP, keeps what it gets, and answers as it is told. On a thread of its own, so
//! that it goes on whatever the test does.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test file uses a part of it")]

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// A span as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    pub trace: String,
    pub id: String,
    pub parent: String,
    pub name: String,
    pub kind: i32,
    pub flags: u32,
    pub start: u64,
    pub end: u64,
    pub attributes: BTreeMap<String, String>,
    pub error: Option<String>,
    pub links: Vec<(String, String)>,
    pub instance: String,
}

/// How it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Takes,
    Answers(u16),
    Silent,
}

#[derive(Debug)]
pub struct State {
    pub mood: Mood,
    pub spans: Vec<Seen>,
    /// Everything that came, as it came.
    pub raw: Vec<u8>,
    pub requests: Vec<BTreeMap<String, String>>,
    pub connections: usize,
}

pub struct Collector {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn map(pairs: &[KeyValue]) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for pair in pairs {
        let value = match pair.value.as_ref().and_then(|v| v.value.as_ref()) {
            Some(any_value::Value::StringValue(text)) => text.clone(),
            Some(any_value::Value::IntValue(n)) => n.to_string(),
            other => panic!("{}: {other:?}", pair.key),
        };
        assert!(all.insert(pair.key.clone(), value).is_none(), "{} twice", pair.key);
    }
    all
}

fn seen(span: &Span, instance: &str) -> Seen {
    Seen {
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        name: span.name.clone(),
        kind: span.kind,
        flags: span.flags,
        start: span.start_time_unix_nano,
        end: span.end_time_unix_nano,
        attributes: map(&span.attributes),
        error: span.status.as_ref().filter(|s| s.code == 2).map(|s| s.message.clone()),
        links: span.links.iter().map(|l| (hex(&l.trace_id), hex(&l.span_id))).collect(),
        instance: instance.to_owned(),
    }
}

impl Collector {
    pub fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let state = State {
            mood: Mood::Takes,
            spans: Vec::new(),
            raw: Vec::new(),
            requests: Vec::new(),
            connections: 0,
        };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                while let Ok((socket, _)) = listener.accept().await {
                    lock(&shared).connections += 1;
                    let state = Arc::clone(&shared);
                    let serve = service_fn(move |request| take(Arc::clone(&state), request));
                    let connection = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(socket), serve);
                    tokio::spawn(async move { drop(connection.await) });
                }
            });
        });
        Self { address, state }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub fn set(&self, mood: Mood) {
        self.state().mood = mood;
    }

    pub fn spans(&self) -> Vec<Seen> {
        self.state().spans.clone()
    }

    /// The spans of a job's trace, once its own has come with all that it says is a part of it.
    pub fn of_job(&self, job: &str) -> Vec<Seen> {
        let began = Instant::now();
        loop {
            let spans = self.spans();
            let own = spans.iter().find(|s| s.name == "job" && s.attributes["mpegflow.job.id"] == job);
            if let Some(own) = own {
                let all: Vec<Seen> = spans.iter().filter(|s| s.trace == own.trace).cloned().collect();
                let known = |id: &str| all.iter().any(|s| s.id == id);
                if all.iter().all(|s| s.parent.is_empty() || s.flags & 0x200 != 0 || known(&s.parent)) {
                    return all;
                }
            }
            assert!(began.elapsed() < Duration::from_secs(60), "job {job} among {spans:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

async fn take(
    state: Arc<Mutex<State>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    let headers = head.headers.iter().map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned()));
    let target = ("(target)".to_owned(), format!("{} {}", head.method, head.uri));
    let headers: BTreeMap<String, String> = headers.chain([target]).collect();
    let mood = {
        let mut state = lock(&state);
        state.raw.extend_from_slice(&body);
        state.requests.push(headers);
        if state.mood == Mood::Takes {
            let batch = ExportTraceServiceRequest::decode(body).unwrap();
            for resource in &batch.resource_spans {
                let of = map(&resource.resource.as_ref().unwrap().attributes);
                assert_eq!(of["service.name"], "mpegflow-broker");
                for scope in &resource.scope_spans {
                    let spans = scope.spans.iter().map(|span| seen(span, &of["service.instance.id"]));
                    state.spans.extend(spans);
                }
            }
        }
        state.mood
    };
    let status = match mood {
        Mood::Takes => 200,
        Mood::Answers(status) => status,
        Mood::Silent => std::future::pending().await,
    };
    Ok(Response::builder().status(status).body(Full::default()).unwrap())
}
