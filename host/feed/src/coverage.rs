//! What publications there are, and which tables they send.

use std::collections::{BTreeSet, HashMap, HashSet};

use convoke_sql::quote_literal;

use crate::change::Relation;
use crate::error::FeedError;
use crate::wire::Row;

/// A publication, and the schema of the project that it is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) publication: String,
    pub(crate) schema: String,
}

/// The tables of each publication, by schema and name.
#[derive(Debug, Default)]
pub(crate) struct Coverage(Option<HashMap<String, HashSet<(String, String)>>>);

impl Coverage {
    /// The query for [`Coverage::read`].
    pub(crate) fn query(publications: &BTreeSet<String>) -> String {
        let list = list(publications.iter());
        format!("select pubname, schemaname, tablename from pg_publication_tables where pubname in ({list})")
    }

    pub(crate) fn read(rows: &[Row]) -> Self {
        let mut tables: HashMap<String, HashSet<(String, String)>> = HashMap::new();
        for row in rows {
            let table = (row.text(1).to_owned(), row.text(2).to_owned());
            tables.entry(row.text(0).to_owned()).or_default().insert(table);
        }
        Self(Some(tables))
    }

    /// Whether a publication sends a table. Where that is not known, it may.
    pub(crate) fn contains(&self, publication: &str, relation: &Relation) -> bool {
        let Some(tables) = &self.0 else { return true };
        let table = (relation.schema.clone(), relation.name.clone());
        tables.get(publication).is_some_and(|tables| tables.contains(&table))
    }
}

/// Which of the publications that are wanted can be followed together, and why others cannot.
#[derive(Debug, Default)]
pub(crate) struct Usable {
    pub(crate) publications: BTreeSet<String>,
    pub(crate) refused: Vec<(String, FeedError)>,
}

impl Usable {
    /// The query for [`Usable::read`]: each publication that there is, and with it the schemas of tables of which
    /// another one of them sends other columns.
    pub(crate) fn query(wanted: &[Wanted]) -> String {
        let list = list(wanted.iter().map(|wanted| &wanted.publication));
        format!(
            "with t as (select * from pg_publication_tables where pubname in ({list})) \
             select p.pubname, t.schemaname, t.tablename from pg_publication p left join t on t.pubname = p.pubname \
             and exists (select from t o where (o.schemaname, o.tablename) = (t.schemaname, t.tablename) \
             and o.attnames <> t.attnames) where p.pubname in ({list})"
        )
    }

    /// Postgres would refuse every change of a table of which two publications send different columns: the one that is
    /// not of the table's schema goes without.
    pub(crate) fn read(wanted: &[Wanted], rows: &[Row]) -> Self {
        let mut usable = Self::default();
        for Wanted { publication, schema } in wanted {
            let mut found = rows.iter().filter(|row| row.text(0) == publication).peekable();
            if found.peek().is_none() {
                usable.refused.push((publication.clone(), FeedError::NoPublication { name: publication.clone() }));
                continue;
            }
            match found.find(|row| !row.text(1).is_empty() && row.text(1) != schema) {
                Some(row) => {
                    let table = format!("{}.{}", row.text(1), row.text(2));
                    let error = FeedError::Columns { publication: publication.clone(), table };
                    usable.refused.push((publication.clone(), error));
                }
                None => drop(usable.publications.insert(publication.clone())),
            }
        }
        usable
    }
}

fn list<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(|name| quote_literal(name)).collect::<Vec<_>>().join(", ")
}
