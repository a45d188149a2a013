//! `mpegflow preflight`: can this cluster run mpegflow, and does it enforce what isolation rests on? Reads, and changes nothing.

mod checks;
mod facts;

use crate::api_server;
use crate::args::Preflight;
use crate::exit::{Exit, Failed};
use crate::ui::{Tone, Ui};
use serde::Serialize;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    /// It holds.
    Ok,
    /// mpegflow runs, but something is weaker or missing.
    Warning,
    /// mpegflow does not run, or its isolation does not hold.
    Failed,
    /// It could not be looked at.
    Unknown,
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Check {
    /// What it belongs to, such as `network policies`.
    group: &'static str,
    /// What should hold.
    name: &'static str,
    outcome: Outcome,
    /// What was found.
    detail: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

/// Runs the command.
pub(crate) async fn run(args: &Preflight, ui: Ui) -> Result<(), Failed> {
    let client = api_server::client(args.context.as_deref(), args.kubeconfig.as_deref()).await?;
    let facts = facts::gather(&client, &args.namespace).await?;
    let checks = checks::judge(&facts, args.operator);
    let count = |outcome| checks.iter().filter(|check| check.outcome == outcome).count();
    let (failed, unknown) = (count(Outcome::Failed), count(Outcome::Unknown));
    if ui.json {
        ui.json(&checks, true);
    } else {
        print(&checks, ui);
        let warnings = count(Outcome::Warning);
        ui.line(format!(
            "\n{} checks: {} ok, {warnings} warnings, {failed} failed, {unknown} unknown",
            checks.len(),
            count(Outcome::Ok)
        ));
    }
    match (failed, unknown) {
        (0, 0) => Ok(()),
        (0, _) => Err(Failed::new(Exit::Failed, "not_ready", format!("{unknown} checks could not be made"))
            .help("each says which right is missing; ask for it, or have somebody run this who has it")),
        _ => Err(Failed::new(Exit::Failed, "not_ready", format!("{failed} checks failed"))),
    }
}

fn print(checks: &[Check], ui: Ui) {
    let mut group = "";
    for check in checks {
        if check.group != group {
            let gap = if group.is_empty() { "" } else { "\n" };
            group = check.group;
            ui.line(format!("{gap}{group}\n{}", "-".repeat(group.len())));
        }
        let mark = match check.outcome {
            Outcome::Ok => ui.tone(Tone::Good, "√"),
            Outcome::Warning => ui.tone(Tone::Warn, "‼"),
            Outcome::Failed => ui.tone(Tone::Bad, "×"),
            Outcome::Unknown => ui.tone(Tone::Warn, "?"),
        };
        ui.line(format!("{mark} {}: {}", check.name, check.detail));
        if let Some(hint) = &check.hint {
            ui.line(format!("    → {hint}"));
        }
    }
}
