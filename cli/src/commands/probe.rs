//! `mpegflow probe`: what a file is, read by a locked process.
//!
//! The API has no probe of its own: a job is submitted, its probe task tells what the input is, and the job is canceled
//! before more than a moment of encoding was done.

use super::{JobTemplate, ended, send};
use crate::args::{JobOptions, Probe};
use crate::client::UploadSource;
use crate::exit::{Exit, Failed};
use crate::ffprobe;
use crate::lock;
use crate::output::Scratch;
use crate::probe_format::Shown;
use crate::ui::Ui;
use crate::workers::Programs;
use mpegflow_protocol::media::MediaInfo;

/// Runs the command.
pub(crate) async fn run(args: Probe, ui: Ui, verbose: bool) -> Result<(), Failed> {
    let shown = Shown::new(
        args.show_format,
        args.show_streams,
        args.show_entries.as_deref(),
        args.select_streams.as_deref(),
    )
    .map_err(|what| Failed::new(Exit::Usage, "usage", what))?;
    let source = UploadSource::open(&args.input)?;
    let options = JobOptions { legacy_decoders: args.legacy_decoders, ..JobOptions::default() };
    let template = JobTemplate::new(&options)?;
    let programs = Programs::find(args.libexec.libexec.as_deref())?;
    let interrupt = super::transcode::listen()?;
    let scratch = Scratch::temporary()?;
    let media = super::transcode::in_scratch(&scratch, super::transcode::Machine::alone(programs, verbose), &interrupt, |client, underway| {
        let (template, source) = (&template, &source);
        async move {
            let upload = send(&client, source, ui, None).await?;
            let job = client.submit(&template.for_upload(upload.id, Some(&source.path))?).await?;
            *lock(&underway) = Some(job.id);
            let (found, seen) = tokio::sync::oneshot::channel();
            let mut found = Some(found);
            let mut tell = |job: &mpegflow_protocol::api::Job| {
                if let (Some(media), true) = (&job.media, found.is_some())
                    && let Some(found) = found.take()
                {
                    // Whoever waited may have ended; then nobody wants to know.
                    let _ = found.send(media.clone());
                }
            };
            let media: MediaInfo = tokio::select! {
                biased;
                Ok(media) = seen => media,
                job = client.follow(job.id, &mut tell) => {
                    let job = job?;
                    match job.media {
                        Some(media) => media,
                        None => return Err(ended(&job).err().unwrap_or_else(|| {
                            Failed::new(Exit::Failed, "no_media", "the job succeeded without a description of its input")
                        })),
                    }
                }
            };
            // The job has served its purpose; whether it could be canceled makes no difference to the answer.
            let _ = client.cancel(job.id).await;
            Ok(media)
        }
    })
    .await?;
    drop(scratch);
    let said = args.print_format.write(&shown.of(&ffprobe::document(&media, &args.input)));
    // ffprobe writes nothing where nothing is asked for, and scripts take a line for an answer.
    if !said.is_empty() {
        ui.line(said);
    }
    Ok(())
}
