//! Rows of `encode` for each preset: a short clip through everything we are, and by `ffmpeg` with the same settings: CPU, wall,
//! and the bytes that the same pictures take. The clip is short, so that starting four locked processes shows.

use super::encode::{plan_of, speed, threads};
use super::measure::{Cost, compare, measure};
use mpegflow_broker::plan::presets::PresetName;
use mpegflow_protocol::encoder::{EncoderSpeed, VideoCodec};
use mpegflow_protocol::task::{EncodeTask, Rung};
use mpegflow_tests::{media, program};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

const SECONDS: u32 = 6;

pub(super) fn rows(runs: usize) -> Vec<Value> {
    let clip = media::ffmpeg(
        "bench-360p-6s.mp4",
        &format!(
            "-f lavfi -i testsrc2=size=640x360:rate=25:duration={SECONDS},noise=alls=6:allf=t \
             -f lavfi -i sine=frequency=440:sample_rate=48000:duration={SECONDS} \
             -c:v libx264 -preset veryfast -crf 16 -pix_fmt yuv420p -c:a aac -ac 2"
        ),
    );
    PresetName::ALL.iter().flat_map(|preset| row(*preset, &clip, runs)).collect()
}

fn row(preset: PresetName, clip: &Path, runs: usize) -> Vec<Value> {
    let task = plan_of(clip, preset.as_str(), true);
    let folder = tempfile::tempdir().unwrap();
    let (mut ours, mut peer): (Vec<Cost>, Vec<Cost>) = (Vec::new(), Vec::new());
    let (made, theirs) = (folder.path().join("ours"), folder.path().join("theirs"));
    for _ in 0..runs {
        let _ = std::fs::remove_dir_all(&made);
        let _ = std::fs::remove_dir_all(&theirs);
        std::fs::create_dir(&theirs).unwrap();
        let mut command = Command::new(program("mpegflow"));
        command.args(["--quiet", "transcode"]).arg(clip).arg("--out").arg(&made);
        ours.push(measure(command.args(["--preset", preset.as_str()])));
        peer.push(measure(&mut by_hand(&task, preset, clip, &theirs)));
    }
    let name = preset.as_str();
    let mut rows = vec![
        compare(&format!("{name}: CPU s, {SECONDS} s of 360p"), "-", &ours, &peer, |c| c.cpu),
        compare(&format!("{name}: wall s, the same"), "-", &ours, &peer, |c| c.wall),
    ];
    let size = |folder: &Path, ends: &[&str]| -> u64 {
        let files = std::fs::read_dir(folder).unwrap().flatten();
        let media = files.filter(|f| ends.iter().any(|e| f.file_name().to_string_lossy().ends_with(e)));
        media.map(|f| f.metadata().unwrap().len()).sum()
    };
    let ends: &[&str] = if preset == PresetName::Thumbnail { &["jpg"] } else { &["mp4", "m4a"] };
    let (bytes, their_bytes) = (size(&made, ends) as f64, size(&theirs, ends) as f64);
    let what = match task.video.as_ref().and_then(|v| v.rungs.first()) {
        Some(rung) => {
            let mine = if preset == PresetName::Mp4 {
                "video.mp4".into()
            } else {
                format!("video-{}p.mp4", rung.height)
            };
            let (a, b) = (ssim(&made.join(mine), clip), ssim(&theirs.join("v0.mp4"), clip));
            format!("{name}: kB, at SSIM {a:.4} and {b:.4}")
        }
        None => format!("{name}: kB"),
    };
    rows.push(json!({ "what": what, "goal": "<= 1.05", "unit": "kilobytes", "ours": bytes / 1e3,
        "peer": their_bytes / 1e3, "ratio": bytes / their_bytes }));
    rows
}

fn by_hand(task: &EncodeTask, preset: PresetName, clip: &Path, out: &Path) -> Command {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-i"]).arg(clip);
    let rungs = task.video.as_ref().map_or(&[][..], |v| &v.rungs);
    let mut graph: Vec<String> = Vec::new();
    let stills = task.video.as_ref().and_then(|v| Some((v.poster.as_ref()?, v.sprites.as_ref()?)));
    let branches = rungs.len() + if stills.is_some() { 2 } else { 0 };
    if branches > 0 {
        let names: String = (0..branches).map(|n| format!("[s{n}]")).collect();
        graph.push(format!("[0:v]split={branches}{names}"));
    }
    for (n, rung) in rungs.iter().enumerate() {
        graph.push(format!("[s{n}]scale={}:{}:flags=bicubic,setsar=1[v{n}]", rung.width, rung.height));
    }
    if let Some((poster, sprites)) = stills {
        let (a, b) = (rungs.len(), rungs.len() + 1);
        let at = poster.at_ms as f64 / 1e3;
        graph.push(format!("[s{a}]select='gte(t,{at})',scale={}:{}[p]", poster.width, poster.height));
        let each = f64::from(sprites.interval_ms) / 1e3;
        graph.push(format!(
            "[s{b}]fps=1/{each}:round=up,scale={}:{},tile={}x{}[q]",
            sprites.tile_width, sprites.tile_height, sprites.columns, sprites.rows
        ));
    }
    if !graph.is_empty() {
        command.args(["-filter_complex", &graph.join(";")]);
    }
    let sound = |command: &mut Command| {
        for audio in &task.audio {
            command.args(["-map", "0:a:0", "-c:a", "aac", "-b:a", &audio.bit_rate.to_string()]);
            command.args(["-ar", &audio.sample_rate.to_string(), "-ac", &audio.channels.to_string()]);
        }
    };
    for (n, rung) in rungs.iter().enumerate() {
        command.args(["-map", &format!("[v{n}]")]);
        encoder(&mut command, rung, task.segment_ms);
        if preset == PresetName::Mp4 {
            sound(&mut command);
            command.args(["-movflags", "+faststart"]);
        }
        command.arg(out.join(format!("v{n}.mp4")));
    }
    if preset != PresetName::Mp4 && !task.audio.is_empty() {
        sound(&mut command);
        command.arg(out.join(if rungs.is_empty() { "audio.m4a" } else { "audio.mp4" }));
    }
    if stills.is_some() {
        for (label, file) in [("[p]", "poster.jpg"), ("[q]", "sprites.jpg")] {
            command.args(["-map", label, "-frames:v", "1", "-q:v", "4"]).arg(out.join(file));
        }
    }
    command
}

fn encoder(command: &mut Command, rung: &Rung, segment_ms: u32) {
    let crf = format!("{:.1}", f64::from(rung.crf_tenths) / 10.0);
    let (cap, buffer, cores) =
        (rung.max_bit_rate.to_string(), rung.buffer_bits.to_string(), threads().to_string());
    let keys = format!("expr:gte(t,n_forced*{})", f64::from(segment_ms) / 1e3);
    let x26x = ["-preset", speed(rung.speed), "-crf", &crf, "-maxrate", &cap, "-bufsize", &buffer];
    let number = |fast: &'static str, medium: &'static str| match rung.speed {
        EncoderSpeed::Veryfast => fast,
        _ => medium,
    };
    match rung.codec {
        VideoCodec::H264 => {
            command.args(["-c:v", "libx264", "-profile:v", "high", "-sc_threshold", "0", "-threads", &cores]);
            command.args(x26x).args(["-force_key_frames", &keys]);
        }
        VideoCodec::Hevc => {
            command.args(["-c:v", "libx265", "-forced-idr", "1"]).args(x26x);
            command.args(["-x265-params", &format!("log-level=none:scenecut=0:open-gop=0:pools={cores}")]);
            command.args(["-force_key_frames", &keys]);
        }
        VideoCodec::Vp9 => {
            command.args(["-c:v", "libvpx-vp9", "-deadline", "good", "-cpu-used", number("5", "2")]);
            command.args(["-crf", &(rung.crf_tenths / 10).to_string(), "-b:v", &cap, "-auto-alt-ref", "0"]);
            command.args([
                "-row-mt",
                "1",
                "-lag-in-frames",
                "16",
                "-threads",
                &cores,
                "-force_key_frames",
                &keys,
            ]);
        }
        VideoCodec::Av1 => {
            command.args(["-c:v", "libsvtav1", "-preset", number("10", "6")]);
            command.args(["-crf", &(rung.crf_tenths / 10).to_string(), "-g", &(segment_ms / 40).to_string()]);
            command.args(["-maxrate", &cap, "-svtav1-params", &format!("scd=0:lp={cores}:irefresh-type=2")]);
        }
    }
    command.args(["-pix_fmt", "yuv420p"]);
}

fn ssim(a: &Path, b: &Path) -> f64 {
    let by_number = media::by_number(25);
    media::ssim(a, b, [&by_number; 2])
}
