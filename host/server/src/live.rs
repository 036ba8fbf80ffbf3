//! Live queries of a host, or why it has none.

use std::sync::Arc;

use convoke_deploy::Deployments;
use convoke_feed::{FeedError, FeedOptions};
use convoke_invoke::{Invoker, Observe, Request};
use convoke_live::{Incarnation, Live, LiveOptions, QueryAnswer};
use convoke_model::{Code, Failure, Kind, chain};

/// Memory for results that nobody is subscribed to.
const CACHE_BYTES_MAX: usize = 64 << 20;
/// Queries that run at a time for subscribers: fewer than there are connections.
const EVALUATIONS_MAX: usize = 12;

/// Live queries, where the database allows them.
#[derive(Debug)]
pub(crate) struct LiveQueries {
    live: Result<Live, String>,
    postgres: convoke_postgres::Config,
}

impl LiveQueries {
    /// Begins to follow the database; what is against it is told once, in the log.
    pub(crate) async fn open(
        postgres: convoke_postgres::Config,
        project: &str,
        invoker: Invoker,
        deployments: Arc<Deployments>,
    ) -> Self {
        let live = match convoke_feed::prepare(&postgres, &publication(project), project).await {
            Ok(system) => {
                let system = format!("{}/{}", system.identifier, system.timeline);
                match convoke_sync::incarnation(&postgres, &system).await {
                    Ok((nanoseconds, lsn)) => Ok(Live::start(
                        invoker,
                        deployments,
                        LiveOptions {
                            feed: FeedOptions::new(postgres.clone(), publication(project)),
                            project: project.to_owned(),
                            incarnation: Incarnation { nanoseconds, lsn },
                            cache_bytes_max: CACHE_BYTES_MAX,
                            evaluations_max: EVALUATIONS_MAX,
                        },
                    )),
                    Err(error) => Err(chain(&error)),
                }
            }
            Err(error) => Err(words(&error)),
        };
        if let Err(reason) = &live {
            tracing::warn!(reason, "there are no live queries");
        }
        Self { live, postgres }
    }

    /// The live queries.
    ///
    /// # Errors
    /// Why there are none, in words for whoever asked.
    pub(crate) fn get(&self) -> Result<&Live, Failure> {
        self.live
            .as_ref()
            .map_err(|reason| Failure::new(Code::Overloaded, format!("this host has no live queries: {reason}")))
    }

    /// Runs a function for a plain caller.
    pub(crate) async fn run(&self, request: Request<'_>, invoker: &Invoker) -> QueryAnswer {
        match (&self.live, request.kind) {
            (Ok(live), Kind::Query) => live.query(request, 0).await,
            (Ok(live), Kind::Mutation) => QueryAnswer::Ran(live.mutate(request, &Observe::default()).await.0),
            _ => QueryAnswer::Ran(invoker.run(request).await),
        }
    }

    /// Other functions are deployed, perhaps over other tables.
    pub(crate) async fn redeployed(&self, project: &str) {
        let Ok(live) = &self.live else { return };
        if let Err(error) = convoke_feed::prepare(&self.postgres, &publication(project), project).await {
            tracing::warn!(error = words(&error), "the publication of the change feed could not be renewed");
        }
        live.redeployed();
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
