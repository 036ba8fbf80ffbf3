//! One order of values: what Postgres makes of them is what the host makes of them.

use convoke_model::{key, key_of_text};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::harness::{TestHost, run};
use crate::things::Things;

fn value() -> impl Strategy<Value = Value> {
    let bytes = |mark: &'static str, bytes: Vec<u8>| {
        use base64::Engine;
        json!({ mark: base64::engine::general_purpose::STANDARD.encode(bytes) })
    };
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-9.0f64..9.0).prop_map(Value::from),
        (-3i64..4).prop_map(Value::from),
        (9_007_199_254_740_990i64..9_007_199_254_740_995).prop_map(Value::from),
        "[a\\\\\"é\u{1}\u{10FFFF}]{0,4}".prop_map(Value::from),
        "[0-9a-zA-Z\\\\x]{0,6}".prop_map(Value::from),
        proptest::collection::vec(any::<u8>(), 0..5).prop_map(move |it| bytes("$bytes", it)),
        prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(f64::NEG_INFINITY), Just(-0.0), any::<f64>()]
            .prop_map(move |it| bytes("$float", it.to_le_bytes().to_vec())),
        "[a-z=+/]{0,5}".prop_map(|text| json!({ "$bytes": text })),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[ab\\\\é]{1,2}|\\$bytes", inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Numbers as psql may write them, many of them near the edges of integers and floats.
fn number_text() -> impl Strategy<Value = String> {
    let whole = prop_oneof![
        (9_007_199_254_740_980i64..9_007_199_254_741_000).prop_map(i128::from),
        any::<i64>().prop_map(i128::from),
        (-20i128..20).prop_map(|step| i128::from(i64::MAX) + step),
        (-20i128..20).prop_map(|step| i128::from(i64::MIN) + step),
        any::<i128>(),
        -3i128..4,
    ];
    let fraction = prop_oneof![Just(String::new()), "\\.[0-9]{1,40}", Just(".5".to_owned()), Just(".0".to_owned())];
    let exponent = prop_oneof![8 => Just(String::new()), 1 => "e[+-]?[0-9]", 1 => "E-?(2[0-9][0-9]|3[0-4][0-9])"];
    (whole, fraction, exponent).prop_map(|(whole, fraction, exponent)| format!("{whole}{fraction}{exponent}"))
}

#[test]
fn postgres_makes_the_same_keys() {
    run(async {
        let host = TestHost::start(&["messages"]).await;
        let psql = host.psql().await;
        let statement = psql.prepare("select convoke.key($1::text::jsonb)").await.expect("a statement");
        let mut runner = TestRunner::deterministic();
        for _ in 0..3_000 {
            let value = value().new_tree(&mut runner).expect("a value").current();
            let text = value.to_string();
            let row = psql.query_one(&statement, &[&text]).await.unwrap_or_else(|error| panic!("{text}: {error}"));
            // As a plan holds it: read from text once more.
            let value: Value = serde_json::from_str(&text).expect("JSON");
            assert_eq!(row.get::<_, Vec<u8>>(0), key(Some(&value)), "{text}");
        }
        for _ in 0..3_000 {
            let text = number_text().new_tree(&mut runner).expect("a number").current();
            let theirs = psql.query_one(&statement, &[&text]).await.map(|row| row.get::<_, Vec<u8>>(0));
            // As a stored one: by its digits, which no float has. Where Postgres has no key, there is none.
            assert_eq!(theirs.ok(), key_of_text(&text).ok(), "{text}");
        }
        let row = psql.query_one("select convoke.key(null)", &[]).await.expect("a key");
        assert_eq!(row.get::<_, Vec<u8>>(0), key(None));
    });
}

#[test]
fn values_come_back_as_they_went() {
    run(async {
        let host = TestHost::start(&[]).await;
        let things = Things::new(&host).await;
        let mut runner = TestRunner::deterministic();
        let values: Vec<Value> = (0..500).map(|_| value().new_tree(&mut runner).expect("a value").current()).collect();
        let documents: Vec<Value> = values.iter().map(|value| json!({ "v": value })).collect();
        let text = Value::from(documents).to_string();
        // As a function would have written it.
        let expected: Vec<Value> = serde_json::from_str(&text).expect("JSON");
        let ids = things.change(async |call| {
            use convoke_model::Database;
            call.insert_many("things", &text).await
        });
        let ids: Vec<String> = serde_json::from_str(&ids.await.expect("ids")).expect("JSON");
        assert_eq!(ids.len(), 500);
        for (id, expected) in ids.iter().zip(expected) {
            let found = things.get(id).await.expect("a document");
            assert_eq!(key(found.get("v")), key(expected.get("v")), "{found} for {expected}");
            assert_eq!(without_float_spelling(&found), without_float_spelling(&expected));
        }
    });
}

/// `1e3` and `1000` are one number; `jsonb` keeps one spelling.
fn without_float_spelling(value: &Value) -> Value {
    match value {
        Value::Number(number) => {
            if let Some(integer) = number.as_i64() {
                return json!(integer);
            }
            let float = number.as_f64().expect("a float");
            let whole = float.fract() == 0.0 && float.abs() < 9e18;
            // A zero below zero is written by a mark, not by a number.
            if whole { json!(float as i64) } else { json!(float) }
        }
        Value::Array(items) => items.iter().map(without_float_spelling).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| (name.clone(), without_float_spelling(value))).collect()
        }
        other => other.clone(),
    }
}

#[test]
fn missing_and_null_are_told_apart() {
    run(async {
        let host = TestHost::start(&[]).await;
        let things = Things::new(&host).await;
        let missing = things.insert(r#"{"m":1}"#).await;
        let null = things.insert(r#"{"n":null}"#).await;
        let one = things.insert(r#"{"n":1}"#).await;
        let ids = async |condition: Value| {
            let plan = json!({ "table": "things", "index": "by_n", "where": [condition] });
            let found = things.query(plan).await;
            let list = found.as_array().expect("a list").iter();
            list.map(|document| document["_id"].as_str().expect("an id").to_owned()).collect::<Vec<_>>()
        };
        let undefined = json!({ "$undefined": null });
        assert_eq!(ids(json!({ "field": "n", "op": "eq", "value": null })).await, std::slice::from_ref(&null));
        assert_eq!(ids(json!({ "field": "n", "op": "eq", "value": undefined })).await, std::slice::from_ref(&missing));
        assert_eq!(ids(json!({ "field": "n", "op": "gt", "value": undefined })).await, [null.clone(), one]);
        let both = json!({ "field": "n", "op": "in", "value": [undefined, null] });
        assert_eq!(ids(both).await, [missing, null]);
    });
}
