//! The steps of a table's indexes.

use convoke_model::Table;
use convoke_sql::{quote_identifier, replacement_name};

use crate::declared::{self, Kind, WantedIndex};
use crate::plan::{Class, Hazard, Work};
use crate::planner::Planner;

/// What is there under the name of an index.
enum Found {
    Nothing,
    /// Left by a build that failed.
    Invalid,
    Same,
    Other,
}

impl Planner<'_> {
    /// Of a table that the same plan makes: nobody waits for them.
    pub(super) fn new_indexes(&mut self, table: &Table) {
        for index in declared::indexes(table) {
            let sql = self.create(table, &index, &index.name, "");
            let step = self.add(Some(&table.name), title(&index), "SHARE", sql);
            step.rows = Some(0);
        }
    }

    /// Of a table that is in use: built beside it.
    pub(super) fn indexes(&mut self, table: &Table, rows: Option<i64>) {
        let wanted = declared::indexes(table);
        for index in &wanted {
            self.index(table, index, rows);
        }
        // The index stays declared and is unique no longer: it must not go on refusing what the schema allows.
        let live = self.live;
        let name = &table.name;
        for known in self.registry.of(name, Kind::Key) {
            let is_wanted = wanted.iter().any(|index| index.name == known.name);
            let stem = known.name.trim_end_matches("_key");
            let beside = wanted.iter().any(|index| !index.unique && index.name.trim_end_matches("_idx") == stem);
            let is_there = live.relations.get(name).is_some_and(|relation| relation.indexes.contains_key(&known.name));
            if !is_wanted && beside && is_there {
                let sql = self.drop(&known.name);
                self.concurrently(name, format!("uniqueness `{}`", known.name), sql, None)
                    .hazards
                    .push(Hazard::RelaxesCheck);
            }
        }
    }

    fn index(&mut self, table: &Table, index: &WantedIndex, rows: Option<i64>) {
        let name = &table.name;
        let replacement = replacement_name(&index.name);
        let at_place = self.found(name, index, &index.name);
        let beside = self.found(name, index, &replacement);
        if matches!(at_place, Found::Same) {
            if !matches!(beside, Found::Nothing) {
                let sql = self.drop(&replacement);
                self.concurrently(name, format!("what is left of {}", title(index)), sql, None);
            }
            return;
        }
        if let Found::Invalid | Found::Nothing = at_place
            && !matches!(beside, Found::Same)
        {
            if matches!(at_place, Found::Invalid) {
                let sql = self.drop(&index.name);
                self.concurrently(name, format!("failed {}", title(index)), sql, None);
            }
            if !matches!(beside, Found::Nothing) {
                let sql = self.drop(&replacement);
                self.concurrently(name, format!("what is left of {}", title(index)), sql, None);
            }
            let sql = self.create(table, index, &index.name, "concurrently ");
            self.build(name, index, sql, &index.name, rows);
            return;
        }
        // Another definition under the name, or a run that ended between the two: the old one serves until the end.
        if !matches!(beside, Found::Same) {
            if !matches!(beside, Found::Nothing) {
                let sql = self.drop(&replacement);
                self.concurrently(name, format!("what is left of {}", title(index)), sql, None);
            }
            let sql = self.create(table, index, &replacement, "concurrently ");
            self.build(name, index, sql, &replacement, rows).hazards.push(Hazard::ReplacesIndex);
        }
        if !matches!(at_place, Found::Nothing) {
            let sql = self.drop(&index.name);
            self.concurrently(name, format!("old {}", title(index)), sql, None).hazards.push(Hazard::ReplacesIndex);
        }
        let sql = format!(
            "alter index {}.{} rename to {}",
            quote_identifier(self.project),
            quote_identifier(&replacement),
            quote_identifier(&index.name)
        );
        let step = self.add(Some(name), title(index), "SHARE UPDATE EXCLUSIVE", sql);
        step.hazards.push(Hazard::ReplacesIndex);
    }

    fn found(&self, table: &str, index: &WantedIndex, name: &str) -> Found {
        match self.live.relations.get(table).and_then(|relation| relation.indexes.get(name)) {
            None => Found::Nothing,
            Some(live) if !live.valid => Found::Invalid,
            Some(live) if live.definition == index.definition() => Found::Same,
            Some(_) => Found::Other,
        }
    }

    fn build(
        &mut self,
        table: &str,
        index: &WantedIndex,
        sql: String,
        name: &str,
        rows: Option<i64>,
    ) -> &mut crate::Step {
        let step = self.concurrently(table, title(index), sql, Some(name.to_owned()));
        step.hazards.push(Hazard::IndexBuild);
        step.rows = rows;
        if index.unique {
            step.class = Class::Validating;
            step.hazards.push(Hazard::ValidatesRows);
        }
        step
    }

    fn concurrently(&mut self, table: &str, object: String, sql: String, index: Option<String>) -> &mut crate::Step {
        let step = self.add(Some(table), object, "SHARE UPDATE EXCLUSIVE", sql);
        step.work = Work::Concurrently { index };
        step
    }

    fn create(&self, table: &Table, index: &WantedIndex, name: &str, how: &str) -> String {
        let unique = if index.unique { "unique " } else { "" };
        let (name, relation) = (quote_identifier(name), self.qualified(&table.name));
        format!("create {unique}index {how}if not exists {name} on {relation} {}", index.body)
    }

    fn drop(&self, name: &str) -> String {
        format!("drop index concurrently if exists {}.{}", quote_identifier(self.project), quote_identifier(name))
    }
}

fn title(index: &WantedIndex) -> String {
    let what = if index.unique { "uniqueness of index" } else { "index" };
    format!("{what} `{}`", index.declared)
}
