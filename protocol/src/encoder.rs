//! What may be asked of an encoder: codecs, speeds, and the grammar of expert options. An option that is not listed here
//! cannot be said, so no text of a tenant ever reaches an encoder as text.

use serde::{Deserialize, Serialize};

/// A video codec that is encoded to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VideoCodec {
    /// H.264 High.
    #[default]
    H264,
    /// H.265 Main.
    Hevc,
    /// VP9 profile 0.
    Vp9,
    /// AV1 Main.
    Av1,
}

impl VideoCodec {
    /// FFmpeg's name of the codec.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::H264 => "h264",
            Self::Hevc => "hevc",
            Self::Vp9 => "vp9",
            Self::Av1 => "av1",
        }
    }

    /// What its RFC 6381 codec string starts with.
    pub const fn codecs_prefix(self) -> &'static str {
        match self {
            Self::H264 => "avc1.",
            Self::Hevc => "hvc1.",
            Self::Vp9 => "vp09.",
            Self::Av1 => "av01.",
        }
    }

    /// The least pixels a side that its encoder takes.
    pub const fn min_side(self) -> u32 {
        match self {
            Self::H264 | Self::Vp9 => 2,
            Self::Hevc => 16,
            Self::Av1 => 64,
        }
    }

    /// The largest constant rate factor of its encoder.
    pub const fn max_crf(self) -> u32 {
        match self {
            Self::H264 | Self::Hevc => 51,
            Self::Vp9 | Self::Av1 => 63,
        }
    }
}

/// How much work an encoder puts into a bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EncoderSpeed {
    /// x264 `ultrafast`.
    Ultrafast,
    /// x264 `veryfast`.
    Veryfast,
    /// x264 `fast`.
    Fast,
    /// x264 `medium`.
    Medium,
    /// x264 `slow`.
    Slow,
}

/// What the pictures are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tune {
    /// Recordings with a camera.
    Film,
    /// Drawn pictures.
    Animation,
    /// Old film whose grain is to stay.
    Grain,
}

/// Expert options of one encoder, as numbers and words of ours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tuning {
    /// What the pictures are like (H.264, H.265).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tune: Option<Tune>,
    /// Reordered pictures in a row, 0 to 8 (H.264, H.265).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub b_frames: Option<u32>,
    /// Pictures that may be referred to, 1 to 6 (H.264, H.265).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refs: Option<u32>,
    /// How bits move from busy to flat places, 0 to 3 (H.264, H.265).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aq_mode: Option<u32>,
    /// Pictures looked ahead, 0 to 60 (H.264, H.265) or 0 to 25 (VP9).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lookahead: Option<u32>,
}

/// Expert options as a tenant writes them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expert {
    /// Constant rate factor, in tenths.
    pub crf_tenths: Option<u32>,
    /// How much work goes into a bit.
    pub speed: Option<EncoderSpeed>,
    /// The rest.
    pub tuning: Tuning,
}

impl Expert {
    /// Parses `name=value:name=value`. Names: `crf`, `preset`, and for H.264 and H.265 `tune`, `bframes`, `ref`, `aq-mode`,
    /// `rc-lookahead`; for VP9 `lag-in-frames`.
    ///
    /// # Errors
    /// The option that is unknown for the codec, said twice, or out of range, and what there is.
    pub fn parse(text: &str, codec: VideoCodec) -> Result<Self, String> {
        if text.len() > 256 {
            return Err("more than 256 characters".into());
        }
        let mut expert = Self::default();
        let mut seen: Vec<&str> = Vec::new();
        for pair in text.split(':') {
            let Some((name, value)) = pair.split_once('=') else {
                return Err(format!("`{}` is not name=value", crate::text::clean(pair, 40)));
            };
            if seen.contains(&name) {
                return Err(format!("`{}` is given twice", crate::text::clean(name, 40)));
            }
            seen.push(name);
            expert.set(name, value, codec)?;
        }
        Ok(expert)
    }

    fn set(&mut self, name: &str, value: &str, codec: VideoCodec) -> Result<(), String> {
        let x26x = matches!(codec, VideoCodec::H264 | VideoCodec::Hevc);
        match name {
            "crf" => self.crf_tenths = Some(tenths(value, codec.max_crf())?),
            "preset" => {
                self.speed = Some(match value {
                    "ultrafast" => EncoderSpeed::Ultrafast,
                    "veryfast" => EncoderSpeed::Veryfast,
                    "fast" => EncoderSpeed::Fast,
                    "medium" => EncoderSpeed::Medium,
                    "slow" => EncoderSpeed::Slow,
                    _ => return Err(one_of("preset", value, "ultrafast, veryfast, fast, medium, slow")),
                });
            }
            "tune" if x26x => {
                self.tuning.tune = Some(match (value, codec) {
                    ("film", VideoCodec::H264) => Tune::Film,
                    ("animation", _) => Tune::Animation,
                    ("grain", _) => Tune::Grain,
                    (_, VideoCodec::H264) => return Err(one_of("tune", value, "film, animation, grain")),
                    _ => return Err(one_of("tune", value, "animation, grain")),
                });
            }
            "bframes" if x26x => self.tuning.b_frames = Some(whole(name, value, 0, 8)?),
            "ref" if x26x => self.tuning.refs = Some(whole(name, value, 1, 6)?),
            "aq-mode" if x26x => self.tuning.aq_mode = Some(whole(name, value, 0, 3)?),
            "rc-lookahead" if x26x => self.tuning.lookahead = Some(whole(name, value, 0, 60)?),
            "lag-in-frames" if codec == VideoCodec::Vp9 => {
                self.tuning.lookahead = Some(whole(name, value, 0, 25)?);
            }
            _ => {
                let known = match codec {
                    VideoCodec::H264 | VideoCodec::Hevc => {
                        "crf, preset, tune, bframes, ref, aq-mode, rc-lookahead"
                    }
                    VideoCodec::Vp9 => "crf, preset, lag-in-frames",
                    VideoCodec::Av1 => "crf, preset",
                };
                let name = crate::text::clean(name, 40);
                return Err(format!("`{name}` is no option of {}; there are {known}", codec.as_str()));
            }
        }
        Ok(())
    }
}

fn one_of(name: &str, value: &str, known: &str) -> String {
    format!("`{name}={}` is not one of {known}", crate::text::clean(value, 40))
}

fn whole(name: &str, value: &str, least: u32, most: u32) -> Result<u32, String> {
    let digits = (1..=3).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_digit());
    let number: Option<u32> = value.parse().ok().filter(|n| digits && (least..=most).contains(n));
    number.ok_or_else(|| {
        format!("`{name}={}` is not a number from {least} to {most}", crate::text::clean(value, 40))
    })
}

/// A number with at most one decimal, in tenths.
fn tenths(value: &str, most: u32) -> Result<u32, String> {
    let (whole, tenth) = value.split_once('.').unwrap_or((value, "0"));
    let digits = |t: &str, max: usize| (1..=max).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_digit());
    let number = match (whole.parse::<u32>(), tenth.parse::<u32>()) {
        (Ok(units), Ok(rest)) if digits(whole, 2) && digits(tenth, 1) => {
            Some(units.saturating_mul(10).saturating_add(rest))
        }
        _ => None,
    };
    number.filter(|n| (10..=most.saturating_mul(10)).contains(n)).ok_or_else(|| {
        format!(
            "`crf={}` is not a number from 1 to {most} with at most one decimal",
            crate::text::clean(value, 40)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_numbers_and_words_of_ours() {
        let expert =
            Expert::parse("crf=18.5:preset=slow:tune=film:bframes=3:ref=4", VideoCodec::H264).unwrap();
        assert_eq!((expert.crf_tenths, expert.speed), (Some(185), Some(EncoderSpeed::Slow)));
        let tuning = Tuning { tune: Some(Tune::Film), b_frames: Some(3), refs: Some(4), ..Tuning::default() };
        assert_eq!(expert.tuning, tuning);
        assert_eq!(Expert::parse("crf=40", VideoCodec::Av1).unwrap().crf_tenths, Some(400));
    }

    #[test]
    fn what_is_not_listed_cannot_be_said() {
        for (text, codec) in [
            ("", VideoCodec::H264),
            ("crf", VideoCodec::H264),
            ("crf=18:crf=19", VideoCodec::H264),
            ("crf=0", VideoCodec::H264),
            ("crf=52", VideoCodec::H264),
            ("crf=1e1", VideoCodec::H264),
            ("crf=+9", VideoCodec::H264),
            ("crf=18.25", VideoCodec::H264),
            ("crf=", VideoCodec::H264),
            ("preset=placebo", VideoCodec::H264),
            ("tune=film", VideoCodec::Hevc),
            ("tune=film", VideoCodec::Vp9),
            ("ref=16", VideoCodec::H264),
            ("bframes=-1", VideoCodec::H264),
            ("stats=/etc/passwd", VideoCodec::H264),
            ("crf=20:stats=x", VideoCodec::H264),
            ("dump-yuv=/tmp/x", VideoCodec::Hevc),
            ("crf=20 -f null", VideoCodec::H264),
            ("qpfile=a\u{0}b", VideoCodec::H264),
        ] {
            assert!(Expert::parse(text, codec).is_err(), "{text}");
        }
        let error = Expert::parse("stats=/etc/passwd", VideoCodec::H264).unwrap_err();
        assert!(error.contains("`stats`") && error.contains("rc-lookahead"), "{error}");
    }
}
