//! The caller of a request, from its headers.

use axum::http::HeaderMap;
use convoke_invoke::{CallKey, CallOrigin, Caller};
use convoke_model::{Failure, Kind};

use crate::respond;

/// Under what a mutation happens once.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// As long as Convoke keeps it. Stripe's, which clients know, are as long.
const KEY_BYTES_MAX: usize = 255;

/// Who makes a request, and how it wants to be answered.
///
/// # Errors
/// Where a header says what cannot be.
pub(crate) fn of(headers: &HeaderMap, kind: Kind) -> Result<Caller, Failure> {
    let mut caller = Caller::new(CallOrigin::Http);
    caller.version = text(headers, respond::VERSION)?.map(str::to_ascii_lowercase);
    caller.key = match (text(headers, IDEMPOTENCY_KEY)?, kind) {
        (Some(key), Kind::Mutation) if key.is_empty() || key.len() > KEY_BYTES_MAX => {
            return Err(respond::invalid(format!("the header `{IDEMPOTENCY_KEY}` takes 1 to {KEY_BYTES_MAX} bytes")));
        }
        (Some(key), Kind::Mutation) => Some(CallKey::Text(key.to_owned())),
        (Some(_), Kind::Action) => {
            let words = "an action may happen twice: put what must happen once into a mutation";
            return Err(respond::invalid(format!("the header `{IDEMPOTENCY_KEY}` is for mutations; {words}")));
        }
        // To read again is the same.
        (Some(_), Kind::Query | Kind::Rule) | (None, _) => None,
    };
    Ok(caller)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Failure> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(respond::invalid(format!("the header `{name}` is given more than once")));
    }
    value.to_str().map(Some).map_err(|_| respond::invalid(format!("the header `{name}` is not visible ASCII text")))
}
