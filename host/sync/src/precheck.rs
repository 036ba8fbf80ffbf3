//! What existing rows say to a step before it is run: an index over values that collide or do not fit, a check that a
//! row fails.

use convoke_model::{DocumentId, Table};
use convoke_sql::{key_of, qualified, quote_literal};
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use crate::SyncError;
use crate::compare::comparable;
use crate::declared::{self, WantedCheck, WantedIndex};
use crate::plan::Step;
use crate::planner::View;
use crate::problem::{Problem, shown};

/// Documents that a message shows.
const SAMPLES_MAX: i64 = 3;
/// An index entry holds 2,704 bytes, after compression; below this it fits in any case.
const KEY_BYTES_SURE: i32 = 2_500;
/// Entries that are tried out, the largest first.
const TRIES_MAX: i64 = 5;

/// Looks at the rows of tables that have steps. Reads only what a step will read too.
pub(crate) async fn problems(view: &View<'_>, steps: &[Step]) -> Result<Vec<Problem>, SyncError> {
    let mut problems = Vec::new();
    for table in view.schema.tables.values().filter(|table| table.is_managed()) {
        let has_steps = steps.iter().any(|step| step.table.as_deref() == Some(table.name.as_str()));
        if has_steps && view.live.relations.get(&table.name).is_some_and(crate::catalog::Relation::is_table) {
            problems.extend(of_table(view, table).await?);
        }
    }
    Ok(problems)
}

async fn of_table(view: &View<'_>, table: &Table) -> Result<Vec<Problem>, SyncError> {
    let Some(live) = view.live.relations.get(&table.name) else { return Ok(Vec::new()) };
    let mut problems = Vec::new();
    let mut ranged: Vec<String> = Vec::new();
    for index in declared::indexes(table) {
        let is_there =
            live.indexes.get(&index.name).is_some_and(|found| found.valid && found.definition == index.definition());
        if is_there || index.fields.is_empty() {
            continue;
        }
        for field in &index.fields {
            if !ranged.contains(field) {
                problems.extend(out_of_range(view, table, &index, field).await?);
                ranged.push(field.clone());
            }
        }
        if problems.iter().any(|problem| problem.id == "NUMBER_RANGE") {
            continue;
        }
        let found =
            if index.unique { duplicates(view, table, &index).await? } else { too_large(view, table, &index).await? };
        problems.extend(found);
    }
    for check in declared::checks(table) {
        let same = comparable(&format!("check ({})", check.expression));
        let holds = live.constraints.get(&check.name).is_some_and(|found| found.validated && found.definition == same);
        if !holds {
            problems.extend(violated(view, table, &check).await?);
        }
    }
    Ok(problems)
}

/// The id as clients see it.
pub(crate) fn client_id(view: &View<'_>, table: &str, uuid: Uuid) -> String {
    match view.registry.number(table) {
        Some(number) => format!("`{}`", DocumentId { table: number, uuid }),
        None => format!("`{uuid}`"),
    }
}

async fn duplicates(view: &View<'_>, table: &Table, index: &WantedIndex) -> Result<Option<Problem>, SyncError> {
    let relation = qualified(view.project, &table.name);
    let keys: Vec<String> = index.fields.iter().map(|field| key_of(field)).collect();
    let names: Vec<String> = index.fields.iter().map(|field| quote_literal(field)).collect();
    let values: Vec<String> = names.iter().map(|name| format!("data->{name}")).collect();
    let sql = format!(
        "select (array_agg(_id order by _id))[1:3], (array_agg(jsonb_build_array({}) order by _id))[1]::text, \
         count(*), count(*) over () from {relation} where data ?& array[{}] group by {} having count(*) > 1 \
         order by 1 limit {SAMPLES_MAX}",
        values.join(", "),
        names.join(", "),
        keys.join(", ")
    );
    let rows = view
        .session
        .query(&sql, &[])
        .await
        .map_err(SyncError::statement(format!("look for equal values in `{}`", table.name)))?;
    let Some(first) = rows.first() else { return Ok(None) };
    let groups: i64 = first.get(3);
    let samples = rows.iter().map(|row| {
        let ids: Vec<String> =
            row.get::<_, Vec<Uuid>>(0).into_iter().map(|id| client_id(view, &table.name, id)).collect();
        format!("{} have {}", ids.join(", "), shown(row.get::<_, &str>(1)))
    });
    let values = if groups == 1 { "one value is".to_owned() } else { format!("{groups} values are") };
    Ok(Some(
        Problem::new(
            "UNIQUE_DUPLICATES",
            format!("the index `{}` is to be unique, and {values} in more than one document", index.declared),
            format!("change or delete all but one document of each, or declare `{}` without `unique`", index.declared),
        )
        .table(&table.name)
        .field(&index.fields.join("`, `"))
        .samples(samples),
    ))
}

async fn out_of_range(
    view: &View<'_>,
    table: &Table,
    index: &WantedIndex,
    field: &str,
) -> Result<Option<Problem>, SyncError> {
    let value = format!("(data->{})", quote_literal(field));
    let relation = qualified(view.project, &table.name);
    let sql = format!(
        "select _id, {value}::text, count(*) over () from {relation} where case when jsonb_typeof({value}) = 'number' \
         then {value}::numeric <> 0 and abs({value}::numeric) not between 2.5e-324 and 1.7976931348623158e308 \
         else false end order by _id limit {SAMPLES_MAX}"
    );
    let rows = view
        .session
        .query(&sql, &[])
        .await
        .map_err(SyncError::statement(format!("look at the numbers of `{}`", table.name)))?;
    let Some(first) = rows.first() else { return Ok(None) };
    let count: i64 = first.get(2);
    let samples = rows.iter().map(|row| {
        let text: &str = row.get(1);
        format!("{} has {} ({} digits)", client_id(view, &table.name, row.get(0)), shown(text), text.len())
    });
    Ok(Some(
        Problem::new(
            "NUMBER_RANGE",
            format!(
                "the index `{}` orders numbers as 64-bit floats, and {} one outside of their range",
                index.declared,
                documents(count, "has", "have")
            ),
            "write numbers that a 64-bit float can hold, or leave the field out of the index",
        )
        .table(&table.name)
        .field(field)
        .samples(samples),
    ))
}

/// Large keys are compressed, so whether one fits is known only by trying. The try is undone.
async fn too_large(view: &View<'_>, table: &Table, index: &WantedIndex) -> Result<Option<Problem>, SyncError> {
    let failed = || SyncError::statement(format!("look at the size of the values of `{}`", table.name));
    let relation = qualified(view.project, &table.name);
    let keys: Vec<String> = index.fields.iter().map(|field| key_of(field)).collect();
    let bytes = keys.iter().map(|key| format!("octet_length({key})")).collect::<Vec<_>>().join(" + ");
    let sql = format!(
        "select _id, {bytes} from {relation} where {bytes} > {KEY_BYTES_SURE} order by 2 desc, 1 limit {TRIES_MAX}"
    );
    let rows = view.session.query(&sql, &[]).await.map_err(failed())?;
    let mut samples = Vec::new();
    for row in &rows {
        let (id, bytes): (Uuid, i32) = (row.get(0), row.get(1));
        if !fits(view, &relation, &keys, id).await.map_err(failed())? {
            samples.push(format!("{} has a value of {bytes} bytes", client_id(view, &table.name, id)));
        }
    }
    if samples.is_empty() {
        return Ok(None);
    }
    samples.truncate(3);
    Ok(Some(
        Problem::new(
            "INDEX_TOO_LARGE",
            format!("a value is too large for the index `{}`: an entry holds 2,704 bytes", index.declared),
            "index a shorter field, such as a digest of this one, or shorten the values",
        )
        .table(&table.name)
        .field(&index.fields.join("`, `"))
        .samples(samples),
    ))
}

async fn fits(view: &View<'_>, relation: &str, keys: &[String], id: Uuid) -> Result<bool, tokio_postgres::Error> {
    let columns: Vec<String> = (0..keys.len()).map(|at| format!("k{at}")).collect();
    let typed: Vec<String> = columns.iter().map(|column| format!("{column} bytea")).collect();
    let tried = view
        .session
        .run(&format!(
            "begin; create temp table convoke_fit ({}, c double precision, i uuid) on commit drop; \
             create index on pg_temp.convoke_fit ({}, c, i); \
             insert into pg_temp.convoke_fit select {}, _creation_time, _id from {relation} where _id = '{id}'; rollback",
            typed.join(", "),
            columns.join(", "),
            keys.join(", ")
        ))
        .await;
    match tried {
        Ok(()) => Ok(true),
        Err(error) => {
            view.session.run("rollback").await?;
            if error.code() == Some(&SqlState::PROGRAM_LIMIT_EXCEEDED) { Ok(false) } else { Err(error) }
        }
    }
}

async fn violated(view: &View<'_>, table: &Table, check: &WantedCheck) -> Result<Option<Problem>, SyncError> {
    let relation = qualified(view.project, &table.name);
    let name = quote_literal(&check.field);
    let sql = format!(
        "select _id, (data->{name})::text, count(*) over () from {relation} \
         where not coalesce(({}), true) order by _id limit {SAMPLES_MAX}",
        check.expression
    );
    let rows = view
        .session
        .query(&sql, &[])
        .await
        .map_err(SyncError::statement(format!("check the documents of `{}`", table.name)))?;
    let Some(first) = rows.first() else { return Ok(None) };
    let count: i64 = first.get(2);
    let samples = rows.iter().map(|row| {
        let value: Option<&str> = row.get(1);
        let id = client_id(view, &table.name, row.get(0));
        value.map_or_else(|| format!("{id} lacks it"), |value| format!("{id} has {}", shown(value)))
    });
    let need = if check.required { "has to be there and be" } else { "has to be" };
    Ok(Some(
        Problem::new(
            "CHECK_VIOLATED",
            format!("the field {need} {}, and {} something else", types(&check.types), documents(count, "has", "have")),
            format!(
                "correct them, as in `update {relation} set data = jsonb_set(data, '{{{}}}', …) where …`, or declare the field as it is",
                check.field
            ),
        )
        .table(&table.name)
        .field(&check.field)
        .samples(samples),
    ))
}

fn types(types: &[String]) -> String {
    let words = types.iter().map(|name| match name.as_str() {
        "null" => "null".to_owned(),
        "array" | "integer" | "object" => format!("an {name}"),
        _ => format!("a {name}"),
    });
    words.collect::<Vec<_>>().join(" or ")
}

pub(crate) fn documents(count: i64, one: &str, many: &str) -> String {
    if count == 1 { format!("1 document {one}") } else { format!("{count} documents {many}") }
}
