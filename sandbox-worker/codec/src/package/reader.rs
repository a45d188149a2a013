//! The samples of one encoded track, each held against what was planned.

use crate::bitstream::{self, SampleKind};
use crate::caps;
use crate::ff::demux::{Demuxer, Kind, Stream};
use crate::ff::packet::Packet;
use crate::fmp4::Track;
use crate::fragments;
use crate::source::{self, Inputs};
use mpegflow_protocol::encoder::VideoCodec;
use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::task::ExpectTrack;

/// How far a track's duration may be from what the encode counted, in milliseconds: rounding of both.
const DURATION_TOLERANCE_MS: u64 = 50;
/// The most that an AAC encoder may put before the first sample.
const MAX_PRIMING: i64 = 4_096;

/// A track being read.
pub(super) struct Reader {
    pub(super) facts: Facts,
    /// Samples read.
    pub(super) count: u64,
    input: u32,
    demuxer: Demuxer,
    packet: Packet,
    codec: Option<VideoCodec>,
    /// The packet has a sample that was not given out.
    waiting: bool,
    first: i64,
    most: i64,
    /// When the last sample so far is shown.
    shown: i64,
    /// How long the last sample is shown.
    tail: i64,
}

/// One sample: when it is shown and decoded, and whether decoding can start there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Read {
    pub(super) time: i64,
    pub(super) decode: i64,
    pub(super) key: bool,
}

impl Reader {
    /// Opens input `number`, which must be such a track.
    ///
    /// # Errors
    /// [`FailureCode::OutputRejected`] where it is not.
    pub(super) fn open(inputs: &Inputs, number: u32, expect: &ExpectTrack) -> Result<Self, Failure> {
        let reject = |what| rejected(number, what);
        let mut demuxer = source::open_track(inputs, number)?;
        if demuxer.stream_count() != 1 {
            return Err(reject(format!("{} streams instead of one", demuxer.stream_count())));
        }
        let stream = demuxer.stream(0).ok_or_else(|| reject("no stream".into()))?;
        let mut packet = Packet::new().map_err(|e| Failure::new(FailureCode::OutOfMemory, e.to_string()))?;
        let more = demuxer.read(&mut packet).map_err(|e| reject(format!("it could not be read: {e}")))?;
        let first = times(&packet).filter(|_| more).ok_or_else(|| reject("nothing is in it".into()))?;
        let facts = Facts::check(expect, &stream, first).map_err(reject)?;
        let tail = fragments::last_duration(&mut inputs.get(number)?.small_reads())?;
        let tail = tail.ok_or_else(|| reject("its last fragment cannot be read".into()))?;
        let most = caps::MAX_DURATION_MS.saturating_mul(i64::from(facts.timescale)) / 1_000;
        let codec = match expect {
            ExpectTrack::Video { codec, .. } => Some(*codec),
            ExpectTrack::Audio { .. } => None,
        };
        Ok(Self {
            facts,
            count: 0,
            input: number,
            demuxer,
            packet,
            codec,
            waiting: true,
            first: first.0,
            most,
            shown: 0,
            tail,
        })
    }

    /// The next sample, whose bytes [`Self::data`] then gives.
    ///
    /// # Errors
    /// A sample that is not what it is said to be.
    pub(super) fn next(&mut self) -> Result<Option<Read>, Failure> {
        let reject = |what| rejected(self.input, what);
        if !self.waiting {
            let read = self.demuxer.read(&mut self.packet);
            let more = read.map_err(|e| reject(format!("it could not be read: {e}")))?;
            if self.demuxer.read_failed() {
                return Err(source::storage());
            }
            if !more {
                return Ok(None);
            }
        }
        self.waiting = false;
        let count = self.count;
        let (time, decode) = times(&self.packet).ok_or_else(|| reject("a sample has no time".into()))?;
        if time > self.most || time < self.first {
            return Err(reject(format!("a sample's time {time} is out of range")));
        }
        let data = self.packet.data();
        if data.is_empty() {
            return Err(reject(format!("sample {count} is empty")));
        }
        let key = match self.codec {
            Some(codec) => {
                let kind = bitstream::sample_kind(codec, data)
                    .ok_or_else(|| reject(format!("sample {count} is not {}", codec.as_str())))?;
                if self.packet.is_key() != (kind == SampleKind::Idr) {
                    return Err(reject(format!("sample {count} is marked as what it is not")));
                }
                kind == SampleKind::Idr
            }
            None => true,
        };
        if count == 0 && !key {
            return Err(reject("it does not start with a key frame".into()));
        }
        self.shown = self.shown.max(time);
        self.count = count.saturating_add(1);
        Ok(Some(Read { time, decode, key }))
    }

    /// The failure for a track that is not what was planned.
    pub(super) fn refuse(&self, what: String) -> Failure {
        rejected(self.input, what)
    }

    /// Bytes of the sample that was read last.
    pub(super) fn data(&self) -> &[u8] {
        self.packet.data()
    }

    /// How long the last sample is shown, in ticks.
    pub(super) fn tail(&self) -> i64 {
        self.tail
    }

    /// When the last sample ends, in ticks. To be asked after the last one was read.
    pub(super) fn end(&self) -> i64 {
        self.shown.saturating_add(self.tail)
    }

    /// Holds what was read in all against the plan.
    ///
    /// # Errors
    /// [`FailureCode::OutputRejected`].
    pub(super) fn judge(&self, expect: &ExpectTrack) -> Result<(), Failure> {
        judge(self.input, expect, self.count, self.end(), self.facts.timescale)
    }
}

/// Holds what a track has in all, `count` samples over so many ticks, against the plan.
///
/// # Errors
/// [`FailureCode::OutputRejected`].
pub(super) fn judge(
    input: u32,
    expect: &ExpectTrack,
    count: u64,
    ticks: i64,
    timescale: u32,
) -> Result<(), Failure> {
    let ticks = u64::try_from(ticks).unwrap_or(0);
    let ms = ticks.saturating_mul(1_000).checked_div(u64::from(timescale)).unwrap_or(0);
    let planned = expect.duration_ms();
    if ms.abs_diff(planned) > DURATION_TOLERANCE_MS {
        return Err(rejected(input, format!("it lasts {ms} ms instead of {planned}")));
    }
    match expect {
        ExpectTrack::Video { frames, .. } if *frames != count => {
            Err(rejected(input, format!("it has {count} frames instead of {frames}")))
        }
        _ => Ok(()),
    }
}

/// The failure for an input that is not what was planned.
pub(super) fn rejected(input: u32, what: String) -> Failure {
    Failure::new(FailureCode::OutputRejected, format!("track {input}: {what}"))
}

fn times(packet: &Packet) -> Option<(i64, i64)> {
    Some((packet.pts()?, packet.dts()?))
}

/// What the writer has to know of a track that was found to be what was planned.
pub(super) struct Facts {
    pub(super) track: Track,
    pub(super) timescale: u32,
    pub(super) codecs: String,
}

impl Facts {
    fn check(expect: &ExpectTrack, stream: &Stream, (first, decode): (i64, i64)) -> Result<Self, String> {
        let timescale = match stream.time_base {
            (1, den) if (8_000..=1_000_000).contains(&den) => den.unsigned_abs(),
            (num, den) => return Err(format!("the time base {num}/{den} is out of range")),
        };
        match (expect, stream.kind) {
            (ExpectTrack::Video { codec, width, height, .. }, Kind::Video) => {
                if stream.codec != codec.as_str() {
                    return Err(format!("its codec is {}", stream.codec));
                }
                if (u32::try_from(stream.width), u32::try_from(stream.height)) != (Ok(*width), Ok(*height)) {
                    return Err(format!(
                        "it is {} × {} pixels instead of {width} × {height}",
                        stream.width, stream.height
                    ));
                }
                // Encoders decode a few frames ahead; frames of a slide show are seconds apart.
                let lead = u32::try_from(decode.saturating_neg())
                    .ok()
                    .filter(|l| *l <= timescale.saturating_mul(60));
                let (0, Some(delay)) = (first, lead) else {
                    return Err(format!("its first frame is shown at {first} and decoded at {decode}"));
                };
                let (Ok(width), Ok(height)) = (u16::try_from(*width), u16::try_from(*height)) else {
                    return Err("it is too large".into());
                };
                let configuration =
                    bitstream::stored_configuration(*codec, &stream.extradata, (width, height), stream.color);
                let codecs = bitstream::codec_string(*codec, &configuration)
                    .ok_or_else(|| format!("its configuration is not that of {}", codec.as_str()))?;
                Ok(Self {
                    track: Track::Video {
                        codec: *codec,
                        width,
                        height,
                        configuration,
                        color: stream.color,
                        delay,
                    },
                    timescale,
                    codecs,
                })
            }
            (ExpectTrack::Audio { sample_rate, channels, .. }, Kind::Audio) => {
                if stream.codec != "aac" {
                    return Err(format!("its codec is {}", stream.codec));
                }
                let (rate, count) =
                    super::asc_facts(&stream.extradata).ok_or("its configuration is not that of AAC-LC")?;
                let fits = timescale == *sample_rate && rate == *sample_rate && count == *channels;
                if !fits
                    || i64::from(rate) != i64::from(stream.sample_rate)
                    || i64::from(count) != i64::from(stream.channels)
                {
                    return Err(format!(
                        "{rate} Hz and {count} channels instead of {sample_rate} and {channels}"
                    ));
                }
                if !(-MAX_PRIMING..=0).contains(&first) {
                    return Err(format!("its first packet is at {first}"));
                }
                let channels = u16::try_from(count).unwrap_or(0);
                let track = Track::Audio {
                    rate,
                    channels,
                    configuration: stream.extradata.clone(),
                    priming: u32::try_from(first.unsigned_abs()).unwrap_or(0),
                    bit_rate: u32::try_from(stream.bit_rate).unwrap_or(0),
                };
                Ok(Self { track, timescale, codecs: "mp4a.40.2".into() })
            }
            (_, kind) => Err(format!("its kind {kind:?} is not what was planned")),
        }
    }
}
