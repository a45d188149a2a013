//! `mpegflow webhooks …`.

use crate::args::Webhooks;
use crate::client::Client;
use crate::exit::Failed;
use crate::ui::{Tone, Ui};
use mpegflow_protocol::text::clean;
use mpegflow_protocol::webhook::{CreateWebhook, Delivery, DeliveryState, Webhook};
use serde::Serialize;

/// Runs the command.
pub(crate) async fn run(args: Webhooks, ui: Ui) -> Result<(), Failed> {
    match args {
        Webhooks::Create { receiver, types, description, connection } => {
            let types = (!types.is_empty()).then_some(types);
            let wanted = CreateWebhook { url: receiver, types, description };
            let made = Client::from_connection(&connection)?.create_webhook(&wanted).await?;
            with_secret(ui, &made);
        }
        Webhooks::List { connection } => {
            let webhooks = Client::from_connection(&connection)?.webhooks().await?;
            shown(ui, &webhooks, || webhooks.iter().for_each(|w| ui.line(row(w, ui))));
        }
        Webhooks::Rotate { webhook, overlap, connection } => {
            let made = Client::from_connection(&connection)?.rotate_webhook(webhook, overlap).await?;
            with_secret(ui, &made);
        }
        Webhooks::Enable { webhook, connection } => {
            let webhook = Client::from_connection(&connection)?.enable_webhook(webhook).await?;
            shown(ui, &webhook, || ui.line(row(&webhook, ui)));
        }
        Webhooks::Delete { webhook, connection } => {
            Client::from_connection(&connection)?.delete_webhook(webhook).await?;
            ui.note(format!("{webhook} is deleted, with the messages to it"));
        }
        Webhooks::Deliveries { webhook, limit, connection } => {
            let page = Client::from_connection(&connection)?.deliveries(webhook, limit).await?;
            shown(ui, &page.deliveries, || page.deliveries.iter().for_each(|d| ui.line(delivery(d, ui))));
        }
        Webhooks::Redeliver { webhook, message, connection } => {
            let sent = Client::from_connection(&connection)?.redeliver(webhook, message).await?;
            shown(ui, &sent, || ui.line(delivery(&sent, ui)));
        }
        Webhooks::Listen { forward, connection } => super::listen::run(&forward, &connection, ui).await?,
    }
    Ok(())
}

fn shown(ui: Ui, value: &impl Serialize, text: impl FnOnce()) {
    if ui.json { ui.json(value, true) } else { text() }
}

/// The secret on a line of its own, for scripts; what to do with it beside it.
fn with_secret(ui: Ui, webhook: &Webhook) {
    shown(ui, webhook, || {
        ui.line(webhook.id.to_string());
        ui.line(webhook.secret.as_deref().unwrap_or_default());
        ui.note("The secret is shown this once. The receiver verifies messages with it: standardwebhooks.com has libraries.");
    });
}

fn row(webhook: &Webhook, ui: Ui) -> String {
    let state = match &webhook.disabled_reason {
        None => ui.tone(Tone::Good, "enabled "),
        Some(reason) => ui.tone(Tone::Bad, &format!("disabled ({})", clean(reason, 16))),
    };
    let types: Vec<&str> = webhook.types.iter().map(|t| t.as_str()).collect();
    let managed =
        webhook.managed.as_ref().map_or_else(String::new, |name| format!("  managed as {}", clean(name, 63)));
    format!("{}  {state}  {}  {}{managed}", webhook.id, clean(&webhook.url, 80), types.join(","))
}

fn delivery(delivery: &Delivery, ui: Ui) -> String {
    let tone = match delivery.state {
        DeliveryState::Delivered => Tone::Good,
        DeliveryState::Pending => Tone::Warn,
        DeliveryState::Failed => Tone::Bad,
    };
    let state = ui.tone(tone, &format!("{:<9}", delivery.state.as_str()));
    let tried = if delivery.attempts == 1 {
        "1 attempt".to_owned()
    } else {
        format!("{} attempts", delivery.attempts)
    };
    let why = delivery.last_error.as_ref().map_or_else(String::new, |e| format!("  {}", clean(e, 120)));
    format!("{}  {state}  {}  {}  {tried}{why}", delivery.id, delivery.kind.as_str(), delivery.job)
}
