//! `mpegflow play`.

use crate::args::Play;
use crate::exit::{Exit, Failed};
use crate::files::FileServer;
use crate::output::PAGE;
use crate::ui::{Tone, Ui};
use axum::Router;
use axum::body::Body;
use axum::http::Request;
use std::sync::Arc;

/// Runs the command.
pub(crate) async fn run(args: Play, ui: Ui) -> Result<(), Failed> {
    let listen = |e: std::io::Error| {
        Failed::new(Exit::Failed, "listen", format!("cannot listen on {}: {e}", args.listen))
            .help("Choose another by --listen; port 0 takes a free one.")
    };
    let listener = tokio::net::TcpListener::bind(args.listen).await.map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    let server = FileServer::open(&args.dir, address).map_err(|e| Failed::input(&args.dir, &e))?;
    if !server.has(PAGE) {
        let what = format!("{} holds no {PAGE}", args.dir.display());
        return Err(Failed::new(Exit::BadInput, "not_a_result", what)
            .help("Name a folder that `mpegflow transcode` or `mpegflow download` made."));
    }
    let interrupt = super::transcode::listen()?;
    let server = Arc::new(server);
    let app = Router::new().fallback(move |request: Request<Body>| {
        let server = Arc::clone(&server);
        async move { server.answer(request).await }
    });
    let url = format!("http://{address}/");
    if ui.json {
        ui.json(&serde_json::json!({ "url": url }), false);
    } else {
        ui.line(ui.tone(Tone::Strong, &url));
        ui.note("Ctrl-C stops");
    }
    tokio::select! {
        result = axum::serve(listener, app) => {
            result.map_err(|e| Failed::new(Exit::Failed, "serve", format!("cannot go on serving: {e}")))
        }
        // A player may hold its connection open for hours; nothing is lost by closing it.
        () = interrupt.asked() => Ok(()),
    }
}
