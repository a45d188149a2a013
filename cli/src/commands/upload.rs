//! `mpegflow upload`.

use super::send;
use crate::args::Upload;
use crate::client::{Client, ClientError, UploadSource, is_missing};
use crate::exit::{Exit, Failed};
use crate::ui::Ui;

/// Runs the command.
pub(crate) async fn run(args: Upload, ui: Ui) -> Result<(), Failed> {
    let source = UploadSource::open(&args.file)?;
    let client = Client::from_connection(&args.connection)?;
    let upload = match args.resume {
        Some(id) => client.upload(id).await.map_err(|e| gone(id, e))?,
        None => client.create_upload(&source).await?,
    };
    let id = upload.id;
    let interrupt = super::transcode::listen()?;
    let file = super::transcode::quoted(&args.file);
    let resume = format!("Go on with `mpegflow upload {file} --resume {id}`.");
    let sent = tokio::select! {
        sent = send(&client, &source, ui, Some(upload)) => sent,
        () = interrupt.asked() => Err(Failed::interrupted().help(&resume)),
    };
    let upload = sent.map_err(|e| if e.exit == Exit::Unreachable { e.help(&resume) } else { e })?;
    if ui.json {
        ui.json(&upload, true);
    } else {
        // The id alone, so that a script can take it.
        ui.line(upload.id.to_string());
    }
    Ok(())
}

fn gone(id: mpegflow_protocol::ids::UploadId, error: ClientError) -> Failed {
    let missing = is_missing(&error);
    let failed = Failed::from(error);
    if missing {
        failed.help(format!("{id} is not an upload of yours, or has expired. Start anew without --resume."))
    } else {
        failed
    }
}
