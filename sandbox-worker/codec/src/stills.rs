//! Pictures of a video: a poster, or a sheet of small ones; on a thread of its own.

use crate::convert::{Converter, Purpose, failed};
use crate::ff::encoder::Encoder;
use crate::ff::frame::Frame;
use crate::ff::names;
use crate::ff::packet::Packet;
use crate::output::Output;
use crate::rotate::Turn;
use crate::rung::Work;
use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::task::{EncodedTrack, PosterEncode, SpritesEncode, VideoEncode};
use std::sync::mpsc::Receiver;

/// The JPEG encoder's quantiser: good, and fair.
const POSTER_QUALITY: u8 = 3;
const SPRITES_QUALITY: u8 = 5;
/// Ticks of a millisecond.
const TICKS: i64 = 90;

/// What is to be made.
#[derive(Clone, Copy)]
pub(crate) enum Still<'a> {
    Poster(&'a PosterEncode),
    Sprites(&'a SpritesEncode),
}

/// The stills of a plan.
pub(crate) fn planned(plan: &VideoEncode) -> impl Iterator<Item = Still<'_>> {
    plan.poster.iter().map(Still::Poster).chain(plan.sprites.iter().map(Still::Sprites))
}

impl Still<'_> {
    /// Position of its output.
    pub(crate) fn output(&self) -> u32 {
        match self {
            Self::Poster(p) => p.output,
            Self::Sprites(s) => s.output,
        }
    }
}

/// Makes a still of what comes.
///
/// # Errors
/// The first failing step.
pub(crate) fn run(
    still: Still<'_>,
    turn: Turn,
    output: Output,
    work: &Receiver<Work>,
) -> Result<EncodedTrack, Failure> {
    match still {
        Still::Poster(plan) => poster(plan, turn, output, work),
        Still::Sprites(plan) => sprites(plan, turn, output, work),
    }
}

fn poster(
    plan: &PosterEncode,
    turn: Turn,
    output: Output,
    work: &Receiver<Work>,
) -> Result<EncodedTrack, Failure> {
    let wanted = i64::try_from(plan.at_ms).unwrap_or(i64::MAX).saturating_mul(TICKS);
    let (mut chosen, mut last, mut end) = (None, None, None);
    while end.is_none() {
        match work.recv() {
            Ok(Work::Frame { frame, time, .. }) if chosen.is_none() => {
                if time >= wanted {
                    chosen = Some(frame);
                } else {
                    last = Some(frame);
                }
            }
            Ok(Work::Frame { .. }) => {}
            Ok(Work::End(at)) => end = Some(at),
            Err(_) => return Err(given_up()),
        }
    }
    let frame = chosen.or(last).ok_or_else(no_frames)?;
    let mut converter = Converter::new(turn, plan.width, plan.height, Purpose::Still, &frame.picture());
    let picture = converter.run(&frame)?;
    write(plan.output, &picture, (plan.width, plan.height), POSTER_QUALITY, output, (1, end))
}

fn sprites(
    plan: &SpritesEncode,
    turn: Turn,
    output: Output,
    work: &Receiver<Work>,
) -> Result<EncodedTrack, Failure> {
    let most = plan.columns.saturating_mul(plan.rows);
    let size = (plan.tile_width.saturating_mul(plan.columns), plan.tile_height.saturating_mul(plan.rows));
    if most == 0 || plan.interval_ms == 0 || plan.tile_width % 2 == 1 || plan.tile_height % 2 == 1 {
        return Err(Failure::new(FailureCode::WorkerError, "the plan's sprite sheet cannot be made"));
    }
    let mut sheet = Sheet::new(plan, size)?;
    let interval = i64::from(plan.interval_ms).saturating_mul(TICKS);
    let mut shown: Option<Frame> = None;
    let mut converter: Option<Converter> = None;
    let mut tiles = 0u32;
    let end = loop {
        let (next, until, last) = match work.recv() {
            Ok(Work::Frame { frame, time, .. }) => (Some(frame), time, None),
            Ok(Work::End(at)) => (None, at, Some(at)),
            Err(_) => return Err(given_up()),
        };
        // Tiles of moments before the next frame show the one that stood.
        while let Some(frame) =
            shown.as_ref().filter(|_| tiles < most && i64::from(tiles).saturating_mul(interval) < until)
        {
            let converter = converter.get_or_insert_with(|| {
                Converter::new(turn, plan.tile_width, plan.tile_height, Purpose::Still, &frame.picture())
            });
            sheet.put(&converter.run(frame)?, tiles)?;
            tiles = tiles.saturating_add(1);
        }
        shown = next;
        if let Some(at) = last {
            break at;
        }
    };
    if tiles == 0 {
        return Err(no_frames());
    }
    write(plan.output, &sheet.frame, size, SPRITES_QUALITY, output, (u64::from(tiles), Some(end)))
}

struct Sheet<'a> {
    plan: &'a SpritesEncode,
    frame: Frame,
}

impl<'a> Sheet<'a> {
    /// A black sheet.
    fn new(plan: &'a SpritesEncode, (width, height): (u32, u32)) -> Result<Self, Failure> {
        let mut frame =
            Frame::of_format(names::YUVJ420P, width, height).map_err(|e| failed("memory for a sheet", e))?;
        for plane in 0..3 {
            let (bytes, _) = frame.plane_mut(plane).ok_or_else(odd)?;
            bytes.fill(if plane == 0 { 0 } else { 128 });
        }
        Ok(Self { plan, frame })
    }

    fn put(&mut self, tile: &Frame, number: u32) -> Result<(), Failure> {
        let column = number.checked_rem(self.plan.columns).unwrap_or(0);
        let row = number.checked_div(self.plan.columns).unwrap_or(0);
        let at = |v: u32| usize::try_from(v).unwrap_or(usize::MAX);
        let (left, top) =
            (column.saturating_mul(self.plan.tile_width), row.saturating_mul(self.plan.tile_height));
        for plane in 0..3usize {
            let half = u32::from(plane > 0);
            let (left, top) = (at(left >> half), at(top >> half));
            let (width, rows) = tile.plane_size(plane).ok_or_else(odd)?;
            let (from, from_stride) = tile.plane(plane).ok_or_else(odd)?;
            let (to, stride) = self.frame.plane_mut(plane).ok_or_else(odd)?;
            for y in 0..rows {
                let source = y.saturating_mul(from_stride);
                let source = from.get(source..source.saturating_add(width)).ok_or_else(odd)?;
                let target = top.saturating_add(y).saturating_mul(stride).saturating_add(left);
                to.get_mut(target..target.saturating_add(width)).ok_or_else(odd)?.copy_from_slice(source);
            }
        }
        Ok(())
    }
}

fn write(
    number: u32,
    picture: &Frame,
    (width, height): (u32, u32),
    quality: u8,
    mut output: Output,
    (units, end): (u64, Option<i64>),
) -> Result<EncodedTrack, Failure> {
    let mut encoder = Encoder::jpeg(width, height, quality)
        .map_err(|e| failed("the JPEG encoder could not be opened", e))?;
    let mut packet = Packet::new().map_err(|e| failed("a packet", e))?;
    let mut picture = picture.share().map_err(|e| failed("a frame", e))?;
    picture.strip();
    picture.set_pts(0);
    encoder.send(Some(&picture)).map_err(|e| failed("the JPEG encoder refused a picture", e))?;
    encoder.send(None).map_err(|e| failed("the JPEG encoder could not be flushed", e))?;
    if !encoder.receive(&mut packet).map_err(|e| failed("the JPEG encoder failed", e))? {
        return Err(Failure::new(FailureCode::WorkerError, "the JPEG encoder gave no picture"));
    }
    output.append(packet.data())?;
    let duration_ms = u64::try_from(end.unwrap_or(0) / TICKS).unwrap_or(0).max(1);
    Ok(EncodedTrack { output: number, units, duration_ms, bytes: output.written(), copied: false })
}

fn odd() -> Failure {
    Failure::new(FailureCode::WorkerError, "a tile does not fit its sheet")
}

fn no_frames() -> Failure {
    Failure::new(FailureCode::NoFrames, FailureCode::NoFrames.help())
}

fn given_up() -> Failure {
    Failure::new(FailureCode::WorkerError, "the encode was given up")
}
