//! Bodies of answers. JSON that is at hand as text is spliced, never parsed again.

use std::error::Error;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use convoke_model::{Code, Failure, Origin};
use http_body_util::LengthLimitError;
use serde::Serialize;
use serde_json::{Value, json};

/// A JSON answer.
pub(crate) fn json(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// `{ok: false, error: {code, message, details?}}` with the code's status.
pub(crate) fn failure(failure: &Failure, request_id: &str) -> Response {
    #[derive(Serialize)]
    struct Body<'a> {
        ok: bool,
        error: Error<'a>,
    }
    #[derive(Serialize)]
    struct Error<'a> {
        code: &'a str,
        message: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        details: Option<&'a Value>,
    }
    let status = StatusCode::from_u16(failure.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let opaque = failure.code == Code::Internal;
    let mut details = if opaque { Some(json!({ "requestId": request_id })) } else { failure.data.clone() };
    if failure.origin == Origin::System {
        let known = details.get_or_insert_with(|| json!({}));
        if let Some(known) = known.as_object_mut() {
            known.insert("outcome".to_owned(), failure.outcome.as_str().into());
        }
    }
    let message = if opaque { "internal error" } else { &failure.message };
    let error = Error { code: failure.code.as_str(), message, details: details.as_ref() };
    json(status, text(&Body { ok: false, error }))
}

/// A value as JSON text; nothing that is given here can fail to be one.
pub(crate) fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned())
}

/// The body of a request, which is text, or why it cannot be read.
pub(crate) async fn read_text(body: Body, bytes_max: usize) -> Result<Bytes, Failure> {
    let body = axum::body::to_bytes(body, bytes_max).await.map_err(|error| {
        if error.source().is_some_and(<dyn Error>::is::<LengthLimitError>) {
            Failure::caller(Code::PayloadTooLarge, format!("the body is larger than {bytes_max} bytes"))
        } else {
            Failure::caller(Code::InvalidArgs, "the body could not be read").with_internal(error.to_string())
        }
    })?;
    match std::str::from_utf8(&body) {
        Ok(_) => Ok(body),
        Err(error) => Err(Failure::caller(Code::InvalidArgs, format!("the body is not UTF-8 text: {error}"))),
    }
}

/// The text of a body that [`read_text`] has checked.
pub(crate) fn as_text(body: &Bytes) -> &str {
    std::str::from_utf8(body).unwrap_or_default()
}
