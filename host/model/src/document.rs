//! What a table's documents may be: checked before they reach SQL.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::sync::Arc;

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::arguments::{describe, first_error};
use crate::change::{Changes, Operation, bound_formats};
use crate::document_text;
use crate::json_schema::{JsonSchema, SchemaError};
use crate::manifest::UnknownFields;
use crate::plan::is_undefined;
use crate::schema::{BY_CREATION_TIME, Index, Schema, Table};

/// A project's tables with what checks their documents; made once a deployment, when the tables have their numbers.
#[derive(Debug, Default)]
pub struct Tables {
    schema: Schema,
    forms: BTreeMap<String, DocumentForm>,
    /// The definitions of each table's indexes, for all read sets together.
    indexes: BTreeMap<String, Vec<Arc<Index>>>,
}

/// The form of a table's documents.
#[derive(Debug)]
pub struct DocumentForm {
    /// None where the manifest gives no schema.
    whole: Option<JsonSchema>,
    /// Each top-level field alone, for patches and operations.
    fields: BTreeMap<String, FieldForm>,
    /// Any other field, where the schema says what these are.
    others: Option<FieldForm>,
    required: BTreeSet<String>,
    defaults: Map<String, Value>,
    unknown: UnknownFields,
}

/// The form of one field.
#[derive(Debug)]
pub(crate) struct FieldForm {
    pub(crate) value: JsonSchema,
    pub(crate) changes: Changes,
}

/// The first thing that is wrong with a document: where, what was expected, what was found.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("field `{field}`: expected {expected}, found {found}")]
pub struct DocumentError {
    pub field: String,
    pub expected: String,
    pub found: String,
}

impl DocumentError {
    /// The same for programs.
    pub fn data(&self) -> Value {
        json!({ "field": self.field, "expected": self.expected, "found": self.found })
    }

    pub(crate) fn new(field: impl Into<String>, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self { field: field.into(), expected: expected.into(), found: found.into() }
    }
}

impl Tables {
    /// # Errors
    /// When a table's schema is not valid JSON Schema.
    pub fn new(schema: Schema) -> Result<Self, SchemaError> {
        let numbers: BTreeMap<String, u32> =
            schema.tables.values().map(|table| (table.name.clone(), table.number)).collect();
        let forms = schema
            .tables
            .values()
            .map(|table| Ok((table.name.clone(), DocumentForm::new(table, &numbers)?)))
            .collect::<Result<_, SchemaError>>()?;
        let indexes = |table: &Table| {
            let indexes = table.index(BY_CREATION_TIME).into_iter().chain(table.indexes.iter().cloned());
            (table.name.clone(), indexes.map(Arc::new).collect())
        };
        let indexes = schema.tables.values().map(indexes).collect();
        Ok(Self { schema, forms, indexes })
    }

    /// The definition of a table's index as all share it.
    pub fn shared(&self, table: &Table, index: Index) -> Arc<Index> {
        let known = self.indexes.get(&table.name).into_iter().flatten().find(|known| ***known == index);
        known.map_or_else(|| Arc::new(index), Arc::clone)
    }

    /// Whether any table may hold documents of an older form.
    pub fn has_upcasts(&self) -> bool {
        self.schema.tables.values().any(|table| table.version > 1)
    }

    pub fn form(&self, table: &str) -> Option<&DocumentForm> {
        self.forms.get(table)
    }
}

impl Deref for Tables {
    type Target = Schema;

    fn deref(&self) -> &Schema {
        &self.schema
    }
}

impl DocumentForm {
    fn new(table: &Table, numbers: &BTreeMap<String, u32>) -> Result<Self, SchemaError> {
        let mut schema = table.document.clone();
        let mut form = Self {
            whole: None,
            fields: BTreeMap::new(),
            others: None,
            required: BTreeSet::new(),
            defaults: Map::new(),
            unknown: UnknownFields::Keep,
        };
        if schema.is_null() {
            return Ok(form);
        }
        bound_formats(&mut schema);
        form.whole = Some(JsonSchema::compile(&schema, Some(numbers))?);
        let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return Ok(form) };
        let field = |schema_of_field: &Value| FieldForm::new(schema_of_field, schema.get("$defs"), numbers);
        match schema.get("additionalProperties") {
            None | Some(Value::Bool(false)) => form.unknown = table.unknown,
            Some(others) => form.others = Some(field(others)?),
        }
        for (name, property) in properties {
            if let Some(default) = property.get("default") {
                form.defaults.insert(name.clone(), default.clone());
            }
            form.fields.insert(name.clone(), field(property)?);
        }
        let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
        form.required = required.filter_map(Value::as_str).map(str::to_owned).collect();
        Ok(form)
    }

    /// Checks a whole document; gives it as it is to be stored.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn check<'a>(&self, text: &'a str) -> Result<Cow<'a, str>, DocumentError> {
        let mut document = parse(text)?;
        let stripped = self.refuse_or_strip(&mut document)?;
        let mut added = Vec::new();
        for (name, default) in &self.defaults {
            // An absent option stays absent: its default is null.
            if !default.is_null() && !document.contains_key(name) {
                document.insert(name.clone(), default.clone());
                added.push((name.as_str(), default));
            }
        }
        let document = Value::Object(document);
        if let Some(whole) = &self.whole {
            check_with(whole, &document, "")?;
        }
        rewritten(text, &stripped, &added)
    }

    /// Checks the fields of a patch; gives those to set, as JSON text, and those to remove.
    ///
    /// # Errors
    /// The first thing that is wrong with them.
    pub fn check_patch<'a>(&self, text: &'a str) -> Result<(Cow<'a, str>, Vec<String>), DocumentError> {
        let mut fields = parse(text)?;
        let mut left_out = self.refuse_or_strip(&mut fields)?;
        let unset: Vec<String> =
            fields.iter().filter(|(_, value)| is_undefined(value)).map(|(name, _)| name.clone()).collect();
        for name in &unset {
            if self.required.contains(name) {
                return Err(DocumentError::new(name, "a value", "nothing: the patch removes a required field"));
            }
            fields.remove(name);
        }
        for (name, value) in &fields {
            if let Some(field) = self.field(name) {
                check_with(&field.value, value, name)?;
            }
        }
        left_out.extend(unset.iter().cloned());
        Ok((rewritten(text, &left_out, &[])?, unset))
    }

    /// Checks operations, one a field; gives them as `convoke.apply` takes them, with what their results are held to.
    ///
    /// # Errors
    /// The first thing that is wrong with them.
    pub fn check_operations(&self, text: &str) -> Result<String, DocumentError> {
        parse(text)?;
        let mut checked = Vec::new();
        for (name, operation) in raw(text)? {
            if self.unknown != UnknownFields::Keep && !self.fields.contains_key(&name) {
                return Err(self.unknown_field(&name, &Value::Null));
            }
            let operation = Operation::parse(&name, operation.get())?;
            let within = operation.check(&name, self.field(&name))?;
            let within = within.map_or(String::new(), |within| format!(r#","within":{}"#, json!(within)));
            checked.push(format!(r#"{}:{{"{}":{}{within}}}"#, json!(name), operation.kind.name(), operation.text));
        }
        Ok(format!("{{{}}}", checked.join(",")))
    }

    /// What is known of a field of this name.
    fn field(&self, name: &str) -> Option<&FieldForm> {
        self.fields.get(name).or(self.others.as_ref())
    }

    /// Takes the fields out that are not kept; gives their names.
    fn refuse_or_strip(&self, fields: &mut Map<String, Value>) -> Result<Vec<String>, DocumentError> {
        if self.unknown == UnknownFields::Keep {
            return Ok(Vec::new());
        }
        let unfit: Vec<String> = fields.keys().filter(|name| !self.fields.contains_key(*name)).cloned().collect();
        if self.unknown == UnknownFields::Strip {
            fields.retain(|name, _| self.fields.contains_key(name));
            return Ok(unfit);
        }
        // A field that the form no longer has may be removed under every policy.
        match unfit.iter().find(|name| !is_undefined(&fields[*name])) {
            Some(name) => Err(self.unknown_field(name, &fields[name])),
            None => Ok(Vec::new()),
        }
    }

    fn unknown_field(&self, name: &str, found: &Value) -> DocumentError {
        let known: Vec<&str> = self.fields.keys().map(String::as_str).collect();
        DocumentError::new(name, format!("no such field (there are: {})", known.join(", ")), describe(found))
    }
}

fn parse(text: &str) -> Result<Map<String, Value>, DocumentError> {
    let whole = |found: String| DocumentError::new("document", "an object", found);
    let parsed = serde_json::from_str(text);
    document_text::check(text)?;
    match parsed {
        Ok(Value::Object(fields)) => {
            fields.keys().try_for_each(|name| check_name(name))?;
            Ok(fields)
        }
        Ok(other) => Err(whole(describe(&other))),
        Err(error) => Err(whole(format!("text that is not JSON: {error}"))),
    }
}

fn check_name(name: &str) -> Result<(), DocumentError> {
    if !name.is_empty() && !name.starts_with(['_', '$']) {
        return Ok(());
    }
    Err(DocumentError::new(name, "a name that is not empty and does not begin with `_` or `$`", "this one"))
}

/// The text of an object without some of its fields and with others. What stays keeps its text: a number has digits
/// that no float has.
fn rewritten<'a>(text: &'a str, left_out: &[String], added: &[(&str, &Value)]) -> Result<Cow<'a, str>, DocumentError> {
    if left_out.is_empty() && added.is_empty() {
        return Ok(Cow::Borrowed(text));
    }
    let mut fields: BTreeMap<String, &RawValue> = raw(text)?;
    fields.retain(|name, _| !left_out.contains(name));
    let kept = fields.iter().map(|(name, value)| format!("{}:{}", json!(name), value.get()));
    let added = added.iter().map(|(name, value)| format!("{}:{value}", json!(name)));
    Ok(Cow::Owned(format!("{{{}}}", kept.chain(added).collect::<Vec<_>>().join(","))))
}

/// The fields of an object as their texts; of a field that is there twice the last, as Postgres has it.
fn raw(text: &str) -> Result<BTreeMap<String, &RawValue>, DocumentError> {
    serde_json::from_str(text).map_err(|error| DocumentError::new("document", "an object", error.to_string()))
}

pub(crate) fn check_with(schema: &JsonSchema, value: &Value, root: &str) -> Result<(), DocumentError> {
    match first_error(schema, value, root) {
        None => Ok(()),
        Some(error) => Err(DocumentError { field: error.field, expected: error.expected, found: error.found }),
    }
}

impl FieldForm {
    fn new(schema: &Value, definitions: Option<&Value>, numbers: &BTreeMap<String, u32>) -> Result<Self, SchemaError> {
        let mut alone = schema.clone();
        if let (Some(alone), Some(definitions)) = (alone.as_object_mut(), definitions) {
            alone.insert("$defs".to_owned(), definitions.clone());
        }
        Ok(Self {
            value: JsonSchema::compile(&alone, Some(numbers))?,
            changes: Changes::of(schema, definitions, |schema| JsonSchema::compile(schema, Some(numbers)))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::id::DocumentId;
    use crate::manifest::TableManifest;

    fn tables(unknown: &str) -> Tables {
        let manifest: TableManifest = serde_json::from_value(json!({
            "name": "books", "unknown": unknown,
            "schema": {
                "type": "object",
                "properties": {
                    "title": { "type": "string" },
                    "copies": { "type": "integer", "default": 1 },
                    "owner": { "type": ["string", "null"], "x-convoke-id": "members", "default": null },
                    "at": { "$ref": "#/$defs/Place" },
                },
                "required": ["title"],
                "$defs": { "Place": { "type": "object", "properties": { "shelf": { "type": "integer" } } } },
            },
        }))
        .expect("a manifest");
        let members: TableManifest = serde_json::from_value(json!({ "name": "members" })).expect("a manifest");
        let mut schema = Schema::merge([("library", [manifest, members].as_slice())]).expect("no conflict");
        for (number, table) in schema.tables.values_mut().enumerate() {
            table.number = 10_001 + u32::try_from(number).expect("small");
        }
        Tables::new(schema).expect("valid schemas")
    }

    fn check(unknown: &str, document: &Value) -> Result<String, String> {
        let tables = tables(unknown);
        let form = tables.form("books").expect("a form");
        let text = document.to_string();
        form.check(&text).map(Cow::into_owned).map_err(|error| error.to_string())
    }

    #[test]
    fn says_what_is_wrong_and_where() {
        let foreign = DocumentId { table: 10_001, uuid: Uuid::nil() }.to_string();
        for (document, words) in [
            (json!([]), "field `document`: expected an object, found an array of 0"),
            (json!({}), "field `title`: expected a value, found nothing: the field is missing"),
            (json!({ "title": 1 }), "field `title`: expected a string, found the number 1"),
            (json!({ "title": "a", "_id": 1 }), "field `_id`: expected a name that is not empty"),
            (json!({ "title": "a", "titel": 1 }), "expected no such field (there are: at, copies, owner, title)"),
            (json!({ "title": "a", "copies": 1.5 }), "field `copies`: expected an integer, found the number 1.5"),
            (json!({ "title": "a", "at": { "shelf": "b" } }), "field `at.shelf`: expected an integer"),
            (json!({ "title": "a", "owner": "bob" }), "field `owner`: expected an id of table `members`"),
            (json!({ "title": "a", "owner": foreign }), "field `owner`: expected an id of table `members`"),
        ] {
            let error = check("refuse", &document).expect_err(&document.to_string());
            assert!(error.contains(words), "{document}: {error}");
        }
    }

    #[test]
    fn fills_in_defaults_and_treats_unknown_fields_as_told() {
        let owner = DocumentId { table: 10_002, uuid: Uuid::nil() }.to_string();
        let document = json!({ "title": "a", "owner": owner, "x": 1 });
        assert!(check("refuse", &document).is_err());
        let stored =
            |unknown| serde_json::from_str::<Value>(&check(unknown, &document).expect("a document")).expect("JSON");
        assert_eq!(stored("keep"), json!({ "title": "a", "owner": owner, "x": 1, "copies": 1 }));
        assert_eq!(stored("strip"), json!({ "title": "a", "owner": owner, "copies": 1 }));
    }

    #[test]
    fn a_patch_is_checked_field_by_field() {
        let tables = tables("refuse");
        let form = tables.form("books").expect("a form");
        let patch = |fields: Value| {
            let text = fields.to_string();
            let (set, unset) = form.check_patch(&text).map_err(|error| error.to_string())?;
            Ok::<_, String>((set.into_owned(), unset))
        };
        let undefined = json!({ "$undefined": null });
        assert_eq!(
            patch(json!({ "copies": 2, "owner": undefined, "gone": undefined })),
            Ok((r#"{"copies":2}"#.to_owned(), vec!["gone".to_owned(), "owner".to_owned()]))
        );
        for (fields, words) in [
            (json!({ "title": undefined }), "the patch removes a required field"),
            (json!({ "copies": "2" }), "field `copies`: expected an integer, found the string \"2\""),
            (json!({ "at": { "shelf": "b" } }), "field `at.shelf`"),
            (json!({ "gone": 1 }), "no such field"),
        ] {
            let error = patch(fields).expect_err(words);
            assert!(error.contains(words), "{error}");
        }
    }
}
