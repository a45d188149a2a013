//! A look at a token before the API server is asked: what cannot be right is refused here, with the reason, and costs nobody
//! anything. Nothing is believed: the signature is not looked at, and whatever passes is asked about.

use super::MAX_TOKEN;
use super::review::Refusal;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use std::time::{SystemTime, UNIX_EPOCH};

/// Clocks may differ by this many seconds; the API server's own decides.
const SKEW: u64 = 60;

#[derive(Deserialize)]
struct Claims {
    aud: Audiences,
    exp: Option<u64>,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Option<Kubernetes>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
struct Kubernetes {
    pod: Option<serde::de::IgnoredAny>,
}

/// Whether a token may be one of a pod for this audience.
pub(super) fn plausible(token: &str, audience: &str) -> Result<(), Refusal> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    plausible_at(token, audience, now)
}

fn plausible_at(token: &str, audience: &str, now: u64) -> Result<(), Refusal> {
    let mut parts = token.split('.');
    let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Refusal::NoToken);
    };
    if token.len() > MAX_TOKEN {
        return Err(Refusal::NoToken);
    }
    let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| Refusal::NoToken)?;
    let claims: Claims = serde_json::from_slice(&payload).map_err(|_| Refusal::NoToken)?;
    let is_ours = match &claims.aud {
        Audiences::One(one) => one == audience,
        Audiences::Many(many) => many.iter().any(|one| one == audience),
    };
    if !is_ours {
        return Err(Refusal::Audience(audience.to_owned()));
    }
    // One that never expires is not of a pod.
    if claims.exp.is_none_or(|exp| exp.saturating_add(SKEW) < now) {
        return Err(Refusal::Expired);
    }
    if claims.kubernetes.and_then(|k| k.pod).is_none() {
        return Err(Refusal::NotBound);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn token(payload: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload))
    }

    #[test]
    fn what_cannot_be_right_is_refused_by_its_reason() {
        let ours = || Refusal::Audience("a".into());
        for (payload, expected) in [
            (r#"{"aud":["a"],"exp":100,"kubernetes.io":{"pod":{"name":"p"}}}"#, Ok(())),
            (r#"{"aud":"a","exp":100,"kubernetes.io":{"pod":{}}}"#, Ok(())),
            (r#"{"aud":["b"],"exp":100,"kubernetes.io":{"pod":{}}}"#, Err(ours())),
            (r#"{"aud":[],"exp":100,"kubernetes.io":{"pod":{}}}"#, Err(ours())),
            (r#"{"aud":["a"],"exp":39,"kubernetes.io":{"pod":{}}}"#, Err(Refusal::Expired)),
            (r#"{"aud":["a"],"kubernetes.io":{"pod":{}}}"#, Err(Refusal::Expired)),
            (r#"{"aud":["a"],"exp":100,"kubernetes.io":{}}"#, Err(Refusal::NotBound)),
            (r#"{"aud":["a"],"exp":100}"#, Err(Refusal::NotBound)),
            (r#"{"exp":100}"#, Err(Refusal::NoToken)),
            ("[]", Err(Refusal::NoToken)),
        ] {
            assert_eq!(plausible_at(&token(payload), "a", 100), expected, "{payload}");
        }
        for bad in ["", ".", "a.b", "a.b.c.d", "a.!.c", &"x".repeat(MAX_TOKEN + 1)] {
            assert_eq!(plausible_at(bad, "a", 0), Err(Refusal::NoToken));
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,200}", payload in ".{0,200}") {
            let _ = plausible_at(&text, "a", 0);
            let _ = plausible_at(&token(&payload), "a", 0);
        }
    }
}
