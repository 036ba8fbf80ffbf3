//! `convoke run`.

use std::path::Path;

use convoke_model::FunctionPath;
use convoke_project::Project;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::args::{Kind, PORT, RunArgs};
use crate::dev::address;
use crate::failure::Failure;
use crate::http::{Answer, Server};
use crate::output::Output;

/// What a server answers to a call.
#[derive(Debug, Deserialize)]
struct Reply {
    #[serde(default)]
    data: Value,
    error: Option<ReplyError>,
}

#[derive(Debug, Deserialize)]
struct ReplyError {
    code: String,
    message: String,
    details: Option<Value>,
}

pub(crate) async fn run(args: RunArgs, output: &Output) -> Result<(), Failure> {
    let function = FunctionPath::parse(&args.function)
        .map_err(|e| Failure::usage(e.to_string()).hint("write `convoke run messages:list`"))?;
    let arguments: Map<String, Value> = serde_json::from_str(&args.arguments).map_err(|e| {
        Failure::usage("the arguments are no JSON object")
            .cause(&e)
            .hint(format!("write `convoke run {function} '{{\"name\": \"value\"}}'`"))
    })?;
    let found = Server::parse(&args.url.clone().unwrap_or_else(|| url_of_dev(Path::new("."))))?;
    let reply = call(&found, &function, args.kind, &Value::Object(arguments).to_string()).await.map_err(|failure| {
        // Only where the address was a guess is it the first thing to look at.
        let hint = "start the server with `convoke dev`, or name another one: `--url URL`";
        failure.hints(args.url.is_none().then(|| hint.to_owned()))
    })?;
    match reply.error {
        None => output.json(&reply.data),
        Some(error) => Err(refusal(&function, &error)),
    }
}

async fn call(server: &Server, function: &FunctionPath, kind: Kind, arguments: &str) -> Result<Reply, Failure> {
    let reply = call_as(server, function, kind_segment(kind), arguments).await?;
    // A query is the kind that may be tried without harm; the server names the right one.
    match right_kind(&reply).filter(|_| kind == Kind::Auto).as_deref() {
        Some(kind @ ("mutation" | "action")) => call_as(server, function, kind, arguments).await,
        _ => Ok(reply),
    }
}

/// The kind that a server names when a function was called as another one.
fn right_kind(reply: &Reply) -> Option<String> {
    let details = reply.error.as_ref()?.details.as_ref()?;
    details.get("calledAs")?;
    details.get("kind")?.as_str().map(str::to_owned)
}

fn kind_segment(kind: Kind) -> &'static str {
    match kind {
        Kind::Auto | Kind::Query => "query",
        Kind::Mutation => "mutation",
        Kind::Action => "action",
    }
}

async fn call_as(server: &Server, function: &FunctionPath, kind: &str, arguments: &str) -> Result<Reply, Failure> {
    let answer = server.post(&format!("/api/{kind}/{function}"), arguments.to_owned()).await?;
    read(server, &answer)
}

fn read(server: &Server, answer: &Answer) -> Result<Reply, Failure> {
    serde_json::from_slice(&answer.body).map_err(|_| {
        Failure::new(format!("{} is no Convoke server: it answers with status {}", server.address(), answer.status))
    })
}

fn refusal(function: &FunctionPath, error: &ReplyError) -> Failure {
    // Most messages name the function themselves.
    let name = if error.message.contains(function.as_str()) { String::new() } else { format!("{function}: ") };
    let message = format!("{name}{} ({})", error.message, error.code);
    match error.details.as_ref().filter(|details| !details.is_null()) {
        Some(details) => Failure::new(format!("{message}\n  details: {details}")),
        None => Failure::new(message),
    }
}

/// The running `convoke dev` of the project here, or else where one would be.
fn url_of_dev(dir: &Path) -> String {
    let recorded = Project::find(dir).ok().and_then(|project| address::recorded(&project));
    recorded.unwrap_or_else(|| format!("http://127.0.0.1:{PORT}"))
}
