//! Who calls.

use super::problem::{Kind, Problem};
use crate::engine::Engine;
use axum::http::{HeaderMap, header};
use mpegflow_protocol::ids::TenantId;

/// The bearer token of a request.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    // Two Authorization headers could be read differently by a proxy in front.
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let (one, None) = (all.next()?, all.next()) else { return None };
    let (scheme, token) = one.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The tenant that calls.
///
/// # Errors
/// No valid key; too many requests; or the store failed.
pub async fn tenant(engine: &Engine, headers: &HeaderMap) -> Result<TenantId, Problem> {
    let refused = || Problem::new(Kind::Unauthorized).detail("Send an API key: Authorization: Bearer mf_…");
    let key = bearer(headers).ok_or_else(refused)?;
    let tenant = engine.tenant_of_key(key).await?.ok_or_else(refused)?;
    match engine.admit(tenant).await? {
        Ok(()) => Ok(tenant),
        Err(wait) => {
            let seconds = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0));
            Err(Problem::new(Kind::RateLimited)
                .detail(format!(
                    "There were more requests than this tenant may make. Try again in {seconds} s."
                ))
                .header(header::RETRY_AFTER, seconds.to_string()))
        }
    }
}
