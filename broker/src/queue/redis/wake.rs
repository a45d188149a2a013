//! Wakes long polls of this broker when any broker has offered something. What is published while nobody listens is lost, so
//! every new subscription wakes everybody once.

use super::link::Link;
use futures_util::StreamExt as _;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::watch;

/// A silent connection is asked this often whether it lives.
const ASK: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(500);

/// Listens until the queue is gone.
pub(super) async fn listen(link: Weak<Link>, channel: String, version: Arc<watch::Sender<u64>>) {
    while let Some(held) = link.upgrade() {
        let heard = held.config().listen().await;
        drop(held);
        if let Ok(heard) = heard {
            let (mut sink, mut messages) = heard.split();
            if sink.subscribe(&channel).await.is_ok() {
                bump(&version);
                while link.strong_count() > 0 {
                    match tokio::time::timeout(ASK, messages.next()).await {
                        Ok(Some(_)) => bump(&version),
                        Ok(None) => break,
                        Err(_) => match tokio::time::timeout(ASK, sink.ping::<redis::Value>()).await {
                            Ok(Ok(_)) => {}
                            _ => break,
                        },
                    }
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn bump(version: &watch::Sender<u64>) {
    version.send_modify(|version| *version = version.wrapping_add(1));
}
