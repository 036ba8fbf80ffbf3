//! Reading documents.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use convoke_model::{
    Cursor, DatabaseError, DocumentId, Failure, Ids, Index, Page, Plan, PositionParts, Range, Read, Table,
};
use convoke_sql::{Bounds, Statement};
use uuid::Uuid;

use crate::documents::{Documents, Purpose, invalid, known};
use crate::render::{Stored, push_document};
use crate::shape::{Need, Part, Shape};
use crate::source::{Row, Rows, Source};

type RowOf<S> = <<S as Source>::Rows as Rows>::Row;

/// As Convex has it: a page that runs again is told where it ended, and there is one place to keep that.
const SECOND_PAGE: &str = "this query asked for pages twice: one `paginate` a query is what there is, \
                           make the other one a query of its own";

impl<S: Source> Documents<S> {
    pub async fn get_document(&mut self, table: &str, id: &str) -> Result<Option<String>, DatabaseError> {
        let tables = Arc::clone(&self.tables);
        let table = known(&tables, table)?.table;
        if !table.is_managed() {
            return self.get_unmanaged(table, id).await;
        }
        let id = Self::id(table, id)?;
        self.observe(|| Read::Document { table: table.number, id: id.uuid });
        let rows = self.read_kept(table, convoke_sql::get(&self.project.name, table, id.uuid)).await?;
        let Some(row) = rows.rows().first() else { return Ok(None) };
        let mut json = String::new();
        self.render_one(&mut json, table, row).await?;
        Ok(Some(json))
    }

    pub async fn get_documents(&mut self, table: &str, ids: &[String]) -> Result<String, DatabaseError> {
        let tables = Arc::clone(&self.tables);
        let table = known(&tables, table)?.table;
        let rows_max = self.project.limits.rows_max;
        if ids.len() > rows_max as usize {
            return Err(too_many(rows_max));
        }
        if !table.is_managed() {
            return Err(invalid(format!("`{}` is an unmanaged table: get its rows one by one", table.name)));
        }
        let ids = ids.iter().map(|id| Self::id(table, id)).collect::<Result<Vec<_>, _>>()?;
        let wanted: HashSet<Uuid> = ids.iter().map(|id| id.uuid).collect();
        let mut wanted: Vec<Uuid> = wanted.into_iter().collect();
        wanted.sort_unstable();
        if self.is_noted() {
            let reads = wanted.iter().map(|id| Read::Document { table: table.number, id: *id });
            self.noted.reads.reads.extend(reads);
        }
        let rows = self.read_kept(table, convoke_sql::get_many(&self.project.name, table, wanted)).await?;
        let mut found = HashMap::with_capacity(rows.rows().len());
        for row in rows.rows() {
            let stored = Stored::of(row)?;
            let mut json = String::new();
            self.render_one(&mut json, table, row).await?;
            found.insert(stored.id, json);
        }
        let documents: Vec<&str> = ids.iter().map(|id| found.get(&id.uuid).map_or("null", String::as_str)).collect();
        Ok(format!("[{}]", documents.join(",")))
    }

    pub async fn run_plan(&mut self, plan: &str) -> Result<String, DatabaseError> {
        let tables = Arc::clone(&self.tables);
        let plan = Plan::parse(plan).map_err(|error| invalid(error.to_string()))?;
        let table = known(&tables, &plan.table)?.table;
        if !table.is_managed() {
            return self.query_unmanaged(table, &plan).await;
        }
        let index = tables.check(&plan, table).map_err(|error| invalid(error.to_string()))?;
        if plan.filter.is_some() && plan.conditions.is_empty() {
            self.source.scans(table);
        }
        if let Some(page) = &plan.page {
            return self.run_page(table, &plan, index, page).await;
        }
        if !plan.aggregate.is_empty() {
            return self.run_aggregate(table, &plan, index).await;
        }
        let rows_max = self.project.limits.rows_max;
        let limit = plan.limit.unwrap_or(u32::MAX).min(rows_max + 1);
        let need = if self.is_noted() { Need::Positions } else { Need::Result };
        let shape = Shape::of(table, &plan, &index, need);
        let (project, columns) = (&self.project.name, shape.columns());
        let statement = convoke_sql::query(project, table, &plan, &index, Bounds::default(), columns, limit);
        let read = self.read_range(table, &plan, &index, statement).await?;
        let rows = read.rows();
        if self.is_noted() && plan.limit != Some(0) {
            let mut ranges = plan.ranges(&index);
            if let ([range], Some(last)) = (ranges.as_mut_slice(), rows.last().filter(|_| rows.len() == limit as usize))
            {
                range.end_at(&shape.position(&index, last)?, plan.order);
            }
            let ids = if plan.offset.is_some() { Ids::Unknown } else { shape.ids(rows)? };
            self.observe_ranges(table, index, ranges, ids);
        }
        self.render(table, &shape, rows).await
    }

    /// One page, and the cursors to those beside it.
    async fn run_page(
        &mut self,
        table: &Table,
        plan: &Plan,
        index: Index,
        page: &Page,
    ) -> Result<String, DatabaseError> {
        // The client keeps one end of a page a query; a mutation may go over as many pages as it likes.
        if self.noted.journal.is_some() && self.purpose != Purpose::Write {
            return Err(invalid(SECOND_PAGE));
        }
        let rows_max = self.project.limits.rows_max;
        let size = plan.limit.unwrap_or(rows_max).min(rows_max);
        if size == 0 {
            return Err(invalid("a page has at least one document: its limit is 0"));
        }
        let key = self.project.cursor_key.clone();
        let read = |text: &str| key.verify(plan, text).map_err(|error| invalid_cursor(error.to_string()));
        let after = page.cursor.as_deref().map(read).transpose()?;
        // A page that runs again ends where it ended before, so that it grows or shrinks and its neighbours stay.
        let journal = self.take_journal();
        let until = match &page.end {
            Some(end) => Some(read(end)?),
            None => journal.and_then(|end| key.verify(plan, &end).ok()),
        };
        if after == Some(Cursor::End) {
            let next = key.sign(plan, &Cursor::End);
            self.noted.journal = Some(next.clone());
            return Ok(page_json("[]", true, &next, None));
        }
        let (from, to) = (position_parts(after.as_ref(), &index)?, position_parts(until.as_ref(), &index)?);
        let bounds = Bounds { after: from.as_ref(), until: to.as_ref() };
        let limit = if until.is_some() { rows_max + 1 } else { size };
        let shape = Shape::of(table, plan, &index, Need::Positions);
        let (project, columns) = (&self.project.name, shape.columns());
        let statement = convoke_sql::query(project, table, plan, &index, bounds, columns, limit);
        let read = self.read_range(table, plan, &index, statement).await?;
        let rows = read.rows();
        let end = match (until, rows.last()) {
            (Some(until), _) => until,
            (None, Some(last)) if rows.len() == limit as usize => Cursor::After(shape.position(&index, last)?),
            _ => Cursor::End,
        };
        // The last document of the first half, which has one more where the halves are not equal.
        let middle = match rows.get(rows.len().saturating_sub(1) / 2) {
            Some(row) if rows.len() > 1 => Some(key.sign(plan, &Cursor::After(shape.position(&index, row)?))),
            _ => None,
        };
        if self.is_noted() {
            let mut ranges = plan.ranges(&index);
            for range in &mut ranges {
                if let Some(Cursor::After(position)) = &after {
                    range.start_after(position, plan.order);
                }
                if let Cursor::After(position) = &end {
                    range.end_at(position, plan.order);
                }
            }
            let ids = shape.ids(rows)?;
            self.observe_ranges(table, index, ranges, ids);
        }
        let next = key.sign(plan, &end);
        let documents = self.render(table, &shape, rows).await?;
        self.noted.journal = Some(next.clone());
        Ok(page_json(&documents, end == Cursor::End, &next, middle.as_deref()))
    }

    async fn run_aggregate(&mut self, table: &Table, plan: &Plan, index: Index) -> Result<String, DatabaseError> {
        let rows_max = self.project.limits.rows_max;
        let limit = plan.limit.unwrap_or(u32::MAX).min(rows_max + 1);
        let statement = convoke_sql::aggregate(&self.project.name, table, plan, &index, limit);
        let read = self.read_range(table, plan, &index, statement).await?;
        let rows = read.rows();
        if self.is_noted() {
            let ranges = plan.ranges(&index);
            self.observe_ranges(table, index, ranges, Ids::Unknown);
        }
        let values = rows.iter().map(|row| row.json(0)).collect::<Result<Vec<_>, _>>()?;
        Ok(match values.as_slice() {
            [value] if plan.group_by.is_empty() => (*value).to_owned(),
            values => format!("[{}]", values.join(",")),
        })
    }

    /// The rows of a statement over what the plan selects. Where there is no result, all of that is why: an error goes
    /// away with the rows that made it.
    pub(crate) async fn read_range(
        &mut self,
        table: &Table,
        plan: &Plan,
        index: &Index,
        statement: Statement,
    ) -> Result<S::Rows, DatabaseError> {
        let rows_max = self.project.limits.rows_max;
        let rows = match self.read_kept(table, statement).await {
            Ok(rows) if rows.rows().len() > rows_max as usize => Err(too_many(rows_max)),
            other => other,
        };
        if rows.is_err() {
            let index = self.tables.shared(table, index.clone());
            let ranges = plan.ranges(&index);
            self.observe(|| Read::Range { table: table.number, index, ranges, ids: Ids::Unknown });
        }
        rows
    }

    /// Renders rows as a JSON array and remembers that they exist.
    async fn render(&mut self, table: &Table, shape: &Shape, rows: &[RowOf<S>]) -> Result<String, DatabaseError> {
        let mut json = String::with_capacity(rows.len() * 256 + 2);
        json.push('[');
        for (position, row) in rows.iter().enumerate() {
            if position > 0 {
                json.push(',');
            }
            match shape {
                Shape::Document => self.render_one(&mut json, table, row).await?,
                Shape::Part(part) => self.render_part(&mut json, table, part, row).await?,
            }
        }
        json.push(']');
        Ok(json)
    }

    async fn render_part(
        &mut self,
        json: &mut String,
        table: &Table,
        part: &Part,
        row: &RowOf<S>,
    ) -> Result<(), DatabaseError> {
        match part.older(row)? {
            Some(older) => {
                let newest = self.upcast(table, older.data, older.version).await?;
                part.push_of(json, table, row, &newest)?;
            }
            None => part.push(json, table, row)?,
        }
        self.remember_row(table, row.uuid(0)?);
        Ok(())
    }

    async fn render_one(&mut self, json: &mut String, table: &Table, row: &RowOf<S>) -> Result<(), DatabaseError> {
        let mut stored = Stored::of(row)?;
        let newest;
        if table.version > 1 {
            let version: i32 = row.int(3)?;
            if version.unsigned_abs() < table.version {
                newest = self.upcast(table, stored.data, version.unsigned_abs()).await?;
                stored.data = &newest;
            }
        }
        push_document(json, table.number, &stored);
        self.remember_row(table, stored.id);
        Ok(())
    }

    fn remember_row(&mut self, table: &Table, id: Uuid) {
        if self.purpose == Purpose::Write {
            self.known.insert(DocumentId { table: table.number, uuid: id });
        }
    }

    /// The newest form of a document that was stored in an older one.
    pub(crate) async fn upcast(&self, table: &Table, data: &str, from: u32) -> Result<String, DatabaseError> {
        let (Some(upcast), Some(function)) = (&self.upcast, &table.upcast) else {
            let detail =
                format!("table `{}` has rows of version {from} and no upcast to {}", table.name, table.version);
            return Err(Failure::internal(detail).into());
        };
        upcast.upcast(function, data, from).await.map_err(DatabaseError::Failed)
    }

    fn observe(&mut self, read: impl FnOnce() -> Read) {
        if self.is_noted() {
            self.noted.reads.reads.push(read());
        }
    }

    fn observe_ranges(&mut self, table: &Table, index: Index, ranges: Vec<Range>, ids: Ids) {
        let index = self.tables.shared(table, index);
        self.observe(|| Read::Range { table: table.number, index, ranges, ids });
    }
}

/// Where a cursor lies in its index; nowhere where there is none, or it is behind everything.
fn position_parts(cursor: Option<&Cursor>, index: &Index) -> Result<Option<PositionParts>, DatabaseError> {
    let Some(Cursor::After(position)) = cursor else { return Ok(None) };
    position.parts(index).map(Some).ok_or_else(|| invalid_cursor("the cursor is of another index"))
}

fn page_json(documents: &str, is_done: bool, next: &str, split: Option<&str>) -> String {
    let split = split.map_or("null".to_owned(), |split| format!("\"{split}\""));
    format!(r#"{{"page":{documents},"isDone":{is_done},"continueCursor":"{next}","splitCursor":{split}}}"#)
}

fn invalid_cursor(message: impl Into<String>) -> DatabaseError {
    let code = convoke_model::Code::Application("InvalidCursor".to_owned());
    DatabaseError::Refused(Failure::function(code, format!("InvalidCursor: {}", message.into())))
}

/// More rows than one read may give.
pub fn too_many(rows_max: u32) -> DatabaseError {
    invalid(format!("the read selects more than {rows_max} documents: give it a limit"))
}
