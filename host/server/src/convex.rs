//! Convex' HTTP function API: `POST /api/{kind}` with `{path, args, format}` (convex-protocol 1.10).
//!
//! Where a function was named and could be looked for, the answer is 200 with `status`; a request that is no request
//! has a status of its own and `{code, message}`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use convoke_invoke::{Answer, Request};
use convoke_live::QueryAnswer;
use convoke_model::{Code, Failure, Kind, encode_convex};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::host::Host;
use crate::respond;

/// The form of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub(crate) enum Format {
    #[default]
    #[serde(rename = "json")]
    Clean,
    #[serde(rename = "convex_encoded_json")]
    Encoded,
    #[serde(rename = "export_json")]
    Export,
}

#[derive(Debug, Deserialize)]
struct FunctionCall<'a> {
    #[serde(borrow)]
    path: std::borrow::Cow<'a, str>,
    #[serde(borrow, default)]
    args: Option<&'a RawValue>,
    #[serde(default)]
    format: Option<Format>,
}

/// The same as a query string.
#[derive(Debug, Deserialize)]
pub(crate) struct QueryParameters {
    path: String,
    args: Option<String>,
    format: Option<Format>,
}

pub(crate) async fn query(State(host): State<Arc<Host>>, body: Body) -> Response {
    call(&host, Kind::Query, body).await
}

pub(crate) async fn mutation(State(host): State<Arc<Host>>, body: Body) -> Response {
    call(&host, Kind::Mutation, body).await
}

pub(crate) async fn action(State(host): State<Arc<Host>>, body: Body) -> Response {
    call(&host, Kind::Action, body).await
}

pub(crate) async fn query_by_get(
    State(host): State<Arc<Host>>,
    parameters: Result<Query<QueryParameters>, QueryRejection>,
) -> Response {
    match parameters {
        Ok(Query(QueryParameters { path, args, format })) => {
            run(&host, Kind::Query, &path, args.as_deref(), format.unwrap_or_default()).await
        }
        Err(rejection) => bad_request(&Failure::new(Code::InvalidArgs, rejection.body_text())),
    }
}

async fn call(host: &Host, kind: Kind, body: Body) -> Response {
    let body = match respond::read_text(body, host.engine.limits().body_bytes_max).await {
        Ok(body) => body,
        Err(failure) => return bad_request(&failure),
    };
    match serde_json::from_slice::<FunctionCall<'_>>(&body) {
        Ok(call) => {
            let args = call.args.map(RawValue::get);
            run(host, kind, &call.path, args, call.format.unwrap_or_default()).await
        }
        Err(error) => {
            let words = format!("the body is not a call `{{\"path\", \"args\", \"format\"}}`: {error}");
            bad_request(&Failure::new(Code::InvalidArgs, words))
        }
    }
}

async fn run(host: &Host, kind: Kind, path: &str, args: Option<&str>, format: Format) -> Response {
    let args = match single_argument(args.unwrap_or("{}")) {
        Ok(args) => args,
        Err(failure) => return bad_request(&failure),
    };
    let encoded = format == Format::Encoded;
    let answer = match host.live.run(Request { kind, path, args, encoded }, &host.invoker).await {
        QueryAnswer::Ran(answer) => answer,
        QueryAnswer::Kept(evaluation) => Answer {
            result: evaluation.result.clone().map(|text| text.to_string()),
            log: evaluation.log.clone(),
            request_id: String::new(),
        },
    };
    respond::json(StatusCode::OK, body(answer, kind, path, format))
}

/// The clients send the arguments object alone in an array, people send the object.
fn single_argument(args: &str) -> Result<&str, Failure> {
    if !args.starts_with('[') {
        return Ok(args);
    }
    let invalid = |words: String| Failure::new(Code::InvalidArgs, words);
    let list: Vec<&RawValue> =
        serde_json::from_str(args).map_err(|error| invalid(format!("`args` is not valid JSON: {error}")))?;
    match list.as_slice() {
        [] => Ok("{}"),
        [args] => Ok(args.get()),
        more => Err(invalid(format!("`args` takes one object of named arguments, found an array of {}", more.len()))),
    }
}

fn body(answer: Answer, kind: Kind, path: &str, format: Format) -> String {
    match answer.result {
        Ok(value) => {
            let value = if format == Format::Encoded { encode(value) } else { value };
            let log = respond::text(&answer.log);
            format!("{{\"status\":\"success\",\"value\":{value},\"logLines\":{log}}}")
        }
        Err(failure) => respond::text(&ErrorBody {
            status: "error",
            error_message: error_message(&failure, kind, path, &answer.request_id),
            error_data: error_data(&failure),
            log_lines: &answer.log,
        }),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ErrorBody<'a> {
    status: &'static str,
    error_message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_data: Option<Value>,
    log_lines: &'a [String],
}

/// In the words that Convex' users and tests look for.
fn error_message(failure: &Failure, kind: Kind, path: &str, request_id: &str) -> String {
    let head = format!("[Request ID: {request_id}] Server Error");
    let message = respond::message(failure);
    match &failure.code {
        Code::Internal => head,
        Code::NotFound => {
            format!(
                "{head}\nCould not find public function for '{path}'. Did you forget to run `convoke dev`?\n{message}"
            )
        }
        Code::InvalidArgs => format!("{head}\nArgumentValidationError: {message} (calling {kind} `{path}`)"),
        Code::Application(_) => format!("{head}\nUncaught ConvexError: {message}"),
        code => format!("{head}\n{}: {message}", code.as_str()),
    }
}

/// The function's own error, with its code. Absent, not null, where the error is not the function's.
fn error_data(failure: &Failure) -> Option<Value> {
    let Code::Application(code) = &failure.code else { return None };
    let mut data = serde_json::Map::new();
    data.insert("code".to_owned(), Value::from(code.as_str()));
    data.insert("message".to_owned(), Value::from(failure.message.as_str()));
    if let Some(value) = &failure.data {
        data.insert("data".to_owned(), value.clone());
    }
    Some(Value::Object(data))
}

/// Integers that a float cannot hold have sixteen digits or more: a text without such a run needs no second look.
fn encode(value: String) -> String {
    const DIGITS: usize = 16;
    let long = value
        .as_bytes()
        .chunk_by(|a, b| a.is_ascii_digit() && b.is_ascii_digit())
        .any(|run| run.len() >= DIGITS && run[0].is_ascii_digit());
    if !long {
        return value;
    }
    match serde_json::from_str::<Value>(&value) {
        Ok(parsed) => encode_convex(parsed).to_string(),
        Err(_) => value,
    }
}

fn bad_request(failure: &Failure) -> Response {
    #[derive(Serialize)]
    struct Body<'a> {
        code: &'a str,
        message: &'a str,
    }
    let status = StatusCode::from_u16(failure.code.http_status()).unwrap_or(StatusCode::BAD_REQUEST);
    respond::json(status, respond::text(&Body { code: failure.code.as_str(), message: &failure.message }))
}
