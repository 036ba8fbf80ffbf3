//! Live queries of a host: runs them, and runs them again when they are stale.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use convoke_deploy::Deployments;
use convoke_feed::{FeedEvent, FeedMetrics, PositionRequest, Subscription, System};
use convoke_invoke::Invoker;
use convoke_model::{Code, Failure, FunctionPath};
use parking_lot::{Mutex, RwLock};
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::{Notify, Semaphore, watch};

use crate::changes::{Written, written};
use crate::due::{PATIENCE, Retries};
use crate::evaluation::QueryKey;
use crate::kept::Kept;
use crate::memory::Memory;
use crate::metrics::{Gauges, LiveMetrics};
use crate::moments::Moments;
use crate::positions::Positions;
use crate::published::Published;
use crate::rounds::{Rounds, Run};
use crate::runner::Functions;
use crate::seen::Seen;
use crate::state::{Bounds, Effects, State};
use crate::timestamp::{Incarnation, Incarnations};

/// How a host's live queries are set up.
#[derive(Debug)]
pub struct LiveOptions {
    /// What changes in the project's tables.
    pub changes: Subscription,
    /// The tables of which it tells, by schema and name.
    pub published: HashSet<(String, String)>,
    /// The Postgres schema of the project's tables.
    pub project: String,
    /// The cluster of `incarnation`.
    pub system: System,
    pub incarnation: Incarnation,
    /// Asked when the feed comes from another cluster or timeline.
    pub incarnations: Incarnations,
    pub limits: LiveLimits,
    /// Rounds of queries that run at a time for subscribers, each with a connection, and among them what is run for one
    /// client apart.
    pub rounds_max: usize,
}

/// How much a host's live queries may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveLimits {
    /// Memory for results without a subscriber.
    pub cache_bytes_max: usize,
    /// Memory for all results with what they have read, whoever holds them: the cache, subscriptions, and readers that are
    /// slow. A result that has no room is made again later.
    pub results_bytes_max: usize,
    /// Subscriptions of all clients together. One that is idle takes about 6 KiB with 50 rows.
    pub subscriptions_max: usize,
    /// Where the system fails a query for this long, its subscribers are shown the failure in place of a result that does
    /// not hold any more.
    pub patience: Duration,
}

impl Default for LiveLimits {
    fn default() -> Self {
        Self { cache_bytes_max: 64 << 20, results_bytes_max: 256 << 20, subscriptions_max: 131_072, patience: PATIENCE }
    }
}

/// The live queries of a host. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Live {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) state: Arc<Mutex<State>>,
    pub(crate) request: PositionRequest,
    pub(crate) positions: Positions,
    pub(crate) invoker: Invoker,
    pub(crate) deployments: Arc<Deployments>,
    project: String,
    incarnation: RwLock<Incarnation>,
    /// Tells that another cluster, or another timeline, is followed.
    replaced: watch::Sender<()>,
    pub(crate) rounds: Arc<Rounds>,
    /// Views that are made apart from the queue, at a time.
    pub(crate) together: Semaphore,
    pub(crate) moments: Mutex<Moments>,
    pub(crate) metrics: Arc<LiveMetrics>,
    feed: Arc<FeedMetrics>,
    pub(crate) seen: Mutex<Seen>,
    /// Functions whose results differ from call to call, or change without a word in the log: a plain caller has to be
    /// given a run of his own.
    pub(crate) volatile: Arc<Mutex<HashSet<Arc<str>>>>,
    pub(crate) published: Arc<Published>,
    next_number: AtomicU64,
}

/// The pause before it is asked again from when a database counts.
const COUNT_AGAIN: Duration = Duration::from_secs(1);
/// How long to wait for what was seen on another host.
pub const CATCH_UP_MAX: Duration = Duration::from_secs(10);
/// Views of several queries that are made apart, at a time, each in the place of a round.
const TOGETHER_MAX: usize = 2;

impl Live {
    /// Begins to follow the database.
    ///
    /// # Panics
    /// Outside of a runtime of tokio.
    pub fn start(invoker: Invoker, deployments: Arc<Deployments>, options: LiveOptions) -> Self {
        let feed = options.changes;
        let LiveLimits { cache_bytes_max, results_bytes_max, subscriptions_max, patience } = options.limits;
        let state = Arc::new(Mutex::new(State::new(Bounds { cache_bytes_max, subscriptions_max })));
        let (metrics, volatile) = (Arc::<LiveMetrics>::default(), Arc::default());
        let published = Arc::new(Published::new(options.published));
        let runner = Arc::new(Functions {
            invoker: invoker.clone(),
            request: feed.position_request(),
            volatile: Arc::clone(&volatile),
            published: Arc::clone(&published),
        });
        let memory = Memory::new(results_bytes_max);
        let rounds = Rounds::new(
            Arc::clone(&state),
            runner,
            memory,
            Arc::clone(&metrics),
            options.rounds_max,
            Retries { patience, ..Retries::default() },
        );
        let inner = Arc::new(Inner {
            state,
            rounds: Arc::new(rounds),
            request: feed.position_request(),
            positions: Positions::default(),
            invoker,
            deployments,
            project: options.project,
            incarnation: RwLock::new(options.incarnation),
            replaced: watch::Sender::new(()),
            together: Semaphore::new(TOGETHER_MAX),
            moments: Mutex::default(),
            metrics,
            feed: feed.metrics(),
            seen: Mutex::default(),
            volatile,
            published,
            next_number: AtomicU64::new(0),
        });
        inner.invoker.keep_results(Arc::new(Kept(Arc::downgrade(&inner))));
        let (inner_too, incarnations) = (Arc::downgrade(&inner), options.incarnations);
        tokio::spawn(follow(Following { inner: inner_too, system: options.system, incarnations }, feed));
        Self { inner }
    }

    /// The timestamp of a position of the log.
    pub fn timestamp(&self, lsn: u64) -> u64 {
        self.inner.incarnation.read().timestamp(lsn)
    }

    /// The position of a timestamp.
    pub fn position_of(&self, timestamp: u64) -> u64 {
        self.inner.incarnation.read().position(timestamp)
    }

    /// The newest position that is known: everything that committed on this host is before it.
    pub fn newest(&self) -> u64 {
        self.inner.state.lock().newest()
    }

    /// Whether all that committed before a position is known.
    pub fn has_reached(&self, position: u64) -> bool {
        self.inner.state.lock().position >= position
    }

    /// A position behind all that had committed when this was called, on whichever host; none where Postgres does not
    /// tell.
    pub async fn log_position(&self) -> Option<u64> {
        self.inner.positions.now(&self.inner.invoker).await
    }

    /// Waits until all that committed before a position is known, so that what is read then shows it.
    ///
    /// # Errors
    /// When that does not happen in time: the position is of another database, or of before a restore.
    pub async fn catch_up(&self, position: u64) -> Result<(), Failure> {
        if self.newest() >= position {
            return Ok(());
        }
        self.inner.reached(position).await
    }

    /// The key of a query; none where it is no query of the project's.
    pub fn key(&self, path: &str, args: &str, journal: Option<&str>) -> Option<QueryKey> {
        let path = FunctionPath::parse(path).ok()?;
        let args: Value = serde_json::from_str(args).ok()?;
        Some(QueryKey {
            path: Arc::from(path.as_str()),
            // Sorted by name: the same arguments are the same text.
            args: Arc::from(args.to_string()),
            journal: journal.map(Arc::from),
        })
    }

    /// The feed tells of these tables, by schema and name. What was read of others before is told by [`Live::redeployed`].
    pub fn published(&self, tables: HashSet<(String, String)>) {
        self.inner.published.set(tables);
    }

    /// Other functions are deployed: every result has to be made anew, once.
    pub fn redeployed(&self) {
        self.inner.volatile.lock().clear();
        let deployment = self.inner.deployments.current();
        self.inner.rounds.keep_functions(|path| deployment.function(path).is_some());
        let effects = self.inner.state.lock().expire_all();
        self.inner.rounds.take(effects);
    }

    /// Prometheus' text.
    pub fn render_metrics(&self, out: &mut String) {
        use std::fmt::Write;
        let gauges = {
            let state = self.inner.state.lock();
            Gauges {
                subscriptions: state.subscriptions(),
                queries: state.entries.len(),
                cached_bytes: state.cached_bytes(),
                history_bytes: state.history_bytes(),
                results_bytes: self.inner.rounds.memory.bytes(),
            }
        };
        self.inner.metrics.render(gauges, out);
        let feed = &self.inner.feed;
        for (name, kind, help, value) in [
            ("convoke_feed_streaming", "gauge", "Whether the change feed runs.", u64::from(feed.is_streaming())),
            ("convoke_feed_lag_bytes", "gauge", "Log that was written and not yet read.", feed.lag_bytes()),
            ("convoke_feed_transactions_total", "counter", "Transactions read.", feed.transactions()),
            ("convoke_feed_reconnects_total", "counter", "Interruptions of the feed.", feed.reconnects()),
        ] {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        }
    }

    /// Tells of every run from now on, to the newest listener alone: which there were, and so which were needless.
    pub fn runs(&self) -> UnboundedReceiver<Run> {
        let (sender, receiver) = unbounded_channel();
        self.inner.rounds.listen(sender);
        receiver
    }

    pub fn metrics(&self) -> &LiveMetrics {
        &self.inner.metrics
    }

    /// Whether the feed runs, so that results are kept true.
    pub fn is_streaming(&self) -> bool {
        self.inner.state.lock().streaming
    }

    /// Tells when another cluster, or another timeline, is followed than until now: positions of before mean nothing then,
    /// and whoever keeps any begins anew.
    pub fn replaced(&self) -> watch::Receiver<()> {
        self.inner.replaced.subscribe()
    }

    /// A number that no watcher and no subscription has had.
    pub(crate) fn next_number(&self) -> u64 {
        self.inner.next_number.fetch_add(1, Relaxed)
    }
}

impl Inner {
    /// Waits until all that committed before a position is known, so that what is read then shows it.
    pub(crate) async fn reached(self: &Arc<Self>, position: u64) -> Result<(), Failure> {
        let notify = Arc::new(Notify::new());
        {
            let mut state = self.state.lock();
            if state.position >= position {
                return Ok(());
            }
            state.wake_at(position, &notify);
        }
        self.hurry();
        let words = "this server has not seen that timestamp";
        let waited = tokio::time::timeout(CATCH_UP_MAX, notify.notified()).await;
        waited.map_err(|_| Failure::system(Code::Overloaded, words))
    }
}

/// Who follows the feed. However that ends, nothing tells any more what changes.
struct Following {
    inner: Weak<Inner>,
    system: System,
    incarnations: Incarnations,
}

impl Following {
    /// Counts anew where another cluster is followed than until now.
    async fn count_from(&mut self, system: System) {
        if std::mem::replace(&mut self.system, system) == system {
            return;
        }
        tracing::warn!(?system, "another cluster, or another timeline, is followed: all clients begin anew");
        let incarnation = loop {
            match (self.incarnations.0)(system).await {
                Some(incarnation) => break incarnation,
                None => tokio::time::sleep(COUNT_AGAIN).await,
            }
        };
        if let Some(inner) = self.inner.upgrade() {
            *inner.incarnation.write() = incarnation;
            inner.state.lock().committed = 0;
            inner.replaced.send_replace(());
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.upgrade() {
            if std::thread::panicking() {
                tracing::error!("the change feed is not followed any more: queries are run for each who asks");
            }
            inner.state.lock().interrupt();
        }
    }
}

/// Takes what the feed says, until the host is gone.
async fn follow(mut following: Following, mut feed: Subscription) {
    loop {
        let event = match tokio::time::timeout(Duration::from_secs(1), feed.next()).await {
            Ok(Some(event)) => event,
            Ok(None) => return,
            // So that a host that is gone is noticed.
            Err(_) if following.inner.strong_count() == 0 => return,
            Err(_) => continue,
        };
        if let FeedEvent::Started(started) = &event {
            following.count_from(started.system).await;
        }
        let Some(inner) = following.inner.upgrade() else { return };
        inner.state.lock().advance_clock(Instant::now());
        let effects = match event {
            FeedEvent::Started(started) => inner.state.lock().start(started.position),
            FeedEvent::Position(position) => inner.state.lock().advance(position),
            FeedEvent::Gap { reason } => {
                tracing::warn!(%reason, "live queries stand still until the change feed is back");
                inner.state.lock().interrupt();
                Effects::default()
            }
            FeedEvent::Transaction(transaction) => {
                let deployment = inner.deployments.current();
                let written = written(&transaction, &inner.project, deployment.tables());
                let subject = written.first().map(Written::subject).unwrap_or_default();
                let xid = transaction.xid;
                inner.state.lock().apply(xid, transaction.end_lsn, written, |key, reason| {
                    tracing::debug!(
                        target: "convoke::live", function = %key.path, transaction = xid, wrote = subject, %reason,
                        "runs again"
                    );
                })
            }
        };
        inner.rounds.take(effects);
    }
}
