//! Bodies of answers. JSON that is at hand as text is spliced, never parsed again.

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use convoke_invoke::{RequestId, VersionTag};
use convoke_model::{Code, Failure, Origin, Outcome};
use serde::Serialize;
use serde_json::{Value, json};

pub(crate) const REQUEST_ID: &str = "convoke-request-id";
/// A digest, or its beginning: which version is to answer, and which has answered.
pub(crate) const VERSION: &str = "convoke-version";

/// Marks an answer that goes on for as long as its client wants: it is no request in work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Endless;

/// A JSON answer.
pub(crate) fn json(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Which call was answered, by which version: the headers of every answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamp {
    pub(crate) request_id: RequestId,
    pub(crate) version: Option<VersionTag>,
}

impl Stamp {
    /// Of a request for which no function ran.
    pub(crate) fn new() -> Self {
        Self { request_id: RequestId::random(), version: None }
    }

    pub(crate) fn on(self, mut response: Response) -> Response {
        let headers = response.headers_mut();
        if let Ok(id) = HeaderValue::try_from(self.request_id.to_string()) {
            headers.insert(REQUEST_ID, id);
        }
        if let Some(version) = self.version.and_then(|version| HeaderValue::from_str(version.as_str()).ok()) {
            headers.insert(VERSION, version);
        }
        response
    }
}

/// `{ok: false, error: {code, message, details?}}` with the code's status.
pub(crate) fn failure(failure: &Failure, stamp: Stamp) -> Response {
    let status = StatusCode::from_u16(failure.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    stamp.on(json(status, failure_text(failure, stamp.request_id)))
}

/// The body of [`failure`].
pub(crate) fn failure_text(failure: &Failure, request_id: RequestId) -> String {
    format!(r#"{{"ok":false,"error":{}}}"#, error(failure, request_id))
}

/// `{code, message, details?}`: what a client may read of a failure. One of the system says what became of the call.
pub(crate) fn error(failure: &Failure, request_id: RequestId) -> Value {
    let opaque = failure.code == Code::Internal;
    let mut details = if opaque { Some(json!({ "requestId": request_id.to_string() })) } else { failure.data.clone() };
    if failure.origin == Origin::System || failure.outcome == Outcome::Done {
        let known = details.get_or_insert_with(|| json!({}));
        if let Some(known) = known.as_object_mut() {
            known.insert("outcome".to_owned(), failure.outcome.as_str().into());
        }
    }
    let message = if opaque { "internal error" } else { &failure.message };
    let mut error = json!({ "code": failure.code.as_str(), "message": message });
    if let Some(details) = details {
        error["details"] = details;
    }
    error
}

/// A value as JSON text; nothing that is given here can fail to be one.
pub(crate) fn text(value: &(impl Serialize + ?Sized)) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned())
}

/// A request that is no request.
pub(crate) fn invalid(words: impl Into<String>) -> Failure {
    Failure::caller(Code::InvalidArgs, words)
}

/// The host is at one of its bounds, which `details.limit` names: nothing was begun.
pub(crate) fn at_limit(limit: &'static str) -> Failure {
    let words = match limit {
        "connections_max" => "this host has too many connections: try again",
        "requests_max" => "this host has too many requests in work: try again",
        "sockets_max" => "this host has too many sockets and streams: try again",
        "bodies_bytes_max" => "this host is reading too much from others: try again",
        "queries_bytes_max" => "this host is asked to show too much: try again",
        "answers_bytes_max" => "this host has too much to send to others: try again",
        _ => "this host has too much to do: try again",
    };
    Failure::system(Code::Overloaded, words).with_outcome(Outcome::NotBegun).with_data(json!({ "limit": limit }))
}
