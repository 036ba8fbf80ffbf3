//! `POST /api/{kind}/{module:function}`: the arguments as the body, `{ok, data}` or `{ok, error}` as the answer.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use convoke_invoke::Request;
use convoke_live::QueryAnswer;
use convoke_model::Kind;

use crate::host::Host;
use crate::respond;

pub(crate) async fn query(State(host): State<Arc<Host>>, Path(path): Path<String>, body: Body) -> Response {
    call(&host, Kind::Query, &path, body).await
}

pub(crate) async fn mutation(State(host): State<Arc<Host>>, Path(path): Path<String>, body: Body) -> Response {
    call(&host, Kind::Mutation, &path, body).await
}

pub(crate) async fn action(State(host): State<Arc<Host>>, Path(path): Path<String>, body: Body) -> Response {
    call(&host, Kind::Action, &path, body).await
}

async fn call(host: &Host, kind: Kind, path: &str, body: Body) -> Response {
    let body = match respond::read_text(body, host.engine.limits().body_bytes_max).await {
        Ok(body) => body,
        Err(failure) => return respond::failure(&failure, ""),
    };
    // No body is no arguments.
    let args = if body.iter().all(u8::is_ascii_whitespace) { "{}" } else { respond::as_text(&body) };
    let answer = match host.live.run(Request { kind, path, args, encoded: false }, &host.invoker).await {
        QueryAnswer::Kept(evaluation) => match &evaluation.result {
            Ok(value) => return success(value),
            Err(failure) => return respond::failure(failure, ""),
        },
        QueryAnswer::Ran(answer) => answer,
    };
    match answer.result {
        Ok(value) => success(&value),
        Err(failure) => respond::failure(&failure, &answer.request_id),
    }
}

fn success(value: &str) -> Response {
    let mut body = String::with_capacity(value.len() + 20);
    body.push_str("{\"ok\":true,\"data\":");
    body.push_str(value);
    body.push('}');
    respond::json(StatusCode::OK, body)
}
