//! Changes of a document by what is there, without reading it.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::error::{Error, Result};
use crate::plan::{FieldName, Operand};

/// What [`Writer::update`](crate::Writer::update) does with the fields of a document, one operation a field.
///
/// Such changes commute: whichever of two mutations comes first, the result is the same, so that they need not
/// conflict.
///
/// ```no_run
/// # use convoke::{prelude::*, Change};
/// # #[table("posts")]
/// # struct Post { votes: i64, tags: Vec<String> }
/// # fn example(ctx: &MutationCtx, id: Id<Post>) -> Result<()> {
/// ctx.db().update(&id, Change::new().inc("votes", 1).append("tags", ["rust"]))?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a change does nothing until it is given to `update`"]
pub struct Change {
    operations: Vec<(FieldName, Operation)>,
}

#[derive(Clone, Debug)]
struct Operation {
    name: &'static str,
    operand: Operand,
}

impl Change {
    /// No change yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the amount to a number; a missing field counts as 0.
    #[expect(clippy::needless_pass_by_value, reason = "as the other values of a builder; all amounts are `Copy`")]
    pub fn inc(self, field: impl Into<FieldName>, amount: impl Amount) -> Self {
        self.operation(field.into(), "inc", &amount)
    }

    /// Adds the values to the end of an array; a missing field counts as an empty one.
    pub fn append<V: Serialize>(self, field: impl Into<FieldName>, values: impl IntoIterator<Item = V>) -> Self {
        let values: Vec<V> = values.into_iter().collect();
        self.operation(field.into(), "append", &values)
    }

    /// Sets the field to the value where that is higher; a missing field is set.
    pub fn max(self, field: impl Into<FieldName>, value: impl Serialize) -> Self {
        self.operation(field.into(), "max", &value)
    }

    /// Sets the field to the value where that is lower; a missing field is set.
    pub fn min(self, field: impl Into<FieldName>, value: impl Serialize) -> Self {
        self.operation(field.into(), "min", &value)
    }

    fn operation(mut self, field: FieldName, name: &'static str, operand: &impl Serialize) -> Self {
        self.operations.push((field, Operation { name, operand: Operand::of(operand) }));
        self
    }

    /// The operations as they cross to the host.
    pub(crate) fn into_json(self) -> Result<String> {
        for (position, (field, _)) in self.operations.iter().enumerate() {
            if self.operations[..position].iter().any(|(earlier, _)| earlier == field) {
                return Err(Error::new("INVALID_ARGS", format!("a change has one operation on `{field}`, not two")));
            }
        }
        Ok(serde_json::to_string(&self)?)
    }
}

impl Serialize for Change {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.operations.iter().map(|(field, operation)| (field, operation)))
    }
}

impl Serialize for Operation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut operation = serializer.serialize_map(Some(1))?;
        operation.serialize_entry(self.name, &self.operand)?;
        operation.end()
    }
}

/// A number that can be added: those of Rust up to 64 bits.
pub trait Amount: Serialize + sealed::Sealed {}

mod sealed {
    /// Nothing but a number can be added to one.
    pub trait Sealed {}
}

macro_rules! amounts {
    ($($number:ty),*) => {
        $(
            impl sealed::Sealed for $number {}
            impl Amount for $number {}
        )*
    };
}

amounts!(i8, i16, i32, i64, u8, u16, u32, u64, f32, f64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operation_has_its_form() {
        let change = Change::new().inc("votes", 1).append("tags", ["a", "b"]).max("best", 7.5).min("low", i64::MIN);
        assert_eq!(
            change.into_json().unwrap(),
            r#"{"votes":{"inc":1},"tags":{"append":["a","b"]},"best":{"max":7.5},"low":{"min":-9223372036854775808}}"#
        );
        assert_eq!(Change::new().into_json().unwrap(), "{}");
    }

    #[test]
    fn a_field_changes_once() {
        let error = Change::new().inc("votes", 1).max("votes", 7).into_json().unwrap_err();
        assert_eq!(error.code(), "INVALID_ARGS");
        assert!(error.message().contains("`votes`"), "{error}");
    }
}
