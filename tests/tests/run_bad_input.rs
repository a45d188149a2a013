//! Bad input gets its documented code, a message, an exit code other than 0, and leaves nothing behind.

use mpegflow_tests::media;
use mpegflow_tests::system::{files, mpegflow, run, text};
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn each_bad_input_gets_its_code_and_leaves_nothing_behind() {
    for bad in media::bad_inputs() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let output = run(
            mpegflow().args(["transcode", bad.path.to_str().unwrap(), "--out", out.to_str().unwrap()]),
            LIMIT,
        );
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{}: {}", bad.what, text(&output));
        assert!(said.contains(bad.code), "{}: no {} in: {said}", bad.what, bad.code);
        // Nothing half-written, and nothing of this machine in the message.
        assert_eq!(files(folder.path()), [""; 0], "{}", bad.what);
        assert!(!out.exists(), "{}", bad.what);
        assert!(!said.contains("upl_") && !said.contains("/proc/"), "{}: {said}", bad.what);
    }
}

#[test]
fn wrong_job_fields_are_named() {
    let clip = media::clip(2, 320, 240);
    let folder = tempfile::tempdir().unwrap();
    for (spec, named) in [
        (r#"{"version": 1, "preset": "web", "vidio": {}}"#, "vidio"),
        (r#"{"version": 7, "preset": "web"}"#, "version"),
        (r#"{"version": 1, "preset": "web", "video": {"max_height": 721}}"#, "max_height"),
        (r#"{"version": 1, "preset": "web", "video": {"segment_seconds": 600}}"#, "segment_seconds"),
        (r#"{"version": 1, "preset": "cinema"}"#, "cinema"),
        ("{", "line 1"),
    ] {
        let file = folder.path().join("job.json");
        std::fs::write(&file, spec).unwrap();
        let out = folder.path().join("out");
        let output = run(
            mpegflow()
                .args(["transcode", clip.to_str().unwrap(), "--out", out.to_str().unwrap()])
                .args(["--spec", file.to_str().unwrap()]),
            LIMIT,
        );
        assert!(!output.status.success(), "{spec}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(named), "{spec}: {}", text(&output));
        assert!(!out.exists());
    }
    let out = folder.path().join("out");
    let output = run(
        mpegflow().args([
            "transcode",
            clip.to_str().unwrap(),
            "--out",
            out.to_str().unwrap(),
            "--preset",
            "cinema",
        ]),
        LIMIT,
    );
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("cinema") && !output.status.success(),
        "{}",
        text(&output)
    );
}

#[test]
fn a_full_disk_is_said_and_leaves_nothing_behind() {
    // A file system of 6 MiB in a mount namespace of its own; the clip alone is larger.
    let clip = media::ffmpeg(
        "large.mp4",
        "-f lavfi -i testsrc2=size=1280x720:rate=30:duration=6,noise=alls=40:allf=t -c:v libx264 -preset ultrafast -crf 10 -pix_fmt yuv420p",
    );
    assert!(std::fs::metadata(&clip).unwrap().len() > 8 << 20);
    let folder = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=6m none \"$0\" && \"$@\"; code=$?; ls -A \"$0\" >&2; exit $code";
    let program = mpegflow_tests::program("mpegflow");
    let output = run(
        Command::new("unshare")
            .args(["--mount", "sh", "-c", script])
            .arg(folder.path())
            .arg(program)
            .args(["transcode", clip.to_str().unwrap(), "--out"])
            .arg(folder.path().join("out")),
        LIMIT,
    );
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && output.status.code() != Some(101), "{}", text(&output));
    assert!(said.contains("Storage is full") && said.contains("Free space"), "{said}");
    assert!(!said.lines().any(|l| l.trim() == "out"), "{said}");
}
