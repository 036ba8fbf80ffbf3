//! Times and sizes of the protocol. The server keeps the timers.

/// How often the server pings a socket, with the WebSocket's own ping (1.2).
pub const SOCKET_PING_INTERVAL_MS: u64 = 5_000;

/// After how long without any frame of the client its socket is dropped (1.2).
pub const SILENCE_MS_MAX: u64 = 120_000;

/// After how long without another message of the server it says `Ping`: browsers see no pings of the WebSocket's own, and
/// reconnect after a minute of silence (1.2).
pub const PING_INTERVAL_MS: u64 = 15_000;

/// A transition above this is sent in pieces, to clients that can put them together (1.5).
pub const CHUNK_BYTES_MAX: usize = 5_000_000;

/// How many mutations of one socket may wait while another runs (1.6).
pub const MUTATIONS_WAITING_MAX: usize = 1_000;

/// How long a mutation may wait for those before it (1.6).
pub const MUTATION_WAIT_MS_MAX: u64 = 60_000;

/// How many actions of one socket may run at a time (1.6).
pub const ACTIONS_MAX: usize = 1_000;

/// How much the calls of one socket may hold that have no answer yet: more is not read from it before. A call alone may be
/// larger.
pub const CALLS_BYTES_MAX: usize = 32 << 20;

/// How many queries one socket may show. A page shows some tens; what needs more is better written as one query.
pub const QUERIES_MAX: usize = 4_096;

/// How much the paths, arguments and journals of one socket's queries may hold: 500 bytes for each of as many as it may
/// show. They stay for as long as the socket does.
pub const QUERIES_BYTES_MAX: usize = 2 << 20;
