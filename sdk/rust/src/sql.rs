//! SQL of the author's own, in the transaction of the call.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::bindings::convoke::runtime::sql;
use crate::database::misread;
use crate::error::{Error, Result};

/// What a statement of [`QueryCtx::sql`](crate::QueryCtx::sql) returned.
#[derive(Clone, Debug, Deserialize)]
pub struct SqlResult {
    rows: Box<RawValue>,
    count: u64,
}

impl SqlResult {
    /// The rows, each an object with its columns: `result.rows::<Total>()?`.
    pub fn rows<T: DeserializeOwned>(&self) -> Result<Vec<T>> {
        let text = self.rows.get();
        serde_json::from_str(text).map_err(|_| misread::<Vec<T>>("a row of the statement", text))
    }

    /// How many rows the statement returned, or changed.
    pub fn count(&self) -> u64 {
        self.count
    }
}

/// Runs one statement.
pub(crate) fn run(statement: &str, parameters: &impl Serialize) -> Result<SqlResult> {
    Ok(serde_json::from_str(&sql::run(statement, &parameters_json(parameters)?)?)?)
}

/// `()` stands for no parameters; anything else must become a JSON array.
fn parameters_json(parameters: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string(parameters)?;
    if text == "null" {
        return Ok("[]".to_owned());
    }
    if !text.starts_with('[') {
        let message = "the parameters of a statement are a tuple or an array: `(value,)` for a single one";
        return Err(Error::new("INVALID_ARGS", message));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parameters_are_an_array() {
        assert_eq!(parameters_json(&()).unwrap(), "[]");
        assert_eq!(parameters_json(&("a", 1, None::<bool>)).unwrap(), r#"["a",1,null]"#);
        assert_eq!(parameters_json(&["a"]).unwrap(), r#"["a"]"#);
        assert_eq!(parameters_json(&json!([{ "a": 1 }])).unwrap(), r#"[{"a":1}]"#);
        for unfit in [json!("a"), json!({ "a": 1 }), json!(1)] {
            assert_eq!(parameters_json(&unfit).unwrap_err().code(), "INVALID_ARGS");
        }
    }

    #[test]
    fn rows_have_the_type_that_the_author_asks_for() {
        #[derive(Debug, PartialEq, Deserialize)]
        struct Total {
            genre: String,
            copies: i64,
        }
        let text = r#"{"rows":[{"genre":"a","copies":9007199254740993}],"count":1}"#;
        let result: SqlResult = serde_json::from_str(text).unwrap();
        assert_eq!(result.count(), 1);
        let expected = Total { genre: "a".to_owned(), copies: 9_007_199_254_740_993 };
        assert_eq!(result.rows::<Total>().unwrap(), [expected]);

        let error = result.rows::<(u32,)>().unwrap_err();
        assert!(error.message().contains("at `[0]`"), "{error}");
    }
}
