//! The wire: HTTP/1.1 by hyper, over rustls where the endpoint is `https`. One pool of connections for the bytes and for the
//! SDK's control calls.

use super::fault::Fault;
use super::limits::{CONNECT, CONTROL_BODY};
use crate::bulk::{BUFFER, Gather, ReadAhead};
use crate::lanes;
use crate::objects::BodyError;
use crate::trust;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector as SmithyConnector, HttpConnectorFuture, HttpConnectorSettings,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Request, Response};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower::ServiceExt as _;
use tower::util::MapResponse;

/// What S3 keeps an idle connection open for is about 20 s.
const POOL_IDLE: Duration = Duration::from_secs(15);
/// Idle connections that are kept.
const POOL: usize = 64;
/// An error's description is not longer.
const ERROR_BODY: usize = 16 << 10;

/// A request's body.
pub(super) type Outgoing = UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>;

/// No bytes.
pub(super) fn empty() -> Outgoing {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// These bytes.
pub(super) fn whole(bytes: Bytes) -> Outgoing {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// The bytes of a stream. The request's `Content-Length` has to say how many.
pub(super) fn streamed(
    stream: impl futures_util::Stream<Item = Result<Bytes, BodyError>> + Send + 'static,
) -> Outgoing {
    use futures_util::StreamExt as _;
    let frames = stream.map(|chunk| chunk.map(Frame::data).map_err(Into::into));
    StreamBody::new(frames).boxed_unsync()
}

/// A connection below TLS, and above it where there is any.
type Below = TokioIo<ReadAhead<TcpStream>>;
type Above = TokioIo<Gather<TokioIo<MaybeHttpsStream<Below>>>>;
type Tcp = MapResponse<HttpConnector, fn(TokioIo<TcpStream>) -> Below>;
type Connector = MapResponse<HttpsConnector<Tcp>, fn(MaybeHttpsStream<Below>) -> Above>;

type Http = Client<Connector, Outgoing>;

/// The connections to storage.
#[derive(Clone)]
pub(super) struct Wire {
    connector: Connector,
    http: Http,
    /// Each lane's own, from its first request on: a connection stays on the thread that made it.
    on_lanes: Arc<[OnceLock<Http>; lanes::MOST]>,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wire(…)")
    }
}

impl Wire {
    /// `ca` is a PEM file with the only authorities that are trusted; the system's where there is none.
    pub(super) fn open(ca: Option<&Path>) -> io::Result<Self> {
        let https = HttpsConnectorBuilder::new().with_tls_config(trust::client(ca)?);
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT));
        let below: fn(TokioIo<TcpStream>) -> Below = |tcp| TokioIo::new(ReadAhead::new(tcp.into_inner()));
        let above: fn(_) -> Above = |stream| TokioIo::new(Gather::new(TokioIo::new(stream)));
        let https = https.https_or_http().enable_http1().wrap_connector(tcp.map_response(below));
        let connector: Connector = https.map_response(above);
        Ok(Self { http: pooled(&connector), connector, on_lanes: Arc::default() })
    }

    fn here(&self) -> &Http {
        let lane = lanes::here().and_then(|lane| self.on_lanes.get(lane));
        lane.map_or(&self.http, |own| own.get_or_init(|| pooled(&self.connector)))
    }

    /// Sends a request and returns the head of a good answer; `within` bounds the time until then.
    pub(super) async fn send(
        &self,
        request: Request<Outgoing>,
        within: Duration,
    ) -> Result<Response<Incoming>, Fault> {
        let answer = timeout(within, self.here().request(request)).await.map_err(|_| Fault::Timeout)?;
        let answer = answer.map_err(|e| Fault::Connection(e.into()))?;
        if answer.status().is_success() { Ok(answer) } else { Err(refusal(answer).await) }
    }
}

/// A client with a pool of its own.
fn pooled(connector: &Connector) -> Http {
    Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(POOL_IDLE)
        .pool_max_idle_per_host(POOL)
        .http1_max_buf_size(BUFFER)
        .build(connector.clone())
}

/// What storage says of a request that it did not serve.
async fn refusal(answer: Response<Incoming>) -> Fault {
    let status = answer.status().as_u16();
    let body = Limited::new(answer.into_body(), ERROR_BODY).collect();
    let text = match timeout(CONNECT, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        _ => Bytes::new(),
    };
    let text = String::from_utf8_lossy(&text);
    let code = text
        .split_once("<Code>")
        .and_then(|(_, rest)| rest.split_once("</Code>"))
        .map_or("", |(code, _)| code);
    Fault::answer(status, code)
}

// === the SDK's control calls go the same way

impl SmithyConnector for Wire {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let http = self.here().clone();
        HttpConnectorFuture::new(async move {
            let request = request.try_into_http1x().map_err(|e| ConnectorError::user(e.into()))?;
            let request = request.map(BodyExt::boxed_unsync);
            let answer = http.request(request).await.map_err(|e| ConnectorError::io(e.into()))?;
            // A list of a thousand names is half a megabyte; nothing that is asked for is longer.
            let answer = answer.map(|body| SdkBody::from_body_1_x(Limited::new(body, CONTROL_BODY)));
            HttpResponse::try_from(answer).map_err(|e| ConnectorError::other(e.into(), None))
        })
    }
}

impl HttpClient for Wire {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lanes::Lanes;

    #[tokio::test]
    async fn a_lane_has_a_client_of_its_own_from_its_first_request_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let key = rcgen::KeyPair::generate().unwrap();
        let ca = rcgen::CertificateParams::default().self_signed(&key).unwrap();
        std::fs::write(&path, ca.pem()).unwrap();
        let wire = Wire::open(Some(&path)).unwrap();
        let made = || wire.on_lanes.iter().filter(|own| own.get().is_some()).count();
        wire.here();
        assert_eq!(made(), 0, "whoever is on no lane needs none");
        let lanes = Lanes::start().unwrap();
        let place = lanes.pick().unwrap();
        for _ in 0..2 {
            let on_lane = wire.clone();
            place.handle().spawn(async move { drop(on_lane.here().clone()) }).await.unwrap();
            assert_eq!(made(), 1);
        }
    }
}
