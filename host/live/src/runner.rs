//! How a query is run: the seam between what is due and functions.

use std::collections::HashSet;
use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;

use convoke_feed::PositionRequest;
use convoke_invoke::{Answer, Call, CallOrigin, Caller, Encoding, Invoker, NoteReads, Ran, ResultText, SharedSnapshot};
use convoke_model::{Kind, ReadSet};
use parking_lot::Mutex;

use crate::evaluation::{Outcome, QueryKey, Verdict};
use crate::published::Published;

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
    /// Functions whose results differ from call to call, or change without a word in the log: a plain caller has to be
    /// given a run of his own.
    pub(crate) volatile: Arc<Mutex<HashSet<Arc<str>>>>,
    pub(crate) published: Arc<Published>,
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
        let call = Call { kind: Kind::Query, path: &key.path, args: &key.args, encoding: Encoding::Clean };
        let reads = NoteReads { journal: key.journal.as_deref().map(str::to_owned), snapshot };
        let caller = Caller::new(CallOrigin::Subscription);
        let (answer, observed) = self.invoker.observe(&caller, call, reads).await;
        let Answer { result, log, version, request_id, .. } = answer;
        let ran = Ran { result: result.map(ResultText::into_shared), log, version, request_id };
        let (outcome, reads) = Outcome::of(key, ran, observed, &self.published);
        if outcome.verdict == Verdict::Volatile {
            self.volatile.lock().insert(Arc::clone(&key.path));
        }
        (outcome, reads)
    }
}
