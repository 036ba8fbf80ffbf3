//! The fifth layer: results of queries that still hold, in place of a run.
//!
//! Who keeps them is not known here: `live` does, which hears of every change.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use convoke_deploy::Deployment;
use convoke_model::{Failure, Observed};
use futures_util::future::BoxFuture;

use crate::answer::{RequestId, ResultText, VersionTag};
use crate::run::Ended;

/// A query that may have been answered before.
#[derive(Debug)]
pub struct Asked<'a> {
    /// The function's canonical path.
    pub path: &'a str,
    pub args: &'a str,
    /// The one that a run would take. A result of it is not kept once another one serves.
    pub deployment: &'a Arc<Deployment>,
    /// The result shows all that committed before this position, and all that had committed when it was asked for.
    pub at_least: u64,
    pub deadline: Instant,
}

/// Keeps results, and knows how long they hold.
pub trait KeptResults: Send + Sync {
    /// Looks for a result that holds now.
    fn find<'a>(&'a self, asked: Asked<'a>) -> BoxFuture<'a, Lookup>;

    /// A mutation committed before this position of the log.
    fn committed(&self, position: u64);
}

/// What was found.
pub enum Lookup {
    Kept(KeptResult),
    /// Nothing that holds; it is worth keeping what a run gives. Dropping the keeper says that there is nothing to keep.
    Keep(Box<dyn Keeper>),
    Run,
}

/// A result that holds.
#[derive(Debug, Clone)]
pub struct KeptResult {
    pub text: Arc<str>,
    pub log: Arc<[String]>,
    /// In bytes from the log's beginning.
    pub position: u64,
    pub version: Option<VersionTag>,
}

/// Takes the result of one run.
pub trait Keeper: Send {
    fn keep(self: Box<Self>, ran: Ran, observed: Observed);
}

/// A run of a query, to be kept.
#[derive(Debug, Clone)]
pub struct Ran {
    pub result: Result<Arc<str>, Failure>,
    pub log: Arc<[String]>,
    pub version: Option<VersionTag>,
    pub request_id: RequestId,
}

impl fmt::Debug for Lookup {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Kept(_) => "Kept",
            Self::Keep(_) => "Keep",
            Self::Run => "Run",
        })
    }
}

impl KeptResult {
    pub(crate) fn ended(self) -> Ended {
        Ended {
            result: Ok(ResultText::Kept(self.text)),
            log: self.log,
            version: self.version,
            observed: Observed { lsn: Some(self.position), ..Observed::default() },
        }
    }
}
