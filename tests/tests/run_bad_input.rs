//! Bad input gets its documented code, a message, an exit code other than 0, and leaves nothing behind.

use mpegflow_broker::plan::presets::PresetName;
use mpegflow_tests::media;
use mpegflow_tests::system::{files, mpegflow, run, text};
use serde_json::{Value, json};
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
fn every_preset_refuses_every_bad_input_with_its_code() {
    for preset in PresetName::ALL {
        for bad in media::bad_inputs() {
            let folder = tempfile::tempdir().unwrap();
            let out = folder.path().join("out");
            let output = run(
                mpegflow()
                    .args(["transcode", bad.path.to_str().unwrap(), "--out", out.to_str().unwrap()])
                    .args(["--preset", preset.as_str()]),
                LIMIT,
            );
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let what = format!("{} as {}", bad.what, preset.as_str());
            // Pictures that nobody decodes cannot be found too large, or of a codec that is not allowed: there is just no sound.
            let in_pictures =
                ["grow", "a decoder outside the list"].iter().any(|what| bad.what.contains(what));
            let no_sound = *preset == PresetName::Audio && in_pictures;
            let code = if no_sound { "no_streams" } else { bad.code };
            assert_eq!(output.status.code(), Some(3), "{what}: {}", text(&output));
            assert!(said.contains(code), "{what}: no {code} in: {said}");
            assert_eq!(files(folder.path()), [""; 0], "{what}");
        }
    }
}

#[test]
fn every_field_out_of_its_range_or_against_another_is_refused_by_name_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("film.mp4");
    std::fs::copy(media::clip(2, 320, 240), &input).unwrap();
    for (preset, rest, field) in [
        ("web", "video: {max_height: 142}", "video.max_height"),
        ("web", "video: {max_height: 2162}", "video.max_height"),
        ("web", "video: {max_height: 361}", "video.max_height"),
        ("web", "video: {max_height: -720}", "video.max_height"),
        ("web", "video: {max_height: 1e9}", "video.max_height"),
        ("web", "video: {segment_seconds: 1}", "video.segment_seconds"),
        ("web", "video: {segment_seconds: 11}", "video.segment_seconds"),
        ("web", "video: {max_frame_rate: 0}", "video.max_frame_rate"),
        ("web", "video: {max_frame_rate: 61}", "video.max_frame_rate"),
        ("web", "video: {deinterlace: maybe}", "video.deinterlace"),
        ("web", "video: {encoder: 'crf=99'}", "video.encoder"),
        ("av1", "video: {encoder: 'crf=64'}", "video.encoder"),
        ("av1", "video: {encoder: 'tune=film'}", "video.encoder"),
        ("av1", "video: {encoder: 'keyint=9999'}", "video.encoder"),
        ("av1", "video: {max_height: 2160, encoder: 'preset=slow'}", "video.encoder"),
        ("vp9", "video: {encoder: 'lag-in-frames=26'}", "video.encoder"),
        ("hevc", "video: {encoder: 'bframes=9'}", "video.encoder"),
        ("web", "audio: {bit_rate_kbps: 31}", "audio.bit_rate_kbps"),
        ("web", "audio: {bit_rate_kbps: 321}", "audio.bit_rate_kbps"),
        ("web", "audio: {max_channels: 0}", "audio.max_channels"),
        ("web", "audio: {max_channels: 3}", "audio.max_channels"),
        ("web", "audio: {tracks: some}", "audio.tracks"),
        ("web", "audio: {tracks: none, max_channels: 1}", "audio.tracks"),
        ("audio", "audio: {tracks: none}", "audio.tracks"),
        ("audio", "video: {max_height: 720}", "video.max_height"),
        ("audio", "thumbnails: {enabled: true}", "thumbnails"),
        ("thumbnail", "audio: {bit_rate_kbps: 64}", "audio"),
        ("thumbnail", "video: {segment_seconds: 4}", "video.segment_seconds"),
        ("mp4", "video: {segment_seconds: 4}", "video.segment_seconds"),
        ("web", "thumbnails: {poster_seconds: 86401}", "thumbnails.poster_seconds"),
        ("web", "thumbnails: {interval_seconds: 0}", "thumbnails.interval_seconds"),
        ("web", "thumbnails: {tile_size: 63}", "thumbnails.tile_size"),
        ("web", "thumbnails: {tile_size: 322}", "thumbnails.tile_size"),
        ("web", "thumbnails: {enabled: false, tile_size: 160}", "thumbnails.enabled"),
        ("web", "metadata: {keep: [title]}", "metadata.keep"),
        ("mp4", "metadata: {keep: [title, title]}", "metadata.keep"),
        ("mp4", "metadata: {keep: [serial]}", "metadata.keep"),
        ("web", "decoders: everything", "decoders"),
        ("web", "priority: 10", "priority"),
        ("web", "allow_partial: 7", "allow_partial"),
        ("web", "labels: {a: ''}", "labels"),
    ] {
        let file = folder.path().join("job.yaml");
        std::fs::write(&file, format!("version: 1\npreset: {preset}\n{rest}\n")).unwrap();
        let out = folder.path().join("out");
        let mut command = mpegflow();
        command.args(["transcode", input.to_str().unwrap(), "--out", out.to_str().unwrap()]);
        let output = run(command.args(["--spec", file.to_str().unwrap()]), LIMIT);
        let said = text(&output);
        assert!(!output.status.success(), "{preset}: {rest}");
        assert!(said.contains(field), "{preset}: {rest}: no {field} in {said}");
        assert!(!said.contains("probe") && !out.exists(), "{preset}: {rest}: something ran: {said}");
    }
}

/// Each field of a job spec that the schema describes, by its path, and what is said of its values.
fn fields(schema: &Value, of: &Value, path: &str, found: &mut Vec<(String, Value)>) {
    let mut of = of;
    // A reference, or one that may be left out.
    loop {
        of = match (of["$ref"].as_str(), of["anyOf"].as_array()) {
            (Some(name), _) => &schema["$defs"][name.rsplit('/').next().unwrap()],
            (_, Some(any)) => any.iter().find(|one| one["type"] != "null").unwrap(),
            _ => break,
        };
    }
    match of["properties"].as_object() {
        Some(properties) => {
            assert_eq!(of["additionalProperties"], false, "{path}: unknown fields are to be refused");
            found.push((format!("{path}nonsense"), Value::Null));
            for (name, of) in properties.iter().filter(|(name, _)| *name != "input") {
                fields(schema, of, &format!("{path}{name}."), found);
            }
        }
        None => found.push((path.trim_end_matches('.').to_owned(), of.clone())),
    }
}

/// Values that a field may not have.
fn outside(of: &Value) -> Vec<Value> {
    let says = |kind: &str| {
        of["type"] == kind || of["type"].as_array().is_some_and(|kinds| kinds.contains(&kind.into()))
    };
    let mut values = vec![json!({ "a": [1] })];
    if says("integer") || says("number") {
        let (least, most) = (of["minimum"].as_f64().unwrap(), of["maximum"].as_f64().unwrap());
        values.extend([json!(least - 1.0), json!(most + 1.0), json!("many"), json!(1e300)]);
    }
    if says("integer") {
        let (least, most) = (of["minimum"].as_i64().unwrap(), of["maximum"].as_i64().unwrap());
        values.extend([json!(least - 1), json!(most + 1), json!(i64::MIN), json!(u64::MAX)]);
        values.extend(of["multipleOf"].as_i64().map(|_| json!(least + 1)));
    }
    if says("boolean") {
        values.extend([json!("perhaps"), json!(2)]);
    }
    if says("string") {
        values.push(json!(7));
        values.extend(of["maxLength"].as_u64().map(|most| json!("x".repeat(most as usize + 1))));
        values.extend(of["minLength"].as_u64().map(|_| json!("")));
        values.extend(of["enum"].as_array().map(|_| json!("everything")));
        values.extend(of["pattern"].as_str().map(|_| json!("A b")));
    }
    values
}

#[test]
fn every_field_of_the_schema_is_refused_by_name_where_it_is_outside_what_the_schema_says() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("film.mp4");
    std::fs::copy(media::clip(2, 320, 240), &input).unwrap();
    let schema = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/job-v1.schema.json");
    let schema: Value = serde_json::from_slice(&std::fs::read(schema).unwrap()).unwrap();
    let mut all = Vec::new();
    fields(&schema, &schema, "", &mut all);
    assert!(all.len() > 30, "{all:?}");
    for (path, of) in &all {
        for value in outside(of) {
            let names: Vec<&str> = path.split('.').collect();
            let nested = names.iter().rev().fold(value, |inner, name| json!({ *name: inner }));
            let preset = if path == "metadata.keep" { "mp4" } else { "web" };
            let mut spec = json!({ "version": 1, "preset": preset });
            spec.as_object_mut().unwrap().extend(nested.as_object().unwrap().clone());
            let file = folder.path().join("job.json");
            std::fs::write(&file, spec.to_string()).unwrap();
            let out = folder.path().join("out");
            let mut command = mpegflow();
            command.args(["transcode", input.to_str().unwrap(), "--out", out.to_str().unwrap()]);
            let output = run(command.args(["--spec", file.to_str().unwrap()]), LIMIT);
            let said = text(&output);
            assert!(!output.status.success() && output.status.code() != Some(101), "{spec}: {said}");
            assert!(said.contains(path.as_str()), "{spec}: no {path} in {said}");
            assert!(!said.contains("probe") && !out.exists(), "{spec}: something ran: {said}");
        }
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
