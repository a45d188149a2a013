//! What the API server's answer has to hold for a token to count. Pure.

use super::Account;
use std::collections::BTreeMap;
use uuid::Uuid;

/// The API server's answer about a token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Whether the token is good at all.
    pub authenticated: bool,
    /// Those of the audiences that were asked for that it is for. Nothing from a server that does not know audiences.
    pub audiences: Vec<String>,
    /// Who it is.
    pub username: String,
    /// What else is known.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// A pod, in the API server's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its service account; the namespace is the pod's, too.
    pub account: Account,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: Uuid,
    /// The node that it is on, where the API server says so (Kubernetes 1.32 and later).
    pub node: Option<String>,
}

/// Why a token does not count. Told to who shows it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is no token of a service account.
    #[error("this is no token of a pod's service account")]
    NoToken,
    /// It is for somebody else.
    #[error("the token is not for the audience `{0}`")]
    Audience(String),
    /// It has expired.
    #[error("the token has expired")]
    Expired,
    /// It is bound to no pod.
    #[error("the token is not bound to a pod; mount a projected token of the pod's own")]
    NotBound,
    /// The API server does not take it.
    #[error("the API server does not take the token: it is not its own, has expired, or its pod is gone")]
    NotAuthenticated,
}

const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

/// The pod of an answer.
///
/// # Errors
/// What is missing.
pub fn admit(answer: &Answer, audience: &str) -> Result<Pod, Refusal> {
    if !answer.authenticated {
        return Err(Refusal::NotAuthenticated);
    }
    // A server that does not know audiences says nothing here, and its yes is for the API server itself.
    if !answer.audiences.iter().any(|a| a == audience) {
        return Err(Refusal::Audience(audience.to_owned()));
    }
    let account =
        answer.username.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    let (namespace, name) = account.ok_or(Refusal::NoToken)?;
    // Exactly one: of two, somebody else could read the other.
    let one = |key: &str| match answer.extra.get(key).map(Vec::as_slice) {
        Some([value]) if !value.is_empty() => Some(value.clone()),
        _ => None,
    };
    let uid = one(POD_UID).and_then(|uid| Uuid::try_parse(&uid).ok());
    let (Some(pod), Some(uid)) = (one(POD_NAME), uid.filter(|uid| !uid.is_nil())) else {
        return Err(Refusal::NotBound);
    };
    let account = Account { namespace: namespace.to_owned(), name: name.to_owned() };
    Ok(Pod { account, name: pod, uid, node: one(NODE_NAME) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> Answer {
        let extra = [
            (POD_NAME, "cpu-worker-1"),
            (POD_UID, "0d3f6d7e-5b5e-4a52-9a6c-1f0a9b7c1d11"),
            (NODE_NAME, "node-1"),
        ];
        Answer {
            authenticated: true,
            audiences: vec!["mpegflow-broker".into()],
            username: "system:serviceaccount:media:cpu-worker".into(),
            extra: extra.into_iter().map(|(k, v)| (k.to_owned(), vec![v.to_owned()])).collect(),
        }
    }

    #[test]
    fn a_pod_is_whatever_the_api_server_says_and_all_of_it_has_to_be_said() {
        let pod = admit(&answer(), "mpegflow-broker").unwrap();
        assert_eq!(
            (pod.account.to_string().as_str(), pod.name.as_str()),
            ("media/cpu-worker", "cpu-worker-1")
        );
        assert_eq!(pod.node.as_deref(), Some("node-1"));
        type Spoil = fn(&mut Answer);
        let audience = Refusal::Audience("mpegflow-broker".into());
        let cases: [(Spoil, Refusal); 9] = [
            (|a| a.authenticated = false, Refusal::NotAuthenticated),
            (|a| a.audiences.clear(), audience.clone()),
            (|a| a.audiences = vec!["https://kubernetes.default.svc".into()], audience),
            (|a| a.username = "system:node:node-1".into(), Refusal::NoToken),
            (|a| a.username = "admin".into(), Refusal::NoToken),
            (|a| drop(a.extra.remove(POD_UID)), Refusal::NotBound),
            (|a| drop(a.extra.remove(POD_NAME)), Refusal::NotBound),
            (|a| a.extra.get_mut(POD_UID).unwrap().push("another".into()), Refusal::NotBound),
            (|a| a.extra.get_mut(POD_UID).unwrap()[0] = uuid::Uuid::nil().to_string(), Refusal::NotBound),
        ];
        for (spoil, refusal) in cases {
            let mut answer = answer();
            spoil(&mut answer);
            assert_eq!(admit(&answer, "mpegflow-broker"), Err(refusal));
        }
        let mut older = answer();
        older.extra.remove(NODE_NAME);
        assert_eq!(admit(&older, "mpegflow-broker").unwrap().node, None);
    }
}
