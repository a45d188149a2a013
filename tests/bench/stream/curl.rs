//! The client: curl, the same for both ways. What it does is in a file, which it alone can read; nothing secret is in its arguments.

use super::proxy::Proxy;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// One request.
#[derive(Clone)]
pub(crate) struct Transfer {
    path: String,
    headers: Vec<String>,
    upload: Option<PathBuf>,
    /// Who asks, where it is not the client of all.
    by: Option<Client>,
}

impl Transfer {
    /// `path` with the query, if there is one.
    pub(crate) fn get(path: &str) -> Self {
        Self { path: path.into(), headers: Vec::new(), upload: None, by: None }
    }

    pub(crate) fn put(path: &str, file: &Path) -> Self {
        Self { upload: Some(file.into()), ..Self::get(path) }
    }

    pub(crate) fn header(mut self, line: &str) -> Self {
        self.headers.push(line.into());
        self
    }

    pub(crate) fn by(mut self, client: &Client) -> Self {
        self.by = Some(client.clone());
        self
    }
}

/// Who the client is, and whom it trusts: files in PEM.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) trusted: PathBuf,
}

/// Runs the transfers on so many connections at once, on each its share of them one after the other, and panics unless each of them
/// succeeds.
pub(crate) fn run(proxy: &dyn Proxy, transfers: &[Transfer], client: &Client, at_once: usize) {
    // curl does not say which of several at once comes next: who has more to do than one is a curl of its own.
    let (share, at_once) = match transfers.len() / at_once {
        0 | 1 => (transfers.len(), at_once),
        share => (share, 1),
    };
    let started: Vec<_> = transfers
        .chunks(share)
        .map(|share| {
            let file = config(proxy, share, client, None);
            let mut command = command(file.path(), at_once);
            let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
            (child, file)
        })
        .collect();
    for (child, _file) in started {
        let out = child.wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "curl: {}: {errors}", out.status);
    }
}

/// Runs the transfers one after the other, and returns the seconds that each waited for its first byte, in order.
pub(crate) fn first_bytes(proxy: &dyn Proxy, transfers: &[Transfer], client: &Client) -> Vec<f64> {
    let file = config(proxy, transfers, client, None);
    let out = command(file.path(), 1).output().unwrap();
    assert!(out.status.success(), "curl: {}: {}", out.status, String::from_utf8_lossy(&out.stderr));
    let mut waited: Vec<f64> =
        String::from_utf8(out.stdout).unwrap().lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(waited.len(), transfers.len());
    waited.sort_by(f64::total_cmp);
    waited
}

/// Many clients that read slowly, until it is dropped.
pub(crate) struct Crowd {
    children: Vec<Child>,
    _files: Vec<tempfile::NamedTempFile>,
}

/// curl does not do more than this at once.
const PROCESS: usize = 200;

impl Crowd {
    pub(crate) fn start(
        proxy: &dyn Proxy,
        transfers: &[Transfer],
        client: &Client,
        bytes_a_second: u64,
    ) -> Self {
        let (mut children, mut files) = (Vec::new(), Vec::new());
        for some in transfers.chunks(PROCESS) {
            let file = config(proxy, some, client, Some(bytes_a_second));
            let child = command(file.path(), some.len()).stderr(Stdio::null()).stdout(Stdio::null()).spawn();
            children.push(child.unwrap());
            files.push(file);
        }
        Self { children, _files: files }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn command(config: &Path, at_once: usize) -> Command {
    let mut command = Command::new("curl");
    command.arg("--config").arg(config).stdin(Stdio::null());
    // What is done one after the other goes over one connection.
    if at_once > 1 {
        command.args(["--parallel", "--parallel-immediate", "--parallel-max", &at_once.to_string()]);
    }
    command
}

fn config(
    proxy: &dyn Proxy,
    transfers: &[Transfer],
    client: &Client,
    bytes_a_second: Option<u64>,
) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut text = String::new();
    for (n, transfer) in transfers.iter().enumerate() {
        if n > 0 {
            text.push_str("next\n");
        }
        // curl waits for leave to send a large body unless it is told not to.
        text.push_str(
            "silent\nshow-error\nfail\nhttp1.1\ntlsv1.3\noutput = \"/dev/null\"\nheader = \"Expect:\"\n\
             write-out = \"%{time_starttransfer}\\n\"\n",
        );
        let client = transfer.by.as_ref().unwrap_or(client);
        for (name, file) in [("cert", &client.certificate), ("key", &client.key), ("cacert", &client.trusted)]
        {
            writeln!(text, "{name} = \"{}\"", file.display()).unwrap();
        }
        if let Some(rate) = bytes_a_second {
            writeln!(text, "limit-rate = {rate}").unwrap();
        }
        for header in &transfer.headers {
            writeln!(text, "header = \"{header}\"").unwrap();
        }
        if let Some(upload) = &transfer.upload {
            writeln!(text, "upload-file = \"{}\"", upload.display()).unwrap();
        }
        writeln!(text, "url = \"https://127.0.0.1:{}{}\"", proxy.port(), transfer.path).unwrap();
    }
    std::fs::write(file.path(), text).unwrap();
    file
}
