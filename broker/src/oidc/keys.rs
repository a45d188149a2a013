//! A set of keys (RFC 7517), as far as it holds keys that verify what is expected here.

use super::fetch::IssuerUrl;
use super::token::Algorithm;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

/// Keys of a set that are looked at.
const MAX_KEYS: usize = 64;
/// Bytes of a modulus of 8,192 bits.
const MAX_MODULUS: usize = 1_024;

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublicKey {
    /// RSA: modulus and exponent, big-endian.
    Rsa {
        /// The modulus.
        n: Vec<u8>,
        /// The exponent.
        e: Vec<u8>,
    },
    /// A point on P-256, uncompressed.
    P256(Vec<u8>),
}

impl PublicKey {
    const fn is_for(&self, algorithm: Algorithm) -> bool {
        matches!((self, algorithm), (Self::Rsa { .. }, Algorithm::Rs256) | (Self::P256(_), Algorithm::Es256))
    }
}

/// The keys of an issuer that are of a kind that is known here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeySet(Vec<(Option<String>, PublicKey)>);

#[derive(Deserialize)]
struct Document {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default, rename = "use")]
    usage: Option<String>,
    #[serde(default)]
    alg: Option<String>,
    #[serde(default)]
    crv: Option<String>,
    #[serde(default)]
    n: Option<String>,
    #[serde(default)]
    e: Option<String>,
    #[serde(default)]
    x: Option<String>,
    #[serde(default)]
    y: Option<String>,
}

fn number(text: Option<&String>) -> Option<Vec<u8>> {
    let bytes = URL_SAFE_NO_PAD.decode(text?).ok()?;
    (!bytes.is_empty() && bytes.len() <= MAX_MODULUS).then_some(bytes)
}

/// A coordinate of P-256: 32 bytes.
fn coordinate(text: Option<&String>) -> Option<Vec<u8>> {
    number(text).filter(|bytes| bytes.len() == 32)
}

impl Jwk {
    fn key(&self) -> Option<PublicKey> {
        if self.usage.as_deref().is_some_and(|usage| usage != "sig") {
            return None;
        }
        let of = |algorithm: Algorithm| self.alg.as_deref().is_none_or(|alg| alg == algorithm.as_str());
        match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) if of(Algorithm::Rs256) => {
                let (n, e) = (number(self.n.as_ref())?, number(self.e.as_ref())?);
                Some(PublicKey::Rsa { n, e })
            }
            ("EC", Some("P-256")) if of(Algorithm::Es256) => {
                let (x, y) = (coordinate(self.x.as_ref())?, coordinate(self.y.as_ref())?);
                Some(PublicKey::P256([vec![4], x, y].concat()))
            }
            _ => None,
        }
    }
}

impl KeySet {
    /// Reads a set. Keys of other kinds and for other uses are passed over.
    ///
    /// # Errors
    /// It is not a set of keys.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let document: Document =
            serde_json::from_slice(bytes).map_err(|e| format!("not a set of keys: {e}"))?;
        let keys = document.keys.into_iter().take(MAX_KEYS).filter_map(|value| {
            let jwk: Jwk = serde_json::from_value(value).ok()?;
            let key = jwk.key()?;
            Some((jwk.kid, key))
        });
        Ok(Self(keys.collect()))
    }

    /// The key of that name for the algorithm. A token that names none is verified with the only key there is, and with none where
    /// there are several.
    pub fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<&PublicKey> {
        let mut fits = self
            .0
            .iter()
            .filter(|(name, key)| key.is_for(algorithm) && kid.is_none_or(|kid| name.as_deref() == Some(kid)))
            .map(|(_, key)| key);
        let first = fits.next()?;
        // Two keys of one name: nobody can say which is meant.
        if fits.next().is_some() { None } else { Some(first) }
    }
}

/// Where a discovery document says that its issuer's keys are.
///
/// # Errors
/// It is no such document, or of another issuer.
pub fn jwks_uri(document: &[u8], issuer: &str) -> Result<IssuerUrl, String> {
    #[derive(Deserialize)]
    struct Discovery {
        issuer: String,
        jwks_uri: String,
    }
    let found: Discovery =
        serde_json::from_slice(document).map_err(|e| format!("not a discovery document: {e}"))?;
    if found.issuer != issuer {
        return Err("the discovery document is of another issuer".into());
    }
    found.jwks_uri.parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_other_kinds_and_uses_are_no_keys() {
        let long = URL_SAFE_NO_PAD.encode([1; 256]);
        let point = URL_SAFE_NO_PAD.encode([1; 32]);
        let set = serde_json::json!({"keys": [
            {"kty": "oct", "kid": "hmac", "k": long, "alg": "HS256"},
            {"kty": "RSA", "kid": "enc", "use": "enc", "n": long, "e": "AQAB"},
            {"kty": "RSA", "kid": "ps", "alg": "PS256", "n": long, "e": "AQAB"},
            {"kty": "RSA", "kid": "nothing"},
            {"kty": "RSA", "kid": "huge", "n": URL_SAFE_NO_PAD.encode([1; 2_000]), "e": "AQAB"},
            {"kty": "EC", "kid": "p384", "crv": "P-384", "x": point, "y": point},
            {"kty": "EC", "kid": "short", "crv": "P-256", "x": "AQ", "y": point},
            "not even an object",
            {"kty": "RSA", "kid": "good", "use": "sig", "n": long, "e": "AQAB"},
            {"kty": "EC", "kid": "ec", "crv": "P-256", "x": point, "y": point},
        ]});
        let set = KeySet::parse(set.to_string().as_bytes()).unwrap();
        let names: Vec<_> = set.0.iter().map(|(name, _)| name.as_deref().unwrap()).collect();
        assert_eq!(names, ["good", "ec"]);
        assert!(set.find(Some("good"), Algorithm::Rs256).is_some());
        assert!(set.find(Some("good"), Algorithm::Es256).is_none(), "an RSA key verifies no ECDSA");
        assert!(set.find(None, Algorithm::Rs256).is_some(), "the only one of its kind");
        assert!(KeySet::parse(b"[]").is_err() && KeySet::parse(b"{}").is_err());
    }

    #[test]
    fn of_two_keys_of_one_name_none_is_taken() {
        let key = |n: u8| (Some("a".to_owned()), PublicKey::P256(vec![n; 65]));
        assert_eq!(KeySet(vec![key(1), key(2)]).find(Some("a"), Algorithm::Es256), None);
        assert_eq!(KeySet(vec![key(1), key(2)]).find(None, Algorithm::Es256), None);
    }

    #[test]
    fn a_discovery_document_of_another_issuer_points_nowhere() {
        let document = br#"{"issuer": "https://a.example", "jwks_uri": "https://keys.example/jwks"}"#;
        assert_eq!(jwks_uri(document, "https://a.example").unwrap().as_str(), "https://keys.example/jwks");
        assert!(jwks_uri(document, "https://a.example/").is_err());
        assert!(
            jwks_uri(
                br#"{"issuer": "https://a.example", "jwks_uri": "http://keys.example/"}"#,
                "https://a.example"
            )
            .is_err()
        );
    }
}
