//! How a socket ends (1.8).

use convoke_model::{Code, Failure, Origin};

use crate::server_message::ServerMessage;

/// An ordinary end.
pub const CLOSE_NORMAL: u16 = 1000;

/// The server stops; the client comes back, and says nothing about it.
pub const CLOSE_GOING_AWAY: u16 = 1001;

/// The server is at fault.
pub const CLOSE_INTERNAL: u16 = 1011;

/// The client may try again later.
pub const CLOSE_AGAIN: u16 = 1013;

/// There is no such deployment.
pub const CLOSE_NOT_FOUND: u16 = 4040;

/// What a close frame holds beside its code.
pub const CLOSE_REASON_BYTES_MAX: usize = 123;

/// The reason that goes with [`CLOSE_INTERNAL`].
pub const INTERNAL_SERVER_ERROR: &str = "InternalServerError";

/// The last words on a socket: a message first, where there is one, then a close frame. Without a code the frame is
/// empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Close {
    pub message: Option<String>,
    pub code: Option<u16>,
    /// A short code: clients choose how long they wait by how it begins (1.7).
    pub reason: String,
}

impl Close {
    /// With a code and a reason, which is cut where it is too long.
    pub fn new(code: u16, reason: &str) -> Self {
        let end = reason.floor_char_boundary(CLOSE_REASON_BYTES_MAX);
        Self { message: None, code: Some(code), reason: reason[..end].to_owned() }
    }

    /// With a message that says all.
    pub fn after(message: &ServerMessage<'_>) -> Self {
        Self { message: Some(message.to_text()), code: None, reason: String::new() }
    }

    /// The server is at fault: the client comes back.
    pub fn internal() -> Self {
        Self::new(CLOSE_INTERNAL, INTERNAL_SERVER_ERROR)
    }

    /// The server has too much to do: the client comes back later, in the words that it knows.
    pub fn too_busy() -> Self {
        Self::new(CLOSE_AGAIN, "TooManyConcurrentRequests")
    }

    /// A mutation that failed for a reason of the system has no answer: the socket ends, and the client sends the
    /// mutation again, whatever became of it: its receipt tells. None for any other failure, which is final and is
    /// answered.
    pub fn of_failure(failure: &Failure) -> Option<Self> {
        if failure.origin != Origin::System {
            return None;
        }
        Some(match failure.code {
            Code::Internal => Self::internal(),
            Code::Conflict => Self::new(CLOSE_AGAIN, "OptimisticConcurrencyControlFailure"),
            Code::SubscriptionLimit => Self::new(CLOSE_AGAIN, "SubscriptionsWorkerFullError"),
            Code::RateLimited => Self::new(CLOSE_AGAIN, "RateLimited"),
            // One that clients know, and after which they wait for longer.
            _ => Self::new(CLOSE_AGAIN, "TooManyConcurrentRequests"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_fits_its_frame() {
        let close = Close::new(CLOSE_AGAIN, &"é".repeat(100));
        assert_eq!(close.reason, "é".repeat(61));
    }

    #[test]
    fn only_the_systems_failures_end_a_socket() {
        let reason = |code| Close::of_failure(&Failure::system(code, "x")).map(|close| (close.code, close.reason));
        let again = |reason: &str| Some((Some(1013), reason.to_owned()));
        assert_eq!(reason(Code::Conflict), again("OptimisticConcurrencyControlFailure"));
        assert_eq!(reason(Code::Overloaded), again("TooManyConcurrentRequests"));
        assert_eq!(Close::of_failure(&Failure::internal("x")), Some(Close::internal()));
        for code in [Code::Internal, Code::Conflict, Code::Overloaded, Code::Application("CONFLICT".to_owned())] {
            assert_eq!(Close::of_failure(&Failure::function(code.clone(), "x")), None);
            assert_eq!(Close::of_failure(&Failure::caller(code, "x")), None);
        }
    }
}
