//! A folder that files come into. It is looked through every second: that works on every file system, a network's too,
//! and whoever fills the folder need not know of it.

use super::outcome::{Counts, Ended, Outcome};
use super::plan::{self, Planned, Standing};
use super::{file, make_folder, unreadable};
use crate::args::Transcode;
use crate::client::mark;
use crate::commands::transcode::How;
use crate::exit::{Exit, Failed};
use crate::ui::Ui;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use indicatif::ProgressBar;
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const LOOK: Duration = Duration::from_secs(1);
/// Files that are looked after. A folder with more is refused rather than followed in part.
const MOST: usize = 100_000;
/// Names that browsers, copying programs and editors give to what they have not finished.
const UNFINISHED: [&str; 6] = ["part", "partial", "tmp", "crdownload", "download", "filepart"];

/// What is known of a file.
struct Known {
    mark: String,
    since: Instant,
    /// Whether this state of it was dealt with.
    done: bool,
}

/// Watches until Ctrl-C, or until nothing comes any more.
pub(super) async fn run(folder: &Path, args: &Transcode, how: How, ui: Ui) -> Result<u8, Failed> {
    let settle = Duration::from_secs(args.settle);
    let idle = args.until_idle.map(Duration::from_secs);
    let (mut rows, bar) = ui.rows(how.jobs, 0);
    let mut known: HashMap<OsString, Known> = HashMap::new();
    let mut counts = Counts::default();
    let mut running = FuturesUnordered::new();
    // Folders of results that are being made.
    let mut busy: HashSet<PathBuf> = HashSet::new();
    let mut quiet_since = Instant::now();
    let mut tick = tokio::time::interval(LOOK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    look(folder, &mut known).map_err(|e| e.into_failed(folder))?;
    make_folder(&args.out)?;
    ui.note(format!("watching {}; Ctrl-C ends", folder.display()));
    while !how.interrupt.is_asked() {
        tokio::select! {
            Some((out, row, ended)) = running.next(), if !running.is_empty() => {
                busy.remove::<PathBuf>(&out);
                rows.push(row);
                tell(&ended, &mut counts, &bar, ui);
            }
            _ = tick.tick() => {}
            () = how.interrupt.asked() => break,
        }
        match look(folder, &mut known) {
            Ok(true) => quiet_since = Instant::now(),
            Ok(false) => {}
            Err(Trouble::TooMany) => return Err(Trouble::TooMany.into_failed(folder)),
            // A network's file system may come back.
            Err(e @ Trouble::Io(_)) => {
                ui.error(&e.into_failed(folder));
                continue;
            }
        }
        let settled = |file: &Known| !file.done && file.since.elapsed() >= settle;
        let mut ready: Vec<OsString> =
            known.iter().filter(|(_, file)| settled(file)).map(|(name, _)| name.clone()).collect();
        ready.sort();
        for name in ready {
            let Some(row) = rows.pop() else { break };
            let input = folder.join(&name);
            let planned = match plan::one(&input, &args.out, args.force, &how) {
                // Whoever makes the same folder now is waited for, and then in the way.
                Ok(planned) if busy.contains(&planned.out) => {
                    rows.push(row);
                    continue;
                }
                planned => planned,
            };
            if let Some(file) = known.get_mut(&name) {
                file.done = true;
            }
            quiet_since = Instant::now();
            match planned {
                Ok(planned @ Planned { standing: Standing::Wanted(_), .. }) => {
                    busy.insert(planned.out.clone());
                    let how = &how;
                    running
                        .push(async move { (planned.out.clone(), row, file(planned, how, ui, row).await) });
                    continue;
                }
                Ok(Planned { source, out, .. }) => {
                    tell(&Ended { input: source.path, out, how: Outcome::MadeBefore }, &mut counts, &bar, ui);
                }
                Err(failed) => {
                    let ended = Ended { input, out: args.out.clone(), how: Outcome::failed(failed) };
                    tell(&ended, &mut counts, &bar, ui);
                }
            }
            rows.push(row);
        }
        let waits = known.values().any(|file| !file.done);
        if !running.is_empty() || waits {
            quiet_since = Instant::now();
        }
        if idle.is_some_and(|idle| quiet_since.elapsed() >= idle) {
            break;
        }
    }
    while let Some((_, _, ended)) = running.next().await {
        tell(&ended, &mut counts, &bar, ui);
    }
    bar.finish_and_clear();
    if ui.json {
        ui.json(&counts.json(), false);
    } else {
        ui.line(counts.words());
    }
    // Ctrl-C is how a watch ends; only what it broke off is an interruption.
    Ok(counts.exit(false))
}

fn tell(ended: &Ended, counts: &mut Counts, bar: &ProgressBar, ui: Ui) {
    counts.add(&ended.how);
    bar.inc(1);
    bar.suspend(|| {
        if ui.json {
            ui.json(&ended.json(), false);
        } else {
            ui.line(ended.row(24, ui));
        }
    });
}

enum Trouble {
    Io(std::io::Error),
    TooMany,
}

impl Trouble {
    fn into_failed(self, folder: &Path) -> Failed {
        match self {
            Self::Io(e) => unreadable(folder, &e),
            Self::TooMany => Failed::new(
                Exit::Failed,
                "too_many_files",
                format!("{} holds more than {MOST} files", folder.display()),
            )
            .help("Move those that are done elsewhere."),
        }
    }
}

/// Looks through the folder; whether anything changed.
fn look(folder: &Path, known: &mut HashMap<OsString, Known>) -> Result<bool, Trouble> {
    let mut seen = HashSet::new();
    let mut changed = false;
    for entry in std::fs::read_dir(folder).map_err(Trouble::Io)? {
        let entry = entry.map_err(Trouble::Io)?;
        let name = entry.file_name();
        // Not what a link leads to: who fills the folder would choose which of this machine's files are read.
        let Ok(metadata) = entry.metadata() else { continue };
        if !metadata.is_file() || !is_wanted(Path::new(&name)) {
            continue;
        }
        if seen.len() >= MOST {
            return Err(Trouble::TooMany);
        }
        let mark = mark(&metadata);
        if known.get(&name).is_none_or(|file| file.mark != mark) {
            changed = true;
            known.insert(name.clone(), Known { mark, since: Instant::now(), done: false });
        }
        seen.insert(name);
    }
    known.retain(|name, _| seen.contains(name));
    Ok(changed)
}

/// Whether a file of this name is one: nothing hidden, and nothing that its writer calls unfinished.
fn is_wanted(name: &Path) -> bool {
    let text = name.to_string_lossy();
    let extension = name.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
    !text.starts_with('.')
        && !text.ends_with('~')
        && extension.is_none_or(|e| !UNFINISHED.contains(&e.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_is_hidden_unfinished_linked_or_a_folder_is_no_file() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.mov", ".hidden.mov", "b.mov.part", "c.MOV.crdownload", "d.mov~"] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        fs::create_dir(dir.path().join("folder.mov")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link.mov")).unwrap();
        let mut known = HashMap::new();
        assert!(look(dir.path(), &mut known).is_ok_and(|changed| changed));
        assert_eq!(known.keys().collect::<Vec<_>>(), ["a.mov"]);
    }

    #[test]
    fn a_file_that_grows_is_new_again_and_one_that_is_gone_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.mov");
        fs::write(&path, "x").unwrap();
        let mut known = HashMap::new();
        assert!(look(dir.path(), &mut known).is_ok_and(|changed| changed));
        assert!(look(dir.path(), &mut known).is_ok_and(|changed| !changed));
        known.values_mut().for_each(|file| file.done = true);
        fs::write(&path, "xy").unwrap();
        assert!(look(dir.path(), &mut known).is_ok_and(|changed| changed));
        assert!(known.values().all(|file| !file.done));
        fs::remove_file(&path).unwrap();
        assert!(look(dir.path(), &mut known).is_ok() && known.is_empty());
    }
}
