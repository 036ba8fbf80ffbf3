//! Rounds: the queries that are due run one after another in one snapshot.
//!
//! What one transaction has made stale is due at once. Run together, it costs Postgres one transaction instead of one a
//! query; and the results hold from the same position, so that whoever watches several of them can be shown all. A
//! query that is not known to be quick runs in a round of its own, or the others would wait for it.

mod round;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use convoke_invoke::SharedSnapshot;
use convoke_model::{Code, Failure, ReadSet};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedSender;

use round::{Ran, Round};

use crate::due::{Due, Retries};
use crate::evaluation::{Evaluation, Outcome, QueryKey};
use crate::memory::{Memory, read_set_bytes};
use crate::metrics::LiveMetrics;
use crate::queue::{Next, Queue};
use crate::reader::{EntryId, Reader, Subscriber};
use crate::runner::Runner;
use crate::state::{Begun, Effects, Received, State, Subscribed};

/// Runs queries for whoever is subscribed to them, as soon as it is their turn.
#[derive(Debug)]
pub(crate) struct Rounds {
    pub(crate) state: Arc<Mutex<State>>,
    queue: Mutex<Queue>,
    runner: Arc<dyn Runner>,
    pub(crate) memory: Arc<Memory>,
    metrics: Arc<LiveMetrics>,
    retries: Retries,
    /// Places that rounds have left to views that are made apart.
    places: Semaphore,
    /// Who wants to hear of every run.
    listener: Mutex<Option<UnboundedSender<Run>>>,
}

/// One run of a query for those who are subscribed to it.
#[derive(Debug, Clone)]
pub struct Run {
    /// The same for all runs of a query, until nobody wants it any more.
    pub entry: u64,
    pub key: QueryKey,
    pub evaluation: Arc<Evaluation>,
    pub received: Received,
}

/// The place of a round, which goes to a round again when it is dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<Rounds>);

impl Drop for Place {
    fn drop(&mut self) {
        // Without a runtime, nothing runs any more.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(Arc::clone(&self.0).work());
        }
    }
}

impl Rounds {
    pub(crate) fn new(
        state: Arc<Mutex<State>>,
        runner: Arc<dyn Runner>,
        memory: Arc<Memory>,
        metrics: Arc<LiveMetrics>,
        rounds_max: usize,
        retries: Retries,
    ) -> Self {
        let queue = Mutex::new(Queue::new(rounds_max));
        Self { state, queue, runner, memory, metrics, retries, places: Semaphore::new(0), listener: Mutex::default() }
    }

    /// Tells of every run from now on.
    pub(crate) fn listen(&self, listener: UnboundedSender<Run>) {
        *self.listener.lock() = Some(listener);
    }

    /// Adds a subscriber, and runs the query where it has to be.
    ///
    /// # Errors
    /// Where there are too many.
    pub(crate) fn subscribe(self: &Arc<Self>, key: &QueryKey, subscriber: Subscriber) -> Result<(), Failure> {
        let reader = Reader::Watcher(subscriber.watcher);
        let subscribed = self.state.lock().subscribe(key, subscriber)?;
        match subscribed {
            Subscribed::Holds => {}
            Subscribed::Runs(id) => self.run(&[id]),
            Subscribed::Joins(id) => self.queue.lock().join(id, reader),
        }
        Ok(())
    }

    /// Other functions are deployed: nothing is kept of those that are no more.
    pub(crate) fn keep_functions(&self, is_there: impl Fn(&str) -> bool) {
        self.queue.lock().keep_paths(&is_there);
        self.metrics.keep_functions(&is_there);
    }

    /// Wakes and runs.
    pub(crate) fn take(self: &Arc<Self>, mut effects: Effects) {
        effects.wake();
        self.run(&effects.run);
    }

    /// Runs queries as soon as there is a round for them.
    pub(crate) fn run(self: &Arc<Self>, ids: &[EntryId]) {
        if ids.is_empty() {
            return;
        }
        let rounds = {
            let state = self.state.lock();
            let mut queue = self.queue.lock();
            for id in ids {
                if let Some(due) = state.due(*id, |reader| queue.backlog(reader)) {
                    queue.push(due);
                }
            }
            queue.begin()
        };
        self.begin(rounds);
    }

    fn enqueue(self: &Arc<Self>, due: impl IntoIterator<Item = Due>) {
        let rounds = {
            let mut queue = self.queue.lock();
            due.into_iter().for_each(|due| queue.push(due));
            queue.begin()
        };
        self.begin(rounds);
    }

    fn enqueue_after(self: &Arc<Self>, pause: Duration, due: impl IntoIterator<Item = Due> + Send + 'static) {
        let rounds = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            rounds.enqueue(due);
        });
    }

    fn begin(self: &Arc<Self>, rounds: usize) {
        for _ in 0..rounds {
            tokio::spawn(Arc::clone(self).work());
        }
    }

    /// A place among the rounds, for a view that is made apart: with it goes a connection.
    pub(crate) async fn place(self: &Arc<Self>) -> Option<Place> {
        if !self.queue.lock().begin_apart() {
            self.places.acquire().await.ok()?.forget();
        }
        Some(Place(Arc::clone(self)))
    }

    /// Round after round, until nothing is due.
    async fn work(self: Arc<Self>) {
        loop {
            let begun = self.state.lock().begun();
            let next = self.queue.lock().next();
            match next {
                Next::Round(pace, due) => Round::new(Arc::clone(&self), begun, pace, due).run().await,
                Next::Apart => return self.places.add_permits(1),
                Next::Nothing => return,
            }
        }
    }

    /// Runs a query, and finds room for what it gave.
    pub(crate) async fn evaluate(
        &self,
        key: &QueryKey,
        again: bool,
        snapshot: Option<SharedSnapshot>,
    ) -> (Arc<Evaluation>, Arc<ReadSet>) {
        if self.memory.is_full() {
            self.state.lock().drop_cached();
        }
        if self.memory.is_full() {
            return (self.without_room(key), Arc::default());
        }
        let began = Instant::now();
        let (outcome, reads) = self.runner.run(key, snapshot).await;
        // A client may name anything: only of functions that there are is something noted.
        if outcome.ran.version.is_some() {
            self.queue.lock().took(&key.path, began.elapsed());
            self.metrics.evaluated(&key.path, again);
        }
        let bytes = outcome.bytes() + read_set_bytes(&reads);
        let held = self.memory.hold(bytes).or_else(|| {
            self.state.lock().drop_cached();
            self.memory.hold(bytes)
        });
        match held {
            Some(held) => (Arc::new(Evaluation::new(outcome, held)), Arc::new(reads)),
            None => (self.without_room(key), Arc::default()),
        }
    }

    /// Takes a plain caller's run, to be kept; false where there is no room, or nobody is there to keep it for.
    pub(crate) fn keep(
        self: &Arc<Self>,
        id: EntryId,
        begun: Begun,
        key: &QueryKey,
        outcome: Outcome,
        reads: ReadSet,
    ) -> bool {
        let again = self.state.lock().was_evaluated(id);
        if outcome.ran.version.is_some() {
            self.metrics.evaluated(&key.path, again);
        }
        let Some(held) = self.memory.hold(outcome.bytes() + read_set_bytes(&reads)) else { return false };
        let evaluation = Arc::new(Evaluation::new(outcome, held));
        let (received, mut effects) = self.state.lock().receive(id, begun, Arc::clone(&evaluation), Arc::new(reads));
        if let Some(listener) = &*self.listener.lock() {
            let _ = listener.send(Run { entry: id, key: key.clone(), evaluation, received });
        }
        match received {
            Received::Kept | Received::Unwanted => {}
            Received::KeptButStale => effects.run.push(id),
            Received::TooOld | Received::Failed => return false,
        }
        self.take(effects);
        true
    }

    fn without_room(&self, key: &QueryKey) -> Arc<Evaluation> {
        let mib = self.memory.bytes_max() >> 20;
        let words = format!("the results of this host's live queries take {mib} MiB, which is all that they may");
        self.failed(key, Failure::system(Code::LiveMemoryLimit, words))
    }

    /// What is shown of a query that the system has failed.
    fn failed(&self, key: &QueryKey, failure: Failure) -> Arc<Evaluation> {
        let outcome = Outcome::failed(Arc::clone(&key.path), failure);
        let held = self.memory.hold_anyway(outcome.bytes());
        Arc::new(Evaluation::new(outcome, held))
    }

    /// Hands results in, all at once, and runs again what has to be. They are taken out at the end: where something
    /// panics before, they are still there.
    fn deliver(self: &Arc<Self>, begun: Begun, ran: &mut Vec<Ran>) {
        if ran.is_empty() {
            return;
        }
        let mut effects = Effects::default();
        let mut received = Vec::with_capacity(ran.len());
        {
            let mut state = self.state.lock();
            for ran in ran.iter() {
                let id = ran.due.id;
                let (how, more) = match ran.pause {
                    None => state.receive(id, begun, Arc::clone(&ran.evaluation), Arc::clone(&ran.reads)),
                    Some((_, patience)) => state.receive_failure(id, &ran.evaluation, patience),
                };
                received.push(how);
                effects.append(more);
            }
        }
        self.tell(ran, &received);
        self.take(effects);
        self.runner.request_position();
        let mut again = Vec::new();
        for (ran, received) in ran.drain(..).zip(received) {
            let Ran { mut due, pause, .. } = ran;
            match received {
                Received::Kept | Received::Unwanted => {}
                Received::KeptButStale => again.push(due.once_more()),
                Received::TooOld => {
                    let pause = due.pause_until_visible();
                    self.enqueue_after(pause, [due]);
                }
                Received::Failed => self.enqueue_after(pause.map(|(pause, _)| pause).unwrap_or_default(), [due]),
            }
        }
        if !again.is_empty() {
            self.enqueue(again);
        }
    }

    fn tell(&self, ran: &[Ran], received: &[Received]) {
        let Some(listener) = &*self.listener.lock() else { return };
        for (Ran { due, key, evaluation, .. }, received) in ran.iter().zip(received) {
            let (key, evaluation) = (key.clone(), Arc::clone(evaluation));
            let _ = listener.send(Run { entry: due.id, key, evaluation, received: *received });
        }
    }
}
