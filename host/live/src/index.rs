//! The index over all live read sets: whom a written row concerns.
//!
//! Time grows with the hits, not with the subscriptions. For each table there is a hash map from row to readers, and
//! for each definition of an index a tree of ranges that is asked for those around a position. A row's position is
//! computed once a definition, however many ranges there are.

mod change;
mod ranges;
mod rows;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use convoke_model::{Ids, Index, Position, Range, Read, ReadSet};
use serde_json::Map;
use slab::Slab;
use uuid::Uuid;

pub use change::{Reason, Row, RowChange};
use ranges::RangeTree;
use rows::RowReaders;

/// A subscription's place in [`ReadSetIndex::live`]: half of an id of 64 bits, and there are many of them.
type Slot = u32;

/// The live read sets, by what they read. An `Id` names a subscription, or an evaluation that several share.
#[derive(Debug)]
pub struct ReadSetIndex<Id> {
    live: Slab<Live<Id>>,
    slots: HashMap<Id, Slot>,
    tables: BTreeMap<u32, TableReaders>,
    /// By schema, then name.
    relations: BTreeMap<String, BTreeMap<String, BTreeSet<Slot>>>,
    of_everything: BTreeSet<Slot>,
}

/// A subscription, with what to take out again when it goes.
#[derive(Debug)]
struct Live<Id> {
    id: Id,
    reads: Arc<ReadSet>,
}

impl<Id> Default for ReadSetIndex<Id> {
    fn default() -> Self {
        Self {
            live: Slab::new(),
            slots: HashMap::new(),
            tables: BTreeMap::new(),
            relations: BTreeMap::new(),
            of_everything: BTreeSet::new(),
        }
    }
}

impl<Id: Copy + Eq + Hash + Ord> ReadSetIndex<Id> {
    /// An index without subscriptions.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many subscriptions there are.
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Whether there are no subscriptions.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// Takes a subscription in; one that is there already gets these reads for its old ones.
    pub fn insert(&mut self, id: Id, reads: Arc<ReadSet>) {
        self.remove(id);
        let slot = self.live.vacant_key() as Slot;
        for read in &reads.reads {
            self.insert_read(slot, read);
        }
        self.live.insert(Live { id, reads });
        self.slots.insert(id, slot);
    }

    /// Forgets a subscription; says whether it was there.
    pub fn remove(&mut self, id: Id) -> bool {
        let Some(slot) = self.slots.remove(&id) else { return false };
        let Some(live) = self.live.try_remove(slot as usize) else { return false };
        for read in &live.reads.reads {
            self.remove_read(slot, read);
        }
        true
    }

    /// Adds the subscriptions whose result the change may have changed, each with the first reason found for it.
    ///
    /// One map may serve all the changes of a transaction: what is in it already keeps its reason.
    pub fn hits(&self, change: &RowChange<'_>, hits: &mut BTreeMap<Id, Reason>) {
        let mut hit = |slot: Slot, reason: Reason| {
            if let Some(live) = self.live.get(slot as usize) {
                hits.entry(live.id).or_insert(reason);
            }
        };
        for slot in &self.of_everything {
            hit(*slot, Reason::ReadsEverything);
        }
        if let Some((table, readers)) = change.table().and_then(|table| self.tables.get_key_value(&table)) {
            readers.hits(*table, change, &mut hit);
        }
        match change {
            RowChange::Relation { schema, name } => {
                let readers = self.relations.get(*schema).and_then(|names| names.get(*name));
                for slot in readers.into_iter().flatten() {
                    hit(*slot, Reason::Relation { schema: (*schema).to_owned(), name: (*name).to_owned() });
                }
            }
            RowChange::Everything => {
                for (slot, _) in &self.live {
                    hit(slot as Slot, Reason::Gap);
                }
            }
            RowChange::Insert { .. }
            | RowChange::Update { .. }
            | RowChange::Delete { .. }
            | RowChange::Truncate { .. } => {}
        }
    }

    fn insert_read(&mut self, slot: Slot, read: &Read) {
        match read {
            Read::Document { table, id } => {
                let readers = self.tables.entry(*table).or_default();
                readers.all.insert(slot);
                readers.documents.insert(*id, slot);
            }
            Read::Range { table, index, ranges, ids } => {
                let readers = self.tables.entry(*table).or_default();
                readers.all.insert(slot);
                readers.insert_range(slot, index, ranges, ids);
            }
            Read::Relation { schema, name } => {
                let names = self.relations.entry(schema.clone()).or_default();
                names.entry(name.clone()).or_default().insert(slot);
            }
            Read::Everything => {
                self.of_everything.insert(slot);
            }
        }
    }

    /// Undoes [`Self::insert_read`]. Two reads may have put down the same thing, which is then gone the second time.
    fn remove_read(&mut self, slot: Slot, read: &Read) {
        match read {
            Read::Document { table, .. } | Read::Range { table, .. } => {
                let Some(readers) = self.tables.get_mut(table) else { return };
                readers.remove(slot, read);
                if readers.all.is_empty() && readers.is_bare() {
                    self.tables.remove(table);
                }
            }
            Read::Relation { schema, name } => {
                let Some(names) = self.relations.get_mut(schema) else { return };
                if let Some(readers) = names.get_mut(name) {
                    readers.remove(&slot);
                    if readers.is_empty() {
                        names.remove(name);
                    }
                }
                if names.is_empty() {
                    self.relations.remove(schema);
                }
            }
            Read::Everything => {
                self.of_everything.remove(&slot);
            }
        }
    }
}

/// Who reads what of one table.
#[derive(Debug, Default)]
struct TableReaders {
    /// Whoever reads anything of it.
    all: BTreeSet<Slot>,
    /// Reads of a document by its id.
    documents: RowReaders,
    /// Rows that range reads were given.
    handed_out: RowReaders,
    /// Range reads that do not know which rows they counted in.
    counting: BTreeSet<Slot>,
    /// One for each definition of an index; few, and more than one of a name only while a deploy goes round.
    indexes: Vec<IndexReaders>,
}

/// The ranges that are read of one definition of an index.
#[derive(Debug)]
struct IndexReaders {
    index: Arc<Index>,
    ranges: RangeTree,
}

impl IndexReaders {
    /// Whether positions in the other index are positions in this one, under the same name.
    fn is_of(&self, index: &Arc<Index>) -> bool {
        Arc::ptr_eq(&self.index, index) || (self.index.name == index.name && self.index.fields == index.fields)
    }
}

impl TableReaders {
    fn insert_range(&mut self, slot: Slot, index: &Arc<Index>, ranges: &[Range], ids: &Ids) {
        match ids {
            Ids::Known(ids) => ids.iter().for_each(|id| self.handed_out.insert(*id, slot)),
            Ids::Unknown => {
                self.counting.insert(slot);
            }
        }
        // A read without any range is one that nothing can enter.
        let mut ranges = ranges.iter().filter(|range| !ranges::is_empty(range)).peekable();
        if ranges.peek().is_none() {
            return;
        }
        let at = self.indexes.iter().position(|known| known.is_of(index)).unwrap_or_else(|| {
            self.indexes.push(IndexReaders { index: Arc::clone(index), ranges: RangeTree::default() });
            self.indexes.len() - 1
        });
        for range in ranges {
            self.indexes[at].ranges.insert(range, slot);
        }
    }

    fn remove(&mut self, slot: Slot, read: &Read) {
        self.all.remove(&slot);
        match read {
            Read::Document { id, .. } => self.documents.remove(*id, slot),
            Read::Range { index, ranges, ids, .. } => {
                match ids {
                    Ids::Known(ids) => ids.iter().for_each(|id| self.handed_out.remove(*id, slot)),
                    Ids::Unknown => {
                        self.counting.remove(&slot);
                    }
                }
                if let Some(at) = self.indexes.iter().position(|known| known.is_of(index)) {
                    for range in ranges {
                        self.indexes[at].ranges.remove(range, slot);
                    }
                    if self.indexes[at].ranges.is_empty() {
                        self.indexes.remove(at);
                    }
                }
            }
            Read::Relation { .. } | Read::Everything => {}
        }
    }

    /// Whether nothing of it is read, `all` aside.
    fn is_bare(&self) -> bool {
        self.documents.is_empty() && self.handed_out.is_empty() && self.counting.is_empty() && self.indexes.is_empty()
    }

    fn hits(&self, table: u32, change: &RowChange<'_>, hit: &mut impl FnMut(Slot, Reason)) {
        match change {
            RowChange::Insert { row, .. } => {
                self.documents.of(row.id, |slot| hit(slot, Reason::Document { table, id: row.id }));
                self.enters(table, row, hit);
            }
            RowChange::Update { old_id, row, .. } => {
                self.leaves(table, row.id, hit);
                if let Some(old_id) = old_id {
                    self.leaves(table, *old_id, hit);
                }
                self.enters(table, row, hit);
            }
            RowChange::Delete { id, .. } => self.leaves(table, *id, hit),
            RowChange::Truncate { .. } => self.all.iter().for_each(|slot| hit(*slot, Reason::Truncated { table })),
            RowChange::Relation { .. } | RowChange::Everything => {}
        }
    }

    /// A row was changed or is gone: it concerns whoever has it, or may have counted it in.
    fn leaves(&self, table: u32, id: Uuid, hit: &mut impl FnMut(Slot, Reason)) {
        self.documents.of(id, |slot| hit(slot, Reason::Document { table, id }));
        self.handed_out.of(id, |slot| hit(slot, Reason::HandedOut { table, id }));
        self.counting.iter().for_each(|slot| hit(*slot, Reason::MayBeCounted { table, id }));
    }

    /// A row lies where it did not before: it concerns whoever reads that place.
    fn enters(&self, table: u32, row: &Row<'_>, hit: &mut impl FnMut(Slot, Reason)) {
        let id = row.id;
        let nothing = Map::new();
        for IndexReaders { index, ranges } in &self.indexes {
            // An index over the creation time alone needs no field to tell the position.
            let data = row.data.or_else(|| index.fields.is_empty().then_some(&nothing));
            match data {
                Some(data) => {
                    let position = Position::of(index, data, row.creation_time, id);
                    ranges.around(&position, |slot| hit(slot, Reason::Entered { table, index: Arc::clone(index), id }));
                }
                None => ranges.all(|slot| hit(slot, Reason::MayHaveEntered { table, index: Arc::clone(index), id })),
            }
        }
    }
}
