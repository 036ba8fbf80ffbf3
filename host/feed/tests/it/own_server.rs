//! What needs a server with settings of its own.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use convoke_feed::{Feed, FeedError, GapReason, probe};
use convoke_local_postgres::{Durability, LocalPostgres, Options};
use convoke_postgres::Config;

use crate::harness::{connect, follow, gap, lines, options, started, subscribe, transaction};

#[tokio::test]
async fn passwords_and_prepared_transactions() {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o711)).unwrap();
    let data_root = directory.path().join("postgres");
    let start = Options { durability: Durability::Fast, ..Options::new(&data_root) };
    let server = LocalPostgres::start(&start).await.unwrap();
    let client = connect(&server.config()).await;
    client.batch_execute("alter system set max_prepared_transactions = 10").await.unwrap();
    client
        .batch_execute(
            "create role scram login replication password 'secret'; set password_encryption = 'md5';
             create role hashed login replication password 'secret';
             create role clear login replication password 'secret'",
        )
        .await
        .unwrap();
    drop(client);
    server.stop().await;
    let access = "local all scram scram-sha-256\nlocal all hashed md5\nlocal all clear password\nlocal all all trust\n";
    let file = data_root.join("data/pg_hba.conf");
    // Written over, not replaced: it belongs to the server's user.
    fs::write(&file, access).unwrap();
    let server = LocalPostgres::start(&start).await.unwrap();
    passwords(&server.config()).await;
    prepared_transactions(&server.config()).await;
    restart(server, &start).await;
}

/// A server that stops waits for its receivers; one that comes back is followed again.
async fn restart(server: LocalPostgres, start: &Options) {
    let config = server.config();
    let mut feed = subscribe(options(&config));
    let first = started(&mut feed).await;
    let begin = Instant::now();
    server.stop().await;
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    assert!(matches!(gap(&mut feed).await, GapReason::Lost(_)));
    let server = LocalPostgres::start(start).await.unwrap();
    let again = started(&mut feed).await;
    assert_eq!((again.generation, again.system), (2, first.system));
    connect(&config).await.batch_execute("insert into t values (9)").await.unwrap();
    assert_eq!(lines(&*transaction(&mut feed).await), ["t + 9,null"]);
    drop(feed);
    server.stop().await;
}

async fn passwords(config: &Config) {
    for role in ["scram", "hashed", "clear"] {
        let mut config = config.clone();
        config.user(role);
        let missing = probe(&config).await.expect_err("no password");
        assert!(matches!(missing, FeedError::Authentication(_)), "{role}: {missing:?}");
        config.password("wrong");
        let wrong = probe(&config).await.expect_err("a wrong password");
        assert!(matches!(wrong, FeedError::Authentication(_)), "{role}: {wrong:?}");
        config.password("secret");
        probe(&config).await.unwrap_or_else(|error| panic!("{role}: {error:?}"));
    }
}

async fn prepared_transactions(config: &Config) {
    let client = connect(config).await;
    client
        .batch_execute("create table t (id int primary key, v text); create publication everything for all tables")
        .await
        .unwrap();
    let mut feed = follow(options(config)).await;
    for statement in [
        "begin; insert into t values (1, 'kept'); prepare transaction 'kept'",
        "begin; insert into t values (2, 'lost'); prepare transaction 'lost'",
        "insert into t values (3, 'between')",
        "rollback prepared 'lost'",
        "commit prepared 'kept'",
    ] {
        client.batch_execute(statement).await.unwrap();
    }
    let (first, second) = (transaction(&mut feed).await, transaction(&mut feed).await);
    assert_eq!((lines(&first), lines(&second)), (vec!["t + 3,between".to_owned()], vec!["t + 1,kept".to_owned()]));
    assert!(second.xid < first.xid, "the id is that of the transaction that was prepared");
}

/// Somebody joins by a second slot for a moment; without one, those who follow are interrupted.
#[tokio::test]
async fn joining_where_no_second_slot_is_free() {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o711)).unwrap();
    let start = Options { durability: Durability::Fast, ..Options::new(directory.path().join("postgres")) };
    let server = LocalPostgres::start(&start).await.unwrap();
    let (config, client) = (server.config(), connect(&server.config()).await);
    let fill = "create table t (id int primary key, v text); create publication everything for all tables;
         select pg_create_physical_replication_slot('other_' || n)
         from generate_series(2, current_setting('max_replication_slots')::int) n";
    client.batch_execute(fill).await.unwrap();
    let feed = Feed::start(options(&config));
    let mut first = feed.subscribe("everything", "public");
    started(&mut first).await;
    let mut second = feed.subscribe("everything", "public");
    assert!(matches!(gap(&mut first).await, GapReason::Replaced));
    assert_eq!((started(&mut first).await.generation, started(&mut second).await.generation), (2, 1));
    client.batch_execute("insert into t values (1)").await.unwrap();
    assert_eq!([lines(&*transaction(&mut first).await), lines(&*transaction(&mut second).await)], [["t + 1,null"]; 2]);
    drop((first, second, feed, client));
    server.stop().await;
}
