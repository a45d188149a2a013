//! What a probe says, and what it refuses.

use crate::supervisor::Bytes;
use crate::{media, plans, supervisor};
use mpegflow_protocol::failure::FailureCode;
use mpegflow_protocol::job::DecoderSet;
use std::sync::Arc;

#[test]
fn a_plain_clip_is_described_as_it_is() {
    let outcome = supervisor::run(plans::probe(DecoderSet::Core), &[media::plain()], 0);
    let media = &outcome.probe().media;
    assert_eq!(media.format, "mov,mp4,m4a,3gp,3g2,mj2");
    assert!((3_990..=4_030).contains(&media.duration_ms.unwrap()), "{media:?}");
    let video = media.streams[0].video().unwrap();
    assert_eq!((video.width, video.height, video.rotation, video.mirrored), (320, 240, 0, false));
    assert_eq!(media.streams[0].frames, Some(100));
    assert_eq!(media.streams[0].codec_tag.as_deref(), Some("avc1"));
    let audio = media.streams[1].audio().unwrap();
    assert_eq!((audio.sample_rate, audio.channels), (48_000, 2));
    assert!(media.streams.iter().all(|s| s.decodable));
    assert!(outcome.status.success() && outcome.log.is_empty(), "{}", outcome.log);
    assert!(outcome.reads < 16, "{} reads for a small file", outcome.reads);
}

fn code_of(input: &Bytes, set: DecoderSet) -> FailureCode {
    let outcome = supervisor::run(plans::probe(set), std::slice::from_ref(input), 0);
    assert_eq!(outcome.killed_by(), None, "{}", outcome.log);
    outcome.code()
}

fn bytes(text: &[u8]) -> Bytes {
    Arc::new(text.to_vec())
}

#[test]
fn each_bad_input_is_refused_with_its_own_code() {
    use FailureCode::*;
    let whole = media::plain();
    let cut = |n: usize| Arc::new(whole[..n].to_vec());
    let front = media::make("-i plain.mp4 -c copy -movflags faststart", "front.mp4");
    let old = "-f lavfi -i testsrc2=s=160x120:r=25:d=0.4";
    media::save(b"1\n00:00:00,000 --> 00:00:01,000\nhello\n", "words.srt");
    for (name, input, set, expected) in [
        ("empty", bytes(b""), DecoderSet::Core, InputEmpty),
        ("text", bytes(b"hello\nthis is not a video\n"), DecoderSet::Core, InputUnrecognised),
        (
            "noise",
            Arc::new((0..100_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()),
            DecoderSet::Legacy,
            InputUnrecognised,
        ),
        ("moov missing", cut(whole.len() / 2), DecoderSet::Core, InputTruncated),
        ("end missing", Arc::new(front[..front.len() * 3 / 4].to_vec()), DecoderSet::Core, InputTruncated),
        (
            "png",
            media::make("-f lavfi -i testsrc2=s=64x64 -frames:v 1", "i.png"),
            DecoderSet::Core,
            InputIsImage,
        ),
        (
            "jpeg",
            media::make("-f lavfi -i testsrc2=s=64x64 -frames:v 1", "i.jpg"),
            DecoderSet::Core,
            InputIsImage,
        ),
        (
            "gif",
            media::make("-f lavfi -i testsrc2=s=64x64 -frames:v 1", "i.gif"),
            DecoderSet::Core,
            InputIsImage,
        ),
        (
            "bmp",
            media::make("-f lavfi -i testsrc2=s=64x64 -frames:v 1", "i.bmp"),
            DecoderSet::Core,
            InputIsImage,
        ),
        (
            "tiff",
            media::make("-f lavfi -i testsrc2=s=64x64 -frames:v 1", "i.tiff"),
            DecoderSet::Core,
            InputIsImage,
        ),
        (
            "webp",
            media::make("-f lavfi -i testsrc2=s=64x64 -frames:v 1", "i.webp"),
            DecoderSet::Core,
            InputIsImage,
        ),
        ("hls", bytes(b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"), DecoderSet::Core, InputIsPlaylist),
        ("ffconcat", bytes(b"ffconcat version 1.0\nfile '/etc/passwd'\n"), DecoderSet::Core, InputIsPlaylist),
        ("avi", media::make(&format!("{old} -c:v mpeg4"), "o.avi"), DecoderSet::Core, DecoderNotAllowed),
        ("flv", media::make(old, "o.flv"), DecoderSet::Core, DecoderNotAllowed),
        ("nut", media::make(old, "o.nut"), DecoderSet::Legacy, InputUnrecognised),
        (
            "dv",
            media::make("-f lavfi -i testsrc2=s=720x576:r=25:d=0.2 -target pal-dv", "o.dv"),
            DecoderSet::Legacy,
            InputUnrecognised,
        ),
        (
            "12000²",
            media::make(
                "-f lavfi -i color=s=12000x12000:r=1:d=1 -frames:v 1 -c:v libx264 -preset ultrafast -pix_fmt yuv420p",
                "huge.mp4",
            ),
            DecoderSet::Core,
            FrameTooLarge,
        ),
        (
            "days",
            media::make(
                "-f lavfi -i color=s=64x64:r=1/40000 -frames:v 4 -c:v libx264 -pix_fmt yuv420p -video_track_timescale 1000",
                "days.mp4",
            ),
            DecoderSet::Core,
            DurationTooLong,
        ),
        ("subtitles only", media::make("-i words.srt", "words.mkv"), DecoderSet::Core, NoStreams),
    ] {
        let outcome = supervisor::run(plans::probe(set), std::slice::from_ref(&input), 0);
        assert_eq!(outcome.failure().code, expected, "{name}: {}", outcome.failure());
    }
}

#[test]
fn a_manifest_never_gives_another_files_content() {
    let secret = media::ffmpeg("-f lavfi -i testsrc2=s=64x64:r=25:d=0.4 -c:v libx264", "secret.mp4");
    let secret = secret.display();
    let mpd = format!(
        "<?xml version=\"1.0\"?><MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\" type=\"static\" mediaPresentationDuration=\"PT1S\">\
         <Period><AdaptationSet mimeType=\"video/mp4\"><Representation id=\"0\" bandwidth=\"1\">\
         <BaseURL>{secret}</BaseURL><SegmentBase/></Representation></AdaptationSet></Period></MPD>"
    );
    let comment = format!("<!-- {} -->{mpd}", "x".repeat(5_000));
    for text in [
        mpd,
        comment,
        format!("#EXTM3U\n#EXTINF:1,\n{secret}\n"),
        format!("ffconcat version 1.0\nfile {secret}\n"),
    ] {
        let code = code_of(&bytes(text.as_bytes()), DecoderSet::Legacy);
        assert!(matches!(code, FailureCode::InputIsPlaylist | FailureCode::InputUnrecognised), "{code}");
    }
}

#[test]
fn turns_pixel_shapes_and_missing_durations_are_found() {
    let probe = |input: &Bytes| {
        let outcome = supervisor::run(plans::probe(DecoderSet::Core), std::slice::from_ref(input), 0);
        outcome.probe().media.clone()
    };
    media::plain();
    // This ffmpeg writes the matrix for a quarter turn against the clock.
    let turned = media::make("-i plain.mp4 -c copy -metadata:s:v:0 rotate=90", "turned.mp4");
    assert_eq!(probe(&turned).streams[0].video().unwrap().rotation, 270);
    let wide = media::make("-f lavfi -i testsrc2=s=160x120:r=25:d=0.4,setsar=4/3 -c:v libx264", "wide.mp4");
    let wide = probe(&wide);
    let aspect = wide.streams[0].video().unwrap().sample_aspect;
    assert_eq!((aspect.num, aspect.den), (4, 3));
    // As browsers record: no duration, no seeking.
    let live = media::make(
        "-f lavfi -i testsrc2=s=160x120:r=25:d=2 -c:v libvpx -deadline realtime -live 1",
        "live.webm",
    );
    assert!((1_950..=2_050).contains(&probe(&live).duration_ms.unwrap()));
    let adts = media::make("-i plain.mp4 -vn -c copy", "plain.aac");
    assert!((3_990..=4_050).contains(&probe(&adts).duration_ms.unwrap()));
    let hevc = media::make(
        "-f lavfi -i testsrc2=s=160x120:r=25:d=0.4 -c:v libx265 -pix_fmt yuv420p10le -color_primaries bt2020 -color_trc smpte2084 -colorspace bt2020nc -x265-params log-level=none",
        "hdr.mp4",
    );
    let hevc = probe(&hevc);
    let video = hevc.streams[0].video().unwrap();
    assert_eq!(video.pixel_format.as_deref(), Some("yuv420p10le"));
    assert_eq!(video.color_transfer.as_deref(), Some("smpte2084"));
}

#[test]
fn joined_recordings_and_subtitles_do_not_stretch_the_duration() {
    media::plain();
    let first = media::make("-i plain.mp4 -c copy -output_ts_offset 500", "joined-a.ts");
    let second = media::make("-i plain.mp4 -c copy -output_ts_offset 100", "joined-b.ts");
    let joined = Arc::new([&first[..], &second[..]].concat());
    let srt = media::save(b"1\n00:00:01,000 --> 00:00:20,000\nhello\n", "long.srt");
    assert!(srt.exists());
    let subtitled = media::make("-i plain.mp4 -i long.srt -map 0 -map 1 -c copy -c:s srt", "subtitled.mkv");
    for (input, expected) in [(joined, 7_900..8_200), (subtitled, 3_900..4_100)] {
        let outcome = supervisor::run(plans::probe(DecoderSet::Core), &[input], 0);
        let duration = outcome.probe().media.duration_ms.unwrap();
        assert!(expected.contains(&duration), "{duration}");
    }
}
