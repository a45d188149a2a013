//! `mpegflow transcode`: a file through a whole broker, worker and locked codec, on this machine.

use super::{JobTemplate, batch, ended, send, watch};
use crate::args::Transcode;
use crate::client::{Client, UploadSource};
use crate::exit::Failed;
use crate::fetch;
use crate::interrupt::Interrupt;
use crate::local::{LOOPBACK, Local, Setup};
use crate::lock;
use crate::output::{self, Scratch, Target};
use crate::summary;
use crate::ui::{Tone, Ui};
use crate::workers::{Programs, WorkerLog};
use mpegflow_protocol::api::Job;
use mpegflow_protocol::ids::{JobId, UploadId};
use mpegflow_protocol::job::JobSpec;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long a canceled job has to end before its processes are ended anyway.
const CANCEL_PATIENCE: Duration = Duration::from_secs(8);

/// The job that is under way, for whoever has to cancel it.
pub(crate) type Underway = Arc<Mutex<Option<JobId>>>;

/// How files are transcoded here, whichever.
pub(crate) struct How {
    template: JobTemplate,
    programs: Programs,
    workers: u16,
    /// Files at once.
    pub(crate) jobs: u16,
    verbose: bool,
    pub(crate) interrupt: Interrupt,
}

impl How {
    /// From the options. Everything that can be refused is, before anything is started.
    pub(crate) fn new(args: &Transcode, verbose: bool) -> Result<Self, Failed> {
        Ok(Self {
            template: JobTemplate::new(&args.job)?,
            programs: Programs::find(args.local.libexec.libexec.as_deref())?,
            workers: args.local.workers,
            jobs: args.jobs,
            verbose,
            interrupt: listen()?,
        })
    }

    /// The spec of a file whose upload has no id yet.
    pub(crate) fn spec(&self, file: &Path) -> Result<JobSpec, Failed> {
        self.template.for_upload(UploadId::from_u128(0), Some(file))
    }

    /// Transcodes one file. Its target has it whole, or nothing was done to it.
    pub(crate) async fn one(&self, source: &UploadSource, target: &Target, ui: Ui) -> Result<Job, Failed> {
        let scratch = Scratch::beside(target)?;
        let machine = Machine {
            programs: self.programs.clone(),
            workers: self.workers,
            beside: self.jobs,
            verbose: self.verbose,
        };
        let job = in_scratch(&scratch, machine, &self.interrupt, |client, underway| {
            let scratch = &scratch;
            async move {
                let upload = send(&client, source, ui, None).await?;
                let job = client.submit(&self.template.for_upload(upload.id, Some(&source.path))?).await?;
                *lock(&underway) = Some(job.id);
                let job = watch(&client, job.id, ui).await?;
                ended(&job)?;
                fetch::fetch(&client, &job, Some(source), scratch, ui).await?;
                Ok(job)
            }
        })
        .await?;
        if !source.is_as_opened() {
            return Err(source.changed().into());
        }
        fetch::commit(scratch, target)?;
        Ok(job)
    }
}

/// Runs the command.
pub(crate) async fn run(args: Transcode, ui: Ui, verbose: bool) -> Result<u8, Failed> {
    let (1, false, None, Some(input)) = (args.inputs.len(), args.batch, &args.watch, args.inputs.first())
    else {
        return batch::run(args, ui, verbose).await;
    };
    let source = UploadSource::open(input)?;
    let target = Target::new(&args.out, args.force, Some(input))?;
    let how = How::new(&args, verbose)?;
    let started = Instant::now();
    let job = how.one(&source, &target, ui).await?;
    report(&job, &target, started.elapsed(), ui);
    Ok(0)
}

/// Listens for Ctrl-C.
pub(crate) fn listen() -> Result<Interrupt, Failed> {
    Interrupt::listen().map_err(|e| {
        Failed::new(crate::exit::Exit::Failed, "signals", format!("cannot listen for signals: {e}"))
    })
}

/// What a broker on this machine starts, and what it shares the machine with.
pub(crate) struct Machine {
    /// What its workers run.
    pub(crate) programs: Programs,
    /// Its workers.
    pub(crate) workers: u16,
    /// Brokers at once, this one among them.
    pub(crate) beside: u16,
    /// What workers say is shown.
    pub(crate) verbose: bool,
}

impl Machine {
    /// With one worker, and nothing beside it.
    pub(crate) const fn alone(programs: Programs, verbose: bool) -> Self {
        Self { programs, workers: 1, beside: 1, verbose }
    }
}

/// Runs `work` against a broker and workers whose state is in the scratch folder, and ends them whatever happens: on
/// Ctrl-C after canceling the job, on a second one at once.
pub(crate) async fn in_scratch<T, F, W>(
    scratch: &Scratch,
    machine: Machine,
    interrupt: &Interrupt,
    work: F,
) -> Result<T, Failed>
where
    F: FnOnce(Client, Underway) -> W,
    W: Future<Output = Result<T, Failed>>,
{
    let root = scratch.root().to_owned();
    let _removed = interrupt.on_abort(move || output::remove(&root));
    let log = if machine.verbose {
        WorkerLog::Inherit
    } else {
        WorkerLog::File(scratch.root().join("workers.log"))
    };
    let setup = Setup {
        data: scratch.state(),
        public: LOOPBACK,
        metrics: None,
        workers: machine.workers,
        beside: machine.beside,
        programs: machine.programs,
        log,
        origins: Vec::new(),
        routes: None,
    };
    let local = tokio::select! {
        local = Local::start(setup) => local?,
        () = interrupt.asked() => return Err(Failed::interrupted()),
    };
    let _killed = interrupt.on_abort(local.workers.killer());
    let underway = Underway::default();
    let result = tokio::select! {
        result = work(local.client.clone(), Arc::clone(&underway)) => result,
        trouble = local.workers.trouble() => Err(trouble),
        () = interrupt.asked() => {
            cancel(&local.client, &underway).await;
            Err(Failed::interrupted())
        }
    };
    local.stop().await;
    result
}

/// Cancels what is under way and waits a little for it to have ended.
async fn cancel(client: &Client, underway: &Underway) {
    let Some(id) = *lock(underway) else { return };
    let canceled = async {
        if client.cancel(id).await.is_ok() {
            // Why it could not be followed does not matter any more.
            let _ = client.follow(id, &mut |_| {}).await;
        }
    };
    let _ = tokio::time::timeout(CANCEL_PATIENCE, canceled).await;
}

fn report(job: &Job, target: &Target, wall: Duration, ui: Ui) {
    if ui.json {
        ui.json(&serde_json::json!({ "out": target.path(), "wall_ms": millis(wall), "job": job }), true);
        return;
    }
    let label = |text: &str| ui.tone(Tone::Dim, &format!("{text:>8}"));
    ui.line(format!("{} {}", label("made"), ui.tone(Tone::Good, &summary::made(job, Some(wall)))));
    if let Some(lost) = summary::lost(job) {
        ui.line(format!("{} {}", label("lost"), ui.tone(Tone::Warn, &lost)));
    }
    ui.line(format!("{} {}", label("in"), target.path().display()));
    ui.line(format!("{} {}", label("isolated"), summary::isolation(job)));
    if job.outputs.iter().any(|output| output.name == "master.m3u8") {
        ui.line(format!("{} mpegflow play {}", label("play"), quoted(target.path())));
    }
}

pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A path as a shell takes it.
pub(crate) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_can_be_pasted_into_a_shell() {
        assert_eq!(quoted(Path::new("/a/b-1.mp4")), "/a/b-1.mp4");
        assert_eq!(quoted(Path::new("/a b/it's $(x)")), r"'/a b/it'\''s $(x)'");
    }
}
