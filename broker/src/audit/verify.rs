//! What a changed log gives away.

use super::chain::{self, Entry, Head};
use super::checkpoint::{Checkpoint, Purpose};
use mpegflow_protocol::ids::TenantId;

/// Numbers that a gap is searched for when entries were renumbered over it.
const WIDEST_GAP: u64 = 4096;

/// The first thing that is wrong with a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// Entries are missing.
    #[error("entries {from} to {to} were removed")]
    Removed {
        /// The first.
        from: u64,
        /// The last.
        to: u64,
    },
    /// An entry is not what was chained.
    #[error("entry {seq} was changed")]
    Edited {
        /// Which.
        seq: u64,
    },
    /// An entry stands where another was chained.
    #[error("entry {seq} was moved: what belongs there stands at {at}")]
    Reordered {
        /// The place.
        seq: u64,
        /// Where its true entry is now.
        at: u64,
    },
    /// The chain ends before something that was signed.
    #[error("the log ends at {last}, and {signed} was signed")]
    CutOff {
        /// The last entry.
        last: u64,
        /// The signed place that is missing.
        signed: u64,
    },
    /// The chain holds, and is not the one that was signed.
    #[error("the log was rewritten after {after} and up to {seq}: it is not what was signed at {seq}")]
    Rewritten {
        /// The last place that agrees with a signed one.
        after: u64,
        /// The first that does not.
        seq: u64,
    },
    /// An entry was erased, and nothing in the chain says so.
    #[error("entry {seq} was erased and no record of it follows")]
    Erased {
        /// Which.
        seq: u64,
    },
}

/// A chain that holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// The place after which it was checked.
    pub from: Head,
    /// Its head.
    pub head: Head,
    /// Entries whose content was erased, each with a record of it.
    pub erased: u64,
    /// Signed places that it agrees with.
    pub checkpoints: u64,
}

/// Verifies one tenant's chain, page by page.
#[derive(Debug)]
pub struct Verifier {
    tenant: TenantId,
    from: Head,
    head: Head,
    /// Signed places that are still to come, the next one last.
    signed: Vec<Head>,
    agreed: u64,
    matched: u64,
    erased: u64,
    /// Erased entries that no record is known to cover yet: first and last of each run.
    uncovered: Vec<(u64, u64)>,
}

impl Verifier {
    /// Begins after `anchor`, which has to be signed for that purpose, or at the beginning; `signed` are the places that
    /// checkpoints vouch for, in any order.
    ///
    /// # Errors
    /// A signed place contradicts the anchor.
    pub fn new(tenant: TenantId, anchor: Option<Head>, signed: &[Head]) -> Result<Self, Finding> {
        let from = anchor.unwrap_or(Head { seq: 0, hash: chain::genesis(tenant) });
        if signed.iter().any(|s| s.seq == from.seq && s.hash != from.hash) {
            return Err(Finding::Rewritten { after: 0, seq: from.seq });
        }
        let mut signed: Vec<Head> = signed.iter().copied().filter(|s| s.seq > from.seq).collect();
        signed.sort_unstable_by_key(|s| std::cmp::Reverse(s.seq));
        let agreed = from.seq;
        Ok(Self { tenant, from, head: from, signed, agreed, matched: 0, erased: 0, uncovered: Vec::new() })
    }

    /// Begins where the chain as it is found begins: at its first entry, or after the signed anchor before `first`, the
    /// position of the first entry that is there. Every checkpoint vouches for its places.
    ///
    /// # Errors
    /// A signed place contradicts the anchor.
    pub fn of(tenant: TenantId, first: Option<u64>, checkpoints: &[Checkpoint]) -> Result<Self, Finding> {
        let places = |purpose: Option<Purpose>| {
            let wanted = move |c: &&Checkpoint| purpose.is_none_or(|p| c.purpose == p);
            checkpoints.iter().filter(wanted).filter_map(move |c| c.head_of(tenant))
        };
        let signed: Vec<Head> = places(None).collect();
        let before = |head: &Head| first.is_none_or(|first| head.seq < first);
        Self::new(tenant, places(Some(Purpose::Anchor)).filter(before).max_by_key(|a| a.seq), &signed)
    }

    /// The place it has got to.
    pub const fn head(&self) -> Head {
        self.head
    }

    /// Takes the next entries, by rising position. What is wrong is named with the help of the same page.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn page(&mut self, page: &[Entry]) -> Result<(), Finding> {
        page.iter().enumerate().try_for_each(|(at, entry)| self.entry(entry, page, at))
    }

    fn entry(&mut self, entry: &Entry, page: &[Entry], at: usize) -> Result<(), Finding> {
        let seq = self.head.seq.saturating_add(1);
        if entry.seq > seq {
            return Err(Finding::Removed { from: seq, to: entry.seq.saturating_sub(1) });
        }
        if entry.seq < seq {
            return Err(Finding::Reordered { seq: entry.seq, at: entry.seq });
        }
        if let Some(content) = &entry.content {
            let made = chain::digest(content);
            if made != entry.digest {
                return Err(match page.iter().find(|e| e.digest == made) {
                    Some(other) => Finding::Reordered { seq: other.seq.min(seq), at: other.seq.max(seq) },
                    None => Finding::Edited { seq },
                });
            }
        }
        let hash = chain::link(self.tenant, &self.head.hash, seq, entry.chained_at, &entry.digest);
        if hash != entry.hash {
            return Err(self.name(entry, page, at));
        }
        self.head = Head { seq, hash };
        self.note_erasure(entry);
        while let Some(signed) = self.signed.pop_if(|s| s.seq == seq) {
            if signed.hash != hash {
                return Err(Finding::Rewritten { after: self.agreed, seq });
            }
            self.agreed = seq;
            self.matched = self.matched.saturating_add(1);
        }
        Ok(())
    }

    /// Names what is wrong with an entry that does not follow from the one before it.
    fn name(&self, entry: &Entry, page: &[Entry], at: usize) -> Finding {
        let seq = entry.seq;
        let fits = |chained_at: i64, digest: &[u8; 32], hash: &[u8; 32]| {
            chain::link(self.tenant, &self.head.hash, seq, chained_at, digest) == *hash
        };
        // Whole entries that changed places, or their contents alone.
        let true_one = page.iter().find(|e| {
            fits(e.chained_at, &e.digest, &e.hash) || fits(entry.chained_at, &e.digest, &entry.hash)
        });
        if let Some(other) = true_one {
            return Finding::Reordered { seq, at: other.seq };
        }
        // Entries were removed and what follows was renumbered: with their old numbers, the followers follow each other.
        if let Some(next) = at.checked_add(1).and_then(|n| page.get(n)) {
            for gap in 1..=WIDEST_GAP {
                let old = next.seq.saturating_add(gap);
                let link = chain::link(self.tenant, &entry.hash, old, next.chained_at, &next.digest);
                if link == next.hash {
                    return Finding::Removed { from: seq, to: seq.saturating_add(gap).saturating_sub(1) };
                }
            }
        }
        Finding::Edited { seq }
    }

    fn note_erasure(&mut self, entry: &Entry) {
        match &entry.content {
            None => {
                self.erased = self.erased.saturating_add(1);
                match self.uncovered.last_mut() {
                    Some((_, last)) if last.saturating_add(1) == entry.seq => *last = entry.seq,
                    _ => self.uncovered.push((entry.seq, entry.seq)),
                }
            }
            Some(content) => {
                // A record of the future covers nothing.
                for (from, to) in
                    chain::erased_by(content).into_iter().flatten().filter(|(_, to)| *to < entry.seq)
                {
                    self.cover(from, to);
                }
            }
        }
    }

    /// A record says that these entries were erased.
    fn cover(&mut self, from: u64, to: u64) {
        let rest = std::mem::take(&mut self.uncovered).into_iter().flat_map(|(first, last)| {
            let before = (first < from).then(|| (first, last.min(from.saturating_sub(1))));
            let after = (last > to).then(|| (first.max(to.saturating_add(1)), last));
            [before, after].into_iter().flatten()
        });
        self.uncovered = rest.collect();
    }

    /// Ends: nothing more follows.
    ///
    /// # Errors
    /// Something signed is missing, or something was erased without a record.
    pub fn finish(self) -> Result<Verified, Finding> {
        if let Some(signed) = self.signed.last() {
            return Err(Finding::CutOff { last: self.head.seq, signed: signed.seq });
        }
        if let Some((seq, _)) = self.uncovered.first() {
            return Err(Finding::Erased { seq: *seq });
        }
        let Self { from, head, erased, matched, .. } = self;
        Ok(Verified { from, head, erased, checkpoints: matched })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::chain::Content;

    const TENANT: TenantId = TenantId::from_u128(1);

    fn content(n: u64) -> Content {
        Content {
            salt: [u8::try_from(n).unwrap(); 16],
            job: Some(format!("job {n}")),
            kind: "created".into(),
            state: Some("queued".into()),
            stage: None,
            failure: None,
            at: 1,
        }
    }

    fn chain_of(contents: impl IntoIterator<Item = Content>) -> Vec<Entry> {
        let mut head = Head { seq: 0, hash: chain::genesis(TENANT) };
        contents.into_iter().map(|c| chain::append(TENANT, &mut head, 100, c)).collect()
    }

    fn log() -> Vec<Entry> {
        chain_of((1..=9).map(content))
    }

    fn head(entry: &Entry) -> Head {
        Head { seq: entry.seq, hash: entry.hash }
    }

    fn check(entries: &[Entry], signed: &[Head]) -> Result<Verified, Finding> {
        let mut verifier = Verifier::new(TENANT, None, signed)?;
        for page in entries.chunks(5) {
            verifier.page(page)?;
        }
        verifier.finish()
    }

    #[test]
    fn a_log_as_it_was_written_holds() {
        let log = log();
        let genesis = Head { seq: 0, hash: chain::genesis(TENANT) };
        let verified = Verified { from: genesis, head: head(&log[8]), erased: 0, checkpoints: 2 };
        assert_eq!(check(&log, &[head(&log[8]), head(&log[3])]), Ok(verified));
        assert!(check(&[], &[]).is_ok(), "and so does an empty one");
    }

    #[test]
    fn what_is_removed_is_named() {
        let mut gap = log();
        gap.drain(3..5);
        assert_eq!(check(&gap, &[]), Err(Finding::Removed { from: 4, to: 5 }));
        let mut start = log();
        start.drain(..2);
        assert_eq!(check(&start, &[]), Err(Finding::Removed { from: 1, to: 2 }));
        let mut renumbered = log();
        renumbered.drain(1..3);
        (1..).zip(&mut renumbered).for_each(|(seq, entry)| entry.seq = seq);
        assert_eq!(check(&renumbered, &[]), Err(Finding::Removed { from: 2, to: 3 }));
    }

    #[test]
    fn what_is_edited_is_named_however_far_the_edit_goes() {
        let edit = |entry: &mut Entry| entry.content.as_mut().unwrap().state = Some("failed".into());
        let mut content_only = log();
        edit(&mut content_only[3]);
        assert_eq!(check(&content_only, &[]), Err(Finding::Edited { seq: 4 }));
        let mut with_digest = log();
        edit(&mut with_digest[3]);
        with_digest[3].digest = chain::digest(with_digest[3].content.as_ref().unwrap());
        assert_eq!(check(&with_digest, &[]), Err(Finding::Edited { seq: 4 }));
        let mut time = log();
        time[6].chained_at += 1;
        assert_eq!(check(&time, &[]), Err(Finding::Edited { seq: 7 }));
        // Everything after the edit chained anew: only what was signed can tell.
        let mut contents: Vec<Content> = (1..=9).map(content).collect();
        contents[3].state = Some("failed".into());
        let rewritten = chain_of(contents);
        assert!(check(&rewritten, &[]).is_ok());
        let signed = [head(&log()[2]), head(&log()[7])];
        assert_eq!(check(&rewritten, &signed), Err(Finding::Rewritten { after: 3, seq: 8 }));
    }

    #[test]
    fn what_is_moved_is_named() {
        let mut rows = log();
        rows.swap(1, 3);
        (rows[1].seq, rows[3].seq) = (2, 4);
        assert_eq!(check(&rows, &[]), Err(Finding::Reordered { seq: 2, at: 4 }));
        let mut contents = log();
        (contents[1].content, contents[3].content) =
            (contents[3].content.clone(), contents[1].content.clone());
        assert_eq!(check(&contents, &[]), Err(Finding::Reordered { seq: 2, at: 4 }));
        (contents[1].digest, contents[3].digest) = (contents[3].digest, contents[1].digest);
        assert_eq!(check(&contents, &[]), Err(Finding::Reordered { seq: 2, at: 4 }));
        let mut repeated = log();
        repeated.insert(4, repeated[2].clone());
        assert_eq!(check(&repeated, &[]), Err(Finding::Reordered { seq: 3, at: 3 }));
    }

    #[test]
    fn a_tail_that_was_signed_cannot_be_cut_off() {
        let log = log();
        let signed = [head(&log[4]), head(&log[8])];
        assert_eq!(check(&log[..6], &signed), Err(Finding::CutOff { last: 6, signed: 9 }));
        assert_eq!(check(&[], &signed), Err(Finding::CutOff { last: 0, signed: 5 }));
        assert!(check(&log[..6], &signed[..1]).is_ok(), "what nobody signed can");
    }

    #[test]
    fn a_chain_goes_on_after_an_anchor_and_only_there() {
        let log = log();
        let after = |anchor: Head, from: usize, signed: &[Head]| {
            let mut verifier = Verifier::new(TENANT, Some(anchor), signed)?;
            verifier.page(&log[from..])?;
            verifier.finish()
        };
        assert_eq!(after(head(&log[2]), 3, &[head(&log[0]), head(&log[2])]).unwrap().head, head(&log[8]));
        assert_eq!(after(head(&log[2]), 4, &[]), Err(Finding::Removed { from: 4, to: 4 }));
        let forged = Head { seq: 3, hash: [0; 32] };
        assert_eq!(after(forged, 3, &[]), Err(Finding::Edited { seq: 4 }));
        assert_eq!(after(forged, 3, &[head(&log[2])]), Err(Finding::Rewritten { after: 0, seq: 3 }));
    }

    #[test]
    fn what_is_erased_leaves_the_chain_whole_and_needs_a_record() {
        let mut erased = chain_of((1..=4).map(content).chain([chain::erasure([7; 16], 4, 2), content(6)]));
        erased[..4].iter_mut().for_each(|e| e.content = None);
        assert_eq!(check(&erased, &[]).unwrap().erased, 4);
        erased[5].content = None;
        assert_eq!(check(&erased, &[]), Err(Finding::Erased { seq: 6 }), "after the record");
        let mut silent = log();
        silent[3].content = None;
        assert_eq!(check(&silent, &[]), Err(Finding::Erased { seq: 4 }));
        // Of single jobs' entries: those that are named, and no other.
        let of_jobs = |erased: &[usize]| {
            let record = chain::erasure_of([7; 16], &chain::ranges_of(&[2, 3, 5]), 2);
            let mut log = chain_of((1..=6).map(content).chain([record]));
            erased.iter().for_each(|n| log[n - 1].content = None);
            check(&log, &[]).map(|verified| verified.erased)
        };
        assert_eq!(of_jobs(&[2, 3, 5]), Ok(3));
        assert_eq!(of_jobs(&[2, 3, 4, 5]), Err(Finding::Erased { seq: 4 }));
        assert_eq!(of_jobs(&[1, 2]), Err(Finding::Erased { seq: 1 }));
        assert_eq!(of_jobs(&[5, 6]), Err(Finding::Erased { seq: 6 }));
        // A record of the future covers nothing.
        let mut early = chain_of([chain::erasure([7; 16], 9, 2), content(2)]);
        early[1].content = None;
        assert_eq!(check(&early, &[]), Err(Finding::Erased { seq: 2 }));
    }
}
