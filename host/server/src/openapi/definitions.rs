//! The definitions of all functions' schemas in one place.
//!
//! A schema in a manifest is a document of its own: it refers to definitions in its `$defs`, from its root. Within a
//! larger document those references lead nowhere. So definitions become components of the document, and what refers to
//! them refers to these.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

const LOCAL: &str = "#/$defs/";
const COMPONENTS: &str = "#/components/schemas/";

/// Definitions by their names in the document.
#[derive(Debug, Default)]
pub(super) struct Definitions {
    schemas: Map<String, Value>,
    /// What each name was given for: a definition and all that it refers to. Two that are the same share a name.
    given: BTreeMap<String, Value>,
}

impl Definitions {
    /// Takes the definitions out of a schema, which is called so where it refers to itself.
    pub(super) fn lift(&mut self, mut schema: Value, name: &str) -> Value {
        let mut local = match schema.as_object_mut().and_then(|schema| schema.remove("$defs")) {
            Some(Value::Object(local)) => local,
            _ => Map::new(),
        };
        let mut is_recursive = false;
        let mut look = |reference: &str| is_recursive |= reference == "#";
        each_reference(&mut schema, &mut |reference| look(reference));
        local.values_mut().for_each(|definition| each_reference(definition, &mut |reference| look(reference)));
        let root = String::new();
        if is_recursive {
            local.insert(root.clone(), schema.clone());
        }
        let names: BTreeMap<String, String> = local
            .keys()
            .map(|key| (key.clone(), self.name(if *key == root { name } else { key }, closure(key, &local))))
            .collect();
        let rename = |reference: &mut String| {
            let key = if reference == "#" { Some(root.clone()) } else { local_name(reference) };
            if let Some(name) = key.and_then(|key| names.get(&key)) {
                *reference = format!("{COMPONENTS}{name}");
            }
        };
        for (key, mut definition) in local {
            each_reference(&mut definition, &mut |reference| rename(reference));
            self.schemas.insert(names[&key].clone(), definition);
        }
        if is_recursive {
            return serde_json::json!({ "$ref": format!("{COMPONENTS}{}", names[&root]) });
        }
        each_reference(&mut schema, &mut |reference| rename(reference));
        schema
    }

    /// Adds a schema of the document's own.
    pub(super) fn add(&mut self, name: &str, schema: Value) {
        self.given.insert(name.to_owned(), schema.clone());
        self.schemas.insert(name.to_owned(), schema);
    }

    pub(super) fn into_schemas(self) -> Map<String, Value> {
        self.schemas
    }

    /// The name in the document of what is called so in its schema.
    fn name(&mut self, wanted: &str, closure: Value) -> String {
        // What OpenAPI takes for the name of a component.
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let wanted: String = wanted.chars().map(|c| if fits(c) { c } else { '_' }).collect();
        let numbered = (2..).map(|number| format!("{wanted}_{number}"));
        let mut names = std::iter::once(wanted.clone()).chain(numbered);
        let free = names.find(|name| self.given.get(name).is_none_or(|known| *known == closure));
        let name = free.unwrap_or(wanted);
        self.given.insert(name.clone(), closure);
        name
    }
}

/// A definition and all that it refers to.
fn closure(key: &str, local: &Map<String, Value>) -> Value {
    let mut reached = BTreeSet::new();
    let mut next = vec![key.to_owned()];
    while let Some(key) = next.pop() {
        if let Some(definition) = local.get(&key)
            && reached.insert(key)
        {
            let mut definition = definition.clone();
            each_reference(&mut definition, &mut |reference| {
                next.extend(if reference == "#" { Some(String::new()) } else { local_name(reference) });
            });
        }
    }
    let definitions = reached.into_iter().map(|key| (key.clone(), local[&key].clone())).collect::<Map<_, _>>();
    serde_json::json!([key, definitions])
}

/// The name of a local definition, as it stands in `$defs`.
fn local_name(reference: &str) -> Option<String> {
    let pointer = reference.strip_prefix(LOCAL)?;
    let decoded = percent_encoding::percent_decode_str(pointer).decode_utf8().ok()?;
    Some(decoded.replace("~1", "/").replace("~0", "~"))
}

/// Visits every `$ref` that is a reference. One in an example or a default is a value like another one.
fn each_reference(schema: &mut Value, visit: &mut impl FnMut(&mut String)) {
    const VALUES: [&str; 5] = ["const", "default", "enum", "example", "examples"];
    match schema {
        Value::Object(members) => {
            for (key, member) in members {
                match member {
                    Value::String(reference) if key == "$ref" => visit(reference),
                    _ if VALUES.contains(&key.as_str()) => {}
                    // Here the keys are names of fields.
                    Value::Object(fields) if key == "properties" || key == "$defs" => {
                        fields.values_mut().for_each(|field| each_reference(field, visit));
                    }
                    other => each_reference(other, visit),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| each_reference(item, visit)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn definitions_become_components() {
        let mut definitions = Definitions::default();
        let message = json!({ "type": "object", "properties": { "at": { "$ref": "#/$defs/Place" }, "$ref": {} } });
        let schema = json!({
            "$defs": { "Message": message, "Place": { "type": "string" } },
            "items": { "$ref": "#/$defs/Message" }, "default": { "$ref": "#/$defs/Message" },
        });
        let lifted = definitions.lift(schema.clone(), "a");
        let wanted = json!({
            "items": { "$ref": "#/components/schemas/Message" }, "default": { "$ref": "#/$defs/Message" },
        });
        assert_eq!(lifted, wanted);
        assert_eq!(definitions.lift(schema, "b"), wanted, "the same definitions are there once");
        let schemas = definitions.into_schemas();
        assert_eq!(schemas.keys().collect::<Vec<_>>(), ["Message", "Place"]);
        assert_eq!(schemas["Message"]["properties"]["at"], json!({ "$ref": "#/components/schemas/Place" }));
    }

    #[test]
    fn two_of_one_name_stay_apart_also_where_only_what_they_refer_to_differs() {
        let mut definitions = Definitions::default();
        definitions.add("Error", json!({}));
        let schema = |kind: &str| {
            json!({ "$defs": { "List": { "items": { "$ref": "#/$defs/Error" } }, "Error": { "type": kind } },
                    "$ref": "#/$defs/List" })
        };
        let first = definitions.lift(schema("string"), "a");
        let second = definitions.lift(schema("number"), "b");
        assert_eq!(first["$ref"], "#/components/schemas/List");
        assert_eq!(second["$ref"], "#/components/schemas/List_2");
        let schemas = definitions.into_schemas();
        assert_eq!(schemas["List"]["items"]["$ref"], "#/components/schemas/Error_2");
        assert_eq!(schemas["List_2"]["items"]["$ref"], "#/components/schemas/Error_3");
        assert_eq!(schemas["Error_3"], json!({ "type": "number" }));
    }

    #[test]
    fn what_refers_to_itself_is_a_component() {
        let mut definitions = Definitions::default();
        let tree = json!({ "properties": { "left": { "$ref": "#" }, "at": { "$ref": "#/$defs/a~1b%20c" } },
                           "$defs": { "a/b c": { "type": "string" } } });
        assert_eq!(definitions.lift(tree, "trees:plant args")["$ref"], "#/components/schemas/trees_plant_args");
        let schemas = definitions.into_schemas();
        let fields = &schemas["trees_plant_args"]["properties"];
        assert_eq!(fields["left"]["$ref"], "#/components/schemas/trees_plant_args");
        assert_eq!(fields["at"]["$ref"], "#/components/schemas/a_b_c");
    }
}
