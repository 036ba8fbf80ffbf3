//! An empty query in a fresh instance: inside the host, and with bare wasmtime, the same component and the same pool.
//!
//! `cargo run --release -p convoke-bench --bin instantiate -- COMPONENT.wasm FUNCTION`

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use convoke_engine::{CacheDirs, Call, Clock, ComponentVersion, Engine, Room};
use convoke_model::{Kind, Limits};
use wasmtime::component::{Component, ComponentExportIndex, ComponentType, InstancePre, Lift, Linker};
use wasmtime::{Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig, Store};

const ROUNDS: usize = 40;
const CALLS_A_ROUND: u32 = 4_000;

#[derive(Parser)]
struct Arguments {
    /// The component.
    wasm: PathBuf,
    /// A query of it that takes no arguments and does nothing.
    #[arg(default_value = "empty")]
    function: String,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let wasm = std::fs::read(&arguments.wasm).with_context(|| arguments.wasm.display().to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let bare = Bare::new(&wasm)?;
    let cache_dir = std::env::temp_dir().join(format!("convoke-bench-{}", std::process::id()));
    let host = Engine::new(Limits::default(), CacheDirs::private(cache_dir.clone()))?;
    let version = runtime.block_on(host.load(wasm))?;

    let (mut bare_times, mut host_times) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let bare_time = bare.round(&arguments.function)?;
        let host_time = runtime.block_on(host_round(&host, &version, &arguments.function))?;
        // The first round warms both.
        if round > 0 {
            bare_times.push(bare_time);
            host_times.push(host_time);
        }
    }
    std::fs::remove_dir_all(cache_dir)?;
    let (bare, host) = (summary(&mut bare_times), summary(&mut host_times));
    println!("bare wasmtime  min {:.2} µs  median {:.2} µs", bare.0, bare.1);
    println!("Convoke        min {:.2} µs  median {:.2} µs", host.0, host.1);
    println!("ratio          min {:.2}     median {:.2}", host.0 / bare.0, host.1 / bare.1);
    Ok(())
}

async fn host_round(engine: &Engine, version: &ComponentVersion, function: &str) -> anyhow::Result<Duration> {
    let start = Instant::now();
    for _ in 0..CALLS_A_ROUND {
        let call = Call {
            kind: Kind::Query,
            room: Room::Entry,
            function,
            args: "{}",
            request_id: "0123456789abcdef",
            deadline: Instant::now() + Duration::from_secs(10),
            clock: Clock { now_ms: 0.0, seed: [0; 32] },
            database: None,
            outside: None,
        };
        let outcome = engine.call(version, call).await;
        outcome.result.map_err(|error| anyhow::anyhow!("{error:?}"))?;
    }
    Ok(start.elapsed())
}

struct Bare {
    engine: wasmtime::Engine,
    pre: InstancePre<()>,
    call: ComponentExportIndex,
}

/// The record `error` of the WIT.
#[derive(ComponentType, Lift)]
#[component(record)]
#[expect(dead_code, reason = "an empty query returns none")]
struct GuestError {
    code: String,
    message: String,
    data: Option<String>,
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that `map_err` takes")]
fn plain(error: wasmtime::Error) -> anyhow::Error {
    anyhow::anyhow!("{error:?}")
}

impl Bare {
    fn new(wasm: &[u8]) -> anyhow::Result<Self> {
        let mut pool = PoolingAllocationConfig::default();
        pool.max_memory_size(64 << 20).linear_memory_keep_resident(1 << 20).table_keep_resident(1 << 20);
        if PoolingAllocationConfig::is_pagemap_scan_available() {
            pool.pagemap_scan(Enabled::Yes);
        }
        let mut config = Config::new();
        config
            .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
            .concurrency_support(false)
            .epoch_interruption(true);
        let engine = wasmtime::Engine::new(&config).map_err(plain)?;
        let component = Component::new(&engine, wasm).map_err(plain)?;
        let mut linker = Linker::new(&engine);
        linker.define_unknown_imports_as_traps(&component).map_err(plain)?;
        let pre = linker.instantiate_pre(&component).map_err(plain)?;
        let interface =
            component.get_export_index(None, "convoke:runtime/functions@0.1.0").context("no interface `functions`")?;
        let call = component.get_export_index(Some(&interface), "call").context("no function `call`")?;
        Ok(Self { engine, pre, call })
    }

    fn round(&self, function: &str) -> anyhow::Result<Duration> {
        let start = Instant::now();
        for _ in 0..CALLS_A_ROUND {
            self.once(function).map_err(plain)?;
        }
        Ok(start.elapsed())
    }

    fn once(&self, function: &str) -> wasmtime::Result<()> {
        let mut store = Store::new(&self.engine, ());
        store.set_epoch_deadline(1_000_000);
        let instance = self.pre.instantiate(&mut store)?;
        let call = instance.get_typed_func::<(&str, &str), (Result<String, GuestError>,)>(&mut store, self.call)?;
        let (answer,) = call.call(&mut store, (function, "{}"))?;
        answer.map(|_| ()).map_err(|error| wasmtime::Error::msg(error.message))
    }
}

/// The least and the middle time of a call, in microseconds.
fn summary(rounds: &mut [Duration]) -> (f64, f64) {
    rounds.sort_unstable();
    let micros = |round: Duration| round.as_secs_f64() * 1e6 / f64::from(CALLS_A_ROUND);
    (micros(rounds[0]), micros(rounds[rounds.len() / 2]))
}
