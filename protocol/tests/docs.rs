//! docs/errors.md is made from the failure codes; this test keeps the committed page the same.
//! `UPDATE_DOCS=1 cargo test -p mpegflow-protocol --test docs` writes it anew.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use mpegflow_protocol::failure::{FailureClass, FailureCode};
use std::fmt::Write;
use std::path::Path;

fn page() -> String {
    let mut page = String::from(
        "# Why a job fails\n\n\
         A failed job carries a code, a message about this input, and a class that says what was done about it. Made from\n\
         `protocol/src/failure.rs`; a test keeps both the same.\n",
    );
    for (class, title, what) in [
        (
            FailureClass::Media,
            "media",
            "The input is at fault. The job fails at once; trying again gives the same.",
        ),
        (
            FailureClass::Worker,
            "worker",
            "The worker is at fault. The task is tried again elsewhere, three times in all.",
        ),
        (
            FailureClass::Storage,
            "storage",
            "Storage is at fault. The task is tried again with growing pauses.",
        ),
        (
            FailureClass::Broker,
            "broker",
            "The broker is at fault. The task is tried again with growing pauses.",
        ),
        (
            FailureClass::Policy,
            "policy",
            "A lock was refused or violated, or an output was not what it claimed to be. The job fails at once.",
        ),
    ] {
        writeln!(page, "\n## {title}\n\n{what}\n\n| code | what happened, and what to do |\n|---|---|")
            .unwrap();
        for code in FailureCode::ALL.iter().filter(|c| c.class() == class) {
            writeln!(page, "| `{code}` | {} |", code.help()).unwrap();
        }
    }
    page.push_str(
        "\n## An input that was cut off\n\
         \n\
         `input_truncated` rests on what a file says of itself: how long it is in bytes, samples or time, or that its last box, packet, page,\n\
         frame or tag is whole. A transport stream, a program stream, an Ogg file, raw AAC or an FLV that does not state its size that was cut\n\
         exactly between two of those (of a transport stream: after a multiple of 188 bytes) cannot be told from a whole one and passes, and\n\
         so does an MP3 without the header that encoders write first, wherever it was cut. Of AVI, WAV, WMV, MP3 and FLV a hundredth may be missing\n\
         of the size that they state, since what a recorder writes last is often an index.\n\
         \n\
         ## What `allow_partial` takes\n\
         \n\
         What there is of an input that is cut off, or of which too much cannot be decoded (`input_truncated` and `input_corrupt`), as long as\n\
         each stream that is needed has something. The job succeeds, and its `damage` says so: `partial`, how far the output goes, and how many packets and\n\
         frames were skipped. Nothing is made up: a picture that is missing is one frame less, and the one before is\n\
         shown for longer; where sound is missing there is silence.\n",
    );
    page
}

#[test]
fn the_page_of_errors_lists_every_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/errors.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, page()).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), page(), "run with UPDATE_DOCS=1");
}
