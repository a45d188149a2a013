//! From a decoded picture to the one that is encoded: tone-mapped, scaled, turned.

use crate::ff::AvError;
use crate::ff::frame::{Color, Frame, Picture};
use crate::ff::names;
use crate::ff::scale::{Scaler, Target};
use crate::rotate::Turn;
use crate::tone::{ToneMap, Transfer};
use mpegflow_protocol::failure::{Failure, FailureCode};

/// What the picture is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Video: limited range, in the source's own colours.
    Video,
    /// JPEG: full range, BT.601 (ITU-T T.871).
    Still,
}

/// Makes every picture of a stream alike.
pub(crate) struct Converter {
    turn: Turn,
    /// The size before the turn; format and colours.
    target: Target,
    color: Color,
    scaler: Option<Scaler>,
    scaled: Option<Frame>,
    turned: Option<Frame>,
    light: Option<Light>,
}

/// The way of an HDR picture.
struct Light {
    transfer: Transfer,
    map: ToneMap,
    wide: Option<Scaler>,
    from: Option<Frame>,
    to: Option<Frame>,
    narrow: Option<Scaler>,
}

impl Converter {
    /// For pictures like `first` that become `width` × `height` when they are upright.
    pub(crate) fn new(turn: Turn, width: u32, height: u32, purpose: Purpose, first: &Picture) -> Self {
        let (width, height) = if turn.swaps() { (height, width) } else { (width, height) };
        let sdr = Color { primaries: 1, transfer: 1, matrix: 1 };
        let color = match purpose {
            Purpose::Video if Transfer::of(first.color.transfer).is_some() => sdr,
            Purpose::Video => resolved(first),
            Purpose::Still => Color { primaries: 1, transfer: 1, matrix: 6 },
        };
        let full_range = purpose == Purpose::Still;
        let format = if full_range { names::YUVJ420P } else { names::YUV420P };
        let target = Target { width, height, format, matrix: color.matrix, full_range };
        Self { turn, target, color, scaler: None, scaled: None, turned: None, light: None }
    }

    /// How the pictures that come out are coded.
    pub(crate) fn color(&self) -> Color {
        self.color
    }

    /// The picture as the encoder takes it. Its buffers are used again as soon as nobody holds what came out.
    ///
    /// # Errors
    /// A pixel format that cannot be scaled; out of memory.
    pub(crate) fn run(&mut self, frame: &Frame) -> Result<Frame, Failure> {
        let picture = frame.picture();
        let size = (i32::try_from(self.target.width), i32::try_from(self.target.height));
        let transfer = Transfer::of(picture.color.transfer);
        let as_is = picture.format == names::YUV420P
            && self.target.format == names::YUV420P
            && !picture.full_range
            && transfer.is_none()
            && (Ok(picture.width), Ok(picture.height)) == size
            && resolved(&picture).matrix == self.color.matrix;
        let upright = self.turn.is_none();
        if as_is && upright {
            return frame.share().map_err(|e| failed("a frame", e));
        }
        if !as_is {
            match transfer {
                Some(transfer) => self.map(frame, picture, transfer)?,
                None => self.scale(frame, picture)?,
            }
        }
        let source = if as_is { Some(frame) } else { self.scaled.as_ref() };
        let source = source.ok_or_else(|| Failure::new(FailureCode::WorkerError, "no picture"))?;
        if upright {
            return source.share().map_err(|e| failed("a frame", e));
        }
        let Target { width, height, format, .. } = self.target;
        let (turned_width, turned_height) = if self.turn.swaps() { (height, width) } else { (width, height) };
        let target = reusable(&mut self.turned, format, turned_width, turned_height)?;
        let to_usize = |v: u32| usize::try_from(v).unwrap_or(0);
        self.turn
            .run(source, target, to_usize(width), to_usize(height))
            .ok_or_else(|| Failure::new(FailureCode::WorkerError, "a picture could not be turned"))?;
        target.share().map_err(|e| failed("a frame", e))
    }

    fn scale(&mut self, frame: &Frame, picture: Picture) -> Result<(), Failure> {
        let scaler = scaler_for(&mut self.scaler, picture, resolved(&picture).matrix, self.target)?;
        let target = reusable(&mut self.scaled, self.target.format, self.target.width, self.target.height)?;
        scaler.run(frame, target).map_err(|e| failed("a picture could not be scaled", e))
    }

    /// Scaled to 16-bit RGB, mapped to 8-bit RGB, and from there to what is encoded.
    fn map(&mut self, frame: &Frame, picture: Picture, transfer: Transfer) -> Result<(), Failure> {
        let Target { width, height, format, .. } = self.target;
        if self.light.as_ref().is_none_or(|l| l.transfer != transfer) {
            let map = ToneMap::new(transfer);
            self.light = Some(Light { transfer, map, wide: None, from: None, to: None, narrow: None });
        }
        let Some(light) = self.light.as_mut() else { return Ok(()) };
        let target = Target { format: names::RGB48, matrix: 9, full_range: true, ..self.target };
        let matrix =
            if matches!(picture.color.matrix, 1 | 4..=7 | 9 | 10) { picture.color.matrix } else { 9 };
        let wide = scaler_for(&mut light.wide, picture, matrix, target)?;
        let from = reusable(&mut light.from, names::RGB48, width, height)?;
        wide.run(frame, from).map_err(|e| failed("a picture could not be scaled", e))?;
        let to = reusable(&mut light.to, names::RGB24, width, height)?;
        let odd = || Failure::new(FailureCode::WorkerError, "a picture could not be mapped");
        let (row, _) = from.plane_size(0).ok_or_else(odd)?;
        let (made, _) = to.plane_size(0).ok_or_else(odd)?;
        let (source, source_stride) = from.plane(0).ok_or_else(odd)?;
        let (mapped, stride) = to.plane_mut(0).ok_or_else(odd)?;
        for (source, mapped) in source.chunks(source_stride).zip(mapped.chunks_mut(stride)) {
            let (source, mapped) =
                (source.get(..row).ok_or_else(odd)?, mapped.get_mut(..made).ok_or_else(odd)?);
            light.map.row(source, mapped);
        }
        let narrow = scaler_for(&mut light.narrow, to.picture(), self.color.matrix, self.target)?;
        let target = reusable(&mut self.scaled, format, width, height)?;
        narrow.run(to, target).map_err(|e| failed("a picture could not be scaled", e))
    }
}

fn scaler_for(
    slot: &mut Option<Scaler>,
    picture: Picture,
    matrix: u32,
    target: Target,
) -> Result<&mut Scaler, Failure> {
    if !slot.as_ref().is_some_and(|s| s.takes(&picture)) {
        *slot = Some(Scaler::new(picture, matrix, target).map_err(|_| {
            let name = names::pixel_format_name(picture.format).unwrap_or_else(|| "unknown".into());
            Failure::new(FailureCode::InputCorrupt, format!("pictures in the format {name} cannot be scaled"))
        })?);
    }
    slot.as_mut().ok_or_else(|| Failure::new(FailureCode::WorkerError, "no scaler"))
}

/// A picture that may be written: the old one where nobody else holds it.
pub(crate) fn reusable(
    slot: &mut Option<Frame>,
    format: i32,
    width: u32,
    height: u32,
) -> Result<&mut Frame, Failure> {
    if !slot.as_ref().is_some_and(Frame::is_writable) {
        *slot = Some(Frame::of_format(format, width, height).map_err(|e| failed("memory for a picture", e))?);
    }
    slot.as_mut().ok_or_else(|| Failure::new(FailureCode::OutOfMemory, "no memory for a picture"))
}

/// The failure of a step of FFmpeg that ought not to fail.
pub(crate) fn failed(what: &str, error: AvError) -> Failure {
    let code = if error == AvError::NO_MEMORY { FailureCode::OutOfMemory } else { FailureCode::WorkerError };
    Failure::new(code, format!("{what}: {error}"))
}

/// The colour coding to write. Where the source says nothing, what players assume is written down: BT.601 for standard
/// definition, BT.709 above. It is fixed by the source's size, so a small rung of a large source is not taken for BT.601.
pub(crate) fn resolved(picture: &Picture) -> Color {
    let color = picture.color;
    // 0 is RGB, 3 reserved, 8 YCgCo, which 8-bit 4:2:0 players do not take.
    let matrix_known = matches!(color.matrix, 1 | 4..=7 | 9 | 10);
    if matrix_known {
        return color;
    }
    let guess = if picture.height <= 576 && matches!(color.matrix, 2) { 6 } else { 1 };
    let or_guess = |v: u32| if matches!(v, 0 | 2 | 3) { guess } else { v };
    Color { primaries: or_guess(color.primaries), transfer: or_guess(color.transfer), matrix: guess }
}
