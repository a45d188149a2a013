//! Which demuxers and decoders may touch an input. What is not listed is refused: absence denies.

use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::job::DecoderSet;
use mpegflow_protocol::job::DecoderSet::{Core, Legacy};
use std::sync::OnceLock;

/// A demuxer: one of FFmpeg's names for it, the word for people, and the smallest set it is in.
pub(crate) struct DemuxerEntry {
    /// Any one of FFmpeg's names for it.
    pub(crate) name: &'static str,
    /// What people call the format.
    pub(crate) people: &'static str,
    /// The smallest set that holds it.
    pub(crate) set: DecoderSet,
}

const fn demuxer(name: &'static str, people: &'static str, set: DecoderSet) -> DemuxerEntry {
    DemuxerEntry { name, people, set }
}

/// Demuxers by FFmpeg's name.
pub(crate) const DEMUXERS: &[DemuxerEntry] = &[
    demuxer("mov", "MP4/MOV", Core),
    demuxer("matroska", "Matroska/WebM", Core),
    demuxer("mpegts", "MPEG-TS", Core),
    demuxer("ogg", "Ogg", Core),
    demuxer("wav", "WAV", Core),
    demuxer("mp3", "MP3", Core),
    demuxer("aac", "AAC (ADTS)", Core),
    demuxer("flac", "FLAC", Core),
    demuxer("avi", "AVI", Legacy),
    demuxer("flv", "FLV", Legacy),
    demuxer("asf", "ASF/WMV", Legacy),
    demuxer("mpeg", "MPEG-PS", Legacy),
    demuxer("mpegvideo", "MPEG video", Legacy),
];

/// A decoder: FFmpeg's name of the codec, the one decoder that is used for it, and the smallest set it is in.
pub(crate) struct DecoderEntry {
    /// FFmpeg's name of the codec.
    pub(crate) codec: &'static str,
    /// FFmpeg's name of the decoder.
    pub(crate) decoder: &'static str,
    /// The smallest set that holds it.
    pub(crate) set: DecoderSet,
}

const fn decoder(codec: &'static str, decoder: &'static str, set: DecoderSet) -> DecoderEntry {
    DecoderEntry { codec, decoder, set }
}

/// Decoders by FFmpeg's codec name. Hardware and wrapper decoders of the same codecs are not in it, so they cannot be
/// picked whatever FFmpeg was built with.
pub(crate) const DECODERS: &[DecoderEntry] = &[
    // What today's cameras, phones, browsers and editors write.
    decoder("h264", "h264", Core),
    decoder("hevc", "hevc", Core),
    decoder("vp8", "vp8", Core),
    decoder("vp9", "vp9", Core),
    decoder("av1", "libdav1d", Core),
    decoder("mpeg4", "mpeg4", Core),
    decoder("prores", "prores", Core),
    decoder("mjpeg", "mjpeg", Core),
    decoder("aac", "aac", Core),
    decoder("mp3", "mp3float", Core),
    decoder("opus", "opus", Core),
    decoder("vorbis", "vorbis", Core),
    decoder("flac", "flac", Core),
    decoder("ac3", "ac3", Core),
    decoder("eac3", "eac3", Core),
    decoder("alac", "alac", Core),
    decoder("pcm_s16le", "pcm_s16le", Core),
    decoder("pcm_s16be", "pcm_s16be", Core),
    decoder("pcm_s24le", "pcm_s24le", Core),
    decoder("pcm_s24be", "pcm_s24be", Core),
    decoder("pcm_s32le", "pcm_s32le", Core),
    decoder("pcm_s32be", "pcm_s32be", Core),
    decoder("pcm_f32le", "pcm_f32le", Core),
    decoder("pcm_f32be", "pcm_f32be", Core),
    decoder("pcm_f64le", "pcm_f64le", Core),
    decoder("pcm_f64be", "pcm_f64be", Core),
    decoder("pcm_u8", "pcm_u8", Core),
    decoder("pcm_s8", "pcm_s8", Core),
    decoder("pcm_alaw", "pcm_alaw", Core),
    decoder("pcm_mulaw", "pcm_mulaw", Core),
    // Old phones, camcorders, Windows and Flash.
    decoder("mpeg1video", "mpeg1video", Legacy),
    decoder("mpeg2video", "mpeg2video", Legacy),
    decoder("h263", "h263", Legacy),
    decoder("flv1", "flv", Legacy),
    decoder("wmv1", "wmv1", Legacy),
    decoder("wmv2", "wmv2", Legacy),
    decoder("wmv3", "wmv3", Legacy),
    decoder("vc1", "vc1", Legacy),
    decoder("msmpeg4v1", "msmpeg4v1", Legacy),
    decoder("msmpeg4v2", "msmpeg4v2", Legacy),
    decoder("msmpeg4v3", "msmpeg4", Legacy),
    decoder("vp6", "vp6", Legacy),
    decoder("vp6f", "vp6f", Legacy),
    decoder("theora", "theora", Legacy),
    decoder("dvvideo", "dvvideo", Legacy),
    decoder("mp1", "mp1float", Legacy),
    decoder("mp2", "mp2float", Legacy),
    decoder("wmav1", "wmav1", Legacy),
    decoder("wmav2", "wmav2", Legacy),
    decoder("wmapro", "wmapro", Legacy),
    decoder("amr_nb", "amrnb", Legacy),
    decoder("amr_wb", "amrwb", Legacy),
    decoder("adpcm_ms", "adpcm_ms", Legacy),
    decoder("adpcm_ima_wav", "adpcm_ima_wav", Legacy),
    decoder("adpcm_ima_qt", "adpcm_ima_qt", Legacy),
    decoder("adpcm_swf", "adpcm_swf", Legacy),
    decoder("nellymoser", "nellymoser", Legacy),
    decoder("speex", "speex", Legacy),
];

static BANNED: OnceLock<Vec<String>> = OnceLock::new();

/// Bans decoders and demuxers for the life of this process, which is one task. Once: what is banned stays so.
pub(crate) fn ban(names: &[String]) {
    // A second call would come from nobody; the first one's bans hold.
    let _ = BANNED.set(names.to_vec());
}

/// Whether a decoder, codec or demuxer of that name is banned.
pub(crate) fn is_banned(name: &str) -> bool {
    let says = |banned: &String| {
        banned == name || DECODERS.iter().any(|d| d.codec == banned && (d.decoder == name || d.codec == name))
    };
    BANNED.get().is_some_and(|banned| banned.iter().any(says))
}

/// The failure for what is banned.
pub(crate) fn banned(name: &str) -> Failure {
    let message = format!("{name} is banned here for now; submit the job again once the ban is lifted");
    Failure::new(FailureCode::DecoderBanned, message)
}

const fn holds(asked: DecoderSet, entry: DecoderSet) -> bool {
    matches!((asked, entry), (Legacy, _) | (_, Core))
}

/// The decoder for a codec, if the set holds one.
pub(crate) fn for_codec(codec: &str, set: DecoderSet) -> Option<&'static DecoderEntry> {
    DECODERS.iter().find(|d| d.codec == codec && holds(set, d.set) && !is_banned(d.codec))
}

/// Whether the wider set would hold a decoder for the codec.
pub(crate) fn legacy_has(codec: &str) -> bool {
    for_codec(codec, Legacy).is_some()
}

/// The demuxer behind FFmpeg's (list of) names, whatever its set.
pub(crate) fn demuxer_entry(format: &str) -> Option<&'static DemuxerEntry> {
    DEMUXERS.iter().find(|d| format.split(',').any(|name| name == d.name))
}

/// Whether the set holds that demuxer.
pub(crate) fn may_demux(entry: &DemuxerEntry, set: DecoderSet) -> bool {
    holds(set, entry.set)
}

/// Names of all decoders of the set, for FFmpeg's whitelist.
pub(crate) fn whitelist(set: DecoderSet) -> String {
    let names: Vec<_> =
        DECODERS.iter().filter(|d| holds(set, d.set) && !is_banned(d.codec)).map(|d| d.decoder).collect();
    names.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use mpegflow_protocol::decoders;

    #[test]
    fn the_core_set_is_inside_the_legacy_set_and_neither_has_a_risky_decoder() {
        assert!(for_codec("h264", Core).is_some() && for_codec("h264", Legacy).is_some());
        assert!(for_codec("wmv2", Core).is_none() && legacy_has("wmv2"));
        for codec in ["magicyuv", "png", "smush", "xbin", "rawvideo", "gif", "hap", "vvc"] {
            assert!(for_codec(codec, Legacy).is_none(), "{codec}");
        }
        assert!(!whitelist(Core).contains("wmv"));
    }

    #[test]
    fn a_ban_can_name_every_decoder_and_demuxer_there_is_and_no_other() {
        let ours: Vec<_> = DECODERS.iter().map(|d| (d.codec, d.decoder)).collect();
        assert_eq!(decoders::DECODERS, ours);
        let ours: Vec<_> = DEMUXERS.iter().map(|d| d.name).collect();
        assert_eq!(decoders::DEMUXERS, ours);
    }
}
