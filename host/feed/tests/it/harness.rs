//! A database with a publication, and what a feed of it says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use convoke_feed::{
    ChangeKind, Feed, FeedEvent, FeedOptions, GapReason, OldRow, Started, Subscription, Transaction, Tuple, Value,
};
use convoke_local_postgres::testing::TestCluster;
use convoke_postgres::Config;
use tokio::time::timeout;
use tokio_postgres::Client;

/// Long enough for a busy machine: a slot waits for the write transactions of other tests.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) async fn database(name: &str) -> Config {
    TestCluster::shared().await.unwrap().create_database(name).await.unwrap()
}

pub(crate) async fn connect(config: &Config) -> Client {
    let (client, connection) = config.connect().await.unwrap();
    tokio::spawn(connection);
    client
}

/// A database where everything is published as `everything`, after the given statements.
pub(crate) async fn published(name: &str, statements: &str) -> (Config, Client) {
    let config = database(name).await;
    let client = connect(&config).await;
    client.batch_execute(statements).await.unwrap();
    client.batch_execute("create publication everything for all tables").await.unwrap();
    (config, client)
}

pub(crate) fn options(config: &Config) -> FeedOptions {
    let postgres = config.clone();
    FeedOptions {
        status_interval: Duration::from_millis(200),
        backoff_max: Duration::from_millis(200),
        ..FeedOptions::new(postgres)
    }
}

pub(crate) async fn next(feed: &mut Subscription) -> FeedEvent {
    loop {
        let event = timeout(PATIENCE, feed.next()).await.expect("an event in time").expect("a feed that goes on");
        // They come whenever the server feels like it.
        if !matches!(event, FeedEvent::Position(_)) {
            return event;
        }
    }
}

pub(crate) async fn started(feed: &mut Subscription) -> Started {
    match next(feed).await {
        FeedEvent::Started(started) => started,
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn transaction(feed: &mut Subscription) -> Arc<Transaction> {
    match next(feed).await {
        FeedEvent::Transaction(transaction) => transaction,
        other => panic!("{other:?}"),
    }
}

/// The next gap, whatever comes before it.
pub(crate) async fn gap(feed: &mut Subscription) -> GapReason {
    loop {
        if let FeedEvent::Gap { reason } = next(feed).await {
            return reason;
        }
    }
}

/// The only one who follows a database.
pub(crate) fn subscribe(options: FeedOptions) -> Subscription {
    Feed::start(options).subscribe("everything", "public")
}

pub(crate) async fn follow(options: FeedOptions) -> Subscription {
    let mut feed = subscribe(options);
    assert_eq!(started(&mut feed).await.generation, 1);
    feed
}

/// The changes, a line each.
pub(crate) fn lines(transaction: &Transaction) -> Vec<String> {
    let line = |change: &convoke_feed::Change| {
        let table = &change.relation.name;
        match &change.kind {
            ChangeKind::Insert { new } => format!("{table} + {}", row(new)),
            ChangeKind::Update { old: None, new } => format!("{table} ~ {}", row(new)),
            ChangeKind::Update { old: Some(before), new } => format!("{table} {} ~ {}", old(before), row(new)),
            ChangeKind::Delete { old: before } => format!("{table} - {}", old(before)),
            ChangeKind::Truncate => format!("{table} truncated"),
            ChangeKind::Unlisted => format!("{table} unlisted"),
        }
    };
    transaction.changes.iter().map(line).collect()
}

fn old(row_before: &OldRow) -> String {
    match row_before {
        OldRow::Key(tuple) => format!("key {}", row(tuple)),
        OldRow::Full(tuple) => format!("full {}", row(tuple)),
    }
}

fn row(tuple: &Tuple) -> String {
    let value = |value: &Value| match value {
        Value::Null => "null".to_owned(),
        Value::Unchanged => "unchanged".to_owned(),
        Value::Text(text) if text.len() > 20 => format!("{} bytes", text.len()),
        Value::Text(text) => String::from_utf8_lossy(text).into_owned(),
    };
    tuple.iter().map(value).collect::<Vec<_>>().join(",")
}

/// Columns of a row by their names.
pub(crate) fn named(change: &convoke_feed::Change, tuple: &Tuple) -> BTreeMap<String, String> {
    let names = change.relation.columns.iter().map(|column| column.name.clone());
    names.zip(tuple.iter().map(|value| row(&vec![value.clone()]))).collect()
}

/// How many slots of feeds a database has.
pub(crate) async fn slots(client: &Client) -> i64 {
    let count =
        "select count(*) from pg_replication_slots where slot_name like 'convoke%' and database = current_database()";
    client.query_one(count, &[]).await.unwrap().get(0)
}

/// Waits for something that comes true by itself.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let polled = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, polled).await.unwrap_or_else(|_| panic!("{what} in time"));
}
