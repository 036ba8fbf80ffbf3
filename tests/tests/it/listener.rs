//! Who connects and does not ask, asks slowly, or asks for too much at once.

use std::time::Duration;

use convoke_server::ServerLimits;
use hyper::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use crate::harness::{TestHost, run};
use crate::live::Subscriber;

/// How long anything may take here.
const PATIENCE: Duration = Duration::from_mins(1);

async fn host(limits: ServerLimits) -> TestHost {
    TestHost::with(&["messages", "friendly"], |config| config.server_limits = limits).await
}

/// A connection that has said this.
async fn say(host: &TestHost, text: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(host.address()).await.expect("a connection");
    stream.write_all(text).await.expect("sent");
    stream
}

/// All that comes until the server ends the connection.
async fn to_end(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut text)).await.expect("an end in time").expect("no reset");
    String::from_utf8(text).expect("text")
}

/// The status and the body of an answer in the clean form.
fn answer(text: &str) -> (u16, Value) {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, serde_json::from_str(body).expect("JSON"))
}

async fn list(host: &TestHost) -> u16 {
    let listed = host.query("messages:list", json!({ "channel": "c" }));
    timeout(PATIENCE, listed).await.expect("an answer in time").status
}

#[test]
fn half_open_requests_lock_nobody_out() {
    run(async {
        let host = host(ServerLimits { connections_max: 64, ..ServerLimits::default() }).await;
        let mut half_open = Vec::new();
        for number in 0..1_000 {
            half_open.push(say(&host, if number % 2 == 0 { b"POST /api/query/mess" } else { b"" }).await);
            if number % 100 == 99 {
                assert_eq!(list(&host).await, 200);
            }
        }
        drop(half_open);
    });
}

#[test]
fn a_head_a_body_and_idleness_have_their_time() {
    run(async {
        let (head_ms_max, body_ms_max, idle_ms_max) = (300, 300, 600);
        let limits = ServerLimits { head_ms_max, body_ms_max, idle_ms_max, ..ServerLimits::default() };
        let host = host(limits).await;
        assert_eq!(to_end(&mut say(&host, b"").await).await, "");
        assert_eq!(to_end(&mut say(&host, b"GET /healthz HTTP/1.1\r\nhost: ").await).await, "");
        let mut idle = say(&host, b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        assert_eq!(answer(&to_end(&mut idle).await), (200, json!({ "ok": true })));
        let mut slow =
            say(&host, b"POST /api/query/friendly:echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{")
                .await;
        let (status, body) = answer(&to_end(&mut slow).await);
        assert_eq!((status, &body["error"]["code"]), (408, &json!("REQUEST_TIMEOUT")));
        // A stream has asked for all it wants.
        let mut stream = Subscriber::open(&host, "messages:list", &json!({ "channel": "c" }), None).await;
        stream.next().await;
        sleep(Duration::from_millis(3 * idle_ms_max)).await;
        crate::live::send(&host, "c", "late").await;
        stream.next().await;
    });
}

#[test]
fn a_refusal_arrives_while_the_body_is_still_being_sent() {
    run(async {
        let host = host(ServerLimits::default()).await;
        for _ in 0..10 {
            let head = format!(
                "POST /api/query/friendly:echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n",
                20 << 20
            );
            let mut stream = say(&host, head.as_bytes()).await;
            stream.write_all(&vec![b' '; 8 << 20]).await.expect("it is taken");
            let (status, body) = answer(&to_end(&mut stream).await);
            assert_eq!((status, &body["error"]["code"]), (413, &json!("PAYLOAD_TOO_LARGE")));
        }
    });
}

#[test]
fn bodies_are_bounded_together() {
    run(async {
        let host = host(ServerLimits { bodies_bytes_max: 1 << 20, ..ServerLimits::default() }).await;
        // One that has said that much and not all.
        let head =
            format!("POST /api/query/friendly:echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", 1 << 20);
        let first = async || {
            let mut first = say(&host, head.as_bytes()).await;
            first.write_all(&vec![b' '; 900_000]).await.expect("it is taken");
            first
        };
        let text = json!({ "value": "x".repeat(300_000) }).to_string();
        let refused = async {
            loop {
                let first = first().await;
                // Where the other one is there before it, it is the first that is refused: then once more.
                sleep(Duration::from_millis(50)).await;
                let answer = host.post("/api/query/friendly:echo", text.clone()).await;
                if answer.status != 200 {
                    return (first, answer);
                }
            }
        };
        let (first, refused) = timeout(PATIENCE, refused).await.expect("once the first has come");
        assert_eq!((refused.status, refused.code()), (503, "OVERLOADED"));
        assert_eq!(refused.body["error"]["details"], json!({ "limit": "bodies_bytes_max", "outcome": "not_begun" }));
        assert_eq!(list(&host).await, 200, "a small one has room");
        drop(first);
        let served = async {
            while host.post("/api/query/friendly:echo", text.clone()).await.status != 200 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, served).await.expect("what it held is given back");
    });
}

#[test]
fn requests_in_work_are_bounded_and_the_host_still_says_how_it_is() {
    run(async {
        let host = host(ServerLimits { requests_max: 1, ..ServerLimits::default() }).await;
        // One whose body does not come is in work.
        let head = b"POST /api/query/friendly:echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{";
        let first = say(&host, head).await;
        let refused = async {
            loop {
                let answer = host.query("messages:list", json!({ "channel": "c" })).await;
                if answer.status != 200 {
                    return answer;
                }
            }
        };
        let refused = timeout(PATIENCE, refused).await.expect("once the first has come");
        assert_eq!((refused.status, &refused.body["error"]["details"]["limit"]), (503, &json!("requests_max")));
        assert_eq!(host.send(Method::GET, "/healthz", "".into()).await.status, 200);
        drop(first);
        let served = async {
            while list(&host).await != 200 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, served).await.expect("a place, once there is one");
    });
}

#[test]
fn streams_are_no_requests_in_work() {
    run(async {
        let host = host(ServerLimits { requests_max: 1, ..ServerLimits::default() }).await;
        let mut stream = Subscriber::open(&host, "messages:list", &json!({ "channel": "c" }), None).await;
        stream.next().await;
        assert_eq!(list(&host).await, 200);
    });
}

#[test]
fn who_finds_no_place_is_told_so() {
    run(async {
        let host = host(ServerLimits { connections_max: 2, ..ServerLimits::default() }).await;
        let open = async || {
            let mut stream = Subscriber::open(&host, "messages:list", &json!({ "channel": "c" }), None).await;
            stream.next().await;
            stream
        };
        let (first, second) = (open().await, open().await);
        let request = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        let mut third = say(&host, request).await;
        let text = to_end(&mut third).await;
        let (status, body) = answer(&text);
        assert_eq!((status, &body["error"]["details"]["limit"]), (503, &json!("connections_max")));
        assert!(text.contains("\r\nconvoke-request-id: "), "{text}");
        drop(first);
        let served = async {
            while answer(&to_end(&mut say(&host, request).await).await).0 != 200 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, served).await.expect("a place, once there is one");
        drop(second);
    });
}

/// What a slow reader is sent: more than lies in the system's buffers.
const LARGE_BYTES: usize = 12 << 20;

async fn host_with_a_large_result(limits: ServerLimits) -> TestHost {
    let host = host(limits).await;
    let fill = format!(
        "insert into demo.messages (data) select jsonb_build_object('channel', 'c', 'author', 'a', \
         'body', repeat('x', {LARGE_BYTES} / 24)) from generate_series(1, 24)"
    );
    host.psql().await.batch_execute(&fill).await.expect("messages");
    host
}

/// Asks for the large result, and takes as little of it as it can.
async fn slow_reader(host: &TestHost, route: &str) -> TcpStream {
    let body = json!({ "channel": "c" }).to_string();
    let request = format!(
        "POST /api/{route}/messages:list HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(64 << 10).expect("a small buffer");
    let mut stream = socket.connect(host.address()).await.expect("a connection");
    stream.write_all(request.as_bytes()).await.expect("a request");
    stream
}

/// Reads so many bytes at least.
async fn read_on(reader: &mut TcpStream, bytes: usize) {
    let (mut taken, mut buffer) = (0, vec![0; 256 << 10]);
    while taken < bytes {
        let count = timeout(PATIENCE, reader.read(&mut buffer)).await.expect("its turn").expect("bytes");
        assert!(count > 0, "cut off after {taken} bytes");
        taken += count;
    }
}

#[test]
fn what_slow_readers_hold_is_bounded() {
    run(async {
        let limits = ServerLimits { answers_bytes_max: 16 << 20, ..ServerLimits::default() };
        let host = host_with_a_large_result(limits).await;
        let mut readers = Vec::new();
        for _ in 0..4 {
            readers.push(slow_reader(&host, "subscribe").await);
        }
        // There is room for the result of one; the others wait until it has been read.
        let begun = async || {
            let mut begun = 0;
            let mut peeked = [0; 1_024];
            for reader in &readers {
                let count = reader.peek(&mut peeked).await.expect("the first line");
                begun += usize::from(String::from_utf8_lossy(&peeked[..count]).contains("event: result"));
            }
            begun
        };
        while begun().await == 0 {
            sleep(Duration::from_millis(5)).await;
        }
        sleep(Duration::from_millis(500)).await;
        assert_eq!(begun().await, 1);
        assert_eq!(host.query("messages:list", json!({ "channel": "other" })).await.data(), &json!([]));
        let all = readers.into_iter().map(async |mut reader| read_on(&mut reader, LARGE_BYTES).await);
        futures_util::future::join_all(all).await;
    });
}

#[test]
fn an_answer_counts_until_it_is_sent() {
    run(async {
        let limits = ServerLimits { answers_bytes_max: 16 << 20, ..ServerLimits::default() };
        let host = host_with_a_large_result(limits).await;
        let mut readers = [slow_reader(&host, "query").await, slow_reader(&host, "query").await];
        for reader in &mut readers {
            reader.peek(&mut [0; 64]).await.expect("a head");
        }
        let refused = host.query("messages:list", json!({ "channel": "other" })).await;
        assert_eq!((refused.status, &refused.body["error"]["details"]["limit"]), (503, &json!("answers_bytes_max")));
        for reader in &mut readers {
            read_on(reader, LARGE_BYTES).await;
        }
        let served = async {
            while list(&host).await != 200 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, served).await.expect("what they held is given back");
    });
}

#[test]
fn an_answer_is_not_cut_off_for_a_newcomer() {
    run(async {
        let host = host_with_a_large_result(ServerLimits { connections_max: 1, ..ServerLimits::default() }).await;
        let mut reader = slow_reader(&host, "query").await;
        reader.peek(&mut [0; 64]).await.expect("a head");
        let request = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        let refused = to_end(&mut say(&host, request).await).await;
        assert_eq!(answer(&refused).0, 503, "{refused}");
        read_on(&mut reader, LARGE_BYTES).await;
        // Now it is at nothing.
        let served = async {
            while answer(&to_end(&mut say(&host, request).await).await).0 != 200 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, served).await.expect("its place, once it is at nothing");
    });
}

#[test]
fn heads_are_bounded() {
    run(async {
        let host = host(ServerLimits::default()).await;
        // As long as an address may be, which is where a subscription by `GET` has its arguments.
        let args = json!({ "channel": "c".repeat(64_000) }).to_string().replace('"', "%22");
        let head = format!("GET /api/query?path=messages:list&args={args} HTTP/1.1\r\nhost: localhost\r\n");
        let text = to_end(&mut say(&host, format!("{head}connection: close\r\n\r\n").as_bytes()).await).await;
        assert_eq!(answer(&text), (200, json!({ "status": "success", "value": [], "logLines": [] })));
        let large = format!("{head}x-large: {}\r\n\r\n", "x".repeat(100_000));
        let text = to_end(&mut say(&host, large.as_bytes()).await).await;
        assert!(text.starts_with("HTTP/1.1 431"), "{text}");
    });
}

/// What a page of another origin asks, and the answer's head and body.
async fn page_asks(host: &TestHost, request: &str) -> (String, Value) {
    let text =
        format!("{request} HTTP/1.1\r\nhost: localhost\r\norigin: https://app.example\r\nconnection: close\r\n\r\n");
    let text = to_end(&mut say(host, text.as_bytes()).await).await;
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    (head.to_lowercase(), serde_json::from_str(body).unwrap_or(Value::Null))
}

#[test]
fn refusals_have_the_promised_form() {
    run(async {
        let host = host(ServerLimits::default()).await;
        for (request, status) in [
            ("GET /api/query/%FF", 405),
            ("POST /api/query/%FF", 400),
            ("POST /api/mutation/%FF", 400),
            ("GET /api/subscribe/%FF", 400),
            ("POST /api/subscribe/%FF", 400),
            ("GET /api/sync", 400),
            ("GET /api/1.48.0/sync", 400),
            ("GET /api/%FF/sync", 400),
            ("GET /api/nothing", 404),
            ("OPTIONS /api/query/messages:list", 200),
        ] {
            let (head, body) = page_asks(&host, request).await;
            assert!(head.starts_with(&format!("http/1.1 {status}")), "{request}: {head}");
            assert!(head.contains("\r\nconvoke-request-id: "), "{request}: {head}");
            assert!(head.contains("\r\naccess-control-allow-origin: https://app.example"), "{request}: {head}");
            if status != 200 {
                assert!(body["error"]["code"].is_string(), "{request}: {body}");
            }
        }
        let (head, _) = page_asks(&host, "GET /api/query?path=messages:list").await;
        let exposed = head.lines().find(|line| line.starts_with("access-control-expose-headers")).expect("headers");
        assert!(exposed.contains("convoke-request-id") && exposed.contains("convoke-version"), "{exposed}");
    });
}

#[test]
fn refusals_at_the_door_have_it_too() {
    run(async {
        let limits = ServerLimits { requests_max: 0, ..ServerLimits::default() };
        let host = host(limits).await;
        let (head, body) = page_asks(&host, "GET /api/query?path=messages:list").await;
        assert_eq!(body["error"]["details"]["limit"], "requests_max");
        assert!(head.contains("access-control-allow-origin: https://app.example"), "{head}");
        assert!(head.contains("convoke-request-id: "), "{head}");
    });
}

#[test]
fn pages_of_any_origin_may_call_and_others_pay_nothing() {
    run(async {
        let host = host(ServerLimits::default()).await;
        let preflight = "OPTIONS /api/query/messages:list HTTP/1.1\r\nhost: localhost\r\norigin: https://app.example\r\n\
             access-control-request-method: POST\r\naccess-control-request-headers: x-mine\r\nconnection: close\r\n\r\n";
        let head = to_end(&mut say(&host, preflight.as_bytes()).await).await.to_lowercase();
        assert!(head.contains("access-control-allow-origin: https://app.example"), "{head}");
        assert!(head.contains("access-control-allow-headers: x-mine"), "{head}");
        let ask = |origin: &str| {
            format!(
                "GET /api/query?path=messages:list HTTP/1.1\r\nhost: localhost\r\n{origin}connection: close\r\n\r\n"
            )
        };
        let with =
            to_end(&mut say(&host, ask("origin: https://app.example\r\n").as_bytes()).await).await.to_lowercase();
        assert!(with.contains("access-control-allow-credentials: true"), "{with}");
        let without = to_end(&mut say(&host, ask("").as_bytes()).await).await.to_lowercase();
        assert!(!without.contains("access-control"), "{without}");
    });
}
