//! Checking a call's arguments against the JSON Schema of the function's manifest.

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{ValidationError, Validator};
use serde_json::{Value, json};
use thiserror::Error;

/// A compiled schema; made once when a component is loaded.
#[derive(Debug)]
pub struct ArgumentsValidator {
    /// None where the manifest gives no schema.
    validator: Option<Validator>,
}

/// A schema in a manifest that cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the schema is not valid JSON Schema: {0}")]
pub struct SchemaError(pub(crate) String);

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
            return Ok(Self { validator: None });
        }
        let validator = jsonschema::validator_for(schema).map_err(|error| SchemaError(error.to_string()))?;
        Ok(Self { validator: Some(validator) })
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
        let Some(validator) = &self.validator else { return Ok(()) };
        if validator.is_valid(args) {
            return Ok(());
        }
        match first_error(validator, args, "") {
            None => Ok(()),
            Some(error) => Err(error),
        }
    }
}

/// The first error of a value; `root` is the path of the value itself.
pub(crate) fn first_error(validator: &Validator, value: &Value, root: &str) -> Option<ArgumentsError> {
    validator.iter_errors(value).next().map(|error| explain(&error, root))
}

fn explain(error: &ValidationError<'_>, root: &str) -> ArgumentsError {
    let path = field_path(root, error.instance_path().as_str());
    let found = describe(error.instance());
    match error.kind() {
        ValidationErrorKind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            ArgumentsError {
                field: join(&path, name),
                expected: "a value".to_owned(),
                found: "nothing: the field is missing".to_owned(),
            }
        }
        ValidationErrorKind::AdditionalProperties { unexpected } => ArgumentsError {
            field: join(&path, unexpected.first().map_or("", String::as_str)),
            expected: "no such field".to_owned(),
            found: error
                .instance()
                .get(unexpected.first().map_or("", String::as_str))
                .map_or_else(|| "a value".to_owned(), describe),
        },
        ValidationErrorKind::Type { kind } => {
            ArgumentsError { field: or_args(path), expected: expected_type(kind), found }
        }
        ValidationErrorKind::Format { format } => {
            ArgumentsError { field: or_args(path), expected: format!("a value of the format `{format}`"), found }
        }
        ValidationErrorKind::Enum { options } => {
            ArgumentsError { field: or_args(path), expected: format!("one of {options}"), found }
        }
        ValidationErrorKind::Minimum { limit } => {
            ArgumentsError { field: or_args(path), expected: format!("at least {limit}"), found }
        }
        ValidationErrorKind::Maximum { limit } => {
            ArgumentsError { field: or_args(path), expected: format!("at most {limit}"), found }
        }
        ValidationErrorKind::Custom { message, .. } => {
            ArgumentsError { field: or_args(path), expected: message.clone(), found }
        }
        _ => ArgumentsError {
            field: or_args(path),
            expected: format!("a value that fits the schema ({})", error.masked()),
            found,
        },
    }
}

fn expected_type(kind: &TypeKind) -> String {
    let mut names: Vec<String> = match kind {
        TypeKind::Single(name) => vec![name.as_str().to_owned()],
        TypeKind::Multiple(names) => names.iter().map(|name| name.as_str().to_owned()).collect(),
    };
    // "a string or null": what may also be missing is said last.
    names.sort_by_key(|name| name == "null");
    names.iter().map(|name| article(name)).collect::<Vec<_>>().join(" or ")
}

fn article(name: &str) -> String {
    match name {
        "null" => "null".to_owned(),
        "array" | "integer" | "object" => format!("an {name}"),
        _ => format!("a {name}"),
    }
}

/// `/tags/2/name` becomes `tags[2].name`.
fn field_path(root: &str, pointer: &str) -> String {
    let mut path = root.to_owned();
    for segment in pointer.split('/').skip(1) {
        if segment.bytes().all(|byte| byte.is_ascii_digit()) {
            path = format!("{path}[{segment}]");
        } else {
            path = join(&path, &segment.replace("~1", "/").replace("~0", "~"));
        }
    }
    path
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn or_args(path: String) -> String {
    if path.is_empty() { "args".to_owned() } else { path }
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
