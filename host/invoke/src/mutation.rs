//! How a mutation is run: one transaction, run again when it loses against another one, and its commit.

use convoke_engine::{CallError, Outcome as Attempt, Room};
use convoke_model::{Code, Failure, Kind, Observed, Outcome};
use convoke_store::{CallDatabase, Isolation};

use crate::caller::CallOrigin;
use crate::run::{Ended, Needs, Run, of_commit, take_database};

impl Run<'_> {
    pub(crate) async fn mutation(&self) -> Ended {
        let mut pause = self.pause();
        // An attempt whose commit nobody can tell of: whatever a later one meets, this one may have happened.
        let mut unknown = false;
        loop {
            let (mut attempt, observed) = self.attempt_mutation().await;
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
            if unknown && attempt.result.is_err() {
                attempt.result = Err(unknown_outcome().into());
            }
            return self.ended(attempt, observed);
        }
    }

    /// One run with its commit. Its transaction is over when it returns: it would hold its locks during a pause.
    async fn attempt_mutation(&self) -> (Attempt, Observed) {
        let position = self.caller.origin == CallOrigin::Socket;
        let key = self.receipt.clone();
        let needs = Needs { isolation: Isolation::Serializable, reads: None, position, key };
        let mut database = self.database(needs);
        let mut room = self.room();
        let mut place = None;
        if self.receipt.is_some() {
            // An instance first, then a connection, as for every call: or each could wait for the other.
            match self.invoker.inner.engine.place(Kind::Mutation, room, self.deadline).await {
                Ok(taken) => (place, room) = (Some(taken), Room::Taken),
                Err(failure) => {
                    let attempt =
                        Attempt { result: Err(failure.into()), log: Vec::new(), database: None, volatile: false };
                    return (attempt, Observed::default());
                }
            }
            match recall(&mut database).await {
                Ok(None) => {}
                told => {
                    let result = told.map(Option::unwrap_or_default);
                    let attempt = Attempt { result, log: Vec::new(), database: None, volatile: false };
                    return (attempt, database.take_observed());
                }
            }
        }
        let mut attempt = self.attempt_in(room, Some(database)).await;
        drop(place);
        let Some(mut database) = take_database(&mut attempt) else { return (attempt, Observed::default()) };
        if let Ok(result) = &attempt.result {
            if self.receipt.is_some() {
                database.remember(result);
            }
            if let Some(watch) = &self.caller.commit {
                watch.begin();
            }
            if let Err(error) = database.commit().await {
                attempt.result = Err(of_commit(error));
            }
        }
        (attempt, database.take_observed())
    }
}

/// What an earlier attempt, or the same call sent before, has returned.
async fn recall(database: &mut CallDatabase) -> Result<Option<String>, CallError> {
    let result = database.recall().await.map_err(of_commit)?;
    if result.is_some() {
        database.commit().await.map_err(of_commit)?;
    }
    Ok(result)
}

fn unknown_outcome() -> Failure {
    Failure::system(
        Code::UnknownOutcome,
        "the connection to the database broke during the commit: whether anything was written is not known",
    )
    .with_outcome(Outcome::Unknown)
}
