//! Decoders, each opened by a name from our own table.

use super::demux::Demuxer;
use super::frame::Frame;
use super::packet::Packet;
use super::{AvError, log};
use crate::{caps, decoders};
use ffmpeg_next::ffi;
use mpegflow_protocol::failure::{Failure, FailureCode};
use std::ffi::{CString, c_int};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

static OUT_OF_MEMORY: AtomicBool = AtomicBool::new(false);

/// The failure for a decoder that was refused memory, if one was since the start.
///
/// # Errors
/// [`FailureCode::ResourceLimit`].
pub(crate) fn refused_memory() -> Result<(), Failure> {
    if OUT_OF_MEMORY.load(Ordering::Relaxed) {
        return Err(Failure::new(FailureCode::ResourceLimit, "decoding asks for more memory than is given"));
    }
    Ok(())
}

/// An open decoder.
pub(crate) struct Decoder(*mut ffi::AVCodecContext);

/// Decoders that show damage as whichever of their threads came first left it, so that one file would come out differently each time
/// (FFmpeg 5.1: three runs with two threads give three results, three runs with one give the same).
const ONE_THREAD: [&str; 1] = ["theora"];

// SAFETY: used by one owner at a time; FFmpeg's contexts have no ties to a thread.
unsafe impl Send for Decoder {}

impl Decoder {
    /// Opens the decoder called `name` for stream `index`.
    ///
    /// # Errors
    /// FFmpeg's; [`AvError::INVALID_ARGUMENT`] where the stream is not in that decoder's format.
    pub(crate) fn open(demuxer: &Demuxer, index: usize, name: &str, threads: u32) -> Result<Self, AvError> {
        // Whoever asks: the check of an output reads bytes that a hostile encoder may have written.
        if decoders::is_banned(name) {
            return Err(AvError(ffi::AVERROR_DECODER_NOT_FOUND));
        }
        let (parameters, time_base) = demuxer.parameters(index).ok_or(AvError::INVALID_ARGUMENT)?;
        let threads = if ONE_THREAD.contains(&name) { 1 } else { threads };
        let name = CString::new(name).map_err(|_| AvError::INVALID_ARGUMENT)?;
        // SAFETY: a NUL-terminated name.
        let codec = unsafe { ffi::avcodec_find_decoder_by_name(name.as_ptr()) };
        // SAFETY: codecs are static; the parameters live as long as the demuxer.
        if codec.is_null() || unsafe { (*codec).id != (*parameters).codec_id } {
            return Err(AvError::INVALID_ARGUMENT);
        }
        // SAFETY: the codec is static; null is handled.
        let raw = unsafe { ffi::avcodec_alloc_context3(codec) };
        if raw.is_null() {
            return Err(AvError::NO_MEMORY);
        }
        let decoder = Self(raw);
        // SAFETY: alive and owned; the fields are those a caller sets before opening; the whitelist text is copied into
        // memory that FFmpeg frees with the context.
        unsafe {
            AvError::check(ffi::avcodec_parameters_to_context(raw, parameters))?;
            (*raw).pkt_timebase = time_base;
            (*raw).thread_count = c_int::try_from(threads.clamp(1, 16)).unwrap_or(1);
            (*raw).max_pixels = i64::try_from(caps::MAX_PIXELS).unwrap_or(i64::MAX);
            (*raw).max_samples = caps::MAX_SAMPLES_PER_FRAME;
            (*raw).get_buffer2 = Some(get_buffer);
            // FFmpeg 5 turns frame threads off without this; `get_buffer` keeps nothing of its own.
            (*raw).thread_safe_callbacks = 1;
            ffi::av_freep((&raw mut (*raw).codec_whitelist).cast());
            (*raw).codec_whitelist = ffi::av_strdup(name.as_ptr());
            if (*raw).codec_whitelist.is_null() {
                return Err(AvError::NO_MEMORY);
            }
            AvError::check(ffi::avcodec_open2(raw, codec, ptr::null_mut()))?;
        }
        Ok(decoder)
    }

    /// Makes damage an error rather than something to paint over.
    pub(crate) fn be_strict(&mut self) {
        // SAFETY: alive; decoders read this field as they go.
        unsafe {
            (*self.0).err_recognition |= ffi::AV_EF_EXPLODE | ffi::AV_EF_BITSTREAM | ffi::AV_EF_BUFFER;
        }
    }

    /// Hands in a packet, or the end.
    ///
    /// # Errors
    /// [`AvError::AGAIN`] where frames have to be taken out first; else the packet is bad.
    pub(crate) fn send(&mut self, packet: Option<&Packet>) -> Result<(), AvError> {
        let packet = packet.map_or(ptr::null_mut(), Packet::as_ptr);
        // SAFETY: the decoder is open, the packet alive or null.
        note(unsafe { ffi::avcodec_send_packet(self.0, packet) })
    }

    /// Takes a frame out; `false` where there is none now.
    ///
    /// # Errors
    /// FFmpeg's: a frame that could not be decoded.
    pub(crate) fn receive(&mut self, frame: &mut Frame) -> Result<bool, AvError> {
        // SAFETY: the decoder is open, the frame alive; its old contents are dropped by FFmpeg.
        match note(unsafe { ffi::avcodec_receive_frame(self.0, frame.as_ptr()) }) {
            Ok(()) => Ok(true),
            Err(AvError::AGAIN | AvError::EOF) => Ok(false),
            Err(e) => Err(e),
        }
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // SAFETY: owned, freed once.
        unsafe { ffi::avcodec_free_context(&mut self.0) }
    }
}

fn note(code: i32) -> Result<(), AvError> {
    let result = AvError::check(code).map(drop);
    if result == Err(AvError::NO_MEMORY) {
        OUT_OF_MEMORY.store(true, Ordering::Relaxed);
    }
    result
}

/// Refuses a picture above the caps before memory for it is asked for. `max_pixels` bounds the area; this bounds the sides
/// too, and sees what the bit stream says rather than the container.
unsafe extern "C" fn get_buffer(
    context: *mut ffi::AVCodecContext,
    frame: *mut ffi::AVFrame,
    flags: c_int,
) -> c_int {
    // SAFETY: FFmpeg passes its own context and frame.
    let (width, height) = unsafe { ((*frame).width, (*frame).height) };
    if width > caps::MAX_SIDE || height > caps::MAX_SIDE {
        log::note_refused_size();
        return AvError::INVALID_ARGUMENT.0;
    }
    // SAFETY: as above.
    let code = unsafe { ffi::avcodec_default_get_buffer2(context, frame, flags) };
    // Decoders pass the refusal on as damage, so it is noted where it happens.
    match note(code) {
        Ok(()) => code,
        Err(e) => e.0,
    }
}
