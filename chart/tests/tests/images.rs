//! What lies in the images: what the programs need, and no more.

use mpegflow_chart_tests::chart_folder;
use std::path::PathBuf;
use std::process::Command;

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
