//! The thin edge to FFmpeg's C interface: owners of its objects, and the few calls that are made on them.
//!
//! All `unsafe` of this crate lives here. Above this module there are no raw pointers: a wrapper owns its object, frees it
//! when dropped, and hands out slices and copies only.
#![allow(unsafe_code, reason = "the edge to FFmpeg's C interface")]

pub(crate) mod decoder;
pub(crate) mod demux;
pub(crate) mod dict;
pub(crate) mod encoder;
pub(crate) mod error;
pub(crate) mod fds;
pub(crate) mod frame;
pub(crate) mod io;
pub(crate) mod log;
pub(crate) mod names;
pub(crate) mod packet;
pub(crate) mod probe;
pub(crate) mod resample;
pub(crate) mod scale;

pub(crate) use error::AvError;

use ffmpeg_next::ffi;

/// `AV_NOPTS_VALUE`: no time is known.
pub(crate) const NO_TIME: i64 = i64::MIN;

/// Caps what one allocation inside FFmpeg may ask for.
pub(crate) fn cap_allocations(bytes: u64) {
    let max = usize::try_from(bytes).unwrap_or(usize::MAX);
    // SAFETY: sets one atomic inside libavutil; takes no pointers.
    unsafe { ffi::av_max_alloc(max) }
}

/// Rescales `value` from the time base `from` to the time base `to` (numerator, denominator), to the nearest. A base that
/// is not positive gives 0 rather than an assertion inside FFmpeg.
pub(crate) fn rescale(value: i64, from: (i32, i32), to: (i32, i32)) -> i64 {
    if from.0 <= 0 || from.1 <= 0 || to.0 <= 0 || to.1 <= 0 {
        return 0;
    }
    let num = i128::from(value).saturating_mul(i128::from(from.0)).saturating_mul(i128::from(to.1));
    let den = i128::from(from.1).saturating_mul(i128::from(to.0));
    let half = den.checked_div(2).unwrap_or(0);
    let rounded = if num >= 0 { num.saturating_add(half) } else { num.saturating_sub(half) };
    let out = rounded.checked_div(den).unwrap_or(0);
    i64::try_from(out).unwrap_or(if out < 0 { i64::MIN.saturating_add(1) } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::rescale;

    #[test]
    fn times_are_rescaled_to_the_nearest_and_never_overflow() {
        assert_eq!(rescale(1, (1, 30), (1, 90_000)), 3_000);
        assert_eq!(rescale(-1, (1001, 30_000), (1, 90_000)), -3_003);
        assert_eq!(rescale(1, (1, 3), (1, 2)), 1);
        assert_eq!(rescale(i64::MAX, (i32::MAX, 1), (1, i32::MAX)), i64::MAX);
        assert_eq!(rescale(5, (0, 1), (1, 90_000)), 0);
    }
}
