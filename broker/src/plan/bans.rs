//! Decoders and demuxers that no task may use for now: what somebody who runs a broker says on the day of a vulnerability.
//!
//! A ban reaches the codec with each lease, which refuses what is banned whoever asks for it, and the planner, which refuses before
//! an hour of work what the codec would refuse after it.

use crate::model::Time;
use crate::state::{Decision, Ending, JobMove, TaskMove};
use mpegflow_protocol::decoders::{DECODERS, canonical};
use mpegflow_protocol::encoder::VideoCodec;
use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::media::{MediaInfo, StreamInfo};
use mpegflow_protocol::task::{CheckTask, EncodeTask, ExpectTrack, TaskResult, TaskSpec};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// A ban.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ban {
    /// The codec's or demuxer's name.
    pub name: String,
    /// Why, for whoever's job fails.
    pub reason: String,
    /// Since when.
    pub at: Time,
}

/// The bans that hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bans(Vec<Ban>);

/// FFmpeg's name of the demuxer of everything that is made here.
const OUTPUT_DEMUXER: &str = "mov";

impl Bans {
    /// These.
    pub const fn new(bans: Vec<Ban>) -> Self {
        Self(bans)
    }

    /// Their names.
    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(|ban| ban.name.clone()).collect()
    }

    /// Tells one state of the bans from another; 0 where there are none.
    pub fn version(&self) -> u64 {
        if self.0.is_empty() {
            return 0;
        }
        let mut hasher = DefaultHasher::new();
        self.0.iter().for_each(|ban| ban.name.hash(&mut hasher));
        hasher.finish().max(1)
    }

    fn of(&self, name: &str) -> Option<&Ban> {
        let known = canonical(name).unwrap_or(name);
        self.0.iter().find(|ban| ban.name == known || ban.name == name)
    }

    fn of_format(&self, format: &str) -> Option<&Ban> {
        format.split(',').find_map(|name| self.of(name))
    }

    fn refuse<'a>(&self, names: impl IntoIterator<Item = (&'a str, &'a str)>) -> Option<Failure> {
        names.into_iter().find_map(|(name, of)| {
            let ban = self.of(name)?;
            let message = format!(
                "{of} needs {name}, which is banned here for now: {}. Submit the job again once the ban is lifted.",
                ban.reason
            );
            Some(Failure::new(FailureCode::DecoderBanned, message))
        })
    }

    /// Why an encode of this input may not be; `None` where it may.
    pub fn refuse_encode(&self, task: &EncodeTask, media: &MediaInfo) -> Option<Failure> {
        if self.0.is_empty() {
            return None;
        }
        let video = task.video.as_ref();
        let used = video.map(|v| v.stream).into_iter().chain(task.audio.iter().map(|a| a.stream));
        let codec = |index: u32| media.streams.iter().find(|s| s.index == index).map(|s| s.codec.as_str());
        let format = media.format.split(',').map(|name| (name, "the input"));
        let inputs = format.chain(used.filter_map(codec).map(|name| (name, "the input")));
        let rungs = video.into_iter().flat_map(|v| &v.rungs).map(|rung| codec_name(rung.codec));
        let sound = task.audio.iter().map(|_| "aac");
        let stills = video.filter(|v| v.poster.is_some() || v.sprites.is_some()).map(|_| "mjpeg");
        // Pictures alone are looked at without a demuxer for films.
        let tracks = rungs.chain(sound).collect::<Vec<_>>();
        let container = (!tracks.is_empty()).then_some(OUTPUT_DEMUXER);
        let outputs = tracks.into_iter().chain(stills).chain(container);
        self.refuse(inputs.chain(outputs.map(|name| (name, "the check of the output"))))
    }

    /// Why a task that is under way has to end; `None` where it may go on.
    pub fn refuse_running(&self, task: &TaskSpec, media: Option<&MediaInfo>) -> Option<Failure> {
        match task {
            // What it will find is not known.
            TaskSpec::Probe(_) | TaskSpec::Package(_) => None,
            TaskSpec::Encode(encode) => {
                let media = media?;
                // It was leased without the ban: its probing may have opened every stream.
                let streams = media.streams.iter().filter(|s| is_known(s)).map(|s| s.codec.as_str());
                let names = media.format.split(',').chain(streams).map(|name| (name, "the input"));
                self.refuse_encode(encode, media).or_else(|| self.refuse(names))
            }
            TaskSpec::Check(check) => {
                self.refuse(checked(check).map(|name| (name, "the check of the output")))
            }
        }
    }

    /// The same decision, or that the job fails where it would go on to what is banned; and where it fails for a ban, it says so.
    pub fn hold(&self, ending: &Ending, decision: Decision) -> Decision {
        if self.0.is_empty() {
            return decision;
        }
        let probed = match ending {
            Ending::Completed { result, .. } => match &**result {
                TaskResult::Probe(probe) => Some(&probe.media),
                _ => None,
            },
            _ => None,
        };
        let refused = match (&decision.job, ending, probed) {
            (JobMove::Next { task, probed: Some(probed) }, ..) => match &task.spec {
                TaskSpec::Encode(task) => self.refuse_encode(task, &probed.media),
                _ => None,
            },
            // The codec does not list what it may not open, so the planner took it for a format that nobody allows.
            (JobMove::Fail { failure, .. }, _, Some(media))
                if failure.code == FailureCode::DecoderNotAllowed =>
            {
                let outside = media.streams.iter().filter(|s| !s.decodable).map(|s| s.codec.as_str());
                self.refuse(outside.map(|name| (name, "the input")))
            }
            // The codec knows names and no reasons. Its word is only looked up.
            (JobMove::Fail { .. }, Ending::Failed { failure, .. }, _)
                if failure.code == FailureCode::DecoderBanned =>
            {
                let name = failure.message.split(' ').next().unwrap_or_default();
                self.refuse([(name, "the input")])
            }
            _ => None,
        };
        let Some(failure) = refused else { return decision };
        Decision {
            failure: Some(failure.clone()),
            task: TaskMove::Fail,
            job: JobMove::Fail { failure, quarantine: false },
        }
    }
}

/// Whether what was found in an input was read by the decoder or demuxer of that name. Every stream counts that there is a decoder for,
/// since probing opens it.
pub fn used(name: &str, media: &MediaInfo) -> bool {
    let bans = Bans(vec![Ban { name: name.to_owned(), reason: String::new(), at: Time(0) }]);
    bans.of_format(&media.format).is_some()
        || media.streams.iter().filter(|s| is_known(s)).any(|s| bans.of(&s.codec).is_some())
}

fn is_known(stream: &StreamInfo) -> bool {
    DECODERS.iter().any(|(codec, _)| *codec == stream.codec)
}

fn checked(check: &CheckTask) -> impl Iterator<Item = &'static str> + '_ {
    let tracks = check.expected().map(|(_, expect)| match expect {
        ExpectTrack::Video { codec, .. } => codec_name(*codec),
        ExpectTrack::Audio { .. } => "aac",
    });
    let container = check.expected().next().map(|_| OUTPUT_DEMUXER);
    tracks.chain(check.stills.iter().map(|_| "mjpeg")).chain(container)
}

const fn codec_name(codec: VideoCodec) -> &'static str {
    match codec {
        VideoCodec::Av1 => "av1",
        other => other.as_str(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Settings, graph};
    use mpegflow_protocol::ids::UploadId;
    use mpegflow_protocol::job::JobSpec;
    use serde_json::json;

    fn bans(names: &[&str]) -> Bans {
        let ban = |name: &&str| Ban { name: (*name).into(), reason: "CVE-2026-1".into(), at: Time(0) };
        Bans::new(names.iter().map(ban).collect())
    }

    fn media(format: &str, video: &str, audio: &str, other: &str) -> MediaInfo {
        let stream = |index: u32, codec: &str, kind: serde_json::Value| {
            json!({
                "index": index, "codec": codec, "profile": null, "codec_tag": null, "time_base": { "num": 1, "den": 1000 },
                "start_us": 0, "duration_ms": 4000, "frames": null, "bit_rate": null, "language": null, "default": true,
                "attached_picture": false, "decodable": true, "tags": {}, "kind": kind,
            })
        };
        let picture = json!({ "video": {
            "width": 640, "height": 360, "sample_aspect": { "num": 1, "den": 1 }, "rotation": 0, "mirrored": false,
            "pixel_format": "yuv420p", "frame_rate": { "num": 25, "den": 1 }, "real_frame_rate": { "num": 25, "den": 1 },
            "color_range": null, "color_space": null, "color_transfer": null, "color_primaries": null,
            "field_order": "progressive", "level": 31 } });
        let sound = json!({ "audio": { "sample_rate": 48000, "channels": 2, "channel_layout": "stereo", "sample_format": "fltp" } });
        serde_json::from_value(json!({
            "format": format, "size": 1000, "duration_ms": 4000, "start_us": 0, "bit_rate": null, "tags": {},
            "streams": [stream(0, video, picture), stream(1, audio, sound.clone()), stream(2, other, sound)],
        }))
        .unwrap()
    }

    fn encode(preset: &str, audio: &str, media: &MediaInfo) -> EncodeTask {
        let upload = UploadId::from_u128(1);
        let spec = format!(r#"{{"version":1,"preset":"{preset}","input":{{"upload":"{upload}"}}{audio}}}"#);
        let spec = JobSpec::parse(spec.as_bytes()).unwrap();
        let task = graph::encode(&spec, media, upload, 1000, Settings::default()).unwrap();
        let TaskSpec::Encode(task) = task.spec else { panic!("{task:?}") };
        task
    }

    #[test]
    fn what_is_banned_is_refused_by_any_of_its_names_before_it_is_encoded() {
        let media = media("matroska,webm", "av1", "opus", "vorbis");
        let only_first = r#","audio":{"tracks":"default"}"#;
        for (name, needs) in [
            ("matroska", "the input needs matroska"),
            ("av1", "the input needs av1"),
            ("opus", "the input needs opus"),
            ("h264", "the check of the output needs h264"),
            ("aac", "the check of the output needs aac"),
            ("mjpeg", "the check of the output needs mjpeg"),
            ("mov", "the check of the output needs mov"),
        ] {
            let failure = bans(&[name]).refuse_encode(&encode("web", only_first, &media), &media);
            let failure = failure.unwrap_or_else(|| panic!("{name} was not refused"));
            assert_eq!(failure.code, FailureCode::DecoderBanned);
            assert!(
                failure.message.starts_with(needs) && failure.message.contains("CVE-2026-1"),
                "{failure}"
            );
        }
        // A track that is not kept is not decoded either.
        assert_eq!(bans(&["vorbis"]).refuse_encode(&encode("web", only_first, &media), &media), None);
        assert_eq!(bans(&["wmv3", "avi"]).refuse_encode(&encode("web", "", &media), &media), None);
        assert_eq!(bans(&["h264"]).refuse_encode(&encode("audio", "", &media), &media), None);
        assert_eq!(Bans::default().refuse_encode(&encode("web", "", &media), &media), None);
    }

    #[test]
    fn a_finished_job_used_every_decoder_that_its_input_could_have_reached() {
        let media = media("mov,mp4,m4a,3gp,3g2,mj2", "h264", "aac", "mov_text");
        for (name, is) in [("h264", true), ("aac", true), ("mov", true), ("hevc", false), ("matroska", false)]
        {
            assert_eq!(used(name, &media), is, "{name}");
        }
    }

    #[test]
    fn a_task_that_was_leased_before_the_ban_ends_where_probing_may_have_touched_it() {
        let media = media("matroska,webm", "av1", "opus", "vorbis");
        let task = TaskSpec::Encode(encode("web", r#","audio":{"tracks":"default"}"#, &media));
        assert!(bans(&["vorbis"]).refuse_running(&task, Some(&media)).is_some());
        assert!(bans(&["flac"]).refuse_running(&task, Some(&media)).is_none());
    }
}
