//! What lies in the images: what the programs need, and no more.

use mpegflow_chart_tests::chart_folder;
use serde_json::Value;
use std::io::Write as _;
use std::path::{Path, PathBuf};
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

/// Each image and its programs; it starts with the first.
const IMAGES: [(&str, &[&str]); 4] = [
    ("worker", &["mpegflow-worker", "mpegflow-codec"]),
    ("broker", &["mpegflow-broker"]),
    ("cli", &["mpegflow"]),
    ("operator", &["mpegflow-operator"]),
];

#[test]
fn the_list_of_each_images_files_is_exactly_what_its_programs_need() {
    for (image, programs) in IMAGES {
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

#[test]
fn images_are_built_without_a_registry_and_their_programs_start_in_them_as_nobody() {
    let out = tempfile::tempdir().unwrap();
    let output = Command::new(chart_folder().parent().unwrap().join("tools/images"))
        .arg(out.path())
        .env("PROGRAMS", program("mpegflow").parent().unwrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for (image, programs) in IMAGES {
        let (root, config) = unpacked(&out.path().join(format!("{image}.tar")));
        assert_eq!(config["config"]["User"], "65532:65532", "{image}");
        let first = format!("/usr/bin/{}", programs[0]);
        assert_eq!(config["config"]["Entrypoint"], serde_json::json!([first]), "{image}");
        let mut found: Vec<String> = std::fs::read_dir(root.path().join("usr/bin"))
            .unwrap()
            .map(|file| name(&file.unwrap()))
            .collect();
        found.sort();
        let mut wanted = programs.to_vec();
        wanted.sort_unstable();
        assert_eq!(found, wanted, "{image}");
        let output = Command::new("chroot")
            .args(["--userspec=65532:65532", root.path().to_str().unwrap(), &first, "--version"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{image}: {}", String::from_utf8_lossy(&output.stderr));
        let version = format!("{} {}\n", programs[0], env!("CARGO_PKG_VERSION"));
        assert_eq!(String::from_utf8(output.stdout).unwrap(), version, "{image}");
        // Nothing in it belongs to who runs there, or may be written by all.
        let output = Command::new("find")
            .arg(root.path())
            .args(["-mindepth", "1", "!", "-type", "l"])
            .args(["(", "-uid", "65532", "-o", "(", "-perm", "-o+w", "!", "-perm", "-1000", ")", ")"])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "", "{image}");
    }
}

fn name(file: &std::fs::DirEntry) -> String {
    file.file_name().into_string().unwrap()
}

/// The files of an image in an OCI archive, and its configuration.
fn unpacked(archive: &Path) -> (tempfile::TempDir, Value) {
    let [layout, root] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let unpack = |from: &Path, to: &Path| {
        let status = Command::new("tar").arg("-xf").arg(from).arg("-C").arg(to).status().unwrap();
        assert!(status.success(), "{}", from.display());
    };
    unpack(archive, layout.path());
    let blob = |of: &Value| {
        let digest = of["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        layout.path().join("blobs/sha256").join(digest)
    };
    let json = |path: &Path| serde_json::from_slice::<Value>(&std::fs::read(path).unwrap()).unwrap();
    let manifest = json(&blob(&json(&layout.path().join("index.json"))["manifests"][0]));
    let layers = manifest["layers"].as_array().unwrap();
    layers.iter().for_each(|layer| unpack(&blob(layer), root.path()));
    let config = json(&blob(&manifest["config"]));
    (root, config)
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
