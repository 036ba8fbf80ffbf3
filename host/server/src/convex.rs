//! Convex' HTTP function API: `POST /api/{kind}` with `{path, args, format}` (convex-protocol 1.10).
//!
//! Where a function was named and could be looked for, the answer is 200 with `status`; a request that is no request
//! has a status of its own and `{code, message}`.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use convoke_convex::{Timestamp, encode, error_data, error_message, single_argument};
use convoke_invoke::{Answer, Call, Caller, Encoding};
use convoke_model::{Code, Failure, Kind, Origin, encode_convex};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::body::TextBody;
use crate::caller;
use crate::host::Host;
use crate::respond::{self, Stamp};
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

/// What has no result of a function to show: a request that is no request, or a failure of the system.
pub(crate) struct BadRequest(Box<Failure>, Stamp);

impl From<Failure> for BadRequest {
    fn from(failure: Failure) -> Self {
        Self(Box::new(failure), Stamp::new())
    }
}

impl IntoResponse for BadRequest {
    fn into_response(self) -> Response {
        let Self(failure, stamp) = self;
        let status = StatusCode::from_u16(failure.code.http_status()).unwrap_or(StatusCode::BAD_REQUEST);
        stamp.on(respond::json(status, respond::error(&failure, stamp.request_id).to_string()))
    }
}

type Answered = Result<Response, BadRequest>;

pub(crate) async fn query(State(host): State<Arc<Host>>, headers: HeaderMap, body: Body) -> Answered {
    call(&host, Kind::Query, &headers, body).await
}

pub(crate) async fn mutation(State(host): State<Arc<Host>>, headers: HeaderMap, body: Body) -> Answered {
    call(&host, Kind::Mutation, &headers, body).await
}

pub(crate) async fn action(State(host): State<Arc<Host>>, headers: HeaderMap, body: Body) -> Answered {
    call(&host, Kind::Action, &headers, body).await
}

pub(crate) async fn query_by_get(
    State(host): State<Arc<Host>>,
    headers: HeaderMap,
    parameters: Result<Query<QueryParameters>, QueryRejection>,
) -> Answered {
    let Query(QueryParameters { path, args, format }) = parameters.map_err(|error| invalid(error.body_text()))?;
    let caller = caller::of(&headers, Kind::Query)?;
    run(&host, &caller, Kind::Query, &path, args.as_deref(), format.unwrap_or_default()).await
}

async fn call(host: &Host, kind: Kind, headers: &HeaderMap, body: Body) -> Answered {
    let caller = caller::of(headers, kind)?;
    let body = read(host, body).await?;
    let call: FunctionCall<'_> = parse(&body, r#"a call `{"path", "args", "format"}`"#)?;
    run(host, &caller, kind, &call.path, call.args.map(RawValue::get), call.format.unwrap_or_default()).await
}

async fn read(host: &Host, body: Body) -> Result<TextBody, BadRequest> {
    Ok(TextBody::read(host, body).await?)
}

/// What a body says, or that it is not what it should be.
fn parse<'a, T: Deserialize<'a>>(body: &'a TextBody, wanted: &str) -> Result<T, BadRequest> {
    // serde would take a list of the members too.
    if !body.text().trim_start().starts_with('{') {
        return Err(invalid(format!("the body is not {wanted}: it is no object")));
    }
    serde_json::from_str(body.text()).map_err(|error| invalid(format!("the body is not {wanted}: {error}")))
}

fn invalid(words: impl Into<String>) -> BadRequest {
    respond::invalid(words).into()
}

async fn run(host: &Host, caller: &Caller, kind: Kind, path: &str, args: Option<&str>, format: Format) -> Answered {
    let args = argument(args)?;
    let answer = host.invoker.enter(caller, format.call(kind, path, args)).await;
    answered(answer, kind, path, format)
}

/// The one argument: an object of named arguments.
fn argument(args: Option<&str>) -> Result<&str, BadRequest> {
    single_argument(args.unwrap_or("{}")).map_err(|error| invalid(error.to_string()))
}

impl Format {
    fn call<'a>(self, kind: Kind, path: &'a str, args: &'a str) -> Call<'a> {
        let encoding = match self {
            Self::Encoded => Encoding::Convex,
            Self::Clean | Self::Export => Encoding::Clean,
        };
        Call { kind, path, args, encoding }
    }
}

/// `{"ts"}`: the timestamp of now, for [`query_at_ts`].
pub(crate) async fn query_ts(State(host): State<Arc<Host>>) -> Answered {
    let ts = stamp(host.live.get()?.keep_moment().await);
    Ok(Stamp::new().on(respond::json(StatusCode::OK, format!(r#"{{"ts":"{}"}}"#, ts.to_base64()))))
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

/// How far behind the log's end a timestamp may lie that somebody has told: no more than the header of a page.
const AHEAD_MAX: u64 = 8 << 10;

/// A query in the state of a timestamp that this host has told by [`query_ts`]. For another one, it shows at least what
/// had been committed then.
pub(crate) async fn query_at_ts(State(host): State<Arc<Host>>, headers: HeaderMap, body: Body) -> Answered {
    let caller = caller::of(&headers, Kind::Query)?;
    let body = read(&host, body).await?;
    let call: CallAt<'_> = parse(&body, r#"a call `{"path", "args", "ts"}`"#)?;
    let ts = Timestamp::from_base64(&call.ts).map_err(|error| invalid(format!("`ts` is not a timestamp: {error}")))?;
    let (path, kind, format) = (&*call.path, Kind::Query, call.format.unwrap_or_default());
    let args = argument(call.args.map(RawValue::get))?;
    let live = host.live.get()?;
    let kept = live.query_at(&caller, format.call(kind, path, args), ts.nanos()).await?;
    let answer = if let Some(answer) = kept {
        answer
    } else {
        let position = live.position_of(ts.nanos());
        // What nobody can have told is not waited for.
        if live.log_position().await.is_some_and(|end| position > end + AHEAD_MAX) {
            return Err(invalid("the database has not come to `ts` yet"));
        }
        live.catch_up(position).await?;
        let caller = Caller { at_least: position, ..caller };
        host.invoker.enter(&caller, format.call(kind, path, args)).await
    };
    answered(answer, kind, path, format)
}

#[derive(Debug, Deserialize)]
struct Batch<'a> {
    #[serde(borrow)]
    queries: Vec<FunctionCall<'a>>,
}

/// Several queries: `{"queries": [{path, args, format}]}` to `{"results": [...]}`.
pub(crate) async fn query_batch(State(host): State<Arc<Host>>, headers: HeaderMap, body: Body) -> Answered {
    const QUERIES_MAX: usize = 100;
    let caller = caller::of(&headers, Kind::Query)?;
    let body = read(&host, body).await?;
    let batch: Batch<'_> = parse(&body, r#"`{"queries": [{"path", "args", "format"}]}`"#)?;
    if batch.queries.len() > QUERIES_MAX {
        return Err(invalid(format!("at most {QUERIES_MAX} queries at once")));
    }
    let bytes_max = host.engine.limits().result_bytes_max;
    let mut results = String::new();
    for call in &batch.queries {
        let (args, format) = (argument(call.args.map(RawValue::get))?, call.format.unwrap_or_default());
        let answer = host.invoker.enter(&caller, format.call(Kind::Query, &call.path, args)).await;
        let body = body_of(answer, Kind::Query, &call.path, format)?;
        if results.len() + body.len() > bytes_max {
            let words = format!("the results of the batch together have more than {bytes_max} bytes");
            return Err(Failure::function(Code::ResultLimit, words).into());
        }
        if !results.is_empty() {
            results.push(',');
        }
        results.push_str(&body);
    }
    Ok(Stamp::new().on(respond::json(StatusCode::OK, format!(r#"{{"results":[{results}]}}"#))))
}

fn answered(answer: Answer, kind: Kind, path: &str, format: Format) -> Answered {
    let stamp = Stamp { request_id: answer.request_id, version: answer.version };
    Ok(stamp.on(respond::json(StatusCode::OK, body_of(answer, kind, path, format)?)))
}

/// What a function returned or how it failed; a failure of the system is no answer of a function's.
fn body_of(answer: Answer, kind: Kind, path: &str, format: Format) -> Result<String, BadRequest> {
    let stamp = Stamp { request_id: answer.request_id, version: answer.version };
    match answer.result {
        Ok(value) => {
            let value = value.into_string();
            let value = if format == Format::Encoded { encode(value) } else { value };
            let log = respond::text(&*answer.log);
            Ok(format!("{{\"status\":\"success\",\"value\":{value},\"logLines\":{log}}}"))
        }
        Err(failure) if failure.origin == Origin::System => Err(BadRequest(Box::new(failure), stamp)),
        Err(failure) => Ok(respond::text(&ErrorBody {
            status: "error",
            error_message: error_message(&failure, kind, path, &stamp.request_id.to_string()),
            error_data: error_data(&failure)
                .map(|data| if format == Format::Encoded { encode_convex(data) } else { data }),
            log_lines: &answer.log,
        })),
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
