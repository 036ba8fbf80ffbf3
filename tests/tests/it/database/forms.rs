//! What is held to its table's form and size, whichever way it is written; and what is not touched.

use std::sync::Arc;

use convoke_model::{Code, Database, DatabaseError, Failure, Upcast};
use convoke_store::Isolation;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::harness::{TestHost, run};
use crate::things::{Things, failure};

async fn counters(host: &TestHost) -> Things {
    let properties = json!({
        "count": { "type": "integer", "format": "uint32", "minimum": 0 },
        "price": { "type": ["number", "null"], "maximum": 100 },
        "cents": { "$ref": "#/$defs/Cents" },
        "tags": { "type": "array", "items": { "type": "string" }, "maxItems": 3 },
        "set": { "type": "array", "items": { "type": "integer" }, "uniqueItems": true },
        "name": { "type": "string" },
        "grade": { "type": "integer", "not": { "const": 3 } },
        "any": true,
    });
    let schema = json!({ "type": "object", "properties": properties,
        "$defs": { "Cents": { "anyOf": [{ "type": "integer", "format": "int8" }, { "type": "null" }] } } });
    Things::with(host, json!([{ "name": "things", "schema": schema }])).await
}

async fn update(things: &Things, id: &str, operations: &Value) -> Result<(), Failure> {
    let operations = operations.to_string();
    things.change(async |call| call.update("things", id, &operations).await).await.map_err(failure)
}

#[test]
fn commuting_changes_are_held_to_the_form() {
    run(async {
        let host = TestHost::start(&[]).await;
        let things = counters(&host).await;
        let before = json!({ "count": 4_294_967_290_u32, "price": 99.5, "cents": 120, "tags": ["a"], "set": [1],
            "name": "n", "any": 1 });
        let id = things.insert(&before.to_string()).await;
        for (operations, field) in [
            (json!({ "count": { "inc": 6 } }), "count"),
            (json!({ "count": { "inc": -4_294_967_291_i64 } }), "count"),
            (json!({ "count": { "inc": 0.5 } }), "count"),
            (json!({ "count": { "max": "many" } }), "count"),
            (json!({ "count": { "append": [1] } }), "count"),
            (json!({ "price": { "inc": 0.6 } }), "price"),
            (json!({ "price": { "max": 101 } }), "price"),
            (json!({ "cents": { "inc": 8 } }), "cents"),
            (json!({ "tags": { "append": [1] } }), "tags[0]"),
            (json!({ "tags": { "append": ["b", "c", "d"] } }), "tags"),
            (json!({ "set": { "append": [1] } }), "set"),
            (json!({ "name": { "inc": 1 } }), "name"),
            (json!({ "name": { "min": 1 } }), "name"),
            (json!({ "grade": { "inc": 1 } }), "grade"),
            (json!({ "other": { "inc": 1 } }), "other"),
            (json!({ "any": { "min": { "$undefined": null } } }), "any"),
        ] {
            let refused = update(&things, &id, &operations).await.expect_err(&operations.to_string());
            assert_eq!(refused.code, Code::InvalidArgs, "{operations}: {refused}");
            let data = refused.data.clone().unwrap_or_default();
            assert_eq!(
                (&data["field"], &data["table"]),
                (&json!(field), &json!("things")),
                "{operations}: {refused:?}"
            );
            assert_eq!(things.get(&id).await, Some(before.clone()), "{operations} changed something");
        }
        let fits = json!({ "count": { "inc": 5 }, "price": { "inc": 0.5 }, "cents": { "inc": 7 },
            "tags": { "append": ["b", "c"] }, "set": { "append": [2, 3] }, "any": { "max": 7 }, "name": { "max": "z" } });
        update(&things, &id, &fits).await.expect("a change");
        let after = json!({ "count": u32::MAX, "price": 100.0, "cents": 127, "tags": ["a", "b", "c"], "set": [1, 2, 3],
            "name": "z", "any": 7 });
        assert_eq!(things.get(&id).await, Some(after));
        assert_eq!(host.open_transactions().await, 0);
    });
}

#[test]
fn a_refused_change_undoes_the_whole_mutation() {
    run(async {
        let host = TestHost::start(&[]).await;
        let things = counters(&host).await;
        let id = things.insert(r#"{"count":0}"#).await;
        let mut call = things.call(Isolation::Serializable);
        let other = call.insert("things", r#"{"name":"other"}"#).await.expect("an id");
        call.update("things", &id, r#"{"count":{"inc":-1}}"#).await.expect("kept until the commit");
        let error = call.commit().await.expect_err("a count below zero");
        assert!(matches!(&error, DatabaseError::Failed(failure) if failure.code == Code::InvalidArgs), "{error:?}");
        drop(call);
        assert_eq!(things.get(&other).await, None);
        assert_eq!(things.get(&id).await, Some(json!({ "count": 0 })));
    });
}

#[test]
fn no_change_makes_a_document_too_large() {
    run(async {
        let host = TestHost::start(&[]).await;
        let things = Things::new(&host).await;
        // A text with as many blanks as jsonb puts in, and a little less than the limit.
        let list = vec![0; 520_000];
        let id = things.insert(&json!({ "n": 1, "list": list }).to_string()).await;
        update(&things, &id, &json!({ "n": { "inc": 1 } })).await.expect("a change of a large document");
        let half = "x".repeat(600_000);
        let half_ops = json!({ "other": { "max": half } });
        let plan = r#"{"table":"things"}"#;
        let patch = json!({ "other": half }).to_string();
        let unset = json!({ "other": half, "n": { "$undefined": null } }).to_string();
        let refusals = [
            update(&things, &id, &half_ops).await,
            update(&things, &id, &json!({ "list": { "append": vec![0; 10_000] } })).await,
            things.change(async |call| call.patch("things", &id, &patch).await).await.map_err(failure),
            things.change(async |call| call.patch("things", &id, &unset).await).await.map_err(failure),
            things.change(async |call| call.patch_where(plan, &patch).await.map(|_| ())).await.map_err(failure),
        ];
        for refused in refusals {
            let refused = refused.expect_err("a document of more than 1 MiB");
            assert_eq!(refused.code, Code::InvalidArgs, "{refused}");
            assert!(refused.message.contains("at most 1048576 bytes"), "{refused}");
        }
        // A short text that Postgres writes out at length.
        let long = format!(r#"{{"n":[{}]}}"#, vec!["1e300"; 10_000].join(","));
        let refused = things.change(async |call| call.insert("things", &long).await).await.expect_err("3 MB");
        assert!(failure(refused).message.contains("over the limit"));
    });
}

#[test]
fn sums_stay_numbers_that_a_float_holds() {
    run(async {
        let host = TestHost::start(&[]).await;
        let things = Things::new(&host).await;
        let id = things.insert(r#"{"n":1e308}"#).await;
        let refused = update(&things, &id, &json!({ "n": { "inc": 1e308 } })).await.expect_err("2e308");
        assert_eq!(refused.code, Code::InvalidArgs);
        assert!(refused.message.contains("a 64-bit float"), "{refused}");
    });
}

#[test]
fn a_patch_by_query_leaves_what_it_does_not_name() {
    struct Adds;

    impl Upcast for Adds {
        fn upcast<'a>(&'a self, _: &'a str, document: &'a str, _: u32) -> BoxFuture<'a, Result<String, Failure>> {
            let new = document.trim_end().strip_suffix('}').expect("an object").to_owned() + ",\"new\":1}";
            futures_util::future::ready(Ok(new)).boxed()
        }
    }

    run(async {
        let host = TestHost::start(&[]).await;
        let psql = host.psql().await;
        for version in [1, 2] {
            let table = json!([{ "name": "things", "version": version, "upcast": "up" }]);
            let things = Things::with(&host, table).await;
            let kept = r#"{"n": 1.10, "big": 123456789012345678901234567890.50, "small": 0.10000000000000000000001,
                "null": null, "nested": {"null": null, "list": [1.0, null], "old": true}, "old": true}"#;
            psql.batch_execute("delete from demo.things").await.expect("no rows");
            psql.execute("insert into demo.things (data) values ($1::text::jsonb)", &[&kept]).await.expect("a row");
            if version == 2 {
                let older =
                    "insert into demo.things (data, _version) values ('{\"big\": 1.000000000000000000000010}', 1)";
                psql.batch_execute(older).await.expect("an older row");
            }
            let mut call = things.changing(Arc::new(Adds));
            let fields = r#"{"seen":{"a":null},"old":{"$undefined":null}}"#;
            let count = call.patch_where(r#"{"table":"things"}"#, fields).await.expect("a count");
            assert_eq!(count, version);
            call.commit().await.expect("a commit");
            let same = "select data::text = (($1::text::jsonb || '{\"seen\": {\"a\": null}}') - 'old')::text from demo.things \
                        order by _creation_time";
            let rows = psql.query(same, &[&kept]).await.expect("rows");
            assert!(rows[0].get::<_, bool>(0), "version {version}");
            if version == 2 {
                let brought = "select data::text from demo.things where data ? 'new'";
                let row = psql.query_one(brought, &[]).await.expect("the older one");
                let expected = r#"{"big": 1.000000000000000000000010, "new": 1, "seen": {"a": null}}"#;
                assert_eq!(row.get::<_, String>(0), expected);
            }
        }
    });
}

#[test]
fn what_is_stored_keeps_its_digits_where_fields_are_added_or_left_out() {
    run(async {
        let host = TestHost::start(&[]).await;
        let schema = json!({ "type": "object",
            "properties": { "n": { "type": "number" }, "m": { "type": "integer", "default": 7 } } });
        let things = Things::with(&host, json!([{ "name": "things", "unknown": "strip", "schema": schema }])).await;
        let written = r#"{"n":123456789012345678901234567890.5,"x":1}"#;
        let id = things.insert(written).await;
        let text = things.call(Isolation::SingleRead).get("things", &id).await.expect("an answer").expect("a document");
        assert!(text.contains(r#""m": 7, "n": 123456789012345678901234567890.5}"#), "{text}");
        things.change(async |call| call.patch("things", &id, r#"{"n":1.10,"x":1}"#).await).await.expect("a change");
        let text = things.call(Isolation::SingleRead).get("things", &id).await.expect("an answer").expect("a document");
        assert!(text.contains(r#""m": 7, "n": 1.10}"#), "{text}");
    });
}

/// JSON text as another guest may write it: any spelling of numbers, names twice, what Postgres cannot store.
fn raw_json() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?",
        any::<f64>().prop_map(|float| if float.is_finite() { format!("{float:e}") } else { "0".to_owned() }),
        any::<u64>().prop_map(|integer| integer.to_string()),
    ];
    let text = prop_oneof![
        "[a-z\\\\u]{0,3}".prop_map(|text| json!(text).to_string()),
        "(\\\\ud83d\\\\ude00|\\\\u00e9|\\\\/|\\\\n|é|😀|e1){0,3}".prop_map(|text| format!("\"{text}\"")),
        Just("\"\\u0000\"".to_owned()),
        Just("\"\\ud800\"".to_owned()),
        Just("\"\\udc00\\ud800\"".to_owned()),
    ];
    let leaf = prop_oneof![6 => number, 2 => text, 1 => Just("null".to_owned()), 1 => Just("true".to_owned())];
    leaf.prop_recursive(4, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(" , "))),
            proptest::collection::vec(("a|b|\\\\u0061|c", inner.clone()), 0..4).prop_map(|fields| {
                let fields: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
                format!("{{{}}}", fields.join(","))
            }),
            (60usize..70, inner).prop_map(|(deep, value)| format!("{}{value}{}", "[".repeat(deep), "]".repeat(deep))),
        ]
    })
}

#[test]
fn a_raw_document_is_read_back_or_refused() {
    run(async {
        let host = TestHost::start(&[]).await;
        let kept = Things::new(&host).await;
        let mut runner = TestRunner::deterministic();
        let (mut stored, mut refused) = (0, 0);
        for _ in 0..1_500 {
            let value = raw_json().new_tree(&mut runner).expect("a text").current();
            let document = format!(r#"{{"v":{value},"w":1}}"#);
            let id = match kept.change(async |call| call.insert("things", &document).await).await {
                Ok(id) => id,
                Err(error) => {
                    let failure = failure(error);
                    assert_eq!(failure.code, Code::InvalidArgs, "{document}: {failure:?}");
                    let words = ["64-bit float", "\\u0000", "nested", "surrogate", "JSON"];
                    assert!(words.iter().any(|word| failure.message.contains(word)), "{document}: {failure}");
                    refused += 1;
                    continue;
                }
            };
            stored += 1;
            let text =
                kept.call(Isolation::SingleRead).get("things", &id).await.expect("an answer").expect("a document");
            let found: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
            let expected: Value = serde_json::from_str(&document).expect("JSON, or it would be refused");
            assert_eq!(as_floats(&found["v"]), as_floats(&expected["v"]), "{document}");
        }
        assert!(stored > 500 && refused > 50, "{stored} stored, {refused} refused");
    });
}

/// Numbers by their value, however they are written: the nearest floats.
fn as_floats(value: &Value) -> Value {
    match value {
        // A zero below zero is zero.
        Value::Number(number) => json!(number.as_f64().expect("a float") + 0.0),
        Value::Array(items) => items.iter().map(as_floats).collect(),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), as_floats(value))).collect(),
        other => other.clone(),
    }
}
