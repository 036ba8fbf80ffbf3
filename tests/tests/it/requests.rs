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
        convoke_sync::bootstrap(&admin, "demo").await.expect("provisioned");
        let (psql, connection) = admin.connect().await.expect("a connection");
        tokio::spawn(connection);
        // As a host from before migrations left it.
        let before = "drop function convoke.forget, convoke.find_receipt, convoke.leave_receipt; \
                      drop table convoke.receipts, convoke.migrations";
        psql.batch_execute(before).await.expect("an older schema");
        let provisioned = convoke_sync::bootstrap(&admin, "demo").await.expect("upgraded");
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
        assert_eq!(store.expire_receipts(10).await.expect("a batch"), Expired::Rows(10));
        let oldest = "select max(key::bigint) from convoke.receipts";
        assert_eq!(psql.query_one(oldest, &[]).await.expect("a number").get::<_, i64>(0), 15, "the oldest go first");

        psql.batch_execute("begin; select convoke.forget(1)").await.expect("one that is at it");
        assert_eq!(store.expire_receipts(10).await.expect("a batch"), Expired::Busy);
        psql.batch_execute("rollback").await.expect("the end of it");
        assert_eq!(store.expire_receipts(100).await.expect("a batch"), Expired::Rows(15));
        assert_eq!(store.expire_receipts(100).await.expect("a batch"), Expired::Rows(0));
    });
}
