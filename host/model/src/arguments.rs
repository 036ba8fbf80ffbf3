//! Checking a call's arguments against the JSON Schema of the function's manifest.

use serde_json::{Value, json};
use thiserror::Error;

use crate::json_schema::{JsonSchema, SchemaError, Step, Violation, What};

/// A compiled schema; made once when a component is loaded.
#[derive(Debug)]
pub struct ArgumentsValidator {
    /// None where the manifest gives no schema.
    schema: Option<JsonSchema>,
}

/// The first thing that is wrong with the arguments: where, what was expected, what was found.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("argument `{field}`: expected {expected}, found {found}")]
pub struct ArgumentsError {
    /// `limit`, `author.name`, `tags[2]`; `args` for the arguments as a whole.
    pub field: String,
    pub expected: String,
    pub found: String,
}

impl ArgumentsError {
    /// The same for programs.
    pub fn data(&self) -> Value {
        json!({ "field": self.field, "expected": self.expected, "found": self.found })
    }
}

impl ArgumentsValidator {
    /// Compiles the schema of a function's arguments.
    pub fn new(schema: &Value) -> Result<Self, SchemaError> {
        if schema.is_null() {
            return Ok(Self { schema: None });
        }
        JsonSchema::compile(schema, None).map(|schema| Self { schema: Some(schema) })
    }

    /// Checks arguments; gives the first error.
    pub fn check(&self, args: &Value) -> Result<(), ArgumentsError> {
        if !args.is_object() {
            return Err(ArgumentsError {
                field: "args".to_owned(),
                expected: "an object of named arguments".to_owned(),
                found: describe(args),
            });
        }
        match self.schema.as_ref().and_then(|schema| first_error(schema, args, "")) {
            None => Ok(()),
            Some(error) => Err(error),
        }
    }
}

/// The first error of a value; `root` is the path of the value itself.
pub(crate) fn first_error(schema: &JsonSchema, value: &Value, root: &str) -> Option<ArgumentsError> {
    schema.first_violation(value).map(|violation| explain(&violation, root))
}

fn explain(violation: &Violation<'_>, root: &str) -> ArgumentsError {
    let path = field_path(root, &violation.path);
    let expected = match &violation.what {
        What::Required(name) => {
            return ArgumentsError {
                field: join(&path, name),
                expected: "a value".to_owned(),
                found: "nothing: the field is missing".to_owned(),
            };
        }
        What::Additional(name) => {
            return ArgumentsError {
                field: join(&path, name),
                expected: "no such field".to_owned(),
                found: violation.value.get(name).map_or_else(|| "a value".to_owned(), describe),
            };
        }
        What::Type(names) => expected_type(names),
        What::Enum(options) => format!("one of {options}"),
        What::Minimum(limit) => format!("at least {limit}"),
        What::Maximum(limit) => format!("at most {limit}"),
        What::IdOf(table) => format!("an id of table `{table}`"),
        What::Other(words) => format!("a value that fits the schema ({words})"),
    };
    let field = if path.is_empty() { "args".to_owned() } else { path };
    ArgumentsError { field, expected, found: describe(violation.value) }
}

fn expected_type(names: &[&str]) -> String {
    let mut names = names.to_vec();
    // "a string or null": what may also be missing is said last.
    names.sort_by_key(|name| *name == "null");
    names.iter().map(|name| article(name)).collect::<Vec<_>>().join(" or ")
}

fn article(name: &str) -> String {
    match name {
        "null" => "null".to_owned(),
        "array" | "integer" | "object" => format!("an {name}"),
        _ => format!("a {name}"),
    }
}

/// `tags[2].name`.
fn field_path(root: &str, steps: &[Step<'_>]) -> String {
    steps.iter().fold(root.to_owned(), |path, step| match step {
        Step::Field(name) => join(&path, name),
        Step::Item(place) => format!("{path}[{place}]"),
    })
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// A value in a few words, cut so that an error never repeats a whole document.
pub(crate) fn describe(value: &Value) -> String {
    const TEXT_CHARS_MAX: usize = 40;
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => format!("the boolean {value}"),
        Value::Number(value) => format!("the number {value}"),
        Value::String(text) if text.chars().count() <= TEXT_CHARS_MAX => format!("the string {text:?}"),
        Value::String(text) => {
            format!("the string {:?}…", text.chars().take(TEXT_CHARS_MAX).collect::<String>())
        }
        Value::Array(items) => format!("an array of {}", items.len()),
        Value::Object(fields) => format!("an object with {} fields", fields.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explain(args: &Value) -> Option<String> {
        let schema = json!({
            "type": "object",
            "properties": {
                "channel": { "type": "string" },
                "limit": { "type": ["integer", "null"], "minimum": 0 },
                "tags": { "type": "array", "items": { "type": "object", "properties": { "n": { "type": "number" } } } },
            },
            "required": ["channel"],
            "additionalProperties": false,
        });
        ArgumentsValidator::new(&schema).expect("schema").check(args).err().map(|error| error.to_string())
    }

    #[test]
    fn names_the_field_the_expected_and_the_found() {
        assert_eq!(explain(&json!({ "channel": "a", "limit": null })), None);
        for (args, words) in [
            (json!([]), "argument `args`: expected an object of named arguments, found an array of 0"),
            (json!({}), "argument `channel`: expected a value, found nothing: the field is missing"),
            (json!({ "channel": 7 }), "argument `channel`: expected a string, found the number 7"),
            (
                json!({ "channel": "a", "limit": "b" }),
                "argument `limit`: expected an integer or null, found the string \"b\"",
            ),
            (json!({ "channel": "a", "limit": -1 }), "argument `limit`: expected at least 0, found the number -1"),
            (json!({ "channel": "a", "chanel": 1 }), "argument `chanel`: expected no such field, found the number 1"),
            (
                json!({ "channel": "a", "tags": [{}, { "n": true }] }),
                "argument `tags[1].n`: expected a number, found the boolean true",
            ),
        ] {
            assert_eq!(explain(&args).as_deref(), Some(words));
        }
    }
}
