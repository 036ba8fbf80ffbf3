//! What an action reaches: other functions, and HTTP.

use std::sync::Arc;
use std::time::Instant;

use convoke_engine::{OutboundResponse, Outside};
use convoke_model::{Code, Failure, Kind};
use futures_util::future::BoxFuture;

use crate::invoker::{Invoker, Request};

/// The way to the outside for HTTP: decides what may be reached.
pub trait Gate: Send + Sync {
    /// Sends a request, given as the JSON of `outbound-http.send`, and answers before the deadline.
    fn send<'a>(
        &'a self,
        request: &'a str,
        body: Vec<u8>,
        deadline: Instant,
    ) -> BoxFuture<'a, Result<OutboundResponse, Failure>>;
}

/// The outside of one action.
pub(crate) struct ActionOutside {
    invoker: Invoker,
    gate: Arc<dyn Gate>,
    depth: u32,
    deadline: Instant,
}

impl ActionOutside {
    pub(crate) fn new(invoker: Invoker, gate: Arc<dyn Gate>, depth: u32, deadline: Instant) -> Self {
        Self { invoker, gate, depth, deadline }
    }
}

impl Outside for ActionOutside {
    fn run<'a>(&'a self, kind: Kind, name: &'a str, args: &'a str) -> BoxFuture<'a, Result<String, Failure>> {
        Box::pin(async move {
            let depth_max = self.invoker.limits().action_depth_max;
            let deeper = u32::from(kind == Kind::Action);
            if self.depth + deeper > depth_max {
                let words = format!("actions call actions more than {depth_max} deep");
                return Err(Failure::function(Code::HostCallLimit, words));
            }
            let request = Request { kind, path: name, args, encoded: false };
            let left = tokio::time::Instant::from_std(self.deadline);
            match tokio::time::timeout_at(left, self.invoker.run_nested(request, self.depth + deeper)).await {
                Ok(answer) => answer.result.map_err(|failure| nested(failure, &answer.request_id)),
                Err(_) => Err(Failure::function(Code::DeadlineExceeded, "the action ran longer than it may")),
            }
        })
    }

    fn send<'a>(&'a self, request: &'a str, body: Vec<u8>) -> BoxFuture<'a, Result<OutboundResponse, Failure>> {
        self.gate.send(request, body, self.deadline)
    }
}

/// An internal failure of the called function says no more to its caller than to a client.
fn nested(failure: Failure, request_id: &str) -> Failure {
    match failure.code {
        Code::Internal => Failure::function(Code::Internal, format!("internal error, request id {request_id}")),
        _ => failure,
    }
}
