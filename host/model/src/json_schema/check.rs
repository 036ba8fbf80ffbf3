//! A value held against a compiled schema.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use serde_json::{Map, Number, Value};

use super::number::{are_equal, compare, write_canonical};
use super::{Items, Keywords, Node, Numbers, Objects, Part};
use crate::id::DocumentId;

/// What is wrong with a value: where, what was expected, and what is there.
#[derive(Debug)]
pub(crate) struct Violation<'a> {
    /// From the outside in.
    pub(crate) path: Vec<Step<'a>>,
    pub(crate) what: What<'a>,
    pub(crate) value: &'a Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    Field(&'a str),
    Item(usize),
}

#[derive(Debug)]
pub(crate) enum What<'a> {
    Type(Vec<&'static str>),
    Enum(&'a Value),
    Minimum(&'a Number),
    Maximum(&'a Number),
    /// A field that is not there.
    Required(&'a str),
    /// A field that must not be there.
    Additional(&'a str),
    /// An id of this table.
    IdOf(&'a str),
    /// Anything else, as one says it of a value: `value has less than 2 items`.
    Other(String),
}

pub(super) fn first_violation<'a>(nodes: &'a [Node], value: &'a Value) -> Option<Violation<'a>> {
    let checker = Checker { nodes };
    let found = checker.part(0, value).err()?;
    let Found { mut path, what, value } = *found;
    path.reverse();
    Some(Violation { path, what, value })
}

/// Boxed: values that fit are the rule.
type Check<'a> = Result<(), Box<Found<'a>>>;

struct Found<'a> {
    /// From the inside out.
    path: Vec<Step<'a>>,
    what: What<'a>,
    value: &'a Value,
}

fn found<'a>(what: What<'a>, value: &'a Value) -> Check<'a> {
    Err(Box::new(Found { path: Vec::new(), what, value }))
}

fn other(words: impl Into<String>, value: &Value) -> Check<'_> {
    found(What::Other(words.into()), value)
}

/// `1 item`, `2 items`.
fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

struct Checker<'a> {
    nodes: &'a [Node],
}

impl<'a> Checker<'a> {
    fn part(&self, part: Part, value: &'a Value) -> Check<'a> {
        match &self.nodes[part] {
            Node::Fixed(true) => Ok(()),
            Node::Fixed(false) => other("False schema does not allow value", value),
            Node::Keywords(keywords) => self.keywords(keywords, value),
        }
    }

    fn at(&self, part: Part, value: &'a Value, step: Step<'a>) -> Check<'a> {
        self.part(part, value).map_err(|mut found| {
            found.path.push(step);
            found
        })
    }

    fn fits(&self, part: Part, value: &'a Value) -> bool {
        self.part(part, value).is_ok()
    }

    fn keywords(&self, keywords: &'a Keywords, value: &'a Value) -> Check<'a> {
        if !keywords.types.is_empty() && !keywords.types.iter().any(|known| known.fits(value)) {
            return found(What::Type(keywords.types.iter().map(|known| known.name()).collect()), value);
        }
        values(keywords, value)?;
        match value {
            Value::Number(number) => numbers(&keywords.number, number, value)?,
            Value::String(text) => texts(keywords, text, value)?,
            Value::Array(items) => self.items(&keywords.items, items, value)?,
            Value::Object(fields) => self.fields(&keywords.object, fields, value)?,
            Value::Null | Value::Bool(_) => {}
        }
        self.schemas(keywords, value)?;
        match (keywords.object.unevaluated, value) {
            (Some(unevaluated), Value::Object(fields)) => self.unevaluated(keywords, unevaluated, fields, value),
            _ => Ok(()),
        }
    }

    fn items(&self, keywords: &'a Items, items: &'a [Value], value: &'a Value) -> Check<'a> {
        if let Some(least) = keywords.count.too_few(items.len()) {
            return other(format!("value has less than {}", counted(least, "item", "items")), value);
        }
        if let Some(most) = keywords.count.too_many(items.len()) {
            return other(format!("value has more than {}", counted(most, "item", "items")), value);
        }
        for (place, (part, item)) in keywords.prefix.iter().zip(items).enumerate() {
            self.at(*part, item, Step::Item(place))?;
        }
        if let Some(rest) = keywords.rest {
            for (place, item) in items.iter().enumerate().skip(keywords.prefix.len()) {
                self.at(rest, item, Step::Item(place))?;
            }
        }
        if keywords.unique && !are_unique(items) {
            return other("value has non-unique elements", value);
        }
        Ok(())
    }

    fn fields(&self, keywords: &'a Objects, fields: &'a Map<String, Value>, value: &'a Value) -> Check<'a> {
        if let Some(missing) = keywords.required.iter().find(|name| !fields.contains_key(*name)) {
            return found(What::Required(missing), value);
        }
        if let Some(least) = keywords.count.too_few(fields.len()) {
            return other(format!("value has less than {}", counted(least, "property", "properties")), value);
        }
        if let Some(most) = keywords.count.too_many(fields.len()) {
            return other(format!("value has more than {}", counted(most, "property", "properties")), value);
        }
        for (name, field) in fields {
            let mut known = false;
            if let Some(part) = keywords.properties.get(name) {
                known = true;
                self.at(*part, field, Step::Field(name))?;
            }
            for (_, part) in keywords.patterns.iter().filter(|(pattern, _)| pattern.fits(name)) {
                known = true;
                self.at(*part, field, Step::Field(name))?;
            }
            match keywords.additional {
                Some(additional) if !known => self.more(additional, name, field, value)?,
                Some(_) | None => {}
            }
        }
        Ok(())
    }

    /// A field that the object's schema does not name.
    fn more(&self, part: Part, name: &'a str, field: &'a Value, value: &'a Value) -> Check<'a> {
        match &self.nodes[part] {
            Node::Fixed(false) => found(What::Additional(name), value),
            Node::Fixed(true) | Node::Keywords(_) => self.at(part, field, Step::Field(name)),
        }
    }

    fn schemas(&self, keywords: &'a Keywords, value: &'a Value) -> Check<'a> {
        for part in keywords.reference.iter().chain(&keywords.all_of) {
            self.part(*part, value)?;
        }
        if let Some(parts) = &keywords.any_of
            && !parts.iter().any(|part| self.fits(*part, value))
        {
            return other("value is not valid under any of the schemas listed in the 'anyOf' keyword", value);
        }
        if let Some(parts) = &keywords.one_of {
            match parts.iter().filter(|part| self.fits(**part, value)).take(2).count() {
                0 => return other("value is not valid under any of the schemas listed in the 'oneOf' keyword", value),
                1 => {}
                _ => {
                    let words = "value is valid under more than one of the schemas listed in the 'oneOf' keyword";
                    return other(words, value);
                }
            }
        }
        match &keywords.not {
            Some((part, schema)) if self.fits(*part, value) => {
                other(format!("{schema} is not allowed for value"), value)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Fields that no schema of the same value has looked at.
    fn unevaluated(
        &self,
        keywords: &'a Keywords,
        part: Part,
        fields: &'a Map<String, Value>,
        value: &'a Value,
    ) -> Check<'a> {
        let mut seen = BTreeSet::new();
        self.evaluated(keywords, fields, value, &mut seen);
        let mut unseen = fields.iter().filter(|(name, _)| !seen.contains(name.as_str()));
        match unseen.find(|(_, field)| !self.fits(part, field)) {
            Some((name, _)) => found(What::Additional(name), value),
            None => Ok(()),
        }
    }

    /// Collects the fields that a schema, and those of its parts that fit, have looked at.
    fn evaluated(
        &self,
        keywords: &'a Keywords,
        fields: &'a Map<String, Value>,
        value: &'a Value,
        seen: &mut BTreeSet<&'a str>,
    ) {
        let object = &keywords.object;
        let all = object.additional.is_some();
        let looked_at = |name: &str| {
            all || object.properties.contains_key(name) || object.patterns.iter().any(|(pattern, _)| pattern.fits(name))
        };
        seen.extend(fields.keys().map(String::as_str).filter(|name| looked_at(name)));
        let alternatives = keywords.any_of.iter().chain(&keywords.one_of).flatten();
        for part in keywords.reference.iter().chain(&keywords.all_of).chain(alternatives) {
            if let Node::Keywords(inner) = &self.nodes[*part]
                && self.fits(*part, value)
            {
                self.evaluated(inner, fields, value, seen);
                if inner.object.unevaluated.is_some() {
                    seen.extend(fields.keys().map(String::as_str));
                }
            }
        }
    }
}

fn values<'a>(keywords: &'a Keywords, value: &'a Value) -> Check<'a> {
    if let Some(options) = &keywords.one_of_values
        && !options.as_array().into_iter().flatten().any(|option| are_equal(option, value))
    {
        return found(What::Enum(options), value);
    }
    match &keywords.constant {
        Some(constant) if !are_equal(constant, value) => other(format!("{constant} was expected"), value),
        Some(_) | None => Ok(()),
    }
}

fn numbers<'a>(keywords: &'a Numbers, number: &Number, value: &'a Value) -> Check<'a> {
    let is = |limit: &Option<Number>, orders: &[Ordering]| {
        limit.as_ref().is_some_and(|limit| orders.contains(&compare(number, limit)))
    };
    match keywords {
        Numbers { minimum: Some(limit), .. } if is(&keywords.minimum, &[Ordering::Less]) => {
            found(What::Minimum(limit), value)
        }
        Numbers { maximum: Some(limit), .. } if is(&keywords.maximum, &[Ordering::Greater]) => {
            found(What::Maximum(limit), value)
        }
        Numbers { exclusive_minimum: Some(limit), .. }
            if is(&keywords.exclusive_minimum, &[Ordering::Less, Ordering::Equal]) =>
        {
            other(format!("value is less than or equal to the minimum of {limit}"), value)
        }
        Numbers { exclusive_maximum: Some(limit), .. }
            if is(&keywords.exclusive_maximum, &[Ordering::Greater, Ordering::Equal]) =>
        {
            other(format!("value is greater than or equal to the maximum of {limit}"), value)
        }
        _ => Ok(()),
    }
}

fn texts<'a>(keywords: &'a Keywords, text: &str, value: &'a Value) -> Check<'a> {
    let length = &keywords.text_length;
    if length.least.is_some() || length.most.is_some() {
        let characters = text.chars().count();
        if let Some(least) = length.too_few(characters) {
            return other(format!("value is shorter than {}", counted(least, "character", "characters")), value);
        }
        if let Some(most) = length.too_many(characters) {
            return other(format!("value is longer than {}", counted(most, "character", "characters")), value);
        }
    }
    match &keywords.id_of {
        Some((table, Some(number))) if !DocumentId::parse(text).is_ok_and(|id| id.table == *number) => {
            found(What::IdOf(table), value)
        }
        // A table that no component declares has no number to hold an id to.
        Some(_) | None => Ok(()),
    }
}

/// By texts that are the same where the values are: comparing each with each would take the square of their number.
fn are_unique(items: &[Value]) -> bool {
    let mut seen = BTreeSet::new();
    items.iter().all(|item| {
        let mut text = String::new();
        write_canonical(item, &mut text);
        seen.insert(text)
    })
}
