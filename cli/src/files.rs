//! A server of one folder: what `mpegflow play` runs.
//!
//! A path is opened component by component, each from the folder before it and without following links, so that no spelling
//! of a path leads outside, whatever happens in the folder meanwhile. Names that begin with a dot do not exist here.

use crate::web;
use axum::body::Body;
use axum::http::header::{
    ACCEPT_RANGES, ALLOW, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HOST, IF_NONE_MATCH, IF_RANGE,
    RANGE,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use axum::response::{IntoResponse as _, Response};
use rustix::fs::{CWD, Mode, OFlags, fstat, openat};
use std::io::{self, SeekFrom};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

const CHUNK: usize = 256 << 10;

/// Serves the files in one folder.
#[derive(Debug)]
pub(crate) struct FileServer {
    root: OwnedFd,
    /// Where it listens, if that is loopback: then only names of this machine are answered.
    loopback: Option<SocketAddr>,
}

impl FileServer {
    /// Of `dir`, which is opened now and stays the same folder even when it is renamed.
    pub(crate) fn open(dir: &Path, listen: SocketAddr) -> io::Result<Self> {
        let root = openat(CWD, dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { root, loopback: listen.ip().is_loopback().then_some(listen) })
    }

    /// Whether a file of this name is there.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.file(&[name.as_bytes().to_vec()]).is_ok()
    }

    /// Answers one request.
    pub(crate) async fn answer(&self, request: Request<Body>) -> Response {
        let (parts, _) = request.into_parts();
        let mut response = self.respond(&parts).await;
        web::secure(response.headers_mut());
        response
    }

    async fn respond(&self, request: &Parts) -> Response {
        if !self.is_for_us(&request.headers) {
            return (StatusCode::MISDIRECTED_REQUEST, "this server answers to localhost only\n")
                .into_response();
        }
        if !matches!(request.method, Method::GET | Method::HEAD) {
            return (StatusCode::METHOD_NOT_ALLOWED, [(ALLOW, "GET, HEAD")]).into_response();
        }
        let missing = || (StatusCode::NOT_FOUND, "not here\n").into_response();
        let Some(mut names) = components(request.uri.path()) else { return missing() };
        if names.is_empty() {
            names.push(crate::output::PAGE.into());
        }
        let Ok(file) = self.file(&names) else { return missing() };
        let name = names.last().map(Vec::as_slice).unwrap_or_default();
        match send(file, name, request).await {
            Ok(response) => response,
            Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "cannot read the file\n").into_response(),
        }
    }

    // A page elsewhere whose name was made to resolve to 127.0.0.1 (DNS rebinding) still sends its own name.
    fn is_for_us(&self, headers: &HeaderMap) -> bool {
        let Some(address) = self.loopback else { return true };
        let Some(host) = headers.get(HOST).and_then(|host| host.to_str().ok()) else { return false };
        host == format!("localhost:{}", address.port()) || host.parse() == Ok(address)
    }

    fn file(&self, names: &[Vec<u8>]) -> io::Result<std::fs::File> {
        let (last, folders) = names.split_last().ok_or(io::ErrorKind::NotFound)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut dir = None;
        for folder in folders {
            let from = dir.as_ref().unwrap_or(&self.root);
            dir = Some(openat(from, folder.as_slice(), flags | OFlags::DIRECTORY, Mode::empty())?);
        }
        // Without NONBLOCK the open of a FIFO would wait for its writer.
        let file = openat(
            dir.as_ref().unwrap_or(&self.root),
            last.as_slice(),
            flags | OFlags::NONBLOCK,
            Mode::empty(),
        )?;
        let kind = rustix::fs::FileType::from_raw_mode(fstat(&file)?.st_mode);
        if kind.is_file() { Ok(file.into()) } else { Err(io::ErrorKind::NotFound.into()) }
    }
}

async fn send(file: std::fs::File, name: &[u8], request: &Parts) -> io::Result<Response> {
    let metadata = file.metadata()?;
    let size = metadata.len();
    let modified = metadata.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let etag = format!("\"{size:x}-{:x}\"", modified.as_nanos());
    let header = |name| request.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    if header(IF_NONE_MATCH) == Some(&etag) {
        return Ok((StatusCode::NOT_MODIFIED, [(ETAG, etag)]).into_response());
    }
    let same = header(IF_RANGE).is_none_or(|tag| tag == etag);
    let span = match header(RANGE).filter(|_| same).map(|text| range(text, size)) {
        None | Some(Asked::All) => None,
        Some(Asked::Span(first, last)) => Some((first, last)),
        Some(Asked::Nothing) => {
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, [(CONTENT_RANGE, format!("bytes */{size}"))])
                .into_response());
        }
    };
    let (first, length) = match span {
        None => (0, size),
        Some((first, last)) => (first, last.saturating_sub(first).saturating_add(1)),
    };
    let body = if request.method == Method::HEAD {
        Body::empty()
    } else {
        let mut file = tokio::fs::File::from_std(file);
        file.seek(SeekFrom::Start(first)).await?;
        Body::from_stream(ReaderStream::with_capacity(file.take(length), CHUNK))
    };
    let mut response = (
        [(CONTENT_TYPE, media_type(name).to_owned()), (CONTENT_LENGTH, length.to_string()), (ETAG, etag)],
        [(ACCEPT_RANGES, "bytes")],
        body,
    )
        .into_response();
    if let Some((first, last)) = span {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        if let Ok(value) = HeaderValue::try_from(format!("bytes {first}-{last}/{size}")) {
            response.headers_mut().insert(CONTENT_RANGE, value);
        }
    }
    Ok(response)
}

/// The components of a URL's path, decoded; `None` for what no file here can be called.
fn components(path: &str) -> Option<Vec<Vec<u8>>> {
    let path = path.strip_prefix('/')?;
    if path.is_empty() {
        return Some(Vec::new());
    }
    path.split('/').map(decode).collect()
}

/// One component. Dots first would be `.`, `..` or something hidden; a slash or NUL could only come from an escape.
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                u8::try_from(high.checked_mul(16)?.checked_add(low)?).ok()?
            }
            byte => byte,
        });
    }
    let bad = decoded.is_empty()
        || decoded.first() == Some(&b'.')
        || decoded.iter().any(|b| matches!(b, b'/' | b'\\' | 0));
    (!bad).then_some(decoded)
}

#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// No range, or one that is not understood: then RFC 9110 has it ignored.
    All,
    /// First and last byte, both within the file.
    Span(u64, u64),
    /// A range outside the file.
    Nothing,
}

fn range(text: &str, size: u64) -> Asked {
    let Some((first, last)) = text.strip_prefix("bytes=").and_then(|spec| spec.trim().split_once('-')) else {
        return Asked::All;
    };
    let number = |text: &str| {
        (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
    };
    let end = size.checked_sub(1);
    match (number(first), number(last)) {
        (None, Some(suffix)) if first.is_empty() => match end {
            Some(end) if suffix > 0 => Asked::Span(size.saturating_sub(suffix), end),
            _ => Asked::Nothing,
        },
        (Some(first), None) if last.is_empty() => match end {
            Some(end) if first <= end => Asked::Span(first, end),
            _ => Asked::Nothing,
        },
        (Some(first), Some(last)) if first <= last => match end {
            Some(end) if first <= end => Asked::Span(first, last.min(end)),
            _ => Asked::Nothing,
        },
        _ => Asked::All,
    }
}

fn media_type(name: &[u8]) -> &'static str {
    let extension = name.rsplit(|b| *b == b'.').next().unwrap_or_default();
    match extension {
        b"m3u8" => "application/vnd.apple.mpegurl",
        b"mp4" | b"m4s" => "video/mp4",
        b"m4a" => "audio/mp4",
        b"html" => "text/html; charset=utf-8",
        b"js" => "text/javascript; charset=utf-8",
        b"css" => "text/css; charset=utf-8",
        b"json" => "application/json",
        b"vtt" => "text/vtt; charset=utf-8",
        b"jpg" => "image/jpeg",
        b"png" => "image/png",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;
    use std::fs;

    fn folder() -> (tempfile::TempDir, FileServer) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("dist");
        fs::create_dir_all(root.join("player")).unwrap();
        fs::write(dir.path().join("secret"), "secret").unwrap();
        fs::write(root.join(".hidden"), "secret").unwrap();
        fs::write(root.join("index.html"), "page").unwrap();
        fs::write(root.join("video 1.mp4"), "0123456789").unwrap();
        fs::write(root.join("player/play.js"), "js").unwrap();
        std::os::unix::fs::symlink("../secret", root.join("link")).unwrap();
        std::os::unix::fs::symlink("..", root.join("up")).unwrap();
        let server = FileServer::open(&root, "127.0.0.1:8000".parse().unwrap()).unwrap();
        (dir, server)
    }

    async fn ask(server: &FileServer, path: &str, headers: &[(&str, &str)]) -> (u16, HeaderMap, String) {
        let mut request = Request::get(path).header("host", "127.0.0.1:8000");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, body) = server.answer(request.body(Body::empty()).unwrap()).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (parts.status.as_u16(), parts.headers, String::from_utf8_lossy(&body).into_owned())
    }

    #[tokio::test]
    async fn files_of_the_folder_are_served_with_their_type_and_the_policy() {
        let (_dir, server) = folder();
        let (status, headers, body) = ask(&server, "/", &[]).await;
        assert_eq!((status, body.as_str()), (200, "page"));
        assert!(headers["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'"));
        assert_eq!(ask(&server, "/player/play.js", &[]).await.2, "js");
        let (status, headers, body) = ask(&server, "/video%201.mp4", &[]).await;
        assert_eq!(
            (status, body.as_str(), headers["content-type"].to_str().unwrap()),
            (200, "0123456789", "video/mp4")
        );
        let etag = headers["etag"].to_str().unwrap().to_owned();
        assert_eq!(ask(&server, "/video%201.mp4", &[("if-none-match", &etag)]).await.0, 304);
    }

    #[tokio::test]
    async fn no_spelling_of_a_path_leads_outside() {
        let (_dir, server) = folder();
        for path in [
            "/../secret",
            "/%2e%2e/secret",
            "/..%2fsecret",
            "/%2e%2e%2fsecret",
            "/player/../../secret",
            "/player/%2e%2e/%2e%2e/secret",
            "/..%5csecret",
            "/%252e%252e/secret",
            "/link",
            "/up/secret",
            "/.hidden",
            "/%2ehidden",
            "//etc/passwd",
            "/%2fetc/passwd",
            "/etc/passwd",
            "/index.html%00",
            "/index.html/",
            "/player",
            "/player/",
            "/%",
            "/%f",
            "/%zz",
        ] {
            let (status, _, body) = ask(&server, path, &[]).await;
            assert!(status == 404 && !body.contains("secret"), "{path}: {status} {body}");
        }
    }

    #[tokio::test]
    async fn a_link_put_there_while_serving_is_not_followed() {
        let (dir, server) = folder();
        fs::remove_dir_all(dir.path().join("dist/player")).unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("dist/player")).unwrap();
        assert_eq!(ask(&server, "/player/secret", &[]).await.0, 404);
    }

    #[tokio::test]
    async fn ranges_are_served_as_players_ask_for_them() {
        let (_dir, server) = folder();
        for (range, status, body, content_range) in [
            ("bytes=2-4", 206, "234", "bytes 2-4/10"),
            ("bytes=7-", 206, "789", "bytes 7-9/10"),
            ("bytes=-2", 206, "89", "bytes 8-9/10"),
            ("bytes=5-99999999999999999999", 200, "0123456789", ""),
            ("bytes=5-99", 206, "56789", "bytes 5-9/10"),
            ("bytes=10-", 416, "", "bytes */10"),
            ("bytes=-0", 416, "", "bytes */10"),
            ("bytes=4-2", 200, "0123456789", ""),
            ("bytes=0-1,3-4", 200, "0123456789", ""),
            ("lines=1-2", 200, "0123456789", ""),
        ] {
            let (got, headers, text) = ask(&server, "/video%201.mp4", &[("range", range)]).await;
            let got_range = headers.get("content-range").map_or("", |v| v.to_str().unwrap());
            assert_eq!((got, text.as_str(), got_range), (status, body, content_range), "{range}");
        }
    }

    #[tokio::test]
    async fn a_name_that_was_made_to_point_here_is_not_answered() {
        let (_dir, server) = folder();
        for (host, status) in [("localhost:8000", 200), ("evil.example:8000", 421), ("127.0.0.1:9", 421)] {
            let request = Request::get("/").header("host", host).body(Body::empty()).unwrap();
            assert_eq!(server.answer(request).await.status().as_u16(), status, "{host}");
        }
        let request = Request::post("/").header("host", "localhost:8000").body(Body::empty()).unwrap();
        assert_eq!(server.answer(request).await.status(), StatusCode::METHOD_NOT_ALLOWED);
    }
}
