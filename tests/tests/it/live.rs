//! Live queries: subscribers are told of what concerns them, and of nothing else.

mod begins;
mod crowds;
mod events;
mod exactness;
mod moments;
mod outages;
mod resume;
mod stalled;
mod unpublished;

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::harness::TestHost;

/// How long anything may take here.
const PATIENCE: Duration = Duration::from_secs(20);

/// One stream of server-sent events.
pub(crate) struct Subscriber {
    body: Incoming,
    text: String,
    connection: JoinHandle<()>,
}

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    pub(crate) kind: String,
    pub(crate) id: u64,
    pub(crate) data: Value,
}

impl Subscriber {
    pub(crate) async fn open(host: &TestHost, path: &str, args: &Value, last: Option<u64>) -> Self {
        Self::open_after(host, path, args, last.map(|last| last.to_string()).as_deref()).await
    }

    /// With any text for the id of the last event.
    pub(crate) async fn open_after(host: &TestHost, path: &str, args: &Value, last: Option<&str>) -> Self {
        let stream = TcpStream::connect(host.address()).await.expect("a connection");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("a handshake");
        let connection = tokio::spawn(async move {
            let _ = connection.await;
        });
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(format!("/api/subscribe/{path}"))
            .header("host", "localhost")
            .header("accept", "text/event-stream");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let request = request.body(Full::new(Bytes::from(args.to_string()))).expect("a request");
        let response = sender.send_request(request).await.expect("an answer");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        // The connection lives as long as its sender.
        std::mem::forget(sender);
        Self { body: response.into_body(), text: String::new(), connection }
    }

    /// The next event; the first lines of a stream are none.
    pub(crate) async fn next(&mut self) -> Event {
        tokio::time::timeout(PATIENCE, self.next_unbounded()).await.expect("an event in time")
    }

    /// Whether nothing comes for a while.
    pub(crate) async fn is_silent(&mut self, time: Duration) -> bool {
        tokio::time::timeout(time, self.next_unbounded()).await.is_err()
    }

    async fn next_unbounded(&mut self) -> Event {
        loop {
            while let Some(end) = self.text.find("\n\n") {
                let block: String = self.text.drain(..end + 2).collect();
                if let Some(event) = parse(&block) {
                    return event;
                }
            }
            let frame = self.body.frame().await.expect("a stream that goes on").expect("a frame");
            if let Ok(data) = frame.into_data() {
                self.text.push_str(std::str::from_utf8(&data).expect("UTF-8"));
            }
        }
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

fn parse(block: &str) -> Option<Event> {
    let field = |name: &str| {
        block
            .lines()
            .find_map(|line| line.strip_prefix(name).and_then(|rest| rest.strip_prefix(": ")))
            .map(str::to_owned)
    };
    Some(Event {
        kind: field("event")?,
        id: field("id")?.parse().expect("a timestamp"),
        data: serde_json::from_str(&field("data")?).expect("JSON"),
    })
}

/// Sends a message; gives its id.
pub(crate) async fn send(host: &TestHost, channel: &str, body: &str) -> String {
    let args = json!({ "channel": channel, "author": "a", "body": body });
    host.mutation("messages:send", args).await.data().as_str().expect("an id").to_owned()
}

/// What the messages of an event say.
pub(crate) fn bodies(data: &Value) -> Vec<&str> {
    data["data"].as_array().expect("a list").iter().map(|message| message["body"].as_str().expect("a body")).collect()
}

/// A counter of `/metrics`, with its labels.
pub(crate) async fn metric(host: &TestHost, name: &str) -> u64 {
    let (_, text) = host.send_text(Method::GET, "/metrics", Bytes::new()).await;
    let line = text.lines().find_map(|line| line.strip_prefix(name).and_then(|rest| rest.strip_prefix(' ')));
    line.map_or(0, |value| value.parse().expect("a number"))
}
