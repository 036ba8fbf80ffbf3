//! What plans select, and that their SQL goes along the index.

use convoke_model::{CREATION_TIME, Database, Plan};
use convoke_sql::{Bounds, Columns, Parameter};
use convoke_store::Isolation;
use serde_json::{Value, json};

use crate::harness::{TestHost, run};
use crate::things::{Things, failure, numbers};

async fn ranked(host: &TestHost) -> Things {
    let things = Things::with(
        host,
        json!([{ "name": "things", "indexes": [
            { "name": "by_n", "fields": ["n"] },
            { "name": "by_group", "fields": ["group", "n"] },
            { "name": "by_rank", "fields": ["team", { "field": "n", "order": "desc" }] },
        ] }]),
    )
    .await;
    let document = |serial: usize| {
        let (n, group) = ((serial * 7) % 60, ["a", "b", "c"][serial % 3]);
        json!({ "n": n, "group": group, "team": group, "tags": ["x", serial], "at": { "y": serial % 5 } })
    };
    let documents: Vec<Value> = (0..60).map(document).collect();
    let text = Value::from(documents).to_string();
    things.change(async |call| call.insert_many("things", &text).await).await.expect("ids");
    things
}

#[test]
fn filters_order_offsets_and_limits() {
    run(async {
        let host = TestHost::start(&[]).await;
        let things = ranked(&host).await;
        let filtered = async |filter: Value| {
            let mut found = things.numbers(json!({ "table": "things", "filter": filter })).await;
            found.sort_unstable();
            found
        };
        assert_eq!(filtered(json!({ "field": "n", "op": "lt", "value": 3 })).await, [0, 1, 2]);
        assert_eq!(
            filtered(json!({ "and": [
                { "field": "at.y", "op": "eq", "value": 0 },
                { "or": [{ "field": "n", "op": "gte", "value": 55 }, { "field": "n", "op": "in", "value": [0, 5] }] },
            ] }))
            .await,
            [0, 5, 55]
        );
        assert_eq!(filtered(json!({ "not": { "field": "n", "op": "ne", "value": 7 } })).await, [7]);
        assert_eq!(filtered(json!({ "field": "missing", "op": "ne", "value": 7 })).await.len(), 60);
        assert_eq!(filtered(json!({ "not": { "field": "missing", "op": "eq", "value": 7 } })).await.len(), 60);
        let undefined = json!({ "$undefined": null });
        assert_eq!(filtered(json!({ "field": "missing", "op": "eq", "value": undefined })).await.len(), 60);
        assert_eq!(filtered(json!({ "field": "n", "op": "eq", "value": undefined })).await.len(), 0);
        assert_eq!(filtered(json!({ "or": [] })).await.len(), 0);
        assert_eq!(filtered(json!({ "and": [] })).await.len(), 60);
        assert_eq!(filtered(json!({ "field": "tags.1", "op": "eq", "value": 9 })).await, [3]);

        let of_b = |more: Value| {
            let mut plan = json!({ "table": "things", "index": "by_group",
                "where": [{ "field": "group", "op": "eq", "value": "b" }] });
            for (name, value) in more.as_object().expect("fields") {
                plan[name] = value.clone();
            }
            plan
        };
        let all = things.numbers(of_b(json!({}))).await;
        assert_eq!(all.len(), 20);
        assert!(all.is_sorted());
        assert_eq!(things.numbers(of_b(json!({ "offset": 3, "limit": 4 }))).await, all[3..7]);
        let down: Vec<i64> = all.iter().rev().copied().collect();
        assert_eq!(things.numbers(of_b(json!({ "order": "desc" }))).await, down);
        let team = json!([{ "field": "team", "op": "eq", "value": "b" }]);
        assert_eq!(things.numbers(of_b(json!({ "index": "by_rank", "where": team }))).await, down);
        assert_eq!(things.numbers(of_b(json!({ "index": "by_rank", "where": team, "order": "desc" }))).await, all);
        assert_eq!(things.numbers(json!({ "table": "things", "index": "by_rank", "limit": 2 })).await, [57, 54]);
    });
}

#[test]
fn aggregates_and_groups() {
    run(async {
        let host = TestHost::start(&[]).await;
        let things = ranked(&host).await;
        let every = json!([
            { "op": "count" }, { "op": "sum", "field": "n" }, { "op": "avg", "field": "n" },
            { "op": "min", "field": "n" }, { "op": "max", "field": "n" }, { "op": "max", "field": "at.y" },
            { "op": "count", "field": "missing" }, { "op": "sum", "field": "group" }, { "op": "min", "field": "missing" },
        ]);
        let all = things.query(json!({ "table": "things", "index": "by_n", "aggregate": every })).await;
        assert_eq!(all, json!([60, 1770, 29.5, 0, 59, 4, 0, 0, null]));
        let some = json!({ "table": "things", "index": "by_n", "aggregate": every,
            "where": [{ "field": "n", "op": "gte", "value": 58 }] });
        assert_eq!(things.query(some).await, json!([2, 117, 58.5, 58, 59, 4, 0, 0, null]));
        let none = json!({ "table": "things", "aggregate": every, "filter": { "field": "n", "op": "lt", "value": 0 } });
        assert_eq!(things.query(none).await, json!([0, 0, null, null, null, null, 0, 0, null]));
        let ends = json!({ "table": "things", "index": "by_n",
            "aggregate": [{ "op": "max", "field": "n" }, { "op": "min", "field": "n" }] });
        assert_eq!(things.query(ends).await, json!([59, 0]));
        let groups = json!({ "table": "things", "index": "by_group", "order": "desc", "limit": 2, "groupBy": ["group"],
            "aggregate": [{ "op": "count" }, { "op": "max", "field": "n" }] });
        assert_eq!(
            things.query(groups).await,
            json!([{ "key": ["c"], "values": [20, 59] }, { "key": ["b"], "values": [20, 58] }])
        );
    });
}

#[test]
fn every_operator_uses_its_index() {
    run(async {
        let host = TestHost::start(&[]).await;
        let things = ranked(&host).await;
        let psql = host.psql().await;
        psql.batch_execute(
            "insert into demo.things (data) select jsonb_build_object('n', n, 'group', 'g' || n % 1000, 'team', 't' || n % 1000) \
             from generate_series(100, 20000) n; analyze demo.things",
        )
        .await
        .expect("rows");
        let group = json!({ "field": "group", "op": "eq", "value": "g7" });
        let team = json!({ "field": "team", "op": "eq", "value": "t7" });
        let time = |op: &str| json!({ "field": CREATION_TIME, "op": op, "value": 5.0 });
        let mut plans = vec![
            json!({ "limit": 5 }),
            json!({ "where": [time("lt")], "limit": 5 }),
            json!({ "where": [time("gte")], "order": "desc", "limit": 5 }),
            json!({ "index": "by_group", "where": [group] }),
            json!({ "index": "by_group", "where": [group], "order": "desc", "limit": 5 }),
            json!({ "index": "by_rank", "where": [team], "limit": 5 }),
            json!({ "index": "by_rank", "limit": 5 }),
            json!({ "index": "by_group", "where": [group, { "field": "n", "op": "eq", "value": 3 }, time("gt")] }),
            json!({ "index": "by_n", "where": [{ "field": "n", "op": "in", "value": [1, 2, null] }] }),
            json!({ "index": "by_n", "where": [{ "field": "n", "op": "eq", "value": { "$undefined": null } }] }),
        ];
        for op in ["eq", "lt", "lte", "gt", "gte"] {
            let low = if op.starts_with('l') { 200 } else { 19_900 };
            plans.push(json!({ "index": "by_n", "where": [{ "field": "n", "op": op, "value": low }] }));
            plans.push(json!({ "index": "by_rank", "where": [team, { "field": "n", "op": op, "value": low }] }));
        }
        for mut plan in plans {
            plan["table"] = json!("things");
            let plan = Plan::parse(&plan.to_string()).expect("a plan");
            let table = &things.tables.tables["things"];
            let index = plan.check(table).expect("a plan of the table");
            let limit = plan.limit.unwrap_or(100);
            let statement =
                convoke_sql::query("demo", table, &plan, &index, Bounds::default(), Columns::Document, limit);
            let nodes = explain(&psql, &statement.text, &statement.parameters).await;
            let scan = nodes.iter().find(|node| node.get("Index Name").is_some());
            let name = scan.map(|node| node["Index Name"].as_str().unwrap_or_default());
            assert_eq!(name, Some(format!("things_{}_idx", index.name).as_str()), "{plan:?}\n{nodes:?}");
            assert!(nodes.iter().all(|node| node["Filter"].is_null()), "{plan:?}\n{nodes:?}");
            let few = plan.limit.is_some();
            assert!(!few || nodes.iter().all(|node| node["Node Type"] != "Sort"), "{plan:?}\n{nodes:?}");
        }
    });
}

/// The nodes of a statement's plan, with its parameters in place.
async fn explain(psql: &tokio_postgres::Client, text: &str, parameters: &[Parameter]) -> Vec<Value> {
    let mut text = text.to_owned();
    for (position, parameter) in parameters.iter().enumerate().rev() {
        let bytes = |bytes: &[u8]| {
            let digits = bytes.iter().fold(String::new(), |digits, byte| digits + &format!("{byte:02x}"));
            format!("'\\x{digits}'::bytea")
        };
        let literal = match parameter {
            Parameter::Bytes(value) => bytes(value),
            Parameter::ManyBytes(values) => {
                format!("array[{}]", values.iter().map(|value| bytes(value)).collect::<Vec<_>>().join(","))
            }
            Parameter::Float(value) => format!("{value}::double precision"),
            Parameter::BigInt(value) => value.to_string(),
            other => panic!("not in these plans: {other:?}"),
        };
        text = text.replace(&format!("${}", position + 1), &literal);
    }
    let messages = psql.simple_query(&format!("explain (format json) {text}")).await.expect("a plan");
    let row = messages.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    let plan: Value = serde_json::from_str(row.expect("a row")).expect("JSON");
    let mut nodes = Vec::new();
    let mut open = vec![plan[0]["Plan"].clone()];
    while let Some(node) = open.pop() {
        open.extend(node["Plans"].as_array().into_iter().flatten().cloned());
        nodes.push(node);
    }
    nodes
}

#[test]
fn a_plan_that_does_not_fit_is_refused_with_words() {
    run(async {
        let host = TestHost::start(&[]).await;
        let things = ranked(&host).await;
        for (plan, words) in [
            (json!({ "table": "thing" }), "table `thing` is not declared"),
            (json!({ "table": "things", "index": "by_m" }), "it has: by_n, by_group, by_rank, by_creation_time"),
            (json!({ "table": "things", "where": [{ "field": "n", "op": "eq", "value": 1 }] }), "needs an index"),
            (json!({ "table": "things", "page": { "cursor": "x" } }), "the cursor is not one of this query"),
            (json!({ "table": "things", "page": { "cursor": null }, "limit": 0 }), "at least one document"),
        ] {
            let mut call = things.call(Isolation::SingleRead);
            let error = failure(call.query(&plan.to_string()).await.expect_err("a wrong plan"));
            assert!(error.message.contains(words), "{plan}: {error}");
        }
        assert_eq!(numbers(&json!([{ "n": 1 }])), [1]);
    });
}
