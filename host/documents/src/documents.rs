//! The documents of one run.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use convoke_model::{
    Code, CursorKey, DatabaseError, DocumentForm, DocumentId, Failure, Limits, ReadSet, Table, Tables, Upcast,
};
use convoke_sql::{Existence, Statement};

use crate::source::Source;
use crate::write_set::{Packet, WriteSet};

/// What all runs of a project have in common; made once a host.
#[derive(Debug, Clone)]
pub struct Project {
    /// Its name, and so the schema of its tables.
    pub name: String,
    pub limits: Limits,
    /// Signs where pages end.
    pub cursor_key: CursorKey,
}

/// What a run does with documents besides reading them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// Nothing.
    Read,
    /// It notes what it reads. `journal` is where the page of an earlier run of the same query ended.
    Note {
        journal: Option<String>,
    },
    Write,
}

/// The documents of one run, over a source of rows. Writes are kept until a read could see them, or whoever has the
/// source takes them.
pub struct Documents<S> {
    pub source: S,
    /// What is to be written and was not sent.
    pub writes: WriteSet,
    pub(crate) project: Arc<Project>,
    pub(crate) tables: Arc<Tables>,
    pub(crate) purpose: Purpose,
    /// Turns documents of older forms into the newest; without it they are an error.
    pub(crate) upcast: Option<Arc<dyn Upcast>>,
    /// Documents that this run has seen or made, so that a write to them needs no check of its own.
    pub(crate) known: HashSet<DocumentId>,
    pub(crate) noted: Noted,
    pub(crate) creation_time_ms: f64,
}

/// What a run noted.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Noted {
    pub reads: ReadSet,
    /// Where the run's page ended, for the next run of the same query.
    pub journal: Option<String>,
}

impl<S: fmt::Debug> fmt::Debug for Documents<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Documents")
            .field("source", &self.source)
            .field("purpose", &self.purpose)
            .finish_non_exhaustive()
    }
}

impl<S: Source> Documents<S> {
    pub fn new(
        source: S,
        project: Arc<Project>,
        tables: Arc<Tables>,
        purpose: Purpose,
        upcast: Option<Arc<dyn Upcast>>,
    ) -> Self {
        Self {
            source,
            writes: WriteSet::new(project.limits.document_bytes_max),
            project,
            tables,
            purpose,
            upcast,
            known: HashSet::new(),
            noted: Noted::default(),
            creation_time_ms: 0.0,
        }
    }

    /// Whether what is read is noted, as somebody wants to know when it changes.
    pub fn is_noted(&self) -> bool {
        matches!(self.purpose, Purpose::Note { .. })
    }

    /// What was noted so far; clears it.
    pub fn take_noted(&mut self) -> Noted {
        std::mem::take(&mut self.noted)
    }

    /// Where reads are noted, those of somebody else's.
    pub fn note(&mut self, reads: impl IntoIterator<Item = convoke_model::Read>) {
        if self.is_noted() {
            self.noted.reads.reads.extend(reads);
        }
    }

    /// The writes that were kept, as statements; they are kept no longer.
    pub fn take_writes(&mut self) -> Packet {
        self.writes.take(&self.project.name)
    }

    /// What was known of documents may be true no longer: something was undone, or written unseen.
    pub fn clear_known(&mut self) {
        self.known.clear();
    }

    pub(crate) fn take_journal(&mut self) -> Option<String> {
        match &mut self.purpose {
            Purpose::Note { journal } => journal.take(),
            Purpose::Read | Purpose::Write => None,
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
    pub(crate) async fn read(&mut self, read: Statement) -> Result<S::Rows, DatabaseError> {
        let packet = self.take_writes();
        self.source.read(packet, read).await
    }

    /// A read of a table whose result somebody may keep.
    pub(crate) async fn read_kept(&mut self, table: &Table, read: Statement) -> Result<S::Rows, DatabaseError> {
        if self.is_noted() {
            return self.source.read_kept(table, read).await;
        }
        self.read(read).await
    }

    pub(crate) async fn flush_if_full(&mut self) -> Result<(), DatabaseError> {
        if self.writes.is_full() {
            let packet = self.take_writes();
            self.source.write(packet).await?;
        }
        Ok(())
    }

    pub(crate) fn existence(&self, id: DocumentId) -> Existence {
        if self.known.contains(&id) { Existence::Known } else { Existence::Checked }
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

/// A refusal of what the function asked for.
pub fn invalid(message: impl Into<String>) -> DatabaseError {
    DatabaseError::Refused(Failure::function(Code::InvalidArgs, message))
}

fn shorten(text: &str) -> String {
    text.chars().take(64).collect()
}
