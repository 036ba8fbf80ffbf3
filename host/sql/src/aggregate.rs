//! Counts, sums and the like, over all the documents of a plan or over groups of them.

use std::fmt::Write;

use convoke_model::{Aggregate, AggregateOperator, Index, Order, Plan, Table};

use crate::read::{Bounds, push_where};
use crate::{Statement, key_of, path, qualified};

/// One row with one `jsonb`: an array with a value for each aggregate. With `groupBy` a row a group, each
/// `{"key": […], "values": […]}`, in the order of the index; `limit` is the groups to return at most.
pub fn aggregate(schema: &str, table: &Table, plan: &Plan, index: &Index, limit: u32) -> Statement {
    let mut statement = Statement { text: String::from("select "), parameters: Vec::new() };
    let relation = qualified(schema, &table.name);
    let keys: Vec<String> = plan.group_by.iter().map(|field| path(field)).collect();
    if !keys.is_empty() {
        let _ = write!(statement.text, "jsonb_build_object('key', jsonb_build_array({}), 'values', ", keys.join(", "));
    }
    statement.text.push_str("jsonb_build_array(");
    let mut over_rows = !keys.is_empty();
    for (position, aggregate) in plan.aggregate.iter().enumerate() {
        if position > 0 {
            statement.text.push_str(", ");
        }
        over_rows |= push_aggregate(&mut statement, &relation, plan, index, aggregate);
    }
    statement.text.push_str(if keys.is_empty() { ")" } else { "))" });
    // Ends of the index alone are values, not aggregates over rows.
    if !over_rows {
        return statement;
    }
    let _ = write!(statement.text, " from {relation}");
    push_where(&mut statement, plan, index, Bounds::default());
    if keys.is_empty() {
        return statement;
    }
    let ordered: Vec<String> = plan.group_by.iter().map(|field| key_of(field)).collect();
    let _ = write!(statement.text, " group by {}, {} order by ", ordered.join(", "), keys.join(", "));
    for (position, (field, key)) in plan.group_by.iter().zip(&ordered).enumerate() {
        let declared = index.fields.iter().find(|declared| declared.name == *field);
        let descends = declared.map_or(Order::Asc, |declared| declared.order) != plan.order;
        let joint = if position == 0 { "" } else { ", " };
        let _ = write!(statement.text, "{joint}{key}{}", if descends { " desc" } else { "" });
    }
    statement.push_limit(limit, plan.offset);
    statement
}

/// Appends one value; whether it is computed over the rows of the statement.
fn push_aggregate(
    statement: &mut Statement,
    relation: &str,
    plan: &Plan,
    index: &Index,
    aggregate: &Aggregate,
) -> bool {
    let name = aggregate.field.as_deref().unwrap_or_default();
    let field = path(name);
    let number = format!("case when jsonb_typeof({field}) = 'number' then ({field} #>> '{{}}')::numeric end");
    let text = match aggregate.op {
        AggregateOperator::Count if name.is_empty() => "count(*)".to_owned(),
        AggregateOperator::Count => format!("count({field})"),
        AggregateOperator::Sum => format!("coalesce(sum({number}), 0)"),
        AggregateOperator::Avg => format!("avg({number})"),
        AggregateOperator::Min | AggregateOperator::Max => {
            let descends = if aggregate.op == AggregateOperator::Max { " desc" } else { "" };
            let next = index.fields.get(plan.fixed_fields()).is_some_and(|field| field.name == name);
            if next && plan.group_by.is_empty() {
                // The end of the index that the conditions select.
                let _ = write!(statement.text, "(select {field} from {relation}");
                let from = statement.text.len();
                push_where(statement, plan, index, Bounds::default());
                statement.text.push_str(if statement.text.len() == from { " where " } else { " and " });
                let key = key_of(name);
                let _ = write!(statement.text, "{key} > '\\x01' order by {key}{descends} limit 1)");
                return false;
            }
            format!(
                "(array_agg({field} order by convoke.key({field}){descends}) filter (where {field} is not null))[1]"
            )
        }
    };
    statement.text.push_str(&text);
    true
}
