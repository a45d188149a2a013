//! `mpegflow thumbnail`: one picture of a video, decoded and encoded in a locked process.

use super::{JobTemplate, ended, send, watch};
use crate::args::Thumbnail;
use crate::client::UploadSource;
use crate::exit::{Exit, Failed};
use crate::lock;
use crate::output::Scratch;
use crate::ui::Ui;
use crate::workers::Programs;
use serde_json::json;
use std::fs;
use std::io;
use std::path::Path;

const POSTER: &str = "poster.jpg";

/// Runs the command.
pub(crate) async fn run(args: Thumbnail, ui: Ui, verbose: bool) -> Result<(), Failed> {
    let source = UploadSource::open(&args.input)?;
    if args.picture.exists() && !args.force {
        let what = format!("{} is there already", args.picture.display());
        return Err(Failed::new(Exit::Usage, "exists", what).help("Name another file, or give --force."));
    }
    let template = template(&args)?;
    let programs = Programs::find(args.libexec.libexec.as_deref())?;
    let interrupt = super::transcode::listen()?;
    let scratch = Scratch::temporary()?;
    super::transcode::in_scratch(
        &scratch,
        super::transcode::Machine::alone(programs, verbose),
        &interrupt,
        |client, underway| {
            let (scratch, template, source) = (&scratch, &template, &source);
            async move {
                let upload = send(&client, source, ui, None).await?;
                let job = client.submit(&template.for_upload(upload.id, Some(&source.path))?).await?;
                *lock(&underway) = Some(job.id);
                let job = watch(&client, job.id, ui).await?;
                ended(&job)?;
                let poster = job.outputs.iter().find(|output| output.name == POSTER);
                let poster = poster
                    .ok_or_else(|| Failed::new(Exit::Failed, "no_picture", "the job made no picture"))?;
                client.download(poster, &scratch.files(), &|_| {}).await?;
                Ok(())
            }
        },
    )
    .await?;
    place(&scratch.files().join(POSTER), &args.picture)
        .map_err(|e| Failed::file("write", &args.picture, &e))?;
    if ui.json {
        ui.json(&json!({ "picture": args.picture }), true);
    } else {
        ui.line(args.picture.display().to_string());
    }
    Ok(())
}

fn template(args: &Thumbnail) -> Result<JobTemplate, Failed> {
    let mut spec = json!({
        "version": 1,
        "preset": "thumbnail",
        "decoders": if args.legacy_decoders { "legacy" } else { "core" },
        "thumbnails": {},
        "video": {},
    });
    if let (Some(at), Some(thumbnails)) =
        (args.at, spec.get_mut("thumbnails").and_then(|t| t.as_object_mut()))
    {
        thumbnails.insert("poster_seconds".into(), json!(at));
    }
    if let (Some(height), Some(video)) =
        (args.max_height, spec.get_mut("video").and_then(|t| t.as_object_mut()))
    {
        video.insert("max_height".into(), height.into());
    }
    let serde_json::Value::Object(spec) = spec else {
        return Err(Failed::new(Exit::Failed, "spec", "no spec"));
    };
    let template = JobTemplate::Spec(spec);
    template.for_upload(mpegflow_protocol::ids::UploadId::from_u128(0), None)?;
    Ok(template)
}

/// Puts the picture in its place whole: a reader sees the old one or the new one.
fn place(from: &Path, to: &Path) -> io::Result<()> {
    let mut name = to.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(format!(".partial-{}", std::process::id()));
    let partial = to.with_file_name(name);
    let placed = fs::copy(from, &partial)
        .and_then(|_| fs::File::open(&partial)?.sync_all())
        .and_then(|()| fs::rename(&partial, to));
    if placed.is_err() {
        // It may not have come that far.
        let _ = fs::remove_file(&partial);
    }
    placed
}
