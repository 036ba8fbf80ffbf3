//! The database as one run of a function sees it.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use convoke_model::{
    Code, Database, DatabaseError, DocumentForm, DocumentId, Failure, Observed, Pending, Table, Tables, Upcast,
};
use convoke_sql::{Existence, Statement};
use tokio_postgres::Row;
use tokio_postgres::types::PgLsn;
use uuid::Uuid;

use crate::Store;
use crate::pipeline::{Around, Connection};
use crate::receipt::Receipt;
use crate::snapshot::{SharedSnapshot, Taken, Turn};
use crate::writes::{Control, Writes};

/// How the statements of a run belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// One statement outside of a transaction, which is a snapshot of its own; a second one asks for the run to be
    /// repeated in a snapshot. Most queries read once, and a transaction around one read costs a third of its time.
    SingleRead,
    /// A read-only snapshot over all statements.
    Snapshot,
    /// A serialisable transaction.
    Serializable,
}

/// What one run of a function asks of the database.
#[derive(Clone)]
pub struct CallOptions {
    pub isolation: Isolation,
    pub deadline: Instant,
    /// Turns documents of older forms into the newest; without it they are an error.
    pub upcast: Option<Arc<dyn Upcast>>,
    /// Notes what is read, and in which snapshot. Needs [`Isolation::Snapshot`].
    pub reads: Option<NoteReads>,
    /// Whether to ask where in the log the commit lies.
    pub position: bool,
    /// Under which a mutation's result is kept, so that it happens once however often it is sent.
    pub key: Option<Receipt>,
}

/// How reads are noted.
#[derive(Debug, Clone, Default)]
pub struct NoteReads {
    /// Where the page of an earlier run of the same query ended.
    pub journal: Option<String>,
    /// A snapshot to read, in the place of one of the run's own. Where it has come to an end, the run reads one of its
    /// own after all: [`Observed::snapshot`] tells.
    pub snapshot: Option<SharedSnapshot>,
}

/// One run's reads and writes. Dropping it before [`Database::commit`] undoes the writes.
pub struct CallDatabase {
    pub(crate) store: Store,
    pub(crate) tables: Arc<Tables>,
    pub(crate) options: CallOptions,
    pub(crate) connection: Option<Connection>,
    /// Where the connection is that of a shared snapshot.
    turn: Option<Turn>,
    pub(crate) writes: Writes,
    /// Documents that this transaction has seen or made, so that a write to them needs no check of its own.
    pub(crate) known: HashSet<DocumentId>,
    pub(crate) observed: Observed,
    pub(crate) creation_time_ms: f64,
    savepoints: Savepoints,
    has_read: bool,
    /// Whether all that is to be committed commutes.
    commutes: bool,
}

/// The transactions within the transaction.
#[derive(Debug, Default)]
struct Savepoints {
    open: Vec<u32>,
    last: u32,
    /// Postgres has refused a statement since: nothing but a way back is possible.
    aborted: bool,
}

impl fmt::Debug for CallOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("CallOptions")
            .field("isolation", &self.isolation)
            .field("reads", &self.reads)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for CallDatabase {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("CallDatabase").field("options", &self.options).finish_non_exhaustive()
    }
}

impl CallDatabase {
    pub(crate) fn new(store: Store, tables: Arc<Tables>, options: CallOptions) -> Self {
        let writes = Writes::new(store.inner.limits.document_bytes_max);
        Self {
            store,
            tables,
            options,
            connection: None,
            turn: None,
            writes,
            known: HashSet::new(),
            observed: Observed::default(),
            creation_time_ms: 0.0,
            savepoints: Savepoints::default(),
            has_read: false,
            commutes: false,
        }
    }

    pub(crate) fn id(table: &Table, id: &str) -> Result<DocumentId, DatabaseError> {
        let parsed =
            DocumentId::parse(id).map_err(|error| invalid(format!("`{}` is not an id: {error}", shorten(id))))?;
        if parsed.table != table.number {
            return Err(invalid(format!("the id `{id}` belongs to another table than `{}`", table.name)));
        }
        Ok(parsed)
    }

    /// Sends what is kept, and a read behind it that could see it.
    pub(crate) async fn read(&mut self, read: Statement) -> Result<Vec<Row>, DatabaseError> {
        if self.options.isolation == Isolation::SingleRead && self.connection.is_some() {
            return Err(DatabaseError::NeedsSnapshot);
        }
        self.has_read = true;
        let mut statements = self.writes.take(&self.store.inner.project);
        statements.push(read);
        Ok(self.round_trip(statements, false).await?.pop().unwrap_or_default())
    }

    /// A read of a table whose result is kept: it belongs to the snapshot even where the table was emptied meanwhile.
    pub(crate) async fn read_kept(&mut self, table: &Table, read: Statement) -> Result<Vec<Row>, DatabaseError> {
        if !self.observes() {
            return self.read(read).await;
        }
        self.has_read = true;
        self.connect().await?;
        if self.turn.as_ref().is_some_and(|turn| turn.is_intact(&table.name)) {
            return Ok(self.round_trip(vec![read], false).await?.pop().unwrap_or_default());
        }
        let intact = convoke_sql::intact(&[(&self.store.inner.project, &table.name)]);
        let mut results = self.round_trip(vec![read, intact], false).await?;
        let unreadable = |error| crate::error::explain(&error, crate::error::Phase::BeforeCommit);
        let intact = results.pop().and_then(|rows| rows.first().map(|row| row.try_get(0))).unwrap_or(Ok(true));
        if !intact.map_err(unreadable)? {
            return Err(DatabaseError::Conflict);
        }
        if let Some(turn) = &mut self.turn {
            turn.found_intact(&table.name);
        }
        Ok(results.pop().unwrap_or_default())
    }

    /// Whether what is read is noted, as somebody wants to know when it changes.
    pub(crate) fn observes(&self) -> bool {
        self.options.reads.is_some() && self.options.isolation == Isolation::Snapshot
    }

    /// Opens the transaction, if none is, and sends what is kept.
    pub(crate) async fn open_transaction(&mut self) -> Result<&mut Connection, DatabaseError> {
        self.has_read = true;
        let statements = self.writes.take(&self.store.inner.project);
        if !statements.is_empty() || !self.connection.as_ref().is_some_and(Connection::transaction_open) {
            self.round_trip(statements, false).await?;
        }
        self.connection.as_mut().ok_or_else(|| Failure::internal("a round trip left no connection").into())
    }

    async fn connect(&mut self) -> Result<&mut Connection, DatabaseError> {
        let shared = self.options.reads.as_ref().and_then(|reads| reads.snapshot.as_ref());
        let connection = match (self.connection.take(), shared) {
            (Some(connection), _) => connection,
            (None, None) => Connection::open(&self.store, self.options.deadline).await?,
            (None, Some(shared)) => {
                let (connection, turn) = shared.turn(&self.store, self.options.deadline).await?;
                if let Some(taken) = turn.taken() {
                    self.observed.snapshot = Some(taken.snapshot.clone());
                    self.observed.lsn = Some(taken.lsn);
                }
                self.turn = Some(turn);
                connection
            }
        };
        Ok(self.connection.insert(connection))
    }

    async fn round_trip(
        &mut self,
        mut statements: Vec<Statement>,
        commit: bool,
    ) -> Result<Vec<Vec<Row>>, DatabaseError> {
        if self.savepoints.aborted && !statements.first().is_some_and(Statement::is_control) {
            return Err(aborted());
        }
        // What commutes needs no snapshot: it waits for the row's lock, and does not conflict.
        let commutes = commit && !self.has_read && self.commutes;
        let observes = self.observes();
        let isolation = self.options.isolation;
        let transaction_open = self.connect().await?.transaction_open();
        let begins = isolation != Isolation::SingleRead && !transaction_open;
        let begin = begins.then_some(match isolation {
            Isolation::Serializable if commutes => "begin isolation level read committed",
            Isolation::Serializable => "begin isolation level serializable",
            Isolation::SingleRead | Isolation::Snapshot => "begin isolation level repeatable read read only",
        });
        let observes = begins && observes;
        if observes {
            statements.insert(0, convoke_sql::snapshot());
        }
        let position = commit && self.options.position;
        let around = Around { begin, commit, position };
        let sent = match &mut self.connection {
            Some(connection) => connection.round_trip(&statements, around).await,
            None => Err(Failure::internal("a connection that was given back").into()),
        };
        if sent.is_err() {
            // What Postgres has refused ends a snapshot for all who share it.
            self.turn = None;
        }
        let mut results = match sent {
            Err(DatabaseError::Failed(failure)) if self.savepoints.may_survive(&failure, commit) => {
                self.savepoints.aborted = true;
                return Err(DatabaseError::Refused(failure));
            }
            other => other?,
        };
        let unreadable = |error| crate::error::explain(&error, crate::error::Phase::BeforeCommit);
        if observes && let Some(row) = results.first().and_then(|rows| rows.first()) {
            let taken = Taken {
                snapshot: row.try_get(0).map_err(unreadable)?,
                lsn: row.try_get::<_, PgLsn>(1).map_err(unreadable)?.into(),
            };
            self.observed.snapshot = Some(taken.snapshot.clone());
            self.observed.lsn = Some(taken.lsn);
            if let Some(turn) = &mut self.turn {
                turn.take(taken);
            }
        }
        if around.position
            && let Some(row) = results.pop().and_then(|rows| rows.into_iter().next())
        {
            self.observed.lsn = Some(row.try_get::<_, PgLsn>(0).map_err(unreadable)?.into());
        }
        Ok(results)
    }

    pub(crate) async fn flush_if_full(&mut self) -> Result<(), DatabaseError> {
        if self.writes.is_full() {
            let statements = self.writes.take(&self.store.inner.project);
            self.round_trip(statements, false).await?;
        }
        Ok(())
    }

    pub(crate) fn existence(&self, id: DocumentId) -> Existence {
        if self.known.contains(&id) { Existence::Known } else { Existence::Checked }
    }

    /// Refuses everything but a way back, once Postgres has refused a statement.
    pub(crate) fn check_usable(&self) -> Result<(), DatabaseError> {
        if self.savepoints.aborted { Err(aborted()) } else { Ok(()) }
    }

    /// Notes that Postgres has ended the transaction but for a way back.
    pub(crate) fn abort(&mut self) {
        self.savepoints.aborted = true;
    }

    /// What an earlier run under the call's key returned, if there was one.
    ///
    /// # Errors
    /// As a read.
    pub async fn recall(&mut self) -> Result<Option<String>, DatabaseError> {
        let Some((session, request)) = self.request() else { return Ok(None) };
        let statement = convoke_sql::recall(&self.store.inner.project, session, request);
        let rows = self.read(statement).await?;
        let unreadable = |error| crate::error::explain(&error, crate::error::Phase::BeforeCommit);
        rows.first().map_or(Ok(None), |row| row.try_get(0).map_err(unreadable))
    }

    /// Keeps the result of this run under the call's key, to be committed with it.
    pub fn remember(&mut self, result: &str) {
        if let Some((session, request)) = self.request() {
            let statement = convoke_sql::remember(&self.store.inner.project, session, request, result);
            self.writes.other(statement);
        }
    }

    /// The receipt's columns, which know numbered requests of sessions only.
    fn request(&self) -> Option<(Uuid, i64)> {
        let Receipt { scope, key, .. } = self.options.key.as_ref()?;
        Some((scope.parse().ok()?, key.parse().ok()?))
    }

    fn begin_savepoint(&mut self) -> Result<u32, DatabaseError> {
        self.check_usable()?;
        self.savepoints.last += 1;
        let savepoint = self.savepoints.last;
        self.savepoints.open.push(savepoint);
        self.writes.control(Control::Begin, savepoint);
        Ok(savepoint)
    }

    /// Sends what is kept, so that what Postgres has against it is told here and not at the end of the call.
    async fn release(&mut self, savepoint: u32) -> Result<(), DatabaseError> {
        self.check_usable()?;
        if self.savepoints.open.last() != Some(&savepoint) {
            return Err(invalid(format!("savepoint {savepoint} is not the innermost one")));
        }
        self.writes.control(Control::Release, savepoint);
        let statements = self.writes.take(&self.store.inner.project);
        self.round_trip(statements, false).await?;
        self.savepoints.open.pop();
        Ok(())
    }

    async fn rollback_to(&mut self, savepoint: u32) -> Result<(), DatabaseError> {
        let Some(position) = self.savepoints.open.iter().position(|open| *open == savepoint) else {
            return Err(invalid(format!("there is no savepoint {savepoint}")));
        };
        self.savepoints.open.truncate(position);
        // What was known may be undone.
        self.known.clear();
        if !self.writes.forget_since(savepoint) {
            self.writes.control(Control::Rollback, savepoint);
            self.writes.control(Control::Release, savepoint);
            let statements = self.writes.take(&self.store.inner.project);
            self.round_trip(statements, false).await?;
        }
        self.savepoints.aborted = false;
        Ok(())
    }

    /// What was read so far and in which snapshot, and where the commit lies, as far as the call was asked to note it;
    /// forgets it.
    pub fn take_observed(&mut self) -> Observed {
        std::mem::take(&mut self.observed)
    }

    /// Makes the writes happen, all of them or none; ends the transaction.
    ///
    /// # Errors
    /// With [`convoke_model::Outcome::Unknown`] where they may have happened.
    pub async fn commit(&mut self) -> Result<(), DatabaseError> {
        if self.savepoints.aborted {
            return Err(DatabaseError::Failed(Failure::function(
                Code::Conflict,
                "the function went on after the database had refused a statement: nothing was written",
            )));
        }
        let open = self.connection.as_ref().is_some_and(Connection::transaction_open);
        match self.options.isolation {
            Isolation::Serializable if open || !self.writes.is_empty() => {
                self.commutes = self.writes.commute();
                let statements = self.writes.take(&self.store.inner.project);
                self.round_trip(statements, true).await?;
            }
            Isolation::Snapshot if open => match (self.connection.take(), self.turn.take()) {
                (Some(connection), Some(turn)) => turn.give_back(connection),
                (Some(mut connection), None) => connection.end_unwatched("commit"),
                (None, _) => {}
            },
            _ => {}
        }
        self.connection = None;
        Ok(())
    }
}

impl Savepoints {
    /// Whether a function may go on after this failure, by going back to a savepoint.
    fn may_survive(&self, failure: &Failure, commit: bool) -> bool {
        !self.open.is_empty()
            && !commit
            && matches!(failure.code, Code::Conflict | Code::NotFound | Code::InvalidArgs | Code::Forbidden)
    }
}

impl Database for CallDatabase {
    fn get<'a>(&'a mut self, table: &'a str, id: &'a str) -> Pending<'a, Option<String>> {
        Box::pin(self.get_document(table, id))
    }

    fn get_many<'a>(&'a mut self, table: &'a str, ids: &'a [String]) -> Pending<'a, String> {
        Box::pin(self.get_documents(table, ids))
    }

    fn query<'a>(&'a mut self, plan: &'a str) -> Pending<'a, String> {
        Box::pin(self.run_plan(plan))
    }

    fn insert<'a>(&'a mut self, table: &'a str, document: &'a str) -> Pending<'a, String> {
        Box::pin(self.insert_document(table, document))
    }

    fn patch<'a>(&'a mut self, table: &'a str, id: &'a str, fields: &'a str) -> Pending<'a, ()> {
        Box::pin(self.patch_document(table, id, fields))
    }

    fn replace<'a>(&'a mut self, table: &'a str, id: &'a str, document: &'a str) -> Pending<'a, ()> {
        Box::pin(self.replace_document(table, id, document))
    }

    fn delete<'a>(&'a mut self, table: &'a str, id: &'a str) -> Pending<'a, ()> {
        Box::pin(self.delete_document(table, id))
    }

    fn insert_many<'a>(&'a mut self, table: &'a str, documents: &'a str) -> Pending<'a, String> {
        Box::pin(self.insert_documents(table, documents))
    }

    fn update<'a>(&'a mut self, table: &'a str, id: &'a str, operations: &'a str) -> Pending<'a, ()> {
        Box::pin(self.update_document(table, id, operations))
    }

    fn patch_where<'a>(&'a mut self, plan: &'a str, fields: &'a str) -> Pending<'a, u64> {
        Box::pin(self.patch_selected(plan, fields))
    }

    fn delete_where<'a>(&'a mut self, plan: &'a str) -> Pending<'a, u64> {
        Box::pin(self.delete_selected(plan))
    }

    fn savepoint(&mut self) -> Pending<'_, u32> {
        Box::pin(std::future::ready(self.begin_savepoint()))
    }

    fn release(&mut self, savepoint: u32) -> Pending<'_, ()> {
        Box::pin(self.release(savepoint))
    }

    fn rollback_to(&mut self, savepoint: u32) -> Pending<'_, ()> {
        Box::pin(self.rollback_to(savepoint))
    }

    fn sql<'a>(&'a mut self, statement: &'a str, parameters: &'a str) -> Pending<'a, String> {
        Box::pin(self.run_sql(statement, parameters))
    }
}

/// A table and the form of its documents.
#[derive(Clone, Copy)]
pub(crate) struct Known<'a> {
    pub(crate) table: &'a Table,
    pub(crate) form: Option<&'a DocumentForm>,
}

/// Finds a table that some component declares.
pub(crate) fn known<'a>(tables: &'a Tables, name: &str) -> Result<Known<'a>, DatabaseError> {
    if let Some(table) = tables.tables.get(name) {
        return Ok(Known { table, form: tables.form(name) });
    }
    let message = format!("table `{name}` is not declared by any component of the project");
    Err(DatabaseError::Refused(Failure::function(Code::NotFound, message)))
}

pub(crate) fn invalid(message: impl Into<String>) -> DatabaseError {
    DatabaseError::Refused(Failure::function(Code::InvalidArgs, message))
}

fn aborted() -> DatabaseError {
    invalid("the database has refused a statement of this transaction: only a savepoint leads back")
}

fn shorten(text: &str) -> String {
    text.chars().take(64).collect()
}
