//! Reads that look at some fields of rows: an update that left these alone does not concern them.

use std::hash::Hash;
use std::sync::Arc;

use convoke_model::{Index, Position, Projection, Range, Seen, SeenRows};
use uuid::Uuid;

use super::ranges::RangeTree;
use super::rows::RowReaders;
use super::{Reason, Row, Sink, Slot};

/// The reads of one definition of an index that look at the same fields. As these are those of the index and of the
/// filter too, a row in which they are what they were lies where it lay, and is selected where it was.
#[derive(Debug)]
pub(super) struct ProjectionReaders {
    projection: Projection,
    /// Rows that they were given, with what they saw of them.
    seen: RowReaders<Seen>,
    ranges: RangeTree,
}

/// A row as a write leaves it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Put<'a> {
    pub(super) table: u32,
    pub(super) index: &'a Arc<Index>,
    pub(super) row: &'a Row<'a>,
    /// Where it lies, if that is known.
    pub(super) position: Option<&'a Position>,
    /// Whether it was there before, under the same id.
    pub(super) was_there: bool,
}

impl ProjectionReaders {
    pub(super) fn new(projection: Projection) -> Self {
        Self { projection, seen: RowReaders::default(), ranges: RangeTree::default() }
    }

    pub(super) fn is_of(&self, projection: &Projection) -> bool {
        self.projection == *projection
    }

    pub(super) fn is_empty(&self) -> bool {
        self.seen.is_empty() && self.ranges.is_empty()
    }

    pub(super) fn insert<'a>(&mut self, slot: Slot, ranges: impl Iterator<Item = &'a Range>, seen: &SeenRows) {
        for (id, seen) in &seen.rows {
            self.seen.insert(*id, slot, *seen);
        }
        for range in ranges {
            self.ranges.insert(range, slot);
        }
    }

    pub(super) fn remove(&mut self, slot: Slot, ranges: &[Range], seen: &SeenRows) {
        for (id, _) in &seen.rows {
            self.seen.remove(*id, slot);
        }
        for range in ranges {
            self.ranges.remove(range, slot);
        }
    }

    /// A row is gone: it concerns whoever was given it.
    pub(super) fn leaves<Id: Copy + Eq + Hash + Ord>(&self, table: u32, id: Uuid, sink: &mut Sink<'_, Id>) {
        self.seen.of(id, |slot, _| sink.changed(slot, Reason::HandedOut { table, id }));
    }

    /// A row was written: it concerns whoever was given it and saw something else, and whoever reads the place where it
    /// lies and was not given it.
    pub(super) fn put<Id: Copy + Eq + Hash + Ord>(&self, put: &Put<'_>, sink: &mut Sink<'_, Id>) {
        let Put { table, index, row, .. } = *put;
        let id = row.id;
        let may_be_seen = put.was_there && row.is_newest && self.seen.is_read(id);
        let fields = row.data.filter(|_| may_be_seen);
        let digest = fields.map(|fields| self.projection.digest(|name| fields.text(name)));
        let is_as_seen = |seen: Seen| may_be_seen && seen.is_as(row.creation_time, digest);
        if put.was_there {
            self.seen.of(id, |slot, seen| {
                if is_as_seen(seen) {
                    sink.as_seen(slot);
                } else {
                    sink.changed(slot, Reason::HandedOut { table, id });
                }
            });
        }
        let is_concerned = |slot: Slot| !self.seen.known(id, slot).is_some_and(is_as_seen);
        match put.position {
            Some(position) => self.ranges.around(position, |slot| {
                if is_concerned(slot) {
                    sink.changed(slot, Reason::Entered { table, index: Arc::clone(index), id });
                }
            }),
            None => self.ranges.all(|slot| {
                if is_concerned(slot) {
                    sink.changed(slot, Reason::MayHaveEntered { table, index: Arc::clone(index), id });
                }
            }),
        }
    }
}
