//! How a call fails: a code and words for the caller, and detail for the log.

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
    PayloadTooLarge,
    RateLimited,
    Internal,
    Overloaded,
    DeadlineExceeded,

    MemoryLimit,
    StackLimit,
    TableLimit,
    ResultLimit,
    LogLimit,
    HostCallLimit,
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
            Self::PayloadTooLarge => "PAYLOAD_TOO_LARGE",
            Self::RateLimited => "RATE_LIMITED",
            Self::Internal => "INTERNAL",
            Self::Overloaded => "OVERLOADED",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::MemoryLimit => "MEMORY_LIMIT",
            Self::StackLimit => "STACK_LIMIT",
            Self::TableLimit => "TABLE_LIMIT",
            Self::ResultLimit => "RESULT_LIMIT",
            Self::LogLimit => "LOG_LIMIT",
            Self::HostCallLimit => "HOST_CALL_LIMIT",
            Self::InvalidResult => "INVALID_RESULT",
            Self::Application(code) => code,
        }
    }

    /// The code of the host's own with this name: a function may pass on what another one met.
    fn known(name: &str) -> Option<&'static Self> {
        const KNOWN: [Code; 18] = [
            Code::InvalidArgs,
            Code::Unauthorized,
            Code::Forbidden,
            Code::NotFound,
            Code::MethodNotAllowed,
            Code::Conflict,
            Code::PayloadTooLarge,
            Code::RateLimited,
            Code::Internal,
            Code::Overloaded,
            Code::DeadlineExceeded,
            Code::MemoryLimit,
            Code::StackLimit,
            Code::TableLimit,
            Code::ResultLimit,
            Code::LogLimit,
            Code::HostCallLimit,
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
            Self::Conflict => 409,
            Self::PayloadTooLarge => 413,
            Self::RateLimited => 429,
            Self::Overloaded => 503,
            Self::DeadlineExceeded => 504,
            Self::Internal
            | Self::MemoryLimit
            | Self::StackLimit
            | Self::TableLimit
            | Self::ResultLimit
            | Self::LogLimit
            | Self::HostCallLimit
            | Self::InvalidResult => 500,
            Self::Application(code) => Self::known(code).map_or(400, Self::http_status),
        }
    }
}

/// A failed call. `message` and `data` go to the caller; `internal` goes to the log only.
#[derive(Debug, Clone, PartialEq, Error)]
#[error("{}: {message}", code.as_str())]
pub struct Failure {
    pub code: Code,
    pub message: String,
    pub data: Option<Value>,
    pub internal: Option<String>,
}

impl Failure {
    /// A failure whose message the caller may read.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: None, internal: None }
    }

    /// A failure that the caller can do nothing about: the words stay in the log, the caller learns a request id.
    pub fn internal(detail: impl Into<String>) -> Self {
        Self { code: Code::Internal, message: String::new(), data: None, internal: Some(detail.into()) }
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
