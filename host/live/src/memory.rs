//! The memory that results take, whoever holds them: the cache, subscriptions, readers that are slow.
//!
//! Each result holds what it takes from when it is made until the last one who has it lets go of it. So the figure is
//! true by construction, and a reader that does not read counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use convoke_model::{Ids, Read, ReadSet};

/// Results up to this size have a quarter of the room for themselves: who reads large ones slowly does not keep others
/// from theirs.
const SMALL_BYTES_MAX: usize = 64 << 10;

/// Roughly, of a row in a read set with its place in the index (`tests/memory.rs`), and of all else in a result.
const ROW_BYTES: usize = 96;
const READ_BYTES: usize = 512;

/// How much results take, and may take.
#[derive(Debug)]
pub(crate) struct Memory {
    bytes: AtomicUsize,
    bytes_max: usize,
}

/// A part of the memory, until it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    memory: Arc<Memory>,
    bytes: AtomicUsize,
}

impl Memory {
    pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes: AtomicUsize::new(0), bytes_max })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    pub(crate) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Whether not even a small result has room.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes() >= self.bytes_max
    }

    /// So much of it; none where there is no room.
    pub(crate) fn hold(self: &Arc<Self>, bytes: usize) -> Option<Held> {
        let bytes_max = if bytes <= SMALL_BYTES_MAX { self.bytes_max } else { self.bytes_max / 4 * 3 };
        let add = |held: usize| held.checked_add(bytes).filter(|held| *held <= bytes_max);
        self.bytes.fetch_update(Relaxed, Relaxed, add).ok()?;
        Some(Held { memory: Arc::clone(self), bytes: AtomicUsize::new(bytes) })
    }

    /// So much of it, whether there is room or not: for the little that a failure takes.
    pub(crate) fn hold_anyway(self: &Arc<Self>, bytes: usize) -> Held {
        self.bytes.fetch_add(bytes, Relaxed);
        Held { memory: Arc::clone(self), bytes: AtomicUsize::new(bytes) }
    }
}

impl Held {
    /// Adds a copy of what is held already.
    pub(crate) fn grow(&self, bytes: usize) {
        self.memory.bytes.fetch_add(bytes, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.memory.bytes.fetch_sub(self.bytes(), Relaxed);
    }
}

/// What a read set takes with its place in the index, roughly.
pub(crate) fn read_set_bytes(reads: &ReadSet) -> usize {
    let rows = |read: &Read| match read {
        Read::Range { ranges, ids, .. } => {
            ranges.len()
                + match ids {
                    Ids::Known(ids) => ids.len(),
                    Ids::Seen(seen) => seen.rows.len() + seen.whole.len(),
                    Ids::Unknown => 0,
                }
        }
        Read::Document { .. } | Read::Relation { .. } | Read::Everything => 1,
    };
    READ_BYTES + reads.reads.iter().map(|read| rows(read) * ROW_BYTES).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_let_go_of_is_free_again() {
        let memory = Memory::new(1 << 20);
        let large = memory.hold(512 << 10).expect("room");
        assert!(memory.hold(512 << 10).is_none(), "a quarter is for small ones");
        let small: Vec<_> = std::iter::from_fn(|| memory.hold(SMALL_BYTES_MAX)).collect();
        assert_eq!(small.len(), 8);
        assert!(memory.is_full() && memory.hold(1).is_none());
        large.grow(100);
        assert_eq!(memory.bytes(), (1 << 20) + 100);
        drop((large, small));
        assert_eq!(memory.bytes(), 0);
    }
}
