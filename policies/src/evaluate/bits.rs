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

    /// How many numbers it has.
    pub(super) fn count(&self) -> usize {
        self.words.iter().map(|word| usize::try_from(word.count_ones()).unwrap_or(0)).sum()
    }

    /// Its numbers, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.between(0, self.len)
    }

    /// Its numbers from `start` up to, without, `end`; ascending.
    pub(super) fn between(&self, start: usize, end: usize) -> impl Iterator<Item = usize> + '_ {
        let first = start / 64;
        let words = self.words.get(first..end.div_ceil(64).min(self.words.len())).unwrap_or_default();
        let shift = |n: usize| u32::try_from(n % 64).unwrap_or(0);
        words.iter().enumerate().flat_map(move |(at, word)| {
            let base = first.saturating_add(at).saturating_mul(64);
            let mut rest = *word;
            if base < start {
                rest &= u64::MAX.wrapping_shl(shift(start));
            }
            if end.saturating_sub(base) < 64 {
                rest &= !u64::MAX.wrapping_shl(shift(end));
            }
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
    fn the_numbers_between_two_are_those_and_no_others() {
        let mut bits = Bits::empty(200);
        [0, 5, 63, 64, 127, 128, 199].into_iter().for_each(|n| bits.set(n));
        for start in 0..=200usize {
            for end in start..=200 {
                let wanted: Vec<_> = bits.iter().filter(|n| (start..end).contains(n)).collect();
                assert_eq!(bits.between(start, end).collect::<Vec<_>>(), wanted, "{start}..{end}");
            }
        }
        assert_eq!((bits.count(), Bits::full(130).count()), (7, 130));
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
