//! `encode`: one clip to a ladder and audio, by everything we are and by `ffmpeg` alone.

use super::measure::{compare, measure};
use mpegflow_broker::plan::{Settings, graph};
use mpegflow_protocol::codec::FromCodec;
use mpegflow_protocol::encoder::EncoderSpeed;
use mpegflow_protocol::ids::UploadId;
use mpegflow_protocol::job::{AudioOptions, DecoderSet, InputRef, JobSpec, ThumbnailOptions, VideoOptions};
use mpegflow_protocol::media::MediaInfo;
use mpegflow_protocol::task::{EncodeTask, ProbeTask, TaskResult, TaskSpec};
use mpegflow_tests::codec_session::Session;
use mpegflow_tests::{media, program};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

pub(super) fn run(runs: usize) -> Value {
    // Film grain over motion: neither so easy that start-up dominates nor so hard that nothing else shows.
    let clip = media::ffmpeg(
        "bench-720p-30s.mp4",
        "-f lavfi -i testsrc2=size=1280x720:rate=30:duration=30,noise=alls=8:allf=t \
         -f lavfi -i sine=frequency=440:beep_factor=4:sample_rate=48000:duration=30 \
         -c:v libx264 -preset veryfast -crf 20 -pix_fmt yuv420p -c:a aac -ac 2",
    );
    let task = plan_of(&clip, "web", false);
    let folder = tempfile::tempdir().unwrap();
    let (mut ours, mut peer) = (Vec::new(), Vec::new());
    for run in 0..runs {
        let out = folder.path().join(format!("ours-{run}"));
        ours.push(measure(
            Command::new(program("mpegflow"))
                .args(["--quiet", "transcode"])
                .arg(&clip)
                .arg("--out")
                .arg(&out),
        ));
        let out = folder.path().join(format!("peer-{run}"));
        std::fs::create_dir(&out).unwrap();
        peer.push(measure(&mut ffmpeg(&task, &clip, &out)));
        println!(
            "encode {}/{runs}: ours {:.1} s, ffmpeg {:.1} s",
            run + 1,
            ours[run].wall.as_secs_f64(),
            peer[run].wall.as_secs_f64()
        );
    }
    let rungs: Vec<String> =
        task.video.iter().flat_map(|v| &v.rungs).map(|r| format!("{}x{}", r.width, r.height)).collect();
    let metrics = vec![
        compare("CPU s, 30 s of 720p to a ladder and AAC", "<= 1.05", &ours, &peer, |c| c.cpu),
        compare("wall s, the same", "<= 1.05", &ours, &peer, |c| c.wall),
    ];
    json!({ "name": "encode", "clip": "1280x720, 30 s", "renditions": rungs, "runs": runs, "metrics": metrics })
}

/// The encode that the broker plans for the clip, from a probe by a locked codec.
pub(super) fn plan_of(clip: &Path, preset: &str, stills: bool) -> EncodeTask {
    let bytes = std::fs::read(clip).unwrap();
    let size = bytes.len() as u64;
    let upload = UploadId::from_u128(1);
    let spec = JobSpec {
        version: 1,
        input: InputRef::Upload(upload),
        preset: preset.into(),
        decoders: DecoderSet::Core,
        video: VideoOptions::default(),
        audio: AudioOptions::default(),
        thumbnails: ThumbnailOptions {
            enabled: Some(false).filter(|_| !stills),
            ..ThumbnailOptions::default()
        },
        output: Default::default(),
        metadata: Default::default(),
        allow_partial: false,
        dry_run: false,
        max_spend: Default::default(),
        priority: Default::default(),
        pool: None,
        external_id: None,
        labels: Default::default(),
    };
    let settings = Settings { threads: threads(), ..Settings::default() };
    match graph::encode(&spec, &probe(bytes), upload, size, settings).unwrap().spec {
        TaskSpec::Encode(task) => task,
        other => panic!("{other:?}"),
    }
}

pub(super) fn threads() -> u32 {
    std::thread::available_parallelism().unwrap().get() as u32
}

fn probe(bytes: Vec<u8>) -> MediaInfo {
    let mut session = Session::start(&program("mpegflow-codec"), &[], 0);
    assert!(matches!(session.prepare(1), Some(FromCodec::Locked(_))));
    let ended =
        session.work(TaskSpec::Probe(ProbeTask { decoders: DecoderSet::Core, partial: false }), vec![bytes]);
    match ended.frames.into_iter().last() {
        Some(FromCodec::Done(result)) => match *result {
            TaskResult::Probe(probe) => probe.media,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?} {}", ended.log),
    }
}

pub(super) fn speed(speed: EncoderSpeed) -> &'static str {
    match speed {
        EncoderSpeed::Ultrafast => "ultrafast",
        EncoderSpeed::Veryfast => "veryfast",
        EncoderSpeed::Fast => "fast",
        EncoderSpeed::Medium => "medium",
        EncoderSpeed::Slow => "slow",
    }
}

/// ffmpeg by hand: one decode, the same rungs with the same x264 settings, the same audio, HLS over single fragmented files.
fn ffmpeg(task: &EncodeTask, clip: &Path, out: &Path) -> Command {
    let video = task.video.as_ref().unwrap();
    let count = video.rungs.len();
    let mut graph = format!("[0:v]split={count}");
    (0..count).for_each(|n| write!(graph, "[s{n}]").unwrap());
    for (n, rung) in video.rungs.iter().enumerate() {
        write!(graph, ";[s{n}]scale={}:{}:flags=bicubic,setsar=1[v{n}]", rung.width, rung.height).unwrap();
    }
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-threads", &threads().to_string(), "-i"]).arg(clip);
    command.args(["-filter_complex", &graph]);
    let mut streams = Vec::new();
    for (n, rung) in video.rungs.iter().enumerate() {
        command.args(["-map", &format!("[v{n}]")]);
        for (option, value) in [
            ("c", "libx264".to_owned()),
            ("preset", speed(rung.speed).into()),
            ("crf", format!("{:.1}", f64::from(rung.crf_tenths) / 10.0)),
            ("maxrate", rung.max_bit_rate.to_string()),
            ("bufsize", rung.buffer_bits.to_string()),
            ("profile", "high".into()),
            ("pix_fmt", "yuv420p".into()),
            ("sc_threshold", "0".into()),
            ("threads", threads().to_string()),
            ("force_key_frames", format!("expr:gte(t,n_forced*{})", f64::from(task.segment_ms) / 1000.0)),
        ] {
            command.args([format!("-{option}:v:{n}"), value]);
        }
        streams.push(format!("v:{n},agroup:a"));
    }
    for audio in &task.audio {
        command.args(["-map", "0:a:0", "-c:a", "aac", "-b:a", &audio.bit_rate.to_string()]);
        command.args(["-ar", &audio.sample_rate.to_string(), "-ac", &audio.channels.to_string()]);
        streams.push("a:0,agroup:a,default:yes".into());
    }
    command.args([
        "-f",
        "hls",
        "-hls_segment_type",
        "fmp4",
        "-hls_flags",
        "single_file",
        "-hls_playlist_type",
        "vod",
    ]);
    command.args([
        "-hls_time",
        &format!("{}", f64::from(task.segment_ms) / 1000.0),
        "-master_pl_name",
        "master.m3u8",
    ]);
    command.args(["-var_stream_map", &streams.join(" ")]).arg(out.join("s%v.m3u8"));
    command
}
