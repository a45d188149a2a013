//! Several files: each through a broker of its own, into a folder of its own, so that what one file does to its codec, worker
//! and broker ends with it, and what an interrupted run had finished is found by the next.

mod outcome;
mod plan;
mod watch;

use super::transcode::{How, millis};
use crate::args::Transcode;
use crate::exit::{Exit, Failed};
use crate::ui::{Row, Ui};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use outcome::{Counts, Ended, Outcome};
use plan::{Planned, Standing};
use std::collections::VecDeque;
use std::time::Instant;

/// Runs the command; its exit code.
pub(crate) async fn run(args: Transcode, ui: Ui, verbose: bool) -> Result<u8, Failed> {
    if let Some(folder) = &args.watch {
        return watch::run(folder, &args, How::new(&args, verbose)?, ui).await;
    }
    let how = How::new(&args, verbose)?;
    let planned = plan::plan(&args.inputs, &args.out, args.force, &how)?;
    make_folder(&args.out)?;
    let started = Instant::now();
    let files = transcode(planned, &how, ui).await;
    let mut counts = Counts::default();
    files.iter().for_each(|file| counts.add(&file.how));
    if ui.json {
        let mut document = counts.json();
        if let Some(document) = document.as_object_mut() {
            document.insert("out".into(), serde_json::json!(args.out));
            document.insert("wall_ms".into(), millis(started.elapsed()).into());
            document.insert("files".into(), files.iter().map(Ended::json).collect());
        }
        ui.json(&document, true);
    } else {
        outcome::table(&files, ui);
        ui.line(format!("{} in {}", counts.words(), crate::ui::duration(started.elapsed())));
    }
    Ok(counts.exit(how.interrupt.is_asked()))
}

/// Transcodes what was planned, so many files at once; in the order in which they were planned.
async fn transcode(planned: Vec<Planned>, how: &How, ui: Ui) -> Vec<Ended> {
    let total = u64::try_from(planned.len()).unwrap_or(u64::MAX);
    let (mut rows, overall) = ui.rows(how.jobs, total);
    let mut ended: Vec<(usize, Ended)> = Vec::with_capacity(planned.len());
    let mut waiting: VecDeque<(usize, Planned)> = planned.into_iter().enumerate().collect();
    let mut running = FuturesUnordered::new();
    let mut hopeless = false;
    loop {
        while let (Some(row), false) = (rows.pop(), waiting.is_empty()) {
            let Some((number, planned)) = waiting.pop_front() else { break };
            if hopeless || how.interrupt.is_asked() {
                let Planned { source, out, standing } = planned;
                let how = match standing {
                    Standing::Made => Outcome::MadeBefore,
                    Standing::Wanted(_) => Outcome::NotBegun,
                };
                ended.push((number, Ended { input: source.path, out, how }));
                rows.push(row);
                continue;
            }
            running.push(async move { (number, row, file(planned, how, ui, row).await) });
        }
        // A row that was taken for nothing is not missed: nothing waits any more.
        let Some((number, row, done)) = running.next().await else { break };
        hopeless |= matches!(&done.how, Outcome::Failed(failed) if is_hopeless(failed));
        overall.inc(1);
        ended.push((number, done));
        rows.push(row);
    }
    overall.finish_and_clear();
    ended.sort_by_key(|(number, _)| *number);
    ended.into_iter().map(|(_, ended)| ended).collect()
}

/// Whether every other file would fail likewise.
fn is_hopeless(failed: &Failed) -> bool {
    ["worker_does_not_start", "broker_start", "broker_error"].contains(&failed.code.as_str())
}

/// One file, to its end.
async fn file(planned: Planned, how: &How, ui: Ui, row: &'static Row) -> Ended {
    let Planned { source, out, standing } = planned;
    let name = source.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let ui = ui.in_row(row, &name);
    let outcome = match standing {
        Standing::Made => Outcome::MadeBefore,
        Standing::Wanted(target) => {
            let started = Instant::now();
            match how.one(&source, &target, ui).await {
                Ok(job) => Outcome::made(&job, started.elapsed()),
                Err(failed) => Outcome::failed(failed),
            }
        }
    };
    Ended { input: source.path, out, how: outcome }
}

/// Makes the folder of all results. What is not finished lies in it too, so that the next run finds what a killed one left.
fn make_folder(out: &std::path::Path) -> Result<(), Failed> {
    std::fs::create_dir_all(out)
        .map_err(|e| Failed::file("create", out, &e).help("Choose an output folder where you may write."))
}

/// The failure of a watched folder that cannot be read.
fn unreadable(folder: &std::path::Path, error: &dyn std::fmt::Display) -> Failed {
    Failed::new(Exit::BadInput, "input_unreadable", format!("cannot read {}: {error}", folder.display()))
        .help("--watch takes a folder.")
}
