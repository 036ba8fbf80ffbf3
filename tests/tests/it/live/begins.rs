//! When live queries begin, and which tables they follow.

use std::time::{Duration, Instant};

use convoke_local_postgres::testing::TestCluster;
use hyper::Method;
use hyper::body::Bytes;
use serde_json::json;
use tokio::time::sleep;

use super::{PATIENCE, Subscriber};
use crate::harness::{TestHost, run};

#[test]
fn a_host_that_may_not_follow_begins_as_soon_as_it_may() {
    run(async {
        let cluster = TestCluster::shared().await.expect("a Postgres");
        let admin = cluster.create_database("it_begins").await.expect("a database");
        let (psql, connection) = admin.connect().await.expect("a connection");
        tokio::spawn(connection);
        let owner = "drop role if exists it_begins_owner; create role it_begins_owner login createrole; \
             alter database it_begins owner to it_begins_owner";
        psql.batch_execute(owner).await.expect("an owner");
        let mut config = admin.clone();
        config.user("it_begins_owner");
        let host = TestHost::on(config, &["messages"], |_| {}).await;

        let list = json!({ "channel": "c" });
        let refused = host.post("/api/subscribe/messages:list", list.to_string()).await;
        assert_eq!((refused.status, refused.code()), (503, "OVERLOADED"));
        assert!(refused.message().contains("the role `it_begins_owner` may not follow changes"), "{refused:?}");
        let message = |body: &str| json!({ "channel": "c", "author": "a", "body": body });
        host.mutation("messages:send", message("before")).await.data();
        assert_eq!(host.send(Method::GET, "/readyz", Bytes::new()).await.status, 200);

        psql.batch_execute("alter role it_begins_owner replication").await.expect("the right");
        let begin = Instant::now();
        while host.host.live().is_err() {
            assert!(begin.elapsed() < PATIENCE, "{:?}", host.host.live().err());
            sleep(Duration::from_millis(20)).await;
        }
        let mut subscriber = Subscriber::open(&host, "messages:list", &list, None).await;
        assert_eq!(subscriber.next().await.data["data"][0]["body"], "before");
        host.mutation("messages:send", message("after")).await.data();
        assert_eq!(subscriber.next().await.data["data"][1]["body"], "after");
    });
}

/// The log's floats are text, and a database may have been told to leave digits out of it.
#[test]
fn every_digit_of_a_creation_time_counts() {
    run(async {
        let cluster = TestCluster::shared().await.expect("a Postgres");
        let config = cluster.create_database("it_digits").await.expect("a database");
        let (psql, connection) = config.connect().await.expect("a connection");
        tokio::spawn(connection);
        psql.batch_execute("alter database it_digits set extra_float_digits = -5").await.expect("a setting");
        let host = TestHost::on(config, &["plans"], |_| {}).await;
        let from = 1_795_241_803_950.0;
        let plan = json!({ "table": "things", "where": [{ "field": "_creationTime", "op": "lt", "value": from }] });
        let mut subscriber = Subscriber::open(&host, "plans:range", &json!({ "plan": plan }), None).await;
        assert_eq!(subscriber.next().await.data["data"], json!([]));
        // By ten digits it is 1795241804000.
        psql.batch_execute("insert into demo.things (_creation_time, data) values (1795241803900, '{\"rank\":1}')")
            .await
            .expect("a row");
        assert_eq!(subscriber.next().await.data["data"][0]["rank"], 1);
    });
}

#[test]
fn a_table_made_by_hand_is_followed_from_the_next_deploy_on() {
    run(async {
        let host = TestHost::start(&["plans"]).await;
        let psql = host.psql().await;
        psql.batch_execute(
            "create table demo.by_hand (id int primary key); grant select on demo.by_hand to public; \
             create table demo.without_key (id int); grant select on demo.without_key to public",
        )
        .await
        .expect("tables");
        // Nothing that the sync would have to do.
        host.deploy(&["plans"]).await.expect("a deployment");
        let statement = json!({ "statement": "select count(*)::int as n from demo.by_hand" });
        let mut subscriber = Subscriber::open(&host, "plans:by_sql", &statement, None).await;
        let count = |data: &serde_json::Value| data["data"][0]["n"].as_i64();
        assert_eq!(count(&subscriber.next().await.data), Some(0));
        psql.batch_execute("insert into demo.by_hand values (1)").await.expect("a row");
        // The write may have come before the table was followed; then it is shown by and by.
        assert_eq!(count(&subscriber.next().await.data), Some(1));
        psql.batch_execute("insert into demo.by_hand values (2)").await.expect("a row");
        assert_eq!(count(&subscriber.next().await.data), Some(2));
    });
}
