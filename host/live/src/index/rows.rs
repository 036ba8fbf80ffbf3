//! Who reads a row, by its id.

use std::collections::{BTreeSet, HashMap};

use uuid::Uuid;

use super::Slot;

/// Below this, a map is too small to be worth shrinking.
const ROWS_KEPT: usize = 1024;

/// Readers by row. Nearly all rows have one reader, so a second one goes elsewhere: 20 bytes a row and not 40, with
/// millions of rows handed out.
#[derive(Debug, Default)]
pub(super) struct RowReaders {
    first: HashMap<Uuid, Slot>,
    /// Never empty sets, never with the first one in them.
    others: HashMap<Uuid, BTreeSet<Slot>>,
}

impl RowReaders {
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.first.capacity()
    }

    pub(super) fn insert(&mut self, id: Uuid, slot: Slot) {
        let first = *self.first.entry(id).or_insert(slot);
        if first != slot {
            self.others.entry(id).or_default().insert(slot);
        }
    }

    pub(super) fn remove(&mut self, id: Uuid, slot: Slot) {
        let Some(first) = self.first.get_mut(&id) else { return };
        let Some(others) = self.others.get_mut(&id) else {
            if *first == slot {
                self.first.remove(&id);
                shrink(&mut self.first);
            }
            return;
        };
        if *first != slot {
            others.remove(&slot);
        } else if let Some(next) = others.pop_first() {
            *first = next;
        }
        if others.is_empty() {
            self.others.remove(&id);
            shrink(&mut self.others);
        }
    }

    /// Calls `reader` with each reader of the row.
    pub(super) fn of(&self, id: Uuid, mut reader: impl FnMut(Slot)) {
        let Some(first) = self.first.get(&id) else { return };
        reader(*first);
        self.others.get(&id).into_iter().flatten().for_each(|other| reader(*other));
    }
}

/// Gives memory back after a crowd has left; seldom enough that each removal pays for little of it.
fn shrink<V>(rows: &mut HashMap<Uuid, V>) {
    if rows.capacity() > ROWS_KEPT && rows.len() < rows.capacity() / 8 {
        rows.shrink_to(rows.len() * 2);
    }
}
