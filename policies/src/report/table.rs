//! For people at a terminal.

use super::{deciding, looked_at, packet};
use crate::audit::{Finding, Outcome, Severity, word};
use crate::truth::Truth;
use std::fmt::Write as _;

/// The outcome as text. With `color`, severities and verdicts are coloured by ANSI sequences. Whatever came from the input is
/// stripped of control characters: a manifest must not write to the terminal.
pub fn table(outcome: &Outcome, color: bool) -> String {
    let paint = Paint(color);
    let mut out = String::new();
    let _ = writeln!(out, "{}", paint.verdict(outcome.proved, &clean(&outcome.sentence)));
    if !outcome.intents.is_empty() {
        out.push('\n');
    }
    for intent in &outcome.intents {
        let pods = if intent.pods == 1 { "1 pod".to_owned() } else { format!("{} pods", intent.pods) };
        let verdict = paint.verdict(intent.proved, &format!("{:<8}", word(intent.proved)));
        let _ = writeln!(out, "  {verdict}  {} ({}, {pods})", clean(&intent.name), clean(&intent.from));
        for doubt in intent.doubts.iter().take(5) {
            let _ = writeln!(out, "            because {}", clean(&doubt.to_string()));
        }
        if let Some(more @ 1..) = intent.doubts.len().checked_sub(5) {
            let _ = writeln!(out, "            and {more} more reasons");
        }
    }
    for finding in &outcome.findings {
        write_finding(&mut out, finding, &paint);
    }
    if !outcome.accepted.is_empty() {
        let _ = writeln!(out, "\nAccepted by the baseline:");
        for accepted in &outcome.accepted {
            let _ = writeln!(
                out,
                "  {}  {}  until {}  by {}: {}",
                accepted.finding.id,
                clean(&accepted.finding.object.to_string()),
                clean(&accepted.expires),
                clean(&accepted.owner),
                clean(&accepted.reason)
            );
        }
    }
    let _ = writeln!(out, "\nLooked at {} under {}.", looked_at(&outcome.input), outcome.profile);
    if !outcome.assumptions.is_empty() {
        let _ = writeln!(out, "This holds if:");
        for assumption in &outcome.assumptions {
            let _ = writeln!(out, "  - {}", clean(assumption));
        }
    }
    out
}

fn write_finding(out: &mut String, finding: &Finding, paint: &Paint) {
    let unsure = if finding.certain == Truth::Yes { "" } else { " (possible)" };
    let at = finding.at.as_ref().map(|at| format!("  {at}")).unwrap_or_default();
    let _ = writeln!(
        out,
        "\n{} {}{unsure}  {}{}",
        finding.id,
        paint.severity(finding.severity),
        clean(&finding.object.to_string()),
        clean(&at)
    );
    let _ = writeln!(out, "  {}", clean(&finding.reason));
    if let Some(witness) = &finding.witness {
        let _ = writeln!(out, "  packet  {}", clean(&packet(witness)));
        for rule in &witness.rules {
            let _ = writeln!(out, "          {}", clean(&deciding(rule)));
        }
    }
    for doubt in finding.doubts.iter().take(3) {
        let _ = writeln!(out, "  unknown {}", clean(&doubt.to_string()));
    }
    let _ = writeln!(out, "  fix     {}", clean(&finding.fix));
}

struct Paint(bool);

impl Paint {
    fn paint(&self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn verdict(&self, proved: Truth, text: &str) -> String {
        self.paint(
            match proved {
                Truth::Yes => "1;32",
                Truth::No => "1;31",
                Truth::Unknown => "1;33",
            },
            text,
        )
    }

    fn severity(&self, severity: Severity) -> String {
        let code = match severity {
            Severity::Error => "31",
            Severity::Warning => "33",
            Severity::Note => "36",
        };
        self.paint(code, severity.name())
    }
}

/// Text of an input for a terminal or a page: control characters, those that turn the direction of text (Unicode's
/// Bidi_Control), that break lines, or that nobody can see are shown as `?`.
pub fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || is_format(c) { '?' } else { c }).collect()
}

/// The joiners U+200C and U+200D are not among these: some scripts are written with them.
fn is_format(c: char) -> bool {
    matches!(
        c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            | '\u{2028}' | '\u{2029}'
            | '\u{ad}' | '\u{200b}' | '\u{2060}'..='\u{2064}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}'
    )
}
