//! A plan as data: what `--dry-run` prints and `apply` does.

use serde::Serialize;

use crate::drift::Drift;
use crate::problem::Problem;

/// What a step costs, and whether it may be done without asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Something new beside what is there.
    Additive,
    /// Existing rows are looked at, and must fit.
    Validating,
    /// Existing rows are written anew.
    Rewriting,
    /// Something is gone afterwards.
    Destructive,
    /// Something is in the database and no longer in the schema: kept.
    Orphaning,
}

/// What deserves a look before a step is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Hazard {
    /// An index is built over the rows that are there.
    IndexBuild,
    /// Rows are read, and one that does not fit fails the step.
    ValidatesRows,
    /// Documents or fields are gone afterwards.
    DeletesData,
    /// An index is built anew under the name of another.
    ReplacesIndex,
    /// Readers and writers of the table wait for the moment that the step takes.
    ExclusiveLock,
    /// A guarantee that other code may count on ends.
    RelaxesCheck,
    /// Every row that has the field is written.
    RewritesRows,
}

/// How a step is run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "how")]
pub enum Work {
    /// One statement, which happens or does not.
    Statement,
    /// One statement outside of transactions. What an index build leaves when it fails is removed.
    Concurrently {
        #[serde(skip_serializing_if = "Option::is_none")]
        index: Option<String>,
    },
    /// The statement for one page of rows after the other.
    Batches,
}

/// One statement of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    pub sql: String,
    pub class: Class,
    /// The strongest lock that it takes on the table, by Postgres' name.
    pub lock: &'static str,
    /// Rows that it reads or writes, as Postgres estimates them; none where it looks at no rows or nothing is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<i64>,
    pub hazards: Vec<Hazard>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// What it is about: `index by_channel`.
    pub object: String,
    #[serde(flatten)]
    pub work: Work,
}

/// What is in the database and no longer in the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OrphanKind {
    Table,
    Index,
    Field,
}

/// Something that the schema no longer declares. It stays until `--allow-drop` names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Orphan {
    pub kind: OrphanKind,
    pub table: String,
    /// The index or the field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Whether this plan drops it.
    pub dropped: bool,
}

/// What a sync would do, bound to the state of the database that it was computed from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    pub project: String,
    /// The fingerprint of the database's shape.
    pub base: String,
    /// The digest of the schema.
    pub target: String,
    /// The digest of all that the plan would do.
    pub hash: String,
    pub steps: Vec<Step>,
    pub orphans: Vec<Orphan>,
    pub drift: Vec<Drift>,
    pub problems: Vec<Problem>,
    /// What is well to know, and stops nothing.
    pub notes: Vec<String>,
    /// The plan is the same again if it is made under the lock.
    #[serde(skip)]
    pub(crate) allow_drop: Vec<String>,
}

impl Hazard {
    /// The stable name.
    pub fn id(self) -> &'static str {
        match self {
            Self::IndexBuild => "INDEX_BUILD",
            Self::ValidatesRows => "VALIDATES_ROWS",
            Self::DeletesData => "DELETES_DATA",
            Self::ReplacesIndex => "REPLACES_INDEX",
            Self::ExclusiveLock => "EXCLUSIVE_LOCK",
            Self::RelaxesCheck => "RELAXES_CHECK",
            Self::RewritesRows => "REWRITES_ROWS",
        }
    }

    /// What it means.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::IndexBuild => "an index is built; reads and writes go on",
            Self::ValidatesRows => "every row is read, and must fit",
            Self::DeletesData => "data are gone afterwards",
            Self::ReplacesIndex => "the old index serves until the new one is ready",
            Self::ExclusiveLock => "readers and writers wait for a moment",
            Self::RelaxesCheck => "Postgres no longer refuses what it refused",
            Self::RewritesRows => "rows are written anew, and the table grows until a vacuum",
        }
    }
}

impl Class {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Additive => "additive",
            Self::Validating => "validating",
            Self::Rewriting => "rewriting",
            Self::Destructive => "destructive",
            Self::Orphaning => "orphaning",
        }
    }
}

impl Orphan {
    /// What `--allow-drop` takes: `messages`, `messages.by_channel`.
    pub fn path(&self) -> String {
        match &self.name {
            None => self.table.clone(),
            Some(name) => format!("{}.{name}", self.table),
        }
    }
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.problems.is_empty()
    }

    /// Whether it may be applied without asking anybody: it adds, or checks what is there and has been looked at.
    pub fn is_additive(&self) -> bool {
        self.problems.is_empty() && self.steps.iter().all(|step| step.class <= Class::Validating)
    }

    pub(crate) fn first_decision(&self) -> String {
        let step = self.steps.iter().find(|step| step.class > Class::Validating);
        step.map_or_else(String::new, |step| format!("`{}` is {}", step.sql, step.class.as_str()))
    }
}
