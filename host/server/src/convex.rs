//! Convex' HTTP function API: `POST /api/{kind}` with `{path, args, format}` (convex-protocol 1.10).
//!
//! Where a function was named and could be looked for, the answer is 200 with `status`; a request that is no request
//! has a status of its own and `{code, message}`.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
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
    path: Cow<'a, str>,
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

/// A request that is no request.
pub(crate) struct BadRequest(Failure);

impl From<Failure> for BadRequest {
    fn from(failure: Failure) -> Self {
        Self(failure)
    }
}

impl IntoResponse for BadRequest {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Body<'a> {
            code: &'a str,
            message: &'a str,
        }
        let Self(failure) = self;
        let status = StatusCode::from_u16(failure.code.http_status()).unwrap_or(StatusCode::BAD_REQUEST);
        respond::json(status, respond::text(&Body { code: failure.code.as_str(), message: &failure.message }))
    }
}

pub(crate) async fn query(State(host): State<Arc<Host>>, body: Body) -> Result<Response, BadRequest> {
    call(&host, Kind::Query, body).await
}

pub(crate) async fn mutation(State(host): State<Arc<Host>>, body: Body) -> Result<Response, BadRequest> {
    call(&host, Kind::Mutation, body).await
}

pub(crate) async fn action(State(host): State<Arc<Host>>, body: Body) -> Result<Response, BadRequest> {
    call(&host, Kind::Action, body).await
}

pub(crate) async fn query_by_get(
    State(host): State<Arc<Host>>,
    parameters: Result<Query<QueryParameters>, QueryRejection>,
) -> Result<Response, BadRequest> {
    let Query(QueryParameters { path, args, format }) = parameters.map_err(|error| invalid(error.body_text()))?;
    run(&host, Kind::Query, &path, args.as_deref(), format.unwrap_or_default()).await
}

async fn call(host: &Host, kind: Kind, body: Body) -> Result<Response, BadRequest> {
    let body = read(host, body).await?;
    let call: FunctionCall<'_> = parse(&body, r#"a call `{"path", "args", "format"}`"#)?;
    run(host, kind, &call.path, call.args.map(RawValue::get), call.format.unwrap_or_default()).await
}

async fn read(host: &Host, body: Body) -> Result<Bytes, BadRequest> {
    Ok(respond::read_text(body, host.engine.limits().body_bytes_max).await?)
}

/// What a body says, or that it is not what it should be.
fn parse<'a, T: Deserialize<'a>>(body: &'a [u8], wanted: &str) -> Result<T, BadRequest> {
    serde_json::from_slice(body).map_err(|error| invalid(format!("the body is not {wanted}: {error}")))
}

fn invalid(words: impl Into<String>) -> BadRequest {
    BadRequest(Failure::caller(Code::InvalidArgs, words))
}

async fn run(host: &Host, kind: Kind, path: &str, args: Option<&str>, format: Format) -> Result<Response, BadRequest> {
    let body = answered(host, kind, path, args, format).await?;
    Ok(respond::json(StatusCode::OK, body))
}

/// The body of an answer.
async fn answered(
    host: &Host,
    kind: Kind,
    path: &str,
    args: Option<&str>,
    format: Format,
) -> Result<String, BadRequest> {
    let args = single_argument(args.unwrap_or("{}")).map_err(|error| invalid(error.to_string()))?;
    Ok(body_of(answer(host, kind, path, args, format).await, kind, path, format))
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

/// `{"ts"}`: the timestamp of now, for [`query_at_ts`].
pub(crate) async fn query_ts(State(host): State<Arc<Host>>) -> Result<Response, BadRequest> {
    let ts = stamp(host.live.get()?.keep_moment().await);
    Ok(respond::json(StatusCode::OK, format!(r#"{{"ts":"{}"}}"#, ts.to_base64())))
}

#[derive(Debug, Deserialize)]
struct CallAt<'a> {
    #[serde(borrow)]
    path: Cow<'a, str>,
    #[serde(borrow, default)]
    args: Option<&'a RawValue>,
    #[serde(default)]
    format: Option<Format>,
    ts: String,
}

/// A query in the state of a timestamp that this host has told by [`query_ts`]. For another one, it shows at least what
/// had been committed then.
pub(crate) async fn query_at_ts(State(host): State<Arc<Host>>, body: Body) -> Result<Response, BadRequest> {
    let body = read(&host, body).await?;
    let call: CallAt<'_> = parse(&body, r#"a call `{"path", "args", "ts"}`"#)?;
    let ts = Timestamp::from_base64(&call.ts).map_err(|error| invalid(format!("`ts` is not a timestamp: {error}")))?;
    let (path, kind, format) = (&*call.path, Kind::Query, call.format.unwrap_or_default());
    let args = single_argument(call.args.map_or("{}", RawValue::get)).map_err(|error| invalid(error.to_string()))?;
    let live = host.live.get()?;
    let request = Request { kind, path, args, encoded: format == Format::Encoded };
    let answer = if let Some(answer) = live.query_at(request, ts.nanos()).await? {
        answer
    } else {
        live.catch_up(live.position_of(ts.nanos())).await?;
        answer(&host, kind, path, args, format).await
    };
    Ok(respond::json(StatusCode::OK, body_of(answer, kind, path, format)))
}

#[derive(Debug, Deserialize)]
struct Batch<'a> {
    #[serde(borrow)]
    queries: Vec<FunctionCall<'a>>,
}

/// Several queries: `{"queries": [{path, args, format}]}` to `{"results": [...]}`.
pub(crate) async fn query_batch(State(host): State<Arc<Host>>, body: Body) -> Result<Response, BadRequest> {
    const QUERIES_MAX: usize = 100;
    let body = read(&host, body).await?;
    let batch: Batch<'_> = parse(&body, r#"`{"queries": [{"path", "args", "format"}]}`"#)?;
    if batch.queries.len() > QUERIES_MAX {
        return Err(invalid(format!("at most {QUERIES_MAX} queries at once")));
    }
    let mut results = Vec::with_capacity(batch.queries.len());
    for call in &batch.queries {
        let (args, format) = (call.args.map(RawValue::get), call.format.unwrap_or_default());
        results.push(answered(&host, Kind::Query, &call.path, args, format).await?);
    }
    Ok(respond::json(StatusCode::OK, format!(r#"{{"results":[{}]}}"#, results.join(","))))
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
