//! Who calls, and whether it may do that.

use super::problem::{Kind, Problem};
use crate::engine::{CallerError, Engine};
use crate::scopes::{Scope, Scopes};
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

/// The tenant that calls, if its key or token may do what the scope names.
///
/// # Errors
/// No valid key, or one without the scope; too many requests; or the store failed.
pub async fn may(engine: &Engine, headers: &HeaderMap, scope: Scope) -> Result<TenantId, Problem> {
    check(engine, headers, |scopes| scopes.has(scope), scope.as_str()).await
}

/// The tenant that calls, if its key or token may do what one of two scopes names.
///
/// # Errors
/// As of [`may`].
pub async fn may_one(engine: &Engine, headers: &HeaderMap, scopes: [Scope; 2]) -> Result<TenantId, Problem> {
    let [one, other] = scopes;
    check(engine, headers, |found| found.has(one) || found.has(other), one.as_str()).await
}

async fn check(
    engine: &Engine,
    headers: &HeaderMap,
    allowed: impl FnOnce(Scopes) -> bool,
    needed: &str,
) -> Result<TenantId, Problem> {
    let refused = || Problem::new(Kind::Unauthorized).detail("Send an API key: Authorization: Bearer mf_…");
    let key = bearer(headers).ok_or_else(refused)?;
    let caller = engine.caller(key).await.map_err(|e| match e {
        CallerError::NoKeys => Problem::new(Kind::NotReady)
            .detail("The issuer of tokens does not answer, so that none can be verified. Try again.")
            .header(header::RETRY_AFTER, "10"),
        CallerError::Store(e) => e.into(),
    })?;
    let caller = caller.ok_or_else(refused)?;
    let tenant = caller.tenant;
    match engine.admit(tenant).await? {
        Ok(()) if allowed(caller.scopes) => Ok(tenant),
        Ok(()) => Err(Problem::new(Kind::Forbidden)
            .detail(format!("This key may not do that: it lacks the scope `{needed}`."))),
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
