//! Spans to an OpenTelemetry collector: OTLP over HTTP with protobuf.
//!
//! | module | does |
//! |---|---|
//! | [`queue`] | takes spans without waiting, and sends them in batches, in its own time |
//! | `encode` | spans as OTLP's messages |
//! | `send` | one request, bounded in time and length |
//!
//! A collector that is slow, broken or gone costs spans and nothing else: the queue has an end, and whoever adds to it never waits.

mod encode;
pub mod queue;
mod send;

pub use send::{Sender, headers};

use crate::trace::{Incoming, Share};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// Where spans go, and of which jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtlpConfig {
    /// The collector.
    pub endpoint: CollectorUrl,
    /// A file with headers of each request, such as a token. A secret.
    pub headers_file: Option<PathBuf>,
    /// The only authorities to trust; the system's where there is none.
    pub ca_file: Option<PathBuf>,
    /// How many jobs are traced.
    pub share: Share,
    /// What is done with a caller's context.
    pub incoming: Incoming,
}

/// The base URL of a collector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectorUrl {
    base: String,
    secret_is_safe: bool,
}

impl CollectorUrl {
    /// Where traces are sent to.
    pub fn traces(&self) -> String {
        format!("{}/v1/traces", self.base)
    }

    /// Whether nobody on the way reads a header: over TLS, or on this machine.
    pub const fn secret_is_safe(&self) -> bool {
        self.secret_is_safe
    }
}

impl fmt::Display for CollectorUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base)
    }
}

impl FromStr for CollectorUrl {
    type Err = &'static str;

    // The text is not repeated in what is said of it: it may hold a password.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shape = "write a URL such as https://collector.example:4318; `/v1/traces` is added to it";
        let url: hyper::Uri = text.parse().map_err(|_| shape)?;
        let host = url.host().filter(|host| !host.is_empty()).ok_or(shape)?;
        if url.authority().is_none_or(|a| a.as_str().contains('@')) {
            return Err(
                "a user or a password in it would be a secret; headers belong into otlp.headers_file",
            );
        }
        if url.query().is_some() || text.contains('#') {
            return Err("it has a query or a fragment, which a collector's URL has not");
        }
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let here = bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        let tls = match url.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(shape),
        };
        let base = text.trim_end_matches('/');
        if base.ends_with("/v1/traces") {
            return Err("leave `/v1/traces` out: it is added to it");
        }
        Ok(Self { base: base.to_owned(), secret_is_safe: tls || here })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_is_a_base_url_without_secrets() {
        for (good, traces, safe) in [
            ("https://c.example", "https://c.example/v1/traces", true),
            ("https://c.example:4318/otlp/", "https://c.example:4318/otlp/v1/traces", true),
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces", true),
            ("http://[::1]:4318", "http://[::1]:4318/v1/traces", true),
            ("http://collector.monitoring:4318", "http://collector.monitoring:4318/v1/traces", false),
        ] {
            let url: CollectorUrl = good.parse().unwrap();
            assert_eq!((url.traces().as_str(), url.secret_is_safe()), (traces, safe));
        }
        for bad in [
            "",
            "c.example:4318",
            "grpc://c.example",
            "https://u:swordfish@c.example",
            "https://c.example/?key=swordfish",
            "https://c.example/#x",
            "https://c.example/v1/traces",
            "https://c.example/v1/traces/",
            "/v1",
        ] {
            let error = bad.parse::<CollectorUrl>().unwrap_err();
            assert!(!error.contains("swordfish"), "{error}");
        }
    }
}
