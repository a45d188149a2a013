//! `postgres://` URLs: parsed into what a connection needs, with safe defaults and nothing from the environment.

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

/// Statements that a connection keeps prepared.
const STATEMENTS: usize = 100;

/// Why a database URL was refused. Holds no part of the URL that may be secret.
#[derive(Debug, thiserror::Error)]
pub enum UrlError {
    /// It is not `postgres://USER[:PASSWORD]@HOST[:PORT]/DATABASE[?…]`.
    #[error("not a URL like postgres://USER@HOST:PORT/DATABASE: {0}")]
    Shape(&'static str),
    /// A parameter is not known, or has a value it cannot have.
    #[error("parameter `{0}` is not known or has a value that it cannot have")]
    Parameter(String),
    /// The mode would send the password to whoever answers.
    #[error(
        "sslmode={0} does not check who answers; over a network use verify-full or verify-ca (with sslrootcert for a private \
         authority), or sslmode=disable where the whole network is trusted"
    )]
    Unverified(String),
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

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Socket(PathBuf),
    Name(String),
}

/// Where a database is and how it is talked to.
///
/// | parameter | default | |
/// |---|---|---|
/// | `host` | – | folder of a Unix socket, in place of a host |
/// | `sslmode` | `verify-full`; on this machine `prefer` | `verify-ca`, `disable` |
/// | `sslrootcert` | the public authorities | PEM file with one more authority |
/// | `pooler` | `none` | `transaction`: nothing is kept in a session |
/// | `statement_cache_capacity` | 100 | prepared statements of a connection; 0 with a pooler |
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl {
    host: Host,
    port: u16,
    user: String,
    password: Option<String>,
    database: String,
    tls: Tls,
    root: Option<PathBuf>,
    pooler: bool,
    statements: usize,
}

/// How the connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tls {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseUrl")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("user", &self.user)
            .field("database", &self.database)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

impl DatabaseUrl {
    /// From a URL that may hold a password: one from a file.
    ///
    /// # Errors
    /// It has another shape, an unknown parameter, or TLS that checks nobody.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let rest = text
            .strip_prefix("postgres://")
            .or_else(|| text.strip_prefix("postgresql://"))
            .ok_or(UrlError::Shape("it begins with postgres://"))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').ok_or(UrlError::Shape("there is no database"))?;
        let (account, address) = authority.rsplit_once('@').ok_or(UrlError::Shape("there is no user"))?;
        let (user, password) = match account.split_once(':') {
            Some((user, password)) => (user, Some(decode(password)?)),
            None => (account, None),
        };
        let (user, database) = (decode(user)?, decode(database)?);
        if user.is_empty() || database.is_empty() || database.contains('/') {
            return Err(UrlError::Shape("it needs one user and one database"));
        }
        let (name, port) = split_port(address)?;
        let mut url = Self {
            host: Host::Name(name.to_owned()),
            port,
            user,
            password,
            database,
            tls: Tls::VerifyFull,
            root: None,
            pooler: false,
            statements: STATEMENTS,
        };
        let mut mode = None;
        for pair in query.split('&').filter(|p| !p.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or_else(|| UrlError::Parameter(pair.to_owned()))?;
            let (value, bad) = (decode(value)?, || UrlError::Parameter(key.to_owned()));
            match key {
                "host" if value.starts_with('/') && name.is_empty() => url.host = Host::Socket(value.into()),
                "sslmode" => mode = Some(value),
                "sslrootcert" => url.root = Some(value.into()),
                "pooler" => {
                    url.pooler = match value.as_str() {
                        "transaction" => true,
                        "none" => false,
                        _ => return Err(bad()),
                    }
                }
                "statement_cache_capacity" => url.statements = value.parse().map_err(|_| bad())?,
                _ => return Err(bad()),
            }
        }
        if url.host == Host::Name(String::new()) {
            return Err(UrlError::Shape("there is no host"));
        }
        url.tls = tls(mode.as_deref(), url.is_local())?;
        Ok(url)
    }

    /// From a URL that others can read: a process's arguments, a manifest.
    ///
    /// # Errors
    /// As [`Self::parse`], or it holds a password.
    pub fn parse_without_password(text: &str) -> Result<Self, UrlError> {
        let url = Self::parse(text)?;
        if url.password.is_some() { Err(UrlError::Password) } else { Ok(url) }
    }

    pub(super) fn set_password(&mut self, password: &str) {
        self.password = Some(password.to_owned());
    }

    /// Whether a pooler in transaction mode is between us and the database.
    pub(super) const fn pooler(&self) -> bool {
        self.pooler
    }

    /// The database's name.
    pub fn database(&self) -> &str {
        &self.database
    }

    fn is_local(&self) -> bool {
        match &self.host {
            Host::Socket(_) => true,
            Host::Name(name) => {
                name == "localhost" || name.parse().is_ok_and(|address: IpAddr| address.is_loopback())
            }
        }
    }

    pub(super) fn options(&self) -> PgConnectOptions {
        // Every field that the environment could set is set here.
        let mut options = PgConnectOptions::new_without_pgpass()
            .port(self.port)
            .username(&self.user)
            .password(self.password.as_deref().unwrap_or_default())
            .database(&self.database)
            .application_name("mpegflow-broker")
            // Poolers refuse a start-up parameter that they do not know, and the server's default is exact.
            .extra_float_digits(None)
            .statement_cache_capacity(if self.pooler { 0 } else { self.statements })
            .ssl_mode(match self.tls {
                Tls::Disable => PgSslMode::Disable,
                Tls::Prefer => PgSslMode::Prefer,
                Tls::Require => PgSslMode::Require,
                Tls::VerifyCa => PgSslMode::VerifyCa,
                Tls::VerifyFull => PgSslMode::VerifyFull,
            });
        options = match &self.host {
            Host::Socket(folder) => options.socket(folder),
            Host::Name(name) => options.host(name),
        };
        match &self.root {
            Some(root) => options.ssl_root_cert(root),
            None => options,
        }
    }
}

fn tls(mode: Option<&str>, local: bool) -> Result<Tls, UrlError> {
    match mode {
        None if local => Ok(Tls::Prefer),
        None | Some("verify-full") => Ok(Tls::VerifyFull),
        Some("verify-ca") => Ok(Tls::VerifyCa),
        Some("disable") => Ok(Tls::Disable),
        Some("prefer") if local => Ok(Tls::Prefer),
        Some("require") if local => Ok(Tls::Require),
        Some(mode @ ("allow" | "prefer" | "require")) => Err(UrlError::Unverified(mode.to_owned())),
        Some(_) => Err(UrlError::Parameter("sslmode".into())),
    }
}

fn split_port(address: &str) -> Result<(&str, u16), UrlError> {
    let port = |text: &str| text.parse().map_err(|_| UrlError::Shape("the port is not a number"));
    if let Some(rest) = address.strip_prefix('[') {
        let (name, rest) = rest.split_once(']').ok_or(UrlError::Shape("the address has no end"))?;
        return match rest.strip_prefix(':') {
            Some(text) => Ok((name, port(text)?)),
            None if rest.is_empty() => Ok((name, 5432)),
            None => Err(UrlError::Shape("something follows the address")),
        };
    }
    match address.split_once(':') {
        Some((name, text)) => Ok((name, port(text)?)),
        None => Ok((address, 5432)),
    }
}

/// Percent-decodes.
fn decode(text: &str) -> Result<String, UrlError> {
    let bad = UrlError::Shape("a percent sign is followed by two hexadecimal digits");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit =
            || rest.next().and_then(|b| char::from(b).to_digit(16)).and_then(|d| u8::try_from(d).ok());
        match (digit(), digit()) {
            (Some(high), Some(low)) => bytes.push(high << 4 | low),
            _ => return Err(bad),
        }
    }
    let decoded = String::from_utf8(bytes).map_err(|_| UrlError::Shape("it is not UTF-8"))?;
    if decoded.contains('\0') { Err(UrlError::Shape("it holds a NUL")) } else { Ok(decoded) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_a_network_the_server_is_checked_unless_somebody_spells_out_that_it_is_not() {
        let tls = |url: &str| DatabaseUrl::parse(url).map(|u| u.tls);
        for (url, expected) in [
            ("postgres://u@db.example/d", Tls::VerifyFull),
            ("postgres://u@10.0.0.1:6000/d", Tls::VerifyFull),
            ("postgresql://u@db/d?sslmode=verify-ca&sslrootcert=/ca.pem", Tls::VerifyCa),
            ("postgres://u@db/d?sslmode=disable", Tls::Disable),
            ("postgres://u@localhost/d", Tls::Prefer),
            ("postgres://u@[::1]:1/d", Tls::Prefer),
            ("postgres://u@127.8.0.1/d?sslmode=verify-full", Tls::VerifyFull),
            ("postgres://u@/d?host=/run/postgresql", Tls::Prefer),
        ] {
            assert_eq!(tls(url).unwrap(), expected, "{url}");
        }
        for mode in ["allow", "prefer", "require"] {
            let refused = tls(&format!("postgres://u@db/d?sslmode={mode}"));
            assert!(matches!(refused, Err(UrlError::Unverified(m)) if m == mode));
        }
    }

    #[test]
    fn every_part_is_read_and_nothing_unknown_is_taken() {
        let url = "postgres://us%40er:p%3Aw%2f@[fd00::1]:6432/db?sslrootcert=%2Fca.pem&pooler=transaction&statement_cache_capacity=7";
        let expected = DatabaseUrl {
            host: Host::Name("fd00::1".into()),
            port: 6432,
            user: "us@er".into(),
            password: Some("p:w/".into()),
            database: "db".into(),
            tls: Tls::VerifyFull,
            root: Some("/ca.pem".into()),
            pooler: true,
            statements: 7,
        };
        assert_eq!(DatabaseUrl::parse(url).unwrap(), expected);
        for bad in [
            "mysql://u@h/d",
            "postgres://h/d",
            "postgres://u@h",
            "postgres://u@h/",
            "postgres://@h/d",
            "postgres://u@/d",
            "postgres://u@h:x/d",
            "postgres://u@h:70000/d",
            "postgres://u@h/d/e",
            "postgres://u@h/d?options=-c%20x",
            "postgres://u@h/d?sslmode=maybe",
            "postgres://u@h/d?pooler=session",
            "postgres://u@h/d%0",
            "postgres://u@h/%00",
            "postgres://u@h/d?host=/run",
            "postgres://u@[::1/d",
            "postgres://u@[::1]x/d",
            "postgres://u@h/d?sslmode",
        ] {
            assert!(DatabaseUrl::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_password_is_neither_taken_from_arguments_nor_shown() {
        let url = "postgres://u:hunter2@h/d";
        assert!(matches!(DatabaseUrl::parse_without_password(url), Err(UrlError::Password)));
        assert!(!format!("{:?}", DatabaseUrl::parse(url).unwrap()).contains("hunter2"));
    }
}
