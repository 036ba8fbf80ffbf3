//! Relations of which the log does not speak: what was read of them is no result to keep.

use serde_json::json;

use super::metric;
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
