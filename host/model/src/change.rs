//! Changes of a field by what is there: which ones a table's form has, and what their results are held to.
//!
//! Postgres computes the result, so Postgres has to look at it: what a schema says of numbers and of arrays as a whole
//! goes with the operation, in the schema's own words, and `convoke.apply` refuses what does not fit. What it says of the
//! items of an array, and of a value that takes the place of another one, is checked here.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::arguments::describe;
use crate::document::{DocumentError, FieldForm, check_with};
use crate::json_schema::{JsonSchema, SchemaError};
use crate::plan::is_undefined;

/// How deep `$ref` and the like are followed: a schema may refer to itself.
const DEPTH_MAX: usize = 16;
/// Keywords that say nothing of a number or of an array, or nothing at all.
const SILENT: [&str; 22] = [
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "$comment",
    "$defs",
    "format",
    "properties",
    "required",
    "additionalProperties",
    "patternProperties",
    "propertyNames",
    "minProperties",
    "maxProperties",
    "minLength",
    "maxLength",
    "pattern",
    "contentEncoding",
    "contentMediaType",
];
const OF_NUMBERS: [&str; 5] = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"];
const OF_ARRAYS: [&str; 3] = ["minItems", "maxItems", "uniqueItems"];

/// One operation on a field, as a function sent it.
#[derive(Debug)]
pub(crate) struct Operation<'a> {
    pub(crate) kind: OperationKind,
    /// The operand's own text.
    pub(crate) text: &'a str,
    operand: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OperationKind {
    Inc,
    Append,
    Max,
    Min,
}

impl OperationKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Inc => "inc",
            Self::Append => "append",
            Self::Max => "max",
            Self::Min => "min",
        }
    }

    fn of(name: &str) -> Option<Self> {
        [Self::Inc, Self::Append, Self::Max, Self::Min].into_iter().find(|kind| kind.name() == name)
    }
}

impl<'a> Operation<'a> {
    pub(crate) fn parse(field: &str, text: &'a str) -> Result<Self, DocumentError> {
        let malformed = || {
            let found = serde_json::from_str(text).map_or_else(|_| "another text".to_owned(), |value| describe(&value));
            let expected =
                r#"an operation: `{"inc": number}`, `{"append": [values]}`, `{"max": value}` or `{"min": value}`"#;
            DocumentError::new(field, expected, found)
        };
        let parts: BTreeMap<&str, &RawValue> = serde_json::from_str(text).map_err(|_| malformed())?;
        let mut parts = parts.into_iter();
        let (Some((name, text)), None) = (parts.next(), parts.next()) else { return Err(malformed()) };
        let kind = OperationKind::of(name).ok_or_else(malformed)?;
        let operand: Value = serde_json::from_str(text.get()).map_err(|_| malformed())?;
        let fits = match kind {
            OperationKind::Inc => operand.is_number(),
            OperationKind::Append => operand.is_array(),
            OperationKind::Max | OperationKind::Min => !is_undefined(&operand),
        };
        if fits { Ok(Self { kind, text: text.get(), operand }) } else { Err(malformed()) }
    }

    /// Checks what can be checked without the document; gives what the result is held to, where that needs it.
    pub(crate) fn check(&self, name: &str, field: Option<&FieldForm>) -> Result<Option<Vec<Value>>, DocumentError> {
        let Some(field) = field else { return Ok(None) };
        let within = match self.kind {
            OperationKind::Max | OperationKind::Min => {
                return check_with(&field.value, &self.operand, name).map(|()| None);
            }
            OperationKind::Inc => &field.changes.numbers,
            OperationKind::Append => &field.changes.arrays,
        };
        let found = format!("`{}`", self.kind.name());
        match within {
            None => Err(DocumentError::new(name, "a `patch`: what this field may be cannot be told in advance", found)),
            Some(forms) if forms.is_empty() => {
                let expected = format!("{found} for fields that it suits");
                Err(DocumentError::new(name, expected, "one that its type does not allow"))
            }
            Some(forms) => {
                if let (Some(items), Value::Array(values)) = (&field.changes.items, &self.operand) {
                    for (position, value) in values.iter().enumerate() {
                        check_with(items, value, &format!("{name}[{position}]"))?;
                    }
                }
                Ok(Some(forms.clone()))
            }
        }
    }
}

/// What a field becomes by operations, as far as its schema says.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// What a number of the field may be, each a schema of the keywords above; none where it cannot be told.
    pub(crate) numbers: Option<Vec<Value>>,
    /// The same for an array.
    pub(crate) arrays: Option<Vec<Value>>,
    /// What each appended item has to be, where the field may be an array in one way only.
    pub(crate) items: Option<JsonSchema>,
}

/// Gives integers of the widths that programs have the bounds that their formats stand for.
pub(crate) fn bound_formats(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(bound_formats),
        Value::Object(fields) => {
            fields.values_mut().for_each(bound_formats);
            let Some((lowest, highest)) = fields.get("format").and_then(Value::as_str).and_then(range_of) else {
                return;
            };
            fields.entry("minimum").or_insert(lowest);
            fields.entry("maximum").or_insert(highest);
        }
        _ => {}
    }
}

fn range_of(format: &str) -> Option<(Value, Value)> {
    Some(match format {
        "int8" => (json!(i8::MIN), json!(i8::MAX)),
        "int16" => (json!(i16::MIN), json!(i16::MAX)),
        "int32" => (json!(i32::MIN), json!(i32::MAX)),
        "int64" | "int" => (json!(i64::MIN), json!(i64::MAX)),
        "uint8" => (json!(0), json!(u8::MAX)),
        "uint16" => (json!(0), json!(u16::MAX)),
        "uint32" => (json!(0), json!(u32::MAX)),
        "uint64" | "uint" => (json!(0), json!(u64::MAX)),
        _ => return None,
    })
}

impl Changes {
    /// Reads the schema of a field. `compile` makes what checks an item.
    pub(crate) fn of(
        field: &Value,
        definitions: Option<&Value>,
        compile: impl Fn(&Value) -> Result<JsonSchema, SchemaError>,
    ) -> Result<Self, SchemaError> {
        let Some(ways) = ways(field, definitions, DEPTH_MAX) else { return Ok(Self::default()) };
        let numbers = ways.iter().filter(|way| way.allows("number") || way.allows("integer"));
        let mut changes = Self { numbers: Some(numbers.map(Way::of_numbers).collect()), ..Self::default() };
        let of_arrays: Vec<&Way> = ways.iter().filter(|way| way.allows("array")).collect();
        // Where there are several ways, the one that an item belongs to depends on the others.
        let single = match of_arrays.as_slice() {
            [] => {
                changes.arrays = Some(Vec::new());
                return Ok(changes);
            }
            [single] => single,
            _ => return Ok(changes),
        };
        changes.arrays = single.of_arrays().map(|array| vec![array]);
        if !single.items.is_empty() {
            let mut schema = json!({ "allOf": single.items });
            if let Some(definitions) = definitions {
                schema["$defs"] = definitions.clone();
            }
            changes.items = Some(compile(&schema)?);
        }
        Ok(changes)
    }
}

/// One of the ways in which a value may fit a schema: all of these hold.
#[derive(Debug, Clone, Default)]
struct Way {
    /// None for any type.
    types: Option<Vec<String>>,
    keywords: Map<String, Value>,
    items: Vec<Value>,
    /// The values that there are, where they are listed.
    values: Option<Vec<Value>>,
    /// Whether it says something of arrays that is not looked at here.
    is_dark_to_arrays: bool,
}

impl Way {
    fn allows(&self, name: &str) -> bool {
        self.types.as_ref().is_none_or(|types| types.iter().any(|allowed| allowed == name))
    }

    fn of_numbers(&self) -> Value {
        let mut form = self.keywords_of(&OF_NUMBERS);
        if !self.allows("number") {
            form.insert("type".to_owned(), json!("integer"));
        }
        if let Some(values) = &self.values {
            form.insert("enum".to_owned(), json!(values));
        }
        Value::Object(form)
    }

    fn of_arrays(&self) -> Option<Value> {
        (!self.is_dark_to_arrays && self.values.is_none()).then(|| Value::Object(self.keywords_of(&OF_ARRAYS)))
    }

    fn keywords_of(&self, names: &[&str]) -> Map<String, Value> {
        let of = |name: &&str| self.keywords.get(*name).map(|value| ((*name).to_owned(), value.clone()));
        names.iter().filter_map(of).collect()
    }

    /// Both hold; none where that cannot be said in one way, or cannot be at all.
    fn and(mut self, other: &Self) -> Option<Self> {
        self.types = match (self.types, &other.types) {
            (None, types) => types.clone(),
            (types, None) => types,
            (Some(own), Some(others)) => Some(common_types(&own, others)),
        };
        for (name, value) in &other.keywords {
            if self.keywords.get(name).is_some_and(|own| own != value) {
                return None;
            }
            self.keywords.insert(name.clone(), value.clone());
        }
        self.items.extend(other.items.iter().cloned());
        self.values = match (self.values, &other.values) {
            (None, values) => values.clone(),
            (values, None) => values,
            (Some(own), Some(others)) => Some(own.into_iter().filter(|value| others.contains(value)).collect()),
        };
        self.is_dark_to_arrays |= other.is_dark_to_arrays;
        Some(self)
    }
}

/// An integer is a number too.
fn common_types(own: &[String], others: &[String]) -> Vec<String> {
    let has =
        |list: &[String], name: &str| list.iter().any(|own| own == name || (name == "integer" && own == "number"));
    own.iter().chain(others).filter(|name| has(own, name) && has(others, name)).cloned().collect()
}

/// The ways in which a value may fit a schema; none where they cannot be told.
fn ways(schema: &Value, definitions: Option<&Value>, depth: usize) -> Option<Vec<Way>> {
    let fields = match schema {
        Value::Bool(true) => return Some(vec![Way::default()]),
        Value::Bool(false) => return Some(Vec::new()),
        Value::Object(fields) if depth > 0 => fields,
        _ => return None,
    };
    let mut own = Way::default();
    let mut among: Vec<Vec<Way>> = Vec::new();
    for (name, value) in fields {
        match name.as_str() {
            "type" => own.types = Some(types(value)?),
            "items" => own.items.push(value.clone()),
            "enum" => own.values = Some(value.as_array()?.clone()),
            "const" => own.values = Some(vec![value.clone()]),
            "$ref" => {
                let name = value.as_str()?.strip_prefix("#/$defs/")?;
                among.push(ways(definitions?.get(name)?, definitions, depth - 1)?);
            }
            "anyOf" => among.push(any_of(value, definitions, depth)?),
            "oneOf" => among.push(one_of(any_of(value, definitions, depth)?)?),
            "allOf" => {
                for part in value.as_array()? {
                    among.push(ways(part, definitions, depth - 1)?);
                }
            }
            "prefixItems" | "contains" | "minContains" | "maxContains" | "unevaluatedItems" => {
                own.is_dark_to_arrays = true;
            }
            known if OF_NUMBERS.contains(&known) || OF_ARRAYS.contains(&known) => {
                own.keywords.insert(name.clone(), value.clone());
            }
            known if SILENT.contains(&known) || known.starts_with("x-") => {}
            _ => return None,
        }
    }
    let mut all = vec![own];
    for ways in among {
        let pairs = all.iter().flat_map(|own| ways.iter().map(move |other| own.clone().and(other)));
        all = pairs.collect::<Option<Vec<Way>>>()?;
    }
    Some(all)
}

fn any_of(parts: &Value, definitions: Option<&Value>, depth: usize) -> Option<Vec<Way>> {
    let parts = parts.as_array()?.iter().map(|part| ways(part, definitions, depth - 1));
    Some(parts.collect::<Option<Vec<_>>>()?.concat())
}

/// One and no other is the same as any, where at most one takes numbers and at most one arrays.
fn one_of(ways: Vec<Way>) -> Option<Vec<Way>> {
    let takes = |names: &[&str]| ways.iter().filter(|way| names.iter().any(|name| way.allows(name))).count();
    (takes(&["number", "integer"]) <= 1 && takes(&["array"]) <= 1).then_some(ways)
}

fn types(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(name) => Some(vec![name.clone()]),
        Value::Array(names) => names.iter().map(|name| name.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(mut field: Value) -> Changes {
        let mut definitions = json!({
            "Cents": { "type": "integer", "format": "uint16" },
            "Loop": { "$ref": "#/$defs/Loop" },
        });
        bound_formats(&mut field);
        bound_formats(&mut definitions);
        let compile = |schema: &Value| JsonSchema::compile(schema, None);
        Changes::of(&field, Some(&definitions), compile).expect("a schema")
    }

    #[test]
    fn numbers_are_held_to_what_the_schema_says_of_them() {
        let cents = json!({ "type": "integer", "minimum": 0, "maximum": 65_535 });
        for (field, numbers) in [
            (json!(true), Some(vec![json!({})])),
            (json!({ "type": "number", "minimum": 0.5 }), Some(vec![json!({ "minimum": 0.5 })])),
            (
                json!({ "type": ["integer", "null"], "maximum": 7 }),
                Some(vec![json!({ "type": "integer", "maximum": 7 })]),
            ),
            (json!({ "$ref": "#/$defs/Cents", "description": "x" }), Some(vec![cents.clone()])),
            (json!({ "anyOf": [{ "$ref": "#/$defs/Cents" }, { "type": "null" }] }), Some(vec![cents.clone()])),
            (json!({ "allOf": [{ "$ref": "#/$defs/Cents" }, { "type": "number" }] }), Some(vec![cents])),
            (json!({ "enum": [1, 2, "a"] }), Some(vec![json!({ "enum": [1, 2, "a"] })])),
            (json!({ "type": "string" }), Some(vec![])),
            (json!({ "$ref": "#/$defs/Loop" }), None),
            (json!({ "not": { "const": 5 } }), None),
            (json!({ "oneOf": [{ "type": "integer" }, { "type": "number", "minimum": 7 }] }), None),
            (json!({ "allOf": [{ "minimum": 1 }, { "minimum": 2 }] }), None),
        ] {
            assert_eq!(changes(field.clone()).numbers, numbers, "{field}");
        }
    }

    #[test]
    fn arrays_are_held_to_what_the_schema_says_of_the_whole_and_of_the_items() {
        let list =
            changes(json!({ "type": ["array", "null"], "items": { "$ref": "#/$defs/Cents" }, "uniqueItems": true }));
        assert_eq!(list.arrays, Some(vec![json!({ "uniqueItems": true })]));
        let items = list.items.expect("a validator");
        let fits = |value: Value| items.first_violation(&value).is_none();
        assert!(fits(json!(7)) && !fits(json!(-7)) && !fits(json!("a")));
        assert_eq!(changes(json!({ "type": "array", "prefixItems": [true] })).arrays, None);
        assert_eq!(changes(json!({ "type": "integer" })).arrays, Some(vec![]));
    }
}
