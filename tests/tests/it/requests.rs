//! What mutations returned is kept for clients that send them again, for a while.

use std::time::Duration;

use convoke_local_postgres::testing::TestCluster;
use convoke_model::{CursorKey, Limits};
use convoke_store::{Expired, Store, StoreOptions};
use tokio_postgres::Client;

use crate::harness::{TestHost, run};

/// Results of several ages, of this project and of another one, which has no host.
async fn make(psql: &Client, project: &str, days: u32, count: i32) {
    let make = "insert into convoke.receipts (project, scope, key, result, at) \
         select $1, gen_random_uuid(), n, '{}', now() - make_interval(days => $2, mins => n) from generate_series(1, $3) n";
    psql.execute(make, &[&project, &days.cast_signed(), &count]).await.expect("results");
}

async fn count(psql: &Client) -> i64 {
    psql.query_one("select count(*) from convoke.receipts", &[]).await.expect("a count").get(0)
}

#[test]
fn what_is_older_than_two_weeks_is_deleted() {
    run(async {
        let first = TestHost::start(&[]).await;
        let psql = first.psql().await;
        make(&psql, "demo", 14, 1_200).await;
        make(&psql, "gone", 300, 100).await;
        make(&psql, "demo", 13, 30).await;
        // It looks when it starts.
        let _second = TestHost::beside(&first, &[]).await;
        for _ in 0..1_000 {
            if count(&psql).await == 30 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{} are left", count(&psql).await);
    });
}

#[test]
fn batches_are_bounded_and_one_host_works_at_a_time() {
    run(async {
        let cluster = TestCluster::shared().await.expect("a Postgres");
        let admin = cluster.create_database("it_requests").await.expect("a database");
        let provisioned = convoke_sync::bootstrap(&admin, "demo").await.expect("provisioned");
        let (psql, connection) = admin.connect().await.expect("a connection");
        tokio::spawn(connection);
        assert!(provisioned.role.is_some(), "the project's role may delete");
        let store = Store::open(StoreOptions {
            app: provisioned.app,
            project: "demo".to_owned(),
            connections_max: 1,
            limits: Limits::default(),
            sql: false,
            cursor_key: CursorKey::new([0; 32]),
        })
        .expect("a store");
        make(&psql, "demo", 14, 25).await;
        let all = store.receipts_horizon(1 << 30).await.expect("a look");
        assert_eq!(store.expire_receipts(all, 10).await.expect("a batch"), Expired::Rows(10));
        let oldest = "select max(key::bigint) from convoke.receipts";
        assert_eq!(psql.query_one(oldest, &[]).await.expect("a number").get::<_, i64>(0), 15, "the oldest go first");

        psql.batch_execute("begin; select convoke.expire_receipts('demo', null, 1)").await.expect("one that is at it");
        assert_eq!(store.expire_receipts(all, 10).await.expect("a batch"), Expired::Busy);
        psql.batch_execute("rollback").await.expect("the end of it");
        assert_eq!(store.expire_receipts(all, 100).await.expect("a batch"), Expired::Rows(15));
        assert_eq!(store.expire_receipts(all, 100).await.expect("a batch"), Expired::Rows(0));

        // Not old, and too much: 1,000 of them, of 302 bytes or a little more each.
        make(&psql, "demo", 1, 1_000).await;
        make(&psql, "other", 2, 1_000).await;
        let horizon = store.receipts_horizon(100 << 10).await.expect("a look");
        assert_ne!(horizon, all);
        assert_eq!(store.expire_receipts(horizon, 400).await.expect("a batch"), Expired::Rows(400));
        let Expired::Rows(rest) = store.expire_receipts(horizon, 400).await.expect("a batch") else { panic!("busy") };
        let left = 1_000 - 400 - rest;
        assert!((300..=340).contains(&left), "{left} are left");
        let newest = "select max(key::bigint), count(*) from convoke.receipts where project = 'demo'";
        let row = psql.query_one(newest, &[]).await.expect("a row");
        assert_eq!((row.get(0), row.get(1)), (left.cast_signed(), left.cast_signed()), "the oldest went");
        assert_eq!(count(&psql).await, left.cast_signed() + 1_000, "other projects have room of their own");
        assert_eq!(store.receipts_horizon(100 << 10).await.expect("a look"), all);
    });
}
