//! How a query is run: the seam between what is due and functions.

use std::collections::HashSet;
use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;

use convoke_feed::PositionRequest;
use convoke_invoke::{Invoker, Observe, Request, SharedSnapshot};
use convoke_model::{Code, Failure, Kind, Origin, ReadSet};
use parking_lot::Mutex;

use crate::evaluation::{Outcome, QueryKey, Verdict};

/// A run that goes on.
pub(crate) type Running<'a> = Pin<Box<dyn Future<Output = (Outcome, ReadSet)> + Send + 'a>>;

/// Runs queries.
pub(crate) trait Runner: Debug + Send + Sync {
    /// Runs a query, in the snapshot where one is given and can still be read.
    fn run<'a>(&'a self, key: &'a QueryKey, snapshot: Option<SharedSnapshot>) -> Running<'a>;

    /// Asks how far the log is: what was run is shown when that is known.
    fn request_position(&self);
}

/// Runs functions of the deployment.
#[derive(Debug)]
pub(crate) struct Functions {
    pub(crate) invoker: Invoker,
    pub(crate) request: PositionRequest,
    /// Functions whose results differ from call to call: a plain caller has to be given a run of his own.
    pub(crate) volatile: Arc<Mutex<HashSet<Arc<str>>>>,
}

impl Runner for Functions {
    fn run<'a>(&'a self, key: &'a QueryKey, snapshot: Option<SharedSnapshot>) -> Running<'a> {
        Box::pin(self.evaluate(key, snapshot))
    }

    fn request_position(&self) {
        self.request.send();
    }
}

impl Functions {
    async fn evaluate(&self, key: &QueryKey, snapshot: Option<SharedSnapshot>) -> (Outcome, ReadSet) {
        let request = Request { kind: Kind::Query, path: &key.path, args: &key.args, encoded: false };
        let observe = Observe { journal: key.journal.as_deref().map(str::to_owned), key: None, snapshot };
        let (answer, observed) = self.invoker.run_observed(request, &observe).await;
        let verdict = match &answer.result {
            Err(failure) if failure.origin == Origin::System => Verdict::Failed,
            _ if observed.volatile => Verdict::Volatile,
            _ => Verdict::Result,
        };
        if verdict == Verdict::Volatile {
            self.volatile.lock().insert(Arc::clone(&key.path));
        }
        let outcome = Outcome {
            path: Arc::clone(&key.path),
            result: answer.result.map_err(|failure| shown(failure, &answer.request_id)),
            log: answer.log,
            journal: observed.journal,
            // What read nothing holds everywhere.
            from: observed.lsn.unwrap_or_default(),
            snapshot: observed.snapshot.as_deref().and_then(|text| text.parse().ok()),
            verdict,
        };
        (outcome, observed.reads)
    }
}

/// An internal failure says no more to a subscriber than to any client.
fn shown(mut failure: Failure, request_id: &str) -> Failure {
    if failure.code == Code::Internal {
        failure.message = format!("internal error, request id {request_id}");
    }
    failure
}
