//! A component of queries alone: it must not import `database-write`.

use convoke::prelude::*;

/// A table that some other component fills.
#[table("marks", index(by_name = [name]))]
struct Mark {
    name: String,
}

/// The oldest mark of a name.
#[query]
fn first(ctx: &QueryCtx, name: String) -> Result<Option<Doc<Mark>>> {
    ctx.db().query::<Mark>().index("by_name").eq("name", &name).first()
}
