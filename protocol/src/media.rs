//! What a media file claims about itself, as the locked codec read it. All of it is hostile until bounded.

use crate::failure::{Failure, FailureCode};
use crate::limits;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// A rational number, as media formats write time bases, frame rates and aspect ratios.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Ratio {
    /// Numerator.
    pub num: i32,
    /// Denominator.
    pub den: i32,
}

impl Ratio {
    /// The quotient; `None` where it is not a positive finite number.
    pub fn positive(self) -> Option<f64> {
        (self.num > 0 && self.den > 0).then(|| f64::from(self.num) / f64::from(self.den))
    }
}

/// A description of one input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MediaInfo {
    /// FFmpeg's name of the demuxer, such as `mov,mp4,m4a,3gp,3g2,mj2`.
    pub format: String,
    /// Length in bytes.
    pub size: u64,
    /// Duration in milliseconds, where the container or a full read says it.
    pub duration_ms: Option<u64>,
    /// Start time in microseconds.
    pub start_us: i64,
    /// Overall bits per second, where known.
    pub bit_rate: Option<u64>,
    /// The streams, at most [`limits::MAX_STREAMS`], by index.
    pub streams: Vec<StreamInfo>,
    /// Container tags (title, encoder…), at most 64, cleaned of control characters.
    pub tags: BTreeMap<String, String>,
}

/// One stream of an input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamInfo {
    /// Index in the container.
    pub index: u32,
    /// FFmpeg's name of the codec, such as `h264`.
    pub codec: String,
    /// FFmpeg's name of the profile, where known.
    pub profile: Option<String>,
    /// Four-character code or hexadecimal tag in the container.
    pub codec_tag: Option<String>,
    /// Time base.
    pub time_base: Ratio,
    /// Start time in microseconds.
    pub start_us: i64,
    /// Duration in milliseconds, where known.
    pub duration_ms: Option<u64>,
    /// Frames the container says there are, where it does.
    pub frames: Option<u64>,
    /// Bits per second, where known.
    pub bit_rate: Option<u64>,
    /// ISO 639-2 language, where known.
    pub language: Option<String>,
    /// Whether the container marks it as a default stream.
    pub default: bool,
    /// Whether it is a picture attached to the file (cover art) rather than a recording.
    pub attached_picture: bool,
    /// Whether the decoder is in the set that was asked for.
    pub decodable: bool,
    /// What the stream holds.
    pub kind: StreamKind,
    /// Stream tags, at most 64, cleaned.
    pub tags: BTreeMap<String, String>,
}

/// What a stream holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum StreamKind {
    /// Pictures.
    Video(VideoInfo),
    /// Sound.
    Audio(AudioInfo),
    /// Subtitles.
    Subtitle {},
    /// Anything else; never transcoded.
    Data {},
}

/// A video stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VideoInfo {
    /// Coded width in pixels.
    pub width: u32,
    /// Coded height in pixels.
    pub height: u32,
    /// Sample aspect ratio (pixel shape); 1/1 where the file says nothing.
    pub sample_aspect: Ratio,
    /// Clockwise turn that makes the picture upright: 0, 90, 180 or 270 degrees.
    pub rotation: u16,
    /// Whether the picture is also mirrored left to right (before the turn).
    pub mirrored: bool,
    /// FFmpeg's name of the pixel format.
    pub pixel_format: Option<String>,
    /// Average frames per second, where known.
    pub frame_rate: Option<Ratio>,
    /// Base (real) frame rate as FFmpeg guesses it.
    pub real_frame_rate: Option<Ratio>,
    /// `tv` or `pc`, where known.
    pub color_range: Option<String>,
    /// Matrix coefficients, FFmpeg's name, where known.
    pub color_space: Option<String>,
    /// Transfer characteristics, FFmpeg's name, where known.
    pub color_transfer: Option<String>,
    /// Primaries, FFmpeg's name, where known.
    pub color_primaries: Option<String>,
    /// Field order: `progressive`, `tt`, `bb`, `tb`, `bt`, where known.
    pub field_order: Option<String>,
    /// Codec level as FFmpeg numbers it, where known.
    pub level: Option<i32>,
}

/// An audio stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AudioInfo {
    /// Samples per second.
    pub sample_rate: u32,
    /// Channels.
    pub channels: u32,
    /// FFmpeg's name of the layout, such as `stereo`.
    pub channel_layout: Option<String>,
    /// FFmpeg's name of the sample format.
    pub sample_format: Option<String>,
}

impl StreamInfo {
    /// The video description, if this is a recording with pictures (cover art is not).
    pub fn video(&self) -> Option<&VideoInfo> {
        match &self.kind {
            StreamKind::Video(v) if !self.attached_picture => Some(v),
            _ => None,
        }
    }

    /// The audio description, if this is sound.
    pub fn audio(&self) -> Option<&AudioInfo> {
        match &self.kind {
            StreamKind::Audio(a) => Some(a),
            _ => None,
        }
    }
}

impl MediaInfo {
    /// Holds a description from a hostile codec to the limits, and cleans its text.
    ///
    /// # Errors
    /// The failure the owner should see: [`FailureCode::FrameTooLarge`], [`FailureCode::DurationTooLong`], or
    /// [`FailureCode::ProtocolViolation`] where an honest codec could not have said this.
    pub fn bounded(mut self, size: u64) -> Result<Self, Failure> {
        let lie = |what: &str| {
            Err(Failure::new(FailureCode::ProtocolViolation, format!("the codec reported {what}")))
        };
        if self.size != size {
            return lie("another size than the input has");
        }
        if self.streams.len() > limits::MAX_STREAMS {
            return lie("too many streams");
        }
        if self.duration_ms.is_some_and(|d| d > limits::MAX_DURATION_MS) {
            return Err(Failure::new(FailureCode::DurationTooLong, FailureCode::DurationTooLong.help()));
        }
        self.format = crate::text::clean(&self.format, 128);
        self.tags = clean_tags(self.tags);
        for (position, stream) in self.streams.iter_mut().enumerate() {
            if usize::try_from(stream.index) != Ok(position) {
                return lie("streams out of order");
            }
            stream.codec = crate::text::clean(&stream.codec, 64);
            for text in
                [&mut stream.profile, &mut stream.codec_tag, &mut stream.language].into_iter().flatten()
            {
                *text = crate::text::clean(text, 64);
            }
            stream.tags = clean_tags(std::mem::take(&mut stream.tags));
            match &mut stream.kind {
                StreamKind::Video(v) => {
                    let pixels = u64::from(v.width).saturating_mul(u64::from(v.height));
                    if v.width > limits::MAX_FRAME_SIDE
                        || v.height > limits::MAX_FRAME_SIDE
                        || pixels > limits::MAX_FRAME_PIXELS
                    {
                        let what = format!("stream {position} is {} × {} pixels", v.width, v.height);
                        return Err(Failure::new(FailureCode::FrameTooLarge, what));
                    }
                    if !matches!(v.rotation, 0 | 90 | 180 | 270) {
                        return lie("a turn that is not a quarter");
                    }
                    for text in [
                        &mut v.pixel_format,
                        &mut v.color_range,
                        &mut v.color_space,
                        &mut v.color_transfer,
                        &mut v.color_primaries,
                        &mut v.field_order,
                    ]
                    .into_iter()
                    .flatten()
                    {
                        *text = crate::text::clean(text, 64);
                    }
                }
                StreamKind::Audio(a) => {
                    for text in [&mut a.channel_layout, &mut a.sample_format].into_iter().flatten() {
                        *text = crate::text::clean(text, 64);
                    }
                }
                StreamKind::Subtitle {} | StreamKind::Data {} => {}
            }
        }
        Ok(self)
    }
}

fn clean_tags(tags: BTreeMap<String, String>) -> BTreeMap<String, String> {
    tags.into_iter()
        .take(64)
        .map(|(k, v)| (crate::text::clean(&k, 64), crate::text::clean(&v, 512)))
        .collect()
}
