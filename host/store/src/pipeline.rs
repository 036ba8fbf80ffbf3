//! One connection of one call: its transaction, and statements sent behind one another without waiting.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Instant;

use convoke_model::{Code, DatabaseError, Failure, chain};
use convoke_postgres::Tls;
use convoke_sql::Statement;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, MaybeDone, maybe_done};
use tokio_postgres::RowStream;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::PgLsn;

use crate::Store;
use crate::error::{Fault, Writes, explain, explain_commit, explain_sql, unknown_outcome};
use crate::parameters::Bound;
use crate::row_locks::{Locks, UNLOCK};
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
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Around<'a> {
    /// A question that is no part of the transaction, and so of nothing that it could conflict about.
    pub(crate) question: Option<&'a Statement>,
    /// What the transaction waits for before it begins.
    pub(crate) locks: Option<&'a Locks>,
    pub(crate) begin: Option<&'static str>,
    pub(crate) end: End,
}

/// The transaction of a question.
const BEGIN_QUESTION: &str = "begin isolation level read committed read only";

/// How a round trip leaves the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum End {
    /// As it is.
    #[default]
    Open,
    Commit,
    /// Asks behind the commit how far the log is.
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
}

/// What a round trip gave.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// The rows of each statement.
    pub(crate) rows: Vec<Rows>,
    /// What the question gave, where Postgres could answer it.
    pub(crate) question: Option<Rows>,
    /// None where it was not asked for, or was lost behind a commit that was not.
    pub(crate) position: Option<u64>,
}

/// A round trip that failed.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) step: Step,
    pub(crate) error: DatabaseError,
    /// What the question gave all the same.
    pub(crate) question: Option<Rows>,
    /// What Postgres found violated, where it is that.
    pub(crate) violated: Option<Violated>,
}

/// A rule of a table that a statement broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Violated {
    Unique,
}

impl Violated {
    fn of(error: &tokio_postgres::Error) -> Option<Self> {
        (error.code() == Some(&SqlState::UNIQUE_VIOLATION)).then_some(Self::Unique)
    }
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

    /// Undoes what SQL of a function's own may have done to the session; whether there was any. Without waiting, as
    /// [`Self::end_unwatched`].
    pub(crate) fn restore_session(&self) -> bool {
        let Some(restore) = &self.restore else { return false };
        self.send_unwatched(restore);
        true
    }

    /// Sends a statement whose answer nobody waits for: one poll hands the message to the connection's task.
    pub(crate) fn send_unwatched(&self, statement: &str) {
        if let Some(client) = &self.client {
            let _ = pin!(client.batch_execute(statement)).now_or_never();
        }
    }

    /// Whether the session is of a server that takes no writes.
    pub(crate) fn is_read_only(&self) -> bool {
        self.client.as_ref().is_some_and(|client| client.is_read_only())
    }

    /// Sends everything at once and waits for all of it. A failed commit says whether it may have happened.
    pub(crate) async fn round_trip(&mut self, statements: &[Statement], around: Around<'_>) -> Result<Answers, Broken> {
        let broken = |step, error| Broken { step, error, question: None, violated: None };
        let deadline = self.deadline.into();
        let commits = around.end != End::Open;
        let before = std::mem::replace(&mut self.phase, Phase::InFlight);
        let Some(client) = self.client.as_ref() else { return Ok(Answers::default()) };
        // All that needs an answer of its own comes before `begin`, so that nothing waits inside the transaction.
        let prepared = match tokio::time::timeout_at(deadline, Prepared::of(client, statements, around)).await {
            Ok(Ok(prepared)) => prepared,
            Ok(Err(error)) => {
                self.phase = before;
                return Err(broken(Step::Prepare, explain(&error)));
            }
            Err(_) => return Err(broken(Step::Prepare, too_late())),
        };
        let sent = send(client, &mut self.budget, &prepared, statements, around);
        // What is in flight when this returns stays that: dropping the connection cancels the statement.
        let result = match tokio::time::timeout_at(deadline, sent).await {
            Ok(result) => result,
            Err(_) if commits => return Err(broken(Step::Commit, unknown_outcome("no answer in time"))),
            Err(_) => return Err(broken(Step::Statement(0), too_late())),
        };
        let result = match result {
            Err(Failed { fault: Fault::Ours(error), commit: Commit::Sent, .. }) => {
                return Err(broken(Step::Commit, unknown_outcome(&format!("{error:?}"))));
            }
            Err(Failed { step, fault: Fault::Ours(error), .. }) => return Err(broken(step, error)),
            Err(Failed { step, fault: Fault::Postgres(error), commit, question }) => {
                let violated = Violated::of(&error);
                let error = if commit == Commit::Sent { explain_commit(&error) } else { explain(&error) };
                Err(Broken { step, error, question, violated })
            }
            Ok(answers) => Ok(answers),
        };
        // A failed statement before it makes the commit a rollback: either way the transaction is over.
        self.phase = match around.begin {
            _ if commits => Phase::Free,
            Some(_) => Phase::InTransaction,
            None => before,
        };
        result
    }

    /// Ends a transaction without waiting for the answer: what the connection does next queues behind it.
    pub(crate) fn end_unwatched(&mut self, statement: &'static str) {
        self.send_unwatched(statement);
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
            return Err(too_late());
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

fn too_late() -> DatabaseError {
    DatabaseError::Failed(Failure::system(Code::DeadlineExceeded, "the database took too long"))
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
            Phase::Free => {
                self.restore_session();
            }
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

/// The statements of a round trip, prepared; those that control the transaction are not.
struct Prepared {
    question: Option<tokio_postgres::Statement>,
    statements: Vec<Option<tokio_postgres::Statement>>,
    position: Option<tokio_postgres::Statement>,
}

impl Prepared {
    async fn of(client: &Object, statements: &[Statement], around: Around<'_>) -> Result<Self, tokio_postgres::Error> {
        let question = match around.question {
            Some(question) => Some(client.prepared(&question.text).await?),
            None => None,
        };
        let mut prepared = Vec::with_capacity(statements.len());
        for statement in statements {
            let is_control = statement.is_control();
            prepared.push(if is_control { None } else { Some(client.prepared(&statement.text).await?) });
        }
        let position = match around.end {
            End::CommitAndPosition => Some(client.prepared(&convoke_sql::position().text).await?),
            End::Open | End::Commit => None,
        };
        Ok(Self { question, statements: prepared, position })
    }
}

/// What a round trip failed with.
struct Failed {
    step: Step,
    fault: Fault,
    commit: Commit,
    question: Option<Rows>,
}

/// What became of a commit that was to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Commit {
    /// It is on its way, and may have happened.
    Sent,
    /// There was none, or it could not be sent.
    NotSent,
}

/// A message whose answer is still to come.
type Sent<'a, T> = Pin<Box<MaybeDone<BoxFuture<'a, Result<T, tokio_postgres::Error>>>>>;

/// The first poll writes the message: the order of these calls is the order on the wire.
fn post<'a, T: Send>(message: impl Future<Output = Result<T, tokio_postgres::Error>> + Send + 'a) -> Sent<'a, T> {
    let mut message: Sent<'a, T> = Box::pin(maybe_done(message.boxed()));
    let _ = message.as_mut().now_or_never();
    message
}

/// Whether a message failed before it was sent.
fn has_failed<T>(message: &mut Sent<'_, T>) -> bool {
    matches!(message.as_mut().output_mut(), Some(Err(_)))
}

fn post_text<'a>(client: &'a Object, text: Option<&'a str>) -> Option<Sent<'a, ()>> {
    text.map(|text| post(client.batch_execute(text)))
}

fn post_statement<'a>(
    client: &'a Object,
    prepared: Option<&'a tokio_postgres::Statement>,
    statement: &'a Statement,
) -> Sent<'a, Option<RowStream>> {
    match prepared {
        Some(prepared) => {
            post(async { client.query_raw(prepared, statement.parameters.iter().map(Bound)).await.map(Some) })
        }
        None => post(async { client.batch_execute(&statement.text).await.map(|()| None) }),
    }
}

/// The rows of a statement.
async fn rows_of(statement: Sent<'_, Option<RowStream>>, budget: &mut Budget) -> Result<Rows, Fault> {
    match settle(statement).await? {
        Some(stream) => budget.collect(stream).await,
        None => Ok(Rows::default()),
    }
}

async fn send(
    client: &Object,
    budget: &mut Budget,
    prepared: &Prepared,
    statements: &[Statement],
    around: Around<'_>,
) -> Result<Answers, Failed> {
    let commits = around.end != End::Open;
    let position_asked = convoke_sql::position();

    let question_begin = post_text(client, around.question.map(|_| BEGIN_QUESTION));
    let question = around.question.map(|question| post_statement(client, prepared.question.as_ref(), question));
    let question_end = post_text(client, around.question.map(|_| "commit"));
    let locks = post_text(client, around.locks.map(|locks| locks.take.as_str()));
    let begin = post_text(client, around.begin);
    let running = prepared.statements.iter().zip(statements);
    let mut running: Vec<_> =
        running.map(|(prepared, statement)| post_statement(client, prepared.as_ref(), statement)).collect();
    // What the client cannot encode, or send, Postgres does not miss: it would commit the rest.
    let is_whole = !running.iter_mut().any(has_failed);
    let mut commit = post_text(client, commits.then_some(if is_whole { "commit" } else { "rollback" }));
    let has_commit = commit.as_mut().is_some_and(|commit| is_whole && !has_failed(commit));
    let sent = if has_commit { Commit::Sent } else { Commit::NotSent };
    let unlock = post_text(client, around.locks.map(|_| UNLOCK));
    let position = prepared.position.as_ref().map(|it| post_statement(client, Some(it), &position_asked));

    let mut answers = Answers::default();
    settle_all([question_begin]).await;
    if let Some(question) = question {
        // Whether the transaction happens does not hang on it, and so neither does what is said of that.
        answers.question = rows_of(question, budget).await.ok();
    }
    settle_all([question_end]).await;
    let transaction = async {
        for opening in [locks, begin].into_iter().flatten() {
            settle(opening).await.map_err(|error| (Step::Begin, error.into()))?;
        }
        for (number, statement) in running.into_iter().enumerate() {
            answers.rows.push(rows_of(statement, budget).await.map_err(|fault| (Step::Statement(number), fault))?);
        }
        match commit {
            Some(commit) => settle(commit).await.map_err(|error| (Step::Commit, error.into())),
            None => Ok(()),
        }
    };
    if let Err((step, fault)) = transaction.await {
        // An answer that failed is no reason to leave those behind it on their way: the connection is used again.
        if matches!(fault, Fault::Postgres(_)) {
            settle_all([unlock]).await;
        }
        return Err(Failed { step, fault, commit: sent, question: answers.question });
    }
    // The commit has happened: what is lost from here on cannot make it fail.
    settle_all([unlock]).await;
    if let Some(position) = position
        && let Ok(rows) = rows_of(position, budget).await
        && let Some(row) = rows.first()
    {
        answers.position = row.get::<PgLsn>(0).ok().map(u64::from);
    }
    Ok(answers)
}

/// Waits for what cannot fail but with all that comes behind it.
async fn settle_all<const N: usize>(messages: [Option<Sent<'_, ()>>; N]) {
    for message in messages.into_iter().flatten() {
        let _ = settle(message).await;
    }
}

async fn settle<T>(mut message: Sent<'_, T>) -> Result<T, tokio_postgres::Error> {
    message.as_mut().await;
    message.as_mut().take_output().expect("a future that was awaited and not taken before has its output")
}

pub(crate) fn unavailable(error: &PoolError) -> DatabaseError {
    let words = match error {
        PoolError::Timeout(_) => "all connections to the database are busy",
        _ => "the database cannot be reached at the moment",
    };
    DatabaseError::Failed(Failure::system(Code::Overloaded, words).with_internal(chain(error)))
}
