//! The figures of a project, for Prometheus.

use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use tokio::time::sleep;

/// Seconds. From what a kept result takes to what an action may take.
const BUCKETS: &[f64] =
    &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// How often what was measured goes into its buckets: until then each measurement takes 8 bytes.
const UPKEEP_EVERY: Duration = Duration::from_secs(1);

/// Keeps the figures of one project.
pub(crate) fn recorder() -> PrometheusRecorder {
    // Refused is only an empty list of buckets.
    PrometheusBuilder::new().set_buckets(BUCKETS).unwrap_or_default().build_recorder()
}

/// Sorts the measurements into their buckets from time to time, as long as their owner lives.
pub(crate) fn keep_up<T: Send + Sync + 'static>(figures: PrometheusHandle, owner: &Arc<T>) {
    let owner = Arc::downgrade(owner);
    tokio::spawn(async move {
        while owner.strong_count() > 0 {
            figures.run_upkeep();
            sleep(UPKEEP_EVERY).await;
        }
    });
}
