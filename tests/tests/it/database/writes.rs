//! Writes: many at once, by query, by operations, and transactions within the transaction.

use std::sync::Arc;
use std::time::{Duration, Instant};

use convoke_model::{Code, Database, DatabaseError};
use convoke_store::Isolation;
use serde_json::{Value, json};

use crate::harness::{TestHost, run};
use crate::things::{Things, failure};

#[test]
fn ten_thousand_rows_are_one_statement() {
    run(async {
        let host = TestHost::start(&[]).await;
        let things = Things::new(&host).await;
        let documents: Vec<Value> = (0..10_000).map(|n| json!({ "n": n })).collect();
        let text = Value::from(documents).to_string();
        let ids = things.change(async |call| call.insert_many("things", &text).await).await.expect("ids");
        let ids: Vec<String> = serde_json::from_str(&ids).expect("JSON");
        assert_eq!(ids.len(), 10_000);
        let psql = host.psql().await;
        let row = psql
            .query_one("select count(*), count(distinct xmin::text), count(distinct cmin::text) from demo.things", &[])
            .await
            .expect("counts");
        assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1), row.get::<_, i64>(2)), (10_000, 1, 1));
        assert_eq!(things.get(&ids[77]).await, Some(json!({ "n": 77 })));
    });
}

#[test]
fn one_wrong_document_of_many_leaves_none() {
    run(async {
        let host = TestHost::start(&[]).await;
        let things = Things::with(
            &host,
            json!([{ "name": "things", "schema": { "type": "object", "properties": { "n": { "type": "integer" } } } }]),
        )
        .await;
        let error = things
            .change(async |call| call.insert_many("things", r#"[{"n":1},{"n":"two"},{"n":3}]"#).await)
            .await
            .expect_err("a wrong one");
        let failure = failure(error);
        assert_eq!(failure.code, Code::InvalidArgs);
        assert!(
            failure.message.contains("document 1: the document of table `things` is refused: field `n`"),
            "{failure}"
        );
        assert_eq!(failure.data.expect("data")["index"], 1);
        assert_eq!(things.query(json!({ "table": "things" })).await, json!([]));
    });
}

#[test]
fn writes_by_query() {
    run(async {
        let host = TestHost::start(&[]).await;
        let things = Things::new(&host).await;
        for n in 0..10 {
            things.insert(&json!({ "n": n, "old": true }).to_string()).await;
        }
        let low = r#"{"table":"things","index":"by_n","where":[{"field":"n","op":"lt","value":4}]}"#;
        let fields = r#"{"low":true,"old":{"$undefined":null}}"#;
        let count = things.change(async |call| call.patch_where(low, fields).await).await.expect("a count");
        assert_eq!(count, 4);
        let plan = json!({ "table": "things", "filter": { "field": "low", "op": "eq", "value": true } });
        let changed = things.query(plan).await;
        assert_eq!(changed.as_array().map(Vec::len), Some(4));
        assert!(changed[0].get("old").is_none());
        let last = r#"{"table":"things","index":"by_n","order":"desc","limit":3}"#;
        assert_eq!(things.change(async |call| call.delete_where(last).await).await, Ok(3));
        assert_eq!(things.numbers(json!({ "table": "things", "index": "by_n" })).await, [0, 1, 2, 3, 4, 5, 6]);
        let error = things.change(async |call| call.delete_where(r#"{"table":"things","page":{"cursor":null}}"#).await);
        assert!(failure(error.await.expect_err("a page")).message.contains("no page"));
    });
}

#[test]
fn operations_change_what_is_there() {
    run(async {
        let host = TestHost::start(&[]).await;
        let things = Things::new(&host).await;
        let id = things.insert(r#"{"n":1,"tags":["a"],"text":"x","best":5}"#).await;
        let operations = r#"{"n":{"inc":9007199254740993},"new":{"inc":-2.5},"tags":{"append":["b",1]},"more":{"append":[]},
            "best":{"max":7},"low":{"min":3},"text":{"max":"w"}}"#;
        things.change(async |call| call.update("things", &id, operations).await).await.expect("a change");
        assert_eq!(
            things.get(&id).await,
            Some(json!({ "n": 9_007_199_254_740_994_i64, "new": -2.5, "tags": ["a", "b", 1], "more": [], "best": 7,
                "low": 3, "text": "x" }))
        );
        for (operations, words) in [
            (r#"{"text":{"inc":1}}"#, "field \"text\" is no number"),
            (r#"{"n":{"append":[1]}}"#, "field \"n\" is no array"),
            (r#"{"n":{"inc":"1"}}"#, "field `n`: expected an operation"),
            (r#"{"n":{"mul":2}}"#, "field `n`: expected an operation"),
            (r#"{"n":{"inc":1,"max":2}}"#, "field `n`: expected an operation"),
        ] {
            let error = things.change(async |call| call.update("things", &id, operations).await).await;
            let failure = failure(error.expect_err(operations));
            assert_eq!(failure.code, Code::InvalidArgs, "{failure:?}");
            assert!(failure.message.contains(words), "{failure}");
        }
    });
}

#[test]
fn operations_do_not_conflict() {
    run(async {
        let host = TestHost::start(&[]).await;
        let things = Arc::new(Things::new(&host).await);
        let id = things.insert(r#"{"n":0,"log":[]}"#).await;
        let mut workers = Vec::new();
        for worker in 0..8 {
            let (things, id) = (Arc::clone(&things), id.clone());
            workers.push(tokio::spawn(async move {
                for _ in 0..50 {
                    let operations = json!({ "n": { "inc": 1 }, "log": { "append": [worker] } }).to_string();
                    let changed = things.change(async |call| call.update("things", &id, &operations).await).await;
                    assert_eq!(changed, Ok(()), "no conflict, and so no second try");
                }
            }));
        }
        for worker in workers {
            worker.await.expect("a worker");
        }
        let found = things.get(&id).await.expect("the document");
        assert_eq!(found["n"], 400);
        assert_eq!(found["log"].as_array().map(Vec::len), Some(400));
    });
}

async fn unique(host: &TestHost) -> Things {
    let things = Things::new(host).await;
    let psql = host.psql().await;
    psql.batch_execute(
        "create unique index things_by_email_key on demo.things (convoke.key(data->'email')) where data ? 'email'",
    )
    .await
    .expect("an index");
    things
}

#[test]
fn a_transaction_within_is_undone_alone() {
    run(async {
        let host = TestHost::start(&[]).await;
        let things = unique(&host).await;
        things.insert(r#"{"email":"a@b.c"}"#).await;
        things
            .change(async |call| {
                call.insert("things", r#"{"n":1}"#).await?;
                // Kept and forgotten without a word to Postgres.
                let first = call.savepoint().await?;
                call.insert("things", r#"{"n":2}"#).await?;
                call.rollback_to(first).await?;
                // Sent, and undone.
                let second = call.savepoint().await?;
                call.insert("things", r#"{"n":3}"#).await?;
                assert_eq!(call.query(r#"{"table":"things","index":"by_n"}"#).await?.matches("\"n\"").count(), 2);
                let third = call.savepoint().await?;
                call.insert("things", r#"{"n":4}"#).await?;
                call.release(third).await?;
                call.rollback_to(second).await?;
                // Kept.
                let fourth = call.savepoint().await?;
                call.insert("things", r#"{"n":5}"#).await?;
                call.release(fourth).await?;
                // Refused by Postgres, and survived.
                let fifth = call.savepoint().await?;
                call.insert("things", r#"{"email":"a@b.c"}"#).await?;
                let error = failure(call.release(fifth).await.expect_err("a duplicate"));
                assert_eq!(error.code, Code::Conflict);
                assert!(error.message.contains("unique index `by_email`"), "{error}");
                let refused = call.insert("things", r#"{"n":6}"#).await.expect_err("an aborted transaction");
                assert!(failure(refused).message.contains("only a savepoint leads back"));
                call.rollback_to(fifth).await?;
                call.insert("things", r#"{"n":7}"#).await
            })
            .await
            .expect("a commit");
        let plan = json!({ "table": "things", "index": "by_n", "where": [{ "field": "n", "op": "gte", "value": 0 }] });
        assert_eq!(things.numbers(plan).await, [1, 5, 7]);
        assert_eq!(host.open_transactions().await, 0);
    });
}

#[test]
fn a_refused_transaction_cannot_be_committed() {
    run(async {
        let host = TestHost::start(&[]).await;
        let things = unique(&host).await;
        things.insert(r#"{"email":"a@b.c"}"#).await;
        let mut call = things.call(Isolation::Serializable);
        call.insert("things", r#"{"n":1}"#).await.expect("kept");
        let savepoint = call.savepoint().await.expect("a savepoint");
        call.insert("things", r#"{"email":"a@b.c"}"#).await.expect("kept");
        assert!(call.release(savepoint).await.is_err());
        let error = call.commit().await.expect_err("nothing to commit");
        assert!(matches!(&error, DatabaseError::Failed(failure) if failure.code == Code::Conflict), "{error:?}");
        drop(call);
        assert_eq!(things.query(json!({ "table": "things" })).await.as_array().map(Vec::len), Some(1));
        assert_eq!(host.open_transactions().await, 0);
    });
}

#[test]
fn savepoints_survive_what_failed_before_them_in_the_same_packet() {
    run(async {
        let host = TestHost::start(&[]).await;
        let things = unique(&host).await;
        things.insert(r#"{"email":"a@b.c"}"#).await;
        things
            .change(async |call| {
                call.insert("things", r#"{"n":1}"#).await?;
                let outer = call.savepoint().await?;
                call.insert("things", r#"{"email":"a@b.c"}"#).await?;
                let inner = call.savepoint().await?;
                call.insert("things", r#"{"n":2}"#).await?;
                let error = failure(call.release(inner).await.expect_err("a duplicate"));
                assert_eq!(error.code, Code::Conflict);
                // Postgres never came to the inner one: the way back is the outer one's.
                call.rollback_to(inner).await?;
                let refused = call.insert("things", r#"{"n":3}"#).await.expect_err("an aborted transaction");
                assert!(failure(refused).message.contains("only a savepoint leads back"));
                call.rollback_to(outer).await?;
                let again = call.savepoint().await?;
                call.insert("things", r#"{"n":4}"#).await?;
                call.release(again).await
            })
            .await
            .expect("a commit");
        let plan = json!({ "table": "things", "index": "by_n", "where": [{ "field": "n", "op": "gte", "value": 0 }] });
        assert_eq!(things.numbers(plan).await, [1, 4]);

        // Without one further out, the call ends with what was refused.
        let mut call = things.call(Isolation::Serializable);
        call.insert("things", r#"{"email":"a@b.c"}"#).await.expect("kept");
        let savepoint = call.savepoint().await.expect("a savepoint");
        call.insert("things", r#"{"n":5}"#).await.expect("kept");
        let error = call.release(savepoint).await.expect_err("a duplicate");
        assert!(matches!(&error, DatabaseError::Failed(failure) if failure.code == Code::Conflict), "{error:?}");
        drop(call);
        assert_eq!(host.open_transactions().await, 0);
    });
}

#[test]
fn waiting_for_a_connection_ends_with_the_call() {
    run(async {
        let host = TestHost::start(&[]).await;
        let things = Things::new(&host).await;
        let mut holders = Vec::new();
        for _ in 0..8 {
            let mut call = things.call(Isolation::Serializable);
            call.query(r#"{"table":"things"}"#).await.expect("an answer");
            holders.push(call);
        }
        let mut late = things.call_until(Instant::now() + Duration::from_millis(100));
        let error = failure(late.query(r#"{"table":"things"}"#).await.expect_err("no connection is free"));
        assert_eq!(error.code, Code::DeadlineExceeded);
        drop(holders);
    });
}
