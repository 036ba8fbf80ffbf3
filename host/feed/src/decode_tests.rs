use bytes::{BufMut, BytesMut};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

/// Writes a message as the manual describes it.
fn encode(message: &Message) -> Bytes {
    let mut out = BytesMut::new();
    match message {
        Message::Begin { xid } => {
            out.put_u8(b'B');
            out.put_u64(7);
            out.put_i64(8);
            out.put_u32(*xid);
        }
        Message::Commit { commit_lsn, end_lsn, commit_time_us } => {
            out.put_slice(b"C\0");
            out.put_u64(*commit_lsn);
            out.put_u64(*end_lsn);
            out.put_i64(commit_time_us - POSTGRES_EPOCH_US);
        }
        Message::Relation(relation) => put_relation(&mut out, relation),
        Message::Insert { relation, new } => {
            out.put_u8(b'I');
            out.put_u32(*relation);
            put_tuple(&mut out, b'N', new);
        }
        Message::Update { relation, old, new } => {
            out.put_u8(b'U');
            out.put_u32(*relation);
            if let Some(old) = old {
                put_old(&mut out, old);
            }
            put_tuple(&mut out, b'N', new);
        }
        Message::Delete { relation, old } => {
            out.put_u8(b'D');
            out.put_u32(*relation);
            put_old(&mut out, old);
        }
        Message::Truncate { relations } => {
            out.put_u8(b'T');
            out.put_u32(relations.len() as u32);
            out.put_u8(3);
            for oid in relations {
                out.put_u32(*oid);
            }
        }
        Message::Logical { transactional, message } => {
            out.put_u8(b'M');
            out.put_u8((*transactional).into());
            out.put_u64(9);
            put_text(&mut out, &message.prefix);
            out.put_u32(message.content.len() as u32);
            out.put_slice(&message.content);
        }
        Message::Skipped => {
            out.put_u8(b'O');
            out.put_u64(1);
            put_text(&mut out, "origin");
        }
    }
    out.freeze()
}

fn put_relation(out: &mut BytesMut, relation: &Relation) {
    out.put_u8(b'R');
    out.put_u32(relation.oid);
    put_text(out, &relation.schema);
    put_text(out, &relation.name);
    out.put_u8(match relation.identity {
        ReplicaIdentity::Default => b'd',
        ReplicaIdentity::Nothing => b'n',
        ReplicaIdentity::Full => b'f',
        ReplicaIdentity::Index => b'i',
    });
    out.put_u16(relation.columns.len() as u16);
    for column in &relation.columns {
        out.put_u8(column.key.into());
        put_text(out, &column.name);
        out.put_u32(column.type_oid);
        out.put_i32(column.type_modifier);
    }
}

fn put_old(out: &mut BytesMut, old: &OldRow) {
    match old {
        OldRow::Key(row) => put_tuple(out, b'K', row),
        OldRow::Full(row) => put_tuple(out, b'O', row),
    }
}

fn put_tuple(out: &mut BytesMut, tag: u8, row: &Tuple) {
    out.put_u8(tag);
    out.put_u16(row.len() as u16);
    for value in row {
        match value {
            Value::Null => out.put_u8(b'n'),
            Value::Unchanged => out.put_u8(b'u'),
            Value::Text(text) => {
                out.put_u8(b't');
                out.put_u32(text.len() as u32);
                out.put_slice(text);
            }
        }
    }
}

fn put_text(out: &mut BytesMut, text: &str) {
    out.put_slice(text.as_bytes());
    out.put_u8(0);
}

fn content() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn name() -> impl Strategy<Value = String> {
    "[^\0]{1,12}"
}

fn row() -> impl Strategy<Value = Tuple> {
    vec(prop_oneof![Just(Value::Null), Just(Value::Unchanged), content().prop_map(Value::Text)], 0..6)
}

fn old_row() -> impl Strategy<Value = OldRow> {
    prop_oneof![row().prop_map(OldRow::Key), row().prop_map(OldRow::Full)]
}

fn relation() -> impl Strategy<Value = Relation> {
    let identity = prop_oneof![
        Just(ReplicaIdentity::Default),
        Just(ReplicaIdentity::Nothing),
        Just(ReplicaIdentity::Full),
        Just(ReplicaIdentity::Index)
    ];
    let column = (name(), any::<bool>(), any::<u32>(), any::<i32>())
        .prop_map(|(name, key, type_oid, type_modifier)| Column { name, key, type_oid, type_modifier });
    (any::<u32>(), name(), name(), identity, vec(column, 0..6))
        .prop_map(|(oid, schema, name, identity, columns)| Relation { oid, schema, name, identity, columns })
}

fn message() -> impl Strategy<Value = Message> {
    let commit_time_us = POSTGRES_EPOCH_US..i64::MAX;
    let logical = (any::<bool>(), name(), content()).prop_map(|(transactional, prefix, content)| Message::Logical {
        transactional,
        message: LogicalMessage { prefix, content },
    });
    prop_oneof![
        any::<u32>().prop_map(|xid| Message::Begin { xid }),
        (any::<u64>(), any::<u64>(), commit_time_us)
            .prop_map(|(commit_lsn, end_lsn, commit_time_us)| Message::Commit { commit_lsn, end_lsn, commit_time_us }),
        relation().prop_map(Message::Relation),
        (any::<u32>(), row()).prop_map(|(relation, new)| Message::Insert { relation, new }),
        (any::<u32>(), option::of(old_row()), row()).prop_map(|(relation, old, new)| Message::Update {
            relation,
            old,
            new
        }),
        (any::<u32>(), old_row()).prop_map(|(relation, old)| Message::Delete { relation, old }),
        vec(any::<u32>(), 0..6).prop_map(|relations| Message::Truncate { relations }),
        logical,
        Just(Message::Skipped),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read(message in message()) {
        prop_assert_eq!(Message::parse(encode(&message)), Ok(message));
    }

    #[test]
    fn every_shorter_message_is_refused(message in message()) {
        prop_assume!(message != Message::Skipped);
        let whole = encode(&message);
        for length in 0..whole.len() {
            prop_assert!(Message::parse(whole.slice(..length)).is_err(), "{} of {} bytes", length, whole.len());
        }
    }

    #[test]
    fn a_longer_message_is_refused(message in message()) {
        prop_assume!(message != Message::Skipped);
        let mut bytes = BytesMut::from(encode(&message));
        bytes.put_u8(0);
        prop_assert_eq!(Message::parse(bytes.freeze()), Err(DecodeError::Trailing(1)));
    }

    #[test]
    fn noise_never_panics(tag in prop_oneof![any::<u8>(), prop::sample::select(&b"BCRIUDTMOYwk"[..])], rest in content()) {
        let mut bytes = BytesMut::from(&[tag][..]);
        bytes.put_slice(&rest);
        let bytes = bytes.freeze();
        let _ = Message::parse(bytes.clone());
        let _ = Envelope::parse(bytes);
    }
}

#[test]
fn a_count_that_promises_too_much_allocates_nothing() {
    assert_eq!(Message::parse(Bytes::from_static(b"T\xff\xff\xff\xff\0")), Err(DecodeError::Truncated));
    assert_eq!(Message::parse(Bytes::from_static(b"I\0\0\0\x01N\xff\xff")), Err(DecodeError::Truncated));
}

#[test]
fn envelopes_are_opened() {
    let mut data = BytesMut::from(&b"w"[..]);
    data.put_u64(5);
    data.put_u64(6);
    data.put_i64(0);
    data.put_slice(b"rest");
    let message = Bytes::from_static(b"rest");
    assert_eq!(Envelope::parse(data.freeze()), Ok(Envelope::Data { lsn: 5, message }));

    let mut keepalive = BytesMut::from(&b"k"[..]);
    keepalive.put_u64(6);
    keepalive.put_i64(0);
    keepalive.put_u8(1);
    assert_eq!(Envelope::parse(keepalive.freeze()), Ok(Envelope::Keepalive { wal_end: 6, reply_requested: true }));
}
