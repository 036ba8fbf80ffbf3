//! What a query gave, and where it holds.

use std::any::Any;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, OnceLock};

use convoke_feed::Snapshot;
use convoke_model::Failure;

/// A query with its arguments: what subscribers share one evaluation of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct QueryKey {
    /// The function's canonical path.
    pub path: Arc<str>,
    /// The arguments as canonical JSON text.
    pub args: Arc<str>,
    /// Where the query's page ended when it ran first.
    pub journal: Option<Arc<str>>,
}

/// One run of a query. It is the truth at every position of the log from `from` until the first write that it does not
/// contain.
#[derive(Debug)]
pub struct Evaluation {
    /// The result as JSON text.
    pub result: Result<Arc<str>, Failure>,
    /// Lines in the form `[LEVEL] text`.
    pub log: Vec<String>,
    /// Where the query's page ended.
    pub journal: Option<Arc<str>>,
    /// A position of the log, in bytes from its beginning.
    pub from: u64,
    /// Equal for results that a client cannot tell apart.
    pub hash: u64,
    /// The result in the words of a protocol, made by whoever needs it first, and shared.
    pub rendered: OnceLock<Arc<dyn Any + Send + Sync>>,
    /// The function's path.
    pub path: Arc<str>,
    /// Which transactions it contains; none where it read nothing.
    pub snapshot: Option<Snapshot>,
    /// Whether a plain caller has to be given a run of his own.
    pub(crate) volatile: bool,
}

impl Evaluation {
    pub(crate) fn new(
        path: Arc<str>,
        result: Result<String, Failure>,
        log: Vec<String>,
        journal: Option<String>,
        from: u64,
        snapshot: Option<Snapshot>,
    ) -> Self {
        let mut hasher = DefaultHasher::new();
        match &result {
            Ok(text) => (0, text).hash(&mut hasher),
            Err(failure) => {
                let data = failure.data.as_ref().map(ToString::to_string);
                (1, failure.code.as_str(), &failure.message, data).hash(&mut hasher);
            }
        }
        log.hash(&mut hasher);
        Self {
            result: result.map(Arc::from),
            log,
            journal: journal.map(Arc::from),
            from,
            hash: hasher.finish(),
            rendered: OnceLock::new(),
            path,
            snapshot,
            volatile: false,
        }
    }

    /// Memory that it holds, roughly.
    pub(crate) fn bytes(&self) -> usize {
        let result = self.result.as_ref().map_or(256, |text| text.len());
        result + self.log.iter().map(String::len).sum::<usize>() + 256
    }
}
