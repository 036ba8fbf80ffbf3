//! What is said at the end of a socket arrives, whatever its client is sending at that time.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{PATIENCE, Socket, add};
use crate::harness::{TestHost, run};

const HANDSHAKE: &str = "GET /api/1.48.0/sync HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\n\
     connection: upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A text in a frame of a client, masked by zeros.
fn frame(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).expect("a short message").to_be_bytes();
    let mut frame = vec![0x81, 0x80 | 0x7e, length[0], length[1], 0, 0, 0, 0];
    frame.extend_from_slice(text.as_bytes());
    frame
}

/// Says these messages and much more behind them, then reads to the end. The last message that came, and whether a close
/// frame did.
async fn flood(host: &TestHost, messages: &[Value]) -> (Option<Value>, bool) {
    let mut stream = TcpStream::connect(host.address()).await.expect("a connection");
    stream.write_all(HANDSHAKE.as_bytes()).await.expect("a handshake");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("an answer"));
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    let event = json!({ "type": "Event", "eventType": "x", "event": "x".repeat(8_000) }).to_string();
    let mut sent: Vec<u8> = messages.iter().flat_map(|message| frame(&message.to_string())).collect();
    for _ in 0..100 {
        sent.extend(frame(&event));
    }
    stream.write_all(&sent).await.expect("all of it is taken");
    let mut received = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut received)).await.expect("an end in time").expect("no reset");
    frames(&received)
}

/// The last text among frames of a server, and whether a close frame came last.
fn frames(mut bytes: &[u8]) -> (Option<Value>, bool) {
    let (mut last, mut closed) = (None, false);
    while let [first, length, rest @ ..] = bytes {
        let (length, rest) = match *length {
            126 => (usize::from(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]),
            length => (usize::from(length), rest),
        };
        let payload = &rest[..length];
        match first & 0x0f {
            1 => last = Some(serde_json::from_slice(payload).expect("JSON")),
            8 => closed = true,
            _ => {}
        }
        bytes = &rest[length..];
    }
    (last, closed)
}

#[test]
fn they_arrive_though_more_frames_are_pending() {
    run(async {
        let host = TestHost::start(&["messages"]).await;
        let connect = json!({ "type": "Connect", "sessionId": uuid::Uuid::new_v4(), "connectionCount": 0,
            "lastCloseReason": "InitialConnect", "clientTs": 0 });
        let token = json!({ "type": "Authenticate", "baseVersion": 0, "tokenType": "User", "value": "x.y.z" });
        for _ in 0..40 {
            let (last, closed) = flood(&host, &[json!({ "type": "Nonsense" })]).await;
            assert_eq!(last.expect("words")["type"], "FatalError");
            assert!(closed);
            let (last, closed) = flood(&host, &[connect.clone(), token.clone()]).await;
            assert_eq!(last.expect("words")["type"], "AuthError");
            assert!(closed);
        }
    });
}

#[test]
fn a_message_that_is_too_large_is_said_to_be() {
    run(async {
        let limits = convoke_model::Limits { body_bytes_max: 100_000, ..convoke_model::Limits::default() };
        let host = TestHost::with_limits(&["messages"], limits).await;
        let mut socket = Socket::open(&host).await;
        socket.subscribe(0, "messages:list", &json!({ "channel": "x".repeat(200_000) })).await;
        let (last, code, _) = socket.end().await;
        let last = last.expect("words");
        assert_eq!((last["type"].as_str(), code), (Some("FatalError"), None));
        assert!(last["error"].as_str().is_some_and(|words| words.contains("100000 bytes")), "{last}");
    });
}

#[test]
fn a_clients_mistake_is_fatal_and_said() {
    run(async {
        let host = TestHost::start(&["messages"]).await;
        let mut socket = Socket::open(&host).await;
        let query = add(0, "messages:list", &json!({ "channel": "c" }));
        socket.modify(&[query.clone(), query]).await;
        let (last, code, reason) = socket.end().await;
        assert_eq!(last.expect("words")["type"], "FatalError");
        assert_eq!((code, reason.as_str()), (None, ""));
    });
}
