//! The command lines of ffprobe and ffmpeg that applications have today, in this program's words. What cannot be said in them is
//! refused by name: a switch that is ignored in silence gives another answer than the one that was asked for.

use std::ffi::OsString;

/// What follows `mpegflow probe`, or all that follows a name `ffprobe`.
///
/// # Errors
/// Which argument is not known here.
pub(crate) fn ffprobe(typed: &[OsString]) -> Result<Vec<OsString>, String> {
    let mut said = Vec::new();
    let mut typed = typed.iter();
    while let Some(argument) = typed.next() {
        let text = argument.to_string_lossy();
        let mut value = || typed.next().cloned().ok_or_else(|| format!("ffprobe's {text} needs a value"));
        match text.as_ref() {
            // What is written to standard error is this program's own.
            "-v" | "-loglevel" => drop(value()?),
            "-hide_banner" => {}
            "-i" => said.push(value()?),
            "-print_format" | "-of" | "-output_format" => {
                said.extend([OsString::from("--print-format"), value()?])
            }
            "-show_entries" => said.extend([OsString::from("--show-entries"), value()?]),
            "-select_streams" => said.extend([OsString::from("--select-streams"), value()?]),
            "-show_format" => said.push("--show-format".into()),
            "-show_streams" => said.push("--show-streams".into()),
            _ if is_own(&text) => said.push(argument.clone()),
            other => {
                return Err(format!(
                    "ffprobe's {other} is not known here; known are -show_format, -show_streams, -show_entries, -select_streams, \
                     -print_format (-of), -v (-loglevel), -hide_banner and -i"
                ));
            }
        }
    }
    Ok(said)
}

/// What follows `mpegflow thumbnail`, or all that follows a name `ffmpeg`: one picture of one file.
///
/// # Errors
/// Which argument is not known here.
pub(crate) fn ffmpeg(typed: &[OsString]) -> Result<Vec<OsString>, String> {
    let (mut said, mut input, mut picture, mut one) = (Vec::new(), None, None, false);
    let mut typed = typed.iter();
    while let Some(argument) = typed.next() {
        let text = argument.to_string_lossy();
        let mut value = || typed.next().cloned().ok_or_else(|| format!("ffmpeg's {text} needs a value"));
        match text.as_ref() {
            "-i" => input = Some(value()?),
            "-ss" => {
                let time = value()?;
                let at = seconds(&time.to_string_lossy());
                let at = at.ok_or_else(|| format!("-ss {} is not a time", time.to_string_lossy()))?;
                said.extend([OsString::from("--at"), OsString::from(at.to_string())]);
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
                said.extend([OsString::from("--max-height"), OsString::from(height)]);
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
            _ if is_own(&text) && text.starts_with('-') => said.push(argument.clone()),
            _ if is_own(&text) && picture.is_none() => picture = Some(argument.clone()),
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
    said.extend([input, picture]);
    Ok(said)
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

/// A time as ffmpeg takes it: `12`, `12.5`, `1:02`, `00:01:02.5`. Whole seconds are kept.
fn seconds(text: &str) -> Option<u32> {
    let mut total = 0_u32;
    let parts: Vec<&str> = text.split(':').collect();
    if parts.len() > 3 {
        return None;
    }
    for (number, part) in parts.iter().enumerate() {
        let last = number.checked_add(1)? == parts.len();
        let (whole, fraction) = part.split_once('.').unwrap_or((part, ""));
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(fraction) || (!last && !fraction.is_empty()) {
            return None;
        }
        total = total.checked_mul(60)?.checked_add(whole.parse().ok()?)?;
    }
    Some(total)
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
                "--print-format json --show-format --show-streams in.mp4",
            ),
            (
                "-loglevel error -hide_banner -of json -show_streams -i in.mp4",
                "--print-format json --show-streams in.mp4",
            ),
            (
                "-v error -show_entries format=duration -of default=noprint_wrappers=1:nokey=1 in.mp4",
                "--show-entries format=duration --print-format default=noprint_wrappers=1:nokey=1 in.mp4",
            ),
            (
                "-v error -select_streams v:0 -show_entries stream=width,height -of csv=p=0 in.mp4 --legacy-decoders",
                "--select-streams v:0 --show-entries stream=width,height --print-format csv=p=0 in.mp4 --legacy-decoders",
            ),
        ] {
            assert_eq!(join(ffprobe(&split(theirs))), ours, "{theirs}");
            assert!(is_foreign(&split(theirs)), "{theirs}");
        }
        for (theirs, named) in [
            ("-show_packets in.mp4", "-show_packets"),
            ("-show_entries", "-show_entries"),
            ("-count_frames in.mp4", "-count_frames"),
        ] {
            assert!(ffprobe(&split(theirs)).unwrap_err().contains(named), "{theirs}");
        }
        assert!(is_foreign(&split("-v error in.mp4")));
        assert!(!is_foreign(&split("in.mp4 --legacy-decoders -v --output json")));
    }

    #[test]
    fn what_applications_ask_of_ffmpeg_for_a_picture_is_asked_here() {
        for (theirs, ours) in [
            ("-ss 5 -i in.mp4 -frames:v 1 out.jpg", "--at 5 in.mp4 out.jpg"),
            ("-y -ss 00:01:02.5 -i in.mp4 -vframes 1 -q:v 2 out.jpeg", "--force --at 62 in.mp4 out.jpeg"),
            (
                "-hide_banner -loglevel error -i in.mp4 -ss 1:00 -frames:v 1 -vf scale=-2:360 -f image2 o.jpg",
                "--at 60 --max-height 360 in.mp4 o.jpg",
            ),
        ] {
            assert_eq!(join(ffmpeg(&split(theirs))), ours, "{theirs}");
        }
        for (theirs, named) in [
            ("-i in.mp4 out.mp4", "-frames:v 1"),
            ("-i in.mp4 -frames:v 5 o.jpg", "-frames:v 1"),
            ("-i in.mp4 -frames:v 1 o.png", "o.png"),
            ("-ss x -i in.mp4 -frames:v 1 o.jpg", "-ss x"),
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
