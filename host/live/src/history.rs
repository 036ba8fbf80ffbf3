//! The transactions of the last moments, which results that come in are held against.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use convoke_feed::Snapshot;
use convoke_model::ReadSet;

use crate::changes::{What, Written};
use crate::index::{Hits, ReadSetIndex, Row, RowChange};

/// Transactions that are kept with what they wrote: an evaluation that takes longer than so many is run again.
pub(crate) const RECENT_MAX: usize = 4_096;
/// Memory of what they wrote; the newest one is kept whatever it takes, as the feed hands it over.
const RECENT_BYTES_MAX: usize = 32 << 20;
/// No evaluation is expected to take longer: calls have 10 seconds by default.
const RECENT_AGE_MAX: Duration = Duration::from_mins(1);
/// Transactions of which the id is kept after that. Whoever began before one that is not even known by its id is run
/// again; and no transaction may take so many others to become visible after it is in the log.
pub(crate) const IDS_MAX: usize = 262_144;

/// Transactions in the order of their commits, the newest last.
#[derive(Debug, Default)]
pub(crate) struct History {
    transactions: VecDeque<Past>,
    /// The number of each, counted from the first one ever, by the low half of its id.
    by_xid: BTreeMap<u32, u64>,
    /// Of so many, the oldest, no more than the id is known.
    ids_only: usize,
    /// Memory of what the others wrote.
    bytes: usize,
    /// Transactions there have been, ever.
    applied: u64,
    now: Option<Instant>,
}

#[derive(Debug)]
struct Past {
    xid: u32,
    end_lsn: u64,
    written: Vec<Written>,
    bytes: usize,
    /// When it came.
    at: Option<Instant>,
}

impl History {
    pub(crate) fn applied(&self) -> u64 {
        self.applied
    }

    /// Whether a transaction after the first so many is not known any more, even by its id.
    pub(crate) fn has_dropped_since(&self, applied: u64) -> bool {
        applied < self.first()
    }

    /// Memory of what recent transactions wrote.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Drops everything: what was read before is not asked about.
    pub(crate) fn clear(&mut self) {
        *self = Self { now: self.now, ..Self::default() };
    }

    /// Takes the time: what is too old is kept by its id alone.
    pub(crate) fn advance_clock(&mut self, now: Instant) {
        self.now = Some(now);
        self.trim();
    }

    pub(crate) fn push(&mut self, xid: u32, end_lsn: u64, written: Vec<Written>) {
        self.by_xid.insert(xid, self.applied);
        self.applied += 1;
        let bytes = written.iter().map(Written::bytes).sum();
        self.bytes += bytes;
        self.transactions.push_back(Past { xid, end_lsn, written, bytes, at: self.now });
        self.trim();
        if self.ids_only > IDS_MAX
            && let Some(oldest) = self.transactions.pop_front()
        {
            self.ids_only -= 1;
            self.by_xid.remove(&oldest.xid);
        }
    }

    /// Drops what the oldest wrote, as far as there is too much. A snapshot that lacks one of them has to be taken anew.
    fn trim(&mut self) {
        while let Some(oldest) = self.transactions.get(self.ids_only) {
            let recent = self.transactions.len() - self.ids_only;
            let is_old = self.now.zip(oldest.at).is_some_and(|(now, at)| now.duration_since(at) > RECENT_AGE_MAX);
            if !is_old && recent <= RECENT_MAX && (self.bytes <= RECENT_BYTES_MAX || recent <= 1) {
                return;
            }
            let oldest = &mut self.transactions[self.ids_only];
            oldest.written = Vec::new();
            self.bytes -= std::mem::take(&mut oldest.bytes);
            self.ids_only += 1;
        }
    }

    /// Whether a snapshot lacks a transaction that is known.
    pub(crate) fn lacks_any(&self, snapshot: &Snapshot) -> bool {
        !self.missed(snapshot).is_empty()
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
        let ahead = self.transactions.range(self.ids_only..).rev().take_while(|past| past.end_lsn > from);
        let ahead = ahead.filter(|past| snapshot.contains_xid(past.xid) && !hits(&past.written).is_empty());
        let from = ahead.map(|past| past.end_lsn).max().unwrap_or(from);
        let missed = self.missed(snapshot).into_iter().filter_map(|at| Some((at, self.transactions.get(at)?)));
        let until = missed
            .filter(|(at, past)| *at < self.ids_only || !hits(&past.written).change_nothing())
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
    use convoke_model::Fields;
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

    /// A transaction that wrote so many bytes, and a little.
    fn wrote(bytes: usize) -> Vec<Written> {
        let data = Some(Fields::parse(&format!(r#"{{"a":"{}"}}"#, "x".repeat(bytes))).expect("fields"));
        let row = crate::changes::Row { id: uuid::Uuid::nil(), creation_time: 1.0, is_newest: true, data };
        let (schema, relation) = ("demo".to_owned(), "t".to_owned());
        vec![Written { schema, relation, table: Some(1), what: What::Insert(row) }]
    }

    #[test]
    fn what_recent_transactions_wrote_is_bounded_in_bytes() {
        let mut history = History::default();
        for number in 0..100 {
            history.push(number, u64::from(number), wrote(1 << 20));
            assert!(history.bytes() <= RECENT_BYTES_MAX, "{}", history.bytes());
        }
        assert!(history.bytes() > RECENT_BYTES_MAX / 2);
        history.push(100, 100, wrote(2 * RECENT_BYTES_MAX));
        assert_eq!(history.ids_only, 100, "the newest one is there, whatever it takes");
        history.push(101, 101, wrote(1));
        assert!(history.bytes() < 1_000);
    }

    #[test]
    fn what_was_long_ago_is_not_kept() {
        let begin = Instant::now();
        let mut history = History::default();
        history.advance_clock(begin);
        history.push(1, 1, wrote(100));
        history.advance_clock(begin + RECENT_AGE_MAX);
        history.push(2, 2, wrote(100));
        assert_eq!(history.ids_only, 0);
        history.advance_clock(begin + RECENT_AGE_MAX + Duration::from_millis(1));
        assert_eq!(history.ids_only, 1, "on an idle host too");
        history.advance_clock(begin + 3 * RECENT_AGE_MAX);
        assert_eq!((history.ids_only, history.bytes()), (2, 0));
    }

    #[test]
    fn what_is_dropped_is_known_to_be() {
        let mut history = history(0..(RECENT_MAX + IDS_MAX) as u32);
        assert!(!history.has_dropped_since(0));
        history.push(u32::MAX, 1, Vec::new());
        assert!(history.has_dropped_since(0));
        assert!(!history.has_dropped_since(1));
        assert_eq!(history.by_xid.len(), history.transactions.len());
    }
}
