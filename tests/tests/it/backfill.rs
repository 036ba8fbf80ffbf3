//! Stored documents are brought to the newest form, and none is left when a backfill says so.

use std::future::ready;
use std::time::Duration;

use convoke_model::{Database, Failure, Table, Upcast};
use convoke_store::{Backfill, Pass, Progress};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::json;
use tokio_postgres::Client;

use crate::harness::{TestHost, run};
use crate::things::Things;

const MODULES: [&str; 1] = ["library=database-reference"];

/// Rows that a host of an older deployment left; the form before had `first` and `last` in the place of `name`.
async fn plant(psql: &Client, ids: &[u8]) {
    for id in ids {
        let insert = format!(
            "insert into demo.members (_id, data, _version) values ('00000000-0000-7000-8000-0000000000{id:02x}', \
             '{{\"email\": \"{id}@example.org\", \"first\": \"Ada\", \"last\": \"L\"}}', 1)"
        );
        psql.batch_execute(&insert).await.expect("a row");
    }
}

async fn outdated(psql: &Client, table: &str) -> i64 {
    let count = format!("select count(*) from demo.{table} where _version < 2");
    psql.query_one(&count, &[]).await.expect("a count").get(0)
}

async fn until_outdated(psql: &Client, wanted: i64) {
    for _ in 0..1_000 {
        if outdated(psql, "members").await == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{} rows are of an older form, not {wanted}", outdated(psql, "members").await);
}

#[test]
fn rows_that_were_held_or_came_behind_are_visited_later() {
    run(async {
        let first = TestHost::start(&[]).await;
        // The library needs a table that another program owns.
        let legacy = "create schema if not exists demo; \
                      create table demo.legacy_orders (id bigint primary key, supplier text not null)";
        first.psql().await.batch_execute(legacy).await.expect("a table");
        first.deploy(&MODULES).await.expect("a deployment");
        let (psql, holder) = (first.psql().await, first.psql().await);
        plant(&psql, &[1, 2, 3, 4]).await;
        holder
            .batch_execute("begin; select from demo.members where data->>'email' = '2@example.org' for update")
            .await
            .expect("held");
        let _second = TestHost::beside(&first, &MODULES).await;
        until_outdated(&psql, 1).await;
        // Before all that was visited, and a document that a host of the older deployment writes anew.
        plant(&psql, &[0]).await;
        let again = "update demo.members set _version = 1, data = data - 'name' || '{\"first\": \"Bob\", \"last\": \"M\"}' \
                     where data->>'email' = '1@example.org'";
        psql.batch_execute(again).await.expect("an older form");
        holder.batch_execute("rollback").await.expect("given back");
        until_outdated(&psql, 0).await;
        let names = "select string_agg(data->>'name', ', ' order by _id) from demo.members";
        let names: String = psql.query_one(names, &[]).await.expect("names").get(0);
        assert_eq!(names, "Ada L, Bob M, Ada L, Ada L, Ada L");
    });
}

/// Doubles `n`; what is negative has no newer form.
struct Double;

impl Upcast for Double {
    fn upcast<'a>(&'a self, _: &'a str, document: &'a str, _: u32) -> BoxFuture<'a, Result<String, Failure>> {
        let document: serde_json::Value = serde_json::from_str(document).expect("a document");
        let n = document["n"].as_i64().expect("a number");
        let result = if n < 0 { Err(Failure::trap("negative")) } else { Ok(json!({ "n": n * 2 }).to_string()) };
        ready(result).boxed()
    }
}

/// The table `things` in version 2, with rows of version 1, the numbers from 1 on.
async fn things(host: &TestHost, rows: i32) -> (Things, Table, Client) {
    let table = json!([{ "name": "things", "version": 2, "upcast": "test:double" }]);
    let things = Things::with(host, table).await;
    let psql = host.psql().await;
    let plant =
        "insert into demo.things (data, _version) select jsonb_build_object('n', n), 1 from generate_series(1, $1) n";
    psql.execute(plant, &[&rows]).await.expect("rows");
    let table = things.tables.tables["things"].clone();
    (things, table, psql)
}

/// Runs to the end of a pass.
async fn pass(backfill: &mut Backfill, things: &Things) -> Option<Pass> {
    loop {
        match backfill.batch(&things.store, &Double, 2).await.expect("a batch").progress {
            Progress::Batch => {}
            Progress::Pass(pass) => return Some(pass),
            Progress::Done => return None,
        }
    }
}

#[test]
fn a_backfill_is_done_when_no_row_is_of_an_older_form() {
    run(async {
        let host = TestHost::start(&[]).await;
        let (things, table, psql) = things(&host, 5).await;
        let mut backfill = Backfill::new(table);
        let first = backfill.batch(&things.store, &Double, 2).await.expect("a batch");
        assert_eq!(first.progress, Progress::Batch);
        let behind = "insert into demo.things (_id, data, _version) values (uuid_nil, '{\"n\": 10}', 1)"
            .replace("uuid_nil", "'00000000-0000-0000-0000-000000000000'");
        psql.batch_execute(&behind).await.expect("a row behind");
        let counts = |changed, held, failed| Some(Pass { changed, held, failed });
        assert_eq!(pass(&mut backfill, &things).await, counts(5, 0, 0));
        assert_eq!(pass(&mut backfill, &things).await, counts(1, 0, 0));
        assert_eq!(pass(&mut backfill, &things).await, None);
        assert_eq!(outdated(&psql, "things").await, 0);
        let sum: i64 = psql
            .query_one("select sum((data->>'n')::bigint)::bigint from demo.things", &[])
            .await
            .expect("a sum")
            .get(0);
        assert_eq!(sum, 2 * (1 + 2 + 3 + 4 + 5 + 10), "each document once");
    });
}

#[test]
fn a_backfill_says_what_stays() {
    run(async {
        let host = TestHost::start(&[]).await;
        let (things, table, psql) = things(&host, 3).await;
        let holder = host.psql().await;
        psql.batch_execute("update demo.things set data = '{\"n\": -1}' where data->>'n' = '1'")
            .await
            .expect("one fails");
        holder
            .batch_execute("begin; update demo.things set data = data where data->>'n' = '2'")
            .await
            .expect("one is held");
        let mut backfill = Backfill::new(table);
        let counts = |changed, held, failed| Some(Pass { changed, held, failed });
        assert_eq!(pass(&mut backfill, &things).await, counts(1, 1, 1));
        assert_eq!(pass(&mut backfill, &things).await, counts(0, 1, 1));
        holder.batch_execute("commit").await.expect("given back");
        assert_eq!(pass(&mut backfill, &things).await, counts(1, 0, 1));
        let batch = backfill.batch(&things.store, &Double, 2).await.expect("a batch");
        let (_, failure) = batch.failure.expect("a failure");
        assert_eq!(failure.internal.as_deref(), Some("negative"));
        assert_eq!(batch.progress, Progress::Pass(Pass { changed: 0, held: 0, failed: 1 }));
        psql.batch_execute("update demo.things set data = '{\"n\": 1}' where data->>'n' = '-1'").await.expect("mended");
        assert_eq!(pass(&mut backfill, &things).await, counts(1, 0, 0));
        assert_eq!(pass(&mut backfill, &things).await, None);
    });
}

#[test]
fn two_hosts_at_once_write_each_document_once() {
    run(async {
        let host = TestHost::start(&[]).await;
        let (things, table, psql) = things(&host, 60).await;
        let work = async || {
            let mut backfill = Backfill::new(table.clone());
            let mut changed = 0;
            while let Some(pass) = pass(&mut backfill, &things).await {
                changed += pass.changed;
            }
            assert_eq!(outdated(&psql, "things").await, 0, "it is done when it says so");
            changed
        };
        let (one, two) = tokio::join!(work(), work());
        assert_eq!(one + two, 60);
        let sum: i64 = psql
            .query_one("select sum((data->>'n')::bigint)::bigint from demo.things", &[])
            .await
            .expect("a sum")
            .get(0);
        assert_eq!(sum, 60 * 61);
    });
}

/// A deployment that came later moved the column's default on; its predecessor still works.
#[test]
fn a_document_is_marked_with_the_form_that_it_has() {
    run(async {
        let host = TestHost::start(&[]).await;
        let (things, table, psql) = things(&host, 1).await;
        psql.batch_execute("alter table demo.things alter column _version set default 3")
            .await
            .expect("a newer deployment");
        let mut backfill = Backfill::new(table);
        while pass(&mut backfill, &things).await.is_some() {}
        let version: i32 = psql.query_one("select _version from demo.things", &[]).await.expect("a version").get(0);
        assert_eq!(version, 2);
        let id = things.insert(r#"{"n":1}"#).await;
        let versions = async || {
            let rows = psql.query("select distinct _version from demo.things", &[]).await.expect("versions");
            rows.iter().map(|row| row.get(0)).collect::<Vec<i32>>()
        };
        assert_eq!(versions().await, [2], "one that is new");
        things.change(async |call| call.replace("things", &id, r#"{"n":2}"#).await).await.expect("a change");
        assert_eq!(versions().await, [2], "one that was replaced");
    });
}
