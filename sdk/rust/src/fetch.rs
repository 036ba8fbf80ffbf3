//! HTTP to the outside, for actions.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bindings::convoke::runtime::outbound_http;
use crate::error::{Error, Result};

/// A request to the outside. A URL alone is a `GET`: `ctx.fetch("https://example.com/")`.
#[derive(Clone, Debug)]
pub struct Request {
    head: Head,
    body: Vec<u8>,
    /// A body that JSON can't hold; told when the request is sent.
    failure: Option<Error>,
}

/// The part that crosses as JSON.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    method: String,
    url: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    headers: Vec<(String, String)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_ms: Option<u64>,
}

impl Request {
    /// A request with any method.
    pub fn new(method: impl Into<String>, url: impl Into<String>) -> Self {
        let head = Head { method: method.into(), url: url.into(), headers: Vec::new(), timeout_ms: None };
        Self { head, body: Vec::new(), failure: None }
    }

    /// A `GET`.
    pub fn get(url: impl Into<String>) -> Self {
        Self::new("GET", url)
    }

    /// A `POST`.
    pub fn post(url: impl Into<String>) -> Self {
        Self::new("POST", url)
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.head.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets the body to JSON, and the content type with it.
    #[must_use]
    pub fn json(self, body: &impl Serialize) -> Self {
        match serde_json::to_vec(body) {
            Ok(text) => self.header("content-type", "application/json").body(text),
            Err(error) => Self { failure: Some(error.into()), ..self },
        }
    }

    /// Gives up after this time; the host may give up earlier.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.head.timeout_ms = Some(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
        self
    }

    pub(crate) fn send(self) -> Result<Response> {
        if let Some(error) = self.failure {
            return Err(error);
        }
        let answer = outbound_http::send(&serde_json::to_string(&self.head)?, &self.body)?;
        let headers = serde_json::from_str(&answer.headers)?;
        Ok(Response { status: answer.status, headers, body: answer.body })
    }
}

impl From<&str> for Request {
    fn from(url: &str) -> Self {
        Self::get(url)
    }
}

impl From<String> for Request {
    fn from(url: String) -> Self {
        Self::get(url)
    }
}

impl From<&String> for Request {
    fn from(url: &String) -> Self {
        Self::get(url)
    }
}

/// The answer to a [`Request`], whatever its status. Redirects come back as they are.
#[derive(Clone, Debug)]
pub struct Response {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Response {
    /// The status code.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Whether the status is one of 200 to 299.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The headers, in their order.
    pub fn headers(&self) -> &[(String, String)] {
        &self.headers
    }

    /// The first header with this name, whatever the case of its letters.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The body's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.body
    }

    /// The body as text; bytes that aren't UTF-8 become `U+FFFD`.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body read as JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        Ok(serde_json::from_slice(&self.body)?)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_url_is_a_get() {
        let request = Request::from("https://example.com/");
        assert_eq!(serde_json::to_string(&request.head).unwrap(), r#"{"method":"GET","url":"https://example.com/"}"#);
    }

    #[test]
    fn a_json_body_brings_its_content_type() {
        let request = Request::post("https://example.com/").json(&json!({"a": 1})).timeout(Duration::from_secs(2));
        assert_eq!(request.body, br#"{"a":1}"#);
        assert_eq!(
            serde_json::to_string(&request.head).unwrap(),
            r#"{"method":"POST","url":"https://example.com/","headers":[["content-type","application/json"]],"timeoutMs":2000}"#
        );
    }

    #[test]
    fn a_response_finds_its_headers() {
        let headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
        let response = Response { status: 204, headers, body: b"[1]".to_vec() };
        assert_eq!(response.header("content-type"), Some("application/json"));
        assert!(response.is_success());
        assert_eq!(response.json::<Vec<u8>>().unwrap(), [1]);
    }
}
