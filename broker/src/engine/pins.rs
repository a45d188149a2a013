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
        let pinned = match live.pin(input) {
            Some(pinned) => Some(pinned),
            None => match self.objects.version(key).await.map_err(CallError::Objects)? {
                // Storage that knows no versions is this broker's own disk.
                None => None,
                Some(found) => {
                    let pinned = self.store.pin_input(&attempt.claim, input, &found).await?;
                    let pinned = pinned.ok_or(CallError::LeaseLost)?;
                    live.set_pin(input, &pinned);
                    Some(pinned)
                }
            },
        };
        let bytes = match pinned {
            Some(version) => self.objects.read_version(key, range, &version).await,
            None => self.objects.read(key, range).await,
        };
        bytes.map_err(CallError::Objects)
    }
}
