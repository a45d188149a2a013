//! The types of values: how each is read from a layer, and how it is written back.

use crate::enrol::Account;
use crate::http::cors::Origin;
use crate::otlp::CollectorUrl;
use crate::queue::redis::RedisUrl;
use crate::store::postgres::DatabaseUrl;
use crate::trace::Share;
use ipnet::IpNet;
use mpegflow_protocol::ids::PoolName;
use std::fmt::Debug;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A value as a layer holds it. The environment and flags know texts only.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// Yes or no.
    Boolean(bool),
    /// A list.
    List(Vec<Value>),
    /// What no key takes, by its name in TOML.
    Other(&'static str),
}

impl Value {
    fn name(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Boolean(_) => "a boolean",
            Self::List(_) => "an array",
            Self::Other(name) => name,
        }
    }
}

/// A type that a key can have.
pub trait Setting: Sized + Clone + Debug {
    /// What values look like, for the reference page.
    fn values() -> String;
    /// Reads a value.
    ///
    /// # Errors
    /// What is wrong, and what to write instead.
    fn read(value: &Value) -> Result<Self, String>;
    /// The value as TOML.
    fn toml(&self) -> String;
}

/// A text in TOML's basic quotes.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len().saturating_add(2));
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn text<'a>(value: &'a Value, wanted: &str) -> Result<&'a str, String> {
    match value {
        Value::Text(text) if text.is_empty() => Err(format!("it is empty; write {wanted}")),
        Value::Text(text) => Ok(text),
        other => Err(format!("{} is no text; write {wanted}", other.name())),
    }
}

impl Setting for String {
    fn values() -> String {
        "text".into()
    }

    fn read(value: &Value) -> Result<Self, String> {
        match value {
            // An empty text is a text: an empty prefix is the default one.
            Value::Text(text) if text.chars().any(char::is_control) => {
                Err("it holds a control character".into())
            }
            Value::Text(text) => Ok(text.clone()),
            other => Err(format!("{} is no text", other.name())),
        }
    }

    fn toml(&self) -> String {
        quoted(self)
    }
}

impl Setting for PathBuf {
    fn values() -> String {
        "path".into()
    }

    fn read(value: &Value) -> Result<Self, String> {
        text(value, "a path").map(Into::into)
    }

    fn toml(&self) -> String {
        quoted(&self.to_string_lossy())
    }
}

impl Setting for SocketAddr {
    fn values() -> String {
        "address and port, such as `0.0.0.0:8080` or `[::]:8080`".into()
    }

    fn read(value: &Value) -> Result<Self, String> {
        let text = text(value, "an address and a port, such as 0.0.0.0:8080")?;
        text.parse().map_err(|_| {
            format!(
                "`{text}` is no address and port; write one such as 0.0.0.0:8080 (names are not resolved)"
            )
        })
    }

    fn toml(&self) -> String {
        quoted(&self.to_string())
    }
}

impl Setting for bool {
    fn values() -> String {
        "`true` or `false`".into()
    }

    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::Boolean(value) => Ok(*value),
            Value::Text(text) if text == "true" => Ok(true),
            Value::Text(text) if text == "false" => Ok(false),
            _ => Err("it is neither true nor false".into()),
        }
    }

    fn toml(&self) -> String {
        self.to_string()
    }
}

/// A URL that can be read with the promise that it holds no password.
pub trait Passwordless: Sized + Clone + Debug {
    /// What values look like, for the reference page.
    const VALUES: &'static str;
    /// What to write, for a message.
    const SHAPE: &'static str;
    /// Reads it. Messages do not repeat the text, which may hold a password.
    ///
    /// # Errors
    /// What is wrong, and what to write instead.
    fn without_password(text: &str) -> Result<Self, String>;
}

impl Passwordless for DatabaseUrl {
    const VALUES: &'static str = "`postgres://USER@HOST:PORT/DATABASE`";
    const SHAPE: &'static str = "postgres://USER@HOST:PORT/DATABASE";

    fn without_password(text: &str) -> Result<Self, String> {
        Self::parse_without_password(text).map_err(|e| e.to_string())
    }
}

impl Passwordless for RedisUrl {
    const VALUES: &'static str = "`redis://[USER@]HOST:PORT`, `redis+sentinel://[USER@]HOST:PORT,…/MASTER` or `redis+cluster://[USER@]HOST:PORT,…`";
    const SHAPE: &'static str = "redis://HOST:PORT";

    fn without_password(text: &str) -> Result<Self, String> {
        Self::parse_without_password(text).map_err(|e| e.to_string())
    }
}

impl Passwordless for CollectorUrl {
    const VALUES: &'static str = "`https://HOST:PORT`, or `http://HOST:PORT`";
    const SHAPE: &'static str = "https://HOST:4318";

    fn without_password(text: &str) -> Result<Self, String> {
        text.parse().map_err(str::to_owned)
    }
}

/// A URL without a password.
#[derive(Debug, Clone)]
pub struct PlainUrl<U> {
    text: String,
    url: U,
}

impl<U> PlainUrl<U> {
    /// What it says.
    pub const fn url(&self) -> &U {
        &self.url
    }
}

impl<U: Passwordless> Setting for PlainUrl<U> {
    fn values() -> String {
        U::VALUES.into()
    }

    fn read(value: &Value) -> Result<Self, String> {
        let text = text(value, U::SHAPE)?;
        Ok(Self { text: text.to_owned(), url: U::without_password(text)? })
    }

    fn toml(&self) -> String {
        quoted(&self.text)
    }
}

/// What keys in Redis begin with. Braces would move a key to another hash slot, and a wildcard would widen an account's rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisPrefix(pub String);

impl Setting for RedisPrefix {
    fn values() -> String {
        "1 to 64 letters, digits, `-` or `_`".into()
    }

    fn read(value: &Value) -> Result<Self, String> {
        let text = text(value, "mpegflow")?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if !text.is_empty() && text.len() <= 64 && text.bytes().all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err("it is not 1 to 64 letters, digits, - or _".into())
        }
    }

    fn toml(&self) -> String {
        quoted(&self.0)
    }
}

impl Setting for Account {
    fn values() -> String {
        "namespace and name of a service account, such as `mpegflow/mpegflow-operator`".into()
    }

    fn read(value: &Value) -> Result<Self, String> {
        text(value, "NAMESPACE/NAME")?.parse()
    }

    fn toml(&self) -> String {
        quoted(&self.to_string())
    }
}

/// A service account, and the pool whose workers its pods are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountOfPool(pub Account, pub PoolName);

impl Setting for AccountOfPool {
    fn values() -> String {
        "service account and pool, such as `mpegflow/cpu-worker=cpu`".into()
    }

    fn read(value: &Value) -> Result<Self, String> {
        let text = text(value, "NAMESPACE/NAME=POOL")?;
        let (account, pool) = text.split_once('=').ok_or("write NAMESPACE/NAME=POOL")?;
        let pool = pool.parse().map_err(|_| format!("`{pool}` is no name of a pool"))?;
        Ok(Self(account.parse()?, pool))
    }

    fn toml(&self) -> String {
        quoted(&format!("{}={}", self.0, self.1))
    }
}

/// A whole number within bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number<const MIN: u64, const MAX: u64>(pub u64);

impl<const MIN: u64, const MAX: u64> Setting for Number<MIN, MAX> {
    fn values() -> String {
        format!("number from {MIN} to {MAX}")
    }

    fn read(value: &Value) -> Result<Self, String> {
        let number = match value {
            Value::Integer(n) => u64::try_from(*n).ok(),
            Value::Text(text) => text.parse().ok(),
            _ => None,
        };
        number
            .filter(|n| (MIN..=MAX).contains(n))
            .map(Self)
            .ok_or_else(|| format!("it is no number from {MIN} to {MAX}"))
    }

    fn toml(&self) -> String {
        self.0.to_string()
    }
}

/// A span of time within bounds, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span<const MIN: u64, const MAX: u64>(pub Duration);

const UNITS: [(&str, u64); 4] = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)];

fn spelt(seconds: u64) -> String {
    let unit = UNITS.iter().rev().find(|(_, size)| seconds > 0 && seconds.is_multiple_of(*size));
    let (name, size) = unit.unwrap_or(&UNITS[0]);
    format!("{}{name}", seconds.checked_div(*size).unwrap_or(0))
}

impl<const MIN: u64, const MAX: u64> Setting for Span<MIN, MAX> {
    fn values() -> String {
        format!(
            "time from `{}` to `{}`: a number and `s`, `m`, `h` or `d`; seconds without one",
            spelt(MIN),
            spelt(MAX)
        )
    }

    fn read(value: &Value) -> Result<Self, String> {
        let seconds = match value {
            Value::Integer(n) => u64::try_from(*n).ok(),
            Value::Text(text) => {
                let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
                let unit = text.get(digits.len()..).unwrap_or("");
                let size = if unit.is_empty() {
                    Some(1)
                } else {
                    UNITS.iter().find(|(name, _)| *name == unit).map(|(_, size)| *size)
                };
                digits.parse::<u64>().ok().zip(size).and_then(|(n, size)| n.checked_mul(size))
            }
            _ => None,
        };
        seconds.filter(|n| (MIN..=MAX).contains(n)).map(|n| Self(Duration::from_secs(n))).ok_or_else(|| {
            format!(
                "it is no time from {} to {}; write one such as \"{}\"",
                spelt(MIN),
                spelt(MAX),
                spelt(MIN.max(1))
            )
        })
    }

    fn toml(&self) -> String {
        quoted(&spelt(self.0.as_secs()))
    }
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

const SIZES: [(&str, u64); 4] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

impl Setting for Bytes {
    fn values() -> String {
        "bytes: a number, with `KiB`, `MiB`, `GiB` or `TiB` after it or without".into()
    }

    fn read(value: &Value) -> Result<Self, String> {
        let bytes = match value {
            Value::Integer(n) => u64::try_from(*n).ok(),
            Value::Text(text) => {
                let (digits, size) = SIZES
                    .iter()
                    .find_map(|(name, size)| text.strip_suffix(name).map(|digits| (digits.trim_end(), *size)))
                    .unwrap_or((text, 1));
                digits.parse::<u64>().ok().and_then(|n| n.checked_mul(size))
            }
            _ => None,
        };
        bytes
            .filter(|n| i64::try_from(*n).is_ok())
            .map(Self)
            .ok_or_else(|| "it is no number of bytes; write one such as 100000 or \"4GiB\"".into())
    }

    fn toml(&self) -> String {
        let unit = SIZES.iter().rev().find(|(_, size)| self.0 > 0 && self.0.is_multiple_of(*size));
        match unit {
            Some((name, size)) => quoted(&format!("{}{name}", self.0.checked_div(*size).unwrap_or(0))),
            None => self.0.to_string(),
        }
    }
}

/// So many of a million are one percent.
const PERCENT: u32 = 10_000;

impl Setting for Share {
    fn values() -> String {
        "share from `0%` to `100%`, such as `2.5%`; of four decimal places at most".into()
    }

    fn read(value: &Value) -> Result<Self, String> {
        let wrong = || "it is no share; write one such as \"100%\" or \"2.5%\"".to_owned();
        let Value::Text(text) = value else { return Err(wrong()) };
        let number = text.strip_suffix('%').map(str::trim_end).ok_or_else(wrong)?;
        let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str, most: usize| {
            (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
        };
        if !digits(whole, 3) || !digits(decimals, 4) {
            return Err(wrong());
        }
        let whole: u32 = whole.parse().map_err(|_| wrong())?;
        let decimals: u32 = format!("{decimals:0<4}").parse().map_err(|_| wrong())?;
        let n = whole.checked_mul(PERCENT).and_then(|n| n.checked_add(decimals));
        n.and_then(Self::of_million).ok_or_else(wrong)
    }

    fn toml(&self) -> String {
        let n = self.per_million();
        let (whole, decimals) = (n.checked_div(PERCENT).unwrap_or(0), n.checked_rem(PERCENT).unwrap_or(0));
        let text = format!("{whole}.{decimals:04}");
        quoted(&format!("{}%", text.trim_end_matches('0').trim_end_matches('.')))
    }
}

impl Setting for Origin {
    fn values() -> String {
        "origin, such as `https://app.example.com`, or `*`".into()
    }

    fn read(value: &Value) -> Result<Self, String> {
        Self::parse(text(value, "an origin such as https://app.example.com")?)
    }

    fn toml(&self) -> String {
        quoted(self.as_str())
    }
}

impl Setting for IpNet {
    fn values() -> String {
        "network, such as `10.1.0.0/16` or `fd12::/48`".into()
    }

    fn read(value: &Value) -> Result<Self, String> {
        let text = text(value, "a network such as 10.1.0.0/16")?;
        let network: Self =
            text.parse().map_err(|_| format!("`{text}` is no network; write one such as 10.1.0.0/16"))?;
        // Whoever writes host bits means something else than they wrote.
        if network.addr() == network.network() {
            Ok(network)
        } else {
            Err(format!(
                "`{text}` is an address within {}; write that, or /32 and /128 for one address",
                network.trunc()
            ))
        }
    }

    fn toml(&self) -> String {
        quoted(&self.to_string())
    }
}

/// A port, or a range of ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRange(pub std::ops::RangeInclusive<u16>);

impl Setting for PortRange {
    fn values() -> String {
        "port such as `443`, or ports such as `8000-8999`".into()
    }

    fn read(value: &Value) -> Result<Self, String> {
        let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
        let range = match value {
            Value::Integer(n) => u16::try_from(*n).ok().filter(|port| *port > 0).map(|port| port..=port),
            Value::Text(text) => {
                let (from, to) = text.split_once('-').unwrap_or((text, text));
                port(from).zip(port(to)).filter(|(from, to)| from <= to).map(|(from, to)| from..=to)
            }
            _ => None,
        };
        range.map(Self).ok_or_else(|| "it is no port; write one such as 443, or \"8000-8999\"".into())
    }

    fn toml(&self) -> String {
        if self.0.start() == self.0.end() {
            self.0.start().to_string()
        } else {
            quoted(&format!("{}-{}", self.0.start(), self.0.end()))
        }
    }
}

impl<T: Setting> Setting for Vec<T> {
    fn values() -> String {
        format!("list of: {}. In the environment with commas between them", T::values())
    }

    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::List(values) => values.iter().map(T::read).collect(),
            Value::Integer(_) => T::read(value).map(|one| vec![one]),
            Value::Text(text) if text.is_empty() => Ok(Self::new()),
            Value::Text(text) => {
                text.split(',').map(|part| T::read(&Value::Text(part.trim().into()))).collect()
            }
            other => Err(format!("{} is no list; write one such as [\"…\"]", other.name())),
        }
    }

    fn toml(&self) -> String {
        format!("[{}]", self.iter().map(T::toml).collect::<Vec<_>>().join(", "))
    }
}

/// An enumeration whose values are words.
#[macro_export]
#[doc(hidden)]
macro_rules! setting_words {
    ($($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident $word:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $crate::config::setting::Setting for $name {
            fn values() -> String {
                [$(concat!("`", $word, "`")),*].join(", ")
            }

            fn read(value: &$crate::config::setting::Value) -> Result<Self, String> {
                match value {
                    $($crate::config::setting::Value::Text(text) if text == $word => Ok(Self::$variant),)*
                    _ => Err(format!("it is none of {}", [$($word),*].join(", "))),
                }
            }

            fn toml(&self) -> String {
                match self { $(Self::$variant => concat!("\"", $word, "\"").into()),* }
            }
        }
    )*};
}

setting_words! {
    /// How storage is told to encrypt.
    Sse {
        /// As the bucket says.
        Bucket "bucket",
        /// SSE-S3: storage's own key.
        S3 "s3",
        /// SSE-KMS: a key of the key service.
        Kms "kms",
    }
    /// What tokens are signed with.
    TokenAlgorithm {
        /// RSA.
        Rs256 "RS256",
        /// ECDSA over P-256.
        Es256 "ES256",
    }
    /// What is done with a caller's trace.
    Traceparent {
        /// Nothing.
        Ignore "ignore",
        /// A link.
        Link "link",
        /// It becomes the job's.
        Parent "parent",
    }
    /// How the log is written.
    LogFormat {
        /// For people.
        Text "text",
        /// One JSON object a line.
        Json "json",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::Text(text.into())
    }

    #[test]
    fn what_is_written_back_is_read_as_the_same() {
        fn round<T: Setting + PartialEq>(value: T) {
            let written = value.toml();
            let read = toml_value(&written);
            assert!(T::read(&read).unwrap() == value, "{written}");
        }
        fn toml_value(text: &str) -> Value {
            match text.strip_prefix('"').and_then(|t| t.strip_suffix('"')) {
                Some(text) => Value::Text(text.into()),
                None => text.parse().map_or_else(|_| Value::Boolean(text == "true"), Value::Integer),
            }
        }
        round(Span::<1, 1_000_000>(Duration::from_secs(7_200)));
        round(Span::<1, 1_000_000>(Duration::from_secs(90)));
        round(Span::<0, 1_000_000>(Duration::ZERO));
        round(Bytes(4 << 40));
        round(Bytes(4_097));
        round(Bytes(0));
        round(Number::<0, 10>(3));
        round(true);
        round(LogFormat::Json);
        round("127.0.0.1:80".parse::<SocketAddr>().unwrap());
        for n in [0, 1, 25_000, 100_000, 999_999, 1_000_000] {
            round(Share::of_million(n).unwrap());
        }
    }

    #[test]
    fn a_share_is_a_percentage_and_nothing_else() {
        for (good, n) in [("100%", 1_000_000), ("0%", 0), ("2.5%", 25_000), ("0.0001%", 1), ("10 %", 100_000)]
        {
            assert_eq!(Share::read(&text(good)).unwrap().per_million(), n);
        }
        for bad in
            ["", "%", "100", "100.0001%", "101%", "-1%", "+1%", ".5%", "1.%", "1e1%", "NaN%", "0.00001%"]
        {
            assert!(Share::read(&text(bad)).unwrap_err().contains("2.5%"), "{bad}");
        }
        assert!(Share::read(&Value::Integer(1)).is_err());
    }

    #[test]
    fn values_out_of_bounds_or_of_another_kind_are_refused_with_a_way_out() {
        for (bad, way_out) in [
            (Span::<2, 600>::read(&text("1s")), "from 2s to 10m"),
            (Span::<2, 600>::read(&text("11m")), "from 2s to 10m"),
            (Span::<2, 600>::read(&text("2w")), "such as"),
            (Span::<2, 600>::read(&text("-3")), "such as"),
            (Span::<2, 600>::read(&text("99999999999999999999s")), "such as"),
        ] {
            assert!(bad.unwrap_err().contains(way_out));
        }
        for bad in ["", "x", "4 TB", "99999999999TiB", "-1"] {
            assert!(Bytes::read(&text(bad)).unwrap_err().contains("4GiB"), "{bad}");
        }
        assert!(Number::<2, 10>::read(&Value::Integer(-1)).is_err());
        assert!(bool::read(&text("yes")).is_err());
        assert!(SocketAddr::read(&text("localhost:80")).unwrap_err().contains("not resolved"));
        assert!(Vec::<bool>::read(&Value::List(vec![text("true"), text("x")])).is_err());
        assert!(PathBuf::read(&text("")).is_err());
    }

    #[test]
    fn a_password_in_a_url_is_refused_and_not_repeated() {
        let error = PlainUrl::<DatabaseUrl>::read(&text("postgres://u:swordfish@h/d")).unwrap_err();
        assert!(error.contains("file") && !error.contains("swordfish"), "{error}");
        let error = PlainUrl::<RedisUrl>::read(&text("redis://u:swordfish@h:6379")).unwrap_err();
        assert!(error.contains("file") && !error.contains("swordfish"), "{error}");
    }
}
