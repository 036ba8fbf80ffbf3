//! `GET /metrics`: Prometheus' text.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, HeaderValue};

use crate::host::Host;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

pub(crate) async fn text(State(host): State<Arc<Host>>) -> ([(HeaderName, HeaderValue); 1], String) {
    let mut text = String::new();
    if let Ok(live) = host.live.get() {
        live.render_metrics(&mut text);
    }
    ([(CONTENT_TYPE, TEXT)], text)
}
