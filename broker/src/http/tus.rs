//! Uploads by tus 1.0.0 (<https://tus.io/protocols/resumable-upload>), so that its clients work unchanged: creation, creation with
//! upload, termination, expiration and checksum. The uploads are the same as those of `/v1/uploads`.
//!
//! Where an upload is, is said relative to the address that was called: so it is right behind any proxy, whatever that calls this
//! broker, and no header of a request has to be believed for it.

use super::problem::{Kind, Problem};
use super::public::{Answer, App, id, idempotency, wrong};
use super::{auth, body};
use crate::engine::{Checksum, ChecksumAlgorithm, Writes, expires};
use crate::model::{Time, UploadRecord};
use crate::scopes::Scope;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse as _;
use axum::routing::{head, post};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use mpegflow_protocol::api::{CreateUpload, Upload};
use mpegflow_protocol::ids::TenantId;
use mpegflow_protocol::{limits, text};

/// The routes that need a key, by method. `OPTIONS` needs none: it says what every broker says.
pub const ROUTES: &[(&str, &str)] = &[
    ("POST", "/v1/uploads/tus"),
    ("HEAD", "/v1/uploads/tus/{id}"),
    ("PATCH", "/v1/uploads/tus/{id}"),
    ("POST", "/v1/uploads/tus/{id}"),
    ("DELETE", "/v1/uploads/tus/{id}"),
];

const VERSION: &str = "1.0.0";
const EXTENSIONS: &str = "creation,creation-with-upload,termination,expiration,checksum";
const CHUNK: &str = "application/offset+octet-stream";
/// The longest metadata that is kept, as the header has it.
const MAX_METADATA: usize = 4 << 10;

const TUS_RESUMABLE: HeaderName = HeaderName::from_static("tus-resumable");
const TUS_VERSION: HeaderName = HeaderName::from_static("tus-version");
const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");
const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
const UPLOAD_METADATA: HeaderName = HeaderName::from_static("upload-metadata");
const UPLOAD_EXPIRES: HeaderName = HeaderName::from_static("upload-expires");

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/v1/uploads/tus", post(create).options(options))
        .route("/v1/uploads/tus/", post(create).options(options))
        .route(
            "/v1/uploads/tus/{id}",
            head(show).patch(patch).delete(terminate).post(instead).options(options),
        )
        // Its refusals too have to say which version is spoken.
        .layer(axum::middleware::map_response(async |mut response: Response<Body>| {
            response.headers_mut().insert(TUS_RESUMABLE, HeaderValue::from_static(VERSION));
            response
        }))
}

async fn options() -> Response<Body> {
    let algorithms: Vec<_> = ChecksumAlgorithm::ALL.iter().map(|a| a.as_str()).collect();
    let headers = [
        (TUS_VERSION, VERSION.to_owned()),
        (HeaderName::from_static("tus-extension"), EXTENSIONS.to_owned()),
        (HeaderName::from_static("tus-max-size"), limits::MAX_UPLOAD.to_string()),
        (HeaderName::from_static("tus-checksum-algorithm"), algorithms.join(",")),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

/// Who calls, once it is known that both mean the same version of the protocol.
async fn caller(app: &App, headers: &HeaderMap, scope: Scope) -> Result<TenantId, Problem> {
    let tenant = auth::may(&app.engine, headers, scope).await?;
    if headers.get(TUS_RESUMABLE).is_none_or(|version| version != VERSION) {
        return Err(Problem::new(Kind::ProtocolVersion)
            .detail(format!("Send Tus-Resumable: {VERSION}."))
            .header(TUS_VERSION, VERSION));
    }
    Ok(tenant)
}

async fn create(State(app): State<App>, request: Request) -> Answer {
    let tenant = caller(&app, request.headers(), Scope::Upload).await?;
    let slash = request.uri().path().ends_with('/');
    let (head, content) = request.into_parts();
    let headers = &head.headers;
    if headers.contains_key("upload-defer-length") {
        return Err(wrong("Upload-Defer-Length", "the length has to be known: send Upload-Length"));
    }
    let size = number(headers, &UPLOAD_LENGTH)?
        .ok_or_else(|| wrong("Upload-Length", "a number of bytes is needed"))?;
    if size > limits::MAX_UPLOAD {
        let most = limits::MAX_UPLOAD;
        return Err(
            Problem::new(Kind::TooLarge).detail(format!("{size} bytes; at most {most} are accepted."))
        );
    }
    let metadata = metadata(headers)?;
    let name = metadata.as_deref().and_then(name_in);
    // What is wrong with a body is said before there is an upload that nobody hears of.
    let writes = match headers.get(header::CONTENT_TYPE) {
        Some(kind) if kind == CHUNK => Some(writes(headers, 0)?),
        _ => None,
    };
    if writes.as_ref().and_then(|w| w.announced).is_some_and(|len| len > size) {
        return Err(Problem::new(Kind::TooLarge).detail("The body is longer than Upload-Length."));
    }
    let wanted = CreateUpload { size, name };
    // What the headers say of the upload is the request; its first bytes are of another length whenever the body breaks off.
    let said = format!("{size} {}", metadata.as_deref().unwrap_or_default());
    let once = idempotency(headers, "POST", "/v1/uploads/tus", said.as_bytes())?;
    let (answer, made) = app.engine.announce_upload(tenant, &wanted, metadata, once.as_ref()).await?;
    let again = made.is_none();
    let mut upload = match made {
        Some(made) => made,
        None => {
            let first: Upload = serde_json::from_slice(&answer).map_err(|_| Problem::new(Kind::Internal))?;
            app.engine.upload_record(tenant, first.id).await?
        }
    };
    // A repetition learns how far the first call came, and goes on from there.
    if let Some(writes) = writes.filter(|_| !again) {
        // It is there whatever becomes of its first bytes: the client hears of it and goes on from what was kept.
        match app.engine.write_bytes(tenant, upload.id, writes, body::stream(content)).await {
            Ok(written) => upload = written,
            Err(e) => {
                tracing::debug!(error = %e, upload = %upload.id, "the first bytes of an upload were not kept");
                upload = app.engine.upload_record(tenant, upload.id).await?;
            }
        }
    }
    let place = if slash { upload.id.to_string() } else { format!("tus/{}", upload.id) };
    let mut response = standing(StatusCode::CREATED, &upload);
    let place = HeaderValue::try_from(place).map_err(|_| Problem::new(Kind::Internal))?;
    response.headers_mut().insert(header::LOCATION, place);
    Ok(response)
}

async fn show(State(app): State<App>, Path(upload): Path<String>, request: Request) -> Answer {
    let tenant = caller(&app, request.headers(), Scope::Upload).await?;
    let upload = app.engine.upload_record(tenant, id(&upload)?).await?;
    let mut response = standing(StatusCode::OK, &upload);
    response.headers_mut().insert(UPLOAD_LENGTH, upload.size.into());
    if let Some(metadata) = upload.metadata.as_deref().and_then(|text| HeaderValue::try_from(text).ok()) {
        response.headers_mut().insert(UPLOAD_METADATA, metadata);
    }
    Ok(response)
}

async fn patch(State(app): State<App>, Path(upload): Path<String>, request: Request) -> Answer {
    let tenant = caller(&app, request.headers(), Scope::Upload).await?;
    let upload = id(&upload)?;
    let headers = request.headers();
    if headers.get(header::CONTENT_TYPE).is_none_or(|kind| kind != CHUNK) {
        return Err(Problem::new(Kind::MediaType).detail(format!("Send Content-Type: {CHUNK}.")));
    }
    let offset = number(headers, &UPLOAD_OFFSET)?
        .ok_or_else(|| wrong("Upload-Offset", "a number of bytes is needed"))?;
    let writes = writes(headers, offset)?;
    let bytes = body::stream(request.into_body());
    let upload = app.engine.write_bytes(tenant, upload, writes, bytes).await?;
    Ok(standing(StatusCode::NO_CONTENT, &upload))
}

async fn terminate(State(app): State<App>, Path(upload): Path<String>, request: Request) -> Answer {
    let tenant = caller(&app, request.headers(), Scope::Delete).await?;
    app.engine.delete_upload(tenant, id(&upload)?, true).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// For clients that can only GET and POST.
async fn instead(state: State<App>, path: Path<String>, request: Request) -> Answer {
    let method = request.headers().get("x-http-method-override").map(|m| m.as_bytes().to_ascii_uppercase());
    match method.as_deref() {
        Some(b"PATCH") => patch(state, path, request).await,
        Some(b"DELETE") => terminate(state, path, request).await,
        Some(b"HEAD") => show(state, path, request).await,
        _ => {
            caller(&state, request.headers(), Scope::Upload).await?;
            Err(Problem::new(Kind::MethodNotAllowed)
                .detail("POST needs X-HTTP-Method-Override here: PATCH, DELETE or HEAD."))
        }
    }
}

fn standing(status: StatusCode, upload: &UploadRecord) -> Response<Body> {
    let mut response = (status, [(header::CACHE_CONTROL, "no-store")]).into_response();
    let headers = response.headers_mut();
    headers.insert(UPLOAD_OFFSET, upload.received.into());
    if let Some(date) = expires(upload).and_then(|at| HeaderValue::try_from(http_date(at)).ok()) {
        headers.insert(UPLOAD_EXPIRES, date);
    }
    response
}

/// A date as HTTP writes it (RFC 9110, 5.6.7).
fn http_date(at: Time) -> String {
    let at = jiff::Timestamp::from_millisecond(at.0).unwrap_or_default();
    at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

fn number(headers: &HeaderMap, name: &HeaderName) -> Result<Option<u64>, Problem> {
    let mut all = headers.get_all(name).iter();
    let Some(value) = all.next() else { return Ok(None) };
    let text = value.to_str().ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    let number = text.and_then(|text| text.parse().ok()).filter(|_| all.next().is_none());
    number.map(Some).ok_or_else(|| wrong(name.as_str(), "one number of bytes"))
}

fn writes(headers: &HeaderMap, offset: u64) -> Result<Writes, Problem> {
    Ok(Writes {
        offset,
        announced: headers.get(header::CONTENT_LENGTH).and_then(|h| h.to_str().ok()?.parse().ok()),
        checksum: checksum(headers)?,
        preempt: true,
    })
}

fn checksum(headers: &HeaderMap) -> Result<Option<Checksum>, Problem> {
    const NAME: &str = "Upload-Checksum";
    let Some(value) = headers.get("upload-checksum") else { return Ok(None) };
    let bad = |detail: &str| wrong(NAME, detail);
    let (name, digest) = value
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .ok_or_else(|| bad("the name of a digest, a space, and the digest in Base64"))?;
    let algorithm = ChecksumAlgorithm::ALL.into_iter().find(|a| a.as_str() == name);
    let algorithm = algorithm.ok_or_else(|| bad("sha256 or sha1"))?;
    let digest = BASE64_STANDARD.decode(digest.trim()).map_err(|_| bad("the digest is not Base64"))?;
    if digest.len() != algorithm.digest_len() {
        return Err(bad("the digest does not have that digest's length"));
    }
    Ok(Some(Checksum { algorithm, digest }))
}

/// The metadata, once it is known to be pairs of a key and a value in Base64.
fn metadata(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let bad = |detail: &str| wrong("Upload-Metadata", detail);
    let Some(value) = headers.get(UPLOAD_METADATA) else { return Ok(None) };
    let text = value.to_str().map_err(|_| bad("keys are ASCII"))?.trim();
    if text.is_empty() {
        return Ok(None);
    }
    if text.len() > MAX_METADATA {
        return Err(bad("it has more than 4096 characters"));
    }
    for pair in text.split(',') {
        let (key, value) = pair.trim().split_once(' ').unwrap_or((pair.trim(), ""));
        if key.is_empty() || BASE64_STANDARD.decode(value.trim()).is_err() {
            return Err(bad("it is not pairs of a key and a value in Base64, separated by commas"));
        }
    }
    Ok(Some(text.to_owned()))
}

/// The name of the file, as clients commonly give it.
fn name_in(metadata: &str) -> Option<String> {
    let value = |wanted: &str| {
        let mut pairs = metadata.split(',').filter_map(|pair| pair.trim().split_once(' '));
        pairs.find(|(key, _)| *key == wanted).map(|(_, value)| value)
    };
    let decoded = BASE64_STANDARD.decode(value("filename").or_else(|| value("name"))?.trim()).ok()?;
    // Anybody's text: what is not fit to be shown is left out, and the name is no path.
    let name = text::clean(&String::from_utf8_lossy(&decoded), 255);
    text::is_label(&name, 255).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::try_from(value).unwrap())])
    }

    #[test]
    fn a_name_is_taken_from_what_clients_send_and_made_fit_to_be_shown() {
        for (name, said) in [("a b.mov", "a b.mov"), ("x\u{1b}[2J\u{202e}.mp4", "x [2J .mp4"), ("", "")] {
            let header = format!("filetype dmlkZW8vbXA0,filename {}", BASE64_STANDARD.encode(name));
            assert_eq!(name_in(&header).as_deref(), (!said.is_empty()).then_some(said), "{name:?}");
        }
        assert_eq!(name_in("name YQ==,relativePath bnVsbA==").as_deref(), Some("a"));
        assert_eq!(name_in("filename"), None);
    }

    #[test]
    fn metadata_that_is_none_is_refused() {
        for text in ["filename", "is_confidential", "filename YQ==,private", " a YQ== , b "] {
            assert!(metadata(&with("upload-metadata", text)).is_ok_and(|m| m.is_some()), "{text}");
        }
        for text in ["filename ***", ",", "a YQ==,,b", &format!("a {}", "YWFh".repeat(2_000))] {
            assert!(metadata(&with("upload-metadata", text)).is_err(), "{text}");
        }
    }

    #[test]
    fn a_checksum_has_a_known_name_and_its_length() {
        let sha1 = BASE64_STANDARD.encode([0; 20]);
        assert!(checksum(&with("upload-checksum", &format!("sha1 {sha1}"))).unwrap().is_some());
        for text in ["sha1", "sha1 !", &format!("sha256 {sha1}"), &format!("md5 {sha1}"), "crc32 AAAA"] {
            assert!(checksum(&with("upload-checksum", text)).is_err(), "{text}");
        }
    }

    #[test]
    fn dates_are_as_http_writes_them() {
        assert_eq!(http_date(Time(784_111_777_000)), "Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
