//! In place of ffprobe and ffmpeg, in their own words: the answers are those of the real programs.

use mpegflow_tests::media::{self, ffprobe};
use mpegflow_tests::program;
use mpegflow_tests::system::{mpegflow, run, text};
use serde_json::Value;
use std::path::{Path, PathBuf};
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

/// A clip whose pictures last no whole number of milliseconds.
fn uneven() -> PathBuf {
    media::ffmpeg(
        "clip-uneven.mp4",
        "-f lavfi -i testsrc2=size=640x360:rate=30000/1001:duration=2.7 -f lavfi -i sine=frequency=440:sample_rate=44100:duration=2.7 \
         -c:v libx264 -preset veryfast -pix_fmt yuv420p -c:a aac -ac 2 -metadata:s:a:0 language=ger",
    )
}

/// ffprobe's answer with durations rounded to the millisecond, which docs/drop-in.md says is as well as they are known here.
fn to_milliseconds(answer: &str) -> String {
    let rounded = |text: &str| {
        let start = text.find(|c: char| c.is_ascii_digit())?;
        let end =
            text[start..].find(|c: char| !c.is_ascii_digit() && c != '.').map_or(text.len(), |n| start + n);
        let seconds = text[start..end].parse::<f64>().ok().filter(|_| text[start..end].contains('.'))?;
        let ms = (seconds * 1_000.0).round() as u64;
        Some(format!("{}{}.{:03}000{}", &text[..start], ms / 1_000, ms % 1_000, &text[end..]))
    };
    let line = |line: &str| match line.rsplit_once("duration") {
        Some((before, after)) => {
            format!("{before}duration{}", rounded(after).unwrap_or_else(|| after.into()))
        }
        // Without names, a duration is alone on its line, or behind the name of its section.
        None if !line.contains('=') && line.split(['|', ',']).count() <= 2 => {
            rounded(line).unwrap_or_else(|| line.into())
        }
        None => line.into(),
    };
    answer.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn probe_answers_ffprobes_common_questions_as_ffprobe_does() {
    let clip = uneven();
    // The container's own length is a whole number of milliseconds in an MP4; its streams' are not.
    let lengths = theirs("-v error -show_entries stream=duration -of default=nw=1:nk=1", &clip);
    let is_uneven = lengths.lines().any(|length| !length.trim().ends_with("000"));
    assert!(is_uneven, "the clip is to be of uneven length: {lengths}");
    for args in [
        "-v error -show_entries format=duration -of default=noprint_wrappers=1:nokey=1",
        "-v error -show_entries format=duration",
        "-v error -show_entries stream=duration -of default=nw=1",
        "-v error -select_streams v:0 -show_entries stream=width,height -of csv=p=0",
        "-v error -select_streams v:0 -show_entries stream=width:stream=height -of csv=p=0",
        "-v error -select_streams v:0 -show_entries stream=width -show_entries stream=height -of csv=p=0",
        "-v error -select_streams v:0 -show_entries stream=width,height -of csv=s=x:p=0",
        "-v error -select_streams v:0 -show_entries stream=codec_name,pix_fmt,r_frame_rate,nb_frames -of default=nw=1",
        "-v error -select_streams a:0 -show_entries stream=codec_name,sample_rate,channels -of csv",
        "-v error -show_entries stream=index,codec_type -of csv=p=0",
        "-v error -show_entries stream=index:stream_tags=language -of compact",
        "-v error -show_entries stream=index,codec_type:format=duration -of compact=nk=1:p=0",
        "-v error -show_entries stream=index,codec_name,nb_frames:stream_tags=language:format=duration -of flat",
        "-v error -show_entries format=nb_streams,duration -of flat=s=_",
        "-v error -show_entries stream=index:stream_disposition=default -of default",
        "-loglevel error -hide_banner -show_entries format=format_name,nb_streams -of default",
        "-v error",
    ] {
        assert_eq!(ours(args, &clip), to_milliseconds(&theirs(args, &clip)), "{args}");
    }
    // Tags come in the order of their names here, as docs/drop-in.md says.
    let args = "-v error -show_format -show_entries format=size -of default=nw=1";
    let sorted = |answer: &str| {
        let mut lines: Vec<String> = answer.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&ours(args, &clip)), sorted(&theirs(args, &clip)), "{args}");
    let turned = media::ffmpeg(
        "clip-uneven-turned.mp4",
        &format!("-i {} -c copy -metadata:s:v:0 rotate=90", clip.display()),
    );
    for args in [
        "-v error -select_streams v:0 -show_entries stream_side_data=rotation -of default=nw=1:nk=1",
        "-v error -select_streams v:0 -show_entries stream=width:stream_side_data=rotation -of default",
        "-v error -select_streams v:0 -show_entries stream=width:stream_side_data=rotation -of flat",
    ] {
        assert_eq!(ours(args, &turned), theirs(args, &turned), "{args}");
    }
    let whole = "-v quiet -print_format json -show_format -show_streams";
    let (our_text, their_text) = (ours(whole, &clip), to_milliseconds(&theirs(whole, &clip)));
    let (ours, theirs): (Value, Value) =
        (serde_json::from_str(&our_text).unwrap(), serde_json::from_str(&their_text).unwrap());
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
            "start_time",
            "duration",
            "nb_frames",
            "sample_aspect_ratio",
            "display_aspect_ratio",
        ] {
            assert_eq!(stream[name], theirs["streams"][index][name], "stream {index}: {name}");
        }
    }
    for name in ["filename", "nb_streams", "format_name", "start_time", "duration", "size"] {
        assert_eq!(ours["format"][name], theirs["format"][name], "{name}");
    }
    // What both have stands in the same order, but for tags, which a file has in its own.
    let keys = |text: &str, other: &str| -> Vec<String> {
        let key = |line: &str| Some(line.split_once("\":")?.0.split_once('"')?.1.to_owned());
        let all: Vec<String> = text.lines().filter_map(key).collect();
        let tags = [
            "encoder",
            "language",
            "handler_name",
            "vendor_id",
            "major_brand",
            "minor_version",
            "compatible_brands",
        ];
        let also = |k: &String| other.contains(&format!("\"{k}\":")) && !tags.contains(&k.as_str());
        all.into_iter().filter(also).collect()
    };
    assert_eq!(keys(&our_text, &their_text), keys(&their_text, &our_text));
}

/// Called by another program's name, as a link beside an application would be.
fn called(name: &str, args: &[&str]) -> Output {
    called_in(Path::new("."), name, args)
}

fn called_in(place: &Path, name: &str, args: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join(name);
    std::os::unix::fs::symlink(program("mpegflow"), &link).unwrap();
    run(Command::new(link).args(args).current_dir(place), LIMIT)
}

#[test]
fn the_picture_is_the_one_that_ffmpeg_makes() {
    let clip = uneven();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let theirs = |name: &str, args: &str| {
        let picture = file(name);
        let made = Command::new("ffmpeg")
            .args("-nostdin -v error -y".split(' '))
            .args(args.split_whitespace().map(|a| if a == "CLIP" { clip.to_str().unwrap() } else { a }))
            .arg(&picture)
            .output()
            .unwrap();
        assert!(made.status.success(), "{args}: {}", text(&made));
        picture
    };
    // The second before is another picture, and so is the next frame.
    for (at, other) in [("0.5", "0"), ("1.533", "1.57"), ("0:01.7", "1"), ("0.2725922", "0")] {
        let asked = |at: &str| format!("-ss {at} -i CLIP -frames:v 1 -q:v 2");
        let picture = file(&format!("ours-{at}.jpg"));
        let args = asked(at).replace("CLIP", clip.to_str().unwrap());
        let mut args: Vec<&str> = args.split(' ').collect();
        args.push(picture.to_str().unwrap());
        let made = called("ffmpeg", &args);
        assert!(made.status.success(), "{at}: {}", text(&made));
        let same = media::ssim(&picture, &theirs("theirs.jpg", &asked(at)), ["null"; 2]);
        let apart = media::ssim(&picture, &theirs("other.jpg", &asked(other)), ["null"; 2]);
        println!("{at}: {same} {apart}");
        assert!(same >= 0.98 && apart < same, "{at}: {same}, and {other}: {apart}");
    }
    // Where no moment is named it is the first.
    let picture = file("first.jpg");
    let made = called("ffmpeg", &["-i", clip.to_str().unwrap(), "-frames:v", "1", picture.to_str().unwrap()]);
    assert!(made.status.success(), "{}", text(&made));
    let first = theirs("theirs.jpg", "-i CLIP -frames:v 1 -q:v 2");
    assert!(media::ssim(&picture, &first, ["null"; 2]) >= 0.98);
    // Smaller.
    let small = file("small.jpg");
    let args = ["-ss", "0.5", "-i", clip.to_str().unwrap(), "-frames:v", "1", "-vf", "scale=-2:180"];
    let made = called("ffmpeg", &[&args[..], &[small.to_str().unwrap()]].concat());
    assert!(made.status.success(), "{}", text(&made));
    let theirs = theirs("theirs.jpg", "-ss 0.5 -i CLIP -frames:v 1 -q:v 2 -vf scale=-2:180");
    assert!(media::ssim(&small, &theirs, ["null"; 2]) >= 0.98);
}

/// A stranger names a file, and an application passes the name on.
#[test]
fn a_name_that_looks_like_an_option_is_the_name_of_a_file() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["-x.mp4", "--libexec=evil", "--help", "-version"] {
        std::fs::copy(uneven(), folder.path().join(name)).unwrap();
        let said = called_in(
            folder.path(),
            "ffprobe",
            &["-v", "error", "-i", name, "-show_entries", "format=nb_streams", "-of", "csv=p=0"],
        );
        let answer = String::from_utf8_lossy(&said.stdout).into_owned();
        assert_eq!((said.status.code(), answer.trim()), (Some(0), "2"), "{name}: {}", text(&said));
        let made = called_in(folder.path(), "ffmpeg", &["-i", name, "-frames:v", "1", "-y", "picture.jpg"]);
        assert!(made.status.success(), "{name}: {}", text(&made));
        std::fs::remove_file(folder.path().join("picture.jpg")).unwrap();
    }
    // Without -i nothing says so, and what is run is not theirs to choose.
    for name in ["-x.mp4", "--libexec=evil", "--output=json"] {
        let said = called_in(folder.path(), "ffprobe", &["-v", "error", "-show_format", name]);
        assert_eq!(said.status.code(), Some(2), "{name}: {}", text(&said));
        assert!(text(&said).contains(name), "{}", text(&said));
    }
    for name in ["ffprobe", "ffmpeg"] {
        let said = called(name, &["-version"]);
        let line = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.status.success() && line.starts_with(&format!("{name} version ")), "{line}");
    }
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
