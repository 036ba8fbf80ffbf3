//! Numbers compared by what they are, however they are written: 1 and 1.0 are one number, and 2^53 + 1 is not 2^53.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::{Number, Value};

/// Beyond it a float is larger than every whole number that JSON text is read into.
const BEYOND_INTEGERS: f64 = 18_446_744_073_709_551_616.0;

pub(super) fn is_integer(number: &Number) -> bool {
    integer(number).is_some() || number.as_f64().is_some_and(|float| float.fract() == 0.0)
}

pub(super) fn compare(left: &Number, right: &Number) -> Ordering {
    match (integer(left), integer(right)) {
        (Some(left), Some(right)) => left.cmp(&right),
        (Some(left), None) => float(right).map_or(Ordering::Equal, |right| compare_mixed(left, right)),
        (None, Some(right)) => float(left).map_or(Ordering::Equal, |left| compare_mixed(right, left).reverse()),
        (None, None) => left.as_f64().partial_cmp(&right.as_f64()).unwrap_or(Ordering::Equal),
    }
}

/// Whether two values are the same to JSON Schema: numbers by what they are, objects whatever their order.
pub(super) fn are_equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => compare(left, right) == Ordering::Equal,
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| are_equal(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(name, value)| right.get(name).is_some_and(|other| are_equal(value, other)))
        }
        _ => left == right,
    }
}

/// A text that two values share exactly where [`are_equal`] holds.
pub(super) fn write_canonical(value: &Value, text: &mut String) {
    match value {
        Value::Number(number) => text.push_str(&canonical_number(number)),
        Value::Array(items) => {
            text.push('[');
            for item in items {
                write_canonical(item, text);
                text.push(',');
            }
            text.push(']');
        }
        Value::Object(fields) => {
            let fields: BTreeMap<&String, &Value> = fields.iter().collect();
            text.push('{');
            for (name, field) in fields {
                text.push_str(&Value::from(name.as_str()).to_string());
                text.push(':');
                write_canonical(field, text);
                text.push(',');
            }
            text.push('}');
        }
        Value::Null | Value::Bool(_) | Value::String(_) => text.push_str(&value.to_string()),
    }
}

fn canonical_number(number: &Number) -> String {
    let whole = float(number).filter(|float| float.fract() == 0.0 && float.abs() < BEYOND_INTEGERS);
    match integer(number).or(whole.map(|whole| whole as i128)) {
        Some(integer) => integer.to_string(),
        None => number.to_string(),
    }
}

fn integer(number: &Number) -> Option<i128> {
    number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from))
}

/// JSON has no number that is none.
fn float(number: &Number) -> Option<f64> {
    number.as_f64().filter(|float| float.is_finite())
}

fn compare_mixed(integer: i128, float: f64) -> Ordering {
    if float >= BEYOND_INTEGERS {
        return Ordering::Less;
    }
    if float <= -BEYOND_INTEGERS {
        return Ordering::Greater;
    }
    let whole = float.trunc();
    // Exact: it is a whole number of fewer bits than 128.
    integer.cmp(&(whole as i128)).then_with(|| whole.partial_cmp(&float).unwrap_or(Ordering::Equal))
}
