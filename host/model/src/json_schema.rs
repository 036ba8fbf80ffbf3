//! JSON Schema, as far as manifests have it: the keywords that `schemars` makes of Rust's types. A schema with another one
//! is refused when its component is loaded, so that nothing is promised that nobody checks.
//!
//! The dialect is draft 2020-12, in which `format` says something to people and is not checked.

mod check;
mod compile;
mod number;

use std::collections::BTreeMap;

use serde_json::{Number, Value};
use thiserror::Error;

pub(crate) use self::check::{Step, Violation, What};

/// The schema keyword by which a string is the id of a document of the named table.
pub(crate) const ID_KEYWORD: &str = "x-convoke-id";

/// A schema in a manifest that cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the schema is not valid JSON Schema: {0}")]
pub struct SchemaError(String);

/// A compiled schema; made once when a component is loaded.
#[derive(Debug)]
pub(crate) struct JsonSchema {
    /// The first is the whole; parts name each other by their place, as a schema may contain itself.
    nodes: Vec<Node>,
}

/// The place of a schema among a [`JsonSchema`]'s.
type Part = usize;

#[derive(Debug)]
enum Node {
    /// The schemas `true` and `false`.
    Fixed(bool),
    Keywords(Box<Keywords>),
}

/// What a schema asks for. What it does not ask for is empty.
#[derive(Debug, Default)]
struct Keywords {
    types: Vec<Type>,
    one_of_values: Option<Value>,
    constant: Option<Value>,
    number: Numbers,
    text_length: Bounds,
    /// Which table a string is an id of, and that table's number; none where no component declares it.
    id_of: Option<(String, Option<u32>)>,
    items: Items,
    object: Objects,
    reference: Option<Part>,
    all_of: Vec<Part>,
    any_of: Option<Vec<Part>>,
    one_of: Option<Vec<Part>>,
    /// With the schema's own text, for the error.
    not: Option<(Part, String)>,
}

#[derive(Debug, Default)]
struct Numbers {
    minimum: Option<Number>,
    maximum: Option<Number>,
    exclusive_minimum: Option<Number>,
    exclusive_maximum: Option<Number>,
}

#[derive(Debug, Default)]
struct Items {
    prefix: Vec<Part>,
    rest: Option<Part>,
    count: Bounds,
    unique: bool,
}

#[derive(Debug, Default)]
struct Objects {
    required: Vec<String>,
    properties: BTreeMap<String, Part>,
    patterns: Vec<(KeyPattern, Part)>,
    additional: Option<Part>,
    unevaluated: Option<Part>,
    count: Bounds,
}

/// The least and the most of a length or a count.
#[derive(Debug, Default)]
struct Bounds {
    least: Option<u64>,
    most: Option<u64>,
}

/// The patterns of names that a map with whole numbers for keys has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyPattern {
    Unsigned,
    Signed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Array,
    Boolean,
    Integer,
    Null,
    Number,
    Object,
    String,
}

impl JsonSchema {
    /// Compiles a schema. `tables` has the numbers of the tables whose ids are to be checked; without it none are.
    ///
    /// # Errors
    /// When the schema has a keyword that is not checked here, or one of the wrong form.
    pub(crate) fn compile(schema: &Value, tables: Option<&BTreeMap<String, u32>>) -> Result<Self, SchemaError> {
        compile::compile(schema, tables).map(|nodes| Self { nodes })
    }

    /// The first thing that is wrong with a value.
    pub(crate) fn first_violation<'a>(&'a self, value: &'a Value) -> Option<Violation<'a>> {
        check::first_violation(&self.nodes, value)
    }
}

impl KeyPattern {
    /// `^\d+$` or `^-?\d+$`, with the digits that a key of a Rust map is written with.
    fn fits(self, name: &str) -> bool {
        let digits = match self {
            Self::Unsigned => name,
            Self::Signed => name.strip_prefix('-').unwrap_or(name),
        };
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    }
}

impl Type {
    const ALL: [Self; 7] =
        [Self::Array, Self::Boolean, Self::Integer, Self::Null, Self::Number, Self::Object, Self::String];

    fn name(self) -> &'static str {
        match self {
            Self::Array => "array",
            Self::Boolean => "boolean",
            Self::Integer => "integer",
            Self::Null => "null",
            Self::Number => "number",
            Self::Object => "object",
            Self::String => "string",
        }
    }

    fn fits(self, value: &Value) -> bool {
        match (self, value) {
            (Self::Array, Value::Array(_))
            | (Self::Boolean, Value::Bool(_))
            | (Self::Null, Value::Null)
            | (Self::Number, Value::Number(_))
            | (Self::Object, Value::Object(_))
            | (Self::String, Value::String(_)) => true,
            (Self::Integer, Value::Number(number)) => number::is_integer(number),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests;
