//! `/healthz`, `/readyz` and `/metrics`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use serde_json::json;

use crate::host::Host;
use crate::respond;

/// Longer than this, and a load balancer has given up on the answer.
const DATABASE_MAX: Duration = Duration::from_secs(2);
/// Prometheus' own.
const METRICS_TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// The process answers.
pub(crate) async fn alive() -> Response {
    respond::json(StatusCode::OK, r#"{"ok":true}"#)
}

/// Calls can be served; else why not.
pub(crate) async fn ready(State(host): State<Arc<Host>>) -> Response {
    let mut reasons = Vec::new();
    if host.deployments.current().is_empty() {
        reasons.push("no functions are deployed yet".to_owned());
    }
    match tokio::time::timeout(DATABASE_MAX, host.store.ready()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(error, "not ready: the database cannot be reached");
            reasons.push("the database cannot be reached".to_owned());
        }
        Err(_) => reasons.push("the database does not answer in time".to_owned()),
    }
    if reasons.is_empty() {
        respond::json(StatusCode::OK, r#"{"ready":true}"#)
    } else {
        let body = json!({ "ready": false, "reasons": reasons }).to_string();
        respond::json(StatusCode::SERVICE_UNAVAILABLE, body)
    }
}

/// Prometheus' text.
pub(crate) async fn metrics(State(host): State<Arc<Host>>) -> ([(HeaderName, HeaderValue); 1], String) {
    let mut text = host.metrics.render();
    if let Ok(live) = host.live.get() {
        live.render_metrics(&mut text);
    }
    ([(CONTENT_TYPE, METRICS_TEXT)], text)
}
