//! SQL of a function's own, and tables that are somebody else's.

use convoke_model::{Code, Database, Read};
use convoke_store::Isolation;
use serde_json::{Value, json};

use crate::harness::{TestHost, run};
use crate::things::{Things, failure};

async fn sql(things: &Things, statement: &str, parameters: Value) -> Result<Value, convoke_model::Failure> {
    let ran = things.change(async |call| call.sql(statement, &parameters.to_string()).await).await;
    ran.map(|text| serde_json::from_str(&text).expect("JSON")).map_err(failure)
}

#[test]
fn statements_with_parameters_in_the_calls_own_transaction() {
    run(async {
        let host = TestHost::start(&[]).await;
        let things = Things::new(&host).await;
        let id = things.insert(r#"{"n":5,"tags":["a","b"]}"#).await;
        let found = sql(
            &things,
            "select data->>'n' as n, $2::bigint + 1 as big, $3::text[] as list, $4::jsonb as j from things where _id = $1 -- a comment",
            json!([id, 9_007_199_254_740_993_i64, ["x\"y", null], { "a": [1] }]),
        )
        .await
        .expect("rows");
        assert_eq!(
            found,
            json!({ "rows": [{ "n": "5", "big": 9_007_199_254_740_994_i64, "list": ["x\"y", null], "j": { "a": [1] } }],
                "count": 1 })
        );
        let inserted =
            sql(&things, "insert into things (data) values ($1) returning data->'n' as n", json!([{ "n": 6 }]));
        assert_eq!(inserted.await.expect("a row"), json!({ "rows": [{ "n": 6 }], "count": 1 }));
        let updated = sql(&things, "update things set data = data || '{\"seen\":true}'", json!([])).await;
        assert_eq!(updated.expect("a count"), json!({ "rows": [], "count": 2 }));

        // It sees what the call has kept, and is undone with it.
        let mut call = things.call(Isolation::Serializable);
        call.insert("things", r#"{"n":7}"#).await.expect("kept");
        assert!(call.sql("select count(*) as c from things", "[]").await.expect("rows").contains("\"c\":3"));
        call.sql("delete from things", "[]").await.expect("a count");
        drop(call);
        assert_eq!(things.query(json!({ "table": "things" })).await.as_array().map(Vec::len), Some(2));
    });
}

#[test]
fn what_would_leave_the_transaction_is_refused() {
    run(async {
        let host = TestHost::start(&[]).await;
        let things = Things::new(&host).await;
        for statement in [
            "commit",
            "ROLLBACK",
            "/* x */ begin",
            "set role postgres",
            "reset role",
            "copy things to stdout",
            "do $$ begin commit; end $$",
            "call x()",
            "listen a",
            "create table x ()",
            "explain select 1",
            "vacuum",
            "",
        ] {
            let failure = sql(&things, statement, json!([])).await.expect_err(statement);
            assert_eq!(failure.code, Code::Forbidden, "{statement}: {failure}");
        }
        for statement in ["select 1; commit", "select 1; select 2", "select", "select * from nowhere", "select 1/0"] {
            let result = sql(&things, statement, json!([])).await;
            if statement != "select" {
                let failure = result.expect_err(statement);
                assert_eq!(failure.code.as_str(), "SQL_ERROR", "{statement}: {failure}");
                assert!(failure.data.expect("data")["sqlstate"].is_string());
            }
        }
        assert_eq!(host.open_transactions().await, 0);
    });
}

#[test]
fn a_query_cannot_write_and_a_session_does_not_remember() {
    run(async {
        let host = TestHost::start(&[]).await;
        let things = Things::new(&host).await;
        let mut query = things.call(Isolation::Snapshot);
        let error = failure(query.sql("insert into things (data) values ('{}')", "[]").await.expect_err("a write"));
        assert_eq!(error.code, Code::Forbidden);
        assert!(error.message.contains("READ_ONLY"), "{error}");
        drop(query);
        let mut single = things.call(Isolation::SingleRead);
        assert_eq!(single.sql("select 1", "[]").await, Err(convoke_model::DatabaseError::NeedsSnapshot));

        let touch = "select set_config('statement_timeout', '0', false), set_config('search_path', 'pg_catalog', false), \
                     pg_advisory_lock(7)";
        sql(&things, touch, json!([])).await.expect("a row");
        for _ in 0..8 {
            let seen = sql(
                &things,
                "select current_setting('statement_timeout') as t, current_setting('search_path') as s, \
                 (select count(*) from pg_locks where locktype = 'advisory' and database = \
                 (select oid from pg_database where datname = current_database())) as l",
                json!([]),
            )
            .await
            .expect("a row");
            assert_eq!(seen["rows"][0], json!({ "t": "10s", "s": "demo", "l": 0 }));
        }
    });
}

#[test]
fn the_tables_that_it_reads_come_from_its_plan() {
    run(async {
        let host = TestHost::start(&[]).await;
        let things = Things::new(&host).await;
        let psql = host.psql().await;
        psql.batch_execute(
            "create table demo.others (a int); create view demo.seen as select * from demo.others; \
             create function demo.hidden() returns setof int language plpgsql as 'begin return query select a from demo.others; end'; \
             grant select on demo.others, demo.seen to public",
        )
        .await
        .expect("relations");
        let reads = async |statement: &str| {
            let mut call = things.observed();
            call.sql(statement, "[]").await.expect(statement);
            let mut reads = call.take_observed().reads.reads;
            reads.sort_by_key(|read| format!("{read:?}"));
            reads
        };
        let relation = |name: &str| Read::Relation { schema: "demo".to_owned(), name: name.to_owned() };
        assert_eq!(reads("select 'from others' as t from things").await, [relation("things")]);
        assert_eq!(
            reads("select 1 from seen, things where exists (select from others)").await,
            [relation("others"), relation("things")]
        );
        assert_eq!(reads("select * from hidden()").await, [Read::Everything]);
        assert_eq!(reads("select 1 as one").await, []);
        psql.batch_execute(
            "create function demo.total() returns bigint language plpgsql stable as \
             'begin return (select count(*) from demo.others); end'; \
             create function demo.upper(int) returns bool language plpgsql immutable as \
             'begin return exists (select from demo.others where a = $1); end'",
        )
        .await
        .expect("functions");
        for hides in [
            "select total() as n",
            "select 1 as n from generate_series(1, total())",
            "select * from rows from (hidden(), generate_series(1, 2)) as f(a, b)",
            "select query_to_xml('select * from demo.others', true, true, '') as x",
            "select upper(g) as n from generate_series(1, 2) as g",
        ] {
            assert_eq!(reads(hides).await, [Read::Everything], "{hides}");
        }
        let aggregate =
            "select jsonb_agg(to_jsonb(t)) as all, count(*) as n, lower(max(data->>'n')) as l from things t";
        assert_eq!(reads(aggregate).await, [relation("things")]);
    });
}

#[test]
fn no_comment_hides_the_end_of_a_transaction() {
    run(async {
        let host = TestHost::start(&[]).await;
        let things = Things::new(&host).await;
        for hidden in ["/* /* */ select */ commit", "-- select\r commit", "/* select */ rollback", "deallocate all"] {
            let mut call = things.call(Isolation::Serializable);
            call.insert("things", "{}").await.expect("kept");
            let refused = failure(call.sql(hidden, "[]").await.expect_err(hidden));
            assert_eq!(refused.code, Code::Forbidden, "{hidden}: {refused}");
            drop(call);
            assert_eq!(things.query(json!({ "table": "things" })).await, json!([]), "{hidden}");
        }
    });
}

#[test]
fn what_postgres_tells_of_rows_is_for_the_log() {
    run(async {
        let host = TestHost::start(&[]).await;
        let psql = host.psql().await;
        psql.batch_execute(
            "create schema if not exists demo; create table demo.people (id int primary key, secret text check (secret <> 'x')); \
             insert into demo.people values (1, 'hidden')",
        )
        .await
        .expect("a table");
        let things = Things::with(&host, json!([{ "name": "people", "unmanaged": { "key": "id" } }])).await;
        for statement in [
            "insert into people values (1, 'told')",
            "update people set secret = 'x' where id = 1",
            "insert into people select id + 1, 'x' from people",
        ] {
            let mut call = things.call(Isolation::Serializable);
            let refused = failure(call.sql(statement, "[]").await.expect_err(statement));
            assert!(refused.data.as_ref().is_some_and(|data| data["sqlstate"].is_string()), "{refused:?}");
            let said = format!("{} {:?}", refused.message, refused.data);
            assert!(!["hidden", "told", "(1)", "row contains"].iter().any(|row| said.contains(row)), "{said}");
            assert!(refused.internal.is_some_and(|internal| internal.contains("constraint")), "{statement}");
        }
    });
}

#[test]
fn what_differs_from_call_to_call_is_known() {
    run(async {
        let host = TestHost::start(&[]).await;
        let things = Things::new(&host).await;
        for (statement, is_volatile) in [
            ("select now() as t", true),
            ("select current_date as t", true),
            ("select 1 as t from things where _creation_time < extract(epoch from clock_timestamp())", true),
            ("select random() as t", true),
            ("select count(*) as t, to_char(max(_creation_time), '9.9') as c, 'now()' as w from things", false),
            ("select data->>'now' as t from things where coalesce(data->>'n', '') <> 'current_date'", false),
        ] {
            let mut call = things.observed();
            call.sql(statement, "[]").await.expect(statement);
            assert_eq!(call.take_observed().volatile, is_volatile, "{statement}");
        }
    });
}

#[test]
fn an_unmanaged_table_is_read_and_written_and_never_altered() {
    run(async {
        let host = TestHost::start(&[]).await;
        let psql = host.psql().await;
        psql.batch_execute(
            "create schema if not exists demo; \
             create table demo.orders (id serial primary key, customer text not null, total numeric(10,2), at timestamptz)",
        )
        .await
        .expect("a table");
        let things = Things::with(&host, json!([{ "name": "orders", "unmanaged": { "key": "id" } }])).await;
        let insert = async |document: Value| {
            let text = document.to_string();
            things.change(async |call| call.insert("orders", &text).await).await
        };
        let id = insert(json!({ "customer": "ann", "total": 12.5 })).await.expect("an id");
        assert_eq!(id, "1");
        insert(json!({ "customer": "bob", "total": 3, "at": "2020-01-02T03:04:05Z" })).await.expect("an id");
        things.change(async |call| call.patch("orders", &id, r#"{"total":13.25}"#).await).await.expect("a patch");
        let mut call = things.call(Isolation::Snapshot);
        let found: Value =
            serde_json::from_str(&call.get("orders", &id).await.expect("an answer").expect("a row")).expect("JSON");
        assert_eq!(
            found,
            json!({ "_id": "1", "_creationTime": 0, "id": 1, "customer": "ann", "total": 13.25, "at": null })
        );
        let plan = json!({ "table": "orders", "where": [{ "field": "total", "op": "lt", "value": 10 }] });
        let list: Value = serde_json::from_str(&call.query(&plan.to_string()).await.expect("an answer")).expect("JSON");
        assert_eq!(list[0]["customer"], "bob");
        let plan = json!({ "table": "orders", "fields": ["customer", "at", "_id"], "limit": 1 });
        let list: Value = serde_json::from_str(&call.query(&plan.to_string()).await.expect("an answer")).expect("JSON");
        assert_eq!(list, json!([{ "_id": "1", "_creationTime": 0, "customer": "ann", "at": null }]));
        let error = failure(insert(json!({ "total": 1 })).await.expect_err("a missing column"));
        assert_eq!(error.code.as_str(), "SQL_ERROR");
        things.change(async |call| call.delete("orders", "2").await).await.expect("a delete");
        let gone = things.change(async |call| call.delete("orders", "2").await).await.expect_err("no row");
        assert_eq!(failure(gone).code, Code::NotFound);
        let columns = psql
            .query_one(
                "select string_agg(column_name, ',' order by ordinal_position) from information_schema.columns \
                 where table_schema = 'demo' and table_name = 'orders'",
                &[],
            )
            .await
            .expect("columns");
        assert_eq!(columns.get::<_, String>(0), "id,customer,total,at");
    });
}
