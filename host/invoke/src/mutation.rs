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
        loop {
            let (mut attempt, observed) = self.attempt_mutation(unknown).await;
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
                Err(CallError::Failure(failure)) => unknown && failure.is_transient(),
                _ => false,
            };
            if again && pause.wait().await {
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
    /// `sent_before`: whether an attempt before it may have left the receipt.
    async fn attempt_mutation(&self, sent_before: bool) -> (Attempt, Observed) {
        let position = self.caller.origin == CallOrigin::Socket;
        let mut key = self.receipt.clone();
        if let Some(receipt) = &mut key {
            receipt.fresh &= !sent_before;
        }
        let needs = Needs { isolation: Isolation::Serializable, reads: None, position, key };
        let mut attempt = self.attempt(Some(self.database(needs))).await;
        let Some(mut database) = take_database(&mut attempt) else { return (attempt, Observed::default()) };
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
        (attempt, database.take_observed())
    }
}

fn unknown_outcome() -> Failure {
    Failure::system(
        Code::UnknownOutcome,
        "the database did not answer the commit: whether anything was written is not known",
    )
    .with_outcome(Outcome::Unknown)
}
