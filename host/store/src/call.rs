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
use uuid::Uuid;

use crate::Store;
use crate::receipt::Receipt;
use crate::snapshot::SharedSnapshot;
use crate::transaction::{Kind, Seen, Transaction, View};
use crate::writes::{Control, Packet, Writes};

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

/// One run's reads and writes. Dropping it before [`CallDatabase::commit`] undoes the writes.
pub struct CallDatabase {
    pub(crate) store: Store,
    pub(crate) tables: Arc<Tables>,
    pub(crate) options: CallOptions,
    pub(crate) transaction: Transaction,
    pub(crate) writes: Writes,
    /// Documents that this transaction has seen or made, so that a write to them needs no check of its own.
    pub(crate) known: HashSet<DocumentId>,
    pub(crate) observed: Observed,
    pub(crate) creation_time_ms: f64,
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
    pub(crate) fn new(store: Store, tables: Arc<Tables>, mut options: CallOptions) -> Self {
        // Only what a snapshot shows can be told from what came later.
        options.reads.take_if(|_| options.isolation != Isolation::Snapshot);
        let kind = match (options.isolation, &options.reads) {
            (Isolation::SingleRead, _) => Kind::Single,
            (Isolation::Serializable, _) => Kind::Serial { position: options.position },
            (Isolation::Snapshot, None) => Kind::Snapshot(View::Plain),
            (Isolation::Snapshot, Some(NoteReads { snapshot: None, .. })) => Kind::Snapshot(View::Noted),
            (Isolation::Snapshot, Some(NoteReads { snapshot: Some(shared), .. })) => {
                Kind::Snapshot(View::Shared(shared.clone()))
            }
        };
        let writes = Writes::new(store.inner.limits.document_bytes_max);
        Self {
            transaction: Transaction::new(store.clone(), kind, options.deadline),
            store,
            tables,
            options,
            writes,
            known: HashSet::new(),
            observed: Observed::default(),
            creation_time_ms: 0.0,
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
        let packet = self.take_writes();
        self.transaction.read(packet, read).await
    }

    /// A read of a table whose result somebody may keep.
    pub(crate) async fn read_kept(&mut self, table: &Table, read: Statement) -> Result<Vec<Row>, DatabaseError> {
        if self.transaction.is_noted() {
            return self.transaction.read_intact(&table.name, read).await;
        }
        self.read(read).await
    }

    pub(crate) fn take_writes(&mut self) -> Packet {
        self.writes.take(&self.store.inner.project)
    }

    pub(crate) async fn flush_if_full(&mut self) -> Result<(), DatabaseError> {
        if self.writes.is_full() {
            let packet = self.take_writes();
            self.transaction.write(packet).await?;
        }
        Ok(())
    }

    pub(crate) fn existence(&self, id: DocumentId) -> Existence {
        if self.known.contains(&id) { Existence::Known } else { Existence::Checked }
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
        let savepoint = self.transaction.begin_savepoint()?;
        self.writes.control(Control::Begin, savepoint);
        Ok(savepoint)
    }

    async fn release(&mut self, savepoint: u32) -> Result<(), DatabaseError> {
        self.transaction.check_usable()?;
        if !self.transaction.is_innermost(savepoint) {
            return Err(invalid(format!("savepoint {savepoint} is not the innermost one")));
        }
        self.writes.control(Control::Release, savepoint);
        let packet = self.take_writes();
        self.transaction.release(packet).await
    }

    async fn rollback_to(&mut self, savepoint: u32) -> Result<(), DatabaseError> {
        if !self.transaction.has_savepoint(savepoint) {
            return Err(invalid(format!("there is no savepoint {savepoint}")));
        }
        // What was known may be undone.
        self.known.clear();
        if self.writes.forget_since(savepoint) {
            self.transaction.forget_savepoint(savepoint);
            return Ok(());
        }
        self.writes.control(Control::Rollback, savepoint);
        self.writes.control(Control::Release, savepoint);
        let packet = self.take_writes();
        self.transaction.roll_back(savepoint, packet).await
    }

    /// What was read so far and in which snapshot, and where the commit lies, as far as the call was asked to note it;
    /// forgets it.
    pub fn take_observed(&mut self) -> Observed {
        let Seen { snapshot, lsn } = self.transaction.take_seen();
        Observed { snapshot, lsn, ..std::mem::take(&mut self.observed) }
    }

    /// Makes the writes happen, all of them or none; ends the transaction.
    ///
    /// # Errors
    /// With [`convoke_model::Outcome::Unknown`] where they may have happened.
    pub async fn commit(&mut self) -> Result<(), DatabaseError> {
        let packet = self.take_writes();
        self.transaction.commit(packet).await
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

fn shorten(text: &str) -> String {
    text.chars().take(64).collect()
}
