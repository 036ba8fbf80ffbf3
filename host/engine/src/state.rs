//! What one instance carries: the call's limits, its database, its clock, its log.

use std::sync::Arc;
use std::time::Instant;

use convoke_model::{Code, Database, Failure, Kind, Limits};
use futures_util::future::BoxFuture;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use thiserror::Error;
use wasmtime::ResourceLimiter;

use crate::check;

/// Standard error that is kept for the host's log: room for a panic and where it came from.
const STDERR_BYTES_MAX: usize = 8 << 10;

/// What an action reaches beside the database.
pub trait Outside: Send + Sync {
    /// Runs another function of the project, in a transaction of its own.
    fn run<'a>(&'a self, kind: Kind, name: &'a str, args: &'a str) -> BoxFuture<'a, Result<String, Failure>>;

    /// Sends an HTTP request through the host's gate.
    fn send<'a>(&'a self, request: &'a str, body: Vec<u8>) -> BoxFuture<'a, Result<OutboundResponse, Failure>>;
}

/// The answer to an outbound request; `headers` is a JSON array of pairs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboundResponse {
    pub status: u16,
    pub headers: String,
    pub body: Vec<u8>,
}

/// The time and the randomness of a call. A repeated run gets the same.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clock {
    /// Milliseconds since 1970.
    pub now_ms: f64,
    pub seed: [u8; 32],
}

/// Ends a call from within the host.
#[derive(Debug, Error)]
pub(crate) enum Stop {
    #[error("{0}")]
    Failure(Box<Failure>),
    #[error("the transaction lost against another one")]
    Conflict,
    #[error("the query needs a snapshot over several statements")]
    NeedsSnapshot,
}

/// The store data of an instance.
pub(crate) struct State {
    pub(crate) kind: Kind,
    pub(crate) limits: Arc<Limits>,
    pub(crate) deadline: Instant,
    pub(crate) clock: Clock,
    pub(crate) request_id: String,
    pub(crate) database: Option<Box<dyn Database>>,
    pub(crate) outside: Option<Arc<dyn Outside>>,
    pub(crate) log: Vec<String>,
    pub(crate) stderr: Vec<u8>,
    /// Whether the function asked for what differs from call to call.
    pub(crate) volatile: bool,
    log_bytes: usize,
    /// Of all memories of the instance together, and of all tables.
    memory_bytes: usize,
    table_elements: usize,
    host_calls: u64,
    /// Made when a function first asks: most never do.
    random: Option<ChaCha8Rng>,
    started: Instant,
}

impl State {
    pub(crate) fn new(limits: Arc<Limits>, kind: Kind, deadline: Instant, clock: Clock, request_id: &str) -> Self {
        Self {
            kind,
            limits,
            deadline,
            clock,
            request_id: request_id.to_owned(),
            database: None,
            outside: None,
            log: Vec::new(),
            stderr: Vec::new(),
            volatile: false,
            log_bytes: 0,
            memory_bytes: 0,
            table_elements: 0,
            host_calls: 0,
            random: None,
            started: Instant::now(),
        }
    }

    /// Counts a host call, and refuses it where the kind's world lacks its interface: the component may have it for
    /// the sake of another function.
    pub(crate) fn enter(&mut self, interface: &str, function: &str) -> Result<(), Stop> {
        self.count()?;
        if check::allows(self.kind, interface) {
            return Ok(());
        }
        let words = format!("a {} has no `{interface}.{function}`", self.kind);
        Err(Stop::failure(Failure::function(Code::Forbidden, words)))
    }

    /// Counts a host call.
    pub(crate) fn count(&mut self) -> Result<(), Stop> {
        self.host_calls += 1;
        if self.host_calls <= self.limits.host_calls_max {
            return Ok(());
        }
        let words = format!("the function called the host more than {} times", self.limits.host_calls_max);
        Err(Stop::failure(Failure::function(Code::HostCallLimit, words)))
    }

    /// Adds a line in the form that Convex' clients read.
    pub(crate) fn log(&mut self, level: &str, message: &str) -> Result<(), Stop> {
        let level = match level {
            "debug" => "DEBUG",
            "info" => "INFO",
            "warn" => "WARN",
            "error" => "ERROR",
            _ => "LOG",
        };
        self.log_bytes += message.len();
        if self.log.len() >= self.limits.log_lines_max || self.log_bytes > self.limits.log_bytes_max {
            let words = format!(
                "the function logged more than {} lines or {} bytes",
                self.limits.log_lines_max, self.limits.log_bytes_max
            );
            return Err(Stop::failure(Failure::function(Code::LogLimit, words)));
        }
        self.log.push(format!("[{level}] {message}"));
        Ok(())
    }

    /// What a guest wrote to its standard error, as far as it is kept.
    pub(crate) fn push_stderr(&mut self, bytes: &[u8]) {
        let room = STDERR_BYTES_MAX.saturating_sub(self.stderr.len());
        self.stderr.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    pub(crate) fn fill_random(&mut self, bytes: &mut [u8]) {
        let seed = self.clock.seed;
        self.random.get_or_insert_with(|| ChaCha8Rng::from_seed(seed)).fill_bytes(bytes);
    }

    pub(crate) fn random_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill_random(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// Milliseconds since 1970: the call's own while it is a query, a mutation or a rule; the real ones in an action.
    pub(crate) fn now_ms(&self) -> f64 {
        self.clock.now_ms + self.elapsed_ms()
    }

    /// Milliseconds since the call began, as the function may know them.
    pub(crate) fn elapsed_ms(&self) -> f64 {
        match self.kind {
            Kind::Query | Kind::Mutation | Kind::Rule => 0.0,
            Kind::Action => self.started.elapsed().as_secs_f64() * 1000.0,
        }
    }
}

impl Stop {
    pub(crate) fn failure(failure: Failure) -> Self {
        Self::Failure(Box::new(failure))
    }
}

/// Counts the growth of a memory or a table among all that the instance holds, and tells whether it happens: what goes beyond
/// the guest's own `maximum` does not. None where it would hold more than it may.
fn grow(held: &mut usize, held_max: usize, current: usize, desired: usize, maximum: Option<usize>) -> Option<bool> {
    let grown = held.saturating_add(desired.saturating_sub(current));
    if grown > held_max {
        return None;
    }
    let is_within = maximum.is_none_or(|maximum| desired <= maximum);
    if is_within {
        *held = grown;
    }
    Some(is_within)
}

impl ResourceLimiter for State {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let held_max = self.limits.memory_bytes_max;
        grow(&mut self.memory_bytes, held_max, current, desired, maximum).ok_or_else(|| {
            let words = format!("the function needs more than {held_max} bytes of memory");
            Stop::failure(Failure::function(Code::MemoryLimit, words)).into()
        })
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let held_max = self.limits.table_elements_max;
        grow(&mut self.table_elements, held_max, current, desired, maximum).ok_or_else(|| {
            let words = format!("the function needs tables of more than {held_max} elements");
            Stop::failure(Failure::function(Code::TableLimit, words)).into()
        })
    }

    fn instances(&self) -> usize {
        256
    }

    fn tables(&self) -> usize {
        64
    }

    fn memories(&self) -> usize {
        16
    }
}
