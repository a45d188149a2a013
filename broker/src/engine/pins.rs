//! An attempt reads one version of each of its inputs: the one that was there when it first read it, whichever broker it asks. An
//! object that is swapped under it, with the same name and length, is refused, and never a mixture of two.

use super::Engine;
use super::attempts::CallError;
use super::live::Live;
use crate::model::LiveAttempt;
use crate::objects::{Bytestream, Key};
use std::ops::Range;

impl Engine {
    /// Opens a range of an input, of the version that this attempt reads.
    ///
    /// # Errors
    /// Storage failed or has another version now, or the lease is over.
    pub(super) async fn read_pinned(
        &self,
        attempt: &LiveAttempt,
        live: &Live,
        input: u32,
        key: &Key,
        range: Range<u64>,
    ) -> Result<Bytestream, CallError> {
        let bytes = match self.pinned(attempt, live, input, key).await? {
            Some(version) => self.objects.read_version(key, range, &version).await,
            None => self.objects.read(key, range).await,
        };
        bytes.map_err(CallError::Objects)
    }

    /// The version of an input that this attempt reads; none where storage knows no versions, which is this broker's own disk.
    pub(super) async fn pinned(
        &self,
        attempt: &LiveAttempt,
        live: &Live,
        input: u32,
        key: &Key,
    ) -> Result<Option<String>, CallError> {
        if let Some(pinned) = live.pin(input) {
            return Ok(Some(pinned));
        }
        let Some(found) = self.objects.version(key).await.map_err(CallError::Objects)? else {
            return Ok(None);
        };
        let pinned = self.store.pin_input(&attempt.claim, input, &found).await?;
        let pinned = pinned.ok_or(CallError::LeaseLost)?;
        live.set_pin(input, &pinned);
        Ok(Some(pinned))
    }
}
