//! The database as one run of a function sees it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use convoke_model::{Code, Database, DatabaseError, DocumentId, Failure, Pending, Plan, Schema, Table};
use convoke_sql::{Existence, Statement};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::Store;
use crate::document::{check_document, push_document, row_id, split_patch};
use crate::error::{Phase, explain};
use crate::pipeline::{Around, Connection};
use crate::writes::{Update, Writes};

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

/// One run's reads and writes. Dropping it before [`Database::commit`] undoes the writes.
#[derive(Debug)]
pub struct CallDatabase {
    store: Store,
    schema: Arc<Schema>,
    isolation: Isolation,
    deadline: Instant,
    connection: Option<Connection>,
    writes: Writes,
    /// Documents that this transaction has seen or made, so that a write to them needs no check of its own.
    known: HashSet<DocumentId>,
    creation_time_ms: f64,
}

/// Keeps the documents of one call in order where they share a millisecond; an eighth of a float's resolution today.
const CREATION_STEP_MS: f64 = 1.0 / 512.0;

impl CallDatabase {
    pub(crate) fn new(store: Store, schema: Arc<Schema>, isolation: Isolation, deadline: Instant) -> Self {
        Self {
            store,
            schema,
            isolation,
            deadline,
            connection: None,
            writes: Writes::default(),
            known: HashSet::new(),
            creation_time_ms: 0.0,
        }
    }

    fn table(&self, name: &str) -> Result<&Table, DatabaseError> {
        self.schema.tables.get(name).ok_or_else(|| {
            refused(Code::NotFound, format!("table `{name}` is not declared by any component of the project"))
        })
    }

    fn id(&self, table: &str, id: &str) -> Result<DocumentId, DatabaseError> {
        let table = self.table(table)?;
        let parsed = DocumentId::parse(id)
            .map_err(|error| refused(Code::InvalidArgs, format!("`{}` is not an id: {error}", shorten(id))))?;
        if parsed.table != table.number {
            return Err(refused(
                Code::InvalidArgs,
                format!("the id `{id}` belongs to another table than `{}`", table.name),
            ));
        }
        Ok(parsed)
    }

    /// Sends what is kept, and a read behind it that could see it.
    async fn read(&mut self, read: Statement) -> Result<Vec<Row>, DatabaseError> {
        if self.isolation == Isolation::SingleRead && self.connection.is_some() {
            return Err(DatabaseError::NeedsSnapshot);
        }
        let mut statements = self.writes.take(&self.store.inner.project);
        statements.push(read);
        self.round_trip(&statements, false).await
    }

    async fn round_trip(&mut self, statements: &[Statement], commit: bool) -> Result<Vec<Row>, DatabaseError> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(Connection::open(&self.store, self.deadline).await?),
        };
        let begin = match self.isolation {
            Isolation::SingleRead => None,
            _ if connection.transaction_open() => None,
            Isolation::Snapshot => Some("begin isolation level repeatable read read only"),
            Isolation::Serializable => Some("begin isolation level serializable"),
        };
        connection.round_trip(statements, Around { begin, commit }).await
    }

    async fn flush_if_full(&mut self) -> Result<(), DatabaseError> {
        if self.writes.is_full() {
            let statements = self.writes.take(&self.store.inner.project);
            self.round_trip(&statements, false).await?;
        }
        Ok(())
    }

    /// Renders rows as a JSON array and remembers that they exist.
    fn render(&mut self, table: u32, rows: &[Row]) -> Result<String, DatabaseError> {
        let mut json = String::with_capacity(rows.len() * 256 + 2);
        json.push('[');
        for (position, row) in rows.iter().enumerate() {
            if position > 0 {
                json.push(',');
            }
            self.render_one(&mut json, table, row)?;
        }
        json.push(']');
        Ok(json)
    }

    fn render_one(&mut self, json: &mut String, table: u32, row: &Row) -> Result<(), DatabaseError> {
        push_document(json, table, row).map_err(|error| explain(&error, Phase::BeforeCommit))?;
        if self.isolation == Isolation::Serializable {
            let uuid = row_id(row).map_err(|error| explain(&error, Phase::BeforeCommit))?;
            self.known.insert(DocumentId { table, uuid });
        }
        Ok(())
    }

    fn existence(&self, id: DocumentId) -> Existence {
        if self.known.contains(&id) { Existence::Known } else { Existence::Checked }
    }

    /// A time that no other document of this call has.
    fn next_creation_time(&mut self) -> f64 {
        let now = now_ms();
        self.creation_time_ms =
            if now > self.creation_time_ms { now } else { self.creation_time_ms + CREATION_STEP_MS };
        self.creation_time_ms
    }
}

impl Database for CallDatabase {
    fn get<'a>(&'a mut self, table: &'a str, id: &'a str) -> Pending<'a, Option<String>> {
        Box::pin(async move {
            let id = self.id(table, id)?;
            let rows = self.read(convoke_sql::get(&self.store.inner.project, table, id.uuid)).await?;
            let Some(row) = rows.first() else { return Ok(None) };
            let mut json = String::new();
            self.render_one(&mut json, id.table, row)?;
            Ok(Some(json))
        })
    }

    fn get_many<'a>(&'a mut self, table: &'a str, ids: &'a [String]) -> Pending<'a, String> {
        Box::pin(async move {
            let number = self.table(table)?.number;
            if ids.len() > self.store.inner.limits.rows_max as usize {
                return Err(too_many(self.store.inner.limits.rows_max));
            }
            let ids = ids.iter().map(|id| self.id(table, id)).collect::<Result<Vec<_>, _>>()?;
            let wanted: HashSet<Uuid> = ids.iter().map(|id| id.uuid).collect();
            let mut wanted: Vec<Uuid> = wanted.into_iter().collect();
            wanted.sort_unstable();
            let rows = self.read(convoke_sql::get_many(&self.store.inner.project, table, wanted)).await?;
            let mut found = HashMap::with_capacity(rows.len());
            for row in &rows {
                let uuid = row_id(row).map_err(|error| explain(&error, Phase::BeforeCommit))?;
                let mut json = String::new();
                self.render_one(&mut json, number, row)?;
                found.insert(uuid, json);
            }
            let documents: Vec<&str> =
                ids.iter().map(|id| found.get(&id.uuid).map_or("null", String::as_str)).collect();
            Ok(format!("[{}]", documents.join(",")))
        })
    }

    fn query<'a>(&'a mut self, plan: &'a str) -> Pending<'a, String> {
        Box::pin(async move {
            let plan = Plan::parse(plan).map_err(|error| refused(Code::InvalidArgs, error.to_string()))?;
            let table = self.table(&plan.table)?;
            let number = table.number;
            let index = plan.check(table).map_err(|error| refused(Code::InvalidArgs, error.to_string()))?;
            let rows_max = self.store.inner.limits.rows_max;
            let limit = plan.limit.unwrap_or(u32::MAX).min(rows_max + 1);
            let fields = index.map_or(&[][..], |index| index.fields.as_slice());
            let statement = convoke_sql::query(&self.store.inner.project, &plan, fields, limit);
            let rows = self.read(statement).await?;
            if rows.len() > rows_max as usize {
                return Err(too_many(rows_max));
            }
            self.render(number, &rows)
        })
    }

    fn insert<'a>(&'a mut self, table: &'a str, document: &'a str) -> Pending<'a, String> {
        Box::pin(async move {
            let number = self.table(table)?.number;
            check_document(document, self.store.inner.limits.document_bytes_max).map_err(DatabaseError::Refused)?;
            let id = DocumentId { table: number, uuid: Uuid::now_v7() };
            let creation_time = self.next_creation_time();
            self.writes.insert(table, id.uuid, creation_time, document.to_owned());
            self.known.insert(id);
            self.flush_if_full().await?;
            Ok(id.to_string())
        })
    }

    fn patch<'a>(&'a mut self, table: &'a str, id: &'a str, fields: &'a str) -> Pending<'a, ()> {
        Box::pin(async move {
            let id = self.id(table, id)?;
            let (set, unset) =
                split_patch(fields, self.store.inner.limits.document_bytes_max).map_err(DatabaseError::Refused)?;
            let existence = self.existence(id);
            if unset.is_empty() {
                self.writes.update(table, Update::Patch, id.uuid, set, existence);
            } else {
                self.writes.unset(table, id.uuid, set, unset, existence);
            }
            self.flush_if_full().await
        })
    }

    fn replace<'a>(&'a mut self, table: &'a str, id: &'a str, document: &'a str) -> Pending<'a, ()> {
        Box::pin(async move {
            let id = self.id(table, id)?;
            check_document(document, self.store.inner.limits.document_bytes_max).map_err(DatabaseError::Refused)?;
            let existence = self.existence(id);
            self.writes.update(table, Update::Replace, id.uuid, document.to_owned(), existence);
            self.flush_if_full().await
        })
    }

    fn delete<'a>(&'a mut self, table: &'a str, id: &'a str) -> Pending<'a, ()> {
        Box::pin(async move {
            let id = self.id(table, id)?;
            let existence = self.existence(id);
            self.known.remove(&id);
            self.writes.delete(table, id.uuid, existence);
            self.flush_if_full().await
        })
    }

    fn commit(&mut self) -> Pending<'_, ()> {
        Box::pin(async move {
            let open = self.connection.as_ref().is_some_and(Connection::transaction_open);
            match self.isolation {
                Isolation::Serializable if open || !self.writes.is_empty() => {
                    let statements = self.writes.take(&self.store.inner.project);
                    self.round_trip(&statements, true).await?;
                }
                Isolation::Snapshot if open => {
                    if let Some(connection) = &mut self.connection {
                        connection.end_unwatched("commit");
                    }
                }
                _ => {}
            }
            self.connection = None;
            Ok(())
        })
    }
}

fn refused(code: Code, message: String) -> DatabaseError {
    DatabaseError::Refused(Failure::new(code, message))
}

fn too_many(rows_max: u32) -> DatabaseError {
    refused(Code::InvalidArgs, format!("the read selects more than {rows_max} documents: give it a limit"))
}

fn shorten(text: &str) -> String {
    text.chars().take(64).collect()
}

fn now_ms() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64() * 1000.0)
}
