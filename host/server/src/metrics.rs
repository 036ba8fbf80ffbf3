//! `GET /metrics`: Prometheus' text.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, HeaderValue};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use tokio::time::sleep;

use crate::host::Host;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
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

/// Sorts the measurements into their buckets from time to time, as long as the host lives.
pub(crate) fn keep_up(host: &Arc<Host>) {
    let host = Arc::downgrade(host);
    tokio::spawn(async move {
        loop {
            sleep(UPKEEP_EVERY).await;
            let Some(host) = host.upgrade() else { return };
            host.metrics.run_upkeep();
        }
    });
}

pub(crate) async fn text(State(host): State<Arc<Host>>) -> ([(HeaderName, HeaderValue); 1], String) {
    let mut text = host.metrics.render();
    if let Ok(live) = host.live.get() {
        live.render_metrics(&mut text);
    }
    ([(CONTENT_TYPE, TEXT)], text)
}
