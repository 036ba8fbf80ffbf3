//! The one door: what holds for every call, whichever way it comes in.

use std::time::Duration;

use convoke_model::Limits;
use hyper::body::Bytes;
use hyper::{HeaderMap, Method};
use serde_json::{Value, json};

use crate::harness::{Answer, TestHost, run};

const ROUNDS: u32 = 150;

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().expect("text"))
}

#[test]
fn every_answer_says_which_call_it_is_of_and_which_version_answered() {
    run(async {
        let host = TestHost::start(&["messages"]).await;
        let mut ids = std::collections::BTreeSet::new();
        let args = json!({ "channel": "x" }).to_string();
        let convex = json!({ "path": "messages:list", "args": { "channel": "x" }, "format": "json" }).to_string();
        let mut version = String::new();
        for (path, body) in [("/api/query/messages:list", &args), ("/api/query", &convex)] {
            // The third time, it is a kept result.
            for _ in 0..4 {
                let (status, headers, _) = host.send_with(Method::POST, path, &[], body).await;
                assert_eq!(status, 200);
                let id = header(&headers, "convoke-request-id").expect("an id");
                assert!(id.len() == 16 && ids.insert(id.to_owned()), "{id}");
                version = header(&headers, "convoke-version").expect("a version").to_owned();
                assert!(version.len() == 12 && version.bytes().all(|byte| byte.is_ascii_hexdigit()), "{version}");
            }
        }
        for (path, body) in
            [("/api/query/nobody:knows", "{}"), ("/api/query/messages:list", "{"), ("/api/nowhere", "{}")]
        {
            let (status, headers, _) = host.send_with(Method::POST, path, &[], body).await;
            assert!(status >= 400);
            let id = header(&headers, "convoke-request-id").expect("an id");
            assert!(ids.insert(id.to_owned()), "{id}");
            assert_eq!(header(&headers, "convoke-version"), None, "no function ran");
        }
        let wanted = [("convoke-version", version.as_str())];
        let (status, ..) = host.send_with(Method::POST, "/api/query/messages:list", &wanted, &args).await;
        assert_eq!(status, 200);
        let unknown = [("convoke-version", "0123456789ab")];
        let (status, _, body) = host.send_with(Method::POST, "/api/query/messages:list", &unknown, &args).await;
        assert_eq!((status, body["error"]["code"].as_str()), (404, Some("NOT_FOUND")), "{body}");
    });
}

#[test]
fn a_key_makes_a_mutation_happen_once_in_both_forms() {
    run(async {
        let host = TestHost::start(&["messages"]).await;
        let args = json!({ "channel": "x", "author": "Ada", "body": "once" });
        let convex = json!({ "path": "messages:send", "args": args, "format": "json" }).to_string();
        let args = args.to_string();
        let key = [("idempotency-key", "order 66")];
        let (_, _, first) = host.send_with(Method::POST, "/api/mutation/messages:send", &key, &args).await;
        let (_, _, again) = host.send_with(Method::POST, "/api/mutation/messages:send", &key, &args).await;
        let (_, _, convex) = host.send_with(Method::POST, "/api/mutation", &key, &convex).await;
        assert_eq!(first["ok"], true, "{first}");
        assert_eq!(first, again);
        assert_eq!(convex["value"], first["data"], "{convex}");
        let list = host.query("messages:list", json!({ "channel": "x" })).await;
        assert_eq!(list.data().as_array().map(Vec::len), Some(1));

        let other = json!({ "channel": "x", "author": "Ada", "body": "another" }).to_string();
        let (status, _, body) = host.send_with(Method::POST, "/api/mutation/messages:send", &key, &other).await;
        assert_eq!((status, body["error"]["code"].as_str()), (409, Some("IDEMPOTENCY_MISMATCH")), "{body}");
        let bad = "x".repeat(256);
        for bad in ["", bad.as_str()] {
            let key = [("idempotency-key", bad)];
            let (status, _, body) = host.send_with(Method::POST, "/api/mutation/messages:send", &key, &args).await;
            assert_eq!((status, body["error"]["code"].as_str()), (400, Some("INVALID_ARGS")), "{body}");
        }
    });
}

#[test]
fn a_failure_of_the_system_says_what_became_of_the_call() {
    run(async {
        let limits = Limits { calls_max: 1, ..Limits::default() };
        let host = TestHost::with_limits(&["friendly", "messages"], limits).await;
        // Long enough for the others to come; their rounds end with it. It may be the one that is refused.
        let long =
            async { while host.query("friendly:compute", json!({ "rounds": 100_000_000_u64 })).await.status != 200 {} };
        let others = async {
            loop {
                let answer = host.query("friendly:empty", json!({})).await;
                if answer.status != 200 {
                    return answer;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let (refused, ()) = tokio::join!(others, long);
        assert_eq!((refused.status, refused.code()), (503, "OVERLOADED"));
        assert_eq!(refused.body["error"]["details"]["outcome"], "not_begun");
        // A function's own failure says nothing of the kind.
        let own = host.query("friendly:fails", json!({ "code": "MINE", "message": "no", "data": 7 })).await;
        assert_eq!(own.body["error"], json!({ "code": "MINE", "message": "no", "details": 7 }));
    });
}

#[test]
fn what_can_be_read_in_two_ways_is_refused() {
    run(async {
        let host = TestHost::start(&["messages"]).await;
        let args = json!({ "channel": "x", "author": "Ada", "body": "once" }).to_string();
        let keys = [("idempotency-key", "one"), ("idempotency-key", "another")];
        let (status, _, body) = host.send_with(Method::POST, "/api/mutation/messages:send", &keys, &args).await;
        assert_eq!((status, body["error"]["code"].as_str()), (400, Some("INVALID_ARGS")), "{body}");
        let list = json!(["messages:list", { "channel": "x" }, "json"]).to_string();
        let (status, _, body) = host.send_with(Method::POST, "/api/query", &[], &list).await;
        assert_eq!(status, 400, "{body}");
    });
}

#[test]
fn a_function_is_given_what_was_checked() {
    run(async {
        let host = TestHost::start(&["friendly"]).await;
        let twice = r#" { "value" : { "b": [50.0, 1e2], "a": 1, "a": 2 } } "#;
        let (_, _, answer) = host.send_with(Method::POST, "/api/query/friendly:echo", &[], twice).await;
        assert_eq!(answer["data"], json!({ "a": 2, "b": [50, 100] }));
    });
}

/// A query that has been asked so often that its result is kept.
async fn warmed(host: &TestHost) {
    for _ in 0..4 {
        host.query("messages:list", json!({ "channel": "x", "limit": 1 })).await.data();
    }
}

fn newest(answer: &Answer) -> Option<&str> {
    answer.data().as_array()?.last()?["body"].as_str()
}

async fn shows(host: &TestHost, body: &str) {
    let answer = host.query("messages:list", json!({ "channel": "x", "limit": 1 })).await;
    assert_eq!(newest(&answer), Some(body));
}

fn message(body: &str) -> Value {
    json!({ "channel": "x", "author": "Ada", "body": body })
}

#[test]
fn a_kept_result_shows_what_an_action_wrote() {
    run(async {
        let host = TestHost::start(&["messages", "caller"]).await;
        for n in 0..ROUNDS {
            warmed(&host).await;
            let body = format!("by an action {n}");
            let args = json!({
                "mutation": "messages:send", "mutation_args": message(&body),
                "query": "messages:list", "query_args": { "channel": "x", "limit": 1 },
            });
            let both = host.action("caller:call_both", args).await;
            assert_eq!(both.data()["query"][0]["body"], body, "within the action");
            shows(&host, &body).await;
        }
    });
}

#[test]
fn a_kept_result_shows_what_another_host_wrote() {
    run(async {
        let host = TestHost::start(&["messages"]).await;
        let other = TestHost::beside(&host, &["messages"]).await;
        for n in 0..ROUNDS {
            warmed(&host).await;
            let body = format!("elsewhere {n}");
            other.mutation("messages:send", message(&body)).await.data();
            shows(&host, &body).await;
        }
    });
}

#[test]
fn a_kept_result_shows_what_is_not_flushed_yet() {
    run(async {
        let host = TestHost::start(&["messages"]).await;
        let psql = host.psql().await;
        psql.batch_execute("set synchronous_commit = off").await.expect("a setting");
        for n in 0..ROUNDS / 3 {
            warmed(&host).await;
            let body = format!("by hand {n}");
            let insert = "insert into demo.messages (data) values (jsonb_build_object('channel', 'x', 'author', 'me', 'body', $1::text))";
            psql.execute(insert, &[&body]).await.expect("an insert");
            shows(&host, &body).await;
        }
    });
}

/// The value of one line of `/metrics`.
fn figure(text: &str, line: &str) -> Option<f64> {
    text.lines().find_map(|it| it.strip_prefix(line)?.strip_prefix(' ')?.parse().ok())
}

#[test]
fn calls_are_measured_by_function_and_by_how_they_ended() {
    run(async {
        let host = TestHost::start(&["messages"]).await;
        for (path, body) in [
            ("/api/query/messages:list", r#"{"channel":"x"}"#),
            ("/api/query/messages:list", r#"{"channel":"y"}"#),
            ("/api/query/messages:list", "{}"),
            ("/api/mutation/messages:send", r#"{"channel":"x","author":"Ada","body":"hello"}"#),
            ("/api/query/messages:nothing", "{}"),
            ("/api/query/messages:nothing_else", "{}"),
        ] {
            host.send_with(Method::POST, path, &[], body).await;
        }
        let (_, text) = host.send_text(Method::GET, "/metrics", Bytes::new()).await;
        for (line, value) in [
            (r#"convoke_calls_total{function="messages:list",ended="ok"}"#, 2.0),
            (r#"convoke_calls_total{function="messages:list",ended="caller"}"#, 1.0),
            (r#"convoke_calls_total{function="messages:list",ended="abandoned"}"#, 0.0),
            (r#"convoke_calls_total{function="messages:send",ended="ok"}"#, 1.0),
            (r#"convoke_calls_total{function="",ended="caller"}"#, 2.0),
            (r#"convoke_call_duration_seconds_count{function="messages:list"}"#, 3.0),
            (r#"convoke_call_duration_seconds_bucket{function="messages:send",le="30"}"#, 1.0),
        ] {
            assert_eq!(figure(&text, line), Some(value), "{line} in:\n{text}");
        }
        let seconds = figure(&text, r#"convoke_call_duration_seconds_sum{function="messages:send"}"#);
        assert!(seconds.is_some_and(|seconds| seconds > 0.0 && seconds < 30.0), "{seconds:?}");
        assert!(!text.contains("nothing_else"), "whoever calls what there is not makes no line of his own");
    });
}
