//! One connection of one call: its transaction, and statements sent behind one another without waiting.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use convoke_model::{Code, DatabaseError, Failure};
use convoke_postgres::Tls;
use convoke_sql::Statement;
use deadpool_postgres::{Object, Pool, PoolError};
use futures_util::FutureExt;
use futures_util::future::{MaybeDone, maybe_done};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::Store;
use crate::document::Bound;
use crate::error::{Phase, Writes, explain, explain_sql};
use convoke_model::chain;

/// A connection that ends its transaction when it is dropped, however the call ended.
#[derive(Debug)]
pub(crate) struct Connection {
    /// None only while being dropped.
    client: Option<Object>,
    tls: Tls,
    deadline: Instant,
    transaction_open: bool,
    in_flight: bool,
    /// SQL of a function's own may have changed the session: undone before the connection is used again.
    session_touched: Option<Arc<str>>,
}

/// What to send around the statements of one round trip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Around {
    pub(crate) begin: Option<&'static str>,
    pub(crate) commit: bool,
    /// Whether to ask behind the commit how far the log is; the answer is the last result.
    pub(crate) position: bool,
}

impl Connection {
    pub(crate) async fn open(store: &Store, deadline: Instant) -> Result<Self, DatabaseError> {
        Self::of(store, &store.inner.pool, deadline).await
    }

    /// A connection for a snapshot that outlives its call.
    pub(crate) async fn open_held(store: &Store, deadline: Instant) -> Result<Self, DatabaseError> {
        Self::of(store, &store.inner.held, deadline).await
    }

    async fn of(store: &Store, pool: &Pool, deadline: Instant) -> Result<Self, DatabaseError> {
        let client = pool.get().await.map_err(|error| unavailable(&error))?;
        let tls = store.inner.tls.clone();
        Ok(Self {
            client: Some(client),
            tls,
            deadline,
            transaction_open: false,
            in_flight: false,
            session_touched: None,
        })
    }

    /// The same connection in the hands of another call.
    pub(crate) fn with_deadline(mut self, deadline: Instant) -> Self {
        self.deadline = deadline;
        self
    }

    pub(crate) fn transaction_open(&self) -> bool {
        self.transaction_open
    }

    /// Undoes what SQL of a function's own may have done to the session. Without waiting, as [`Self::end_unwatched`].
    pub(crate) fn restore_session(&self) {
        if let (Some(restore), Some(client)) = (&self.session_touched, &self.client) {
            let _ = pin!(client.batch_execute(restore)).now_or_never();
        }
    }

    /// Sends everything at once and waits for all of it; gives the rows of each statement.
    pub(crate) async fn round_trip(
        &mut self,
        statements: &[Statement],
        around: Around,
    ) -> Result<Vec<Vec<Row>>, DatabaseError> {
        let phase = if around.commit { Phase::Commit } else { Phase::BeforeCommit };
        self.in_flight = true;
        let deadline = tokio::time::Instant::from_std(self.deadline);
        let Some(client) = self.client.as_ref() else { return Ok(Vec::new()) };
        let sent = async {
            // All that needs an answer of its own comes before `begin`, so that nothing waits inside the transaction.
            let mut prepared = Vec::with_capacity(statements.len());
            for statement in statements {
                prepared.push(if statement.is_control() { None } else { Some(prepare(client, statement).await?) });
            }
            let position = if around.position { Some(prepare(client, &convoke_sql::position()).await?) } else { None };
            if around.begin.is_some() {
                self.transaction_open = true;
            }
            send(client, &prepared, statements, around, position.as_ref()).await.map_err(|error| explain(&error, phase))
        };
        let Ok(result) = tokio::time::timeout_at(deadline, sent).await else {
            // Still in flight: dropping the connection cancels the statement.
            return Err(DatabaseError::Failed(Failure::system(Code::DeadlineExceeded, "the database took too long")));
        };
        self.in_flight = false;
        // A failed statement before it makes the commit a rollback: either way the transaction is over.
        if around.commit {
            self.transaction_open = false;
        }
        result
    }

    /// Ends a transaction without waiting for the answer: what the connection does next queues behind it.
    pub(crate) fn end_unwatched(&mut self, statement: &'static str) {
        if let Some(client) = &self.client {
            // One poll hands the message to the connection's task; the answer is discarded there.
            let _ = pin!(client.batch_execute(statement)).now_or_never();
        }
        self.transaction_open = false;
    }
}

impl Connection {
    /// Runs something on the connection itself, within the call's deadline. `restore` is what the session is told
    /// before anybody else has it.
    pub(crate) async fn run<'a, T, F>(
        &'a mut self,
        restore: &Arc<str>,
        writes: Writes,
        run: impl FnOnce(&'a Object) -> F,
    ) -> Result<T, DatabaseError>
    where
        F: Future<Output = Result<T, tokio_postgres::Error>> + 'a,
    {
        self.session_touched = Some(Arc::clone(restore));
        let Some(client) = self.client.as_ref() else {
            return Err(Failure::internal("a connection that was given back").into());
        };
        self.in_flight = true;
        let deadline = tokio::time::Instant::from_std(self.deadline);
        let Ok(result) = tokio::time::timeout_at(deadline, run(client)).await else {
            return Err(DatabaseError::Failed(Failure::system(Code::DeadlineExceeded, "the database took too long")));
        };
        self.in_flight = false;
        result.map_err(|error| explain_sql(&error, writes))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.in_flight {
            if let Some(client) = self.client.take() {
                cancel(Object::take(client), self.tls.clone());
            }
            return;
        }
        if self.transaction_open {
            self.end_unwatched("rollback");
        }
        self.restore_session();
    }
}

/// Stops what a lost call left running; the connection is closed, never used again.
fn cancel(client: deadpool_postgres::ClientWrapper, tls: Tls) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    runtime.spawn(async move {
        if let Err(error) = client.cancel_token().cancel_query(tls).await {
            tracing::warn!(error = %chain(&error), "could not cancel the statement of an ended call");
        }
        drop(client);
    });
}

async fn prepare(client: &Object, statement: &Statement) -> Result<tokio_postgres::Statement, DatabaseError> {
    client.prepare_cached(&statement.text).await.map_err(|error| explain(&error, Phase::BeforeCommit))
}

async fn send(
    client: &Object,
    prepared: &[Option<tokio_postgres::Statement>],
    statements: &[Statement],
    around: Around,
    position: Option<&tokio_postgres::Statement>,
) -> Result<Vec<Vec<Row>>, tokio_postgres::Error> {
    let bound: Vec<Vec<Bound<'_>>> =
        statements.iter().map(|statement| statement.parameters.iter().map(Bound).collect()).collect();
    let parameters: Vec<Vec<&(dyn ToSql + Sync)>> =
        bound.iter().map(|row| row.iter().map(|value| value as &(dyn ToSql + Sync)).collect()).collect();

    let mut begin = around.begin.map(|text| Box::pin(maybe_done(client.batch_execute(text))));
    let mut running: Vec<_> = prepared
        .iter()
        .zip(statements.iter().zip(&parameters))
        .map(|(prepared, (statement, parameters))| {
            Box::pin(maybe_done(async move {
                match prepared {
                    Some(prepared) => client.query(prepared, parameters).await,
                    None => client.batch_execute(&statement.text).await.map(|()| Vec::new()),
                }
            }))
        })
        .collect();
    let mut commit = around.commit.then(|| Box::pin(maybe_done(client.batch_execute("commit"))));
    let mut position = position.map(|statement| Box::pin(maybe_done(client.query(statement, &[]))));

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
        settle(begin).await?;
    }
    let mut results = Vec::with_capacity(running.len());
    for statement in running {
        results.push(settle(statement).await?);
    }
    if let Some(commit) = commit {
        settle(commit).await?;
    }
    if let Some(position) = position {
        results.push(settle(position).await?);
    }
    Ok(results)
}

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
