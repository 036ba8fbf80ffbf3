//! The one error of functions: a value that reaches the client.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::bindings::convoke::runtime::types;

/// What a function returns: a value, or an [`Error`] for its caller.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An application error: code, message and data pass to the client unchanged.
///
/// Nothing secret belongs into it. What the host refuses (an unknown id, a query that is too large) comes back as an
/// error of the same type, so `?` passes it on.
#[derive(Clone, PartialEq, Eq)]
pub struct Error {
    code: String,
    message: String,
    /// JSON text.
    data: Option<String>,
}

impl Error {
    /// An error with a code that programs tell apart (`INSUFFICIENT_FUNDS`) and a message for people.
    pub fn new(code: impl Into<String>, message: impl fmt::Display) -> Self {
        Self { code: code.into(), message: message.to_string(), data: None }
    }

    /// The error of a document that isn't there: code `NOT_FOUND`.
    pub fn not_found(message: impl fmt::Display) -> Self {
        Self::new("NOT_FOUND", message)
    }

    /// The same error with data for programs.
    ///
    /// Data that JSON can't hold (a map with keys that aren't text) becomes a text that says so.
    #[must_use]
    pub fn with_data(mut self, data: impl Serialize) -> Self {
        let text = serde_json::to_string(&data)
            .unwrap_or_else(|error| Value::String(format!("the error's data is not JSON: {error}")).to_string());
        self.data = Some(text);
        self
    }

    /// What programs tell errors apart by.
    pub fn code(&self) -> &str {
        &self.code
    }

    /// What people read.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The data, if there are any and they have this form.
    pub fn data<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_str(self.data.as_deref()?).ok()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.code, self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{self}")?;
        self.data.as_ref().map_or(Ok(()), |data| write!(out, " {data}"))
    }
}

impl std::error::Error for Error {}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::new("INVALID_JSON", error)
    }
}

impl From<types::Error> for Error {
    fn from(error: types::Error) -> Self {
        Self { code: error.code, message: error.message, data: error.data }
    }
}

impl From<Error> for types::Error {
    fn from(error: Error) -> Self {
        Self { code: error.code, message: error.message, data: error.data }
    }
}

/// Returns an error: `bail!("CODE", "message {}", x)`, or `bail!(error)` with an [`Error`].
#[macro_export]
macro_rules! bail {
    ($error:expr $(,)?) => {
        return ::core::result::Result::Err(::core::convert::Into::into($error))
    };
    ($code:expr, $($message:tt)+) => {
        return ::core::result::Result::Err($crate::Error::new($code, ::core::format_args!($($message)+)).into())
    };
}

/// Returns an error unless the condition holds: `ensure!(amount > 0, "BAD_AMOUNT", "message {}", x)`, or
/// `ensure!(condition, error)` with an [`Error`].
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($error:tt)+) => {
        if !$condition {
            $crate::bail!($($error)+);
        }
    };
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn code_message_and_data_reach_the_host_unchanged() {
        let error =
            Error::new("INSUFFICIENT_FUNDS", format_args!("account {} is short", 7)).with_data(json!({"account": 7}));
        assert_eq!(error.to_string(), "INSUFFICIENT_FUNDS: account 7 is short");
        assert_eq!(error.data::<Value>(), Some(json!({"account": 7})));

        let crossed = types::Error::from(error.clone());
        assert_eq!((crossed.code.as_str(), crossed.data.as_deref()), ("INSUFFICIENT_FUNDS", Some(r#"{"account":7}"#)));
        assert_eq!(Error::from(crossed), error);
    }

    #[test]
    fn data_that_json_cannot_hold_say_so() {
        let unfit = std::collections::BTreeMap::from([((1, 2), 3)]);
        let data = Error::new("X", "y").with_data(unfit).data::<String>().unwrap();
        assert!(data.starts_with("the error's data is not JSON"), "{data}");
    }

    #[test]
    fn bail_and_ensure_take_a_code_or_an_error() {
        fn check(number: u32) -> Result<u32> {
            ensure!(number != 1, "ONE", "refused {number}");
            ensure!(number != 2, Error::not_found("two").with_data(2));
            if number == 3 {
                bail!("THREE", "refused {}", number);
            }
            Ok(number)
        }
        assert_eq!(check(0).unwrap(), 0);
        assert_eq!(check(1).unwrap_err(), Error::new("ONE", "refused 1"));
        assert_eq!(check(2).unwrap_err(), Error::not_found("two").with_data(2));
        assert_eq!(check(3).unwrap_err().code(), "THREE");
    }

    #[test]
    fn the_question_mark_takes_json_errors() {
        fn parse() -> Result<u32> {
            Ok(serde_json::from_str("\"x\"")?)
        }
        assert_eq!(parse().unwrap_err().code(), "INVALID_JSON");
    }
}
