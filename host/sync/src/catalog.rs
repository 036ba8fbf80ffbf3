//! The database as it is: everything of one schema, in an order and in words that mean the same on any server.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::SyncError;
use crate::compare::comparable;
use crate::connect::Session;
use crate::declared::index_definition;
use crate::hash::sha256;

/// One project's schema.
#[derive(Debug, Default)]
pub(crate) struct Live {
    pub(crate) schema: Option<LiveSchema>,
    pub(crate) relations: BTreeMap<String, Relation>,
    /// The tables of the project's publication; none where there is no publication.
    pub(crate) published: Option<Published>,
    /// Whether the connected user may make schemas and publications.
    pub(crate) may_create: bool,
    pub(crate) fingerprint: String,
}

/// What a publication covers.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) all: bool,
    pub(crate) tables: BTreeSet<String>,
}

#[derive(Debug)]
pub(crate) struct LiveSchema {
    pub(crate) owned: bool,
    pub(crate) owner: String,
    /// Whether the project's role reaches what is in it.
    pub(crate) usage: bool,
}

/// A table, a view or the like.
#[derive(Debug)]
pub(crate) struct Relation {
    pub(crate) kind: String,
    pub(crate) owned: bool,
    pub(crate) owner: String,
    pub(crate) rows: Option<i64>,
    /// Of the project's role: letters of `rawd`.
    pub(crate) granted: String,
    /// Whether the connected user may pass on select, insert, update and delete.
    pub(crate) grantable: bool,
    pub(crate) identified: bool,
    /// Sequences that its defaults use and the project's role may not.
    pub(crate) sequences: Vec<String>,
    pub(crate) columns: BTreeMap<String, String>,
    pub(crate) indexes: BTreeMap<String, LiveIndex>,
    pub(crate) constraints: BTreeMap<String, LiveConstraint>,
    /// Triggers, policies, rules: by kind and name.
    pub(crate) others: BTreeMap<(&'static str, String), String>,
}

#[derive(Debug)]
pub(crate) struct LiveIndex {
    pub(crate) definition: String,
    pub(crate) valid: bool,
    /// Belongs to a constraint, which is reported in its place.
    pub(crate) of_constraint: bool,
}

#[derive(Debug)]
pub(crate) struct LiveConstraint {
    pub(crate) definition: String,
    pub(crate) validated: bool,
}

const SCHEMA: &str = "\
select pg_has_role(n.nspowner, 'usage'), r.rolname::text,
  coalesce(has_schema_privilege((select oid from pg_roles where rolname = $2), n.oid, 'usage'), false)
from pg_namespace n join pg_roles r on r.oid = n.nspowner where n.nspname = $1";

const RELATIONS: &str = "\
select c.relname::text, c.relkind::text, pg_has_role(c.relowner, 'usage'), o.rolname::text,
  case when c.reltuples < 0 then null else c.reltuples::int8 end,
  concat(
    case when has_table_privilege(r.oid, c.oid, 'select') then 'r' end,
    case when has_table_privilege(r.oid, c.oid, 'insert') then 'a' end,
    case when has_table_privilege(r.oid, c.oid, 'update') then 'w' end,
    case when has_table_privilege(r.oid, c.oid, 'delete') then 'd' end),
  has_table_privilege(c.oid, 'select with grant option') and has_table_privilege(c.oid, 'insert with grant option')
    and has_table_privilege(c.oid, 'update with grant option') and has_table_privilege(c.oid, 'delete with grant option'),
  c.relreplident in ('f', 'i') or exists (select from pg_index i where i.indrelid = c.oid and i.indisprimary),
  concat(c.relrowsecurity, c.relforcerowsecurity, c.relreplident, c.relpersistence),
  array(select s.oid::regclass::text from pg_depend d join pg_class s on s.oid = d.objid
    where d.classid = 'pg_class'::regclass and d.refobjid = c.oid and d.deptype = 'a' and pg_has_role(s.relowner, 'usage')
      and case when s.relkind = 'S' then not has_sequence_privilege(r.oid, s.oid, 'usage') else false end order by 1)
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
join pg_roles o on o.oid = c.relowner
left join pg_roles r on r.rolname = $2
where n.nspname = $1 and c.relkind in ('r', 'p', 'v', 'm', 'f') and not exists (
  select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')";

const COLUMNS: &str = "\
select c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod)
  || case when a.attnotnull then ' not null' else '' end
  || case when a.attidentity <> '' then ' identity ' || a.attidentity::text else '' end
  || case when a.attgenerated <> '' then ' generated ' || a.attgenerated::text else ' default' end
  || coalesce(' ' || pg_get_expr(d.adbin, d.adrelid), ' null')
from pg_attribute a
join pg_class c on c.oid = a.attrelid
join pg_namespace n on n.oid = c.relnamespace
left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
where n.nspname = $1 and c.relkind in ('r', 'p', 'v', 'm', 'f') and a.attnum > 0 and not a.attisdropped";

const INDEXES: &str = "\
select c.relname::text, x.relname::text, pg_get_indexdef(i.indexrelid), i.indisunique, i.indisvalid and i.indisready,
  exists (select from pg_constraint k where k.conindid = i.indexrelid and k.contype in ('p', 'u', 'x'))
from pg_index i
join pg_class x on x.oid = i.indexrelid
join pg_class c on c.oid = i.indrelid
join pg_namespace n on n.oid = c.relnamespace
where n.nspname = $1";

const CONSTRAINTS: &str = "\
select c.relname::text, k.conname::text, pg_get_constraintdef(k.oid), k.convalidated
from pg_constraint k
join pg_class c on c.oid = k.conrelid
join pg_namespace n on n.oid = c.relnamespace
where n.nspname = $1 and k.contype <> 'n'";

const OTHERS: &str = "\
select c.relname::text, 'trigger', t.tgname::text, pg_get_triggerdef(t.oid) || ' ' || t.tgenabled::text
from pg_trigger t join pg_class c on c.oid = t.tgrelid join pg_namespace n on n.oid = c.relnamespace
where n.nspname = $1 and not t.tgisinternal
union all
select c.relname::text, 'policy', p.polname::text, concat_ws(' ', p.polcmd, p.polpermissive, p.polroles::regrole[]::text,
  pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
from pg_policy p join pg_class c on c.oid = p.polrelid join pg_namespace n on n.oid = c.relnamespace
where n.nspname = $1
union all
select c.relname::text, 'rule', w.rulename::text, pg_get_ruledef(w.oid)
from pg_rewrite w join pg_class c on c.oid = w.ev_class join pg_namespace n on n.oid = c.relnamespace
where n.nspname = $1 and w.rulename <> '_RETURN'
union all
select p.proname::text, 'function', pg_get_function_identity_arguments(p.oid), md5(p.prosrc)
from pg_proc p join pg_namespace n on n.oid = p.pronamespace
where n.nspname = $1";

const PUBLISHED: &str = "\
select p.puballtables or exists (select from pg_publication_namespace s join pg_namespace n on n.oid = s.pnnspid
    where s.pnpubid = p.oid and n.nspname = $1),
  array(select c.relname::text from pg_publication_rel r join pg_class c on c.oid = r.prrelid
    join pg_namespace n on n.oid = c.relnamespace where r.prpubid = p.oid and n.nspname = $1 order by 1)
from pg_publication p where p.pubname = $2";

impl Live {
    /// Reads everything of a project's schema; `role` is the project's, which need not exist.
    pub(crate) async fn read(session: &Session, project: &str, role: &str) -> Result<Self, SyncError> {
        let publication = publication_name(project);
        let both: [&(dyn ToSql + Sync); 2] = [&project, &role];
        let one: [&(dyn ToSql + Sync); 1] = [&project];
        let named: [&(dyn ToSql + Sync); 2] = [&project, &publication];
        // One after the other on the wire, all in one round trip.
        let (schema, relations, columns, indexes, constraints, others, published, may_create) = tokio::try_join!(
            session.query_opt(SCHEMA, &both),
            session.query(RELATIONS, &both),
            session.query(COLUMNS, &one),
            session.query(INDEXES, &one),
            session.query(CONSTRAINTS, &one),
            session.query(OTHERS, &one),
            session.query_opt(PUBLISHED, &named),
            session.query_one("select has_database_privilege(current_database(), 'create')", &[]),
        )
        .map_err(SyncError::statement("describe the schema"))?;
        let mut live = Self {
            schema: schema.map(|row| LiveSchema { owned: row.get(0), owner: row.get(1), usage: row.get(2) }),
            published: published
                .map(|row| Published { all: row.get(0), tables: row.get::<_, Vec<String>>(1).into_iter().collect() }),
            may_create: may_create.get(0),
            ..Self::default()
        };
        let mut lines = Vec::new();
        live.take_relations(&relations, &mut lines);
        live.take_columns(&columns, &mut lines);
        live.take_indexes(&indexes, &mut lines);
        live.take_constraints(&constraints, &mut lines);
        live.take_others(&others, &mut lines);
        lines.push(format!("schema {:?} {:?}", live.schema.as_ref().map(|schema| schema.usage), live.published));
        lines.sort_unstable();
        live.fingerprint = sha256(lines.join("\n").as_bytes());
        Ok(live)
    }

    fn take_relations(&mut self, rows: &[Row], lines: &mut Vec<String>) {
        for row in rows {
            let (name, kind): (String, String) = (row.get(0), row.get(1));
            let (granted, settings): (String, String) = (row.get(5), row.get(8));
            let sequences: Vec<String> = row.get(9);
            lines.push(format!("relation {name} {kind} {granted} {settings} {sequences:?}"));
            let relation = Relation {
                kind,
                owned: row.get(2),
                owner: row.get(3),
                rows: row.get(4),
                granted,
                grantable: row.get(6),
                identified: row.get(7),
                sequences,
                columns: BTreeMap::new(),
                indexes: BTreeMap::new(),
                constraints: BTreeMap::new(),
                others: BTreeMap::new(),
            };
            self.relations.insert(name, relation);
        }
    }

    fn take_columns(&mut self, rows: &[Row], lines: &mut Vec<String>) {
        for row in rows {
            let (relation, name, definition): (String, String, String) = (row.get(0), row.get(1), row.get(2));
            lines.push(format!("column {relation} {name} {definition}"));
            if let Some(relation) = self.relations.get_mut(&relation) {
                relation.columns.insert(name, definition);
            }
        }
    }

    fn take_indexes(&mut self, rows: &[Row], lines: &mut Vec<String>) {
        for row in rows {
            let (relation, name, text): (String, String, String) = (row.get(0), row.get(1), row.get(2));
            let (unique, valid): (bool, bool) = (row.get(3), row.get(4));
            let definition = index_definition(unique, &index_body(&text));
            lines.push(format!("index {relation} {name} {definition} {valid}"));
            if let Some(relation) = self.relations.get_mut(&relation) {
                relation.indexes.insert(name, LiveIndex { definition, valid, of_constraint: row.get(5) });
            }
        }
    }

    fn take_constraints(&mut self, rows: &[Row], lines: &mut Vec<String>) {
        for row in rows {
            let (relation, name, text): (String, String, String) = (row.get(0), row.get(1), row.get(2));
            let validated: bool = row.get(3);
            let definition = comparable(text.strip_suffix(" NOT VALID").unwrap_or(&text));
            lines.push(format!("constraint {relation} {name} {definition} {validated}"));
            if let Some(relation) = self.relations.get_mut(&relation) {
                relation.constraints.insert(name, LiveConstraint { definition, validated });
            }
        }
    }

    fn take_others(&mut self, rows: &[Row], lines: &mut Vec<String>) {
        for row in rows {
            let (relation, kind): (String, String) = (row.get(0), row.get(1));
            let (name, definition): (String, String) = (row.get(2), row.get(3));
            lines.push(format!("{kind} {relation} {name} {definition}"));
            let kind = ["trigger", "policy", "rule"].into_iter().find(|known| *known == kind);
            if let (Some(kind), Some(relation)) = (kind, self.relations.get_mut(&relation)) {
                relation.others.insert((kind, name), definition);
            }
        }
    }

    /// The relation that has an index of this name: indexes of a schema share one name space.
    pub(crate) fn index_holder(&self, name: &str) -> Option<&str> {
        let mut relations = self.relations.iter();
        relations.find(|(_, relation)| relation.indexes.contains_key(name)).map(|(table, _)| table.as_str())
    }
}

impl Relation {
    pub(crate) fn is_table(&self) -> bool {
        self.kind == "r" || self.kind == "p"
    }

    /// What the catalog calls it, in words.
    pub(crate) fn word(&self) -> &'static str {
        match self.kind.as_str() {
            "v" => "view",
            "m" => "materialized view",
            "f" => "foreign table",
            _ => "table",
        }
    }
}

/// What an index is, without its name, its table and how full its pages are kept.
fn index_body(text: &str) -> String {
    let body = text.split_once(" USING ").map_or(text, |(_, body)| body);
    let body = body.strip_prefix("btree ").unwrap_or(body);
    let settings = body.find(" WITH (").and_then(|at| Some((at, at + body[at..].find(')')? + 1)));
    match settings {
        Some((from, to)) => format!("{}{}", &body[..from], &body[to..]),
        None => body.to_owned(),
    }
}

pub(crate) fn publication_name(project: &str) -> String {
    convoke_sql::fit(&format!("convoke_{project}"), "")
}
