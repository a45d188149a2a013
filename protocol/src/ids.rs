//! Ids: a prefix that says what it names, and 32 lowercase hexadecimal digits (a UUID, made by the broker).
//!
//! Storage paths are built from ids alone, so an id must never hold a character that means something to a file system, a
//! URL or SQL: parsing accepts exactly the one spelling.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

/// What kind of thing an [`Id`] names.
pub trait Kind: Copy + Eq + Ord + std::hash::Hash + fmt::Debug {
    /// The prefix before the underscore.
    const PREFIX: &'static str;
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident $alias:ident $prefix:literal;)*) => {$(
        #[doc = concat!("Kind of `", $prefix, "_…` ids.")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $kind {}
        impl Kind for $kind { const PREFIX: &'static str = $prefix; }
        $(#[$doc])*
        pub type $alias = Id<$kind>;
    )*};
}

kinds! {
    /// A tenant: the unit of isolation.
    Tenant TenantId "tnt";
    /// A job, as a tenant submitted it.
    Job JobId "job";
    /// One node of a job's graph.
    Task TaskId "tsk";
    /// One try at a task by one worker.
    Attempt AttemptId "att";
    /// An upload of a tenant.
    Upload UploadId "upl";
    /// A worker's identity: one process (one pod), from enrolment to exit.
    Worker WorkerId "wrk";
    /// An API key's public part.
    Key KeyId "key";
    /// A webhook of a tenant.
    Webhook WebhookId "whk";
    /// A message to a webhook.
    Message MessageId "msg";
    /// A rule of a tenant's intake.
    Rule RuleId "rul";
}

/// An id of one kind. Its text is `prefix_` and 32 lowercase hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id<K: Kind>(u128, PhantomData<K>);

impl<K: Kind> Id<K> {
    /// An id of the given 128 bits; whoever makes ids brings the randomness.
    pub const fn from_u128(bits: u128) -> Self {
        Self(bits, PhantomData)
    }

    /// The 128 bits.
    pub const fn as_u128(self) -> u128 {
        self.0
    }
}

/// The text was not an id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a valid id: expected `{0}_` and 32 lowercase hexadecimal digits")]
pub struct BadId(pub &'static str);

impl<K: Kind> FromStr for Id<K> {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        let bad = BadId(K::PREFIX);
        let digits =
            text.strip_prefix(K::PREFIX).and_then(|t| t.strip_prefix('_')).ok_or_else(|| bad.clone())?;
        let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if digits.len() != 32 || !digits.bytes().all(lower_hex) {
            return Err(bad);
        }
        u128::from_str_radix(digits, 16).map(Self::from_u128).map_err(|_| bad)
    }
}

impl<K: Kind> fmt::Display for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{:032x}", K::PREFIX, self.0)
    }
}

impl<K: Kind> fmt::Debug for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<K: Kind> Serialize for Id<K> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de, K: Kind> Deserialize<'de> for Id<K> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl<K: Kind> utoipa::PartialSchema for Id<K> {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .pattern(Some(format!("^{}_[0-9a-f]{{32}}$", K::PREFIX)))
            .into()
    }
}

impl<K: Kind> utoipa::ToSchema for Id<K> {
    fn name() -> std::borrow::Cow<'static, str> {
        std::borrow::Cow::Owned(format!("{}_id", K::PREFIX))
    }
}

/// Name of a worker pool: a DNS label (RFC 1123), 1 to 63 characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct PoolName(String);

impl PoolName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for PoolName {
    fn default() -> Self {
        Self("default".into())
    }
}

/// The text was not a DNS label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a pool name: 1 to 63 of a-z, 0-9 and `-`, neither first nor last a `-`")]
pub struct BadPoolName;

impl FromStr for PoolName {
    type Err = BadPoolName;

    fn from_str(text: &str) -> Result<Self, BadPoolName> {
        let chars = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        let ends = !text.starts_with('-') && !text.ends_with('-');
        if chars && ends && (1..=63).contains(&text.len()) { Ok(Self(text.into())) } else { Err(BadPoolName) }
    }
}

impl utoipa::PartialSchema for PoolName {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .pattern(Some("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"))
            .into()
    }
}

impl utoipa::ToSchema for PoolName {
    fn name() -> std::borrow::Cow<'static, str> {
        std::borrow::Cow::Borrowed("pool_name")
    }
}

impl fmt::Display for PoolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for PoolName {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_exactly_one_spelling() {
        let id = JobId::from_u128(0xabc);
        assert_eq!(id.to_string(), "job_00000000000000000000000000000abc");
        assert_eq!(id.to_string().parse::<JobId>(), Ok(id));
        for bad in [
            "job_00000000000000000000000000000ABC",
            "job_0000000000000000000000000000abc",
            "job_+0000000000000000000000000000abc",
            "tsk_00000000000000000000000000000abc",
            "job_../../../../../../../../etc/pass",
            "job",
            "",
        ] {
            assert_eq!(bad.parse::<JobId>(), Err(BadId("job")), "{bad}");
        }
    }

    #[test]
    fn pool_names_are_dns_labels() {
        assert!("gpu-1".parse::<PoolName>().is_ok());
        for bad in ["", "-a", "a-", "A", "a.b", "a/b", &"a".repeat(64)] {
            assert_eq!(bad.parse::<PoolName>(), Err(BadPoolName), "{bad}");
        }
    }
}
