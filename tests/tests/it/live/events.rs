//! Server-sent events.

use std::time::Duration;

use hyper::Method;
use hyper::body::Bytes;
use serde_json::{Value, json};

use super::{Subscriber, bodies, metric, send};
use crate::harness::{TestHost, run};

#[test]
fn a_subscriber_sees_what_functions_and_psql_write() {
    run(async {
        let host = TestHost::start(&["messages"]).await;
        send(&host, "c", "one").await;
        let mut subscriber = Subscriber::open(&host, "messages:list", &json!({ "channel": "c" }), None).await;
        let first = subscriber.next().await;
        assert_eq!((first.kind.as_str(), bodies(&first.data)), ("result", vec!["one"]));
        assert_eq!((&first.data["name"], &first.data["ts"]), (&json!("messages:list"), &json!(first.id)));

        let two = send(&host, "c", "two").await;
        let second = subscriber.next().await;
        assert_eq!(bodies(&second.data), ["one", "two"]);
        assert!(second.id > first.id);

        let psql = host.psql().await;
        let row = r#"{"channel":"c","author":"b","body":"by hand"}"#;
        psql.execute("insert into demo.messages (data) values ($1::text::jsonb)", &[&row]).await.expect("a row");
        assert_eq!(bodies(&subscriber.next().await.data), ["one", "two", "by hand"]);
        psql.execute(
            "update demo.messages set data = data || '{\"channel\":\"d\"}' where _id = convoke.uuid($1)",
            &[&two],
        )
        .await
        .expect("an update");
        assert_eq!(bodies(&subscriber.next().await.data), ["one", "by hand"]);
        psql.batch_execute("truncate demo.messages").await.expect("a truncate");
        assert_eq!(bodies(&subscriber.next().await.data), [""; 0]);
    });
}

#[test]
fn what_misses_the_range_runs_nothing() {
    run(async {
        let host = TestHost::start(&["messages"]).await;
        let mut subscriber = Subscriber::open(&host, "messages:list", &json!({ "channel": "c" }), None).await;
        subscriber.next().await;
        let before = metric(&host, "convoke_evaluations_total{function=\"messages:list\"}").await;
        for n in 0..20 {
            send(&host, "other", &n.to_string()).await;
        }
        assert!(subscriber.is_silent(Duration::from_millis(300)).await);
        assert_eq!(metric(&host, "convoke_evaluations_total{function=\"messages:list\"}").await, before);
        send(&host, "c", "now").await;
        assert_eq!(bodies(&subscriber.next().await.data), ["now"]);
        assert_eq!(metric(&host, "convoke_reruns_total{function=\"messages:list\"}").await, 1);
    });
}

#[test]
fn subscribers_of_the_same_query_share_its_run() {
    run(async {
        let host = TestHost::start(&["messages"]).await;
        let mut subscribers = Vec::new();
        for _ in 0..30 {
            let mut subscriber = Subscriber::open(&host, "messages:list", &json!({ "channel": "c" }), None).await;
            subscriber.next().await;
            subscribers.push(subscriber);
        }
        send(&host, "c", "one").await;
        let mut ids = Vec::new();
        for subscriber in &mut subscribers {
            let event = subscriber.next().await;
            assert_eq!(bodies(&event.data), ["one"]);
            ids.push(event.id);
        }
        assert_eq!(metric(&host, "convoke_evaluations_total{function=\"messages:list\"}").await, 2);
        assert_eq!(metric(&host, "convoke_subscriptions").await, 30);
        drop(subscribers);
        for _ in 0..100 {
            if metric(&host, "convoke_subscriptions").await == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("subscriptions are left");
    });
}

#[test]
fn pages_that_are_shown_stay_side_by_side() {
    run(async {
        let host = TestHost::start(&["messages"]).await;
        for n in 1..=4 {
            send(&host, "c", &n.to_string()).await;
        }
        let page = |cursor: &Value| json!({ "channel": "c", "paginationOpts": { "numItems": 2, "cursor": cursor } });
        let shown = |event: &super::Event| {
            let page = event.data["data"]["page"].as_array().expect("a page");
            page.iter().map(|message| message["body"].as_str().expect("a body").to_owned()).collect::<Vec<_>>()
        };
        let mut first = Subscriber::open(&host, "messages:page", &page(&Value::Null), None).await;
        let event = first.next().await;
        assert_eq!(shown(&event), ["4", "3"]);
        let cursor = &event.data["data"]["continueCursor"];
        let mut second = Subscriber::open(&host, "messages:page", &page(cursor), None).await;
        assert_eq!(shown(&second.next().await), ["2", "1"]);

        send(&host, "c", "5").await;
        let event = first.next().await;
        assert_eq!((shown(&event), &event.data["data"]["continueCursor"]), (vec_of(&["5", "4", "3"]), cursor));
        // Who comes later has a page of the length that he asked for, and it is as steady.
        let mut later = Subscriber::open(&host, "messages:page", &page(&Value::Null), None).await;
        assert_eq!(shown(&later.next().await), ["5", "4"]);
        let plain = host.query("messages:page", page(&Value::Null)).await;
        assert_eq!(plain.data()["page"].as_array().expect("a page").len(), 2);
        for (number, body) in ["6", "7"].into_iter().enumerate() {
            send(&host, "c", body).await;
            assert_eq!(shown(&first.next().await).len(), 4 + number);
            assert_eq!(shown(&later.next().await).len(), 3 + number);
        }
        assert!(second.is_silent(Duration::from_millis(100)).await);
    });
}

fn vec_of(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn what_cannot_be_subscribed_to_is_refused_at_once() {
    run(async {
        let host = TestHost::start(&["messages"]).await;
        for (path, args, status) in [
            ("messages:nothing", "{\"channel\":\"c\"}", 404),
            ("messages:send", "{}", 400),
            ("messages:list", "{\"channel\":7}", 400),
            ("messages:list", "no JSON", 400),
        ] {
            let answer = host.post(&format!("/api/subscribe/{path}"), args).await;
            assert_eq!(answer.status, status, "{path} {args}: {answer:?}");
        }
        let answer = host.send(Method::DELETE, "/api/subscribe/messages:list", Bytes::new()).await;
        assert_eq!(answer.status, 405);
    });
}

#[test]
fn an_error_is_an_event_and_a_later_result_too() {
    run(async {
        let host = TestHost::start(&["messages"]).await;
        let args = json!({ "channel": "c", "limit": 5000 });
        let mut subscriber = Subscriber::open(&host, "messages:list", &args, None).await;
        let event = subscriber.next().await;
        assert_eq!((event.kind.as_str(), &event.data["data"]["code"]), ("error", &json!("INVALID_LIMIT")));
    });
}

#[test]
fn a_new_version_runs_every_live_query_once() {
    run(async {
        let host = TestHost::start(&["messages"]).await;
        let args = json!({ "channel": "c" });
        let mut subscriber = Subscriber::open(&host, "messages:list", &args, None).await;
        subscriber.next().await;
        host.deploy(&["messages", "accounts"]).await.expect("a deployment");
        assert!(subscriber.is_silent(Duration::from_millis(300)).await, "the same result is no event");
        assert_eq!(metric(&host, "convoke_evaluations_total{function=\"messages:list\"}").await, 2);
        host.deploy(&["accounts"]).await.expect("a deployment");
        let gone = subscriber.next().await;
        assert_eq!((gone.kind.as_str(), &gone.data["data"]["code"]), ("error", &json!("NOT_FOUND")));
        host.deploy(&["messages"]).await.expect("a deployment");
        assert_eq!(subscriber.next().await.kind, "result");
    });
}

#[test]
fn a_plain_query_is_answered_from_a_result_that_holds() {
    run(async {
        let host = TestHost::start(&["messages"]).await;
        let list = async || host.query("messages:list", json!({ "channel": "c" })).await.data().clone();
        for n in 1..6 {
            send(&host, "c", &n.to_string()).await;
            for _ in 0..4 {
                assert_eq!(list().await.as_array().map(Vec::len), Some(n), "a client reads its own writes");
            }
        }
        let hits = metric(&host, "convoke_query_cache_hits_total").await;
        assert!(hits >= 5, "{hits}");
    });
}
