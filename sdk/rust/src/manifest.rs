//! The component's manifest: docs/manifest.md describes it.

use schemars::Schema;
use serde::Serialize;

use crate::error::Result;
use crate::schema::schema_of_table;
use crate::table::{Index, Table, UnknownFields};

/// The version of the manifest's form.
const VERSION: u32 = 1;

/// What an upcast takes.
const UPCAST_ARGUMENTS: [&str; 2] = ["document", "from"];

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
    version: u32,
    upcast: Option<&'static str>,
    unknown: UnknownFields,
    check: bool,
    unmanaged_key: Option<&'static str>,
}

inventory::collect!(TableEntry);

impl TableEntry {
    /// The entry of a table.
    pub const fn of<T: Table>() -> Self {
        Self {
            name: T::NAME,
            indexes: T::INDEXES,
            schema: schema_of_table::<T>,
            version: T::VERSION,
            upcast: T::UPCAST,
            unknown: T::UNKNOWN,
            check: T::CHECK,
            unmanaged_key: T::UNMANAGED_KEY,
        }
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

/// What is as usual is left out, so that a manifest changes only where the component does.
#[derive(Serialize)]
struct TablePart {
    name: &'static str,
    schema: Schema,
    indexes: &'static [Index],
    #[serde(skip_serializing_if = "is_first")]
    version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    upcast: Option<&'static str>,
    #[serde(skip_serializing_if = "is_usual")]
    unknown: UnknownFields,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    check: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    unmanaged: Option<UnmanagedPart>,
}

#[derive(Serialize)]
struct UnmanagedPart {
    key: &'static str,
}

impl From<&TableEntry> for TablePart {
    fn from(table: &TableEntry) -> Self {
        Self {
            name: table.name,
            schema: (table.schema)(),
            indexes: table.indexes,
            version: table.version,
            upcast: table.upcast,
            unknown: table.unknown,
            check: table.check,
            unmanaged: table.unmanaged_key.map(|key| UnmanagedPart { key }),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_first(version: &u32) -> bool {
    *version == 1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_usual(unknown: &UnknownFields) -> bool {
    *unknown == UnknownFields::default()
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
    for table in &tables {
        refuse_unfit_upcast(table, &functions);
    }
    let functions = functions.into_iter().map(|function| FunctionPart {
        name: function.name,
        kind: function.kind,
        args: (function.args)(),
        returns: (function.returns)(),
    });
    let tables = tables.into_iter().map(TablePart::from);
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

/// The host calls an upcast by name, with arguments of these names: both are unknown to the compiler.
fn refuse_unfit_upcast(table: &TableEntry, functions: &[&Function]) {
    let Some(upcast) = table.upcast else { return };
    let function = functions.iter().find(|function| function.name == upcast && function.kind == Kind::Rule);
    let schema = function.map(|function| (function.args)());
    let arguments = schema.as_ref().and_then(|schema| schema.get("properties")?.as_object());
    let fits = arguments.is_some_and(|arguments| {
        arguments.len() == 2 && UPCAST_ARGUMENTS.iter().all(|name| arguments.contains_key(*name))
    });
    assert!(
        fits,
        "the upcast of table `{}` is to be a rule: `#[rule] fn {upcast}(document: Value, from: u32) -> Result<Value>`",
        table.name
    );
}

#[cfg(test)]
mod tests {
    use schemars::JsonSchema;
    use serde::Deserialize;
    use serde_json::{Value, json};

    use super::*;
    use crate::bytes::Bytes;
    use crate::schema::{schema_of_arguments, schema_of_result};
    use crate::table::IndexField;
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

    #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
    struct Member {
        email: String,
        #[serde(default = "first_level")]
        level: i64,
        #[serde(default)]
        tags: Vec<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        nickname: Option<String>,
        photo: Bytes,
    }

    fn first_level() -> i64 {
        1
    }

    impl Table for Member {
        const NAME: &'static str = "members";
        const INDEXES: &'static [Index] = &[Index::unique("by_email", &[IndexField::asc("email")])];
        const VERSION: u32 = 2;
        const UPCAST: Option<&'static str> = Some("upgrade_member");
        const UNKNOWN: UnknownFields = UnknownFields::Keep;
        const CHECK: bool = true;
    }

    #[derive(Serialize, Deserialize, JsonSchema)]
    struct Legacy {
        id: i64,
    }

    impl Table for Legacy {
        const NAME: &'static str = "legacy";
        const UNMANAGED_KEY: Option<&'static str> = Some("id");
    }

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "for its schema alone")]
    struct UpcastArguments {
        document: Value,
        from: u32,
    }

    fn upcast(args: fn() -> Schema, kind: Kind) -> Function {
        Function { args, ..function("upgrade_member", kind) }
    }

    #[test]
    fn a_table_with_nothing_new_is_as_it_was() {
        let text = render(vec![], vec![&TableEntry::of::<Note>()]);
        let expected = r#""indexes":[{"name":"by_title","fields":["title"]}]}]}"#;
        assert!(text.ends_with(expected), "{text}");
    }

    #[test]
    fn a_table_says_what_is_not_usual() {
        let rule = upcast(schema_of_arguments::<UpcastArguments>, Kind::Rule);
        let tables = [TableEntry::of::<Member>(), TableEntry::of::<Legacy>()];
        let manifest: Value = serde_json::from_str(&render(vec![&rule], tables.iter().collect())).unwrap();
        let mut member = manifest["tables"][1].clone();
        let schema = member["schema"].take();
        assert_eq!(
            member,
            json!({
                "name": "members",
                "schema": null,
                "indexes": [{ "name": "by_email", "fields": ["email"], "unique": true }],
                "version": 2,
                "upcast": "upgrade_member",
                "unknown": "keep",
                "check": true,
            })
        );
        assert_eq!(manifest["tables"][0]["unmanaged"], json!({ "key": "id" }));
        assert_eq!(
            schema,
            json!({
                "title": "Member",
                "type": "object",
                "properties": {
                    "email": { "type": "string" },
                    "level": { "type": "integer", "format": "int64", "default": 1 },
                    "tags": { "type": "array", "items": { "type": "string" }, "default": [] },
                    "nickname": { "type": ["string", "null"] },
                    "photo": {
                        "type": "object",
                        "x-convoke": "bytes",
                        "properties": { "$bytes": { "type": "string" } },
                        "required": ["$bytes"],
                        "additionalProperties": false,
                    },
                },
                "required": ["email", "photo"],
            })
        );
    }

    #[test]
    #[should_panic(expected = "`#[rule] fn upgrade_member(document: Value, from: u32) -> Result<Value>`")]
    fn an_upcast_with_other_arguments_is_refused() {
        let rule = upcast(schema_of_arguments::<Note>, Kind::Rule);
        render(vec![&rule], vec![&TableEntry::of::<Member>()]);
    }

    #[test]
    #[should_panic(expected = "the upcast of table `members` is to be a rule")]
    fn an_upcast_that_is_no_rule_is_refused() {
        let query = upcast(schema_of_arguments::<UpcastArguments>, Kind::Query);
        render(vec![&query], vec![&TableEntry::of::<Member>()]);
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
