//! What a read along an index returns of each row: the document, or some of its fields.

use convoke_model::{DatabaseError, Failure, Fields, Ids, Index, Plan, Position, Projection, Seen, SeenRows, Table};
use convoke_sql::Columns;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::render::{Stored, push_part};
use crate::source::Row;

/// What is read of each row; made once a plan.
#[derive(Debug)]
pub(crate) enum Shape {
    Document,
    Part(Part),
}

/// Some fields of each row.
#[derive(Debug)]
pub(crate) struct Part {
    projection: Projection,
    /// The names of the fields that are read, sorted: those that are given, or all that the plan looks at.
    columns: Vec<String>,
    first_column: usize,
    given: Vec<Given>,
    is_versioned: bool,
}

/// A field that the function is given.
#[derive(Debug)]
struct Given {
    name: String,
    /// The name as JSON.
    json: String,
}

/// A document of an older form than its table's.
pub(crate) struct Older<'a> {
    pub(crate) version: u32,
    pub(crate) data: &'a str,
}

/// What a read is for besides its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing.
    Result,
    /// Where rows lie in their index, and what was seen of them.
    Positions,
}

impl Shape {
    pub(crate) fn of(table: &Table, plan: &Plan, index: &Index, need: Need) -> Self {
        let (Some(projection), Some(own)) = (plan.projection(index), plan.own_fields()) else { return Self::Document };
        let given: Vec<Given> =
            own.map(|name| Given { name: name.to_owned(), json: Value::from(name).to_string() }).collect();
        let mut columns = match need {
            Need::Positions => projection.fields().to_vec(),
            Need::Result => given.iter().map(|field| field.name.clone()).collect(),
        };
        columns.sort_unstable();
        let first_column = Columns::first_field(table);
        Self::Part(Part { projection, columns, first_column, given, is_versioned: table.version > 1 })
    }

    pub(crate) fn columns(&self) -> Columns<'_> {
        match self {
            Self::Document => Columns::Document,
            Self::Part(part) => Columns::Fields(&part.columns),
        }
    }

    /// Where a row lies in an index.
    pub(crate) fn position(&self, index: &Index, row: &impl Row) -> Result<Position, DatabaseError> {
        let (id, creation_time) = system_fields(row)?;
        match self {
            Self::Document if index.fields.is_empty() => Ok(Position::of(index, &Map::new(), creation_time, id)),
            Self::Document => {
                let data = Fields::parse(Stored::of(row)?.data).map_err(|error| broken(&error))?;
                let position = Position::of_texts(index, |name| data.text(name), creation_time, id);
                Ok(position.map_err(|error| broken(&error))?)
            }
            Self::Part(part) => {
                let texts = part.texts(row)?;
                let text = |name: &str| part.text(&texts, name);
                Ok(Position::of_texts(index, text, creation_time, id).map_err(|error| broken(&error))?)
            }
        }
    }

    /// The rows as a read set knows them.
    pub(crate) fn ids(&self, rows: &[impl Row]) -> Result<Ids, DatabaseError> {
        let Self::Part(part) = self else {
            let ids = rows.iter().map(|row| system_fields(row).map(|(id, _)| id));
            return Ok(Ids::Known(ids.collect::<Result<_, _>>()?));
        };
        let (mut seen, mut whole) = (Vec::with_capacity(rows.len()), Vec::new());
        for row in rows {
            let (id, creation_time) = system_fields(row)?;
            match part.older(row)? {
                Some(_) => whole.push(id),
                None => seen.push((id, part.seen(row, creation_time)?)),
            }
        }
        Ok(Ids::Seen(Box::new(SeenRows { projection: part.projection.clone(), rows: seen, whole })))
    }
}

impl Part {
    /// The document of a row where it is of an older form.
    pub(crate) fn older<'a>(&self, row: &'a impl Row) -> Result<Option<Older<'a>>, DatabaseError> {
        if !self.is_versioned {
            return Ok(None);
        }
        let Some(data) = row.optional_json(2)? else { return Ok(None) };
        let version: i32 = row.int(3)?;
        Ok(Some(Older { version: version.unsigned_abs(), data }))
    }

    /// Appends what is given of a row.
    pub(crate) fn push(&self, json: &mut String, table: &Table, row: &impl Row) -> Result<(), DatabaseError> {
        let (id, creation_time) = system_fields(row)?;
        let texts = self.texts(row)?;
        let fields = self.given.iter().filter_map(|field| Some((&*field.json, self.text(&texts, &field.name)?)));
        push_part(json, table.number, id, creation_time, fields);
        Ok(())
    }

    /// Appends what is given of a row whose document was brought to the newest form.
    pub(crate) fn push_of(
        &self,
        json: &mut String,
        table: &Table,
        row: &impl Row,
        newest: &str,
    ) -> Result<(), DatabaseError> {
        let (id, creation_time) = system_fields(row)?;
        let newest = Fields::parse(newest).map_err(|error| broken(&error))?;
        let fields = self.given.iter().filter_map(|field| Some((&*field.json, newest.text(&field.name)?)));
        push_part(json, table.number, id, creation_time, fields);
        Ok(())
    }

    fn seen(&self, row: &impl Row, creation_time: f64) -> Result<Seen, DatabaseError> {
        let texts = self.texts(row)?;
        Ok(self.projection.seen(creation_time, |name| self.text(&texts, name)))
    }

    fn texts<'a>(&self, row: &'a impl Row) -> Result<Vec<Option<&'a str>>, DatabaseError> {
        let columns = self.first_column..self.first_column + self.columns.len();
        columns.map(|column| row.optional_json(column)).collect()
    }

    fn text<'a>(&self, texts: &[Option<&'a str>], name: &str) -> Option<&'a str> {
        let column = self.columns.binary_search_by(|column| column.as_str().cmp(name)).ok()?;
        texts.get(column).copied().flatten()
    }
}

fn system_fields(row: &impl Row) -> Result<(Uuid, f64), DatabaseError> {
    Ok((row.uuid(0)?, row.float(1)?))
}

fn broken(error: &serde_json::Error) -> Failure {
    Failure::internal(format!("a stored document: {error}"))
}
