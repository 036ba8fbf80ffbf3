//! What a client is shown while its mutation runs.

use serde_json::json;

use super::Socket;
use crate::harness::{TestHost, run};

#[test]
fn subscriptions_go_on_while_a_mutation_runs() {
    run(async {
        let host = TestHost::start(&["messages", "accounts"]).await;
        host.mutation("accounts:seed", json!({ "accounts": 2, "balance": 100 })).await.data();
        let mut socket = Socket::open(&host).await;
        socket.subscribe(0, "messages:list", &json!({ "channel": "c" })).await;
        assert_eq!(socket.next_result().await["value"], json!([]));

        let lock = host.psql().await;
        // Already its first read waits.
        let begin = "begin; lock table demo.accounts in access exclusive mode";
        lock.batch_execute(begin).await.expect("a lock");
        socket.mutate(0, "accounts:transfer", &json!({ "from": 0, "to": 1, "amount": 1 })).await;
        // The others do not wait for it.
        let waits = "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        let watch = host.psql().await;
        while watch.query(waits, &[]).await.expect("an answer").is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        host.mutation("messages:send", json!({ "channel": "c", "author": "a", "body": "meanwhile" })).await.data();
        let shown = socket.next_result().await;
        assert_eq!(shown["value"][0]["body"], "meanwhile", "{shown}");

        lock.batch_execute("rollback").await.expect("the end of it");
        assert_eq!(socket.next_of("MutationResponse").await["success"], true);
    });
}

#[test]
fn no_transition_shows_a_mutation_before_its_answer() {
    run(async {
        let host = TestHost::start(&["messages"]).await;
        let mut socket = Socket::open(&host).await;
        socket.subscribe(0, "messages:list", &json!({ "channel": "c", "limit": 1000 })).await;
        socket.next_result().await;
        for id in 0..100 {
            let own = format!("own {id}");
            let args = |body: &str| json!({ "channel": "c", "author": "a", "body": body });
            socket.mutate(id, "messages:send", &args(&own)).await;
            // Others write at the same time, so that there is always something to show.
            let others = host.mutation("messages:send", args("other"));
            let answer = async {
                loop {
                    let super::Said::Message(message) = socket.next().await else { panic!("closed") };
                    match message["type"].as_str() {
                        Some("MutationResponse") => return,
                        _ => assert!(!message.to_string().contains(&format!("\"{own}\"")), "{message}"),
                    }
                }
            };
            futures_util::future::join(others, answer).await.0.data();
            // And after it, it is shown.
            while !socket.next_of("Transition").await.to_string().contains(&format!("\"{own}\"")) {}
        }
    });
}
