//! Work on many pieces of an input, on all cores, within one limit on nodes.

use super::node::Budget;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Pieces that a thread takes at once.
const TAKEN: usize = 32;

/// What `work` makes of some pieces that stand together, in their order. `None` where the limit on nodes is used up, where there
/// are too few pieces for more than one thread, and on a machine with one core.
pub(super) fn map<P: Sync, T: Send>(
    pieces: &[P],
    nodes: usize,
    work: impl Fn(&[P], &mut Budget) -> T + Sync,
) -> Option<Vec<T>> {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let threads = cores.min(pieces.len() / TAKEN);
    if threads < 2 {
        return None;
    }
    let pool = Arc::new(AtomicUsize::new(nodes));
    let (next, exhausted) = (AtomicUsize::new(0), AtomicBool::new(false));
    let run = || {
        let mut budget = Budget::drawing_on(Arc::clone(&pool));
        let mut done: Vec<(usize, T)> = Vec::new();
        while !exhausted.load(Ordering::Relaxed) {
            let first = next.fetch_add(TAKEN, Ordering::Relaxed);
            let taken = pieces.get(first..first.saturating_add(TAKEN).min(pieces.len())).unwrap_or_default();
            if taken.is_empty() {
                break;
            }
            done.push((first, work(taken, &mut budget)));
            if budget.is_exhausted() {
                exhausted.store(true, Ordering::Relaxed);
            }
        }
        done
    };
    let mut done = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        let joined = handles.into_iter().map(|handle| handle.join());
        joined
            .flat_map(|part| part.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect::<Vec<_>>()
    });
    if exhausted.load(Ordering::Relaxed) {
        return None;
    }
    done.sort_unstable_by_key(|(first, _)| *first);
    Some(done.into_iter().map(|(_, part)| part).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_back_in_their_order() {
        let pieces: Vec<usize> = (0..1_000).collect();
        let spend = |some: &[usize], budget: &mut Budget| {
            some.iter().map(|piece| budget.spend().map(|()| piece * 2)).collect::<Vec<_>>()
        };
        if let Some(done) = map(&pieces, 1 << 20, spend) {
            assert_eq!(done.concat(), pieces.iter().map(|piece| Ok(piece * 2)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_limit_that_all_threads_together_exceed_gives_nothing() {
        let pieces = vec![(); 100_000];
        let spend =
            |some: &[()], budget: &mut Budget| some.iter().filter(|()| budget.spend().is_ok()).count();
        assert_eq!(map(&pieces, 50_000, spend), None);
    }
}
