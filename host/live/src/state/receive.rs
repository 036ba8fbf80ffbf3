//! What runs gave: whether it is shown, and until when it holds.

use std::sync::Arc;

use convoke_model::ReadSet;

use super::{Begun, Effects, Received, State};
use crate::due::Patience;
use crate::evaluation::Evaluation;
use crate::reader::EntryId;

impl State {
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
        if !entry.is_wanted() {
            self.remove(id);
            return (Received::Unwanted, effects);
        }
        let Some((from, until)) = self.holds(begun, &evaluation, &reads) else { return (Received::TooOld, effects) };
        self.index.insert(id, Arc::clone(&reads));
        let Some(entry) = self.entries.get_mut(&id) else { return (Received::Unwanted, effects) };
        entry.answer(&evaluation);
        (entry.current, entry.reads) = (Some(evaluation), Some(reads));
        (entry.from, entry.until, entry.is_followed) = (from, until, self.streaming);
        entry.evaluated = true;
        effects.wake.extend(entry.subscribers.iter().map(|subscriber| Arc::clone(&subscriber.notify)));
        if let Some(pinned) = self.pin(id) {
            let stale = self.entries.get(&pinned).is_some_and(|entry| entry.until.is_some());
            if stale && self.begin_run(pinned) {
                effects.run.push(pinned);
            }
        }
        let Some(entry) = self.entries.get_mut(&id) else { return (Received::Unwanted, effects) };
        if until.is_some() && !entry.is_wanted() {
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

    /// Takes a run that the system has failed. A result that there is stays, for as far as it holds, until patience is
    /// over: a watcher shows its queries as of one position, so a stale one would keep the others back for ever.
    pub(crate) fn receive_failure(
        &mut self,
        id: EntryId,
        failure: &Arc<Evaluation>,
        patience: Patience,
    ) -> (Received, Effects) {
        let mut effects = Effects::default();
        let Some(entry) = self.entries.get_mut(&id) else { return (Received::Unwanted, effects) };
        entry.answer(failure);
        if !entry.is_wanted() {
            self.remove(id);
            return (Received::Unwanted, effects);
        }
        let holds = entry.has_result() && entry.until.is_none();
        if patience == Patience::Over && !holds {
            // It says nothing of the data, so no write ends it; the next run does.
            (entry.current, entry.reads) = (Some(Arc::clone(failure)), None);
            (entry.from, entry.until, entry.is_followed) = (0, None, self.streaming);
            self.index.remove(id);
            effects.wake.extend(entry.subscribers.iter().map(|subscriber| Arc::clone(&subscriber.notify)));
        }
        (Received::Failed, effects)
    }

    /// From where a run's result holds until which position, as far as it is known; none where it lacks a change that
    /// came before it: the log may run ahead of what snapshots see.
    fn holds(&self, begun: Begun, evaluation: &Evaluation, reads: &Arc<ReadSet>) -> Option<(u64, Option<u64>)> {
        if !self.may_hold(begun) {
            return None;
        }
        let (from, until) = match &evaluation.snapshot {
            Some(snapshot) => self.history.validity(snapshot, evaluation.from, reads),
            None => (evaluation.from, None),
        };
        until.is_none_or(|until| until > from).then_some((from, until))
    }

    /// Whether a run's result may lack a change that came before it. Looks at the reads only where its snapshot lacks
    /// something, which is seldom.
    pub(crate) fn is_too_old(&self, begun: Begun, evaluation: &Evaluation, reads: &Arc<ReadSet>) -> bool {
        let lacks_any = evaluation.snapshot.as_ref().is_some_and(|snapshot| self.history.lacks_any(snapshot));
        !self.may_hold(begun) || (lacks_any && self.holds(begun, evaluation, reads).is_none())
    }

    fn may_hold(&self, begun: Begun) -> bool {
        // Of what came while it ran, the oldest may be unknown even by its id.
        begun.generation == self.generation && !self.history.has_dropped_since(begun.applied)
    }

    /// The position at which runs of one snapshot hold all together, while the feed is down: where they begin, and no
    /// further.
    pub(crate) fn hold_unfollowed(&self, begun: Begun, from: u64) -> Option<u64> {
        (!self.streaming && begun.generation == self.generation).then_some(from)
    }

    /// The last position known at which runs of one snapshot hold all together, of which all was applied up to where
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
}
