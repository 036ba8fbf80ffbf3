//! Of which relations the log tells.

use std::collections::HashSet;

use convoke_model::{Observed, Read};
use parking_lot::RwLock;

/// The tables that the project's publication lists, by schema and name.
#[derive(Debug, Default)]
pub(crate) struct Published(RwLock<HashSet<(String, String)>>);

impl Published {
    pub(crate) fn new(tables: HashSet<(String, String)>) -> Self {
        Self(RwLock::new(tables))
    }

    pub(crate) fn set(&self, tables: HashSet<(String, String)>) {
        *self.0.write() = tables;
    }

    /// Whether a write into anything that was read is told: of a view, a partitioned table or a foreign one none is.
    pub(crate) fn tell_of(&self, observed: &Observed) -> bool {
        let mut tables = None;
        observed.reads.reads.iter().all(|read| match read {
            Read::Relation { schema, name } => {
                let tables = tables.get_or_insert_with(|| self.0.read());
                tables.contains(&(schema.clone(), name.clone()))
            }
            Read::Document { .. } | Read::Range { .. } | Read::Everything => true,
        })
    }
}
