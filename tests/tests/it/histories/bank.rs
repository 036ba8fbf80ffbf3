//! Money is moved, by reading and without; all who look count the same sum.

use std::sync::Arc;

use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Door, ask, make, settings, start};
use crate::harness::{TestHost, run};

const ACCOUNTS: i64 = 6;
const EACH: i64 = 100;

fn sum(balances: &Value) -> i64 {
    balances.as_array().expect("balances").iter().map(|balance| balance.as_i64().expect("a number")).sum()
}

#[test]
fn all_who_look_count_the_same() {
    run(async {
        let (time, seed) = settings();
        let host = start().await;
        let ids = make(&host, "make_accounts", json!({ "count": ACCOUNTS, "balance": EACH })).await;
        let ids: Arc<Vec<Value>> = Arc::new(ids.as_array().expect("ids").clone());
        let until = Instant::now() + time / 2;
        let moving = (0..8).map(|client| move_money(&host, client, &ids, seed, until));
        let looking = (0..3).map(|client| look(&host, client, &ids, seed, until));
        let (moved, looked) = tokio::join!(join_all(moving), join_all(looking));
        let (moved, looked): (usize, usize) = (moved.into_iter().sum(), looked.into_iter().sum());
        assert_eq!(sum(&ask(&host, "balances", &json!({})).await), EACH * ACCOUNTS, "seed {seed}");
        assert!(moved >= 20 && looked >= 20, "seed {seed}: {moved} moves, {looked} looks");
    });
}

async fn move_money(host: &Arc<TestHost>, client: usize, ids: &[Value], seed: u64, until: Instant) -> usize {
    let mut random = StdRng::seed_from_u64(seed ^ client as u64);
    let mut door = Door::of(host, client);
    let mut moved = 0;
    while Instant::now() < until {
        let from = random.random_range(0..ids.len());
        let to = (from + random.random_range(1..ids.len())) % ids.len();
        let function = if random.random_bool(0.5) { "transfer" } else { "transfer_blindly" };
        let args = json!({ "from": ids[from], "to": ids[to], "amount": random.random_range(1..20) });
        let done = door.mutate(function, args).await;
        moved += usize::from(done.is_ok());
    }
    moved
}

async fn look(host: &Arc<TestHost>, client: usize, ids: &[Value], seed: u64, until: Instant) -> usize {
    let mut looked = 0;
    while Instant::now() < until {
        let seen = match client {
            0 => ask(host, "balances", &json!({})).await,
            _ => ask(host, "balances_of", &json!({ "ids": ids })).await,
        };
        assert_eq!(sum(&seen), EACH * ACCOUNTS, "seed {seed}: {seen}");
        looked += 1;
    }
    looked
}
