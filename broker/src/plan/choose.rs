//! Which streams of an input are used.

use super::ladder;
use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::media::{AudioInfo, MediaInfo, StreamInfo, StreamKind, VideoInfo};

/// Audio tracks that are kept at most.
pub const MAX_AUDIO_TRACKS: usize = 4;

/// The streams that are used; at least one is there.
#[derive(Debug, Clone, PartialEq)]
pub struct Chosen<'a> {
    /// The pictures, if any.
    pub video: Option<(&'a StreamInfo, &'a VideoInfo)>,
    /// The sound: the default track first, at most [`MAX_AUDIO_TRACKS`].
    pub audio: Vec<(&'a StreamInfo, &'a AudioInfo)>,
}

/// Chooses one video stream, the one marked as default, else the first, and the audio streams that can be decoded, in the same
/// order of preference.
///
/// # Errors
/// [`FailureCode::NoStreams`], [`FailureCode::InputIsImage`], or [`FailureCode::DecoderNotAllowed`] where the allowed set is
/// what stands in the way.
pub fn choose(media: &MediaInfo) -> Result<Chosen<'_>, Failure> {
    let videos = || media.streams.iter().filter_map(|s| s.video().map(|v| (s, v)));
    let audios = || media.streams.iter().filter_map(|s| s.audio().map(|a| (s, a)));
    let video = prefer_default(videos().filter(|(s, v)| s.decodable && ladder::display(v).is_some()));
    let usable = |(s, a): &(&StreamInfo, &AudioInfo)| s.decodable && a.channels > 0 && a.sample_rate > 0;
    let first = prefer_default(audios().filter(usable));
    let others = audios().filter(usable).filter(|(s, _)| first.is_none_or(|(f, _)| f.index != s.index));
    let audio: Vec<_> = first.into_iter().chain(others).take(MAX_AUDIO_TRACKS).collect();
    if video.is_none() && audio.is_empty() {
        return Err(nothing(media));
    }
    // A video whose decoder is not allowed must not quietly become an audio file.
    if video.is_none()
        && let Some((stream, _)) = videos().find(|(s, _)| !s.decodable)
    {
        return Err(not_allowed(stream));
    }
    if audio.is_empty()
        && let Some((stream, _)) = audios().find(|(s, _)| !s.decodable)
    {
        return Err(not_allowed(stream));
    }
    // FFmpeg's demuxers for single pictures are called image2 and, by content, png_pipe, jpeg_pipe and so on.
    if audio.is_empty() && (media.format.ends_with("_pipe") || media.format.starts_with("image2")) {
        return Err(Failure::new(FailureCode::InputIsImage, FailureCode::InputIsImage.help()));
    }
    Ok(Chosen { video, audio })
}

fn prefer_default<'a, T>(
    mut streams: impl Iterator<Item = (&'a StreamInfo, T)>,
) -> Option<(&'a StreamInfo, T)> {
    let first = streams.next()?;
    if first.0.default { Some(first) } else { streams.find(|(s, _)| s.default).or(Some(first)) }
}

fn nothing(media: &MediaInfo) -> Failure {
    let outside = media.streams.iter().find(|s| {
        !s.decodable && !s.attached_picture && matches!(s.kind, StreamKind::Video(_) | StreamKind::Audio(_))
    });
    match outside {
        Some(stream) => not_allowed(stream),
        None => Failure::new(FailureCode::NoStreams, FailureCode::NoStreams.help()),
    }
}

fn not_allowed(stream: &StreamInfo) -> Failure {
    let help = FailureCode::DecoderNotAllowed.help();
    Failure::new(
        FailureCode::DecoderNotAllowed,
        format!("Stream {} is {}. {help}", stream.index, stream.codec),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use mpegflow_protocol::media::Ratio;

    fn stream(kind: &str, decodable: bool, default: bool) -> StreamInfo {
        let ratio = Ratio { num: 1, den: 1 };
        let kind = match kind {
            "audio" => StreamKind::Audio(AudioInfo {
                sample_rate: 48_000,
                channels: 2,
                channel_layout: None,
                sample_format: None,
            }),
            "subtitle" => StreamKind::Subtitle {},
            _ => StreamKind::Video(VideoInfo {
                width: 64,
                height: 64,
                sample_aspect: ratio,
                rotation: 0,
                mirrored: false,
                pixel_format: None,
                frame_rate: None,
                real_frame_rate: None,
                color_range: None,
                color_space: None,
                color_transfer: None,
                color_primaries: None,
                field_order: None,
                level: None,
            }),
        };
        StreamInfo {
            index: 0,
            codec: "x".into(),
            profile: None,
            codec_tag: None,
            time_base: ratio,
            start_us: 0,
            duration_ms: None,
            frames: None,
            bit_rate: None,
            language: None,
            default,
            attached_picture: false,
            decodable,
            kind,
            tags: Default::default(),
        }
    }

    fn media(format: &str, mut streams: Vec<StreamInfo>) -> MediaInfo {
        for (n, stream) in streams.iter_mut().enumerate() {
            stream.index = n as u32;
        }
        MediaInfo {
            format: format.into(),
            size: 1,
            duration_ms: None,
            start_us: 0,
            bit_rate: None,
            streams,
            tags: Default::default(),
        }
    }

    #[test]
    fn the_default_stream_wins_and_what_cannot_be_used_is_named() {
        let cover = StreamInfo { attached_picture: true, ..stream("video", true, true) };
        let found = |streams| {
            choose(&media("mov", streams))
                .map(|c| (c.video.map(|v| v.0.index), c.audio.iter().map(|a| a.0.index).collect::<Vec<_>>()))
                .map_err(|f| f.code)
        };
        use FailureCode::{DecoderNotAllowed, NoStreams};
        for (streams, expected) in [
            (
                vec![stream("video", true, false), stream("audio", true, false), stream("audio", true, true)],
                Ok((Some(0), vec![2, 1])),
            ),
            (vec![stream("audio", true, false), stream("audio", true, false)], Ok((None, vec![0, 1]))),
            (vec![stream("video", true, false), stream("subtitle", true, true)], Ok((Some(0), vec![]))),
            (vec![cover.clone(), stream("audio", true, false)], Ok((None, vec![1]))),
            (vec![stream("audio", false, true), stream("audio", true, false)], Ok((None, vec![1]))),
            (vec![cover], Err(NoStreams)),
            (vec![], Err(NoStreams)),
            (vec![stream("subtitle", false, false)], Err(NoStreams)),
            (vec![stream("video", false, false)], Err(DecoderNotAllowed)),
            (vec![stream("video", false, false), stream("audio", true, false)], Err(DecoderNotAllowed)),
            (vec![stream("video", true, false), stream("audio", false, false)], Err(DecoderNotAllowed)),
        ] {
            assert_eq!(found(streams.clone()), expected, "{streams:?}");
        }
        let picture = media("png_pipe", vec![stream("video", true, false)]);
        assert_eq!(choose(&picture).err().map(|f| f.code), Some(FailureCode::InputIsImage));
    }
}
