//! What ours write, Convex' types read with the same meaning.

use convex_sync_types::{ErrorPayload, LogLinesMessage, ServerMessage as Theirs, StateModification, StateVersion};
use convoke_convex::{
    Committed, Encoded, FunctionError, Modification, QueryResult, ServerMessage, StateVersion as OurVersion, Timestamp,
};
use proptest::prelude::*;
use serde_json::Value;

use crate::cases;

/// Any JSON in a value's place.
#[derive(Debug, Clone, PartialEq)]
struct Any(Value);

impl TryFrom<Value> for Any {
    type Error = anyhow::Error;

    fn try_from(value: Value) -> anyhow::Result<Self> {
        Ok(Self(value))
    }
}

impl Arbitrary for Any {
    type Parameters = ();
    type Strategy = BoxedStrategy<Self>;

    fn arbitrary_with((): ()) -> BoxedStrategy<Self> {
        // Integers that a float holds: others are written as `$integer`, which is not their `Any`'s business.
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-1_i64 << 50..1 << 50).prop_map(Value::from),
            any::<f64>().prop_filter("JSON has finite numbers", |float| float.is_finite()).prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        let nested = leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        });
        nested.prop_map(Self).boxed()
    }
}

fn encoded(Any(value): &Any) -> Encoded {
    Encoded::from_clean(value.to_string())
}

fn timestamp(theirs: convex_sync_types::Timestamp) -> Timestamp {
    Timestamp::from_nanos(theirs.into()).expect("their bounds are ours")
}

fn version(theirs: StateVersion) -> OurVersion {
    OurVersion { query_set: theirs.query_set, identity: theirs.identity, ts: timestamp(theirs.ts) }
}

fn error(payload: &ErrorPayload<Any>) -> FunctionError {
    FunctionError { message: payload.get_message().to_owned(), data: payload.get_data().map(encoded) }
}

/// One of theirs, said by ours.
fn said_by_us(theirs: &Theirs<Any>) -> String {
    match theirs {
        Theirs::Transition { start_version, end_version, modifications, client_clock_skew, server_ts } => {
            let results: Vec<_> = modifications.iter().map(result).collect();
            let ours: Vec<_> = results
                .iter()
                .map(|(id, result)| match result {
                    Some(result) => Modification::Result { query_id: *id, result },
                    None => Modification::Removed { query_id: *id },
                })
                .collect();
            ServerMessage::Transition {
                start: version(*start_version),
                end: version(*end_version),
                modifications: &ours,
                client_clock_skew: *client_clock_skew,
                server_ts: server_ts.map(timestamp),
            }
            .to_text()
        }
        Theirs::TransitionChunk { chunk, part_number, total_parts, transition_id } => ServerMessage::TransitionChunk {
            chunk,
            part_number: *part_number as usize,
            parts: *total_parts as usize,
            transition_id,
        }
        .to_text(),
        Theirs::MutationResponse { request_id, result, ts, log_lines: LogLinesMessage(log_lines) } => {
            let result = match (result, ts) {
                (Ok(value), Some(ts)) => Ok(Committed { value: encoded(value), ts: timestamp(*ts) }),
                (Err(payload), None) => Err(error(payload)),
                // A success has a timestamp, a failure has none: their type does not say so, ours does.
                _ => panic!("{theirs:?}"),
            };
            ServerMessage::MutationResponse { request_id: *request_id, result: result.as_ref(), log_lines }.to_text()
        }
        Theirs::ActionResponse { request_id, result, log_lines: LogLinesMessage(log_lines) } => {
            let result = result.as_ref().map(encoded).map_err(error);
            ServerMessage::ActionResponse { request_id: *request_id, result: result.as_ref(), log_lines }.to_text()
        }
        Theirs::AuthError { error_message, base_version, auth_update_attempted } => ServerMessage::AuthError {
            error: error_message,
            base_version: base_version.expect("ours always say it"),
            update_attempted: auth_update_attempted.expect("ours always say it"),
        }
        .to_text(),
        Theirs::FatalError { error_message } => ServerMessage::FatalError { error: error_message }.to_text(),
        Theirs::Ping => ServerMessage::Ping.to_text(),
    }
}

fn result(theirs: &StateModification<Any>) -> (u32, Option<QueryResult>) {
    match theirs {
        StateModification::QueryUpdated { query_id, value, log_lines, journal } => {
            (query_id.get_id(), Some(QueryResult::updated(&encoded(value), &log_lines.0, journal.as_deref())))
        }
        StateModification::QueryFailed { query_id, error_message, log_lines, journal, error_data } => {
            let error = FunctionError { message: error_message.clone(), data: error_data.as_ref().map(encoded) };
            (query_id.get_id(), Some(QueryResult::failed(&error, &log_lines.0, journal.as_deref())))
        }
        StateModification::QueryRemoved { query_id } => (query_id.get_id(), None),
    }
}

/// What theirs may leave out and ours never does.
fn complete(mut theirs: Theirs<Any>) -> Theirs<Any> {
    match &mut theirs {
        Theirs::MutationResponse { result, ts, .. } => {
            *ts = result.is_ok().then(|| ts.unwrap_or_default());
        }
        Theirs::AuthError { base_version, auth_update_attempted, .. } => {
            base_version.get_or_insert_default();
            auth_update_attempted.get_or_insert_default();
        }
        _ => {}
    }
    theirs
}

proptest! {
    #![proptest_config(cases::of_the_server())]

    #[test]
    fn our_messages_are_read_by_theirs(theirs: Theirs<Any>) {
        let theirs = complete(theirs);
        let text = said_by_us(&theirs);
        let value: Value = serde_json::from_str(&text).expect("ours is JSON");
        let read = Theirs::<Any>::try_from(value).unwrap_or_else(|error| panic!("{error}: {text}"));
        prop_assert_eq!(read, theirs);
    }
}
