//! Results that nobody is subscribed to: kept while they hold and there is room.

use std::collections::BTreeMap;

use super::State;
use crate::evaluation::QueryKey;
use crate::reader::EntryId;

/// The queries without a subscriber, the one asked for longest ago first.
#[derive(Debug)]
pub(super) struct Cache {
    by_turn: BTreeMap<u64, EntryId>,
    bytes: usize,
    bytes_max: usize,
    next_turn: u64,
}

impl Cache {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { by_turn: BTreeMap::new(), bytes: 0, bytes_max, next_turn: 0 }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl State {
    /// Keeps a query without subscribers while it holds and there is room; drops it otherwise.
    pub(super) fn settle(&mut self, id: EntryId) {
        let Some(entry) = self.entries.get(&id) else { return };
        if entry.is_wanted() || entry.running {
            return;
        }
        let bytes = match (&entry.current, entry.until) {
            (Some(current), None) if current.may_be_shared() && self.streaming => current.bytes(),
            _ => return self.remove(id),
        };
        self.uncache(id);
        self.cache.next_turn += 1;
        let turn = self.cache.next_turn;
        if let Some(entry) = self.entries.get_mut(&id) {
            (entry.turn, entry.cached_bytes) = (turn, bytes);
        }
        self.cache.by_turn.insert(turn, id);
        self.cache.bytes += bytes;
        while self.cache.bytes > self.cache.bytes_max && self.drop_oldest() {}
    }

    /// Notes that a query was asked for.
    pub(crate) fn touch(&mut self, key: &QueryKey) {
        if let Some(id) = self.by_key.get(key).copied() {
            self.settle(id);
        }
    }

    pub(super) fn uncache(&mut self, id: EntryId) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if entry.turn != 0 && self.cache.by_turn.remove(&entry.turn).is_some() {
            self.cache.bytes -= entry.cached_bytes;
        }
        entry.turn = 0;
    }

    /// Drops all that nobody is subscribed to.
    pub(crate) fn drop_cached(&mut self) {
        while self.drop_oldest() {}
    }

    fn drop_oldest(&mut self) -> bool {
        let Some(oldest) = self.cache.by_turn.first_key_value().map(|(_, id)| *id) else { return false };
        // Which takes it out of the cache.
        self.remove(oldest);
        true
    }
}
