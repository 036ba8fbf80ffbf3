//! How a feed is set up.

use std::time::Duration;

use convoke_postgres::Config;

/// Which database to follow, and within which limits. Made once a process.
#[derive(Debug, Clone)]
pub struct FeedOptions {
    /// A direct connection to the primary, not through a pooler. Hosts, ports, user, password, database, `options`,
    /// `application_name`, `connect_timeout` and TLS count; of several hosts the first one that is a primary is taken.
    ///
    /// `synchronous_standby_names = '*'` on the server would take the feed for a standby, and make commits wait up to
    /// `status_interval` for it: the standbys have to be named there.
    pub postgres: Config,
    /// How much memory may lie between the feed and each consumer. Beyond it the feed stops reading from Postgres where
    /// there is one consumer; of several, the one that is behind is interrupted. One transaction may exceed it on its own.
    pub buffered_bytes_max: usize,
    /// How much memory the rows of one transaction may take; a larger one arrives as
    /// [`crate::ChangeKind::Unlisted`].
    pub transaction_bytes_max: usize,
    /// How much log Postgres may have to keep for a consumer that takes nothing, beyond which the slot is given up.
    /// Looked at every `status_interval`, so that it can be exceeded by what is written in that time.
    pub wal_bytes_max: u64,
    /// How long a consumer may take nothing while the buffer is full, until the slot is given up. A Postgres that is
    /// being shut down may wait as long.
    pub stall_max: Duration,
    /// How often Postgres is told what has been delivered. A tenth of a minute to be well below the minute after which
    /// it gives up a silent receiver.
    pub status_interval: Duration,
    /// How long one attempt waits for the slot, and so for the write transactions that are running.
    pub slot_wait_max: Duration,
    /// How long to wait between two attempts, at most.
    pub backoff_max: Duration,
}

impl FeedOptions {
    pub fn new(postgres: Config) -> Self {
        Self {
            postgres,
            buffered_bytes_max: 64 << 20,
            transaction_bytes_max: 64 << 20,
            wal_bytes_max: 1 << 30,
            stall_max: Duration::from_mins(1),
            status_interval: Duration::from_secs(6),
            slot_wait_max: Duration::from_mins(2),
            backoff_max: Duration::from_secs(30),
        }
    }
}
