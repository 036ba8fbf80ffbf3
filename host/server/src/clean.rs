//! `POST /api/{kind}/{module:function}`: the arguments as the body, `{ok, data}` or `{ok, error}` as the answer.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use convoke_invoke::{Answer, Call, Encoding};
use convoke_model::{Failure, Kind};

use crate::body::TextBody;
use crate::caller;
use crate::host::Host;
use crate::respond::{self, Stamp};

/// A function's path, as the address has it.
type Name = Result<Path<String>, PathRejection>;

pub(crate) async fn query(host: State<Arc<Host>>, path: Name, headers: HeaderMap, body: Body) -> Response {
    call(&host, Kind::Query, path, &headers, body).await
}

pub(crate) async fn mutation(host: State<Arc<Host>>, path: Name, headers: HeaderMap, body: Body) -> Response {
    call(&host, Kind::Mutation, path, &headers, body).await
}

pub(crate) async fn action(host: State<Arc<Host>>, path: Name, headers: HeaderMap, body: Body) -> Response {
    call(&host, Kind::Action, path, &headers, body).await
}

async fn call(host: &Host, kind: Kind, path: Name, headers: &HeaderMap, body: Body) -> Response {
    match answer(host, kind, path, headers, body).await {
        Ok(Answer { result, version, request_id, .. }) => {
            let stamp = Stamp { request_id, version };
            match result {
                Ok(value) => stamp.on(success(&value)),
                Err(failure) => respond::failure(&failure, stamp),
            }
        }
        Err(failure) => respond::failure(&failure, Stamp::new()),
    }
}

async fn answer(host: &Host, kind: Kind, path: Name, headers: &HeaderMap, body: Body) -> Result<Answer, Failure> {
    let Path(path) = path.map_err(|rejection| respond::invalid(rejection.body_text()))?;
    let caller = caller::of(headers, kind)?;
    let body = TextBody::read(host, body).await?;
    // No body is no arguments.
    let args = if body.is_blank() { "{}" } else { body.text() };
    Ok(host.invoker.enter(&caller, Call { kind, path: &path, args, encoding: Encoding::Clean }).await)
}

fn success(value: &str) -> Response {
    let mut body = String::with_capacity(value.len() + 20);
    body.push_str("{\"ok\":true,\"data\":");
    body.push_str(value);
    body.push('}');
    respond::json(StatusCode::OK, body)
}
