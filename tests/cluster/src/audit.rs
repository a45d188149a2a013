//! The API server's own record of requests: who wrote what.

use serde_json::Value;
use std::fs;
use std::path::Path;

/// What the API server is told to record: one line for each finished request that may write, and for each request of an account
/// in the namespace `watched`, without bodies.
pub(crate) const POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted, Panic]
rules:
- level: Metadata
  verbs: [create, update, patch, delete, deletecollection]
# Reads are many; of those that somebody asks after, only these accounts' are kept.
- level: Metadata
  userGroups: [\"system:serviceaccounts:watched\"]
";

/// A request of an account in the namespace `watched`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Who.
    pub user: String,
    /// `get`, `list`, `create` and so on.
    pub verb: String,
    /// Path and query.
    pub uri: String,
    /// The answer's status.
    pub code: u64,
}

/// A request that may change something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Who.
    pub user: String,
    /// `create`, `update`, `patch`, `delete` or `deletecollection`.
    pub verb: String,
    /// Plural name, with the subresource behind a slash.
    pub resource: String,
    /// Namespace; empty for what has none.
    pub namespace: String,
    /// Name; empty where the server made it.
    pub name: String,
    /// The answer's status.
    pub code: u64,
}

pub(crate) fn read(log: &Path) -> Vec<Write> {
    events(log).iter().filter_map(write).filter(|write| !READS.contains(&&*write.verb)).collect()
}

const READS: [&str; 3] = ["get", "list", "watch"];

pub(crate) fn requests(log: &Path, user: &str) -> Vec<Request> {
    let requests = events(log).into_iter().filter_map(|event| {
        let text = |path: &str| event.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        Some(Request {
            user: text("/user/username"),
            verb: text("/verb"),
            uri: text("/requestURI"),
            code: event.pointer("/responseStatus/code").and_then(Value::as_u64)?,
        })
    });
    requests.filter(|request| request.user == user).collect()
}

fn events(log: &Path) -> Vec<Value> {
    let text = fs::read(log).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn write(event: &Value) -> Option<Write> {
    let text = |path: &str| event.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let subresource = text("/objectRef/subresource");
    let resource = text("/objectRef/resource");
    Some(Write {
        user: text("/user/username"),
        verb: text("/verb"),
        resource: if subresource.is_empty() { resource } else { format!("{resource}/{subresource}") },
        namespace: text("/objectRef/namespace"),
        name: text("/objectRef/name"),
        code: event.pointer("/responseStatus/code").and_then(Value::as_u64)?,
    })
}
