//! The results that are kept, and which of them still hold.
//!
//! Pure: no I/O. Positions are those of Postgres' log, in bytes from its beginning.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use convoke_model::ReadSet;
use tokio::sync::Notify;

use crate::changes::Written;
use crate::evaluation::{Evaluation, QueryKey};
use crate::history::{History, hits_of};
use crate::index::{ReadSetIndex, Reason};
use crate::waiting::Waiting;

pub(crate) type EntryId = u64;

/// A query, its result, and who wants it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: QueryKey,
    pub(crate) subscribers: Vec<(u64, Arc<Notify>)>,
    pub(crate) current: Option<Arc<Evaluation>>,
    /// What `current` has read.
    reads: Option<Arc<ReadSet>>,
    /// The position from which `current` holds, if it does.
    pub(crate) from: u64,
    /// The position behind the first transaction that `current` does not contain.
    pub(crate) until: Option<u64>,
    /// Whether the feed told of all that came after `current`, or was down when it was made.
    heard: bool,
    pub(crate) running: bool,
    /// Callers that wait for one run.
    pub(crate) waiting: Vec<Arc<Notify>>,
    evaluated: bool,
    /// When it was asked for, in turns of the cache.
    turn: u64,
    cached_bytes: usize,
}

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
    /// Nobody wants it any more.
    Unwanted,
}

impl Received {
    /// Whether it is shown.
    pub fn is_kept(self) -> bool {
        matches!(self, Self::Kept | Self::KeptButStale)
    }
}

/// The live queries of a host.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) entries: BTreeMap<EntryId, Entry>,
    by_key: HashMap<QueryKey, EntryId>,
    by_subscription: HashMap<u64, EntryId>,
    index: ReadSetIndex<EntryId>,
    history: History,
    /// All that committed before has been heard of.
    pub(crate) position: u64,
    /// Whether the feed is running; otherwise nothing can be said about what changes.
    pub(crate) streaming: bool,
    /// Counts interruptions and deploys: what was read before has to be read again.
    pub(crate) generation: u64,
    /// The newest commit of this host's own.
    pub(crate) committed: u64,
    waiting: Waiting,
    cache: BTreeMap<u64, EntryId>,
    cached_bytes: usize,
    cache_bytes_max: usize,
    next_id: u64,
    next_turn: u64,
}

impl State {
    pub(crate) fn new(cache_bytes_max: usize) -> Self {
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
            cache: BTreeMap::new(),
            cached_bytes: 0,
            cache_bytes_max,
            next_id: 0,
            next_turn: 0,
        }
    }

    pub(crate) fn subscriptions(&self) -> usize {
        self.by_subscription.len()
    }

    pub(crate) fn cached_bytes(&self) -> usize {
        self.cached_bytes
    }

    /// The entry of a query, made if there is none.
    pub(crate) fn entry(&mut self, key: &QueryKey) -> EntryId {
        if let Some(id) = self.by_key.get(key) {
            return *id;
        }
        self.next_id += 1;
        let id = self.next_id;
        let entry = Entry {
            key: key.clone(),
            subscribers: Vec::new(),
            current: None,
            reads: None,
            from: 0,
            until: None,
            heard: false,
            running: false,
            waiting: Vec::new(),
            evaluated: false,
            turn: 0,
            cached_bytes: 0,
        };
        self.entries.insert(id, entry);
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

    /// Adds a subscriber; gives the query that has to be run.
    pub(crate) fn subscribe(&mut self, key: &QueryKey, subscription: u64, notify: Arc<Notify>) -> Option<EntryId> {
        let mut id = self.entry(key);
        self.uncache(id);
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.subscribers.push((subscription, notify));
            self.by_subscription.insert(subscription, id);
        }
        if let Some(pinned) = self.pin(id) {
            self.settle(id);
            id = pinned;
        }
        let holds = self.entries.get(&id).is_some_and(|entry| entry.current.is_some() && entry.until.is_none());
        (!holds && self.begin_run(id)).then_some(id)
    }

    pub(crate) fn unsubscribe(&mut self, subscription: u64) {
        let Some(id) = self.by_subscription.remove(&subscription) else { return };
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.subscribers.retain(|(own, _)| *own != subscription);
        }
        self.settle(id);
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
        let (reads, from, until, heard) = (entry.reads.clone(), entry.from, entry.until, entry.heard);
        let subscribers = std::mem::take(&mut entry.subscribers);
        let key = QueryKey { journal: current.journal.clone(), ..entry.key.clone() };
        let pinned = self.entry(&key);
        self.uncache(pinned);
        self.by_subscription.extend(subscribers.iter().map(|(subscription, _)| (*subscription, pinned)));
        let entry = self.entries.get_mut(&pinned)?;
        entry.subscribers.extend(subscribers);
        if entry.current.is_none() {
            (entry.current, entry.evaluated) = (Some(current), true);
            (entry.from, entry.until, entry.heard) = (from, until, heard);
            entry.reads.clone_from(&reads);
            if let Some(reads) = reads {
                self.index.insert(pinned, reads);
            }
        }
        Some(pinned)
    }

    /// Marks a query as running; false where it runs already.
    pub(crate) fn begin_run(&mut self, id: EntryId) -> bool {
        match self.entries.get_mut(&id) {
            Some(entry) if !entry.running => {
                entry.running = true;
                true
            }
            _ => false,
        }
    }

    /// What a run that begins now has to say when it is done.
    pub(crate) fn begun(&self) -> Begun {
        Begun { generation: self.generation, applied: self.history.applied() }
    }

    /// Takes the result of a run.
    pub(crate) fn receive(
        &mut self,
        id: EntryId,
        begun: Begun,
        evaluation: Arc<Evaluation>,
        reads: Arc<ReadSet>,
    ) -> (Received, Effects) {
        let mut effects = Effects::default();
        let Some(entry) = self.entries.get(&id) else { return (Received::Unwanted, effects) };
        if entry.subscribers.is_empty() && entry.waiting.is_empty() {
            self.remove(id);
            return (Received::Unwanted, effects);
        }
        let Some((from, until)) = self.holds(begun, &evaluation, &reads) else { return (Received::TooOld, effects) };
        self.index.insert(id, Arc::clone(&reads));
        let Some(entry) = self.entries.get_mut(&id) else { return (Received::Unwanted, effects) };
        (entry.current, entry.reads) = (Some(evaluation), Some(reads));
        (entry.from, entry.until, entry.heard) = (from, until, self.streaming);
        entry.evaluated = true;
        effects.wake.extend(entry.subscribers.iter().map(|(_, notify)| Arc::clone(notify)));
        effects.wake.append(&mut entry.waiting);
        if let Some(pinned) = self.pin(id) {
            let stale = self.entries.get(&pinned).is_some_and(|entry| entry.until.is_some());
            if stale && self.begin_run(pinned) {
                effects.run.push(pinned);
            }
        }
        let Some(entry) = self.entries.get_mut(&id) else { return (Received::Unwanted, effects) };
        if until.is_some() && entry.subscribers.is_empty() && entry.waiting.is_empty() {
            self.remove(id);
            return (Received::Unwanted, effects);
        }
        if until.is_some() {
            return (Received::KeptButStale, effects);
        }
        entry.running = false;
        self.settle(id);
        (Received::Kept, effects)
    }

    /// Whether this is not the first run of a query.
    pub(crate) fn was_evaluated(&self, id: EntryId) -> bool {
        self.entries.get(&id).is_some_and(|entry| entry.evaluated)
    }

    /// From where a run's result holds until which position, as far as it is known; none where it lacks a change that
    /// came before it: the log may run ahead of what snapshots see.
    pub(crate) fn holds(
        &self,
        begun: Begun,
        evaluation: &Evaluation,
        reads: &Arc<ReadSet>,
    ) -> Option<(u64, Option<u64>)> {
        // Of what came while it ran, the oldest may be unknown even by its id.
        if begun.generation != self.generation || self.history.has_dropped_since(begun.applied) {
            return None;
        }
        let (from, until) = match &evaluation.snapshot {
            Some(snapshot) => self.history.validity(snapshot, evaluation.from, reads),
            None => (evaluation.from, None),
        };
        until.is_none_or(|until| until > from).then_some((from, until))
    }

    /// The last position known at which runs of one snapshot hold all together, of which all has been heard up to where
    /// they begin; none where they lack a change that came before.
    pub(crate) fn hold_together(&self, begun: Begun, runs: &[(Arc<Evaluation>, Arc<ReadSet>)]) -> Option<u64> {
        let (mut from, mut until) = (0, None::<u64>);
        for (evaluation, reads) in runs {
            let (begins, ends) = self.holds(begun, evaluation, reads)?;
            from = from.max(begins);
            until = until.into_iter().chain(ends).min();
        }
        let position = until.map_or(self.position, |until| self.position.min(until.saturating_sub(1)));
        (position >= from).then_some(position)
    }

    /// How far it is known that an entry holds, unless something ended it.
    pub(crate) fn horizon(&self, entry: &Entry) -> u64 {
        // While the feed is down, nothing can be said of what comes after a result.
        if entry.heard { self.position } else { entry.from }
    }

    /// Takes a transaction of the feed; tells of each query that it made stale why.
    pub(crate) fn apply(
        &mut self,
        xid: u32,
        end_lsn: u64,
        written: Vec<Written>,
        mut why: impl FnMut(&QueryKey, &Reason),
    ) -> Effects {
        let mut effects = Effects::default();
        self.position = self.position.max(end_lsn);
        let mut unwanted = Vec::new();
        let hits = hits_of(&self.index, &written);
        for id in hits.as_seen {
            if let Some(entry) = self.entries.get_mut(&id)
                && entry.contains(xid)
            {
                entry.from = entry.from.max(end_lsn);
            }
        }
        for (id, reason) in hits.changed {
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            if entry.contains(xid) {
                entry.from = entry.from.max(end_lsn);
                continue;
            }
            if entry.until.is_some() {
                continue;
            }
            why(&entry.key, &reason);
            entry.until = Some(end_lsn);
            if entry.subscribers.is_empty() && entry.waiting.is_empty() {
                unwanted.push(id);
            } else if !entry.running {
                entry.running = true;
                effects.run.push(id);
            }
        }
        for id in unwanted {
            self.remove(id);
        }
        self.history.push(xid, end_lsn, written);
        self.wake_waiting(&mut effects);
        effects
    }

    /// Takes a position of the feed.
    pub(crate) fn advance(&mut self, position: u64) -> Effects {
        let mut effects = Effects::default();
        self.position = self.position.max(position);
        self.wake_waiting(&mut effects);
        effects
    }

    /// The feed has begun, or begun again: everything has to be read after this.
    pub(crate) fn start(&mut self, position: u64) -> Effects {
        self.history.clear();
        self.streaming = true;
        self.position = position;
        self.expire_all()
    }

    /// The feed was interrupted.
    pub(crate) fn interrupt(&mut self) {
        self.streaming = false;
        self.generation += 1;
        self.drop_cached();
    }

    /// Every query has to be run again.
    pub(crate) fn expire_all(&mut self) -> Effects {
        self.generation += 1;
        self.drop_cached();
        let mut effects = Effects::default();
        for (id, entry) in &mut self.entries {
            entry.until.get_or_insert(0);
            if !entry.running {
                entry.running = true;
                effects.run.push(*id);
            }
        }
        self.wake_waiting(&mut effects);
        effects
    }

    /// Wakes this one when all that committed before the position has been heard of.
    pub(crate) fn wake_at(&mut self, position: u64, notify: &Arc<Notify>) {
        self.waiting.add(position, notify);
    }

    fn wake_waiting(&mut self, effects: &mut Effects) {
        effects.wake.extend(self.waiting.reached(self.position));
    }

    /// Keeps a query without subscribers while it holds and there is room; drops it otherwise.
    fn settle(&mut self, id: EntryId) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if !entry.subscribers.is_empty() || !entry.waiting.is_empty() || entry.running {
            return;
        }
        let bytes = match (&entry.current, entry.until) {
            (Some(current), None) if current.result.is_ok() && !current.volatile && self.streaming => current.bytes(),
            _ => return self.remove(id),
        };
        self.uncache(id);
        self.next_turn += 1;
        let turn = self.next_turn;
        if let Some(entry) = self.entries.get_mut(&id) {
            (entry.turn, entry.cached_bytes) = (turn, bytes);
        }
        self.cache.insert(turn, id);
        self.cached_bytes += bytes;
        while self.cached_bytes > self.cache_bytes_max {
            let Some((_, oldest)) = self.cache.pop_first() else { break };
            self.cached_bytes -= self.entries.get(&oldest).map_or(0, |entry| entry.cached_bytes);
            if let Some(entry) = self.entries.get_mut(&oldest) {
                entry.turn = 0;
            }
            self.remove(oldest);
        }
    }

    /// Notes that a query was asked for.
    pub(crate) fn touch(&mut self, key: &QueryKey) {
        if let Some(id) = self.by_key.get(key).copied() {
            self.settle(id);
        }
    }

    fn uncache(&mut self, id: EntryId) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if entry.turn != 0 && self.cache.remove(&entry.turn).is_some() {
            self.cached_bytes -= entry.cached_bytes;
        }
        entry.turn = 0;
    }

    fn drop_cached(&mut self) {
        for (_, id) in std::mem::take(&mut self.cache) {
            if let Some(entry) = self.entries.get_mut(&id) {
                self.cached_bytes -= entry.cached_bytes;
                entry.turn = 0;
            }
            self.remove(id);
        }
    }

    fn remove(&mut self, id: EntryId) {
        self.uncache(id);
        self.index.remove(id);
        if let Some(entry) = self.entries.remove(&id) {
            self.by_key.remove(&entry.key);
        }
    }
}

impl Entry {
    /// Whether the result contains a transaction.
    fn contains(&self, xid: u32) -> bool {
        let snapshot = self.current.as_ref().and_then(|current| current.snapshot.as_ref());
        snapshot.is_some_and(|snapshot| snapshot.contains_xid(xid))
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

#[cfg(test)]
mod tests;
