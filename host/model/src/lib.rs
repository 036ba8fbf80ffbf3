//! Values, ids, plans, manifests, limits and errors: what every other crate speaks in.
//!
//! Invariant: nothing here does I/O or reads a clock, and nothing here knows Postgres, wasmtime or HTTP.

mod arguments;
mod change;
mod cursor;
mod database;
mod document;
mod document_text;
mod failure;
mod id;
mod json_schema;
mod key;
mod limits;
mod manifest;
mod number;
mod path;
mod plan;
mod projection;
mod read_set;
mod references;
mod schema;
mod value;

pub use arguments::{ArgumentsError, ArgumentsValidator};
pub use cursor::{Cursor, CursorError, CursorKey};
pub use database::{Database, DatabaseError, Observed, Pending, Upcast};
pub use document::{DocumentError, DocumentForm, Tables};
pub use document_text::stored_bytes;
pub use failure::{Code, Failure, Origin, Outcome, chain};
pub use id::{DocumentId, IdError};
pub use json_schema::SchemaError;
pub use key::{Position, PositionParts, key, key_of_text, ordered_time};
pub use limits::{LimitBound, LimitError, Limits};
pub use manifest::{FunctionManifest, Kind, Manifest, ManifestError, TableManifest, UnknownFields};
pub use path::{FunctionPath, PathError};
pub use plan::{
    Aggregate, AggregateOperator, CREATION_TIME, Condition, Filter, Operator, Order, Page, Plan, PlanError, has_nul,
    is_undefined,
};
pub use projection::{Fields, Projection, Seen, SeenRows};
pub use read_set::{Ids, Range, Read, ReadSet, condition_key};
pub use schema::{BY_CREATION_TIME, Index, IndexField, Schema, SchemaConflict, Table, TableKind};
pub use value::{decode_convex, encode_convex, whole_floats_to_integers};
