//! The command lines of ffprobe and ffmpeg that applications have today, in this program's words. What cannot be said in them is
//! refused by name: a switch that is ignored in silence gives another answer than the one that was asked for.

use std::ffi::{OsStr, OsString};

/// Options of this program that may stand among theirs. No others may: an application that is handed a file's name by strangers
/// passes it on, and `--libexec` would choose which programs are run.
const OWN: [&str; 3] = ["--legacy-decoders", "--help", "-h"];

/// What `-version` answers, for whom asks first whether the program is there; `None` where it is not asked.
pub(crate) fn version(name: &str, typed: &[OsString]) -> Option<String> {
    // Behind -i it is the name of a file.
    let before = std::iter::once(None).chain(typed.iter().map(Some));
    let asked =
        typed.iter().zip(before).any(|(a, before)| a == "-version" && before.is_none_or(|b| b != "-i"));
    (asked && matches!(name, "ffprobe" | "ffmpeg"))
        .then(|| format!("{name} version {} (mpegflow)", env!("CARGO_PKG_VERSION")))
}

/// What follows `mpegflow probe`, or all that follows a name `ffprobe`.
///
/// # Errors
/// Which argument is not known here.
pub(crate) fn ffprobe(typed: &[OsString]) -> Result<Vec<OsString>, String> {
    let (mut said, mut entries, mut files) = (Vec::new(), OsString::new(), Vec::new());
    let (mut form, mut select) = (OsString::from("default"), None);
    let mut typed = typed.iter();
    while let Some(argument) = typed.next() {
        let text = argument.to_string_lossy();
        let mut value = || typed.next().cloned().ok_or_else(|| format!("ffprobe's {text} needs a value"));
        let mut show = |what: OsString| {
            if !entries.is_empty() {
                entries.push(":");
            }
            entries.push(what);
        };
        match text.as_ref() {
            // What is written to standard error is this program's own.
            "-v" | "-loglevel" => drop(value()?),
            "-hide_banner" => {}
            "-i" => files.push(value()?),
            "-print_format" | "-of" | "-output_format" => form = value()?,
            // In the order in which they come: a later one may narrow an earlier one.
            "-show_entries" => show(value()?),
            "-show_format" => show("format".into()),
            "-show_streams" => show("stream".into()),
            "-select_streams" => select = Some(value()?),
            own if OWN.contains(&own) => said.push(argument.clone()),
            name if !name.starts_with('-') => files.push(argument.clone()),
            other => {
                return Err(format!(
                    "ffprobe's {other} is not known here; known are -show_format, -show_streams, -show_entries, -select_streams, \
                     -print_format (-of), -v (-loglevel), -hide_banner, -version and -i"
                ));
            }
        }
    }
    said.push(option("--print-format=", &form));
    said.push(option("--show-entries=", &entries));
    said.extend(select.map(|select| option("--select-streams=", &select)));
    Ok(with_files(said, files))
}

/// An option and its value in one word, so that no value is taken for another option.
fn option(name: &str, value: &OsStr) -> OsString {
    let mut option = OsString::from(name);
    option.push(value);
    option
}

/// Names of files last, where none of them can be an option.
fn with_files(mut said: Vec<OsString>, files: Vec<OsString>) -> Vec<OsString> {
    if !files.is_empty() {
        said.push("--".into());
    }
    said.extend(files);
    said
}

/// What follows `mpegflow thumbnail`, or all that follows a name `ffmpeg`: one picture of one file.
///
/// # Errors
/// Which argument is not known here.
pub(crate) fn ffmpeg(typed: &[OsString]) -> Result<Vec<OsString>, String> {
    let (mut said, mut input, mut picture, mut one) = (Vec::new(), None, None, false);
    // The first picture, where nothing is said.
    let mut at = "0".to_owned();
    let mut typed = typed.iter();
    while let Some(argument) = typed.next() {
        let text = argument.to_string_lossy();
        let mut value = || typed.next().cloned().ok_or_else(|| format!("ffmpeg's {text} needs a value"));
        match text.as_ref() {
            "-i" if input.is_some() => return Err("one picture of one file is made here, not of two".into()),
            "-i" => input = Some(value()?),
            "-ss" => {
                let time = value()?;
                at = seconds(&time.to_string_lossy())
                    .ok_or_else(|| format!("-ss {} is not a time", time.to_string_lossy()))?;
            }
            "-frames:v" | "-vframes" | "-frames" => {
                if value()? != "1" {
                    return Err("one picture is made here: write -frames:v 1".into());
                }
                one = true;
            }
            "-vf" | "-filter:v" => {
                let filter = value()?;
                let height = height(&filter.to_string_lossy()).ok_or_else(|| {
                    format!(
                        "-vf {} is not known here; known is scale=-2:HEIGHT (or -1)",
                        filter.to_string_lossy()
                    )
                })?;
                said.push(option("--max-height=", height.as_ref()));
            }
            "-y" => said.push("--force".into()),
            // How good the JPEG is, is set here; the rest changes nothing about one picture.
            "-q:v" | "-qscale:v" | "-v" | "-loglevel" | "-f" | "-update" | "-threads" | "-c:v"
            | "-vcodec" => {
                let value = value()?;
                let jpeg = ["image2", "mjpeg", "singlejpeg"].iter().any(|name| value == *name);
                if matches!(text.as_ref(), "-f" | "-c:v" | "-vcodec") && !jpeg {
                    return Err(format!(
                        "{text} {} is not known here; a JPEG is made",
                        value.to_string_lossy()
                    ));
                }
            }
            "-n" | "-an" | "-sn" | "-dn" | "-hide_banner" | "-nostdin" | "-noaccurate_seek"
            | "-accurate_seek" => {}
            own if OWN.contains(&own) => said.push(argument.clone()),
            name if !name.starts_with('-') && picture.is_none() => picture = Some(argument.clone()),
            other => {
                return Err(format!(
                    "ffmpeg's {other} is not known here; known is one picture: -ss TIME -i FILE -frames:v 1 [-vf scale=-2:HEIGHT] [-y] PICTURE.jpg"
                ));
            }
        }
    }
    let (Some(input), Some(picture), true) = (input, picture, one) else {
        return Err("one picture of one file is made here: -ss TIME -i FILE -frames:v 1 PICTURE.jpg".into());
    };
    let name = picture.to_string_lossy().to_ascii_lowercase();
    if ![".jpg", ".jpeg"].iter().any(|end| name.ends_with(end)) {
        return Err(format!(
            "{} is no name of a JPEG (.jpg), which is what is made here",
            picture.to_string_lossy()
        ));
    }
    if name.contains('%') {
        return Err(format!(
            "{} stands for a number of pictures; one is made here",
            picture.to_string_lossy()
        ));
    }
    said.push(option("--at=", at.as_ref()));
    Ok(with_files(said, vec![input, picture]))
}

/// Whether arguments are those of ffmpeg's programs: options that begin with one dash and are longer than a letter, or `-i`.
pub(crate) fn is_foreign(typed: &[OsString]) -> bool {
    const LEVELS: [&str; 9] =
        ["quiet", "panic", "fatal", "error", "warning", "info", "verbose", "debug", "trace"];
    let mut after_v = false;
    typed.iter().map(|a| a.to_string_lossy()).any(|a| {
        let level = after_v && LEVELS.contains(&a.as_ref());
        after_v = a == "-v";
        level || !is_own(&a) || a == "-i"
    })
}

/// Whether this program's own parser may have it: no option, an option with two dashes, or one with a letter.
fn is_own(text: &str) -> bool {
    !text.starts_with('-') || text.starts_with("--") || text.len() <= 2
}

/// Seconds of a time as ffmpeg takes it: `12`, `12.5`, `1:02`, `00:01:02.5`.
fn seconds(text: &str) -> Option<String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (last, before) = parts.split_last()?;
    let (whole, fraction) = last.split_once('.').unwrap_or((last, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if before.len() > 2 || !digits(fraction) {
        return None;
    }
    let mut total = 0_u32;
    for part in before.iter().chain([&whole]) {
        if part.is_empty() || !digits(part) {
            return None;
        }
        total = total.checked_mul(60)?.checked_add(part.parse().ok()?)?;
    }
    Some(if fraction.is_empty() { total.to_string() } else { format!("{total}.{fraction}") })
}

/// The height of a filter that only scales to one.
fn height(filter: &str) -> Option<String> {
    let (width, height) = filter.strip_prefix("scale=")?.split_once(':')?;
    let plain = !height.is_empty() && height.bytes().all(|b| b.is_ascii_digit());
    (matches!(width, "-1" | "-2") && plain).then(|| height.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    fn join(said: Result<Vec<OsString>, String>) -> String {
        said.map_or_else(
            |e| format!("refused: {e}"),
            |said| said.join(std::ffi::OsStr::new(" ")).into_string().unwrap(),
        )
    }

    #[test]
    fn what_applications_ask_of_ffprobe_is_asked_here() {
        for (theirs, ours) in [
            (
                "-v quiet -print_format json -show_format -show_streams in.mp4",
                "--print-format=json --show-entries=format:stream -- in.mp4",
            ),
            (
                "-loglevel error -hide_banner -of json -show_streams -i in.mp4",
                "--print-format=json --show-entries=stream -- in.mp4",
            ),
            (
                "-v error -show_entries format=duration -of default=noprint_wrappers=1:nokey=1 in.mp4",
                "--print-format=default=noprint_wrappers=1:nokey=1 --show-entries=format=duration -- in.mp4",
            ),
            (
                "-v error -select_streams v:0 -show_entries stream=width,height -of csv=p=0 in.mp4 --legacy-decoders",
                "--legacy-decoders --print-format=csv=p=0 --show-entries=stream=width,height --select-streams=v:0 -- in.mp4",
            ),
            (
                "-show_entries stream=width -show_format -show_entries format=size in.mp4",
                "--print-format=default --show-entries=stream=width:format:format=size -- in.mp4",
            ),
            ("-v error in.mp4", "--print-format=default --show-entries= -- in.mp4"),
        ] {
            assert_eq!(join(ffprobe(&split(theirs))), ours, "{theirs}");
            assert!(is_foreign(&split(theirs)), "{theirs}");
        }
        for (theirs, named) in [
            ("-show_packets in.mp4", "-show_packets"),
            ("-show_entries", "-show_entries"),
            ("-count_frames in.mp4", "-count_frames"),
            ("-f mp4 in.mp4", "-f "),
        ] {
            assert!(ffprobe(&split(theirs)).unwrap_err().contains(named), "{theirs}");
        }
        assert!(!is_foreign(&split("in.mp4 --legacy-decoders -v --output json")));
        assert_eq!(
            version("ffprobe", &split("-hide_banner -version")).unwrap().split(' ').nth(1),
            Some("version")
        );
        assert_eq!(version("mpegflow", &split("-version")), None);
        assert_eq!(version("ffprobe", &split("-i -version")), None);
    }

    /// A stranger chose the name of a file, and an application passes it on.
    #[test]
    fn no_name_of_a_file_is_taken_for_an_option() {
        for name in ["-x.mp4", "--libexec=/tmp/evil", "--help", "-h", "--", "-of", "--legacy-decoders", "-ss"]
        {
            let probed = join(ffprobe(&split(&format!("-v error -i {name}"))));
            assert!(probed.ends_with(&format!(" -- {name}")), "{probed}");
            let pictured = join(ffmpeg(&split(&format!("-i {name} -frames:v 1 o.jpg"))));
            assert!(pictured.ends_with(&format!(" -- {name} o.jpg")), "{pictured}");
        }
        // Where nothing says that it is a file, it is refused, and no program is chosen by it.
        for name in ["-x.mp4", "--libexec=/tmp/evil", "--output=json", "--"] {
            assert!(ffprobe(&split(&format!("-v error {name}"))).unwrap_err().contains(name), "{name}");
            let asked = format!("-i in.mp4 -frames:v 1 {name} o.jpg");
            assert!(ffmpeg(&split(&asked)).unwrap_err().contains(name), "{name}");
        }
        // Nor is a value.
        let asked = "-show_entries --libexec=/tmp/evil -of --help -select_streams -h in.mp4";
        assert_eq!(
            join(ffprobe(&split(asked))),
            "--print-format=--help --show-entries=--libexec=/tmp/evil --select-streams=-h -- in.mp4"
        );
    }

    #[test]
    fn what_applications_ask_of_ffmpeg_for_a_picture_is_asked_here() {
        for (theirs, ours) in [
            ("-ss 5 -i in.mp4 -frames:v 1 out.jpg", "--at=5 -- in.mp4 out.jpg"),
            ("-i in.mp4 -frames:v 1 out.jpg", "--at=0 -- in.mp4 out.jpg"),
            ("-ss 0.5 -i in.mp4 -frames:v 1 out.jpg", "--at=0.5 -- in.mp4 out.jpg"),
            (
                "-y -ss 00:01:02.5 -i in.mp4 -vframes 1 -q:v 2 out.jpeg",
                "--force --at=62.5 -- in.mp4 out.jpeg",
            ),
            (
                "-hide_banner -loglevel error -i in.mp4 -ss 1:00 -frames:v 1 -vf scale=-2:360 -f image2 o.jpg",
                "--max-height=360 --at=60 -- in.mp4 o.jpg",
            ),
        ] {
            assert_eq!(join(ffmpeg(&split(theirs))), ours, "{theirs}");
        }
        for (theirs, named) in [
            ("-i in.mp4 out.mp4", "-frames:v 1"),
            ("-i in.mp4 -frames:v 5 o.jpg", "-frames:v 1"),
            ("-i in.mp4 -frames:v 1 o.png", "o.png"),
            ("-i in.mp4 -frames:v 1 o%03d.jpg", "o%03d.jpg"),
            ("-i in.mp4 -i b.mp4 -frames:v 1 o.jpg", "two"),
            ("-ss x -i in.mp4 -frames:v 1 o.jpg", "-ss x"),
            ("-ss -5 -i in.mp4 -frames:v 1 o.jpg", "-ss -5"),
            ("-ss 1:2.5:3 -i in.mp4 -frames:v 1 o.jpg", "-ss 1:2.5:3"),
            ("-i in.mp4 -frames:v 1 -s 320x240 o.jpg", "-s "),
            ("-i in.mp4 -frames:v 1 -vf scale=320:-1 o.jpg", "scale=320:-1"),
            ("-i in.mp4 -frames:v 1 -vf movie=/etc/passwd o.jpg", "movie"),
            ("-i in.mp4 -frames:v 1 -filter_complex x o.jpg", "-filter_complex"),
            ("-i in.mp4 -frames:v 1 -c:v png o.jpg", "png"),
        ] {
            assert!(
                ffmpeg(&split(theirs)).unwrap_err().contains(named),
                "{theirs}: {}",
                join(ffmpeg(&split(theirs)))
            );
        }
    }
}
