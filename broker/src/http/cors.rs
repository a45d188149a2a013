//! Which pages of other origins may call the public API from a browser. None, unless the configuration names them.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use axum::middleware::Next;
use axum::response::IntoResponse as _;
use std::sync::Arc;

const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
/// What the API and tus clients send.
const HEADERS: &str = "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, Range, If-None-Match, Tus-Resumable, \
                       Upload-Length, Upload-Offset, Upload-Metadata, Upload-Checksum, Upload-Defer-Length, \
                       X-HTTP-Method-Override, X-Request-ID, X-Requested-With";
/// What they read beside what every page may.
const EXPOSED: &str = "Location, Tus-Resumable, Tus-Version, Tus-Extension, Tus-Max-Size, Tus-Checksum-Algorithm, Upload-Offset, \
                       Upload-Length, Upload-Metadata, Upload-Expires, Content-Range, ETag, Retry-After";
/// How long a browser need not ask again, in seconds.
const MAX_AGE: &str = "3600";

/// An origin, as browsers write it: `https://app.example.com`; or any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Every page of every site.
    Any,
    /// This one.
    One(String),
}

impl Origin {
    /// Reads `*`, or a scheme, a host and where it is not the scheme's own a port.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let wrong = || format!("`{text}` is no origin; write one such as https://app.example.com, or *");
        let rest =
            text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).ok_or_else(wrong)?;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-:[]".contains(c);
        if rest.is_empty() || !rest.chars().all(plain) {
            // A path, a user or a capital would never be what a browser sends: the rule would silently allow nobody.
            return Err(wrong());
        }
        Ok(Self::One(text.to_owned()))
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Any => "*",
            Self::One(origin) => origin,
        }
    }
}

/// Those that are allowed.
#[derive(Debug, Clone, Default)]
pub struct Origins(pub Arc<[Origin]>);

impl Origins {
    fn allows(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(header::ORIGIN)?;
        self.0.iter().find_map(|allowed| match allowed {
            Origin::Any => Some(HeaderValue::from_static("*")),
            Origin::One(one) => (origin == one.as_str()).then(|| origin.clone()),
        })
    }
}

/// Answers a browser that asks first, and says to it who may read an answer.
pub(super) async fn answer(State(origins): State<Origins>, request: Request, next: Next) -> Response<Body> {
    // The pages beside the API are nobody else's to call.
    if origins.0.is_empty() || !request.uri().path().starts_with("/v1/") {
        return next.run(request).await;
    }
    let allowed = origins.allows(request.headers());
    let asks_first = request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = match (&allowed, asks_first) {
        (Some(_), true) => {
            let headers = [
                (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
                (header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS),
                (header::ACCESS_CONTROL_MAX_AGE, MAX_AGE),
            ];
            (StatusCode::NO_CONTENT, headers).into_response()
        }
        _ => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_name(HeaderName::from_static("origin")));
    if let Some(origin) = allowed {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_that_no_browser_would_send_is_refused() {
        for good in ["https://app.example.com", "http://localhost:3000", "http://[::1]:8080", "*"] {
            assert_eq!(Origin::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "null",
            "app.example.com",
            "https://",
            "https://a/",
            "https://A.com",
            "https://u@a",
            "ftp://a",
            "https://*.a",
        ] {
            assert!(Origin::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_the_very_origin_is_allowed() {
        let origins = Origins([Origin::parse("https://app.example.com").unwrap()].into());
        let asks = |origin: &str| {
            let value = HeaderValue::try_from(origin).unwrap();
            origins.allows(&HeaderMap::from_iter([(header::ORIGIN, value)])).is_some()
        };
        assert!(asks("https://app.example.com"));
        for other in [
            "http://app.example.com",
            "https://app.example.com.evil.example",
            "https://app.example.com:444",
            "null",
        ] {
            assert!(!asks(other), "{other}");
        }
    }
}
