//! A client that comes back, to the same host or to another.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use super::{Subscriber, bodies, send};
use crate::harness::{TestHost, run};

const MOMENT: Duration = Duration::from_millis(300);

#[test]
fn who_comes_back_is_told_only_what_is_new() {
    run(async {
        let host = TestHost::start(&["messages"]).await;
        send(&host, "c", "one").await;
        let args = json!({ "channel": "c" });
        let mut first = Subscriber::open(&host, "messages:list", &args, None).await;
        let mut keeper = Subscriber::open(&host, "messages:list", &args, None).await;
        let seen = first.next().await;
        keeper.next().await;
        drop(first);
        let mut again = Subscriber::open(&host, "messages:list", &args, Some(seen.id)).await;
        assert!(again.is_silent(Duration::from_millis(200)).await);
        send(&host, "c", "two").await;
        assert_eq!(bodies(&again.next().await.data), ["one", "two"]);
        keeper.next().await;
        drop(again);
        send(&host, "c", "three").await;
        keeper.next().await;
        let mut late = Subscriber::open(&host, "messages:list", &args, Some(seen.id)).await;
        assert_eq!(bodies(&late.next().await.data), ["one", "two", "three"]);
    });
}

#[test]
fn another_host_shows_nothing_older() {
    run(async {
        let first = TestHost::start(&["messages"]).await;
        let second = TestHost::beside(&first, &["messages"]).await;
        let args = json!({ "channel": "c" });
        // Keeps a result there that is older than what comes next.
        let _keeper = Subscriber::open(&second, "messages:list", &args, None).await;
        let mut writer = Subscriber::open(&first, "messages:list", &args, None).await;
        writer.next().await;
        for count in (1..20).step_by(2) {
            send(&first, "c", "one more").await;
            let seen = writer.next().await;
            let mut moved = Subscriber::open(&second, "messages:list", &args, Some(seen.id)).await;
            send(&first, "c", "and one more").await;
            writer.next().await;
            let mut last = seen.id;
            loop {
                let event = moved.next().await;
                assert!(event.id >= last, "time goes back: {} after {last}", event.id);
                last = event.id;
                match bodies(&event.data).len() {
                    // What it had, and made anew there.
                    shown if shown == count => {}
                    shown => break assert_eq!(shown, count + 1, "the client has seen {count}"),
                }
            }
        }
    });
}

#[test]
fn a_host_that_cannot_follow_shows_nothing_older() {
    run(async {
        let first = TestHost::start(&["messages"]).await;
        let second = TestHost::beside(&first, &["messages"]).await;
        let args = json!({ "channel": "c" });
        let mut keeper = Subscriber::open(&second, "messages:list", &args, None).await;
        let mut writer = Subscriber::open(&first, "messages:list", &args, None).await;
        keeper.next().await;
        writer.next().await;
        // No slot is made while a transaction that writes is open: the second host knows of nothing that comes.
        let psql = first.psql().await;
        psql.batch_execute("begin; select pg_current_xact_id()").await.expect("a transaction");
        let youngest = "select pg_terminate_backend(pid) from pg_stat_replication \
             where pid in (select active_pid from pg_replication_slots where database = current_database()) \
             order by backend_start desc limit 1";
        psql.batch_execute(youngest).await.expect("a termination");
        second.until_streaming(false).await;

        send(&first, "c", "one").await;
        let seen = writer.next().await;
        let mut moved = Subscriber::open(&second, "messages:list", &args, Some(seen.id)).await;
        let event = moved.next().await;
        assert_eq!(bodies(&event.data), ["one"]);
        assert!(event.id >= seen.id);
        psql.batch_execute("commit").await.expect("a commit");
        send(&first, "c", "two").await;
        assert_eq!(bodies(&moved.next().await.data), ["one", "two"]);
    });
}

#[test]
fn what_another_host_knows_to_hold_is_not_sent_again() {
    run(async {
        let first = TestHost::start(&["messages"]).await;
        let second = TestHost::beside(&first, &["messages"]).await;
        let args = json!({ "channel": "c" });
        send(&first, "c", "one").await;
        let mut keeper = Subscriber::open(&second, "messages:list", &args, None).await;
        keeper.next().await;
        let seen = Subscriber::open(&first, "messages:list", &args, None).await.next().await;
        let mut moved = Subscriber::open(&second, "messages:list", &args, Some(seen.id)).await;
        assert!(moved.is_silent(MOMENT).await);
        send(&first, "c", "two").await;
        assert_eq!(bodies(&moved.next().await.data), ["one", "two"]);
    });
}

#[test]
fn an_id_that_means_nothing_begins_anew() {
    run(async {
        let host = TestHost::start(&["messages"]).await;
        send(&host, "c", "one").await;
        let args = json!({ "channel": "c" });
        let seen = Subscriber::open(&host, "messages:list", &args, None).await.next().await;
        // Of no form; of a database before this one; of a time that this one may never see.
        let ids = ["yesterday", "-1", "1e18", "", "1"].map(str::to_owned).into_iter();
        let future = [seen.id + (1 << 50), u64::MAX].map(|id| id.to_string());
        let opened = ids.chain(future).map(async |id| {
            let mut subscriber = Subscriber::open_after(&host, "messages:list", &args, Some(&id)).await;
            (bodies(&subscriber.next().await.data).len(), id)
        });
        for (shown, id) in join_all(opened).await {
            assert_eq!(shown, 1, "{id:?}");
        }
    });
}
