//! Convex' client protocol: its messages, its values, and what is said on one socket.
//!
//! [`Session`] is the whole of it for a server: texts of a client go in, commands for the server and texts for the
//! client come out. Section numbers in this crate's documentation are those of the notes on the protocol.
//!
//! Invariant: nothing here does I/O or reads a clock, and nothing here runs a function. The server owns the sockets and
//! the timers, chooses timestamps, and brings results.

mod client_message;
mod client_version;
mod close;
mod error;
mod failure;
mod limits;
mod query_result;
mod server_message;
mod session;
mod timestamp;
mod value;

pub use client_message::{AddQuery, ClientMessage, Connect, MessageError, QuerySetModification, Token};
pub use client_version::ClientVersion;
pub use close::{
    CLOSE_AGAIN, CLOSE_GOING_AWAY, CLOSE_INTERNAL, CLOSE_NORMAL, CLOSE_NOT_FOUND, CLOSE_REASON_BYTES_MAX, Close,
    INTERNAL_SERVER_ERROR,
};
pub use error::{Misuse, ProtocolError};
pub use failure::{FunctionError, error_data, error_message};
pub use limits::{
    ACTIONS_MAX, CALLS_BYTES_MAX, CHUNK_BYTES_MAX, MUTATION_WAIT_MS_MAX, MUTATIONS_WAITING_MAX, PING_INTERVAL_MS,
    QUERIES_BYTES_MAX, QUERIES_MAX, SILENCE_MS_MAX, SOCKET_PING_INTERVAL_MS,
};
pub use query_result::{Digest, QueryResult};
pub use server_message::{Modification, ServerMessage, StateVersion};
pub use session::{Call, Command, Committed, Response, Session, TransitionPlan};
pub use timestamp::{Timestamp, TimestampError};
pub use value::{ArgumentsError, Encoded, encode, named_arguments, single_argument};

/// A query's number, which the client gives it (1.3).
pub type QueryId = u32;

/// A mutation's or action's number, which the client gives it (1.3).
pub type RequestId = u32;
