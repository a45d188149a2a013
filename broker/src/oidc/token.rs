//! One token: a JWS in compact form (RFC 7515) with the claims of a JWT (RFC 7519), read as RFC 8725 asks for.

use super::keys::PublicKey;
use crate::model::Time;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value};

/// Bytes of a token at most.
const MAX_TOKEN: usize = 8 << 10;

/// What tokens are signed with. There is no `none` and no HMAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// RSA with PKCS #1 v1.5 and SHA-256, of 2,048 bits or more.
    Rs256,
    /// ECDSA over P-256 with SHA-256.
    Es256,
}

impl Algorithm {
    /// As `alg` spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
        }
    }
}

/// Why a token is not taken; for the log and for tests, never more than a word to whoever sent it.
pub type Reason = &'static str;

#[derive(Debug, Deserialize)]
struct Head {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    /// Extensions that have to be understood; none is here.
    #[serde(default)]
    crit: Option<Value>,
}

/// A token that was read and not verified.
#[derive(Debug)]
pub struct Unverified<'a> {
    head: Head,
    signed: &'a str,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

fn decode(text: &str) -> Result<Vec<u8>, Reason> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| "a part of it is not base64url")
}

/// Reads a token. Nothing of it counts before it is verified.
///
/// # Errors
/// It is not a token.
pub fn read(text: &str) -> Result<Unverified<'_>, Reason> {
    if text.len() > MAX_TOKEN {
        return Err("it is too long");
    }
    let (signed, signature) = text.rsplit_once('.').ok_or("it does not have three parts")?;
    let (head, payload) = signed.split_once('.').ok_or("it does not have three parts")?;
    if payload.contains('.') {
        return Err("it does not have three parts");
    }
    let head: Head = serde_json::from_slice(&decode(head)?).map_err(|_| "its header is not one")?;
    Ok(Unverified { head, signed, payload: decode(payload)?, signature: decode(signature)? })
}

impl Unverified<'_> {
    /// The name of the key that it says it was signed with.
    pub fn kid(&self) -> Option<&str> {
        self.head.kid.as_deref()
    }

    /// Looks at the header: the algorithm has to be the one that is expected, and nothing may have to be understood that is not.
    ///
    /// # Errors
    /// It is another one.
    pub fn check_head(&self, expected: Algorithm) -> Result<(), Reason> {
        if self.head.alg != expected.as_str() {
            return Err("it has another algorithm");
        }
        if self.head.crit.is_some() {
            return Err("it has critical extensions");
        }
        Ok(())
    }

    /// The claims, if the key signed them with the expected algorithm.
    ///
    /// # Errors
    /// It did not.
    pub fn verify(&self, expected: Algorithm, key: &PublicKey) -> Result<Claims, Reason> {
        self.check_head(expected)?;
        let message = self.signed.as_bytes();
        let good = match (expected, key) {
            (Algorithm::Rs256, PublicKey::Rsa { n, e }) => RsaPublicKeyComponents { n, e }
                .verify(&RSA_PKCS1_2048_8192_SHA256, message, &self.signature)
                .is_ok(),
            (Algorithm::Es256, PublicKey::P256(point)) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
                    .verify(message, &self.signature)
                    .is_ok()
            }
            _ => false,
        };
        if !good {
            return Err("its signature is wrong");
        }
        let claims = serde_json::from_slice(&self.payload).map_err(|_| "its claims are not an object")?;
        Ok(Claims(claims))
    }
}

/// The claims of a verified token.
#[derive(Debug)]
pub struct Claims(Map<String, Value>);

impl Claims {
    /// A claim that is a text.
    pub fn text(&self, name: &str) -> Option<String> {
        self.0.get(name)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
    }

    /// Seconds since 1970; fractions are allowed (RFC 7519, 2) and do not matter here.
    #[expect(clippy::cast_possible_truncation, reason = "the cast saturates")]
    fn time(&self, name: &str) -> Result<Option<i64>, Reason> {
        match self.0.get(name) {
            None => Ok(None),
            Some(value) => value.as_f64().map(|n| Some(n as i64)).ok_or("one of its times is not a number"),
        }
    }

    /// Looks at who issued it, for whom, and from when to when; clocks may differ by `leeway_s`.
    ///
    /// # Errors
    /// One of these is not as it has to be.
    pub fn check(&self, issuer: &str, audience: &str, now: Time, leeway_s: i64) -> Result<(), Reason> {
        if self.0.get("iss").and_then(Value::as_str) != Some(issuer) {
            return Err("another issuer issued it");
        }
        let for_us = match self.0.get("aud") {
            Some(Value::String(one)) => one == audience,
            Some(Value::Array(all)) => all.iter().any(|one| one.as_str() == Some(audience)),
            _ => false,
        };
        if !for_us {
            return Err("it is for another audience");
        }
        let now_s = now.0 / 1_000;
        let expires = self.time("exp")?.ok_or("it does not say when it expires")?;
        if expires.saturating_add(leeway_s) <= now_s {
            return Err("it has expired");
        }
        for name in ["nbf", "iat"] {
            if self.time(name)?.is_some_and(|from| from > now_s.saturating_add(leeway_s)) {
                return Err("it is not valid yet");
            }
        }
        Ok(())
    }
}
