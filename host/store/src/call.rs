//! The database as one run of a function sees it.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use convoke_documents::{Control, Documents, Noted, Purpose, Source as _, invalid};
use convoke_model::{Database, DatabaseError, Failure, Observed, Pending, Tables, Upcast};

use crate::Store;
use crate::receipt::Receipt;
use crate::snapshot::SharedSnapshot;
use crate::transaction::{Kind, Seen, Transaction, View};

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
#[derive(Debug)]
pub struct CallDatabase {
    pub(crate) store: Store,
    pub(crate) documents: Documents<Transaction>,
    receipt: Option<Receipt>,
    /// Whether SQL of the function's own asked for the time, or for what else differs from call to call.
    pub(crate) is_volatile: bool,
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

impl CallDatabase {
    pub(crate) fn new(store: Store, tables: Arc<Tables>, options: CallOptions) -> Self {
        // Only what a snapshot shows can be told from what came later: nothing else notes what it reads.
        let (kind, purpose) = match (options.isolation, options.reads) {
            (Isolation::SingleRead, _) => (Kind::Single, Purpose::Read),
            (Isolation::Serializable, _) => {
                let (position, receipt) = (options.position, options.key.clone());
                (Kind::Serial { position, receipt }, Purpose::Write)
            }
            (Isolation::Snapshot, None) => (Kind::Snapshot(View::Plain), Purpose::Read),
            (Isolation::Snapshot, Some(NoteReads { journal, snapshot })) => {
                let view = snapshot.map_or(View::Noted, View::Shared);
                (Kind::Snapshot(view), Purpose::Note { journal })
            }
        };
        let transaction = Transaction::new(store.clone(), kind, options.deadline);
        let project = Arc::clone(&store.inner.project);
        let documents = Documents::new(transaction, project, tables, purpose, options.upcast);
        Self { store, documents, receipt: options.key, is_volatile: false }
    }

    /// What the call returned when it was sent before under the same key, or why it is not said; none where it was not
    /// done, and as long as no statement was sent. A run that finds such a receipt ends with [`DatabaseError::Conflict`].
    pub fn earlier(&mut self) -> Option<Result<String, Failure>> {
        self.documents.source.earlier()
    }

    /// The same, asked for on its own where no statement was sent; ends the transaction. For a run that failed before it
    /// came to the database, as it may not have failed the first time.
    ///
    /// # Errors
    /// Where Postgres does not tell.
    pub async fn find_earlier(&mut self) -> Result<Option<Result<String, Failure>>, DatabaseError> {
        match self.documents.source.ask_earlier().await {
            Ok(()) | Err(DatabaseError::Conflict) => Ok(self.documents.source.earlier()),
            Err(error) => Err(error),
        }
    }

    /// Whether a unique index refused a write that came behind a read: the function may have looked before another one wrote.
    pub fn is_outdated(&self) -> bool {
        self.documents.source.is_outdated()
    }

    /// Leaves a receipt with the result of this run under the call's key, to be committed with it.
    pub fn leave_receipt(&mut self, result: &str) {
        if let Some(receipt) = &self.receipt {
            let statement = receipt.leave(&self.store.inner.project.name, result);
            self.documents.writes.other(statement);
        }
    }

    fn begin_savepoint(&mut self) -> Result<u32, DatabaseError> {
        let savepoint = self.documents.source.begin_savepoint()?;
        self.documents.writes.control(Control::Begin, savepoint);
        Ok(savepoint)
    }

    async fn release(&mut self, savepoint: u32) -> Result<(), DatabaseError> {
        self.documents.source.check_usable()?;
        if !self.documents.source.is_innermost(savepoint) {
            return Err(invalid(format!("savepoint {savepoint} is not the innermost one")));
        }
        self.documents.writes.control(Control::Release, savepoint);
        let packet = self.documents.take_writes();
        self.documents.source.release(packet).await
    }

    async fn rollback_to(&mut self, savepoint: u32) -> Result<(), DatabaseError> {
        if !self.documents.source.has_savepoint(savepoint) {
            return Err(invalid(format!("there is no savepoint {savepoint}")));
        }
        // What was known may be undone.
        self.documents.clear_known();
        if self.documents.writes.drop_since(savepoint) {
            self.documents.source.end_savepoint(savepoint);
            return Ok(());
        }
        self.documents.writes.control(Control::Rollback, savepoint);
        self.documents.writes.control(Control::Release, savepoint);
        let packet = self.documents.take_writes();
        self.documents.source.roll_back(savepoint, packet).await
    }

    /// What was read so far and in which snapshot, and where the commit lies, as far as the call was asked to note it;
    /// clears it.
    pub fn take_observed(&mut self) -> Observed {
        let Seen { snapshot, lsn } = self.documents.source.take_seen();
        let Noted { reads, journal } = self.documents.take_noted();
        Observed { reads, journal, snapshot, lsn, volatile: self.is_volatile }
    }

    /// Makes the writes happen, all of them or none; ends the transaction.
    ///
    /// # Errors
    /// With [`convoke_model::Outcome::Unknown`] where they may have happened.
    pub async fn commit(&mut self) -> Result<(), DatabaseError> {
        let packet = self.documents.take_writes();
        self.documents.source.commit(packet).await
    }
}

impl Database for CallDatabase {
    fn get<'a>(&'a mut self, table: &'a str, id: &'a str) -> Pending<'a, Option<String>> {
        Box::pin(self.documents.get_document(table, id))
    }

    fn get_many<'a>(&'a mut self, table: &'a str, ids: &'a [String]) -> Pending<'a, String> {
        Box::pin(self.documents.get_documents(table, ids))
    }

    fn query<'a>(&'a mut self, plan: &'a str) -> Pending<'a, String> {
        Box::pin(self.documents.run_plan(plan))
    }

    fn insert<'a>(&'a mut self, table: &'a str, document: &'a str) -> Pending<'a, String> {
        Box::pin(self.documents.insert_document(table, document))
    }

    fn patch<'a>(&'a mut self, table: &'a str, id: &'a str, fields: &'a str) -> Pending<'a, ()> {
        Box::pin(self.documents.patch_document(table, id, fields))
    }

    fn replace<'a>(&'a mut self, table: &'a str, id: &'a str, document: &'a str) -> Pending<'a, ()> {
        Box::pin(self.documents.replace_document(table, id, document))
    }

    fn delete<'a>(&'a mut self, table: &'a str, id: &'a str) -> Pending<'a, ()> {
        Box::pin(self.documents.delete_document(table, id))
    }

    fn insert_many<'a>(&'a mut self, table: &'a str, documents: &'a str) -> Pending<'a, String> {
        Box::pin(self.documents.insert_documents(table, documents))
    }

    fn update<'a>(&'a mut self, table: &'a str, id: &'a str, operations: &'a str) -> Pending<'a, ()> {
        Box::pin(self.documents.update_document(table, id, operations))
    }

    fn patch_where<'a>(&'a mut self, plan: &'a str, fields: &'a str) -> Pending<'a, u64> {
        Box::pin(self.documents.patch_selected(plan, fields))
    }

    fn delete_where<'a>(&'a mut self, plan: &'a str) -> Pending<'a, u64> {
        Box::pin(self.documents.delete_selected(plan))
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
