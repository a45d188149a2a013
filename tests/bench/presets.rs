//! `presets`: each preset on a short clip, through everything we are and by `ffmpeg` with the same settings: CPU, wall, the bytes of
//! all media, and the bytes of the largest rung's pictures at equal SSIM. The clip is short, so that starting four locked processes
//! shows. `PRESETS=vp9,av1` for some of them.

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
/// How much coarser the second encode of each side is, in tenths of the constant rate factor: so much that the cap on the bit rate does
/// not decide for it, too.
const COARSER: u32 = 120;

pub(super) fn run(runs: usize) -> Value {
    let clip = media::ffmpeg(
        "bench-360p-6s-calm.mp4",
        &format!(
            "-f lavfi -i testsrc2=size=640x360:rate=25:duration={SECONDS},noise=alls=2:allf=t \
             -f lavfi -i sine=frequency=440:sample_rate=48000:duration={SECONDS} \
             -c:v libx264 -preset veryfast -crf 16 -pix_fmt yuv420p -c:a aac -ac 2"
        ),
    );
    let only = std::env::var("PRESETS").ok();
    let wanted = |name: &str| only.as_ref().is_none_or(|only| only.split(',').any(|one| one == name));
    let presets = PresetName::ALL.iter().filter(|preset| wanted(preset.as_str()));
    let rows: Vec<Value> = presets.flat_map(|preset| row(*preset, &clip, runs)).collect();
    json!({ "name": "presets", "clip": format!("640x360, {SECONDS} s"), "runs": runs, "metrics": rows })
}

fn row(preset: PresetName, clip: &Path, runs: usize) -> Vec<Value> {
    let task = plan_of(clip, preset.as_str(), true);
    let folder = tempfile::tempdir().unwrap();
    let (mut ours, mut peer): (Vec<Cost>, Vec<Cost>) = (Vec::new(), Vec::new());
    let (made, theirs) = (folder.path().join("ours"), folder.path().join("theirs"));
    for _ in 0..runs {
        let _ = std::fs::remove_dir_all(&made);
        ours.push(measure(transcode(clip, &made).args(["--preset", preset.as_str()])));
        peer.push(measure(&mut by_hand(&task, preset, clip, &theirs)));
    }
    let name = preset.as_str();
    println!("{name}: ours {:?}, ffmpeg {:?} s of CPU", cpu(&ours), cpu(&peer));
    let size = |folder: &Path, ends: &[&str]| -> f64 {
        let files = std::fs::read_dir(folder).unwrap().flatten();
        let media = files.filter(|f| ends.iter().any(|e| f.file_name().to_string_lossy().ends_with(e)));
        media.map(|f| f.metadata().unwrap().len()).sum::<u64>() as f64
    };
    let ends: &[&str] = if preset == PresetName::Thumbnail { &["jpg"] } else { &["mp4", "m4a"] };
    let mut rows = vec![
        compare(&format!("{name}: CPU s, {SECONDS} s of 360p"), "-", &ours, &peer, |c| c.cpu),
        compare(&format!("{name}: wall s, the same"), "-", &ours, &peer, |c| c.wall),
        kilobytes(&format!("{name}: kB of all media"), "-", size(&made, ends), size(&theirs, ends)),
    ];
    if let Some(rung) = task.video.as_ref().and_then(|v| v.rungs.first()) {
        rows.push(at_equal_ssim(&task, rung, preset, clip, [&made, &theirs]));
    }
    rows
}

fn cpu(costs: &[Cost]) -> Vec<f64> {
    costs.iter().map(|cost| cost.cpu.as_secs_f64()).collect()
}

fn kilobytes(what: &str, goal: &str, ours: f64, peer: f64) -> Value {
    json!({ "what": what, "goal": goal, "unit": "kilobytes", "ours": ours / 1e3, "peer": peer / 1e3, "ratio": ours / peer })
}

fn transcode(clip: &Path, out: &Path) -> Command {
    let mut command = Command::new(program("mpegflow"));
    command.args(["--quiet", "transcode"]).arg(clip).arg("--out").arg(out);
    command
}

/// The bytes that each side's pictures take for the same SSIM: each is encoded a second time with a larger constant rate factor, and
/// read off between its two, where the logarithm of the size is taken to be a straight line over SSIM in dB, at the middle of all
/// four.
fn at_equal_ssim(task: &EncodeTask, rung: &Rung, preset: PresetName, clip: &Path, made: [&Path; 2]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let coarse = (rung.crf_tenths + COARSER).min(rung.codec.max_crf() * 10);
    let spec = folder.path().join("job.yaml");
    std::fs::write(
        &spec,
        format!("version: 1\npreset: {}\nvideo: {{encoder: crf={}}}\n", preset.as_str(), coarse / 10),
    )
    .unwrap();
    let coarser = [folder.path().join("ours"), folder.path().join("theirs")];
    measure(transcode(clip, &coarser[0]).arg("--spec").arg(&spec));
    let mut coarse_task = task.clone();
    let rungs = coarse_task.video.iter_mut().flat_map(|v| &mut v.rungs);
    rungs.for_each(|r| r.crf_tenths = coarse / 10 * 10);
    measure(&mut by_hand(&coarse_task, preset, clip, &coarser[1]));
    let file = match preset {
        PresetName::Mp4 => "video.mp4".to_owned(),
        _ => format!("video-{}p.mp4", rung.height),
    };
    let files = [file.as_str(), "v0.mp4"];
    let curves =
        [0, 1].map(|side| [made[side], &coarser[side]].map(|folder| point(&folder.join(files[side]), clip)));
    let middle = curves.iter().flatten().map(|(quality, _)| quality).sum::<f64>() / 4.0;
    let [ours, peer] = curves.map(|[(q1, size1), (q2, size2)]| {
        assert!(q1 - q2 > 0.1, "a larger rate factor made no difference: {q1} and {q2} dB");
        (size1 + (size2 - size1) * (middle - q1) / (q2 - q1)).exp()
    });
    let ssim = 1.0 - 10f64.powf(-middle / 10.0);
    kilobytes(
        &format!("{}: kB of {}p at SSIM {ssim:.4}", preset.as_str(), rung.height),
        "<= 1.05",
        ours,
        peer,
    )
}

/// SSIM to the clip in dB, and the logarithm of the bytes of a file's pictures.
fn point(file: &Path, clip: &Path) -> (f64, f64) {
    let by_number = media::by_number(25);
    let ssim = media::ssim(file, clip, [&by_number; 2]);
    let packets = media::ffprobe(file, "v:0", "packet=size");
    let bytes: f64 = packets.lines().filter_map(|size| size.trim_end_matches(',').parse::<f64>().ok()).sum();
    (-10.0 * (1.0 - ssim).log10(), bytes.ln())
}

/// The same by hand, into an empty folder.
fn by_hand(task: &EncodeTask, preset: PresetName, clip: &Path, out: &Path) -> Command {
    let _ = std::fs::remove_dir_all(out);
    std::fs::create_dir(out).unwrap();
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
    let [vp9, av1] = match rung.speed {
        EncoderSpeed::Ultrafast => ["8", "12"],
        EncoderSpeed::Veryfast => ["5", "10"],
        EncoderSpeed::Fast => ["4", "8"],
        EncoderSpeed::Medium => ["2", "6"],
        EncoderSpeed::Slow => ["1", "4"],
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
            command.args(["-c:v", "libvpx-vp9", "-deadline", "good", "-cpu-used", vp9]);
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
            command.args(["-c:v", "libsvtav1", "-preset", av1]);
            command.args(["-crf", &(rung.crf_tenths / 10).to_string(), "-g", &(segment_ms / 40).to_string()]);
            command.args(["-maxrate", &cap, "-svtav1-params", &format!("scd=0:lp={cores}:irefresh-type=2")]);
        }
    }
    command.args(["-pix_fmt", "yuv420p"]);
}
