//! The change feed is lost, with its slot or with the whole server: whatever happened meanwhile is shown afterwards.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use convoke_local_postgres::{Durability, LocalPostgres, Options};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::{Subscriber, bodies, metric, send};
use crate::harness::{TestHost, run};

const EVALUATIONS: &str = "convoke_evaluations_total{function=\"messages:list\"}";

/// Two subscriptions of which a write into `c` concerns the first alone, and what was run for them.
async fn subscribed(host: &TestHost) -> ([Subscriber; 2], u64) {
    let mut subscribers = Vec::new();
    for channel in ["c", "other"] {
        let mut subscriber = Subscriber::open(host, "messages:list", &json!({ "channel": channel }), None).await;
        subscriber.next().await;
        subscribers.push(subscriber);
    }
    let subscribers = subscribers.try_into().ok().expect("two of them");
    (subscribers, metric(host, EVALUATIONS).await)
}

async fn write(psql: &Client, body: &str) {
    let row = json!({ "channel": "c", "author": "a", "body": body }).to_string();
    let insert = "insert into demo.messages (data) values ($1::text::jsonb)";
    psql.execute(insert, &[&row]).await.expect("a row");
}

/// Both subscribers are up to date: the first has a new result, the second was run again and has none.
async fn all_run_again(host: &TestHost, [concerned, other]: &mut [Subscriber; 2], before: u64, shown: &[&str]) {
    let mut event = concerned.next().await;
    // Some of it may have been seen before the rest.
    while bodies(&event.data) != shown {
        event = concerned.next().await;
    }
    for _ in 0..200 {
        if metric(host, EVALUATIONS).await >= before + 2 {
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
    assert!(metric(host, EVALUATIONS).await >= before + 2, "every query is run again");
    assert!(other.is_silent(Duration::from_millis(200)).await, "the same result is no event");
}

#[test]
fn a_lost_connection_is_a_gap_and_nothing_is_missed() {
    run(async {
        let host = TestHost::start(&["messages"]).await;
        let (mut subscribers, before) = subscribed(&host).await;
        let psql = host.psql().await;
        psql.batch_execute(
            "select pg_terminate_backend(active_pid) from pg_replication_slots where database = current_database(); \
             insert into demo.messages (data) values ('{\"channel\":\"c\",\"author\":\"a\",\"body\":\"in the gap\"}')",
        )
        .await
        .expect("a termination");
        all_run_again(&host, &mut subscribers, before, &["in the gap"]).await;
        send(&host, "c", "after").await;
        assert_eq!(bodies(&subscribers[0].next().await.data), ["in the gap", "after"]);
        assert_eq!(metric(&host, "convoke_feed_reconnects_total").await, 1);
    });
}

#[test]
fn a_slot_that_is_dropped_by_hand_is_a_gap() {
    run(async {
        let host = TestHost::start(&["messages"]).await;
        let (mut subscribers, before) = subscribed(&host).await;
        let psql = host.psql().await;
        let slot = "select slot_name::text, active_pid from pg_replication_slots where database = current_database()";
        let row = psql.query_one(slot, &[]).await.expect("one slot");
        let (slot, pid): (String, i32) = (row.get(0), row.get(1));
        let drop = "select pg_drop_replication_slot($1)";
        let refused = psql.execute(drop, &[&slot]).await.expect_err("a slot in use");
        assert_eq!(refused.code(), Some(&SqlState::OBJECT_IN_USE));
        psql.execute("select pg_terminate_backend($1)", &[&pid]).await.expect("a termination");
        // It is temporary, and may go by itself before it is dropped.
        while let Err(error) = psql.execute(drop, &[&slot]).await {
            if error.code() != Some(&SqlState::OBJECT_IN_USE) {
                assert_eq!(error.code(), Some(&SqlState::UNDEFINED_OBJECT));
                break;
            }
            sleep(Duration::from_millis(5)).await;
        }
        write(&psql, "in the gap").await;
        all_run_again(&host, &mut subscribers, before, &["in the gap"]).await;
        send(&host, "c", "after").await;
        assert_eq!(bodies(&subscribers[0].next().await.data), ["in the gap", "after"]);
    });
}

/// How a server of the test's own is started, in a folder that goes with the test.
fn server_of_its_own() -> (TempDir, Options) {
    let directory = tempfile::tempdir().expect("a directory");
    // Open to pass, for an unprivileged server.
    fs::set_permissions(directory.path(), Permissions::from_mode(0o711)).expect("permissions");
    let options = Options { durability: Durability::Fast, ..Options::new(directory.path().join("postgres")) };
    (directory, options)
}

#[test]
fn a_server_that_crashes_and_comes_back_is_a_gap() {
    run(async {
        let (_directory, options) = server_of_its_own();
        let server = LocalPostgres::start(&options).await.expect("a server");
        let host = TestHost::on_server(server.config(), &["messages"]).await;
        let (mut subscribers, before) = subscribed(&host).await;
        let psql = host.psql().await;
        let row = |body: &str| json!({ "channel": "c", "author": "a", "body": body }).to_string();
        psql.batch_execute(&format!(
            "begin; insert into demo.messages (data) values ('{}'); prepare transaction 'kept'; \
             begin; insert into demo.messages (data) values ('{}'); prepare transaction 'lost'; \
             begin; insert into demo.messages (data) values ('{}')",
            row("prepared"),
            row("taken back"),
            row("never committed"),
        ))
        .await
        .expect("transactions");

        // What `pg_ctl restart -m immediate` does.
        let pid = i32::try_from(server.pid()).expect("a process");
        kill(Pid::from_raw(pid), Signal::SIGQUIT).expect("a server that runs");
        server.exited().await;
        host.until_streaming(false).await;
        drop(server);
        let server = LocalPostgres::start(&options).await.expect("the same server");
        let psql = host.psql().await;
        write(&psql, "in the gap").await;
        // What is prepared outlives the server. Until its end there is no slot.
        psql.batch_execute("rollback prepared 'lost'").await.expect("a prepared transaction");
        psql.batch_execute("commit prepared 'kept'").await.expect("a prepared transaction");
        all_run_again(&host, &mut subscribers, before, &["prepared", "in the gap"]).await;
        send(&host, "c", "after").await;
        assert_eq!(bodies(&subscribers[0].next().await.data).last(), Some(&"after"));
        drop(subscribers);
        drop(host);
        server.stop().await;
    });
}

#[test]
fn a_transaction_that_stays_open_delays_nobody() {
    run(async {
        let host = TestHost::start(&["messages"]).await;
        send(&host, "0", "sent").await;
        let (open, psql) = (host.psql().await, host.psql().await);
        open.batch_execute("begin").await.expect("a transaction");
        for round in 0..5 {
            // What it writes is before the end of the log, and nothing has it written out: once it ends within a page of
            // the log, once far beyond one.
            write(&open, &"x".repeat(20_000 * (round % 2))).await;
            let list = json!({ "channel": round.to_string() });
            let mut subscriber = Subscriber::open(&host, "messages:list", &list, None).await;
            let first = timeout(Duration::from_secs(5), subscriber.next()).await.expect("the first event in time");
            assert_eq!(bodies(&first.data).len(), usize::from(round == 0));
            // A result that is kept is given too, by and by.
            let hits = metric(&host, "convoke_query_cache_hits_total").await;
            for _ in 0..100 {
                host.query("messages:list", list.clone()).await.data();
                if metric(&host, "convoke_query_cache_hits_total").await > hits {
                    break;
                }
            }
            assert!(metric(&host, "convoke_query_cache_hits_total").await > hits);
        }
        // What does not wait for its flush is shown like any other.
        let mut subscriber = Subscriber::open(&host, "messages:list", &json!({ "channel": "c" }), None).await;
        assert_eq!(bodies(&subscriber.next().await.data), [""; 0]);
        psql.batch_execute("set synchronous_commit = off").await.expect("a setting");
        write(&psql, "unflushed").await;
        assert_eq!(bodies(&host.query("messages:list", json!({ "channel": "c" })).await.body), ["unflushed"]);
        let mut late = Subscriber::open(&host, "messages:list", &json!({ "channel": "c" }), None).await;
        assert_eq!(bodies(&late.next().await.data), ["unflushed"]);
        assert_eq!(bodies(&subscriber.next().await.data), ["unflushed"]);
    });
}

#[test]
fn another_timeline_is_another_count() {
    run(async {
        let (_directory, options) = server_of_its_own();
        let server = LocalPostgres::start(&options).await.expect("a server");
        let host = TestHost::on_server(server.config(), &["messages"]).await;
        send(&host, "c", "before").await;
        let list = json!({ "channel": "c" });
        let mut subscriber = Subscriber::open(&host, "messages:list", &list, None).await;
        let before = subscriber.next().await;
        let count = host.host.live().expect("live queries").timestamp(0);
        let data: String = {
            let row = host.psql().await.query_one("show data_directory", &[]).await.expect("a setting");
            row.get(0)
        };
        server.stop().await;
        host.until_streaming(false).await;
        // As after a restore of a backup.
        let data = std::path::Path::new(&data);
        fs::write(data.join("recovery.signal"), "").expect("a file");
        fs::write(data.join("postgresql.auto.conf"), "restore_command = '/bin/false'\n").expect("a file");
        let server = LocalPostgres::start(&options).await.expect("the same server");
        host.until_streaming(true).await;
        assert!(host.host.live().expect("live queries").timestamp(0) > count, "it counts anew");
        send(&host, "c", "after").await;
        let mut again = Subscriber::open(&host, "messages:list", &list, Some(before.id)).await;
        let event = again.next().await;
        assert_eq!(bodies(&event.data), ["before", "after"]);
        assert!(event.id > before.id);
        drop((again, subscriber));
        drop(host);
        server.stop().await;
    });
}
