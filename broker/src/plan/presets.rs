//! The presets: what each makes, and which fields of a job spec make sense with it.

use mpegflow_protocol::api::Preset;
use mpegflow_protocol::encoder::{Expert, VideoCodec};
use mpegflow_protocol::job::{AudioOptions, AudioTracks, JobSpec, ThumbnailOptions, VideoOptions};

/// A preset that the planner knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PresetName {
    /// H.264 and AAC ladder for the web.
    Web,
    /// One MP4 file.
    Mp4,
    /// The ladder in H.265.
    Hevc,
    /// The ladder in VP9.
    Vp9,
    /// The ladder in AV1.
    Av1,
    /// Sound alone.
    Audio,
    /// Pictures alone.
    Thumbnail,
}

/// In what form a preset's tracks are given to players.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// CMAF tracks with HLS and DASH manifests.
    Streams,
    /// One MP4 file of this name.
    File(&'static str),
    /// No tracks.
    None,
}

/// What a preset makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipe {
    /// Codec of the video, if any is made.
    pub video: Option<VideoCodec>,
    /// Whether smaller renditions are made too.
    pub ladder: bool,
    /// Whether sound is made.
    pub audio: bool,
    /// In what form.
    pub form: Form,
    /// Whether a poster and a sprite sheet are made.
    pub stills: bool,
}

/// A field of a job spec that does not go with its preset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}`: {reason}")]
pub struct Contradiction {
    /// Path of the field.
    pub field: &'static str,
    /// Why, and what to do.
    pub reason: String,
}

impl PresetName {
    /// Every preset.
    pub const ALL: &'static [Self] =
        &[Self::Web, Self::Mp4, Self::Hevc, Self::Vp9, Self::Av1, Self::Audio, Self::Thumbnail];

    /// The preset of that name.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|p| p.as_str() == name)
    }

    /// Its name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Web => "web",
            Self::Mp4 => "mp4",
            Self::Hevc => "hevc",
            Self::Vp9 => "vp9",
            Self::Av1 => "av1",
            Self::Audio => "audio",
            Self::Thumbnail => "thumbnail",
        }
    }

    /// What it makes.
    pub const fn recipe(self) -> Recipe {
        let streams = Recipe {
            video: Some(VideoCodec::H264),
            ladder: true,
            audio: true,
            form: Form::Streams,
            stills: true,
        };
        match self {
            Self::Web => streams,
            Self::Hevc => Recipe { video: Some(VideoCodec::Hevc), ..streams },
            Self::Vp9 => Recipe { video: Some(VideoCodec::Vp9), ..streams },
            Self::Av1 => Recipe { video: Some(VideoCodec::Av1), ..streams },
            Self::Mp4 => Recipe { ladder: false, form: Form::File("video.mp4"), stills: false, ..streams },
            Self::Audio => Recipe {
                video: None,
                ladder: false,
                audio: true,
                form: Form::File("audio.m4a"),
                stills: false,
            },
            Self::Thumbnail => {
                Recipe { video: None, ladder: false, audio: false, form: Form::None, stills: true }
            }
        }
    }

    /// As the API lists it.
    pub fn describe(self) -> Preset {
        let description = match self {
            Self::Web => {
                "H.264 (up to 1080p, or video.max_height) and AAC (of four tracks at most) in CMAF with HLS and DASH manifests over the \
                 same segments, a poster and a sprite sheet with WebVTT. The ladder follows the source's size and frame rate; nothing is \
                 upscaled."
            }
            Self::Mp4 => {
                "One MP4 file, H.264 (up to 1080p, or video.max_height) and AAC, with its index first so that it plays while \
                 it is fetched."
            }
            Self::Hevc => "As web, with H.265: about a third fewer bits, and players of the last years.",
            Self::Vp9 => "As web, with VP9: about a third fewer bits, in browsers but Safari's HLS.",
            Self::Av1 => {
                "As web, with AV1: about half the bits, and browsers and devices of the last years. From 64 pixels a side."
            }
            Self::Audio => "Sound alone: AAC in one MP4 file (audio.m4a), with its index first.",
            Self::Thumbnail => {
                "Pictures alone: a poster, and a sprite sheet with WebVTT for a player's seek bar. thumbnails.* say which \
                 moments and how large."
            }
        };
        Preset { name: self.as_str().into(), description: description.into() }
    }

    /// Whether the fields of `spec` make sense with this preset.
    ///
    /// # Errors
    /// The first field that would be ignored, cannot be read, or asks for too much.
    pub fn check(self, spec: &JobSpec) -> Result<(), Contradiction> {
        let recipe = self.recipe();
        let no = |field, what: &str| {
            let reason = format!("the preset {} {what}; leave the field out", self.as_str());
            Err(Contradiction { field, reason })
        };
        let VideoOptions { max_height, segment_seconds, max_frame_rate, deinterlace, copy, encoder } =
            &spec.video;
        if recipe.form != Form::Streams && segment_seconds.is_some() {
            return no("video.segment_seconds", "makes no segments");
        }
        if *copy == Some(true) && recipe.video != Some(VideoCodec::H264) {
            return no("video.copy", "makes no H.264, and nothing else is copied");
        }
        if recipe.video.is_none() {
            for (field, given) in
                [("video.max_frame_rate", max_frame_rate.is_some()), ("video.encoder", encoder.is_some())]
            {
                if given {
                    return no(field, "makes no video");
                }
            }
            for (field, given) in
                [("video.max_height", max_height.is_some()), ("video.deinterlace", deinterlace.is_some())]
            {
                if given && !recipe.stills {
                    return no(field, "makes no pictures");
                }
            }
        }
        let AudioOptions { tracks, bit_rate_kbps, max_channels } = &spec.audio;
        if !recipe.audio && (tracks.is_some() || bit_rate_kbps.is_some() || max_channels.is_some()) {
            return no("audio", "makes no sound");
        }
        if recipe.video.is_none() && *tracks == Some(AudioTracks::None) && recipe.audio {
            return no("audio.tracks", "makes nothing but sound");
        }
        let ThumbnailOptions { enabled, poster_seconds, interval_seconds, tile_size } = &spec.thumbnails;
        let asked = poster_seconds.is_some() || interval_seconds.is_some() || tile_size.is_some();
        if !recipe.stills && (asked || enabled.is_some()) {
            return no("thumbnails", "makes no pictures");
        }
        if recipe.form == Form::None && *enabled == Some(false) {
            return no("thumbnails.enabled", "makes nothing but pictures");
        }
        if spec.output.early {
            if recipe.form != Form::Streams {
                return no("output.early", "makes no HLS");
            }
            if spec.allow_partial {
                let reason =
                    "an input that is cut off is only found out at its end; leave it or allow_partial out";
                return Err(Contradiction { field: "output.early", reason: reason.into() });
            }
        }
        if !matches!(recipe.form, Form::File(_)) && !spec.metadata.is_nothing() {
            return no("metadata.keep", "writes no tags");
        }
        expert(recipe, spec)?;
        Ok(())
    }
}

/// The expert options of a job, for the preset's codec.
///
/// # Errors
/// An option that there is not, or one that costs too much for the size that is asked for.
pub fn expert(recipe: Recipe, spec: &JobSpec) -> Result<Expert, Contradiction> {
    let wrong = |reason| Contradiction { field: "video.encoder", reason };
    let (Some(codec), Some(text)) = (recipe.video, &spec.video.encoder) else { return Ok(Expert::default()) };
    let expert = Expert::parse(text, codec).map_err(wrong)?;
    // Above 1440p a slow H.265 or AV1 encode of an hour takes days, and more references than 4 leave H.264's level 5.1.
    let large = spec.video.max_height.is_some_and(|h| h > 1440);
    if large
        && expert.speed == Some(mpegflow_protocol::encoder::EncoderSpeed::Slow)
        && codec != VideoCodec::H264
    {
        return Err(wrong(format!(
            "preset=slow of {} above 1440p costs too much; choose medium, or a lower video.max_height",
            codec.as_str()
        )));
    }
    if large && expert.tuning.refs.is_some_and(|r| r > 4) {
        return Err(wrong("at most ref=4 above 1440p: players need not hold more".into()));
    }
    Ok(expert)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(preset: &str, rest: &str) -> Result<(), Contradiction> {
        let text = format!(
            r#"{{"version":1,"input":{{"upload":"upl_0192f0c1a2b37c4d8e9f001122334455"}},"preset":"{preset}"{rest}}}"#
        );
        PresetName::find(preset).unwrap().check(&JobSpec::parse(text.as_bytes()).unwrap())
    }

    #[test]
    fn every_preset_is_found_by_its_name_and_takes_the_shortest_spec() {
        for preset in PresetName::ALL {
            assert_eq!(PresetName::find(preset.as_str()), Some(*preset));
            assert_eq!(check(preset.as_str(), ""), Ok(()));
        }
    }

    #[test]
    fn a_field_that_would_be_ignored_is_refused_by_name() {
        for (preset, rest, field) in [
            ("mp4", r#","video":{"segment_seconds":4}"#, "video.segment_seconds"),
            ("audio", r#","video":{"max_height":720}"#, "video.max_height"),
            ("audio", r#","video":{"encoder":"crf=20"}"#, "video.encoder"),
            ("audio", r#","audio":{"tracks":"none"}"#, "audio.tracks"),
            ("audio", r#","thumbnails":{"poster_seconds":3}"#, "thumbnails"),
            ("mp4", r#","thumbnails":{"enabled":true}"#, "thumbnails"),
            ("thumbnail", r#","audio":{"bit_rate_kbps":64}"#, "audio"),
            ("thumbnail", r#","thumbnails":{"enabled":false}"#, "thumbnails.enabled"),
            ("thumbnail", r#","video":{"max_frame_rate":30}"#, "video.max_frame_rate"),
            ("av1", r#","video":{"copy":true}"#, "video.copy"),
            ("audio", r#","video":{"copy":true}"#, "video.copy"),
            ("mp4", r#","output":{"early":true}"#, "output.early"),
            ("audio", r#","output":{"early":true}"#, "output.early"),
            ("thumbnail", r#","output":{"early":true}"#, "output.early"),
            ("web", r#","output":{"early":true},"allow_partial":true"#, "output.early"),
            ("web", r#","metadata":{"keep":["title"]}"#, "metadata.keep"),
            ("web", r#","video":{"encoder":"stats=/etc/passwd"}"#, "video.encoder"),
            ("vp9", r#","video":{"encoder":"tune=film"}"#, "video.encoder"),
            ("hevc", r#","video":{"max_height":2160,"encoder":"preset=slow"}"#, "video.encoder"),
            ("web", r#","video":{"max_height":2160,"encoder":"ref=6"}"#, "video.encoder"),
        ] {
            assert_eq!(check(preset, rest).unwrap_err().field, field, "{preset} {rest}");
        }
        assert_eq!(
            check("web", r#","video":{"encoder":"crf=20:ref=6"},"thumbnails":{"enabled":false}"#),
            Ok(())
        );
    }
}
