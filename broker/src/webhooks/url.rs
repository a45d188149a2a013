//! The shape of a webhook's URL. Strict, so that every reader of it means the same host: what is left is a scheme, a host, a port
//! and a path.

use axum::http::Uri;
use axum::http::uri::Scheme;
use mpegflow_protocol::webhook::MAX_URL;
use std::net::{IpAddr, Ipv6Addr};

/// Why a URL was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// It is no URL.
    #[error("it is no URL like https://example.com/webhooks, in ASCII, of at most {MAX_URL} characters")]
    Shape,
    /// It has another scheme.
    #[error("it does not begin with https://")]
    Scheme,
    /// It has a user or a password.
    #[error("it has a user or a password; put a token into the path or the query")]
    User,
    /// It has a fragment.
    #[error("it has a fragment, which is never sent")]
    Fragment,
    /// Its host is neither a name nor an address.
    #[error("its host is no domain name with a dot, and no address")]
    Host,
    /// Its port may not be connected to.
    #[error("its port is not one that may be connected to")]
    Port,
}

/// What stands for the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A domain name, in lower case, without a dot at its end.
    Name(String),
    /// An address.
    Address(IpAddr),
}

/// A webhook's URL.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookUrl {
    tls: bool,
    host: Host,
    port: u16,
    target: String,
    authority: String,
}

impl std::fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The path and the query may hold a token.
        f.debug_struct("WebhookUrl")
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl WebhookUrl {
    /// Parses a URL, under the operator's policy.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str, policy: &super::Policy) -> Result<Self, UrlError> {
        if text.len() > MAX_URL || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(UrlError::Shape);
        }
        // Readers differ on these: some take a backslash for a slash.
        if text.contains(['\\', '<', '>', '"', '^', '`', '{', '|', '}']) {
            return Err(UrlError::Shape);
        }
        if text.contains('#') {
            return Err(UrlError::Fragment);
        }
        let uri: Uri = text.parse().map_err(|_| UrlError::Shape)?;
        let tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP && policy.allow_http => false,
            Some(_) => return Err(UrlError::Scheme),
            None => return Err(UrlError::Shape),
        };
        let authority = uri.authority().ok_or(UrlError::Shape)?;
        if authority.as_str().contains('@') {
            return Err(UrlError::User);
        }
        let host = host(authority.host()).ok_or(UrlError::Host)?;
        // `Authority::port` finds none where there is one that is too large.
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") if tls => 443,
            Some("") => 80,
            Some(port) => port.strip_prefix(':').and_then(decimal).ok_or(UrlError::Port)?,
            None => return Err(UrlError::Shape),
        };
        if !policy.ports.contains(port) {
            return Err(UrlError::Port);
        }
        let target = uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
        Ok(Self { tls, host, port, target, authority: authority.as_str().to_owned() })
    }

    /// Whether it is `https`.
    pub const fn tls(&self) -> bool {
        self.tls
    }

    /// The host.
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// The port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The path and the query.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The host and the port as they were written: the header `Host`.
    pub fn authority(&self) -> &str {
        &self.authority
    }
}

/// A port in the one spelling that every reader takes for the same.
fn decimal(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| digits)
}

fn host(text: &str) -> Option<Host> {
    if let Some(inner) = text.strip_prefix('[') {
        let address: Ipv6Addr = inner.strip_suffix(']')?.parse().ok()?;
        return Some(Host::Address(address.into()));
    }
    if let Ok(address) = text.parse::<std::net::Ipv4Addr>() {
        return Some(Host::Address(address.into()));
    }
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = name.rsplit('.').next()?;
    // A last label of digits alone, or one like 0x7f, is an address to some (WHATWG URL, "ends in a number").
    let number = last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x");
    let good = name.len() <= 253 && name.contains('.') && name.split('.').all(label) && !number;
    good.then_some(Host::Name(name))
}

#[cfg(test)]
mod tests {
    use super::super::Policy;
    use super::*;

    #[test]
    fn a_url_that_two_readers_could_read_differently_is_refused() {
        for (bad, error) in [
            ("", UrlError::Shape),
            ("example.com/x", UrlError::Shape),
            ("/x", UrlError::Shape),
            ("http://example.com/", UrlError::Scheme),
            ("ftp://example.com/", UrlError::Scheme),
            ("file:///etc/passwd", UrlError::Shape),
            ("gopher://example.com/", UrlError::Scheme),
            ("https://", UrlError::Shape),
            ("https:///x", UrlError::Shape),
            ("https://user@example.com/", UrlError::User),
            ("https://user:pw@example.com/", UrlError::User),
            ("https://example.com@169.254.169.254/", UrlError::User),
            ("https://example.com#@169.254.169.254/", UrlError::Fragment),
            ("https://example.com/#x", UrlError::Fragment),
            ("https://example.com\\@10.0.0.1/", UrlError::Shape),
            ("https://exa mple.com/", UrlError::Shape),
            ("https://example.com/\r\nx: y", UrlError::Shape),
            ("https://example.com/\u{0}", UrlError::Shape),
            ("https://ex\u{e4}mple.com/", UrlError::Shape),
            ("https://localhost/", UrlError::Host),
            ("https://kubernetes/", UrlError::Host),
            ("https://0x7f000001/", UrlError::Host),
            ("https://2130706433/", UrlError::Host),
            ("https://0177.0.0.1/", UrlError::Host),
            ("https://127.1/", UrlError::Host),
            ("https://0x7f.1/", UrlError::Host),
            ("https://1.2.3.0x7f/", UrlError::Host),
            ("https://127.0.0.1./", UrlError::Host),
            ("https://example..com/", UrlError::Host),
            ("https://-a.example.com/", UrlError::Host),
            ("https://.example.com/", UrlError::Host),
            ("https://example.com../", UrlError::Host),
            ("https://%31%32%37.0.0.1/", UrlError::Shape),
            ("https://[::1%25eth0]/", UrlError::Shape),
            ("https://[example.com]/", UrlError::Host),
            ("https://example.com:22/", UrlError::Port),
            ("https://example.com:0/", UrlError::Port),
            ("https://example.com:99999/", UrlError::Port),
            ("https://example.com:65979/", UrlError::Port),
            ("https://example.com:0443/", UrlError::Port),
            ("https://example.com:+443/", UrlError::Port),
            ("https://example.com:/", UrlError::Port),
        ] {
            let refused = WebhookUrl::parse(bad, &Policy::default());
            // Which of the reasons a parser gives first does not matter where the shape itself is wrong.
            let alike = |e: UrlError| {
                e == error
                    || matches!(
                        (e, error),
                        (
                            UrlError::Host | UrlError::Shape | UrlError::Port,
                            UrlError::Host | UrlError::Shape | UrlError::Port
                        )
                    )
            };
            assert!(refused.clone().is_err_and(alike), "{bad:?}: {refused:?}");
        }
        assert!(
            WebhookUrl::parse(&format!("https://example.com/{}", "a".repeat(2_048)), &Policy::default())
                .is_err()
        );
    }

    #[test]
    fn an_ordinary_url_is_taken_apart() {
        let url = WebhookUrl::parse("https://Hooks.Example.com./in?token=a%20b", &Policy::default()).unwrap();
        assert_eq!((url.tls(), url.port(), url.target()), (true, 443, "/in?token=a%20b"));
        assert_eq!(url.host(), &Host::Name("hooks.example.com".into()));
        assert_eq!(url.authority(), "Hooks.Example.com.");
        assert!(!format!("{url:?}").contains("token"));
        let url = WebhookUrl::parse("https://[2606:4700::1111]/", &Policy::default()).unwrap();
        assert_eq!(url.host(), &Host::Address("2606:4700::1111".parse().unwrap()));
        let url = WebhookUrl::parse("https://1.1.1.1", &Policy::default()).unwrap();
        assert_eq!((url.host(), url.target()), (&Host::Address("1.1.1.1".parse().unwrap()), "/"));
    }
}
