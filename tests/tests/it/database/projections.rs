//! Documents in part: what is given of them, and what counts as read.

use std::sync::Arc;

use convoke_model::{Database, Failure, Fields, Ids, Read, Upcast};
use convoke_store::Isolation;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use crate::harness::{TestHost, run};
use crate::things::{Things, failure};

/// Four documents, the last of which lacks much.
async fn four(host: &TestHost) -> Things {
    let things = Things::new(host).await;
    for document in [
        json!({ "n": 1, "title": "a\"b", "big": 9_007_199_254_740_993_i64, "by": { "name": "x", "age": 3 } }),
        json!({ "n": 2, "title": null, "by": { "name": "y" } }),
        json!({ "n": 3, "title": "c", "by": { "name": "x" }, "body": "long" }),
        json!({ "n": 4 }),
    ] {
        things.insert(&document.to_string()).await;
    }
    things
}

/// The documents without what the system gives, which each must have.
fn fields(list: &Value) -> Vec<Value> {
    let own = list.as_array().expect("a list").iter().map(|document| {
        let mut document = document.clone();
        let fields = document.as_object_mut().expect("an object");
        assert!(fields.remove("_id").is_some_and(|id| id.is_string()));
        assert!(fields.remove("_creationTime").is_some_and(|time| time.is_number()));
        document
    });
    own.collect()
}

#[test]
fn documents_have_the_fields_that_were_asked_for() {
    run(async {
        let host = TestHost::start(&[]).await;
        let things = four(&host).await;
        let some = json!({ "table": "things", "index": "by_n", "fields": ["title", "big", "nobody's"] });
        let expected = [
            json!({ "title": "a\"b", "big": 9_007_199_254_740_993_i64 }),
            json!({ "title": null }),
            json!({ "title": "c" }),
            json!({}),
        ];
        assert_eq!(fields(&things.query(some.clone()).await), expected, "missing and null are two things");
        let text = things.observed().query(&some.to_string()).await.expect("an answer");
        assert_eq!(fields(&serde_json::from_str(&text).expect("JSON")), expected, "the index's field is not given");
        let system = json!({ "table": "things", "fields": ["_id", "_creationTime"], "limit": 1, "order": "desc" });
        assert_eq!(fields(&things.query(system).await), [json!({})]);
        let filtered = json!({ "table": "things", "fields": ["n", "by"],
            "filter": { "field": "by.name", "op": "eq", "value": "x" } });
        let expected = [json!({ "n": 1, "by": { "name": "x", "age": 3 } }), json!({ "n": 3, "by": { "name": "x" } })];
        assert_eq!(fields(&things.query(filtered).await), expected);
        let ordered = things.query(json!({ "table": "things", "index": "by_n", "fields": ["title", "n"] })).await;
        let first = ordered[0].to_string();
        assert!(first.contains(r#""title":"a\"b""#), "{first}");
    });
}

#[test]
fn a_mutation_may_write_to_what_it_read_in_part() {
    run(async {
        let host = TestHost::start(&[]).await;
        let things = four(&host).await;
        let plan = json!({ "table": "things", "index": "by_n", "fields": ["title"], "limit": 1 }).to_string();
        let id = things
            .change(async |call| {
                let found: Value = serde_json::from_str(&call.query(&plan).await?).expect("JSON");
                let id = found[0]["_id"].as_str().expect("an id").to_owned();
                call.patch("things", &id, r#"{"title":"new"}"#).await?;
                Ok(id)
            })
            .await
            .expect("an id");
        let whole = things.get(&id).await.expect("a document");
        assert_eq!((&whole["title"], &whole["by"]["age"]), (&json!("new"), &json!(3)));
    });
}

#[test]
fn pages_of_parts_are_those_of_the_whole() {
    run(async {
        let host = TestHost::start(&[]).await;
        let things = four(&host).await;
        let page = |fields: Option<Value>, cursor: &Value| {
            let mut plan = json!({ "table": "things", "index": "by_n", "order": "desc", "page": { "cursor": cursor }, "limit": 2 });
            if let Some(fields) = fields {
                plan["fields"] = fields;
            }
            plan
        };
        let whole = things.query(page(None, &Value::Null)).await;
        let part = things.query(page(Some(json!(["title"])), &Value::Null)).await;
        assert_eq!(fields(&part["page"]), [json!({}), json!({ "title": "c" })]);
        for cursor in ["continueCursor", "splitCursor"] {
            assert_eq!(part[cursor], whole[cursor], "a cursor is good for both");
        }
        let next = things.query(page(Some(json!(["by"])), &part["continueCursor"])).await;
        assert_eq!(
            fields(&next["page"]),
            [json!({ "by": { "name": "y" } }), json!({ "by": { "name": "x", "age": 3 } })]
        );
    });
}

#[test]
fn what_was_looked_at_is_in_the_read_set() {
    run(async {
        let host = TestHost::start(&[]).await;
        let things = four(&host).await;
        let mut call = things.observed();
        let plan = json!({ "table": "things", "index": "by_n", "fields": ["title"], "limit": 3,
            "filter": { "field": "by.name", "op": "ne", "value": "y" } });
        call.query(&plan.to_string()).await.expect("an answer");
        let reads = call.take_observed().reads.reads;
        let [Read::Range { ids: Ids::Seen(seen), .. }] = reads.as_slice() else { panic!("{reads:?}") };
        assert_eq!(seen.projection.fields(), ["by", "n", "title"]);
        assert_eq!((seen.rows.len(), seen.whole.len()), (3, 0));
        // What the log gives of a row looks the same.
        let psql = host.psql().await;
        let text = "select _id, _creation_time, (data || '{\"body\":\"other\"}')::text from demo.things";
        for row in psql.query(text, &[]).await.expect("rows") {
            let Some((_, seen_of_row)) = seen.rows.iter().find(|(id, _)| *id == row.get::<_, uuid::Uuid>(0)) else {
                continue;
            };
            let fields = Fields::parse(row.get(2)).expect("fields");
            let digest = seen.projection.digest(|name| fields.text(name));
            assert!(seen_of_row.is_as(row.get(1), Some(digest)), "{row:?}");
        }
    });
}

#[test]
fn a_document_of_an_older_form_is_cut_when_it_is_new() {
    struct Titles;

    impl Upcast for Titles {
        fn upcast<'a>(&'a self, _: &'a str, document: &'a str, from: u32) -> BoxFuture<'a, Result<String, Failure>> {
            let mut document: Value = serde_json::from_str(document).expect("a document");
            document["title"] = json!(format!("{} of {from}", document["name"].as_str().unwrap_or_default()));
            futures_util::future::ready(Ok(document.to_string())).boxed()
        }
    }

    run(async {
        let host = TestHost::start(&[]).await;
        let table = json!([{ "name": "things", "version": 2, "upcast": "up", "indexes": [{ "name": "by_n", "fields": ["n"] }] }]);
        let things = Things::with(&host, table).await;
        let psql = host.psql().await;
        psql.batch_execute(
            "insert into demo.things (data, _version) values ('{\"n\":1,\"name\":\"old\"}', 1), \
             ('{\"n\":2,\"name\":\"kept\",\"title\":\"new\"}', 2)",
        )
        .await
        .expect("rows");
        let mut call = things.upcasting(Arc::new(Titles));
        let plan = json!({ "table": "things", "index": "by_n", "fields": ["title"] });
        let text = call.query(&plan.to_string()).await.expect("an answer");
        let found = fields(&serde_json::from_str(&text).expect("JSON"));
        assert_eq!(found, [json!({ "title": "old of 1" }), json!({ "title": "new" })]);
        let reads = call.take_observed().reads.reads;
        let [Read::Range { ids: Ids::Seen(seen), .. }] = reads.as_slice() else { panic!("{reads:?}") };
        assert_eq!((seen.rows.len(), seen.whole.len()), (1, 1));
    });
}

#[test]
fn a_write_by_query_takes_no_fields() {
    run(async {
        let host = TestHost::start(&[]).await;
        let things = four(&host).await;
        let plan = json!({ "table": "things", "fields": ["n"] }).to_string();
        let mut call = things.call(Isolation::Serializable);
        for refused in [call.patch_where(&plan, "{}").await, call.delete_where(&plan).await] {
            let words = failure(refused.expect_err("a refusal")).message;
            assert!(words.contains("no fields"), "{words}");
        }
        let refused = call.query(r#"{"table":"things","fields":[]}"#).await;
        assert!(failure(refused.expect_err("a refusal")).message.contains("leave it out"));
    });
}
