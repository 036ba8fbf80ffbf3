//! `/api/query_ts` and `/api/query_at_ts`: several calls that see one state.

use serde_json::{Value, json};

use super::send;
use crate::harness::{Answer, TestHost, run};

async fn now(host: &TestHost) -> String {
    let answer = host.post("/api/query_ts", String::new()).await;
    answer.body["ts"].as_str().expect("a timestamp").to_owned()
}

async fn list_at(host: &TestHost, ts: &str) -> Answer {
    let call = json!({ "path": "messages:list", "args": [{ "channel": "c" }], "format": "json", "ts": ts });
    host.post("/api/query_at_ts", call.to_string()).await
}

fn count(answer: &Answer) -> usize {
    answer.body["value"].as_array().map_or(usize::MAX, Vec::len)
}

#[test]
fn a_timestamp_shows_the_state_of_then() {
    run(async {
        let host = TestHost::start(&["messages"]).await;
        let mut moments = vec![now(&host).await];
        for n in 0..4 {
            send(&host, "c", &n.to_string()).await;
            moments.push(now(&host).await);
        }
        for (written, ts) in moments.iter().enumerate().rev() {
            assert_eq!(count(&list_at(&host, ts).await), written);
            assert_eq!(count(&list_at(&host, ts).await), written, "again");
        }
        // A row that psql adds is seen at once, and not before.
        let psql = host.psql().await;
        let row = "insert into demo.messages (data) values ('{\"channel\":\"c\",\"author\":\"a\",\"body\":\"b\"}')";
        psql.batch_execute(row).await.expect("a row");
        let after = now(&host).await;
        assert_eq!([count(&list_at(&host, &moments[4]).await), count(&list_at(&host, &after).await)], [4, 5]);
    });
}

#[test]
fn more_timestamps_than_are_kept_show_what_was_committed_then_at_least() {
    run(async {
        let host = TestHost::start(&["messages"]).await;
        let other = TestHost::beside(&host, &["messages"]).await;
        let mut last = String::new();
        for n in 0..12 {
            send(&host, "c", &n.to_string()).await;
            last = now(&host).await;
            assert!(count(&list_at(&host, &last).await) > n);
        }
        // Another host does not keep it, and waits until it has heard of it.
        assert_eq!(count(&list_at(&other, &last).await), 12);
        let calls = host.query("messages:list", json!({ "channel": "c" })).await;
        assert_eq!(calls.data().as_array().map(Vec::len), Some(12), "plain calls have connections of their own");
    });
}

#[test]
fn a_state_that_is_gone_is_refused() {
    run(async {
        let host = TestHost::start(&["messages"]).await;
        send(&host, "c", "one").await;
        let ts = now(&host).await;
        let psql = host.psql().await;
        psql.batch_execute("truncate demo.messages").await.expect("a truncate");
        let answer = list_at(&host, &ts).await;
        assert_eq!((answer.status, &answer.body["code"]), (400, &Value::from("INVALID_ARGS")), "{answer:?}");
        assert!(answer.body["message"].as_str().is_some_and(|words| words.contains("not kept any more")), "{answer:?}");
    });
}

#[test]
fn a_timestamp_that_nobody_can_have_told_is_not_waited_for() {
    run(async {
        let host = TestHost::start(&["messages"]).await;
        let answer = tokio::time::timeout(std::time::Duration::from_secs(5), list_at(&host, "/////////38=")).await;
        let answer = answer.expect("an answer at once");
        assert_eq!((answer.status, &answer.body["code"]), (400, &json!("INVALID_ARGS")), "{:?}", answer.body);
    });
}
