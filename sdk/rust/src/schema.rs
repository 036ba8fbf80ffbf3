//! JSON Schemas for the manifest. Nothing here runs in a call.

use schemars::generate::{Contract, SchemaSettings};
use schemars::{JsonSchema, Schema};

use crate::dispatch::Reply;

/// What callers may send. The generated struct has a name that means nothing to them.
pub fn schema_of_arguments<T: JsonSchema>() -> Schema {
    untitled(schema::<T>(Contract::Deserialize))
}

/// What callers get.
pub fn schema_of_result<T: Reply>() -> Schema {
    let schema = schema::<T>(Contract::Serialize);
    // The name of a type without a definition of its own says nothing: `Array_of_string`.
    if T::inline_schema() { untitled(schema) } else { schema }
}

/// What a stored document must have to be read.
pub(crate) fn schema_of_table<T: JsonSchema>() -> Schema {
    schema::<T>(Contract::Deserialize)
}

fn untitled(mut schema: Schema) -> Schema {
    schema.remove("title");
    schema
}

fn schema<T: JsonSchema>(contract: Contract) -> Schema {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.contract = contract;
        // The manifest says once and for all which draft it is.
        settings.meta_schema = None;
    });
    settings.into_generator().into_root_schema_for::<T>()
}
