//! What somebody changed by hand: what Convoke made and is gone or different, and what it did not make.

use convoke_model::Schema;
use convoke_postgres::Config;
use convoke_sql::replacement_name;
use serde::Serialize;

use crate::catalog::{Live, Relation};
use crate::connect::Session;
use crate::declared::{self, Kind};
use crate::planner::View;
use crate::registry::Registry;
use crate::{SyncError, bootstrap};

/// How an object differs from what the last sync left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// Convoke made it, and it is gone.
    Missing,
    /// Somebody else made it. It is left alone.
    Extra,
    /// It is not as Convoke made it.
    Changed,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Drift {
    pub table: String,
    /// `table`, `column`, `index`, `constraint`, `trigger`, `policy`, `rule`, …
    pub kind: String,
    pub name: String,
    pub change: Change,
    /// What is there, where that says more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
}

/// Compares the project's schema with what the last sync left. Changes nothing, and needs no components.
///
/// # Errors
/// When Postgres cannot be reached or asked.
pub async fn drift(admin: &Config, project: &str) -> Result<Vec<Drift>, SyncError> {
    bootstrap::check_name(project)?;
    let session = Session::open(admin).await?;
    let registry = Registry::read(&session, project).await?;
    let live = Live::read(&session, project, registry.role.as_deref().unwrap_or_default()).await?;
    let schema = Schema::default();
    Ok(find(&View { session: &session, project, schema: &schema, live: &live, registry: &registry }))
}

pub(crate) fn find(view: &View<'_>) -> Vec<Drift> {
    // Before the first sync there is nothing that somebody could have changed.
    if view.registry.objects.is_empty() {
        return Vec::new();
    }
    let mut drift = Vec::new();
    for (name, relation) in &view.live.relations {
        let is_known = view.registry.numbers.0.contains_key(name) || view.schema.tables.contains_key(name);
        if !is_known {
            drift.push(entry(name, relation.word(), name, Change::Extra, None));
        } else if view.registry.is_managed(name) {
            let before = drift.len();
            Differences { view, table: name, relation, drift: &mut drift }.all();
            drift[before..].sort();
        }
    }
    for object in view.registry.objects.iter().filter(|object| object.declared && object.made) {
        if object.kind == Kind::Table.as_str()
            && object.definition != "unmanaged"
            && !view.live.relations.contains_key(&object.table)
        {
            drift.push(entry(&object.table, "table", &object.table, Change::Missing, None));
        }
    }
    drift
}

fn entry(table: &str, kind: &str, name: &str, change: Change, found: Option<String>) -> Drift {
    Drift { table: table.to_owned(), kind: kind.to_owned(), name: name.to_owned(), change, found }
}

struct Differences<'a, 'b> {
    view: &'a View<'a>,
    table: &'a str,
    relation: &'a Relation,
    drift: &'b mut Vec<Drift>,
}

impl Differences<'_, '_> {
    fn all(&mut self) {
        for (name, found) in &self.relation.columns {
            self.compare(Kind::Column, "column", name, found, found);
        }
        let wanted: Vec<String> = self
            .view
            .schema
            .tables
            .get(self.table)
            .filter(|table| table.is_managed())
            .map(|table| declared::objects(table).into_iter().map(|object| object.name).collect())
            .unwrap_or_default();
        for (name, index) in self.relation.indexes.iter().filter(|(_, index)| !index.of_constraint) {
            let kind = if self.known(Kind::Key, name) { Kind::Key } else { Kind::Index };
            if !self.known(kind, name) && (wanted.contains(name) || self.is_replacement(name)) {
                continue;
            }
            if !index.valid && self.known(kind, name) {
                self.push("index", name, Change::Changed, Some("invalid: its build failed".to_owned()));
            } else {
                self.compare(kind, "index", name, &index.definition, &index.definition);
            }
        }
        for (name, constraint) in &self.relation.constraints {
            if !self.known(Kind::Constraint, name) && wanted.contains(name) {
                continue;
            }
            self.compare(Kind::Constraint, "constraint", name, &constraint.definition, &constraint.definition);
        }
        for ((kind, name), definition) in &self.relation.others {
            self.push(kind, name, Change::Extra, Some(definition.clone()));
        }
        self.missing();
    }

    fn known(&self, kind: Kind, name: &str) -> bool {
        self.view.registry.object(self.table, kind, name).is_some()
    }

    /// Whether it was being built to take another's place.
    fn is_replacement(&self, name: &str) -> bool {
        let registry = self.view.registry;
        let mut indexes = registry.of(self.table, Kind::Index).chain(registry.of(self.table, Kind::Key));
        indexes.any(|index| replacement_name(&index.name) == name)
    }

    fn compare(&mut self, kind: Kind, word: &str, name: &str, definition: &str, found: &str) {
        match self.view.registry.object(self.table, kind, name) {
            None => self.push(word, name, Change::Extra, Some(found.to_owned())),
            // What the last sync did not come to is a step of the next one.
            Some(known) if known.made && known.definition != definition => {
                self.push(word, name, Change::Changed, Some(found.to_owned()));
            }
            Some(_) => {}
        }
    }

    fn missing(&mut self) {
        let (registry, table) = (self.view.registry, self.table);
        for object in registry.objects.iter().filter(|object| object.table == table && object.declared && object.made) {
            let (there, word) = match object.kind.as_str() {
                "column" => (self.relation.columns.contains_key(&object.name), "column"),
                "index" | "key" => (self.relation.indexes.contains_key(&object.name), "index"),
                "constraint" => (self.relation.constraints.contains_key(&object.name), "constraint"),
                _ => continue,
            };
            if !there {
                self.push(word, &object.name, Change::Missing, None);
            }
        }
    }

    fn push(&mut self, kind: &str, name: &str, change: Change, found: Option<String>) {
        self.drift.push(entry(self.table, kind, name, change, found));
    }
}
