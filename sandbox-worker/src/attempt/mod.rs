//! One attempt at one task, from lease to report.
//!
//! | module | does | trusts |
//! |---|---|---|
//! | [`process`] | spawns, kills and reaps the codec | – |
//! | [`lock`] | exec → locks → seen from outside; the typestate that media waits for | – |
//! | [`control`] | frames, in order | nothing the codec says |
//! | [`input`], [`reader`], [`blocks`] | answers reads, fetching ahead | lengths from the lease |
//! | [`output`] | cuts outputs into parts and sends them up | – |
//! | [`log`] | bounded, clean lines | nothing |
//! | [`meter`], [`spans`], [`watch`] | counts; where time goes; heartbeat, deadline, stall, shutdown | nothing the codec says |
//! | [`exit`], [`result`] | what its end and its result amount to | nothing |
//!
//! Whatever happens first decides ([`stop::Stop`]); then the codec is killed and reaped, and only then is anything reported.

pub mod blocks;
pub mod control;
pub mod exit;
pub mod input;
pub mod lock;
pub mod log;
pub mod meter;
pub mod output;
pub mod process;
pub mod reader;
pub mod result;
pub mod spans;
pub mod stop;
pub mod watch;

mod report;
mod run;

pub use run::{Outcome, run};

use tokio::task::JoinHandle;

/// A task that ends with its handle.
#[derive(Debug)]
pub struct AbortOnDrop<T>(pub JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<T> AbortOnDrop<Result<T, stop::Stop>> {
    /// Waits for its result. A task that panicked fails the attempt.
    ///
    /// # Errors
    /// The task's own, or that it panicked.
    pub async fn join(mut self) -> Result<T, stop::Stop> {
        match (&mut self.0).await {
            Ok(result) => result,
            Err(error) => Err(stop::Stop::fail(
                mpegflow_protocol::failure::FailureCode::WorkerError,
                format!("a task of the supervisor ended: {error}"),
            )),
        }
    }
}
