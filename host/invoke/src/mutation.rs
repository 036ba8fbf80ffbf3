//! How a mutation is run: one transaction, run again when it loses against another one, and its commit.

use convoke_engine::{CallError, Outcome as Attempt};
use convoke_model::{Code, Failure, Observed, Outcome};
use convoke_store::Isolation;

use crate::caller::CallOrigin;
use crate::run::{Ended, Needs, Run, of_commit, take_database};

impl Run<'_> {
    pub(crate) async fn mutation(&self) -> Ended {
        let mut pause = self.pause();
        // An attempt whose commit nobody can tell of: whatever a later one meets, this one may have happened.
        let mut unknown = false;
        let mut number = 0;
        // Whether a unique index has refused an attempt that had looked: once more it looks at what is there now.
        let mut outdated = false;
        loop {
            number += 1;
            let Attempted { mut attempt, observed, is_outdated } = self.attempt_mutation(number).await;
            if let (Err(CallError::Conflict), Some(watch), false) = (&attempt.result, &self.caller.commit, unknown) {
                watch.undone();
            }
            let again = match &attempt.result {
                Err(CallError::Conflict) => true,
                Err(CallError::Failure(failure)) if failure.outcome == Outcome::Unknown => {
                    unknown = true;
                    // Under a key it happens once: the receipt of the attempt tells, or keeps it from happening later.
                    self.receipt.is_some()
                }
                Err(CallError::Failure(failure)) if unknown && failure.is_transient() => true,
                Err(CallError::Failure(_)) => is_outdated && !std::mem::replace(&mut outdated, true),
                _ => false,
            };
            if again && pause.wait().await {
                if let (Some(watch), false) = (&self.caller.commit, unknown) {
                    watch.undone();
                }
                continue;
            }
            let tells = match &attempt.result {
                Ok(_) => true,
                Err(CallError::Failure(failure)) => failure.outcome == Outcome::Done,
                Err(_) => false,
            };
            if unknown && !tells {
                attempt.result = Err(unknown_outcome().into());
            }
            return self.ended(attempt, observed);
        }
    }

    /// One run with its commit. Its transaction is over when it returns: it would hold its locks during a pause.
    /// `number`: from 1.
    async fn attempt_mutation(&self, number: u32) -> Attempted {
        let position = self.caller.origin == CallOrigin::Socket;
        let mut key = self.receipt.clone();
        if let Some(receipt) = &mut key {
            // An attempt before it may have left the receipt, or have met one that the caller did not know of.
            receipt.fresh &= number == 1;
        }
        let needs = Needs { isolation: Isolation::Serializable, reads: None, position, key };
        let mut attempt = self.attempt(Some(self.database(needs))).await;
        let Some(mut database) = take_database(&mut attempt) else {
            return Attempted { attempt, observed: Observed::default(), is_outdated: false };
        };
        match &attempt.result {
            Ok(result) => {
                database.leave_receipt(result);
                if let Some(watch) = &self.caller.commit {
                    watch.begin();
                }
                if let Err(error) = database.commit().await {
                    attempt.result = Err(of_commit(error));
                }
            }
            // It may not have failed when it was sent before.
            Err(CallError::Failure(_)) => match database.find_earlier().await {
                Ok(None) => {}
                Ok(Some(result)) => attempt.result = result.map_err(CallError::from),
                Err(error) => attempt.result = Err(of_commit(error)),
            },
            Err(_) => {}
        }
        if let Some(result) = database.earlier() {
            attempt.result = result.map_err(CallError::from);
            attempt.log.clear();
        }
        let (observed, is_outdated) = (database.take_observed(), database.is_outdated());
        Attempted { attempt, observed, is_outdated }
    }
}

/// How an attempt ended.
struct Attempted {
    attempt: Attempt,
    observed: Observed,
    /// Whether a unique index refused a write behind a read.
    is_outdated: bool,
}

fn unknown_outcome() -> Failure {
    Failure::system(
        Code::UnknownOutcome,
        "the database did not answer the commit: whether anything was written is not known",
    )
    .with_outcome(Outcome::Unknown)
}
