//! The index over all live read sets: whom a written row concerns.
//!
//! Time grows with the hits, not with the subscriptions. For each table there is a hash map from row to readers, and
//! for each definition of an index a tree of ranges that is asked for those around a position. A row's position is
//! computed once a definition, however many ranges there are. Reads of some fields are kept apart by which fields: of a row
//! that they know a digest is computed once for each such set of fields, which are few.

mod change;
mod projected;
mod ranges;
mod rows;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use convoke_model::{Ids, Index, Position, Projection, Range, Read, ReadSet};
use slab::Slab;
use uuid::Uuid;

pub use change::{Hits, Reason, Row, RowChange};
use projected::{ProjectionReaders, Put};
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

    /// Adds the subscriptions that the change concerns.
    ///
    /// One value may serve all the changes of a transaction: what is in it already keeps its reason.
    pub fn hits(&self, change: &RowChange<'_>, hits: &mut Hits<Id>) {
        let mut sink = Sink { live: &self.live, hits };
        for slot in &self.of_everything {
            sink.changed(*slot, Reason::ReadsEverything);
        }
        if let Some((table, readers)) = change.table().and_then(|table| self.tables.get_key_value(&table)) {
            readers.hits(*table, change, &mut sink);
        }
        match change {
            RowChange::Relation { schema, name } => {
                let readers = self.relations.get(*schema).and_then(|names| names.get(*name));
                for slot in readers.into_iter().flatten() {
                    sink.changed(*slot, Reason::Relation { schema: (*schema).to_owned(), name: (*name).to_owned() });
                }
            }
            RowChange::Everything => {
                for (slot, _) in &self.live {
                    sink.changed(slot as Slot, Reason::Gap);
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
                readers.documents.insert(*id, slot, ());
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

/// Takes slots down as the subscriptions that they are of.
struct Sink<'a, Id> {
    live: &'a Slab<Live<Id>>,
    hits: &'a mut Hits<Id>,
}

impl<Id: Copy + Ord> Sink<'_, Id> {
    fn changed(&mut self, slot: Slot, reason: Reason) {
        if let Some(live) = self.live.get(slot as usize) {
            self.hits.changed.entry(live.id).or_insert(reason);
        }
    }

    fn as_seen(&mut self, slot: Slot) {
        if let Some(live) = self.live.get(slot as usize) {
            self.hits.as_seen.insert(live.id);
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
    /// Rows that range reads were given as a whole.
    handed_out: RowReaders,
    /// Range reads that do not know which rows they counted in.
    counting: BTreeSet<Slot>,
    /// One for each definition of an index; few, and more than one of a name only while a deploy goes round.
    indexes: Vec<IndexReaders>,
}

/// What is read of one definition of an index.
#[derive(Debug)]
struct IndexReaders {
    index: Arc<Index>,
    ranges: RangeTree,
    /// One for each set of fields that reads look at; the others look at whole documents.
    projections: Vec<ProjectionReaders>,
}

impl IndexReaders {
    /// Whether positions in the other index are positions in this one, under the same name.
    fn is_of(&self, index: &Arc<Index>) -> bool {
        Arc::ptr_eq(&self.index, index) || (self.index.name == index.name && self.index.fields == index.fields)
    }

    fn is_empty(&self) -> bool {
        self.ranges.is_empty() && self.projections.is_empty()
    }

    fn projection(&mut self, projection: &Projection) -> &mut ProjectionReaders {
        let at = self.projections.iter().position(|known| known.is_of(projection)).unwrap_or_else(|| {
            self.projections.push(ProjectionReaders::new(projection.clone()));
            self.projections.len() - 1
        });
        &mut self.projections[at]
    }

    fn remove(&mut self, slot: Slot, ranges: &[Range], ids: &Ids) {
        let Ids::Seen(seen) = ids else {
            return ranges.iter().for_each(|range| self.ranges.remove(range, slot));
        };
        if let Some(at) = self.projections.iter().position(|known| known.is_of(&seen.projection)) {
            self.projections[at].remove(slot, ranges, seen);
            if self.projections[at].is_empty() {
                self.projections.remove(at);
            }
        }
    }

    /// Where a row lies, if that can be told.
    fn position(&self, row: &Row<'_>) -> Option<Position> {
        match row.data {
            Some(data) => Position::of_texts(&self.index, |name| data.text(name), row.creation_time, row.id).ok(),
            // An index over the creation time alone needs no field to tell the position.
            None if self.index.fields.is_empty() => {
                Position::of_texts(&self.index, |_| None, row.creation_time, row.id).ok()
            }
            None => None,
        }
    }
}

impl TableReaders {
    fn insert_range(&mut self, slot: Slot, index: &Arc<Index>, ranges: &[Range], ids: &Ids) {
        match ids {
            Ids::Known(ids) => ids.iter().for_each(|id| self.handed_out.insert(*id, slot, ())),
            Ids::Seen(seen) => seen.whole.iter().for_each(|id| self.handed_out.insert(*id, slot, ())),
            Ids::Unknown => {
                self.counting.insert(slot);
            }
        }
        // A read without any range is one that nothing can enter.
        let mut ranges = ranges.iter().filter(|range| !ranges::is_empty(range)).peekable();
        let has_seen = matches!(ids, Ids::Seen(seen) if !seen.rows.is_empty());
        if ranges.peek().is_none() && !has_seen {
            return;
        }
        let at = self.indexes.iter().position(|known| known.is_of(index)).unwrap_or_else(|| {
            let index = Arc::clone(index);
            self.indexes.push(IndexReaders { index, ranges: RangeTree::default(), projections: Vec::new() });
            self.indexes.len() - 1
        });
        let readers = &mut self.indexes[at];
        match ids {
            Ids::Seen(seen) => readers.projection(&seen.projection).insert(slot, ranges, seen),
            Ids::Known(_) | Ids::Unknown => ranges.for_each(|range| readers.ranges.insert(range, slot)),
        }
    }

    fn remove(&mut self, slot: Slot, read: &Read) {
        self.all.remove(&slot);
        match read {
            Read::Document { id, .. } => self.documents.remove(*id, slot),
            Read::Range { index, ranges, ids, .. } => {
                match ids {
                    Ids::Known(ids) => ids.iter().for_each(|id| self.handed_out.remove(*id, slot)),
                    Ids::Seen(seen) => seen.whole.iter().for_each(|id| self.handed_out.remove(*id, slot)),
                    Ids::Unknown => {
                        self.counting.remove(&slot);
                    }
                }
                if let Some(at) = self.indexes.iter().position(|known| known.is_of(index)) {
                    self.indexes[at].remove(slot, ranges, ids);
                    if self.indexes[at].is_empty() {
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

    fn hits<Id: Copy + Eq + Hash + Ord>(&self, table: u32, change: &RowChange<'_>, sink: &mut Sink<'_, Id>) {
        match change {
            RowChange::Insert { row, .. } => {
                self.documents.of(row.id, |slot, ()| sink.changed(slot, Reason::Document { table, id: row.id }));
                self.put(table, row, false, sink);
            }
            RowChange::Update { old_id, row, .. } => {
                let old_id = old_id.filter(|old_id| *old_id != row.id);
                self.leaves(table, row.id, sink);
                if let Some(old_id) = old_id {
                    self.leaves(table, old_id, sink);
                    self.leaves_projections(table, old_id, sink);
                    self.leaves_projections(table, row.id, sink);
                }
                self.put(table, row, old_id.is_none(), sink);
            }
            RowChange::Delete { id, .. } => {
                self.leaves(table, *id, sink);
                self.leaves_projections(table, *id, sink);
            }
            RowChange::Truncate { .. } => {
                self.all.iter().for_each(|slot| sink.changed(*slot, Reason::Truncated { table }));
            }
            RowChange::Relation { .. } | RowChange::Everything => {}
        }
    }

    /// A row was changed or is gone: it concerns whoever has it, or may have counted it in.
    fn leaves<Id: Copy + Eq + Hash + Ord>(&self, table: u32, id: Uuid, sink: &mut Sink<'_, Id>) {
        self.documents.of(id, |slot, ()| sink.changed(slot, Reason::Document { table, id }));
        self.handed_out.of(id, |slot, ()| sink.changed(slot, Reason::HandedOut { table, id }));
        self.counting.iter().for_each(|slot| sink.changed(*slot, Reason::MayBeCounted { table, id }));
    }

    /// A row is gone: it concerns those too who have a part of it.
    fn leaves_projections<Id: Copy + Eq + Hash + Ord>(&self, table: u32, id: Uuid, sink: &mut Sink<'_, Id>) {
        for projection in self.indexes.iter().flat_map(|readers| &readers.projections) {
            projection.leaves(table, id, sink);
        }
    }

    /// A row was written: it concerns whoever reads the place where it lies.
    fn put<Id: Copy + Eq + Hash + Ord>(&self, table: u32, row: &Row<'_>, was_there: bool, sink: &mut Sink<'_, Id>) {
        let id = row.id;
        for readers in &self.indexes {
            let IndexReaders { index, ranges, projections } = readers;
            let position = readers.position(row);
            match &position {
                Some(position) => ranges.around(position, |slot| {
                    sink.changed(slot, Reason::Entered { table, index: Arc::clone(index), id });
                }),
                None => ranges.all(|slot| {
                    sink.changed(slot, Reason::MayHaveEntered { table, index: Arc::clone(index), id });
                }),
            }
            let put = Put { table, index, row, position: position.as_ref(), was_there };
            for projection in projections {
                projection.put(&put, sink);
            }
        }
    }
}
