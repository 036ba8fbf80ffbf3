//! When a mutation's commit begins, for whoever must not show its effect before its answer.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const NOT_BEGUN: u64 = u64::MAX;

/// Tells from another task whether a mutation's commit may have happened. Cheap to clone.
#[derive(Clone)]
pub struct CommitWatch {
    inner: Arc<Inner>,
}

struct Inner {
    newest: Box<dyn Fn() -> u64 + Send + Sync>,
    begun_behind: AtomicU64,
}

impl CommitWatch {
    /// `newest` gives a position of Postgres' log, in bytes from its beginning, that has been written when it is asked.
    pub fn new(newest: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self { inner: Arc::new(Inner { newest: Box::new(newest), begun_behind: AtomicU64::new(NOT_BEGUN) }) }
    }

    /// A position that the commit is behind, from when it is asked for until it is known to be undone; none before: then
    /// whatever is known of the log is before the commit.
    pub fn begun_behind(&self) -> Option<u64> {
        Some(self.inner.begun_behind.load(Ordering::SeqCst)).filter(|position| *position != NOT_BEGUN)
    }

    /// A commit is asked for. Where an earlier one may have happened, it counts from that one.
    pub(crate) fn begin(&self) {
        let newest = (self.inner.newest)();
        let _ = self.inner.begun_behind.compare_exchange(NOT_BEGUN, newest, Ordering::SeqCst, Ordering::SeqCst);
    }

    pub(crate) fn undone(&self) {
        self.inner.begun_behind.store(NOT_BEGUN, Ordering::SeqCst);
    }
}

impl fmt::Debug for CommitWatch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("CommitWatch").field("begun_behind", &self.begun_behind()).finish_non_exhaustive()
    }
}
