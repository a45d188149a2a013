//! The connection that all calls share: made when it is needed, thrown away when it fails, and after a failure not tried again
//! for a moment, so that a server that is gone costs callers nothing.

use super::config::{ConnectError, Connection, RedisConfig};
use crate::queue::QueueError;
use redis::{ErrorKind, FromRedisValue, RedisError, ScriptInvocation, ServerErrorKind};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// After a failure nothing is tried for this long.
const PAUSE: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(super) struct Link {
    config: RedisConfig,
    slot: Mutex<Slot>,
}

#[derive(Default)]
struct Slot {
    connection: Option<Connection>,
    /// Which connection it is, counted from 1.
    number: u64,
    failed: Option<Instant>,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Link {
    pub(super) fn new(config: RedisConfig) -> Self {
        Self { config, slot: Mutex::default() }
    }

    pub(super) const fn config(&self) -> &RedisConfig {
        &self.config
    }

    async fn connection(&self) -> Result<(u64, Connection), QueueError> {
        let mut slot = self.slot.lock().await;
        if let Some(connection) = &slot.connection {
            return Ok((slot.number, connection.clone()));
        }
        if slot.failed.is_some_and(|failed| failed.elapsed() < PAUSE) {
            return Err(QueueError::Down);
        }
        match self.config.connect().await {
            Ok(connection) => {
                if slot.failed.take().is_some() {
                    tracing::info!("the dispatch index answers again");
                }
                slot.number = slot.number.saturating_add(1);
                slot.connection = Some(connection.clone());
                Ok((slot.number, connection))
            }
            Err(e) => {
                if slot.failed.replace(Instant::now()).is_none() {
                    tracing::warn!(error = %e, "the dispatch index cannot be reached; leasing asks the database");
                }
                Err(match e {
                    ConnectError::Address(e) => QueueError::Address(e),
                    e => QueueError::Failed(e.to_string()),
                })
            }
        }
    }

    /// What a call's error means for the connection it was made on.
    async fn failed(&self, number: u64, error: &RedisError) {
        if !is_of_the_connection(error) {
            return;
        }
        let mut slot = self.slot.lock().await;
        if slot.number == number && slot.connection.take().is_some() {
            tracing::warn!(%error, "the dispatch index failed; leasing asks the database");
            slot.failed = Some(Instant::now());
        }
    }

    pub(super) async fn call<T: FromRedisValue>(
        &self,
        call: impl AsyncFnOnce(&mut Connection) -> Result<T, RedisError>,
    ) -> Result<T, QueueError> {
        let (number, mut connection) = self.connection().await?;
        match call(&mut connection).await {
            Ok(answer) => Ok(answer),
            Err(e) => {
                self.failed(number, &e).await;
                Err(QueueError::Failed(e.to_string()))
            }
        }
    }

    pub(super) async fn run<T: FromRedisValue>(
        &self,
        invocation: &ScriptInvocation<'_>,
    ) -> Result<T, QueueError> {
        self.call(async |connection| invocation.invoke_async(connection).await).await
    }
}

/// Whether another connection may do better: not for a script that went wrong or a server that is out of memory.
fn is_of_the_connection(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_unrecoverable_error()
        || error.is_cluster_error()
        || matches!(
            error.kind(),
            ErrorKind::AuthenticationFailed
                | ErrorKind::Server(
                    ServerErrorKind::ReadOnly
                        | ServerErrorKind::BusyLoading
                        | ServerErrorKind::MasterDown
                        | ServerErrorKind::NoPerm
                )
        )
        || matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOREPLICAS" | "MISCONF"))
}
