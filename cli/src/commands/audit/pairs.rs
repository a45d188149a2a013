//! `mpegflow audit pairs`: what passes between all pairs of pods, counted.

use super::{Read, pod_cidrs};
use crate::args::AuditWorld;
use crate::exit::{Exit, Failed};
use crate::ui::Ui;
use mpegflow_policies::evaluate::{Evaluation, Options, Tally};
use serde_json::json;

/// Runs the command; there is no verdict, so that the exit code is 0.
pub(super) fn run(read: &Read, world: &AuditWorld, is_json: bool, ui: Ui) -> Result<u8, Failed> {
    let options = Options { pod_cidrs: pod_cidrs(world), ..Options::default() };
    let evaluation = Evaluation::new(&read.cluster, read.profile, options)
        .map_err(|e| Failed::new(Exit::BadInput, "cannot_evaluate", e.to_string()))?;
    let tally = evaluation.matrix().tally();
    let Tally { pairs, connected, separated, unknown, classes } = tally;
    let (pods, policies) = (read.cluster.pods.len(), read.cluster.policies.len());
    if is_json {
        let value = json!({
            "profile": read.profile.to_string(), "pods": pods, "policies": policies, "kinds_of_pods": classes,
            "pairs": pairs, "connected": connected, "separated": separated, "unknown": unknown,
        });
        ui.json(&value, true);
        return Ok(0);
    }
    ui.line(format!("{pods} pods of {classes} kinds, {policies} policies, {}", read.profile));
    let share = |part: u64| {
        let percent = part.saturating_mul(1_000).checked_div(pairs).unwrap_or_default();
        format!("{part:>14}  {:>3}.{} %", percent / 10, percent % 10)
    };
    ui.line(format!("pairs      {pairs:>14}"));
    ui.line(format!("connected  {}   some packet passes", share(connected)));
    ui.line(format!("unknown    {}   some packet may pass", share(unknown)));
    ui.line(format!("separated  {}   no packet passes", share(separated)));
    Ok(0)
}
