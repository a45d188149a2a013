//! Why an attempt or a job failed: a class that decides what happens next, a documented code, and a message for its owner.

use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa::ToSchema;

/// Characters in [`Failure::message`].
pub const MAX_MESSAGE_CHARS: usize = 512;

/// What a failure means for the retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// The input is at fault: fail, do not retry.
    Media,
    /// The worker is at fault (lost, killed, out of memory): retry elsewhere.
    Worker,
    /// Storage is at fault: back off and retry.
    Storage,
    /// The broker is at fault: back off and retry.
    Broker,
    /// A lock was violated or refused: fail, quarantine the input, alert.
    Policy,
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])* $variant:ident $text:tt $class:ident;)*) => {
        /// A documented reason. docs/errors.md is made from these and lists what the owner can do.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
        #[non_exhaustive]
        pub enum FailureCode {
            $($(#[doc = $doc])* #[serde(rename = $text)] $variant,)*
        }

        impl FailureCode {
            /// Every code, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The code as it appears in the API.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }

            /// The class that decides about a retry.
            pub const fn class(self) -> FailureClass {
                match self { $(Self::$variant => FailureClass::$class),* }
            }

            /// What happened and what the owner can do.
            pub fn help(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),*).trim_start()),* }
            }
        }
    };
}

codes! {
    /// The input is empty. Upload the file again.
    InputEmpty "input_empty" Media;
    /// The input is not media in any format that is accepted here. If it is an old format, ask for `"decoders": "legacy"`.
    InputUnrecognised "input_unrecognised" Media;
    /// The input ends before it is complete, such as an MP4 without its index (moov). Export or upload it again, or set `allow_partial` where some of it can be read.
    InputTruncated "input_truncated" Media;
    /// The input is a still image, not a video or audio recording.
    InputIsImage "input_is_image" Media;
    /// The input is a playlist (HLS, DASH, ffconcat…), which refers to other files. Upload the media itself.
    InputIsPlaylist "input_is_playlist" Media;
    /// The input needs a decoder outside the allowed set. Ask for `"decoders": "legacy"` where the message names it, else convert the input.
    DecoderNotAllowed "decoder_not_allowed" Media;
    /// The input or the output needs a decoder that the operator has banned for now. Submit again once the ban is lifted.
    DecoderBanned "decoder_banned" Media;
    /// The picture is larger than is accepted (8192 pixels a side, 8192 × 4352 in all).
    FrameTooLarge "frame_too_large" Media;
    /// The picture is smaller than the preset's codec can take. Choose the preset `web`.
    FrameTooSmall "frame_too_small" Media;
    /// The input asks for far more memory or output than its size warrants. It may be a decompression bomb.
    ResourceLimit "resource_limit" Media;
    /// The input's duration is missing, endless or above 24 hours. Cut it, or export it with a duration.
    DurationTooLong "duration_too_long" Media;
    /// The input has no video and no audio stream that could be transcoded.
    NoStreams "no_streams" Media;
    /// Not one frame could be decoded from the input.
    NoFrames "no_frames" Media;
    /// Too much of the input cannot be decoded. Upload a better copy, or set `allow_partial` to take what there is of it.
    InputCorrupt "input_corrupt" Media;
    /// The job would cost more than it or its tenant allows. Raise `max_spend`, ask for fewer or smaller renditions, or cut the input.
    SpendExceeded "spend_exceeded" Media;
    /// The tenant's minutes of the day are used up. Submit the job again after midnight, UTC.
    MinutesExhausted "minutes_exhausted" Media;
    /// The codec process crashed on this input more than once.
    CodecCrashed "codec_crashed" Worker;
    /// The codec process was killed from outside.
    CodecKilled "codec_killed" Worker;
    /// The codec process ran out of its memory.
    OutOfMemory "out_of_memory" Worker;
    /// The task ran past its deadline.
    DeadlineExceeded "deadline_exceeded" Worker;
    /// The worker did not renew its lease: it was lost, killed or cut off.
    WorkerLost "worker_lost" Worker;
    /// The worker could not do the task for a reason of its own.
    WorkerError "worker_error" Worker;
    /// Storage is full. Free space or raise the quota; the job is retried for a while.
    StorageFull "storage_full" Storage;
    /// Storage could not be read or written.
    StorageError "storage_error" Storage;
    /// The input changed while it was read.
    InputChanged "input_changed" Storage;
    /// The tenant's own storage refused, did not answer or is not there; the message names the bucket. Whoever runs the broker has to look at bucket, role or secret; the job is retried for a while.
    TenantStorage "tenant_storage" Storage;
    /// The broker could not do its part.
    BrokerError "broker_error" Broker;
    /// A lock could not be applied, or was not seen to hold, so no media was read. Run `mpegflow doctor`.
    LockFailed "lock_failed" Policy;
    /// The codec process tried something its locks forbid and was killed. The input is quarantined.
    LockViolation "lock_violation" Policy;
    /// The codec process sent something outside its protocol. The input is quarantined.
    ProtocolViolation "protocol_violation" Policy;
    /// The output did not pass the check and was thrown away.
    OutputRejected "output_rejected" Policy;
}

impl fmt::Display for FailureCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why an attempt or a job failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[serde(deny_unknown_fields)]
#[error("{code}: {message}")]
pub struct Failure {
    /// The documented reason.
    pub code: FailureCode,
    /// What happened, for the owner: at most 512 characters, no control characters.
    pub message: String,
}

impl Failure {
    /// A failure whose message is made fit for a log, whoever wrote it.
    pub fn new(code: FailureCode, message: impl AsRef<str>) -> Self {
        Self { code, message: crate::text::clean(message.as_ref(), MAX_MESSAGE_CHARS) }
    }

    /// The same with its message made fit for a log: for failures that were parsed from a hostile peer.
    #[must_use]
    pub fn cleaned(self) -> Self {
        Self::new(self.code, self.message)
    }

    /// The class that decides about a retry.
    pub fn class(&self) -> FailureClass {
        self.code.class()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_spelled_the_same_everywhere_and_has_help() {
        for code in FailureCode::ALL {
            let json = serde_json::to_string(code).unwrap();
            assert_eq!(json, format!("\"{}\"", code.as_str()));
            assert!(code.help().ends_with('.') && !code.help().starts_with(' '), "{code}");
        }
    }
}
