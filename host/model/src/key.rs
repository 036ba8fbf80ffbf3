//! The one order of values: in indexes, in `order`, in cursors and in read sets.
//!
//! A value's key is a text of bytes, and values are ordered as their keys are, byte by byte. `convoke.key(jsonb)` makes
//! the same bytes in Postgres (host/sql/src/bootstrap.sql), whatever the database's collation. From the lowest:
//!
//! | first byte | values | then |
//! |---|---|---|
//! | 1 | missing | |
//! | 2 | null | |
//! | 3 | numbers, integers and floats together | the nearest float, ordered; beyond 2^53 the integer as well, without its fraction |
//! | 4 | false, true | 0 or 1 |
//! | 5 | strings | UTF-8 |
//! | 6 | bytes (`{"$bytes": base64}`) | the bytes |
//! | 7 | arrays | each element's key, escaped and ended by a zero |
//! | 8 | objects | for each field, sorted by name: name and value, escaped and ended by a zero each |

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::Error as _;
use serde_json::value::RawValue;
use serde_json::{Map, Number, Value};
use uuid::Uuid;

use crate::number::Decimal;
use crate::plan::Order;
use crate::schema::Index;

const MISSING: u8 = 1;
const NULL: u8 = 2;
const NUMBER: u8 = 3;
const BOOL: u8 = 4;
const STRING: u8 = 5;
const BYTES: u8 = 6;
const ARRAY: u8 = 7;
const OBJECT: u8 = 8;

/// Below it, every integer is a float exactly.
const EXACT: f64 = 9_007_199_254_740_992.0;
const SIGN: u64 = 1 << 63;
/// How deep a value may nest, as for any reader of JSON here: the stack is bounded.
const DEPTH_MAX: usize = 128;

/// The key of a value as a plan holds it, or of a missing one. Its numbers are integers of 64 bits and floats; for a
/// stored value, whose numbers have any digits, there is [`key_of_text`].
pub fn key(value: Option<&Value>) -> Vec<u8> {
    let mut out = Vec::with_capacity(16);
    push_key(&mut out, value);
    out
}

/// The key of a stored value, of its JSON text, as `convoke.key` makes it.
///
/// # Errors
/// For a text that is no JSON, nests too deep, or holds a number that no float holds: Postgres has no key for that.
pub fn key_of_text(text: &str) -> Result<Vec<u8>, serde_json::Error> {
    let mut out = Vec::with_capacity(16);
    push_key_of_text(&mut out, text.trim_ascii(), 0)?;
    Ok(out)
}

fn push_key_of_text(out: &mut Vec<u8>, text: &str, depth: usize) -> Result<(), serde_json::Error> {
    if depth > DEPTH_MAX {
        return Err(serde_json::Error::custom("a value nests too deep for a key"));
    }
    let nested = |text: &RawValue| {
        let mut key = Vec::with_capacity(16);
        push_key_of_text(&mut key, text.get(), depth + 1).map(|()| key)
    };
    match text.as_bytes().first() {
        Some(b'-' | b'0'..=b'9') => {
            // Whatever else is behind the number is no JSON.
            let number: &RawValue = serde_json::from_str(text)?;
            push_decimal(out, number.get()).map_err(serde_json::Error::custom)
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(text)?;
            out.push(ARRAY);
            items.into_iter().try_for_each(|item| nested(item).map(|key| push_escaped(out, &key)))
        }
        Some(b'{') => {
            let fields: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(text)?;
            if fields.len() == 1 {
                // A mark, perhaps: its one value is a string.
                let fields: Map<String, Value> = match fields.iter().next() {
                    Some((name, value)) if value.get().starts_with('"') => {
                        [(name.to_string(), serde_json::from_str(value.get())?)].into_iter().collect()
                    }
                    _ => Map::new(),
                };
                if marked(&fields).is_some() {
                    push_object(out, &fields);
                    return Ok(());
                }
            }
            out.push(OBJECT);
            fields.into_iter().try_for_each(|(name, value)| {
                push_escaped(out, name.as_bytes());
                nested(value).map(|key| push_escaped(out, &key))
            })
        }
        _ => {
            push_key(out, Some(&serde_json::from_str(text)?));
            Ok(())
        }
    }
}

fn push_decimal(out: &mut Vec<u8>, text: &str) -> Result<(), crate::number::NumberError> {
    let number = Decimal::parse(text)?;
    let float = number.float()?;
    let integer = (float.abs() >= EXACT).then(|| number.truncated());
    push_float(out, float, integer);
    Ok(())
}

fn push_key(out: &mut Vec<u8>, value: Option<&Value>) {
    match value {
        None => out.push(MISSING),
        Some(Value::Null) => out.push(NULL),
        Some(Value::Bool(value)) => out.extend([BOOL, u8::from(*value)]),
        Some(Value::Number(number)) => push_number(out, number),
        Some(Value::String(text)) => {
            out.push(STRING);
            out.extend(text.as_bytes());
        }
        Some(Value::Array(items)) => {
            out.push(ARRAY);
            for item in items {
                push_escaped(out, &key(Some(item)));
            }
        }
        Some(Value::Object(fields)) => push_object(out, fields),
    }
}

fn push_object(out: &mut Vec<u8>, fields: &Map<String, Value>) {
    match marked(fields) {
        Some(Marked::Bytes(bytes)) => {
            out.push(BYTES);
            out.extend(bytes);
        }
        Some(Marked::Float(float)) => push_float(out, float, None),
        None => {
            out.push(OBJECT);
            // By their bytes, whatever order the map keeps.
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by(|a, b| a.0.cmp(b.0));
            for (name, value) in fields {
                push_escaped(out, name.as_bytes());
                push_escaped(out, &key(Some(value)));
            }
        }
    }
}

/// What JSON cannot hold, in Convex' marks (convex-protocol 1.11).
enum Marked {
    Bytes(Vec<u8>),
    Float(f64),
}

fn marked(fields: &Map<String, Value>) -> Option<Marked> {
    let (name, value) = fields.iter().next().filter(|_| fields.len() == 1)?;
    let bytes = STANDARD.decode(value.as_str()?);
    match (name.as_str(), bytes) {
        ("$bytes", Ok(bytes)) => Some(Marked::Bytes(bytes)),
        ("$float", Ok(bytes)) => {
            let float = f64::from_le_bytes(bytes.try_into().ok()?);
            // Any other float is written as a number.
            (!float.is_finite() || (float == 0.0 && float.is_sign_negative())).then_some(Marked::Float(float))
        }
        _ => None,
    }
}

fn push_number(out: &mut Vec<u8>, number: &Number) {
    // A zero below zero is zero to Postgres; only the mark `$float` keeps it.
    let float = number.as_f64().filter(|float| *float != 0.0).unwrap_or_default();
    // As a function wrote it: the shortest text of a float, which is not its exact value, is what Postgres was given.
    let integer = (float.abs() >= EXACT).then(|| number.as_i64().unwrap_or_else(|| shortest(number)));
    push_float(out, float, integer);
}

fn shortest(number: &Number) -> i64 {
    let text = number.to_string();
    Decimal::parse(&text).map_or(0, |number| number.truncated())
}

/// Beyond 2^53 the integer, or the end of `i64` where it is larger, tells numbers apart that have the same float.
fn push_float(out: &mut Vec<u8>, float: f64, integer: Option<i64>) {
    out.push(NUMBER);
    out.extend(ordered_float(float));
    if float.abs() < EXACT {
        return;
    }
    let integer = match integer {
        Some(integer) => integer.cast_unsigned() ^ SIGN,
        None if float < 0.0 || (float.is_nan() && float.is_sign_negative()) => 0,
        None => u64::MAX,
    };
    out.extend(integer.to_be_bytes());
}

/// Eight bytes whose order is that of a column of floats: to Postgres both zeros are one, and every not-a-number is one
/// that comes last.
pub fn ordered_time(time: f64) -> [u8; 8] {
    ordered_float(if time.is_nan() {
        f64::NAN.abs()
    } else if time == 0.0 {
        0.0
    } else {
        time
    })
}

/// Eight bytes whose order is that of floats (IEEE 754 `totalOrder`).
fn ordered_float(float: f64) -> [u8; 8] {
    let bits = float.to_bits();
    let ordered = if bits & SIGN == 0 { bits | SIGN } else { !bits };
    ordered.to_be_bytes()
}

fn float_of(ordered: [u8; 8]) -> f64 {
    let ordered = u64::from_be_bytes(ordered);
    f64::from_bits(if ordered & SIGN == 0 { !ordered } else { ordered & !SIGN })
}

/// Appends bytes so that what follows does not disturb the order: a zero inside becomes `00 FF`, a lone zero ends them.
fn push_escaped(out: &mut Vec<u8>, bytes: &[u8]) {
    for byte in bytes {
        out.push(*byte);
        if *byte == 0 {
            out.push(0xFF);
        }
    }
    out.push(0);
}

/// Where a document lies in an index: bytes whose order is the index's.
///
/// The keys of the fields, escaped, with all bits turned where the field descends; the creation time; the id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(pub Vec<u8>);

/// The parts of a [`Position`].
#[derive(Debug, Clone, PartialEq)]
pub struct PositionParts {
    pub keys: Vec<Vec<u8>>,
    pub creation_time: f64,
    pub id: Uuid,
}

impl Position {
    /// The position of a document as a function holds it; `data` holds its fields, system fields aside. For a stored one,
    /// whose numbers have any digits, there is [`Position::of_texts`].
    pub fn of(index: &Index, data: &Map<String, Value>, creation_time: f64, id: Uuid) -> Self {
        let mut position = Self::default();
        for field in &index.fields {
            position.push(&key(data.get(&field.name)), field.order);
        }
        position.end(creation_time, id)
    }

    /// The position of a document of which `text` gives a field's JSON text, or none where it is missing.
    ///
    /// # Errors
    /// Where a field of the index cannot be read as a value: it nests too deep, or is a number too large for a float.
    pub fn of_texts<'a>(
        index: &Index,
        mut text: impl FnMut(&str) -> Option<&'a str>,
        creation_time: f64,
        id: Uuid,
    ) -> Result<Self, serde_json::Error> {
        let mut position = Self::default();
        for field in &index.fields {
            let key = text(&field.name).map_or_else(|| Ok(vec![MISSING]), key_of_text)?;
            position.push(&key, field.order);
        }
        Ok(position.end(creation_time, id))
    }

    fn end(mut self, creation_time: f64, id: Uuid) -> Self {
        self.push_creation_time(creation_time);
        self.0.extend(id.as_bytes());
        self
    }

    /// Appends the key of one more field.
    pub fn push(&mut self, key: &[u8], order: Order) {
        let from = self.0.len();
        push_escaped(&mut self.0, key);
        if order == Order::Desc {
            self.0[from..].iter_mut().for_each(|byte| *byte = !*byte);
        }
    }

    pub fn push_creation_time(&mut self, creation_time: f64) {
        self.0.extend(ordered_time(creation_time));
    }

    /// The first position after all that begin with this one; none where this is the last.
    pub fn after_prefix(mut self) -> Option<Self> {
        while let Some(last) = self.0.pop() {
            if last < 0xFF {
                self.0.push(last + 1);
                return Some(self);
            }
        }
        None
    }

    /// Takes a whole position apart; none where it is not one of this index.
    pub fn parts(&self, index: &Index) -> Option<PositionParts> {
        let mut rest = self.0.as_slice();
        let mut keys = Vec::with_capacity(index.fields.len());
        for field in &index.fields {
            keys.push(take_escaped(&mut rest, field.order)?);
        }
        let (creation_time, id) = rest.split_at_checked(8)?;
        Some(PositionParts {
            keys,
            creation_time: float_of(creation_time.try_into().ok()?),
            id: Uuid::from_bytes(id.try_into().ok()?),
        })
    }
}

fn take_escaped(rest: &mut &[u8], order: Order) -> Option<Vec<u8>> {
    let turn = if order == Order::Desc { 0xFF } else { 0 };
    let mut key = Vec::new();
    let mut bytes = rest.iter().map(|byte| byte ^ turn);
    let mut used = 0;
    loop {
        let byte = bytes.next()?;
        used += 1;
        if byte == 0 {
            if bytes.clone().next() != Some(0xFF) {
                break;
            }
            bytes.next();
            used += 1;
        }
        key.push(byte);
    }
    *rest = &rest[used..];
    Some(key)
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::schema::IndexField;

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            (-3i64..4).prop_map(Value::from),
            "[a\\\\\u{1}é]{0,3}".prop_map(Value::from),
            proptest::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 0..3)
                .prop_map(|bytes| json!({ "$bytes": STANDARD.encode(bytes) })),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                proptest::collection::btree_map("[ab]{1,2}", inner, 0..3)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    /// The order as the table above says it, without keys.
    fn compare(a: &Value, b: &Value) -> Ordering {
        fn rank(value: &Value) -> u8 {
            match value {
                Value::Null => 2,
                Value::Number(_) => 3,
                Value::Bool(_) => 4,
                Value::String(_) => 5,
                Value::Object(fields) if fields.contains_key("$bytes") => 6,
                Value::Array(_) => 7,
                Value::Object(_) => 8,
            }
        }
        fn bytes(value: &Value) -> Vec<u8> {
            STANDARD.decode(value["$bytes"].as_str().expect("base64")).expect("base64")
        }
        match (a, b) {
            _ if rank(a) != rank(b) => rank(a).cmp(&rank(b)),
            (Value::Number(a), Value::Number(b)) => {
                if let (Some(a), Some(b)) = (a.as_i64(), b.as_i64()) {
                    return a.cmp(&b);
                }
                a.as_f64().partial_cmp(&b.as_f64()).expect("JSON has no NaN")
            }
            (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
            (Value::String(a), Value::String(b)) => a.cmp(b),
            (Value::Array(a), Value::Array(b)) => {
                let first = a.iter().zip(b).map(|(a, b)| compare(a, b)).find(|order| order.is_ne());
                first.unwrap_or(a.len().cmp(&b.len()))
            }
            (Value::Object(_), Value::Object(_)) if rank(a) == 6 => bytes(a).cmp(&bytes(b)),
            (Value::Object(a), Value::Object(b)) => {
                let pairs = a.iter().zip(b).map(|(a, b)| a.0.cmp(b.0).then_with(|| compare(a.1, b.1)));
                pairs.into_iter().find(|order| order.is_ne()).unwrap_or(a.len().cmp(&b.len()))
            }
            _ => Ordering::Equal,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn keys_order_as_values_do(a in value(), b in value()) {
            // Beyond 2^53 a float beside an integer is compared by the float first: the oracle above knows only one of them.
            prop_assume!(!(mixed(&a) || mixed(&b)));
            prop_assert_eq!(key(Some(&a)).cmp(&key(Some(&b))), compare(&a, &b));
        }

        #[test]
        fn integers_order_as_integers(a: i64, b: i64) {
            prop_assert_eq!(key(Some(&json!(a))).cmp(&key(Some(&json!(b)))), a.cmp(&b));
            prop_assert_eq!(key(Some(&json!(a))).cmp(&key(Some(&json!(a.saturating_add(1))))), a.cmp(&a.saturating_add(1)));
        }

        #[test]
        fn positions_order_as_their_parts_and_come_apart(
            a in (value(), value(), any::<i32>(), any::<u128>()),
            b in (value(), value(), any::<i32>(), any::<u128>()),
        ) {
            let index = Index {
                name: "i".to_owned(),
                fields: vec![
                    IndexField::ascending("a"),
                    IndexField { name: "b".to_owned(), order: Order::Desc },
                ],
                unique: false,
            };
            let position = |row: &(Value, Value, i32, u128)| {
                let data = json!({ "a": row.0, "b": row.1 });
                Position::of(&index, data.as_object().expect("an object"), f64::from(row.2), Uuid::from_u128(row.3))
            };
            let keys = |row: &(Value, Value, i32, u128)| (key(Some(&row.0)), key(Some(&row.1)));
            let ((a1, a2), (b1, b2)) = (keys(&a), keys(&b));
            let expected = a1.cmp(&b1).then(b2.cmp(&a2)).then(a.2.cmp(&b.2)).then(a.3.cmp(&b.3));
            prop_assert_eq!(position(&a).cmp(&position(&b)), expected);
            let texts = [("a", a.0.to_string()), ("b", a.1.to_string())];
            let text = |wanted: &str| texts.iter().find(|(name, _)| *name == wanted).map(|(_, text)| text.as_str());
            let of_texts = Position::of_texts(&index, text, f64::from(a.2), Uuid::from_u128(a.3));
            prop_assert_eq!(of_texts.expect("values"), position(&a));
            let parts = position(&a).parts(&index).expect("whole");
            prop_assert_eq!(parts, PositionParts { keys: vec![a1, a2], creation_time: f64::from(a.2), id: Uuid::from_u128(a.3) });
        }
    }

    /// Whether a number in it is a float beyond 2^53.
    fn mixed(value: &Value) -> bool {
        match value {
            Value::Number(number) => number.is_f64() && number.as_f64().is_some_and(|float| float.abs() >= EXACT),
            Value::Array(items) => items.iter().any(mixed),
            Value::Object(fields) => fields.values().any(mixed),
            _ => false,
        }
    }

    #[test]
    fn stored_numbers_keep_their_digits() {
        let of = |text: &str| key_of_text(text).expect("a key");
        let ordered = [
            "-9007199254740993.5",
            "-9007199254740992",
            "-0.0",
            "9007199254740991.4",
            "9007199254740992",
            "9007199254740993",
            "9007199254740994",
            "9223372036854775806.9",
            "9223372036854775807",
            "1e19",
        ];
        let keys: Vec<Vec<u8>> = ordered.iter().map(|text| of(text)).collect();
        assert!(keys.is_sorted_by(|a, b| a < b), "{keys:?}");
        for (one, other) in [
            ("9007199254740993.5e0", "9007199254740993.5"),
            ("1.6820246824230323e17", "168202468242303230"),
            ("[ 1, {\"\\u0061\": 1e0} ]", "[1,{\"a\":1}]"),
        ] {
            assert_eq!(of(one), of(other), "{one}");
        }
        let deep = "[".repeat(5_000) + &"]".repeat(5_000);
        for text in ["1e400", "1e-400", "1 2", "[1", "", deep.as_str()] {
            assert!(key_of_text(text).is_err(), "{text}");
        }
    }

    #[test]
    fn creation_times_order_as_a_column_of_floats() {
        let at = |time: f64| ordered_time(time);
        assert_eq!(at(-0.0), at(0.0));
        assert_eq!(at(f64::NAN), at(-f64::NAN));
        assert!(at(f64::NEG_INFINITY) < at(-1.0) && at(f64::INFINITY) < at(f64::NAN));
    }

    #[test]
    fn the_order_has_the_documented_landmarks() {
        let float = |float: f64| json!({ "$float": STANDARD.encode(float.to_le_bytes()) });
        let ordered = [
            None,
            Some(Value::Null),
            Some(float(f64::NEG_INFINITY)),
            Some(json!(-1e300)),
            Some(json!(i64::MIN)),
            Some(json!(-9_007_199_254_740_993_i64)),
            Some(json!(-2)),
            Some(float(-0.0)),
            Some(json!(0)),
            Some(json!(2)),
            Some(json!(10)),
            Some(json!(100.5)),
            Some(json!(9_007_199_254_740_992_i64)),
            Some(json!(9_007_199_254_740_993_i64)),
            Some(json!(i64::MAX)),
            Some(json!(9.3e18)),
            Some(float(f64::INFINITY)),
            Some(float(f64::NAN)),
            Some(json!(false)),
            Some(json!(true)),
            Some(json!("")),
            Some(json!("Z")),
            Some(json!("a")),
            Some(json!({ "$bytes": "" })),
            Some(json!([])),
            Some(json!([null])),
            Some(json!({})),
            Some(json!({ "a": 1 })),
        ];
        let keys: Vec<Vec<u8>> = ordered.iter().map(|value| key(value.as_ref())).collect();
        assert!(keys.is_sorted_by(|a, b| a < b), "{keys:?}");
        assert_eq!(key(Some(&json!(1.0))), key(Some(&json!(1))));
    }
}
