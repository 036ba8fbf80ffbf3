//! A failed call in the words that Convex' users and tests look for (1.9).

use convoke_model::{Code, Failure, Kind, Origin};
use serde_json::{Map, Value};

use crate::value::Encoded;

/// A failed call as a client sees it. Data is there for a function's own error only: `null` would be such an error
/// whose data is null (1.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionError {
    pub message: String,
    pub data: Option<Encoded>,
}

impl FunctionError {
    /// What a client may read of a call's failure.
    pub fn new(failure: &Failure, kind: Kind, path: &str, request_id: &str) -> Self {
        Self {
            message: error_message(failure, kind, path, request_id),
            data: error_data(failure).map(Encoded::from_value),
        }
    }
}

/// The error's words. What the host keeps to itself shows as a request's id alone.
pub fn error_message(failure: &Failure, kind: Kind, path: &str, request_id: &str) -> String {
    let head = format!("[Request ID: {request_id}] Server Error");
    let message = &failure.message;
    let refused = failure.origin == Origin::Caller;
    match &failure.code {
        Code::Internal => head,
        Code::NotFound if refused => {
            format!(
                "{head}\nCould not find public function for '{path}'. Did you forget to run `convoke dev`?\n{message}"
            )
        }
        Code::InvalidArgs if refused => format!("{head}\nArgumentValidationError: {message} (calling {kind} `{path}`)"),
        Code::Application(_) => format!("{head}\nUncaught ConvexError: {message}"),
        code => format!("{head}\n{}: {message}", code.as_str()),
    }
}

/// The data of a function's own error in the clean form, with its code. Absent, not null, for every other error.
pub fn error_data(failure: &Failure) -> Option<Value> {
    let Code::Application(code) = &failure.code else { return None };
    let mut data = Map::new();
    data.insert("code".to_owned(), Value::from(code.as_str()));
    data.insert("message".to_owned(), Value::from(failure.message.as_str()));
    if let Some(value) = &failure.data {
        data.insert("data".to_owned(), value.clone());
    }
    Some(Value::Object(data))
}

/// The words without the request's id, which differs from run to run of a query that fails the same way.
pub(crate) fn without_request_id(message: &str) -> &str {
    let after = message.strip_prefix("[Request ID: ").and_then(|rest| rest.split_once("] "));
    after.map_or(message, |(_, words)| words)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_functions_own_error_has_data() {
        let own = Failure::function(Code::Application("FULL".to_owned()), "no seat").with_data(json!(1_u64 << 60));
        let error = FunctionError::new(&own, Kind::Query, "seats:take", "0123456789abcdef");
        assert_eq!(error.message, "[Request ID: 0123456789abcdef] Server Error\nUncaught ConvexError: no seat");
        let data = r#"{"code":"FULL","data":{"$integer":"AAAAAAAAABA="},"message":"no seat"}"#;
        assert_eq!(error.data.as_ref().map(Encoded::as_str), Some(data));

        let internal = Failure::internal("the password is hunter2").with_data(json!("secret"));
        let error = FunctionError::new(&internal, Kind::Query, "seats:take", "0123456789abcdef");
        assert_eq!(error.message, "[Request ID: 0123456789abcdef] Server Error");
        assert_eq!(error.data, None);
    }

    #[test]
    fn the_words_that_tests_look_for() {
        let missing = error_message(&Failure::caller(Code::NotFound, "no"), Kind::Query, "x:y", "f");
        assert!(missing.contains("Could not find public function for 'x:y'. Did you forget to run"), "{missing}");
        let invalid = error_message(&Failure::caller(Code::InvalidArgs, "no"), Kind::Query, "x:y", "f");
        assert!(invalid.contains("ArgumentValidationError"), "{invalid}");
    }

    #[test]
    fn a_request_id_is_no_news() {
        assert_eq!(without_request_id("[Request ID: 0123] Server Error\nx"), "Server Error\nx");
        assert_eq!(without_request_id("boom"), "boom");
    }
}
