//! What one socket and all of them may ask for.

use convoke_server::ServerLimits;
use serde_json::{Value, json};

use super::{Socket, add};
use crate::harness::{TestHost, run};

async fn host(limits: ServerLimits) -> TestHost {
    TestHost::with(&["messages"], |config| config.server_limits = limits).await
}

#[test]
fn a_socket_shows_so_many_queries() {
    run(async {
        let host = TestHost::start(&["messages"]).await;
        let mut socket = Socket::open(&host).await;
        let queries: Vec<Value> =
            (0..100_000).map(|id| add(id, "messages:list", &json!({ "channel": id.to_string() }))).collect();
        socket.modify(&queries).await;
        let (last, _, _) = socket.end().await;
        let last = last.expect("words");
        assert_eq!(last["type"], "FatalError");
        assert!(last["error"].as_str().is_some_and(|words| words.starts_with("TooManyQueries")), "{last}");
        // Nothing of it is left to those who come then.
        let mut newcomer = Socket::open(&host).await;
        newcomer.subscribe(0, "messages:list", &json!({ "channel": "c" })).await;
        assert_eq!(newcomer.next_result().await["value"], json!([]));
    });
}

#[test]
fn there_are_so_many_sockets() {
    run(async {
        let host = host(ServerLimits { sockets_max: 1, ..ServerLimits::default() }).await;
        let mut only = Socket::open(&host).await;
        only.subscribe(0, "messages:list", &json!({ "channel": "a" })).await;
        only.next_result().await;
        let stream = host.post("/api/subscribe/messages:list", json!({ "channel": "a" }).to_string()).await;
        assert_eq!((stream.status, &stream.body["error"]["details"]["limit"]), (503, &json!("sockets_max")));
        host.query("messages:list", json!({ "channel": "a" })).await.data();
    });
}

#[test]
fn calls_that_wait_are_bounded_in_bytes() {
    run(async {
        let host = host(ServerLimits { bodies_bytes_max: 1 << 20, ..ServerLimits::default() }).await;
        let mut socket = Socket::open(&host).await;
        let args = |bytes: usize| json!({ "channel": "c", "author": "a", "body": "x".repeat(bytes) });
        socket.mutate(0, "messages:send", &args(10)).await;
        assert_eq!(socket.next_of("MutationResponse").await["success"], true);
        socket.mutate(1, "messages:send", &args(2 << 20)).await;
        let (_, code, reason) = socket.end().await;
        assert_eq!((code, reason.as_str()), (Some(1013), "TooManyConcurrentRequests"));
        // What it held is given back.
        let mut socket = Socket::open(&host).await;
        for id in 0..8 {
            socket.mutate(id, "messages:send", &args(500_000)).await;
            assert_eq!(socket.next_of("MutationResponse").await["requestId"], id);
        }
    });
}

#[test]
fn what_is_too_much_at_once_waits_in_the_clients_own_buffers() {
    run(async {
        let host = TestHost::start(&["messages"]).await;
        let mut socket = Socket::open(&host).await;
        // More than one socket may have waiting, and each is answered.
        let body = "x".repeat(12 << 20);
        for id in 0..6 {
            socket.mutate(id, "messages:send", &json!({ "channel": "c", "author": "a", "body": body })).await;
        }
        for id in 0..6 {
            let answer = socket.next_of("MutationResponse").await;
            assert_eq!((&answer["requestId"], &answer["success"]), (&json!(id), &json!(false)));
        }
    });
}
