//! Locks that updates of much-changed rows queue for, before their snapshot is taken.
//!
//! Two serialisable transactions that change the same row conflict, even where each would gladly build on the other: the second
//! has a snapshot from before the first one's commit. A transaction that knows all its rows before it begins can wait its turn
//! first: it takes an advisory lock for each row outside of any transaction, in the order of their numbers, then begins, and
//! lets go behind its commit. Its snapshot has what the one before it wrote.
//!
//! The locks keep nothing right: a writer without them conflicts, as ever. So only rows are locked that were seen to conflict a
//! short while ago, and two rows with the same number merely wait for one another.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

/// The first of the two numbers of a lock, Convoke's alone ("conv" in ASCII).
const CLASS: i32 = 0x636f_6e76;
/// Rows that are remembered at a time.
const ROWS_MAX: usize = 4_096;
/// A row that nobody else wants any more costs its writers two small messages for so long.
const CONTENDED_FOR: Duration = Duration::from_secs(10);
/// More locks a transaction are not worth their time, and would fill Postgres' table of locks.
const LOCKS_MAX: usize = 64;

/// A row, by the number under which it is locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct LockedRow(i32);

impl LockedRow {
    /// The end of an id is random, whoever made it.
    fn of(id: Uuid) -> Self {
        let [.., a, b, c, d] = *id.as_bytes();
        Self(i32::from_be_bytes([a, b, c, d]))
    }
}

/// The rows that were seen to conflict.
#[derive(Debug, Default)]
pub(crate) struct Contended {
    until: Mutex<HashMap<LockedRow, Instant>>,
}

impl Contended {
    pub(crate) fn note(&self, rows: &[Uuid]) {
        let now = Instant::now();
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        if until.len() + rows.len() > ROWS_MAX {
            until.retain(|_, until| *until > now);
        }
        for row in rows.iter().copied().map(LockedRow::of) {
            if until.len() < ROWS_MAX || until.contains_key(&row) {
                until.insert(row, now + CONTENDED_FOR);
            }
        }
    }

    /// The locks for those of these rows that conflicted, if any did.
    pub(crate) fn locks(&self, rows: &[Uuid]) -> Option<Locks> {
        let until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        if until.is_empty() {
            return None;
        }
        let now = Instant::now();
        let mut rows: Vec<LockedRow> = rows.iter().copied().map(LockedRow::of).collect();
        rows.retain(|row| until.get(row).is_some_and(|until| *until > now));
        drop(until);
        // The same order for all, so that none waits for one who waits for it.
        rows.sort_unstable();
        rows.dedup();
        if rows.is_empty() || rows.len() > LOCKS_MAX {
            return None;
        }
        let mut take = "begin isolation level read committed read only".to_owned();
        for LockedRow(row) in rows {
            let _ = write!(take, "; select pg_advisory_lock({CLASS}, {row})");
        }
        take.push_str("; commit");
        Some(Locks { take })
    }
}

/// The locks of one transaction.
#[derive(Debug)]
pub(crate) struct Locks {
    /// One message. Where it fails, the session is left in a transaction that takes nothing any more, so that nothing of what
    /// travels behind it happens.
    pub(crate) take: String,
}

/// What lets go of a transaction's locks.
pub(crate) const UNLOCK: &str = "select pg_advisory_unlock_all()";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rows_that_conflicted_are_locked_in_order_and_once() {
        let contended = Contended::default();
        let [a, b, c] = [1, 2, 3].map(Uuid::from_u128);
        assert!(contended.locks(&[a, b, c]).is_none());
        contended.note(&[c, a]);
        let locks = contended.locks(&[c, b, a, c]).expect("locks");
        assert_eq!(
            locks.take,
            "begin isolation level read committed read only; select pg_advisory_lock(1668247158, 1); \
             select pg_advisory_lock(1668247158, 3); commit"
        );
        assert!(contended.locks(&[b]).is_none());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let contended = Contended::default();
        for number in 0..2 * ROWS_MAX as u128 {
            contended.note(&[Uuid::from_u128(number)]);
        }
        assert_eq!(contended.until.lock().expect("a lock").len(), ROWS_MAX);
        let all: Vec<Uuid> = (0..100).map(Uuid::from_u128).collect();
        assert!(contended.locks(&all).is_none(), "too many at once");
    }
}
