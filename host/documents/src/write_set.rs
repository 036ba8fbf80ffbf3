//! What a mutation writes, as data: kept until a read must see it or the call ends, and then committed by whoever has it.

use std::collections::HashSet;

use convoke_model::Table;
use convoke_sql::{DocumentBytes, Existence, Rows, Statement, Target};
use uuid::Uuid;

/// Rows that one statement may carry; more are sent on before the call ends.
const ROWS_MAX: usize = 10_000;
/// Text that is kept before it is sent on.
const BYTES_MAX: usize = 8 << 20;

/// Neighbouring writes of one sort on one table, which one statement makes.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    Insert {
        table: String,
        version: Option<u32>,
        ids: Vec<Uuid>,
        creation_times: Vec<f64>,
        documents: Vec<String>,
    },
    Update {
        table: String,
        version: Option<u32>,
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

/// What is done with a savepoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    Begin,
    Release,
    Rollback,
}

/// Writes as statements, in order, for one round trip.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Packet {
    pub statements: Vec<Statement>,
    /// Where among the statements savepoints begin.
    savepoints: Vec<usize>,
    /// The rows that are there already and are changed.
    pub changed: Vec<Uuid>,
}

impl Packet {
    /// One statement.
    pub fn of(statement: Statement) -> Self {
        Self { statements: vec![statement], ..Self::default() }
    }

    /// How many savepoints do not exist when this statement, numbered from 0, was the first to fail.
    pub fn savepoints_from(&self, statement: usize) -> usize {
        self.savepoints.iter().filter(|begins| **begins >= statement).count()
    }
}

/// Writes in the order in which the function made them. Nothing in it depends on a connection: one transaction may commit
/// it, or one the sets of several calls.
#[derive(Debug, Clone, PartialEq)]
pub struct WriteSet {
    writes: Vec<Write>,
    rows: usize,
    bytes: usize,
    /// Of a document that a write makes of another one.
    document_bytes_max: DocumentBytes,
}

impl WriteSet {
    /// The writes, in order; neighbours of one sort on one table are one.
    pub fn writes(&self) -> &[Write] {
        &self.writes
    }

    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// How many rows are written.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The text of what is written, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// An empty one; a document that a write makes of another one may have so many bytes.
    pub fn new(document_bytes_max: usize) -> Self {
        Self { writes: Vec::new(), rows: 0, bytes: 0, document_bytes_max: DocumentBytes(document_bytes_max) }
    }

    /// Whether so much is kept that it should be sent.
    pub fn is_full(&self) -> bool {
        self.rows >= ROWS_MAX || self.bytes >= BYTES_MAX
    }

    pub fn insert(&mut self, table: &Table, id: Uuid, creation_time: f64, document: String) {
        self.count(document.len());
        if let Some(Write::Insert { table: last, ids, creation_times, documents, .. }) = self.writes.last_mut()
            && *last == table.name
        {
            ids.push(id);
            creation_times.push(creation_time);
            documents.push(document);
            return;
        }
        self.writes.push(Write::Insert {
            table: table.name.clone(),
            version: noted_version(table),
            ids: vec![id],
            creation_times: vec![creation_time],
            documents: vec![document],
        });
    }

    pub fn update(&mut self, table: &Table, sort: Rows, id: Uuid, document: String, existence: Existence) {
        self.count(document.len());
        if let Some(Write::Update { table: last, sort: last_sort, existence: last_existence, rows, ids, .. }) =
            self.writes.last_mut()
            && *last == table.name
            && *last_sort == sort
            && *last_existence == existence
            && ids.insert(id)
        {
            rows.push((id, document));
            return;
        }
        self.writes.push(Write::Update {
            table: table.name.clone(),
            version: noted_version(table),
            sort,
            existence,
            rows: vec![(id, document)],
            ids: HashSet::from([id]),
        });
    }

    pub fn unset(&mut self, table: &str, id: Uuid, fields: String, unset: Vec<String>, existence: Existence) {
        self.count(fields.len());
        self.writes.push(Write::Unset { table: table.to_owned(), id, fields, unset, existence });
    }

    pub fn delete(&mut self, table: &str, id: Uuid, existence: Existence) {
        self.count(0);
        if let Some(Write::Delete { table: last, existence: last_existence, ids }) = self.writes.last_mut()
            && last == table
            && *last_existence == existence
            && ids.insert(id)
        {
            return;
        }
        self.writes.push(Write::Delete { table: table.to_owned(), existence, ids: HashSet::from([id]) });
    }

    /// A statement of the host's own.
    pub fn other(&mut self, statement: Statement) {
        self.writes.push(Write::Other(statement));
    }

    pub fn control(&mut self, control: Control, savepoint: u32) {
        self.writes.push(Write::Control(control, savepoint));
    }

    /// Drops what was kept since this savepoint began; false where its beginning was sent already.
    pub fn drop_since(&mut self, savepoint: u32) -> bool {
        let begin = |batch: &Write| matches!(batch, Write::Control(Control::Begin, number) if *number == savepoint);
        let position = self.writes.iter().rposition(begin);
        self.writes.truncate(position.unwrap_or_default());
        position.is_some()
    }

    /// What makes the writes; leaves none.
    pub fn take(&mut self, schema: &str) -> Packet {
        let changed = self.writes.iter().flat_map(Write::changed).collect();
        self.rows = 0;
        self.bytes = 0;
        let bytes_max = self.document_bytes_max;
        let writes = std::mem::take(&mut self.writes);
        let begins = |batch: &Write| matches!(batch, Write::Control(Control::Begin, _));
        let savepoints = writes.iter().enumerate().filter(|(_, batch)| begins(batch)).map(|(number, _)| number);
        let savepoints = savepoints.collect();
        let statements = writes.into_iter().map(|batch| batch.into_statement(schema, bytes_max)).collect();
        Packet { statements, savepoints, changed }
    }

    fn count(&mut self, bytes: usize) {
        self.rows += 1;
        self.bytes += bytes;
    }
}

impl Write {
    /// The rows that are there already and are changed.
    fn changed(&self) -> Vec<Uuid> {
        match self {
            Self::Update { ids, .. } | Self::Delete { ids, .. } => ids.iter().copied().collect(),
            Self::Unset { id, .. } => vec![*id],
            Self::Insert { .. } | Self::Other(_) | Self::Control(..) => Vec::new(),
        }
    }

    fn into_statement(self, schema: &str, bytes_max: DocumentBytes) -> Statement {
        match self {
            Self::Insert { table, version, ids, creation_times, documents } => {
                convoke_sql::insert(schema, &table, ids, creation_times, documents, version)
            }
            Self::Update { table, version, sort, existence, mut rows, .. } => {
                // Rows are locked in the order of their ids, whatever the order of the calls: fewer deadlocks.
                rows.sort_unstable_by_key(|(id, _)| *id);
                let (ids, documents) = rows.into_iter().unzip();
                let target = Target { schema, table: &table, version, bytes_max };
                convoke_sql::update(target, sort, ids, documents, existence)
            }
            Self::Unset { table, id, fields, unset, existence } => {
                let target = Target { schema, table: &table, version: None, bytes_max };
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

/// The form that whole documents of a table are noted to have, where forms are noted.
fn noted_version(table: &Table) -> Option<u32> {
    (table.version > 1).then_some(table.version)
}

#[cfg(test)]
mod tests {
    use convoke_model::TableManifest;
    use serde_json::json;

    use super::*;

    fn table(name: &str) -> Table {
        let manifest: TableManifest = serde_json::from_value(json!({ "name": name })).expect("a manifest");
        Table::declared(&manifest, name)
    }

    #[test]
    fn a_savepoint_that_was_not_sent_is_forgotten() {
        let mut writes = WriteSet::new(1 << 20);
        writes.insert(&table("messages"), Uuid::nil(), 0.0, "{}".to_owned());
        writes.control(Control::Begin, 1);
        writes.insert(&table("messages"), Uuid::nil(), 0.0, "{}".to_owned());
        assert!(writes.drop_since(1));
        assert_eq!(writes.take("demo").statements.len(), 1);
        assert!(!writes.drop_since(1));
    }

    #[test]
    fn savepoints_behind_a_failure_do_not_exist() {
        let mut writes = WriteSet::new(1 << 20);
        writes.control(Control::Begin, 1);
        writes.insert(&table("messages"), Uuid::nil(), 0.0, "{}".to_owned());
        writes.control(Control::Begin, 2);
        writes.insert(&table("messages"), Uuid::nil(), 0.0, "{}".to_owned());
        let packet = writes.take("demo");
        let lost = |statement| packet.savepoints_from(statement);
        assert_eq!([0, 1, 3, 4].map(lost), [2, 1, 0, 0]);
    }

    #[test]
    fn neighbours_share_a_statement_and_keep_their_order() {
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let accounts = table("accounts");
        let mut writes = WriteSet::new(1 << 20);
        for id in [b, a] {
            writes.update(&accounts, Rows::Patch, id, "{}".to_owned(), Existence::Known);
        }
        assert_eq!(writes.take("demo").statements.len(), 1);

        writes.update(&accounts, Rows::Patch, a, "{\"n\":1}".to_owned(), Existence::Known);
        writes.update(&accounts, Rows::Patch, a, "{\"n\":2}".to_owned(), Existence::Known);
        writes.delete("accounts", a, Existence::Known);
        writes.insert(&table("messages"), b, 0.0, "{}".to_owned());
        writes.insert(&table("messages"), a, 0.0, "{}".to_owned());
        assert_eq!(writes.take("demo").statements.len(), 4, "one row is never twice in one update");
        assert!(writes.writes.is_empty());
    }
}
