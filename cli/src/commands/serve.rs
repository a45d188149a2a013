//! `mpegflow serve`: a broker with its workers on this machine, a page and an API.

use crate::args::Serve;
use crate::exit::{Exit, Failed};
use crate::local::{Local, Setup};
use crate::ui::{Tone, Ui};
use crate::web;
use crate::workers::{Programs, WorkerLog};
use std::path::PathBuf;

/// Runs the command.
pub(crate) async fn run(args: Serve, ui: Ui) -> Result<(), Failed> {
    let data = match args.data {
        Some(data) => std::path::absolute(&data).map_err(|e| Failed::file("use", &data, &e))?,
        None => default_data()?,
    };
    let programs = Programs::find(args.local.libexec.libexec.as_deref())?;
    let interrupt = super::transcode::listen()?;
    let setup = Setup {
        data: data.clone(),
        public: args.listen,
        metrics: args.metrics,
        workers: args.local.workers,
        beside: 1,
        programs,
        log: WorkerLog::Inherit,
        origins: args.origins,
        routes: Some(web::routes()),
    };
    let local = tokio::select! {
        local = Local::start(setup) => local?,
        () = interrupt.asked() => return Ok(()),
    };
    let _hook = interrupt.on_abort(local.workers.killer());
    announce(&local, &data, ui);
    tokio::select! {
        () = interrupt.asked() => {}
        // Workers go on being started: a library may be installed meanwhile, and the API still answers.
        () = warn(&local, ui) => {}
    }
    ui.note("stopping; Ctrl-C again stops at once");
    local.stop().await;
    Ok(())
}

async fn warn(local: &Local, ui: Ui) {
    ui.error(&local.workers.trouble().await);
    std::future::pending::<()>().await;
}

fn announce(local: &Local, data: &std::path::Path, ui: Ui) {
    let url = local.client.base();
    let page = format!("{url}/#key={}", local.key);
    if ui.json {
        ui.json(&serde_json::json!({ "url": url, "page": page, "api_key": local.key, "data": data }), false);
        return;
    }
    let key_file = super::transcode::quoted(&data.join("api-key"));
    ui.line(format!("    page  {}", ui.tone(Tone::Strong, &page)));
    ui.line(format!("     api  {url}"));
    ui.line(format!("     key  {} (also in {key_file})", local.key));
    ui.line(format!("    data  {}", data.display()));
    if !local.address.ip().is_loopback() {
        ui.line(
            ui.tone(Tone::Warn, "    note  other machines reach this without TLS; put a TLS proxy in front"),
        );
    }
    ui.line("");
    ui.line(
        ui.tone(Tone::Dim, "with curl, after: AUTH=\"Authorization: Bearer $(cat KEYFILE)\"")
            .replace("KEYFILE", &key_file),
    );
    ui.line(format!("  UP=$(curl -s -H \"$AUTH\" {url}/v1/uploads -d \"{{\\\"size\\\":$(stat -c %s in.mp4)}}\" -H content-type:application/json | jq -r .id)"));
    ui.line(format!("  curl -H \"$AUTH\" -X PATCH {url}/v1/uploads/$UP -H upload-offset:0 -H content-type:application/offset+octet-stream -T in.mp4"));
    ui.line(format!("  curl -H \"$AUTH\" {url}/v1/jobs -H content-type:application/json -d \"{{\\\"version\\\":1,\\\"preset\\\":\\\"web\\\",\\\"input\\\":{{\\\"upload\\\":\\\"$UP\\\"}}}}\""));
    ui.line(ui.tone(Tone::Dim, "with this program, in another terminal"));
    ui.line(format!("  mpegflow jobs submit in.mp4 --watch --url {url} --api-key-file {key_file}"));
    ui.line("");
    ui.note("Ctrl-C stops; jobs under way go on at the next start");
}

fn default_data() -> Result<PathBuf, Failed> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
        .map(|base| base.join("mpegflow"))
        .ok_or_else(|| {
            Failed::new(Exit::Usage, "no_data_folder", "neither XDG_DATA_HOME nor HOME is set")
                .help("Name a folder by --data.")
        })
}
