//! The component's manifest: docs/manifest.md describes it.

use schemars::Schema;
use serde::Serialize;

use crate::error::Result;
use crate::schema::schema_of_table;
use crate::table::{Index, Table};

/// The version of the manifest's form.
const VERSION: u32 = 1;

/// What a function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Reads.
    Query,
    /// Reads and writes, in one transaction.
    Mutation,
    /// Calls functions and the outside.
    Action,
    /// Computes from its arguments alone.
    Rule,
}

/// A function of this component, as its macro registers it.
#[derive(Debug)]
pub struct Function {
    /// The name within the component.
    pub name: &'static str,
    /// Which world the host holds it to.
    pub kind: Kind,
    /// From the arguments' JSON text to the result's.
    pub call: fn(&str) -> Result<String>,
    /// The schema of the arguments.
    pub args: fn() -> Schema,
    /// The schema of the result.
    pub returns: fn() -> Schema,
}

inventory::collect!(Function);

/// A table of this component, as its macro registers it.
#[derive(Debug)]
pub struct TableEntry {
    name: &'static str,
    indexes: &'static [Index],
    schema: fn() -> Schema,
}

inventory::collect!(TableEntry);

impl TableEntry {
    /// The entry of a table.
    pub const fn of<T: Table>() -> Self {
        Self { name: T::NAME, indexes: T::INDEXES, schema: schema_of_table::<T> }
    }
}

#[derive(Serialize)]
struct Manifest {
    version: u32,
    functions: Vec<FunctionPart>,
    tables: Vec<TablePart>,
}

#[derive(Serialize)]
struct FunctionPart {
    name: &'static str,
    kind: Kind,
    args: Schema,
    returns: Schema,
}

#[derive(Serialize)]
struct TablePart {
    name: &'static str,
    schema: Schema,
    indexes: &'static [Index],
}

/// The manifest of everything that is registered in this component.
#[cfg_attr(not(target_family = "wasm"), expect(dead_code, reason = "only a component exports it"))]
pub(crate) fn of_this_component() -> String {
    render(inventory::iter::<Function>.into_iter().collect(), inventory::iter::<TableEntry>.into_iter().collect())
}

/// Sorted by name: the order of registration is the linker's, and a manifest is compared with the one before.
fn render(mut functions: Vec<&Function>, mut tables: Vec<&TableEntry>) -> String {
    functions.sort_by_key(|function| function.name);
    tables.sort_by_key(|table| table.name);
    refuse_twins("functions", functions.iter().map(|function| function.name));
    refuse_twins("tables", tables.iter().map(|table| table.name));
    let functions = functions.into_iter().map(|function| FunctionPart {
        name: function.name,
        kind: function.kind,
        args: (function.args)(),
        returns: (function.returns)(),
    });
    let tables = tables.into_iter().map(|table| TablePart {
        name: table.name,
        schema: (table.schema)(),
        indexes: table.indexes,
    });
    let manifest = Manifest { version: VERSION, functions: functions.collect(), tables: tables.collect() };
    serde_json::to_string(&manifest).expect("a manifest is text, numbers and schemas, which JSON holds")
}

/// Two of one name can't be told apart in a call; the component must not load.
fn refuse_twins<'a>(what: &str, sorted: impl Iterator<Item = &'a str>) {
    let mut before = None;
    for name in sorted {
        assert!(before != Some(name), "two {what} of this component are called `{name}`; rename one of them");
        before = Some(name);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::schema::{schema_of_arguments, schema_of_result};
    use crate::table::tests::Note;

    fn function(name: &'static str, kind: Kind) -> Function {
        Function {
            name,
            kind,
            call: |_| Ok("null".to_owned()),
            args: schema_of_arguments::<Note>,
            returns: schema_of_result::<Vec<u32>>,
        }
    }

    #[test]
    fn functions_and_tables_are_sorted_by_name() {
        let (send, list) = (function("send", Kind::Mutation), function("list", Kind::Query));
        let table = TableEntry::of::<Note>();
        let manifest: Value = serde_json::from_str(&render(vec![&send, &list], vec![&table])).unwrap();
        assert_eq!(manifest["version"], 1);
        assert_eq!(manifest["functions"][0]["name"], "list");
        assert_eq!(manifest["functions"][0]["kind"], "query");
        assert_eq!(manifest["functions"][1]["name"], "send");
        assert_eq!(manifest["functions"][0]["returns"]["type"], "array");
        assert_eq!(manifest["tables"][0]["indexes"], json!([{ "name": "by_title", "fields": ["title"] }]));
        assert_eq!(manifest["tables"][0]["schema"]["required"], json!(["title"]));
    }

    #[test]
    fn schemas_say_neither_their_draft_nor_the_name_of_the_arguments() {
        let schema = schema_of_arguments::<Note>();
        assert_eq!((schema.get("$schema"), schema.get("title")), (None, None));
    }

    #[test]
    fn a_result_has_a_title_where_its_type_has_a_name_of_its_own() {
        assert_eq!(schema_of_result::<Vec<Note>>().get("title"), None);
        assert_eq!(schema_of_result::<Note>().get("title"), Some(&json!("Note")));
    }

    #[test]
    #[should_panic(expected = "two functions of this component are called `list`")]
    fn two_functions_of_one_name_are_refused() {
        let list = function("list", Kind::Query);
        render(vec![&list, &list], vec![]);
    }
}
