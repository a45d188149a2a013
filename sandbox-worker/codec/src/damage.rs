//! How much damage an encode bears: what of an input could be read and decoded, held against what it said it holds. Pure.
//! The rules are in the module documentation of [`crate::encode`].

use mpegflow_protocol::failure::{Failure, FailureCode};

/// Of what was said or read, at least this much has to be there, in percent.
const ENOUGH: u64 = 90;
/// Packets that may be undecodable whatever their share: a short clip with one scratch is no loss.
const SCRATCH: u64 = 10;
/// Short files round their durations, and the last frame's length is often unsaid.
const ROUNDING_MS: u64 = 1_000;

/// What became of one stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Frames decoded.
    pub(crate) decoded: u64,
    /// Packets and frames that were refused before the first good frame: a recording that begins between key frames.
    pub(crate) leading_errors: u64,
    /// Packets and frames that were refused after it.
    pub(crate) errors: u64,
    /// Frames that the decoder painted over.
    pub(crate) concealed: u64,
    /// How far its packets reach, in milliseconds from the start.
    pub(crate) read_ms: u64,
    /// How far its frames reach.
    pub(crate) reached_ms: u64,
}

impl Tally {
    /// Counts one packet or frame that was refused.
    pub(crate) fn error(&mut self) {
        let counter = if self.decoded == 0 { &mut self.leading_errors } else { &mut self.errors };
        *counter = counter.saturating_add(1);
    }

    /// Errors in all.
    pub(crate) fn all_errors(&self) -> u64 {
        self.leading_errors.saturating_add(self.errors).saturating_add(self.concealed)
    }

    /// Whether enough of the stream was decoded.
    ///
    /// # Errors
    /// [`FailureCode::InputCorrupt`].
    pub(crate) fn judge(&self, what: &str) -> Result<(), Failure> {
        let tried = self.decoded.saturating_add(self.errors);
        let undecodable = self.errors > SCRATCH && !enough(self.decoded, tried);
        let late = self.leading_errors > SCRATCH && self.leading_errors > self.decoded;
        let painted = self.concealed > SCRATCH && self.concealed > self.decoded / 2;
        if undecodable || late || painted {
            let message = format!(
                "too much of the {what} is damaged: {} frames were decoded, {} of them painted over, and {} packets were not",
                self.decoded,
                self.concealed,
                self.leading_errors.saturating_add(self.errors)
            );
            return Err(Failure::new(FailureCode::InputCorrupt, message));
        }
        if !enough(self.reached_ms.saturating_add(ROUNDING_MS), self.read_ms) {
            let message =
                format!("only {} of the {what}'s {} ms could be decoded", self.reached_ms, self.read_ms);
            return Err(Failure::new(FailureCode::InputCorrupt, message));
        }
        Ok(())
    }
}

/// How the input as a whole ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ending {
    /// What the container says that the streams last, in milliseconds, where it says so.
    pub(crate) said_ms: Option<u64>,
    /// How far the packets of the longest stream reach.
    pub(crate) read_ms: u64,
    /// The file ended inside an element.
    pub(crate) inside: bool,
    /// The demuxer gave up before the end.
    pub(crate) broke: bool,
}

impl Ending {
    /// Whether the input is there to its end.
    ///
    /// # Errors
    /// [`FailureCode::InputTruncated`] or [`FailureCode::InputCorrupt`].
    pub(crate) fn judge(&self) -> Result<(), Failure> {
        match self.said_ms {
            Some(said) if !enough(self.read_ms.saturating_add(ROUNDING_MS), said) => {
                let code = if self.broke { FailureCode::InputCorrupt } else { FailureCode::InputTruncated };
                Err(Failure::new(code, format!("the input ends at {} of {said} ms", self.read_ms)))
            }
            // Nobody can say how much is missing.
            None if self.inside => Err(Failure::new(
                FailureCode::InputTruncated,
                format!("the input is cut off after {} ms and does not say how long it was", self.read_ms),
            )),
            None if self.broke => Err(Failure::new(
                FailureCode::InputCorrupt,
                format!("the input cannot be read beyond {} ms", self.read_ms),
            )),
            _ => Ok(()),
        }
    }
}

fn enough(there: u64, whole: u64) -> bool {
    there.saturating_mul(100) >= whole.saturating_mul(ENOUGH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(result: Result<(), Failure>) -> Option<FailureCode> {
        result.err().map(|f| f.code)
    }

    #[test]
    fn an_input_is_whole_when_nine_tenths_of_what_it_says_are_there() {
        let whole = Ending { said_ms: Some(60_000), read_ms: 60_000, ..Ending::default() };
        assert_eq!(code(whole.judge()), None);
        assert_eq!(code(Ending { read_ms: 54_000, ..whole }.judge()), None);
        assert_eq!(code(Ending { read_ms: 52_000, ..whole }.judge()), Some(FailureCode::InputTruncated));
        let broke = Ending { read_ms: 30_000, broke: true, ..whole };
        assert_eq!(code(broke.judge()), Some(FailureCode::InputCorrupt));
        // A header that says too little is wrong, not the pictures.
        assert_eq!(code(Ending { read_ms: 90_000, ..whole }.judge()), None);
        let unsaid = Ending { read_ms: 5_000, ..Ending::default() };
        assert_eq!(code(unsaid.judge()), None);
        assert_eq!(code(Ending { inside: true, ..unsaid }.judge()), Some(FailureCode::InputTruncated));
        assert_eq!(code(Ending { broke: true, ..unsaid }.judge()), Some(FailureCode::InputCorrupt));
    }

    #[test]
    fn a_stream_bears_scratches_and_a_late_start_but_not_a_tenth_of_its_packets() {
        let good = Tally { decoded: 1_000, read_ms: 40_000, reached_ms: 40_000, ..Tally::default() };
        assert_eq!(code(good.judge("video")), None);
        assert_eq!(code(Tally { errors: 110, ..good }.judge("video")), None);
        assert_eq!(code(Tally { leading_errors: 200, ..good }.judge("video")), None);
        assert_eq!(code(Tally { decoded: 3, errors: 9, ..good }.judge("video")), None);
        for bad in [
            Tally { errors: 120, ..good },
            Tally { leading_errors: 1_001, ..good },
            Tally { concealed: 501, ..good },
            Tally { reached_ms: 34_000, ..good },
        ] {
            assert_eq!(code(bad.judge("video")), Some(FailureCode::InputCorrupt), "{bad:?}");
        }
    }
}
