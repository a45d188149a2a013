//! What lies in the images: what the programs need, and no more.

use mpegflow_chart_tests::chart_folder;
use serde_json::Value;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

fn images() -> PathBuf {
    chart_folder().parent().unwrap().join("images")
}

fn program(name: &str) -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    let program = exe.parent().unwrap().parent().unwrap().join(name);
    assert!(program.exists(), "{} is missing: run `cargo build --workspace --bins` first", program.display());
    program
}

#[test]
fn the_list_of_each_images_files_is_exactly_what_its_programs_need() {
    for (image, programs) in [
        ("worker", &["mpegflow-worker", "mpegflow-codec"][..]),
        ("broker", &["mpegflow-broker"]),
        ("cli", &["mpegflow"]),
        ("operator", &["mpegflow-operator"]),
    ] {
        let output = Command::new(images().join("closure"))
            .args(programs.iter().map(|name| program(name)))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let list = images().join(format!("{image}.files"));
        let listed = std::fs::read_to_string(&list).unwrap();
        let needed = String::from_utf8(output.stdout).unwrap();
        assert!(listed == needed, "{} is not up to date: run images/closure on {programs:?}", list.display());
    }
}

#[test]
fn no_program_but_the_codec_has_ffmpeg_in_its_image() {
    for image in ["broker", "cli", "operator"] {
        let listed = std::fs::read_to_string(images().join(format!("{image}.files"))).unwrap();
        assert!(!listed.contains("libav") && listed.lines().count() <= 6, "{image}: {listed}");
    }
}

#[test]
fn the_final_images_start_from_nothing_and_run_as_nobody() {
    let text = std::fs::read_to_string(images().join("Dockerfile")).unwrap();
    let stages: Vec<&str> = text.split("\nFROM ").skip(1).collect();
    assert!(stages.len() == 5 && stages[0].starts_with("${BASE} AS libraries"), "{text}");
    for (stage, image) in stages[1..].iter().zip(["worker", "broker", "cli", "operator"]) {
        assert!(stage.starts_with(&format!("scratch AS {image}\n")), "{stage}");
        assert!(stage.contains("\nUSER 65532:65532\n") && !stage.contains("RUN"), "{stage}");
    }
    assert!(text.contains("\nARG BASE\n"), "the base is whoever builds' to pin");
}

/// What `tools/bill-check` says of a bill: nothing, if it is one.
fn checked(bill: &[u8]) -> String {
    let script = chart_folder().parent().unwrap().join("tools/bill-check");
    let mut child = Command::new(script)
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(bill).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.success(), said.is_empty(), "{said}");
    said
}

#[test]
fn the_bill_of_each_image_is_cyclonedx_and_names_what_is_in_it() {
    for (image, part) in [
        ("worker", "pkg:deb/debian/libavcodec59@"),
        ("broker", "pkg:cargo/sqlx@"),
        ("cli", "pkg:cargo/clap@"),
        ("operator", "pkg:cargo/kube@"),
    ] {
        let output = Command::new(images().join("bill")).args([image, "0.1.0"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(checked(&output.stdout), "", "{image}");
        let bill: Value = serde_json::from_slice(&output.stdout).unwrap();
        let parts = bill["components"].as_array().unwrap();
        assert!(parts.iter().any(|c| c["purl"].as_str().unwrap().starts_with(part)), "{image} has no {part}");

        if image != "operator" {
            continue;
        }
        // And what is none is refused, by its place.
        let broken = |pointer: &str, value: Value, says: &str| {
            let mut bill = bill.clone();
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            bill.pointer_mut(parent).unwrap()[key] = value;
            let said = checked(&serde_json::to_vec(&bill).unwrap());
            assert!(said.contains(says), "{pointer}: {said}");
        };
        broken("/components/0/type", Value::from("crate"), "$.components[0].type");
        broken("/components/0/name", Value::Null, "$.components[0].name");
        broken("/components/0/bom-ref", parts[1]["bom-ref"].clone(), "stands there twice");
        broken("/specVersion", Value::from("1.9"), "$.specVersion");
        broken("/colour", Value::from("blue"), "colour");
    }
}
