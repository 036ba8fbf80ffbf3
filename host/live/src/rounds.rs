//! Rounds: the queries that are due run one after another in one snapshot.
//!
//! What one transaction has made stale is due at once. Run together, it costs Postgres one transaction instead of one a
//! query; and the results hold from the same position, so that whoever watches several of them can be shown all. A
//! query that is not known to be quick runs in a round of its own, or the others would wait for it.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use convoke_invoke::{Observe, Request, SharedSnapshot};
use convoke_model::{Code, Failure, Kind, Observed, Origin, ReadSet};
use tokio::time::sleep;

use crate::evaluation::{Evaluation, QueryKey};
use crate::live::{Inner, Run};
use crate::state::{Begun, Effects, EntryId, Received};

/// Queries in one round: a few are not worth a second snapshot, and many would make the first ones wait.
const ROUND_MIN: usize = 8;
const ROUND_MAX: usize = 64;
/// A round takes no further query after this: the older its snapshot, the more of its results are stale already.
const ROUND_LONGEST: Duration = Duration::from_millis(10);
/// Results wait this long for those of the same round, so that they are shown together.
const DELIVER_AFTER: Duration = Duration::from_millis(2);
/// A function that took longer than this the last time, or has not run yet, runs alone.
const SLOW: Duration = Duration::from_millis(5);
/// A snapshot that lacks what the log has shown already is taken again after this, a little later each time.
const VISIBLE_FIRST: Duration = Duration::from_micros(500);
const VISIBLE_LONGEST: Duration = Duration::from_millis(20);
/// After a failure that is nobody's fault.
const BUSY: Duration = Duration::from_millis(250);
/// Snapshots that are taken for one view of several queries before it is given up for now.
const TOGETHER_TRIES: usize = 5;

/// Queries that are to be run for subscribers.
#[derive(Debug)]
pub(crate) struct Queue {
    due: VecDeque<Due>,
    rounds: usize,
    rounds_max: usize,
    /// Functions whose last run was not slow.
    quick: HashSet<Arc<str>>,
}

/// A query that is to be run.
#[derive(Debug)]
struct Due {
    id: EntryId,
    path: Arc<str>,
    /// How long to wait before it is run once more, if it has to be.
    pause: Duration,
}

/// A run that has ended and of which nobody has heard.
struct Ran {
    due: Due,
    key: QueryKey,
    evaluation: Arc<Evaluation>,
    reads: Arc<ReadSet>,
}

impl Queue {
    pub(crate) fn new(rounds_max: usize) -> Self {
        Self { due: VecDeque::new(), rounds: 0, rounds_max, quick: HashSet::new() }
    }

    /// How many rounds to begin for what is due; they count as begun.
    fn begin(&mut self) -> usize {
        let room = self.rounds_max - self.rounds;
        // A long queue takes all there is: which are quick does not matter.
        let wanted = if self.due.len() >= room * ROUND_MIN {
            room
        } else {
            let quick = self.due.iter().filter(|due| self.quick.contains(&due.path)).count();
            room.min(self.due.len() - quick + quick.div_ceil(ROUND_MIN))
        };
        self.rounds += wanted;
        wanted
    }

    /// What runs together next; where nothing does, a round has ended.
    fn next(&mut self) -> Option<Vec<Due>> {
        let size = (self.due.len() / self.rounds_max).clamp(ROUND_MIN, ROUND_MAX);
        let Some(first) = self.due.pop_front() else {
            self.rounds -= 1;
            return None;
        };
        let mut round = vec![first];
        if self.quick.contains(&round[0].path) {
            while round.len() < size
                && let Some(next) = self.due.pop_front_if(|next| self.quick.contains(&next.path))
            {
                round.push(next);
            }
        }
        Some(round)
    }

    fn took(&mut self, path: &Arc<str>, time: Duration) {
        if time > SLOW {
            self.quick.remove(path);
        } else if !self.quick.contains(path) {
            self.quick.insert(Arc::clone(path));
        }
    }
}

impl Inner {
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
        let due: Vec<Due> = {
            let state = self.state.lock();
            let path = |id: &EntryId| state.entries.get(id).map(|entry| Arc::clone(&entry.key.path));
            let due = |id: &EntryId| path(id).map(|path| Due { id: *id, path, pause: VISIBLE_FIRST });
            ids.iter().filter_map(due).collect()
        };
        self.enqueue(due);
    }

    fn enqueue(self: &Arc<Self>, due: impl IntoIterator<Item = Due>) {
        let rounds = {
            let mut queue = self.queue.lock();
            queue.due.extend(due);
            queue.begin()
        };
        for _ in 0..rounds {
            let inner = Arc::clone(self);
            tokio::spawn(async move { inner.work().await });
        }
    }

    fn enqueue_after(self: &Arc<Self>, pause: Duration, due: impl IntoIterator<Item = Due> + Send + 'static) {
        let inner = Arc::clone(self);
        tokio::spawn(async move {
            sleep(pause).await;
            inner.enqueue(due);
        });
    }

    /// Round after round, until nothing is due.
    async fn work(self: Arc<Self>) {
        loop {
            let round = self.queue.lock().next();
            match round {
                Some(round) => self.round(round).await,
                None => return,
            }
        }
    }

    async fn round(self: &Arc<Self>, round: Vec<Due>) {
        let snapshot = (round.len() > 1).then(SharedSnapshot::new);
        let started = Instant::now();
        let begun = self.state.lock().begun();
        let mut round = VecDeque::from(round);
        let mut ran: Vec<Ran> = Vec::with_capacity(round.len());
        let mut delivered = started;
        while let Some(due) = round.pop_front() {
            let (key, again) = {
                let state = self.state.lock();
                let Some(entry) = state.entries.get(&due.id) else { continue };
                (entry.key.clone(), state.was_evaluated(due.id))
            };
            let began = Instant::now();
            let (evaluation, observed) = self.evaluate(&key, snapshot.clone()).await;
            let ended = Instant::now();
            self.queue.lock().took(&key.path, ended - began);
            self.metrics.evaluated(&key.path, again);
            ran.push(Ran { due, key, evaluation: Arc::new(evaluation), reads: Arc::new(observed.reads) });
            if let [first] = &ran[..]
                && snapshot.is_some()
                && self.state.lock().holds(begun, &first.evaluation, &first.reads).is_none()
            {
                // Nor would those that follow: the snapshot is too old.
                self.enqueue_after(VISIBLE_FIRST, std::mem::take(&mut round));
                break;
            }
            if ended - delivered > DELIVER_AFTER {
                self.deliver(begun, std::mem::take(&mut ran));
                delivered = ended;
            }
            if ended - started > ROUND_LONGEST {
                break;
            }
        }
        self.deliver(begun, ran);
        let mut queue = self.queue.lock();
        for due in round.into_iter().rev() {
            queue.due.push_front(due);
        }
    }

    /// Hands results in, all at once, and runs again what has to be.
    fn deliver(self: &Arc<Self>, begun: Begun, ran: Vec<Ran>) {
        if ran.is_empty() {
            return;
        }
        let mut effects = Effects::default();
        let mut received = Vec::with_capacity(ran.len());
        {
            let mut state = self.state.lock();
            for Ran { due, evaluation, reads, .. } in &ran {
                let (how, more) = state.receive(due.id, begun, Arc::clone(evaluation), Arc::clone(reads));
                if is_transient(evaluation) && how == Received::Kept {
                    state.begin_run(due.id);
                }
                received.push(how);
                effects.append(more);
            }
        }
        if let Some(runs) = &*self.runs.lock() {
            for (Ran { due, key, evaluation, .. }, received) in ran.iter().zip(&received) {
                let (key, evaluation) = (key.clone(), Arc::clone(evaluation));
                let _ = runs.send(Run { entry: due.id, key, evaluation, received: *received });
            }
        }
        self.take(effects);
        self.request.send();
        let mut again = Vec::new();
        for (Ran { mut due, evaluation, .. }, received) in ran.into_iter().zip(received) {
            match received {
                Received::Kept if !is_transient(&evaluation) => {}
                Received::Unwanted => {}
                Received::Kept => self.enqueue_after(BUSY, [due]),
                Received::KeptButStale => again.push(Due { pause: VISIBLE_FIRST, ..due }),
                Received::TooOld => {
                    let pause = due.pause;
                    due.pause = (pause * 2).min(VISIBLE_LONGEST);
                    self.enqueue_after(pause, [due]);
                }
            }
        }
        if !again.is_empty() {
            self.enqueue(again);
        }
    }

    /// Runs queries in one snapshot, for a view of their own; gives the position at which all of them hold.
    pub(crate) async fn evaluate_together(&self, keys: &[QueryKey]) -> Option<(u64, Vec<Arc<Evaluation>>)> {
        let _permit = self.together.acquire().await.ok()?;
        for _ in 0..TOGETHER_TRIES {
            let begun = self.state.lock().begun();
            let shared = SharedSnapshot::new();
            let mut runs = Vec::with_capacity(keys.len());
            for key in keys {
                let (evaluation, observed) = self.evaluate(key, Some(shared.clone())).await;
                self.metrics.evaluated(&key.path, true);
                runs.push((Arc::new(evaluation), Arc::new(observed.reads)));
            }
            let mut snapshots = runs.iter().filter_map(|(evaluation, _)| evaluation.snapshot.as_ref());
            let first = snapshots.next();
            if snapshots.any(|snapshot| Some(snapshot) != first) {
                continue;
            }
            // What the log says up to there decides whether the snapshot lacks something.
            let from = runs.iter().map(|(evaluation, _)| evaluation.from).max().unwrap_or_default();
            self.heard_of(from).await.ok()?;
            if let Some(position) = self.state.lock().hold_together(begun, &runs) {
                return Some((position, runs.into_iter().map(|(evaluation, _)| evaluation).collect()));
            }
            sleep(VISIBLE_FIRST).await;
        }
        None
    }

    async fn evaluate(&self, key: &QueryKey, snapshot: Option<SharedSnapshot>) -> (Evaluation, Observed) {
        let request = Request { kind: Kind::Query, path: &key.path, args: &key.args, encoded: false };
        let observe = Observe { journal: key.journal.as_deref().map(str::to_owned), key: None, snapshot };
        let (answer, mut observed) = self.invoker.run_observed(request, &observe).await;
        let snapshot = observed.snapshot.as_deref().and_then(|text| text.parse().ok());
        // What read nothing holds everywhere.
        let from = observed.lsn.unwrap_or_default();
        let result = answer.result.map_err(|failure| shown(failure, &answer.request_id));
        let journal = observed.journal.take();
        let mut evaluation = Evaluation::new(Arc::clone(&key.path), result, answer.log, journal, from, snapshot);
        evaluation.volatile = observed.volatile;
        if observed.volatile {
            self.volatile.lock().insert(Arc::clone(&key.path));
        }
        (evaluation, observed)
    }
}

/// An internal failure says no more to a subscriber than to any client.
fn shown(mut failure: Failure, request_id: &str) -> Failure {
    if failure.code == Code::Internal {
        failure.message = format!("internal error, request id {request_id}");
    }
    failure
}

fn is_transient(evaluation: &Evaluation) -> bool {
    matches!(&evaluation.result, Err(failure) if failure.origin == Origin::System)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(paths: &[&str]) -> Queue {
        let mut queue = Queue::new(4);
        queue.took(&Arc::from("quick:it"), Duration::from_millis(1));
        let due = |(id, path): (usize, &&str)| Due { id: id as u64, path: Arc::from(*path), pause: VISIBLE_FIRST };
        queue.due.extend(paths.iter().enumerate().map(due));
        queue
    }

    fn rounds(queue: &mut Queue) -> Vec<usize> {
        std::iter::from_fn(|| queue.next()).map(|round| round.len()).collect()
    }

    #[test]
    fn quick_queries_share_a_round_and_others_have_their_own() {
        let mut queue = queue(&["quick:it", "quick:it", "new:it", "new:it", "quick:it"]);
        assert_eq!(queue.begin(), 3, "one for the quick ones");
        assert_eq!(queue.begin(), 1, "no more than there is room for");
        assert_eq!(rounds(&mut queue), [2, 1, 1, 1]);
        assert_eq!(queue.rounds, 3);
    }

    #[test]
    fn a_long_queue_is_shared_out_in_long_rounds() {
        let mut queue = queue(&["quick:it"; 1_000]);
        assert_eq!(queue.begin(), 4);
        let lengths = rounds(&mut queue);
        assert_eq!((lengths[0], lengths.iter().sum()), (ROUND_MAX, 1_000));
        assert!(lengths.iter().all(|length| *length <= ROUND_MAX), "{lengths:?}");
    }

    #[test]
    fn what_turned_slow_runs_alone_until_it_is_quick_again() {
        let mut queue = queue(&["quick:it"; 4]);
        queue.took(&Arc::from("quick:it"), 2 * SLOW);
        assert_eq!(queue.next().map(|round| round.len()), Some(1));
        queue.took(&Arc::from("quick:it"), SLOW);
        assert_eq!(queue.next().map(|round| round.len()), Some(3));
    }
}
