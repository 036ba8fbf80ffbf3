//! Mutations are serialisable, and what queries show is of the same serial order: histories made through HTTP and sockets, at
//! random and by schedules that are known to break lesser promises.
//!
//! `CONVOKE_HISTORIES_SECONDS` and `CONVOKE_HISTORIES_SEED` make the random ones longer, and others.

mod bank;
mod batches;
mod checker;
mod lists;
mod skew;

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio_postgres::Client;

use crate::harness::TestHost;
use crate::socket_client::SocketClient;

/// Through which a client calls.
pub(crate) enum Door {
    Http(Arc<TestHost>),
    Socket(Box<SocketClient>),
}

impl Door {
    /// Every second client has a socket.
    fn of(host: &Arc<TestHost>, client: usize) -> Self {
        if client.is_multiple_of(2) {
            Self::Http(Arc::clone(host))
        } else {
            Self::Socket(Box::new(SocketClient::new(host)))
        }
    }

    /// The result, or the words of the error.
    async fn mutate(&mut self, function: &str, args: Value) -> Result<Value, String> {
        let path = format!("histories:{function}");
        match self {
            Self::Socket(client) => client.mutate(&path, &args).await,
            Self::Http(host) => {
                let answer = host.mutation(&path, args).await;
                if answer.status == 200 { Ok(answer.data().clone()) } else { Err(answer.body.to_string()) }
            }
        }
    }
}

/// How long a random history is made, and its seed.
fn settings() -> (Duration, u64) {
    let setting = |name: &str| std::env::var(name).ok()?.parse().ok();
    let seconds = setting("CONVOKE_HISTORIES_SECONDS").unwrap_or(5);
    (Duration::from_secs(seconds), setting("CONVOKE_HISTORIES_SEED").unwrap_or_else(rand::random))
}

async fn start() -> Arc<TestHost> {
    Arc::new(TestHost::with(&["histories"], |config| config.connections_max = 16).await)
}

async fn make(host: &TestHost, function: &str, args: Value) -> Value {
    host.mutation(&format!("histories:{function}"), args).await.data().clone()
}

async fn ask(host: &TestHost, function: &str, args: &Value) -> Value {
    host.query(&format!("histories:{function}"), args.clone()).await.data().clone()
}

/// A row that is held, so that whoever changes it waits at its commit.
struct HeldGate {
    psql: Client,
}

impl HeldGate {
    async fn hold(host: &TestHost, gate: &Value) -> Self {
        let psql = host.psql().await;
        psql.batch_execute("begin").await.expect("a transaction");
        let lock = "select 1 from demo.gates where _id = convoke.uuid($1) for update";
        assert_eq!(psql.execute(lock, &[&gate.as_str()]).await.expect("a lock"), 1);
        Self { psql }
    }

    /// Waits until somebody waits for the row.
    async fn until_waited_for(&self) {
        let waits = "select count(*) from pg_stat_activity where pg_backend_pid() = any(pg_blocking_pids(pid))";
        for _ in 0..1_000 {
            if self.psql.query_one(waits, &[]).await.expect("a count").get::<_, i64>(0) > 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("nobody comes to the gate");
    }

    async fn open(self) {
        // Nothing was changed, so that it is no reason for a conflict.
        self.psql.batch_execute("rollback").await.expect("an end");
    }
}
