//! Documents of older forms, brought to the newest by a rule of the project's own.

use std::sync::Arc;
use std::time::Instant;

use convoke_deploy::Deployment;
use convoke_engine::{Call, CallError, Clock, Room};
use convoke_model::{Failure, Kind, Upcast};
use futures_util::future::BoxFuture;

use crate::door::Invoker;

/// Runs the upcasts of one deployment, within the call that reads the documents.
pub(crate) struct RuleUpcast {
    invoker: Invoker,
    deployment: Arc<Deployment>,
    deadline: Instant,
    clock: Clock,
}

impl RuleUpcast {
    pub(crate) fn new(invoker: Invoker, deployment: Arc<Deployment>, deadline: Instant, clock: Clock) -> Self {
        Self { invoker, deployment, deadline, clock }
    }
}

impl Upcast for RuleUpcast {
    fn upcast<'a>(&'a self, function: &'a str, document: &'a str, from: u32) -> BoxFuture<'a, Result<String, Failure>> {
        Box::pin(async move {
            let Some(rule) = self.deployment.function(function) else {
                return Err(Failure::internal(format!("the upcast `{function}` is not deployed")));
            };
            let args = format!(r#"{{"document":{document},"from":{from}}}"#);
            let call = Call {
                kind: Kind::Rule,
                room: Room::Entry,
                function: rule.path().function(),
                args: &args,
                request_id: "",
                deadline: self.deadline,
                clock: self.clock,
                database: None,
                outside: None,
            };
            let outcome = self.invoker.inner.engine.call(rule.version(), call).await;
            outcome.result.map_err(|error| match error {
                CallError::Failure(failure) => Failure::internal(format!(
                    "the upcast `{function}` failed on a document of version {from}: {failure}"
                )),
                CallError::Conflict | CallError::NeedsSnapshot => {
                    Failure::internal(format!("the upcast `{function}` asked for a database"))
                }
            })
        })
    }
}
