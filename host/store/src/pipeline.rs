//! One connection of one call: its transaction, and statements sent behind one another without waiting.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use convoke_model::{Code, DatabaseError, Failure, chain};
use convoke_postgres::Tls;
use convoke_sql::Statement;
use futures_util::FutureExt;
use futures_util::future::{MaybeDone, maybe_done};

use crate::Store;
use crate::error::{self, Fault, Writes, explain, explain_sql};
use crate::parameters::Bound;
use crate::rows::{Budget, Rows};
use crate::sessions::{Object, Pool, PoolError, Session};

/// A connection in the hands of one call. However the call ends, dropping it leaves nothing behind: an open transaction is
/// rolled back, and where an answer is still to come, the statement is cancelled and the connection closed.
#[derive(Debug)]
pub(crate) struct Connection {
    /// None only while being dropped.
    client: Option<Object>,
    tls: Tls,
    deadline: Instant,
    budget: Budget,
    phase: Phase,
    /// SQL of a function's own may have changed the session: what undoes it before the connection is used again.
    restore: Option<Arc<str>>,
}

/// What Postgres makes of the connection, and so what dropping it has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Free,
    InTransaction,
    /// An answer is still to come.
    InFlight,
}

/// What to send around the statements of one round trip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Around {
    pub(crate) begin: Option<&'static str>,
    pub(crate) end: End,
}

/// How a round trip leaves the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum End {
    /// As it is.
    #[default]
    Open,
    Commit,
    /// Asks behind the commit how far the log is; the answer is the last result.
    CommitAndPosition,
}

/// Which part of a round trip failed: what came before it has succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Before anything but preparing was sent.
    Prepare,
    Begin,
    /// The number of the statement, from 0.
    Statement(usize),
    Commit,
    Position,
}

/// A round trip that failed.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) step: Step,
    pub(crate) error: DatabaseError,
}

impl Connection {
    pub(crate) async fn open(store: &Store, deadline: Instant) -> Result<Self, DatabaseError> {
        Self::of(store, &store.inner.pool, deadline).await
    }

    /// A connection for a snapshot that outlives its call.
    pub(crate) async fn open_held(store: &Store, deadline: Instant) -> Result<Self, DatabaseError> {
        Self::of(store, &store.inner.held, deadline).await
    }

    /// Waits for a free connection as long as the pool allows, and never beyond the deadline.
    async fn of(store: &Store, pool: &Pool, deadline: Instant) -> Result<Self, DatabaseError> {
        let Ok(client) = tokio::time::timeout_at(deadline.into(), pool.get()).await else {
            let words = "the call's time was over before a connection to the database was free";
            return Err(Failure::system(Code::DeadlineExceeded, words).into());
        };
        let client = client.map_err(|error| unavailable(&error))?;
        let tls = store.inner.tls.clone();
        let budget = Budget::new(store.inner.rooms.clone(), deadline);
        Ok(Self { client: Some(client), tls, deadline, budget, phase: Phase::Free, restore: None })
    }

    /// The same connection in the hands of another call.
    pub(crate) fn with_deadline(mut self, deadline: Instant) -> Self {
        self.deadline = deadline;
        self.budget = self.budget.renewed(deadline);
        self
    }

    /// Undoes what SQL of a function's own may have done to the session. Without waiting, as [`Self::end_unwatched`].
    pub(crate) fn restore_session(&self) {
        if let (Some(restore), Some(client)) = (&self.restore, &self.client) {
            let _ = pin!(client.batch_execute(restore)).now_or_never();
        }
    }

    /// Sends everything at once and waits for all of it; gives the rows of each statement.
    pub(crate) async fn round_trip(&mut self, statements: &[Statement], around: Around) -> Result<Vec<Rows>, Broken> {
        let before = std::mem::replace(&mut self.phase, Phase::InFlight);
        let deadline = self.deadline.into();
        let Ok(result) = tokio::time::timeout_at(deadline, self.send_all(statements, around)).await else {
            // Still in flight: dropping the connection cancels the statement.
            return Err(too_late(around));
        };
        let result = result.map_err(|(step, fault)| match fault {
            Fault::Postgres(error) => (true, Broken { step, error: explain(&error, phase_of(step, around)) }),
            // Rows are still to come, and nobody takes them.
            Fault::Ours(error) => (false, Broken { step, error }),
        });
        self.phase = match (&result, around.end) {
            (Err((false, _)), _) => Phase::InFlight,
            (Err((true, broken)), _) if broken.step == Step::Prepare => before,
            // A failed statement before it makes the commit a rollback: either way the transaction is over.
            (_, End::Commit | End::CommitAndPosition) => Phase::Free,
            (_, End::Open) if around.begin.is_some() => Phase::InTransaction,
            (_, End::Open) => before,
        };
        result.map_err(|(_, broken)| broken)
    }

    async fn send_all(&mut self, statements: &[Statement], around: Around) -> Result<Vec<Rows>, Failed> {
        let Some(client) = self.client.as_ref() else { return Ok(Vec::new()) };
        // All that needs an answer of its own comes before `begin`, so that nothing waits inside the transaction.
        let mut prepared = Vec::with_capacity(statements.len());
        for statement in statements {
            prepared.push(if statement.is_control() { None } else { Some(prepare(client, statement).await?) });
        }
        let position = match around.end {
            End::CommitAndPosition => Some(prepare(client, &convoke_sql::position()).await?),
            End::Open | End::Commit => None,
        };
        send(client, &mut self.budget, &prepared, statements, around, position.as_ref()).await
    }

    /// Ends a transaction without waiting for the answer: what the connection does next queues behind it.
    pub(crate) fn end_unwatched(&mut self, statement: &'static str) {
        if let Some(client) = &self.client {
            // One poll hands the message to the connection's task; the answer is discarded there.
            let _ = pin!(client.batch_execute(statement)).now_or_never();
        }
        self.phase = Phase::Free;
    }

    /// Runs a statement that a function wrote itself, within the call's deadline. `restore` is what the session gets before
    /// anybody else has it.
    pub(crate) async fn run<T>(
        &mut self,
        restore: &Arc<str>,
        writes: Writes,
        run: impl AsyncFnOnce(&Object, &mut Budget) -> Result<T, Fault>,
    ) -> Result<T, DatabaseError> {
        self.restore = Some(Arc::clone(restore));
        let Some(client) = self.client.as_ref() else {
            return Err(Failure::internal("a connection that was given back").into());
        };
        let before = std::mem::replace(&mut self.phase, Phase::InFlight);
        let Ok(result) = tokio::time::timeout_at(self.deadline.into(), run(client, &mut self.budget)).await else {
            return Err(DatabaseError::Failed(Failure::system(Code::DeadlineExceeded, "the database took too long")));
        };
        let result = match result {
            Err(Fault::Ours(error)) => return Err(error),
            Err(Fault::Postgres(error)) => Err(explain_sql(&error, writes)),
            Ok(value) => Ok(value),
        };
        self.phase = before;
        result
    }
}

/// What is known of the commit when a step failed.
fn phase_of(step: Step, around: Around) -> error::Phase {
    match (step, around.end) {
        (Step::Prepare, _) | (_, End::Open) => error::Phase::BeforeCommit,
        (_, End::Commit | End::CommitAndPosition) => error::Phase::Commit,
    }
}

fn too_late(around: Around) -> Broken {
    let error = DatabaseError::Failed(Failure::system(Code::DeadlineExceeded, "the database took too long"));
    Broken { step: if around.end == End::Open { Step::Statement(0) } else { Step::Commit }, error }
}

impl Drop for Connection {
    fn drop(&mut self) {
        match self.phase {
            Phase::InFlight => {
                if let Some(client) = self.client.take() {
                    cancel(Object::take(client), self.tls.clone());
                }
            }
            Phase::InTransaction => {
                self.end_unwatched("rollback");
                self.restore_session();
            }
            Phase::Free => self.restore_session(),
        }
    }
}

/// Stops what a lost call left running; the connection is closed, never used again.
fn cancel(client: Session, tls: Tls) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    runtime.spawn(async move {
        if let Err(error) = client.cancel_token().cancel_query(tls).await {
            tracing::warn!(error = %chain(&error), "could not cancel the statement of an ended call");
        }
        drop(client);
    });
}

type Failed = (Step, Fault);

async fn prepare(client: &Object, statement: &Statement) -> Result<tokio_postgres::Statement, Failed> {
    client.prepared(&statement.text).await.map_err(|error| (Step::Prepare, error.into()))
}

async fn send(
    client: &Object,
    budget: &mut Budget,
    prepared: &[Option<tokio_postgres::Statement>],
    statements: &[Statement],
    around: Around,
    position: Option<&tokio_postgres::Statement>,
) -> Result<Vec<Rows>, Failed> {
    let mut begin = around.begin.map(|text| Box::pin(maybe_done(client.batch_execute(text))));
    let mut running: Vec<_> = prepared
        .iter()
        .zip(statements)
        .map(|(prepared, statement)| {
            Box::pin(maybe_done(async move {
                match prepared {
                    Some(prepared) => {
                        client.query_raw(prepared, statement.parameters.iter().map(Bound)).await.map(Some)
                    }
                    None => client.batch_execute(&statement.text).await.map(|()| None),
                }
            }))
        })
        .collect();
    let mut commit = (around.end != End::Open).then(|| Box::pin(maybe_done(client.batch_execute("commit"))));
    let mut position = position.map(|statement| Box::pin(maybe_done(client.query_raw(statement, NO_PARAMETERS))));

    // The first poll of each writes its message: this loop is the order on the wire.
    if let Some(begin) = &mut begin {
        let _ = begin.as_mut().now_or_never();
    }
    for statement in &mut running {
        let _ = statement.as_mut().now_or_never();
    }
    if let Some(commit) = &mut commit {
        let _ = commit.as_mut().now_or_never();
    }
    if let Some(position) = &mut position {
        let _ = position.as_mut().now_or_never();
    }

    if let Some(begin) = begin {
        settle(begin).await.map_err(|error| (Step::Begin, error.into()))?;
    }
    let mut results = Vec::with_capacity(running.len() + 1);
    for (number, statement) in running.into_iter().enumerate() {
        let step = Step::Statement(number);
        let stream = settle(statement).await.map_err(|error| (step, error.into()))?;
        results.push(match stream {
            Some(stream) => budget.collect(stream).await.map_err(|fault| (step, fault))?,
            None => Rows::default(),
        });
    }
    if let Some(commit) = commit {
        settle(commit).await.map_err(|error| (Step::Commit, error.into()))?;
    }
    if let Some(position) = position {
        let stream = settle(position).await.map_err(|error| (Step::Position, error.into()))?;
        results.push(budget.collect(stream).await.map_err(|fault| (Step::Position, fault))?);
    }
    Ok(results)
}

const NO_PARAMETERS: [Bound<'static>; 0] = [];

async fn settle<T, F>(mut future: std::pin::Pin<Box<MaybeDone<F>>>) -> Result<T, tokio_postgres::Error>
where
    F: Future<Output = Result<T, tokio_postgres::Error>>,
{
    future.as_mut().await;
    future.as_mut().take_output().expect("a future that was awaited and not taken before has its output")
}

pub(crate) fn unavailable(error: &PoolError) -> DatabaseError {
    let words = match error {
        PoolError::Timeout(_) => "all connections to the database are busy",
        _ => "the database cannot be reached at the moment",
    };
    DatabaseError::Failed(Failure::system(Code::Overloaded, words).with_internal(chain(error)))
}
