//! The fourth layer: the arguments, parsed once and held to the function's schema.

use std::borrow::Cow;

use convoke_deploy::Function;
use convoke_model::{Code, Failure, decode_convex, whole_floats_to_integers};
use serde_json::Value;

use crate::call::{Call, Encoding};

/// Arguments that the function takes.
#[derive(Debug)]
pub(crate) struct Arguments<'a> {
    /// What the function is given: the caller's own text where nothing had to be changed.
    pub(crate) text: Cow<'a, str>,
    pub(crate) value: Value,
}

/// Reads the arguments of a call.
pub(crate) fn read<'a>(function: &Function, call: &Call<'a>) -> Result<Arguments<'a>, Failure> {
    let invalid = |words: String| Failure::caller(Code::InvalidArgs, words);
    let mut value: Value = serde_json::from_str(call.args)
        .map_err(|error| invalid(format!("the arguments are not valid JSON: {error}")))?;
    let marked = call.encoding == Encoding::Convex && call.args.contains("\"$");
    if marked {
        value = decode_convex(value).map_err(invalid)?;
    }
    // Clients whose only number is a float write 50 as 50.0; a function that takes an integer takes that too.
    let floats = whole_floats_to_integers(&mut value);
    if let Some((_, validator)) = function.manifest() {
        validator.check(&value).map_err(|error| {
            let data = error.data();
            invalid(error.to_string()).with_data(data)
        })?;
    }
    let text = if marked || floats { Cow::Owned(value.to_string()) } else { Cow::Borrowed(call.args) };
    Ok(Arguments { text, value })
}
