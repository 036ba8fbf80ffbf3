//! Views of several queries that are run in one snapshot, apart from the queue.

use std::sync::Arc;
use std::time::Duration;

use convoke_invoke::SharedSnapshot;

use crate::evaluation::{Evaluation, QueryKey, Verdict};
use crate::live::Inner;

/// Snapshots that are taken for one view of several queries before it is given up for now.
const TRIES: usize = 5;
/// A snapshot that lacks what the log has shown already is taken again after this.
const PAUSE: Duration = Duration::from_micros(500);

impl Inner {
    /// Runs queries in one snapshot, for a view of their own; gives the position at which all of them hold.
    pub(crate) async fn evaluate_together(&self, keys: &[QueryKey]) -> Option<(u64, Vec<Arc<Evaluation>>)> {
        let _permit = self.together.acquire().await.ok()?;
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
            // What the log says up to there decides whether the snapshot lacks something.
            let from = runs.iter().map(|(evaluation, _)| evaluation.from).max().unwrap_or_default();
            self.reached(from).await.ok()?;
            if let Some(position) = self.state.lock().hold_together(begun, &runs) {
                return Some((position, runs.into_iter().map(|(evaluation, _)| evaluation).collect()));
            }
            tokio::time::sleep(PAUSE).await;
        }
        None
    }
}
