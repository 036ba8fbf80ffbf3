//! `/openapi.json`: the project's functions, described from their manifests.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use convoke_deploy::{Deployment, Function};
use convoke_model::Kind;
use serde_json::{Map, Value, json};

use crate::host::Host;
use crate::respond;

pub(crate) async fn document(State(host): State<Arc<Host>>) -> Response {
    let document = describe(host.project(), &host.deployments.current());
    respond::json(StatusCode::OK, document.to_string())
}

fn describe(project: &str, deployment: &Deployment) -> Value {
    let paths: Map<String, Value> = deployment
        .functions()
        .into_iter()
        .filter(|function| function.kind() != Kind::Rule)
        .map(|function| (format!("/api/{}/{}", function.kind(), function.path()), operation(function)))
        .collect();
    json!({
        "openapi": "3.1.0",
        "info": { "title": project, "version": "0" },
        "paths": paths,
        "components": { "schemas": { "Error": error_schema() } },
    })
}

fn operation(function: &Function) -> Value {
    let (args, returns) = function
        .manifest()
        .map_or((Value::Null, Value::Null), |(manifest, _)| (manifest.args.clone(), manifest.returns.clone()));
    let success = json!({
        "type": "object",
        "properties": { "ok": { "const": true }, "data": or_any(returns) },
        "required": ["ok", "data"],
    });
    let error = json!({ "$ref": "#/components/schemas/Error" });
    json!({
        "post": {
            "operationId": function.path().as_str(),
            "tags": [function.path().module()],
            "requestBody": { "required": true, "content": { "application/json": { "schema": or_any(args) } } },
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
