//! Bodies of requests: text, bounded in size, in time, and all together.

use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use convoke_model::{Code, Failure};
use http_body_util::BodyExt;
use tokio::time::timeout;

use crate::budget::Held;
use crate::host::Host;
use crate::respond;

/// A body that was read. Its bytes count among those of all bodies until it is dropped.
#[derive(Debug)]
pub(crate) struct TextBody {
    bytes: Bytes,
    _held: Held,
}

impl TextBody {
    /// Reads a body.
    ///
    /// # Errors
    /// In words for the caller: it is too large, too slow, no text, or there is no room for it.
    pub(crate) async fn read(host: &Host, body: Body) -> Result<Self, Failure> {
        let ms_max = host.server_limits.body_ms_max;
        let (bytes, held) = timeout(Duration::from_millis(ms_max), collect(host, body))
            .await
            .map_err(|_| Failure::caller(Code::RequestTimeout, format!("the body took longer than {ms_max} ms")))??;
        match std::str::from_utf8(&bytes) {
            Ok(_) => Ok(Self { bytes, _held: held }),
            Err(error) => Err(Failure::caller(Code::InvalidArgs, format!("the body is not UTF-8 text: {error}"))),
        }
    }

    pub(crate) fn text(&self) -> &str {
        // Looked at when it was read.
        std::str::from_utf8(&self.bytes).unwrap_or_default()
    }

    /// Whether nothing is said in it.
    pub(crate) fn is_blank(&self) -> bool {
        self.bytes.iter().all(u8::is_ascii_whitespace)
    }
}

async fn collect(host: &Host, mut body: Body) -> Result<(Bytes, Held), Failure> {
    let bytes_max = host.engine.limits().body_bytes_max;
    let too_large = || Failure::caller(Code::PayloadTooLarge, format!("the body is larger than {bytes_max} bytes"));
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large());
    }
    let mut held = host.bounds.bodies.hold(0).ok_or_else(no_room)?;
    let (mut first, mut rest) = (Bytes::new(), Vec::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Failure::caller(Code::InvalidArgs, "the body could not be read").with_internal(error.to_string())
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if data.len() > bytes_max - first.len().max(rest.len()) {
            return Err(too_large());
        }
        if !held.grow(data.len()) {
            return Err(no_room());
        }
        // Most bodies come in one piece, which is not copied.
        if first.is_empty() && rest.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&std::mem::take(&mut first));
            }
            rest.extend_from_slice(&data);
        }
    }
    let bytes = if rest.is_empty() { first } else { rest.into() };
    Ok((bytes, held))
}

fn no_room() -> Failure {
    respond::at_limit("bodies_bytes_max")
}
