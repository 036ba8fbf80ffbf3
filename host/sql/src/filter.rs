//! Conditions on any fields, evaluated by Postgres row by row.

use std::fmt::Write;

use convoke_model::{CREATION_TIME, Condition, DocumentId, Filter, Operator, condition_key, is_undefined};
use serde_json::Value;
use uuid::Uuid;

use crate::read::{comparison, json_parameter};
use crate::{Parameter, Statement, path};

/// Appends a filter that is true or false, never null, so that `not` turns it.
pub(crate) fn push_filter(statement: &mut Statement, filter: &Filter) {
    match filter {
        Filter::And { and } => push_joined(statement, and, " and ", "true"),
        Filter::Or { or } => push_joined(statement, or, " or ", "false"),
        Filter::Not { not } => {
            statement.text.push_str("not ");
            push_filter(statement, not);
        }
        Filter::Compare(condition) => push_comparison(statement, condition),
    }
}

fn push_joined(statement: &mut Statement, parts: &[Filter], joint: &str, empty: &str) {
    statement.text.push('(');
    if parts.is_empty() {
        statement.text.push_str(empty);
    }
    for (position, part) in parts.iter().enumerate() {
        if position > 0 {
            statement.text.push_str(joint);
        }
        push_filter(statement, part);
    }
    statement.text.push(')');
}

fn push_comparison(statement: &mut Statement, condition: &Condition) {
    match condition.field.as_str() {
        CREATION_TIME => {
            let number = statement.parameter(Parameter::Float(condition.value.as_f64().unwrap_or_default()));
            let _ = write!(statement.text, "_creation_time {} ${number}", comparison(condition.op));
        }
        "_id" => push_id(statement, condition),
        field => push_field(statement, &path(field), condition),
    }
}

fn push_field(statement: &mut Statement, field: &str, condition: &Condition) {
    let value = &condition.value;
    match condition.op {
        Operator::Eq if is_undefined(value) => {
            let _ = write!(statement.text, "{field} is null");
        }
        Operator::Ne if is_undefined(value) => {
            let _ = write!(statement.text, "{field} is not null");
        }
        Operator::Eq => {
            let number = statement.parameter(json_parameter(value));
            let _ = write!(statement.text, "coalesce({field} = ${number}, false)");
        }
        Operator::Ne => {
            let number = statement.parameter(json_parameter(value));
            let _ = write!(statement.text, "{field} is distinct from ${number}");
        }
        Operator::In => {
            let values: Vec<&Value> = value.as_array().into_iter().flatten().collect();
            let missing = if values.iter().any(|value| is_undefined(value)) { "true" } else { "false" };
            let present = values.into_iter().filter(|value| !is_undefined(value)).map(Value::to_string).collect();
            let number = statement.parameter(Parameter::Jsons(present));
            let _ = write!(statement.text, "coalesce({field} = any(${number}), {missing})");
        }
        Operator::Lt | Operator::Lte | Operator::Gt | Operator::Gte => {
            let number = statement.parameter(Parameter::Bytes(condition_key(value)));
            let _ = write!(statement.text, "convoke.key({field}) {} ${number}", comparison(condition.op));
        }
    }
}

/// Ids are compared as Postgres holds them; what is no id equals none.
fn push_id(statement: &mut Statement, condition: &Condition) {
    let uuid = |value: &Value| value.as_str().and_then(|text| DocumentId::parse(text).ok()).map(|id| id.uuid);
    if condition.op == Operator::In {
        let ids: Vec<Uuid> = condition.value.as_array().into_iter().flatten().filter_map(uuid).collect();
        let number = statement.parameter(Parameter::Uuids(ids));
        let _ = write!(statement.text, "_id = any(${number})");
        return;
    }
    match uuid(&condition.value) {
        Some(id) => {
            let number = statement.parameter(Parameter::Uuid(id));
            let _ = write!(statement.text, "_id {} ${number}", comparison(condition.op));
        }
        None => statement.text.push_str(if condition.op == Operator::Ne { "true" } else { "false" }),
    }
}
