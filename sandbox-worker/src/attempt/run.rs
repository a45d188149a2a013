//! Puts the parts of an attempt together.

use crate::attempt::control::{Ended, listen};
use crate::attempt::exit::{Circumstances, classify, signal_failure, violated_locks};
use crate::attempt::input::InputServer;
use crate::attempt::lock::{Launched, NotVerified, OutputSource, Verified};
use crate::attempt::log::Log;
use crate::attempt::meter::Meters;
use crate::attempt::output::Uploads;
use crate::attempt::reader::Reader;
use crate::attempt::stop::Stop;
use crate::attempt::{AbortOnDrop, report, result, watch};
use crate::broker::{Broker, CallError, Grant};
use crate::secret::Secret;
use crate::settings::Settings;
use crate::shutdown::Shutdown;
use mpegflow_lockdown::supervise::Exit;
use mpegflow_protocol::codec::{OutputKind, Prepare, Start, ToCodec};
use mpegflow_protocol::evidence::{Evidence, Usage};
use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::limits::{MAX_INPUTS, MAX_OUTPUTS};
use mpegflow_protocol::task::TaskResult;
use mpegflow_protocol::telemetry::SpanName;
use mpegflow_protocol::worker::{Complete, Lease, OutputDigest};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How an attempt ended for this supervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It succeeded and the broker knows.
    Completed,
    /// It failed and the broker was told.
    Failed(Failure),
    /// It was given back.
    Released,
    /// The lease is lost; nothing of it counts.
    Lost,
    /// The supervisor stops at once.
    Aborted,
}

/// What is shared by everything that runs for one attempt.
struct Attempt<'a, B> {
    broker: Arc<B>,
    grant: Grant,
    lease: &'a Lease,
    settings: &'a Settings,
    meters: Arc<Meters>,
    log: Arc<Log>,
    pid: Arc<AtomicU32>,
    started: Instant,
}

/// What came of the codec.
struct Made {
    result: TaskResult,
    outputs: Vec<OutputDigest>,
}

/// An end before the codec was done, and what is known of its locks.
struct Broke {
    stop: Stop,
    evidence: Option<Evidence>,
}

/// Runs one attempt to its end. No codec process is left behind, however it ends.
pub async fn run<B: Broker>(
    broker: Arc<B>,
    mut lease: Lease,
    settings: &Settings,
    shutdown: Shutdown,
) -> Outcome {
    let grant =
        Grant { attempt: lease.attempt, capability: Secret::new(std::mem::take(&mut lease.capability)) };
    let attempt = Attempt {
        broker,
        grant,
        lease: &lease,
        settings,
        meters: Arc::new(Meters::new(lease.traced)),
        log: Arc::new(Log::default()),
        pid: Arc::new(AtomicU32::new(0)),
        started: Instant::now(),
    };
    attempt.run(shutdown).await
}

impl<B: Broker> Attempt<'_, B> {
    async fn run(self, shutdown: Shutdown) -> Outcome {
        let (stopper, mut stops) = mpsc::channel(8);
        let _watchers = self.watch(&stopper, shutdown);
        let worked = match self.refusal() {
            Some(failure) => Err(Broke { stop: Stop::Fail(failure), evidence: None }),
            None => self.work(&mut stops).await,
        };
        let (ended, evidence) = match worked {
            Ok((made, evidence)) => {
                let complete = Complete { result: made.result, outputs: made.outputs, evidence };
                let limit = self.settings.retry_for;
                let around = (&*self.log, &*self.meters);
                let call = report::complete(&*self.broker, &self.grant, &complete, around, limit);
                let stop = tokio::select! {
                    done = call => match done {
                        Ok(()) => return Outcome::Completed,
                        Err(error) => refused_completion(&error),
                    },
                    Some(stop) = stops.recv() => stop,
                };
                (stop, Some(complete.evidence))
            }
            Err(broke) => (broke.stop, broke.evidence),
        };
        self.report(ended, evidence).await
    }

    async fn report(&self, stop: Stop, evidence: Option<Evidence>) -> Outcome {
        let limit = Duration::from_millis(self.lease.lease_ms.into());
        let (told, outcome) = match stop {
            Stop::Fail(failure) => {
                let around = (&*self.log, &*self.meters);
                let told =
                    report::fail(&*self.broker, &self.grant, failure.clone(), evidence, around, limit).await;
                (told, Outcome::Failed(failure))
            }
            Stop::Canceled | Stop::Drained => {
                (report::release(&*self.broker, &self.grant, limit).await, Outcome::Released)
            }
            Stop::LeaseLost => return Outcome::Lost,
            Stop::Aborted => return Outcome::Aborted,
        };
        if let Err(error) = told {
            tracing::warn!(attempt = %self.grant.attempt, %error, ?outcome, "the broker was not told how the attempt ended");
            return Outcome::Lost;
        }
        outcome
    }

    /// A lease that no honest broker grants.
    fn refusal(&self) -> Option<Failure> {
        let lease = self.lease;
        let bad = |what: &str| Some(Failure::new(FailureCode::BrokerError, format!("the lease has {what}")));
        if lease.inputs.len() > MAX_INPUTS || lease.outputs.len() > MAX_OUTPUTS {
            return bad("too many inputs or outputs");
        }
        if lease.lease_ms == 0 || lease.deadline_ms == 0 {
            return bad("no time");
        }
        let largest =
            lease.outputs.iter().filter(|o| o.kind == OutputKind::Seekable).map(|o| o.max_bytes).max();
        if largest.is_some_and(|largest| largest > lease.limits.file_size) {
            return bad("a seekable output that the file size limit does not admit");
        }
        None
    }

    fn watch(&self, stopper: &mpsc::Sender<Stop>, shutdown: Shutdown) -> [AbortOnDrop<()>; 4] {
        let heart = watch::Heart {
            broker: Arc::clone(&self.broker),
            grant: self.grant.clone(),
            meters: Arc::clone(&self.meters),
            log: Arc::clone(&self.log),
            pid: Arc::clone(&self.pid),
            shutdown: shutdown.clone(),
            every: self.settings.heartbeat_every,
        };
        let tell = |stop: Stop, stopper: &mpsc::Sender<Stop>| {
            // The first few are enough: one decides.
            let _ = stopper.try_send(stop);
        };
        let (a, b, c, d) = (stopper.clone(), stopper.clone(), stopper.clone(), stopper.clone());
        let (lease_ms, deadline) = (self.lease.lease_ms, Duration::from_millis(self.lease.deadline_ms));
        let (meters, stalled_after) = (Arc::clone(&self.meters), self.settings.stalled_after);
        [
            AbortOnDrop(tokio::spawn(async move { tell(heart.beat(lease_ms).await, &a) })),
            AbortOnDrop(tokio::spawn(async move { tell(watch::deadline(deadline).await, &b) })),
            AbortOnDrop(tokio::spawn(async move { tell(watch::stall(meters, stalled_after).await, &c) })),
            AbortOnDrop(tokio::spawn(async move { tell(watch::shutdown(shutdown).await, &d) })),
        ]
    }

    async fn work(&self, stops: &mut mpsc::Receiver<Stop>) -> Result<(Made, Evidence), Broke> {
        let verified = tokio::select! {
            verified = self.lock() => verified.map_err(|n| Broke { stop: n.stop, evidence: n.evidence.map(|seen| *seen) })?,
            Some(stop) = stops.recv() => return Err(Broke { stop, evidence: None }),
        };
        let mut evidence = verified.evidence.clone();
        let (made, exit) = self.pump(verified, stops).await;
        evidence.usage = exit.map(|exit| self.usage(&exit));
        match made {
            Ok(made) => Ok((made, evidence)),
            Err(stop) => Err(Broke { stop, evidence: Some(evidence) }),
        }
    }

    async fn lock(&self) -> Result<Verified, NotVerified> {
        let kinds: Vec<_> = self.lease.outputs.iter().map(|o| o.kind).collect();
        let settings = self.settings;
        let began = Instant::now();
        let launched =
            Launched::start(&settings.codec, &kinds, &settings.scratch, Arc::clone(&self.log)).await;
        let launched = launched.map_err(|e| NotVerified {
            stop: Stop::fail(
                FailureCode::WorkerError,
                format!("the codec process could not be started: {e}"),
            ),
            evidence: None,
        })?;
        let prepare = Prepare {
            parent: std::process::id(),
            outputs: u32::try_from(kinds.len()).unwrap_or(u32::MAX),
            limits: self.lease.limits,
            threads: self.lease.threads,
        };
        self.pid.store(launched.pid(), Ordering::Relaxed);
        self.meters.started();
        self.meters.traced().over(SpanName::Launch, began);
        let began = Instant::now();
        let locked = launched.lock(prepare, &self.lease.task, settings.lock_within).await;
        self.meters.traced().over(SpanName::Lock, began);
        locked
    }

    /// Feeds a locked codec until it and all its outputs are through, or something stops it; then it is gone.
    async fn pump(
        &self,
        verified: Verified,
        stops: &mut mpsc::Receiver<Stop>,
    ) -> (Result<Made, Stop>, Option<Exit>) {
        let Verified { mut process, mut control, order, input, outputs, evidence: _, log } = verified;
        let start = ToCodec::Start(Box::new(Start {
            task: self.lease.task.clone(),
            inputs: self.lease.inputs.iter().map(|i| i.size).collect(),
            outputs: self.lease.outputs.iter().map(|o| o.kind).collect(),
            banned: self.lease.banned.clone(),
        }));
        let sizes: Vec<u64> = self.lease.inputs.iter().map(|i| i.size).collect();
        let settings = self.settings;
        let reader = Reader::new(
            Arc::clone(&self.broker),
            self.grant.clone(),
            sizes.clone(),
            Arc::clone(&self.meters),
            settings.retry_for,
        );
        let server = InputServer::new(input, reader, Arc::clone(&self.meters));
        let uploads = Uploads::new(
            Arc::clone(&self.broker),
            self.grant.clone(),
            Arc::clone(&self.meters),
            settings.retry_for,
        );
        let mut pumps = Pumps::new(Arc::new(uploads), server);
        pumps.outputs(outputs, self.lease.outputs.iter().map(|o| o.max_bytes));

        let (spec, meters, exit_within) =
            (self.lease.task.clone(), Arc::clone(&self.meters), settings.exit_within);
        let began = Instant::now();
        let listening = AbortOnDrop(tokio::spawn(async move {
            if control.send(&start, exit_within).await.is_err() {
                // It is dead, or hangs; the exit or the timer says which.
                return Ok(Ended::Silent);
            }
            listen(control, order, &spec, &meters, exit_within).await
        }));

        let made = tokio::select! {
            ended = self.until_exit(&mut process, listening, &mut pumps) => match ended {
                Ok(result) => tokio::select! {
                    outputs = pumps.finish() => outputs.and_then(|outputs| {
                        let result = result::checked(result, &self.lease.task, &sizes, &outputs).map_err(Stop::Fail)?;
                        Ok(Made { result, outputs })
                    }),
                    Some(stop) = stops.recv() => Err(stop),
                },
                Err(stop) => Err(stop),
            },
            Some(stop) = stops.recv() => Err(stop),
        };
        process.kill();
        drop(pumps);
        let exit = timeout(Duration::from_secs(10), process.exited()).await.ok().and_then(Result::ok);
        self.pid.store(0, Ordering::Relaxed);
        self.meters.traced().over(SpanName::Codec, began);
        if let Some(exit) = &exit {
            self.meters.used_cpu(u64::try_from(exit.cpu.as_millis()).unwrap_or(u64::MAX));
        }
        // The last lines are in the pipe; they are worth a moment.
        let mut log = log;
        let _ = timeout(Duration::from_secs(1), &mut log.0).await;
        // Whoever was first: a process that died of SIGSYS violated its locks.
        let made = match (made, exit) {
            (Err(Stop::Fail(first)), Some(exit)) if violated_locks(&exit) => {
                Err(Stop::Fail(self.with_log(&exit, signal_failure).unwrap_or(first)))
            }
            (made, _) => made,
        };
        (made, exit)
    }

    /// Waits for the codec to exit, watching what feeds it.
    async fn until_exit(
        &self,
        process: &mut crate::attempt::process::Process,
        mut listening: AbortOnDrop<Result<Ended, Stop>>,
        pumps: &mut Pumps<B>,
    ) -> Result<TaskResult, Stop> {
        let mut ended = None;
        let exit = loop {
            tokio::select! {
                // What feeds the codec knows best why it cannot go on; what the codec says of that comes after.
                biased;
                stop = pumps.failed() => return Err(stop),
                exit = process.exited() => break exit,
                said = &mut listening.0, if ended.is_none() => {
                    let said = said.map_err(|e| Stop::fail(FailureCode::WorkerError, e.to_string()))??;
                    ended = Some(said);
                }
                // It has closed its control socket, so it should be gone by now.
                () = tokio::time::sleep(self.settings.exit_within), if ended.is_some() => {
                    return Err(Stop::violation("the codec closed its control socket and did not exit"));
                }
            }
        };
        let exit =
            exit.map_err(|e| Stop::fail(FailureCode::WorkerError, format!("waiting for the codec: {e}")))?;
        // Whatever fed it hangs up before it can say why, and a codec that then gives up may be seen first.
        if exit.status.code().is_some_and(|code| code != 0)
            && let Ok(stop) = timeout(WHO_HUNG_UP, pumps.failed()).await
        {
            return Err(stop);
        }
        let ended = match ended {
            Some(ended) => ended,
            // All ends of its sockets are closed now; what it said last is in the buffer.
            None => match timeout(self.settings.exit_within, &mut listening.0).await {
                Ok(Ok(said)) => match said {
                    Ok(ended) => ended,
                    Err(stop) if exit.status.success() || !signal_ended(&exit) => return Err(stop),
                    Err(stop) => {
                        return Err(self.with_log(&exit, signal_failure).map_or(stop, Stop::Fail));
                    }
                },
                Ok(Err(error)) => return Err(Stop::fail(FailureCode::WorkerError, error.to_string())),
                Err(_) => Ended::Silent,
            },
        };
        let words = self.log.last_words();
        classify(&exit, ended, self.known(&words)).map_err(Stop::Fail)
    }

    fn known<'w>(&self, last_words: &'w str) -> Circumstances<'w> {
        Circumstances {
            cpu_limit: self.lease.limits.cpu_seconds,
            allocation_failed: self.log.allocation_failed(),
            last_words,
        }
    }

    fn with_log(
        &self,
        exit: &Exit,
        judge: fn(&Exit, Circumstances<'_>) -> Option<Failure>,
    ) -> Option<Failure> {
        judge(exit, self.known(&self.log.last_words()))
    }

    fn usage(&self, exit: &Exit) -> Usage {
        let (bytes_in, bytes_out) = self.meters.bytes();
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Usage {
            wall_ms: millis(self.started.elapsed()),
            cpu_ms: millis(exit.cpu),
            peak_memory: exit.peak_memory,
            bytes_in,
            bytes_out,
        }
    }
}

fn signal_ended(exit: &Exit) -> bool {
    exit.status.code().is_none()
}

/// What a completion that the broker did not take amounts to.
fn refused_completion(error: &CallError) -> Stop {
    match error {
        CallError::Unavailable(_) | CallError::LeaseLost | CallError::UnknownIdentity => Stop::LeaseLost,
        error => Stop::fail(FailureCode::BrokerError, format!("the completion was not taken: {error}")),
    }
}

/// How long what fed a codec that gave up has to say that it was its own fault.
const WHO_HUNG_UP: Duration = Duration::from_millis(200);

/// What moves bytes for a codec.
struct Pumps<B: Broker> {
    uploads: Arc<Uploads<B>>,
    tasks: JoinSet<Result<Moved, Stop>>,
    digests: Vec<Option<OutputDigest>>,
    files: Vec<(u32, std::fs::File, u64)>,
}

enum Moved {
    Input,
    Output(u32, OutputDigest),
}

impl<B: Broker> Pumps<B> {
    fn new(uploads: Arc<Uploads<B>>, server: InputServer<B>) -> Self {
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { server.serve().await.map(|()| Moved::Input) });
        Self { uploads, tasks, digests: Vec::new(), files: Vec::new() }
    }

    fn outputs(&mut self, sources: Vec<OutputSource>, limits: impl Iterator<Item = u64>) {
        for ((number, source), max_bytes) in (0u32..).zip(sources).zip(limits) {
            self.digests.push(None);
            match source {
                OutputSource::Stream(pipe) => {
                    let uploads = Arc::clone(&self.uploads);
                    self.tasks.spawn(async move {
                        let digest = uploads.stream(number, pipe, max_bytes).await?;
                        Ok(Moved::Output(number, digest))
                    });
                }
                OutputSource::File(file) => self.files.push((number, file, max_bytes)),
            }
        }
    }

    fn take(&mut self, moved: Moved) {
        if let Moved::Output(number, digest) = moved
            && let Some(place) = usize::try_from(number).ok().and_then(|at| self.digests.get_mut(at))
        {
            *place = Some(digest);
        }
    }

    async fn next(&mut self) -> Option<Result<(), Stop>> {
        let joined = self.tasks.join_next().await?;
        Some(match joined {
            Ok(Ok(moved)) => {
                self.take(moved);
                Ok(())
            }
            Ok(Err(stop)) => Err(stop),
            Err(error) => {
                Err(Stop::fail(FailureCode::WorkerError, format!("a task of the supervisor ended: {error}")))
            }
        })
    }

    /// Waits for the first that fails.
    async fn failed(&mut self) -> Stop {
        loop {
            match self.next().await {
                Some(Ok(())) => {}
                Some(Err(stop)) => return stop,
                None => std::future::pending().await,
            }
        }
    }

    /// Waits for every output, the codec being gone.
    async fn finish(&mut self) -> Result<Vec<OutputDigest>, Stop> {
        while let Some(moved) = self.next().await {
            moved?;
        }
        for (number, file, max_bytes) in std::mem::take(&mut self.files) {
            let digest = Arc::clone(&self.uploads).file(number, file, max_bytes).await?;
            self.take(Moved::Output(number, digest));
        }
        let missing = || Stop::fail(FailureCode::WorkerError, "an output is missing");
        self.digests.drain(..).map(|digest| digest.ok_or_else(missing)).collect()
    }
}
