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
use convoke_convex::{Timestamp, encode, error_data, error_message, single_argument};
use convoke_invoke::{Answer, Request};
use convoke_live::QueryAnswer;
use convoke_model::{Code, Failure, Kind, encode_convex};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::host::Host;
use crate::respond;
use crate::socket::stamp;

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
        Err(error) => return bad_request(&Failure::new(Code::InvalidArgs, error.to_string())),
    };
    let answer = answer(host, kind, path, args, format).await;
    respond::json(StatusCode::OK, body_of(answer, kind, path, format))
}

async fn answer(host: &Host, kind: Kind, path: &str, args: &str, format: Format) -> Answer {
    let encoded = format == Format::Encoded;
    match host.live.run(Request { kind, path, args, encoded }, &host.invoker).await {
        QueryAnswer::Ran(answer) => answer,
        QueryAnswer::Kept(evaluation) => Answer {
            result: evaluation.result.clone().map(|text| text.to_string()),
            log: evaluation.log.clone(),
            request_id: String::new(),
        },
    }
}

/// `{"ts"}`: the newest timestamp, for [`query_at_ts`].
pub(crate) async fn query_ts(State(host): State<Arc<Host>>) -> Response {
    match host.live.get() {
        Ok(live) => {
            let ts = stamp(live.timestamp(live.newest()));
            respond::json(StatusCode::OK, format!(r#"{{"ts":"{}"}}"#, ts.to_base64()))
        }
        Err(failure) => bad_request(&failure),
    }
}

#[derive(Debug, Deserialize)]
struct CallAt<'a> {
    #[serde(borrow)]
    path: std::borrow::Cow<'a, str>,
    #[serde(borrow, default)]
    args: Option<&'a RawValue>,
    #[serde(default)]
    format: Option<Format>,
    ts: String,
}

/// A query that shows at least what was committed at a timestamp. It may show more: old states are not kept.
pub(crate) async fn query_at_ts(State(host): State<Arc<Host>>, body: Body) -> Response {
    let body = match respond::read_text(body, host.engine.limits().body_bytes_max).await {
        Ok(body) => body,
        Err(failure) => return bad_request(&failure),
    };
    let invalid = |words: String| bad_request(&Failure::new(Code::InvalidArgs, words));
    let call: CallAt<'_> = match serde_json::from_slice(&body) {
        Ok(call) => call,
        Err(error) => return invalid(format!("the body is not a call `{{\"path\", \"args\", \"ts\"}}`: {error}")),
    };
    let ts = match Timestamp::from_base64(&call.ts) {
        Ok(ts) => ts,
        Err(error) => return invalid(format!("`ts` is not a timestamp: {error}")),
    };
    let live = match host.live.get() {
        Ok(live) => live,
        Err(failure) => return bad_request(&failure),
    };
    if let Err(failure) = live.catch_up(live.position_of(ts.nanos())).await {
        return bad_request(&failure);
    }
    let args = call.args.map(RawValue::get);
    run(&host, Kind::Query, &call.path, args, call.format.unwrap_or_default()).await
}

#[derive(Debug, Deserialize)]
struct Batch<'a> {
    #[serde(borrow)]
    queries: Vec<FunctionCall<'a>>,
}

/// Several queries: `{"queries": [{path, args, format}]}` to `{"results": [...]}`.
pub(crate) async fn query_batch(State(host): State<Arc<Host>>, body: Body) -> Response {
    const QUERIES_MAX: usize = 100;
    let text = match respond::read_text(body, host.engine.limits().body_bytes_max).await {
        Ok(body) => body,
        Err(failure) => return bad_request(&failure),
    };
    let batch: Batch<'_> = match serde_json::from_slice(&text) {
        Ok(batch) => batch,
        Err(error) => {
            let words = format!("the body is not `{{\"queries\": [{{\"path\", \"args\", \"format\"}}]}}`: {error}");
            return bad_request(&Failure::new(Code::InvalidArgs, words));
        }
    };
    if batch.queries.len() > QUERIES_MAX {
        return bad_request(&Failure::new(Code::InvalidArgs, format!("at most {QUERIES_MAX} queries at once")));
    }
    let mut results = Vec::with_capacity(batch.queries.len());
    for call in &batch.queries {
        let format = call.format.unwrap_or_default();
        let args = match single_argument(call.args.map_or("{}", RawValue::get)) {
            Ok(args) => args,
            Err(error) => return bad_request(&Failure::new(Code::InvalidArgs, error.to_string())),
        };
        let answer = answer(&host, Kind::Query, &call.path, args, format).await;
        results.push(body_of(answer, Kind::Query, &call.path, format));
    }
    respond::json(StatusCode::OK, format!(r#"{{"results":[{}]}}"#, results.join(",")))
}

fn body_of(answer: Answer, kind: Kind, path: &str, format: Format) -> String {
    match answer.result {
        Ok(value) => {
            let value = if format == Format::Encoded { encode(value) } else { value };
            let log = respond::text(&answer.log);
            format!("{{\"status\":\"success\",\"value\":{value},\"logLines\":{log}}}")
        }
        Err(failure) => respond::text(&ErrorBody {
            status: "error",
            error_message: error_message(&failure, kind, path, &answer.request_id),
            error_data: error_data(&failure)
                .map(|data| if format == Format::Encoded { encode_convex(data) } else { data }),
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

fn bad_request(failure: &Failure) -> Response {
    #[derive(Serialize)]
    struct Body<'a> {
        code: &'a str,
        message: &'a str,
    }
    let status = StatusCode::from_u16(failure.code.http_status()).unwrap_or(StatusCode::BAD_REQUEST);
    respond::json(status, respond::text(&Body { code: failure.code.as_str(), message: &failure.message }))
}
