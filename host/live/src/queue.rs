//! The queries that are due, and what runs next: a turn for each reader, whoever asked for how much.
//!
//! Pure: no I/O, no clock. Readers take turns of a few queries each, so that who asks for very many delays the others by
//! one turn of his own and no more. Queries that somebody waits for without having a result take turns with those that
//! are run again. Queries that are not known to be quick have rounds of their own, and at most half of all.

mod lanes;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use lanes::Lanes;

use crate::due::{Due, Wanted};
use crate::reader::{EntryId, Reader};

/// Queries in one round: a few are not worth a second snapshot, and many would make the first ones wait.
const ROUND_MIN: usize = 8;
const ROUND_MAX: usize = 64;
/// A function that took longer than this the last time, or has not run yet, runs alone.
const SLOW: Duration = Duration::from_millis(5);

/// Whether a query may share a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    Quick,
    /// Or not known yet.
    Slow,
}

/// What gets a place.
#[derive(Debug)]
pub(crate) enum Next {
    Round(Pace, Vec<Due>),
    /// A view that is made apart: the place is its own now.
    Apart,
    Nothing,
}

/// Queries that are to be run for subscribers.
#[derive(Debug)]
pub(crate) struct Queue {
    /// What is due; a lane may name what is not any more.
    due: HashMap<EntryId, Due>,
    quick: Lanes,
    slow: Lanes,
    rounds: usize,
    slow_rounds: usize,
    rounds_max: usize,
    /// Views that are to be made apart, and wait for the place of a round.
    apart: usize,
    /// Whether the last place that was free went to one of them: then a round is next.
    apart_was_last: bool,
    /// The pace of the round before, so that neither waits for all of the other.
    last: Pace,
    /// Functions whose last run was not slow.
    quick_paths: HashSet<Arc<str>>,
}

impl Queue {
    pub(crate) fn new(rounds_max: usize) -> Self {
        Self {
            due: HashMap::new(),
            quick: Lanes::default(),
            slow: Lanes::default(),
            rounds: 0,
            slow_rounds: 0,
            rounds_max: rounds_max.max(1),
            apart: 0,
            apart_was_last: false,
            last: Pace::Slow,
            quick_paths: HashSet::new(),
        }
    }

    /// Adds a query that is not in it.
    pub(crate) fn push(&mut self, due: Due) {
        self.lanes(&due.path).push(due.wanted, due.reader, due.id);
        self.due.insert(due.id, due);
    }

    /// Adds queries that were taken out and not run, where they were.
    pub(crate) fn put_back(&mut self, round: impl DoubleEndedIterator<Item = Due>) {
        for due in round.rev() {
            self.lanes(&due.path).push_front(due.wanted, due.reader, due.id);
            self.due.insert(due.id, due);
        }
    }

    /// One more reader waits for the first result of a query, in his own turn too; nothing where it is not in the queue.
    pub(crate) fn join(&mut self, id: EntryId, reader: Reader) {
        let Some(due) = self.due.get(&id) else { return };
        let path = Arc::clone(&due.path);
        self.lanes(&path).push(Wanted::First, reader, id);
        let due = &self.due;
        // Who asks for the same thing over and over adds nothing.
        for lanes in [&mut self.quick, &mut self.slow] {
            lanes.compact(2 * due.len(), |id| due.contains_key(&id));
        }
    }

    /// How much a reader has in the queue.
    pub(crate) fn backlog(&self, reader: Reader) -> usize {
        self.quick.backlog(reader) + self.slow.backlog(reader)
    }

    /// How many rounds to begin for what is due; they count as begun.
    pub(crate) fn begin(&mut self) -> usize {
        let slow = self.slow.len().min(self.slow_rounds_max().saturating_sub(self.slow_rounds));
        let wanted = (slow + self.quick.len().div_ceil(ROUND_MIN)).min(self.rounds_max - self.rounds);
        self.rounds += wanted;
        wanted
    }

    /// A place for a view that is made apart; where there is none, it gets one later.
    pub(crate) fn begin_apart(&mut self) -> bool {
        let is_free = self.rounds < self.rounds_max;
        if is_free {
            self.rounds += 1;
        } else {
            self.apart += 1;
        }
        is_free
    }

    /// What gets the place of a round that has ended.
    pub(crate) fn next(&mut self) -> Next {
        let is_their_turn = self.apart > 0 && !self.apart_was_last;
        let round = if is_their_turn { None } else { self.next_round() };
        self.apart_was_last = round.is_none() && self.apart > 0;
        match round {
            Some((pace, due)) => Next::Round(pace, due),
            None if self.apart > 0 => {
                self.apart -= 1;
                // Where there was nothing to run, the place was given back.
                self.rounds += usize::from(!is_their_turn);
                Next::Apart
            }
            None => Next::Nothing,
        }
    }

    /// What runs together next; none where a round has ended for good. Each is ended by [`Self::end`].
    fn next_round(&mut self) -> Option<(Pace, Vec<Due>)> {
        loop {
            let slow = self.slow.len() > 0 && self.slow_rounds < self.slow_rounds_max();
            let pace = match (self.quick.len() > 0, slow) {
                (true, true) if self.last == Pace::Slow => Pace::Quick,
                (_, true) => Pace::Slow,
                (true, false) => Pace::Quick,
                (false, false) => {
                    self.rounds -= 1;
                    return None;
                }
            };
            let round = self.take(pace);
            if round.is_empty() {
                continue;
            }
            self.last = pace;
            self.slow_rounds += usize::from(pace == Pace::Slow);
            return Some((pace, round));
        }
    }

    /// A round has ended, and its place goes to the next one.
    pub(crate) fn end(&mut self, pace: Pace) {
        self.slow_rounds -= usize::from(pace == Pace::Slow);
    }

    /// A round was broken off, and its place is free.
    pub(crate) fn break_off(&mut self, pace: Pace) {
        self.end(pace);
        self.rounds -= 1;
    }

    /// Notes how long a run of a function took.
    pub(crate) fn took(&mut self, path: &Arc<str>, time: Duration) {
        if time > SLOW {
            self.quick_paths.remove(path);
        } else if !self.quick_paths.contains(path) {
            self.quick_paths.insert(Arc::clone(path));
        }
    }

    /// Keeps only what was noted of these functions.
    pub(crate) fn keep_paths(&mut self, is_there: impl Fn(&str) -> bool) {
        self.quick_paths.retain(|path| is_there(path));
    }

    /// The next ones of a pace; what turned out to be of the other one since changes over.
    fn take(&mut self, pace: Pace) -> Vec<Due> {
        let size = match pace {
            Pace::Quick => (self.quick.len() / self.rounds_max).clamp(ROUND_MIN, ROUND_MAX),
            Pace::Slow => 1,
        };
        let mut round = Vec::with_capacity(size);
        while round.len() < size {
            let lanes = match pace {
                Pace::Quick => &mut self.quick,
                Pace::Slow => &mut self.slow,
            };
            let Some(id) = lanes.pop() else { break };
            // Its reader may have left, or it had an earlier turn of another one.
            let Some(due) = self.due.remove(&id) else { continue };
            if pace == Pace::Quick && self.pace(&due.path) == Pace::Slow {
                self.push(due);
                continue;
            }
            round.push(due);
        }
        round
    }

    /// A query that is not known to be quick never keeps the last round from the others.
    fn slow_rounds_max(&self) -> usize {
        self.rounds_max.div_ceil(2)
    }

    fn pace(&self, path: &str) -> Pace {
        if self.quick_paths.contains(path) { Pace::Quick } else { Pace::Slow }
    }

    fn lanes(&mut self, path: &str) -> &mut Lanes {
        match self.pace(path) {
            Pace::Quick => &mut self.quick,
            Pace::Slow => &mut self.slow,
        }
    }
}
