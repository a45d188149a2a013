//! `mpegflow presets`.

use crate::args::Presets;
use crate::client::Client;
use crate::exit::Failed;
use crate::ui::{Tone, Ui};
use mpegflow_broker::plan::presets::PresetName;
use mpegflow_protocol::text::clean;

/// Runs the command.
pub(crate) async fn run(args: Presets, ui: Ui) -> Result<(), Failed> {
    let presets = if args.local {
        PresetName::ALL.iter().map(|preset| preset.describe()).collect()
    } else {
        Client::from_connection(&args.connection)?.presets().await?
    };
    if ui.json {
        ui.json(&presets, true);
        return Ok(());
    }
    let width = presets.iter().map(|preset| preset.name.chars().count()).max().unwrap_or(0).min(40);
    for preset in &presets {
        let name = format!("{:<width$}", clean(&preset.name, 64));
        ui.line(format!("{}  {}", ui.tone(Tone::Strong, &name), clean(&preset.description, 400)));
    }
    Ok(())
}
