//! Test media, made with the ffmpeg command: short and small.

use crate::supervisor::Bytes;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use tempfile::TempDir;

/// A folder for files of this test run.
pub fn folder() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    FOLDER.get_or_init(|| tempfile::tempdir().unwrap()).path()
}

/// Runs ffmpeg; `args` are split at spaces, the output's name comes last.
pub fn ffmpeg(args: &str, name: &str) -> PathBuf {
    let path = folder().join(name);
    let output = Command::new("ffmpeg")
        .current_dir(folder())
        .args(["-nostdin", "-hide_banner", "-loglevel", "error", "-y"])
        .args(args.split_whitespace())
        .arg(&path)
        .output()
        .expect("ffmpeg is needed for these tests");
    assert!(output.status.success(), "ffmpeg {args}: {}", String::from_utf8_lossy(&output.stderr));
    path
}

/// The same, read into memory.
pub fn make(args: &str, name: &str) -> Bytes {
    Arc::new(std::fs::read(ffmpeg(args, name)).unwrap())
}

/// Writes `bytes` beside the others.
pub fn save(bytes: &[u8], name: &str) -> PathBuf {
    let path = folder().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Runs ffprobe and returns what it prints.
pub fn ffprobe(args: &str, path: &Path) -> String {
    let output = Command::new("ffprobe")
        .args(["-v", "error"])
        .args(args.split_whitespace())
        .arg(path)
        .output()
        .unwrap();
    assert!(output.status.success(), "ffprobe {args}: {}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "ffprobe {args}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A plain clip: 320 × 240, 25 frames a second, 4 seconds, H.264 and AAC.
pub fn plain() -> Bytes {
    static CLIP: OnceLock<Bytes> = OnceLock::new();
    CLIP.get_or_init(|| {
        make(
            "-f lavfi -i testsrc2=s=320x240:r=25:d=4 -f lavfi -i sine=440:d=4:r=48000 \
             -c:v libx264 -preset ultrafast -crf 18 -pix_fmt yuv420p -c:a aac -ac 2",
            "plain.mp4",
        )
    })
    .clone()
}

/// SSIM of two files' pictures, 0 to 1, after `filter` made the first one's like the second one's.
pub fn ssim(a: &Path, b: &Path, filter: &str) -> f64 {
    let graph = format!("[0:v]{filter}[r];[1:v][r]ssim");
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-hide_banner", "-noautorotate", "-i"])
        .arg(a)
        .arg("-i")
        .arg(b)
        .args(["-filter_complex", &graph, "-f", "null", "-"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let all = text.rsplit("All:").next().and_then(|t| t.split_whitespace().next());
    all.and_then(|t| t.parse().ok()).unwrap_or_else(|| panic!("{text}"))
}
