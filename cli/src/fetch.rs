//! A job's output as a folder: fetched, verified, with a page that plays it, moved in whole.

use crate::client::{Client, UploadSource};
use crate::exit::Failed;
use crate::output::{PAGE, PLAYER, REPORT, Report, Scratch, Target};
use crate::ui::Ui;
use crate::web;
use mpegflow_protocol::api::Job;
use std::fs;
use std::io;
use std::path::Path;

/// Fetches all of a job's output into the scratch folder and adds the page and the report.
pub(crate) async fn fetch(
    client: &Client,
    job: &Job,
    source: Option<&UploadSource>,
    scratch: &Scratch,
    ui: Ui,
) -> Result<(), Failed> {
    let dir = scratch.files();
    let total = job.outputs.iter().fold(0_u64, |sum, output| sum.saturating_add(output.size));
    let bar = ui.bytes_bar("fetch", total);
    for output in &job.outputs {
        let result = client.download(output, &dir, &|n| bar.inc(n)).await;
        if let Err(e) = result {
            bar.finish_and_clear();
            return Err(e.into());
        }
    }
    bar.finish_and_clear();
    let name = source.and_then(|source| source.path.file_name());
    let report = Report {
        mpegflow: env!("CARGO_PKG_VERSION").into(),
        source: name.map(|name| name.to_string_lossy().into_owned()),
        source_mark: source.map(|source| source.mark.clone()),
        job: without_tags(job),
    };
    let plays = job.outputs.iter().any(|output| output.name == "master.m3u8");
    write_page(&dir, &report, plays).map_err(|e| Failed::file("write", &dir, &e))
}

/// The job without the tags of its input: the folder is made to be published, and phones write the place and the device there.
fn without_tags(job: &Job) -> Job {
    let mut job = job.clone();
    if let Some(media) = &mut job.media {
        media.tags.clear();
        media.streams.iter_mut().for_each(|stream| stream.tags.clear());
    }
    job
}

fn write_page(dir: &Path, report: &Report, plays: bool) -> io::Result<()> {
    write(&dir.join(REPORT), &serde_json::to_vec_pretty(report)?)?;
    if !plays {
        return Ok(());
    }
    write(&dir.join(PAGE), web::PLAY_HTML.as_bytes())?;
    let player = dir.join(PLAYER);
    fs::create_dir(&player)?;
    for (name, content) in web::PLAYER_FILES {
        write(&player.join(name), content.as_bytes())?;
    }
    fs::File::open(&player)?.sync_all()
}

fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    use std::io::Write as _;
    let mut file = fs::File::create_new(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Moves the folder in.
pub(crate) fn commit(scratch: Scratch, target: &Target) -> Result<(), Failed> {
    scratch.commit(target)
}
