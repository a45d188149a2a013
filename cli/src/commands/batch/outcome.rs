//! How the files of a batch ended: a table for people, a document for programs, and the exit code.

use crate::exit::{Exit, Failed};
use crate::ui::{Tone, Ui, bytes, duration};
use mpegflow_protocol::api::Job;
use mpegflow_protocol::text::clean;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

/// The longest name that is shown whole.
const NAME: usize = 40;

/// One file, and how it ended.
pub(super) struct Ended {
    /// The file.
    pub(super) input: PathBuf,
    /// The folder of its result.
    pub(super) out: PathBuf,
    /// How.
    pub(super) how: Outcome,
}

/// How a file ended.
pub(super) enum Outcome {
    /// It was transcoded.
    Made {
        /// Bytes of the result.
        bytes: u64,
        /// How long it lasts.
        length: Option<Duration>,
        /// How long it took.
        took: Duration,
    },
    /// Its result was there.
    MadeBefore,
    /// It failed.
    Failed(Failed),
    /// It was under way when the run was interrupted.
    Interrupted,
    /// It was not begun.
    NotBegun,
}

impl Outcome {
    /// Of a job that succeeded.
    pub(super) fn made(job: &Job, took: Duration) -> Self {
        Self::Made {
            bytes: job.outputs.iter().fold(0_u64, |sum, output| sum.saturating_add(output.size)),
            length: job.media.as_ref().and_then(|media| media.duration_ms).map(Duration::from_millis),
            took,
        }
    }

    /// Of a job that did not.
    pub(super) fn failed(failed: Failed) -> Self {
        if failed.exit == Exit::Interrupted { Self::Interrupted } else { Self::Failed(failed) }
    }

    const fn word(&self) -> &'static str {
        match self {
            Self::Made { .. } => "made",
            Self::MadeBefore => "made before",
            Self::Failed(_) => "failed",
            Self::Interrupted => "interrupted",
            Self::NotBegun => "not begun",
        }
    }

    const fn tone(&self) -> Tone {
        match self {
            Self::Made { .. } => Tone::Good,
            Self::MadeBefore | Self::NotBegun => Tone::Dim,
            Self::Failed(_) => Tone::Bad,
            Self::Interrupted => Tone::Warn,
        }
    }
}

/// How many ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    made: u64,
    before: u64,
    bad: u64,
    failed: u64,
    interrupted: u64,
    not_begun: u64,
}

impl Counts {
    /// Counts one more.
    pub(super) const fn add(&mut self, outcome: &Outcome) {
        let count = match outcome {
            Outcome::Made { .. } => &mut self.made,
            Outcome::MadeBefore => &mut self.before,
            Outcome::Failed(failed) if matches!(failed.exit, Exit::BadInput) => &mut self.bad,
            Outcome::Failed(_) => &mut self.failed,
            Outcome::Interrupted => &mut self.interrupted,
            Outcome::NotBegun => &mut self.not_begun,
        };
        *count = count.saturating_add(1);
    }

    /// What the run ends with.
    pub(super) const fn exit(&self, interrupted: bool) -> u8 {
        if interrupted || self.interrupted > 0 {
            Exit::Interrupted as u8
        } else if self.failed > 0 || self.not_begun > 0 {
            Exit::Failed as u8
        } else if self.bad > 0 {
            Exit::BadInput as u8
        } else {
            0
        }
    }

    /// In words: `3 files: 2 made, 1 failed`.
    pub(super) fn words(&self) -> String {
        let failed = self.bad.saturating_add(self.failed);
        let parts = [
            (self.made, "made"),
            (self.before, "made before"),
            (failed, "failed"),
            (self.interrupted, "interrupted"),
            (self.not_begun, "not begun"),
        ];
        let all = parts.iter().fold(0_u64, |sum, (n, _)| sum.saturating_add(*n));
        let said: Vec<String> =
            parts.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect();
        let files = if all == 1 { "file" } else { "files" };
        if said.is_empty() { "no files".into() } else { format!("{all} {files}: {}", said.join(", ")) }
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        json!({
            "made": self.made, "made_before": self.before, "failed": self.bad.saturating_add(self.failed),
            "interrupted": self.interrupted, "not_begun": self.not_begun,
        })
    }
}

impl Ended {
    /// For programs.
    pub(super) fn json(&self) -> Value {
        let mut value = json!({
            "input": self.input, "out": self.out, "state": self.how.word().replace(' ', "_"),
        });
        let more = match &self.how {
            Outcome::Made { bytes, length, took } => json!({
                "bytes": bytes,
                "duration_ms": length.map(crate::commands::transcode::millis),
                "wall_ms": crate::commands::transcode::millis(*took),
            }),
            Outcome::Failed(failed) => failed.to_json(),
            _ => json!({}),
        };
        if let (Some(value), Value::Object(more)) = (value.as_object_mut(), more) {
            value.extend(more);
        }
        value
    }

    fn name(&self) -> String {
        let name = self.input.file_name().unwrap_or(self.input.as_os_str());
        clean(&name.to_string_lossy(), NAME)
    }

    /// One row of the table, whose first column is `width` characters wide.
    pub(super) fn row(&self, width: usize, ui: Ui) -> String {
        let name = self.name();
        let pad = " ".repeat(width.saturating_sub(name.chars().count()));
        let word = ui.tone(self.how.tone(), &format!("{:<11}", self.how.word()));
        let (took, size, rest) = match &self.how {
            Outcome::Made { bytes: size, took, .. } => {
                (duration(*took), bytes(*size), clean(&self.out.display().to_string(), 200))
            }
            Outcome::MadeBefore => {
                (String::new(), String::new(), clean(&self.out.display().to_string(), 200))
            }
            Outcome::Failed(failed) => (String::new(), String::new(), clean(&failed.what, 200)),
            Outcome::Interrupted | Outcome::NotBegun => Default::default(),
        };
        format!("{name}{pad}  {word}  {took:>11}  {size:>10}  {rest}").trim_end().to_owned()
    }
}

/// Prints the table, and what to do about what failed.
pub(super) fn table(files: &[Ended], ui: Ui) {
    let width = files.iter().map(|file| file.name().chars().count()).max().unwrap_or(0).max(4);
    let head = format!("{:<width$}  {:<11}  {:>11}  {:>10}  folder", "file", "result", "took", "size");
    ui.line(ui.tone(Tone::Dim, &head));
    for file in files {
        ui.line(file.row(width, ui));
    }
    let mut said = std::collections::BTreeSet::new();
    for file in files {
        // Many files often have one fault, whose remedy is said once.
        if let Outcome::Failed(Failed { code, help: Some(help), .. }) = &file.how
            && said.insert(code.clone())
        {
            ui.note(format!("{code}: {help}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(outcomes: &[Outcome]) -> Counts {
        let mut counts = Counts::default();
        outcomes.iter().for_each(|outcome| counts.add(outcome));
        counts
    }

    fn made() -> Outcome {
        Outcome::Made { bytes: 1, length: None, took: Duration::ZERO }
    }

    #[test]
    fn the_exit_code_tells_bad_files_from_a_bad_run() {
        let bad = || Outcome::Failed(Failed::new(Exit::BadInput, "input_empty", "empty"));
        let broken = || Outcome::Failed(Failed::new(Exit::Failed, "file_error", "disk"));
        for (outcomes, exit) in [
            (vec![], 0),
            (vec![made(), Outcome::MadeBefore], 0),
            (vec![made(), bad()], 3),
            (vec![bad(), broken()], 1),
            (vec![made(), Outcome::NotBegun], 1),
            (vec![bad(), Outcome::Interrupted, Outcome::NotBegun], 130),
        ] {
            assert_eq!(counts(&outcomes).exit(false), exit);
        }
        assert_eq!(counts(&[made()]).exit(true), 130);
        assert_eq!(counts(&[made(), bad(), made()]).words(), "3 files: 2 made, 1 failed");
    }

    #[test]
    fn a_hostile_name_is_one_line_of_the_table() {
        let ui = Ui::plain();
        let ended =
            Ended { input: "/in/a\u{1b}[2J\nb.mov".into(), out: "/out/x\n".into(), how: Outcome::MadeBefore };
        let row = ended.row(10, ui);
        assert!(!row.contains('\n') && !row.contains('\u{1b}'), "{row:?}");
    }
}
