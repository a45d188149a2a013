//! Frames between the supervisor and the codec process.
//!
//! Descriptors of a codec process: 0 and 1 `/dev/null`, 2 the capped log (a pipe), [`CONTROL_FD`] the control socket,
//! [`INPUT_FD`] the input socket, and from [`FIRST_OUTPUT_FD`] one for each output. Only `read` and `write` are used, so no
//! descriptor can ever arrive.
//!
//! Control frames are `u32` length (little endian, of the payload), `u8` kind, payload (JSON). The order:
//! supervisor → [`Prepare`]; codec locks itself → [`FromCodec::Locked`]; the supervisor looks from outside, then →
//! [`ToCodec::Start`], and only from then on answers reads. The codec sends [`FromCodec::Progress`] as it goes and ends with
//! [`FromCodec::Done`] or [`FromCodec::Failed`]; in between it may tell of each phase once ([`FromCodec::Phase`]). Cancelling is a kill: a hostile process is not asked.
//!
//! Input frames: the codec sends [`ReadRequest`] (16 bytes), the supervisor answers [`ReadReply`] (8 bytes) and the bytes.

use crate::evidence::SelfReport;
use crate::failure::Failure;
use crate::limits;
use crate::parse::{ParseError, from_json, to_json};
use crate::task::{TaskResult, TaskSpec};
use crate::telemetry::PhaseTime;
use serde::{Deserialize, Serialize};

/// The control socket's descriptor in the codec process.
pub const CONTROL_FD: i32 = 3;
/// The input socket's descriptor in the codec process.
pub const INPUT_FD: i32 = 4;
/// The first output's descriptor in the codec process; output *n* is this plus *n*.
pub const FIRST_OUTPUT_FD: i32 = 5;

/// Bytes of a control frame's header.
pub const HEADER_LEN: usize = 5;

/// First frame, from the supervisor: what the locks need to know. Holds nothing of the media.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prepare {
    /// Process id of the supervisor, so that the codec can tell that its parent is still there.
    pub parent: u32,
    /// Outputs handed over.
    pub outputs: u32,
    /// The limits to lock in.
    pub limits: ProcessLimits,
    /// Threads an encoder or decoder may start.
    pub threads: u32,
}

/// Kernel limits of a codec process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessLimits {
    /// RLIMIT_AS in bytes.
    pub address_space: u64,
    /// RLIMIT_CPU in seconds.
    pub cpu_seconds: u64,
    /// RLIMIT_FSIZE in bytes: the largest seekable output; 0 where all are streams.
    pub file_size: u64,
    /// The most one allocation of FFmpeg may ask for, in bytes.
    pub single_allocation: u64,
}

/// From the supervisor, after the locks were seen to hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// The work.
    pub task: TaskSpec,
    /// Length of each input in bytes, by position.
    pub inputs: Vec<u64>,
    /// Each output, by position.
    pub outputs: Vec<OutputKind>,
    /// Decoders and demuxers that are banned for now, whatever set they are in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub banned: Vec<String>,
}

/// How an output's descriptor may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputKind {
    /// Append only: a pipe.
    Stream,
    /// An unlinked file made by the supervisor; may be sought and read back.
    Seekable,
}

/// A frame to the codec.
#[derive(Debug, Clone, PartialEq)]
pub enum ToCodec {
    /// Kind 1.
    Prepare(Prepare),
    /// Kind 2.
    Start(Box<Start>),
}

/// A frame from the codec. Hostile.
#[derive(Debug, Clone, PartialEq)]
pub enum FromCodec {
    /// Kind 65: the locks are on.
    Locked(SelfReport),
    /// Kind 66.
    Progress(Progress),
    /// Kind 67: all outputs are written.
    Done(Box<TaskResult>),
    /// Kind 68.
    Failed(Failure),
    /// Kind 69: a phase is over.
    Phase(PhaseTime),
}

/// How far a codec process is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Video frames (or audio packets, without video) done.
    pub frames: u64,
    /// Media time done, in milliseconds.
    pub time_ms: u64,
}

impl ToCodec {
    /// The frame's bytes.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Prepare(p) => frame(1, &to_json(p)),
            Self::Start(s) => frame(2, &to_json(s)),
        }
    }

    /// Parses the payload of a frame of `kind`.
    ///
    /// # Errors
    /// An unknown kind, or the field that is wrong.
    pub fn decode(kind: u8, payload: &[u8]) -> Result<Self, ParseError> {
        match kind {
            1 => Ok(Self::Prepare(from_json("prepare frame", payload, limits::MAX_CONTROL_FRAME)?)),
            2 => Ok(Self::Start(from_json("start frame", payload, limits::MAX_CONTROL_FRAME)?)),
            _ => unknown_kind(kind),
        }
    }
}

impl FromCodec {
    /// The frame's bytes.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Locked(r) => frame(65, &to_json(r)),
            Self::Progress(p) => frame(66, &to_json(p)),
            Self::Done(r) => frame(67, &to_json(r)),
            Self::Failed(f) => frame(68, &to_json(f)),
            Self::Phase(p) => frame(69, &to_json(p)),
        }
    }

    /// Parses the payload of a frame of `kind`.
    ///
    /// # Errors
    /// An unknown kind, or the field that is wrong.
    pub fn decode(kind: u8, payload: &[u8]) -> Result<Self, ParseError> {
        let max = limits::MAX_CONTROL_FRAME;
        match kind {
            65 => Ok(Self::Locked(from_json("locked frame", payload, max)?)),
            66 => Ok(Self::Progress(from_json("progress frame", payload, max)?)),
            67 => Ok(Self::Done(from_json("done frame", payload, max)?)),
            68 => Ok(Self::Failed(from_json::<Failure>("failed frame", payload, max)?.cleaned())),
            69 => Ok(Self::Phase(from_json("phase frame", payload, max)?)),
            _ => unknown_kind(kind),
        }
    }
}

/// Reads a header: the kind and the payload's length.
///
/// # Errors
/// A length above [`limits::MAX_CONTROL_FRAME`], before anything is allocated for it.
pub fn decode_header(header: [u8; HEADER_LEN]) -> Result<(u8, usize), ParseError> {
    let [a, b, c, d, kind] = header;
    let len = usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    if len > limits::MAX_CONTROL_FRAME {
        return Err(ParseError::TooLong { what: "control frame", got: len, max: limits::MAX_CONTROL_FRAME });
    }
    Ok((kind, len))
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut out = Vec::with_capacity(payload.len().saturating_add(HEADER_LEN));
    out.extend_from_slice(&len.to_le_bytes());
    out.push(kind);
    out.extend_from_slice(payload);
    out
}

fn unknown_kind<T>(kind: u8) -> Result<T, ParseError> {
    Err(ParseError::Field {
        what: "control frame",
        field: "kind".into(),
        reason: format!("{kind} is not known"),
    })
}

/// The codec asks for bytes of an input. 16 bytes: `u8` 1, `u8` input, `u16` 0, `u32` length, `u64` offset, little endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadRequest {
    /// Position of the input.
    pub input: u8,
    /// Bytes wanted, 1 to [`limits::MAX_INPUT_READ`].
    pub len: u32,
    /// Where they start.
    pub offset: u64,
}

impl ReadRequest {
    /// Bytes of a request.
    pub const LEN: usize = 16;

    /// The request's bytes.
    pub fn encode(self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        let (head, offset) = out.split_at_mut(8);
        head.copy_from_slice(&(u64::from(self.len) << 32 | u64::from(self.input) << 8 | 1).to_le_bytes());
        offset.copy_from_slice(&self.offset.to_le_bytes());
        out
    }

    /// Parses a request. That the input exists and the range lies within it is for the caller to check.
    ///
    /// # Errors
    /// The field that is wrong.
    pub fn decode(bytes: [u8; Self::LEN]) -> Result<Self, ParseError> {
        let wrong = |field: &str, reason: String| {
            Err(ParseError::Field { what: "read request", field: field.into(), reason })
        };
        let [op, input, z0, z1, l0, l1, l2, l3, o0, o1, o2, o3, o4, o5, o6, o7] = bytes;
        if op != 1 || z0 != 0 || z1 != 0 {
            return wrong("op", format!("{op}/{z0}/{z1} is not a read"));
        }
        let len = u32::from_le_bytes([l0, l1, l2, l3]);
        if len == 0 || len > limits::MAX_INPUT_READ {
            return wrong("len", format!("{len} is not from 1 to {}", limits::MAX_INPUT_READ));
        }
        Ok(Self { input, len, offset: u64::from_le_bytes([o0, o1, o2, o3, o4, o5, o6, o7]) })
    }
}

/// The supervisor's answer. 8 bytes: `u8` status (0 bytes follow, 1 the input cannot be read), 3 × 0, `u32` length. Fewer
/// bytes than asked for means that the input ends there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadReply {
    /// This many bytes follow.
    Bytes(u32),
    /// The input cannot be read any more; the supervisor ends the task.
    Gone,
}

impl ReadReply {
    /// Bytes of a reply's header.
    pub const LEN: usize = 8;

    /// The reply's header.
    pub fn encode(self) -> [u8; Self::LEN] {
        match self {
            Self::Bytes(len) => (u64::from(len) << 32).to_le_bytes(),
            Self::Gone => 1u64.to_le_bytes(),
        }
    }

    /// Parses a reply's header.
    ///
    /// # Errors
    /// The field that is wrong.
    pub fn decode(bytes: [u8; Self::LEN]) -> Result<Self, ParseError> {
        let [status, z0, z1, z2, l0, l1, l2, l3] = bytes;
        match (status, [z0, z1, z2], u32::from_le_bytes([l0, l1, l2, l3])) {
            (0, [0, 0, 0], len) if len <= limits::MAX_INPUT_READ => Ok(Self::Bytes(len)),
            (1, [0, 0, 0], 0) => Ok(Self::Gone),
            _ => Err(ParseError::Field {
                what: "read reply",
                field: "status".into(),
                reason: "not a reply".into(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_read_request_survives_the_wire(input: u8, len in 1..=limits::MAX_INPUT_READ, offset: u64) {
            let request = ReadRequest { input, len, offset };
            prop_assert_eq!(ReadRequest::decode(request.encode()), Ok(request));
        }

        #[test]
        fn any_bytes_give_a_value_or_an_error(kind: u8, payload: Vec<u8>, header: [u8; 5], req: [u8; 16], rep: [u8; 8]) {
            let _ = ToCodec::decode(kind, &payload);
            let _ = FromCodec::decode(kind, &payload);
            let _ = decode_header(header);
            if let Ok(r) = ReadRequest::decode(req) { prop_assert_eq!(r.encode(), req); }
            if let Ok(r) = ReadReply::decode(rep) { prop_assert_eq!(r.encode(), rep); }
        }
    }
}
