//! Running functions.

use std::any::Any;
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use convoke_deploy::{Deployment, Deployments, Function};
use convoke_engine::{Call, CallError, Clock, Engine, Outcome};
use convoke_model::{
    Code, Database, DatabaseError, Failure, FunctionPath, Kind, Limits, Observed, Upcast, decode_convex,
    whole_floats_to_integers,
};
use convoke_store::{CallDatabase, CallOptions, HeldSnapshot, Isolation, NoteReads, Receipt, SharedSnapshot, Store};
use rand::Rng;
use serde_json::{Value, json};

use crate::outside::{ActionOutside, Gate};
use crate::upcast::RuleUpcast;

/// The first pause before a repeated run; it doubles up to the second, and is cut at random.
const RETRY_FIRST: Duration = Duration::from_millis(1);
const RETRY_LONGEST: Duration = Duration::from_millis(64);

/// Runs the functions of a project. Cheap to clone.
#[derive(Clone)]
pub struct Invoker {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    engine: Engine,
    store: Store,
    deployments: Arc<Deployments>,
    gate: Arc<dyn Gate>,
}

/// A function to run.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// What the caller takes the function for.
    pub kind: Kind,
    /// The function's path, canonical or not.
    pub path: &'a str,
    /// The named arguments: a JSON object.
    pub args: &'a str,
    /// Whether the arguments are in Convex' encoded form.
    pub encoded: bool,
}

/// How a function ended.
#[derive(Debug)]
pub struct Answer {
    /// The result as JSON text.
    pub result: Result<String, Failure>,
    /// Lines in the form `[LEVEL] text`.
    pub log: Vec<String>,
    /// Sixteen hexadecimal digits under which the host's log holds this call.
    pub request_id: String,
}

/// What stays the same when a run is repeated.
struct Run<'a> {
    deployment: &'a Arc<Deployment>,
    function: &'a Function,
    args: &'a str,
    request_id: &'a str,
    depth: u32,
    deadline: Instant,
    clock: Clock,
    observe: Option<&'a Observe>,
}

/// What a run is to note: a query what it reads, a mutation where its commit lies in the log.
#[derive(Debug, Clone, Default)]
pub struct Observe {
    /// The journal of an earlier run of the same query.
    pub journal: Option<String>,
    /// Under which a mutation happens once, however often it is sent.
    pub key: Option<Receipt>,
    /// What a query reads. Where it has come to an end, a snapshot of the query's own: [`Observed::snapshot`] tells.
    pub snapshot: Option<SharedSnapshot>,
}

/// How a run ended, before it is reported.
struct Ended {
    result: Result<String, Failure>,
    log: Vec<String>,
    observed: Observed,
}

impl Invoker {
    pub fn new(engine: Engine, store: Store, deployments: Arc<Deployments>, gate: Arc<dyn Gate>) -> Self {
        Self { inner: Arc::new(Inner { engine, store, deployments, gate }) }
    }

    /// Runs a function and answers, whatever happens.
    pub async fn run(&self, request: Request<'_>) -> Answer {
        self.run_nested(request, 0).await
    }

    /// What brings documents of a deployment's tables to the newest form, until the deadline.
    pub fn upcast(&self, deployment: &Arc<Deployment>, deadline: Instant) -> Arc<dyn Upcast> {
        Arc::new(RuleUpcast::new(self.clone(), Arc::clone(deployment), deadline, clock()))
    }

    /// Checks that a function of this kind exists and takes these arguments, without running it.
    ///
    /// # Errors
    /// What a run would answer.
    pub fn check(&self, kind: Kind, path: &str, args: &str) -> Result<(), Failure> {
        let request = Request { kind, path, args, encoded: false };
        let path = FunctionPath::parse(path).map_err(|error| Failure::caller(Code::NotFound, error.to_string()))?;
        let deployment = self.inner.deployments.current();
        let function = deployment.function(path.as_str()).ok_or_else(|| unknown(&path, &deployment))?;
        if function.kind() != kind {
            return Err(wrong_kind(function, kind));
        }
        check_args(function, request).map(|_| ())
    }

    /// Runs a query in a snapshot and tells what it read there, or a mutation and tells where its commit lies.
    pub async fn run_observed(&self, request: Request<'_>, observe: &Observe) -> (Answer, Observed) {
        self.run_and_report(request, 0, Some(observe)).await
    }

    /// Takes a snapshot for queries that are still to come.
    ///
    /// # Errors
    /// Where too many are held, or Postgres cannot be reached.
    pub async fn hold_snapshot(&self) -> Result<HeldSnapshot, Failure> {
        let deadline = Instant::now() + allowed_time(self.limits(), Kind::Query);
        let held = self.inner.store.hold_snapshot(deadline).await;
        held.map_err(|error| match of_commit(error) {
            CallError::Failure(failure) => failure,
            CallError::Conflict | CallError::NeedsSnapshot => {
                Failure::internal("a snapshot was refused as a commit is")
            }
        })
    }

    pub(crate) async fn run_nested(&self, request: Request<'_>, depth: u32) -> Answer {
        self.run_and_report(request, depth, None).await.0
    }

    async fn run_and_report(&self, request: Request<'_>, depth: u32, observe: Option<&Observe>) -> (Answer, Observed) {
        let request_id = request_id();
        let ended = self.prepare_and_run(request, &request_id, depth, observe).await;
        let Ended { result, log, observed } = ended.unwrap_or_else(|failure| Ended {
            result: Err(failure),
            log: Vec::new(),
            observed: Observed::default(),
        });
        for line in &log {
            tracing::info!(target: "convoke::function", request_id, function = request.path, "{line}");
        }
        if let Err(failure) = &result {
            report(failure, request.path, &request_id);
        }
        (Answer { result, log, request_id }, observed)
    }

    async fn prepare_and_run(
        &self,
        request: Request<'_>,
        request_id: &str,
        depth: u32,
        observe: Option<&Observe>,
    ) -> Result<Ended, Failure> {
        let path =
            FunctionPath::parse(request.path).map_err(|error| Failure::caller(Code::NotFound, error.to_string()))?;
        let deployment = self.inner.deployments.current();
        let function = deployment.function(path.as_str()).ok_or_else(|| unknown(&path, &deployment))?;
        if function.kind() != request.kind {
            return Err(wrong_kind(function, request.kind));
        }
        let args = check_args(function, request)?;
        let limits = self.inner.engine.limits();
        let run = Run {
            deployment: &deployment,
            function,
            args: args.as_deref().unwrap_or(request.args),
            request_id,
            depth,
            deadline: Instant::now() + allowed_time(limits, function.kind()),
            clock: clock(),
            observe,
        };
        Ok(match function.kind() {
            Kind::Query => self.run_query(&run).await,
            Kind::Mutation => self.run_mutation(&run).await,
            Kind::Action | Kind::Rule => finish(self.call(&run, None).await),
        })
    }

    /// A query takes a snapshot only where it reads more than once; it is the same whenever it is run, so one that
    /// turns out to read again is run again.
    async fn run_query(&self, run: &Run<'_>) -> Ended {
        let mut pause = RETRY_FIRST;
        let mut shared = run.observe.and_then(|observe| observe.snapshot.clone());
        loop {
            let snapshot = run.observe.is_some() || run.function.reads_often();
            let isolation = if snapshot { Isolation::Snapshot } else { Isolation::SingleRead };
            let mut outcome = self.call(run, Some(self.database(run, isolation, shared.clone()) as _)).await;
            match &outcome.result {
                Err(CallError::NeedsSnapshot) => run.function.set_reads_often(),
                Err(CallError::Conflict) if shared.is_some() => shared = None,
                Err(CallError::Conflict) => {
                    if !wait(&mut pause, run.deadline).await {
                        return finish(outcome);
                    }
                }
                _ => {
                    let mut observed = Observed::default();
                    if let Some(mut database) = own(&mut outcome) {
                        observed = database.take_observed();
                        observed.volatile = outcome.volatile;
                        // Ends the snapshot; nothing was written.
                        let _ = database.commit().await;
                    }
                    return Ended { observed, ..finish(outcome) };
                }
            }
        }
    }

    async fn run_mutation(&self, run: &Run<'_>) -> Ended {
        let mut pause = RETRY_FIRST;
        loop {
            let mut outcome = self.attempt_mutation(run).await;
            let conflict = matches!(outcome.result, Err(CallError::Conflict));
            // The old transaction ends before the pause, or it would hold its locks meanwhile.
            let observed = own(&mut outcome).map(|mut database| database.take_observed()).unwrap_or_default();
            if !conflict || !wait(&mut pause, run.deadline).await {
                return Ended { observed, ..finish(outcome) };
            }
        }
    }

    /// One run with its commit.
    async fn attempt_mutation(&self, run: &Run<'_>) -> Outcome {
        let mut database = self.database(run, Isolation::Serializable, None);
        let keyed = run.observe.is_some_and(|observe| observe.key.is_some());
        if keyed {
            match database.recall().await {
                Ok(None) => {}
                Ok(Some(result)) => {
                    let result = database.commit().await.map(|()| result).map_err(of_commit);
                    return Outcome { result, log: Vec::new(), database: Some(database), volatile: false };
                }
                Err(error) => {
                    let result = Err(of_commit(error));
                    return Outcome { result, log: Vec::new(), database: Some(database), volatile: false };
                }
            }
        }
        let mut outcome = self.call(run, Some(database as _)).await;
        let Some(mut database) = own(&mut outcome) else { return outcome };
        if let Ok(result) = &outcome.result {
            if keyed {
                database.remember(result);
            }
            if let Err(error) = database.commit().await {
                outcome.result = Err(of_commit(error));
            }
        }
        outcome.database = Some(database);
        outcome
    }

    fn database(&self, run: &Run<'_>, isolation: Isolation, snapshot: Option<SharedSnapshot>) -> Box<CallDatabase> {
        let options = CallOptions {
            isolation,
            deadline: run.deadline,
            upcast: run.deployment.tables().has_upcasts().then(|| {
                Arc::new(RuleUpcast::new(self.clone(), Arc::clone(run.deployment), run.deadline, run.clock)) as _
            }),
            reads: run
                .observe
                .filter(|_| isolation == Isolation::Snapshot)
                .map(|observe| NoteReads { journal: observe.journal.clone(), snapshot }),
            position: run.observe.is_some(),
            key: run.observe.and_then(|observe| observe.key.clone()),
        };
        Box::new(self.inner.store.call(Arc::clone(run.deployment.tables()), options))
    }

    async fn call(&self, run: &Run<'_>, database: Option<Box<dyn Database>>) -> Outcome {
        let kind = run.function.kind();
        let outside = (kind == Kind::Action).then(|| {
            let gate = Arc::clone(&self.inner.gate);
            Arc::new(ActionOutside::new(self.clone(), gate, run.depth, run.deadline)) as _
        });
        let call = Call {
            kind,
            function: run.function.path().function(),
            args: run.args,
            request_id: run.request_id,
            deadline: run.deadline,
            clock: run.clock,
            database,
            outside,
        };
        self.inner.engine.call(run.function.version(), call).await
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.inner.engine
    }

    pub(crate) fn limits(&self) -> &Limits {
        self.inner.engine.limits()
    }
}

impl std::fmt::Debug for Invoker {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Invoker").finish_non_exhaustive()
    }
}

/// The database that a run was given, taken back.
fn own(outcome: &mut Outcome) -> Option<Box<CallDatabase>> {
    let database: Box<dyn Any> = outcome.database.take()?;
    database.downcast().ok()
}

fn of_commit(error: DatabaseError) -> CallError {
    match error {
        DatabaseError::Refused(failure) | DatabaseError::Failed(failure) => failure.into(),
        DatabaseError::Conflict => CallError::Conflict,
        DatabaseError::NeedsSnapshot => CallError::NeedsSnapshot,
    }
}

fn finish(outcome: Outcome) -> Ended {
    let result = outcome.result.map_err(|error| match error {
        CallError::Failure(failure) => failure,
        CallError::Conflict => {
            Failure::system(Code::Conflict, "other calls changed the same documents again and again: try again")
        }
        CallError::NeedsSnapshot => Failure::internal("a run outside of a query asked for a snapshot"),
    });
    Ended { result, log: outcome.log, observed: Observed::default() }
}

/// Checks the arguments; gives their text where it is not the caller's own.
fn check_args(function: &Function, request: Request<'_>) -> Result<Option<String>, Failure> {
    let invalid = |words: String| Failure::caller(Code::InvalidArgs, words);
    let mut args: Value = serde_json::from_str(request.args)
        .map_err(|error| invalid(format!("the arguments are not valid JSON: {error}")))?;
    let marked = request.encoded && request.args.contains("\"$integer\"");
    if marked {
        args = decode_convex(args).map_err(invalid)?;
    }
    // Clients whose only number is a float write 50 as 50.0; a function that takes an integer takes that too.
    let floats = whole_floats_to_integers(&mut args);
    if let Some((_, validator)) = function.manifest() {
        validator.check(&args).map_err(|error| {
            let data = error.data();
            invalid(error.to_string()).with_data(data)
        })?;
    }
    Ok((marked || floats).then(|| args.to_string()))
}

fn unknown(path: &FunctionPath, deployment: &Deployment) -> Failure {
    let mut words = format!("there is no function `{path}`");
    let module = path.module();
    match deployment.components().get(module) {
        None => {
            let modules: Vec<&str> = deployment.components().keys().map(String::as_str).collect();
            let _ = write!(words, ": no component `{module}` (there are: {})", modules.join(", "));
        }
        Some(version) => {
            let names: Vec<&str> = version.manifest().functions.iter().map(|function| function.name.as_str()).collect();
            let _ = write!(words, ": `{module}` has {}", names.join(", "));
        }
    }
    Failure::caller(Code::NotFound, words)
}

fn wrong_kind(function: &Function, taken_for: Kind) -> Failure {
    let (path, kind) = (function.path(), function.kind());
    let article = if kind == Kind::Action { "an" } else { "a" };
    Failure::caller(
        Code::InvalidArgs,
        format!("`{path}` is {article} {kind}, not a {taken_for}: call it as {article} {kind}"),
    )
    .with_data(json!({ "kind": kind.as_str(), "calledAs": taken_for.as_str() }))
}

fn allowed_time(limits: &Limits, kind: Kind) -> Duration {
    Duration::from_millis(match kind {
        Kind::Query | Kind::Mutation | Kind::Rule => limits.call_ms_max,
        Kind::Action => limits.action_ms_max,
    })
}

fn clock() -> Clock {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64() * 1000.0);
    // Whole milliseconds, as JavaScript's `Date.now()`.
    Clock { now_ms: now.floor(), seed: rand::rng().random() }
}

fn request_id() -> String {
    format!("{:016x}", rand::rng().random::<u64>())
}

/// Sleeps before a repeated run; false where the deadline leaves no time for one.
async fn wait(pause: &mut Duration, deadline: Instant) -> bool {
    let sleep = pause.mul_f64(rand::rng().random_range(0.5..1.5));
    if Instant::now() + sleep >= deadline {
        return false;
    }
    tokio::time::sleep(sleep).await;
    *pause = (*pause * 2).min(RETRY_LONGEST);
    true
}

/// What a person has to look at goes to the log with its detail; what the caller did wrong is the caller's.
fn report(failure: &Failure, path: &str, request_id: &str) {
    let detail = failure.internal.as_deref().unwrap_or_default();
    if failure.code == Code::Internal {
        tracing::error!(request_id, function = path, detail, "a function failed");
    } else if failure.internal.is_some() {
        tracing::warn!(request_id, function = path, code = failure.code.as_str(), detail, "a function failed");
    }
}
