//! The messages of the plugin `pgoutput`, protocol version 1: Postgres' manual, "Logical Replication Message Formats".

use bytes::{Buf, Bytes};
use thiserror::Error;

use crate::change::{Column, LogicalMessage, OldRow, Relation, ReplicaIdentity, Tuple, Value};

/// Microseconds from 1970 to 2000, where Postgres' clock begins.
pub(crate) const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;

/// Why a message of the log cannot be understood: not what the manual describes, or not what the feed asked for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    #[error("the message ends too early")]
    Truncated,
    #[error("{0} bytes are left after the message")]
    Trailing(usize),
    #[error("unknown {what} {tag:#04x}")]
    Unknown { what: &'static str, tag: u8 },
    #[error("{0} outside of a transaction")]
    OutsideTransaction(&'static str),
    #[error("a transaction begins inside another one")]
    Nested,
    #[error("a change of the relation {0}, which was never described")]
    UnknownRelation(u32),
    #[error("a row of {found} columns in the relation {relation}, which has {expected}")]
    ColumnCount { relation: u32, expected: usize, found: usize },
}

/// One message of the plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    Begin {
        xid: u32,
    },
    Commit {
        commit_lsn: u64,
        end_lsn: u64,
        commit_time_us: i64,
    },
    Relation(Relation),
    Insert {
        relation: u32,
        new: Tuple,
    },
    Update {
        relation: u32,
        old: Option<OldRow>,
        new: Tuple,
    },
    Delete {
        relation: u32,
        old: OldRow,
    },
    Truncate {
        relations: Vec<u32>,
    },
    Logical {
        transactional: bool,
        message: LogicalMessage,
    },
    /// The origin of a replicated transaction, or the name of a type: nothing that the feed needs.
    Skipped,
}

impl Message {
    /// Reads one whole message. Values share the memory of `bytes`.
    pub(crate) fn parse(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader(bytes);
        let message = reader.message()?;
        if message == Self::Skipped {
            return Ok(message);
        }
        match reader.0.len() {
            0 => Ok(message),
            left => Err(DecodeError::Trailing(left)),
        }
    }
}

struct Reader(Bytes);

impl Reader {
    fn message(&mut self) -> Result<Message, DecodeError> {
        match self.u8()? {
            b'B' => {
                let _commit_lsn = self.u64()?;
                let _commit_time = self.i64()?;
                Ok(Message::Begin { xid: self.u32()? })
            }
            b'C' => {
                let _flags = self.u8()?;
                let (commit_lsn, end_lsn) = (self.u64()?, self.u64()?);
                let commit_time_us = self.i64()?.saturating_add(POSTGRES_EPOCH_US);
                Ok(Message::Commit { commit_lsn, end_lsn, commit_time_us })
            }
            b'R' => self.relation().map(Message::Relation),
            b'I' => {
                let relation = self.u32()?;
                self.expect(b'N', "part of an insert")?;
                Ok(Message::Insert { relation, new: self.tuple()? })
            }
            b'U' => self.update(),
            b'D' => {
                let relation = self.u32()?;
                let tag = self.u8()?;
                let old = self.old_row(tag)?.ok_or(DecodeError::Unknown { what: "part of a delete", tag })?;
                Ok(Message::Delete { relation, old })
            }
            b'T' => {
                let count = self.u32()? as usize;
                let _options = self.u8()?;
                let relations = self.many(count, 4, Self::u32)?;
                Ok(Message::Truncate { relations })
            }
            b'M' => self.logical(),
            b'O' | b'Y' => Ok(Message::Skipped),
            tag => Err(DecodeError::Unknown { what: "message", tag }),
        }
    }

    fn relation(&mut self) -> Result<Relation, DecodeError> {
        let oid = self.u32()?;
        let mut schema = self.text()?;
        if schema.is_empty() {
            "pg_catalog".clone_into(&mut schema);
        }
        let name = self.text()?;
        let identity = match self.u8()? {
            b'd' => ReplicaIdentity::Default,
            b'n' => ReplicaIdentity::Nothing,
            b'f' => ReplicaIdentity::Full,
            b'i' => ReplicaIdentity::Index,
            tag => return Err(DecodeError::Unknown { what: "replica identity", tag }),
        };
        let count = self.u16()?.into();
        let columns = self.many(count, 10, |reader| {
            let key = reader.u8()? & 1 == 1;
            let name = reader.text()?;
            Ok(Column { name, key, type_oid: reader.u32()?, type_modifier: reader.i32()? })
        })?;
        Ok(Relation { oid, schema, name, identity, columns })
    }

    fn update(&mut self) -> Result<Message, DecodeError> {
        let relation = self.u32()?;
        let tag = self.u8()?;
        let old = self.old_row(tag)?;
        if old.is_some() {
            self.expect(b'N', "part of an update")?;
        } else if tag != b'N' {
            return Err(DecodeError::Unknown { what: "part of an update", tag });
        }
        Ok(Message::Update { relation, old, new: self.tuple()? })
    }

    fn old_row(&mut self, tag: u8) -> Result<Option<OldRow>, DecodeError> {
        match tag {
            b'K' => self.tuple().map(OldRow::Key).map(Some),
            b'O' => self.tuple().map(OldRow::Full).map(Some),
            _ => Ok(None),
        }
    }

    fn tuple(&mut self) -> Result<Tuple, DecodeError> {
        let count = self.u16()?.into();
        self.many(count, 1, |reader| match reader.u8()? {
            b'n' => Ok(Value::Null),
            b'u' => Ok(Value::Unchanged),
            b't' => {
                let length = reader.u32()? as usize;
                reader.bytes(length).map(Value::Text)
            }
            // Binary values come only to those who ask for them.
            tag => Err(DecodeError::Unknown { what: "kind of value", tag }),
        })
    }

    fn logical(&mut self) -> Result<Message, DecodeError> {
        let transactional = self.u8()? & 1 == 1;
        let _lsn = self.u64()?;
        let prefix = self.text()?;
        let length = self.u32()? as usize;
        let content = self.bytes(length)?;
        Ok(Message::Logical { transactional, message: LogicalMessage { prefix, content } })
    }

    /// `count` items of at least `bytes_min` each: the count comes from outside and may promise anything.
    fn many<T>(
        &mut self,
        count: usize,
        bytes_min: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        if count > self.0.len() / bytes_min {
            return Err(DecodeError::Truncated);
        }
        (0..count).map(|_| read(self)).collect()
    }

    fn expect(&mut self, wanted: u8, what: &'static str) -> Result<(), DecodeError> {
        match self.u8()? {
            tag if tag == wanted => Ok(()),
            tag => Err(DecodeError::Unknown { what, tag }),
        }
    }

    /// Up to the next NUL. A database in `SQL_ASCII` may hold names that are not UTF-8.
    fn text(&mut self) -> Result<String, DecodeError> {
        let end = self.0.iter().position(|byte| *byte == 0).ok_or(DecodeError::Truncated)?;
        let text = self.0.split_to(end);
        self.0.advance(1);
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    fn bytes(&mut self, length: usize) -> Result<Bytes, DecodeError> {
        if length > self.0.len() {
            return Err(DecodeError::Truncated);
        }
        Ok(self.0.split_to(length))
    }

    fn u8(&mut self) -> Result<u8, DecodeError> {
        self.0.try_get_u8().map_err(|_| DecodeError::Truncated)
    }

    fn u16(&mut self) -> Result<u16, DecodeError> {
        self.0.try_get_u16().map_err(|_| DecodeError::Truncated)
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        self.0.try_get_u32().map_err(|_| DecodeError::Truncated)
    }

    fn i32(&mut self) -> Result<i32, DecodeError> {
        self.0.try_get_i32().map_err(|_| DecodeError::Truncated)
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        self.0.try_get_u64().map_err(|_| DecodeError::Truncated)
    }

    fn i64(&mut self) -> Result<i64, DecodeError> {
        self.0.try_get_i64().map_err(|_| DecodeError::Truncated)
    }
}

/// What the stream wraps around the plugin's messages: the manual, "Streaming Replication Protocol".
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Envelope {
    /// A message of the plugin, and where in the log it comes from.
    Data { lsn: u64, message: Bytes },
    /// Everything before `wal_end` has been sent.
    Keepalive { wal_end: u64, reply_requested: bool },
}

impl Envelope {
    pub(crate) fn parse(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader(bytes);
        match reader.u8()? {
            b'w' => {
                let lsn = reader.u64()?;
                let _wal_end = reader.u64()?;
                let _clock = reader.i64()?;
                Ok(Self::Data { lsn, message: reader.0 })
            }
            b'k' => {
                let wal_end = reader.u64()?;
                let _clock = reader.i64()?;
                Ok(Self::Keepalive { wal_end, reply_requested: reader.u8()? == 1 })
            }
            tag => Err(DecodeError::Unknown { what: "envelope", tag }),
        }
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
