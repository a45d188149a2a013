//! Forms beside the H.264 ladder: other codecs, one file, pictures.

use crate::supervisor::{self, Bytes};
use crate::{media, plans, whole};
use mpegflow_protocol::encoder::{EncoderSpeed, Tune, Tuning, VideoCodec};
use mpegflow_protocol::failure::FailureCode;
use mpegflow_protocol::job::KeptTag;
use mpegflow_protocol::task::{
    CheckFile, CheckStill, CheckTask, ExpectTrack, FileTag, FileTrack, PackageFile, PackageStill,
    PackageTask, PosterEncode, SpriteIndex, SpritesEncode,
};
use std::path::Path;
use std::sync::Arc;

#[test]
fn each_codec_is_encoded_packaged_and_checked_under_the_locks() {
    for (codec, tuning, string) in [
        (VideoCodec::H264, Tuning { tune: Some(Tune::Film), refs: Some(2), ..Tuning::default() }, "avc1.64"),
        (VideoCodec::Hevc, Tuning { b_frames: Some(2), aq_mode: Some(1), ..Tuning::default() }, "hvc1.1.6.L"),
        (VideoCodec::Vp9, Tuning { lookahead: Some(8), ..Tuning::default() }, "vp09.00."),
        (VideoCodec::Av1, Tuning::default(), "av01.0."),
    ] {
        let mut rung = plans::rung(0, 160, 120);
        (rung.codec, rung.tuning, rung.speed) = (codec, tuning, EncoderSpeed::Fast);
        let task = plans::encode(Some(plans::video(0, vec![rung])), vec![plans::audio(1, 1)]);
        let name = format!("codec-{}", codec.as_str());
        let made = whole::run(&name, &task, &media::plain(), Some(4_000));
        let index = std::fs::read_to_string(made.folder.join("index.m3u8")).unwrap();
        assert!(index.contains(&format!("CODECS=\"{string}")), "{index}");
        let dash = std::fs::read_to_string(made.folder.join("manifest.mpd")).unwrap();
        assert!(dash.contains(&format!("codecs=\"{string}")), "{dash}");
        let track = made.folder.join("video-120p.mp4");
        let facts = media::ffprobe(
            "-count_frames -show_entries stream=codec_name,width,height,nb_read_frames -of csv=p=0",
            &track,
        );
        assert_eq!(facts, format!("{},160,120,100", codec.as_str()));
        let packets = media::ffprobe("-show_entries packet=pts_time,flags -of csv=p=0", &track);
        let keys: Vec<&str> =
            packets.lines().filter_map(|p| p.split_once(",K")).map(|(time, _)| time).collect();
        assert_eq!(keys, ["0.000000", "1.000000", "2.000000", "3.000000"], "{name}");
        media::plain();
        let similar = media::ssim(&media::folder().join("plain.mp4"), &track, "scale=160:120:flags=bicubic");
        assert!(similar > 0.95, "{name}: {similar}");
    }
}

fn tags() -> Vec<FileTag> {
    [(KeptTag::Title, "A film – ein Film"), (KeptTag::Location, "+52.5200+013.4050/")]
        .map(|(tag, value)| FileTag { tag, value: value.into() })
        .into()
}

/// Encodes, and packages all tracks into one file; gives the package's plan, the tracks, the file and its check.
fn file(name: &str, source: Bytes, audio_only: bool) -> (PackageTask, Vec<Bytes>, Bytes, CheckTask) {
    let mut rung = plans::rung(0, 320, 240);
    rung.speed = EncoderSpeed::Veryfast;
    let task = if audio_only {
        plans::encode(None, vec![plans::audio(0, 1)])
    } else {
        plans::encode(Some(plans::video(0, vec![rung])), vec![plans::audio(1, 1)])
    };
    let encoded = supervisor::run(task.clone(), &[source], if audio_only { 1 } else { 2 });
    let result = encoded.encode().clone();
    let plan = plans::packaging(&task, &result, None);
    let tracks: Vec<FileTrack> = plan
        .package
        .tracks
        .iter()
        .map(|t| FileTrack { input: t.input, expect: t.expect.clone(), language: t.language.clone() })
        .collect();
    let expects: Vec<ExpectTrack> = tracks.iter().map(|t| t.expect.clone()).collect();
    let package = PackageTask {
        tracks: vec![],
        manifests: None,
        file: Some(PackageFile { output: 0, uri: name.into(), tracks, tags: tags() }),
        ..plan.package
    };
    let check = CheckTask {
        tracks: vec![],
        manifests: None,
        file: Some(CheckFile { input: 0, uri: name.into(), tracks: expects, tags: tags() }),
        ..plan.check
    };
    let inputs: Vec<Bytes> = encoded.outputs.into_iter().map(Arc::new).collect();
    let packaged = supervisor::run(package.clone(), &inputs, 1);
    let made = packaged.package().file.clone().unwrap();
    assert_eq!(made.bytes, packaged.outputs[0].len() as u64);
    let object = Arc::new(packaged.outputs[0].clone());
    (package, inputs, object, check)
}

fn boxes(file: &[u8]) -> Vec<String> {
    let (mut at, mut found) = (0usize, Vec::new());
    while at < file.len() {
        let size = u32::from_be_bytes(file[at..at + 4].try_into().unwrap()) as usize;
        found.push(String::from_utf8_lossy(&file[at + 4..at + 8]).into_owned());
        let large = || u64::from_be_bytes(file[at + 8..at + 16].try_into().unwrap()) as usize;
        at += if size == 1 { large() } else { size };
    }
    found
}

#[test]
fn a_file_has_its_index_first_and_plays_as_its_source_does() {
    let (package, tracks, object, check) = file("video.mp4", media::plain(), false);
    assert_eq!(boxes(&object), ["ftyp", "moov", "mdat"]);
    let checked = supervisor::run(check.clone(), std::slice::from_ref(&object), 0);
    assert_eq!(checked.check().problems, Vec::<String>::new());
    let path = media::save(&object, "file-video.mp4");
    let facts = media::ffprobe(
        "-count_frames -show_entries stream=codec_name,start_time,nb_read_frames:stream_tags=language -of csv=p=0",
        &path,
    );
    assert!(facts.starts_with("h264,0.000000,100,") && facts.contains("aac,0.000000,"), "{facts}");
    assert!(facts.ends_with("eng"), "{facts}");
    for (tag, value) in [("title", "A film – ein Film"), ("location", "+52.5200+013.4050/")] {
        let said = media::ffprobe(&format!("-show_entries format_tags={tag} -of csv=p=0"), &path);
        assert_eq!(said, value);
    }
    let lasts: f64 = media::ffprobe("-show_entries format=duration -of csv=p=0", &path).parse().unwrap();
    assert!((lasts - 4.0).abs() < 0.05, "{lasts}");
    let source = media::folder().join("plain.mp4");
    let similar = media::ssim(&source, &path, "null");
    assert!(similar > 0.97, "{similar}");
    // The sound is that of the fragmented track, packet by packet, at the same times.
    let track = media::save(&tracks[1], "file-audio-track.mp4");
    assert_eq!(samples(&path), samples(&track));
    // The same again gives the same bytes.
    let again = supervisor::run(package, &tracks, 1);
    assert!(again.outputs[0] == *object);
}

#[test]
fn a_file_of_few_pictures_a_second_lasts_as_long_as_the_last_of_them() {
    for rate in ["1/2", "8", "15"] {
        let args = format!(
            "-f lavfi -i testsrc2=s=320x240:r={rate}:d=4 -f lavfi -i sine=440:d=4 -c:v libx264 -c:a aac"
        );
        let source = media::make(&args, &format!("few-{}.mp4", rate.replace('/', "-")));
        let (_, _, object, check) = file("video.mp4", source, false);
        let checked = supervisor::run(check, &[object], 0);
        assert_eq!(checked.check().problems, Vec::<String>::new(), "{rate} a second");
        assert_eq!(checked.check().tracks[0].duration_ms, 4_000, "{rate} a second");
    }
}

/// When each packet of sound is heard, and the MD5 of its bytes.
fn samples(file: &Path) -> String {
    let entries = "-select_streams a -show_data_hash md5 -show_entries packet=pts_time,data_hash -of csv=p=0";
    // What a packet carries beside its bytes makes a line of its own.
    media::ffprobe(entries, file).replace(",\n,", ",")
}

#[test]
fn sound_alone_becomes_a_file() {
    let (_, _, object, check) = file("audio.m4a", media::plain(), true);
    let checked = supervisor::run(check, std::slice::from_ref(&object), 0);
    assert_eq!(checked.check().problems, Vec::<String>::new());
    let path = media::save(&object, "file-audio.m4a");
    assert_eq!(
        media::ffprobe("-show_entries stream=codec_name,sample_rate,channels -of csv=p=0", &path),
        "aac,48000,2"
    );
}

#[test]
fn a_file_that_was_tampered_with_is_found() {
    let (_, _, object, check) = file("video.mp4", media::plain(), false);
    type Edit = (&'static str, fn(&mut Vec<u8>));
    let edits: [Edit; 7] = [
        ("another title", |b| {
            let at = b.windows(6).position(|w| w == b"A film").unwrap();
            b[at] = b'B';
        }),
        ("a cut file", |b| b.truncate(b.len() - 10)),
        ("something behind it", |b| b.extend_from_slice(b"\0\0\0\x08free")),
        ("another box", |b| b[4..8].copy_from_slice(b"free")),
        ("another codec", |b| {
            let at = b.windows(4).position(|w| w == b"avc1").unwrap();
            b[at..at + 4].copy_from_slice(b"hev1");
        }),
        ("damaged pictures", |b| {
            let at = b.windows(4).position(|w| w == b"mdat").unwrap() + 300;
            b[at..at + 900].fill(0xaa);
        }),
        ("other sync samples", |b| {
            let at = b.windows(4).position(|w| w == b"stss").unwrap();
            b[at + 15] ^= 3;
        }),
    ];
    for (what, edit) in edits {
        let mut bytes = object.to_vec();
        edit(&mut bytes);
        let outcome = supervisor::run(check.clone(), &[Arc::new(bytes)], 0);
        assert!(!outcome.check().problems.is_empty(), "{what} went unseen");
    }
}

fn stills() -> (mpegflow_protocol::task::EncodeTask, PackageTask, CheckTask) {
    let mut video = plans::video(0, vec![]);
    video.poster = Some(PosterEncode { output: 0, width: 320, height: 240, at_ms: 2_000 });
    video.sprites = Some(SpritesEncode {
        output: 1,
        tile_width: 80,
        tile_height: 60,
        columns: 3,
        rows: 2,
        interval_ms: 1_000,
    });
    let index = SpriteIndex {
        uri: "sprites.vtt".into(),
        tile_width: 80,
        tile_height: 60,
        columns: 3,
        tiles: 4,
        interval_ms: 1_000,
        duration_ms: 4_000,
    };
    let still = |input, uri: &str, width, height, index| PackageStill {
        input,
        output: input,
        uri: uri.into(),
        width,
        height,
        index,
    };
    let package = PackageTask {
        tracks: vec![],
        segment_ms: 1_000,
        manifests: None,
        file: None,
        stills: vec![
            still(0, "poster.jpg", 320, 240, None),
            still(1, "sprites.jpg", 240, 120, Some((2, index))),
        ],
    };
    let stills = package.stills.iter().map(|s| CheckStill {
        input: s.output,
        uri: s.uri.clone(),
        width: s.width,
        height: s.height,
        index: s.index.clone(),
    });
    let check = CheckTask {
        tracks: vec![],
        segment_ms: 1_000,
        source_duration_ms: None,
        manifests: None,
        file: None,
        stills: stills.collect(),
        list: false,
    };
    (plans::encode(Some(video), vec![]), package, check)
}

#[test]
fn a_poster_and_a_sprite_sheet_show_the_moments_they_are_for() {
    let (task, package, check) = stills();
    let encoded = supervisor::run(task, &[media::plain()], 2);
    let result = encoded.encode();
    assert_eq!(result.tracks.iter().map(|t| t.units).collect::<Vec<_>>(), [1, 4]);
    let pictures: Vec<Bytes> = encoded.outputs.into_iter().map(Arc::new).collect();
    let packaged = supervisor::run(package.clone(), &pictures, 3);
    packaged.package();
    let objects: Vec<Bytes> = packaged.outputs.into_iter().map(Arc::new).collect();
    let checked = supervisor::run(check.clone(), &objects, 0);
    assert_eq!(checked.check().problems, Vec::<String>::new());

    let poster = media::save(&objects[0], "poster.jpg");
    media::plain();
    media::ffmpeg("-ss 2 -i plain.mp4 -frames:v 1", "at-2.png");
    let similar = media::ssim(&media::folder().join("at-2.png"), &poster, "null");
    assert!(similar > 0.95, "poster: {similar}");
    // Tile 2, at the right end of the first row, shows second 2; tile 3, below the first, second 3.
    let sheet = media::save(&objects[1], "sprites.jpg");
    media::ffmpeg("-i plain.mp4 -frames:v 1 -vf scale=80:60:flags=bicubic", "source-0.png");
    for (tile, at, crop) in [(2, 2, "80:60:160:0"), (3, 3, "80:60:0:60")] {
        let shown =
            media::ffmpeg(&format!("-i {} -vf crop={crop}", sheet.display()), &format!("tile-{tile}.png"));
        let source = media::ffmpeg(
            &format!("-ss {at} -i plain.mp4 -frames:v 1 -vf scale=80:60:flags=bicubic"),
            &format!("source-{tile}.png"),
        );
        let similar = media::ssim(&source, &shown, "null");
        let other = media::ssim(&media::folder().join("source-0.png"), &shown, "null");
        assert!(similar > 0.85 && similar > other + 0.1, "tile {tile}: {similar}, another moment {other}");
    }
    let vtt = String::from_utf8(objects[2].to_vec()).unwrap();
    assert!(vtt.contains("00:00:03.000 --> 00:00:04.000\nsprites.jpg#xywh=0,60,80,60\n"), "{vtt}");

    // A viewer's view of what was changed on the way.
    for (index, edit) in [(0, b"\xff\xfe\0\x04hi".to_vec()), (1, b"\xff\xe1\0\x08Exif\0\0".to_vec())] {
        let mut bytes = pictures[index].to_vec();
        bytes.splice(2..2, edit);
        let mut inputs = pictures.clone();
        inputs[index] = Arc::new(bytes);
        assert_eq!(supervisor::run(package.clone(), &inputs, 3).code(), FailureCode::OutputRejected);
    }
    let mut swapped = objects.clone();
    swapped.swap(0, 1);
    assert!(!supervisor::run(check, &swapped, 0).check().problems.is_empty());
}
