//! Relations of which the log does not speak: what was read of them is no result to keep.

use std::time::Duration;

use serde_json::json;

use super::{Subscriber, bodies, metric};
use crate::harness::{TestHost, run};

const HITS: &str = "convoke_query_cache_hits_total";

/// Calls the query of `legacy_orders`, made by one statement, until a result would be kept, then writes by the other one
/// and calls again. Gives how many calls were answered by a result that was kept.
async fn orders_after(create: &str, insert: &str) -> u64 {
    let host = TestHost::start(&[]).await;
    let psql = host.psql().await;
    psql.batch_execute("create schema if not exists demo").await.expect("a schema");
    psql.batch_execute(create).await.expect("a relation");
    host.deploy(&["library=database-reference"]).await.expect("a deployment");
    host.until_streaming(true).await;
    let args = json!({ "supplier": "s" });
    for _ in 0..4 {
        assert_eq!(host.query("library:orders", args.clone()).await.data(), &json!([]));
    }
    let hits = metric(&host, HITS).await;
    psql.batch_execute(insert).await.expect("a row");
    for _ in 0..2 {
        let orders = host.query("library:orders", args.clone()).await;
        assert_eq!(orders.data().as_array().map(Vec::len), Some(1), "{orders:?}");
    }
    hits
}

#[test]
fn a_view_is_read_for_each_call() {
    run(async {
        let create = "create table demo.base (id bigint primary key, supplier text not null); \
                      create view demo.legacy_orders as select id, supplier from demo.base";
        assert_eq!(orders_after(create, "insert into demo.base values (1, 's')").await, 0);
    });
}

#[test]
fn a_partitioned_table_is_read_for_each_call() {
    run(async {
        let create = "create table demo.legacy_orders (id bigint primary key, supplier text not null) \
                      partition by range (id); \
                      create table demo.orders_1 partition of demo.legacy_orders default";
        assert_eq!(orders_after(create, "insert into demo.legacy_orders values (1, 's')").await, 0);
    });
}

#[test]
fn an_ordinary_table_is_not() {
    run(async {
        let create = "create table demo.legacy_orders (id bigint primary key, supplier text not null)";
        assert!(orders_after(create, "insert into demo.legacy_orders values (1, 's')").await > 0);
    });
}

/// Takes the table of messages out of what the feed tells, writes, and waits until that is seen.
async fn heals_after(change: &str) {
    let host = TestHost::start(&["messages"]).await;
    host.until_streaming(true).await;
    let psql = host.psql().await;
    let args = json!({ "channel": "x" });
    for _ in 0..4 {
        assert_eq!(host.query("messages:list", args.clone()).await.data(), &json!([]));
    }
    let mut subscriber = Subscriber::open(&host, "messages:list", &args, None).await;
    assert_eq!(bodies(&subscriber.next().await.data), [""; 0]);
    psql.batch_execute(change).await.expect("a change by hand");
    let message = json!({ "channel": "x", "author": "Ada", "body": "unseen" });
    host.mutation("messages:send", message.clone()).await.data();
    assert_eq!(bodies(&subscriber.next().await.data), ["unseen"], "{change}");
    let until = tokio::time::Instant::now() + Duration::from_secs(30);
    while host.query("messages:list", args.clone()).await.data().as_array().map(Vec::len) != Some(1) {
        assert!(tokio::time::Instant::now() < until, "stale for good: {change}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    host.until_streaming(true).await;
    host.mutation("messages:send", message).await.data();
    assert_eq!(bodies(&subscriber.next().await.data), ["unseen", "unseen"], "{change}");
}

#[test]
fn a_table_that_is_taken_out_of_the_publication_is_put_back() {
    run(heals_after("alter publication convoke_demo drop table demo.messages"));
}

#[test]
fn a_publication_that_is_dropped_is_made_anew() {
    run(heals_after("drop publication convoke_demo"));
}

#[test]
fn a_table_that_is_made_anew_is_followed() {
    run(heals_after(
        "create table demo.spare (like demo.messages including all); \
         do $$ declare role text; begin \
         for role in select grantee from information_schema.role_table_grants where table_schema = 'demo' \
         and table_name = 'messages' and privilege_type = 'INSERT' loop \
         execute format('grant select, insert, update, delete on demo.spare to %I', role); end loop; end $$; \
         drop table demo.messages; alter table demo.spare rename to messages",
    ));
}
