//! What one client watches: several queries, shown as of one position of the log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use convoke_model::Failure;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::evaluation::{Evaluation, QueryKey};
use crate::live::Live;
use crate::reader::Subscriber;

/// Queries that change all the time may never hold together, nor may any while the feed is down. After this, a view of
/// them is made apart, and the next one after this again.
const APART_AFTER: Duration = Duration::from_millis(250);

/// The queries of one client, by numbers of its own. Dropping it ends them.
#[derive(Debug)]
pub struct Watcher {
    live: Live,
    /// Among all watchers of the host.
    number: u64,
    notify: Arc<Notify>,
    /// The subscription of each.
    queries: BTreeMap<u32, u64>,
    apart: Arc<Mutex<Apart>>,
}

/// A view whose queries were run for this watcher alone, in one snapshot.
#[derive(Debug, Default)]
struct Apart {
    /// Since when the shared results have not held together, and the newest position from which one of them held then.
    since: Option<(Instant, u64)>,
    running: bool,
    made: Option<(Keys, View)>,
    /// What was shown last, and where.
    shown: Option<(Keys, u64)>,
}

/// Queries by their numbers.
type Keys = Vec<(u32, QueryKey)>;

/// All queries of a watcher at one position.
#[derive(Debug)]
pub struct View {
    /// In bytes from the log's beginning.
    pub position: u64,
    /// From where on all of them hold, as far as is known.
    pub from: u64,
    pub results: Vec<(u32, Arc<Evaluation>)>,
}

impl Watcher {
    pub fn new(live: Live) -> Self {
        let number = live.next_number();
        let notify = Arc::new(Notify::new());
        Self { live, number, notify, queries: BTreeMap::new(), apart: Arc::default() }
    }

    /// Watches one more query; one of the same number is replaced.
    ///
    /// # Errors
    /// Where the host serves no more.
    pub fn add(&mut self, number: u32, key: &QueryKey) -> Result<(), Failure> {
        self.remove(number);
        let subscription = self.live.next_number();
        let subscriber = Subscriber { subscription, watcher: self.number, notify: Arc::clone(&self.notify) };
        self.live.inner.rounds.subscribe(key, subscriber)?;
        self.queries.insert(number, subscription);
        self.notify.notify_one();
        Ok(())
    }

    pub fn remove(&mut self, number: u32) {
        if let Some(subscription) = self.queries.remove(&number) {
            self.live.inner.state.lock().unsubscribe(subscription);
        }
    }

    /// Waits until [`Watcher::view`] may give something else. Cancel-safe.
    pub async fn changed(&self) {
        self.notify.notified().await;
    }

    /// All results as of one position, not before `at_least`; none as long as there is no such position. Then
    /// [`Watcher::changed`] tells when to ask again.
    ///
    /// A position that the log has not reached may never be: that of another database, or of one that was restored.
    /// [`Live::has_reached`] tells whether it is still waited for; how long is for the caller to say.
    pub fn view(&self, at_least: u64) -> Option<View> {
        self.view_between(at_least, None)
    }

    /// The same, and not after `at_most`.
    pub fn view_between(&self, at_least: u64, at_most: Option<u64>) -> Option<View> {
        let mut state = self.live.inner.state.lock();
        let mut results = Vec::with_capacity(self.queries.len());
        let (mut held_from, mut until, mut known) = (0, None::<u64>, u64::MAX);
        let mut stale_from = u64::MAX;
        for (number, subscription) in &self.queries {
            let entry = state.subscribed(*subscription)?;
            let current = entry.current.as_ref()?;
            held_from = held_from.max(entry.from);
            known = known.min(state.horizon(entry));
            until = until.into_iter().chain(entry.until).min();
            stale_from = entry.until.map_or(stale_from, |_| stale_from.min(entry.from));
            results.push((*number, Arc::clone(current)));
        }
        let is_followed = state.streaming;
        if until.is_some_and(|until| until <= held_from) {
            drop(state);
            return self.view_apart(at_least, at_most, held_from, is_followed.then_some(stale_from));
        }
        let from = held_from.max(at_least);
        if until.is_some_and(|until| until <= from) || at_most.is_some_and(|at_most| at_most < from) {
            return None;
        }
        let known = match (self.queries.is_empty(), is_followed) {
            (false, _) => known,
            (true, true) => state.position,
            (true, false) => state.newest(),
        };
        if known < from {
            state.wake_at(from, &self.notify);
            drop(state);
            self.live.inner.hurry();
            if is_followed || self.queries.is_empty() {
                return None;
            }
            return self.view_apart(at_least, at_most, held_from, None);
        }
        drop(state);
        self.apart.lock().since = None;
        let position = until.map_or(known, |until| (until - 1).min(known));
        let position = at_most.map_or(position, |at_most| at_most.min(position));
        Some(View { position, from: held_from, results })
    }

    /// A view that was made apart, if there is one. Has one made where each stale result is one of a run since the results
    /// do not hold together: where one of them just waits for its turn, that would not help. With no stale results the feed
    /// is down: nothing would tell that any of them holds at a later position, so they have to be run there.
    fn view_apart(&self, at_least: u64, at_most: Option<u64>, held_from: u64, stale_from: Option<u64>) -> Option<View> {
        let mut apart = self.apart.lock();
        if let Some((of, view)) = apart.made.take()
            && of == self.keys()
            && view.position >= at_least
            && at_most.is_none_or(|at_most| view.position <= at_most)
        {
            (apart.since, apart.shown) = (Some((Instant::now(), held_from)), Some((of, view.position)));
            return Some(view);
        }
        if stale_from.is_none() && apart.shown.as_ref().is_some_and(|(of, at)| *at >= at_least && *of == self.keys()) {
            return None;
        }
        let (since, began_at) = *apart.since.get_or_insert_with(|| (Instant::now(), held_from));
        let pause = APART_AFTER.saturating_sub(since.elapsed());
        let helps = stale_from.is_none_or(|stale_from| pause.is_zero() && stale_from > began_at);
        if helps && !apart.running {
            apart.running = true;
            let (live, apart, notify) = (self.live.clone(), Arc::clone(&self.apart), Arc::clone(&self.notify));
            let making = Making { apart, notify, made: None };
            tokio::spawn(making.make(live, self.keys(), pause));
        }
        None
    }

    fn keys(&self) -> Keys {
        let state = self.live.inner.state.lock();
        let key = |subscription: &u64| state.subscribed(*subscription).map(|entry| entry.key.clone());
        self.queries.iter().filter_map(|(number, subscription)| Some((*number, key(subscription)?))).collect()
    }
}

/// A view that is being made apart. However that ends, another one can be made.
struct Making {
    apart: Arc<Mutex<Apart>>,
    notify: Arc<Notify>,
    made: Option<(Keys, View)>,
}

impl Making {
    async fn make(mut self, live: Live, keys: Keys, pause: Duration) {
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        let (numbers, queries): (Vec<u32>, Vec<QueryKey>) = keys.iter().cloned().unzip();
        let made = live.inner.evaluate_together(&queries).await;
        self.made = made.map(|(position, results)| {
            let results = numbers.into_iter().zip(results).collect();
            (keys, View { position, from: position, results })
        });
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        let mut apart = self.apart.lock();
        apart.running = false;
        apart.since = apart.since.map(|(_, began_at)| (Instant::now(), began_at));
        apart.made = self.made.take();
        drop(apart);
        self.notify.notify_one();
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut state = self.live.inner.state.lock();
        for subscription in self.queries.values() {
            state.unsubscribe(*subscription);
        }
    }
}
