//! The schema itself, the rights of the role, and the publication that the change feed reads.

use convoke_sql::{create_schema, quote_identifier};

use crate::catalog::publication_name;
use crate::planner::Planner;
use crate::problem::Problem;

/// What the role may do with a table: not truncate it, not refer to it, not put triggers on it.
const RIGHTS: &str = "select, insert, update, delete";
const RIGHTS_LETTERS: &str = "rawd";

impl Planner<'_> {
    pub(super) fn schema_steps(&mut self) {
        let project = self.project;
        let usage = match &self.live.schema {
            None => {
                if !self.live.may_create {
                    self.problems.push(Problem::new(
                        "MAY_NOT_CREATE",
                        format!("the connected user may not make the schema `{project}` in this database"),
                        "as the database's owner: `grant create on database … to …`, or make the schema and give it to the user",
                    ));
                }
                self.add(None, "schema", "none", create_schema(project));
                false
            }
            Some(schema) => {
                let makes_tables = self
                    .schema
                    .tables
                    .values()
                    .any(|table| !self.live.relations.contains_key(&table.name) && table.is_managed());
                if makes_tables && !schema.owned {
                    self.problems.push(Problem::new(
                        "SCHEMA_OF_OTHERS",
                        format!("the Postgres schema `{project}` belongs to `{}`, and the connected user cannot make tables in it", schema.owner),
                        format!("connect as `{}`, or give the project another name in `convoke.toml`", schema.owner),
                    ));
                }
                schema.usage
            }
        };
        if let Some(role) = self.role().filter(|_| !usage) {
            let sql = format!("grant usage on schema {} to {role}", quote_identifier(project));
            self.add(None, "rights on the schema", "none", sql);
        }
    }

    /// The rights of the role on a table, where they are not complete.
    pub(super) fn grant(&mut self, table: &str, granted: &str) {
        if RIGHTS_LETTERS.chars().all(|right| granted.contains(right)) {
            return;
        }
        if let Some(role) = self.role() {
            let sql = format!("grant {RIGHTS} on {} to {role}", self.qualified(table));
            self.add(Some(table), "rights", "none", sql);
        }
    }

    /// An explicit list: a publication of the whole schema would have Postgres refuse updates of tables without a key
    /// that somebody keeps beside Convoke's.
    pub(super) fn publication(&mut self) {
        let wanted: Vec<&str> = self
            .schema
            .tables
            .values()
            .filter(|table| match self.live.relations.get(&table.name) {
                None => table.is_managed(),
                Some(relation) => relation.is_table() && relation.owned && relation.identified,
            })
            .map(|table| table.name.as_str())
            .collect();
        let publication = quote_identifier(&publication_name(self.project));
        let missing: Vec<String> = wanted
            .iter()
            .filter(|table| {
                !self
                    .live
                    .published
                    .as_ref()
                    .is_some_and(|published| published.all || published.tables.contains(**table))
            })
            .map(|table| self.qualified(table))
            .collect();
        if missing.is_empty() {
            return;
        }
        if self.live.published.is_none() && !self.live.may_create {
            self.notes.push(format!(
                "the connected user may not make the publication {publication}: subscriptions are not fed"
            ));
            return;
        }
        let sql = if self.live.published.is_some() {
            format!("alter publication {publication} add table {}", missing.join(", "))
        } else {
            format!("create publication {publication} for table {}", missing.join(", "))
        };
        self.add(None, "publication", "SHARE UPDATE EXCLUSIVE", sql);
    }
}

pub(crate) fn owner_problem(table: &str, owner: &str) -> Problem {
    Problem::new(
        "NOT_OWNER",
        format!("it belongs to `{owner}`, and only its owner may change it"),
        format!("connect as `{owner}`, or have it given to the connected user: `alter table … owner to …`"),
    )
    .table(table)
}
