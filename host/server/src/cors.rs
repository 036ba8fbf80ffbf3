//! Cross-origin rules, for requests that have an origin: most do not, and pay nothing.

use std::task::{Context, Poll};

use axum::http::Request;
use axum::http::header::ORIGIN;
use futures_util::future::Either;
use tower::{Layer, Service};
use tower_http::cors::{Cors, CorsLayer};

/// Mirrors the origin and the headers that a browser asks for, as Convex does: any page may call, with credentials.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CorsWhenAsked;

impl<S> Layer<S> for CorsWhenAsked {
    type Service = CorsService<S>;

    fn layer(&self, inner: S) -> CorsService<S> {
        CorsService { inner }
    }
}

/// A service with [`CorsWhenAsked`] in front.
#[derive(Debug, Clone)]
pub(crate) struct CorsService<S> {
    inner: S,
}

impl<S, RequestBody, ResponseBody> Service<Request<RequestBody>> for CorsService<S>
where
    S: Service<Request<RequestBody>, Response = axum::http::Response<ResponseBody>> + Clone,
    ResponseBody: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<<Cors<S> as Service<Request<RequestBody>>>::Future, S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        if request.headers().contains_key(ORIGIN) {
            // The service that was made ready answers; a clone of it takes its place.
            let next = self.inner.clone();
            let ready = std::mem::replace(&mut self.inner, next);
            Either::Left(CorsLayer::very_permissive().layer(ready).call(request))
        } else {
            Either::Right(self.inner.call(request))
        }
    }
}
