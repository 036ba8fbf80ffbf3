//! Ours against the crate `jsonschema`: what fits, and what is said of what does not.

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{ValidationError, Validator};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const NAMES: [&str; 4] = ["a", "b", "12", "-3"];

/// Numbers at the edges of their kinds, and the same ones written in two ways.
fn number() -> impl Strategy<Value = Value> {
    prop_oneof![
        (-3_i64..4).prop_map(Value::from),
        (-3_i64..4).prop_map(|number| json!(number as f64)),
        (-3_i64..4).prop_map(|number| json!(number as f64 + 0.5)),
        Just(json!(i64::MIN)),
        Just(json!(i64::MAX)),
        Just(json!(u64::MAX)),
        Just(json!((1_u64 << 53) + 1)),
        Just(json!(9_007_199_254_740_992.0)),
        Just(json!(1e300)),
        Just(json!(-1e300)),
    ]
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), number(), "[aé]{0,3}".prop_map(Value::from)]
}

fn name() -> impl Strategy<Value = String> {
    proptest::sample::select(NAMES.to_vec()).prop_map(str::to_owned)
}

fn value() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map(name(), inner, 0..4).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn type_name() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(Type::ALL.map(Type::name).to_vec())
}

/// A keyword that looks at one value.
fn plain_keyword() -> impl Strategy<Value = (String, Value)> {
    let named = |name: &str, value: Value| (name.to_owned(), value);
    prop_oneof![
        type_name().prop_map(move |name| named("type", json!(name))),
        (type_name())
            .prop_filter("not twice", |name| *name != "null")
            .prop_map(move |name| named("type", json!([name, "null"]))),
        vec(scalar(), 1..4).prop_map(move |values| named("enum", json!(values))),
        scalar().prop_map(move |value| named("const", value)),
        number().prop_map(move |value| named("minimum", value)),
        number().prop_map(move |value| named("maximum", value)),
        number().prop_map(move |value| named("exclusiveMinimum", value)),
        number().prop_map(move |value| named("exclusiveMaximum", value)),
        (0_u64..4).prop_map(move |count| named("minLength", json!(count))),
        (0_u64..4).prop_map(move |count| named("maxLength", json!(count))),
        (0_u64..4).prop_map(move |count| named("minItems", json!(count))),
        (0_u64..4).prop_map(move |count| named("maxItems", json!(count))),
        any::<bool>().prop_map(move |unique| named("uniqueItems", json!(unique))),
        (0_u64..4).prop_map(move |count| named("minProperties", json!(count))),
        (0_u64..4).prop_map(move |count| named("maxProperties", json!(count))),
        proptest::collection::btree_set(name(), 0..3).prop_map(move |names| named("required", json!(names))),
        Just(named("format", json!("int64"))),
        Just(named("x-convoke", json!("bytes"))),
        Just(named("$ref", json!("#/$defs/Tree"))),
    ]
}

fn schema() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        6 => vec(plain_keyword(), 0..3).prop_map(object),
        1 => any::<bool>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let named = |name: &str, value: Value| (name.to_owned(), value);
        let keyword = prop_oneof![
            3 => plain_keyword(),
            2 => btree_map(name(), inner.clone(), 0..3).prop_map(move |fields| named("properties", json!(fields))),
            2 => inner.clone().prop_map(move |schema| named("additionalProperties", schema)),
            1 => inner.clone().prop_map(move |schema| named("patternProperties", json!({ r"^\d+$": schema }))),
            1 => inner.clone().prop_map(move |schema| named("patternProperties", json!({ r"^-?\d+$": schema }))),
            1 => inner.clone().prop_map(move |schema| named("unevaluatedProperties", schema)),
            1 => inner.clone().prop_map(move |schema| named("items", schema)),
            1 => vec(inner.clone(), 1..3).prop_map(move |schemas| named("prefixItems", json!(schemas))),
            1 => vec(inner.clone(), 1..3).prop_map(move |schemas| named("allOf", json!(schemas))),
            1 => vec(inner.clone(), 1..3).prop_map(move |schemas| named("anyOf", json!(schemas))),
            1 => vec(inner.clone(), 1..3).prop_map(move |schemas| named("oneOf", json!(schemas))),
            1 => inner.prop_map(move |schema| named("not", schema)),
        ];
        vec(keyword, 0..4).prop_map(object)
    })
}

fn object(keywords: Vec<(String, Value)>) -> Value {
    Value::Object(keywords.into_iter().collect())
}

/// With a definition that contains itself.
fn rooted(schema: Value) -> Value {
    let tree = json!({
        "type": ["object", "null"],
        "properties": { "a": { "$ref": "#/$defs/Tree" } },
        "required": ["b"],
    });
    match schema {
        Value::Object(mut keywords) => {
            keywords.insert("$defs".to_owned(), json!({ "Tree": tree }));
            Value::Object(keywords)
        }
        fixed => json!({ "allOf": [fixed] }),
    }
}

/// What ours says, in the form that the other's errors are brought to.
fn ours(violation: &Violation<'_>) -> (String, String) {
    let path = violation.path.iter().fold(String::new(), |path, step| match step {
        Step::Field(name) => format!("{path}/{name}"),
        Step::Item(place) => format!("{path}/{place}"),
    });
    let what = match &violation.what {
        What::Type(names) => {
            let mut names = names.clone();
            names.sort_unstable();
            format!("type {names:?}")
        }
        What::Enum(options) => format!("enum {options}"),
        What::Minimum(limit) => format!("minimum {limit}"),
        What::Maximum(limit) => format!("maximum {limit}"),
        What::Required(name) => format!("required {name}"),
        What::Additional(name) => format!("additional {name}"),
        What::IdOf(table) => format!("id of {table}"),
        What::Other(words) => words.clone(),
    };
    (path, what)
}

/// One error of the other's may name several fields.
fn theirs(error: &ValidationError<'_>) -> Vec<(String, String)> {
    let whats = match error.kind() {
        ValidationErrorKind::Type { kind } => {
            let mut names: Vec<String> = match kind {
                TypeKind::Single(name) => vec![name.as_str().to_owned()],
                TypeKind::Multiple(names) => names.iter().map(|name| name.as_str().to_owned()).collect(),
            };
            names.sort_unstable();
            vec![format!("type {names:?}")]
        }
        ValidationErrorKind::Enum { options } => vec![format!("enum {options}")],
        ValidationErrorKind::Minimum { limit } => vec![format!("minimum {limit}")],
        ValidationErrorKind::Maximum { limit } => vec![format!("maximum {limit}")],
        ValidationErrorKind::Required { property } => {
            vec![format!("required {}", property.as_str().unwrap_or_default())]
        }
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            unexpected.iter().map(|name| format!("additional {name}")).collect()
        }
        _ => vec![error.masked().to_string()],
    };
    whats.into_iter().map(|what| (error.instance_path().as_str().to_owned(), what)).collect()
}

fn validator(schema: &Value) -> Validator {
    jsonschema::validator_for(schema).expect("a schema")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn the_same_values_fit_and_the_error_is_one_of_theirs(schema in schema(), values in vec(value(), 1..8)) {
        let schema = rooted(schema);
        // A schema that leads to itself is refused by ours; none of these does.
        let compiled = JsonSchema::compile(&schema, None).expect("a schema");
        let validator = validator(&schema);
        for value in &values {
            let violation = compiled.first_violation(value);
            prop_assert_eq!(violation.is_none(), validator.is_valid(value), "{} for {}", schema, value);
            if let Some(violation) = violation {
                let said = ours(&violation);
                let expected: Vec<_> = validator.iter_errors(value).flat_map(|error| theirs(&error)).collect();
                // Of an object of which no field is named, theirs does not say which one is too much.
                let nameless = (said.0.clone(), "False schema does not allow value".to_owned());
                let is_more_exact = said.1.starts_with("additional ") && expected.contains(&nameless);
                prop_assert!(is_more_exact || expected.contains(&said), "{} for {}: {:?} is none of {:?}", schema, value, said, expected);
            }
        }
    }
}

#[test]
fn what_is_not_checked_is_refused() {
    for (schema, words) in [
        (json!({ "pattern": "^a" }), "the keyword `pattern` is not one that this host checks"),
        (json!({ "properties": { "a": { "multipleOf": 2 } } }), "the keyword `multipleOf` is not one"),
        (json!({ "patternProperties": { "^a": true } }), "the pattern `^a` of names is not one"),
        (
            json!({ "$ref": "https://example.com/schema.json" }),
            "the reference `https://example.com/schema.json` leads nowhere",
        ),
        (json!({ "$ref": "#/$defs/Gone" }), "leads nowhere"),
        (json!({ "type": "text" }), "the keyword `type` has the wrong form"),
        (json!({ "required": "a" }), "the keyword `required` has the wrong form"),
        (json!({ "minLength": -1 }), "the keyword `minLength` has the wrong form"),
        (json!({ "items": 7 }), "`7` is neither an object nor a boolean"),
        (json!({ "$ref": "#" }), "a part of it is defined by itself"),
        (
            json!({ "$ref": "#/$defs/A", "$defs": { "A": { "anyOf": [{ "$ref": "#/$defs/B" }] }, "B": { "not": { "$ref": "#/$defs/A" } } } }),
            "a part of it is defined by itself",
        ),
    ] {
        let error = JsonSchema::compile(&schema, None).expect_err(words).to_string();
        assert!(error.contains(words), "{schema}: {error}");
    }
}

#[test]
fn references_are_unescaped() {
    let schema = json!({ "$ref": "#/$defs/a~1b%3Cc", "$defs": { "a/b<c": { "type": "null" } } });
    let compiled = JsonSchema::compile(&schema, None).expect("a schema");
    assert!(compiled.first_violation(&json!(null)).is_none());
    assert!(compiled.first_violation(&json!(1)).is_some());
}
