//! A client of Convex' protocol that calls mutations, one at a time.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use crate::harness::TestHost;

/// A session, which goes on over as many sockets as it takes.
pub(crate) struct SocketClient {
    address: std::net::SocketAddr,
    session: Uuid,
    socket: Option<WebSocketStream<TcpStream>>,
    connections: u32,
    requests: u32,
}

/// What became of a mutation, as far as the client was told.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Told {
    Value(Value),
    /// The words of an error.
    Error(String),
    /// The socket ended before the answer.
    Nothing,
}

impl SocketClient {
    pub(crate) fn new(host: &TestHost) -> Self {
        Self { address: host.address(), session: Uuid::now_v7(), socket: None, connections: 0, requests: 0 }
    }

    /// Calls a mutation and sends it again over new sockets until it is answered.
    pub(crate) async fn mutate(&mut self, path: &str, args: &Value) -> Result<Value, String> {
        self.requests += 1;
        for _ in 0..50 {
            match self.send(self.requests, path, args).await {
                Told::Value(value) => return Ok(value),
                Told::Error(words) => return Err(words),
                Told::Nothing => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            }
        }
        panic!("{path} is never answered");
    }

    /// Calls a mutation, once.
    pub(crate) async fn mutate_once(&mut self, path: &str, args: &Value) -> Told {
        self.requests += 1;
        self.send(self.requests, path, args).await
    }

    /// Sends the last mutation again, as one does who was told nothing, and this time with these arguments.
    pub(crate) async fn again(&mut self, path: &str, args: &Value) -> Told {
        self.send(self.requests, path, args).await
    }

    /// Ends the socket; the session goes on.
    pub(crate) fn disconnect(&mut self) {
        self.socket = None;
    }

    /// Says at the next connection that it is the first.
    pub(crate) fn count_anew(&mut self) {
        self.connections = 0;
    }

    async fn send(&mut self, request: u32, path: &str, args: &Value) -> Told {
        if self.socket.is_none() {
            self.connect().await;
        }
        let mutation = json!({ "type": "Mutation", "requestId": request, "udfPath": path, "args": [args] }).to_string();
        let Some(socket) = &mut self.socket else { return Told::Nothing };
        if socket.send(Message::text(mutation)).await.is_err() {
            self.socket = None;
            return Told::Nothing;
        }
        while let Some(Ok(message)) = socket.next().await {
            let Message::Text(text) = message else { continue };
            let mut message: Value = serde_json::from_str(&text).expect("JSON");
            if message["type"] == "MutationResponse" && message["requestId"] == request {
                let result = message["result"].take();
                return if message["success"] == true {
                    Told::Value(result)
                } else {
                    Told::Error(result.as_str().unwrap_or_default().to_owned())
                };
            }
        }
        self.socket = None;
        Told::Nothing
    }

    async fn connect(&mut self) {
        let stream = TcpStream::connect(self.address).await.expect("a connection");
        let (mut socket, _) =
            tokio_tungstenite::client_async("ws://localhost/api/1.48.0/sync", stream).await.expect("a handshake");
        let reason = if self.connections == 0 { "InitialConnect" } else { "ConnectionLost" };
        let connect = json!({ "type": "Connect", "sessionId": self.session, "connectionCount": self.connections,
            "lastCloseReason": reason, "clientTs": 0 });
        self.connections += 1;
        // One that ends at once is noticed by who reads.
        let _ = socket.send(Message::text(connect.to_string())).await;
        self.socket = Some(socket);
    }
}
