//! What people see: progress on standard error, results on standard output, colour only on a terminal.

use crate::args::{Global, OutputFormat};
use crate::exit::Failed;
use indicatif::{HumanBytes, HumanDuration, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use mpegflow_protocol::api::{Job, JobState, TaskState};
use serde::Serialize;
use std::io::{IsTerminal as _, Write as _};
use std::sync::Mutex;
use std::time::Duration;

/// How this run talks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ui {
    /// Standard output is for programs.
    pub(crate) json: bool,
    quiet: bool,
    bars: bool,
    /// Standard output is a terminal that wants colour.
    pub(crate) color_out: bool,
    /// Standard error is a terminal that wants colour.
    pub(crate) color_err: bool,
    /// Where this work is one of several.
    row: Option<&'static Row>,
}

/// A place among several bars: one for each file that is worked on at once, for as long as the process lives.
#[derive(Debug)]
pub(crate) struct Row {
    bars: MultiProgress,
    name: Mutex<String>,
}

impl Row {
    fn name(&self) -> String {
        crate::lock(&self.name).clone()
    }
}

/// Colours that are used, by meaning.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Tone {
    Good,
    Bad,
    Warn,
    Dim,
    Strong,
}

impl Ui {
    /// From the options, the terminal and NO_COLOR.
    pub(crate) fn new(global: &Global) -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let (out, err) = (std::io::stdout().is_terminal(), std::io::stderr().is_terminal());
        Self {
            json: global.output == OutputFormat::Json,
            quiet: global.quiet,
            bars: err && !global.quiet,
            color_out: out && !no_color,
            color_err: err && !no_color,
            row: None,
        }
    }

    /// Without colour, bars and remarks.
    #[cfg(test)]
    pub(crate) const fn plain() -> Self {
        Self { json: false, quiet: true, bars: false, color_out: false, color_err: false, row: None }
    }

    /// As many places as files are worked on at once, and the bar that counts them all.
    pub(crate) fn rows(&self, count: u16, total: u64) -> (Vec<&'static Row>, ProgressBar) {
        let bars = MultiProgress::with_draw_target(self.target());
        let overall = self.styled(total, "{prefix:>10} {bar:32} {pos} of {len}  {msg}");
        let overall = bars.add(overall.with_prefix("files"));
        // Leaked on purpose: as many as there are places, once in the life of the process.
        let row =
            || -> &'static Row { Box::leak(Box::new(Row { bars: bars.clone(), name: Mutex::default() })) };
        ((0..count).map(|_| row()).collect(), overall)
    }

    /// The same, of one file among several.
    pub(crate) fn in_row(mut self, row: &'static Row, name: &str) -> Self {
        *crate::lock(&row.name) = mpegflow_protocol::text::clean(name, 40);
        self.row = Some(row);
        self
    }

    /// Writes a line of the result. A reader that went away (`| head`) is no error.
    pub(crate) fn line(&self, text: impl AsRef<str>) {
        let _ = writeln!(std::io::stdout().lock(), "{}", text.as_ref());
    }

    /// Writes a result for programs.
    pub(crate) fn json(&self, value: &impl Serialize, pretty: bool) {
        let text = if pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
        self.line(text.unwrap_or_else(|_| "null".into()));
    }

    /// Writes a remark to standard error, unless quiet.
    pub(crate) fn note(&self, text: impl AsRef<str>) {
        if self.quiet {
            return;
        }
        if let Some(row) = self.row.filter(|_| !self.bars) {
            let _ = writeln!(std::io::stderr().lock(), "{}: {}", row.name(), text.as_ref());
        } else {
            let _ = writeln!(std::io::stderr().lock(), "{}", text.as_ref());
        }
    }

    /// Writes an error.
    pub(crate) fn error(&self, failed: &Failed) {
        let mut err = std::io::stderr().lock();
        let _ = if self.json {
            writeln!(err, "{}", failed.to_json())
        } else {
            let _ = writeln!(err, "{}: {}", paint(self.color_err, Tone::Bad, "error"), failed.what);
            failed.help.as_ref().map_or(Ok(()), |help| {
                writeln!(err, "{}: {help}", paint(self.color_err, Tone::Strong, " help"))
            })
        };
    }

    /// Text for standard output in a tone.
    pub(crate) fn tone(&self, tone: Tone, text: &str) -> String {
        paint(self.color_out, tone, text)
    }

    /// A bar that counts bytes.
    pub(crate) fn bytes_bar(&self, what: &str, total: u64) -> ProgressBar {
        let template =
            "{prefix:>10} {bar:32} {percent:>3}%  {bytes} of {total_bytes}  {bytes_per_sec}  {eta}";
        self.bar(what, total, template)
    }

    /// A bar that counts thousandths of a job.
    pub(crate) fn job_bar(&self) -> JobBar {
        let bar = self.bar("queued", 1_000, "{prefix:>10} {bar:32} {percent:>3}%  {msg}");
        bar.enable_steady_tick(Duration::from_millis(250));
        JobBar { bar, ui: *self, stage: String::new() }
    }

    fn bar(&self, what: &str, total: u64, template: &str) -> ProgressBar {
        let bar = match self.row {
            None => self.styled(total, template),
            // The template takes braces for its own.
            Some(row) => {
                let name = row.name().replace('{', "{{").replace('}', "}}");
                row.bars.add(self.styled(total, &format!("{template}  {name}")))
            }
        };
        bar.with_prefix(what.to_owned())
    }

    fn styled(&self, total: u64, template: &str) -> ProgressBar {
        let bar = ProgressBar::with_draw_target(Some(total), self.target());
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("━╸─"));
        }
        bar
    }

    fn target(&self) -> ProgressDrawTarget {
        if self.bars { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() }
    }
}

fn paint(on: bool, tone: Tone, text: &str) -> String {
    if !on {
        return text.to_owned();
    }
    let code = match tone {
        Tone::Good => "32",
        Tone::Bad => "1;31",
        Tone::Warn => "33",
        Tone::Dim => "2",
        Tone::Strong => "1",
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}

/// A job's progress: a bar on a terminal, a line for each stage elsewhere.
pub(crate) struct JobBar {
    bar: ProgressBar,
    ui: Ui,
    stage: String,
}

impl JobBar {
    /// Shows the job as it is now.
    pub(crate) fn show(&mut self, job: &Job) {
        let stage = stage(job);
        // Between two tasks a job has none; the one before stays until the next has begun.
        let between = stage == JobState::Running.as_str() && !self.stage.is_empty();
        if stage != self.stage && !between && !job.state.is_final() {
            self.bar.set_prefix(stage.clone());
            if !self.ui.bars && !self.ui.json {
                self.ui.note(format!("{stage}…"));
            }
            self.stage = stage;
        }
        self.bar.set_position(thousandths(job.progress.percent));
        self.bar.set_message(progress_text(job));
    }

    /// Says something beside the bar.
    pub(crate) fn note(&self, text: &str) {
        self.bar.suspend(|| self.ui.note(text));
    }

    /// Takes the bar away.
    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for JobBar {
    fn drop(&mut self) {
        self.clear();
    }
}

/// The stage a job is in, in a word.
pub(crate) fn stage(job: &Job) -> String {
    let running = job.tasks.iter().find(|task| task.state == TaskState::Running);
    match (job.state, running) {
        (JobState::Running, Some(task)) => mpegflow_protocol::text::clean(&task.kind, 16),
        (state, _) => state.as_str().to_owned(),
    }
}

/// Frames, speed and time left, as far as they are known.
pub(crate) fn progress_text(job: &Job) -> String {
    let mut parts = Vec::new();
    if job.progress.frames > 0 {
        parts.push(format!("{} frames", job.progress.frames));
    }
    if let Some(speed) = job.progress.speed.filter(|s| s.is_finite() && *s > 0.0) {
        parts.push(format!("{speed:.1}× real time"));
    }
    if let Some(eta) = job.progress.eta_s {
        parts.push(format!("{} left", duration(Duration::from_secs(eta))));
    }
    parts.join("  ")
}

fn thousandths(percent: f64) -> u64 {
    // In range by the clamp, so the cast neither truncates nor wraps; NaN becomes 0.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=1000")]
    let value = (percent * 10.0).clamp(0.0, 1_000.0) as u64;
    value
}

/// A size for people.
pub(crate) fn bytes(n: u64) -> String {
    HumanBytes(n).to_string()
}

/// A duration for people: `4.2 s`, `3:07 min`, `1:02:03 h`.
pub(crate) fn duration(time: Duration) -> String {
    let s = time.as_secs();
    match s {
        0..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3_600 => format!("{}:{:02} min", s / 60, s % 60),
        3_600..86_400 => format!("{}:{:02}:{:02} h", s / 3_600, s / 60 % 60, s % 60),
        _ => HumanDuration(time).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_write_them() {
        for (seconds, text) in [(4.25, "4.2 s"), (187.0, "3:07 min"), (3_723.9, "1:02:03 h")] {
            assert_eq!(duration(Duration::from_secs_f64(seconds)), text);
        }
    }

    #[test]
    fn a_percentage_from_anywhere_stays_within_the_bar() {
        for (percent, position) in
            [(50.0, 500), (-1.0, 0), (1e300, 1_000), (f64::NAN, 0), (f64::INFINITY, 1_000)]
        {
            assert_eq!(thousandths(percent), position);
        }
    }
}
