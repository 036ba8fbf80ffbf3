//! Who reads a row, by its id.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use super::Slot;

/// Below this, a map is too small to be worth shrinking.
const ROWS_KEPT: usize = 1024;

/// Readers by row, each with what it knows of the row. Nearly all rows have one reader, so a second one goes elsewhere: 20
/// bytes a row and not 40 where nothing is known, with millions of rows handed out.
#[derive(Debug)]
pub(super) struct RowReaders<Known = ()> {
    first: HashMap<Uuid, (Slot, Known)>,
    /// Never empty maps, never with the first one in them.
    others: HashMap<Uuid, BTreeMap<Slot, Known>>,
}

impl<Known> Default for RowReaders<Known> {
    fn default() -> Self {
        Self { first: HashMap::new(), others: HashMap::new() }
    }
}

impl<Known: Copy> RowReaders<Known> {
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.first.capacity()
    }

    pub(super) fn insert(&mut self, id: Uuid, slot: Slot, known: Known) {
        let (first, _) = *self.first.entry(id).or_insert((slot, known));
        if first != slot {
            self.others.entry(id).or_default().insert(slot, known);
        }
    }

    pub(super) fn remove(&mut self, id: Uuid, slot: Slot) {
        let Some(first) = self.first.get_mut(&id) else { return };
        let Some(others) = self.others.get_mut(&id) else {
            if first.0 == slot {
                self.first.remove(&id);
                shrink(&mut self.first);
            }
            return;
        };
        if first.0 != slot {
            others.remove(&slot);
        } else if let Some(next) = others.pop_first() {
            *first = next;
        }
        if others.is_empty() {
            self.others.remove(&id);
            shrink(&mut self.others);
        }
    }

    /// Whether anybody reads the row.
    pub(super) fn is_read(&self, id: Uuid) -> bool {
        self.first.contains_key(&id)
    }

    /// Calls `reader` with each reader of the row.
    pub(super) fn of(&self, id: Uuid, mut reader: impl FnMut(Slot, Known)) {
        let Some((first, known)) = self.first.get(&id) else { return };
        reader(*first, *known);
        self.others.get(&id).into_iter().flatten().for_each(|(other, known)| reader(*other, *known));
    }

    /// What a reader of the row knows of it.
    pub(super) fn known(&self, id: Uuid, slot: Slot) -> Option<Known> {
        match self.first.get(&id)? {
            (first, known) if *first == slot => Some(*known),
            _ => self.others.get(&id)?.get(&slot).copied(),
        }
    }
}

/// Gives memory back after a crowd has left; seldom enough that each removal pays for little of it.
fn shrink<V>(rows: &mut HashMap<Uuid, V>) {
    if rows.capacity() > ROWS_KEPT && rows.len() < rows.capacity() / 8 {
        rows.shrink_to(rows.len() * 2);
    }
}
