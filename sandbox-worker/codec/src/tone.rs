//! HDR to SDR: PQ (SMPTE ST 2084) or HLG (ITU-R BT.2100) in BT.2020 becomes BT.709.
//!
//! HDR reference white, 203 cd/m² (ITU-R BT.2408), becomes the white of SDR. Darker light keeps its place up to a knee, and
//! from there a Möbius curve leads the brightest light that is expected to white. The curve is applied to the largest of the
//! three components, so that hue stays. PQ is light of a display, so the result is coded for one (ITU-R BT.1886).

/// cd/m² that become SDR white.
const WHITE: f32 = 203.0;
/// cd/m² that are expected at most: what HDR is graded for.
const PEAK: f32 = 1_000.0;
/// Light below this share of white is left as it is.
const KNEE: f32 = 0.3;
/// Steps of the table that encodes light.
const STEPS: usize = 65_536;

/// How light was coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transfer {
    /// SMPTE ST 2084.
    Pq,
    /// ARIB STD-B67.
    Hlg,
}

impl Transfer {
    /// From transfer characteristics as ISO/IEC 23091-2 numbers them; `None` for SDR.
    pub(crate) fn of(number: u32) -> Option<Self> {
        match number {
            16 => Some(Self::Pq),
            18 => Some(Self::Hlg),
            _ => None,
        }
    }

    /// Light of a code value, where 1 is SDR white. For HLG the light of the scene, 0 to 1: what a display makes of it depends
    /// on all three components.
    fn light(self, code: f32) -> f32 {
        match self {
            Self::Pq => {
                let (m1, m2) = (2_610.0 / 16_384.0, 2_523.0 / 32.0);
                let (c1, c2, c3) = (3_424.0 / 4_096.0, 2_413.0 / 128.0, 2_392.0 / 128.0);
                let v = code.powf(1.0 / m2);
                ((v - c1).max(0.0) / (c2 - c3 * v)).powf(1.0 / m1) * 10_000.0 / WHITE
            }
            Self::Hlg => {
                let (a, b, c) = (0.178_832_77, 0.284_668_92, 0.559_910_7);
                if code <= 0.5 { code * code / 3.0 } else { (((code - c) / a).exp() + b) / 12.0 }
            }
        }
    }
}

/// Tables of one transfer.
pub(crate) struct ToneMap {
    transfer: Transfer,
    light: Vec<f32>,
    code: Vec<u8>,
    system: Vec<f32>,
}

impl ToneMap {
    /// Tables for light coded so.
    pub(crate) fn new(transfer: Transfer) -> Self {
        let of = |n: usize, most: usize| n as f32 / most as f32;
        let light =
            (0..=usize::from(u16::MAX)).map(|n| transfer.light(of(n, usize::from(u16::MAX)))).collect();
        let code = (0..=STEPS).map(|n| (of(n, STEPS).powf(1.0 / 2.4) * 255.0 + 0.5) as u8).collect();
        // The system gamma of a 1,000 cd/m² display is 1.2.
        let system = (0..=STEPS).map(|n| of(n, STEPS).max(1e-6).powf(0.2) * PEAK / WHITE).collect();
        Self { transfer, light, code, system }
    }

    /// Maps a row of 16-bit RGB, little endian, to a row of 8-bit RGB.
    pub(crate) fn row(&self, from: &[u8], to: &mut [u8]) {
        for (source, target) in from.chunks_exact(6).zip(to.chunks_exact_mut(3)) {
            let [r0, r1, g0, g1, b0, b1] = *source else { continue };
            let light = |a: u8, b: u8| {
                self.light.get(usize::from(u16::from_le_bytes([a, b]))).copied().unwrap_or(0.0)
            };
            let mapped = self.pixel([light(r0, r1), light(g0, g1), light(b0, b1)]);
            for (t, value) in target.iter_mut().zip(mapped) {
                *t = self.code.get((value * STEPS as f32 + 0.5) as usize).copied().unwrap_or(u8::MAX);
            }
        }
    }

    /// SDR light of a pixel, each component 0 to 1.
    fn pixel(&self, [r, g, b]: [f32; 3]) -> [f32; 3] {
        let gain = match self.transfer {
            Transfer::Pq => 1.0,
            Transfer::Hlg => {
                let luma = 0.2627 * r + 0.678 * g + 0.0593 * b;
                let step = (luma * STEPS as f32) as usize;
                self.system.get(step.min(STEPS)).copied().unwrap_or(1.0)
            }
        };
        let (r, g, b) = (r * gain, g * gain, b * gain);
        // BT.2020 to BT.709 (ITU-R BT.2087); what BT.709 cannot show is cut at black.
        let out = [
            1.6605 * r - 0.5876 * g - 0.0728 * b,
            -0.1246 * r + 1.1329 * g - 0.0083 * b,
            -0.0182 * r - 0.1006 * g + 1.1187 * b,
        ]
        .map(|v| v.max(0.0));
        let [r, g, b] = out;
        let signal = r.max(g).max(b);
        if signal <= KNEE {
            return out;
        }
        let scale = mobius(signal) / signal;
        out.map(|v| (v * scale).min(1.0))
    }
}

/// Straight up to the knee, then bent so that the peak arrives at 1.
fn mobius(x: f32) -> f32 {
    let peak = PEAK / WHITE;
    let j = KNEE;
    let a = -j * j * (peak - 1.0) / (j * j - 2.0 * j + peak);
    let b = (j * j - 2.0 * j * peak + peak) / (peak - 1.0);
    ((b * b + 2.0 * b * j + j * j) / (b - a) * (x + a) / (x + b)).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transfers_give_the_light_of_their_standards() {
        // BT.2408: 203 cd/m² is at 58 % of PQ and at 75 % of HLG; ST 2084: code 1 is 10,000 cd/m².
        assert!((Transfer::Pq.light(0.5807) - 1.0).abs() < 0.01);
        assert!((Transfer::Pq.light(1.0) - 10_000.0 / WHITE).abs() < 0.1);
        let scene = Transfer::Hlg.light(0.75);
        assert!((scene.powf(1.2) * PEAK - WHITE).abs() < 2.0, "{scene}");
        assert_eq!(Transfer::of(1), None);
    }

    #[test]
    fn grey_stays_grey_and_brighter_stays_brighter() {
        for transfer in [Transfer::Pq, Transfer::Hlg] {
            let map = ToneMap::new(transfer);
            let mut last = 0;
            for code in (0..=u16::MAX).step_by(257) {
                let bytes = code.to_le_bytes();
                let mut out = [0; 3];
                map.row(&[bytes[0], bytes[1], bytes[0], bytes[1], bytes[0], bytes[1]], &mut out);
                assert!(out[0].abs_diff(out[1]) <= 1 && out[1].abs_diff(out[2]) <= 1, "{out:?}");
                assert!(out[1] >= last, "{code}: {out:?} after {last}");
                last = out[1];
            }
            assert_eq!(last, 255);
        }
    }
}
