//! What breaks a feed, and what it says then.

use std::time::Duration;

use convoke_feed::{FeedEvent, GapReason, SlotProbe, probe};
use tokio::net::{TcpListener, UnixStream};
use tokio_postgres::config::Host;

use crate::harness::{
    PATIENCE, connect, database, follow, gap, lines, next, options, published, slots, started, subscribe, transaction,
    until,
};

const TABLE: &str = "create table t (id int primary key, v text)";

#[tokio::test]
async fn a_lost_connection_is_a_gap() {
    let (config, client) = published("feed_lost", TABLE).await;
    let mut feed = subscribe(options(&config));
    let first = started(&mut feed).await;
    client.batch_execute("insert into t values (1)").await.unwrap();
    assert_eq!(lines(&*transaction(&mut feed).await), ["t + 1,null"]);
    for generation in 2..4 {
        let end =
            "select pg_terminate_backend(active_pid) from pg_replication_slots where database = current_database()";
        client.execute(end, &[]).await.unwrap();
        assert!(matches!(gap(&mut feed).await, GapReason::Lost(_)));
        let again = started(&mut feed).await;
        assert_eq!((again.generation, again.system), (generation, first.system));
        assert!(again.position >= first.position);
        client.batch_execute(&format!("insert into t values ({generation})")).await.unwrap();
        assert_eq!(lines(&*transaction(&mut feed).await), [format!("t + {generation},null")]);
    }
    assert_eq!(feed.metrics().reconnects(), 2);
    assert!(feed.metrics().is_streaming());
    assert_eq!(slots(&client).await, 1);
}

#[tokio::test]
async fn the_slot_ends_with_the_feed() {
    let (config, client) = published("feed_end", TABLE).await;
    let feed = follow(options(&config)).await;
    assert_eq!(slots(&client).await, 1);
    drop(feed);
    until("the slot is gone", async || slots(&client).await == 0).await;
}

#[tokio::test]
async fn a_stuck_consumer_does_not_hold_back_the_log() {
    let (config, client) = published("feed_stuck", TABLE).await;
    let mut options = options(&config);
    options.buffered_bytes_max = 8 << 10;
    options.wal_bytes_max = 2 << 20;
    let mut feed = follow(options).await;
    let metrics = feed.metrics();
    // Nobody takes what this makes.
    let write = "insert into t select n, repeat('x', 500) from generate_series(1, 100) n; delete from t";
    until("the slot is given up", async || {
        client.batch_execute(write).await.unwrap();
        !metrics.is_streaming()
    })
    .await;
    until("the slot is gone", async || slots(&client).await == 0).await;
    // What had been delivered is still there to be taken; a new slot comes only after it.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(slots(&client).await, 0);
    let reason = gap(&mut feed).await;
    assert!(matches!(reason, GapReason::HeldBack { wal_bytes } if wal_bytes > 2 << 20), "{reason}");
    assert_eq!(started(&mut feed).await.generation, 2);
    client.batch_execute("insert into t values (1)").await.unwrap();
    assert_eq!(lines(&*transaction(&mut feed).await), ["t + 1,null"]);
}

#[tokio::test]
async fn a_consumer_that_creeps_does_not_either() {
    let (config, client) = published("feed_creeps", TABLE).await;
    let mut options = options(&config);
    options.buffered_bytes_max = 8 << 10;
    options.wal_bytes_max = 2 << 20;
    let mut feed = follow(options).await;
    let writer = tokio::spawn(async move {
        let write = "insert into t select n, repeat('x', 500) from generate_series(1, 100) n; delete from t";
        while client.batch_execute(write).await.is_ok() {}
    });
    let creeping = async {
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if let FeedEvent::Gap { reason } = next(&mut feed).await {
                return reason;
            }
        }
    };
    let reason = tokio::time::timeout(PATIENCE, creeping).await.expect("a gap in time");
    assert!(matches!(reason, GapReason::HeldBack { .. }), "{reason}");
    writer.abort();
}

#[tokio::test]
async fn a_consumer_may_be_stuck_for_so_long_only() {
    let (config, client) = published("feed_stalled", TABLE).await;
    let mut options = options(&config);
    options.buffered_bytes_max = 4 << 10;
    options.stall_max = Duration::from_millis(500);
    let mut feed = follow(options).await;
    for id in 0..20 {
        client.batch_execute(&format!("insert into t values ({id})")).await.unwrap();
    }
    let metrics = feed.metrics();
    until("the slot is given up", async || !metrics.is_streaming()).await;
    assert!(matches!(gap(&mut feed).await, GapReason::Stalled { .. }));
}

#[tokio::test]
async fn a_slow_consumer_gets_everything() {
    let (config, client) = published("feed_slow", TABLE).await;
    let mut options = options(&config);
    options.buffered_bytes_max = 4 << 10;
    let mut feed = follow(options).await;
    for id in 0..200 {
        client.batch_execute(&format!("insert into t values ({id}, repeat('x', 3000))")).await.unwrap();
    }
    for id in 0..200 {
        if id % 40 == 0 {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        assert_eq!(lines(&*transaction(&mut feed).await), [format!("t + {id},3000 bytes")]);
    }
}

#[tokio::test]
async fn the_position_advances_without_transactions() {
    let (config, client) = published("feed_idle", TABLE).await;
    let feed = follow(options(&config)).await;
    // A change that is not published: in another database.
    let other = connect(&database("feed_idle_other").await).await;
    other.batch_execute("create table unpublished as select generate_series(1, 1000)").await.unwrap();
    let row = client.query_one("select (pg_current_wal_lsn() - '0/0')::int8", &[]).await.unwrap();
    let target = row.get::<_, i64>(0).cast_unsigned();
    let metrics = feed.metrics();
    until("the position passes", async || metrics.position() >= target).await;
    let confirmed = format!(
        "select confirmed_flush_lsn - '0/0' >= {target} from pg_replication_slots where database = current_database()"
    );
    until("Postgres knows", async || client.query_one(&confirmed, &[]).await.unwrap().get(0)).await;
    assert!(metrics.last_message().is_some_and(|instant| instant.elapsed() < Duration::from_secs(30)));
}

#[tokio::test]
async fn a_slot_waits_for_open_transactions() {
    let (config, client) = published("feed_waits", TABLE).await;
    client.batch_execute("begin; insert into t values (1)").await.unwrap();
    let mut options = options(&config);
    options.slot_wait_max = Duration::from_millis(300);
    let mut feed = subscribe(options);
    let watch = connect(&config).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(feed.try_next().is_none());
    // Attempts that were given up leave nothing behind that waits.
    assert!(slots(&watch).await <= 2, "cancelled attempts go");
    let probed = probe(&config).await.unwrap();
    assert!(matches!(probed.slot, SlotProbe::Waiting(_)), "{probed:?}");
    client.batch_execute("commit").await.unwrap();
    assert_eq!(started(&mut feed).await.generation, 1);
    client.batch_execute("insert into t values (2)").await.unwrap();
    assert_eq!(lines(&*transaction(&mut feed).await), ["t + 2,null"]);
}

#[tokio::test]
async fn a_missing_publication_is_waited_for() {
    let config = database("feed_unpublished").await;
    let client = connect(&config).await;
    client.batch_execute(TABLE).await.unwrap();
    let mut feed = subscribe(options(&config));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(feed.try_next().is_none());
    client.batch_execute("create publication everything for all tables").await.unwrap();
    assert_eq!(started(&mut feed).await.generation, 1);
}

#[tokio::test]
async fn tcp_works_as_well() {
    let (config, client) = published("feed_tcp", TABLE).await;
    let Some(Host::Unix(directory)) = config.get_hosts().first().cloned() else { return };
    let socket = directory.join(format!(".s.PGSQL.{}", config.get_ports().first().copied().unwrap_or(5432)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut over_tcp = convoke_postgres::Config::new();
    over_tcp.host("127.0.0.1").port(listener.local_addr().unwrap().port());
    over_tcp.user(config.get_user().unwrap()).dbname("feed_tcp");
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let mut unix = UnixStream::connect(&socket).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut tcp, &mut unix).await });
        }
    });
    let probed = probe(&over_tcp).await.unwrap();
    assert!(probed.superuser && probed.version >= 150_000 && probed.wal_level == "logical", "{probed:?}");
    let mut feed = follow(options(&over_tcp)).await;
    client.batch_execute("insert into t values (1)").await.unwrap();
    assert_eq!(lines(&*transaction(&mut feed).await), ["t + 1,null"]);
}

#[tokio::test]
async fn the_first_host_that_answers_is_taken() {
    let (config, _client) = published("feed_hosts", TABLE).await;
    let Some(Host::Unix(directory)) = config.get_hosts().first().cloned() else { return };
    let mut several = convoke_postgres::Config::new();
    several.host("127.0.0.1").port(1).host_path(directory);
    several.port(config.get_ports().first().copied().unwrap_or(5432));
    several.user(config.get_user().unwrap()).dbname("feed_hosts");
    follow(options(&several)).await;
}
