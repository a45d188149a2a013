//! The pages: assets in the binary, served under a policy that lets nothing else in.

use axum::Router;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::IF_NONE_MATCH};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use mpegflow_protocol::failure::FailureCode;
use std::collections::BTreeMap;

/// hls.js, or nothing where it was not there at build time.
pub(crate) const HLS_JS: &str = include_str!(concat!(env!("OUT_DIR"), "/hls.js"));
/// The page of a result folder.
pub(crate) const PLAY_HTML: &str = include_str!("../web/play/index.html");
/// What that page needs, by name in the folder [`crate::output::PLAYER`].
pub(crate) const PLAYER_FILES: [(&str, &str); 3] = [
    ("play.js", include_str!("../web/play/play.js")),
    ("play.css", include_str!("../web/play/play.css")),
    ("hls.js", HLS_JS),
];

const INDEX_HTML: &str = include_str!("../web/serve/index.html");
const APP_JS: &str = include_str!("../web/serve/app.js");
const API_JS: &str = include_str!("../web/serve/api.js");
const APP_CSS: &str = include_str!("../web/serve/app.css");

/// Only our own files; pictures, frames, forms and workers not at all. A tenant's text that became markup in spite of
/// everything would still not run, and would have nowhere to send anything.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; media-src 'self' blob:; \
                      img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

const HTML: &str = "text/html; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";

/// Headers of every page and asset.
pub(crate) fn secure(headers: &mut HeaderMap) {
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    );
    headers.insert(
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    );
}

/// The pages of `mpegflow serve`, beside the broker's API.
pub(crate) fn routes() -> Router {
    Router::new()
        .route("/", get(|h: HeaderMap| asset(h, HTML, INDEX_HTML)))
        .route("/app.js", get(|h: HeaderMap| asset(h, JS, APP_JS)))
        .route("/api.js", get(|h: HeaderMap| asset(h, JS, API_JS)))
        .route("/app.css", get(|h: HeaderMap| asset(h, CSS, APP_CSS)))
        .route("/hls.js", get(|h: HeaderMap| asset(h, JS, HLS_JS)))
        .route("/remedies.json", get(remedies))
        .route("/favicon.ico", get(|| async { StatusCode::NO_CONTENT }))
}

async fn asset(request: HeaderMap, kind: &'static str, content: &'static str) -> Response {
    // One binary, one content: its version and length are enough to tell an upgrade.
    let etag = format!("\"{}-{:x}\"", env!("CARGO_PKG_VERSION"), checksum(content));
    let known = request.get(IF_NONE_MATCH).is_some_and(|tag| tag.as_bytes() == etag.as_bytes());
    let mut response = if known { StatusCode::NOT_MODIFIED.into_response() } else { content.into_response() };
    let headers = response.headers_mut();
    secure(headers);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(etag) = HeaderValue::try_from(etag) {
        headers.insert(ETAG, etag);
    }
    response
}

/// FNV-1a, to tell two versions of an asset apart; nothing secret or hostile goes in.
fn checksum(content: &str) -> u64 {
    content
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// What each failure code means and what to do, so that the page says the same as the command line.
async fn remedies() -> Response {
    let remedies: BTreeMap<&str, &str> =
        FailureCode::ALL.iter().map(|code| (code.as_str(), code.help())).collect();
    let mut response = axum::Json(remedies).into_response();
    secure(response.headers_mut());
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    async fn fetch(path: &str) -> (StatusCode, HeaderMap, String) {
        let response = routes().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (parts.status, parts.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn every_asset_comes_with_the_policy_and_its_type() {
        for (path, kind) in
            [("/", HTML), ("/app.js", JS), ("/api.js", JS), ("/app.css", CSS), ("/hls.js", JS)]
        {
            let (status, headers, _) = fetch(path).await;
            assert_eq!((status, headers[CONTENT_TYPE].to_str().unwrap()), (StatusCode::OK, kind), "{path}");
            assert_eq!(headers[CONTENT_SECURITY_POLICY], POLICY, "{path}");
            assert_eq!(headers[X_CONTENT_TYPE_OPTIONS], "nosniff", "{path}");
        }
        assert_eq!(fetch("/app.js.map").await.0, StatusCode::NOT_FOUND);
    }

    #[test]
    fn the_policy_holds_without_exceptions_because_no_page_needs_one() {
        assert!(!POLICY.contains("unsafe") && !POLICY.contains('*') && !POLICY.contains("http"));
        for page in [INDEX_HTML, PLAY_HTML] {
            assert!(
                !page.contains("<style") && !page.contains("style=") && !page.contains(" onclick"),
                "inline style or handler"
            );
            assert!(
                page.matches("<script").count()
                    == page.matches("<script src=").count()
                        + page.matches("<script type=\"module\" src=").count(),
                "inline script"
            );
            assert!(!page.contains("http://") && !page.contains("https://"), "a request to elsewhere");
        }
    }

    #[test]
    fn text_is_never_parsed_as_markup() {
        for script in [APP_JS, API_JS, PLAYER_FILES[0].1] {
            for sink in
                ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"]
            {
                assert!(!script.contains(sink), "{sink}");
            }
        }
    }

    #[tokio::test]
    async fn the_page_knows_every_remedy() {
        let (_, _, body) = fetch("/remedies.json").await;
        let remedies: BTreeMap<String, String> = serde_json::from_str(&body).unwrap();
        assert_eq!(remedies.len(), FailureCode::ALL.len());
        assert_eq!(remedies["input_truncated"], FailureCode::InputTruncated.help());
    }
}
