//! `mpegflow jobs …`.

use super::{JobTemplate, ended, send, watch};
use crate::args::Jobs;
use crate::client::{Client, UploadSource};
use crate::exit::{Failed, in_options};
use crate::summary;
use crate::ui::{Tone, Ui, progress_text, stage};
use mpegflow_protocol::api::{Job, JobLogs, JobState, Waiting};
use mpegflow_protocol::ids::{JobId, UploadId};
use mpegflow_protocol::job::InputRef;
use mpegflow_protocol::text::clean;
use std::path::PathBuf;

/// Jobs asked for at a time.
const PAGE: u16 = 100;

/// Runs the command.
pub(crate) async fn run(args: Jobs, ui: Ui) -> Result<(), Failed> {
    match args {
        Jobs::Submit { input, from_storage, job, dry_run, watch: stay, connection } => {
            let template = JobTemplate::new(&job)?;
            let client = Client::from_connection(&connection)?;
            let given = input.unwrap_or_default();
            let (input, file) = match (from_storage, given.parse::<UploadId>()) {
                (Some(key), _) => (InputRef::Storage(key.clone()), Some(PathBuf::from(key))),
                // Only for the label: should there be no such upload, the submission says so.
                (None, Ok(id)) => {
                    let name = client.upload(id).await.ok().and_then(|upload| upload.name);
                    (InputRef::Upload(id), name.map(PathBuf::from))
                }
                (None, Err(_)) => {
                    let file = PathBuf::from(&given);
                    let upload = send(&client, &UploadSource::open(&file)?, ui, None).await?;
                    (InputRef::Upload(upload.id), Some(file))
                }
            };
            let mut spec = template.for_input(input, file.as_deref())?;
            spec.dry_run |= dry_run;
            let job = client.submit(&spec).await?;
            if stay {
                follow(&client, job.id, ui).await
            } else {
                shown(ui, &job, || ui.line(job.id.to_string()))
            }
        }
        Jobs::List { limit, connection } => {
            let jobs = list(&Client::from_connection(&connection)?, limit).await?;
            shown(ui, &jobs, || jobs.iter().for_each(|job| ui.line(row(job, ui))))
        }
        Jobs::Show { job, connection } => {
            let job = Client::from_connection(&connection)?.job(job).await?;
            shown(ui, &job, || show(&job, ui))
        }
        Jobs::Watch { job, connection } => follow(&Client::from_connection(&connection)?, job, ui).await,
        Jobs::Logs { job, connection } => {
            let logs = Client::from_connection(&connection)?.logs(job).await?;
            shown(ui, &logs, || write_logs(&logs, ui))
        }
        Jobs::Delete { job, connection } => {
            Client::from_connection(&connection)?.delete_job(job).await?;
            shown(ui, &serde_json::json!({ "deleted": job }), || ui.line(format!("{job} is deleted")))
        }
        Jobs::Cancel { job, connection } => {
            let job = Client::from_connection(&connection)?.cancel(job).await?;
            shown(ui, &job, || ui.line(row(&job, ui)))
        }
    }
}

fn shown(ui: Ui, value: &impl serde::Serialize, text: impl FnOnce()) -> Result<(), Failed> {
    if ui.json {
        ui.json(value, true)
    } else {
        text()
    }
    Ok(())
}

async fn list(client: &Client, limit: u16) -> Result<Vec<Job>, Failed> {
    let mut jobs: Vec<Job> = Vec::new();
    let mut after = None;
    while jobs.len() < usize::from(limit) {
        let rest = usize::from(limit).saturating_sub(jobs.len());
        let page = client.jobs(after, u16::try_from(rest).unwrap_or(PAGE).min(PAGE)).await?;
        if page.jobs.is_empty() {
            break;
        }
        jobs.extend(page.jobs);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    jobs.truncate(usize::from(limit));
    Ok(jobs)
}

/// Follows a job; Ctrl-C only stops the watching.
async fn follow(client: &Client, id: JobId, ui: Ui) -> Result<(), Failed> {
    let interrupt = super::transcode::listen()?;
    let following = async {
        if ui.json {
            Ok(client.follow(id, &mut |job| ui.json(job, false)).await?)
        } else {
            watch(client, id, ui).await
        }
    };
    let job = tokio::select! {
        job = following => job?,
        () = interrupt.asked() => {
            return Err(Failed::interrupted().help(format!("The job goes on. Cancel it with `mpegflow jobs cancel {id}`.")));
        }
    };
    ended(&job)?;
    if !ui.json {
        ui.line(format!("{} {}", job.id, summary::made(&job, None)));
        if let Some(lost) = summary::lost(&job) {
            ui.line(format!("lost: {lost}"));
        }
        ui.line(format!("isolated: {}", summary::isolation(&job)));
        if job.spec.dry_run {
            return Ok(());
        }
        ui.line(format!("fetch it: mpegflow download {} --out dist/", job.id));
    }
    Ok(())
}

fn row(job: &Job, ui: Ui) -> String {
    let what = match (&job.failure, job.state) {
        (Some(failure), _) => format!("{}: {}", failure.code, shortened(&in_options(&failure.message), 80)),
        (None, JobState::Running) if job.waiting.is_some() => {
            job.waiting.as_ref().map_or_else(String::new, waits)
        }
        (None, JobState::Running | JobState::Canceling) => {
            let text = format!("{} {:.0}%  {}", stage(job), job.progress.percent, progress_text(job));
            text.trim_end().to_owned()
        }
        (None, JobState::Succeeded) => match summary::lost(job) {
            Some(lost) => format!("{}; {lost}", summary::made(job, None)),
            None => summary::made(job, None),
        },
        (None, JobState::Queued) => job.waiting.as_ref().map_or_else(String::new, waits),
        (None, _) => String::new(),
    };
    // Whole seconds; the rest of an RFC 3339 time is its fraction and `Z`.
    let at = job.created_at.get(..19).map_or_else(|| job.created_at.clone(), |at| format!("{at}Z"));
    let at = clean(&at, 30);
    let name = job
        .spec
        .external_id
        .as_ref()
        .or_else(|| job.spec.labels.get(super::NAME))
        .unwrap_or(&job.spec.preset);
    let row = format!("{}  {}  {at}  {}  {what}", job.id, state(job.state, ui), clean(name, 40));
    row.trim_end().to_owned()
}

/// At most `max` characters, and a sign where some are missing.
fn shortened(text: &str, max: usize) -> String {
    let short = clean(text, max);
    if text.chars().nth(max).is_some() { format!("{}…", short.trim_end()) } else { short }
}

fn state(state: JobState, ui: Ui) -> String {
    let tone = match state {
        JobState::Succeeded => Tone::Good,
        JobState::Failed => Tone::Bad,
        JobState::Canceled | JobState::Canceling => Tone::Warn,
        JobState::Queued | JobState::Running => Tone::Strong,
    };
    ui.tone(tone, &format!("{:<9}", state.as_str()))
}

/// The reason as the API spells it, and what it means.
fn waits(waiting: &Waiting) -> String {
    format!("waits: {}: {}", waiting.reason.as_str(), shortened(&waiting.message, 120))
}

/// What the codecs wrote, in the order in which they did.
fn write_logs(logs: &JobLogs, ui: Ui) {
    if logs.attempts.is_empty() {
        ui.note("Nothing was written.");
    }
    for log in logs.attempts.iter().rev() {
        let title = format!(
            "{} attempt {} ({}), {}",
            clean(&log.task, 16),
            log.number,
            clean(&log.state, 16),
            log.attempt
        );
        ui.line(ui.tone(Tone::Strong, &title));
        for line in &log.lines {
            ui.line(format!("  {}", clean(line, 512)));
        }
        if log.cut {
            ui.line("  (more was written than is kept)");
        }
    }
}

fn show(job: &Job, ui: Ui) {
    ui.line(row(job, ui));
    if let Some(waiting) = &job.waiting {
        ui.line(format!("  waits        {}: {}", waiting.reason.as_str(), clean(&waiting.message, 512)));
    }
    if let Some(name) = &job.spec.external_id {
        ui.line(format!("  external id  {}", clean(name, 128)));
    }
    ui.line(format!("  preset       {}", clean(&job.spec.preset, 64)));
    for (key, value) in &job.spec.labels {
        ui.line(format!("  label        {} = {}", clean(key, 128), clean(value, 128)));
    }
    if let Some(estimate) = &job.estimate {
        ui.line(format!("  estimated    {}", summary::cost(estimate)));
    }
    if let Some(early) = &job.early {
        let text = match (&early.url, &early.whole_because) {
            (Some(url), _) => format!("{}, {} ms so far", clean(url, 640), early.playable_ms),
            (None, Some(why)) => format!("when it is done: {}", clean(why, 200)),
            (None, None) => "once its first segments are checked".into(),
        };
        ui.line(format!("  plays        {text}"));
    }
    for task in &job.tasks {
        ui.line(format!("  task         {}", summary::task(task)));
    }
    for output in &job.outputs {
        ui.line(format!("  output       {}  {}", clean(&output.name, 255), crate::ui::bytes(output.size)));
    }
    if let Some(failure) = &job.failure {
        ui.line(format!("  remedy       {}", in_options(failure.code.help())));
    }
    if job.tasks.iter().any(|task| task.evidence.is_some()) {
        ui.line(format!("  isolated     {}", summary::isolation(job)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_cut_says_so() {
        assert_eq!(shortened("one two", 7), "one two");
        assert_eq!(shortened("one two", 4), "one…");
    }
}
