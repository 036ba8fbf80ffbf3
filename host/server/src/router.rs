//! The routes, and the server that listens.

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use convoke_model::{Code, Failure};
use tokio::net::TcpListener;
use tower_http::services::ServeDir;

use crate::cors::CorsWhenAsked;
use crate::host::Host;
use crate::respond::Stamp;
use crate::stall::StallListener;
use crate::{clean, convex, health, metrics, openapi, respond, socket, subscribe};

/// The routes of a host.
pub fn router(host: Arc<Host>) -> Router {
    let api = Router::new()
        .route("/query", post(convex::query).get(convex::query_by_get).fallback(get_or_post_only))
        .route("/mutation", post(convex::mutation).fallback(post_only))
        .route("/action", post(convex::action).fallback(post_only))
        .route("/query/{*path}", post(clean::query).fallback(post_only))
        .route("/mutation/{*path}", post(clean::mutation).fallback(post_only))
        .route("/action/{*path}", post(clean::action).fallback(post_only))
        .route("/sync", get(socket::by_header).fallback(get_only))
        .route("/{version}/sync", get(socket::by_version).fallback(get_only))
        .route("/query_ts", post(convex::query_ts).fallback(post_only))
        .route("/query_at_ts", post(convex::query_at_ts).fallback(post_only))
        .route("/query_batch", post(convex::query_batch).fallback(post_only))
        .route("/subscribe/{*path}", get(subscribe::by_get).post(subscribe::by_post).fallback(get_or_post_only))
        .fallback(no_route)
        // As Convex: any page may call, with its own origin mirrored.
        .layer(CorsWhenAsked);
    let router = Router::new()
        .nest("/api", api)
        .route("/healthz", get(health::alive).fallback(get_only))
        .route("/readyz", get(health::ready).fallback(get_only))
        .route("/metrics", get(metrics::text).fallback(get_only))
        .route("/openapi.json", get(openapi::document).fallback(get_only));
    let router = match &host.site_dir {
        Some(directory) => router.fallback_service(ServeDir::new(directory)),
        None => router.fallback(no_route),
    };
    router.with_state(host)
}

/// Serves until `shutdown` ends, then finishes the requests that run. Streams and sockets, which have no end of their own,
/// are ended: their clients come back by themselves.
///
/// # Errors
/// When the listener fails.
pub async fn serve<F>(host: Arc<Host>, listener: TcpListener, shutdown: F) -> io::Result<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = StallListener::new(listener, host.stall_max);
    let stopping = Arc::clone(&host);
    let shutdown = async move {
        shutdown.await;
        stopping.stopping.send_replace(true);
    };
    axum::serve(listener, router(Arc::clone(&host))).with_graceful_shutdown(shutdown).await?;
    // A socket is no request any more: each has a receiver until its calls are answered.
    host.stopping.closed().await;
    Ok(())
}

async fn no_route() -> Response {
    respond::failure(&Failure::caller(Code::NotFound, "there is no such route"), Stamp::new())
}

async fn post_only() -> Response {
    method_not_allowed("POST")
}

async fn get_only() -> Response {
    method_not_allowed("GET")
}

async fn get_or_post_only() -> Response {
    method_not_allowed("GET, POST")
}

fn method_not_allowed(allowed: &'static str) -> Response {
    let failure = Failure::caller(Code::MethodNotAllowed, format!("this route takes {allowed}"));
    let mut response = respond::failure(&failure, Stamp::new());
    debug_assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    response.headers_mut().insert(axum::http::header::ALLOW, axum::http::HeaderValue::from_static(allowed));
    response
}
