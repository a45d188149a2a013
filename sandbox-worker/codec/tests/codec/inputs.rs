//! Inputs that need more than scaling: each compared with what Debian's ffmpeg makes of it.

use crate::supervisor;
use crate::{media, plans};
use mpegflow_protocol::failure::FailureCode;
use mpegflow_protocol::job::DecoderSet;
use mpegflow_protocol::task::EncodeTask;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn video_only(width: u32, height: u32) -> EncodeTask {
    let mut rung = plans::rung(0, width, height);
    rung.crf_tenths = 100;
    rung.max_bit_rate = 20_000_000;
    rung.buffer_bits = 40_000_000;
    let mut task = plans::encode(Some(plans::video(0, vec![rung])), vec![]);
    task.decoders = DecoderSet::Legacy;
    task
}

fn encode(name: &str, file: &Path, task: &EncodeTask) -> (u64, PathBuf) {
    let bytes = Arc::new(std::fs::read(file).unwrap());
    let outcome = supervisor::run(task.clone(), &[bytes], 1);
    let frames = outcome.encode().tracks[0].units;
    (frames, media::save(&outcome.outputs[0], &format!("in-{name}.mp4")))
}

#[test]
fn interlaced_frames_become_progressive_as_yadif_makes_them() {
    for (name, args) in [
        ("top.mpg", "-c:v mpeg2video -q:v 2 -flags +ilme+ildct -top 1"),
        ("bottom.mpg", "-c:v mpeg2video -q:v 2 -flags +ilme+ildct -top 0"),
        (
            "422.mkv",
            "-c:v libx264 -preset veryfast -crf 10 -pix_fmt yuv422p10le -flags +ilme+ildct -x264opts tff=1",
        ),
    ] {
        let fields = if name == "bottom.mpg" { "interleave_bottom" } else { "interleave_top" };
        let file = media::ffmpeg(
            &format!(
                "-f lavfi -i testsrc2=s=320x240:r=50:d=2 -vf tinterlace={fields},fieldorder={} {args}",
                if name == "bottom.mpg" { "bff" } else { "tff" }
            ),
            &format!("interlaced-{name}"),
        );
        let shown = media::ffmpeg(
            &format!(
                "-i {} -vf yadif=mode=send_frame:deint=interlaced -c:v libx264 -crf 5 -pix_fmt yuv420p",
                file.display()
            ),
            &format!("shown-{name}.mp4"),
        );
        let task = video_only(320, 240);
        let (frames, path) = encode(name, &file, &task);
        assert_eq!(
            frames.to_string(),
            media::ffprobe("-count_frames -show_entries stream=nb_read_frames -of csv=p=0", &shown)
        );
        let similar = media::ssim(&shown, &path, "null");
        let mut left = task.clone();
        left.video.as_mut().unwrap().deinterlace = false;
        let (_, combed) = encode(&format!("left-{name}"), &file, &left);
        let as_it_was = media::ssim(&shown, &combed, "null");
        assert!(similar > 0.98 && similar > as_it_was + 0.005, "{name}: {similar}, left alone {as_it_was}");
    }
}

#[test]
fn hdr_is_mapped_to_sdr_as_zimg_and_the_same_curve_map_it() {
    for (name, transfer) in [("pq", "smpte2084"), ("hlg", "arib-std-b67")] {
        // Colours that BT.709 has, in light of up to 600 cd/m². zimg goes by BT.2100, where the OOTF of HLG goes by luminance, only
        // where it may not approximate; what it does else goes by component and changes strong colours.
        let coded = format!(
            "zscale=agamma=0:tin=bt709:min=bt709:pin=bt709:rin=tv:t={transfer}:m=bt2020nc:p=bt2020:npl=600"
        );
        let light = format!("zscale=agamma=0:tin={transfer}:min=bt2020nc:pin=bt2020:rin=tv:t=linear:npl=203");
        let file = media::ffmpeg(
            &format!(
                "-f lavfi -i testsrc2=s=320x240:r=25:d=1 -vf {coded},format=yuv420p10le -c:v libx265 -x265-params log-level=none:colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc -crf 4"
            ),
            &format!("hdr-{name}.mp4"),
        );
        let shown = media::ffmpeg(
            &format!(
                "-i {} -vf {light},format=gbrpf32le,zscale=p=bt709,tonemap=tonemap=mobius:param=0.3:peak=4.926:desat=0,\
                 zscale=t=bt709:m=bt709:r=tv,format=yuv420p -c:v libx264 -crf 4",
                file.display()
            ),
            &format!("shown-{name}.mp4"),
        );
        let (frames, path) = encode(name, &file, &video_only(320, 240));
        assert_eq!(frames, 25);
        let tags = media::ffprobe(
            "-show_entries stream=pix_fmt,color_range,color_space,color_transfer,color_primaries -of csv=p=0",
            &path,
        );
        assert_eq!(tags, "yuv420p,tv,bt709,bt709,bt709", "{name}");
        let similar = media::ssim(&shown, &path, "null");
        let (ours, theirs) = (brightness(&path), brightness(&shown));
        assert!(similar > 0.95 && (ours - theirs).abs() < 6.0, "{name}: {similar}, {ours} and {theirs}");
    }
}

/// Average luma of the first frame.
fn brightness(file: &Path) -> f64 {
    let output = std::process::Command::new("ffmpeg")
        .args(["-nostdin", "-v", "info", "-i"])
        .arg(file)
        .args([
            "-frames:v",
            "1",
            "-vf",
            "signalstats,metadata=print:key=lavfi.signalstats.YAVG",
            "-f",
            "null",
            "-",
        ])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let value = text.split("YAVG=").nth(1).and_then(|t| t.split_whitespace().next());
    value.and_then(|v| v.parse().ok()).unwrap_or_else(|| panic!("{text}"))
}

#[test]
fn surround_sound_is_mixed_down_with_all_that_is_heard() {
    // A tone in one channel of 5.1 and 7.1: front, centre and surround are heard in stereo, on their side.
    for (layout, count, channel, left, right) in [
        ("5.1", 6, 0, true, false),
        ("5.1", 6, 1, false, true),
        ("5.1", 6, 2, true, true),
        ("5.1", 6, 4, true, false),
        ("7.1", 8, 7, false, true),
        ("mono", 1, 0, true, true),
    ] {
        let tones: Vec<String> =
            (0..count).map(|c| if c == channel { "0.4*sin(2*PI*440*t)" } else { "0" }.to_owned()).collect();
        let file = media::ffmpeg(
            &format!("-f lavfi -i aevalsrc={}:c={layout}:s=48000:d=1 -c:a flac", tones.join("|")),
            &format!("tone-{layout}-{channel}.mkv"),
        );
        let mut task = plans::encode(None, vec![plans::audio(0, 0)]);
        task.decoders = DecoderSet::Core;
        let outcome = supervisor::run(task, &[Arc::new(std::fs::read(&file).unwrap())], 1);
        outcome.encode();
        let path = media::save(&outcome.outputs[0], &format!("mixed-{layout}-{channel}.mp4"));
        for (side, heard) in [("c0", left), ("c1", right)] {
            let level = loudness(&path, side);
            assert_eq!(level > -35.0, heard, "{layout}, channel {channel}, {side}: {level} dB");
        }
    }
}

/// Mean volume of one channel, in dB.
fn loudness(file: &Path, channel: &str) -> f64 {
    let output = std::process::Command::new("ffmpeg")
        .args(["-nostdin", "-hide_banner", "-i"])
        .arg(file)
        .args(["-af", &format!("pan=mono|c0={channel},volumedetect"), "-f", "null", "-"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let value = text.split("mean_volume: ").nth(1).and_then(|t| t.split_whitespace().next());
    value.map_or(-91.0, |v| v.parse().unwrap())
}

#[test]
fn an_input_that_is_cut_off_fails_and_says_how_much_is_there_unless_it_is_allowed() {
    let whole = media::make(
        "-f lavfi -i testsrc2=s=160x120:r=25:d=8 -c:v libx264 -preset ultrafast -g 25 -pix_fmt yuv420p",
        "cut-source.mkv",
    );
    let cut = Arc::new(whole[..whole.len() / 2].to_vec());
    let mut task = video_only(160, 120);
    task.expected_duration_ms = Some(8_000);
    let refused = supervisor::run(task.clone(), std::slice::from_ref(&cut), 1);
    assert_eq!(refused.code(), FailureCode::InputTruncated);
    let there = format!("{} of {} bytes", cut.len(), whole.len());
    assert!(refused.failure().to_string().contains(&there), "{}", refused.failure());
    task.partial = true;
    let taken = supervisor::run(task.clone(), &[cut], 1);
    let track = &taken.encode().tracks[0];
    assert!((50..=150).contains(&track.units) && taken.encode().decode_errors > 0, "{track:?}");
    // A transport stream that ends inside a packet.
    let stream = media::make(
        "-f lavfi -i testsrc2=s=160x120:r=25:d=4 -c:v libx264 -preset ultrafast -g 25 -pix_fmt yuv420p",
        "cut-source.ts",
    );
    let cut = Arc::new(stream[..stream.len() / 2 / 188 * 188 + 100].to_vec());
    task.partial = false;
    let refused = supervisor::run(task.clone(), std::slice::from_ref(&cut), 1);
    assert_eq!(refused.code(), FailureCode::InputTruncated);
    let message = refused.failure().to_string();
    let good =
        message.split_once("good to ").and_then(|(_, rest)| rest.split(' ').next()?.parse::<u64>().ok());
    assert!(good.is_some_and(|ms| (1_500..=2_500).contains(&ms)), "half of four seconds: {message}");
    task.partial = true;
    let taken = supervisor::run(task, &[cut], 1);
    assert!((20..=80).contains(&taken.encode().tracks[0].units), "{:?}", taken.encode());
}
