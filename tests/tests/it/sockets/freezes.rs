//! What one query that cannot be shown, or a log that stands still, does to the rest of a socket.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use convoke_server::LiveLimits;
use serde_json::{Value, json};
use tokio_postgres::Client;
use uuid::Uuid;

use super::{Socket, add};
use crate::harness::{TestHost, run};

fn message(body: &str) -> Value {
    json!({ "channel": "c", "author": "a", "body": body })
}

/// What transitions have shown of each query, up to the first that satisfies this.
async fn until_shown(socket: &mut Socket, shown: &mut [Value; 2], is_enough: impl Fn(&[Value; 2]) -> bool) {
    while !is_enough(shown) {
        let transition = socket.next_of("Transition").await;
        for modification in transition["modifications"].as_array().expect("a list") {
            let query = modification["queryId"].as_u64().expect("a number");
            shown[query as usize] = modification.clone();
        }
    }
}

/// Ends the feed of all hosts, for as long as there is this transaction: Postgres makes no new slot until then.
async fn interrupt(host: &TestHost) -> Client {
    let open = host.psql().await;
    let row = message("never committed").to_string();
    let write = format!("begin; insert into demo.messages (data) values ('{row}')");
    open.batch_execute(&write).await.expect("a transaction");
    let end = "select pg_terminate_backend(active_pid) from pg_replication_slots where database = current_database()";
    host.psql().await.batch_execute(end).await.expect("the end of the slots");
    host.until_streaming(false).await;
    open
}

#[test]
fn a_query_that_the_system_keeps_failing_does_not_keep_the_others_back_for_ever() {
    run(async {
        let live_limits =
            LiveLimits { results_bytes_max: 1 << 20, patience: Duration::from_millis(500), ..LiveLimits::default() };
        let host = TestHost::with(&["messages", "accounts"], |config| config.live_limits = live_limits).await;
        host.mutation("accounts:seed", json!({ "accounts": 2, "balance": 100 })).await.data();
        let mut socket = Socket::open(&host).await;
        let list = add(0, "messages:list", &json!({ "channel": "c" }));
        socket.modify(&[list, add(1, "accounts:balance", &json!({ "account": 1 }))]).await;
        let mut shown = [Value::Null, Value::Null];
        until_shown(&mut socket, &mut shown, |shown| shown.iter().all(|query| query["type"] == "QueryUpdated")).await;

        // There is no room for such a result.
        let psql = host.psql().await;
        let large = "insert into demo.messages (data) values \
                     (jsonb_build_object('channel', 'c', 'author', 'a', 'body', repeat('x', 2097152)))";
        psql.batch_execute(large).await.expect("a row");
        socket.mutate(0, "accounts:transfer", &json!({ "from": 0, "to": 1, "amount": 1 })).await;
        until_shown(&mut socket, &mut shown, |[list, balance]| {
            list["type"] == "QueryFailed" && balance["value"].as_f64() == Some(101.0)
        })
        .await;

        psql.batch_execute("delete from demo.messages").await.expect("a deletion");
        until_shown(&mut socket, &mut shown, |[list, _]| list["value"] == json!([])).await;
    });
}

#[test]
fn a_socket_goes_on_while_the_log_cannot_be_followed() {
    run(async {
        let host = TestHost::start(&["messages", "accounts"]).await;
        host.mutation("accounts:seed", json!({ "accounts": 2, "balance": 100 })).await.data();
        let open = interrupt(&host).await;
        let mut socket = Socket::open(&host).await;
        let list = add(0, "messages:list", &json!({ "channel": "c" }));
        socket.modify(&[list, add(1, "accounts:balance", &json!({ "account": 1 }))]).await;
        let mut shown = [Value::Null, Value::Null];
        let both = |bodies: usize, balance: f64| {
            move |shown: &[Value; 2]| {
                shown[0]["value"].as_array().is_some_and(|list| list.len() == bodies)
                    && shown[1]["value"].as_f64() == Some(balance)
            }
        };
        until_shown(&mut socket, &mut shown, both(0, 100.0)).await;
        for id in 0..3_u32 {
            socket.mutate(2 * id, "messages:send", &message("own")).await;
            assert_eq!(socket.next_of("MutationResponse").await["success"], true);
            socket.mutate(2 * id + 1, "accounts:transfer", &json!({ "from": 0, "to": 1, "amount": 1 })).await;
            until_shown(&mut socket, &mut shown, both(id as usize + 1, f64::from(101 + id))).await;
        }
        // Without a query, there is nothing to show but that it has happened.
        let mut quiet = Socket::open(&host).await;
        quiet.mutate(0, "messages:send", &message("quiet")).await;
        assert_eq!(quiet.next_of("MutationResponse").await["success"], true);
        quiet.next_of("Transition").await;

        open.batch_execute("rollback").await.expect("the end of it");
        host.until_streaming(true).await;
        until_shown(&mut socket, &mut shown, both(4, 103.0)).await;
    });
}

#[test]
fn a_mutation_that_had_happened_is_not_answered_as_of_before() {
    run(async {
        let host = TestHost::start(&["messages"]).await;
        let other = TestHost::beside(&host, &["messages"]).await;
        let _open = interrupt(&host).await;
        other.until_streaming(false).await;
        let session = Uuid::new_v4();
        let mut answers = Vec::new();
        // Sent again to a host that has not heard of it.
        for (host, connections) in [(&host, 0), (&other, 1)] {
            let mut socket = Socket::open_silently(host).await;
            let connect = json!({ "type": "Connect", "sessionId": session, "connectionCount": connections,
                "lastCloseReason": "ConnectionLost", "clientTs": 0 });
            socket.say(&connect).await;
            socket.mutate(0, "messages:send", &message("once")).await;
            answers.push(socket.next_of("MutationResponse").await);
        }
        let [first, again] = [0, 1].map(|number: usize| answers[number].clone());
        assert_eq!(first["result"], again["result"]);
        let ts = |answer: &Value| {
            let bytes = BASE64_STANDARD.decode(answer["ts"].as_str().expect("a timestamp")).expect("base64");
            u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
        };
        assert!(ts(&again) >= ts(&first), "{answers:?}");
    });
}
