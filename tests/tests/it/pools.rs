//! Pools of two: whoever waits holds nothing that others wait for, so that all calls come to an end.

use std::time::Duration;

use convoke_model::Limits;
use convoke_server::ProjectConfig;
use futures_util::future::join_all;
use hyper::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, TestHost, run};
use crate::live::Subscriber;

/// Calls at a time: several times what both pools take.
const CALLS: usize = 24;

/// Two connections and two instances. A call may wait long for an instance, so that `OVERLOADED` says that it was stuck.
fn two_of_each(config: &mut ProjectConfig) {
    config.connections_max = 2;
    config.limits = Limits { instances_max: 2, queue_ms_max: 8_000, ..Limits::default() };
}

async fn all<F: Future<Output = Answer>>(calls: impl IntoIterator<Item = F>) {
    let answered = tokio::time::timeout(Duration::from_mins(1), join_all(calls)).await.expect("all in time");
    for answer in answered {
        answer.data();
    }
}

#[test]
fn upcasts_run_under_a_full_pool() {
    run(async {
        let host = TestHost::with(&[], two_of_each).await;
        let psql = host.psql().await;
        let legacy = "create schema if not exists demo; \
             create table demo.legacy_orders (id bigint primary key, supplier text not null)";
        psql.batch_execute(legacy).await.expect("a table");
        host.deploy(&["library=database-reference"]).await.expect("a deployment");
        // Written behind the backfill: they stay in their old form.
        psql.batch_execute(
            "insert into demo.members (data, _version) select jsonb_build_object('email', n::text, 'first', 'A', 'last', 'B'), 1 \
             from generate_series(1, 24) n",
        )
        .await
        .expect("rows");
        let name = |n: usize| host.query("library:name_of", json!({ "email": n.to_string() }));
        let names = tokio::time::timeout(Duration::from_mins(1), join_all((1..=CALLS).map(name))).await;
        for answer in names.expect("all in time") {
            assert_eq!(answer.data(), "A B");
        }
    });
}

#[test]
fn actions_call_mutations_and_actions() {
    run(async {
        let host = TestHost::with(&["caller", "messages"], two_of_each).await;
        let message = json!({ "channel": "c", "author": "a", "body": "b" });
        let both = json!({
            "mutation": "messages:send", "mutation_args": message, "query": "messages:list", "query_args": { "channel": "c" },
        });
        all((0..CALLS).map(|_| host.action("caller:call_both", both.clone()))).await;
        // Each holds an instance while it waits for the next.
        let nested = (0..3).fold(
            json!({ "name": "caller:call_both", "args": both }),
            |args, _| json!({ "name": "caller:call_action", "args": args }),
        );
        all((0..CALLS).map(|_| host.action("caller:call_action", nested.clone()))).await;
    });
}

/// One with a key looks for its receipt before it runs.
#[test]
fn keyed_mutations_run_beside_others() {
    run(async {
        let host = TestHost::with(&["messages"], two_of_each).await;
        let message = json!({ "channel": "c", "author": "a", "body": "b" });
        let (host, text) = (&host, &message.to_string());
        let keyed = |n: usize| async move {
            let key = format!("key-{n}");
            let headers = [("idempotency-key", key.as_str())];
            let (status, _, body) = host.send_with(Method::POST, "/api/mutation/messages:send", &headers, text).await;
            Answer { status, body }
        };
        for round in 0..3 {
            let plain = (0..CALLS).map(|_| host.mutation("messages:send", message.clone()));
            tokio::join!(all((0..CALLS).map(|n| keyed(round * CALLS + n))), all(plain));
        }
    });
}

#[test]
fn live_rounds_and_plain_calls_share_the_pools() {
    run(async {
        let host = TestHost::with(&["messages"], two_of_each).await;
        let mut subscribers = Vec::new();
        for n in 0..CALLS {
            let mut subscriber = Subscriber::open(&host, "messages:list", &channel(n), None).await;
            subscriber.next().await;
            subscribers.push(subscriber);
        }
        let send = |n: usize| {
            let message = json!({ "channel": n.to_string(), "author": "a", "body": "b" });
            host.mutation("messages:send", message)
        };
        for _ in 0..3 {
            let reads = (0..CALLS).map(|n| host.query("messages:list", channel(n)));
            tokio::join!(all((0..CALLS).map(send)), all(reads));
        }
        for subscriber in &mut subscribers {
            while subscriber.next().await.data["data"].as_array().expect("messages").len() < 3 {}
        }
    });
}

fn channel(n: usize) -> Value {
    json!({ "channel": n.to_string() })
}

#[test]
fn too_few_connections_are_refused() {
    run(async {
        let cluster = convoke_local_postgres::testing::TestCluster::shared().await.expect("a Postgres");
        let postgres = cluster.create_database("it_too_few").await.expect("a database");
        let refused = TestHost::try_on(postgres, |config| config.connections_max = 1).await.expect_err("refused");
        let words = convoke_model::chain(&refused);
        assert!(words.contains("a project needs at least 2"), "{words}");
    });
}
