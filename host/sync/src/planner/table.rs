//! The steps of one table.

use convoke_model::Table;
use convoke_sql::{create_table, quote_identifier};

use crate::compare::comparable;
use crate::declared::{self, Kind};
use crate::plan::{Class, Hazard};
use crate::planner::{Planner, owner_problem};
use crate::problem::Problem;

impl Planner<'_> {
    /// A table of documents: made, or brought to its version, its checks, its indexes.
    pub(super) fn managed(&mut self, table: &Table) {
        let name = &table.name;
        if self.registry.object(name, Kind::Table, name).is_some_and(|known| known.definition == "unmanaged") {
            self.notes.push(format!("table `{name}` was unmanaged and is declared as a table of documents now"));
        }
        self.register(name);
        if !self.live.relations.contains_key(name) {
            self.add(Some(name), "table", "ACCESS EXCLUSIVE", create_table(self.project, table));
            self.new_indexes(table);
            self.grant(name, "");
            return;
        }
        let from = self.steps.len();
        let Some(relation) = self.workable(table) else { return };
        let (granted, rows, owned, owner) =
            (relation.granted.clone(), relation.rows, relation.owned, relation.owner.clone());
        self.version(table);
        self.checks(table, rows);
        self.indexes(table, rows);
        self.grant(name, &granted);
        let needs_owner =
            self.steps[from..].iter().any(|step| step.table.as_deref() == Some(name) && step.object != "number");
        if needs_owner && !owned {
            self.problems.push(owner_problem(name, &owner));
        }
    }

    pub(super) fn register(&mut self, table: &str) {
        if self.registry.number(table).is_none() {
            let sql = convoke_sql::register_table(self.project, table);
            self.add(Some(table), "number", "ROW EXCLUSIVE", sql);
        }
    }

    /// The version of documents that are written from now on. Old rows keep theirs.
    fn version(&mut self, table: &Table) {
        let name = &table.name;
        let found = self.live.relations.get(name).and_then(|relation| relation.columns.get("_version"));
        let default = |definition: &String| definition.strip_prefix("integer not null default ")?.parse().ok();
        let Some(live) = found.map_or(Some(1_u32), default) else {
            let found = found.map_or("missing", String::as_str);
            self.problems.push(
                Problem::new(
                    "COLUMN_CHANGED",
                    format!(
                        "the column was changed by hand: it is `{found}` and has to be `integer not null default {}`",
                        table.version
                    ),
                    "bring it back, or restore the table from a backup",
                )
                .table(name)
                .field("_version"),
            );
            return;
        };
        if table.version < live {
            self.problems.push(
                Problem::new(
                    "VERSION_DOWN",
                    format!("documents of version {live} are stored and the schema declares version {}: an older form cannot read them", table.version),
                    format!("declare version {live} or a later one, with an `upcast` from what is stored"),
                )
                .table(name)
                .field("_version"),
            );
            return;
        }
        let relation = self.qualified(name);
        if found.is_none() && table.version > 1 {
            // Fast: the value for old rows is kept once, in the catalog.
            let sql = format!("alter table {relation} add column if not exists _version integer not null default 1");
            self.exclusively(name, "column `_version`", sql);
        }
        if table.version > live {
            let sql = format!("alter table {relation} alter column _version set default {}", table.version);
            self.exclusively(name, format!("version {}", table.version), sql);
        }
    }

    /// Checks are added without a look at the rows, and then validated under a lock that lets writers go on.
    fn checks(&mut self, table: &Table, rows: Option<i64>) {
        let name = &table.name;
        let relation = self.qualified(name);
        let live = self.live;
        let Some(found) = live.relations.get(name).map(|relation| &relation.constraints) else { return };
        let wanted = declared::checks(table);
        for check in &wanted {
            let quoted = quote_identifier(&check.name);
            let object = format!("check of `{}`", check.field);
            let add = format!("add constraint {quoted} check ({}) not valid", check.expression);
            let same = comparable(&format!("check ({})", check.expression));
            let validated = match found.get(&check.name) {
                Some(live) if live.definition == same => live.validated,
                Some(_) => {
                    let sql = format!("alter table {relation} drop constraint {quoted}, {add}");
                    let step = self.exclusively(name, object.clone(), sql);
                    step.class = Class::Validating;
                    false
                }
                None => {
                    let step = self.exclusively(name, object.clone(), format!("alter table {relation} {add}"));
                    step.class = Class::Validating;
                    false
                }
            };
            if !validated {
                let sql = format!("alter table {relation} validate constraint {quoted}");
                let step = self.add(Some(name), object, "SHARE UPDATE EXCLUSIVE", sql);
                step.class = Class::Validating;
                step.hazards.push(Hazard::ValidatesRows);
                step.rows = rows;
            }
        }
        // A check that is declared no longer would refuse what the schema now allows; dropping it loses no data.
        let object_check = declared::object_check(name).name;
        let gone: Vec<String> = self
            .registry
            .of(name, Kind::Constraint)
            .map(|object| object.name.clone())
            .filter(|made| {
                *made != object_check
                    && *made != declared::primary_key(name).name
                    && !wanted.iter().any(|check| check.name == *made)
                    && found.contains_key(made)
            })
            .collect();
        for constraint in gone {
            let sql = format!("alter table {relation} drop constraint if exists {}", quote_identifier(&constraint));
            let step = self.exclusively(name, format!("check `{constraint}`"), sql);
            step.hazards.push(Hazard::RelaxesCheck);
        }
    }

    /// A table of somebody else: looked for, opened to the role, and left as it is.
    pub(super) fn unmanaged(&mut self, table: &Table, key: &str) {
        let name = &table.name;
        let live = self.live;
        let Some(relation) = live.relations.get(name) else {
            self.problems.push(
                Problem::new(
                    "UNMANAGED_MISSING",
                    format!("the schema declares it as unmanaged, and the schema `{}` of the database has no table or view of this name", self.project),
                    format!("make it, correct the name, or make a view of it: `create view {} as select …`", self.qualified(name)),
                )
                .table(name),
            );
            return;
        };
        if !relation.columns.contains_key(key) {
            let columns: Vec<String> = relation.columns.keys().map(|column| format!("`{column}`")).collect();
            self.problems.push(
                Problem::new(
                    "KEY_MISSING",
                    format!(
                        "the schema names this column as the key, and the {} has no such column; it has {}",
                        relation.word(),
                        columns.join(", ")
                    ),
                    "name the column that identifies a row",
                )
                .table(name)
                .field(key),
            );
            return;
        }
        if self.registry.is_managed(name) {
            self.problems.push(
                Problem::new(
                    "MANAGED_BEFORE",
                    "it is a table of documents that Convoke made, and the schema declares it as unmanaged",
                    "leave out `unmanaged`, or declare it under another name",
                )
                .table(name),
            );
            return;
        }
        self.register(name);
        if relation.grantable {
            let granted = relation.granted.clone();
            self.grant(name, &granted);
            if let Some(role) = self.role().filter(|_| !relation.sequences.is_empty()) {
                let sql = format!("grant usage on sequence {} to {role}", relation.sequences.join(", "));
                self.add(Some(name), "rights on its sequences", "none", sql);
            }
        } else if self.registry.role.is_some() && relation.granted.len() < 4 {
            self.notes.push(format!(
                "table `{name}` belongs to `{}`: functions reach it once its owner has run `grant select, insert, update, delete on {} to {}`",
                relation.owner,
                self.qualified(name),
                self.role().unwrap_or_default()
            ));
        }
    }
}
