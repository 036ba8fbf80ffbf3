//! Who wants the result of a query.

use std::sync::Arc;

use tokio::sync::Notify;

/// A query of this host, until nobody wants it any more.
pub(crate) type EntryId = u64;

/// Who waits for a query, as far as turns go: a watcher by its number, or plain calls by the query that they share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reader {
    Watcher(u64),
    Call(EntryId),
}

/// One query of a watcher's.
#[derive(Debug, Clone)]
pub(crate) struct Subscriber {
    pub(crate) subscription: u64,
    /// The watcher's number.
    pub(crate) watcher: u64,
    /// Notified when there may be something else to show.
    pub(crate) notify: Arc<Notify>,
}
