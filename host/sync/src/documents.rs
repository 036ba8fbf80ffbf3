//! Whether the documents that are stored fit a schema that has changed.

use std::collections::BTreeMap;

use convoke_model::{ArgumentsValidator, Table};
use convoke_sql::qualified;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::SyncError;
use crate::declared::Kind;
use crate::hash;
use crate::planner::View;
use crate::precheck::client_id;
use crate::problem::{Problem, shown};

/// Documents that are looked at: half of them the oldest, half the newest. The forms of a table's life are at its ends.
const SAMPLED_MAX: i64 = 1_000;

/// What is wrong with one field, over the documents that were looked at.
struct Finding {
    count: usize,
    words: String,
    samples: Vec<String>,
}

pub(crate) async fn problems(view: &View<'_>) -> Result<Vec<Problem>, SyncError> {
    let mut problems = Vec::new();
    for table in view.schema.tables.values().filter(|table| table.is_managed() && !table.document.is_null()) {
        let known = view.registry.object(&table.name, Kind::Table, &table.name);
        let is_new = known.is_none_or(|known| !known.made || known.definition != hash::documents(table));
        let has_documents = view
            .live
            .relations
            .get(&table.name)
            .is_some_and(|relation| relation.is_table() && relation.columns.contains_key("data"));
        let validator = match ArgumentsValidator::new(&table.document) {
            Ok(validator) => validator,
            Err(error) => {
                problems.push(
                    Problem::new("SCHEMA_INVALID", error.to_string(), "correct the schema that the component declares")
                        .table(&table.name),
                );
                continue;
            }
        };
        if is_new && has_documents {
            problems.extend(of_table(view, table, &validator).await?);
        }
    }
    Ok(problems)
}

async fn of_table(view: &View<'_>, table: &Table, validator: &ArgumentsValidator) -> Result<Vec<Problem>, SyncError> {
    let rows = sample(view, table).await?;
    let mut findings: BTreeMap<String, Finding> = BTreeMap::new();
    for (id, text) in &rows {
        let Ok(Value::Object(document)) = serde_json::from_str(text) else { continue };
        let Err(error) = validator.check(&plain(table, document)) else { continue };
        let field = if error.field == "args" { String::new() } else { error.field };
        let finding = findings.entry(field).or_insert_with(|| Finding {
            count: 0,
            words: format!("the schema expects {}", error.expected),
            samples: Vec::new(),
        });
        finding.count += 1;
        if finding.samples.len() < 3 {
            let id = client_id(view, &table.name, *id);
            finding.samples.push(
                format!("{id} has {}", shown(&error.found)).replace("has nothing: the field is missing", "lacks it"),
            );
        }
    }
    let relation = qualified(view.project, &table.name);
    let looked_at = rows.len();
    Ok(findings
        .into_iter()
        .map(|(field, finding)| {
            let top = field.split(['.', '[']).next().unwrap_or_default().to_owned();
            let problem = Problem::new(
                "DOCUMENTS_DO_NOT_FIT",
                format!(
                    "{}, and {} of {looked_at} documents that were looked at {} something else",
                    finding.words,
                    finding.count,
                    if finding.count == 1 { "has" } else { "have" }
                ),
                format!(
                    "make the field optional or wider, or raise the table's version and give an `upcast`, or correct the \
                     documents: `update {relation} set data = jsonb_set(data, '{{{top}}}', …) where …`"
                ),
            );
            problem.table(&table.name).field(if field.is_empty() { "(the document)" } else { &field }).samples(finding.samples)
        })
        .collect())
}

async fn sample(view: &View<'_>, table: &Table) -> Result<Vec<(Uuid, String)>, SyncError> {
    let relation = qualified(view.project, &table.name);
    let has_version = view.live.relations.get(&table.name).is_some_and(|live| live.columns.contains_key("_version"));
    // Older ones are brought to the declared form by its upcast when they are read.
    let current = match (&table.upcast, has_version) {
        (None, _) => "true".to_owned(),
        (Some(_), true) => format!("_version = {}", table.version),
        (Some(_), false) => (table.version <= 1).to_string(),
    };
    let half = SAMPLED_MAX / 2;
    let sql = format!(
        "select _id, data::text from (\
         (select _id, data from {relation} where {current} order by _id limit {half}) union \
         (select _id, data from {relation} where {current} order by _id desc limit {half})) s order by _id"
    );
    let failed = SyncError::statement(format!("look at documents of `{}`", table.name));
    let rows = view.session.query(&sql, &[]).await.map_err(failed)?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// A stored document as its schema sees it. Fields that the schema no longer has are orphans and no mistakes; numbers
/// that JSON cannot hold are stored as objects with one field.
fn plain(table: &Table, mut document: Map<String, Value>) -> Value {
    if let Some(properties) = table.document.get("properties").and_then(Value::as_object)
        && table.document.get("additionalProperties") == Some(&Value::Bool(false))
    {
        document.retain(|name, _| properties.contains_key(name));
    }
    for (name, field) in table.document.get("properties").and_then(Value::as_object).into_iter().flatten() {
        // A reader fills it in.
        if let Some(default) = field.get("default").filter(|_| !document.contains_key(name)) {
            document.insert(name.clone(), default.clone());
        }
    }
    without_marks(Value::Object(document))
}

fn without_marks(value: Value) -> Value {
    match value {
        Value::Object(fields) if fields.len() == 1 && fields.contains_key("$float") => json!(0.5),
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, without_marks(value))).collect(),
        Value::Array(items) => items.into_iter().map(without_marks).collect(),
        scalar => scalar,
    }
}
