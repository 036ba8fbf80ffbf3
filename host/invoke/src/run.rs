//! The sixth layer: a run of a function, in an instance of its own, and again where its transaction lost.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use convoke_deploy::{Deployment, Function};
use convoke_engine::{CallError, Clock, Outcome as Attempt, Room};
use convoke_model::{Code, Database, DatabaseError, Failure, Kind, Observed, Upcast};
use convoke_store::{CallDatabase, CallOptions, Isolation, NoteReads, Receipt};
use rand::Rng;

use crate::answer::{RequestId, ResultText, VersionTag};
use crate::caller::{CallOrigin, Caller};
use crate::door::Invoker;
use crate::outside::ActionOutside;
use crate::upcast::RuleUpcast;

/// The first pause before a repeated run; it doubles up to the second, and is cut at random.
const RETRY_FIRST: Duration = Duration::from_millis(1);
const RETRY_LONGEST: Duration = Duration::from_millis(64);

/// What stays the same when a run is repeated.
pub(crate) struct Run<'a> {
    pub(crate) invoker: &'a Invoker,
    pub(crate) caller: &'a Caller,
    pub(crate) deployment: &'a Arc<Deployment>,
    pub(crate) function: &'a Function,
    pub(crate) args: &'a str,
    pub(crate) request_id: RequestId,
    pub(crate) deadline: Instant,
    pub(crate) clock: Clock,
    /// Whether to note what is read.
    pub(crate) reads: Option<NoteReads>,
    /// Under what a mutation happens once.
    pub(crate) receipt: Option<Receipt>,
}

/// How a call ended, before it is answered.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) result: Result<ResultText, Failure>,
    pub(crate) log: Arc<[String]>,
    pub(crate) version: Option<VersionTag>,
    pub(crate) observed: Observed,
}

/// What a run asks of the database, beside what is the same for all runs.
pub(crate) struct Needs {
    pub(crate) isolation: Isolation,
    pub(crate) reads: Option<NoteReads>,
    /// Whether to ask where the commit lies in the log.
    pub(crate) position: bool,
    pub(crate) key: Option<Receipt>,
}

/// The pauses between repeated runs of a call.
pub(crate) struct Pause {
    next: Duration,
    deadline: Instant,
}

impl Run<'_> {
    pub(crate) fn database(&self, needs: Needs) -> Box<CallDatabase> {
        let Needs { isolation, reads, position, key } = needs;
        let upcast = self.deployment.tables().has_upcasts().then(|| self.invoker.upcasts(self));
        let options = CallOptions { isolation, deadline: self.deadline, upcast, reads, position, key };
        Box::new(self.invoker.inner.store.call(Arc::clone(self.deployment.tables()), options))
    }

    /// One attempt, without a commit.
    pub(crate) async fn attempt(&self, database: Option<Box<CallDatabase>>) -> Attempt {
        let kind = self.function.kind();
        let outside =
            (kind == Kind::Action).then(|| Arc::new(ActionOutside::new(self.invoker, self.caller, self.deadline)) as _);
        let request_id = self.request_id.to_string();
        let call = convoke_engine::Call {
            kind,
            room: self.room(),
            function: self.function.path().function(),
            args: self.args,
            request_id: &request_id,
            deadline: self.deadline,
            clock: self.clock,
            database: database.map(|database| database as _),
            outside,
        };
        self.invoker.inner.engine.call(self.function.version(), call).await
    }

    /// Whose turn it is for an instance: who holds something already does not wait among those who have just come.
    fn room(&self) -> Room {
        match (self.function.kind(), self.caller.origin) {
            (Kind::Action, CallOrigin::Action { depth }) => Room::Nested(depth),
            _ if self.reads.as_ref().is_some_and(|reads| reads.snapshot.is_some()) => Room::Snapshot,
            _ => Room::Entry,
        }
    }

    pub(crate) fn pause(&self) -> Pause {
        Pause { next: RETRY_FIRST, deadline: self.deadline }
    }

    /// A function without a transaction of its own: run once.
    pub(crate) async fn once(&self) -> Ended {
        self.ended(self.attempt(None).await, Observed::default())
    }

    pub(crate) fn ended(&self, attempt: Attempt, observed: Observed) -> Ended {
        Ended {
            result: attempt.result.map(ResultText::Own).map_err(failure_of),
            log: attempt.log.into(),
            version: VersionTag::of(self.function.version().digest()),
            observed,
        }
    }
}

impl Pause {
    /// Waits before a repeated run; false where the deadline leaves no time for one.
    pub(crate) async fn wait(&mut self) -> bool {
        let sleep = self.next.mul_f64(rand::rng().random_range(0.5..1.5));
        if Instant::now() + sleep >= self.deadline {
            return false;
        }
        tokio::time::sleep(sleep).await;
        self.next = (self.next * 2).min(RETRY_LONGEST);
        true
    }
}

impl Invoker {
    fn upcasts(&self, run: &Run<'_>) -> Arc<dyn Upcast> {
        Arc::new(RuleUpcast::new(self.clone(), Arc::clone(run.deployment), run.deadline, run.clock))
    }

    /// What brings documents of a deployment's tables to the newest form, until the deadline.
    pub fn upcast(&self, deployment: &Arc<Deployment>, deadline: Instant) -> Arc<dyn Upcast> {
        Arc::new(RuleUpcast::new(self.clone(), Arc::clone(deployment), deadline, clock()))
    }
}

/// The database that a run was given, taken back.
pub(crate) fn take_database(attempt: &mut Attempt) -> Option<Box<CallDatabase>> {
    let database: Box<dyn Database> = attempt.database.take()?;
    let database: Box<dyn Any> = database;
    database.downcast().ok()
}

/// An end of the transaction, as the end of the attempt that it was for.
pub(crate) fn of_commit(error: DatabaseError) -> CallError {
    match error {
        DatabaseError::Refused(failure) | DatabaseError::Failed(failure) => failure.into(),
        DatabaseError::Conflict => CallError::Conflict,
        DatabaseError::NeedsSnapshot => CallError::NeedsSnapshot,
    }
}

/// The failure of a call that is not run again.
pub(crate) fn failure_of(error: CallError) -> Failure {
    match error {
        CallError::Failure(failure) => failure,
        CallError::Conflict => {
            Failure::system(Code::Conflict, "other calls changed the same documents again and again: try again")
        }
        CallError::NeedsSnapshot => Failure::internal("a run outside of a query asked for a snapshot"),
    }
}

/// The time and the randomness of one call.
pub(crate) fn clock() -> Clock {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64() * 1000.0);
    // Whole milliseconds, as JavaScript's `Date.now()`.
    Clock { now_ms: now.floor(), seed: rand::rng().random() }
}
