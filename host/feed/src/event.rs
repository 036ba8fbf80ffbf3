//! What the consumer of a feed receives.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::change::Transaction;
use crate::error::FeedError;

/// The next thing that a consumer has to know, in this order: `Started`, any number of `Transaction` and `Position`, and then, when
/// the feed was interrupted, `Gap`, `Started` and so on.
#[derive(Debug, Clone)]
pub enum FeedEvent {
    /// From here on nothing is missed: whoever takes a snapshot after this event hears of every transaction that the
    /// snapshot does not contain.
    Started(Started),
    /// A transaction that committed. It may arrive before new snapshots see it (with synchronous replication, long
    /// before): whoever reads again because of it has to test the new snapshot, and to read once more if it is not in
    /// it yet. Transactions come in the order of their commits, which is not that of their ids.
    Transaction(Arc<Transaction>),
    /// All that committed before this position, in bytes from the log's beginning, has been handed on. Sent where no
    /// transaction says so, and at once where [`crate::PositionRequest`] asks.
    Position(u64),
    /// Changes were missed. What was read before the next `Started` has to be read again after it; until then nothing
    /// can be said about what changes.
    Gap { reason: GapReason },
}

/// Where the feed begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// Transactions that commit after it are sent: the slot's consistent point, or where the subscription joined a stream
    /// that ran already. In bytes from the log's beginning.
    pub position: u64,
    /// Snapshots and positions of different systems or timelines cannot be compared.
    pub system: System,
    /// 1 for the first beginning of this subscription, one more for each that follows.
    pub generation: u64,
}

/// The cluster that Postgres runs, from `IDENTIFY_SYSTEM`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct System {
    /// Given by `initdb`; a physical copy has the same.
    pub identifier: u64,
    /// Another one after every promotion and every restore to a point in time.
    pub timeline: u32,
}

/// Why changes were missed.
#[derive(Debug, Clone)]
pub enum GapReason {
    /// The connection broke or was ended, and the slot with it.
    Lost(Arc<FeedError>),
    /// The consumer took too little: Postgres would have had to keep this many bytes of its log.
    HeldBack { wal_bytes: u64 },
    /// The consumer took nothing for this long while the buffer was full.
    Stalled { elapsed: Duration },
    /// Another subscription could be taken in only so: no second slot was free for the time of the change.
    Replaced,
    /// The consumer's buffer was full, and others follow the same database who cannot wait for it.
    Overrun,
    /// The messages of one transaction exceeded [`crate::FeedOptions::transaction_bytes_max`].
    TooLarge,
}

impl fmt::Display for GapReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(error) => write!(f, "{error}"),
            Self::HeldBack { wal_bytes } => {
                write!(f, "the consumer is too far behind: Postgres keeps {wal_bytes} bytes of its log for it")
            }
            Self::Stalled { elapsed } => write!(f, "the consumer took nothing for {} ms", elapsed.as_millis()),
            Self::Replaced => f.write_str("another subscription was taken in, and no second slot was free for that"),
            Self::Overrun => f.write_str("the consumer took too little while others took theirs"),
            Self::TooLarge => f.write_str("the messages of one transaction are too large"),
        }
    }
}
