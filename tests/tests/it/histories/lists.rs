//! Random transactions append to a few lists and read them; the checker looks for cycles.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::checker::{Fate, Op, Transaction, check};
use super::{Door, ask, make, settings, start};
use crate::harness::{TestHost, run};

const LISTS: usize = 4;
const CLIENTS: usize = 16;

/// Which writes there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writes {
    /// Each reads its list first.
    Reading,
    /// Some append without a reading.
    Commuting,
}

#[test]
fn histories_with_readings_have_no_cycle() {
    run(no_cycle(Writes::Reading));
}

#[test]
fn histories_with_commuting_updates_have_no_cycle() {
    run(no_cycle(Writes::Commuting));
}

async fn no_cycle(writes: Writes) {
    let (time, seed) = settings();
    let host = start().await;
    let names: Vec<String> = (0..LISTS).map(|list| format!("list {list}")).collect();
    let ids = make(&host, "make_lists", json!({ "names": names })).await;
    let ids = ids.as_array().expect("ids");
    let until = Instant::now() + time;
    let clients = (0..CLIENTS).map(|number| Client { host: &host, number, ids, seed, writes }.work(until));
    let transactions: Vec<Transaction> = join_all(clients).await.into_iter().flatten().collect();
    let last = numbers(&ask(&host, "lists_read", &json!({ "ids": ids })).await);
    let last: BTreeMap<usize, Vec<i64>> = last.into_iter().enumerate().collect();
    let anomalies = check(&transactions, &last);
    assert!(anomalies.is_empty(), "seed {seed}, of {} transactions: {anomalies:?}", transactions.len());
    let committed = transactions.iter().filter(|it| it.fate == Fate::Committed).count();
    assert!(committed >= 100, "seed {seed}: only {committed} transactions committed");
    assert!(last.values().all(|values| values.len() > 5), "seed {seed}: hardly anything was written");
}

struct Client<'a> {
    host: &'a Arc<TestHost>,
    number: usize,
    ids: &'a [Value],
    seed: u64,
    writes: Writes,
}

impl Client<'_> {
    async fn work(self, until: Instant) -> Vec<Transaction> {
        let mut random = StdRng::seed_from_u64(self.seed ^ (self.number as u64) << 32);
        let mut door = Door::of(self.host, self.number);
        let mut next = self.number.cast_signed() as i64;
        let mut done = Vec::new();
        while Instant::now() < until {
            let transaction = match random.random_range(0..10) {
                0..3 => self.query(&mut random).await,
                3..6 if self.writes == Writes::Commuting => {
                    let ops = self.ops(&mut random, &mut next, 0.0);
                    self.mutation(&mut door, ops, |_| "add").await
                }
                _ => {
                    let ops = self.ops(&mut random, &mut next, 0.5);
                    let adds = self.writes == Writes::Commuting && random.random_bool(0.3);
                    self.mutation(&mut door, ops, |_| if adds { "add" } else { "append" }).await
                }
            };
            done.push(transaction);
        }
        done
    }

    /// A few steps, each of which reads with this probability.
    fn ops(&self, random: &mut StdRng, next: &mut i64, reads: f64) -> Vec<Op> {
        let steps = random.random_range(1..=3);
        let mut step = || {
            let list = random.random_range(0..self.ids.len());
            if random.random_bool(reads) {
                return Op::Read(list, Vec::new());
            }
            *next += CLIENTS.cast_signed() as i64;
            Op::Append(list, *next)
        };
        (0..steps).map(|_| step()).collect()
    }

    async fn mutation(&self, door: &mut Door, mut ops: Vec<Op>, how: impl Fn(usize) -> &'static str) -> Transaction {
        let steps: Vec<Value> = ops
            .iter()
            .map(|op| match op {
                Op::Read(list, _) => json!({ "read": self.ids[*list] }),
                Op::Append(list, value) => json!({ how(*list): self.ids[*list], "value": value }),
            })
            .collect();
        let fate = match door.mutate("lists_run", json!({ "steps": steps })).await {
            Ok(read) => {
                let mut read = numbers(&read).into_iter();
                for op in &mut ops {
                    if let Op::Read(_, found) = op {
                        *found = read.next().expect("a result for each read");
                    }
                }
                Fate::Committed
            }
            Err(words) => {
                ops.retain(|op| matches!(op, Op::Append(..)));
                if words.contains("UNKNOWN_OUTCOME") { Fate::Unknown } else { Fate::Undone }
            }
        };
        Transaction { fate, ops }
    }

    async fn query(&self, random: &mut StdRng) -> Transaction {
        let lists: Vec<usize> = (0..self.ids.len()).filter(|_| random.random_bool(0.6)).collect();
        let ids: Vec<&Value> = lists.iter().map(|list| &self.ids[*list]).collect();
        let function = if random.random_bool(0.5) { "lists_read" } else { "lists_read_at_once" };
        let found = ask(self.host, function, &json!({ "ids": ids })).await;
        let ops = lists.into_iter().zip(numbers(&found)).map(|(list, found)| Op::Read(list, found)).collect();
        Transaction { fate: Fate::Committed, ops }
    }
}

fn numbers(lists: &Value) -> Vec<Vec<i64>> {
    serde_json::from_value(lists.clone()).expect("lists of numbers")
}
