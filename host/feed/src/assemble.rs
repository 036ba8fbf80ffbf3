//! From single messages to whole transactions.

use std::collections::HashMap;
use std::mem::{size_of, take};
use std::sync::Arc;

use crate::change::{Change, ChangeKind, LogicalMessage, OldRow, Relation, Transaction, Tuple, Value};
use crate::decode::{DecodeError, Message};

/// Collects the messages of one connection; made anew with each, as the server describes every relation again.
#[derive(Debug)]
pub(crate) struct Assembler {
    relations: HashMap<u32, Arc<Relation>>,
    open: Option<Open>,
    transaction_bytes_max: usize,
}

/// The transaction that is being received.
#[derive(Debug, Default)]
struct Open {
    xid: u32,
    changes: Vec<Change>,
    messages: Vec<LogicalMessage>,
    bytes: usize,
    /// Whether changes are no longer listed.
    collapsed: bool,
}

/// A transaction, and roughly what it takes in memory.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Assembled {
    pub(crate) transaction: Transaction,
    pub(crate) bytes: usize,
}

/// Why a message cannot be added.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum AssembleError {
    Decode(DecodeError),
    /// Even without its rows, the transaction takes more than it may.
    TooLarge,
}

impl From<DecodeError> for AssembleError {
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}

impl Assembler {
    pub(crate) fn new(transaction_bytes_max: usize) -> Self {
        Self { relations: HashMap::new(), open: None, transaction_bytes_max }
    }

    /// Whether the beginning of a transaction has been received, and not yet its end.
    pub(crate) fn is_inside_transaction(&self) -> bool {
        self.open.is_some()
    }

    /// Adds a message that took `bytes`. Gives the transaction when the message ends one.
    pub(crate) fn add(&mut self, message: Message, bytes: usize) -> Result<Option<Assembled>, AssembleError> {
        match message {
            Message::Begin { .. } if self.open.is_some() => return Err(DecodeError::Nested.into()),
            Message::Begin { xid } => self.open = Some(Open { xid, ..Open::default() }),
            Message::Commit { commit_lsn, end_lsn, commit_time_us } => {
                let open = self.open.take().ok_or(DecodeError::OutsideTransaction("a commit"))?;
                let Open { xid, changes, messages, bytes, .. } = open;
                let transaction = Transaction { xid, commit_lsn, end_lsn, commit_time_us, changes, messages };
                return Ok(Some(Assembled { transaction, bytes }));
            }
            Message::Relation(relation) => self.describe(relation),
            Message::Insert { relation, new } => {
                let relation = self.relation_of(relation, &[&new])?;
                self.change(relation, ChangeKind::Insert { new }, bytes)?;
            }
            Message::Update { relation, old, new } => {
                let relation = match &old {
                    Some(old) => self.relation_of(relation, &[row_of(old), &new])?,
                    None => self.relation_of(relation, &[&new])?,
                };
                self.change(relation, ChangeKind::Update { old, new }, bytes)?;
            }
            Message::Delete { relation, old } => {
                let relation = self.relation_of(relation, &[row_of(&old)])?;
                self.change(relation, ChangeKind::Delete { old }, bytes)?;
            }
            Message::Truncate { relations } => {
                for relation in relations {
                    let relation = self.relation_of(relation, &[])?;
                    self.change(relation, ChangeKind::Truncate, 0)?;
                }
            }
            // One outside of a transaction belongs to none: it may even come from one that is rolled back.
            Message::Logical { transactional: true, message } => self.message(message, bytes)?,
            Message::Logical { .. } | Message::Skipped => {}
        }
        Ok(None)
    }

    fn describe(&mut self, relation: Relation) {
        // The server repeats itself now and then; rows of the same table then go on sharing one description.
        if self.relations.get(&relation.oid).is_none_or(|known| **known != relation) {
            self.relations.insert(relation.oid, Arc::new(relation));
        }
    }

    fn relation_of(&self, oid: u32, rows: &[&Tuple]) -> Result<Arc<Relation>, DecodeError> {
        let relation = self.relations.get(&oid).ok_or(DecodeError::UnknownRelation(oid))?;
        let expected = relation.columns.len();
        match rows.iter().map(|row| row.len()).find(|found| *found != expected) {
            Some(found) => Err(DecodeError::ColumnCount { relation: oid, expected, found }),
            None => Ok(relation.clone()),
        }
    }

    fn change(&mut self, relation: Arc<Relation>, kind: ChangeKind, bytes: usize) -> Result<(), AssembleError> {
        let open = self.open.as_mut().ok_or(DecodeError::OutsideTransaction("a change"))?;
        if open.collapsed {
            open.unlisted(relation);
            return Ok(());
        }
        open.bytes += bytes + size_of::<Change>() + relation.columns.len() * size_of::<Value>();
        open.changes.push(Change { relation, kind });
        if open.bytes > self.transaction_bytes_max {
            open.collapse();
        }
        Ok(())
    }

    fn message(&mut self, message: LogicalMessage, bytes: usize) -> Result<(), AssembleError> {
        let open = self.open.as_mut().ok_or(DecodeError::OutsideTransaction("a message"))?;
        open.bytes += bytes + size_of::<LogicalMessage>();
        open.messages.push(message);
        if open.bytes > self.transaction_bytes_max {
            open.collapse();
        }
        if open.bytes > self.transaction_bytes_max { Err(AssembleError::TooLarge) } else { Ok(()) }
    }
}

impl Open {
    /// Forgets rows and keeps tables.
    fn collapse(&mut self) {
        self.collapsed = true;
        for change in take(&mut self.changes) {
            self.unlisted(change.relation);
        }
        self.bytes = self.changes.len() * size_of::<Change>()
            + self.messages.iter().map(|message| message.content.len() + size_of::<LogicalMessage>()).sum::<usize>();
    }

    /// Few: one for every table of the transaction, and for every shape that it had.
    fn unlisted(&mut self, relation: Arc<Relation>) {
        if !self.changes.iter().any(|change| Arc::ptr_eq(&change.relation, &relation)) {
            self.changes.push(Change { relation, kind: ChangeKind::Unlisted });
        }
    }
}

fn row_of(old: &OldRow) -> &Tuple {
    match old {
        OldRow::Key(row) | OldRow::Full(row) => row,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::change::{Column, ReplicaIdentity};

    fn relation(oid: u32, columns: &[&str]) -> Message {
        let column = |name: &&str| Column { name: (*name).to_owned(), key: false, type_oid: 25, type_modifier: -1 };
        let (schema, name) = ("s".to_owned(), format!("t{oid}"));
        let identity = ReplicaIdentity::Default;
        Message::Relation(Relation { oid, schema, name, identity, columns: columns.iter().map(column).collect() })
    }

    fn row(values: &[&'static str]) -> Tuple {
        values.iter().map(|value| Value::Text(Bytes::from_static(value.as_bytes()))).collect()
    }

    fn insert(relation: u32, values: &[&'static str]) -> Message {
        Message::Insert { relation, new: row(values) }
    }

    const COMMIT: Message = Message::Commit { commit_lsn: 1, end_lsn: 2, commit_time_us: 3 };

    fn all(assembler: &mut Assembler, messages: Vec<Message>) -> Result<Vec<Transaction>, AssembleError> {
        let mut transactions = Vec::new();
        for message in messages {
            transactions.extend(assembler.add(message, 100)?.map(|assembled| assembled.transaction));
        }
        Ok(transactions)
    }

    #[test]
    fn a_new_shape_replaces_the_old_one() {
        let mut assembler = Assembler::new(1 << 20);
        let messages = vec![
            Message::Begin { xid: 5 },
            relation(1, &["a"]),
            insert(1, &["x"]),
            relation(1, &["a"]),
            insert(1, &["y"]),
            relation(1, &["a", "b"]),
            insert(1, &["x", "y"]),
            COMMIT,
        ];
        let transactions = all(&mut assembler, messages).expect("a transaction");
        let changes = &transactions[0].changes;
        assert_eq!(transactions[0].xid, 5);
        assert!(Arc::ptr_eq(&changes[0].relation, &changes[1].relation));
        assert_eq!(changes[2].relation.columns.len(), 2);
        assert!(!assembler.is_inside_transaction());
        let old_shape = all(&mut assembler, vec![Message::Begin { xid: 6 }, insert(1, &["x"])]);
        let expected = DecodeError::ColumnCount { relation: 1, expected: 2, found: 1 };
        assert_eq!(old_shape, Err(expected.into()));
    }

    #[test]
    fn too_many_rows_leave_their_tables() {
        let mut assembler = Assembler::new(2000);
        let mut messages = vec![Message::Begin { xid: 5 }, relation(1, &["a"]), relation(2, &["a"])];
        messages.push(insert(2, &["x"]));
        messages.extend((0..50).map(|_| insert(1, &["x"])));
        messages.push(COMMIT);
        messages.extend([Message::Begin { xid: 6 }, insert(1, &["x"]), COMMIT]);
        let transactions = all(&mut assembler, messages).expect("two transactions");
        let of_first: Vec<_> = transactions[0].changes.iter().map(|c| (c.relation.oid, c.kind.clone())).collect();
        assert_eq!(of_first, [(2, ChangeKind::Unlisted), (1, ChangeKind::Unlisted)]);
        assert_eq!(transactions[1].changes[0].kind, ChangeKind::Insert { new: row(&["x"]) });
    }

    #[test]
    fn messages_cannot_be_left_out() {
        let message = || LogicalMessage { prefix: "p".to_owned(), content: Bytes::from(vec![0; 600]) };
        let logical = |transactional| Message::Logical { transactional, message: message() };
        let mut assembler = Assembler::new(2000);
        let messages = vec![Message::Begin { xid: 5 }, logical(true), logical(false), logical(true), COMMIT];
        let transactions = all(&mut assembler, messages).expect("a transaction");
        assert_eq!(transactions[0].messages, [message(), message()]);
        let many = vec![Message::Begin { xid: 5 }, logical(true), logical(true), logical(true), logical(true)];
        assert_eq!(all(&mut Assembler::new(500), many), Err(AssembleError::TooLarge));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let refused = |messages| all(&mut Assembler::new(1 << 20), messages).expect_err("refused");
        assert_eq!(refused(vec![COMMIT]), DecodeError::OutsideTransaction("a commit").into());
        let begin = || Message::Begin { xid: 1 };
        assert_eq!(refused(vec![begin(), begin()]), DecodeError::Nested.into());
        assert_eq!(refused(vec![begin(), insert(1, &["x"])]), DecodeError::UnknownRelation(1).into());
        let outside = refused(vec![relation(1, &["a"]), insert(1, &["x"])]);
        assert_eq!(outside, DecodeError::OutsideTransaction("a change").into());
    }
}
