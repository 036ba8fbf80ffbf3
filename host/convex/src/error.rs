//! What a client or the server itself does wrong on a socket.

use thiserror::Error;

use crate::client_message::MessageError;
use crate::close::{CLOSE_AGAIN, Close};
use crate::server_message::ServerMessage;
use crate::timestamp::Timestamp;
use crate::value::ArgumentsError;
use crate::{QueryId, RequestId};

/// Why a socket cannot go on. [`ProtocolError::close`] says how it ends.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProtocolError {
    #[error("the message is larger than {limit} bytes")]
    MessageTooLarge { limit: usize },
    #[error("the message is binary: every message is one text frame")]
    Binary,
    #[error(transparent)]
    Message(#[from] MessageError),
    #[error("the first message is `{0}`: it must be `Connect`")]
    NotConnected(&'static str),
    #[error("`Connect` came a second time")]
    ConnectedTwice,
    #[error("BaseVersionMismatch: `{message}` builds on version {base}, the server has {received}")]
    BaseVersionMismatch { message: &'static str, base: u32, received: u32 },
    #[error("`ModifyQuerySet` goes from version {base} to {new}: versions must grow")]
    VersionDoesNotGrow { base: u32, new: u32 },
    #[error("the identity has changed too often on this socket")]
    VersionsUsedUp,
    #[error("the query {0} is already there")]
    QueryIsThere(QueryId),
    #[error("there is no query {0}")]
    NoSuchQuery(QueryId),
    #[error("the request {0} is still running")]
    RequestIsRunning(RequestId),
    #[error("InvalidArguments: {0}")]
    Arguments(#[from] ArgumentsError),
    #[error("`componentPath` is for administrators")]
    ComponentPath,
    #[error("a message came while an `Authenticate` was being verified")]
    AuthenticationPending,
    #[error("the client has seen the timestamp {observed}, the server has only {latest}: its data went back in time")]
    AheadOfServer { observed: Timestamp, latest: Timestamp },
    /// A token was refused, or has expired.
    #[error("{message}")]
    Authentication { message: String, base_version: u32, update_attempted: bool },
    #[error("TooManyQueries: a socket shows at most {limit} queries")]
    TooManyQueries { limit: usize },
    #[error("TooManyQueries: the arguments of a socket's queries are larger than {limit} bytes together")]
    QueriesTooLarge { limit: usize },
    #[error("more than {limit} mutations are waiting on this socket")]
    TooManyConcurrentMutations { limit: usize },
    #[error("a mutation has waited for those before it for more than {limit_ms} ms")]
    MutationWaitedTooLong { limit_ms: u64 },
    #[error("more than {limit} actions are running on this socket")]
    TooManyConcurrentActions { limit: usize },
}

impl ProtocolError {
    /// How the socket ends (1.8). A client whose mistake it is gets words and, in JavaScript, does not come back; one
    /// that has to slow down gets a code and comes back later.
    pub fn close(&self) -> Close {
        let error = self.to_string();
        match self {
            Self::Authentication { message, base_version, update_attempted } => {
                let (base_version, update_attempted) = (*base_version, *update_attempted);
                Close::after(&ServerMessage::AuthError { error: message, base_version, update_attempted })
            }
            // In the words that clients know. They send again what waits: nothing is lost, and nothing runs twice.
            Self::TooManyConcurrentMutations { .. } | Self::MutationWaitedTooLong { .. } => {
                Close::new(CLOSE_AGAIN, "TooManyConcurrentMutations")
            }
            Self::TooManyConcurrentActions { .. } => Close::new(CLOSE_AGAIN, "TooManyConcurrentActions"),
            _ => Close::after(&ServerMessage::FatalError { error: &error }),
        }
    }
}

/// What the server asked of a session and must not: a mistake of ours, never the client's. The session is as before.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Misuse {
    #[error("the request {0} is not running")]
    RequestIsNotRunning(RequestId),
    #[error("no `Authenticate` waits for an outcome")]
    NothingToAuthenticate,
    #[error("no `Connect` has come")]
    NotConnected,
    #[error("a transition is already being computed")]
    TransitionIsRunning,
    #[error("no transition is being computed")]
    NoTransitionIsRunning,
    #[error("the transition goes back from {sent} to {ts}")]
    Backwards { sent: Timestamp, ts: Timestamp },
    #[error("the transition to {ts} may cover a mutation that is not answered: at most {at_most}")]
    CoversUnanswered { at_most: Timestamp, ts: Timestamp },
    #[error("the transition has no result for the query {0}, which has never been answered")]
    Unanswered(QueryId),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_mistake_is_fatal() {
        let mismatch = ProtocolError::BaseVersionMismatch { message: "ModifyQuerySet", base: 1, received: 0 };
        let close = mismatch.close();
        let text = r#"{"type":"FatalError","error":"BaseVersionMismatch: `ModifyQuerySet` builds on version 1, the server has 0"}"#;
        assert_eq!(close.message.as_deref(), Some(text));
        assert_eq!((close.code, close.reason.as_str()), (None, ""));
    }

    #[test]
    fn a_refused_token_is_no_fatal_error() {
        let refused = ProtocolError::Authentication {
            message: "NoAuthProvider".to_owned(),
            base_version: 2,
            update_attempted: true,
        };
        let text = r#"{"type":"AuthError","error":"NoAuthProvider","baseVersion":2,"authUpdateAttempted":true}"#;
        assert_eq!(refused.close().message.as_deref(), Some(text));
    }

    #[test]
    fn who_asks_too_much_comes_back_later() {
        let close = ProtocolError::TooManyConcurrentMutations { limit: 1_000 }.close();
        assert_eq!(close, Close::new(1013, "TooManyConcurrentMutations"));
        assert_eq!(ProtocolError::MutationWaitedTooLong { limit_ms: 60_000 }.close(), close);
    }
}
