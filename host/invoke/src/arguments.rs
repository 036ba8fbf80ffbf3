//! The fourth layer: the arguments, parsed once and held to the function's schema.

use convoke_deploy::Function;
use convoke_model::{Code, Failure, decode_convex, whole_floats_to_integers};
use serde_json::Value;

use crate::call::{Call, Encoding};

/// Reads the arguments of a call, and gives them in their canonical form, which is what the function is given: the same arguments
/// are the same text, to who looks for a kept result or a receipt too. The tree, which may take many times their room, is gone
/// before anything is waited for.
pub(crate) fn read(function: &Function, call: &Call<'_>) -> Result<String, Failure> {
    let invalid = |words: String| Failure::caller(Code::InvalidArgs, words);
    let mut value: Value = serde_json::from_str(call.args)
        .map_err(|error| invalid(format!("the arguments are not valid JSON: {error}")))?;
    if call.encoding == Encoding::Convex && call.args.contains("\"$") {
        value = decode_convex(value).map_err(invalid)?;
    }
    // Clients whose only number is a float write 50 as 50.0; a function that takes an integer takes that too.
    whole_floats_to_integers(&mut value);
    if let Some((_, validator)) = function.manifest() {
        validator.check(&value).map_err(|error| {
            let data = error.data();
            invalid(error.to_string()).with_data(data)
        })?;
    }
    Ok(value.to_string())
}
