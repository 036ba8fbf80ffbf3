//! From what the log says of rows to what read sets know of documents.

use convoke_feed::{ChangeKind, OldRow, Relation, Transaction, Tuple, Value as Column};
use convoke_model::{DocumentId, Fields, Schema, Table};
use uuid::Uuid;

/// What a transaction wrote, in the order in which it did.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Written {
    pub(crate) schema: String,
    pub(crate) relation: String,
    /// None for a relation that is no table of documents.
    pub(crate) table: Option<u32>,
    pub(crate) what: What,
}

/// What happened to one row, or to all.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum What {
    Insert(Row),
    Update {
        old_id: Option<Uuid>,
        row: Row,
    },
    Delete(Uuid),
    /// Any row may have changed.
    All,
}

/// A row as it is now.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    pub(crate) id: Uuid,
    pub(crate) creation_time: f64,
    /// Whether the document is of the newest form of its table.
    pub(crate) is_newest: bool,
    /// None where the log does not repeat what was left alone.
    pub(crate) data: Option<Fields>,
}

/// Reads a transaction of the feed.
pub(crate) fn written(transaction: &Transaction, project: &str, schema: &Schema) -> Vec<Written> {
    let changes = transaction.changes.iter();
    changes
        .map(|change| {
            let relation = &*change.relation;
            let table =
                schema.tables.get(&relation.name).filter(|table| relation.schema == project && table.is_managed());
            let what = match table {
                None => What::All,
                // What cannot be read may be anything.
                Some(table) => what(table, relation, &change.kind).unwrap_or(What::All),
            };
            Written {
                schema: relation.schema.clone(),
                relation: relation.name.clone(),
                table: table.map(|table| table.number),
                what,
            }
        })
        .collect()
}

fn what(table: &Table, relation: &Relation, kind: &ChangeKind) -> Option<What> {
    Some(match kind {
        ChangeKind::Insert { new } => What::Insert(row(table, relation, new)?),
        ChangeKind::Update { old, new } => {
            let old_id = old.as_ref().and_then(|old| id(relation, tuple(old)));
            What::Update { old_id, row: row(table, relation, new)? }
        }
        ChangeKind::Delete { old } => What::Delete(id(relation, tuple(old))?),
        ChangeKind::Truncate | ChangeKind::Unlisted => What::All,
    })
}

fn tuple(old: &OldRow) -> &Tuple {
    match old {
        OldRow::Key(tuple) | OldRow::Full(tuple) => tuple,
    }
}

fn column<'a>(relation: &Relation, tuple: &'a Tuple, name: &str) -> Option<&'a Column> {
    let position = relation.columns.iter().position(|column| column.name == name)?;
    tuple.get(position)
}

fn text<'a>(relation: &Relation, tuple: &'a Tuple, name: &str) -> Option<&'a str> {
    match column(relation, tuple, name)? {
        Column::Text(bytes) => std::str::from_utf8(bytes).ok(),
        Column::Null | Column::Unchanged => None,
    }
}

fn id(relation: &Relation, tuple: &Tuple) -> Option<Uuid> {
    text(relation, tuple, "_id")?.parse().ok()
}

fn row(table: &Table, relation: &Relation, tuple: &Tuple) -> Option<Row> {
    let data = match column(relation, tuple, "data")? {
        Column::Unchanged => None,
        _ => Some(Fields::parse(text(relation, tuple, "data")?).ok()?),
    };
    let version = || text(relation, tuple, "_version")?.parse::<u32>().ok();
    Some(Row {
        id: id(relation, tuple)?,
        creation_time: text(relation, tuple, "_creation_time")?.parse().ok()?,
        is_newest: table.version == 1 || version().is_some_and(|version| version >= table.version),
        data,
    })
}

impl Written {
    /// Memory that it takes, roughly.
    pub(crate) fn bytes(&self) -> usize {
        let data = match &self.what {
            What::Insert(row) | What::Update { row, .. } => row.data.as_ref().map_or(0, Fields::bytes),
            What::Delete(_) | What::All => 0,
        };
        size_of::<Self>() + self.schema.len() + self.relation.len() + data
    }

    /// For the log: the document or the relation that was written.
    pub(crate) fn subject(&self) -> String {
        let id = match &self.what {
            What::Insert(row) | What::Update { row, .. } => Some(row.id),
            What::Delete(id) => Some(*id),
            What::All => None,
        };
        match (self.table, id) {
            (Some(table), Some(uuid)) => format!("{} {}", self.relation, DocumentId { table, uuid }),
            _ => format!("{}.{}", self.schema, self.relation),
        }
    }
}
