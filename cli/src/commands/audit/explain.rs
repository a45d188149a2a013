//! `mpegflow audit explain`: why a packet passes or does not, rule by rule.

use super::{Read, pod_cidrs};
use crate::args::AuditWorld;
use crate::exit::{Exit, Failed};
use crate::ui::Ui;
use mpegflow_policies::audit::explain;
use mpegflow_policies::report::headed;
use mpegflow_policies::truth::Truth;

/// Runs the command on `[source, destination, port]`; the number is the exit code.
pub(super) fn run(
    read: &Read,
    world: &AuditWorld,
    question: [&str; 3],
    json: bool,
    ui: Ui,
) -> Result<u8, Failed> {
    let [source, destination, port] = question;
    let answer = explain::run(&explain::Question {
        cluster: &read.cluster,
        profile: read.profile,
        complete: read.complete,
        pod_cidrs: pod_cidrs(world),
        source,
        destination,
        port,
    })
    .map_err(|e| Failed::new(Exit::BadInput, "bad_question", e.to_string()))?;
    if json {
        ui.line(headed(&answer.json(), "sentence"));
    } else {
        ui.line(answer.table(ui.color_out).trim_end());
    }
    Ok(match answer.passes {
        Truth::Yes => 0,
        Truth::No => 1,
        Truth::Unknown => 2,
    })
}
