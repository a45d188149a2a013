//! Where Redis is: one server, the master that Sentinels name, or a cluster.
//!
//! | URL | |
//! |---|---|
//! | `redis://[USER[:PASSWORD]@]HOST[:PORT][/DATABASE]` | one server |
//! | `redis+sentinel://[USER[:PASSWORD]@]HOST[:PORT],…/MASTER` | the master of that name, as the Sentinels know it (port 26379) |
//! | `redis+cluster://[USER[:PASSWORD]@]HOST[:PORT],…` | a cluster that these are nodes of |
//!
//! `rediss…` in place of `redis…` is TLS; the server's certificate is checked, always.

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _};
use std::fmt;
use std::io;
use std::path::PathBuf;

/// Servers that may be named.
const MAX_HOSTS: usize = 64;

/// Why Redis' address was refused. Holds no part of it that may be secret.
#[derive(Debug, thiserror::Error)]
pub enum RedisUrlError {
    /// It has another shape.
    #[error(
        "not a URL like redis://HOST:PORT, redis+sentinel://HOST:PORT,HOST:PORT/MASTER or redis+cluster://HOST:PORT,HOST:PORT \
         (rediss for TLS): {0}"
    )]
    Shape(&'static str),
    /// A password in a place that others can read.
    #[error("the password belongs into a file, not into the URL")]
    Password,
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
}

/// How the servers belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Single,
    Sentinel { master: String },
    Cluster,
}

/// Where Redis is, and as whom it is talked to.
#[derive(Clone)]
pub struct RedisUrl {
    pub(super) kind: Kind,
    pub(super) nodes: Vec<ConnectionInfo>,
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes: Vec<String> = self.nodes.iter().map(|node| node.addr().to_string()).collect();
        f.debug_struct("RedisUrl").field("kind", &self.kind).field("nodes", &nodes).finish_non_exhaustive()
    }
}

impl RedisUrl {
    /// From a URL that may hold a password: one from a file.
    ///
    /// # Errors
    /// It has another shape.
    pub fn parse(text: &str) -> Result<Self, RedisUrlError> {
        let shape = RedisUrlError::Shape;
        let (scheme, rest) = text.split_once("://").ok_or(shape("there is no ://"))?;
        let (tls, how) = match scheme.split_once('+').unwrap_or((scheme, "")) {
            ("redis", how) => ("redis", how),
            ("rediss", how) => ("rediss", how),
            _ => return Err(shape("it begins with redis:// or rediss://")),
        };
        if rest.contains(['?', '#']) {
            return Err(shape("it has no parameters"));
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (account, hosts) = match authority.rsplit_once('@') {
            Some((account, hosts)) => (format!("{account}@"), hosts),
            None => (String::new(), authority),
        };
        let (kind, port, database) = match how {
            "" => (Kind::Single, 6379, path),
            "cluster" if path.is_empty() => (Kind::Cluster, 6379, ""),
            "cluster" => return Err(shape("a cluster has one database")),
            "sentinel" if path.is_empty() || path.contains('/') => {
                return Err(shape("after the Sentinels comes the master's name"));
            }
            "sentinel" => (Kind::Sentinel { master: path.to_owned() }, 26379, ""),
            _ => return Err(shape("after the + comes sentinel or cluster")),
        };
        let hosts: Vec<&str> = hosts.split(',').collect();
        if hosts.iter().any(|host| host.is_empty()) || hosts.len() > MAX_HOSTS {
            return Err(shape("it needs a host, and no more than 64"));
        }
        if kind == Kind::Single && hosts.len() > 1 {
            return Err(shape("several hosts are redis+sentinel:// or redis+cluster://"));
        }
        let node = |host: &&str| {
            // A port at the end, and no part of an IPv6 address in brackets.
            let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
            let host = if has_port { (*host).to_owned() } else { format!("{host}:{port}") };
            format!("{tls}://{account}{host}/{database}")
                .into_connection_info()
                // Its text may quote the URL.
                .map_err(|_| shape("a host, port, user or database cannot be one"))
        };
        Ok(Self { kind, nodes: hosts.iter().map(node).collect::<Result<_, _>>()? })
    }

    /// From a URL that others can read: one from the command line.
    ///
    /// # Errors
    /// It has another shape, or a password in it.
    pub fn parse_without_password(text: &str) -> Result<Self, RedisUrlError> {
        let url = Self::parse(text)?;
        if url.nodes.iter().any(|node| node.redis_settings().password().is_some()) {
            return Err(RedisUrlError::Password);
        }
        Ok(url)
    }

    pub(super) fn set_password(&mut self, password: &str) {
        for node in &mut self.nodes {
            *node = node.clone().set_redis_settings(node.redis_settings().clone().set_password(password));
        }
    }

    pub(super) fn is_tls(&self) -> bool {
        self.nodes.iter().any(|node| matches!(node.addr(), ConnectionAddr::TcpTls { .. }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(text: &str) -> Vec<String> {
        RedisUrl::parse(text).unwrap().nodes.iter().map(|node| node.addr().to_string()).collect()
    }

    #[test]
    fn one_server_sentinels_and_a_cluster() {
        assert_eq!(addresses("redis://localhost"), ["localhost:6379"]);
        assert_eq!(addresses("rediss://u@[::1]:7/3"), ["[::1]:7"].map(|a| a.replace(['[', ']'], "")));
        assert_eq!(addresses("redis+cluster://a:1,b"), ["a:1", "b:6379"]);
        let sentinel = RedisUrl::parse("redis+sentinel://a,b:2/main").unwrap();
        assert_eq!(sentinel.kind, Kind::Sentinel { master: "main".into() });
        assert_eq!(addresses("redis+sentinel://a,b:2/main"), ["a:26379", "b:2"]);
        assert!(RedisUrl::parse("rediss://a").unwrap().is_tls());
        assert!(!RedisUrl::parse("redis://a").unwrap().is_tls());
    }

    #[test]
    fn what_has_another_shape_is_refused_without_quoting_it() {
        for text in [
            "localhost:6379",
            "http://a",
            "redis://",
            "redis://a,b",
            "redis://a?password=hunter2",
            "redis+cluster://a/1",
            "redis+sentinel://a",
            "redis+sentinel://a/b/c",
            "redis+odd://a",
            "redis://:hunter2@a:notaport",
            "redis://:hunter2@a:99999999",
            "rediss://:hunter2@a#insecure",
            "redis://:hunter2@a/notanumber",
        ] {
            let error = RedisUrl::parse(text).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_password_is_refused_where_others_read_and_never_shown() {
        let text = "redis://mpegflow:hunter2@localhost";
        assert!(matches!(RedisUrl::parse_without_password(text), Err(RedisUrlError::Password)));
        let mut url = RedisUrl::parse_without_password("redis+cluster://mpegflow@a,b").unwrap();
        url.set_password("hunter2");
        assert!(url.nodes.iter().all(|n| n.redis_settings().password() == Some("hunter2")));
        assert!(url.nodes.iter().all(|n| n.redis_settings().username() == Some("mpegflow")));
        assert!(!format!("{url:?} {:?}", RedisUrl::parse(text).unwrap()).contains("hunter2"));
    }
}
