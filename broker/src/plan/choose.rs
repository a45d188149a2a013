//! Which streams of an input are used.

use super::ladder;
use mpegflow_protocol::decoders::DECODERS;
use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::job::DecoderSet;
use mpegflow_protocol::media::{AudioInfo, MediaInfo, StreamInfo, StreamKind, VideoInfo};

/// Audio tracks that are kept at most.
pub const MAX_AUDIO_TRACKS: usize = 4;

/// What a job needs of its input. Whether anything else in it could be decoded makes no difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Pictures, be it for renditions or for stills.
    pub pictures: bool,
    /// Sound.
    pub sound: bool,
    /// The decoders that were asked for.
    pub decoders: DecoderSet,
}

/// The streams that are used. There is none only where the input has usable ones, all of a kind that is not wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct Chosen<'a> {
    /// The pictures, if any.
    pub video: Option<(&'a StreamInfo, &'a VideoInfo)>,
    /// The sound: the default track first, at most [`MAX_AUDIO_TRACKS`].
    pub audio: Vec<(&'a StreamInfo, &'a AudioInfo)>,
}

/// Chooses of what is wanted one video stream, the one marked as default, else the first, and the audio streams that can be
/// decoded, in the same order of preference.
///
/// # Errors
/// [`FailureCode::NoStreams`], [`FailureCode::InputIsImage`], or [`FailureCode::DecoderNotAllowed`] where the allowed set is
/// what stands in the way.
pub fn choose(media: &MediaInfo, wanted: Wanted) -> Result<Chosen<'_>, Failure> {
    let videos = || media.streams.iter().filter_map(|s| s.video().map(|v| (s, v)));
    let audios = || media.streams.iter().filter_map(|s| s.audio().map(|a| (s, a)));
    let shown = prefer_default(videos().filter(|(s, v)| s.decodable && ladder::display(v).is_some()));
    let usable = |(s, a): &(&StreamInfo, &AudioInfo)| s.decodable && a.channels > 0 && a.sample_rate > 0;
    let first = prefer_default(audios().filter(usable));
    let others = audios().filter(usable).filter(|(s, _)| first.is_none_or(|(f, _)| f.index != s.index));
    let heard: Vec<_> = first.into_iter().chain(others).take(MAX_AUDIO_TRACKS).collect();
    // FFmpeg's demuxers for single pictures are called image2 and, by content, png_pipe, jpeg_pipe and so on.
    if heard.is_empty()
        && shown.is_some()
        && (media.format.ends_with("_pipe") || media.format.starts_with("image2"))
    {
        return Err(Failure::new(FailureCode::InputIsImage, FailureCode::InputIsImage.help()));
    }
    // What is wanted and cannot be decoded must not quietly be left out: a film is no audio file.
    let no_picture = videos().map(|(s, _)| s).find(|s| !s.decodable);
    let no_sound = audios().map(|(s, _)| s).find(|s| !s.decodable);
    let outside = no_picture
        .filter(|_| wanted.pictures && shown.is_none())
        .or(no_sound.filter(|_| wanted.sound && heard.is_empty()));
    if let Some(stream) = outside {
        return Err(not_allowed(stream, wanted.decoders));
    }
    if shown.is_none() && heard.is_empty() {
        return Err(nothing(media));
    }
    Ok(Chosen {
        video: shown.filter(|_| wanted.pictures),
        audio: if wanted.sound { heard } else { Vec::new() },
    })
}

fn prefer_default<'a, T>(
    mut streams: impl Iterator<Item = (&'a StreamInfo, T)>,
) -> Option<(&'a StreamInfo, T)> {
    let first = streams.next()?;
    if first.0.default { Some(first) } else { streams.find(|(s, _)| s.default).or(Some(first)) }
}

/// Nothing of the input can be used, whoever wants it.
fn nothing(media: &MediaInfo) -> Failure {
    let is_recording = |s: &&StreamInfo| matches!(s.kind, StreamKind::Video(_) | StreamKind::Audio(_));
    let what = match media.streams.iter().find(is_recording) {
        Some(cover) if cover.attached_picture => {
            "The input has nothing but cover art, which is no recording."
        }
        _ => FailureCode::NoStreams.help(),
    };
    Failure::new(FailureCode::NoStreams, what)
}

/// The wider set is named only where it would help.
fn not_allowed(stream: &StreamInfo, asked: DecoderSet) -> Failure {
    let legacy_has = DECODERS.iter().any(|(codec, _)| *codec == stream.codec);
    let remedy = if asked == DecoderSet::Core && legacy_has {
        "which the core set cannot decode. Ask for `\"decoders\": \"legacy\"`, or convert the input."
    } else {
        "which no set can decode. Convert the input."
    };
    Failure::new(
        FailureCode::DecoderNotAllowed,
        format!("Stream {} is {}, {remedy}", stream.index, stream.codec),
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

    const BOTH: Wanted = Wanted { pictures: true, sound: true, decoders: DecoderSet::Core };

    #[test]
    fn a_stream_that_is_not_needed_may_be_of_any_codec() {
        let film = media("mov", vec![stream("video", true, true), stream("audio", false, true)]);
        let song = media("mov", vec![stream("video", false, true), stream("audio", true, true)]);
        let (pictures, sound) = (Wanted { sound: false, ..BOTH }, Wanted { pictures: false, ..BOTH });
        let found = |media: &MediaInfo, wanted| {
            choose(media, wanted).map(|c| (c.video.is_some(), c.audio.len())).map_err(|f| f.code)
        };
        assert_eq!(found(&film, pictures), Ok((true, 0)));
        assert_eq!(found(&song, sound), Ok((false, 1)));
        for (media, wanted) in [(&film, sound), (&song, pictures), (&film, BOTH), (&song, BOTH)] {
            assert_eq!(found(media, wanted), Err(FailureCode::DecoderNotAllowed), "{wanted:?}");
        }
        // What has usable streams of another kind is not without streams: the preset is named to its owner.
        let silent = media("mov", vec![stream("video", true, true)]);
        assert_eq!(found(&silent, sound), Ok((false, 0)));
    }

    #[test]
    fn the_wider_set_is_named_only_where_it_has_the_decoder() {
        let refused = |codec: &str, decoders| {
            let film = StreamInfo { codec: codec.into(), ..stream("video", false, true) };
            choose(&media("asf", vec![film]), Wanted { decoders, ..BOTH }).unwrap_err()
        };
        let said = refused("wmv2", DecoderSet::Core).message;
        assert_eq!(
            said,
            "Stream 0 is wmv2, which the core set cannot decode. Ask for `\"decoders\": \"legacy\"`, or convert the input."
        );
        for (codec, asked) in
            [("ffv1", DecoderSet::Core), ("ffv1", DecoderSet::Legacy), ("wmv2", DecoderSet::Legacy)]
        {
            let said = refused(codec, asked);
            assert!(!said.message.contains("legacy"), "{said:?}");
            assert!(said.message.contains(codec) && said.message.contains("Convert"), "{said:?}");
        }
    }

    #[test]
    fn the_default_stream_wins_and_what_cannot_be_used_is_named() {
        let cover = StreamInfo { attached_picture: true, ..stream("video", true, true) };
        let found = |streams| {
            choose(&media("mov", streams), BOTH)
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
        assert_eq!(choose(&picture, BOTH).err().map(|f| f.code), Some(FailureCode::InputIsImage));
    }
}
