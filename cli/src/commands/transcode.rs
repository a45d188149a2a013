//! `mpegflow transcode`: one file through a whole broker, worker and locked codec, on this machine.

use super::{JobTemplate, ended, send, watch};
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
use mpegflow_protocol::ids::JobId;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long a canceled job has to end before its processes are ended anyway.
const CANCEL_PATIENCE: Duration = Duration::from_secs(8);

/// The job that is under way, for whoever has to cancel it.
pub(crate) type Underway = Arc<Mutex<Option<JobId>>>;

/// Runs the command.
pub(crate) async fn run(args: Transcode, ui: Ui, verbose: bool) -> Result<(), Failed> {
    // Everything that can be refused is, before anything is started.
    let source = UploadSource::open(&args.input)?;
    let target = Target::new(&args.out, args.force, Some(&args.input))?;
    let template = JobTemplate::new(&args.job)?;
    let programs = Programs::find(args.local.libexec.libexec.as_deref())?;
    let interrupt = listen()?;
    let scratch = Scratch::beside(&target)?;
    let started = Instant::now();
    let job = in_scratch(&scratch, programs, args.local.workers, verbose, &interrupt, |client, underway| {
        let (scratch, template, source) = (&scratch, &template, &source);
        async move {
            let upload = send(&client, source, ui, None).await?;
            let job = client.submit(&template.for_upload(upload.id, Some(&source.path))?).await?;
            *lock(&underway) = Some(job.id);
            let job = watch(&client, job.id, ui).await?;
            ended(&job)?;
            let name = source.path.file_name().map(|name| name.to_string_lossy().into_owned());
            fetch::fetch(&client, &job, name, scratch, ui).await?;
            Ok(job)
        }
    })
    .await?;
    fetch::commit(scratch, &target)?;
    report(&job, &target, started.elapsed(), ui);
    Ok(())
}

/// Listens for Ctrl-C.
pub(crate) fn listen() -> Result<Interrupt, Failed> {
    Interrupt::listen().map_err(|e| {
        Failed::new(crate::exit::Exit::Failed, "signals", format!("cannot listen for signals: {e}"))
    })
}

/// Runs `work` against a broker and workers whose state is in the scratch folder, and ends them whatever happens: on
/// Ctrl-C after canceling the job, on a second one at once.
pub(crate) async fn in_scratch<T, F, W>(
    scratch: &Scratch,
    programs: Programs,
    workers: u16,
    verbose: bool,
    interrupt: &Interrupt,
    work: F,
) -> Result<T, Failed>
where
    F: FnOnce(Client, Underway) -> W,
    W: Future<Output = Result<T, Failed>>,
{
    let root = scratch.root().to_owned();
    interrupt.on_abort(move || output::remove(&root));
    let log = if verbose { WorkerLog::Inherit } else { WorkerLog::File(scratch.root().join("workers.log")) };
    let setup = Setup {
        data: scratch.state(),
        public: LOOPBACK,
        metrics: None,
        workers,
        programs,
        log,
        routes: None,
    };
    let local = tokio::select! {
        local = Local::start(setup) => local?,
        () = interrupt.asked() => return Err(Failed::interrupted()),
    };
    interrupt.on_abort(local.workers.killer());
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

fn millis(time: Duration) -> u64 {
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
