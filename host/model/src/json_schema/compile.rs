//! From the text of a schema to what is checked.

use std::collections::BTreeMap;

use serde_json::{Map, Number, Value};

use super::{Bounds, ID_KEYWORD, KeyPattern, Keywords, Node, Part, SchemaError, Type};

/// What a schema says to people and programs, and what is the place of definitions: nothing to check.
const ANNOTATIONS: [&str; 17] = [
    "$schema",
    "$id",
    "$comment",
    "$defs",
    "definitions",
    "title",
    "description",
    "default",
    "examples",
    "format",
    "deprecated",
    "readOnly",
    "writeOnly",
    "contentEncoding",
    "contentMediaType",
    "nullable",
    "example",
];

/// The parts of one manifest's schema: more than any type has.
const PARTS_MAX: usize = 100_000;

pub(super) fn compile(schema: &Value, tables: Option<&BTreeMap<String, u32>>) -> Result<Vec<Node>, SchemaError> {
    let mut compiler = Compiler { root: schema, tables, nodes: Vec::new(), references: BTreeMap::new() };
    compiler.references.insert("#".to_owned(), 0);
    compiler.part(schema)?;
    refuse_circles(&compiler.nodes)?;
    Ok(compiler.nodes)
}

struct Compiler<'a> {
    root: &'a Value,
    tables: Option<&'a BTreeMap<String, u32>>,
    nodes: Vec<Node>,
    /// Where each definition is, or will be once it is done.
    references: BTreeMap<String, Part>,
}

impl Compiler<'_> {
    fn part(&mut self, schema: &Value) -> Result<Part, SchemaError> {
        let place = self.nodes.len();
        if place >= PARTS_MAX {
            return Err(error(format!("it has more than {PARTS_MAX} parts")));
        }
        // Holds the place while the parts within are compiled.
        self.nodes.push(Node::Fixed(true));
        self.nodes[place] = match schema {
            Value::Bool(fixed) => Node::Fixed(*fixed),
            Value::Object(keywords) => Node::Keywords(Box::new(self.keywords(keywords)?)),
            other => return Err(error(format!("`{other}` is neither an object nor a boolean"))),
        };
        Ok(place)
    }

    fn keywords(&mut self, schema: &Map<String, Value>) -> Result<Keywords, SchemaError> {
        let mut keywords = Keywords::default();
        for (name, value) in schema {
            if !self.of_values(&mut keywords, name, value)?
                && !self.of_arrays(&mut keywords, name, value)?
                && !self.of_objects(&mut keywords, name, value)?
                && !self.of_schemas(&mut keywords, name, value)?
                && !is_annotation(name)
            {
                return Err(error(format!("the keyword `{name}` is not one that this host checks")));
            }
        }
        Ok(keywords)
    }

    /// Whether the keyword is one of those that look at one value.
    fn of_values(&self, keywords: &mut Keywords, name: &str, value: &Value) -> Result<bool, SchemaError> {
        match name {
            "type" => keywords.types = types(value)?,
            "enum" => keywords.one_of_values = Some(value.is_array().then(|| value.clone()).ok_or_else(|| form(name))?),
            "const" => keywords.constant = Some(value.clone()),
            "minimum" => keywords.number.minimum = Some(number(name, value)?),
            "maximum" => keywords.number.maximum = Some(number(name, value)?),
            "exclusiveMinimum" => keywords.number.exclusive_minimum = Some(number(name, value)?),
            "exclusiveMaximum" => keywords.number.exclusive_maximum = Some(number(name, value)?),
            "minLength" => keywords.text_length.least = Some(count(name, value)?),
            "maxLength" => keywords.text_length.most = Some(count(name, value)?),
            ID_KEYWORD => {
                let table = value.as_str().ok_or_else(|| form(name))?;
                keywords.id_of = self.tables.map(|tables| (table.to_owned(), tables.get(table).copied()));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn of_arrays(&mut self, keywords: &mut Keywords, name: &str, value: &Value) -> Result<bool, SchemaError> {
        let items = &mut keywords.items;
        match name {
            "items" => items.rest = Some(self.part(value)?),
            "prefixItems" => items.prefix = self.parts(name, value)?,
            "minItems" => items.count.least = Some(count(name, value)?),
            "maxItems" => items.count.most = Some(count(name, value)?),
            "uniqueItems" => items.unique = value.as_bool().ok_or_else(|| form(name))?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn of_objects(&mut self, keywords: &mut Keywords, name: &str, value: &Value) -> Result<bool, SchemaError> {
        let object = &mut keywords.object;
        match name {
            "required" => object.required = names(name, value)?,
            "properties" => {
                for (property, schema) in value.as_object().ok_or_else(|| form(name))? {
                    object.properties.insert(property.clone(), self.part(schema)?);
                }
            }
            "patternProperties" => {
                for (pattern, schema) in value.as_object().ok_or_else(|| form(name))? {
                    object.patterns.push((key_pattern(pattern)?, self.part(schema)?));
                }
            }
            "additionalProperties" => object.additional = Some(self.part(value)?),
            "unevaluatedProperties" => object.unevaluated = Some(self.part(value)?),
            "minProperties" => object.count.least = Some(count(name, value)?),
            "maxProperties" => object.count.most = Some(count(name, value)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn of_schemas(&mut self, keywords: &mut Keywords, name: &str, value: &Value) -> Result<bool, SchemaError> {
        match name {
            "$ref" => keywords.reference = Some(self.reference(value.as_str().ok_or_else(|| form(name))?)?),
            "allOf" => keywords.all_of = self.parts(name, value)?,
            "anyOf" => keywords.any_of = Some(self.parts(name, value)?),
            "oneOf" => keywords.one_of = Some(self.parts(name, value)?),
            "not" => keywords.not = Some((self.part(value)?, value.to_string())),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn parts(&mut self, name: &str, schemas: &Value) -> Result<Vec<Part>, SchemaError> {
        schemas.as_array().ok_or_else(|| form(name))?.iter().map(|schema| self.part(schema)).collect()
    }

    /// Only within the schema: nothing is fetched.
    fn reference(&mut self, reference: &str) -> Result<Part, SchemaError> {
        if let Some(part) = self.references.get(reference) {
            return Ok(*part);
        }
        let unknown = || error(format!("the reference `{reference}` leads nowhere in it"));
        let pointer = reference.strip_prefix('#').and_then(unescaped).ok_or_else(unknown)?;
        let schema = self.root.pointer(&pointer).ok_or_else(unknown)?;
        self.references.insert(reference.to_owned(), self.nodes.len());
        self.part(schema)
    }
}

/// A schema that leads to itself without going into the value would be checked for ever.
fn refuse_circles(nodes: &[Node]) -> Result<(), SchemaError> {
    #[derive(Clone, Copy, PartialEq)]
    enum Seen {
        No,
        Above,
        Done,
    }
    let mut seen = vec![Seen::No; nodes.len()];
    for start in 0..nodes.len() {
        // Each entry is entered once and left once; a stack of its own, as a manifest may nest as deep as it likes.
        let mut stack = vec![(start, false)];
        while let Some((part, leaves)) = stack.pop() {
            match (leaves, seen[part]) {
                (true, _) => seen[part] = Seen::Done,
                (false, Seen::Done) => {}
                (false, Seen::Above) => return Err(error("a part of it is defined by itself".to_owned())),
                (false, Seen::No) => {
                    seen[part] = Seen::Above;
                    stack.push((part, true));
                    stack.extend(same_value(&nodes[part]).map(|next| (next, false)));
                }
            }
        }
    }
    Ok(())
}

/// The parts that are held against the same value.
fn same_value(node: &Node) -> impl Iterator<Item = Part> {
    let keywords = match node {
        Node::Keywords(keywords) => Some(keywords),
        Node::Fixed(_) => None,
    };
    keywords.into_iter().flat_map(|keywords| {
        let lists = [Some(&keywords.all_of), keywords.any_of.as_ref(), keywords.one_of.as_ref()];
        let parts = lists.into_iter().flatten().flatten().copied();
        parts.chain(keywords.reference).chain(keywords.not.as_ref().map(|(part, _)| *part))
    })
}

fn is_annotation(name: &str) -> bool {
    ANNOTATIONS.contains(&name) || name.starts_with("x-")
}

fn types(value: &Value) -> Result<Vec<Type>, SchemaError> {
    let of = |value: &Value| {
        let name = value.as_str();
        Type::ALL.into_iter().find(|known| Some(known.name()) == name).ok_or_else(|| form("type"))
    };
    match value {
        Value::Array(values) => values.iter().map(of).collect(),
        one => Ok(vec![of(one)?]),
    }
}

fn number(name: &str, value: &Value) -> Result<Number, SchemaError> {
    value.as_number().cloned().ok_or_else(|| form(name))
}

fn count(name: &str, value: &Value) -> Result<u64, SchemaError> {
    value.as_u64().ok_or_else(|| form(name))
}

fn names(name: &str, value: &Value) -> Result<Vec<String>, SchemaError> {
    let names = value.as_array().ok_or_else(|| form(name))?.iter();
    names.map(|value| value.as_str().map(str::to_owned).ok_or_else(|| form(name))).collect()
}

fn key_pattern(pattern: &str) -> Result<KeyPattern, SchemaError> {
    match pattern {
        r"^\d+$" => Ok(KeyPattern::Unsigned),
        r"^-?\d+$" => Ok(KeyPattern::Signed),
        other => Err(error(format!("the pattern `{other}` of names is not one that this host checks"))),
    }
}

/// A JSON pointer without the `%` of addresses.
fn unescaped(pointer: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(pointer.len());
    let mut rest = pointer.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

fn form(name: &str) -> SchemaError {
    error(format!("the keyword `{name}` has the wrong form"))
}

fn error(words: String) -> SchemaError {
    SchemaError(words)
}

impl Bounds {
    pub(super) fn too_few(&self, count: usize) -> Option<u64> {
        self.least.filter(|least| (count as u64) < *least)
    }

    pub(super) fn too_many(&self, count: usize) -> Option<u64> {
        self.most.filter(|most| (count as u64) > *most)
    }
}
