//! What transactions look like.

use convoke_feed::{ChangeKind, ReplicaIdentity, widen};

use crate::harness::{follow, lines, options, published, transaction};

const TABLE: &str = "create table t (id int primary key, v text)";

#[tokio::test]
async fn rows_arrive_as_they_were_changed() {
    let (config, client) = published("feed_rows", TABLE).await;
    let mut feed = follow(options(&config)).await;
    for (statement, expected) in [
        ("insert into t values (1, 'a'), (2, null), (3, 'c')", &["t + 1,a", "t + 2,null", "t + 3,c"][..]),
        ("update t set v = 'b' where id = 1", &["t ~ 1,b"]),
        ("update t set id = 9 where id = 1", &["t key 1,null ~ 9,b"]),
        ("delete from t where id = 2", &["t - key 2,null"]),
        ("update t set v = v || 'x'", &["t ~ 3,cx", "t ~ 9,bx"]),
        ("truncate t", &["t truncated"]),
    ] {
        client.batch_execute(statement).await.unwrap();
        assert_eq!(lines(&*transaction(&mut feed).await), expected, "{statement}");
    }
    assert_eq!(feed.metrics().transactions(), 6);
}

#[tokio::test]
async fn what_was_taken_back_is_absent() {
    let (config, client) = published("feed_savepoints", TABLE).await;
    let mut feed = follow(options(&config)).await;
    client.batch_execute("begin; insert into t values (1); rollback").await.unwrap();
    client
        .batch_execute(
            "begin; insert into t values (2, 'outer'); savepoint a; insert into t values (3, 'lost');
             savepoint b; insert into t values (4, 'lost'); rollback to a; insert into t values (5, 'kept');
             savepoint c; update t set v = 'inner' where id = 2; release c; commit",
        )
        .await
        .unwrap();
    assert_eq!(lines(&*transaction(&mut feed).await), ["t + 2,outer", "t + 5,kept", "t ~ 2,inner"]);
}

#[tokio::test]
async fn the_id_is_the_top_level_one() {
    let (config, client) = published("feed_xid", TABLE).await;
    let mut feed = follow(options(&config)).await;
    // The first write is in a subtransaction, which has an id of its own.
    client.batch_execute("begin; savepoint a; insert into t values (1)").await.unwrap();
    let row = client.query_one("select pg_current_xact_id()::text", &[]).await.unwrap();
    let xid: u64 = row.get::<_, String>(0).parse().unwrap();
    client.batch_execute("commit").await.unwrap();
    let received = transaction(&mut feed).await;
    assert_eq!(widen(received.xid, xid + 1000), xid);
    assert!(received.commit_lsn < received.end_lsn);
    let row = client.query_one("select extract(epoch from now())::float8 * 1e6", &[]).await.unwrap();
    let distance = row.get::<_, f64>(0) - received.commit_time_us as f64;
    assert!(distance.abs() < 60e6, "{distance} us");
}

#[tokio::test]
async fn commits_keep_their_order() {
    let (config, client) = published("feed_order", TABLE).await;
    let mut feed = follow(options(&config)).await;
    let other = crate::harness::connect(&config).await;
    client.batch_execute("begin; insert into t values (1, 'began first')").await.unwrap();
    other.batch_execute("insert into t values (2, 'ended first')").await.unwrap();
    client.batch_execute("commit").await.unwrap();
    let (first, second) = (transaction(&mut feed).await, transaction(&mut feed).await);
    assert_eq!(
        (lines(&first), lines(&second)),
        (vec!["t + 2,ended first".to_owned()], vec!["t + 1,began first".to_owned()])
    );
    assert!(first.end_lsn <= second.commit_lsn);
    assert!(first.xid > second.xid);
}

#[tokio::test]
async fn an_unchanged_large_value_is_not_sent() {
    let statements = "create table t (id int primary key, n int, v text); alter table t alter v set storage external";
    let (config, client) = published("feed_toast", statements).await;
    let mut feed = follow(options(&config)).await;
    client.batch_execute("insert into t values (1, 1, repeat('x', 20000)); update t set n = 2").await.unwrap();
    assert_eq!(lines(&*transaction(&mut feed).await), ["t + 1,1,20000 bytes", "t ~ 1,2,unchanged"]);
}

#[tokio::test]
async fn a_full_identity_gives_the_whole_row() {
    let statements = "create table t (id int primary key, v text); alter table t replica identity full";
    let (config, client) = published("feed_full", statements).await;
    let mut feed = follow(options(&config)).await;
    client.batch_execute("insert into t values (1, 'a'); update t set v = 'b'; delete from t").await.unwrap();
    let received = transaction(&mut feed).await;
    assert_eq!(lines(&received), ["t + 1,a", "t full 1,a ~ 1,b", "t - full 1,b"]);
    assert_eq!(received.changes[0].relation.identity, ReplicaIdentity::Full);
}

#[tokio::test]
async fn an_altered_table_is_described_anew() {
    let (config, client) = published("feed_alter", TABLE).await;
    let mut feed = follow(options(&config)).await;
    client.batch_execute("insert into t values (1, 'a')").await.unwrap();
    let before = transaction(&mut feed).await;
    client.batch_execute("alter table t add w int default 7; alter table t rename v to u").await.unwrap();
    client.batch_execute("insert into t values (2, 'b')").await.unwrap();
    let after = transaction(&mut feed).await;
    let columns = |transaction: &convoke_feed::Transaction| -> Vec<(String, bool)> {
        let relation = &transaction.changes[0].relation;
        relation.columns.iter().map(|column| (column.name.clone(), column.key)).collect()
    };
    let named = |names: &[&str]| -> Vec<_> { names.iter().map(|name| ((*name).to_owned(), *name == "id")).collect() };
    assert_eq!(columns(&before), named(&["id", "v"]));
    assert_eq!(columns(&after), named(&["id", "u", "w"]));
    assert_eq!(lines(&after), ["t + 2,b,7"]);
    assert_eq!(before.changes[0].relation.oid, after.changes[0].relation.oid);
    let ChangeKind::Insert { new } = &after.changes[0].kind else { panic!("{after:?}") };
    assert_eq!(crate::harness::named(&after.changes[0], new)["w"], "7");
}

#[tokio::test]
async fn messages_come_with_their_transaction() {
    let (config, client) = published("feed_messages", TABLE).await;
    let mut feed = follow(options(&config)).await;
    client
        .batch_execute(
            "begin; select pg_logical_emit_message(true, 'ddl', 'lost'); rollback;
             begin; select pg_logical_emit_message(false, 'ddl', 'in none'); insert into t values (1);
             select pg_logical_emit_message(true, 'ddl', 'kept'); commit",
        )
        .await
        .unwrap();
    let received = transaction(&mut feed).await;
    let messages: Vec<_> = received.messages.iter().map(|m| (m.prefix.as_str(), &m.content[..])).collect();
    assert_eq!(messages, [("ddl", &b"kept"[..])]);
    assert_eq!(lines(&received), ["t + 1,null"]);
}

#[tokio::test]
async fn a_huge_transaction_leaves_its_tables() {
    let (config, client) = published("feed_huge", TABLE).await;
    let mut options = options(&config);
    options.transaction_bytes_max = 100_000;
    let mut feed = follow(options).await;
    client.batch_execute("insert into t select n, 'x' from generate_series(1, 20000) n").await.unwrap();
    assert_eq!(lines(&*transaction(&mut feed).await), ["t unlisted"]);
    client.batch_execute("delete from t where id = 5").await.unwrap();
    assert_eq!(lines(&*transaction(&mut feed).await), ["t - key 5,null"]);
}
