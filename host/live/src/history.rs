//! The transactions of the last moments, which results that come in are held against.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use convoke_feed::Snapshot;
use convoke_model::ReadSet;

use crate::changes::{What, Written};
use crate::index::{Hits, ReadSetIndex, Row, RowChange};

/// Transactions that are kept with what they wrote: an evaluation that takes longer than so many is run again.
pub(crate) const RECENT_MAX: usize = 4_096;
/// Rows in them.
const RECENT_ROWS_MAX: usize = 65_536;
/// Transactions of which the id is kept after that. Whoever began before one that is not even known by its id is run
/// again; and no transaction may take so many others to become visible after it is in the log.
pub(crate) const FORGOTTEN_MAX: usize = 262_144;

/// Transactions in the order of their commits, the newest last.
#[derive(Debug, Default)]
pub(crate) struct History {
    transactions: VecDeque<Past>,
    /// The number of each, counted from the first one ever, by the low half of its id.
    by_xid: BTreeMap<u32, u64>,
    /// Of so many, the oldest, no more than the id is known.
    forgotten: usize,
    /// Rows that the others wrote.
    rows: usize,
    /// Transactions there have been, ever.
    applied: u64,
}

#[derive(Debug)]
struct Past {
    xid: u32,
    end_lsn: u64,
    written: Vec<Written>,
}

impl History {
    pub(crate) fn applied(&self) -> u64 {
        self.applied
    }

    /// Whether a transaction after the first so many is not known any more, even by its id.
    pub(crate) fn has_dropped_since(&self, applied: u64) -> bool {
        applied < self.first()
    }

    /// Forgets everything: what was read before is not asked about.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn push(&mut self, xid: u32, end_lsn: u64, written: Vec<Written>) {
        self.by_xid.insert(xid, self.applied);
        self.applied += 1;
        self.rows += written.len();
        self.transactions.push_back(Past { xid, end_lsn, written });
        loop {
            let recent = self.transactions.len() - self.forgotten;
            if recent <= RECENT_MAX && (self.rows <= RECENT_ROWS_MAX || recent <= 1) {
                break;
            }
            // A snapshot that lacks it has to be taken anew.
            let oldest = &mut self.transactions[self.forgotten];
            self.rows -= std::mem::take(&mut oldest.written).len();
            self.forgotten += 1;
        }
        if self.forgotten > FORGOTTEN_MAX
            && let Some(oldest) = self.transactions.pop_front()
        {
            self.forgotten -= 1;
            self.by_xid.remove(&oldest.xid);
        }
    }

    /// From where a result holds until which position, as far as it is known: until the first transaction that wrote
    /// into the reads and is not in the snapshot, or that may have.
    pub(crate) fn validity(&self, snapshot: &Snapshot, from: u64, reads: &Arc<ReadSet>) -> (u64, Option<u64>) {
        let mut alone = None;
        let mut hits = |written: &[Written]| {
            let index = alone.get_or_insert_with(|| {
                let mut index = ReadSetIndex::new();
                index.insert(0_u64, Arc::clone(reads));
                index
            });
            hits_of(index, written)
        };
        // A transaction that does not wait for the log to be written (`synchronous_commit = off`) is visible before.
        let ahead = self.transactions.range(self.forgotten..).rev().take_while(|past| past.end_lsn > from);
        let ahead = ahead.filter(|past| snapshot.contains_xid(past.xid) && !hits(&past.written).is_empty());
        let from = ahead.map(|past| past.end_lsn).max().unwrap_or(from);
        let missed = self.missed(snapshot).into_iter().filter_map(|at| Some((at, self.transactions.get(at)?)));
        let until = missed
            .filter(|(at, past)| *at < self.forgotten || !hits(&past.written).change_nothing())
            .map(|(_, past)| past.end_lsn)
            .next();
        (from, until)
    }

    /// Where those are that a snapshot lacks, the oldest first. The older ids, which are nearly all, are not looked at:
    /// this is asked for each result.
    fn missed(&self, snapshot: &Snapshot) -> Vec<usize> {
        let xmin = snapshot.xmin() as u32;
        // Ids go round: half of them, from `xmin` on, are later ones.
        let end = xmin.wrapping_add(1 << 31);
        let wraps = end < xmin;
        let later = self.by_xid.range(xmin..).take_while(|(xid, _)| wraps || **xid < end);
        let later = later.chain(self.by_xid.range(..if wraps { end } else { 0 }));
        let mut missed: Vec<usize> = later
            .filter(|(xid, _)| !snapshot.contains_xid(**xid))
            .map(|(_, number)| (number - self.first()) as usize)
            .collect();
        missed.sort_unstable();
        missed
    }

    /// The number of the oldest that is known.
    fn first(&self) -> u64 {
        self.applied - self.transactions.len() as u64
    }
}

/// Which queries a transaction concerns, and why.
pub(crate) fn hits_of(index: &ReadSetIndex<u64>, written: &[Written]) -> Hits<u64> {
    let mut hits = Hits::default();
    for write in written {
        if let Some(table) = write.table {
            let change = match &write.what {
                What::Insert(row) => RowChange::Insert { table, row: as_row(row) },
                What::Update { old_id, row } => RowChange::Update { table, old_id: *old_id, row: as_row(row) },
                What::Delete(id) => RowChange::Delete { table, id: *id },
                What::All => RowChange::Truncate { table },
            };
            index.hits(&change, &mut hits);
        }
        index.hits(&RowChange::Relation { schema: &write.schema, name: &write.relation }, &mut hits);
    }
    hits
}

fn as_row(row: &crate::changes::Row) -> Row<'_> {
    Row { id: row.id, creation_time: row.creation_time, is_newest: row.is_newest, data: row.data.as_ref() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn history(xids: impl IntoIterator<Item = u32>) -> History {
        let mut history = History::default();
        for (number, xid) in xids.into_iter().enumerate() {
            history.push(xid, number as u64, Vec::new());
        }
        history
    }

    proptest! {
        /// The ids that are not looked at are those that a snapshot contains, where ids go round too.
        #[test]
        fn what_a_snapshot_lacks_is_found(
            begin in prop_oneof![Just(0_u64), Just(u64::from(u32::MAX) - 20), Just(u64::from(u32::MAX >> 1) - 20)],
            steps in proptest::collection::vec(0_u64..40, 1..30),
            xmin in 0_u64..40, width in 0_u64..10, running in proptest::collection::btree_set(0_u64..10, 0..5),
        ) {
            let begin = begin + (1 << 32);
            let xmin = begin + xmin;
            let running = running.iter().map(|step| xmin + step).filter(|xid| *xid < xmin + width);
            let running: Vec<String> = running.map(|xid| xid.to_string()).collect();
            let snapshot: Snapshot =
                format!("{xmin}:{}:{}", xmin + width, running.join(",")).parse().expect("a snapshot");
            let mut seen = std::collections::BTreeSet::new();
            let xids: Vec<u32> =
                steps.iter().filter(|step| seen.insert(**step)).map(|step| (begin + step) as u32).collect();
            let wanted: Vec<usize> =
                (0..xids.len()).filter(|at| !snapshot.contains_xid(xids[*at])).collect();
            prop_assert_eq!(history(xids).missed(&snapshot), wanted);
        }
    }

    #[test]
    fn what_is_dropped_is_known_to_be() {
        let mut history = history(0..(RECENT_MAX + FORGOTTEN_MAX) as u32);
        assert!(!history.has_dropped_since(0));
        history.push(u32::MAX, 1, Vec::new());
        assert!(history.has_dropped_since(0));
        assert!(!history.has_dropped_since(1));
        assert_eq!(history.by_xid.len(), history.transactions.len());
    }
}
