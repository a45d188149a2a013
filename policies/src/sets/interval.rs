//! Sets of integers as sorted, disjoint, non-touching closed intervals.

/// An integer that intervals are made of.
pub trait Point: Copy + Ord + std::fmt::Debug {
    /// The smallest.
    const MIN: Self;
    /// The largest.
    const MAX: Self;
    /// The one after, unless this is the largest.
    fn after(self) -> Option<Self>;
    /// The one before, unless this is the smallest.
    fn before(self) -> Option<Self>;
}

macro_rules! point {
    ($type:ty) => {
        impl Point for $type {
            const MIN: Self = <$type>::MIN;
            const MAX: Self = <$type>::MAX;
            fn after(self) -> Option<Self> {
                self.checked_add(1)
            }
            fn before(self) -> Option<Self> {
                self.checked_sub(1)
            }
        }
    };
}
point!(u16);
point!(u128);

/// A set of integers. Two equal sets are represented equally.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Intervals<T> {
    /// Sorted, disjoint, with a gap between each two; both ends belong to the set.
    parts: Vec<(T, T)>,
}

impl<T> Default for Intervals<T> {
    fn default() -> Self {
        Self { parts: Vec::new() }
    }
}

impl<T> Intervals<T> {
    /// The empty set, as a constant.
    pub const EMPTY: Self = Self { parts: Vec::new() };
}

impl<T: Point> Intervals<T> {
    /// The empty set.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Every integer.
    pub fn full() -> Self {
        Self { parts: vec![(T::MIN, T::MAX)] }
    }

    /// `first..=last`; empty if `last < first`.
    pub fn range(first: T, last: T) -> Self {
        Self { parts: if first <= last { vec![(first, last)] } else { Vec::new() } }
    }

    /// The union of any intervals, in any order.
    pub fn of(intervals: impl IntoIterator<Item = (T, T)>) -> Self {
        let mut parts: Vec<(T, T)> = intervals.into_iter().filter(|(a, b)| a <= b).collect();
        parts.sort_unstable();
        let mut merged: Vec<(T, T)> = Vec::with_capacity(parts.len());
        for (first, last) in parts {
            match merged.last_mut() {
                Some((_, end)) if end.after().is_none_or(|next| first <= next) => *end = (*end).max(last),
                _ => merged.push((first, last)),
            }
        }
        Self { parts: merged }
    }

    /// The intervals, ascending.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (T, T)> + Clone + '_ {
        self.parts.iter().copied()
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Whether everything is in it.
    pub fn is_full(&self) -> bool {
        matches!(self.parts.as_slice(), [(first, last)] if *first == T::MIN && *last == T::MAX)
    }

    /// The smallest member.
    pub fn first(&self) -> Option<T> {
        self.parts.first().map(|(first, _)| *first)
    }

    /// Whether it has this member.
    pub fn contains(&self, point: T) -> bool {
        let after = self.parts.partition_point(|(first, _)| *first <= point);
        after.checked_sub(1).and_then(|i| self.parts.get(i)).is_some_and(|(_, last)| point <= *last)
    }

    /// What is in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        if self.is_empty() || other.is_full() {
            return other.clone();
        }
        if other.is_empty() || self.is_full() {
            return self.clone();
        }
        Self::of(self.iter().chain(other.iter()))
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let (mut left, mut right) = (self.iter().peekable(), other.iter().peekable());
        let mut parts = Vec::new();
        while let (Some((a, b)), Some((c, d))) = (left.peek().copied(), right.peek().copied()) {
            let (first, last) = (a.max(c), b.min(d));
            if first <= last {
                parts.push((first, last));
            }
            if b <= d {
                left.next();
            } else {
                right.next();
            }
        }
        Self { parts }
    }

    /// What is not in it.
    #[must_use]
    pub fn complement(&self) -> Self {
        let mut parts = Vec::with_capacity(self.parts.len().saturating_add(1));
        let mut from = Some(T::MIN);
        for (first, last) in self.iter() {
            if let (Some(from), Some(to)) = (from, first.before())
                && from <= to
            {
                parts.push((from, to));
            }
            from = last.after();
        }
        if let Some(from) = from {
            parts.push((from, T::MAX));
        }
        Self { parts }
    }

    /// What is in this and not in the other.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        if self.is_empty() || other.is_empty() {
            self.clone()
        } else {
            self.intersection(&other.complement())
        }
    }

    /// Whether every member of this is in the other.
    pub fn is_subset(&self, other: &Self) -> bool {
        self.iter().all(|(first, last)| {
            let after = other.parts.partition_point(|(start, _)| *start <= first);
            after.checked_sub(1).and_then(|i| other.parts.get(i)).is_some_and(|(_, end)| last <= *end)
        })
    }

    /// Whether the two share a member.
    pub fn intersects(&self, other: &Self) -> bool {
        let (mut left, mut right) = (self.parts.as_slice(), other.parts.as_slice());
        while let (Some(((a, b), after_left)), Some(((c, d), after_right))) =
            (left.split_first(), right.split_first())
        {
            if a <= d && c <= b {
                return true;
            }
            if b < d {
                left = after_left;
            } else {
                right = after_right;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::arithmetic_side_effects, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    /// A set over 0..=255 in u16 beside the plain truth of it, members of the top end included.
    fn set() -> impl Strategy<Value = (Intervals<u16>, Vec<bool>)> {
        proptest::collection::vec((0u16..256, 0u16..256), 0..8).prop_map(|pairs| {
            let pairs: Vec<_> =
                pairs.into_iter().map(|(a, b)| (u16::MAX - 255 + a, u16::MAX - 255 + b)).collect();
            let truth = (u16::MAX - 255..=u16::MAX)
                .map(|p| pairs.iter().any(|(a, b)| (*a..=*b).contains(&p)))
                .collect();
            (Intervals::of(pairs), truth)
        })
    }

    fn members(set: &Intervals<u16>) -> Vec<bool> {
        (u16::MAX - 255..=u16::MAX).map(|p| set.contains(p)).collect()
    }

    proptest! {
        #[test]
        fn sets_agree_with_plain_truth((a, at) in set(), (b, bt) in set()) {
            let zip = |f: fn(bool, bool) -> bool| at.iter().zip(&bt).map(|(x, y)| f(*x, *y)).collect::<Vec<_>>();
            prop_assert_eq!(members(&a), at.clone());
            prop_assert_eq!(members(&a.union(&b)), zip(|x, y| x || y));
            prop_assert_eq!(members(&a.intersection(&b)), zip(|x, y| x && y));
            prop_assert_eq!(members(&a.difference(&b)), zip(|x, y| x && !y));
            prop_assert_eq!(members(&a.complement()), at.iter().map(|x| !x).collect::<Vec<_>>());
            prop_assert_eq!(a.is_subset(&b), at.iter().zip(&bt).all(|(x, y)| !x || *y));
            prop_assert_eq!(a.intersects(&b), at.iter().zip(&bt).any(|(x, y)| *x && *y));
        }

        #[test]
        fn equal_sets_are_represented_equally((a, at) in set(), (b, bt) in set()) {
            prop_assert_eq!(a == b, at == bt);
            prop_assert_eq!(a.complement().complement(), a);
        }
    }

    #[test]
    fn touching_intervals_become_one() {
        assert_eq!(Intervals::of([(1u16, 2), (3, 4)]), Intervals::range(1, 4));
        assert_eq!(Intervals::<u16>::full().complement(), Intervals::empty());
        assert_eq!(Intervals::<u128>::empty().complement(), Intervals::full());
    }
}
