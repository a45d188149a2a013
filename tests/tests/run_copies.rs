//! A source's own pictures in the output: only for a tenant who may, and only where they are what the preset makes.

use mpegflow_tests::media::{self, ffprobe};
use mpegflow_tests::program;
use mpegflow_tests::system::{Serve, run, text};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(180);

fn pictures(file: &Path) -> String {
    ffprobe(file, "v:0", "frame=pkt_size,pict_type")
}

#[test]
fn a_tenant_who_may_gets_its_own_pictures_and_no_other_does() {
    let source = media::ffmpeg(
        "to-be-copied.mp4",
        "-f lavfi -i testsrc2=size=320x180:rate=25:duration=3 -f lavfi -i sine=duration=3 -c:v libx264 -preset veryfast -crf 23 \
         -pix_fmt yuv420p -c:a aac -metadata location=+52.5200+013.4050/ -metadata title=SecretTitle",
    );
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let serve = Serve::start(&data, 0, &[]);
    let made = |name: &str| {
        let id = serve.client.submit(&source, &["--preset", "mp4"]);
        let job = serve.client.ended(&id, LIMIT);
        assert_eq!(job["state"], "succeeded", "{job}");
        let out = folder.path().join(name);
        let output =
            run(serve.client.command().args(["download", &id, "--out", out.to_str().unwrap()]), LIMIT);
        assert!(output.status.success(), "{}", text(&output));
        (out.join("video.mp4"), job)
    };
    // Encoded again, and a spec that asks for a copy is refused by the field's name.
    let (encoded, job) = made("encoded");
    assert!(job["spec"]["video"]["copy"].is_null(), "{job}");
    assert_ne!(pictures(&encoded), pictures(&source));
    let spec = folder.path().join("job.json");
    std::fs::write(&spec, r#"{"version":1,"preset":"mp4","video":{"copy":true}}"#).unwrap();
    let mut submit = serve.client.command();
    submit.args(["jobs", "submit", source.to_str().unwrap(), "--spec", spec.to_str().unwrap()]);
    let output = run(&mut submit, LIMIT);
    assert!(!output.status.success() && text(&output).contains("video.copy"), "{}", text(&output));

    let output = run(
        Command::new(program("mpegflow-broker"))
            .args(["--data", data.join("broker").to_str().unwrap()])
            .args(["limits", "set", "--tenant", "local", "--copy", "true"]),
        LIMIT,
    );
    assert!(output.status.success(), "{}", text(&output));
    // A change reaches the broker within seconds.
    std::thread::sleep(Duration::from_secs(3));
    let (copied, job) = made("copied");
    assert_eq!(job["spec"]["video"]["copy"], true, "{job}");
    let sizes = |file: &Path| -> Vec<String> {
        pictures(file).lines().filter(|l| !l.is_empty()).skip(1).map(str::to_owned).collect()
    };
    // The first loses its encoder's note.
    assert_eq!((sizes(&copied).len(), sizes(&copied)), (74, sizes(&source)));
    let bytes = std::fs::read(&copied).unwrap();
    for secret in ["SecretTitle", "52.5200", "x264"] {
        assert!(!bytes.windows(secret.len()).any(|w| w == secret.as_bytes()), "{secret}");
    }
}
