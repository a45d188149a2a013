//! Sessions of a role. STS gives each with a policy that admits what the broker does to objects, in one bucket and below one prefix:
//! whatever else the role may do, a session may not, so that an error here leads nowhere else.
//!
//! A session is used until shortly before its end, by all requests; then one of them asks for the next. STS that does not answer costs
//! nothing as long as the session lives. The credentials that the role is assumed with are read again for each session.

use super::config::{Role, S3Config};
use super::credentials::FileCredentials;
use super::fault::Fault;
use super::limits::{CONTROL, RENEW, RENEW_WITHIN, ROLE_LAST, ROLE_PAUSE};
use super::wire::{Wire, whole};
use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::Request;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// An answer of STS is not longer, in bytes.
const MAX_ANSWER: usize = 64 << 10;

/// A session.
#[derive(Clone)]
struct Session {
    credentials: Credentials,
    /// When it ends.
    end: Instant,
    /// When another one is asked for.
    renew: Instant,
}

/// When STS refused last, and what it said.
type Refused = Option<(Instant, String)>;

/// The sessions of a role, one after the other.
pub(super) struct Sessions {
    base: FileCredentials,
    wire: Wire,
    endpoint: String,
    region: String,
    form: String,
    life: Duration,
    session: Mutex<Option<Session>>,
    /// Held by the one that asks STS.
    asking: tokio::sync::Mutex<Refused>,
}

impl Sessions {
    pub(super) fn new(config: &S3Config, role: &Role, base: FileCredentials, wire: Wire) -> Self {
        let region = config.region.clone();
        let suffix = if region.starts_with("cn-") { ".cn" } else { "" };
        let amazon = || format!("https://sts.{region}.amazonaws.com{suffix}");
        let form = [
            ("Action", "AssumeRole"),
            ("Version", "2011-06-15"),
            ("RoleArn", &role.arn),
            ("RoleSessionName", &role.session),
            ("ExternalId", &role.external_id),
            ("DurationSeconds", &role.life.as_secs().to_string()),
            ("Policy", &policy(&role.arn, &config.bucket, &config.prefix)),
        ]
        .map(|(name, value)| format!("{name}={}", encoded(value)));
        Self {
            base,
            wire,
            endpoint: role.endpoint.clone().unwrap_or_else(amazon),
            region,
            form: form.join("&"),
            life: role.life,
            session: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
        }
    }

    /// Credentials of a session that lives.
    pub(super) async fn current(&self) -> Result<Credentials, Fault> {
        let last = self.session();
        match last {
            Some(session) if session.renew > Instant::now() => Ok(session.credentials),
            // Only one renews, and nobody waits for it: what is there is good.
            Some(session) => match self.asking.try_lock() {
                Err(_) => Ok(session.credentials),
                Ok(mut refused) => match self.next(&mut refused, RENEW_WITHIN).await {
                    Ok(credentials) => Ok(credentials),
                    Err(error) => {
                        tracing::warn!(%error, "a role's next session is not there yet; the last one is used");
                        Ok(session.credentials)
                    }
                },
            },
            None => {
                let mut refused = self.asking.lock().await;
                match self.session() {
                    // Another one has asked meanwhile.
                    Some(session) => Ok(session.credentials),
                    None => self.next(&mut refused, CONTROL).await,
                }
            }
        }
    }

    /// The session, while it can be used.
    fn session(&self) -> Option<Session> {
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner).clone();
        session.filter(|session| session.end.saturating_duration_since(Instant::now()) > ROLE_LAST)
    }

    /// The session is not used again.
    pub(super) fn forget(&self) {
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    async fn next(&self, refused: &mut Refused, within: Duration) -> Result<Credentials, Fault> {
        if let Some((_, text)) = refused.as_ref().filter(|(at, _)| at.elapsed() < ROLE_PAUSE) {
            return Err(Fault::Role(text.clone()));
        }
        let assumed = tokio::time::timeout(within, self.assume()).await;
        match assumed.unwrap_or(Err(Fault::Timeout)) {
            Ok(session) => {
                let credentials = session.credentials.clone();
                *self.session.lock().unwrap_or_else(PoisonError::into_inner) = Some(session);
                *refused = None;
                Ok(credentials)
            }
            Err(fault) => {
                *refused = Some((Instant::now(), fault.to_string()));
                Err(Fault::Role(fault.to_string()))
            }
        }
    }

    async fn assume(&self) -> Result<Session, Fault> {
        let asked = Instant::now();
        let answer = self.wire.send(self.request()?, CONTROL).await?;
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(Fault::Connection)?.to_bytes();
        let text = std::str::from_utf8(&body).map_err(|_| Fault::Strange("no text"))?;
        let tag = |name: &str| {
            let (_, rest) = text.split_once(&format!("<{name}>"))?;
            rest.split_once(&format!("</{name}>")).map(|(value, _)| value.trim().to_owned())
        };
        let (Some(id), Some(secret), Some(token), Some(end)) =
            (tag("AccessKeyId"), tag("SecretAccessKey"), tag("SessionToken"), tag("Expiration"))
        else {
            return Err(Fault::Strange("no session"));
        };
        let end: jiff::Timestamp = end.parse().map_err(|_| Fault::Strange("no time at which it ends"))?;
        let left = end.duration_since(jiff::Timestamp::now());
        // What was asked for is the most: a clock that is wrong must not make it longer.
        let life = Duration::try_from(left).unwrap_or_default().min(self.life);
        let at = |after: Duration| asked.checked_add(after).unwrap_or(asked);
        let renew = life.saturating_sub(RENEW.min(life.checked_div(4).unwrap_or_default()));
        let credentials = Credentials::new(id, secret, Some(token), None, "role");
        Ok(Session { credentials, end: at(life), renew: at(renew) })
    }

    fn request(&self) -> Result<Request<super::wire::Outgoing>, Fault> {
        let identity = self.base.current().map_err(Fault::Credentials)?.into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("sts")
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()
            .map_err(|_| Fault::Request)?
            .into();
        let url = format!("{}/", self.endpoint);
        let host = self.endpoint.split_once("://").map_or("", |(_, host)| host);
        let headers = [("host", host), ("content-type", "application/x-www-form-urlencoded")];
        let body = SignableBody::Bytes(self.form.as_bytes());
        let signable = SignableRequest::new("POST", &url, headers.into_iter(), body);
        let signed = sign(signable.map_err(|_| Fault::Request)?, &params).map_err(|_| Fault::Request)?;
        let mut request = Request::builder().method("POST").uri(&url);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let body = whole(Bytes::from(self.form.clone()));
        let mut request = request.body(body).map_err(|_| Fault::Request)?;
        signed.into_parts().0.apply_to_request_http1x(&mut request);
        Ok(request)
    }
}

/// What a session may do. Neither a bucket's name nor a prefix can hold anything that a policy reads as a pattern.
fn policy(role: &str, bucket: &str, prefix: &str) -> String {
    let partition = role.split(':').nth(1).unwrap_or("aws");
    let bucket = format!("arn:{partition}:s3:::{bucket}");
    // Without a prefix it is every name: also the request for names that says none.
    let mut listing =
        serde_json::json!({ "Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": [bucket] });
    if let Some(listing) = listing.as_object_mut().filter(|_| !prefix.is_empty()) {
        let below = serde_json::json!({ "StringLike": { "s3:prefix": [format!("{prefix}*")] } });
        listing.insert("Condition".into(), below);
    }
    serde_json::json!({
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": [
                    "s3:GetObject",
                    "s3:PutObject",
                    "s3:DeleteObject",
                    "s3:AbortMultipartUpload",
                    "s3:ListMultipartUploadParts",
                ],
                "Resource": [format!("{bucket}/{prefix}*")],
            },
            listing,
            // It has no condition on a prefix that every server knows. It shows names of uploads under way, and no byte.
            { "Effect": "Allow", "Action": ["s3:ListBucketMultipartUploads"], "Resource": [bucket] },
        ],
    })
    .to_string()
}

/// A value of a form.
fn encoded(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::StatusCode;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use tokio::net::TcpListener;

    #[test]
    fn a_session_may_use_objects_below_the_prefix_and_nothing_else() {
        let policy: serde_json::Value =
            serde_json::from_str(&policy("arn:aws-cn:iam::123456789012:role/r", "media", "in/")).unwrap();
        let statements = policy["Statement"].as_array().unwrap();
        assert_eq!(statements[0]["Resource"], serde_json::json!(["arn:aws-cn:s3:::media/in/*"]));
        assert_eq!(statements[1]["Condition"], serde_json::json!({"StringLike": {"s3:prefix": ["in/*"]}}));
        for statement in statements {
            assert_eq!(statement["Effect"], "Allow");
            for action in statement["Action"].as_array().unwrap() {
                assert!(!action.as_str().unwrap().contains('*'), "{action}");
            }
        }
        assert_eq!(statements.len(), 3);
        assert!(policy.to_string().len() < 2_048);
    }

    #[test]
    fn a_form_cannot_be_added_to() {
        assert_eq!(encoded("a-b_c.d~e"), "a-b_c.d~e");
        assert_eq!(encoded("a&Policy=b c+é"), "a%26Policy%3Db%20c%2B%C3%A9");
    }

    /// An STS that gives sessions of this many seconds, or says no; and what it was asked.
    struct Sts {
        endpoint: String,
        asked: Arc<Mutex<Vec<String>>>,
        /// Seconds of a session; 0 to refuse.
        seconds: Arc<AtomicU64>,
    }

    async fn sts() -> Sts {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (asked, seconds) = (Arc::<Mutex<Vec<String>>>::default(), Arc::new(AtomicU64::new(3_600)));
        let (all, left) = (Arc::clone(&asked), Arc::clone(&seconds));
        let app = axum::Router::new().fallback(move |form: String| {
            let n = {
                let mut all = all.lock().unwrap();
                all.push(form);
                all.len()
            };
            let left = left.load(Ordering::Relaxed);
            async move {
                if left == 0 {
                    let text = "<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>";
                    return (StatusCode::FORBIDDEN, text.to_owned());
                }
                let end = jiff::Timestamp::now().checked_add(Duration::from_secs(left)).unwrap();
                let text = format!(
                    "<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>id{n}</AccessKeyId>\
                     <SecretAccessKey>secret</SecretAccessKey><SessionToken>token</SessionToken>\
                     <Expiration>{end}</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"
                );
                (StatusCode::OK, text)
            }
        });
        tokio::spawn(async move { axum::serve(listener, app).await });
        Sts { endpoint, asked, seconds }
    }

    fn sessions(sts: &Sts, dir: &std::path::Path) -> Sessions {
        let credentials_file = dir.join("credentials");
        std::fs::write(&credentials_file, "aws_access_key_id=base\naws_secret_access_key=s\n").unwrap();
        let role = Role {
            arn: "arn:aws:iam::123456789012:role/r".into(),
            external_id: "tnt_1".into(),
            session: "mpegflow".into(),
            endpoint: Some(sts.endpoint.clone()),
            life: Duration::from_secs(3_600),
        };
        let config = S3Config {
            bucket: "media".into(),
            region: "eu-west-1".into(),
            endpoint: None,
            path_style: false,
            prefix: "in/".into(),
            credentials_file: credentials_file.clone(),
            role: Some(role.clone()),
            tenant: None,
            ca_file: None,
            encryption: crate::objects::s3::Encryption::Bucket,
            spool_dir: dir.join("spool"),
        };
        let wire = Wire::open(None).unwrap();
        Sessions::new(&config, &role, FileCredentials::new(credentials_file), wire)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn one_session_is_for_all_requests_until_shortly_before_its_end() {
        let (sts, dir) = (sts().await, tempfile::tempdir().unwrap());
        let sessions = Arc::new(sessions(&sts, dir.path()));
        let id = async || sessions.current().await.map(|c| c.access_key_id().to_owned());
        let all = futures_util::future::join_all((0..32).map(|_| id())).await;
        assert!(all.iter().all(|id| id.as_ref().unwrap() == "id1"), "{all:?}");
        let form = sts.asked.lock().unwrap()[0].clone();
        for part in [
            "Action=AssumeRole&Version=2011-06-15&",
            "&ExternalId=tnt_1&",
            "RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fr&",
            "&DurationSeconds=3600&",
            "arn%3Aaws%3As3%3A%3A%3Amedia%2Fin%2F%2A",
        ] {
            assert!(form.contains(part), "{part}: {form}");
        }
        // Storage takes it no more: the next one is asked for, and it is a session that is about to end.
        sts.seconds.store(16, Ordering::Relaxed);
        sessions.forget();
        assert_eq!(id().await.unwrap(), "id2");
        assert_eq!(sts.asked.lock().unwrap().len(), 2);
        // One of a minute is replaced when a quarter of it is left; one of which too little is left, at once.
        let ends = Instant::now() + Duration::from_secs(60);
        let held = |renew: Instant, end: Instant| {
            let credentials = Credentials::new("held", "s", Some("t".into()), None, "test");
            *sessions.session.lock().unwrap() = Some(Session { credentials, end, renew });
        };
        held(ends, ends);
        assert_eq!(id().await.unwrap(), "held");
        held(Instant::now(), ends);
        assert_eq!(id().await.unwrap(), "id3");
        // STS says no: what lives is used on, and what does not is an error that says why, without asking STS for each request.
        sts.seconds.store(0, Ordering::Relaxed);
        held(Instant::now(), ends);
        let asked = || sts.asked.lock().unwrap().len();
        let before = asked();
        for _ in 0..1_000 {
            assert_eq!(id().await.unwrap(), "held");
        }
        assert!((1..100).contains(&(asked() - before)), "it is not asked again for each request");
        held(Instant::now(), Instant::now());
        let error = id().await.unwrap_err();
        assert_eq!(error.to_string(), "the role cannot be assumed: storage answered 403 AccessDenied");
        // New credentials to assume it with need no restart.
        std::fs::write(dir.path().join("new"), "aws_access_key_id=rotated\naws_secret_access_key=s\n")
            .unwrap();
        std::fs::rename(dir.path().join("new"), dir.path().join("credentials")).unwrap();
        sts.seconds.store(3_600, Ordering::Relaxed);
        *sessions.asking.lock().await = None;
        assert_eq!(id().await.unwrap(), format!("id{}", asked()));
        let request = sessions.request().unwrap();
        assert!(request.headers()["authorization"].to_str().unwrap().contains("Credential=rotated/"));
    }
}
