//! Sets of small numbers as bits, and pairs of them for what is certain and what is possible.

/// A set of numbers below a fixed bound.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Bits {
    words: Vec<u64>,
    len: usize,
}

impl Bits {
    /// The empty set of numbers below `len`.
    pub(super) fn empty(len: usize) -> Self {
        Self { words: vec![0; len.div_ceil(64)], len }
    }

    /// All numbers below `len`.
    pub(super) fn full(len: usize) -> Self {
        let mut bits = Self { words: vec![u64::MAX; len.div_ceil(64)], len };
        bits.trim();
        bits
    }

    fn trim(&mut self) {
        let rest = self.len % 64;
        if let (true, Some(last)) = (rest > 0, self.words.last_mut()) {
            *last &= !u64::MAX.wrapping_shl(u32::try_from(rest).unwrap_or(0));
        }
    }

    /// Adds a number; one that is not below the bound is left out.
    pub(super) fn set(&mut self, number: usize) {
        if let (true, Some(word)) = (number < self.len, self.words.get_mut(number / 64)) {
            *word |= 1u64.wrapping_shl(u32::try_from(number % 64).unwrap_or(0));
        }
    }

    /// Whether it has this number.
    pub(super) fn has(&self, number: usize) -> bool {
        let bit = 1u64.wrapping_shl(u32::try_from(number % 64).unwrap_or(0));
        self.words.get(number / 64).is_some_and(|word| word & bit != 0)
    }

    /// Keeps what is in the other too.
    pub(super) fn and(&mut self, other: &Self) {
        for (word, mask) in self.words.iter_mut().zip(&other.words) {
            *word &= mask;
        }
    }

    /// Adds what is in the other.
    pub(super) fn or(&mut self, other: &Self) {
        for (word, mask) in self.words.iter_mut().zip(&other.words) {
            *word |= mask;
        }
    }

    /// All below the bound that are not in it.
    pub(super) fn complement(&self) -> Self {
        let mut bits = Self { words: self.words.iter().map(|word| !word).collect(), len: self.len };
        bits.trim();
        bits
    }

    /// Its numbers, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.within(0, self.words.len())
    }

    /// Its numbers from word `first` up to, without, word `end`; a word holds 64.
    pub(super) fn within(&self, first: usize, end: usize) -> impl Iterator<Item = usize> + '_ {
        let words = self.words.get(first..end.min(self.words.len())).unwrap_or_default();
        words.iter().enumerate().flat_map(move |(at, word)| {
            let base = first.saturating_add(at).saturating_mul(64);
            let mut rest = *word;
            std::iter::from_fn(move || {
                let bit = usize::try_from(rest.trailing_zeros()).ok().filter(|bit| *bit < 64)?;
                rest &= rest.wrapping_sub(1);
                Some(base.saturating_add(bit))
            })
        })
    }
}

/// A set that is known in part: what is certainly in it, and what may be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Tri {
    /// What certainly is; all of it is in `may` too.
    pub(super) must: Bits,
    /// What may be.
    pub(super) may: Bits,
}

impl Tri {
    pub(super) fn none(len: usize) -> Self {
        Self { must: Bits::empty(len), may: Bits::empty(len) }
    }

    pub(super) fn all(len: usize) -> Self {
        Self { must: Bits::full(len), may: Bits::full(len) }
    }

    pub(super) fn unknown(len: usize) -> Self {
        Self { must: Bits::empty(len), may: Bits::full(len) }
    }

    pub(super) fn set(&mut self, number: usize, truth: crate::truth::Truth) {
        if truth.may() {
            self.may.set(number);
        }
        if truth.must() {
            self.must.set(number);
        }
    }

    pub(super) fn get(&self, number: usize) -> crate::truth::Truth {
        match (self.must.has(number), self.may.has(number)) {
            (true, _) => crate::truth::Truth::Yes,
            (false, true) => crate::truth::Truth::Unknown,
            (false, false) => crate::truth::Truth::No,
        }
    }

    pub(super) fn and(&mut self, other: &Self) {
        self.must.and(&other.must);
        self.may.and(&other.may);
    }

    pub(super) fn or(&mut self, other: &Self) {
        self.must.or(&other.must);
        self.may.or(&other.may);
    }

    pub(super) fn negate(&self) -> Self {
        Self { must: self.may.complement(), may: self.must.complement() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_holds_no_more_than_the_bound() {
        for len in [0usize, 1, 63, 64, 65, 130] {
            let full = Bits::full(len);
            assert_eq!(full.iter().collect::<Vec<_>>(), (0..len).collect::<Vec<_>>());
            assert_eq!(full.complement(), Bits::empty(len));
        }
    }

    #[test]
    fn negation_swaps_what_is_certain_and_what_is_possible() {
        let mut tri = Tri::none(3);
        tri.set(0, crate::truth::Truth::Yes);
        tri.set(1, crate::truth::Truth::Unknown);
        let not = tri.negate();
        let values: Vec<_> = (0..3).map(|n| not.get(n)).collect();
        use crate::truth::Truth::{No, Unknown, Yes};
        assert_eq!(values, [No, Unknown, Yes]);
    }
}
