//! What Convoke remembers of a project: its tables' numbers, and the objects that syncs made.

use std::collections::BTreeMap;

use convoke_model::Schema;
use convoke_postgres::Config;
use tokio_postgres::types::ToSql;

use crate::connect::Session;
use crate::declared::{self, Kind, Object};
use crate::{SyncError, hash, migrations, role};

/// The numbers of a project's tables, which their ids carry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Numbers(pub BTreeMap<String, u32>);

impl Numbers {
    /// Writes the numbers into a schema. A table that has none keeps what it has.
    pub fn fill(&self, schema: &mut Schema) {
        for table in schema.tables.values_mut() {
            table.number = self.0.get(&table.name).copied().unwrap_or(table.number);
        }
    }
}

/// An object that a sync made or set out to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recorded {
    pub(crate) table: String,
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) definition: String,
    /// Whether the schema of the last sync has it.
    pub(crate) declared: bool,
    /// Whether it has ever been there.
    pub(crate) made: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Registry {
    /// Whether the schema `convoke` is there.
    pub(crate) bootstrapped: bool,
    /// The migrations that it lacks.
    pub(crate) pending: Vec<&'static str>,
    /// The role of the project; none where there can be none.
    pub(crate) role: Option<String>,
    pub(crate) numbers: Numbers,
    pub(crate) objects: Vec<Recorded>,
}

const IS_BOOTSTRAPPED: &str = "\
select to_regclass('convoke.objects') is not null and to_regclass('convoke.projects') is not null
  and to_regclass('convoke.sync_log') is not null";

impl Registry {
    pub(crate) async fn read(session: &Session, project: &str) -> Result<Self, SyncError> {
        let failed = || SyncError::statement("read what the schema `convoke` knows");
        let bootstrapped: bool = session.query_one(IS_BOOTSTRAPPED, &[]).await.map_err(failed())?.get(0);
        if !bootstrapped {
            return Ok(Self { role: Some(role::usual_name(project)), ..Self::default() });
        }
        let pending = migrations::pending(session, migrations::ALL).await?;
        let given: [&(dyn ToSql + Sync); 1] = [&project];
        let role = session.query_opt("select role from convoke.projects where name = $1", &given);
        let numbers = session.query("select name, number from convoke.tables where project = $1", &given);
        let objects = session.query(
            "select table_name, kind, name, definition, declared, made from convoke.objects where project = $1 \
             order by table_name, kind, name",
            &given,
        );
        let (role, numbers, objects) = tokio::try_join!(role, numbers, objects).map_err(failed())?;
        let objects = objects.iter().map(|row| Recorded {
            table: row.get(0),
            kind: row.get(1),
            name: row.get(2),
            definition: row.get(3),
            declared: row.get(4),
            made: row.get(5),
        });
        Ok(Self {
            bootstrapped,
            pending: pending.iter().map(|migration| migration.file).collect(),
            role: role.map(|row| row.get(0)),
            numbers: numbers_of(&numbers),
            objects: objects.collect(),
        })
    }

    pub(crate) fn number(&self, table: &str) -> Option<u32> {
        self.numbers.0.get(table).copied()
    }

    pub(crate) fn object(&self, table: &str, kind: Kind, name: &str) -> Option<&Recorded> {
        self.objects.iter().find(|object| object.table == table && object.kind == kind.as_str() && object.name == name)
    }

    /// The objects of one kind of one table.
    pub(crate) fn of(&self, table: &str, kind: Kind) -> impl Iterator<Item = &Recorded> {
        self.objects.iter().filter(move |object| object.table == table && object.kind == kind.as_str())
    }

    /// Whether a sync made this table as one of documents.
    pub(crate) fn is_managed(&self, table: &str) -> bool {
        self.object(table, Kind::Table, table).is_some_and(|object| object.definition != "unmanaged")
    }
}

fn numbers_of(rows: &[tokio_postgres::Row]) -> Numbers {
    Numbers(rows.iter().map(|row| (row.get(0), row.get::<_, i32>(1).unsigned_abs())).collect())
}

/// The numbers of the tables where the last sync of the project brought the database to this very schema, and none
/// where a plan has to be made. One query: what a host asks when it starts.
pub async fn current(admin: &Config, project: &str, schema: &Schema) -> Result<Option<Numbers>, SyncError> {
    const CURRENT: &str = "\
select t.name, t.number from convoke.tables t left join convoke.projects p on p.name = t.project
where t.project = $1 and (p.role is null or has_schema_privilege(
    (select oid from pg_roles where rolname = p.role), (select oid from pg_namespace where nspname = $1), 'usage'))
  and (select (l.target, l.outcome in ('done', 'nothing')) = ($2, true)
    from convoke.sync_log l where l.project = $1 order by l.id desc limit 1)";
    let session = Session::open(admin).await?;
    let failed = || SyncError::statement("read the sync log");
    let bootstrapped: bool = session.query_one(IS_BOOTSTRAPPED, &[]).await.map_err(failed())?.get(0);
    if !bootstrapped {
        return Ok(None);
    }
    let target = hash::target(schema);
    let numbers = numbers_of(&session.query(CURRENT, &[&project, &target]).await.map_err(failed())?);
    let complete = schema.tables.keys().all(|table| numbers.0.contains_key(table));
    Ok((complete && !numbers.0.is_empty()).then_some(numbers))
}

/// Notes what a schema asks for, before anything of it is made: what a killed run leaves is known as Convoke's.
pub(crate) async fn declare(session: &Session, project: &str, schema: &Schema) -> Result<(), SyncError> {
    const DECLARE: &str = "\
with given as (
  select * from unnest($2::text[], $3::text[], $4::text[], $5::text[]) as g(table_name, kind, name, definition)
), gone as (
  update convoke.objects o set declared = false
  where o.project = $1 and o.declared
    and not exists (select from given g where (g.table_name, g.kind, g.name) = (o.table_name, o.kind, o.name))
)
insert into convoke.objects as o (project, table_name, kind, name, definition, declared)
select $1, table_name, kind, name, definition, true from given
on conflict (project, table_name, kind, name) do update
  set made = o.made and o.definition = excluded.definition, definition = excluded.definition, declared = true
where (o.definition, o.declared) is distinct from (excluded.definition, true)";
    let objects: Vec<(&str, Object)> = schema
        .tables
        .values()
        .flat_map(|table| declared::objects(table).into_iter().map(|object| (table.name.as_str(), object)))
        .collect();
    let tables: Vec<&str> = objects.iter().map(|(table, _)| *table).collect();
    let kinds: Vec<&str> = objects.iter().map(|(_, object)| object.kind.as_str()).collect();
    let names: Vec<&str> = objects.iter().map(|(_, object)| object.name.as_str()).collect();
    let definitions: Vec<&str> = objects.iter().map(|(_, object)| object.definition.as_str()).collect();
    let done = session.execute(DECLARE, &[&project, &tables, &kinds, &names, &definitions]).await;
    done.map(|_| ()).map_err(SyncError::statement("note what the schema asks for"))
}

/// Notes that all that the schema asks for is there, and forgets what is gone.
pub(crate) async fn settle(session: &Session, project: &str, gone: &[(String, Kind, String)]) -> Result<(), SyncError> {
    let failed = || SyncError::statement("note what was made");
    session
        .execute("update convoke.objects set made = true where project = $1 and declared and not made", &[&project])
        .await
        .map_err(failed())?;
    for (table, kind, name) in gone {
        let whole = *kind == Kind::Table;
        session
            .execute(
                "delete from convoke.objects where project = $1 and table_name = $2 \
                 and ($5 or (kind = $3 and name = $4))",
                &[&project, table, &kind.as_str(), name, &whole],
            )
            .await
            .map_err(failed())?;
    }
    Ok(())
}
