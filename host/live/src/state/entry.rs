//! A query, its result, and who wants it.

use std::sync::Arc;

use convoke_model::ReadSet;
use tokio::sync::oneshot;

use crate::due::{Due, Wanted};
use crate::evaluation::{Evaluation, QueryKey, Verdict};
use crate::reader::{EntryId, Reader, Subscriber};

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: QueryKey,
    pub(super) subscribers: Vec<Subscriber>,
    pub(crate) current: Option<Arc<Evaluation>>,
    /// What `current` has read.
    pub(super) reads: Option<Arc<ReadSet>>,
    /// The position from which `current` holds, if it does.
    pub(crate) from: u64,
    /// The position behind the first transaction that `current` does not contain.
    pub(crate) until: Option<u64>,
    /// Whether the feed has shown all that came after `current`, or was down when it was made.
    pub(super) is_followed: bool,
    /// Whether it is due, or runs.
    pub(super) running: bool,
    /// Callers that wait for one run; who has given up is closed.
    pub(super) waiting: Vec<oneshot::Sender<Arc<Evaluation>>>,
    pub(super) evaluated: bool,
    /// When it was asked for, in turns of the cache.
    pub(super) turn: u64,
    pub(super) cached_bytes: usize,
}

impl Entry {
    pub(super) fn new(key: QueryKey) -> Self {
        Self {
            key,
            subscribers: Vec::new(),
            current: None,
            reads: None,
            from: 0,
            until: None,
            is_followed: false,
            running: false,
            waiting: Vec::new(),
            evaluated: false,
            turn: 0,
            cached_bytes: 0,
        }
    }

    /// Whether anybody wants a result of it.
    pub(super) fn is_wanted(&self) -> bool {
        !self.subscribers.is_empty() || self.has_callers()
    }

    pub(super) fn has_subscribers(&self) -> bool {
        !self.subscribers.is_empty()
    }

    fn has_callers(&self) -> bool {
        self.waiting.iter().any(|caller| !caller.is_closed())
    }

    /// Whether there is a result: the system's failure, which is shown for want of one, is none.
    pub(super) fn has_result(&self) -> bool {
        self.current.as_ref().is_some_and(|current| current.verdict != Verdict::Failed)
    }

    /// Whether the result contains a transaction.
    pub(super) fn contains(&self, xid: u32) -> bool {
        let snapshot = self.current.as_ref().and_then(|current| current.snapshot.as_ref());
        snapshot.is_some_and(|snapshot| snapshot.contains_xid(xid))
    }

    /// Adds a caller; those who have given up make room.
    pub(super) fn add_caller(&mut self, caller: oneshot::Sender<Arc<Evaluation>>) {
        if self.waiting.len() == self.waiting.capacity() {
            self.waiting.retain(|caller| !caller.is_closed());
        }
        self.waiting.push(caller);
    }

    /// Gives the callers a run.
    pub(super) fn answer(&mut self, evaluation: &Arc<Evaluation>) {
        for caller in self.waiting.drain(..) {
            // Who has given up needs none.
            let _ = caller.send(Arc::clone(evaluation));
        }
    }

    /// The query as it is queued: in the turn of whoever of its readers has least in the queue.
    pub(super) fn due(&self, id: EntryId, backlog: impl Fn(Reader) -> usize) -> Due {
        let wanted = if self.has_result() { Wanted::Again } else { Wanted::First };
        let mut reader = (Reader::Call(id), usize::MAX);
        if !self.has_callers() {
            for subscriber in &self.subscribers {
                let next = Reader::Watcher(subscriber.watcher);
                let backlog = backlog(next);
                if backlog < reader.1 {
                    reader = (next, backlog);
                }
                if backlog == 0 {
                    break;
                }
            }
        }
        Due::new(id, Arc::clone(&self.key.path), reader.0, wanted)
    }
}
