//! Who calls, from where, and what he is owed.

use std::time::Instant;

use convoke_store::Receipt;
use uuid::Uuid;

use crate::commit_watch::CommitWatch;

/// Who a call is made for. It enters here and nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Identity {
    /// Nobody has said who he is; there is no way to yet.
    #[default]
    Nobody,
}

/// From where a call comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallOrigin {
    /// A request of its own, as `convoke run` makes too.
    Http,
    /// A message on a socket of Convex' protocol.
    Socket,
    /// A query that is run for those who are subscribed to it, by event stream or by socket.
    Subscription,
    /// A function that another one called.
    Action {
        /// How many actions are above it.
        depth: u32,
    },
}

/// Under what a mutation happens once, however often it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallKey {
    /// A request of a session of Convex' protocol.
    Request {
        session: Uuid,
        number: u32,
        /// Whether it cannot have been sent before: the client has not been connected before.
        is_first: bool,
    },
    /// The text of the header `idempotency-key`.
    Text(String),
}

/// A caller. Made once a call.
#[derive(Debug, Clone)]
pub struct Caller {
    pub identity: Identity,
    pub origin: CallOrigin,
    /// For mutations.
    pub key: Option<CallKey>,
    /// A deadline before the function's own.
    pub deadline: Option<Instant>,
    /// A position of Postgres' log, in bytes from its beginning: the answer shows all that committed before it.
    pub at_least: u64,
    /// The digest, or its beginning, of the version that is to answer.
    pub version: Option<String>,
    /// Told when a mutation's commit begins.
    pub commit: Option<CommitWatch>,
}

impl Caller {
    /// Nobody in particular, with no wishes.
    pub fn new(origin: CallOrigin) -> Self {
        let identity = Identity::Nobody;
        Self { identity, origin, key: None, deadline: None, at_least: 0, version: None, commit: None }
    }

    /// Under what a mutation happens once: the same key for another call is not the same mutation.
    pub(crate) fn receipt(&self, path: &str, args: &str) -> Option<Receipt> {
        let (scope, key, fresh) = match self.key.as_ref()? {
            CallKey::Request { session, number, is_first } => (session.to_string(), number.to_string(), *is_first),
            CallKey::Text(text) => (String::new(), text.clone(), false),
        };
        let digest = Receipt::digest(path, args);
        Some(Receipt { scope: scope.into(), key: key.into(), digest, fresh })
    }

    /// How many actions are above the call.
    pub(crate) fn depth(&self) -> u32 {
        match self.origin {
            CallOrigin::Action { depth } => depth,
            CallOrigin::Http | CallOrigin::Socket | CallOrigin::Subscription => 0,
        }
    }
}
