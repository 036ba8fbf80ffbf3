//! What stands in the way of a plan: the place, a sample, the cause, the fix.

use std::fmt;

use serde::Serialize;

/// One reason why a plan cannot be applied. Found before anything is changed, wherever that is possible.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Stable, for programs.
    pub id: &'static str,
    pub table: Option<String>,
    pub field: Option<String>,
    /// Why, in words.
    pub cause: String,
    /// Documents that show it, by the ids that clients see, and what is in them.
    pub samples: Vec<String>,
    pub fix: String,
}

impl Problem {
    pub(crate) fn new(id: &'static str, cause: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { id, table: None, field: None, cause: cause.into(), samples: Vec::new(), fix: fix.into() }
    }

    pub(crate) fn table(mut self, table: &str) -> Self {
        self.table = Some(table.to_owned());
        self
    }

    pub(crate) fn field(mut self, field: &str) -> Self {
        self.field = Some(field.to_owned());
        self
    }

    pub(crate) fn samples(mut self, samples: impl IntoIterator<Item = String>) -> Self {
        self.samples.extend(samples);
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.table, &self.field) {
            (Some(table), Some(field)) => write!(formatter, "table `{table}`, field `{field}`: ")?,
            (Some(table), None) => write!(formatter, "table `{table}`: ")?,
            _ => {}
        }
        formatter.write_str(&self.cause)?;
        for sample in &self.samples {
            write!(formatter, "\n  for example: {sample}")?;
        }
        write!(formatter, "\n  fix: {}", self.fix)
    }
}

/// A value as a message shows it: short.
pub(crate) fn shown(value: &str) -> String {
    const SHOWN_MAX: usize = 60;
    if value.chars().count() <= SHOWN_MAX {
        return value.to_owned();
    }
    let start: String = value.chars().take(SHOWN_MAX).collect();
    format!("{start}…")
}
