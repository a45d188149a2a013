//! Mirroring and quarter turns of 8-bit 4:2:0 pictures.

use crate::ff::frame::Frame;

/// What makes a picture upright: mirror left to right first, then turn clockwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Turn {
    /// Clockwise quarters, 0 to 3.
    quarters: u8,
    /// Mirror left to right before the turn.
    mirrored: bool,
}

impl Turn {
    /// From degrees: 0, 90, 180 or 270.
    pub(crate) fn new(degrees: u16, mirrored: bool) -> Option<Self> {
        let quarters = match degrees {
            0 => 0,
            90 => 1,
            180 => 2,
            270 => 3,
            _ => return None,
        };
        Some(Self { quarters, mirrored })
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_none(self) -> bool {
        self.quarters == 0 && !self.mirrored
    }

    /// Whether width and height change places.
    pub(crate) fn swaps(self) -> bool {
        self.quarters % 2 == 1
    }

    /// Turns `from` into `to`, which has the turned size. `None` where a plane is missing or too small.
    pub(crate) fn run(self, from: &Frame, to: &mut Frame, width: usize, height: usize) -> Option<()> {
        for plane in 0..3 {
            let (w, h) = if plane == 0 { (width, height) } else { (width.div_ceil(2), height.div_ceil(2)) };
            let (source, source_stride) = from.plane(plane)?;
            let (target, target_stride) = to.plane_mut(plane)?;
            self.plane(source, source_stride, target, target_stride, w, h)?;
        }
        Some(())
    }

    /// One plane of `w` × `h` bytes, the size before the turn.
    fn plane(
        self,
        source: &[u8],
        source_stride: usize,
        target: &mut [u8],
        target_stride: usize,
        w: usize,
        h: usize,
    ) -> Option<()> {
        // Target (x, y) comes from the turned-back point; then the mirroring is undone.
        match (self.quarters, self.mirrored) {
            (0 | 2, mirrored) => {
                let upside_down = self.quarters == 2;
                // Half a turn is both mirrorings, so together with `mirrored` left-right cancels out.
                let reversed = mirrored != upside_down;
                for (y, row) in target.chunks_mut(target_stride).take(h).enumerate() {
                    let from_y = if upside_down { h.checked_sub(y)?.checked_sub(1)? } else { y };
                    let start = from_y.checked_mul(source_stride)?;
                    let from = source.get(start..start.checked_add(w)?)?;
                    let row = row.get_mut(..w)?;
                    if reversed {
                        row.iter_mut().zip(from.iter().rev()).for_each(|(t, s)| *t = *s);
                    } else {
                        row.copy_from_slice(from);
                    }
                }
            }
            (quarters, mirrored) => {
                // Clockwise quarter: target (x, y) = source (y, h − 1 − x). Three quarters: source (w − 1 − y, x).
                // Mirroring replaces the source's column c by w − 1 − c.
                let from_right = (quarters == 3) != mirrored;
                let from_bottom = quarters == 1;
                // Blocks keep both sides of the transpose in the cache.
                const BLOCK: usize = 32;
                for y0 in (0..w).step_by(BLOCK) {
                    for x0 in (0..h).step_by(BLOCK) {
                        for y in y0..w.min(y0.checked_add(BLOCK)?) {
                            let column = if from_right { w.checked_sub(1)?.checked_sub(y)? } else { y };
                            let end = h.min(x0.checked_add(BLOCK)?);
                            let start = y.checked_mul(target_stride)?;
                            let row = target.get_mut(start.checked_add(x0)?..start.checked_add(end)?)?;
                            for (x, t) in (x0..end).zip(row) {
                                let line = if from_bottom { h.checked_sub(1)?.checked_sub(x)? } else { x };
                                *t = *source.get(line.checked_mul(source_stride)?.checked_add(column)?)?;
                            }
                        }
                    }
                }
            }
        }
        Some(())
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "small numbers of a test")]
mod tests {
    use super::Turn;

    fn turned(degrees: u16, mirrored: bool) -> String {
        // abc
        // def
        let (w, h) = (3, 2);
        let turn = Turn::new(degrees, mirrored).unwrap();
        let (tw, th) = if turn.swaps() { (h, w) } else { (w, h) };
        let mut out = vec![b'.'; (tw + 1) * th];
        turn.plane(b"abc_def_", 4, &mut out, tw + 1, w, h).unwrap();
        out.chunks(tw + 1)
            .map(|r| String::from_utf8_lossy(&r[..tw]).into_owned())
            .collect::<Vec<_>>()
            .join("/")
    }

    #[test]
    fn each_turn_and_mirroring_puts_every_byte_where_it_belongs() {
        assert_eq!(turned(0, false), "abc/def");
        assert_eq!(turned(90, false), "da/eb/fc");
        assert_eq!(turned(180, false), "fed/cba");
        assert_eq!(turned(270, false), "cf/be/ad");
        assert_eq!(turned(0, true), "cba/fed");
        assert_eq!(turned(90, true), "fc/eb/da");
        assert_eq!(turned(180, true), "def/abc");
        assert_eq!(turned(270, true), "ad/be/cf");
    }
}
