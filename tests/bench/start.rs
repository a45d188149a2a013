//! `start`: from exec to one frame out, in a locked codec and in bubblewrap around `ffmpeg`.

use super::measure::{Cost, compare, measure};
use mpegflow_protocol::codec::FromCodec;
use mpegflow_protocol::encoder::{EncoderSpeed, Tuning, VideoCodec};
use mpegflow_protocol::job::DecoderSet;
use mpegflow_protocol::task::{EncodeTask, Rung, TaskSpec, VideoEncode};
use mpegflow_tests::codec_session::Session;
use mpegflow_tests::{media, program};
use serde_json::{Value, json};
use std::process::Command;
use std::time::{Duration, Instant};

pub(super) fn run(runs: usize) -> Value {
    // A start is short, and so are many of them.
    let runs = runs.saturating_mul(7);
    let clip = media::ffmpeg(
        "one-frame.mp4",
        "-f lavfi -i testsrc2=size=320x240:rate=25:duration=0.04 -c:v libx264 -preset veryfast -pix_fmt yuv420p",
    );
    let bytes = std::fs::read(&clip).unwrap();
    let task = TaskSpec::Encode(EncodeTask {
        decoders: DecoderSet::Core,
        segment_ms: 4000,
        video: Some(VideoEncode {
            stream: 0,
            rotation: 0,
            mirrored: false,
            max_frame_rate: 60,
            deinterlace: true,
            poster: None,
            sprites: None,
            rungs: vec![Rung {
                output: 0,
                codec: VideoCodec::H264,
                width: 320,
                height: 240,
                crf_tenths: 230,
                max_bit_rate: 1_000_000,
                buffer_bits: 2_000_000,
                speed: EncoderSpeed::Ultrafast,
                tuning: Tuning::default(),
                copy: false,
            }],
        }),
        audio: Vec::new(),
        expected_duration_ms: None,
        partial: false,
        timeline: None,
        chunk: None,
    });
    let folder = tempfile::tempdir().unwrap();
    let (mut ours, mut peer) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let started = Instant::now();
        let mut session = Session::start(&program("mpegflow-codec"), &[], 1);
        assert!(matches!(session.prepare(1), Some(FromCodec::Locked(_))));
        let ended = session.work(task.clone(), vec![bytes.clone()]);
        ours.push(Cost { wall: started.elapsed(), cpu: Duration::ZERO, memory: 0 });
        assert!(ended.status.success() && !ended.outputs[0].is_empty(), "{}", ended.log);
        let out = folder.path().join("out.mp4");
        let mut command = Command::new("bwrap");
        command
            .args(["--unshare-all", "--die-with-parent", "--ro-bind", "/", "/", "--bind"])
            .arg(folder.path())
            .arg(folder.path());
        command.args(["ffmpeg", "-nostdin", "-v", "error", "-y", "-threads", "1", "-i"]).arg(&clip);
        command.args(["-c:v", "libx264", "-preset", "ultrafast", "-crf", "23", "-threads", "1"]);
        command.args(["-movflags", "frag_keyframe+empty_moov+default_base_moof"]).arg(&out);
        peer.push(measure(&mut command));
    }
    json!({ "name": "start", "runs": runs, "metrics": [
        compare("wall s, exec to one frame out", "< 0.5", &ours, &peer, |c| c.wall),
    ]})
}
