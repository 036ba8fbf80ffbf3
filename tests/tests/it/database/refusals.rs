//! What cannot be done is told as what it is.

use std::time::Duration;

use convoke_model::{Code, Database, Origin, Outcome};
use convoke_store::Isolation;
use serde_json::{Value, json};

use crate::harness::{TestHost, run};
use crate::things::{Things, failure};

const NUL: &str = "a\0b";

#[test]
fn sql_that_does_not_fit_its_parameters() {
    run(async {
        let host = TestHost::start(&[]).await;
        let things = Things::new(&host).await;
        for (statement, parameters, words) in [
            ("select $1::int as n", json!([]), "has 1 parameters, and 0 values"),
            ("select 1 as n", json!([1, 2]), "has 0 parameters, and 2 values"),
            ("select 'a\0b' as n", json!([]), "\\u0000"),
            ("select $1::text as n", json!([NUL]), "\\u0000"),
            ("select $1::jsonb as n", json!([{ "a": [NUL] }]), "\\u0000"),
        ] {
            for mut call in [things.call(Isolation::Serializable), things.observed()] {
                let refused = failure(call.sql(statement, &parameters.to_string()).await.expect_err(statement));
                assert_eq!(refused.code, Code::InvalidArgs, "{statement}: {refused:?}");
                assert_eq!(refused.origin, Origin::Function);
                assert!(refused.message.contains(words), "{statement}: {refused}");
                // Nothing was sent, so that the transaction goes on.
                assert!(call.sql("select 1 as n", "[]").await.is_ok(), "{statement}");
            }
        }
    });
}

#[test]
fn the_character_that_postgres_cannot_have() {
    run(async {
        let host = TestHost::start(&[]).await;
        let make = "create schema demo; create table demo.rows (id int primary key)";
        host.psql().await.batch_execute(make).await.expect("a table");
        let things = Things::with(
            &host,
            json!([{ "name": "things", "indexes": [{ "name": "by_n", "fields": ["n"] }] },
                { "name": "rows", "unmanaged": { "key": "id" } }]),
        )
        .await;
        let id = things.insert(r#"{"n":1}"#).await;
        let document = json!({ "n": { "deep": [NUL] } }).to_string();
        let named = json!({ NUL: 1 }).to_string();
        let operations = json!({ "n": { "max": NUL } }).to_string();
        let plan = |filter: Value| json!({ "table": "things", "filter": filter }).to_string();
        let by_value = plan(json!({ "field": "n", "op": "eq", "value": NUL }));
        let by_name = plan(json!({ "field": NUL, "op": "lt", "value": 1 }));
        let fields = json!({ "table": "things", "fields": [NUL] }).to_string();
        let sum = json!({ "table": "things", "aggregate": [{ "op": "sum", "field": NUL }] }).to_string();
        let count = json!({ "table": "things", "aggregate": [{ "op": "count", "field": NUL }] }).to_string();
        let rows = json!({ "table": "rows", "filter": { "field": NUL, "op": "eq", "value": 1 } }).to_string();
        let mut refusals = Vec::new();
        let call = || things.call(Isolation::Serializable);
        refusals.push(call().insert("things", &document).await.err());
        refusals.push(call().insert("things", &named).await.err());
        refusals.push(call().patch("things", &id, &document).await.err());
        refusals.push(call().update("things", &id, &operations).await.err());
        refusals.push(call().insert("rows", &named).await.err());
        for plan in [by_value, by_name, fields, sum, count, rows] {
            refusals.push(call().query(&plan).await.err());
        }
        for (position, refused) in refusals.into_iter().enumerate() {
            let refused = failure(refused.unwrap_or_else(|| panic!("number {position} was taken")));
            assert_eq!(refused.code, Code::InvalidArgs, "{position}: {refused:?}");
        }
        // An index compares keys, which may have it.
        let plan =
            json!({ "table": "things", "index": "by_n", "where": [{ "field": "n", "op": "gte", "value": NUL }] });
        assert_eq!(things.query(plan).await, json!([]));
    });
}

#[test]
fn a_database_that_takes_no_writes() {
    run(async {
        let host = TestHost::start(&["messages"]).await;
        let psql = host.psql().await;
        let set = "do $$ begin execute format('alter database %I set default_transaction_read_only = on', \
                   current_database()); end $$";
        psql.batch_execute(set).await.expect("a setting");
        // New sessions have it.
        let things = Things::opened(&host).await;
        let mut call = things.call(Isolation::Serializable);
        call.insert("messages", r#"{"channel":"c","author":"a","body":"b"}"#).await.expect("kept");
        let refused = failure(call.commit().await.expect_err("a read-only database"));
        let by_sql = things.call(Isolation::Serializable).sql("delete from messages", "[]").await;
        for refused in [refused, failure(by_sql.expect_err("a read-only database"))] {
            assert_eq!(refused.origin, Origin::System, "{refused:?}");
            assert!(refused.message.contains("read-only"), "{refused}");
        }
        psql.batch_execute(
            &set.replace("set default_transaction_read_only = on", "reset default_transaction_read_only"),
        )
        .await
        .expect("a setting");
        for _ in 0..200 {
            let mut call = things.call(Isolation::Serializable);
            call.insert("messages", r#"{"channel":"c","author":"a","body":"b"}"#).await.expect("kept");
            if call.commit().await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("it is open again, and still takes no writes");
    });
}

#[test]
fn what_cannot_be_sent_takes_the_rest_with_it() {
    run(async {
        let host = TestHost::start(&[]).await;
        let things = json!([{ "name": "things" }, { "name": "others" }]);
        let things = Things::with(&host, things).await;
        let id = things.insert("{}").await;
        let psql = host.psql().await;
        // By hand: an id is no longer what the client encodes.
        psql.batch_execute("alter table demo.things alter column _id type text").await.expect("another type");
        let mut call = things.call(Isolation::Serializable);
        call.insert("others", "{}").await.expect("kept");
        let _ = call.delete("things", &id).await;
        let failed = failure(call.commit().await.expect_err("a statement that cannot be sent"));
        assert_ne!(failed.outcome, Outcome::Unknown, "{failed:?}");
        let count = psql.query_one("select count(*) from demo.others", &[]).await.expect("a count");
        assert_eq!(count.get::<_, i64>(0), 0);
    });
}

#[test]
fn a_column_of_somebody_elses_table_changes_its_type() {
    run(async {
        let host = TestHost::start(&[]).await;
        let psql = host.psql().await;
        let make = "create schema if not exists demo; create table demo.orders (id serial primary key, customer int); \
                    insert into demo.orders (customer) values (7)";
        psql.batch_execute(make).await.expect("a table");
        let things = Things::with(&host, json!([{ "name": "orders", "unmanaged": { "key": "id" } }])).await;
        let of = async |customer: Value| {
            let plan = json!({ "table": "orders", "where": [{ "field": "customer", "op": "eq", "value": customer }] });
            things.call(Isolation::Snapshot).query(&plan.to_string()).await.map(|found| found != "[]")
        };
        // Each of its connections has the statement.
        for _ in 0..16 {
            assert_eq!(of(json!(7)).await, Ok(true));
        }
        psql.batch_execute("alter table demo.orders alter column customer type text").await.expect("another type");
        let mut failed = 0;
        for _ in 0..32 {
            match of(json!("7")).await {
                Ok(found) => assert!(found),
                Err(_) => failed += 1,
            }
        }
        assert!(failed <= 8, "once a connection at most: {failed}");
        assert_eq!(of(json!("7")).await, Ok(true));
    });
}
