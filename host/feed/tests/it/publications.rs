//! Which tables a publication covers.

use convoke_feed::{Coverage, Feed, FeedError, ensure_publication, probe};

use crate::harness::{connect, database, follow, lines, options, started, transaction};

#[tokio::test]
async fn a_superuser_publishes_a_schema() {
    let config = database("feed_schema").await;
    let client = connect(&config).await;
    client.batch_execute("create schema \"a'b\"; create schema other").await.unwrap();
    for _ in 0..2 {
        assert_eq!(ensure_publication(&client, "every\"thing", "a'b").await.unwrap(), Coverage::Schema);
    }
    assert_eq!(ensure_publication(&client, "every\"thing", "other").await.unwrap(), Coverage::Schema);
    let mut feed = Feed::start(options(&config)).subscribe("every\"thing", "a'b");
    started(&mut feed).await;
    client.batch_execute("create table \"a'b\".later (id int primary key)").await.unwrap();
    client.batch_execute("insert into \"a'b\".later values (1)").await.unwrap();
    let received = transaction(&mut feed).await;
    assert_eq!(lines(&received), ["later + 1"]);
    assert_eq!(received.changes[0].relation.schema, "a'b");
}

#[tokio::test]
async fn others_publish_their_tables() {
    const ROLE: &str = "feed_plain_role";
    let mut config = database("feed_tables").await;
    let admin = connect(&config).await;
    let role = format!(
        "do 'begin create role {ROLE} login; exception when duplicate_object then null; end';
         alter role {ROLE} noreplication; grant create on database feed_tables to {ROLE}"
    );
    admin.batch_execute(&role).await.unwrap();
    config.user(ROLE);
    let client = connect(&config).await;
    client
        .batch_execute(
            "create schema s; create table s.b (id int primary key); create table s.\"A\" (id int primary key);
             create table s.unkeyed (id int); create unlogged table s.unlogged (id int primary key)",
        )
        .await
        .unwrap();
    let tables = |names: &[&str]| Coverage::Tables(names.iter().map(|name| (*name).to_owned()).collect());
    assert_eq!(ensure_publication(&client, "everything", "s").await.unwrap(), tables(&["A", "b"]));
    client.batch_execute("create table s.c (id int primary key)").await.unwrap();
    for _ in 0..2 {
        assert_eq!(ensure_publication(&client, "everything", "s").await.unwrap(), tables(&["A", "b", "c"]));
    }
    let refused = probe(&config).await.expect_err("refused");
    assert!(matches!(&refused, FeedError::NoReplicationRight { role, .. } if role == ROLE), "{refused:?}");
    admin.batch_execute(&format!("alter role {ROLE} replication")).await.unwrap();
    assert!(!probe(&config).await.unwrap().superuser);
    let mut feed = follow(options(&config)).await;
    client.batch_execute("insert into s.unkeyed values (1); insert into s.c values (1)").await.unwrap();
    assert_eq!(lines(&*transaction(&mut feed).await), ["c + 1"]);
}

#[tokio::test]
async fn hosts_that_start_at_once_do_not_collide() {
    let config = database("feed_at_once").await;
    connect(&config).await.batch_execute("create schema s").await.unwrap();
    let mut hosts = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let config = config.clone();
        hosts.spawn(async move { ensure_publication(&connect(&config).await, "everything", "s").await });
    }
    while let Some(host) = hosts.join_next().await {
        assert_eq!(host.unwrap().unwrap(), Coverage::Schema);
    }
}
