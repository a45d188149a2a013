//! The blocks of a task's inputs that are kept in memory: bounded, the least recently used goes first.

use bytes::Bytes;

/// Length of every block but an input's last.
pub const BLOCK: u64 = 1 << 20;

/// Which block: the input and the block's number in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockId {
    /// Position of the input.
    pub input: u32,
    /// Offset in units of [`BLOCK`].
    pub number: u64,
}

impl BlockId {
    /// The block that holds `offset`.
    pub const fn at(input: u32, offset: u64) -> Self {
        Self { input, number: offset / BLOCK }
    }

    /// Where it starts.
    pub const fn start(self) -> u64 {
        self.number.saturating_mul(BLOCK)
    }

    /// Where it ends in an input of `size` bytes.
    pub fn end(self, size: u64) -> u64 {
        self.start().saturating_add(BLOCK).min(size)
    }

    /// The block after it.
    #[must_use]
    pub const fn next(self) -> Self {
        Self { input: self.input, number: self.number.saturating_add(1) }
    }
}

/// A small cache. A scan of a few dozen entries is cheaper than a map, beside the megabyte that each stands for.
#[derive(Debug)]
pub struct Blocks {
    most: usize,
    // Most recently used last.
    kept: Vec<(BlockId, Bytes)>,
}

impl Blocks {
    /// Keeps at most `most` blocks.
    pub fn new(most: usize) -> Self {
        Self { most: most.max(1), kept: Vec::new() }
    }

    /// The block, if it is here.
    pub fn get(&mut self, id: BlockId) -> Option<Bytes> {
        let at = self.kept.iter().position(|(kept, _)| *kept == id)?;
        let entry = self.kept.remove(at);
        let bytes = entry.1.clone();
        self.kept.push(entry);
        Some(bytes)
    }

    /// Keeps a block.
    pub fn put(&mut self, id: BlockId, bytes: Bytes) {
        self.kept.retain(|(kept, _)| *kept != id);
        if self.kept.len() >= self.most {
            self.kept.remove(0);
        }
        self.kept.push((id, bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_block_goes_first() {
        let id = |number| BlockId { input: 0, number };
        let mut blocks = Blocks::new(2);
        blocks.put(id(1), Bytes::from_static(b"1"));
        blocks.put(id(2), Bytes::from_static(b"2"));
        assert!(blocks.get(id(1)).is_some());
        blocks.put(id(3), Bytes::from_static(b"3"));
        assert_eq!(blocks.get(id(2)), None);
        assert_eq!(blocks.get(id(1)).as_deref(), Some(&b"1"[..]));
        assert_eq!(blocks.get(BlockId { input: 1, number: 1 }), None);
    }

    #[test]
    fn the_last_block_ends_with_the_input() {
        let last = BlockId::at(0, 2 * BLOCK + 5);
        assert_eq!((last.start(), last.end(2 * BLOCK + 10)), (2 * BLOCK, 2 * BLOCK + 10));
        assert_eq!(BlockId::at(0, u64::MAX).next().end(10), 10);
    }
}
