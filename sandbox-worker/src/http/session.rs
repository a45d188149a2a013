//! A supervisor's standing with its broker: who it is, the connections it has under that name, and their renewal.
//!
//! Renewal makes a new key and a new pool of connections and swaps it in; calls that are under way keep the pool they began
//! with. The attempt's capability is bound to the worker, not to a certificate, so nothing of an attempt notices.

use crate::backoff::Backoff;
use crate::broker::{Body, Broker, CallError, Grant};
use crate::http::call::{BodyChunks, drained, json, ranged, send};
use crate::http::join::{Join, Token};
use crate::http::storage::Storage;
use crate::http::tls::{Client, Key, TlsError, anonymous};
use crate::secret::Secret;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RANGE};
use hyper::{Method, Request};
use mpegflow_protocol::ids::{AttemptId, WorkerId};
use mpegflow_protocol::limits::PRESIGNED_LEAST;
use mpegflow_protocol::to_json;
use mpegflow_protocol::worker::{
    Complete, Enroll, Enrolled, Fail, Heartbeat, HeartbeatReply, LeaseReply, LeaseRequest,
    PART_DIGEST_HEADER, PartUrl, ReadUrl, Renew, Signed, UrlReply,
};
use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// A call whose work at the broker is small.
const SHORT: Duration = Duration::from_secs(30);
/// A part of 8 MiB, from the first byte to the broker's answer: 70 kB/s.
pub(super) const PART: Duration = Duration::from_secs(120);
/// What a pool that is not presigned answers to who asks for a URL.
const FORBIDDEN: u16 = 403;
/// What the broker answers where storage does not hold a part.
const NOT_THERE: u16 = 422;
/// What the network may add to a long poll.
const SLACK: Duration = Duration::from_secs(15);

/// Why a worker has no identity.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// The broker does not take the token: asking again will not help.
    #[error("the broker does not accept this worker's token; its log says why")]
    Token,
    /// The broker refuses: asking again will not help.
    #[error("the broker refuses this worker: {0}")]
    Refused(CallError),
    /// It cannot be asked now.
    #[error("{0}")]
    Unavailable(CallError),
    /// The identity cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A broker that this worker is enrolled with.
#[derive(Debug)]
pub struct HttpBroker {
    join: Join,
    now: RwLock<Arc<Identity>>,
    storage: Storage,
    /// What goes through the broker in a presigned pool, of the attempt that runs.
    brokered: Mutex<Option<(AttemptId, HashSet<Slot>)>>,
    enrolling: tokio::sync::Mutex<()>,
}

/// What bytes are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Slot {
    Input(u32),
    Output(u32),
    All,
}

#[derive(Debug)]
struct Identity {
    worker: WorkerId,
    client: Client,
    renew_at: Instant,
    expires_at: Instant,
}

impl HttpBroker {
    /// Enrols, waiting for the broker as long as it cannot be reached.
    ///
    /// # Errors
    /// The broker refuses, or TLS cannot be set up.
    pub async fn enroll(join: Join) -> Result<Self, EnrollError> {
        let identity = persistently(|| enroll(&join)).await?;
        Ok(Self {
            storage: Storage::new(join.storage.clone()),
            join,
            now: RwLock::new(Arc::new(identity)),
            brokered: Mutex::default(),
            enrolling: tokio::sync::Mutex::new(()),
        })
    }

    /// Who this worker is now.
    pub fn worker(&self) -> WorkerId {
        self.identity().worker
    }

    /// Renews the identity at half of its life, for as long as it runs.
    ///
    /// # Errors
    /// The broker refuses this worker for good.
    pub async fn keep_renewed(&self) -> Result<std::convert::Infallible, EnrollError> {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        loop {
            let identity = self.identity();
            tokio::time::sleep_until(identity.renew_at.into()).await;
            if !Arc::ptr_eq(&identity, &self.identity()) {
                continue;
            }
            let renewed = if Instant::now() >= identity.expires_at {
                Err(EnrollError::Refused(CallError::UnknownIdentity))
            } else {
                renew(&self.join.again(), &identity).await
            };
            match renewed {
                Ok(renewed) => {
                    tracing::info!(worker = %renewed.worker, "the certificate was renewed");
                    self.swap(renewed);
                    backoff.reset();
                }
                Err(EnrollError::Refused(CallError::UnknownIdentity)) => self.enroll_again(&identity).await?,
                Err(error) => {
                    tracing::warn!(%error, "the certificate was not renewed");
                    tokio::time::sleep(backoff.next_wait()).await;
                }
            }
        }
    }

    /// Enrols anew, unless somebody did so since `stale` was looked up.
    async fn enroll_again(&self, stale: &Arc<Identity>) -> Result<(), EnrollError> {
        let _one_at_a_time = self.enrolling.lock().await;
        if !Arc::ptr_eq(stale, &self.identity()) {
            return Ok(());
        }
        tracing::warn!("the broker does not know this worker; enrolling again");
        let join = self.join.again();
        let identity = persistently(|| enroll(&join)).await?;
        self.swap(identity);
        Ok(())
    }

    /// Enrols anew after a call was answered with [`CallError::UnknownIdentity`].
    ///
    /// # Errors
    /// The broker refuses this worker for good.
    pub async fn unknown(&self, as_worker: WorkerId) -> Result<(), EnrollError> {
        let identity = self.identity();
        if identity.worker != as_worker {
            return Ok(());
        }
        self.enroll_again(&identity).await
    }

    fn identity(&self) -> Arc<Identity> {
        Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn swap(&self, identity: Identity) {
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(identity);
    }

    fn request(&self, method: Method, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>, CallError> {
        request(&self.join, method, path, body)
    }

    fn attempt(
        &self,
        method: Method,
        grant: &Grant,
        rest: &str,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, CallError> {
        let mut request =
            self.request(method, &format!("/worker/v1/attempts/{}/{rest}", grant.attempt), body)?;
        let bearer = HeaderValue::try_from(format!("Bearer {}", grant.capability.expose()));
        let mut bearer = bearer.map_err(|_| CallError::Malformed("a capability that is no header".into()))?;
        bearer.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, bearer);
        Ok(request)
    }

    async fn post(&self, grant: &Grant, rest: &str, body: Vec<u8>) -> Result<(), CallError> {
        let request = self.attempt(Method::POST, grant, rest, body.into())?;
        drained(send(&self.identity().client, request, SHORT).await?).await
    }

    async fn read_brokered(
        &self,
        grant: &Grant,
        input: u32,
        range: Range<u64>,
    ) -> Result<Body<BodyChunks>, CallError> {
        let mut request = self.attempt(Method::GET, grant, &format!("inputs/{input}"), Bytes::new())?;
        let last = range.end.saturating_sub(1);
        let value = HeaderValue::try_from(format!("bytes={}-{last}", range.start));
        request.headers_mut().insert(RANGE, value.map_err(|e| CallError::Malformed(e.to_string()))?);
        let response = send(&self.identity().client, request, SHORT).await?;
        ranged(response, &range)
    }

    async fn put_brokered(
        &self,
        grant: &Grant,
        output: u32,
        part: u32,
        bytes: Bytes,
        digest: &str,
    ) -> Result<(), CallError> {
        let mut request =
            self.attempt(Method::PUT, grant, &format!("outputs/{output}/parts/{part}"), bytes)?;
        let digest = HeaderValue::try_from(digest).map_err(|e| CallError::Malformed(e.to_string()))?;
        request.headers_mut().insert(PART_DIGEST_HEADER, digest);
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        drained(send(&self.identity().client, request, PART).await?).await
    }

    /// A URL to read a range from storage, where this pool, the range and the input have one.
    async fn url_to_read(
        &self,
        grant: &Grant,
        input: u32,
        range: &Range<u64>,
    ) -> Result<Option<Box<Signed>>, CallError> {
        let brokered = Slot::Input(input);
        if range.end.saturating_sub(range.start) < PRESIGNED_LEAST || self.is_brokered(grant, brokered) {
            return Ok(None);
        }
        let ask = ReadUrl { start: range.start, end: range.end };
        match self.url(grant, &format!("inputs/{input}/url"), to_json(&ask)).await? {
            Some(UrlReply::Signed(signed)) => Ok(Some(signed)),
            Some(UrlReply::Brokered {}) => {
                self.note_brokered(grant, brokered);
                Ok(None)
            }
            Some(UrlReply::Stored {}) => Err(CallError::Malformed("an input that is stored".into())),
            None => Ok(None),
        }
    }

    /// A URL to write a part to storage, or what is to be done in place of that.
    async fn url_to_write(
        &self,
        grant: &Grant,
        output: u32,
        part: u32,
        said: &PartUrl,
    ) -> Result<UrlReply, CallError> {
        let brokered = Slot::Output(output);
        if said.size < PRESIGNED_LEAST || self.is_brokered(grant, brokered) {
            return Ok(UrlReply::Brokered {});
        }
        let path = format!("outputs/{output}/parts/{part}/url");
        let reply = self.url(grant, &path, to_json(said)).await?.unwrap_or(UrlReply::Brokered {});
        if matches!(reply, UrlReply::Brokered {}) {
            self.note_brokered(grant, brokered);
        }
        Ok(reply)
    }

    /// None where the pool is not presigned (any more), or not for this attempt now.
    async fn url(&self, grant: &Grant, rest: &str, body: Vec<u8>) -> Result<Option<UrlReply>, CallError> {
        let request = self.attempt(Method::POST, grant, rest, body.into())?;
        let reply = async { json("url", send(&self.identity().client, request, SHORT).await?).await };
        match reply.await {
            Ok(reply) => Ok(Some(reply)),
            Err(CallError::Refused { status: FORBIDDEN, .. }) => {
                self.note_brokered(grant, Slot::All);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether what is in a slot goes through the broker for the rest of the attempt.
    fn is_brokered(&self, grant: &Grant, slot: Slot) -> bool {
        if self.join.storage.is_empty() {
            return true;
        }
        let brokered = self.brokered.lock().unwrap_or_else(PoisonError::into_inner);
        let of_attempt = brokered.as_ref().filter(|(attempt, _)| *attempt == grant.attempt);
        of_attempt.is_some_and(|(_, slots)| slots.contains(&slot) || slots.contains(&Slot::All))
    }

    /// Notes that. There is one attempt at a time, with as many slots as its lease has.
    fn note_brokered(&self, grant: &Grant, slot: Slot) {
        let mut brokered = self.brokered.lock().unwrap_or_else(PoisonError::into_inner);
        match brokered.as_mut().filter(|(attempt, _)| *attempt == grant.attempt) {
            Some((_, slots)) => drop(slots.insert(slot)),
            None => *brokered = Some((grant.attempt, HashSet::from([slot]))),
        }
    }
}

impl Broker for HttpBroker {
    type Chunks = BodyChunks;

    async fn lease(&self, wait: Duration) -> Result<LeaseReply, CallError> {
        let wait_ms = u32::try_from(wait.as_millis()).unwrap_or(30_000).min(30_000);
        let body = to_json(&LeaseRequest { wait_ms });
        let request = self.request(Method::POST, "/worker/v1/lease", body.into())?;
        json("lease", send(&self.identity().client, request, wait.saturating_add(SLACK)).await?).await
    }

    async fn read(
        &self,
        grant: &Grant,
        input: u32,
        range: Range<u64>,
    ) -> Result<Body<BodyChunks>, CallError> {
        match self.url_to_read(grant, input, &range).await? {
            Some(signed) => self.storage.read(&signed, range).await,
            None => self.read_brokered(grant, input, range).await,
        }
    }

    async fn put_part(
        &self,
        grant: &Grant,
        output: u32,
        part: u32,
        bytes: Bytes,
        digest: &str,
    ) -> Result<(), CallError> {
        let said =
            PartUrl { size: u64::try_from(bytes.len()).unwrap_or(u64::MAX), sha256: digest.to_owned() };
        match self.url_to_write(grant, output, part, &said).await? {
            UrlReply::Stored {} => Ok(()),
            UrlReply::Brokered {} => self.put_brokered(grant, output, part, bytes, digest).await,
            UrlReply::Signed(signed) => {
                let sent = self.storage.write(&signed, bytes).await;
                // Whatever came of it: an answer that was lost may have been a good one, and the broker asks storage.
                let path = format!("outputs/{output}/parts/{part}/stored");
                match (self.post(grant, &path, to_json(&said)).await, sent) {
                    (Err(CallError::Refused { status: NOT_THERE, .. }), sent) => {
                        Err(sent.err().unwrap_or_else(|| {
                            CallError::Unavailable("storage took a part and does not hold it".into())
                        }))
                    }
                    (counted, _) => counted,
                }
            }
        }
    }

    async fn heartbeat(&self, grant: &Grant, beat: &Heartbeat) -> Result<HeartbeatReply, CallError> {
        let request = self.attempt(Method::POST, grant, "heartbeat", to_json(beat).into())?;
        json("heartbeat reply", send(&self.identity().client, request, SHORT).await?).await
    }

    async fn complete(&self, grant: &Grant, complete: &Complete) -> Result<(), CallError> {
        self.post(grant, "complete", to_json(complete)).await
    }

    async fn fail(&self, grant: &Grant, fail: &Fail) -> Result<(), CallError> {
        self.post(grant, "fail", to_json(fail)).await
    }

    async fn release(&self, grant: &Grant) -> Result<(), CallError> {
        self.post(grant, "release", Vec::new()).await
    }
}

fn request(join: &Join, method: Method, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>, CallError> {
    let request = Request::builder().method(&method).uri(format!("https://{}{path}", join.broker));
    let request = if method == Method::POST && !body.is_empty() {
        request.header(CONTENT_TYPE, "application/json")
    } else {
        request
    };
    request.body(Full::new(body)).map_err(|e| CallError::Malformed(e.to_string()))
}

async fn enroll(join: &Join) -> Result<Identity, EnrollError> {
    let key = Key::of(join)?;
    let client = anonymous(join)?;
    let enroll = Enroll {
        token: token(join)?.expose().to_owned(),
        csr: key.csr.clone(),
        pool: join.pool.clone(),
        version: env!("CARGO_PKG_VERSION").into(),
    };
    match identify(join, key, &client, "/worker/v1/enroll", to_json(&enroll)).await {
        Err(EnrollError::Refused(CallError::UnknownIdentity)) => Err(EnrollError::Token),
        enrolled => enrolled,
    }
}

/// The token as it is now. A kubelet that is late with it is waited for.
fn token(join: &Join) -> Result<Secret, EnrollError> {
    let unread = |e: std::io::Error| CallError::Unavailable(format!("the pod's token cannot be read: {e}"));
    join.token.now().map_err(|e| EnrollError::Unavailable(unread(e)))
}

async fn renew(join: &Join, now: &Identity) -> Result<Identity, EnrollError> {
    let key = Key::of(join)?;
    let pods = match join.token {
        Token::Join(_) => None,
        Token::Pod(_) => Some(token(join)?.expose().to_owned()),
    };
    let body = to_json(&Renew { csr: key.csr.clone(), token: pods });
    identify(join, key, &now.client, "/worker/v1/renew", body).await
}

async fn identify(
    join: &Join,
    key: Key,
    client: &Client,
    path: &str,
    body: Vec<u8>,
) -> Result<Identity, EnrollError> {
    let asked = Instant::now();
    let answer = async {
        json::<Enrolled>(
            "enrolled",
            send(client, request(join, Method::POST, path, body.into())?, SHORT).await?,
        )
        .await
    };
    let enrolled = answer.await.map_err(|error| {
        if error.is_transient() { EnrollError::Unavailable(error) } else { EnrollError::Refused(error) }
    })?;
    let life = Duration::from_secs(enrolled.expires_in_s.clamp(2, 7 * 24 * 3600));
    let at = |after: Duration| asked.checked_add(after).unwrap_or(asked);
    Ok(Identity {
        worker: enrolled.worker,
        client: key.client(join, &enrolled.certificate)?,
        renew_at: at(life.checked_div(2).unwrap_or_default()),
        expires_at: at(life),
    })
}

/// Tries until it works or is refused.
async fn persistently<T, F: Future<Output = Result<T, EnrollError>>>(
    mut step: impl FnMut() -> F,
) -> Result<T, EnrollError> {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(15));
    loop {
        match step().await {
            Err(EnrollError::Unavailable(error)) => {
                tracing::warn!(%error, "the broker cannot be reached; trying again");
                tokio::time::sleep(backoff.next_wait()).await;
            }
            result => return result,
        }
    }
}
