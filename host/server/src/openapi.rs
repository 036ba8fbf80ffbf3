//! `/openapi.json`: the project's functions, described from their manifests.

mod definitions;

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use convoke_deploy::{Deployment, Function};
use convoke_model::Kind;
use serde_json::{Map, Value, json};

use self::definitions::Definitions;
use crate::host::Host;
use crate::respond;

pub(crate) async fn document(State(host): State<Arc<Host>>) -> Response {
    let document = describe(host.project(), &host.deployments.current());
    respond::json(StatusCode::OK, document.to_string())
}

fn describe(project: &str, deployment: &Deployment) -> Value {
    let mut definitions = Definitions::default();
    definitions.add("Error", error_schema());
    let paths: Map<String, Value> = deployment
        .functions()
        .into_iter()
        .filter(|function| function.kind() != Kind::Rule)
        .map(|function| {
            (format!("/api/{}/{}", function.kind(), function.path()), operation(function, &mut definitions))
        })
        .collect();
    json!({
        "openapi": "3.1.0",
        "info": { "title": project, "version": "0" },
        "paths": paths,
        "components": { "schemas": definitions.into_schemas() },
    })
}

fn operation(function: &Function, definitions: &mut Definitions) -> Value {
    let (args, returns) = function
        .manifest()
        .map_or((Value::Null, Value::Null), |(manifest, _)| (manifest.args.clone(), manifest.returns.clone()));
    let args = definitions.lift(or_any(args), &format!("{}.args", function.path()));
    let returns = definitions.lift(or_any(returns), &format!("{}.returns", function.path()));
    let success = json!({
        "type": "object",
        "properties": { "ok": { "const": true }, "data": returns },
        "required": ["ok", "data"],
    });
    let error = json!({ "$ref": "#/components/schemas/Error" });
    json!({
        "post": {
            "operationId": function.path().as_str(),
            "tags": [function.path().module()],
            "requestBody": { "required": true, "content": { "application/json": { "schema": args } } },
            "responses": {
                "200": { "description": "the result", "content": { "application/json": { "schema": success } } },
                "default": { "description": "an error", "content": { "application/json": { "schema": error } } },
            },
        }
    })
}

fn error_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "ok": { "const": false },
            "error": {
                "type": "object",
                "properties": { "code": { "type": "string" }, "message": { "type": "string" }, "details": {} },
                "required": ["code", "message"],
            },
        },
        "required": ["ok", "error"],
    })
}

fn or_any(schema: Value) -> Value {
    if schema.is_null() { json!({}) } else { schema }
}
