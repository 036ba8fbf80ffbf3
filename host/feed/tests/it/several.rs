//! Several who follow one database, by one slot.

use std::collections::BTreeSet;
use std::time::Duration;

use convoke_feed::{Feed, FeedEvent, GapReason, Snapshot, Subscription, Value, widen};
use convoke_postgres::Config;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::Client;

use crate::harness::{PATIENCE, connect, database, gap, lines, next, options, slots, started, transaction, until};

/// Two projects' schemas, each with a publication of its name, and a third that is nobody's.
const SCHEMAS: &str = "create schema a; create table a.t (id bigint primary key, v text);
     create schema b; create table b.t (id bigint primary key, v text);
     create table free (id bigint primary key);
     create publication a for table a.t; create publication b for table b.t, free";

async fn projects(name: &str) -> (Config, Client) {
    let config = database(name).await;
    let client = connect(&config).await;
    client.batch_execute(SCHEMAS).await.unwrap();
    (config, client)
}

/// The next event is a gap or a beginning only if something went wrong.
async fn ids(feed: &mut Subscription) -> Vec<String> {
    lines(&*transaction(feed).await)
}

async fn follow(feed: &Feed, schema: &str) -> Subscription {
    let mut subscription = feed.subscribe(schema, schema);
    assert_eq!(started(&mut subscription).await.generation, 1);
    subscription
}

async fn insert(client: &Client, table: &str, id: i64) {
    client.batch_execute(&format!("insert into {table} values ({id})")).await.unwrap();
}

#[tokio::test]
async fn each_gets_its_own_and_all_positions() {
    let (config, client) = projects("feed_each").await;
    let feed = Feed::start(options(&config));
    let (mut a, mut b) = (follow(&feed, "a").await, follow(&feed, "b").await);
    until("there is one slot", async || slots(&client).await == 1).await;
    insert(&client, "a.t", 1).await;
    insert(&client, "b.t", 2).await;
    insert(&client, "free", 3).await;
    client.batch_execute("begin; insert into a.t values (4); insert into b.t values (4); commit").await.unwrap();
    assert_eq!(ids(&mut a).await, ["t + 1,null"]);
    let both = transaction(&mut a).await;
    assert_eq!(lines(&both), ["t + 4,null"]);
    assert_eq!([ids(&mut b).await, ids(&mut b).await], [["t + 2,null"], ["free + 3"]]);
    assert_eq!(lines(&*transaction(&mut b).await), ["t + 4,null"]);
    // What does not concern it is a position.
    insert(&client, "b.t", 5).await;
    let passed = async {
        loop {
            match a.next().await {
                Some(FeedEvent::Position(position)) if position > both.end_lsn => return,
                Some(FeedEvent::Position(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    timeout(PATIENCE, passed).await.expect("a position in time");
    assert_eq!(ids(&mut b).await, ["t + 5,null"]);
}

#[tokio::test]
async fn a_publication_may_list_a_table_of_another_project() {
    let (config, client) = projects("feed_lists").await;
    let feed = Feed::start(options(&config));
    let (mut a, mut b) = (follow(&feed, "a").await, follow(&feed, "b").await);
    insert(&client, "a.t", 1).await;
    insert(&client, "b.t", 2).await;
    assert_eq!((ids(&mut a).await, ids(&mut b).await), (vec!["t + 1,null".into()], vec!["t + 2,null".into()]));
    client.batch_execute("alter publication b add table a.t").await.unwrap();
    insert(&client, "a.t", 3).await;
    assert_eq!((ids(&mut a).await, ids(&mut b).await), (vec!["t + 3,null".into()], vec!["t + 3,null".into()]));
    // With other columns Postgres would refuse the changes of the table to all.
    client.batch_execute("alter publication b drop table a.t; alter publication b add table a.t (id)").await.unwrap();
    insert(&client, "a.t", 4).await;
    gap(&mut b).await;
    gap(&mut a).await;
    assert_eq!(started(&mut a).await.generation, 2);
    insert(&client, "a.t", 5).await;
    assert_eq!(ids(&mut a).await, ["t + 5,null"]);
    client.batch_execute("alter publication b drop table a.t").await.unwrap();
    assert_eq!(started(&mut b).await.generation, 2);
}

/// Writes one row after another, each a transaction, until it is told to stop; gives how many.
fn write(config: &Config, table: &'static str) -> (tokio::sync::oneshot::Sender<()>, JoinHandle<i64>) {
    let (stop, mut stopped) = tokio::sync::oneshot::channel();
    let config = config.clone();
    let writing = tokio::spawn(async move {
        let client = connect(&config).await;
        let mut id = 0;
        while stopped.try_recv().is_err() {
            id += 1;
            insert(&client, table, id).await;
        }
        id
    });
    (stop, writing)
}

fn id_of(value: &Value) -> i64 {
    match value {
        Value::Text(text) => std::str::from_utf8(text).unwrap().parse().unwrap(),
        other => panic!("{other:?}"),
    }
}

/// All that arrives until the row of this number; a gap is not expected.
async fn rows_until(feed: &mut Subscription, last: i64) -> Vec<(u32, i64)> {
    let mut rows = Vec::new();
    while rows.last().is_none_or(|(_, id)| *id != last) {
        let transaction = transaction(feed).await;
        for change in &transaction.changes {
            match &change.kind {
                convoke_feed::ChangeKind::Insert { new } => rows.push((transaction.xid, id_of(&new[0]))),
                other => panic!("{other:?}"),
            }
        }
    }
    rows
}

/// Who joins and leaves while others write and follow interrupts nobody, and what it reads and then receives is all there is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joining_and_leaving_misses_nothing() {
    let (config, client) = projects("feed_joins").await;
    let feed = Feed::start(options(&config));
    let mut a = follow(&feed, "a").await;
    let (stop_a, writing_a) = write(&config, "a.t");
    let (stop_b, writing_b) = write(&config, "b.t");
    let mut last = None;
    for _ in 0..8 {
        drop(last.take());
        let mut b = follow(&feed, "b").await;
        let row =
            client.query_one("select pg_current_snapshot()::text, (select array_agg(id) from b.t)", &[]).await.unwrap();
        let snapshot: Snapshot = row.get::<_, String>(0).parse().unwrap();
        let seen: BTreeSet<i64> = row.get::<_, Option<Vec<i64>>>(1).unwrap_or_default().into_iter().collect();
        let (xid, id) = rows_until_one(&mut b).await;
        // The first one that arrives follows on what was seen, or was seen.
        assert!(seen.contains(&id) || id == seen.last().copied().unwrap_or(0) + 1, "{seen:?} and then {id}");
        assert_eq!(snapshot.contains(widen(xid, snapshot.xmax())), seen.contains(&id));
        until("there is one slot", async || slots(&client).await == 1).await;
        last = Some((b, id));
    }
    stop_a.send(()).unwrap();
    stop_b.send(()).unwrap();
    let (count_a, count_b) = (writing_a.await.unwrap(), writing_b.await.unwrap());
    let ids = |rows: Vec<(u32, i64)>| rows.into_iter().map(|(_, id)| id).collect::<Vec<_>>();
    assert!(ids(rows_until(&mut a, count_a).await).into_iter().eq(1..=count_a), "all, once and in order");
    let (mut b, first) = last.unwrap();
    if first < count_b {
        assert!(ids(rows_until(&mut b, count_b).await).into_iter().eq(first + 1..=count_b), "all, once and in order");
    }
    assert_eq!(feed.metrics().reconnects(), 0);
}

async fn rows_until_one(feed: &mut Subscription) -> (u32, i64) {
    let transaction = transaction(feed).await;
    match &transaction.changes[0].kind {
        convoke_feed::ChangeKind::Insert { new } => (transaction.xid, id_of(&new[0])),
        other => panic!("{other:?}"),
    }
}

/// A transaction that began before a publication was made would be an error to Postgres.
#[tokio::test]
async fn who_joins_waits_for_open_transactions_and_others_do_not() {
    let (config, client) = projects("feed_joins_late").await;
    let feed = Feed::start(options(&config));
    let mut a = follow(&feed, "a").await;
    let long = connect(&config).await;
    long.batch_execute("begin; insert into a.t values (1)").await.unwrap();
    client
        .batch_execute("create schema c; create table c.t (id int primary key); create publication c for table c.t")
        .await
        .unwrap();
    let mut c = feed.subscribe("c", "c");
    insert(&client, "a.t", 2).await;
    assert_eq!(ids(&mut a).await, ["t + 2,null"]);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(c.try_next().is_none());
    long.batch_execute("commit").await.unwrap();
    assert_eq!(ids(&mut a).await, ["t + 1,null"]);
    assert_eq!(started(&mut c).await.generation, 1);
    insert(&client, "c.t", 3).await;
    assert_eq!(ids(&mut c).await, ["t + 3"]);
    assert_eq!(feed.metrics().reconnects(), 0);
}

#[tokio::test]
async fn a_publication_that_is_dropped_is_left_out() {
    let (config, client) = projects("feed_dropped").await;
    let feed = Feed::start(options(&config));
    let (mut a, mut b) = (follow(&feed, "a").await, follow(&feed, "b").await);
    client.batch_execute("drop publication a").await.unwrap();
    insert(&client, "b.t", 1).await;
    // Postgres before 18 ends the stream, and with it the slot.
    assert!(matches!(gap(&mut b).await, GapReason::Lost(_)));
    assert!(matches!(gap(&mut a).await, GapReason::Lost(_)));
    assert_eq!(started(&mut b).await.generation, 2);
    for id in 2..5 {
        insert(&client, "b.t", id).await;
        assert_eq!(ids(&mut b).await, [format!("t + {id},null")]);
    }
    assert!(a.try_next().is_none());
    // It comes back without another interruption.
    client.batch_execute("create publication a for table a.t").await.unwrap();
    assert_eq!(started(&mut a).await.generation, 2);
    insert(&client, "a.t", 9).await;
    assert_eq!(ids(&mut a).await, ["t + 9,null"]);
    assert_eq!(feed.metrics().reconnects(), 1);
}

#[tokio::test]
async fn a_publication_that_is_not_there_harms_no_other() {
    let (config, client) = projects("feed_absent").await;
    let feed = Feed::start(options(&config));
    let mut absent = feed.subscribe("absent", "absent");
    let mut a = follow(&feed, "a").await;
    insert(&client, "a.t", 1).await;
    assert_eq!(ids(&mut a).await, ["t + 1,null"]);
    assert!(absent.try_next().is_none());
    client.batch_execute("create publication absent for table a.t").await.unwrap();
    assert_eq!(started(&mut absent).await.generation, 1);
    insert(&client, "a.t", 2).await;
    assert_eq!((ids(&mut a).await, ids(&mut absent).await), (vec!["t + 2,null".into()], vec!["t + 2,null".into()]));
    assert_eq!(feed.metrics().reconnects(), 0);
}

#[tokio::test]
async fn who_takes_nothing_is_left_behind_alone() {
    let (config, client) = projects("feed_behind").await;
    let mut options = options(&config);
    options.buffered_bytes_max = 8 << 10;
    let feed = Feed::start(options);
    let (mut a, mut b) = (follow(&feed, "a").await, follow(&feed, "b").await);
    for id in 0..50 {
        client.batch_execute(&format!("insert into a.t values ({id}); insert into b.t values ({id})")).await.unwrap();
        assert_eq!(ids(&mut a).await, [format!("t + {id},null")]);
    }
    // What was sent before is there, and then the gap.
    assert_eq!(ids(&mut b).await, ["t + 0,null"]);
    assert!(matches!(gap(&mut b).await, GapReason::Overrun));
    assert_eq!(started(&mut b).await.generation, 2);
    client.batch_execute("insert into a.t values (99); insert into b.t values (99)").await.unwrap();
    assert_eq!((ids(&mut a).await, ids(&mut b).await), (vec!["t + 99,null".into()], vec!["t + 99,null".into()]));
    assert_eq!(feed.metrics().reconnects(), 0);
}

#[tokio::test]
async fn the_slot_is_there_while_somebody_follows() {
    let (config, client) = projects("feed_leaves").await;
    let feed = Feed::start(options(&config));
    let a = follow(&feed, "a").await;
    let mut b = follow(&feed, "b").await;
    let slot = "select string_agg(slot_name, ',') from pg_replication_slots where database = current_database()";
    let slot = async || client.query_one(slot, &[]).await.unwrap().get::<_, Option<String>>(0);
    let before = slot().await;
    drop(a);
    // Nobody follows it any more, so it may go, as soon as a stream without it has taken over.
    let is_another = async || slot().await.is_some_and(|now| !now.contains(',') && Some(&now) != before.as_ref());
    until("another slot", is_another).await;
    client.batch_execute("drop publication a").await.unwrap();
    insert(&client, "b.t", 2).await;
    assert_eq!(ids(&mut b).await, ["t + 2,null"]);
    until("there is one slot", async || slots(&client).await == 1).await;
    drop(b);
    until("the slot is gone", async || slots(&client).await == 0).await;
    let mut again = feed.subscribe("b", "b");
    assert!(matches!(next(&mut again).await, FeedEvent::Started(_)));
}
