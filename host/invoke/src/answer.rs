//! What becomes of a call.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use convoke_model::{Code, Failure};
use rand::Rng;

/// JSON text of a result: of one call, or shared by all who are given a kept result.
#[derive(Debug, Clone)]
pub enum ResultText {
    Own(String),
    Kept(Arc<str>),
}

/// How a call ended.
#[derive(Debug)]
pub struct Answer {
    pub result: Result<ResultText, Failure>,
    /// A position of Postgres' log, in bytes from its beginning: behind a mutation's commit, or one at which a query's
    /// result holds. None where it is not known.
    pub position: Option<u64>,
    /// Lines in the form `[LEVEL] text`.
    pub log: Arc<[String]>,
    /// The version that answered; none where no function was found.
    pub version: Option<VersionTag>,
    pub request_id: RequestId,
}

/// Sixteen hexadecimal digits under which the host's log holds a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId(u64);

/// The first digits of a version's digest: what the header `convoke-version` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VersionTag([u8; Self::DIGITS]);

impl VersionTag {
    const DIGITS: usize = 12;

    /// Of a digest in hexadecimal digits.
    pub fn of(digest: &str) -> Option<Self> {
        digest.as_bytes().first_chunk().map(|digits| Self(*digits))
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl RequestId {
    pub fn random() -> Self {
        Self(rand::rng().random())
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

impl Deref for ResultText {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Own(text) => text,
            Self::Kept(text) => text,
        }
    }
}

impl From<String> for ResultText {
    fn from(text: String) -> Self {
        Self::Own(text)
    }
}

impl ResultText {
    pub fn into_string(self) -> String {
        match self {
            Self::Own(text) => text,
            Self::Kept(text) => text.as_ref().to_owned(),
        }
    }

    pub fn into_shared(self) -> Arc<str> {
        match self {
            Self::Own(text) => text.into(),
            Self::Kept(text) => text,
        }
    }
}

impl Answer {
    /// Tells the log of what was logged and of what failed: what a person has to look at with its detail.
    pub(crate) fn report(&self, path: &str) {
        let request_id = self.request_id;
        for line in &*self.log {
            tracing::info!(target: "convoke::function", %request_id, function = path, "{line}");
        }
        let Err(failure) = &self.result else { return };
        let detail = failure.internal.as_deref().unwrap_or_default();
        let (code, outcome) = (failure.code.as_str(), failure.outcome.as_str());
        if failure.code == Code::Internal {
            tracing::error!(%request_id, function = path, outcome, detail, "a function failed");
        } else if failure.internal.is_some() {
            tracing::warn!(%request_id, function = path, code, outcome, detail, "a function failed");
        }
    }
}
