//! Each rule of a socket's conversation, by itself.

use convoke_convex::{
    ACTIONS_MAX, CALLS_BYTES_MAX, CHUNK_BYTES_MAX, ClientVersion, Command, Committed, Encoded, FunctionError,
    MUTATIONS_WAITING_MAX, Misuse, ProtocolError, QUERIES_BYTES_MAX, QUERIES_MAX, QueryId, QueryResult, Session,
    Timestamp, Token,
};
use serde_json::{Value, json};

const CONNECT: &str = r#"{"type":"Connect","sessionId":"3b9f3c9e-6d0f-4a6e-8f0e-0f3c1f8f2a11","connectionCount":0,"lastCloseReason":null}"#;

fn ts(nanos: u64) -> Timestamp {
    Timestamp::from_nanos(nanos).expect("in bounds")
}

fn value(text: &str) -> QueryResult {
    QueryResult::updated(&Encoded::from_clean(text.to_owned()), &[], None)
}

fn connected() -> Session {
    connected_as(ClientVersion::from_path_segment("1.48.0"))
}

fn connected_as(client: ClientVersion) -> Session {
    let mut session = Session::new(client);
    session.receive(CONNECT, 0).expect("`Connect` comes first");
    session
}

fn say(session: &mut Session, message: &Value) -> Result<Vec<Command>, ProtocolError> {
    session.receive(&message.to_string(), 7)
}

fn add(id: QueryId) -> Value {
    json!({ "type": "Add", "queryId": id, "udfPath": "messages:list", "args": [{}] })
}

fn remove(id: QueryId) -> Value {
    json!({ "type": "Remove", "queryId": id })
}

fn modify(session: &mut Session, base: u32, modifications: &[Value]) -> Result<Vec<Command>, ProtocolError> {
    let message = json!({
        "type": "ModifyQuerySet", "baseVersion": base, "newVersion": base + 1, "modifications": modifications,
    });
    say(session, &message)
}

fn mutation(id: u32) -> Value {
    json!({ "type": "Mutation", "requestId": id, "udfPath": "messages:send", "args": [{}] })
}

fn committed(at: u64) -> Committed {
    Committed { value: Encoded::null(), ts: ts(at) }
}

/// Begins and ends a transition.
fn transition(session: &mut Session, at: u64, results: &[(QueryId, &QueryResult)]) -> Result<Value, Misuse> {
    session.begin_transition()?;
    let frames = session.finish_transition(ts(at), results.iter().copied(), None)?;
    assert_eq!(frames.len(), 1);
    Ok(serde_json::from_str(&frames[0]).expect("JSON"))
}

#[test]
fn connect_comes_first_and_once() {
    let mut session = Session::new(ClientVersion::default());
    let early = modify(&mut session, 0, &[]);
    assert_eq!(early.expect_err("no `Connect`"), ProtocolError::NotConnected("ModifyQuerySet"));
    session.receive(CONNECT, 0).expect("now it does");
    assert_eq!(session.receive(CONNECT, 0).expect_err("twice"), ProtocolError::ConnectedTwice);
    assert!(!session.needs_transition());
}

#[test]
fn connect_tells_what_the_client_has_seen() {
    let mut session = Session::new(ClientVersion::default());
    let connect = json!({
        "type": "Connect", "sessionId": "3b9f3c9e-6d0f-4a6e-8f0e-0f3c1f8f2a11", "connectionCount": 2,
        "lastCloseReason": "InactiveServer", "maxObservedTimestamp": "AQAAAAAAAAA=", "clientTs": 1_000,
    });
    let commands = session.receive(&connect.to_string(), 1_012).expect("a `Connect`");
    let [Command::Connected { connection_count: 2, last_close_reason: Some(reason), max_observed, .. }] = &commands[..]
    else {
        panic!("{commands:?}")
    };
    assert_eq!((reason.as_str(), *max_observed), ("InactiveServer", Some(ts(1))));
    let empty = transition(&mut session, 5, &[]).expect("an empty transition");
    assert_eq!(empty["clientClockSkew"], -12);
    let close = ProtocolError::AheadOfServer { observed: ts(9), latest: ts(5) }.close();
    assert!(close.message.expect("words").contains("FatalError"));
}

#[test]
fn a_clock_of_zero_is_none() {
    let mut session = Session::new(ClientVersion::from_header("rust-0.10.4"));
    let connect = json!({
        "type": "Connect", "sessionId": "3b9f3c9e-6d0f-4a6e-8f0e-0f3c1f8f2a11", "connectionCount": 0, "clientTs": 0,
    });
    session.receive(&connect.to_string(), 1_012).expect("a `Connect`");
    assert_eq!(transition(&mut session, 5, &[]).expect("a transition")["clientClockSkew"], Value::Null);
}

#[test]
fn base_versions_must_match() {
    let mut session = connected();
    modify(&mut session, 0, &[add(0)]).expect("version 1");
    let mismatch = modify(&mut session, 0, &[]).expect_err("version 1 was received");
    assert_eq!(mismatch, ProtocolError::BaseVersionMismatch { message: "ModifyQuerySet", base: 0, received: 1 });
    let authenticate = json!({ "type": "Authenticate", "baseVersion": 1, "tokenType": "None" });
    let mismatch = say(&mut session, &authenticate).expect_err("identity 0");
    assert_eq!(mismatch, ProtocolError::BaseVersionMismatch { message: "Authenticate", base: 1, received: 0 });
    let same = json!({ "type": "ModifyQuerySet", "baseVersion": 1, "newVersion": 1, "modifications": [] });
    assert_eq!(say(&mut session, &same).expect_err("no step"), ProtocolError::VersionDoesNotGrow { base: 1, new: 1 });
}

#[test]
fn unknown_messages_and_queries_are_refused() {
    let mut session = connected();
    for text in ["", "[]", "{}", r#"{"type":"Nonsense"}"#, r#"{"type":"Mutation","requestId":-1}"#] {
        assert!(matches!(session.receive(text, 0), Err(ProtocolError::Message(_))), "{text}");
    }
    assert_eq!(modify(&mut session, 0, &[remove(3)]).expect_err("none"), ProtocolError::NoSuchQuery(3));
    assert_eq!(modify(&mut session, 0, &[add(3), add(3)]).expect_err("two"), ProtocolError::QueryIsThere(3));
    let event = json!({ "type": "Event", "eventType": "WhoKnows", "event": { "a": [1] } });
    assert!(say(&mut session, &event).expect("telemetry is ignored").is_empty());
}

#[test]
fn subscriptions_are_canonical_and_clean() {
    let mut session = connected();
    let add = json!({
        "type": "Add", "queryId": 0, "udfPath": "messages.js", "journal": "j",
        "args": [{ "after": { "$integer": "AQAAAAAAAAA=" } }],
    });
    let commands = modify(&mut session, 0, &[add]).expect("a query");
    let [Command::Subscribe { query_id: 0, path, args, journal: Some(journal) }] = &commands[..] else {
        panic!("{commands:?}")
    };
    assert_eq!((path.as_str(), args.as_str(), journal.as_str()), ("messages:default", r#"{"after":1}"#, "j"));

    let component = json!({ "type": "Add", "queryId": 1, "udfPath": "a:b", "args": [{}], "componentPath": "c" });
    assert_eq!(modify(&mut session, 1, &[component]).expect_err("an administrator's"), ProtocolError::ComponentPath);
}

#[test]
fn every_query_is_answered_and_every_removal_confirmed() {
    let mut session = connected();
    modify(&mut session, 0, &[add(0), add(1)]).expect("two queries");
    assert!(session.needs_transition());
    let plan = session.begin_transition().expect("a transition");
    assert_eq!(plan.queries, [0, 1]);
    assert!(!session.needs_transition());
    let one = value("1");
    let incomplete = session.finish_transition(ts(5), [(0, &one)], None);
    assert_eq!(incomplete, Err(Misuse::Unanswered(1)));
    let frames = session.finish_transition(ts(5), [(0, &one), (1, &one)], None).expect("both");
    let message: Value = serde_json::from_str(&frames[0]).expect("JSON");
    assert_eq!(message["endVersion"], json!({ "querySet": 1, "identity": 0, "ts": "BQAAAAAAAAA=" }));
    assert_eq!(message["modifications"].as_array().map(Vec::len), Some(2));

    modify(&mut session, 1, &[remove(0)]).expect("a removal");
    let message = transition(&mut session, 5, &[]).expect("a confirmation");
    assert_eq!(message["modifications"], json!([{ "queryId": 0, "type": "QueryRemoved" }]));
    assert_eq!(message["startVersion"]["querySet"], 1);
}

#[test]
fn a_query_may_come_back_under_its_number() {
    let mut session = connected();
    modify(&mut session, 0, &[add(0)]).expect("a query");
    transition(&mut session, 5, &[(0, &value("1"))]).expect("its answer");
    modify(&mut session, 1, &[remove(0), add(0)]).expect("the number again");
    let message = transition(&mut session, 6, &[(0, &value("1"))]).expect("its answer");
    let types: Vec<_> = message["modifications"].as_array().into_iter().flatten().map(|it| &it["type"]).collect();
    assert_eq!(types, ["QueryRemoved", "QueryUpdated"]);
}

#[test]
fn an_unchanged_result_is_not_sent_again() {
    let mut session = connected();
    modify(&mut session, 0, &[add(0)]).expect("a query");
    transition(&mut session, 5, &[(0, &value("1"))]).expect("its answer");
    session.invalidate();
    assert!(session.needs_transition());
    let message = transition(&mut session, 6, &[(0, &value("1"))]).expect("a transition");
    assert_eq!(message["modifications"], json!([]));
    assert_eq!(message["endVersion"]["ts"], "BgAAAAAAAAA=");
    let message = transition(&mut session, 7, &[(0, &value("2"))]).expect("a transition");
    assert_eq!(message["modifications"][0]["value"], 2);
    let failed = |id: &str| FunctionError { message: format!("[Request ID: {id}] Server Error"), data: None };
    let first = QueryResult::failed(&failed("1"), &[], None);
    let message = transition(&mut session, 8, &[(0, &first)]).expect("a transition");
    assert_eq!(message["modifications"][0]["type"], "QueryFailed");
    let again = QueryResult::failed(&failed("2"), &[], None);
    assert_eq!(transition(&mut session, 9, &[(0, &again)]).expect("a transition")["modifications"], json!([]));
}

#[test]
fn a_transition_covers_what_was_said_before_it_began() {
    let mut session = connected();
    modify(&mut session, 0, &[add(0), add(1)]).expect("two queries");
    session.begin_transition().expect("a transition");
    modify(&mut session, 1, &[add(2), remove(1)]).expect("a change meanwhile");
    assert!(!session.needs_transition(), "one at a time");
    assert_eq!(session.begin_transition(), Err(Misuse::TransitionIsRunning));
    let one = value("1");
    let frames = session.finish_transition(ts(5), [(0, &one), (2, &one)], None).expect("1 is gone, 2 is not covered");
    let message: Value = serde_json::from_str(&frames[0]).expect("JSON");
    assert_eq!(message["endVersion"]["querySet"], 1);
    assert_eq!(message["modifications"].as_array().map(Vec::len), Some(1));
    assert!(session.needs_transition());
    let message = transition(&mut session, 5, &[(0, &one), (2, &one)]).expect("the rest");
    assert_eq!(message["endVersion"]["querySet"], 2);
    let ids: Vec<_> = message["modifications"].as_array().into_iter().flatten().map(|it| &it["queryId"]).collect();
    assert_eq!(ids, [1, 2]);
}

#[test]
fn an_abandoned_transition_forgets_nothing() {
    let mut session = connected();
    modify(&mut session, 0, &[add(0), add(1)]).expect("two queries");
    transition(&mut session, 5, &[(0, &value("1")), (1, &value("1"))]).expect("their answers");
    modify(&mut session, 1, &[remove(1)]).expect("a removal");
    session.begin_transition().expect("a transition");
    session.abandon_transition().expect("it runs");
    assert_eq!(session.abandon_transition(), Err(Misuse::NoTransitionIsRunning));
    assert!(session.needs_transition());
    let message = transition(&mut session, 6, &[]).expect("a transition");
    assert_eq!(message["modifications"][0]["type"], "QueryRemoved");
}

#[test]
fn time_does_not_go_back() {
    let mut session = connected();
    transition(&mut session, 5, &[]).expect("a transition");
    assert_eq!(session.begin_transition().expect("a transition").at_least, ts(5));
    let none: [(QueryId, &QueryResult); 0] = [];
    assert_eq!(session.finish_transition(ts(4), none, None), Err(Misuse::Backwards { sent: ts(5), ts: ts(4) }));
    session.finish_transition(ts(5), none, None).expect("the same time");
    assert_eq!(session.sent().ts, ts(5));
}

#[test]
fn mutations_run_in_order_and_transitions_follow() {
    let mut session = connected();
    let first = say(&mut session, &mutation(0)).expect("a mutation");
    assert!(matches!(&first[..], [Command::Mutate(call)] if call.request_id == 0 && call.received_ms == 7));
    assert!(say(&mut session, &mutation(1)).expect("it waits").is_empty());
    assert_eq!(say(&mut session, &mutation(1)).expect_err("twice"), ProtocolError::RequestIsRunning(1));
    assert!(matches!(session.mutation_finished(1, &Ok(committed(9)), &[]), Err(Misuse::RequestIsNotRunning(1))));
    assert!(!session.needs_transition());

    let response = session.mutation_finished(0, &Ok(committed(9)), &[]).expect("it ran");
    let text: Value = serde_json::from_str(&response.text).expect("JSON");
    assert_eq!((&text["success"], &text["ts"]), (&json!(true), &json!("CQAAAAAAAAA=")));
    assert!(matches!(&response.next, Some(Command::Mutate(call)) if call.request_id == 1));
    transition(&mut session, 9, &[]).expect("scheduled");

    let error = FunctionError { message: "no".to_owned(), data: None };
    let response = session.mutation_finished(1, &Err(error), &["[LOG] 'x'".to_owned()]).expect("it ran");
    assert!(response.next.is_none());
    assert!(session.needs_transition(), "after a failure too");
    assert!(!response.text.contains("errorData"));
}

#[test]
fn a_transition_waits_for_the_response() {
    let mut session = connected();
    say(&mut session, &mutation(0)).expect("a mutation");
    session.mutation_commits_after(0, Some(ts(5))).expect("it runs");
    session.invalidate();
    assert_eq!(session.begin_transition().expect("a transition").at_most, Some(ts(5)));
    let none: [(QueryId, &QueryResult); 0] = [];
    assert_eq!(
        session.finish_transition(ts(6), none, None),
        Err(Misuse::CoversUnanswered { at_most: ts(5), ts: ts(6) })
    );
    session.finish_transition(ts(5), none, None).expect("before the commit");
    session.mutation_finished(0, &Ok(committed(6)), &[]).expect("it ran");
    transition(&mut session, 6, &[]).expect("after the response");
}

#[test]
fn transitions_go_on_until_a_commit_begins_and_after_it_was_undone() {
    let mut session = connected();
    say(&mut session, &mutation(0)).expect("a mutation");
    transition(&mut session, 4, &[]).expect("it runs, and does not commit");
    session.mutation_commits_after(0, Some(ts(5))).expect("it runs");
    session.mutation_commits_after(0, None).expect("it runs again");
    session.invalidate();
    assert_eq!(session.begin_transition().expect("a transition").at_most, None);
}

#[test]
fn queries_are_bounded_in_number_and_bytes() {
    let mut session = connected();
    let queries: Vec<Value> = (0..QUERIES_MAX as u32).map(add).collect();
    modify(&mut session, 0, &queries).expect("so many");
    let one = modify(&mut session, 1, &[add(u32::MAX)]);
    assert_eq!(one.expect_err("one too many"), ProtocolError::TooManyQueries { limit: QUERIES_MAX });
    // What has gone makes room, also before it is confirmed, and not for ever.
    let removed: Vec<Value> = (0..QUERIES_MAX as u32).map(remove).collect();
    modify(&mut session, 1, &removed).expect("they were there");
    assert_eq!(session.queries_bytes(), 0);
    let others: Vec<Value> = (0..QUERIES_MAX as u32).map(|id| add(id + 10_000)).collect();
    modify(&mut session, 2, &others).expect("so many again");
    modify(&mut session, 3, &[remove(10_000)]).expect("it was there");
    assert!(modify(&mut session, 4, &[add(20_000)]).is_err(), "nothing is confirmed");
    transition_of_others(&mut session);
    modify(&mut session, 4, &[add(20_000)]).expect("now it is");

    let mut session = connected();
    let large = "x".repeat(QUERIES_BYTES_MAX / 2);
    let add = |id: u32| json!({ "type": "Add", "queryId": id, "udfPath": "a:b", "args": [{ "large": large }] });
    modify(&mut session, 0, &[add(0)]).expect("half of it");
    let second = modify(&mut session, 1, &[add(1)]).expect_err("a little more than the other half");
    assert_eq!(second, ProtocolError::QueriesTooLarge { limit: QUERIES_BYTES_MAX });
}

/// A transition that only confirms what was removed.
fn transition_of_others(session: &mut Session) {
    let plan = session.begin_transition().expect("scheduled");
    let result = value("1");
    let results = plan.queries.iter().map(|id| (*id, &result));
    session.finish_transition(ts(9), results, None).expect("all are answered");
}

#[test]
fn calls_without_an_answer_are_counted() {
    let mut session = connected();
    let body = "x".repeat(CALLS_BYTES_MAX / 2);
    let large = |id: u32| json!({ "type": "Mutation", "requestId": id, "udfPath": "a:b", "args": [{ "body": body }] });
    say(&mut session, &large(0)).expect("one");
    assert!(session.takes_calls());
    say(&mut session, &large(1)).expect("another");
    assert!(!session.takes_calls() && session.calls_bytes() > CALLS_BYTES_MAX);
    session.mutation_finished(0, &Ok(committed(6)), &[]).expect("it ran");
    assert!(session.takes_calls());
    session.mutation_finished(1, &Ok(committed(7)), &[]).expect("it ran");
    assert_eq!(session.calls_bytes(), 0);
}

#[test]
fn a_transition_that_does_not_reach_the_commit_is_followed_by_another() {
    let mut session = connected();
    say(&mut session, &mutation(0)).expect("a mutation");
    session.mutation_finished(0, &Ok(committed(6)), &[]).expect("it ran");
    transition(&mut session, 5, &[]).expect("an older snapshot");
    assert!(session.needs_transition());
    transition(&mut session, 6, &[]).expect("one that covers it");
    assert!(!session.needs_transition());
}

#[test]
fn actions_run_beside_each_other() {
    let mut session = connected();
    let action = |id: u32| json!({ "type": "Action", "requestId": id, "udfPath": "ai:run", "args": [{}] });
    for id in 0..2 {
        assert!(matches!(&say(&mut session, &action(id)).expect("an action")[..], [Command::Act(_)]));
    }
    let text = session.action_finished(1, &Ok(Encoded::null()), &[]).expect("it ran");
    assert!(!text.contains("\"ts\""), "{text}");
    assert!(session.needs_transition());
    assert_eq!(session.action_finished(1, &Ok(Encoded::null()), &[]), Err(Misuse::RequestIsNotRunning(1)));
}

#[test]
fn too_many_requests_end_the_socket() {
    let mut session = connected();
    let limit = u32::try_from(MUTATIONS_WAITING_MAX).expect("a small number");
    for id in 0..=limit {
        say(&mut session, &mutation(id)).expect("one runs, the others wait");
    }
    let error = say(&mut session, &mutation(limit + 1)).expect_err("one too many");
    assert_eq!(error.close().reason, "TooManyConcurrentMutations");

    let mut session = connected();
    let limit = u32::try_from(ACTIONS_MAX).expect("a small number");
    let action = |id: u32| json!({ "type": "Action", "requestId": id, "udfPath": "ai:run", "args": [{}] });
    for id in 0..limit {
        say(&mut session, &action(id)).expect("it runs");
    }
    assert_eq!(
        say(&mut session, &action(limit)).expect_err("one too many"),
        ProtocolError::TooManyConcurrentActions { limit: ACTIONS_MAX }
    );
}

#[test]
fn identities_change_by_authentication() {
    let mut session = connected();
    let user = |base: u32| json!({ "type": "Authenticate", "baseVersion": base, "tokenType": "User", "value": "jwt" });
    let commands = say(&mut session, &user(0)).expect("a token");
    assert!(matches!(&commands[..], [Command::Authenticate(Token::User { jwt })] if jwt == "jwt"));
    assert!(!session.needs_transition());
    session.authenticated(Ok(())).expect("asked").expect("verified");
    let message = transition(&mut session, 5, &[]).expect("a transition");
    assert_eq!(message["endVersion"]["identity"], 1);
    assert_eq!(session.authenticated(Ok(())), Err(Misuse::NothingToAuthenticate));

    let out = json!({ "type": "Authenticate", "baseVersion": 1, "tokenType": "None" });
    assert!(matches!(&say(&mut session, &out).expect("no token")[..], [Command::SignOut]));
    let commands = say(&mut session, &mutation(0)).expect("a mutation");
    assert!(matches!(&commands[..], [Command::Mutate(call)] if call.identity == 2));
    assert_eq!(transition(&mut session, 6, &[]).expect("a transition")["endVersion"]["identity"], 2);

    say(&mut session, &user(2)).expect("a token");
    let pending = modify(&mut session, 0, &[]).expect_err("not verified yet");
    assert_eq!(pending, ProtocolError::AuthenticationPending);
    let refused = session.authenticated(Err("NoAuthProvider".to_owned())).expect("asked").expect_err("refused");
    let message: Value = serde_json::from_str(&refused.close().message.expect("words")).expect("JSON");
    assert_eq!(
        message,
        json!({ "type": "AuthError", "error": "NoAuthProvider", "baseVersion": 2, "authUpdateAttempted": true })
    );
    let expired = session.identity_expired("expired".to_owned()).close().message.expect("words");
    assert!(expired.contains("\"authUpdateAttempted\":false"), "{expired}");
}

#[test]
fn administrators_name_whom_they_act_as_in_two_ways() {
    for key in ["impersonating", "acting_as"] {
        let mut session = connected();
        let mut message = json!({ "type": "Authenticate", "baseVersion": 0, "tokenType": "Admin", "value": "k" });
        message[key] = json!({ "subject": "s" });
        let commands = say(&mut session, &message).expect("a key");
        let [Command::Authenticate(Token::Admin { acting_as: Some(user), .. })] = &commands[..] else {
            panic!("{commands:?}")
        };
        assert_eq!(user.get(), r#"{"subject":"s"}"#);
    }
}

#[test]
fn only_those_who_understand_get_pieces() {
    let large = value(&json!("x".repeat(CHUNK_BYTES_MAX)).to_string());
    for (client, pieces) in [("npm-1.48.0", 2), ("npm-1.27.0", 1), ("rust-0.10.4", 1), ("python-0.8.1", 1)] {
        let mut session = connected_as(ClientVersion::from_header(client));
        modify(&mut session, 0, &[add(0)]).expect("a query");
        session.begin_transition().expect("a transition");
        let frames = session.finish_transition(ts(5), [(0, &large)], None).expect("its answer");
        assert_eq!(frames.len(), pieces, "{client}");
    }
}

#[test]
fn a_ping_is_a_message() {
    assert_eq!(connected().ping(), r#"{"type":"Ping"}"#);
}
