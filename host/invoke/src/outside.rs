//! What an action reaches: other functions, and HTTP.

use std::time::Instant;

use convoke_engine::{OutboundResponse, Outside};
use convoke_model::{Code, Failure, Kind};
use futures_util::future::BoxFuture;

use crate::answer::{Answer, RequestId, ResultText};
use crate::call::{Call, Encoding};
use crate::caller::{CallOrigin, Caller, Identity};
use crate::door::Invoker;

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
    /// Who called the action, and so its functions.
    identity: Identity,
    depth: u32,
    deadline: Instant,
}

impl ActionOutside {
    pub(crate) fn new(invoker: &Invoker, caller: &Caller, deadline: Instant) -> Self {
        Self { invoker: invoker.clone(), identity: caller.identity, depth: caller.depth(), deadline }
    }
}

impl Outside for ActionOutside {
    fn run<'a>(&'a self, kind: Kind, name: &'a str, args: &'a str) -> BoxFuture<'a, Result<String, Failure>> {
        Box::pin(async move {
            let depth_max = self.invoker.limits().action_depth_max;
            let depth = self.depth + u32::from(kind == Kind::Action);
            if depth > depth_max {
                let words = format!("actions call actions more than {depth_max} deep");
                return Err(Failure::function(Code::HostCallLimit, words));
            }
            let origin = CallOrigin::Action { depth };
            let caller = Caller { identity: self.identity, deadline: Some(self.deadline), ..Caller::new(origin) };
            let call = Call { kind, path: name, args, encoding: Encoding::Clean };
            let Answer { result, request_id, .. } = self.invoker.enter(&caller, call).await;
            result.map(ResultText::into_string).map_err(|failure| nested(failure, request_id))
        })
    }

    fn send<'a>(&'a self, request: &'a str, body: Vec<u8>) -> BoxFuture<'a, Result<OutboundResponse, Failure>> {
        self.invoker.inner.gate.send(request, body, self.deadline)
    }
}

/// An internal failure of the called function says no more to its caller than to a client.
fn nested(mut failure: Failure, request_id: RequestId) -> Failure {
    if failure.code == Code::Internal {
        failure.message = format!("internal error, request id {request_id}");
    }
    failure
}
