//! Resumable uploads with the clients that people use: tus-js-client, and Uppy in a browser, unchanged, against `mpegflow serve`.

use mpegflow_tests::system::{Serve, files, last_json, run, text};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(180);

struct Bench {
    folder: tempfile::TempDir,
    serve: Serve,
}

fn bench(options: &[&str]) -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let serve = Serve::start(&folder.path().join("data"), 0, options);
    Bench { folder, serve }
}

impl Bench {
    fn node(&self, script: &str, args: &[&str]) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("uploads").join(script);
        let mut command = Command::new("node");
        command.arg(script).arg(&self.serve.client.url).args(args);
        run(command.env("MPEGFLOW_API_KEY", &self.serve.client.key), LIMIT)
    }

    /// The bytes that lie in storage for the upload at this address.
    fn stored(&self, url: &Value) -> Vec<u8> {
        let id = url.as_str().unwrap().rsplit('/').next().unwrap();
        let data = self.folder.path().join("data");
        let found = files(&data).into_iter().find(|file| file.ends_with(&format!("uploads/{id}")));
        std::fs::read(data.join(found.unwrap_or_else(|| panic!("nothing is stored of {id}")))).unwrap()
    }

    fn file(&self, len: usize) -> (PathBuf, Vec<u8>) {
        let bytes: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
        let path = self.folder.path().join("holiday.mov");
        std::fs::write(&path, &bytes).unwrap();
        (path, bytes)
    }
}

/// Where the bytes of each PATCH started that was not refused for that.
fn offsets(asked: &Value) -> Vec<u64> {
    let patches = asked.as_array().unwrap().iter().filter(|a| a["method"] == "PATCH" && a["status"] != 409);
    patches.map(|a| a["offset"].as_u64().unwrap()).collect()
}

#[test]
fn tus_js_client_goes_on_after_a_break_and_after_a_restart() {
    let bench = bench(&[]);
    let (file, bytes) = bench.file(20 << 20);
    let output = bench.node("tus.mjs", &[file.to_str().unwrap(), "cut"]);
    assert!(output.status.success(), "{}", text(&output));
    let said = last_json(&output);
    assert!(bench.stored(&said["broken"]["url"]) == bytes, "other bytes are stored: {said}");
    assert!(bench.stored(&said["resumed"]["url"]) == bytes, "other bytes are stored: {said}");
    // Broken twice, and nothing that had arrived was sent again from the beginning.
    let broken = offsets(&said["broken"]["asked"]);
    assert!(broken.len() >= 4 && broken.iter().filter(|offset| **offset == 0).count() == 1, "{said}");
    let resumed = offsets(&said["resumed"]["asked"]);
    assert!(resumed.first().is_some_and(|offset| *offset >= 10 << 20), "{said}");
    // What it uploaded is an upload like any other.
    let id = said["resumed"]["url"].as_str().unwrap().rsplit('/').next().unwrap();
    let job = bench.serve.client.json(&["jobs", "submit", id]);
    let job = bench.serve.client.ended(job["id"].as_str().unwrap(), LIMIT);
    assert_eq!(job["failure"]["code"], "input_unrecognised", "{job}");
}

#[test]
fn a_connection_that_died_unseen_does_not_keep_tus_js_client_waiting() {
    let bench = bench(&[]);
    let (file, bytes) = bench.file(20 << 20);
    // The broker still waits for the bytes of the dead connections; its patience with them is longer than all retries together.
    let output = bench.node("tus.mjs", &[file.to_str().unwrap(), "stall"]);
    assert!(output.status.success(), "{}", text(&output));
    let said = last_json(&output);
    assert!(bench.stored(&said["broken"]["url"]) == bytes, "other bytes are stored: {said}");
}

#[test]
fn uppy_uploads_from_a_page_that_was_allowed_to_and_from_no_other() {
    let port = mpegflow_test_ports::port();
    let allowed = bench(&["--cors-origin", &format!("http://127.0.0.1:{port}")]);
    let len = 9 << 20;
    let output = allowed.node("uppy.mjs", &[&port.to_string(), &len.to_string()]);
    assert!(output.status.success(), "{}", text(&output));
    let said = last_json(&output);
    assert_eq!(said["urls"].as_array().unwrap().len(), 1, "{said}");
    let (_, bytes) = allowed.file(len);
    assert!(allowed.stored(&said["urls"][0]) == bytes, "other bytes are stored: {said}");
    assert!(offsets(&said["asked"]).len() >= 3, "the line did not break: {said}");

    let other = bench(&["--cors-origin", "http://127.0.0.1:1"]);
    let port = mpegflow_test_ports::port();
    let output = other.node("uppy.mjs", &[&port.to_string(), "1000"]);
    assert!(output.status.success(), "{}", text(&output));
    let said = last_json(&output);
    assert!(
        said["urls"].as_array().unwrap().is_empty() && !said["failed"].as_array().unwrap().is_empty(),
        "{said}"
    );
    assert!(said["asked"].as_array().unwrap().iter().all(|a| a["method"] == "OPTIONS"), "{said}");
}
