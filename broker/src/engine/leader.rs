//! What only one of many brokers does at a time. A leader that was paused and wakes does nothing more: it asks whether its epoch
//! still stands before each step, and every step besides changes only what is still as it was found.

use super::Engine;
use crate::store::StoreError;
use std::time::Duration;
use tokio::time::Interval;

/// A leader that is gone is missed for this long.
const TERM: Duration = Duration::from_secs(6);

/// One broker's place in the succession for one duty.
#[derive(Debug)]
pub struct Leadership {
    duty: &'static str,
    holder: String,
    epoch: Option<u64>,
}

/// One epoch of a lead.
#[derive(Debug, Clone, Copy)]
pub struct Fence {
    duty: &'static str,
    epoch: u64,
}

impl Fence {
    /// Whether the epoch still stands, asked for now.
    ///
    /// # Errors
    /// The store failed.
    pub async fn holds(&self, engine: &Engine) -> Result<bool, StoreError> {
        engine.store.leads(self.duty, self.epoch).await
    }
}

impl Leadership {
    /// Of a broker that does not lead yet. Every process has a name of its own, so that one that was started again is another.
    pub fn new(duty: &'static str) -> Self {
        Self { duty, holder: uuid::Uuid::new_v4().to_string(), epoch: None }
    }

    /// Takes or keeps the lead; whether it was taken just now. To be called several times in a term.
    ///
    /// # Errors
    /// The store failed, and who leads is not known: nobody here.
    pub async fn stand(&mut self, engine: &Engine) -> Result<bool, StoreError> {
        let before = self.epoch.take();
        let term = u64::try_from(TERM.as_millis()).unwrap_or(u64::MAX);
        self.epoch = engine.store.lead(self.duty, &self.holder, term).await?;
        let new = self.epoch.is_some() && self.epoch != before;
        match (self.epoch, before) {
            (Some(epoch), _) if new => tracing::info!(duty = self.duty, epoch, "leads now"),
            (None, Some(epoch)) => tracing::warn!(duty = self.duty, epoch, "leads no more"),
            _ => {}
        }
        Ok(new)
    }

    /// Whether this broker leads, asked for now.
    ///
    /// # Errors
    /// The store failed.
    pub async fn holds(&self, engine: &Engine) -> Result<bool, StoreError> {
        match self.fence() {
            Some(fence) => fence.holds(engine).await,
            None => Ok(false),
        }
    }

    /// The place as it is now, for work that goes on while the lead is kept; none where this broker does not lead.
    pub fn fence(&self) -> Option<Fence> {
        self.epoch.map(|epoch| Fence { duty: self.duty, epoch })
    }

    /// Does a round of the duty, and goes on standing for it at each tick.
    pub async fn standing<T>(
        &mut self,
        engine: &Engine,
        ticks: &mut Interval,
        round: impl Future<Output = T>,
    ) -> T {
        let mut round = std::pin::pin!(round);
        loop {
            tokio::select! {
                done = &mut round => return done,
                _ = ticks.tick() => if let Err(e) = self.stand(engine).await {
                    tracing::error!(error = %e, duty = self.duty, "cannot take or keep the lead");
                },
            }
        }
    }

    /// Gives the lead back.
    pub async fn resign(&mut self, engine: &Engine) {
        if self.epoch.take().is_some()
            && let Err(e) = engine.store.resign(self.duty, &self.holder).await
        {
            tracing::warn!(error = %e, duty = self.duty, "the lead was not given back; it ends by itself");
        }
    }
}
