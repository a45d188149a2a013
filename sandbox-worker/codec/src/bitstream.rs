//! What of a coded picture must be known without decoding it, for each codec: its configuration, its codec string, and
//! whether decoding can start there.

mod av1;
mod hevc;
mod vp9;

use crate::ff::frame::Color;
use crate::nal;
pub(crate) use crate::nal::SampleKind;
use mpegflow_protocol::encoder::VideoCodec;
use mpegflow_protocol::failure::{Failure, FailureCode};

/// The decoder configuration as MP4 stores it, from the headers that an encoder wrote.
///
/// # Errors
/// [`FailureCode::WorkerError`]: the encoder wrote no such headers.
pub(crate) fn configuration(
    codec: VideoCodec,
    headers: &[u8],
    (width, height): (u16, u16),
    color: Color,
) -> Result<Vec<u8>, Failure> {
    let none =
        || Failure::new(FailureCode::WorkerError, format!("the {} encoder wrote no headers", codec.as_str()));
    match codec {
        VideoCodec::H264 => nal::configuration(headers),
        VideoCodec::Hevc => hevc::configuration(headers).ok_or_else(none),
        VideoCodec::Vp9 => Ok(vp9::configuration(width, height, color)),
        VideoCodec::Av1 => av1::configuration(headers).ok_or_else(none),
    }
}

/// The configuration of a stored track. FFmpeg's demuxer reads VP9's into fields, so that it is made again.
pub(crate) fn stored_configuration(
    codec: VideoCodec,
    extradata: &[u8],
    size: (u16, u16),
    color: Color,
) -> Vec<u8> {
    match codec {
        VideoCodec::Vp9 => vp9::configuration(size.0, size.1, color),
        _ => extradata.to_vec(),
    }
}

/// Appends a packet of the encoder to `out` as MP4 stores it.
pub(crate) fn append(codec: VideoCodec, packet: &[u8], out: &mut Vec<u8>) {
    match codec {
        VideoCodec::H264 => nal::append_with_lengths(packet, out),
        VideoCodec::Hevc => hevc::append_with_lengths(packet, out),
        VideoCodec::Vp9 => out.extend_from_slice(packet),
        VideoCodec::Av1 => av1::append(packet, out),
    }
}

/// The RFC 6381 codec string of a configuration record.
pub(crate) fn codec_string(codec: VideoCodec, configuration: &[u8]) -> Option<String> {
    match codec {
        VideoCodec::H264 => nal::codec_string(configuration),
        VideoCodec::Hevc => hevc::codec_string(configuration),
        VideoCodec::Vp9 => vp9::codec_string(configuration),
        VideoCodec::Av1 => av1::codec_string(configuration),
    }
}

/// What a stored sample is; `None` where it is not one of that codec.
pub(crate) fn sample_kind(codec: VideoCodec, sample: &[u8]) -> Option<SampleKind> {
    match codec {
        VideoCodec::H264 => nal::sample_kind(sample),
        VideoCodec::Hevc => hevc::sample_kind(sample),
        VideoCodec::Vp9 => vp9::sample_kind(sample),
        VideoCodec::Av1 => av1::sample_kind(sample),
    }
}
