//! Many who ask for much, and a host that has too much to do.

use convoke_live::Watcher;
use convoke_model::Limits;
use serde_json::json;
use tokio::time::timeout;

use super::{PATIENCE, Subscriber, bodies};
use crate::harness::{TestHost, run};

/// Of one client; far more than may be run before the newcomer's.
const QUERIES: u32 = 3_000;
/// What runs at once, and a turn of the other client's.
const BEFORE_MAX: usize = 12 * 64 + 64;

#[test]
fn a_newcomer_does_not_wait_for_a_client_with_very_many_queries() {
    run(async {
        let host = TestHost::start(&["messages"]).await;
        host.until_streaming(true).await;
        let live = host.host.live().expect("live queries");
        let key = |channel: String| {
            let args = json!({ "channel": channel }).to_string();
            live.key("messages:list", &args, None).expect("a key")
        };
        // So that it is known to be quick, as it would be.
        let mut first = Watcher::new(live.clone());
        first.add(0, &key("first".to_owned())).expect("a subscription");
        while first.view(0).is_none() {
            timeout(PATIENCE, first.changed()).await.expect("a result");
        }
        let mut runs = live.runs();
        let mut crowd = Watcher::new(live.clone());
        for number in 0..QUERIES {
            crowd.add(number, &key(number.to_string())).expect("a subscription");
        }
        let mut newcomer = Watcher::new(live.clone());
        // What had run before it came is nobody's delay.
        let mut earlier = 0;
        while runs.try_recv().is_ok() {
            earlier += 1;
        }
        newcomer.add(0, &key("newcomer".to_owned())).expect("a subscription");
        let mut before = 0;
        while !timeout(PATIENCE, runs.recv()).await.expect("runs").expect("runs").key.args.contains("newcomer") {
            before += 1;
        }
        assert!(before <= BEFORE_MAX, "{before} runs before the newcomer's, and {earlier} before it came");
    });
}

#[test]
fn subscribers_keep_what_they_have_while_the_host_is_overloaded() {
    run(async {
        let limits = Limits { instances_max: 1, queue_ms_max: 50, call_ms_max: 1_500, ..Limits::default() };
        let host = TestHost::with_limits(&["messages", "hostile"], limits).await;
        let mut subscribers = Vec::new();
        for _ in 0..5 {
            let mut subscriber = Subscriber::open(&host, "messages:list", &json!({ "channel": "c" }), None).await;
            assert_eq!(bodies(&subscriber.next().await.data), [""; 0]);
            subscribers.push(subscriber);
        }
        // Takes the only place for as long as it may.
        let psql = host.psql().await;
        let row = json!({ "channel": "c", "author": "a", "body": "one" }).to_string();
        let write = async {
            let refused = loop {
                let answer = host.query("messages:list", json!({ "channel": "other" })).await;
                if answer.status != 200 {
                    break answer;
                }
            };
            assert_eq!(refused.code(), "OVERLOADED");
            psql.execute("insert into demo.messages (data) values ($1::text::jsonb)", &[&row]).await.expect("a row");
        };
        let (answer, ()) = futures_util::future::join(host.query("hostile:endless_loop", json!({})), write).await;
        assert_eq!(answer.code(), "DEADLINE_EXCEEDED");
        for subscriber in &mut subscribers {
            let event = subscriber.next().await;
            assert_eq!(event.kind, "result", "{event:?}");
            assert_eq!(bodies(&event.data), ["one"]);
        }
    });
}
