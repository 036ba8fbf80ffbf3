//! What a call looked at, exactly enough to say whether a write changes its result.

use std::sync::Arc;

use uuid::Uuid;

use crate::key::{Position, key};
use crate::plan::{Condition, Operator, Order, Plan};
use crate::projection::SeenRows;
use crate::schema::Index;

/// Ranges that one read may be made of before it is widened to what they have in common.
const RANGES_MAX: usize = 256;

/// What a call looked at. A transaction that the call's snapshot does not contain changes the result only if it wrote
/// into this.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ReadSet {
    pub reads: Vec<Read>,
}

/// One read.
#[derive(Debug, Clone, PartialEq)]
pub enum Read {
    /// A document by its id, whether it was there or not.
    Document { table: u32, id: Uuid },
    /// A part of an index. A row enters by its new position, and leaves by its id, where that was handed out.
    Range { table: u32, index: Arc<Index>, ranges: Vec<Range>, ids: Ids },
    /// A whole relation, as SQL reads it.
    Relation { schema: String, name: String },
    /// Anything: what SQL read could not be told.
    Everything,
}

/// The rows of a range that the call was given.
#[derive(Debug, Clone, PartialEq)]
pub enum Ids {
    Known(Vec<Uuid>),
    /// Rows that were given in part: a write that left alone what was looked at does not matter. Boxed, so that other
    /// reads are no larger for it.
    Seen(Box<SeenRows>),
    /// Rows counted in that were not given (aggregates, rows behind an offset): a write to any row may matter.
    Unknown,
}

/// Positions of an index from `lower` up to, not including, `upper`; without an upper one to the end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Range {
    pub lower: Position,
    pub upper: Option<Position>,
}

impl Range {
    /// Everything that begins with these bytes.
    fn of_prefix(prefix: Position) -> Self {
        Self { upper: prefix.clone().after_prefix(), lower: prefix }
    }

    pub fn contains(&self, position: &Position) -> bool {
        *position >= self.lower && self.upper.as_ref().is_none_or(|upper| position < upper)
    }

    /// Leaves out what lies before `position` in the direction of reading, and it too.
    pub fn start_after(&mut self, position: &Position, order: Order) {
        match order {
            Order::Asc => self.raise(position.clone().after_prefix()),
            Order::Desc => self.lower_upper(position.clone()),
        }
    }

    /// Leaves out what lies behind `position` in the direction of reading.
    pub fn end_at(&mut self, position: &Position, order: Order) {
        match order {
            Order::Asc => {
                if let Some(after) = position.clone().after_prefix() {
                    self.lower_upper(after);
                }
            }
            Order::Desc => self.raise(Some(position.clone())),
        }
    }

    fn raise(&mut self, lower: Option<Position>) {
        if let Some(lower) = lower
            && lower > self.lower
        {
            self.lower = lower;
        }
    }

    fn lower_upper(&mut self, upper: Position) {
        if self.upper.as_ref().is_none_or(|old| upper < *old) {
            self.upper = Some(upper);
        }
    }
}

impl Plan {
    /// The ranges of the index that the conditions select; more than one where a condition is `in`.
    pub fn ranges(&self, index: &Index) -> Vec<Range> {
        let mut prefixes = vec![Position::default()];
        let mut conditions = self.conditions.iter().peekable();
        let mut field = 0;
        while let Some(condition) = conditions.next_if(|next| matches!(next.op, Operator::Eq | Operator::In)) {
            let values = match (&condition.op, &condition.value) {
                (Operator::In, serde_json::Value::Array(values)) => values.as_slice(),
                (_, value) => std::slice::from_ref(value),
            };
            if prefixes.len() * values.len() > RANGES_MAX {
                return prefixes.into_iter().map(Range::of_prefix).collect();
            }
            prefixes = prefixes
                .iter()
                .flat_map(|prefix| values.iter().map(move |value| pushed(prefix, index, field, value)))
                .collect();
            field += 1;
        }
        let bounds: Vec<&Condition> = conditions.collect();
        let mut ranges: Vec<Range> = Vec::with_capacity(prefixes.len());
        for prefix in prefixes {
            let mut range = Range::of_prefix(prefix.clone());
            for bound in &bounds {
                narrow(&mut range, pushed(&prefix, index, field, &bound.value), bound.op, order_of(index, field));
            }
            ranges.push(range);
        }
        ranges.sort_unstable_by(|a, b| a.lower.cmp(&b.lower));
        ranges.dedup();
        ranges
    }
}

/// The bytes of a condition's value as `convoke.key` makes them.
pub fn condition_key(value: &serde_json::Value) -> Vec<u8> {
    key(Some(value).filter(|value| !crate::plan::is_undefined(value)))
}

fn order_of(index: &Index, field: usize) -> Order {
    index.fields.get(field).map_or(Order::Asc, |field| field.order)
}

fn pushed(prefix: &Position, index: &Index, field: usize, value: &serde_json::Value) -> Position {
    let mut position = prefix.clone();
    match index.fields.get(field) {
        Some(field) => position.push(&condition_key(value), field.order),
        None => position.push_creation_time(value.as_f64().unwrap_or_default()),
    }
    position
}

fn narrow(range: &mut Range, at: Position, op: Operator, order: Order) {
    // A descending field turns the sense of the comparison in the index.
    let op = match (op, order) {
        (Operator::Lt, Order::Desc) => Operator::Gt,
        (Operator::Lte, Order::Desc) => Operator::Gte,
        (Operator::Gt, Order::Desc) => Operator::Lt,
        (Operator::Gte, Order::Desc) => Operator::Lte,
        (op, _) => op,
    };
    match op {
        Operator::Gt => range.raise(at.after_prefix()),
        Operator::Gte => range.raise(Some(at)),
        Operator::Lt => range.lower_upper(at),
        Operator::Lte => {
            if let Some(after) = at.after_prefix() {
                range.lower_upper(after);
            }
        }
        Operator::Eq | Operator::Ne | Operator::In => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::schema::IndexField;

    fn index() -> Index {
        Index {
            name: "i".to_owned(),
            fields: vec![IndexField::ascending("a"), IndexField { name: "b".to_owned(), order: Order::Desc }],
            unique: false,
        }
    }

    fn holds(condition: &Condition, data: &Value, creation_time: f64) -> bool {
        let of_time = condition.field == crate::plan::CREATION_TIME;
        let time = |value: f64| crate::key::ordered_time(value).to_vec();
        let found = if of_time { time(creation_time) } else { key(data.get(&condition.field)) };
        let wanted =
            |value: &Value| if of_time { time(value.as_f64().unwrap_or_default()) } else { condition_key(value) };
        match condition.op {
            Operator::In => condition.value.as_array().into_iter().flatten().any(|value| wanted(value) == found),
            Operator::Eq => found == wanted(&condition.value),
            Operator::Ne => found != wanted(&condition.value),
            Operator::Lt => found < wanted(&condition.value),
            Operator::Lte => found <= wanted(&condition.value),
            Operator::Gt => found > wanted(&condition.value),
            Operator::Gte => found >= wanted(&condition.value),
        }
    }

    fn small() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(json!({ "$undefined": null })),
            Just(Value::Null),
            (0i64..3).prop_map(Value::from),
            "[ab]?".prop_map(Value::from)
        ]
    }

    fn bound(field: &'static str, values: BoxedStrategy<Value>) -> BoxedStrategy<Vec<Condition>> {
        let op = prop_oneof![Just(Operator::Lt), Just(Operator::Lte), Just(Operator::Gt), Just(Operator::Gte)];
        proptest::collection::vec(
            (op, values).prop_map(move |(op, value)| Condition { field: field.to_owned(), op, value }),
            0..3,
        )
        .boxed()
    }

    fn conditions() -> impl Strategy<Value = Vec<Condition>> {
        let fixed = |field: &'static str| {
            prop_oneof![
                small().prop_map(move |value| Condition { field: field.to_owned(), op: Operator::Eq, value }),
                proptest::collection::vec(small(), 0..3).prop_map(move |value| Condition {
                    field: field.to_owned(),
                    op: Operator::In,
                    value: value.into()
                }),
            ]
        };
        prop_oneof![
            bound("a", small().boxed()),
            (fixed("a"), bound("b", small().boxed())).prop_map(|(first, rest)| [vec![first], rest].concat()),
            (fixed("a"), fixed("b"), bound("_creationTime", (0i64..3).prop_map(Value::from).boxed()))
                .prop_map(|(a, b, rest)| [vec![a, b], rest].concat()),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn ranges_hold_what_conditions_select(
            conditions in conditions(), a in small(), b in small(), creation_time in 0i32..3, id: u128,
        ) {
            let plan = Plan { conditions, ..Plan::parse(r#"{"table":"t","index":"i"}"#).expect("a plan") };
            let mut data = serde_json::Map::new();
            for (name, value) in [("a", a), ("b", b)] {
                if !crate::plan::is_undefined(&value) {
                    data.insert(name.to_owned(), value);
                }
            }
            let creation_time = f64::from(creation_time);
            let position = Position::of(&index(), &data, creation_time, Uuid::from_u128(id));
            let inside = plan.ranges(&index()).iter().any(|range| range.contains(&position));
            let data = Value::Object(data);
            prop_assert_eq!(inside, plan.conditions.iter().all(|condition| holds(condition, &data, creation_time)));
        }
    }
}
