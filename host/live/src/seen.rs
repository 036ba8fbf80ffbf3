//! Queries that were asked for once: what is asked for again is worth keeping.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::evaluation::QueryKey;

const SEEN_MAX: usize = 16_384;

/// Hashes of queries, in two generations.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    new: HashSet<u64>,
    old: HashSet<u64>,
}

impl Seen {
    /// Whether a query was asked for before.
    pub(crate) fn saw(&mut self, key: &QueryKey) -> bool {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let hash = hasher.finish();
        if self.new.len() >= SEEN_MAX {
            self.old = std::mem::take(&mut self.new);
        }
        !self.new.insert(hash) || self.old.contains(&hash)
    }
}
