//! Clients that do not read what they asked for.

use std::time::Duration;

use futures_util::future::join;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use super::{PATIENCE, Subscriber, metric, send};
use crate::harness::{TestHost, run};

const STALL_MAX: Duration = Duration::from_secs(1);
/// More than the buffers of both ends of a connection, and less than a result may be.
const RESULT_BYTES: usize = 12 << 20;
/// Of a connection, at its reader.
const SMALL: u32 = 4 << 10;
const LARGE: u32 = 256 << 10;

async fn filled_host() -> TestHost {
    let host = TestHost::with(&["messages"], |config| config.stall_max = STALL_MAX).await;
    // Longer messages than the function takes.
    let fill = format!(
        "insert into demo.messages (data) select jsonb_build_object('channel', 'c', 'author', 'a', \
         'body', repeat('x', {RESULT_BYTES} / 24)) from generate_series(1, 24)"
    );
    host.psql().await.batch_execute(&fill).await.expect("messages");
    host
}

/// A connection that has asked for something, and takes little by itself.
async fn ask(host: &TestHost, request: &str, buffer_bytes: u32) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(buffer_bytes).expect("a small buffer");
    let mut stream = socket.connect(host.address()).await.expect("a connection");
    stream.write_all(request.as_bytes()).await.expect("a request");
    stream
}

/// What comes until the connection ends; an end by force is one too.
async fn read_to_end(stream: &mut TcpStream) -> usize {
    let mut buffer = vec![0; 64 << 10];
    let mut bytes = 0;
    while let Ok(count @ 1..) = timeout(PATIENCE, stream.read(&mut buffer)).await.expect("bytes, or an end") {
        bytes += count;
    }
    bytes
}

/// Until nothing is subscribed to any more but so many queries.
async fn until_left(host: &TestHost, subscriptions: u64) {
    let until = Instant::now() + PATIENCE;
    while metric(host, "convoke_subscriptions").await != subscriptions {
        assert!(Instant::now() < until, "subscriptions are left");
        sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn streams_that_are_not_read_are_closed() {
    run(async {
        let host = filled_host().await;
        let mut quiet = Subscriber::open(&host, "messages:list", &json!({ "channel": "quiet" }), None).await;
        quiet.next().await;
        let body = json!({ "channel": "c" }).to_string();
        let request = format!(
            "POST /api/subscribe/messages:list HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut streams = [ask(&host, &request, SMALL).await, ask(&host, &request, SMALL).await];
        while metric(&host, "convoke_subscriptions").await < 3 {
            sleep(Duration::from_millis(5)).await;
        }
        until_left(&host, 1).await;
        for stream in &mut streams {
            assert!(read_to_end(stream).await < RESULT_BYTES, "a whole result was sent");
        }
        // Who is told little because there is little to tell goes on.
        sleep(2 * STALL_MAX).await;
        send(&host, "quiet", "one").await;
        quiet.next().await;
    });
}

#[test]
fn sockets_that_are_not_read_are_closed() {
    run(async {
        let host = filled_host().await;
        let handshake = "GET /api/1.48.0/sync HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        let mut stream = ask(&host, handshake, SMALL).await;
        let connect = json!({ "type": "Connect", "sessionId": uuid::Uuid::now_v7(), "connectionCount": 0,
            "lastCloseReason": "InitialConnect", "clientTs": 0 });
        let add = json!({ "type": "Add", "queryId": 0, "udfPath": "messages:list", "args": [{ "channel": "c" }] });
        let modify = json!({ "type": "ModifyQuerySet", "baseVersion": 0, "newVersion": 1, "modifications": [add] });
        for message in [connect, modify] {
            stream.write_all(&frame(&message.to_string())).await.expect("a frame");
        }
        while metric(&host, "convoke_subscriptions").await < 1 {
            sleep(Duration::from_millis(5)).await;
        }
        until_left(&host, 0).await;
        assert!(read_to_end(&mut stream).await < RESULT_BYTES, "a whole result was sent");
    });
}

/// A text in a frame of a client, masked by zeros.
fn frame(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).expect("a short message").to_be_bytes();
    let mut frame = vec![0x81, 0x80 | 0x7e, length[0], length[1], 0, 0, 0, 0];
    frame.extend_from_slice(text.as_bytes());
    frame
}

#[test]
fn who_reads_slowly_has_the_time_it_needs() {
    run(async {
        let host = filled_host().await;
        let body = json!({ "channel": "c" }).to_string();
        let request = format!(
            "POST /api/query/messages:list HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let slowly = async {
            let mut stream = ask(&host, &request, LARGE).await;
            let begin = Instant::now();
            let mut buffer = vec![0; 128 << 10];
            let mut bytes = 0;
            while bytes < RESULT_BYTES / 2 || begin.elapsed() < 2 * STALL_MAX {
                let read = stream.read(&mut buffer).await.expect("bytes");
                assert!(read > 0, "the end, after {bytes} bytes");
                bytes += read;
                sleep(STALL_MAX / 50).await;
            }
            bytes + read_to_end(&mut stream).await
        };
        let mut never = ask(&host, &request, SMALL).await;
        let (slow, ()) = join(slowly, sleep(3 * STALL_MAX)).await;
        assert!(slow > RESULT_BYTES, "{slow} bytes");
        assert!(read_to_end(&mut never).await < RESULT_BYTES);
    });
}
