//! The API server's own record of requests: who wrote what.

use serde_json::Value;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};

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

const READS: [&str; 3] = ["get", "list", "watch"];

/// The file that the API server appends to, read on from where the last look ended: tests ask often, and it grows long.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// Up to where the file was read: the end of a line.
    end: u64,
    writes: Vec<Write>,
    requests: Vec<Request>,
}

impl Log {
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path, seen: Mutex::default() }
    }

    /// How many writes there were.
    pub(crate) fn count(&self) -> usize {
        self.seen().writes.len()
    }

    /// The writes but for the first so many.
    pub(crate) fn writes_after(&self, count: usize) -> Vec<Write> {
        self.seen().writes.iter().skip(count).cloned().collect()
    }

    pub(crate) fn requests(&self, user: &str) -> Vec<Request> {
        self.seen().requests.iter().filter(|request| request.user == user).cloned().collect()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        let mut seen = self.seen.lock().expect("no panic");
        let mut more = Vec::new();
        if let Ok(mut file) = File::open(&self.path) {
            file.seek(SeekFrom::Start(seen.end)).expect("a place in the log");
            file.read_to_end(&mut more).expect("the log");
        }
        let whole = more.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        for line in more[..whole].split(|&byte| byte == b'\n') {
            let Ok(event) = serde_json::from_slice::<Value>(line) else { continue };
            let Some(code) = event.pointer("/responseStatus/code").and_then(Value::as_u64) else { continue };
            let write = write(&event, code);
            if write.user.starts_with("system:serviceaccount:watched:") {
                let uri = event.pointer("/requestURI").and_then(Value::as_str).unwrap_or_default();
                let (user, verb) = (write.user.clone(), write.verb.clone());
                seen.requests.push(Request { user, verb, uri: uri.to_owned(), code });
            }
            if !READS.contains(&&*write.verb) {
                seen.writes.push(write);
            }
        }
        seen.end += whole as u64;
        seen
    }
}

fn write(event: &Value, code: u64) -> Write {
    let text = |path: &str| event.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let subresource = text("/objectRef/subresource");
    let resource = text("/objectRef/resource");
    Write {
        user: text("/user/username"),
        verb: text("/verb"),
        resource: if subresource.is_empty() { resource } else { format!("{resource}/{subresource}") },
        namespace: text("/objectRef/namespace"),
        name: text("/objectRef/name"),
        code,
    }
}
