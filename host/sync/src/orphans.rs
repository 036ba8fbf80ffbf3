//! What is in the database and no longer in the schema: kept, listed, and dropped only by name.

use std::collections::BTreeMap;

use convoke_sql::{qualified, quote_identifier, quote_literal};

use crate::SyncError;
use crate::declared::{self, Kind};
use crate::plan::{Class, Hazard, Orphan, OrphanKind, Step, Work};
use crate::planner::View;
use crate::problem::Problem;

/// Documents that are counted; above it, it is "more than".
const COUNTED_MAX: i64 = 100_000;

pub(crate) async fn find(view: &View<'_>) -> Result<Vec<Orphan>, SyncError> {
    let mut orphans = tables(view);
    for table in view.schema.tables.values().filter(|table| table.is_managed()) {
        if view.live.relations.contains_key(&table.name) {
            orphans.extend(
                indexes(view, &table.name).into_keys().map(|name| orphan(OrphanKind::Index, &table.name, Some(name))),
            );
            orphans.extend(fields(view, &table.name).await?);
        }
    }
    Ok(orphans)
}

fn orphan(kind: OrphanKind, table: &str, name: Option<String>) -> Orphan {
    Orphan { kind, table: table.to_owned(), name, rows: None, hint: None, dropped: false }
}

fn tables(view: &View<'_>) -> Vec<Orphan> {
    let new: Vec<&str> = view
        .schema
        .tables
        .values()
        .filter(|table| table.is_managed() && !view.live.relations.contains_key(&table.name))
        .map(|table| table.name.as_str())
        .collect();
    let gone = view.registry.numbers.0.keys().filter(|name| {
        !view.schema.tables.contains_key(*name)
            && view.registry.is_managed(name)
            && view.live.relations.contains_key(*name)
    });
    gone.map(|name| {
        let mut orphan = orphan(OrphanKind::Table, name, None);
        orphan.rows = view.live.relations.get(name).and_then(|relation| relation.rows);
        orphan.hint = match new.as_slice() {
            [one] => Some(format!(
                "if `{one}` is its new name: sync, then `insert into {} select * from {}`; ids of clients change",
                qualified(view.project, one),
                qualified(view.project, name)
            )),
            _ => None,
        };
        orphan
    })
    .collect()
}

/// Indexes that a sync made and the schema no longer has: by their name in the schema, with their names in Postgres.
fn indexes(view: &View<'_>, table: &str) -> BTreeMap<String, Vec<String>> {
    let wanted: Vec<String> =
        view.schema.tables.get(table).map(declared::indexes).into_iter().flatten().map(|index| index.name).collect();
    let live = view.live.relations.get(table);
    let mut gone: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for known in view.registry.of(table, Kind::Index).chain(view.registry.of(table, Kind::Key)) {
        let suffix = if known.kind == "key" { "_key" } else { "_idx" };
        let stem = known.name.strip_suffix(suffix).unwrap_or(&known.name);
        // Whatever was unique and is so no longer is dropped by the plan itself.
        let is_declared = wanted.contains(&known.name) || wanted.contains(&format!("{stem}_idx"));
        if !is_declared && live.is_some_and(|live| live.indexes.contains_key(&known.name)) {
            let declared = stem.strip_prefix(table).and_then(|name| name.strip_prefix('_')).unwrap_or(stem);
            gone.entry(declared.to_owned()).or_default().push(known.name.clone());
        }
    }
    gone
}

async fn fields(view: &View<'_>, table: &str) -> Result<Vec<Orphan>, SyncError> {
    let Some(declared) = view.schema.tables.get(table).and_then(declared::fields) else { return Ok(Vec::new()) };
    let new: Vec<&String> =
        declared.iter().filter(|field| view.registry.object(table, Kind::Field, field).is_none()).collect();
    let relation = qualified(view.project, table);
    let mut orphans = Vec::new();
    for known in view.registry.of(table, Kind::Field).filter(|known| !declared.contains(&known.name)) {
        let sql = format!("select count(*) from (select from {relation} where data ? $1 limit {COUNTED_MAX}) s");
        let failed = SyncError::statement(format!("count documents of `{table}`"));
        let count: i64 = view.session.query_one(&sql, &[&known.name]).await.map_err(failed)?.get(0);
        if count == 0 {
            continue;
        }
        let mut orphan = orphan(OrphanKind::Field, table, Some(known.name.clone()));
        orphan.rows = Some(count);
        orphan.hint = match new.as_slice() {
            [one] => Some(format!(
                "if `{one}` is its new name: `update {relation} set data = data - {old} || jsonb_build_object({}, data->{old}) where data ? {old}`",
                quote_literal(one),
                old = quote_literal(&known.name),
            )),
            _ => None,
        };
        orphans.push(orphan);
    }
    Ok(orphans)
}

/// The steps of `--allow-drop`, and what of it matches no orphan.
pub(crate) fn drops(view: &View<'_>, orphans: &mut [Orphan], allow_drop: &[String]) -> (Vec<Step>, Vec<Problem>) {
    let mut steps = Vec::new();
    let mut problems = Vec::new();
    for allowed in allow_drop {
        match choose(view, orphans, allowed) {
            Ok(at) => {
                if !orphans[at].dropped {
                    orphans[at].dropped = true;
                    steps.extend(drop_steps(view, &orphans[at]));
                }
            }
            Err(problem) => problems.push(*problem),
        }
    }
    (steps, problems)
}

/// The one orphan that a text names. `messages.index:name` and `messages.field:name` say which of two is meant.
fn choose(view: &View<'_>, orphans: &[Orphan], allowed: &str) -> Result<usize, Box<Problem>> {
    let refuse = |id, cause: String, fix: String| Err(Box::new(Problem::new(id, cause, fix)));
    let parts: Vec<&str> = allowed.split('.').collect();
    let (table, name) = match parts.as_slice() {
        [table] if !table.is_empty() => (*table, None),
        [table, name] if !table.is_empty() && !name.is_empty() => (*table, Some(*name)),
        _ => {
            return refuse(
                "ALLOW_DROP_FORM",
                format!("`--allow-drop {allowed}` names nothing"),
                "write `--allow-drop TABLE`, or `TABLE.INDEX` or `TABLE.FIELD`".to_owned(),
            );
        }
    };
    let about = |problem: Problem| match name {
        None => problem.table(table),
        Some(name) => problem.table(table).field(name.split_once(':').map_or(name, |(_, name)| name)),
    };
    let (kind, name) = match name.map(|name| name.split_once(':').unwrap_or(("", name))) {
        None => ("", None),
        Some((kind, name)) => (kind, Some(name)),
    };
    let matching: Vec<usize> = orphans
        .iter()
        .enumerate()
        .filter(|(_, orphan)| {
            let kind_fits = match kind {
                "" => true,
                "index" => orphan.kind == OrphanKind::Index,
                "field" => orphan.kind == OrphanKind::Field,
                _ => false,
            };
            kind_fits && orphan.table == table && orphan.name.as_deref() == name
        })
        .map(|(at, _)| at)
        .collect();
    match matching.as_slice() {
        [one] => Ok(*one),
        [] => Err(Box::new(about(no_match(view, orphans, allowed, table, name)))),
        _ => Err(Box::new(about(Problem::new(
            "ALLOW_DROP_AMBIGUOUS",
            format!("`{allowed}` is an index and a field"),
            format!("say which: `{table}.index:{0}` or `{table}.field:{0}`", name.unwrap_or_default()),
        )))),
    }
}

/// Why a text names no orphan: the schema declares what it names, or there is nothing of that name.
fn no_match(view: &View<'_>, orphans: &[Orphan], allowed: &str, table: &str, name: Option<&str>) -> Problem {
    let is_declared = match (view.schema.tables.get(table), name) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(declared), Some(name)) => {
            declared.index(name).is_some()
                || declared::fields(declared).is_some_and(|fields| fields.iter().any(|field| field == name))
        }
    };
    if is_declared {
        return Problem::new(
            "ALLOW_DROP_DECLARED",
            format!("`{allowed}` is in the schema, and what the schema declares is not dropped"),
            "take it out of the component first".to_owned(),
        );
    }
    let known: Vec<String> = orphans.iter().map(|orphan| format!("`{}`", orphan.path())).collect();
    let known = if known.is_empty() { "nothing".to_owned() } else { known.join(", ") };
    Problem::new(
        "ALLOW_DROP_UNKNOWN",
        format!("`--allow-drop {allowed}` matches nothing that could be dropped; what could be is {known}"),
        "look at `convoke sync --dry-run` and give the name as it is listed there".to_owned(),
    )
}

fn drop_steps(view: &View<'_>, orphan: &Orphan) -> Vec<Step> {
    let relation = qualified(view.project, &orphan.table);
    let step = |sql, lock, hazards, object, work| Step {
        sql,
        class: Class::Destructive,
        lock,
        rows: orphan.rows,
        hazards,
        table: Some(orphan.table.clone()),
        object,
        work,
    };
    let name = orphan.name.as_deref().unwrap_or_default();
    match orphan.kind {
        OrphanKind::Table => vec![step(
            format!("drop table if exists {relation}"),
            "ACCESS EXCLUSIVE",
            vec![Hazard::DeletesData, Hazard::ExclusiveLock],
            "table".to_owned(),
            Work::Statement,
        )],
        OrphanKind::Index => indexes(view, &orphan.table)
            .remove(name)
            .into_iter()
            .flatten()
            .map(|index| Step {
                rows: None,
                ..step(
                    format!(
                        "drop index concurrently if exists {}.{}",
                        quote_identifier(view.project),
                        quote_identifier(&index)
                    ),
                    "SHARE UPDATE EXCLUSIVE",
                    Vec::new(),
                    format!("index `{name}`"),
                    Work::Concurrently { index: None },
                )
            })
            .collect(),
        OrphanKind::Field => {
            let field = quote_literal(name);
            vec![step(
                format!(
                    "with page as (select _id from {relation} where _id > $1 and data ? {field} order by _id limit 1000), \
                     changed as (update {relation} t set data = t.data - {field} from page where t._id = page._id) \
                     select _id from page order by _id desc"
                ),
                "ROW EXCLUSIVE",
                vec![Hazard::DeletesData, Hazard::RewritesRows],
                format!("field `{name}`"),
                Work::Batches,
            )]
        }
    }
}
