//! How a query is run: without a transaction, or in a snapshot.

use convoke_engine::CallError;
use convoke_model::Observed;
use convoke_store::Isolation;

use crate::run::{Ended, Needs, Run, take_database};

impl Run<'_> {
    /// A query takes a snapshot only where it reads more than once, or where its reads are noted; it is the same whenever
    /// it is run, so one that turns out to read again is run again.
    pub(crate) async fn query(&self) -> Ended {
        let mut pause = self.pause();
        let mut reads = self.reads.clone();
        loop {
            let snapshot = reads.is_some() || self.function.reads_often();
            let isolation = if snapshot { Isolation::Snapshot } else { Isolation::SingleRead };
            let needs = Needs { isolation, reads: reads.clone(), position: false, key: None };
            let mut attempt = self.attempt(Some(self.database(needs))).await;
            let shared = reads.as_mut().and_then(|reads| reads.snapshot.take());
            match &attempt.result {
                Err(CallError::NeedsSnapshot) => {
                    self.function.set_reads_often();
                    if let Some(reads) = &mut reads {
                        reads.snapshot = shared;
                    }
                }
                // A snapshot that others broke: one of the run's own takes its place.
                Err(CallError::Conflict) if shared.is_some() => {}
                Err(CallError::Conflict) => {
                    if !pause.wait().await {
                        return self.ended(attempt, Observed::default());
                    }
                }
                _ => {
                    let mut observed = Observed::default();
                    if let Some(mut database) = take_database(&mut attempt) {
                        observed = database.take_observed();
                        // Ends the snapshot; nothing was written.
                        let _ = database.commit().await;
                    }
                    observed.volatile |= attempt.volatile;
                    return self.ended(attempt, observed);
                }
            }
        }
    }
}
