//! How a call fails: who is at fault, what became of it, a code and words for the caller, and detail for the log.

use serde_json::Value;
use thiserror::Error;

/// What kind of failure a caller sees. The first block is the contract's list; the second says which limit of a
/// function was reached; `Application` is a code that a function chose.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Code {
    InvalidArgs,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    Conflict,
    RequestTimeout,
    PayloadTooLarge,
    RateLimited,
    Internal,
    Overloaded,
    DeadlineExceeded,
    /// The commit was on its way when the answer was lost.
    UnknownOutcome,
    /// An idempotency key was used for another call before.
    IdempotencyMismatch,
    /// The host has as many subscriptions as it serves.
    SubscriptionLimit,
    /// The results of the host's live queries take as much memory as they may.
    LiveMemoryLimit,

    MemoryLimit,
    StackLimit,
    TableLimit,
    ReadLimit,
    ResultLimit,
    LogLimit,
    HostCallLimit,
    ErrorLimit,
    InvalidResult,

    Application(String),
}

impl Code {
    /// The code as clients see it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::InvalidArgs => "INVALID_ARGS",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Forbidden => "FORBIDDEN",
            Self::NotFound => "NOT_FOUND",
            Self::MethodNotAllowed => "METHOD_NOT_ALLOWED",
            Self::Conflict => "CONFLICT",
            Self::RequestTimeout => "REQUEST_TIMEOUT",
            Self::PayloadTooLarge => "PAYLOAD_TOO_LARGE",
            Self::RateLimited => "RATE_LIMITED",
            Self::Internal => "INTERNAL",
            Self::Overloaded => "OVERLOADED",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::UnknownOutcome => "UNKNOWN_OUTCOME",
            Self::IdempotencyMismatch => "IDEMPOTENCY_MISMATCH",
            Self::SubscriptionLimit => "SUBSCRIPTION_LIMIT",
            Self::LiveMemoryLimit => "LIVE_MEMORY_LIMIT",
            Self::MemoryLimit => "MEMORY_LIMIT",
            Self::StackLimit => "STACK_LIMIT",
            Self::TableLimit => "TABLE_LIMIT",
            Self::ReadLimit => "READ_LIMIT",
            Self::ResultLimit => "RESULT_LIMIT",
            Self::LogLimit => "LOG_LIMIT",
            Self::HostCallLimit => "HOST_CALL_LIMIT",
            Self::ErrorLimit => "ERROR_LIMIT",
            Self::InvalidResult => "INVALID_RESULT",
            Self::Application(code) => code,
        }
    }

    /// The code of the host's own with this name: a function may pass on what another one met.
    fn known(name: &str) -> Option<&'static Self> {
        const KNOWN: &[Code] = &[
            Code::InvalidArgs,
            Code::Unauthorized,
            Code::Forbidden,
            Code::NotFound,
            Code::MethodNotAllowed,
            Code::Conflict,
            Code::RequestTimeout,
            Code::PayloadTooLarge,
            Code::RateLimited,
            Code::Internal,
            Code::Overloaded,
            Code::DeadlineExceeded,
            Code::UnknownOutcome,
            Code::IdempotencyMismatch,
            Code::SubscriptionLimit,
            Code::LiveMemoryLimit,
            Code::MemoryLimit,
            Code::StackLimit,
            Code::TableLimit,
            Code::ReadLimit,
            Code::ResultLimit,
            Code::LogLimit,
            Code::HostCallLimit,
            Code::ErrorLimit,
            Code::InvalidResult,
        ];
        KNOWN.iter().find(|code| code.as_str() == name)
    }

    /// The HTTP status that goes with the code. An application error whose code is one of the contract's keeps that
    /// code's status; any other is the caller's to understand, hence 400.
    pub fn http_status(&self) -> u16 {
        match self {
            Self::InvalidArgs => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::Conflict | Self::IdempotencyMismatch => 409,
            Self::RequestTimeout => 408,
            Self::PayloadTooLarge => 413,
            Self::RateLimited => 429,
            Self::Overloaded | Self::SubscriptionLimit | Self::LiveMemoryLimit => 503,
            Self::DeadlineExceeded | Self::UnknownOutcome => 504,
            Self::Internal
            | Self::MemoryLimit
            | Self::StackLimit
            | Self::TableLimit
            | Self::ReadLimit
            | Self::ResultLimit
            | Self::LogLimit
            | Self::HostCallLimit
            | Self::ErrorLimit
            | Self::InvalidResult => 500,
            Self::Application(code) => Self::known(code).map_or(400, Self::http_status),
        }
    }
}

/// Who is at fault. Whether a call is sent again, and how a socket goes on, follows from this and from the
/// [`Outcome`]; never from a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The function: an error that it returned, a trap, a limit that it reached, a refusal of what it asked for. Final.
    Function,
    /// Whoever called: no such function, arguments that do not fit. Final.
    Caller,
    /// The host, the database or the load on them. The same call may succeed later.
    System,
}

/// What became of a call that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// No function ran.
    NotBegun,
    /// Nothing of what the function wrote is there.
    Undone,
    /// What it wrote may be there or not.
    Unknown,
    /// What it wrote is there, and only its result is lost.
    Done,
}

impl Outcome {
    /// As `details.outcome` says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotBegun => "not_begun",
            Self::Undone => "undone",
            Self::Unknown => "unknown",
            Self::Done => "done",
        }
    }
}

/// A failed call. `message` and `data` go to the caller; `internal` goes to the log only.
#[derive(Debug, Clone, PartialEq, Error)]
#[error("{}: {message}", code.as_str())]
pub struct Failure {
    pub origin: Origin,
    pub outcome: Outcome,
    pub code: Code,
    pub message: String,
    pub data: Option<Value>,
    pub internal: Option<String>,
}

impl Failure {
    /// A call that is refused before a function runs.
    pub fn caller(code: Code, message: impl Into<String>) -> Self {
        Self::of(Origin::Caller, Outcome::NotBegun, code, message.into())
    }

    /// What a function did wrong, or was refused.
    pub fn function(code: Code, message: impl Into<String>) -> Self {
        Self::of(Origin::Function, Outcome::Undone, code, message.into())
    }

    /// The host or the database cannot serve; what the call wrote is undone.
    pub fn system(code: Code, message: impl Into<String>) -> Self {
        Self::of(Origin::System, Outcome::Undone, code, message.into())
    }

    /// A failure of the host that the caller can do nothing about: the words stay in the log, the caller learns a
    /// request id.
    pub fn internal(detail: impl Into<String>) -> Self {
        Self::system(Code::Internal, "").with_internal(detail)
    }

    /// A function that broke down: what it was stays in the log.
    pub fn trap(detail: impl Into<String>) -> Self {
        Self::function(Code::Internal, "").with_internal(detail)
    }

    fn of(origin: Origin, outcome: Outcome, code: Code, message: String) -> Self {
        Self { origin, outcome, code, message, data: None, internal: None }
    }

    /// The same failure with another outcome.
    #[must_use]
    pub fn with_outcome(mut self, outcome: Outcome) -> Self {
        self.outcome = outcome;
        self
    }

    /// Adds data for programs.
    #[must_use]
    pub fn with_data(mut self, data: Value) -> Self {
        self.data = Some(data);
        self
    }

    /// Adds detail for the log.
    #[must_use]
    pub fn with_internal(mut self, detail: impl Into<String>) -> Self {
        self.internal = Some(detail.into());
        self
    }

    /// Whether the same call may succeed later, and nothing of it has happened.
    pub fn is_transient(&self) -> bool {
        self.origin == Origin::System && matches!(self.outcome, Outcome::NotBegun | Outcome::Undone)
    }

    /// Whether the function itself chose this error.
    pub fn is_application(&self) -> bool {
        matches!(self.code, Code::Application(_))
    }
}

/// An error with its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
