//! Views of several queries that are run in one snapshot, apart from the queue.

use std::sync::Arc;
use std::time::Duration;

use convoke_invoke::SharedSnapshot;
use convoke_model::ReadSet;

use crate::evaluation::{Evaluation, QueryKey, Verdict};
use crate::live::Inner;
use crate::state::Begun;

/// Snapshots that are taken for one view of several queries before it is given up for now.
const TRIES: usize = 5;
/// A snapshot that lacks what the log has shown already is taken again after this.
const PAUSE: Duration = Duration::from_micros(500);

impl Inner {
    /// Runs queries in one snapshot, for a view of their own; gives the position at which all of them hold. Takes the place
    /// of a round.
    pub(crate) async fn evaluate_together(self: &Arc<Self>, keys: &[QueryKey]) -> Option<(u64, Vec<Arc<Evaluation>>)> {
        let _turn = self.together.acquire().await.ok()?;
        let _place = self.rounds.place().await?;
        for _ in 0..TRIES {
            let begun = self.state.lock().begun();
            let shared = SharedSnapshot::new();
            let mut runs = Vec::with_capacity(keys.len());
            for key in keys {
                let (evaluation, reads) = self.rounds.evaluate(key, true, Some(shared.clone())).await;
                // What there is already is better than that.
                if evaluation.verdict == Verdict::Failed {
                    return None;
                }
                runs.push((evaluation, reads));
            }
            let mut snapshots = runs.iter().filter_map(|(evaluation, _)| evaluation.snapshot.as_ref());
            let first = snapshots.next();
            if snapshots.any(|snapshot| Some(snapshot) != first) {
                continue;
            }
            if let Some(position) = self.holds_together(begun, &runs).await {
                return Some((position, runs.into_iter().map(|(evaluation, _)| evaluation).collect()));
            }
            tokio::time::sleep(PAUSE).await;
        }
        None
    }

    async fn holds_together(self: &Arc<Self>, begun: Begun, runs: &[(Arc<Evaluation>, Arc<ReadSet>)]) -> Option<u64> {
        let from = runs.iter().map(|(evaluation, _)| evaluation.from).max().unwrap_or_default();
        if let Some(position) = self.state.lock().hold_unfollowed(begun, from) {
            return Some(position);
        }
        // What the log says up to there decides whether the snapshot lacks something.
        self.reached(from).await.ok()?;
        self.state.lock().hold_together(begun, runs)
    }
}
