//! From a name and JSON text to the author's function and back.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::error::{Error, Result};
#[cfg(target_family = "wasm")]
use crate::manifest::Function;
use crate::table::Table;

/// Calls the function of this name.
///
/// A walk over the registered functions: an instance serves few calls, so that sorting first would cost more than it saves.
#[cfg(target_family = "wasm")]
pub(crate) fn call(name: &str, arguments: &str) -> Result<String> {
    match inventory::iter::<Function>.into_iter().find(|function| function.name == name) {
        Some(function) => (function.call)(arguments),
        None => Err(Error::not_found(format_args!("this component has no function `{name}`"))),
    }
}

/// What can be an argument.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be an argument of a function",
    label = "not an argument",
    note = "an argument is `Deserialize` and `JsonSchema`; put `#[value]` on a type of your own"
)]
pub trait Argument: DeserializeOwned + JsonSchema {}

impl<T: DeserializeOwned + JsonSchema> Argument for T {}

/// Only compiles for what can be an argument.
pub const fn assert_argument<T: Argument>() {}

/// Only compiles for what can be an upcast. That it is registered as a rule is found out with the manifest.
pub const fn assert_upcast<D: Argument, R: Reply>(_: fn(D, u32) -> Result<R>) {}

/// Only compiles where the table stores a field under this name, or does not say; `message` is for the author.
pub const fn assert_stored<T: Table>(field: &str, stored: &str, message: &str) {
    let mut fields = T::FIELDS;
    while let [(name, known), rest @ ..] = fields {
        assert!(!is_same(name, field) || is_same(known, stored), "{}", message);
        fields = rest;
    }
}

const fn is_same(one: &str, other: &str) -> bool {
    let (mut one, mut other) = (one.as_bytes(), other.as_bytes());
    while let ([first, one_rest @ ..], [second, other_rest @ ..]) = (one, other) {
        if *first != *second {
            return false;
        }
        (one, other) = (one_rest, other_rest);
    }
    one.is_empty() && other.is_empty()
}

/// What can be the result of a function.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be the result of a function",
    label = "not a result",
    note = "a result is `Serialize` and `JsonSchema`, or a `convoke::Result` of that; put `#[value]` on a type of your own"
)]
pub trait Reply: Serialize + JsonSchema {}

impl<T: Serialize + JsonSchema> Reply for T {}

/// A `Result` with an error that turns into [`Error`].
#[diagnostic::on_unimplemented(
    message = "the error of this `Result` doesn't become a `convoke::Error`",
    note = "return `convoke::Result<T>`, or implement `From<YourError> for convoke::Error`"
)]
pub trait Fallible {
    /// What it holds when all went well.
    type Value;

    /// The same, with the one error that crosses to the host.
    fn into_result(self) -> Result<Self::Value>;
}

impl<T, E: Into<Error>> Fallible for std::result::Result<T, E> {
    type Value = T;

    fn into_result(self) -> Result<T> {
        self.map_err(Into::into)
    }
}

/// Reads the named arguments.
pub fn arguments<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| invalid_arguments::<T>(text, &error))
}

/// Reads the text once more to say where it doesn't fit: keeping track of the path slows every other reading.
#[cold]
fn invalid_arguments<T: DeserializeOwned>(text: &str, error: &serde_json::Error) -> Error {
    let (path, reason) = match serde_path_to_error::deserialize::<_, T>(&mut serde_json::Deserializer::from_str(text)) {
        Ok(_) => (".".to_owned(), without_place(error)),
        Err(error) => (error.path().to_string(), without_place(error.inner())),
    };
    let message = match path.as_str() {
        "." => format!("invalid arguments: {reason}"),
        path => format!("invalid argument `{path}`: {reason}"),
    };
    Error::new("INVALID_ARGS", message).with_data(json!({ "path": path, "reason": reason }))
}

/// Line and column are those of a text that the caller never saw: the host has written it anew.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&place).map(str::to_owned).unwrap_or(text)
}

/// Writes the result.
pub fn reply<T: Reply>(value: &T) -> Result<String> {
    Ok(serde_json::to_string(value)?)
}

/// Runs an action's future to its end. The host's calls return when they are done, so a future that waits, waits for
/// something that never comes, unless it woke itself.
pub fn block_on<F: Future>(future: F) -> Result<F::Output> {
    let woken = Arc::new(Woken(AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&woken));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Ok(output);
        }
        if !woken.0.swap(false, Ordering::Relaxed) {
            let message = "the action waits for something that is no call of the host, and would wait for ever";
            return Err(Error::new("INTERNAL", message));
        }
    }
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::Value;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Arguments {
        #[expect(dead_code, reason = "read by the derive alone")]
        channel: String,
        limit: Option<u32>,
    }

    fn refused(text: &str) -> (String, Value) {
        let error = arguments::<Arguments>(text).unwrap_err();
        assert_eq!(error.code(), "INVALID_ARGS");
        (error.message().to_owned(), error.data().unwrap())
    }

    #[test]
    fn an_option_may_be_missing_or_null() {
        for text in [r#"{"channel":"a"}"#, r#"{"channel":"a","limit":null}"#] {
            assert_eq!(arguments::<Arguments>(text).unwrap().limit, None);
        }
    }

    #[test]
    fn a_bad_argument_is_named() {
        let (message, data) = refused(r#"{"channel":"a","limit":-1}"#);
        assert_eq!(message, "invalid argument `limit`: invalid value: integer `-1`, expected u32");
        assert_eq!(data["path"], "limit");
        assert_eq!(data["reason"], "invalid value: integer `-1`, expected u32");
    }

    #[test]
    fn missing_and_unknown_arguments_are_named() {
        assert_eq!(refused("{}").0, "invalid arguments: missing field `channel`");
        let (message, data) = refused(r#"{"channel":"a","chanel":"b"}"#);
        assert!(message.contains("unknown field `chanel`"), "{message}");
        assert_eq!(data["path"], "chanel");
    }

    #[test]
    fn a_result_of_either_form_becomes_text() {
        assert_eq!(reply(&()).unwrap(), "null");
        assert_eq!(reply(&vec![1]).unwrap(), "[1]");
    }

    #[test]
    fn a_future_that_waits_for_nothing_is_an_error_and_not_a_hang() {
        assert_eq!(block_on(async { 5 }).unwrap(), 5);
        assert_eq!(block_on(std::future::pending::<()>()).unwrap_err().code(), "INTERNAL");
    }

    #[test]
    fn a_future_that_wakes_itself_goes_on() {
        let mut rounds = 0;
        let counted = std::future::poll_fn(|context| {
            rounds += 1;
            context.waker().wake_by_ref();
            if rounds == 3 { Poll::Ready(rounds) } else { Poll::Pending }
        });
        assert_eq!(block_on(counted).unwrap(), 3);
    }
}
