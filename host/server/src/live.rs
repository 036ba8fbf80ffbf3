//! Live queries of a host, or why it has none yet.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use convoke_deploy::Deployments;
use convoke_engine::SNAPSHOT_INSTANCES_MAX;
use convoke_feed::{Feed, FeedError, PublicationState, PublicationWatch, System};
use convoke_invoke::Invoker;
use convoke_live::{Incarnation, Incarnations, Live, LiveLimits, LiveOptions};
use convoke_model::{Code, Failure, Outcome, chain};
use convoke_postgres::Config;
use rand::Rng;
use tokio::time::sleep;

/// Rounds of queries that run at a time for subscribers, each of which keeps a connection and takes an instance of the
/// room for it.
const ROUNDS_MAX: usize = 12;
const _: () = assert!(ROUNDS_MAX <= SNAPSHOT_INSTANCES_MAX as usize);

/// Rounds at a time for a pool of so many connections: others have at least as many.
pub(crate) fn rounds_max(connections: usize) -> usize {
    (connections / 2).clamp(1, ROUNDS_MAX)
}

/// What live queries follow.
#[derive(Debug)]
pub(crate) struct Followed {
    pub(crate) feed: Feed,
    pub(crate) postgres: Config,
    pub(crate) project: String,
    pub(crate) limits: LiveLimits,
    pub(crate) rounds_max: usize,
}

/// The pause between two tries to begin, from the first to the longest. What is in the way may be a moment's outage, or a
/// setting that somebody has to change.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LONGEST: Duration = Duration::from_mins(1);

/// How often the publication is looked at, which anybody with the right may change: for so long what was read of a table that
/// was taken out of it may be shown.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Live queries, from when the database allows them.
#[derive(Debug)]
pub(crate) struct LiveQueries {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    live: OnceLock<Live>,
    /// Why there are none yet.
    reason: Mutex<String>,
    /// One at a time looks which tables there are to follow, so that none is between two looks.
    following: tokio::sync::Mutex<()>,
    /// What the publication covered when the tables were looked at last.
    seen: Mutex<Option<PublicationState>>,
    /// Whether a look in the background has yet to begin: deploys in quick succession need one.
    look_is_due: AtomicBool,
    followed: Followed,
    invoker: Invoker,
    deployments: Arc<Deployments>,
}

impl LiveQueries {
    /// Begins to follow the database. What is against it is told in the log, and tried again until it works.
    pub(crate) async fn open(followed: Followed, invoker: Invoker, deployments: Arc<Deployments>) -> Self {
        let inner = Arc::new(Inner {
            live: OnceLock::new(),
            reason: Mutex::default(),
            following: tokio::sync::Mutex::default(),
            seen: Mutex::default(),
            look_is_due: AtomicBool::new(false),
            followed,
            invoker,
            deployments,
        });
        if let Err(reason) = inner.begin().await {
            inner.tell(reason);
            tokio::spawn(keep_trying(Arc::downgrade(&inner)));
        }
        tokio::spawn(watch_publication(Arc::downgrade(&inner)));
        Self { inner }
    }

    /// The live queries.
    ///
    /// # Errors
    /// Why there are none, in words for whoever asked.
    pub(crate) fn get(&self) -> Result<&Live, Failure> {
        self.inner.live.get().ok_or_else(|| {
            let reason = self.inner.reason.lock().unwrap_or_else(PoisonError::into_inner);
            Failure::system(Code::Overloaded, format!("this host has no live queries: {reason}"))
                .with_outcome(Outcome::NotBegun)
        })
    }

    /// Follows the tables that a sync has made, before anybody reads them.
    pub(crate) async fn follow_new_tables(&self) {
        if self.inner.live.get().is_some() {
            self.inner.follow_tables().await;
        } else {
            // Whoever is trying to begin may take long.
            self.follow_other_tables();
        }
    }

    /// Follows what else there is now, such as tables that were made by hand, in the background: a deploy that changes no
    /// table has nothing to wait for.
    pub(crate) fn follow_other_tables(&self) {
        if self.inner.look_is_due.swap(true, Ordering::AcqRel) {
            return;
        }
        let inner = Arc::clone(&self.inner);
        tokio::spawn(async move {
            let followed = inner.follow_tables().await;
            // What was read of them meanwhile may have changed unseen.
            if let (true, Some(live)) = (followed > 0, inner.live.get()) {
                live.redeployed();
            }
        });
    }

    /// Other functions are deployed.
    pub(crate) fn redeployed(&self) {
        if let Some(live) = self.inner.live.get() {
            live.redeployed();
        }
    }
}

impl Inner {
    /// Begins to follow the database, or says what is against it.
    async fn begin(&self) -> Result<(), String> {
        let _turn = self.following.lock().await;
        let Followed { feed, postgres, project, limits, rounds_max } = &self.followed;
        let publication = publication(project);
        let prepared = convoke_feed::prepare(postgres, &publication, project).await;
        let (system, published) = prepared.map_err(|error| words(&error))?;
        let incarnation = count_from(postgres, system).await?;
        let database = postgres.clone();
        let incarnations = Incarnations(Arc::new(move |system| {
            let database = database.clone();
            Box::pin(async move {
                let incarnation = count_from(&database, system).await;
                incarnation.inspect_err(|reason| tracing::warn!(reason, "cannot ask from when to count")).ok()
            })
        }));
        let options = LiveOptions {
            changes: feed.subscribe(publication, project),
            published: published.tables,
            project: project.clone(),
            system,
            incarnation,
            incarnations,
            limits: *limits,
            rounds_max: *rounds_max,
        };
        self.see(published.state);
        self.live.get_or_init(|| Live::start(self.invoker.clone(), Arc::clone(&self.deployments), options));
        Ok(())
    }

    /// Has the feed follow the tables that there are; gives how many it did not follow before.
    async fn follow_tables(&self) -> usize {
        let _turn = self.following.lock().await;
        self.look_is_due.store(false, Ordering::Release);
        // To begin is to look at all tables.
        let Some(live) = self.live.get() else { return 0 };
        let Followed { postgres, project, .. } = &self.followed;
        match convoke_feed::publish(postgres, &publication(project), project).await {
            Ok(published) => {
                live.published(published.tables);
                self.see(published.state);
                published.added.len()
            }
            Err(error) => {
                tracing::warn!(error = words(&error), "the publication of the change feed could not be renewed");
                0
            }
        }
    }

    fn see(&self, state: PublicationState) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(state);
    }

    /// Whether the publication covers something else than when the tables were looked at.
    fn is_news(&self, state: &PublicationState) -> bool {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.as_ref().is_some_and(|seen| seen != state)
    }

    /// Keeps the reason for whoever asks, and tells the log where it is another one than before.
    fn tell(&self, reason: String) {
        let mut told = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        if *told != reason {
            tracing::warn!(reason, "there are no live queries: trying again");
            *told = reason;
        }
    }
}

/// Notices that somebody has changed the publication or its tables by hand, puts back what is missing, and has everything run
/// again that may have changed unseen.
async fn watch_publication(inner: Weak<Inner>) {
    let mut watch = {
        let Some(inner) = inner.upgrade() else { return };
        let Followed { postgres, project, .. } = &inner.followed;
        PublicationWatch::new(postgres.clone(), publication(project), project.clone(), convoke_sync::TURN)
    };
    let mut before = None;
    loop {
        sleep(LOOK_EVERY).await;
        let Some(inner) = inner.upgrade() else { return };
        // Where Postgres does not answer, the feed says so.
        let Ok(state) = watch.look().await else { continue };
        // A deploy changes it too, and looks at the tables a moment later: only what stays is news.
        let stays = before.replace(state.clone()) == Some(state.clone());
        let Some(live) = inner.live.get().filter(|_| stays && inner.is_news(&state)) else { continue };
        if !matches!(watch.begin_turn().await, Ok(true)) {
            continue;
        }
        tracing::warn!(
            project = inner.followed.project,
            "the publication of the change feed or a table of it was changed: what is missing is put back"
        );
        // Told once, also where nothing can be put back.
        inner.see(state);
        inner.follow_tables().await;
        watch.end_turn().await;
        live.redeployed();
    }
}

async fn count_from(postgres: &Config, system: System) -> Result<Incarnation, String> {
    let system = format!("{}/{}", system.identifier, system.timeline);
    let incarnation = convoke_sync::incarnation(postgres, &system).await;
    let (nanoseconds, lsn) = incarnation.map_err(|error| chain(&error))?;
    Ok(Incarnation { nanoseconds, lsn })
}

/// Tries until it works, or until the host is gone.
async fn keep_trying(inner: Weak<Inner>) {
    let mut pause = RETRY_FIRST;
    loop {
        // Not all hosts at once.
        let share = rand::rng().random_range(0.5..1.0);
        sleep(pause.mul_f64(share)).await;
        let Some(inner) = inner.upgrade() else { return };
        match inner.begin().await {
            Ok(()) => {
                tracing::info!("live queries have begun");
                return;
            }
            Err(reason) => inner.tell(reason),
        }
        pause = (pause * 2).min(RETRY_LONGEST);
    }
}

fn publication(project: &str) -> String {
    format!("convoke_{project}")
}

fn words(error: &FeedError) -> String {
    match error.hint() {
        Some(hint) => format!("{}; {hint}", chain(error)),
        None => chain(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_leave_connections_to_others() {
        for connections in crate::process::CONNECTIONS_MIN..100 {
            let rounds = rounds_max(connections);
            assert!(rounds >= 1 && rounds <= connections - rounds, "{rounds} of {connections}");
        }
    }
}
