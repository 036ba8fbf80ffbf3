//! From a schema and a database to a plan.

mod access;
mod index;
mod table;

use std::collections::BTreeMap;

use convoke_model::{Schema, Table, TableKind};
use convoke_postgres::Config;
use convoke_sql::{qualified, quote_identifier};
use serde_json::json;

use crate::catalog::{Live, Relation};
use crate::connect::Session;
use crate::declared;
use crate::plan::{Class, Hazard, Plan, Step, Work};
use crate::problem::Problem;
use crate::registry::Registry;
use crate::{SyncError, bootstrap, documents, drift, hash, orphans, precheck};

pub(crate) use access::owner_problem;

/// How a plan is made.
#[derive(Debug, Clone, Default)]
pub struct PlanOptions {
    /// Orphans to drop: `messages`, `messages.by_channel`, `messages.body`.
    pub allow_drop: Vec<String>,
}

/// Compares the schema with the database, and looks at the data where a step depends on them. Changes nothing.
///
/// What stands in the way is in the plan, as `problems`; such a plan is printed and not applied.
///
/// # Errors
/// When Postgres cannot be reached or asked.
pub async fn plan(admin: &Config, project: &str, schema: &Schema, options: &PlanOptions) -> Result<Plan, SyncError> {
    bootstrap::check_name(project)?;
    let session = Session::open(admin).await?;
    make(&session, project, schema, &options.allow_drop).await
}

pub(crate) async fn make(
    session: &Session,
    project: &str,
    schema: &Schema,
    allow_drop: &[String],
) -> Result<Plan, SyncError> {
    let registry = Registry::read(session, project).await?;
    let live = Live::read(session, project, registry.role.as_deref().unwrap_or_default()).await?;
    let mut planner = Planner {
        project,
        schema,
        live: &live,
        registry: &registry,
        steps: Vec::new(),
        problems: Vec::new(),
        notes: Vec::new(),
    };
    planner.names();
    planner.schema_steps();
    for table in schema.tables.values() {
        match &table.kind {
            TableKind::Managed => planner.managed(table),
            TableKind::Unmanaged { key } => planner.unmanaged(table, key),
        }
    }
    planner.publication();
    let Planner { mut steps, mut problems, mut notes, .. } = planner;
    let view = View { session, project, schema, live: &live, registry: &registry };
    if registry.bootstrapped {
        problems.extend(precheck::problems(&view, &steps).await?);
        // What a check says of a field, the schema would say again.
        let said: Vec<_> = problems.iter().map(|problem| (problem.table.clone(), problem.field.clone())).collect();
        let more = documents::problems(&view).await?.into_iter();
        problems.extend(more.filter(|problem| !said.contains(&(problem.table.clone(), problem.field.clone()))));
        if !registry.pending.is_empty() {
            notes.push(format!("the schema `convoke` is moved on first: {}", registry.pending.join(", ")));
        }
    } else {
        notes.push("the schema `convoke` and the project's role are made first".to_owned());
    }
    let mut orphans = orphans::find(&view).await?;
    let (drops, refused) = orphans::drops(&view, &mut orphans, allow_drop);
    steps.extend(drops);
    problems.extend(refused);
    let drift = drift::find(&view);
    let mut plan = Plan {
        project: project.to_owned(),
        base: live.fingerprint.clone(),
        target: hash::target(schema),
        hash: String::new(),
        steps,
        orphans,
        drift,
        problems,
        notes,
        allow_drop: allow_drop.to_vec(),
    };
    let statements: Vec<&str> = plan.steps.iter().map(|step| step.sql.as_str()).collect();
    plan.hash = hash::sha256(json!([plan.base, plan.target, statements]).to_string().as_bytes());
    Ok(plan)
}

/// Whether a plan may be applied unseen.
pub(crate) fn check_additive(plan: &Plan) -> Result<(), SyncError> {
    if !plan.problems.is_empty() {
        return Err(SyncError::Problems(Box::new(plan.clone())));
    }
    if !plan.is_additive() {
        return Err(SyncError::Decision(Box::new(plan.clone())));
    }
    Ok(())
}

/// All that the parts of a plan look at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) session: &'a Session,
    pub(crate) project: &'a str,
    pub(crate) schema: &'a Schema,
    pub(crate) live: &'a Live,
    pub(crate) registry: &'a Registry,
}

struct Planner<'a> {
    project: &'a str,
    schema: &'a Schema,
    live: &'a Live,
    registry: &'a Registry,
    steps: Vec<Step>,
    problems: Vec<Problem>,
    notes: Vec<String>,
}

impl Planner<'_> {
    fn add(&mut self, table: Option<&str>, object: impl Into<String>, lock: &'static str, sql: String) -> &mut Step {
        self.steps.push(Step {
            sql,
            class: Class::Additive,
            lock,
            rows: None,
            hazards: Vec::new(),
            table: table.map(str::to_owned),
            object: object.into(),
            work: Work::Statement,
        });
        self.steps.last_mut().expect("one was pushed just now")
    }

    /// Names that two objects would share in Postgres: all indexes and tables of a schema have one name space.
    fn names(&mut self) {
        let mut taken: BTreeMap<String, (String, String)> = BTreeMap::new();
        for table in self.schema.tables.values() {
            taken.insert(table.name.clone(), (table.name.clone(), format!("table `{}`", table.name)));
        }
        for table in self.schema.tables.values().filter(|table| table.is_managed()) {
            if table.name.len() > 63 {
                self.problems.push(
                    Problem::new(
                        "NAME_TOO_LONG",
                        format!("the name has {} characters, Postgres keeps 63", table.name.len()),
                        "give the table a shorter name",
                    )
                    .table(&table.name),
                );
            }
            for index in declared::indexes(table) {
                let what = format!("index `{}` of table `{}`", index.declared, table.name);
                let live = self.live.index_holder(&index.name).filter(|holder| *holder != table.name);
                let live = live.map(|holder| format!("an index of table `{holder}`"));
                let relation =
                    self.live.relations.contains_key(&index.name).then(|| format!("the table `{}`", index.name));
                let other = taken.get(&index.name).map(|(_, other)| other.clone()).or(live).or(relation);
                match other {
                    Some(other) => self.problems.push(
                        Problem::new(
                            "NAME_TAKEN",
                            format!(
                                "the index `{}` would be `{}` in Postgres, which is the name of {other} too",
                                index.declared, index.name
                            ),
                            "give one of the two another name",
                        )
                        .table(&table.name),
                    ),
                    None => {
                        taken.insert(index.name.clone(), (table.name.clone(), what));
                    }
                }
            }
        }
    }

    /// The relation of a managed table, where it is one that a sync may work on.
    fn workable(&mut self, table: &Table) -> Option<&Relation> {
        let live = self.live;
        let relation = live.relations.get(&table.name)?;
        let name = &table.name;
        if !relation.is_table() {
            self.problems.push(
                Problem::new(
                    "NOT_A_TABLE",
                    format!(
                        "the schema declares a table of documents, and in the database it is a {}",
                        relation.word()
                    ),
                    "rename one of the two, or declare it as unmanaged with the column that identifies a row",
                )
                .table(name),
            );
            return None;
        }
        let is_ours = self.registry.is_managed(name);
        for (column, wanted) in declared::columns(table).into_iter().take(3) {
            let wanted_type = wanted.split(" not null").next().unwrap_or_default();
            let found = relation.columns.get(column);
            if found.is_some_and(|found| {
                found.split(" not null").next().unwrap_or_default().split(" default").next() == Some(wanted_type)
            }) {
                continue;
            }
            let found_type = found.map_or_else(
                || "missing".to_owned(),
                |found| format!("`{}`", found.split(" default").next().unwrap_or(found).trim_end_matches(" not null")),
            );
            let problem = if is_ours {
                Problem::new(
                    "COLUMN_CHANGED",
                    format!("the column was changed by hand: it is {found_type} and has to be `{wanted_type}`"),
                    format!(
                        "bring it back, as in `alter table {} …`, or restore the table from a backup",
                        qualified(self.project, name)
                    ),
                )
            } else {
                Problem::new(
                    "TABLE_OF_OTHERS",
                    format!(
                        "a table of this name is there already and is not Convoke's: its column `{column}` is {found_type} and would have to be `{wanted_type}`"
                    ),
                    "rename one of the two, or declare it as unmanaged with the column that identifies a row",
                )
            };
            self.problems.push(problem.table(name).field(column));
            return None;
        }
        Some(relation)
    }

    /// A moment's lock on a table that is in use.
    fn exclusively(&mut self, table: &str, object: impl Into<String>, sql: String) -> &mut Step {
        let step = self.add(Some(table), object, "ACCESS EXCLUSIVE", sql);
        step.hazards.push(Hazard::ExclusiveLock);
        step
    }

    fn qualified(&self, table: &str) -> String {
        qualified(self.project, table)
    }

    /// The project's role, quoted.
    fn role(&self) -> Option<String> {
        self.registry.role.as_deref().map(quote_identifier)
    }
}
