//! The results that are kept, and which of them still hold.
//!
//! Pure: no I/O. Positions are those of Postgres' log, in bytes from its beginning.

mod cache;
mod entry;
mod follow;
mod receive;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use convoke_model::{Code, Failure};
use tokio::sync::{Notify, oneshot};

use cache::Cache;
use entry::Entry;

use crate::due::Due;
use crate::evaluation::{Evaluation, QueryKey};
use crate::history::History;
use crate::index::ReadSetIndex;
use crate::reader::{EntryId, Reader, Subscriber};
use crate::waiting::Waiting;

/// When an evaluation began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Begun {
    generation: u64,
    /// The transactions that had been applied.
    applied: u64,
}

/// What has to happen after a change of state.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// Queries to run.
    pub(crate) run: Vec<EntryId>,
    /// Whom to wake.
    pub(crate) wake: Vec<Arc<Notify>>,
}

/// How an evaluation was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// It holds.
    Kept,
    /// It held for a while, and is shown; run again.
    KeptButStale,
    /// It is older than a change that came before it; run again, a moment later.
    TooOld,
    /// The system failed it: what there was before stays for a while; run again, after a pause.
    Failed,
    /// Nobody wants it any more.
    Unwanted,
}

impl Received {
    /// Whether it is shown.
    pub fn is_kept(self) -> bool {
        matches!(self, Self::Kept | Self::KeptButStale)
    }
}

/// What a new subscriber has to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subscribed {
    /// Nothing: there is a result that holds.
    Holds,
    /// A run of this query, which is to be queued.
    Runs(EntryId),
    /// A run of this query, which is queued or goes on.
    Joins(EntryId),
}

/// How much a host's live queries may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) cache_bytes_max: usize,
    pub(crate) subscriptions_max: usize,
}

/// The live queries of a host.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) entries: BTreeMap<EntryId, Entry>,
    by_key: HashMap<QueryKey, EntryId>,
    by_subscription: HashMap<u64, EntryId>,
    index: ReadSetIndex<EntryId>,
    history: History,
    /// All that committed before has been applied.
    pub(crate) position: u64,
    /// Whether the feed is running; otherwise nothing can be said about what changes.
    pub(crate) streaming: bool,
    /// Counts interruptions and deploys: what was read before has to be read again.
    pub(crate) generation: u64,
    /// The newest commit of this host's own.
    pub(crate) committed: u64,
    waiting: Waiting,
    /// Whether somebody has the log flushed for those who wait.
    is_flushing: bool,
    cache: Cache,
    subscriptions_max: usize,
    next_id: EntryId,
}

impl State {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            entries: BTreeMap::new(),
            by_key: HashMap::new(),
            by_subscription: HashMap::new(),
            index: ReadSetIndex::new(),
            history: History::default(),
            position: 0,
            streaming: false,
            generation: 0,
            committed: 0,
            waiting: Waiting::default(),
            is_flushing: false,
            cache: Cache::new(bounds.cache_bytes_max),
            subscriptions_max: bounds.subscriptions_max,
            next_id: 0,
        }
    }

    pub(crate) fn subscriptions(&self) -> usize {
        self.by_subscription.len()
    }

    pub(crate) fn cached_bytes(&self) -> usize {
        self.cache.bytes()
    }

    /// What is kept of recent transactions.
    pub(crate) fn history_bytes(&self) -> usize {
        self.history.bytes()
    }

    /// The entry of a query, made if there is none.
    fn entry(&mut self, key: &QueryKey) -> EntryId {
        if let Some(id) = self.by_key.get(key) {
            return *id;
        }
        self.next_id += 1;
        let id = self.next_id;
        self.entries.insert(id, Entry::new(key.clone()));
        self.by_key.insert(key.clone(), id);
        id
    }

    pub(crate) fn find(&self, key: &QueryKey) -> Option<&Entry> {
        self.by_key.get(key).and_then(|id| self.entries.get(id))
    }

    /// What a subscriber is shown.
    pub(crate) fn subscribed(&self, subscription: u64) -> Option<&Entry> {
        self.by_subscription.get(&subscription).and_then(|id| self.entries.get(id))
    }

    /// Adds a subscriber.
    ///
    /// # Errors
    /// Where there are too many.
    pub(crate) fn subscribe(&mut self, key: &QueryKey, subscriber: Subscriber) -> Result<Subscribed, Failure> {
        if self.by_subscription.len() >= self.subscriptions_max {
            let words = format!("this host serves no more than {} subscriptions", self.subscriptions_max);
            return Err(Failure::system(Code::SubscriptionLimit, words));
        }
        let mut id = self.entry(key);
        self.uncache(id);
        if let Some(entry) = self.entries.get_mut(&id) {
            self.by_subscription.insert(subscriber.subscription, id);
            entry.subscribers.push(subscriber);
        }
        if let Some(pinned) = self.pin(id) {
            self.settle(id);
            id = pinned;
        }
        let holds = self.entries.get(&id).is_some_and(|entry| entry.has_result() && entry.until.is_none());
        Ok(match holds {
            true => Subscribed::Holds,
            false if self.begin_run(id) => Subscribed::Runs(id),
            false => Subscribed::Joins(id),
        })
    }

    pub(crate) fn unsubscribe(&mut self, subscription: u64) {
        let Some(id) = self.by_subscription.remove(&subscription) else { return };
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.subscribers.retain(|subscriber| subscriber.subscription != subscription);
        }
        self.settle(id);
    }

    /// A result that holds now, and the newest position at which it is known to.
    pub(crate) fn holding(&self, key: &QueryKey) -> Option<(Arc<Evaluation>, u64)> {
        let entry = self.find(key).filter(|entry| self.streaming && entry.until.is_none())?;
        let current = entry.current.as_ref().filter(|current| current.may_be_shared())?;
        Some((Arc::clone(current), self.horizon(entry).max(entry.from)))
    }

    /// Begins a plain caller's run: the query, which is wanted as long as the receiver is there. None where another run
    /// goes on, or nothing would tell when the result is stale.
    pub(crate) fn begin_kept(&mut self, key: &QueryKey) -> Option<(EntryId, oneshot::Receiver<Arc<Evaluation>>)> {
        if !self.streaming {
            return None;
        }
        let id = self.entry(key);
        if !self.begin_run(id) {
            return None;
        }
        self.uncache(id);
        let (caller, run) = oneshot::channel();
        self.entries.get_mut(&id)?.add_caller(caller);
        Some((id, run))
    }

    /// A plain caller's run has ended without a result to keep: whoever else wants one gets a run of the queue.
    pub(crate) fn abandon(&mut self, id: EntryId) -> Effects {
        let mut effects = Effects::default();
        let Some(entry) = self.entries.get_mut(&id) else { return effects };
        entry.running = false;
        if entry.has_subscribers() {
            entry.running = true;
            effects.run.push(id);
        } else {
            entry.waiting.clear();
            self.settle(id);
        }
        effects
    }

    /// Whether this is not the first run of a query.
    pub(crate) fn was_evaluated(&self, id: EntryId) -> bool {
        self.entries.get(&id).is_some_and(|entry| entry.evaluated)
    }

    /// Who has seen a page follows that page from then on, whose end is in the journal: it grows and shrinks, and the pages
    /// beside it stay. Moves the subscribers of a query to the query with that journal, and gives this one. Who comes later
    /// without a journal gets a page of the length that he asks for.
    fn pin(&mut self, id: EntryId) -> Option<EntryId> {
        let entry = self.entries.get_mut(&id)?;
        let current = entry.current.clone().filter(|current| current.result.is_ok())?;
        if current.journal.is_none() || current.journal == entry.key.journal || entry.subscribers.is_empty() {
            return None;
        }
        let (reads, from, until, is_followed) = (entry.reads.clone(), entry.from, entry.until, entry.is_followed);
        let subscribers = std::mem::take(&mut entry.subscribers);
        let key = QueryKey { journal: current.journal.clone(), ..entry.key.clone() };
        let pinned = self.entry(&key);
        self.uncache(pinned);
        self.by_subscription.extend(subscribers.iter().map(|subscriber| (subscriber.subscription, pinned)));
        let entry = self.entries.get_mut(&pinned)?;
        entry.subscribers.extend(subscribers);
        if !entry.has_result() {
            (entry.current, entry.evaluated) = (Some(current), true);
            (entry.from, entry.until, entry.is_followed) = (from, until, is_followed);
            entry.reads.clone_from(&reads);
            if let Some(reads) = reads {
                self.index.insert(pinned, reads);
            }
        }
        Some(pinned)
    }

    /// Marks a query as running; false where it runs already.
    fn begin_run(&mut self, id: EntryId) -> bool {
        match self.entries.get_mut(&id) {
            Some(entry) if !entry.running => {
                entry.running = true;
                true
            }
            _ => false,
        }
    }

    /// What is to be queued for a query.
    pub(crate) fn due(&self, id: EntryId, backlog: impl Fn(Reader) -> usize) -> Option<Due> {
        self.entries.get(&id).map(|entry| entry.due(id, backlog))
    }

    /// A query whose turn has come, and whether it was run before; none where nobody wants it any more.
    pub(crate) fn take_due(&mut self, id: EntryId) -> Option<(QueryKey, bool)> {
        let entry = self.entries.get(&id).filter(|entry| entry.running)?;
        if !entry.is_wanted() {
            self.remove(id);
            return None;
        }
        Some((entry.key.clone(), entry.evaluated))
    }

    /// What a run that begins now has to say when it is done.
    pub(crate) fn begun(&self) -> Begun {
        Begun { generation: self.generation, applied: self.history.applied() }
    }

    /// How far it is known that an entry holds, unless something ended it.
    pub(crate) fn horizon(&self, entry: &Entry) -> u64 {
        let reads = entry.current.as_ref().is_some_and(|current| current.snapshot.is_some());
        match (entry.is_followed, reads) {
            (true, _) => self.position,
            // While the feed is down, nothing can be said of what comes after a result,
            (false, true) => entry.from,
            // but of what read nothing.
            (false, false) => self.newest(),
        }
    }

    /// The newest position that is known.
    pub(crate) fn newest(&self) -> u64 {
        self.position.max(self.committed)
    }

    /// Wakes this one when all that committed before the position has been applied.
    pub(crate) fn wake_at(&mut self, position: u64, notify: &Arc<Notify>) {
        self.waiting.add(position, notify);
    }

    /// The nearest position that somebody waits for.
    pub(crate) fn waited_for(&mut self) -> Option<u64> {
        self.waiting.nearest()
    }

    /// Whether the log has to be flushed for those who wait: whoever begins goes on until there is no more
    /// [`State::next_to_flush`].
    pub(crate) fn begin_flushing(&mut self) -> bool {
        !std::mem::replace(&mut self.is_flushing, true)
    }

    /// Up to where the log has to be flushed; with none, that is over.
    pub(crate) fn next_to_flush(&mut self) -> Option<u64> {
        let position = self.waiting.nearest();
        self.is_flushing = position.is_some();
        position
    }

    pub(crate) fn end_flushing(&mut self) {
        self.is_flushing = false;
    }

    fn wake_waiting(&mut self, effects: &mut Effects) {
        effects.wake.extend(self.waiting.reached(self.position));
    }

    fn remove(&mut self, id: EntryId) {
        self.uncache(id);
        self.index.remove(id);
        if let Some(entry) = self.entries.remove(&id) {
            self.by_key.remove(&entry.key);
        }
    }
}

impl Effects {
    pub(crate) fn append(&mut self, mut more: Self) {
        self.run.append(&mut more.run);
        self.wake.append(&mut more.wake);
    }

    /// Wakes them.
    pub(crate) fn wake(&mut self) {
        self.wake.drain(..).for_each(|notify| notify.notify_one());
    }
}
