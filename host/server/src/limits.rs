//! The bounds of a host towards those who connect to it.

use std::sync::Arc;

use crate::budget::Budget;

/// Times are milliseconds, sizes are bytes. What a function may do is bounded by `convoke_model::Limits`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerLimits {
    /// From a connection's beginning, or the first byte of a later request, to the end of that request's head.
    pub head_ms_max: u64,
    /// From one request to the whole head of the next one on the same connection.
    pub idle_ms_max: u64,
    /// From the head of a request to the end of its body.
    pub body_ms_max: u64,
    /// Connections at once. Where the process may open too few files for them, so many as it may.
    pub connections_max: usize,
    /// Requests under `/api/` in work at once, from the head to the end of the answer. Sockets and streams are not among
    /// them.
    pub requests_max: usize,
    /// Sockets and event streams at once.
    pub sockets_max: usize,
    /// Bodies of requests, messages on sockets until they are whole, and calls of sockets until they are answered.
    pub bodies_bytes_max: usize,
    /// Arguments of the queries that sockets and event streams show, which stay for as long as they are shown.
    pub queries_bytes_max: usize,
    /// Answers, events and transitions that are being sent.
    pub answers_bytes_max: usize,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            // A head is a packet or two; a telephone whose network comes and goes may need a few seconds.
            head_ms_max: 15_000,
            // Longer than load balancers keep theirs, which would else send into a connection that is being closed.
            idle_ms_max: 75_000,
            body_ms_max: 60_000,
            connections_max: 16_384,
            // More wait for a slot than `queue_ms_max` serves; the others are better told at once.
            requests_max: 4_096,
            // The rest of the connections is for plain calls.
            sockets_max: 14_336,
            bodies_bytes_max: 256 << 20,
            queries_bytes_max: 128 << 20,
            answers_bytes_max: 512 << 20,
        }
    }
}

/// What of the bounds is in use.
#[derive(Debug)]
pub(crate) struct Bounds {
    pub(crate) requests: Arc<Budget>,
    pub(crate) sockets: Arc<Budget>,
    pub(crate) bodies: Arc<Budget>,
    pub(crate) queries: Arc<Budget>,
    pub(crate) answers: Arc<Budget>,
}

impl Bounds {
    pub(crate) fn new(limits: &ServerLimits) -> Self {
        Self {
            requests: Budget::new(limits.requests_max),
            sockets: Budget::new(limits.sockets_max),
            bodies: Budget::new(limits.bodies_bytes_max),
            queries: Budget::new(limits.queries_bytes_max),
            answers: Budget::new(limits.answers_bytes_max),
        }
    }
}
