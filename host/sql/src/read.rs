//! Reads: by id, and by index or whole table.

use std::fmt::Write;

use convoke_model::{Condition, Operator, Order, Plan};
use serde_json::Value;
use uuid::Uuid;

use crate::{Parameter, Statement, field, qualified};

const COLUMNS: &str = "_id, _creation_time, data";

/// One document by id.
pub fn get(schema: &str, table: &str, id: Uuid) -> Statement {
    Statement {
        text: format!("select {COLUMNS} from {} where _id = $1", qualified(schema, table)),
        parameters: vec![Parameter::Uuid(id)],
    }
}

/// Documents by id, in any order.
pub fn get_many(schema: &str, table: &str, ids: Vec<Uuid>) -> Statement {
    Statement {
        text: format!("select {COLUMNS} from {} where _id = any($1)", qualified(schema, table)),
        parameters: vec![Parameter::Uuids(ids)],
    }
}

/// The documents of a plan, which must have been checked against its table. `fields` are those of its index, `limit`
/// the rows to return at most.
pub fn query(schema: &str, plan: &Plan, fields: &[String], limit: u32) -> Statement {
    let mut text = format!("select {COLUMNS} from {}", qualified(schema, &plan.table));
    let mut parameters = Vec::with_capacity(plan.conditions.len() + 1);
    for (position, condition) in plan.conditions.iter().enumerate() {
        text.push_str(if position == 0 { " where " } else { " and " });
        push_condition(&mut text, &mut parameters, condition);
    }
    push_order(&mut text, plan, fields);
    parameters.push(Parameter::BigInt(i64::from(limit)));
    let _ = write!(text, " limit ${}", parameters.len());
    Statement { text, parameters }
}

fn push_condition(text: &mut String, parameters: &mut Vec<Parameter>, condition: &Condition) {
    let field = field(&condition.field);
    let operator = match condition.op {
        Operator::In => {
            let values = condition.value.as_array().into_iter().flatten().map(Value::to_string).collect();
            parameters.push(Parameter::Jsons(values));
            let _ = write!(text, "{field} = any(${})", parameters.len());
            return;
        }
        // A field that is null and a field that is missing read the same to a function: both are `None`.
        Operator::Eq if condition.value.is_null() => {
            let _ = write!(text, "({field} = 'null' or {field} is null)");
            return;
        }
        Operator::Eq => "=",
        Operator::Ne => "<>",
        Operator::Lt => "<",
        Operator::Lte => "<=",
        Operator::Gt => ">",
        Operator::Gte => ">=",
    };
    parameters.push(Parameter::Json(condition.value.to_string()));
    let _ = write!(text, "{field} {operator} ${}", parameters.len());
}

/// The order of the index, without the fields that equalities have fixed.
fn push_order(text: &mut String, plan: &Plan, fields: &[String]) {
    let direction = match plan.order {
        Order::Asc => "",
        Order::Desc => " desc",
    };
    text.push_str(" order by ");
    for name in fields {
        let fixed = plan.conditions.iter().any(|condition| condition.field == *name && condition.op == Operator::Eq);
        if !fixed {
            let _ = write!(text, "{}{direction}, ", field(name));
        }
    }
    let _ = write!(text, "_creation_time{direction}, _id{direction}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(json: &str) -> String {
        let plan = Plan::parse(json).expect("plan");
        query("demo", &plan, &["channel".to_owned(), "it's".to_owned()], 50).text
    }

    #[test]
    fn by_index() {
        assert_eq!(
            text(
                r#"{"table":"messages","index":"i","where":[{"field":"channel","op":"eq","value":"a"}],"order":"desc"}"#
            ),
            "select _id, _creation_time, data from \"demo\".\"messages\" where (data->'channel') = $1 \
             order by (data->'it''s') desc, _creation_time desc, _id desc limit $2"
        );
        assert_eq!(
            text(
                r#"{"table":"messages","index":"i","where":[{"field":"channel","op":"in","value":[1,2]},{"field":"it's","op":"gte","value":3}]}"#
            ),
            "select _id, _creation_time, data from \"demo\".\"messages\" where (data->'channel') = any($1) \
             and (data->'it''s') >= $2 order by (data->'channel'), (data->'it''s'), _creation_time, _id limit $3"
        );
    }

    #[test]
    fn null_is_found_whether_written_or_missing() {
        assert!(
            text(r#"{"table":"m","index":"i","where":[{"field":"channel","op":"eq","value":null}]}"#)
                .contains("((data->'channel') = 'null' or (data->'channel') is null)")
        );
    }

    #[test]
    fn names_are_quoted() {
        assert_eq!(
            get("a\"b", "c;d", Uuid::nil()).text,
            "select _id, _creation_time, data from \"a\"\"b\".\"c;d\" where _id = $1"
        );
    }
}
