//! What an operator may want to know of live queries, as Prometheus reads it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

/// Counters of a host's live queries.
#[derive(Debug, Default)]
pub struct LiveMetrics {
    pub(crate) cache_hits: AtomicU64,
    pub(crate) cache_misses: AtomicU64,
    /// By path, which needs no quoting: it is of a function that was deployed.
    by_function: Mutex<BTreeMap<Arc<str>, PerFunction>>,
}

#[derive(Debug, Default, Clone, Copy)]
struct PerFunction {
    evaluations: u64,
    reruns: u64,
}

/// What is counted at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gauges {
    pub subscriptions: usize,
    /// Queries whose result is kept, subscribed or not.
    pub queries: usize,
    pub cached_bytes: usize,
    /// All results, whoever holds them.
    pub results_bytes: usize,
    /// What recent transactions wrote.
    pub history_bytes: usize,
}

impl LiveMetrics {
    pub(crate) fn evaluated(&self, path: &Arc<str>, again: bool) {
        let mut functions = self.by_function.lock();
        let function = functions.entry(Arc::clone(path)).or_default();
        function.evaluations += 1;
        function.reruns += u64::from(again);
    }

    /// Drops the counters of all other functions.
    pub(crate) fn keep_functions(&self, is_there: impl Fn(&str) -> bool) {
        self.by_function.lock().retain(|path, _| is_there(path));
    }

    /// Runs of queries for subscribers and the cache, all functions together.
    pub fn evaluations(&self) -> u64 {
        self.by_function.lock().values().map(|function| function.evaluations).sum()
    }

    /// Plain queries that were answered without a run.
    pub fn cache_hits(&self) -> u64 {
        self.cache_hits.load(Relaxed)
    }

    pub(crate) fn render(&self, gauges: Gauges, out: &mut String) {
        let mut line = |name: &str, kind: &str, help: &str, value: u64| {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        };
        line("convoke_subscriptions", "gauge", "Open subscriptions.", gauges.subscriptions as u64);
        line("convoke_live_queries", "gauge", "Queries whose result is kept.", gauges.queries as u64);
        line("convoke_query_cache_bytes", "gauge", "Results kept without a subscriber.", gauges.cached_bytes as u64);
        let results = gauges.results_bytes as u64;
        line("convoke_live_results_bytes", "gauge", "All results of queries, whoever holds them.", results);
        let history = gauges.history_bytes as u64;
        line("convoke_live_history_bytes", "gauge", "What recent transactions wrote, kept for comparison.", history);
        line("convoke_query_cache_hits_total", "counter", "Queries answered without a run.", self.cache_hits());
        let misses = self.cache_misses.load(Relaxed);
        line("convoke_query_cache_misses_total", "counter", "Queries that had to run.", misses);
        for (name, help, get) in [
            ("convoke_evaluations_total", "Runs of live queries.", (|it| it.evaluations) as fn(&PerFunction) -> u64),
            ("convoke_reruns_total", "Runs because a result had become stale.", |it| it.reruns),
        ] {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter");
            for (path, function) in self.by_function.lock().iter() {
                let _ = writeln!(out, "{name}{{function=\"{path}\"}} {}", get(function));
            }
        }
    }
}
