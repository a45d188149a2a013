//! Plans as the broker makes them.

use mpegflow_protocol::encoder::{EncoderSpeed, Tuning, VideoCodec};
use mpegflow_protocol::job::DecoderSet;
use mpegflow_protocol::task::{
    AudioEncode, CheckTask, CheckTrack, EncodeResult, EncodeTask, ExpectTrack, Manifests, PackageTask,
    PackageTrack, ProbeTask, Rung, VideoEncode,
};

pub fn probe(decoders: DecoderSet) -> ProbeTask {
    ProbeTask { decoders, partial: false }
}

pub fn rung(output: u32, width: u32, height: u32) -> Rung {
    Rung {
        output,
        codec: VideoCodec::H264,
        width,
        height,
        crf_tenths: 180,
        max_bit_rate: 4_000_000,
        buffer_bits: 8_000_000,
        speed: EncoderSpeed::Ultrafast,
        tuning: Tuning::default(),
        copy: false,
    }
}

pub fn video(stream: u32, rungs: Vec<Rung>) -> VideoEncode {
    VideoEncode {
        stream,
        rotation: 0,
        mirrored: false,
        max_frame_rate: 60,
        deinterlace: true,
        rungs,
        poster: None,
        sprites: None,
    }
}

pub fn audio(output: u32, stream: u32) -> AudioEncode {
    AudioEncode { output, stream, bit_rate: 128_000, sample_rate: 48_000, channels: 2 }
}

pub fn encode(video: Option<VideoEncode>, audio: Vec<AudioEncode>) -> EncodeTask {
    EncodeTask {
        decoders: DecoderSet::Core,
        segment_ms: 1_000,
        video,
        audio,
        expected_duration_ms: Some(4_000),
        partial: false,
        timeline: None,
        chunk: None,
    }
}

/// The package and check of what `encode` made, as the broker derives them.
pub struct Packaging {
    pub package: PackageTask,
    pub check: CheckTask,
    /// Names of the package's outputs.
    pub names: Vec<String>,
}

pub fn packaging(task: &EncodeTask, result: &EncodeResult, source_duration_ms: Option<u64>) -> Packaging {
    let mut package = Vec::new();
    let mut check = Vec::new();
    let mut names = vec!["index.m3u8".to_owned(), "manifest.mpd".to_owned()];
    for (index, track) in result.tracks.iter().enumerate() {
        let index = index as u32;
        let rung = task.video.iter().flat_map(|v| &v.rungs).find(|r| r.output == track.output);
        let sound = task.audio.iter().find(|a| a.output == track.output);
        let (stem, expect) = match (rung, sound) {
            (Some(r), _) => (
                format!("video-{}p", r.height),
                ExpectTrack::Video {
                    codec: r.codec,
                    width: r.width,
                    height: r.height,
                    frames: track.units,
                    duration_ms: track.duration_ms,
                },
            ),
            (_, Some(a)) => (
                format!("audio-{}", a.output),
                ExpectTrack::Audio {
                    sample_rate: a.sample_rate,
                    channels: a.channels,
                    duration_ms: track.duration_ms,
                },
            ),
            _ => panic!("an output that was not planned"),
        };
        let (media_uri, playlist_uri) = (format!("{stem}.mp4"), format!("{stem}.m3u8"));
        package.push(PackageTrack {
            input: index,
            media_output: 3 + 2 * index,
            playlist_output: 2 + 2 * index,
            media_uri: media_uri.clone(),
            playlist_uri: playlist_uri.clone(),
            expect: expect.clone(),
            language: Some("eng".into()),
            chunk: None,
            joined: Vec::new(),
        });
        names.extend([playlist_uri.clone(), media_uri.clone()]);
        check.push(CheckTrack {
            playlist_input: 2 + 2 * index,
            media_input: 3 + 2 * index,
            media_uri,
            playlist_uri,
            expect,
            chunk: None,
        });
    }
    Packaging {
        package: PackageTask {
            tracks: package,
            segment_ms: task.segment_ms,
            manifests: Some(Manifests { hls: 0, dash: 1 }),
            file: None,
            stills: vec![],
        },
        check: CheckTask {
            tracks: check,
            segment_ms: task.segment_ms,
            source_duration_ms,
            manifests: Some(Manifests { hls: 0, dash: 1 }),
            file: None,
            stills: vec![],
            list: false,
        },
        names,
    }
}
