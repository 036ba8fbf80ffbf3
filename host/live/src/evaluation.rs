//! What a query gave, and where it holds.

use std::any::Any;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, OnceLock};

use convoke_feed::Snapshot;
use convoke_invoke::{Ran, RequestId, VersionTag};
use convoke_model::{Failure, Observed, Origin, ReadSet};

use crate::memory::Held;
use crate::published::Published;

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
    pub log: Arc<[String]>,
    /// The version that ran; none where no function was found.
    pub version: Option<VersionTag>,
    /// Under which the host's log holds the run.
    pub request_id: RequestId,
    /// Where the query's page ended.
    pub journal: Option<Arc<str>>,
    /// A position of the log, in bytes from its beginning.
    pub from: u64,
    /// Equal for results that a client cannot tell apart.
    pub hash: u64,
    /// The function's path.
    pub path: Arc<str>,
    /// Which transactions it contains; none where it read nothing.
    pub snapshot: Option<Snapshot>,
    pub(crate) verdict: Verdict,
    /// The result in the form of a protocol.
    rendered: OnceLock<Arc<dyn Any + Send + Sync>>,
    held: Held,
}

/// What a run says of its query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The result, which a plain caller may be given too.
    Result,
    /// The result, of which a plain caller has to be given a run of his own.
    Volatile,
    /// Nothing: the system failed it.
    Failed,
}

/// What a run gave, before it is known how much memory that takes.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) path: Arc<str>,
    pub(crate) ran: Ran,
    pub(crate) journal: Option<String>,
    pub(crate) from: u64,
    pub(crate) snapshot: Option<Snapshot>,
    pub(crate) verdict: Verdict,
}

impl Outcome {
    /// What a run gave, and what it read.
    pub(crate) fn of(key: &QueryKey, ran: Ran, observed: Observed, published: &Published) -> (Self, ReadSet) {
        let verdict = match &ran.result {
            Err(failure) if failure.origin == Origin::System => Verdict::Failed,
            _ if observed.volatile || !published.tell_of(&observed) => Verdict::Volatile,
            _ => Verdict::Result,
        };
        let outcome = Self {
            path: Arc::clone(&key.path),
            ran,
            journal: observed.journal,
            // What read nothing holds everywhere.
            from: observed.lsn.unwrap_or_default(),
            snapshot: observed.snapshot.as_deref().and_then(|text| text.parse().ok()),
            verdict,
        };
        (outcome, observed.reads)
    }

    /// A run that the system has failed.
    pub(crate) fn failed(path: Arc<str>, failure: Failure) -> Self {
        let ran = Ran { result: Err(failure), log: Arc::default(), version: None, request_id: RequestId::random() };
        Self { path, ran, journal: None, from: 0, snapshot: None, verdict: Verdict::Failed }
    }

    /// Memory that it takes, without its read set.
    pub(crate) fn bytes(&self) -> usize {
        let result = self.ran.result.as_ref().map_or(256, |text| text.len());
        result + self.ran.log.iter().map(String::len).sum::<usize>() + self.journal.as_ref().map_or(0, String::len)
    }
}

impl Evaluation {
    pub(crate) fn new(outcome: Outcome, held: Held) -> Self {
        let Outcome { path, ran, journal, from, snapshot, verdict } = outcome;
        let Ran { result, log, version, request_id } = ran;
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
            result,
            log,
            version,
            request_id,
            journal: journal.map(Arc::from),
            from,
            hash: hasher.finish(),
            path,
            snapshot,
            verdict,
            rendered: OnceLock::new(),
            held,
        }
    }

    /// The result in the form of a protocol, made by whoever needs it first, and shared; none where there is one of
    /// another type.
    pub fn rendered<T: Any + Send + Sync>(&self, make: impl FnOnce() -> T) -> Option<Arc<T>> {
        let made = self.rendered.get_or_init(|| {
            // The same text once more, nearly.
            self.held.grow(self.result.as_ref().map_or(256, |text| text.len()));
            Arc::new(make())
        });
        Arc::clone(made).downcast().ok()
    }

    /// Whether it may be given to plain callers.
    pub(crate) fn may_be_shared(&self) -> bool {
        self.verdict == Verdict::Result && self.result.is_ok()
    }

    /// Memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.held.bytes()
    }
}
