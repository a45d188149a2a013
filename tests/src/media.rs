//! Test media: real files made by Debian's ffmpeg, once for each build folder, and bad ones made from them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Where test media is kept between runs.
pub fn folder() -> PathBuf {
    let folder = crate::target_folder().join("media");
    std::fs::create_dir_all(&folder).expect("the build folder is writable");
    folder
}

/// The file `name`, made by `make` at a path beside it when it is not there. Tests run in parallel, in
/// several threads and processes: a file appears by a rename, whole or not at all.
pub fn made(name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let path = folder().join(name);
    if !path.exists() {
        // The extension stays, since ffmpeg chooses the muxer by it.
        static MADE: AtomicU32 = AtomicU32::new(0);
        let nth = MADE.fetch_add(1, Ordering::Relaxed);
        let part = folder().join(format!("part-{}-{nth}-{name}", std::process::id()));
        make(&part);
        std::fs::rename(&part, &path).expect("the media was made");
    }
    path
}

/// Runs ffmpeg with `args` (split at spaces; `{}` stands for a space) to make the file `name`.
pub fn ffmpeg(name: &str, args: &str) -> PathBuf {
    made(name, |path| {
        let output = Command::new("ffmpeg")
            .args(["-nostdin", "-v", "error", "-y"])
            .args(args.split_whitespace().map(|a| a.replace("{}", " ")))
            .arg(path)
            .output()
            .expect("ffmpeg is installed (tools/setup test)");
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    })
}

/// A clip of `seconds` with picture, counter and tone.
pub fn clip(seconds: u32, width: u32, height: u32) -> PathBuf {
    ffmpeg(
        &format!("clip-{seconds}s-{width}x{height}.mp4"),
        &format!(
            "-f lavfi -i testsrc2=size={width}x{height}:rate=30:duration={seconds} \
             -f lavfi -i sine=frequency=440:beep_factor=4:sample_rate=48000:duration={seconds} \
             -c:v libx264 -preset veryfast -pix_fmt yuv420p -g 60 -c:a aac -ac 2"
        ),
    )
}

/// One line of ffprobe's answer about `file`: the entries (`stream=width`, …) of the streams `select` (`v:0`).
pub fn ffprobe(file: &Path, select: &str, entries: &str) -> String {
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-count_frames", "-select_streams", select, "-show_entries", entries])
        .args(["-of", "csv=p=0"])
        .arg(file)
        .output()
        .expect("ffprobe is installed (tools/setup test)");
    assert!(output.status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Structural similarity of two videos, picture by picture, each after its filters: 1.0 is the same.
pub fn ssim(a: &Path, b: &Path, filters: [&str; 2]) -> f64 {
    let [filter_a, filter_b] = filters;
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-hide_banner", "-i"])
        .arg(a)
        .arg("-i")
        .arg(b)
        .args(["-lavfi", &format!("[0:v]{filter_a}[a];[1:v]{filter_b}[b];[a][b]ssim"), "-f", "null", "-"])
        .output()
        .expect("ffmpeg is installed (tools/setup test)");
    let log = String::from_utf8_lossy(&output.stderr);
    let all = log.rsplit_once("All:").and_then(|(_, rest)| rest.split_whitespace().next());
    all.and_then(|v| v.parse().ok()).unwrap_or_else(|| panic!("no SSIM: {log}"))
}

/// Filters that pair pictures by their number and not by their time, at so many of them a second.
pub fn by_number(rate: u32) -> String {
    format!("setpts=N/({rate}*TB)")
}

/// A file that must not be transcoded, and the documented code it must get.
pub struct Bad {
    /// What it is, in a few words.
    pub what: &'static str,
    /// The file.
    pub path: PathBuf,
    /// The code.
    pub code: &'static str,
}

/// Every kind of bad input.
pub fn bad_inputs() -> Vec<Bad> {
    let bytes = |name: &str, bytes: Vec<u8>| made(name, |path| std::fs::write(path, bytes).unwrap());
    let clip = clip(2, 320, 240);
    let whole = std::fs::read(&clip).unwrap();
    // Debian's ffmpeg writes the moov box last, so three quarters of the file have none.
    let without_moov = whole[..whole.len() * 3 / 4].to_vec();
    let hls = format!("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{}\n#EXT-X-ENDLIST\n", clip.display());
    let mpd = format!(
        "<?xml version=\"1.0\"?>\n<MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\" type=\"static\" mediaPresentationDuration=\"PT2S\">\
         <Period><AdaptationSet mimeType=\"video/mp4\"><Representation id=\"0\" bandwidth=\"1\"><BaseURL>{}</BaseURL>\
         </Representation></AdaptationSet></Period></MPD>\n",
        clip.display()
    );
    let concat = format!("ffconcat version 1.0\nfile {}\n", clip.display());
    let huge = ffmpeg(
        "huge-12000.mp4",
        "-f lavfi -i color=size=12000x12000:rate=5:duration=0.4 -c:v libx264 -preset ultrafast -threads 1 -x264-params ref=1:keyint=1",
    );
    vec![
        Bad { what: "an empty file", path: bytes("empty.mp4", vec![]), code: "input_empty" },
        Bad {
            what: "text",
            path: bytes("text.mp4", b"Dear all,\nplease find attached\n".repeat(50)),
            code: "input_unrecognised",
        },
        Bad { what: "noise", path: bytes("noise.mov", noise(100_000)), code: "input_unrecognised" },
        Bad {
            what: "an MP4 without its index",
            path: bytes("without-moov.mp4", without_moov),
            code: "input_truncated",
        },
        Bad {
            what: "an image",
            path: made("image.mp4", |path| {
                std::fs::copy(ffmpeg("image.png", "-f lavfi -i testsrc2=size=320x240 -frames:v 1"), path)
                    .unwrap();
            }),
            code: "input_is_image",
        },
        Bad {
            what: "an HLS playlist named .mp4",
            path: bytes("hls.mp4", hls.clone().into_bytes()),
            code: "input_is_playlist",
        },
        Bad { what: "an HLS playlist", path: bytes("hls.m3u8", hls.into_bytes()), code: "input_is_playlist" },
        Bad {
            what: "a DASH manifest named .mkv",
            path: bytes("dash.mkv", mpd.into_bytes()),
            code: "input_is_playlist",
        },
        Bad {
            what: "an ffconcat script named .webm",
            path: bytes("concat.webm", concat.into_bytes()),
            code: "input_is_playlist",
        },
        Bad {
            what: "a decoder outside the list",
            path: ffmpeg("ffv1.mkv", "-f lavfi -i testsrc2=size=320x240:rate=10:duration=1 -c:v ffv1"),
            code: "decoder_not_allowed",
        },
        Bad { what: "frames of 12000 × 12000", path: huge, code: "frame_too_large" },
        Bad {
            what: "a stream whose frames grow to 12000 × 12000", path: growing(), code: "frame_too_large"
        },
        Bad {
            what: "an endless duration",
            path: ffmpeg(
                "endless.mp4",
                &format!(
                    "-i {} -c copy -bsf:v setts=ts=TS*2000000 -bsf:a setts=ts=TS*2000000 -video_track_timescale 1000",
                    clip.display()
                ),
            ),
            code: "duration_too_long",
        },
    ]
}

/// A transport stream that announces 320 × 240 and turns into 12000 × 12000 after the probe has looked: 400 kB that ask for a
/// gigabyte.
fn growing() -> PathBuf {
    made("growing.ts", |path| {
        let small = ffmpeg(
            "growing-a.ts",
            "-f lavfi -i testsrc2=size=320x240:rate=30:duration=8 -c:v libx264 -b:v 4M -preset ultrafast",
        );
        let large = ffmpeg(
            "growing-b.ts",
            "-f lavfi -i color=size=12000x12000:rate=5:duration=0.4 -c:v libx264 -preset ultrafast -threads 1 -x264-params ref=1:keyint=1 -output_ts_offset 8",
        );
        let mut bytes = std::fs::read(small).unwrap();
        bytes.extend(std::fs::read(large).unwrap());
        std::fs::write(path, bytes).unwrap();
    })
}

/// Bytes without any pattern, the same every time (xorshift64).
pub fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[0]
        })
        .collect()
}
