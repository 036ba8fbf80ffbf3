//! What one socket and all of them may ask for.

use std::time::Duration;

use convoke_server::ServerLimits;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::{PATIENCE, Socket, add};
use crate::harness::{TestHost, run};
use crate::live::Subscriber;

async fn host(limits: ServerLimits) -> TestHost {
    TestHost::with(&["messages", "friendly"], |config| config.server_limits = limits).await
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
fn what_sockets_show_takes_no_room_from_calls() {
    run(async {
        let host = host(ServerLimits { bodies_bytes_max: 1 << 20, ..ServerLimits::default() }).await;
        let mut socket = Socket::open(&host).await;
        socket.subscribe(0, "no:such", &json!({ "large": "x".repeat(1_000_000) })).await;
        assert_eq!(socket.next_of("Transition").await["modifications"][0]["type"], "QueryFailed");
        host.query("friendly:echo", json!({ "value": "x".repeat(100_000) })).await.data();
    });
}

#[test]
fn what_all_clients_show_is_bounded() {
    run(async {
        let host = host(ServerLimits { queries_bytes_max: 1 << 20, ..ServerLimits::default() }).await;
        let args = json!({ "channel": "x".repeat(600_000) });
        let mut first = Socket::open(&host).await;
        first.subscribe(0, "messages:list", &args).await;
        first.next_result().await;
        let mut second = Socket::open(&host).await;
        second.subscribe(0, "messages:list", &args).await;
        let (_, code, reason) = second.end().await;
        assert_eq!((code, reason.as_str()), (Some(1013), "TooManyConcurrentRequests"));
        let stream = host.post("/api/subscribe/messages:list", args.to_string()).await;
        assert_eq!((stream.status, &stream.body["error"]["details"]["limit"]), (503, &json!("queries_bytes_max")));
        let larger = json!({ "channel": "x".repeat(3 << 20) }).to_string();
        assert_eq!(host.post("/api/subscribe/messages:list", larger).await.status, 413);
        // A client that shows something else makes room.
        first.modify(&[json!({ "type": "Remove", "queryId": 0 })]).await;
        first.next_of("Transition").await;
        let mut stream = Subscriber::open(&host, "messages:list", &args, None).await;
        stream.next().await;
    });
}

/// The beginning of a frame of text with so many bytes, and the first of them.
fn part(bytes: u64, sent: usize) -> Vec<u8> {
    let mut frame = vec![0x81, 0x80 + 127];
    frame.extend(bytes.to_be_bytes());
    frame.extend([0; 4]);
    frame.extend(vec![b' '; sent]);
    frame
}

/// The connection of a socket, for what no client says.
async fn raw(host: &TestHost) -> TcpStream {
    let stream = TcpStream::connect(host.address()).await.expect("a connection");
    let (socket, _) =
        tokio_tungstenite::client_async("ws://localhost/api/1.48.0/sync", stream).await.expect("a socket");
    socket.into_inner()
}

#[test]
fn a_message_that_is_not_whole_counts_and_has_its_time() {
    run(async {
        let limits = ServerLimits { bodies_bytes_max: 1 << 20, body_ms_max: 300, ..ServerLimits::default() };
        let host = host(limits).await;
        let call = json!({ "value": "x".repeat(300_000) });
        let refused = async {
            loop {
                let mut slow = raw(&host).await;
                slow.write_all(&part(900_000, 800_000)).await.expect("it is taken");
                // Where the other one is there before it, it is this one that ends: then once more.
                sleep(Duration::from_millis(100)).await;
                let answer = host.query("friendly:echo", call.clone()).await;
                if answer.status != 200 {
                    return (slow, answer);
                }
            }
        };
        let (mut slow, refused) = timeout(PATIENCE, refused).await.expect("once it has come");
        assert_eq!((refused.status, &refused.body["error"]["details"]["limit"]), (503, &json!("bodies_bytes_max")));
        // Pings and pongs in between change nothing.
        let mut said = vec![0; 1 << 10];
        let ended = async { while slow.read(&mut said).await.is_ok_and(|count| count > 0) {} };
        timeout(PATIENCE, ended).await.expect("its time is over");
        host.query("friendly:echo", call).await.data();
    });
}

#[test]
fn a_call_counts_until_it_ends_though_its_socket_is_gone() {
    run(async {
        let limits = ServerLimits { bodies_bytes_max: 1 << 20, sockets_max: 1, ..ServerLimits::default() };
        let host = host(limits).await;
        let (psql, onlooker) = (host.psql().await, host.psql().await);
        host.deploy(&["friendly", "hostile"]).await.expect("a deployment");
        psql.batch_execute("begin; lock table demo.marks in exclusive mode").await.expect("a lock");
        let mut socket = Socket::open(&host).await;
        socket.mutate(0, "hostile:write", &json!({ "name": "x".repeat(900_000) })).await;
        let waiting =
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        let blocked = async {
            while onlooker.query_one(waiting, &[]).await.expect("a count").get::<_, i64>(0) == 0 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, blocked).await.expect("it waits for the lock");
        drop(socket);
        // Another one finds a place when it is gone.
        let gone = async {
            loop {
                let stream = TcpStream::connect(host.address()).await.expect("a connection");
                if tokio_tungstenite::client_async("ws://localhost/api/1.48.0/sync", stream).await.is_ok() {
                    break;
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, gone).await.expect("it is gone");
        let call = json!({ "value": "x".repeat(300_000) });
        let refused = host.query("friendly:echo", call.clone()).await;
        assert_eq!((refused.status, &refused.body["error"]["details"]["limit"]), (503, &json!("bodies_bytes_max")));
        psql.batch_execute("rollback").await.expect("an end");
        let served = async {
            while host.query("friendly:echo", call.clone()).await.status != 200 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, served).await.expect("what it held is given back");
    });
}

#[test]
fn who_pings_and_reads_nothing_is_not_listened_to() {
    run(async {
        let host = TestHost::start(&["messages"]).await;
        let mut stream = raw(&host).await;
        let mut ping = vec![0x89, 0x80 + 125, 0, 0, 0, 0];
        ping.extend([b' '; 125]);
        let pings = ping.repeat(1 << 13);
        let flood = async {
            // More than lies in the system's buffers, both ways.
            for _ in 0..64 {
                stream.write_all(&pings).await.expect("an open socket");
            }
        };
        assert!(timeout(Duration::from_secs(5), flood).await.is_err(), "somebody keeps the pongs");
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
