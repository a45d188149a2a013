//! `mpegflow download`.

use super::ended;
use crate::args::Download;
use crate::client::Client;
use crate::exit::{Exit, Failed};
use crate::fetch;
use crate::output::{self, Scratch, Target};
use crate::summary;
use crate::ui::Ui;
use std::path::PathBuf;

/// Runs the command.
pub(crate) async fn run(args: Download, ui: Ui) -> Result<(), Failed> {
    let out = args.out.unwrap_or_else(|| PathBuf::from(args.job.to_string()));
    let target = Target::new(&out, args.force, None)?;
    let client = Client::from_connection(&args.connection)?;
    let job = client.job(args.job).await?;
    if !job.state.is_final() {
        let what = format!("{} is {} and has no output yet", job.id, job.state.as_str());
        return Err(Failed::new(Exit::Failed, "not_finished", what)
            .help(format!("Wait for it: mpegflow jobs watch {}", job.id)));
    }
    ended(&job)?;
    let interrupt = super::transcode::listen()?;
    let scratch = Scratch::beside(&target)?;
    let root = scratch.root().to_owned();
    let _hook = interrupt.on_abort(move || output::remove(&root));
    tokio::select! {
        fetched = fetch::fetch(&client, &job, None, &scratch, ui) => fetched?,
        () = interrupt.asked() => return Err(Failed::interrupted()),
    }
    fetch::commit(scratch, &target)?;
    if ui.json {
        ui.json(&serde_json::json!({ "out": target.path(), "job": job }), true);
    } else {
        ui.line(format!("    made {}", summary::made(&job, None)));
        ui.line(format!("      in {}", target.path().display()));
        ui.line(format!("    play mpegflow play {}", super::transcode::quoted(target.path())));
    }
    Ok(())
}
