//! Encode, package and check in a row, as a job does it.

use crate::media;
use crate::plans::{self, Packaging};
use crate::supervisor::{self, Bytes};
use mpegflow_protocol::encoder::EncoderSpeed;
use mpegflow_protocol::task::{CheckResult, EncodeResult, EncodeTask};
use std::path::PathBuf;
use std::sync::Arc;

/// A packaged result in memory and in a folder.
pub struct Packaged {
    pub encoded: EncodeResult,
    pub tracks: Vec<Bytes>,
    pub plan: Packaging,
    pub objects: Vec<Bytes>,
    pub folder: PathBuf,
    /// What the encode wrote to its log.
    pub log: String,
}

impl Packaged {
    pub fn check(&self) -> CheckResult {
        supervisor::run(self.plan.check.clone(), &self.objects, 0).check().clone()
    }
}

/// Encodes, packages, checks; the check must be clean.
pub fn run(name: &str, task: &EncodeTask, input: &Bytes, source_ms: Option<u64>) -> Packaged {
    let outputs = task.audio.len() + task.video.as_ref().map_or(0, |v| v.rungs.len());
    let encoded = supervisor::run(task.clone(), std::slice::from_ref(input), outputs);
    let result = encoded.encode().clone();
    let plan = plans::packaging(task, &result, source_ms);
    let log = encoded.log.clone();
    let tracks: Vec<Bytes> = encoded.outputs.into_iter().map(Arc::new).collect();
    let packaged = supervisor::run(plan.package.clone(), &tracks, 2 + 2 * tracks.len());
    packaged.package();
    let folder = media::folder().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    for (object, bytes) in plan.names.iter().zip(&packaged.outputs) {
        std::fs::write(folder.join(object), bytes).unwrap();
    }
    let objects = packaged.outputs.into_iter().map(Arc::new).collect();
    let whole = Packaged { encoded: result, tracks, plan, objects, folder, log };
    let check = whole.check();
    assert_eq!(check.problems, Vec::<String>::new(), "{name}");
    whole
}

#[test]
fn a_ladder_is_packaged_checked_and_plays() {
    let task = plans::encode(
        Some(plans::video(0, vec![plans::rung(0, 320, 240), plans::rung(1, 160, 120)])),
        vec![plans::audio(2, 1)],
    );
    let whole = run("ladder", &task, &media::plain(), Some(4_000));
    let index = whole.folder.join("index.m3u8");
    let text = std::fs::read_to_string(&index).unwrap();
    assert!(text.contains("AUDIO=\"audio\"\nvideo-240p.m3u8\n"), "{text}");
    let facts = media::ffprobe(
        "-count_frames -show_entries stream=codec_name,width,height,nb_read_frames -of csv=p=0",
        &index,
    );
    assert_eq!(facts.matches("h264,").count(), 4, "{facts}");
    assert!(facts.contains("h264,320,240,100") && facts.contains("h264,160,120,100"), "{facts}");
    // The same again gives the same bytes.
    let again = supervisor::run(whole.plan.package.clone(), &whole.tracks, whole.objects.len());
    for (first, second) in whole.objects.iter().zip(&again.outputs) {
        assert!(**first == *second);
    }
}

#[test]
fn sound_alone_pictures_alone_and_reordered_pictures_all_play() {
    media::plain();
    let alone = plans::encode(None, vec![plans::audio(0, 1)]);
    let sound = run("sound", &alone, &media::plain(), Some(4_000));
    let text = std::fs::read_to_string(sound.folder.join("index.m3u8")).unwrap();
    assert!(text.contains("CODECS=\"mp4a.40.2\"\naudio-0.m3u8") && !text.contains("EXT-X-MEDIA:"), "{text}");
    // B-frames, at a rate whose ticks do not divide, with frames missing.
    let uneven = media::make(
        "-f lavfi -i testsrc2=s=320x240:r=30000/1001:d=5 -vf select=not(between(n\\,40\\,70)) -vsync vfr \
         -c:v libx264 -preset ultrafast -pix_fmt yuv420p",
        "reordered.mp4",
    );
    let mut rungs = vec![plans::rung(0, 320, 240), plans::rung(1, 160, 120)];
    for rung in &mut rungs {
        rung.speed = EncoderSpeed::Veryfast;
    }
    let both = run("reordered", &plans::encode(Some(plans::video(0, rungs)), vec![]), &uneven, Some(5_000));
    let text = std::fs::read_to_string(both.folder.join("index.m3u8")).unwrap();
    assert!(text.contains("avc1.6400") && !text.contains("AUDIO"), "{text}");
    let facts = media::ffprobe(
        "-count_frames -show_entries stream=start_time,nb_read_frames -of csv=p=0",
        &both.folder.join("video-240p.m3u8"),
    );
    let frames = both.encoded.tracks[0].units;
    assert!(facts.contains(&format!("0.000000,{frames}")), "{facts}");
}
