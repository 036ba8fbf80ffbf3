//! The routes, and the server that listens.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::header::ORIGIN;
use axum::http::{HeaderName, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use convoke_model::{Code, Failure};
use tower::{Layer, Service};
use tower_http::cors::CorsLayer;
use tower_http::services::ServeDir;

use crate::host::Host;
use crate::respond::{REQUEST_ID, Stamp, VERSION};
use crate::{clean, convex, health, openapi, respond, socket, subscribe};

/// The routes of a host.
pub(crate) fn router(host: Arc<Host>) -> Router {
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
        .fallback(no_route);
    let router = Router::new()
        .nest("/api", api)
        .route("/healthz", get(health::alive).fallback(get_only))
        .route("/readyz", get(health::ready).fallback(get_only))
        .route("/metrics", get(health::metrics).fallback(get_only))
        .route("/openapi.json", get(openapi::document).fallback(get_only));
    let router = match &host.site_dir {
        Some(directory) => router.fallback_service(ServeDir::new(directory)),
        None => router.fallback(no_route),
    };
    router.with_state(host)
}

/// Whether a path is the contract's: other paths are of files, and of who looks after the host.
pub(crate) fn is_api(path: &str) -> bool {
    path.starts_with("/api/")
}

/// Has the routes answer a request, or a refusal.
pub(crate) async fn answer(router: Router, request: Request) -> Response {
    let is_api = is_api(request.uri().path());
    let response = cross_origin(router, request, is_api).await;
    // What never came to a route, as a browser's question whether it may ask, has a name too.
    if is_api && !response.headers().contains_key(REQUEST_ID) { Stamp::new().on(response) } else { response }
}

/// What answers instead of the routes.
pub(crate) fn refusal(failure: Failure) -> Router {
    Router::new().fallback(async move || respond::failure(&failure, Stamp::new()))
}

async fn cross_origin(mut router: Router, request: Request, is_api: bool) -> Response {
    // As Convex: any page may call, with its own origin mirrored, and with credentials. Most callers are no pages, and
    // pay nothing.
    let answered: Result<Response, Infallible> = if is_api && request.headers().contains_key(ORIGIN) {
        let exposed = [REQUEST_ID, VERSION].map(HeaderName::from_static);
        CorsLayer::very_permissive().expose_headers(exposed).layer(router).call(request).await
    } else {
        router.call(request).await
    };
    match answered {
        Ok(response) => response,
        Err(never) => match never {},
    }
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
