//! Pages: no document twice, none left out, while others come and go.

use std::collections::HashSet;

use convoke_model::{Code, Database};
use convoke_store::Isolation;
use serde_json::{Value, json};

use crate::harness::{TestHost, run};
use crate::things::{Things, numbers};

async fn three_ways(host: &TestHost) -> Things {
    let things = Things::with(
        host,
        json!([{ "name": "things", "indexes": [
            { "name": "by_group", "fields": ["group", "n"] },
            { "name": "by_rank", "fields": ["group", { "field": "n", "order": "desc" }] },
        ] }]),
    )
    .await;
    let documents: Vec<Value> = (0..50).map(|n| json!({ "n": n / 3, "group": n % 4, "serial": n })).collect();
    let text = Value::from(documents).to_string();
    things.change(async |call| call.insert_many("things", &text).await).await.expect("ids");
    things
}

async fn page(things: &Things, base: &Value, cursor: &Value, end: &Value, size: u32) -> Value {
    let mut plan = base.clone();
    plan["page"] = json!({ "cursor": cursor });
    if !end.is_null() {
        plan["page"]["end"] = end.clone();
    }
    plan["limit"] = json!(size);
    things.query(plan).await
}

fn serials(page: &Value) -> Vec<i64> {
    page.as_array().expect("a page").iter().map(|document| document["serial"].as_i64().expect("a serial")).collect()
}

#[test]
fn pages_are_the_whole_in_its_order() {
    run(async {
        let host = TestHost::start(&[]).await;
        let things = three_ways(&host).await;
        for (index, order, fixed, filter) in [
            ("by_creation_time", "asc", false, false),
            ("by_creation_time", "desc", false, true),
            ("by_group", "asc", false, false),
            ("by_group", "desc", true, false),
            ("by_rank", "asc", false, false),
            ("by_rank", "desc", false, true),
            ("by_rank", "asc", true, true),
        ] {
            let mut base = json!({ "table": "things", "index": index, "order": order });
            if fixed {
                base["where"] = json!([{ "field": "group", "op": "eq", "value": 1 }]);
            }
            if filter {
                base["filter"] = json!({ "field": "serial", "op": "ne", "value": 21 });
            }
            let whole = serials(&things.query(base.clone()).await);
            for size in [1, 7, 50, 60] {
                let (mut found, mut cursor) = (Vec::new(), Value::Null);
                let mut cursors = Vec::new();
                loop {
                    let page = page(&things, &base, &cursor, &Value::Null, size).await;
                    found.extend(serials(&page["page"]));
                    cursors.push((cursor, page["continueCursor"].clone(), serials(&page["page"])));
                    cursor = page["continueCursor"].clone();
                    if page["isDone"] == true {
                        break;
                    }
                }
                assert_eq!(found, whole, "{base} by {size}");
                for (cursor, end, expected) in cursors {
                    let again = page(&things, &base, &cursor, &end, 1).await;
                    assert_eq!(serials(&again["page"]), expected, "{base} by {size}");
                    assert_eq!(again["continueCursor"], end);
                }
            }
        }
    });
}

#[test]
fn a_split_page_is_two_halves() {
    run(async {
        let host = TestHost::start(&[]).await;
        let things = three_ways(&host).await;
        for (index, order) in
            [("by_rank", "asc"), ("by_rank", "desc"), ("by_group", "desc"), ("by_creation_time", "asc")]
        {
            let base = json!({ "table": "things", "index": index, "order": order });
            for size in (1..12).chain([49, 50, 60]) {
                let whole = page(&things, &base, &Value::Null, &Value::Null, size).await;
                let (split, end) = (&whole["splitCursor"], &whole["continueCursor"]);
                let rows = serials(&whole["page"]);
                if rows.len() < 2 {
                    assert_eq!(split, &Value::Null, "one document has no halves");
                    continue;
                }
                let first = serials(&page(&things, &base, &Value::Null, split, size).await["page"]);
                let second = serials(&page(&things, &base, split, end, size).await["page"]);
                assert_eq!([first.clone(), second.clone()].concat(), rows, "{base} by {size}");
                assert_eq!(first.len(), rows.len().div_ceil(2), "{base} by {size}");
            }
        }
    });
}

#[test]
fn a_query_has_one_page() {
    run(async {
        let host = TestHost::start(&["plans"]).await;
        let things = Things::new(&host).await;
        for n in 0..5 {
            things.insert(&json!({ "n": n }).to_string()).await;
        }
        let plan = json!({ "table": "things", "page": { "cursor": null }, "limit": 2 }).to_string();
        let mut query = things.call(Isolation::Snapshot);
        query.query(&plan).await.expect("a page");
        let refused = crate::things::failure(query.query(&plan).await.expect_err("a second page"));
        assert_eq!(refused.code, Code::InvalidArgs);
        assert!(refused.message.contains("one `paginate` a query"), "{refused}");
        // What is no page is read on.
        assert!(query.query(r#"{"table":"things"}"#).await.is_ok());
        // A mutation is not run again with the ends of its pages.
        let mut mutation = things.call(Isolation::Serializable);
        mutation.query(&plan).await.expect("a page");
        mutation.query(&plan).await.expect("another");

        let plan = json!({ "table": "things", "page": { "cursor": null }, "limit": 2 });
        let twice = host.query("plans:pair", json!({ "first": plan, "second": plan })).await;
        assert_eq!((twice.status, twice.code()), (400, "INVALID_ARGS"), "{twice:?}");
        assert!(twice.message().contains("one `paginate` a query"), "{twice:?}");
        let rest = json!({ "table": "things", "limit": 2 });
        host.query("plans:pair", json!({ "first": plan, "second": rest })).await.data();
    });
}

/// Times that nobody but psql writes.
#[test]
fn strange_creation_times_have_a_place_and_are_shown() {
    run(async {
        let host = TestHost::start(&[]).await;
        let things = Things::new(&host).await;
        let psql = host.psql().await;
        psql.batch_execute(
            "insert into demo.things (_creation_time, data) select t, jsonb_build_object('serial', row_number() over ()) \
             from unnest(array['nan', '-infinity', '-0', '0', 'infinity', -'nan'::float8, '-0', '1e300', '5e-324', \
             '0.1', '1795241803153.6382']::float8[]) as t",
        )
        .await
        .expect("rows");
        for order in ["asc", "desc"] {
            let base = json!({ "table": "things", "order": order });
            let whole = things.query(base.clone()).await;
            let times: Vec<f64> = whole.as_array().expect("a list").iter().map(time).collect();
            assert!(times.is_sorted_by(|a, b| if order == "asc" { a <= b } else { a >= b }), "{times:?}");
            assert_eq!(times.len(), 11);
            for size in [1, 2, 3, 4] {
                let (mut found, mut cursor, mut done) = (Vec::new(), Value::Null, false);
                while !done {
                    let page = page(&things, &base, &cursor, &Value::Null, size).await;
                    found.extend(serials(&page["page"]));
                    done = page["isDone"] == true;
                    cursor = page["continueCursor"].clone();
                }
                assert_eq!(found, serials(&whole), "{order} by {size}");
            }
        }
    });
}

fn time(document: &Value) -> f64 {
    document["_creationTime"].as_f64().expect("a number")
}

#[test]
fn documents_that_come_and_go_are_neither_doubled_nor_lost() {
    run(async {
        let host = TestHost::start(&[]).await;
        let things = three_ways(&host).await;
        let base = json!({ "table": "things", "index": "by_group" });
        let before: HashSet<i64> = serials(&things.query(base.clone()).await).into_iter().collect();
        let mut removed = HashSet::new();
        let (mut seen, mut cursor) = (Vec::new(), Value::Null);
        loop {
            let page = page(&things, &base, &cursor, &Value::Null, 5).await;
            seen.extend(serials(&page["page"]));
            cursor = page["continueCursor"].clone();
            if page["isDone"] == true {
                break;
            }
            // One that was shown goes, with the very document that the cursor stands on; others come before and behind.
            let last = page["page"].as_array().and_then(|page| page.last()).expect("a document").clone();
            removed.insert(last["serial"].as_i64().expect("a serial"));
            let id = last["_id"].as_str().expect("an id").to_owned();
            things
                .change(async |call| {
                    call.delete("things", &id).await?;
                    call.insert("things", r#"{"group":0,"n":-1,"serial":1000}"#).await
                })
                .await
                .expect("a change");
        }
        let old: Vec<i64> = seen.iter().copied().filter(|serial| *serial < 1000).collect();
        let unique: HashSet<i64> = old.iter().copied().collect();
        assert_eq!(old.len(), unique.len(), "{seen:?}");
        assert_eq!(unique, before);
        assert!(!removed.is_empty());
        assert!(numbers(&json!([])).is_empty());
    });
}
