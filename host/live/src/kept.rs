//! Plain calls: answered by results that hold, and giving results to be kept.
//!
//! A result is given to a caller only when the feed has come as far as Postgres' log was when the call arrived: so it
//! shows whatever had been written then, by whomever, on whichever host.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use convoke_deploy::Deployment;
use convoke_invoke::{Asked, Keeper, KeptResult, KeptResults, Lookup, Ran};
use convoke_model::Observed;
use futures_util::future::BoxFuture;
use tokio::sync::{Notify, oneshot};

use crate::evaluation::{Evaluation, Outcome, QueryKey, Verdict};
use crate::live::Inner;
use crate::reader::EntryId;
use crate::state::Begun;

/// How long a call waits for the feed, which is usually there within a millisecond. Then it is run: what the log holds
/// and has not flushed may take longer.
const FEED_WAIT_MAX: Duration = Duration::from_millis(10);

/// The results of a project as its callers see them.
pub(crate) struct Kept(pub(crate) Weak<Inner>);

impl KeptResults for Kept {
    fn find<'a>(&'a self, asked: Asked<'a>) -> BoxFuture<'a, Lookup> {
        Box::pin(async move {
            match self.0.upgrade() {
                Some(inner) => inner.find(asked).await,
                None => Lookup::Run,
            }
        })
    }

    fn committed(&self, position: u64) {
        if let Some(inner) = self.0.upgrade() {
            let mut state = inner.state.lock();
            state.committed = state.committed.max(position);
        }
    }
}

impl Inner {
    async fn find(self: &Arc<Self>, asked: Asked<'_>) -> Lookup {
        if self.volatile.lock().contains(asked.path) {
            return Lookup::Run;
        }
        let args = Arc::from(asked.args);
        let key = QueryKey { path: Arc::from(asked.path), args, journal: None };
        if let Some(found) = self.holding(&key, &asked).await {
            self.metrics.cache_hits.fetch_add(1, Relaxed);
            return Lookup::Kept(found);
        }
        self.metrics.cache_misses.fetch_add(1, Relaxed);
        // What is asked for once is not worth a snapshot.
        if !self.seen.lock().saw(&key) {
            return Lookup::Run;
        }
        self.begin(key, asked.deployment).map_or(Lookup::Run, |running| Lookup::Keep(Box::new(running)))
    }

    /// A result that holds at a position behind all that had committed when it was asked for.
    async fn holding(self: &Arc<Self>, key: &QueryKey, asked: &Asked<'_>) -> Option<KeptResult> {
        self.state.lock().holding(key)?;
        let until = asked.deadline.min(Instant::now() + FEED_WAIT_MAX);
        let reached = async {
            let now = self.positions.now(&self.invoker).await?;
            self.reach(now.max(asked.at_least)).await;
            Some(())
        };
        tokio::time::timeout_at(until.into(), reached).await.ok()??;
        let mut state = self.state.lock();
        let (evaluation, position) = state.holding(key)?;
        let text = Arc::clone(evaluation.result.as_ref().ok()?);
        state.touch(key);
        Some(KeptResult { text, log: Arc::clone(&evaluation.log), position, version: evaluation.version })
    }

    /// Waits until all that committed before a position has been applied.
    async fn reach(self: &Arc<Self>, position: u64) {
        let notify = Arc::new(Notify::new());
        {
            let mut state = self.state.lock();
            if state.position >= position {
                return;
            }
            state.wake_at(position, &notify);
        }
        self.hurry();
        notify.notified().await;
    }

    /// Begins a run that is to be kept; none where another one goes on, or nothing would tell when it is stale.
    fn begin(self: &Arc<Self>, key: QueryKey, deployment: &Arc<Deployment>) -> Option<Running> {
        let mut state = self.state.lock();
        // Another one may serve since the call came: its results are expired already, and this one's would outlive that.
        if !Arc::ptr_eq(deployment, &self.deployments.current()) {
            return None;
        }
        let (entry, caller) = state.begin_kept(&key)?;
        let begun = state.begun();
        drop(state);
        Some(Running { inner: Arc::clone(self), key, entry, begun, _caller: caller, is_kept: false })
    }
}

/// A plain caller's run of a query, for which others may wait. However it ends, the query is free to be run again.
struct Running {
    inner: Arc<Inner>,
    key: QueryKey,
    entry: EntryId,
    begun: Begun,
    /// While it is there, somebody wants the result.
    _caller: oneshot::Receiver<Arc<Evaluation>>,
    is_kept: bool,
}

impl Keeper for Running {
    fn keep(mut self: Box<Self>, ran: Ran, observed: Observed) {
        let (outcome, reads) = Outcome::of(&self.key, ran, observed, &self.inner.published);
        match outcome.verdict {
            // A failure of the system is nobody's result.
            Verdict::Failed => return,
            Verdict::Volatile => {
                self.inner.volatile.lock().insert(Arc::clone(&self.key.path));
            }
            Verdict::Result => {}
        }
        self.is_kept = self.inner.rounds.keep(self.entry, self.begun, &self.key, outcome, reads);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.is_kept {
            let effects = self.inner.state.lock().abandon(self.entry);
            self.inner.rounds.take(effects);
        }
    }
}
