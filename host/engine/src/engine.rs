//! The two wasmtime engines of a process, their pools and their linkers.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use convoke_model::{Kind, LimitError, Limits};
use thiserror::Error;
use wasmtime::component::{HasSelf, Linker};
use wasmtime::{Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::bindings::Component;
use crate::cache::{Cache, CacheDirs};
use crate::rooms::Rooms;
use crate::state::State;

/// The clock of epoch deadlines. A guest that computes gives way to other calls this often.
pub(crate) const TICK: Duration = Duration::from_millis(5);

/// Core instances of one component: a Rust guest has 4, a Python guest 38.
const CORE_INSTANCES_MAX: u32 = 64;
/// Memories and tables of one component: one that is composed of two has twice what a guest has. The pools have as many
/// for each instance.
const MEMORIES_MAX: u32 = 2;
const TABLES_MAX: u32 = 4;
/// Memory that a pool slot keeps between calls. With `pagemap_scan` only what was written is reset, so more is kept;
/// without it all of it is, so that less is faster (128 KiB: 9.5 µs for an instance, 1 MiB: 21 µs, plain 12 µs).
const KEEP_BYTES_SCAN: usize = 1 << 20;
const KEEP_BYTES_PLAIN: usize = 128 << 10;
/// Room of a fibre above the guest's own stack, for host imports.
const HOST_STACK_BYTES: usize = 1 << 20;

/// How a process's engines are made.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// What no project's limits exceed. `instances_max` is for all projects together.
    pub limits: Limits,
    /// Projects that have a share at a time.
    pub projects_max: u32,
    pub cache: CacheDirs,
}

/// How instances' memory is reset between calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    /// By Linux' `PAGEMAP_SCAN` (6.7 and later): only what was written.
    PagemapScan,
    /// By copying over the kept part.
    Plain,
}

/// Why no engine could be made.
#[derive(Debug, Error)]
pub enum EngineError {
    #[error(transparent)]
    Limit(#[from] LimitError),
    #[error("wasmtime refuses the configuration")]
    Wasmtime(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the cache of compiled components at {path} cannot be used")]
    Cache {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the clock of deadlines cannot be started")]
    Clock(#[source] std::io::Error),
    #[error("the engines have no room for the project")]
    Share(#[source] ShareError),
}

/// Why a project got no share of the engines.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ShareError {
    #[error(transparent)]
    OutOfRange(#[from] LimitError),
    #[error("`{limit}` is {wanted}, and the process has at most {max}")]
    Limit { limit: &'static str, wanted: u64, max: u64 },
    #[error("{wanted} instances are wanted, and the other projects of the process leave {left}")]
    Instances { wanted: u32, left: u32 },
    #[error("the process is made for {0} projects at a time")]
    Projects(u32),
}

/// A process's engines, made once; projects call them by their shares. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Engines {
    inner: Arc<Inner>,
}

/// A project's share of a process's engines: its limits, and its places in the pools. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
    pub(crate) share: Arc<Share>,
}

#[derive(Debug)]
pub(crate) struct Share {
    pub(crate) limits: Arc<Limits>,
    pub(crate) rooms: Rooms,
    /// What it gives back.
    engines: Arc<Inner>,
}

pub(crate) struct Inner {
    /// For queries, mutations and rules: without the machinery of concurrent tasks, which triples an empty call.
    pub(crate) synchronous: Lane,
    /// For actions.
    pub(crate) concurrent: Lane,
    pub(crate) cache: Cache,
    /// What every share keeps to.
    limits: Limits,
    projects_max: u32,
    /// What has not been shared out.
    instances_left: AtomicU32,
    projects_left: AtomicU32,
    reset: Reset,
    stopped: Arc<AtomicBool>,
}

/// One engine with its pool. Actions wait for queries and mutations, so the two never share a pool: else enough
/// actions would hold every slot that their own calls wait for.
pub(crate) struct Lane {
    pub(crate) engine: wasmtime::Engine,
    pub(crate) linker: Linker<State>,
}

impl Engines {
    /// Makes the engines and starts the clock of their deadlines.
    ///
    /// # Errors
    /// When a limit is beyond its bound, wasmtime refuses the configuration (address space is short), or the cache
    /// cannot be used.
    pub fn new(options: EngineOptions) -> Result<Self, EngineError> {
        let EngineOptions { limits, projects_max, cache } = options;
        limits.check()?;
        let path = cache.compiled.clone();
        let cache = Cache::open(cache).map_err(|source| EngineError::Cache { path, source })?;
        let reset =
            if PoolingAllocationConfig::is_pagemap_scan_available() { Reset::PagemapScan } else { Reset::Plain };
        let instances = (Rooms::synchronous(&limits, projects_max), Rooms::concurrent(&limits, projects_max));
        let synchronous = Lane::new(&limits, instances.0, reset, false).map_err(refused)?;
        let concurrent = Lane::new(&limits, instances.1, reset, true).map_err(refused)?;
        let stopped = Arc::new(AtomicBool::new(false));
        start_clock([synchronous.engine.weak(), concurrent.engine.weak()], Arc::clone(&stopped))?;
        let instances_left = AtomicU32::new(limits.instances_max);
        let projects_left = AtomicU32::new(projects_max);
        let inner = Inner {
            synchronous,
            concurrent,
            cache,
            limits,
            projects_max,
            instances_left,
            projects_left,
            reset,
            stopped,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// A project's share: `instances_max` of the instances are its alone, until the last clone is dropped.
    ///
    /// # Errors
    /// When the limits exceed those of the process, or what the other projects leave.
    pub fn share(&self, limits: Limits) -> Result<Engine, ShareError> {
        limits.check()?;
        let most = &self.inner.limits;
        let bounded = [
            ("memory_bytes_max", limits.memory_bytes_max as u64, most.memory_bytes_max as u64),
            ("table_elements_max", limits.table_elements_max as u64, most.table_elements_max as u64),
            ("stack_bytes_max", limits.stack_bytes_max as u64, most.stack_bytes_max as u64),
            ("action_depth_max", limits.action_depth_max.into(), most.action_depth_max.into()),
        ];
        if let Some((limit, wanted, max)) = bounded.into_iter().find(|(_, wanted, max)| wanted > max) {
            return Err(ShareError::Limit { limit, wanted, max });
        }
        take(&self.inner.projects_left, 1).map_err(|_| ShareError::Projects(self.inner.projects_max))?;
        let wanted = limits.instances_max;
        if let Err(left) = take(&self.inner.instances_left, wanted) {
            self.inner.projects_left.fetch_add(1, Ordering::Relaxed);
            return Err(ShareError::Instances { wanted, left });
        }
        let rooms = Rooms::new(&limits);
        let share = Arc::new(Share { limits: Arc::new(limits), rooms, engines: Arc::clone(&self.inner) });
        Ok(Engine { inner: Arc::clone(&self.inner), share })
    }

    /// How this machine resets instances; the plain way is several times slower.
    pub fn reset(&self) -> Reset {
        self.inner.reset
    }
}

/// Takes so many of what is left, or tells how many there are.
fn take(left: &AtomicU32, wanted: u32) -> Result<u32, u32> {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(wanted))
}

impl Drop for Share {
    fn drop(&mut self) {
        self.engines.instances_left.fetch_add(self.limits.instances_max, Ordering::Relaxed);
        self.engines.projects_left.fetch_add(1, Ordering::Relaxed);
    }
}

impl Engine {
    /// Engines for one project alone.
    ///
    /// # Errors
    /// Those of [`Engines::new`].
    pub fn new(limits: Limits, cache: CacheDirs) -> Result<Self, EngineError> {
        let engines = Engines::new(EngineOptions { limits: limits.clone(), projects_max: 1, cache })?;
        engines.share(limits).map_err(EngineError::Share)
    }

    pub fn limits(&self) -> &Arc<Limits> {
        &self.share.limits
    }

    pub(crate) fn lane(&self, kind: Kind) -> &Lane {
        match kind {
            Kind::Query | Kind::Mutation | Kind::Rule => &self.inner.synchronous,
            Kind::Action => &self.inner.concurrent,
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Engine").field("reset", &self.reset).finish_non_exhaustive()
    }
}

impl Lane {
    fn new(limits: &Limits, instances: u32, reset: Reset, concurrency: bool) -> wasmtime::Result<Self> {
        let engine = wasmtime::Engine::new(&configure(limits, instances, reset, concurrency))?;
        let mut linker = Linker::new(&engine);
        Component::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
        crate::wasi::add_to_linker(&mut linker)?;
        Ok(Self { engine, linker })
    }
}

fn configure(limits: &Limits, instances: u32, reset: Reset, concurrency: bool) -> Config {
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(CORE_INSTANCES_MAX))
        .total_memories(instances.saturating_mul(MEMORIES_MAX))
        .total_tables(instances.saturating_mul(TABLES_MAX))
        .total_stacks(instances)
        .max_core_instances_per_component(CORE_INSTANCES_MAX)
        .max_memories_per_component(MEMORIES_MAX)
        .max_tables_per_component(TABLES_MAX)
        .max_memory_size(limits.memory_bytes_max)
        .table_elements(limits.table_elements_max)
        .max_unused_warm_slots(instances);
    match reset {
        Reset::PagemapScan => pool
            .pagemap_scan(Enabled::Yes)
            .linear_memory_keep_resident(KEEP_BYTES_SCAN)
            .table_keep_resident(KEEP_BYTES_SCAN),
        Reset::Plain => pool.linear_memory_keep_resident(KEEP_BYTES_PLAIN).table_keep_resident(KEEP_BYTES_PLAIN),
    };
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .concurrency_support(concurrency)
        .epoch_interruption(true)
        .memory_init_cow(true)
        .max_wasm_stack(limits.stack_bytes_max)
        .async_stack_size(limits.stack_bytes_max + HOST_STACK_BYTES)
        // One memory, addressed by 32 bits, one thread: what a function needs, and what the pool is tuned for.
        .wasm_memory64(false)
        .wasm_multi_memory(false);
    config
}

/// One thread for both engines; it ends with them.
fn start_clock(engines: [wasmtime::EngineWeak; 2], stopped: Arc<AtomicBool>) -> Result<(), EngineError> {
    let tick = move || {
        while !stopped.load(Ordering::Relaxed) {
            #[expect(clippy::disallowed_methods, reason = "the thread is the clock's own and does nothing but sleep")]
            std::thread::sleep(TICK);
            for engine in engines.iter().filter_map(wasmtime::EngineWeak::upgrade) {
                engine.increment_epoch();
            }
        }
    };
    std::thread::Builder::new().name("epoch".to_owned()).spawn(tick).map(|_| ()).map_err(EngineError::Clock)
}

fn refused(error: wasmtime::Error) -> EngineError {
    EngineError::Wasmtime(error.into())
}
