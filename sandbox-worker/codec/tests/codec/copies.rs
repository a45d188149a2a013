//! Rungs that are the source as it is: what is copied, what is not, and that a copy passes all that an encode has to pass.

use crate::supervisor::{self, Bytes};
use crate::{media, plans, whole};
use mpegflow_protocol::task::EncodeTask;
use std::path::Path;
use std::sync::Arc;

const SOURCE: &str = "-f lavfi -i testsrc2=s=320x180:r=25:d=4 -f lavfi -i sine=440:d=4:r=48000 -c:v libx264 -preset veryfast \
                      -pix_fmt yuv420p -c:a aac";

fn task(rungs: &[(u32, u32)]) -> EncodeTask {
    let rungs = (0..).zip(rungs).map(|(n, (w, h))| {
        let mut rung = plans::rung(n, *w, *h);
        rung.copy = n == 0;
        rung
    });
    let rungs: Vec<_> = rungs.collect();
    let sound = rungs.len() as u32;
    plans::encode(Some(plans::video(0, rungs)), vec![plans::audio(sound, 1)])
}

/// MD5 of the decoded frames.
fn frames(file: &Path) -> String {
    let output = std::process::Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-i"])
        .arg(file)
        .args(["-map", "0:v:0", "-fps_mode", "passthrough", "-f", "framemd5", "-"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let rows = text.lines().filter(|l| !l.starts_with('#'));
    rows.filter_map(|l| l.rsplit(',').next()).map(str::trim).collect::<Vec<_>>().join("\n")
}

#[test]
fn what_already_is_the_rung_is_copied_beside_an_encoded_one_and_plays() {
    for (name, args) in
        [("copied.mp4", "-g 25 -bf 2"), ("copied.mkv", "-g 25 -bf 2"), ("copied-plain.mp4", "-g 25 -bf 0")]
    {
        let source = media::make(&format!("{SOURCE} {args}"), name);
        let made = whole::run(&format!("of-{name}"), &task(&[(320, 180), (160, 90)]), &source, Some(4_000));
        let copied: Vec<bool> = made.encoded.tracks.iter().map(|t| t.copied).collect();
        assert_eq!(copied, [true, false, false], "{name}: {}", made.log);
        assert_eq!(made.encoded.decode_errors, 0);
        let track = made.folder.join("video-180p.mp4");
        assert_eq!(frames(&track), frames(&media::folder().join(name)), "{name}");
        // The encoder of the source wrote a note about itself into its first picture.
        let told = |bytes: &[u8]| bytes.windows(4).any(|w| w == b"x264");
        assert!(told(&source) && !told(&std::fs::read(&track).unwrap()), "{name}");
        let times =
            |file: &Path| media::ffprobe("-select_streams v -show_entries frame=pts_time -of csv=p=0", file);
        assert_eq!(times(&track), times(&made.folder.join("video-90p.mp4")), "{name}");
    }
}

#[test]
fn alone_it_is_copied_without_decoding_it_twice() {
    let source = media::make(&format!("{SOURCE} -g 50"), "copied-alone.mp4");
    let mut task = task(&[(320, 180)]);
    task.segment_ms = 2_000;
    let made = whole::run("of-copied-alone", &task, &source, Some(4_000));
    assert!(made.encoded.tracks[0].copied);
    assert_eq!(made.encoded.frames_decoded, 100);
}

#[test]
fn what_is_not_the_rung_is_encoded_as_if_nobody_had_asked() {
    for (name, args) in [
        // No key frame where a segment has to begin; groups that are open; fields; other chroma; other ranges.
        ("far-keys.mp4", "-g 250"),
        ("open.mp4", "-g 25 -bf 2 -x264-params open-gop=1:bframes=2"),
        ("fields.mp4", "-g 25 -flags +ildct+ilme"),
        ("422.mp4", "-g 25 -pix_fmt yuv422p"),
        ("full.mp4", "-g 25 -pix_fmt yuvj420p"),
        ("dense.mp4", "-g 25 -crf 0 -preset ultrafast -qp 1"),
        ("baseline.mp4", "-g 12 -vf setsar=4/3"),
    ] {
        let source = media::make(&format!("{SOURCE} {args}"), &format!("not-{name}"));
        let mut task = task(&[(320, 180)]);
        if name == "dense.mp4" {
            task.video.as_mut().unwrap().rungs[0].max_bit_rate = 300_000;
        }
        let outcome = supervisor::run(task, &[source], 2);
        let result = outcome.encode();
        assert!(!result.tracks[0].copied, "{name}: {}", outcome.log);
        assert!(outcome.log.contains("encoded and not copied"), "{name}: {}", outcome.log);
        assert_eq!(result.tracks[0].units, 100, "{name}");
    }
}

#[test]
fn a_stream_that_is_not_whole_or_not_what_it_seems_is_not_passed_on() {
    let source = media::make(&format!("{SOURCE} -g 25 -bf 0"), "to-be-bent.mp4");
    // Where the first picture begins: with the length of the encoder's note.
    let note = source.windows(4).position(|w| w == b"x264").unwrap();
    let place = source[..note].windows(2).rposition(|w| w == [6, 5]).unwrap() - 4;
    type Edit = fn(&mut Vec<u8>, usize);
    let edits: [(&str, Edit); 4] = [
        ("a dent in a slice", |b, at| b[at + 3_000..at + 3_040].fill(0x5a)),
        ("another kind of unit", |b, at| b[at + 4] = b[at + 4] & 0xe0 | 20),
        ("a forbidden bit", |b, at| {
            // The first slice, behind the note.
            let note = u32::from_be_bytes(b[at..at + 4].try_into().unwrap()) as usize;
            b[at + 4 + note + 4] |= 0x80;
        }),
        ("a length that is wrong", |b, at| b[at + 2] ^= 1),
    ];
    for (what, edit) in edits {
        let mut bytes = source.to_vec();
        edit(&mut bytes, place);
        let outcome = supervisor::run(task(&[(320, 180)]), &[Arc::new(bytes) as Bytes], 2);
        match &outcome.answer {
            Some(Ok(_)) => assert!(!outcome.encode().tracks[0].copied, "{what} was passed on"),
            // Encoding it failed for the same damage.
            Some(Err(failure)) => {
                assert_eq!(failure.class(), mpegflow_protocol::failure::FailureClass::Media, "{what}")
            }
            None => panic!("{what}: {}", outcome.log),
        }
    }
}
