//! What Convex' types write, ours read, and what ours write of it, theirs read with the same meaning.

use convex_sync_types::types::SerializedArgs;
use convex_sync_types::{AuthenticationToken, ClientMessage as Theirs, QuerySetModification as TheirModification};
use convoke_convex::{ClientMessage, QuerySetModification, Timestamp, Token};
use proptest::prelude::*;
use serde_json::Value;

use crate::cases;

fn text_of(theirs: &Theirs) -> String {
    Value::try_from(theirs.clone()).expect("their messages are JSON").to_string()
}

fn read_by_them(text: &str) -> Theirs {
    let value: Value = serde_json::from_str(text).expect("ours is JSON");
    Theirs::try_from(value).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Without the differences that mean nothing: an absent journal and a null one, an absent token and a null one, the
/// spelling of arguments.
fn normal(mut message: Theirs) -> Theirs {
    let plain = |args: &mut SerializedArgs| {
        let value: Value = serde_json::from_str(args.get()).expect("arguments are JSON");
        *args = SerializedArgs::from_slice(value.to_string().as_bytes()).expect("arguments are JSON");
    };
    match &mut message {
        Theirs::ModifyQuerySet { modifications, .. } => {
            for modification in modifications {
                if let TheirModification::Add(query) = modification {
                    query.journal = query.journal.take().flatten().map(Some);
                    plain(&mut query.args);
                }
            }
        }
        Theirs::Mutation { args, .. } | Theirs::Action { args, .. } => plain(args),
        Theirs::Authenticate { token: AuthenticationToken::Admin(_, Some(user)), .. } => {
            // Claims are kept as texts of JSON, which have many spellings.
            for claim in user.custom_claims.values_mut() {
                let value: Value = serde_json::from_str(claim).expect("a claim is JSON");
                *claim = value.to_string();
            }
        }
        _ => {}
    }
    message
}

/// Members one by one, so that nothing hangs on how ours are written.
fn assert_same(theirs: &Theirs, ours: &ClientMessage) {
    match (theirs, ours) {
        (
            Theirs::Connect { session_id, connection_count, last_close_reason, max_observed_timestamp, client_ts },
            ClientMessage::Connect(connect),
        ) => {
            assert_eq!(session_id.as_u128(), connect.session_id.as_u128());
            assert_eq!(*connection_count, connect.connection_count);
            assert_eq!(Some(last_close_reason), connect.last_close_reason.as_ref());
            assert_eq!(max_observed_timestamp.map(u64::from), connect.max_observed_timestamp.map(Timestamp::nanos));
            assert_eq!(client_ts.map(u64::cast_signed), connect.client_ts);
        }
        (
            Theirs::ModifyQuerySet { base_version, new_version, modifications },
            ClientMessage::ModifyQuerySet { base_version: base, new_version: new, modifications: ours },
        ) => {
            assert_eq!((base_version, new_version), (base, new));
            assert_eq!(modifications.len(), ours.len());
            modifications.iter().zip(ours).for_each(|(theirs, ours)| assert_same_modification(theirs, ours));
        }
        (
            Theirs::Mutation { request_id, udf_path, args, component_path },
            ClientMessage::Mutation { request_id: id, udf_path: path, args: text, component_path: component },
        )
        | (
            Theirs::Action { request_id, udf_path, args, component_path },
            ClientMessage::Action { request_id: id, udf_path: path, args: text, component_path: component },
        ) => {
            assert_eq!((request_id, &udf_path.to_string(), component_path), (id, path, component));
            assert_eq!(args.get(), text.get());
        }
        (
            Theirs::Authenticate { base_version, token },
            ClientMessage::Authenticate { base_version: base, token: ours },
        ) => {
            assert_eq!(base_version, base);
            match (token, ours) {
                (AuthenticationToken::Admin(key, user), Token::Admin { key: ours, acting_as }) => {
                    assert_eq!((key, user.is_some()), (ours, acting_as.is_some()));
                }
                (AuthenticationToken::User(jwt), Token::User { jwt: ours }) => assert_eq!(jwt, ours),
                (AuthenticationToken::None, Token::None) => {}
                other => panic!("{other:?}"),
            }
        }
        (Theirs::Event(event), ClientMessage::Event { event_type, event: ours }) => {
            assert_eq!(&event.event_type, event_type);
            let ours: Option<Value> = ours.as_ref().map(|ours| serde_json::from_str(ours.get()).expect("JSON"));
            assert_eq!(event.event, ours.unwrap_or_default());
        }
        other => panic!("{other:?}"),
    }
}

fn assert_same_modification(theirs: &TheirModification, ours: &QuerySetModification) {
    match (theirs, ours) {
        (TheirModification::Add(theirs), QuerySetModification::Add(ours)) => {
            assert_eq!(theirs.query_id.get_id(), ours.query_id);
            assert_eq!(theirs.udf_path.to_string(), ours.udf_path);
            assert_eq!(theirs.args.get(), ours.args.get());
            assert_eq!(theirs.journal.clone().flatten(), ours.journal);
            assert_eq!(theirs.component_path, ours.component_path);
        }
        (TheirModification::Remove { query_id: theirs }, QuerySetModification::Remove { query_id }) => {
            assert_eq!(theirs.get_id(), *query_id);
        }
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(cases::of_clients())]

    #[test]
    fn their_messages_are_read_and_written_by_ours(theirs: Theirs) {
        let text = text_of(&theirs);
        let ours = ClientMessage::parse(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert_same(&theirs, &ours);
        let again = serde_json::to_string(&ours).expect("ours are JSON");
        prop_assert_eq!(normal(read_by_them(&again)), normal(read_by_them(&text)));
    }
}
