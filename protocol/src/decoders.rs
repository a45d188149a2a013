//! Names of the decoders and demuxers that a codec process has, as a ban may say them. Which of them are allowed at all is the codec's
//! to say; a test there keeps both lists the same.

/// FFmpeg's name of each codec that is decoded, and of the one decoder that is used for it.
pub const DECODERS: &[(&str, &str)] = &[
    ("h264", "h264"),
    ("hevc", "hevc"),
    ("vp8", "vp8"),
    ("vp9", "vp9"),
    ("av1", "libdav1d"),
    ("mpeg4", "mpeg4"),
    ("prores", "prores"),
    ("mjpeg", "mjpeg"),
    ("aac", "aac"),
    ("mp3", "mp3float"),
    ("opus", "opus"),
    ("vorbis", "vorbis"),
    ("flac", "flac"),
    ("ac3", "ac3"),
    ("eac3", "eac3"),
    ("alac", "alac"),
    ("pcm_s16le", "pcm_s16le"),
    ("pcm_s16be", "pcm_s16be"),
    ("pcm_s24le", "pcm_s24le"),
    ("pcm_s24be", "pcm_s24be"),
    ("pcm_s32le", "pcm_s32le"),
    ("pcm_s32be", "pcm_s32be"),
    ("pcm_f32le", "pcm_f32le"),
    ("pcm_f32be", "pcm_f32be"),
    ("pcm_f64le", "pcm_f64le"),
    ("pcm_f64be", "pcm_f64be"),
    ("pcm_u8", "pcm_u8"),
    ("pcm_s8", "pcm_s8"),
    ("pcm_alaw", "pcm_alaw"),
    ("pcm_mulaw", "pcm_mulaw"),
    ("mpeg1video", "mpeg1video"),
    ("mpeg2video", "mpeg2video"),
    ("h263", "h263"),
    ("flv1", "flv"),
    ("wmv1", "wmv1"),
    ("wmv2", "wmv2"),
    ("wmv3", "wmv3"),
    ("vc1", "vc1"),
    ("msmpeg4v1", "msmpeg4v1"),
    ("msmpeg4v2", "msmpeg4v2"),
    ("msmpeg4v3", "msmpeg4"),
    ("vp6", "vp6"),
    ("vp6f", "vp6f"),
    ("theora", "theora"),
    ("dvvideo", "dvvideo"),
    ("mp1", "mp1float"),
    ("mp2", "mp2float"),
    ("wmav1", "wmav1"),
    ("wmav2", "wmav2"),
    ("wmapro", "wmapro"),
    ("amr_nb", "amrnb"),
    ("amr_wb", "amrwb"),
    ("adpcm_ms", "adpcm_ms"),
    ("adpcm_ima_wav", "adpcm_ima_wav"),
    ("adpcm_ima_qt", "adpcm_ima_qt"),
    ("adpcm_swf", "adpcm_swf"),
    ("nellymoser", "nellymoser"),
    ("speex", "speex"),
];

/// FFmpeg's name of each demuxer.
pub const DEMUXERS: &[&str] = &[
    "mov",
    "matroska",
    "mpegts",
    "ogg",
    "wav",
    "mp3",
    "aac",
    "flac",
    "avi",
    "flv",
    "asf",
    "mpeg",
    "mpegvideo",
];

/// What people call some of them.
const ALIASES: &[(&str, &str)] = &[
    ("mp4", "mov"),
    ("m4a", "mov"),
    ("3gp", "mov"),
    ("mkv", "matroska"),
    ("webm", "matroska"),
    ("ts", "mpegts"),
    ("wmv", "asf"),
    ("wma", "asf"),
    ("h265", "hevc"),
    ("dav1d", "av1"),
];

/// The name by which a decoder or demuxer is banned: a codec's or a demuxer's, whichever of its names is given. Where a codec and a
/// demuxer have one name (`aac`, `mp3`, `flac`), it is both.
pub fn canonical(name: &str) -> Option<&'static str> {
    let name = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, name)| name);
    let codec = DECODERS.iter().find(|(codec, _)| *codec == name).map(|(codec, _)| *codec);
    let demuxer = || DEMUXERS.iter().find(|demuxer| **demuxer == name).copied();
    // Last: the decoder of flv1 is called as the demuxer flv is.
    let decoder = || DECODERS.iter().find(|(_, decoder)| *decoder == name).map(|(codec, _)| *codec);
    codec.or_else(demuxer).or_else(decoder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_leads_to_the_one_that_is_banned() {
        for (said, banned) in [
            ("h264", "h264"),
            ("libdav1d", "av1"),
            ("mp4", "mov"),
            ("webm", "matroska"),
            ("avi", "avi"),
            ("flv", "flv"),
            ("mp3float", "mp3"),
        ] {
            assert_eq!(canonical(said), Some(banned), "{said}");
        }
        for unknown in ["", "h26", "H264", "hls"] {
            assert_eq!(canonical(unknown), None, "{unknown}");
        }
        assert!(ALIASES.iter().all(|(_, name)| canonical(name).is_some()));
    }
}
