//! Exactness: what a snapshot shows is what was there at first, plus all transactions that it contains.

use std::sync::Arc;
use std::time::{Duration, Instant};

use convoke_feed::{ChangeKind, FeedEvent, OldRow, Snapshot, Subscription, Transaction, Value, widen};
use convoke_postgres::Config;
use tokio_postgres::Client;

use crate::harness::{PATIENCE, connect, gap, options, published, started, subscribe};

const WRITERS: usize = 4;
const READERS: usize = 3;
const RUN: Duration = Duration::from_secs(4);

const TABLE: &str = "create table t (id bigint generated always as identity primary key, v bigint not null);
     alter table t replica identity full;
     insert into t (v) select n from generate_series(1, 50) n";

struct Read {
    sum: i64,
    count: i64,
    snapshot: Snapshot,
}

struct Effect {
    xid: u32,
    sum: i64,
    count: i64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn base_and_deltas_equal_every_read() {
    let (config, client) = published("feed_oracle", TABLE).await;
    let mut feed = subscribe(options(&config));
    started(&mut feed).await;
    let base = read(&client).await;

    let end = Instant::now() + RUN;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(write(config.clone(), writer, end));
    }
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..READERS {
        readers.spawn(read_on(config.clone(), end));
    }
    // Taken while it comes: whoever falls behind would only measure the buffer.
    let collected = tokio::spawn(async move { collect(&mut feed).await });
    while let Some(writer) = writers.join_next().await {
        writer.unwrap();
    }
    client.batch_execute("select pg_logical_emit_message(true, 'end', '')").await.unwrap();
    let reads: Vec<Read> = readers.join_all().await.into_iter().flatten().collect();
    let effects: Vec<Effect> = collected.await.unwrap().iter().map(|transaction| effect(transaction)).collect();

    let wrong = reads.iter().filter(|read| !is_explained(&base, read, &effects)).count();
    println!("{} reads against {} transactions, {wrong} wrong", reads.len(), effects.len());
    assert!(reads.len() > 20 && effects.len() > 20, "{} reads, {} transactions", reads.len(), effects.len());
    assert_eq!(wrong, 0);
}

/// Whoever reads after `Started` misses nothing, however often the slot is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_slot_covers_every_later_snapshot() {
    const SLOTS: u64 = 8;
    let (config, client) = published("feed_oracle_slots", TABLE).await;
    let mut feed = subscribe(options(&config));
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(write(config.clone(), writer, Instant::now() + PATIENCE));
    }
    let mut all = 0;
    for generation in 1..=SLOTS {
        assert_eq!(started(&mut feed).await.generation, generation);
        let base = read(&client).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let later = read(&client).await;
        // What is visible by now arrives before what commits from now on.
        client.batch_execute("select pg_logical_emit_message(true, 'end', '')").await.unwrap();
        let effects: Vec<Effect> = collect(&mut feed).await.iter().map(|transaction| effect(transaction)).collect();
        all += effects.len();
        assert!(is_explained(&base, &later, &effects), "slot {generation}, {} transactions", effects.len());
        let end =
            "select pg_terminate_backend(active_pid) from pg_replication_slots where database = current_database()";
        client.execute(end, &[]).await.unwrap();
        gap(&mut feed).await;
    }
    writers.abort_all();
    assert!(all > SLOTS as usize, "{all} transactions prove little");
}

fn is_explained(base: &Read, read: &Read, effects: &[Effect]) -> bool {
    let near = read.snapshot.xmax();
    let seen = effects.iter().filter(|effect| {
        let xid = widen(effect.xid, near);
        read.snapshot.contains(xid) && !base.snapshot.contains(xid)
    });
    let (sum, count) = seen.fold((base.sum, base.count), |(sum, count), e| (sum + e.sum, count + e.count));
    (sum, count) == (read.sum, read.count)
}

async fn collect(feed: &mut Subscription) -> Vec<Arc<Transaction>> {
    let mut transactions = Vec::new();
    loop {
        match tokio::time::timeout(PATIENCE, feed.next()).await.expect("an event in time") {
            Some(FeedEvent::Transaction(transaction)) => {
                if transaction.messages.iter().any(|message| message.prefix == "end") {
                    return transactions;
                }
                transactions.push(transaction);
            }
            Some(FeedEvent::Position(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

fn effect(transaction: &Transaction) -> Effect {
    let mut effect = Effect { xid: transaction.xid, sum: 0, count: 0 };
    let value = |row: &[Value]| -> i64 {
        let Value::Text(text) = &row[1] else { panic!("{row:?}") };
        std::str::from_utf8(text).unwrap().parse().unwrap()
    };
    for change in &transaction.changes {
        match &change.kind {
            ChangeKind::Insert { new } => {
                effect.sum += value(new);
                effect.count += 1;
            }
            ChangeKind::Update { old: Some(OldRow::Full(old)), new } => effect.sum += value(new) - value(old),
            ChangeKind::Delete { old: OldRow::Full(old) } => {
                effect.sum -= value(old);
                effect.count -= 1;
            }
            other => panic!("{other:?}"),
        }
    }
    effect
}

async fn read(client: &Client) -> Read {
    let text = "select coalesce(sum(v), 0)::bigint, count(*), pg_current_snapshot()::text from t";
    let row = client.query_one(text, &[]).await.unwrap();
    Read { sum: row.get(0), count: row.get(1), snapshot: row.get::<_, String>(2).parse().unwrap() }
}

async fn read_on(config: Config, end: Instant) -> Vec<Read> {
    let client = connect(&config).await;
    let mut reads = Vec::new();
    while Instant::now() < end {
        reads.push(read(&client).await);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    reads
}

/// Each round is another kind of transaction: plain, with savepoints, long, rolled back.
async fn write(config: Config, writer: usize, end: Instant) {
    let client = connect(&config).await;
    let mut round = writer;
    while Instant::now() < end {
        round += 1;
        let (id, other) = (round * 7 % 50 + 1, (round * 13 + writer) % 60 + 1);
        let statements = match round % 6 {
            0 => format!("update t set v = v + {round} where id = {id}"),
            1 => format!("insert into t (v) values ({round}), ({writer})"),
            2 => format!(
                "begin; insert into t (v) values (1); savepoint a; update t set v = v + 5 where id = {id};
                 insert into t (v) values (1000); rollback to a; insert into t (v) values (2); savepoint b;
                 insert into t (v) values (3); release b; commit"
            ),
            3 => format!("delete from t where id = {other}"),
            4 => "begin; savepoint a; insert into t (v) values (77); select pg_sleep(0.03); commit".to_owned(),
            _ => {
                "begin; insert into t (v) values (500); savepoint a; insert into t (v) values (1); rollback".to_owned()
            }
        };
        client.batch_execute(&statements).await.unwrap();
    }
}
