//! The second layer: which function, of which version, answers.

use std::fmt::Write;

use convoke_deploy::{Deployment, Function};
use convoke_model::{Code, Failure, FunctionPath};
use serde_json::json;

use crate::call::Call;
use crate::caller::Caller;

/// The function of a call in a deployment.
pub(crate) fn find<'a>(deployment: &'a Deployment, caller: &Caller, call: &Call<'_>) -> Result<&'a Function, Failure> {
    let path = FunctionPath::parse(call.path).map_err(|error| Failure::caller(Code::NotFound, error.to_string()))?;
    let function = deployment.function(path.as_str()).ok_or_else(|| unknown(&path, deployment))?;
    if function.kind() != call.kind {
        return Err(wrong_kind(function, call));
    }
    match &caller.version {
        Some(wanted) if wanted.is_empty() || !function.version().digest().starts_with(wanted.as_str()) => {
            Err(Failure::caller(Code::NotFound, format!("`{path}` has no version `{wanted}` that is deployed here")))
        }
        _ => Ok(function),
    }
}

fn unknown(path: &FunctionPath, deployment: &Deployment) -> Failure {
    let mut words = format!("there is no function `{path}`");
    let module = path.module();
    match deployment.components().get(module) {
        None => {
            let modules: Vec<&str> = deployment.components().keys().map(String::as_str).collect();
            let _ = write!(words, ": no component `{module}` (there are: {})", modules.join(", "));
        }
        Some(version) => {
            let names: Vec<&str> = version.manifest().functions.iter().map(|function| function.name.as_str()).collect();
            let _ = write!(words, ": `{module}` has {}", names.join(", "));
        }
    }
    Failure::caller(Code::NotFound, words)
}

fn wrong_kind(function: &Function, call: &Call<'_>) -> Failure {
    let (path, kind) = (function.path(), function.kind());
    let article = if kind == convoke_model::Kind::Action { "an" } else { "a" };
    Failure::caller(
        Code::InvalidArgs,
        format!("`{path}` is {article} {kind}, not a {}: call it as {article} {kind}", call.kind),
    )
    .with_data(json!({ "kind": kind.as_str(), "calledAs": call.kind.as_str() }))
}
