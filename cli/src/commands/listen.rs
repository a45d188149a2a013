//! `mpegflow webhooks listen`: hears a tenant's events and posts them to a server on the developer's machine, signed as the broker
//! signs, so that a receiver can be written without an address that the broker reaches.

use crate::args::Connection;
use crate::client::{Client, ClientError, SseParser, backoff};
use crate::exit::{Exit, Failed};
use crate::ui::{Tone, Ui};
use http_body_util::BodyExt as _;
use mpegflow_broker::secret::{fresh_id, random};
use mpegflow_broker::webhooks::message;
use mpegflow_broker::webhooks::secret::{Secret, headers};
use mpegflow_protocol::api::Event;
use mpegflow_protocol::ids::MessageId;
use mpegflow_protocol::text::clean;
use std::time::Duration;

/// A stream that is silent for longer is opened again; the broker sends a comment every few seconds.
const SILENCE: Duration = Duration::from_secs(20);
/// Tries to reach the broker in a row before giving up: about a minute.
const TRIES: u32 = 12;

/// Runs until Ctrl-C.
pub(crate) async fn run(forward: &str, connection: &Connection, ui: Ui) -> Result<(), Failed> {
    let client = Client::from_connection(connection)?;
    let target = client.receiver(forward)?;
    let bytes =
        random().map_err(|_| Failed::new(Exit::Failed, "randomness", "the system has no randomness"))?;
    let secret = Secret::new(bytes);
    let interrupt = super::transcode::listen()?;
    if ui.json {
        ui.json(&serde_json::json!({ "secret": secret.reveal(), "forward": forward }), false);
    } else {
        ui.line(secret.reveal());
    }
    ui.note(format!("Messages go to {}, signed with the secret above. Ctrl-C stops.", clean(forward, 200)));
    let mut listener = Listener { client, target, secret, ui, last: None };
    tokio::select! {
        ended = listener.listen() => ended,
        () = interrupt.asked() => Err(Failed::interrupted()),
    }
}

struct Listener {
    client: Client,
    target: crate::client::Receiver,
    secret: Secret,
    ui: Ui,
    /// The last event that was heard: a stream goes on after it.
    last: Option<String>,
}

impl Listener {
    async fn listen(&mut self) -> Result<(), Failed> {
        let mut failures = 0_u32;
        loop {
            let heard = self.once().await;
            match heard {
                Ok(true) => failures = 0,
                Ok(false) => failures = failures.saturating_add(1),
                Err(e) if e.is_transient() && failures < TRIES => failures = failures.saturating_add(1),
                Err(e) => return Err(e.into()),
            }
            if failures > TRIES {
                return Err(Failed::new(
                    Exit::Unreachable,
                    "unreachable",
                    "the event stream ends again and again",
                ));
            }
            tokio::time::sleep(backoff(failures)).await;
        }
    }

    /// Over one stream; whether anything was heard.
    async fn once(&mut self) -> Result<bool, ClientError> {
        let mut stream = self.client.all_events(self.last.as_deref()).await?.into_body();
        let mut parser = SseParser::default();
        let mut heard = false;
        loop {
            let chunk = match tokio::time::timeout(SILENCE, stream.frame()).await {
                Err(_) | Ok(None | Some(Err(_))) => return Ok(heard),
                Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
            };
            heard = true;
            let mut events = Vec::new();
            let call = || "GET /v1/events".to_owned();
            parser
                .push(&chunk, &mut events)
                .map_err(|e| ClientError::Answer { call: call(), reason: e.to_string() })?;
            for event in events {
                if let Ok(said) = serde_json::from_str::<Event>(&event.data) {
                    self.forward(&said).await?;
                }
                if !event.id.is_empty() {
                    self.last = Some(event.id);
                }
            }
        }
    }

    async fn forward(&self, event: &Event) -> Result<(), ClientError> {
        let Some(kind) = message::type_of(event.kind, event.state) else { return Ok(()) };
        let job = self.client.job(event.job).await?;
        let body =
            message::body(kind, event.job, event.state, &event.at, Some(&job.spec), event.failure.as_ref());
        let id: MessageId = fresh_id();
        let at = jiff::Timestamp::now().as_second();
        let signed = headers(std::slice::from_ref(&self.secret), id, at, &body);
        let (tone, text) = match self.client.deliver(&self.target, &signed, body).await {
            Ok(status) if (200..300).contains(&status) => (Tone::Good, status.to_string()),
            Ok(status) => (Tone::Bad, status.to_string()),
            Err(reason) => (Tone::Bad, clean(&reason, 200)),
        };
        if self.ui.json {
            let line = serde_json::json!({ "id": id, "type": kind, "job": event.job, "answer": text });
            self.ui.json(&line, false);
        } else {
            self.ui.line(format!("{id}  {}  {}  {}", kind.as_str(), event.job, self.ui.tone(tone, &text)));
        }
        Ok(())
    }
}
