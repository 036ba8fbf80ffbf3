//! The writes of a mutation, kept by the host until they must be seen or the call ends.

use std::collections::HashSet;

use convoke_model::Table;
use convoke_sql::{DocumentBytes, Existence, Rows, Statement, Target};
use uuid::Uuid;

use crate::pipeline::Step;

/// Rows that one statement may carry; more are sent on before the call ends.
const ROWS_MAX: usize = 10_000;
/// Text that is kept before it is sent on.
const BYTES_MAX: usize = 8 << 20;

/// Neighbouring writes of one sort on one table, which one statement makes.
#[derive(Debug)]
enum Batch {
    Insert {
        table: String,
        ids: Vec<Uuid>,
        creation_times: Vec<f64>,
        documents: Vec<String>,
    },
    Update {
        table: String,
        versioned: bool,
        sort: Rows,
        existence: Existence,
        rows: Vec<(Uuid, String)>,
        ids: HashSet<Uuid>,
    },
    Unset {
        table: String,
        id: Uuid,
        fields: String,
        unset: Vec<String>,
        existence: Existence,
    },
    Delete {
        table: String,
        existence: Existence,
        ids: HashSet<Uuid>,
    },
    Other(Statement),
    /// Begins, ends or undoes a transaction within the transaction.
    Control(Control, u32),
}

/// What a savepoint is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Control {
    Begin,
    Release,
    Rollback,
}

/// Writes on their way to Postgres, in order.
#[derive(Debug, Default)]
pub(crate) struct Packet {
    pub(crate) statements: Vec<Statement>,
    /// Where among the statements savepoints begin.
    savepoints: Vec<usize>,
    /// Whether all of it commutes with whatever others do to the same rows, and so needs no snapshot.
    pub(crate) commutes: bool,
}

impl Packet {
    /// One statement.
    pub(crate) fn of(statement: Statement) -> Self {
        Self { statements: vec![statement], ..Self::default() }
    }

    /// How many savepoints Postgres does not know when the packet failed at this step.
    pub(crate) fn savepoints_from(&self, step: Step) -> usize {
        let failed = match step {
            Step::Prepare | Step::Begin => 0,
            Step::Statement(number) => number,
            Step::Commit | Step::Position => self.statements.len(),
        };
        self.savepoints.iter().filter(|begins| **begins >= failed).count()
    }
}

/// Writes in the order in which the function made them.
#[derive(Debug)]
pub(crate) struct Writes {
    batches: Vec<Batch>,
    rows: usize,
    bytes: usize,
    document_bytes_max: DocumentBytes,
}

impl Writes {
    pub(crate) fn new(document_bytes_max: usize) -> Self {
        Self { batches: Vec::new(), rows: 0, bytes: 0, document_bytes_max: DocumentBytes(document_bytes_max) }
    }

    /// Whether so much is kept that it should be sent.
    pub(crate) fn is_full(&self) -> bool {
        self.rows >= ROWS_MAX || self.bytes >= BYTES_MAX
    }

    pub(crate) fn insert(&mut self, table: &str, id: Uuid, creation_time: f64, document: String) {
        self.count(document.len());
        if let Some(Batch::Insert { table: last, ids, creation_times, documents }) = self.batches.last_mut()
            && last == table
        {
            ids.push(id);
            creation_times.push(creation_time);
            documents.push(document);
            return;
        }
        self.batches.push(Batch::Insert {
            table: table.to_owned(),
            ids: vec![id],
            creation_times: vec![creation_time],
            documents: vec![document],
        });
    }

    pub(crate) fn update(&mut self, table: &Table, sort: Rows, id: Uuid, document: String, existence: Existence) {
        self.count(document.len());
        if let Some(Batch::Update { table: last, sort: last_sort, existence: last_existence, rows, ids, .. }) =
            self.batches.last_mut()
            && *last == table.name
            && *last_sort == sort
            && *last_existence == existence
            && ids.insert(id)
        {
            rows.push((id, document));
            return;
        }
        self.batches.push(Batch::Update {
            table: table.name.clone(),
            versioned: table.version > 1,
            sort,
            existence,
            rows: vec![(id, document)],
            ids: HashSet::from([id]),
        });
    }

    pub(crate) fn unset(&mut self, table: &str, id: Uuid, fields: String, unset: Vec<String>, existence: Existence) {
        self.count(fields.len());
        self.batches.push(Batch::Unset { table: table.to_owned(), id, fields, unset, existence });
    }

    pub(crate) fn delete(&mut self, table: &str, id: Uuid, existence: Existence) {
        self.count(0);
        if let Some(Batch::Delete { table: last, existence: last_existence, ids }) = self.batches.last_mut()
            && last == table
            && *last_existence == existence
            && ids.insert(id)
        {
            return;
        }
        self.batches.push(Batch::Delete { table: table.to_owned(), existence, ids: HashSet::from([id]) });
    }

    /// A statement of the host's own.
    pub(crate) fn other(&mut self, statement: Statement) {
        self.batches.push(Batch::Other(statement));
    }

    pub(crate) fn control(&mut self, control: Control, savepoint: u32) {
        self.batches.push(Batch::Control(control, savepoint));
    }

    /// Forgets what was kept since this savepoint began; false where its beginning was sent already.
    pub(crate) fn forget_since(&mut self, savepoint: u32) -> bool {
        let begin = |batch: &Batch| matches!(batch, Batch::Control(Control::Begin, number) if *number == savepoint);
        let position = self.batches.iter().rposition(begin);
        self.batches.truncate(position.unwrap_or_default());
        position.is_some()
    }

    fn commute(&self) -> bool {
        let applies = |batch: &Batch| matches!(batch, Batch::Update { sort: Rows::Apply, .. });
        self.batches.iter().any(applies)
            && self.batches.iter().all(|batch| applies(batch) || matches!(batch, Batch::Insert { .. }))
    }

    /// What makes the writes; forgets them.
    pub(crate) fn take(&mut self, schema: &str) -> Packet {
        let commutes = self.commute();
        self.rows = 0;
        self.bytes = 0;
        let bytes_max = self.document_bytes_max;
        let batches = std::mem::take(&mut self.batches);
        let begins = |batch: &Batch| matches!(batch, Batch::Control(Control::Begin, _));
        let savepoints = batches.iter().enumerate().filter(|(_, batch)| begins(batch)).map(|(number, _)| number);
        let savepoints = savepoints.collect();
        let statements = batches.into_iter().map(|batch| batch.into_statement(schema, bytes_max)).collect();
        Packet { statements, savepoints, commutes }
    }

    fn count(&mut self, bytes: usize) {
        self.rows += 1;
        self.bytes += bytes;
    }
}

impl Batch {
    fn into_statement(self, schema: &str, bytes_max: DocumentBytes) -> Statement {
        match self {
            Self::Insert { table, ids, creation_times, documents } => {
                convoke_sql::insert(schema, &table, ids, creation_times, documents)
            }
            Self::Update { table, versioned, sort, existence, mut rows, .. } => {
                // Rows are locked in the order of their ids, whatever the order of the calls: fewer deadlocks.
                rows.sort_unstable_by_key(|(id, _)| *id);
                let (ids, documents) = rows.into_iter().unzip();
                let target = Target { schema, table: &table, versioned, bytes_max };
                convoke_sql::update(target, sort, ids, documents, existence)
            }
            Self::Unset { table, id, fields, unset, existence } => {
                let target = Target { schema, table: &table, versioned: false, bytes_max };
                convoke_sql::patch_unset(target, id, fields, unset, existence)
            }
            Self::Delete { table, existence, ids } => {
                let mut ids: Vec<Uuid> = ids.into_iter().collect();
                ids.sort_unstable();
                convoke_sql::delete(schema, &table, ids, existence)
            }
            Self::Other(statement) => statement,
            Self::Control(control, savepoint) => Statement::control(match control {
                Control::Begin => format!("savepoint s{savepoint}"),
                Control::Release => format!("release savepoint s{savepoint}"),
                Control::Rollback => format!("rollback to savepoint s{savepoint}"),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use convoke_model::TableManifest;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_savepoint_that_was_not_sent_is_forgotten() {
        let mut writes = Writes::new(1 << 20);
        writes.insert("messages", Uuid::nil(), 0.0, "{}".to_owned());
        writes.control(Control::Begin, 1);
        writes.insert("messages", Uuid::nil(), 0.0, "{}".to_owned());
        assert!(writes.forget_since(1));
        assert_eq!(writes.take("demo").statements.len(), 1);
        assert!(!writes.forget_since(1));
    }

    #[test]
    fn savepoints_behind_a_failure_do_not_exist() {
        let mut writes = Writes::new(1 << 20);
        writes.control(Control::Begin, 1);
        writes.insert("messages", Uuid::nil(), 0.0, "{}".to_owned());
        writes.control(Control::Begin, 2);
        writes.insert("messages", Uuid::nil(), 0.0, "{}".to_owned());
        let packet = writes.take("demo");
        let lost = |step| packet.savepoints_from(step);
        assert_eq!(
            [Step::Prepare, Step::Begin, Step::Statement(1), Step::Statement(3), Step::Commit].map(lost),
            [2, 2, 1, 0, 0]
        );
    }

    #[test]
    fn neighbours_share_a_statement_and_keep_their_order() {
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let manifest: TableManifest = serde_json::from_value(json!({ "name": "accounts" })).expect("a manifest");
        let table = Table::declared(&manifest, "accounts");
        let mut writes = Writes::new(1 << 20);
        for id in [b, a] {
            writes.update(&table, Rows::Patch, id, "{}".to_owned(), Existence::Known);
        }
        assert_eq!(writes.take("demo").statements.len(), 1);

        writes.update(&table, Rows::Patch, a, "{\"n\":1}".to_owned(), Existence::Known);
        writes.update(&table, Rows::Patch, a, "{\"n\":2}".to_owned(), Existence::Known);
        writes.delete("accounts", a, Existence::Known);
        writes.insert("messages", b, 0.0, "{}".to_owned());
        writes.insert("messages", a, 0.0, "{}".to_owned());
        assert_eq!(writes.take("demo").statements.len(), 4, "one row is never twice in one update");
        assert!(writes.batches.is_empty());
    }
}
