//! Convex' sync protocol on real sockets: what is said on them, how they end, what they are bounded by.

mod bounds;
mod failures;
mod freezes;
mod last_words;
mod transitions;

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use crate::harness::TestHost;

/// How long anything may take here.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// A client that says what a test tells it to.
pub(crate) struct Socket {
    stream: WebSocketStream<TcpStream>,
    query_set: u32,
}

/// What came on a socket.
#[derive(Debug)]
pub(crate) enum Said {
    Message(Value),
    /// The code, where there is one, and the reason.
    Close(Option<u16>, String),
}

impl Socket {
    pub(crate) async fn open(host: &TestHost) -> Self {
        let mut socket = Self::open_silently(host).await;
        let connect = json!({ "type": "Connect", "sessionId": Uuid::new_v4(), "connectionCount": 0,
            "lastCloseReason": "InitialConnect", "clientTs": 0 });
        socket.say(&connect).await;
        socket
    }

    /// Without `Connect`.
    pub(crate) async fn open_silently(host: &TestHost) -> Self {
        let stream = TcpStream::connect(host.address()).await.expect("a connection");
        let (stream, _) =
            tokio_tungstenite::client_async("ws://localhost/api/1.48.0/sync", stream).await.expect("a socket");
        Self { stream, query_set: 0 }
    }

    pub(crate) async fn say(&mut self, message: &Value) {
        self.stream.send(Message::text(message.to_string())).await.expect("an open socket");
    }

    pub(crate) async fn modify(&mut self, modifications: &[Value]) {
        let (base, new) = (self.query_set, self.query_set + 1);
        self.query_set = new;
        self.say(&json!({ "type": "ModifyQuerySet", "baseVersion": base, "newVersion": new,
            "modifications": modifications }))
            .await;
    }

    pub(crate) async fn subscribe(&mut self, id: u32, path: &str, args: &Value) {
        self.modify(&[add(id, path, args)]).await;
    }

    pub(crate) async fn mutate(&mut self, id: u32, path: &str, args: &Value) {
        self.say(&json!({ "type": "Mutation", "requestId": id, "udfPath": path, "args": [args] })).await;
    }

    /// The next that is no ping of either kind.
    pub(crate) async fn next(&mut self) -> Said {
        timeout(PATIENCE, async {
            loop {
                match self.stream.next().await.expect("no end without a close").expect("a frame") {
                    Message::Text(text) => {
                        let message: Value = serde_json::from_str(&text).expect("JSON");
                        if message["type"] != "Ping" {
                            return Said::Message(message);
                        }
                    }
                    Message::Close(frame) => {
                        let (code, reason) = frame
                            .map_or((None, String::new()), |frame| (Some(frame.code.into()), frame.reason.to_string()));
                        return Said::Close(code, reason);
                    }
                    _ => {}
                }
            }
        })
        .await
        .expect("something in time")
    }

    /// The next message of this type; others are passed over.
    pub(crate) async fn next_of(&mut self, kind: &str) -> Value {
        loop {
            match self.next().await {
                Said::Message(message) if message["type"] == kind => return message,
                Said::Message(_) => {}
                Said::Close(code, reason) => panic!("closed with {code:?} {reason}"),
            }
        }
    }

    /// What the next transition that shows something shows.
    pub(crate) async fn next_result(&mut self) -> Value {
        loop {
            let transition = self.next_of("Transition").await;
            if let Some(first) = transition["modifications"].as_array().and_then(|list| list.first()) {
                return first.clone();
            }
        }
    }

    /// The end: the last message before it, the code and the reason.
    pub(crate) async fn end(&mut self) -> (Option<Value>, Option<u16>, String) {
        let mut last = None;
        loop {
            match self.next().await {
                Said::Message(message) => last = Some(message),
                Said::Close(code, reason) => return (last, code, reason),
            }
        }
    }
}

pub(crate) fn add(id: u32, path: &str, args: &Value) -> Value {
    json!({ "type": "Add", "queryId": id, "udfPath": path, "args": [args] })
}
