//! From exec to the point where media may flow.
//!
//! The order is a typestate: [`Launched`] holds the input socket and does not give it out; only [`Launched::lock`] makes a
//! [`Verified`], only a [`Verified`] holds a [`VerifiedInput`], and the input server takes nothing else. So no code path can
//! answer a read before the locks were seen to hold.

use crate::attempt::AbortOnDrop;
use crate::attempt::control::{Control, FrameError, FrameOrder, Said};
use crate::attempt::log::{self, Log};
use crate::attempt::process::Process;
use crate::attempt::stop::Stop;
use mpegflow_lockdown as lockdown;
use mpegflow_lockdown::launch::Launch;
use mpegflow_lockdown::supervise;
use mpegflow_protocol::codec::{CONTROL_FD, FIRST_OUTPUT_FD, INPUT_FD, OutputKind, Prepare, ToCodec};
use mpegflow_protocol::evidence::{Evidence, Observed, SelfReport};
use mpegflow_protocol::failure::FailureCode;
use mpegflow_protocol::task::TaskSpec;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::time::timeout;

/// Room in a pipe: an encoder that waits for the supervisor's scheduling slot is CPU lost.
const PIPE_SIZE: i32 = 1 << 20;
/// Linux: `O_TMPFILE`, which holds `O_DIRECTORY`. The libc crate is lockdown's alone.
#[cfg(target_arch = "x86_64")]
const O_TMPFILE: i32 = 0o20_200_000;
#[cfg(target_arch = "aarch64")]
const O_TMPFILE: i32 = 0o20_040_000;

/// The supervisor's end of an output.
#[derive(Debug)]
pub enum OutputSource {
    /// A pipe, read as the codec writes.
    Stream(pipe::Receiver),
    /// An unlinked file, read after the codec has ended.
    File(File),
}

/// A codec process that has not been seen to be locked. Nothing of the media has been near it.
#[derive(Debug)]
pub struct Launched {
    process: Process,
    control: Control,
    input: StdStream,
    outputs: Vec<OutputSource>,
    log: AbortOnDrop<()>,
}

/// A codec process whose locks were seen to hold.
#[derive(Debug)]
pub struct Verified {
    /// The process.
    pub process: Process,
    /// Its control socket.
    pub control: Control,
    /// What it has said so far.
    pub order: FrameOrder,
    /// Its input socket.
    pub input: VerifiedInput,
    /// Its outputs, by position.
    pub outputs: Vec<OutputSource>,
    /// Which locks hold, and who saw it.
    pub evidence: Evidence,
    /// The reader of its log.
    pub log: AbortOnDrop<()>,
}

/// The input socket of a process whose locks were seen to hold. Made in this module only.
#[derive(Debug)]
pub struct VerifiedInput(UnixStream);

impl VerifiedInput {
    /// The socket.
    pub fn into_stream(self) -> UnixStream {
        self.0
    }
}

/// The locks of a codec process could not be shown to hold.
#[derive(Debug)]
pub struct NotVerified {
    /// How the attempt ends.
    pub stop: Stop,
    /// What was seen, where it came that far.
    pub evidence: Option<Box<Evidence>>,
}

impl NotVerified {
    fn lock_failed(why: impl AsRef<str>) -> Self {
        Self { stop: Stop::fail(FailureCode::LockFailed, why), evidence: None }
    }
}

impl Launched {
    /// Starts the codec binary with its numbered descriptors.
    ///
    /// # Errors
    /// A descriptor or the process could not be made.
    pub async fn start(
        codec: &Path,
        outputs: &[OutputKind],
        scratch: &Path,
        log: Arc<Log>,
    ) -> io::Result<Self> {
        let (control, codec_control) = StdStream::pair()?;
        let (input, codec_input) = StdStream::pair()?;
        let (log_reader, codec_log) = io::pipe()?;
        let mut fds: Vec<(OwnedFd, i32)> =
            vec![(codec_log.into(), 2), (codec_control.into(), CONTROL_FD), (codec_input.into(), INPUT_FD)];
        let mut sources = Vec::with_capacity(outputs.len());
        for (fd, kind) in (FIRST_OUTPUT_FD..).zip(outputs) {
            let (source, codec_end) = open_output(*kind, scratch)?;
            sources.push(source);
            fds.push((codec_end, fd));
        }
        let mut launch = Launch::new(codec);
        for (fd, target) in fds {
            launch = launch.fd(fd, target);
        }
        let process = Process::spawn(launch).await?;
        control.set_nonblocking(true)?;
        let log_reader = pipe::Receiver::from_owned_fd(log_reader.into())?;
        let pump = tokio::spawn(async move { log::pump(log_reader, &log).await });
        let control = Control::new(UnixStream::from_std(control)?);
        Ok(Self { process, control, input, outputs: sources, log: AbortOnDrop(pump) })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Has the process lock itself, and looks from outside whether it did.
    ///
    /// # Errors
    /// [`FailureCode::CodecKilled`] where somebody else's SIGKILL ended the process, else [`FailureCode::LockFailed`],
    /// whatever went wrong: no media byte has been sent, so nothing else can be to blame. The process is killed.
    pub async fn lock(
        mut self,
        prepare: Prepare,
        spec: &TaskSpec,
        within: Duration,
    ) -> Result<Verified, NotVerified> {
        let (order, evidence) = match self.negotiate(prepare, spec, within).await {
            Ok(locked) => locked,
            Err(refused) => return Err(self.blame(refused).await),
        };
        let input =
            into_tokio(self.input).map_err(|e| NotVerified::lock_failed(format!("input socket: {e}")))?;
        Ok(Verified {
            process: self.process,
            control: self.control,
            order,
            input: VerifiedInput(input),
            outputs: self.outputs,
            evidence,
            log: self.log,
        })
    }

    async fn negotiate(
        &mut self,
        prepare: Prepare,
        spec: &TaskSpec,
        within: Duration,
    ) -> Result<(FrameOrder, Evidence), NotVerified> {
        let mut order = FrameOrder::default();
        let asked = self.control.send(&ToCodec::Prepare(prepare), within).await;
        asked.map_err(|e| NotVerified::lock_failed(format!("the codec process takes no frames: {e}")))?;
        let frame = match timeout(within, self.control.receive()).await {
            Ok(Ok(frame)) => frame,
            Ok(Err(FrameError::Closed)) => {
                return Err(NotVerified::lock_failed("the codec process ended before its locks were on"));
            }
            Ok(Err(error)) => {
                return Err(NotVerified::lock_failed(format!(
                    "the codec process answered no frame: {error}"
                )));
            }
            Err(_) => {
                let why = format!("the codec process did not lock itself within {} ms", within.as_millis());
                return Err(NotVerified::lock_failed(why));
            }
        };
        let report = match order.accept(frame, spec) {
            Ok(Said::Locked(report)) => report,
            Ok(Said::Failed(failure)) => return Err(NotVerified::lock_failed(failure.message)),
            Ok(said) => {
                return Err(NotVerified::lock_failed(format!("the codec process said {said:?} unlocked")));
            }
            Err(Stop::Fail(failure)) => return Err(NotVerified::lock_failed(failure.message)),
            Err(stop) => return Err(NotVerified { stop, evidence: None }),
        };
        let evidence = self.look(report)?;
        if self.control.has_spoken() {
            let mut refused = NotVerified::lock_failed("the codec process went on talking before its start");
            refused.evidence = Some(Box::new(evidence));
            return Err(refused);
        }
        Ok((order, evidence))
    }

    /// Looks at the process from outside and compares with what the profile demands.
    fn look(&self, report: SelfReport) -> Result<Evidence, NotVerified> {
        let seen = lockdown::observe(self.process.pid()).map_err(|e| {
            NotVerified::lock_failed(format!("the codec process could not be looked at: {e}"))
        })?;
        let evidence = Evidence {
            profile: lockdown::PROFILE.into(),
            policy_digest: lockdown::policy_digest(),
            observed: Observed {
                seccomp_mode: seen.seccomp_mode,
                seccomp_filters: seen.seccomp_filters,
                no_new_privs: seen.no_new_privs,
                uid: seen.uid,
                gid: seen.gid,
                capabilities: seen.capabilities,
                threads: seen.threads,
            },
            self_reported: report.clone(),
            usage: None,
        };
        let outputs = u32::try_from(self.outputs.len()).unwrap_or(u32::MAX);
        let expected_fds = outputs.saturating_add(FIRST_OUTPUT_FD.cast_unsigned());
        let report = lockdown::Report {
            landlock_abi: report.landlock_abi,
            landlock_refused_open: report.landlock_refused_open,
            open_fds: report.open_fds,
            not_dumpable: report.not_dumpable,
            environment_empty: report.environment_empty,
        };
        let refused = |why: String| NotVerified {
            stop: Stop::fail(FailureCode::LockFailed, why),
            evidence: Some(Box::new(evidence.clone())),
        };
        if report.open_fds != expected_fds {
            let why =
                format!("{} descriptors are open in the codec process, not {expected_fds}", report.open_fds);
            return Err(refused(why));
        }
        lockdown::verify(&seen, &report).map_err(|e| refused(format!("the locks do not hold: {e}")))?;
        Ok(evidence)
    }

    /// A process that was killed from outside (by the kernel for want of memory, by an operator) says nothing about its
    /// locks; the task is then worth another try.
    async fn blame(mut self, refused: NotVerified) -> NotVerified {
        // One that is ending does so at once; whatever lives on after this is killed by us, and is to blame itself.
        let ended = timeout(ENDING, self.process.exited()).await;
        self.process.kill();
        match ended {
            Ok(Ok(exit)) if exit.status.signal() == Some(SIGKILL) => {
                let why = "the codec process was killed from outside before its locks were on";
                NotVerified { stop: Stop::fail(FailureCode::CodecKilled, why), evidence: refused.evidence }
            }
            _ => refused,
        }
    }
}

/// How long a process that has closed its control socket may take to be gone.
const ENDING: Duration = Duration::from_millis(500);
const SIGKILL: i32 = 9;

fn into_tokio(stream: StdStream) -> io::Result<UnixStream> {
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

fn open_output(kind: OutputKind, scratch: &Path) -> io::Result<(OutputSource, OwnedFd)> {
    match kind {
        OutputKind::Stream => {
            let (reader, writer) = io::pipe()?;
            supervise::enlarge_pipe(reader.as_fd(), PIPE_SIZE);
            Ok((OutputSource::Stream(pipe::Receiver::from_owned_fd(reader.into())?), writer.into()))
        }
        OutputKind::Seekable => {
            let mut options = OpenOptions::new();
            let file = options.read(true).write(true).mode(0o600).custom_flags(O_TMPFILE).open(scratch)?;
            file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
            let codec_end = file.try_clone()?;
            Ok((OutputSource::File(file), codec_end.into()))
        }
    }
}
