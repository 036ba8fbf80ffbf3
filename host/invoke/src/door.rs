//! The entrance: every call, whoever makes it, passes the same layers in the same order.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use convoke_deploy::{Deployment, Deployments, Function};
use convoke_engine::Engine;
use convoke_model::{Code, DatabaseError, Failure, Kind, Limits, Observed};
use convoke_store::{HeldSnapshot, NoteReads, Store};

use crate::admission::{self, Admission};
use crate::answer::{Answer, RequestId};
use crate::arguments;
use crate::call::Call;
use crate::caller::{CallOrigin, Caller};
use crate::kept::{Asked, Keeper, KeptResults, Lookup, Ran};
use crate::metering::Metering;
use crate::outside::Gate;
use crate::run::{Ended, Run, clock, failure_of, of_commit};
use crate::version;

/// Runs the functions of a project. Cheap to clone.
#[derive(Clone)]
pub struct Invoker {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) engine: Engine,
    pub(crate) store: Store,
    deployments: Arc<Deployments>,
    pub(crate) gate: Arc<dyn Gate>,
    admission: Admission,
    metering: Metering,
    /// From when live queries begin.
    kept: OnceLock<Arc<dyn KeptResults>>,
}

/// A query that could be run: its function and its arguments in their canonical form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The function's canonical path.
    pub path: String,
    /// The same arguments are the same text.
    pub args: String,
}

impl Invoker {
    pub fn new(
        engine: Engine,
        store: Store,
        deployments: Arc<Deployments>,
        gate: Arc<dyn Gate>,
        metering: Metering,
    ) -> Self {
        let (admission, kept) = (Admission::default(), OnceLock::new());
        Self { inner: Arc::new(Inner { engine, store, deployments, gate, admission, metering, kept }) }
    }

    /// Answers queries with results that still hold, from now on. The first one stays.
    pub fn keep_results(&self, kept: Arc<dyn KeptResults>) {
        let _ = self.inner.kept.set(kept);
    }

    /// Calls a function and answers, whatever happens.
    pub async fn enter(&self, caller: &Caller, call: Call<'_>) -> Answer {
        self.pass(caller, call, None).await.0
    }

    /// Runs a query in a snapshot and tells what it read there. No kept result takes its place.
    pub async fn observe(&self, caller: &Caller, call: Call<'_>, reads: NoteReads) -> (Answer, Observed) {
        self.pass(caller, call, Some(reads)).await
    }

    /// Checks that a function exists and takes these arguments, without running it.
    ///
    /// # Errors
    /// What a call would answer.
    pub fn check(&self, caller: &Caller, call: Call<'_>) -> Result<Checked, Failure> {
        let deployment = self.inner.deployments.current();
        let function = version::find(&deployment, caller, &call)?;
        let arguments = arguments::read(function, &call)?;
        Ok(Checked { path: function.path().to_string(), args: arguments })
    }

    /// Takes a snapshot for queries that are still to come.
    ///
    /// # Errors
    /// Where too many are held, or Postgres cannot be reached.
    pub async fn hold_snapshot(&self) -> Result<HeldSnapshot, Failure> {
        let deadline = admission::deadline(&Caller::new(CallOrigin::Http), self.limits(), Kind::Query);
        let held = self.inner.store.hold_snapshot(deadline).await;
        held.map_err(not_told)
    }

    /// How far Postgres' log is, in bytes from its beginning: all that has committed is before it.
    ///
    /// # Errors
    /// Where Postgres does not tell in time.
    pub async fn log_position(&self, deadline: Instant) -> Result<u64, Failure> {
        self.inner.store.log_position(deadline).await.map_err(not_told)
    }

    /// Has Postgres write out its log, where that is not beyond the position.
    ///
    /// # Errors
    /// Where Postgres does not in time.
    pub async fn flush_log(&self, position: u64, deadline: Instant) -> Result<(), Failure> {
        self.inner.store.flush_log(position, deadline).await.map_err(|error| failure_of(of_commit(error)))
    }

    pub(crate) fn limits(&self) -> &Limits {
        self.inner.engine.limits()
    }

    async fn pass(&self, caller: &Caller, call: Call<'_>, reads: Option<NoteReads>) -> (Answer, Observed) {
        let request_id = RequestId::random();
        let ended = self.layers(caller, &call, request_id, reads).await;
        let Ended { result, log, version, observed } = ended.unwrap_or_else(|failure| Ended {
            result: Err(failure),
            log: Arc::default(),
            version: None,
            observed: Observed::default(),
        });
        let answer = Answer { result, position: observed.lsn, log, version, request_id };
        answer.report(call.path);
        (answer, observed)
    }

    async fn layers(
        &self,
        caller: &Caller,
        call: &Call<'_>,
        request_id: RequestId,
        reads: Option<NoteReads>,
    ) -> Result<Ended, Failure> {
        let (began, metering) = (Instant::now(), &self.inner.metering);
        let _admitted = self
            .inner
            .admission
            .admit(caller, self.limits())
            .inspect_err(|refused| metering.refused(refused, began))?;
        let deployment: Arc<Deployment> = self.inner.deployments.current();
        let function: &Function =
            version::find(&deployment, caller, call).inspect_err(|refused| metering.refused(refused, began))?;
        let measured = metering.begin(function.path(), began);
        let ended = self.call(caller, call, &deployment, function, request_id, reads).await;
        measured.end(match &ended {
            Ok(ended) => ended.result.as_ref().err(),
            Err(refused) => Some(refused),
        });
        ended
    }

    /// Calls a function that is there.
    async fn call(
        &self,
        caller: &Caller,
        call: &Call<'_>,
        deployment: &Arc<Deployment>,
        function: &Function,
        request_id: RequestId,
        reads: Option<NoteReads>,
    ) -> Result<Ended, Failure> {
        let arguments = arguments::read(function, call)?;
        let deadline = admission::deadline(caller, self.limits(), function.kind());
        let run = Run {
            invoker: self,
            caller,
            deployment,
            function,
            args: &arguments,
            request_id,
            deadline,
            clock: clock(),
            reads,
            receipt: caller.receipt(function.path().as_str(), &arguments),
        };
        Ok(match function.kind() {
            Kind::Query if run.reads.is_none() => self.kept_or_run(run).await,
            Kind::Query => run.query().await,
            Kind::Mutation => self.committed(run.mutation().await),
            Kind::Action | Kind::Rule => run.once().await,
        })
    }

    /// A query's kept result; else a run, which is kept where it is worth it.
    async fn kept_or_run(&self, mut run: Run<'_>) -> Ended {
        let Some(kept) = self.inner.kept.get() else { return run.query().await };
        let path = run.function.path().as_str();
        let (at_least, deadline, deployment) = (run.caller.at_least, run.deadline, run.deployment);
        match kept.find(Asked { path, args: run.args, deployment, at_least, deadline }).await {
            Lookup::Kept(result) => result.ended(),
            Lookup::Run => run.query().await,
            Lookup::Keep(keeper) => {
                run.reads = Some(NoteReads::default());
                keep(run.query().await, run.request_id, keeper)
            }
        }
    }

    /// Notes how far the log is behind a mutation, where that was asked for.
    fn committed(&self, ended: Ended) -> Ended {
        if let (Some(kept), Some(position)) = (self.inner.kept.get(), ended.observed.lsn) {
            kept.committed(position);
        }
        ended
    }
}

/// Why the database did not tell something of itself.
fn not_told(error: DatabaseError) -> Failure {
    match error {
        // There is nothing to conflict with: the connection was lost.
        DatabaseError::Conflict => {
            Failure::system(Code::Overloaded, "the connection to the database was lost: try again")
        }
        error => failure_of(of_commit(error)),
    }
}

/// Hands a run to whoever keeps it; the caller and he share the text.
fn keep(mut ended: Ended, request_id: RequestId, keeper: Box<dyn Keeper>) -> Ended {
    let observed = std::mem::take(&mut ended.observed);
    ended.observed.lsn = observed.lsn;
    let result = ended.result.map(crate::ResultText::into_shared);
    let ran = Ran { result: result.clone(), log: Arc::clone(&ended.log), version: ended.version, request_id };
    keeper.keep(ran, observed);
    ended.result = result.map(crate::ResultText::Kept);
    ended
}

impl fmt::Debug for Invoker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Invoker").finish_non_exhaustive()
    }
}
