//! Which streams of an input are used.

use super::ladder;
use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::media::{AudioInfo, MediaInfo, StreamInfo, StreamKind, VideoInfo};

/// The streams that are used; at least one is there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Chosen<'a> {
    /// The pictures, if any.
    pub video: Option<(&'a StreamInfo, &'a VideoInfo)>,
    /// The sound, if any.
    pub audio: Option<(&'a StreamInfo, &'a AudioInfo)>,
}

/// Chooses one video and one audio stream: the one marked as default, else the first.
///
/// # Errors
/// [`FailureCode::NoStreams`], [`FailureCode::InputIsImage`], or [`FailureCode::DecoderNotAllowed`] where the allowed set is
/// what stands in the way.
pub fn choose(media: &MediaInfo) -> Result<Chosen<'_>, Failure> {
    let videos = || media.streams.iter().filter_map(|s| s.video().map(|v| (s, v)));
    let audios = || media.streams.iter().filter_map(|s| s.audio().map(|a| (s, a)));
    let video = prefer_default(videos().filter(|(s, v)| s.decodable && ladder::display(v).is_some()));
    let audio = prefer_default(audios().filter(|(s, a)| s.decodable && a.channels > 0 && a.sample_rate > 0));
    if video.is_none() && audio.is_none() {
        return Err(nothing(media));
    }
    // A video whose decoder is not allowed must not quietly become an audio file.
    if video.is_none()
        && let Some((stream, _)) = videos().find(|(s, _)| !s.decodable)
    {
        return Err(not_allowed(stream));
    }
    if audio.is_none()
        && let Some((stream, _)) = audios().find(|(s, _)| !s.decodable)
    {
        return Err(not_allowed(stream));
    }
    // FFmpeg's demuxers for single pictures are called image2 and, by content, png_pipe, jpeg_pipe and so on.
    if audio.is_none() && (media.format.ends_with("_pipe") || media.format.starts_with("image2")) {
        return Err(Failure::new(FailureCode::InputIsImage, FailureCode::InputIsImage.help()));
    }
    Ok(Chosen { video, audio })
}

fn prefer_default<'a, T>(mut streams: impl Iterator<Item = (&'a StreamInfo, T)>) -> Option<(&'a StreamInfo, T)> {
    let first = streams.next()?;
    if first.0.default { Some(first) } else { streams.find(|(s, _)| s.default).or(Some(first)) }
}

fn nothing(media: &MediaInfo) -> Failure {
    let outside = media
        .streams
        .iter()
        .find(|s| !s.decodable && !s.attached_picture && matches!(s.kind, StreamKind::Video(_) | StreamKind::Audio(_)));
    match outside {
        Some(stream) => not_allowed(stream),
        None => Failure::new(FailureCode::NoStreams, FailureCode::NoStreams.help()),
    }
}

fn not_allowed(stream: &StreamInfo) -> Failure {
    let help = FailureCode::DecoderNotAllowed.help();
    Failure::new(FailureCode::DecoderNotAllowed, format!("Stream {} is {}. {help}", stream.index, stream.codec))
}
