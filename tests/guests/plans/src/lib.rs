//! Whatever plan a test asks for, past what the builders of the SDK would write, and mutations made of steps.
//!
//! The queries do the same under several names, so that what a host counts by function tells kinds of reads apart.

use convoke::__private::bindings::{database_read, database_write, sql};
use convoke::prelude::*;

/// Every field is optional: rows written by hand lack some.
#[table(
    "things",
    index(by_kind = [kind, rank]),
    index(by_rank = [desc(rank)]),
    index(by_mixed = [kind, desc(rank)])
)]
struct Thing {
    kind: Option<String>,
    rank: Option<i64>,
    flag: Option<bool>,
    /// Long enough in some rows to be stored out of line.
    padding: Option<String>,
}

/// A second table, for what is read together.
#[table("others", index(by_n = [n]))]
struct Other {
    n: Option<i64>,
}

fn read(plan: &Value) -> Result<Value> {
    parsed(&database_read::query(&plan.to_string())?)
}

fn parsed(text: &str) -> Result<Value> {
    convoke::serde_json::from_str(text).map_err(|error| Error::new("TEXT", error.to_string()))
}

macro_rules! reads {
    ($($name:ident),*) => {
        $(
            /// What the plan gives.
            #[query]
            fn $name(_: &QueryCtx, plan: Value) -> Result<Value> {
                read(&plan)
            }
        )*
    };
}

reads!(range, limit, filter, page, several, aggregate, offset, fields, page_of_fields);

/// A document by its id.
#[query]
fn point(_: &QueryCtx, table: String, id: String) -> Result<Value> {
    database_read::get(&table, &id)?.map_or(Ok(Value::Null), |text| parsed(&text))
}

/// Two plans in one call, which see the same.
#[query]
fn pair(_: &QueryCtx, first: Value, second: Value) -> Result<Value> {
    Ok(json!([read(&first)?, read(&second)?]))
}

/// The rows of a statement.
#[query]
fn by_sql(_: &QueryCtx, statement: String) -> Result<Value> {
    Ok(parsed(&sql::run(&statement, "[]")?)?["rows"].take())
}

/// The code of the error that the plan or the statement gives, or none.
#[query]
fn code(_: &QueryCtx, plan: Option<Value>, statement: Option<String>) -> Result<Value> {
    let of_plan = plan.map(|plan| database_read::query(&plan.to_string()).map(|_| ()));
    let of_statement = statement.map(|statement| sql::run(&statement, "[]").map(|_| ()));
    let codes = [of_plan, of_statement].map(|done| done.and_then(std::result::Result::err).map(|error| error.code));
    Ok(json!(codes.into_iter().flatten().next()))
}

/// Runs steps: `{"insert": table, "document"}`, `{"patch": table, "id", "fields"}`, `{"delete": table, "id"}`,
/// `{"patchWhere": plan, "fields"}`, `{"deleteWhere": plan}`, `{"nest": steps, "undo"}` in a savepoint, `{"fail": true}`.
/// A step that the database refuses is left out where it stands in a savepoint.
#[mutation]
fn apply(_: &MutationCtx, steps: Vec<Value>) -> Result<()> {
    run(&steps)
}

fn run(steps: &[Value]) -> Result<()> {
    steps.iter().try_for_each(step)
}

fn step(step: &Value) -> Result<()> {
    let text = |name: &str| step[name].as_str().unwrap_or_default();
    if !step["insert"].is_null() {
        database_write::insert(text("insert"), &step["document"].to_string())?;
    } else if !step["patch"].is_null() {
        database_write::patch(text("patch"), text("id"), &step["fields"].to_string())?;
    } else if !step["delete"].is_null() {
        database_write::delete(text("delete"), text("id"))?;
    } else if !step["patchWhere"].is_null() {
        database_write::patch_where(&step["patchWhere"].to_string(), &step["fields"].to_string())?;
    } else if !step["deleteWhere"].is_null() {
        database_write::delete_where(&step["deleteWhere"].to_string())?;
    } else if let Some(steps) = step["nest"].as_array() {
        let savepoint = database_write::savepoint()?;
        if run(steps).is_ok() && step["undo"] != json!(true) {
            database_write::release(savepoint)?;
        } else {
            database_write::rollback_to(savepoint)?;
        }
    } else {
        bail!("FAIL", "as the test asked");
    }
    Ok(())
}
