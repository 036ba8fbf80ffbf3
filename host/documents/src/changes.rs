//! Writing documents.

use std::borrow::Cow;
use std::sync::Arc;

use convoke_model::{Code, DatabaseError, DocumentError, DocumentId, Failure, Index, Plan, Table, stored_bytes};
use convoke_sql::{Bounds, Columns, DocumentBytes, Existence, Rows, Statement};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::documents::{Documents, Known, Purpose, invalid, known};
use crate::reads::too_many;
use crate::render::Stored;
use crate::source::{Birth, Row, Rows as _, Source};

/// Keeps the documents of one call in order where they share a millisecond; an eighth of a float's resolution today.
const CREATION_STEP_MS: f64 = 1.0 / 512.0;

impl<S: Source> Documents<S> {
    pub async fn insert_document(&mut self, table: &str, document: &str) -> Result<String, DatabaseError> {
        self.source.check_usable()?;
        let tables = Arc::clone(&self.tables);
        let known = known(&tables, table)?;
        if !known.table.is_managed() {
            return self.insert_unmanaged(known.table, document).await;
        }
        let document = self.checked(known, document)?;
        let id = self.keep_insert(known.table, document.into_owned());
        self.flush_if_full().await?;
        Ok(id.to_string())
    }

    pub async fn insert_documents(&mut self, table: &str, documents: &str) -> Result<String, DatabaseError> {
        self.source.check_usable()?;
        let tables = Arc::clone(&self.tables);
        let known = managed(&tables, table)?;
        let documents: Vec<&RawValue> = serde_json::from_str(documents)
            .map_err(|error| invalid(format!("the documents are not a JSON array: {error}")))?;
        let rows_max = self.project.limits.rows_max;
        if documents.len() > rows_max as usize {
            return Err(too_many(rows_max));
        }
        // All are checked before the first is kept: a refused one leaves none behind.
        let mut checked = Vec::with_capacity(documents.len());
        for (position, document) in documents.into_iter().enumerate() {
            let document = self.checked(known, document.get()).map_err(|error| at_item(error, position))?;
            checked.push(document.into_owned());
        }
        let mut ids = String::with_capacity(checked.len() * 36 + 2);
        ids.push('[');
        for (position, document) in checked.into_iter().enumerate() {
            ids.push_str(if position == 0 { "\"" } else { ",\"" });
            self.keep_insert(known.table, document).write_to(&mut ids);
            ids.push('"');
        }
        ids.push(']');
        self.flush_if_full().await?;
        Ok(ids)
    }

    pub async fn patch_document(&mut self, table: &str, id: &str, fields: &str) -> Result<(), DatabaseError> {
        self.source.check_usable()?;
        let tables = Arc::clone(&self.tables);
        let known = known(&tables, table)?;
        if !known.table.is_managed() {
            return self.patch_unmanaged(known.table, id, fields).await;
        }
        let id = Self::id(known.table, id)?;
        let (set, unset) = self.checked_patch(known, fields)?;
        if known.table.version > 1 {
            self.bring_up_to_date(known.table, id).await?;
        }
        let existence = self.existence(id);
        if unset.is_empty() {
            self.writes.update(known.table, Rows::Patch, id.uuid, set.into_owned(), existence);
        } else {
            self.writes.unset(&known.table.name, id.uuid, set.into_owned(), unset, existence);
        }
        self.flush_if_full().await
    }

    pub async fn replace_document(&mut self, table: &str, id: &str, document: &str) -> Result<(), DatabaseError> {
        self.source.check_usable()?;
        let tables = Arc::clone(&self.tables);
        let known = managed(&tables, table)?;
        let id = Self::id(known.table, id)?;
        let document = self.checked(known, document)?;
        let existence = self.existence(id);
        self.writes.update(known.table, Rows::Replace, id.uuid, document.into_owned(), existence);
        self.flush_if_full().await
    }

    pub async fn delete_document(&mut self, table: &str, id: &str) -> Result<(), DatabaseError> {
        self.source.check_usable()?;
        let tables = Arc::clone(&self.tables);
        let known = known(&tables, table)?;
        if !known.table.is_managed() {
            return self.delete_unmanaged(known.table, id).await;
        }
        let id = Self::id(known.table, id)?;
        let existence = self.existence(id);
        self.known.remove(&id);
        self.writes.delete(&known.table.name, id.uuid, existence);
        self.flush_if_full().await
    }

    pub async fn update_document(&mut self, table: &str, id: &str, operations: &str) -> Result<(), DatabaseError> {
        self.source.check_usable()?;
        let tables = Arc::clone(&self.tables);
        let known = managed(&tables, table)?;
        let id = Self::id(known.table, id)?;
        self.check_size(operations)?;
        let operations = match known.form {
            Some(form) => form.check_operations(operations).map_err(|error| refused(known.table, &error))?,
            None => return Err(Failure::internal("a table of documents without a form").into()),
        };
        if known.table.version > 1 {
            self.bring_up_to_date(known.table, id).await?;
        }
        let existence = self.existence(id);
        self.writes.update(known.table, Rows::Apply, id.uuid, operations, existence);
        self.flush_if_full().await
    }

    pub async fn patch_selected(&mut self, plan: &str, fields: &str) -> Result<u64, DatabaseError> {
        self.source.check_usable()?;
        let tables = Arc::clone(&self.tables);
        let (plan, known) = selection(&tables, plan)?;
        let index = tables.check(&plan, known.table).map_err(|error| invalid(error.to_string()))?;
        let (set, unset) = self.checked_patch(known, fields)?;
        if known.table.version > 1 {
            self.bring_all_up_to_date(known.table, &plan, &index).await?;
        }
        let project = &self.project.name;
        let bytes_max = DocumentBytes(self.project.limits.document_bytes_max);
        let set = set.into_owned();
        self.count(convoke_sql::patch_where(project, known.table, &plan, &index, set, unset, bytes_max)).await
    }

    pub async fn delete_selected(&mut self, plan: &str) -> Result<u64, DatabaseError> {
        self.source.check_usable()?;
        let tables = Arc::clone(&self.tables);
        let (plan, known) = selection(&tables, plan)?;
        let index = tables.check(&plan, known.table).map_err(|error| invalid(error.to_string()))?;
        // Which rows are left is not known here.
        self.known.clear();
        self.count(convoke_sql::delete_where(&self.project.name, known.table, &plan, &index)).await
    }

    async fn count(&mut self, statement: Statement) -> Result<u64, DatabaseError> {
        let rows = self.read(statement).await?;
        let count: i64 = rows.rows().first().map_or(Ok(0), |row| row.big_int(0))?;
        Ok(count.unsigned_abs())
    }

    /// Reads a document and, where it is stored in an older form, writes the newest in its place.
    async fn bring_up_to_date(&mut self, table: &Table, id: DocumentId) -> Result<(), DatabaseError> {
        let rows = self.read(convoke_sql::get(&self.project.name, table, id.uuid)).await?;
        let Some(row) = rows.rows().first() else { return Ok(()) };
        let version: i32 = row.int(3)?;
        self.known.insert(id);
        if version.unsigned_abs() >= table.version {
            return Ok(());
        }
        let newest = self.upcast(table, Stored::of(row)?.data, version.unsigned_abs()).await?;
        self.writes.update(table, Rows::Replace, id.uuid, newest, Existence::Known);
        Ok(())
    }

    /// The same for all documents of a plan. Those of the newest form are left as they are, to the byte.
    async fn bring_all_up_to_date(&mut self, table: &Table, plan: &Plan, index: &Index) -> Result<(), DatabaseError> {
        let limit = plan.limit.unwrap_or(u32::MAX).min(self.project.limits.rows_max + 1);
        let project = &self.project.name;
        let statement = convoke_sql::query(project, table, plan, index, Bounds::default(), Columns::Document, limit);
        let read = self.read_range(table, plan, index, statement).await?;
        for row in read.rows() {
            let version: i32 = row.int(3)?;
            if version.unsigned_abs() >= table.version {
                continue;
            }
            let older = Stored::of(row)?;
            let newest = self.upcast(table, older.data, version.unsigned_abs()).await?;
            self.writes.update(table, Rows::Replace, older.id, newest, Existence::Known);
        }
        Ok(())
    }

    fn keep_insert(&mut self, table: &Table, document: String) -> DocumentId {
        let Birth { id, now_ms } = self.source.birth();
        let id = DocumentId { table: table.number, uuid: id };
        let creation_time = self.next_creation_time(now_ms);
        self.writes.insert(table, id.uuid, creation_time, document);
        if self.purpose == Purpose::Write {
            self.known.insert(id);
        }
        id
    }

    /// A time that no other document of this call has.
    fn next_creation_time(&mut self, now: f64) -> f64 {
        self.creation_time_ms =
            if now > self.creation_time_ms { now } else { self.creation_time_ms + CREATION_STEP_MS };
        self.creation_time_ms
    }

    fn checked<'a>(&self, known: Known<'_>, document: &'a str) -> Result<Cow<'a, str>, DatabaseError> {
        self.check_size(document)?;
        match known.form {
            Some(form) => form.check(document).map_err(|error| refused(known.table, &error)),
            None => Ok(Cow::Borrowed(document)),
        }
    }

    fn checked_patch<'a>(
        &self,
        known: Known<'_>,
        fields: &'a str,
    ) -> Result<(Cow<'a, str>, Vec<String>), DatabaseError> {
        self.check_size(fields)?;
        match known.form {
            Some(form) => form.check_patch(fields).map_err(|error| refused(known.table, &error)),
            None => Ok((Cow::Borrowed(fields), Vec::new())),
        }
    }

    pub(crate) fn check_size(&self, text: &str) -> Result<(), DatabaseError> {
        let bytes_max = self.project.limits.document_bytes_max;
        let bytes = if text.len() > bytes_max { text.len() } else { stored_bytes(text) };
        if bytes <= bytes_max {
            return Ok(());
        }
        Err(invalid(format!("a document of {bytes} bytes is over the limit of {bytes_max}")))
    }
}

fn managed<'a>(tables: &'a convoke_model::Tables, name: &str) -> Result<Known<'a>, DatabaseError> {
    let known = known(tables, name)?;
    if known.table.is_managed() {
        return Ok(known);
    }
    Err(invalid(format!("`{name}` is an unmanaged table: it takes insert, patch and delete, one row each")))
}

fn selection<'a>(tables: &'a convoke_model::Tables, plan: &str) -> Result<(Plan, Known<'a>), DatabaseError> {
    let plan = Plan::parse(plan).map_err(|error| invalid(error.to_string()))?;
    let known = managed(tables, &plan.table)?;
    if plan.page.is_some() || !plan.aggregate.is_empty() || plan.fields.is_some() {
        return Err(invalid("a write by query takes no page, no aggregate and no fields"));
    }
    Ok((plan, known))
}

fn refused(table: &Table, error: &DocumentError) -> DatabaseError {
    let mut data = error.data();
    data["table"] = json!(table.name);
    let failure =
        Failure::function(Code::InvalidArgs, format!("the document of table `{}` is refused: {error}", table.name));
    DatabaseError::Refused(failure.with_data(data))
}

/// Says which of many documents was refused.
fn at_item(error: DatabaseError, position: usize) -> DatabaseError {
    match error {
        DatabaseError::Refused(mut failure) => {
            failure.message = format!("document {position}: {}", failure.message);
            if let Some(Value::Object(data)) = &mut failure.data {
                data.insert("index".to_owned(), json!(position));
            }
            DatabaseError::Refused(failure)
        }
        other => other,
    }
}
