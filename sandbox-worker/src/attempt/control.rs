//! The control socket: frames from a hostile process, in the only order that is allowed.

use crate::attempt::meter::Meters;
use crate::attempt::stop::Stop;
use mpegflow_protocol::codec::{FromCodec, HEADER_LEN, Progress, ToCodec, decode_header};
use mpegflow_protocol::evidence::SelfReport;
use mpegflow_protocol::failure::{Failure, FailureClass, FailureCode};
use mpegflow_protocol::task::{TaskResult, TaskSpec};
use mpegflow_protocol::telemetry::PhaseTime;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};

/// How the codec's side of the conversation ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Ended {
    /// With a result. It counts only once the process has exited well and all its output has arrived.
    Done(Box<TaskResult>),
    /// Without a word.
    Silent,
}

/// What an accepted frame says.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// The locks are on.
    Locked(SelfReport),
    /// How far it is.
    Progress(Progress),
    /// The result.
    Done(Box<TaskResult>),
    /// It failed, with a code that a codec may claim.
    Failed(Failure),
    /// A phase is over, as it says.
    Phase(PhaseTime),
}

/// Where the conversation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Locking,
    Running,
    Over,
}

/// Lets through the frames that are in order.
#[derive(Debug)]
pub struct FrameOrder {
    at: Order,
    /// Phases that were told: a bit for each.
    phases: u32,
}

impl Default for FrameOrder {
    fn default() -> Self {
        Self { at: Order::Locking, phases: 0 }
    }
}

impl FrameOrder {
    /// Takes one frame.
    ///
    /// # Errors
    /// A violation, where no honest codec sends this frame now.
    pub fn accept(&mut self, frame: FromCodec, spec: &TaskSpec) -> Result<Said, Stop> {
        let (said, next) = match (self.at, frame) {
            (Order::Locking, FromCodec::Locked(report)) => (Said::Locked(report), Order::Running),
            (Order::Running, FromCodec::Progress(progress)) => (Said::Progress(progress), Order::Running),
            (Order::Running, FromCodec::Phase(time)) => {
                let bit = time.phase.span().bit();
                if self.phases & bit != 0 {
                    let what = format!("the codec told of its phase `{}` twice", time.phase.span().as_str());
                    return Err(Stop::violation(what));
                }
                self.phases |= bit;
                (Said::Phase(time), Order::Running)
            }
            (Order::Running, FromCodec::Done(result)) if result.answers(spec) => {
                (Said::Done(result), Order::Over)
            }
            (Order::Running, FromCodec::Done(_)) => {
                return Err(Stop::violation("the codec sent the result of another kind of task"));
            }
            (Order::Locking, FromCodec::Failed(failure)) => (Said::Failed(failure), Order::Over),
            (Order::Running, FromCodec::Failed(failure)) => {
                (Said::Failed(claimable(failure, spec)?), Order::Over)
            }
            (order, frame) => {
                let what = format!("the codec sent `{}` while {}", name(&frame), order.name());
                return Err(Stop::violation(what));
            }
        };
        self.at = next;
        Ok(said)
    }
}

impl Order {
    const fn name(self) -> &'static str {
        match self {
            Self::Locking => "it was to lock itself",
            Self::Running => "it was working",
            Self::Over => "it had nothing more to say",
        }
    }
}

const fn name(frame: &FromCodec) -> &'static str {
    match frame {
        FromCodec::Locked(_) => "locked",
        FromCodec::Progress(_) => "progress",
        FromCodec::Done(_) => "done",
        FromCodec::Failed(_) => "failed",
        FromCodec::Phase(_) => "phase",
    }
}

/// What a codec that has seen media may say of its own failure: that the media is at fault, that its memory did not suffice,
/// or, where its input is what another codec made, that this is not what was planned. That it gave up counts as a crash, which
/// it could have had for itself. Everything else is for others to say, and would let hostile media choose what happens next (an
/// alert about a lock that held, a retry that is not counted).
fn claimable(failure: Failure, spec: &TaskSpec) -> Result<Failure, Stop> {
    let reads_our_own = matches!(spec, TaskSpec::Package(_) | TaskSpec::Check(_));
    match failure.code {
        code if code.class() == FailureClass::Media => Ok(failure.cleaned()),
        FailureCode::OutOfMemory => Ok(failure.cleaned()),
        FailureCode::OutputRejected if reads_our_own => Ok(failure.cleaned()),
        FailureCode::WorkerError => {
            Ok(Failure::new(FailureCode::CodecCrashed, format!("the codec gave up: {}", failure.message)))
        }
        code => Err(Stop::violation(format!("the codec claimed `{code}`: {}", failure.message))),
    }
}

/// Why no frame could be read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The stream ended between two frames, or the process died in the middle of one.
    #[error("the codec closed its control socket")]
    Closed,
    /// What came is no frame.
    #[error("{0}")]
    NotAFrame(#[from] mpegflow_protocol::ParseError),
}

/// Both directions of the control socket.
#[derive(Debug)]
pub struct Control(UnixStream);

impl Control {
    /// Takes the supervisor's end.
    pub const fn new(stream: UnixStream) -> Self {
        Self(stream)
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// The codec does not read: it has closed the socket, or `within` is over.
    pub async fn send(&mut self, frame: &ToCodec, within: Duration) -> io::Result<()> {
        timeout(within, self.0.write_all(&frame.encode())).await.map_err(io::Error::from).flatten()
    }

    /// Reads one frame. Nothing is allocated for a payload that is longer than a frame may be.
    ///
    /// # Errors
    /// There is no frame.
    pub async fn receive(&mut self) -> Result<FromCodec, FrameError> {
        let mut header = [0; HEADER_LEN];
        self.0.read_exact(&mut header).await.map_err(|_| FrameError::Closed)?;
        let (kind, len) = decode_header(header)?;
        let mut payload = vec![0; len];
        self.0.read_exact(&mut payload).await.map_err(|_| FrameError::Closed)?;
        Ok(FromCodec::decode(kind, &payload)?)
    }

    /// Whether the codec has sent bytes that nobody has read.
    pub fn has_spoken(&self) -> bool {
        let mut byte = [0];
        matches!(self.0.try_read(&mut byte), Ok(n) if n > 0)
    }
}

/// Reads everything the codec says after its start.
///
/// # Errors
/// [`Stop::Fail`] with what the codec reported, or with a violation of the protocol.
pub async fn listen(
    mut control: Control,
    mut order: FrameOrder,
    spec: &TaskSpec,
    meters: &Meters,
    exit_within: Duration,
) -> Result<Ended, Stop> {
    let mut pace = Pace::new();
    let began = std::time::Instant::now();
    let done = loop {
        match receive_in_order(&mut control, &mut order, spec).await? {
            None => return Ok(Ended::Silent),
            Some(Said::Progress(progress)) => {
                meters.progress(progress);
                pace.frame().await;
            }
            Some(Said::Phase(time)) => meters.traced().phase(time, began),
            Some(Said::Done(result)) => break result,
            Some(Said::Failed(failure)) => return Err(Stop::Fail(failure)),
            Some(Said::Locked(_)) => return Err(Stop::violation("the codec sent `locked` twice")),
        }
    };
    match timeout(exit_within, receive_in_order(&mut control, &mut order, spec)).await {
        Ok(Ok(None)) => Ok(Ended::Done(done)),
        Ok(Ok(Some(_))) => Err(Stop::violation("the codec went on talking after its result")),
        Ok(Err(stop)) => Err(stop),
        Err(_) => Err(Stop::violation("the codec did not exit after its result")),
    }
}

async fn receive_in_order(
    control: &mut Control,
    order: &mut FrameOrder,
    spec: &TaskSpec,
) -> Result<Option<Said>, Stop> {
    match control.receive().await {
        Ok(frame) => order.accept(frame, spec).map(Some),
        Err(FrameError::Closed) => Ok(None),
        Err(FrameError::NotAFrame(error)) => {
            Err(Stop::violation(format!("the codec sent no frame: {error}")))
        }
    }
}

/// Holds a codec that floods its control socket to a rate far above what an honest one needs: it blocks on its own socket.
#[derive(Debug)]
struct Pace {
    since: Instant,
    frames: u32,
}

impl Pace {
    const BATCH: u32 = 128;
    const PER_BATCH: Duration = Duration::from_millis(50);

    fn new() -> Self {
        Self { since: Instant::now(), frames: 0 }
    }

    async fn frame(&mut self) {
        self.frames = self.frames.saturating_add(1);
        if self.frames >= Self::BATCH {
            sleep(Self::PER_BATCH.saturating_sub(self.since.elapsed())).await;
            *self = Self::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mpegflow_protocol::job::DecoderSet;
    use mpegflow_protocol::task::{CheckResult, CheckTask, EncodeResult, ProbeTask};

    const SPEC: TaskSpec = TaskSpec::Probe(ProbeTask { decoders: DecoderSet::Core, partial: false });

    fn accept(frames: Vec<FromCodec>) -> Result<Said, Stop> {
        let mut order = FrameOrder::default();
        let mut last = None;
        for frame in frames {
            last = Some(order.accept(frame, &SPEC)?);
        }
        Ok(last.unwrap())
    }

    fn locked() -> FromCodec {
        FromCodec::Locked(SelfReport::default())
    }

    fn failed(code: FailureCode) -> FromCodec {
        FromCodec::Failed(Failure::new(code, "why"))
    }

    fn is_violation(result: Result<Said, Stop>) -> bool {
        matches!(result, Err(Stop::Fail(f)) if f.code == FailureCode::ProtocolViolation)
    }

    #[test]
    fn frames_out_of_order_are_violations() {
        let progress = || FromCodec::Progress(Progress::default());
        let other =
            || FromCodec::Done(Box::new(TaskResult::Check(CheckResult { problems: vec![], tracks: vec![] })));
        let encoded = EncodeResult::default();
        let phase = || {
            let phase = mpegflow_protocol::telemetry::Phase::Open;
            FromCodec::Phase(PhaseTime { phase, start_us: u64::MAX, duration_us: u64::MAX })
        };
        for frames in [
            vec![phase()],
            vec![locked(), phase(), phase()],
            vec![locked(), failed(FailureCode::NoFrames), phase()],
            vec![progress()],
            vec![other()],
            vec![locked(), locked()],
            vec![locked(), other()],
            vec![locked(), FromCodec::Done(Box::new(TaskResult::Encode(encoded)))],
            vec![locked(), failed(FailureCode::NoFrames), progress()],
            vec![failed(FailureCode::LockFailed), locked()],
        ] {
            assert!(is_violation(accept(frames.clone())), "{frames:?}");
        }
        assert_eq!(accept(vec![locked(), progress()]), Ok(Said::Progress(Progress::default())));
    }

    #[test]
    fn a_running_codec_may_blame_the_media_or_its_memory_and_nothing_else() {
        for code in FailureCode::ALL {
            let said = accept(vec![locked(), failed(*code)]);
            match code {
                FailureCode::WorkerError => {
                    let gave_up = Failure::new(FailureCode::CodecCrashed, "the codec gave up: why");
                    assert_eq!(said, Ok(Said::Failed(gave_up)));
                }
                code if code.class() == FailureClass::Media || *code == FailureCode::OutOfMemory => {
                    assert_eq!(said, Ok(Said::Failed(Failure::new(*code, "why"))));
                }
                code => assert!(is_violation(said), "{code}"),
            }
        }
    }

    #[test]
    fn only_a_codec_that_reads_what_another_made_may_reject_it() {
        let check = TaskSpec::Check(CheckTask {
            tracks: vec![],
            segment_ms: 1,
            source_duration_ms: None,
            manifests: None,
            file: None,
            stills: vec![],
            list: false,
        });
        let rejected = || Failure::new(FailureCode::OutputRejected, "why");
        assert_eq!(claimable(rejected(), &check), Ok(rejected()));
        assert!(claimable(rejected(), &SPEC).is_err());
    }
}
