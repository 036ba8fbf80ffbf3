//! What is called, and with what.

use convoke_model::Kind;

/// A call of a function.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// What the caller takes the function for.
    pub kind: Kind,
    /// The function's path, canonical or not.
    pub path: &'a str,
    /// The named arguments: JSON text of an object.
    pub args: &'a str,
    pub encoding: Encoding,
}

/// The form of the arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    #[default]
    Clean,
    /// With Convex' marks for integers, bytes and special floats.
    Convex,
}
