//! The timestamps that clients see.

use std::fmt;
use std::sync::Arc;

use convoke_feed::System;
use futures_util::future::BoxFuture;

/// From positions of Postgres' log to timestamps: nanoseconds since 1970 at the database's creation or restore, plus the
/// log's distance from then. So a timestamp never goes back, not even after a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incarnation {
    pub nanoseconds: u64,
    /// The position of the log at that moment.
    pub lsn: u64,
}

impl Incarnation {
    /// The timestamp of a position.
    pub fn timestamp(self, lsn: u64) -> u64 {
        // Clients take no more than an i64.
        self.nanoseconds.saturating_add(lsn.saturating_sub(self.lsn)).min(i64::MAX.cast_unsigned())
    }

    /// The position of a timestamp, rounded to the beginning of this incarnation.
    pub fn position(self, timestamp: u64) -> u64 {
        timestamp.saturating_sub(self.nanoseconds).saturating_add(self.lsn)
    }
}

/// Tells from when a database counts that is run by a cluster; none where it cannot be told now.
#[derive(Clone)]
pub struct Incarnations(pub Arc<dyn Fn(System) -> BoxFuture<'static, Option<Incarnation>> + Send + Sync>);

impl fmt::Debug for Incarnations {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Incarnations")
    }
}
