//! In place of ffprobe and ffmpeg, in their own words: the answers are those of the real programs.

use mpegflow_tests::media::{self, ffprobe};
use mpegflow_tests::program;
use mpegflow_tests::system::{mpegflow, run, text};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);

fn ours(args: &str, file: &Path) -> String {
    let output = run(mpegflow().arg("probe").args(args.split_whitespace()).arg(file), LIMIT);
    assert!(output.status.success(), "{args}: {}", text(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn theirs(args: &str, file: &Path) -> String {
    let output = Command::new("ffprobe").args(args.split_whitespace()).arg(file).output().unwrap();
    assert!(output.status.success(), "{args}: {}", text(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn probe_answers_ffprobes_common_questions_as_ffprobe_does() {
    let clip = media::clip(4, 640, 360);
    for args in [
        "-v error -show_entries format=duration -of default=noprint_wrappers=1:nokey=1",
        "-v error -select_streams v:0 -show_entries stream=width,height -of csv=p=0",
        "-v error -select_streams v:0 -show_entries stream=codec_name,pix_fmt,r_frame_rate,nb_frames -of default=nw=1",
        "-v error -select_streams a:0 -show_entries stream=codec_name,sample_rate,channels -of csv",
        "-v error -show_entries stream=index,codec_type -of csv=p=0",
        "-loglevel error -hide_banner -show_entries format=format_name,nb_streams -of default",
    ] {
        assert_eq!(ours(args, &clip), theirs(args, &clip), "{args}");
    }
    let whole = "-v quiet -print_format json -show_format -show_streams";
    let (ours, theirs): (Value, Value) = (
        serde_json::from_str(&ours(whole, &clip)).unwrap(),
        serde_json::from_str(&theirs(whole, &clip)).unwrap(),
    );
    for (index, stream) in ours["streams"].as_array().unwrap().iter().enumerate() {
        for name in [
            "index",
            "codec_name",
            "codec_type",
            "codec_tag_string",
            "width",
            "height",
            "pix_fmt",
            "sample_rate",
            "channels",
            "channel_layout",
            "r_frame_rate",
            "avg_frame_rate",
            "time_base",
            "nb_frames",
            "sample_aspect_ratio",
            "display_aspect_ratio",
        ] {
            assert_eq!(stream[name], theirs["streams"][index][name], "stream {index}: {name}");
        }
    }
    for name in ["filename", "nb_streams", "format_name", "duration", "size"] {
        assert_eq!(ours["format"][name], theirs["format"][name], "{name}");
    }
}

/// Called by another program's name, as a link beside an application would be.
fn called(name: &str, args: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join(name);
    std::os::unix::fs::symlink(program("mpegflow"), &link).unwrap();
    run(Command::new(link).args(args), LIMIT)
}

#[test]
fn called_as_ffmpeg_it_makes_the_picture_and_as_ffprobe_it_describes_it() {
    let clip = media::clip(4, 640, 360);
    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("poster.jpg");
    let picture = picture.to_str().unwrap();
    let clip = clip.to_str().unwrap();
    let made = called(
        "ffmpeg",
        &[
            "-hide_banner",
            "-loglevel",
            "error",
            "-y",
            "-ss",
            "00:00:02.5",
            "-i",
            clip,
            "-frames:v",
            "1",
            "-q:v",
            "2",
            "-vf",
            "scale=-2:180",
            picture,
        ],
    );
    assert!(made.status.success(), "{}", text(&made));
    assert_eq!(ffprobe(Path::new(picture), "v:0", "stream=codec_name,width,height"), "mjpeg,320,180");
    let said = called(
        "ffprobe",
        &["-v", "error", "-select_streams", "v:0", "-show_entries", "stream=width", "-of", "csv=p=0", clip],
    );
    assert_eq!(String::from_utf8_lossy(&said.stdout), "640\n", "{}", text(&said));
    // Without -y what is there stays; and what is no picture is refused by name.
    assert_eq!(called("ffmpeg", &["-i", clip, "-frames:v", "1", picture]).status.code(), Some(2));
    let film = called("ffmpeg", &["-i", clip, "-vf", "movie=/etc/passwd", "out.mp4"]);
    assert_eq!(film.status.code(), Some(2));
    assert!(text(&film).contains("movie=/etc/passwd"), "{}", text(&film));
}
