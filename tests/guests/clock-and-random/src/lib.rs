//! Where time and chance could come in: the host's ways, and those of Rust's standard library.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use convoke::prelude::*;

/// What the host says.
#[value]
struct FromHost {
    now_first: f64,
    now_second: f64,
    bytes: Vec<u8>,
    float: f64,
    below_ten: u32,
    request_id: String,
}

/// What the standard library says.
#[value]
struct FromStandardLibrary {
    hash_seed: u64,
    hash_order: Vec<u32>,
    unix_ms: u128,
    elapsed_ns: u128,
}

/// The time twice, with some work between, and random values.
#[query]
fn from_host(ctx: &QueryCtx) -> FromHost {
    let now_first = ctx.now();
    let bytes = ctx.random().bytes(16);
    FromHost {
        now_first,
        bytes,
        float: ctx.random().f64(),
        below_ten: ctx.random().range(0..10),
        request_id: ctx.request_id(),
        now_second: ctx.now(),
    }
}

/// The same in a mutation.
#[mutation]
fn from_host_in_mutation(ctx: &MutationCtx) -> FromHost {
    from_host(ctx)
}

/// The same in an action, where time goes on.
#[action]
fn now_in_action(ctx: &ActionCtx) -> f64 {
    ctx.now()
}

/// Random bytes, this many: more than the host gives at once make several calls.
#[query]
fn random_bytes(ctx: &QueryCtx, count: u32) -> Vec<u8> {
    ctx.random().bytes(count as usize)
}

/// A seed of a hash table, the order in one, the clock of the wall, and a stop watch.
#[query]
fn from_standard_library(_: &QueryCtx) -> FromStandardLibrary {
    let start = Instant::now();
    let hash_seed = RandomState::new().hash_one(1);
    let table: HashSet<u32> = (0..16).collect();
    let hash_order = table.into_iter().collect();
    let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    FromStandardLibrary { hash_seed, hash_order, unix_ms, elapsed_ns: start.elapsed().as_nanos() }
}
