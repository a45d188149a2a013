//! The job spec: what a tenant may ask for. Version 1.

use crate::ids::{JobId, PoolName, UploadId};
use crate::limits;
use crate::parse::{ParseError, from_json};
use crate::path::Variables;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Entries in [`JobSpec::labels`].
pub const MAX_LABELS: usize = 16;
/// Characters in [`JobSpec::external_id`], a label's key or a label's value.
pub const MAX_LABEL_CHARS: usize = 128;

/// A job as the tenant describes it. Unknown fields are refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobSpec {
    /// Version of this document; 1.
    #[schema(minimum = 1, maximum = 1)]
    pub version: u32,
    /// The media to transcode.
    pub input: InputRef,
    /// Name of a preset; `GET /v1/presets` lists them.
    pub preset: String,
    /// Which decoders and demuxers may touch the input.
    #[serde(default)]
    pub decoders: DecoderSet,
    /// Changes to the preset's video.
    #[serde(default)]
    pub video: VideoOptions,
    /// Which of the tenant's jobs go first: 9 first, 0 last. It takes nothing from another tenant.
    #[serde(default, skip_serializing_if = "Priority::is_default")]
    #[schema(value_type = u8, default = 5, minimum = 0, maximum = 9)]
    pub priority: Priority,
    /// The worker pool that does the work: one of the tenant's own, or a shared one. Where it is left out, the tenant's own pool (of
    /// several, the first by name), else `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolName>,
    /// Changes to the preset's sound.
    #[serde(default)]
    pub audio: AudioOptions,
    /// Changes to the preset's pictures.
    #[serde(default)]
    pub thumbnails: ThumbnailOptions,
    /// Where the output is to be found.
    #[serde(default, skip_serializing_if = "OutputOptions::is_default")]
    pub output: OutputOptions,
    /// What of the input's own description is kept.
    #[serde(default, skip_serializing_if = "MetadataOptions::is_nothing")]
    pub metadata: MetadataOptions,
    /// Take what there is of an input that is cut off or damaged, rather than fail.
    #[serde(default)]
    pub allow_partial: bool,
    /// Only look at the input and say what the job would cost (`estimate`): it succeeds, and nothing is encoded.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// The most that the job may cost. One that would cost more fails before anything is encoded.
    #[serde(default, skip_serializing_if = "MaxSpend::is_unlimited")]
    pub max_spend: MaxSpend,
    /// The tenant's own id for this job, 1 to 128 characters, given back unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 128)]
    pub external_id: Option<String>,
    /// The tenant's own labels, at most 16 of 1 to 128 characters each, given back unchanged.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Where a job's input is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum InputRef {
    /// A finished upload of the same tenant.
    Upload(UploadId),
    /// An object of the same tenant, which an earlier job made: `job_…/video.mp4`, or the path that it was given, such as
    /// `films/a-7/video.mp4`.
    Object(String),
    /// An object of the tenant's own storage, by its key below the tenant's prefix there: `incoming/film.mov`. It is read as it is when
    /// the job comes; a job whose object is replaced afterwards fails.
    Storage(String),
}

/// A job's place among its tenant's: 9 goes first, 0 last. It takes nothing from another tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = u8, default = 5)]
pub struct Priority(pub u8);

impl Priority {
    /// The first to go.
    pub const HIGHEST: Self = Self(9);

    /// Whether it is what a job has that says nothing.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self(5)
    }
}

/// The most that a job may cost, as estimated before anything is encoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MaxSpend {
    /// Minutes of output, 1 to 1,000,000: those of each rendition of the picture, or of the sound where there is no picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub output_minutes: Option<u32>,
    /// Seconds of one CPU core, 1 to 1,000,000,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1_000_000_000)]
    pub core_seconds: Option<u32>,
}

impl MaxSpend {
    /// Whether it says nothing.
    pub const fn is_unlimited(&self) -> bool {
        self.output_minutes.is_none() && self.core_seconds.is_none()
    }
}

/// A set of decoders and demuxers. Each adds attack surface, so the wider one is asked for by name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DecoderSet {
    /// What today's cameras, phones and editors write.
    #[default]
    Core,
    /// `core` and the formats of the past (wmv, flv, 3gp, avi, mpeg…).
    Legacy,
}

/// Changes to a preset's video.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VideoOptions {
    /// Height of the highest rung in pixels, 144 to 2160, even. A portrait picture is measured by its width.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 144, maximum = 2160, multiple_of = 2)]
    pub max_height: Option<u32>,
    /// Seconds in a segment, 2 to 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 2, maximum = 10)]
    pub segment_seconds: Option<u32>,
    /// Frames per second that are not exceeded, 1 to 60; frames above are dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 60)]
    pub max_frame_rate: Option<u32>,
    /// Whether frames whose lines are from two moments (interlaced) are made progressive; true where nothing is said. The pictures
    /// tell which those are, and the source's marks where they do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deinterlace: Option<bool>,
    /// Whether the highest rung may be the source's own pictures, copied and not encoded again, where they already are what it is
    /// to be. Only for tenants who may copy: a copy passes on what a stranger's encoder wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<bool>,
    /// Expert options of the encoder, such as `crf=20:preset=slow:tune=film`: `crf` and `preset` for every codec; `tune`,
    /// `bframes`, `ref`, `aq-mode` and `rc-lookahead` for H.264 and H.265; `lag-in-frames` for VP9.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 256)]
    pub encoder: Option<String>,
}

/// Changes to a preset's sound.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AudioOptions {
    /// Which audio tracks of the input are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracks: Option<AudioTracks>,
    /// Thousands of bits per second of a stereo track, 32 to 320; mono takes half.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 32, maximum = 320)]
    pub bit_rate_kbps: Option<u32>,
    /// Channels at most, 1 or 2; more are mixed down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 2)]
    pub max_channels: Option<u32>,
}

/// Which audio tracks of an input are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AudioTracks {
    /// Every track, the default one first, four at most; what is beyond is left out.
    All,
    /// The one that the input marks as default, else the first.
    Default,
    /// None.
    None,
}

/// Where a job's output is to be found, beside `/v1/objects/{job}/{name}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OutputOptions {
    /// A path below `/v1/files/`, such as `films/{external_id}/{name}`: names of letters, digits, `.`, `-` and `_`, with `{job}`,
    /// `{preset}` and `{external_id}` in them, and `{name}` as the last. No other job of the tenant may have the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 512)]
    pub path: Option<String>,
    /// Whether the HLS output plays while the rest of it is still made: the lowest rung comes first, in chunks, each checked before
    /// it is served, and the others join it when all is done. Only for presets that make HLS. A job that fails after it began to
    /// play has shown the beginning of a film that has no end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub early: bool,
}

impl OutputOptions {
    /// Whether it says nothing.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A moment of a recording. A document has it in seconds, such as `12` or `12.5`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u32);

impl Moment {
    const LAST_SECOND: u32 = 86_400;

    /// So many seconds in; `None` for less than none and more than a day.
    ///
    /// What is below a millisecond is cut off: times are written with six digits, and a frame's own time, rounded up in the
    /// last of them, has to find that frame.
    pub fn from_seconds(seconds: f64) -> Option<Self> {
        let ms = (seconds * 1_000.0 + 1e-6).floor();
        if !(0.0..=f64::from(Self::LAST_SECOND) * 1_000.0).contains(&ms) || seconds < 0.0 {
            return None;
        }
        Some(Self(ms as u32))
    }

    /// Milliseconds from the start.
    pub const fn milliseconds(self) -> u32 {
        self.0
    }
}

impl Serialize for Moment {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 % 1_000 {
            0 => serializer.serialize_u32(self.0 / 1_000),
            _ => serializer.serialize_f64(f64::from(self.0) / 1_000.0),
        }
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let out = || format!("not a number from 0 to {}", Self::LAST_SECOND);
        Self::from_seconds(f64::deserialize(deserializer)?).ok_or_else(|| serde::de::Error::custom(out()))
    }
}

/// Changes to a preset's pictures.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ThumbnailOptions {
    /// Whether a poster and a sprite sheet are made; true where nothing is said and the preset makes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Which moment the poster shows, in seconds from the start, to the millisecond: the first picture at or after it, and the last
    /// one where there is none. A tenth of the duration where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>, minimum = 0, maximum = 86400)]
    pub poster_seconds: Option<Moment>,
    /// Seconds between the sprite sheet's tiles, 1 to 600; more where there would be over 100 tiles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 600)]
    pub interval_seconds: Option<u32>,
    /// Long side of a tile in pixels, even, 64 to 320.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 64, maximum = 320, multiple_of = 2)]
    pub tile_size: Option<u32>,
}

/// What of the input's own description reaches the output. Nothing does that is not named here: phones write where and with
/// what a recording was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MetadataOptions {
    /// Tags that are kept, each once; only in presets that make one file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep: Vec<KeptTag>,
}

impl MetadataOptions {
    /// Whether nothing is asked for.
    pub fn is_nothing(&self) -> bool {
        self.keep.is_empty()
    }
}

/// A tag that can be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeptTag {
    /// The title.
    Title,
    /// Who made it.
    Artist,
    /// The album or series.
    Album,
    /// When it was made.
    Date,
    /// Where it was made (ISO 6709).
    Location,
}

impl JobSpec {
    /// The folder that the output of this job is to be found in, if one was asked for.
    ///
    /// # Errors
    /// The template comes to no path.
    pub fn folder(&self, job: JobId) -> Result<Option<String>, ParseError> {
        let Some(template) = &self.output.path else { return Ok(None) };
        let variables = Variables { job, preset: &self.preset, external_id: self.external_id.as_deref() };
        crate::path::folder(template, variables).map(Some)
    }

    /// Parses and checks a job spec.
    ///
    /// # Errors
    /// The path of the first field that is unknown, missing, of the wrong type or out of range. Whether the preset and the
    /// input exist is the broker's to say.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let spec: Self = from_json("job spec", bytes, limits::MAX_API_BODY)?;
        let wrong = |field: &str, reason: String| {
            Err(ParseError::Field { what: "job spec", field: field.into(), reason })
        };
        if spec.version != 1 {
            return wrong("version", format!("version {} is not known here; write 1", spec.version));
        }
        if let InputRef::Object(path) = &spec.input
            && crate::path::split(path).is_none()
        {
            return wrong(
                "input.object",
                "it is no path of an object: names of letters, digits, `.`, `-` and `_`, with slashes between them".into(),
            );
        }
        if let InputRef::Storage(key) = &spec.input
            && let Err(bad) = key.parse::<crate::path::StoredKey>()
        {
            return wrong("input.storage", bad.to_string());
        }
        if !crate::text::is_label(&spec.preset, 64) {
            return wrong("preset", "a preset's name has 1 to 64 printable characters".into());
        }
        if let Some(h) = spec.video.max_height
            && (!(144..=2160).contains(&h) || !h.is_multiple_of(2))
        {
            return wrong("video.max_height", format!("{h} is not an even number from 144 to 2160"));
        }
        if let Some(s) = spec.video.segment_seconds
            && !(2..=10).contains(&s)
        {
            return wrong("video.segment_seconds", format!("{s} is not from 2 to 10"));
        }
        if spec.priority > Priority::HIGHEST {
            return wrong("priority", format!("{} is not from 0 to 9", spec.priority.0));
        }
        for (field, value, range, even) in [
            ("video.max_frame_rate", spec.video.max_frame_rate, 1..=60, false),
            ("audio.bit_rate_kbps", spec.audio.bit_rate_kbps, 32..=320, false),
            ("audio.max_channels", spec.audio.max_channels, 1..=2, false),
            ("thumbnails.interval_seconds", spec.thumbnails.interval_seconds, 1..=600, false),
            ("thumbnails.tile_size", spec.thumbnails.tile_size, 64..=320, true),
            ("max_spend.output_minutes", spec.max_spend.output_minutes, 1..=1_000_000, false),
            ("max_spend.core_seconds", spec.max_spend.core_seconds, 1..=1_000_000_000, false),
        ] {
            if let Some(v) = value
                && (!range.contains(&v) || (even && !v.is_multiple_of(2)))
            {
                let kind = if even { "an even number" } else { "a number" };
                return wrong(field, format!("{v} is not {kind} from {} to {}", range.start(), range.end()));
            }
        }
        if spec.thumbnails.enabled == Some(false)
            && (spec.thumbnails.poster_seconds.is_some()
                || spec.thumbnails.interval_seconds.is_some()
                || spec.thumbnails.tile_size.is_some())
        {
            return wrong(
                "thumbnails.enabled",
                "it is false, and other fields of `thumbnails` ask for pictures".into(),
            );
        }
        if spec.audio.tracks == Some(AudioTracks::None)
            && (spec.audio.bit_rate_kbps.is_some() || spec.audio.max_channels.is_some())
        {
            return wrong("audio.tracks", "it is none, and other fields of `audio` ask for sound".into());
        }
        if spec
            .metadata
            .keep
            .iter()
            .enumerate()
            .any(|(n, tag)| spec.metadata.keep.iter().take(n).any(|t| t == tag))
        {
            return wrong("metadata.keep", "a tag is named twice".into());
        }
        if let Some(id) = &spec.external_id
            && !crate::text::is_label(id, MAX_LABEL_CHARS)
        {
            return wrong("external_id", format!("1 to {MAX_LABEL_CHARS} printable characters"));
        }
        spec.folder(JobId::from_u128(u128::MAX))?;
        if spec.labels.len() > MAX_LABELS {
            return wrong("labels", format!("{} labels; at most {MAX_LABELS}", spec.labels.len()));
        }
        for (key, value) in &spec.labels {
            if !crate::text::is_label(key, MAX_LABEL_CHARS) || !crate::text::is_label(value, MAX_LABEL_CHARS)
            {
                return wrong(
                    "labels",
                    format!("keys and values have 1 to {MAX_LABEL_CHARS} printable characters"),
                );
            }
        }
        Ok(spec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPLOAD: &str = "upl_0192f0c1a2b37c4d8e9f001122334455";

    fn parse(text: &str) -> Result<JobSpec, String> {
        JobSpec::parse(text.replace("UPLOAD", UPLOAD).as_bytes()).map_err(|e| e.to_string())
    }

    #[test]
    fn the_shortest_spec_takes_every_default() {
        let spec = parse(r#"{"version":1,"input":{"upload":"UPLOAD"},"preset":"web"}"#).unwrap();
        assert_eq!(spec.decoders, DecoderSet::Core);
        assert_eq!(spec.video, VideoOptions::default());
        assert_eq!(spec.priority, Priority(5));
    }

    #[test]
    fn a_moment_is_kept_to_the_millisecond_and_written_as_it_came() {
        let spec = |moment: &str| {
            parse(&format!(
                r#"{{"version":1,"input":{{"upload":"UPLOAD"}},"preset":"web","thumbnails":{{"poster_seconds":{moment}}}}}"#
            ))
        };
        for (text, ms) in [
            ("0", 0),
            ("12", 12_000),
            ("12.5", 12_500),
            ("0.29", 290),
            ("0.066667", 66),
            ("86400", 86_400_000),
        ] {
            let parsed = spec(text).unwrap();
            assert_eq!(parsed.thumbnails.poster_seconds.map(Moment::milliseconds), Some(ms), "{text}");
            let written = serde_json::to_vec(&parsed).unwrap();
            assert_eq!(JobSpec::parse(&written).unwrap(), parsed, "{text}");
        }
        let written = serde_json::to_string(&spec("12").unwrap()).unwrap();
        assert!(written.contains(r#""poster_seconds":12}"#), "as brokers before this one read it: {written}");
        for text in ["-1", "-0.0001", "86400.001", "1e300", "\"5\"", "true"] {
            let refused = spec(text).unwrap_err();
            assert!(refused.contains("`thumbnails.poster_seconds`"), "{text}: {refused}");
        }
    }

    #[test]
    fn an_error_names_the_field() {
        for (text, field) in [
            (r#"{"version":2,"input":{"upload":"UPLOAD"},"preset":"web"}"#, "`version`"),
            (r#"{"version":1,"input":{"upload":"job_1"},"preset":"web"}"#, "`input.upload`"),
            (
                r#"{"version":1,"input":{"url":"http://169.254.169.254/"},"preset":"web"}"#,
                "unknown variant `url`",
            ),
            (r#"{"version":1,"input":{"upload":"UPLOAD"},"preset":"web","video":{"crf":1}}"#, "`video.crf`"),
            (
                r#"{"version":1,"input":{"upload":"UPLOAD"},"preset":"web","video":{"max_height":721}}"#,
                "`video.max_height`",
            ),
            (r#"{"version":1,"input":{"upload":"UPLOAD"},"preset":""}"#, "`preset`"),
            (
                r#"{"version":1,"input":{"upload":"UPLOAD"},"preset":"web","labels":{"a":"\u001b[2J"}}"#,
                "`labels`",
            ),
            (r#"{"version":1,"preset":"web"}"#, "missing field `input`"),
            (
                r#"{"version":1,"input":{"upload":"UPLOAD"},"preset":"web","max_spend":{"output_minutes":0}}"#,
                "`max_spend.output_minutes`",
            ),
            (
                r#"{"version":1,"input":{"upload":"UPLOAD"},"preset":"web","max_spend":{"euros":1}}"#,
                "`max_spend.euros`",
            ),
            ("", "`.`"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(field), "{text}: {error}");
        }
    }
}
