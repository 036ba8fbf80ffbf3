//! Conditions on fields that hold ids: what is no id of their table is an error, and not a query that finds nothing.

use serde_json::Value;

use crate::document::Tables;
use crate::id::DocumentId;
use crate::json_schema::ID_KEYWORD;
use crate::plan::{Condition, Filter, Operator, Plan, PlanError, is_undefined};
use crate::schema::{Index, Table};

/// How deep `$ref` and the like are followed: a schema may refer to itself.
const DEPTH_MAX: usize = 16;

impl Tables {
    /// Checks a plan against its table, and its conditions against the tables that they refer to; gives the index along
    /// which it goes.
    ///
    /// # Errors
    /// The first thing that does not fit.
    pub fn check(&self, plan: &Plan, table: &Table) -> Result<Index, PlanError> {
        let index = plan.check(table)?;
        plan.conditions.iter().try_for_each(|condition| self.check_ids(condition, table))?;
        if let Some(filter) = &plan.filter {
            self.check_ids_of(filter, table)?;
        }
        Ok(index)
    }

    fn check_ids_of(&self, filter: &Filter, table: &Table) -> Result<(), PlanError> {
        match filter {
            Filter::And { and: parts } | Filter::Or { or: parts } => {
                parts.iter().try_for_each(|part| self.check_ids_of(part, table))
            }
            Filter::Not { not } => self.check_ids_of(not, table),
            Filter::Compare(condition) => self.check_ids(condition, table),
        }
    }

    fn check_ids(&self, condition: &Condition, table: &Table) -> Result<(), PlanError> {
        let referred = if condition.field == "_id" {
            vec![table.name.as_str()]
        } else {
            let definitions = table.document.get("$defs");
            match field(&table.document, definitions, &condition.field).and_then(|at| ids(at, definitions, DEPTH_MAX)) {
                Some(names) if !names.is_empty() => names,
                _ => return Ok(()),
            }
        };
        // A table that no component declares has no number to hold an id to.
        let Some(numbers) =
            referred.iter().map(|name| Some(self.tables.get(*name)?.number)).collect::<Option<Vec<u32>>>()
        else {
            return Ok(());
        };
        let check = |value: &Value| {
            let found = match value {
                Value::Null => return Ok(()),
                value if is_undefined(value) => return Ok(()),
                Value::String(text) => match DocumentId::parse(text) {
                    Ok(id) if numbers.contains(&id.table) => return Ok(()),
                    Ok(_) => format!("the id `{text}` belongs to another table"),
                    Err(error) => format!("`{}` is not an id: {error}", text.chars().take(64).collect::<String>()),
                },
                other => format!("{} is not an id", crate::arguments::describe(other)),
            };
            Err(PlanError::Id { field: condition.field.clone(), table: referred.join("` or `"), found })
        };
        match (&condition.value, condition.op) {
            (Value::Array(values), Operator::In) => values.iter().try_for_each(check),
            (value, _) => check(value),
        }
    }
}

/// The schema of a field, or of a field within fields.
fn field<'a>(document: &'a Value, definitions: Option<&'a Value>, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(document, |schema, step| within(schema, definitions, step, DEPTH_MAX))
}

fn within<'a>(schema: &'a Value, definitions: Option<&'a Value>, step: &str, depth: usize) -> Option<&'a Value> {
    if depth == 0 {
        return None;
    }
    let own = schema.get("properties").and_then(|properties| properties.get(step));
    let item = || schema.get("items").filter(|_| step.bytes().all(|byte| byte.is_ascii_digit()));
    own.or_else(item).or_else(|| {
        let parts = alternatives(schema, definitions)?;
        let mut found = parts.into_iter().filter_map(|part| within(part, definitions, step, depth - 1));
        // Where several have such a field, each may say something else of it.
        found.next().filter(|_| found.next().is_none())
    })
}

/// The tables whose ids the values of a schema are, where they are ids and nothing else but null.
fn ids<'a>(schema: &'a Value, definitions: Option<&'a Value>, depth: usize) -> Option<Vec<&'a str>> {
    if depth == 0 {
        return None;
    }
    if let Some(table) = schema.get(ID_KEYWORD) {
        return Some(vec![table.as_str()?]);
    }
    if schema.get("type").is_some_and(|name| name == "null") {
        return Some(Vec::new());
    }
    let parts = alternatives(schema, definitions)?.into_iter().map(|part| ids(part, definitions, depth - 1));
    Some(parts.collect::<Option<Vec<_>>>()?.concat())
}

/// The schemas of which a value fits one, where that is all that a schema says.
fn alternatives<'a>(schema: &'a Value, definitions: Option<&'a Value>) -> Option<Vec<&'a Value>> {
    if let Some(reference) = schema.get("$ref") {
        return Some(vec![definitions?.get(reference.as_str()?.strip_prefix("#/$defs/")?)?]);
    }
    let parts = ["anyOf", "oneOf"].into_iter().find_map(|keyword| schema.get(keyword))?;
    Some(parts.as_array()?.iter().collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::manifest::TableManifest;
    use crate::schema::Schema;

    #[test]
    fn what_is_no_id_of_the_table_is_refused() {
        let id = |table: &str| json!({ "type": "string", "x-convoke-id": table });
        let manifests: Vec<TableManifest> = serde_json::from_value(json!([
            { "name": "authors" },
            { "name": "books", "indexes": [{ "name": "by_author", "fields": ["author"] }], "schema": {
                "type": "object",
                "properties": {
                    "author": id("authors"),
                    "editor": { "anyOf": [{ "$ref": "#/$defs/Editor" }, { "type": "null" }] },
                    "others": { "type": "array", "items": id("authors") },
                    "place": { "$ref": "#/$defs/Place" },
                    "either": { "anyOf": [id("authors"), { "type": "string" }] },
                    "gone": id("nowhere"),
                },
                "$defs": {
                    "Editor": { "type": ["string", "null"], "x-convoke-id": "authors" },
                    "Place": { "type": "object", "properties": { "shop": id("books") } },
                },
            } },
        ]))
        .expect("manifests");
        let mut schema = Schema::merge([("library", manifests.as_slice())]).expect("no conflict");
        for (number, table) in schema.tables.values_mut().enumerate() {
            table.number = 10_001 + u32::try_from(number).expect("small");
        }
        let tables = Tables::new(schema).expect("valid schemas");
        let (author, book) =
            [10_001, 10_002].map(|table| json!(DocumentId { table, uuid: Uuid::nil() }.to_string())).into();
        let check = |field: &str, op: &str, value: &Value| {
            let condition = json!({ "field": field, "op": op, "value": value });
            let in_filter = json!({ "table": "books", "filter": { "not": { "and": [condition] } } });
            let plan = Plan::parse(&in_filter.to_string()).expect("a plan");
            tables.check(&plan, &tables.tables["books"]).map(|_| ()).map_err(|error| error.to_string())
        };
        let undefined = json!({ "$undefined": null });
        for (field, right, wrong) in [
            ("author", &author, &book),
            ("editor", &author, &book),
            ("others.0", &author, &book),
            ("place.shop", &book, &author),
            ("_id", &book, &author),
        ] {
            for op in ["eq", "ne", "lt", "gte"] {
                for value in [right, &Value::Null, &undefined] {
                    assert_eq!(check(field, op, value), Ok(()), "{field} {op} {value}");
                }
                let error = check(field, op, wrong).expect_err(field);
                assert!(error.contains("belongs to another table"), "{error}");
                let error = check(field, op, &json!("bob")).expect_err(field);
                assert!(error.contains("`bob` is not an id"), "{error}");
                assert!(check(field, op, &json!(7)).is_err());
            }
            assert_eq!(check(field, "in", &json!([right, null])), Ok(()));
            assert!(check(field, "in", &json!([right, wrong])).is_err());
        }
        for field in ["either", "gone", "unknown", "author.name", "others"] {
            assert_eq!(check(field, "eq", &json!("bob")), Ok(()), "{field}");
        }
        let by_index = r#"{"table":"books","index":"by_author","where":[{"field":"author","op":"eq","value":"bob"}]}"#;
        let plan = Plan::parse(by_index).expect("a plan");
        assert!(matches!(tables.check(&plan, &tables.tables["books"]), Err(PlanError::Id { .. })));
    }
}
