//! One round. It is broken off where something panics: then what it had to run goes back to the queue, and its place too.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use convoke_invoke::SharedSnapshot;
use convoke_model::{Failure, ReadSet};

use super::Rounds;
use crate::due::{Due, Patience, Retries};
use crate::evaluation::{Evaluation, QueryKey, Verdict};
use crate::queue::Pace;
use crate::state::Begun;

/// A round takes no further query after this: the older its snapshot, the more of its results are stale already.
const ROUND_LONGEST: Duration = Duration::from_millis(10);
/// Results wait this long for those of the same round, so that they are shown together.
const DELIVER_AFTER: Duration = Duration::from_millis(2);

pub(super) struct Round {
    rounds: Arc<Rounds>,
    begun: Begun,
    pace: Pace,
    due: VecDeque<Due>,
    /// What is being run.
    running: Option<(Due, QueryKey)>,
    /// What was run and is not delivered.
    ran: Vec<Ran>,
    is_over: bool,
}

/// A run that has ended and is not delivered.
pub(super) struct Ran {
    pub(super) due: Due,
    pub(super) key: QueryKey,
    pub(super) evaluation: Arc<Evaluation>,
    pub(super) reads: Arc<ReadSet>,
    /// Where the system failed it: how long to wait before the next run, and whether readers do.
    pub(super) pause: Option<(Duration, Patience)>,
}

impl Ran {
    fn new(mut due: Due, key: QueryKey, evaluation: Arc<Evaluation>, reads: Arc<ReadSet>, retries: Retries) -> Self {
        let failed = evaluation.verdict == Verdict::Failed;
        let pause = failed.then(|| due.pause_after_failure(Instant::now(), retries));
        Self { due, key, evaluation, reads, pause }
    }
}

impl Round {
    pub(super) fn new(rounds: Arc<Rounds>, begun: Begun, pace: Pace, due: Vec<Due>) -> Self {
        let ran = Vec::with_capacity(due.len());
        Self { rounds, begun, pace, due: due.into(), running: None, ran, is_over: false }
    }

    /// Runs what there is time for; the rest goes back.
    pub(super) async fn run(mut self) {
        let rounds = Arc::clone(&self.rounds);
        let snapshot = (self.due.len() > 1).then(SharedSnapshot::new);
        let started = Instant::now();
        let mut delivered = started;
        let mut is_first = snapshot.is_some();
        while let Some(due) = self.due.pop_front() {
            let Some((key, again)) = rounds.state.lock().take_due(due.id) else { continue };
            let (_, key) = self.running.insert((due, key));
            let (evaluation, reads) = rounds.evaluate(key, again, snapshot.clone()).await;
            let Some((due, key)) = self.running.take() else { break };
            let is_too_old = std::mem::take(&mut is_first)
                && evaluation.verdict != Verdict::Failed
                && rounds.state.lock().is_too_old(self.begun, &evaluation, &reads);
            self.ran.push(Ran::new(due, key, evaluation, reads, rounds.retries));
            if is_too_old {
                // Nor would those that follow be any newer.
                let mut rest = std::mem::take(&mut self.due);
                let pause = rest.iter_mut().map(Due::pause_until_visible).max().unwrap_or_default();
                rounds.enqueue_after(pause, rest);
                break;
            }
            let now = Instant::now();
            if now - delivered > DELIVER_AFTER {
                self.deliver();
                delivered = now;
            }
            if now - started > ROUND_LONGEST {
                break;
            }
        }
        self.deliver();
        let mut queue = rounds.queue.lock();
        queue.put_back(std::mem::take(&mut self.due).into_iter());
        queue.end(self.pace);
        self.is_over = true;
    }

    fn deliver(&mut self) {
        self.rounds.deliver(self.begun, &mut self.ran);
    }
}

impl Drop for Round {
    fn drop(&mut self) {
        if self.is_over || !std::thread::panicking() {
            return;
        }
        let rounds = Arc::clone(&self.rounds);
        rounds.queue.lock().break_off(self.pace);
        if let Some((due, key)) = self.running.take() {
            tracing::error!(function = %key.path, "a run of a live query panicked");
            let failure = rounds.failed(&key, Failure::internal("a run of a live query panicked"));
            self.ran.push(Ran::new(due, key, failure, Arc::default(), rounds.retries));
            self.deliver();
        } else {
            // It was no run; what had been run is run again.
            let ran = std::mem::take(&mut self.ran).into_iter();
            rounds.queue.lock().put_back(ran.map(|ran| ran.due));
        }
        rounds.queue.lock().put_back(std::mem::take(&mut self.due).into_iter());
        rounds.enqueue([]);
    }
}
