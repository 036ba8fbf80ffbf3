//! Documents as rows: what functions write, psql reads, and the other way round.

use convoke_model::{Code, Database, DatabaseError};
use convoke_store::Isolation;
use serde_json::{Value, json};

use crate::harness::{TestHost, run};
use crate::things::Things;

#[test]
fn psql_reads_and_writes_the_same_rows() {
    run(async {
        let host = TestHost::start(&["messages"]).await;
        let sent = host.mutation("messages:send", json!({ "channel": "c", "author": "a", "body": "hi" })).await;
        let id = sent.data().as_str().expect("an id").to_owned();
        let psql = host.psql().await;
        let row = psql
            .query_one(
                "select data->>'body', convoke.id('demo.messages', _id), _id = convoke.uuid($1) from demo.messages",
                &[&id],
            )
            .await
            .expect("a row");
        assert_eq!(row.get::<_, String>(0), "hi");
        assert_eq!(row.get::<_, String>(1), id);
        assert!(row.get::<_, bool>(2));

        let body = r#"{"channel":"c","author":"b","body":"by hand"}"#;
        psql.execute("insert into demo.messages (data) values ($1::text::jsonb)", &[&body]).await.expect("a row");
        let answer = host.query("messages:list", json!({ "channel": "c" })).await;
        let list = answer.data().as_array().expect("a list").clone();
        assert_eq!(list.len(), 2);
        assert_eq!(list[1]["body"], "by hand");
        let edited = list[1]["_id"].as_str().expect("an id");
        host.mutation("messages:edit", json!({ "id": edited, "body": "by function" })).await.data();
    });
}

#[test]
fn ids_in_sql_are_ids_in_the_host() {
    run(async {
        let host = TestHost::start(&["messages"]).await;
        let psql = host.psql().await;
        for (table, uuid) in
            [(1u32, u128::MAX), (127, 0), (128, 1), (10_001, 0x0192_3456_789a_bcde_f012_3456_789a_bcde)]
        {
            let uuid = format!("{uuid:032x}");
            let query = format!(
                "select convoke.encode_id({table}, '{uuid}'), convoke.uuid(convoke.encode_id({table}, '{uuid}'))::text"
            );
            let row = psql.query_one(&query, &[]).await.expect("a row");
            let text: String = row.get(0);
            let id = convoke_model::DocumentId::parse(&text).expect("an id");
            assert_eq!((id.table, id.uuid.simple().to_string()), (table, uuid.clone()));
            assert_eq!(id.to_string(), text);
            assert_eq!(row.get::<_, String>(1).replace('-', ""), uuid);
        }
        let wrong = psql.query_one("select convoke.uuid(repeat('0', 31))", &[]).await;
        assert!(wrong.is_ok() || wrong.is_err_and(|error| error.to_string().contains("db error")));
    });
}

#[test]
fn ids_are_checked() {
    run(async {
        let host = TestHost::start(&["messages", "hostile"]).await;
        let mark = host.mutation("hostile:write", json!({ "name": "x" })).await.data().clone();
        for (id, words) in [
            (mark, "belongs to another table"),
            (json!("nonsense"), "31 to 37 characters"),
            (json!("0".repeat(31)), "belongs to another table"),
            (json!("1".repeat(31)), "checksum"),
        ] {
            let answer = host.mutation("messages:edit", json!({ "id": id, "body": "x" })).await;
            assert_eq!(answer.status, 400, "{id}: {answer:?}");
            assert!(answer.message().contains(words), "{id}: {answer:?}");
        }
    });
}

#[test]
fn the_index_of_the_demo_is_used() {
    run(async {
        let host = TestHost::start(&["messages"]).await;
        let psql = host.psql().await;
        psql.batch_execute(
            "insert into demo.messages (data) \
             select jsonb_build_object('channel', 'c' || n % 100, 'author', 'a', 'body', n::text) from generate_series(1, 20000) n; \
             analyze demo.messages",
        )
        .await
        .expect("rows");
        let rows = psql
            .query(
                "explain select _id, _creation_time, data from demo.messages where convoke.key(data->'channel') = convoke.key('\"c7\"') \
                 order by _creation_time desc, _id desc limit 50",
                &[],
            )
            .await
            .expect("a plan");
        let plan: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let plan = plan.join("\n");
        assert!(plan.contains("Index Scan Backward using messages_by_channel_idx"), "{plan}");
        assert!(!plan.contains("Sort"), "{plan}");

        let answer = host.query("messages:list", json!({ "channel": "c7", "limit": 50 })).await;
        assert_eq!(answer.data().as_array().map(Vec::len), Some(50));
    });
}

#[test]
fn a_large_seed_is_one_transaction() {
    run(async {
        let host = TestHost::start(&["accounts"]).await;
        let answer = host.mutation("accounts:seed", json!({ "accounts": 30_000, "balance": 10 })).await;
        assert_eq!(answer.data(), 30_000);
        assert_eq!(host.query("accounts:total", json!({})).await.data(), 300_000);
        let again = host.mutation("accounts:seed", json!({ "accounts": 10, "balance": 20 })).await;
        assert_eq!(again.data(), 10);
        let total = host.query("accounts:balance", json!({ "account": 3 })).await.data().clone();
        assert_eq!(total, Value::from(20));
    });
}

#[test]
fn writes_to_documents_that_were_not_read() {
    run(async {
        let host = TestHost::start(&[]).await;
        let things = Things::new(&host).await;
        let id = things.insert(r#"{"n":1,"a":"b","c":{"d":1}}"#).await;

        let mut call = things.call(Isolation::Serializable);
        call.patch("things", &id, r#"{"n":2,"a":{"$undefined":null},"c":{"e":2}}"#).await.expect("kept");
        call.commit().await.expect("a commit");
        assert_eq!(things.get(&id).await, Some(json!({ "n": 2, "c": { "e": 2 } })));

        let mut call = things.call(Isolation::Serializable);
        call.patch("things", &id, r#"{"n":3}"#).await.expect("kept");
        call.replace("things", &id, r#"{"z":1}"#).await.expect("kept");
        call.commit().await.expect("a commit");
        assert_eq!(things.get(&id).await, Some(json!({ "z": 1 })));

        let mut call = things.call(Isolation::Serializable);
        call.delete("things", &id).await.expect("kept");
        call.commit().await.expect("a commit");
        assert_eq!(things.get(&id).await, None);
    });
}

#[test]
fn a_write_that_misses_its_document_undoes_the_whole_mutation() {
    run(async {
        let host = TestHost::start(&[]).await;
        let things = Things::new(&host).await;
        let gone = things.insert("{}").await;
        let mut call = things.call(Isolation::Serializable);
        call.delete("things", &gone).await.expect("kept");
        call.commit().await.expect("a commit");

        for write in ["patch", "replace", "delete"] {
            let mut call = things.call(Isolation::Serializable);
            let other = call.insert("things", r#"{"n":7}"#).await.expect("an id");
            match write {
                "patch" => call.patch("things", &gone, "{}").await,
                "replace" => call.replace("things", &gone, "{}").await,
                _ => call.delete("things", &gone).await,
            }
            .expect("kept until the commit");
            let error = call.commit().await.expect_err("nothing to change");
            assert!(matches!(&error, DatabaseError::Failed(failure) if failure.code == Code::NotFound), "{error:?}");
            drop(call);
            assert_eq!(things.get(&other).await, None, "{write} left its neighbour");
        }
        assert_eq!(host.open_transactions().await, 0);
    });
}

#[test]
fn a_mutation_reads_its_own_writes_and_dropping_it_undoes_them() {
    run(async {
        let host = TestHost::start(&[]).await;
        let things = Things::new(&host).await;
        let mut call = things.call(Isolation::Serializable);
        let id = call.insert("things", r#"{"n":1}"#).await.expect("an id");
        assert!(call.get("things", &id).await.expect("an answer").is_some());
        let plan = r#"{"table":"things","index":"by_n","where":[{"field":"n","op":"gte","value":1}]}"#;
        assert!(call.query(plan).await.expect("an answer").contains(&id));
        drop(call);
        assert_eq!(things.get(&id).await, None);
        assert_eq!(host.open_transactions().await, 0);
    });
}

#[test]
fn numbers_sort_as_numbers_and_limits_are_limits() {
    run(async {
        let host = TestHost::start(&[]).await;
        let things = Things::new(&host).await;
        for n in [10, 9, 100, 2, 9_007_199_254_740_993i64] {
            things.insert(&json!({ "n": n }).to_string()).await;
        }
        let read = |plan: Value| {
            let mut call = things.call(Isolation::SingleRead);
            async move {
                let text = call.query(&plan.to_string()).await.expect("an answer");
                let list: Vec<Value> = serde_json::from_str(&text).expect("JSON");
                list.iter().map(|document| document["n"].as_i64().expect("a number")).collect::<Vec<_>>()
            }
        };
        let by_n = json!({ "table": "things", "index": "by_n" });
        assert_eq!(read(by_n.clone()).await, [2, 9, 10, 100, 9_007_199_254_740_993]);
        let mut few = by_n.clone();
        few["order"] = json!("desc");
        few["limit"] = json!(2);
        assert_eq!(read(few.clone()).await, [9_007_199_254_740_993, 100]);
        few["limit"] = json!(0);
        assert_eq!(read(few).await, [0i64; 0]);
        let mut some = by_n.clone();
        some["where"] = json!([{ "field": "n", "op": "in", "value": [9, 2, 77] }]);
        assert_eq!(read(some).await, [2, 9]);
        let mut range = by_n;
        range["where"] = json!([{ "field": "n", "op": "gt", "value": 9 }, { "field": "n", "op": "lte", "value": 100 }]);
        assert_eq!(read(range).await, [10, 100]);
    });
}

#[test]
fn a_second_read_asks_for_a_snapshot() {
    run(async {
        let host = TestHost::start(&[]).await;
        let things = Things::new(&host).await;
        let id = things.insert("{}").await;
        let mut single = things.call(Isolation::SingleRead);
        assert!(single.get("things", &id).await.is_ok());
        assert_eq!(single.get("things", &id).await, Err(DatabaseError::NeedsSnapshot));

        let mut snapshot = things.call(Isolation::Snapshot);
        let all = r#"{"table":"things"}"#;
        let before = snapshot.query(all).await.expect("an answer");
        things.insert("{}").await;
        assert_eq!(snapshot.query(all).await.expect("an answer"), before);
    });
}
