//! A component that opens a file, and so imports `wasi:filesystem`.

use convoke::prelude::*;

/// The text of a file, or why there is none.
#[query]
fn read_file(_: &QueryCtx, path: String) -> Result<String> {
    std::fs::read_to_string(&path).map_err(|error| Error::new("NOT_READ", error))
}
