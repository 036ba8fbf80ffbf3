//! Tables that are somebody else's: rows of columns, known by one of them.

use std::fmt::Write;

use convoke_model::{
    CREATION_TIME, Code, Condition, DatabaseError, Failure, Filter, Operator, Order, Plan, Read, Table, TableKind,
    has_nul, is_undefined,
};
use convoke_sql::quote_identifier;
use serde_json::{Map, Value};

use crate::documents::{Documents, invalid};
use crate::reads::too_many;
use crate::source::{Source, Unmanaged};

impl<S: Source> Documents<S> {
    pub(crate) async fn get_unmanaged(&mut self, table: &Table, id: &str) -> Result<Option<String>, DatabaseError> {
        let text = format!("{} where {} = $1", self.select(table), key(table));
        let rows = self.unmanaged(table, text, vec![Value::String(id.to_owned())]).await?;
        Ok(rows.into_iter().next())
    }

    pub(crate) async fn query_unmanaged(&mut self, table: &Table, plan: &Plan) -> Result<String, DatabaseError> {
        if plan.index.is_some()
            || plan.page.is_some()
            || !plan.aggregate.is_empty()
            || plan.conditions.iter().any(|condition| condition.field == CREATION_TIME)
        {
            return Err(invalid(format!(
                "`{}` is an unmanaged table: it takes conditions on columns, an order, a limit, an offset and fields",
                table.name
            )));
        }
        plan.check_fields().map_err(|error| invalid(error.to_string()))?;
        let rows_max = self.project.limits.rows_max;
        let mut text = match plan.own_fields() {
            Some(columns) => self.select_columns(table, columns),
            None => self.select(table),
        };
        let mut parameters = Vec::new();
        let conditions = plan.conditions.iter().cloned().map(Filter::Compare).chain(plan.filter.clone());
        text.push_str(" where ");
        push_filter(&mut text, &mut parameters, &Filter::And { and: conditions.collect() });
        let order = if plan.order == Order::Desc { " desc" } else { "" };
        let _ = write!(text, " order by {}{order}", key(table));
        // Parameters, so that the text depends on the plan's shape alone.
        for (word, rows) in
            [("limit", plan.limit.unwrap_or(u32::MAX).min(rows_max + 1)), ("offset", plan.offset.unwrap_or(0))]
        {
            parameters.push(Value::from(rows));
            let _ = write!(text, " {word} ${}", parameters.len());
        }
        let rows = self.unmanaged(table, text, parameters).await?;
        if rows.len() > rows_max as usize {
            return Err(too_many(rows_max));
        }
        Ok(format!("[{}]", rows.join(",")))
    }

    /// Returns the new row's key.
    pub(crate) async fn insert_unmanaged(&mut self, table: &Table, document: &str) -> Result<String, DatabaseError> {
        let (columns, values) = self.columns(document)?;
        let places: Vec<String> = (1..=values.len()).map(|number| format!("${number}")).collect();
        let row = if columns.is_empty() {
            "default values".to_owned()
        } else {
            format!("({}) values ({})", columns.join(", "), places.join(", "))
        };
        let text = format!("insert into {} {row} returning to_json({}::text)", self.relation(table), key(table));
        let rows = self.unmanaged(table, text, values).await?;
        let id = rows.first().and_then(|json| serde_json::from_str::<String>(json).ok());
        id.ok_or_else(|| Failure::internal("an insert returned no key").into())
    }

    pub(crate) async fn patch_unmanaged(&mut self, table: &Table, id: &str, fields: &str) -> Result<(), DatabaseError> {
        let (columns, mut values) = self.columns(fields)?;
        if columns.is_empty() {
            return Ok(());
        }
        let set: Vec<String> =
            columns.iter().enumerate().map(|(position, column)| format!("{column} = ${}", position + 1)).collect();
        values.push(Value::String(id.to_owned()));
        let text = format!(
            "update {} set {} where {} = ${} returning '1'::json",
            self.relation(table),
            set.join(", "),
            key(table),
            values.len()
        );
        let rows = self.unmanaged(table, text, values).await?;
        found(table, &rows)
    }

    pub(crate) async fn delete_unmanaged(&mut self, table: &Table, id: &str) -> Result<(), DatabaseError> {
        let text = format!("delete from {} where {} = $1 returning '1'::json", self.relation(table), key(table));
        let rows = self.unmanaged(table, text, vec![Value::String(id.to_owned())]).await?;
        found(table, &rows)
    }

    async fn unmanaged(
        &mut self,
        table: &Table,
        text: String,
        parameters: Vec<Value>,
    ) -> Result<Vec<String>, DatabaseError> {
        self.source.check_usable()?;
        if self.is_noted() {
            let read = Read::Relation { schema: self.project.name.clone(), name: table.name.clone() };
            self.noted.reads.reads.push(read);
        }
        if text.contains('\0') || parameters.iter().any(has_nul) {
            let words = "a column's name or a value has the character \\u0000, which Postgres cannot have";
            return Err(invalid(words));
        }
        let packet = self.take_writes();
        self.source.run_unmanaged(table, packet, Unmanaged { text, parameters }).await
    }

    /// Rows as documents: with an id, and with a creation time that nobody has noted.
    fn select(&self, table: &Table) -> String {
        self.select_as(table, "to_jsonb(t)")
    }

    /// Rows with these columns alone.
    fn select_columns<'a>(&self, table: &Table, columns: impl Iterator<Item = &'a str>) -> String {
        let columns: Vec<String> = columns.map(|column| format!("t.{}", quote_identifier(column))).collect();
        self.select_as(table, &format!("(select to_jsonb(p) from (select {}) as p)", columns.join(", ")))
    }

    fn select_as(&self, table: &Table, document: &str) -> String {
        format!(
            "select {document} || jsonb_build_object('_id', t.{}::text, '_creationTime', 0) from {} as t",
            key(table),
            self.relation(table)
        )
    }

    fn relation(&self, table: &Table) -> String {
        format!("{}.{}", quote_identifier(&self.project.name), quote_identifier(&table.name))
    }

    /// The columns that a document sets, and their values. A removed field is null.
    fn columns(&self, document: &str) -> Result<(Vec<String>, Vec<Value>), DatabaseError> {
        self.check_size(document)?;
        let fields: Map<String, Value> = serde_json::from_str(document)
            .map_err(|error| invalid(format!("the document is not a JSON object: {error}")))?;
        let value = |value| if is_undefined(&value) { Value::Null } else { value };
        Ok(fields.into_iter().map(|(name, field)| (quote_identifier(&name), value(field))).unzip())
    }
}

fn key(table: &Table) -> String {
    match &table.kind {
        TableKind::Unmanaged { key } => quote_identifier(key),
        TableKind::Managed => quote_identifier("_id"),
    }
}

/// A filter that is true or false, never null.
fn push_filter(text: &mut String, parameters: &mut Vec<Value>, filter: &Filter) {
    let (parts, joint, empty) = match filter {
        Filter::And { and } => (and, " and ", "true"),
        Filter::Or { or } => (or, " or ", "false"),
        Filter::Not { not } => {
            text.push_str("not ");
            return push_filter(text, parameters, not);
        }
        Filter::Compare(condition) => return push_comparison(text, parameters, condition),
    };
    text.push('(');
    if parts.is_empty() {
        text.push_str(empty);
    }
    for (position, part) in parts.iter().enumerate() {
        text.push_str(if position == 0 { "" } else { joint });
        push_filter(text, parameters, part);
    }
    text.push(')');
}

fn push_comparison(text: &mut String, parameters: &mut Vec<Value>, condition: &Condition) {
    let column = quote_identifier(&condition.field);
    let missing = condition.value.is_null() || is_undefined(&condition.value);
    let operator = match condition.op {
        Operator::Eq | Operator::Ne if missing => {
            text.push_str(&column);
            return text.push_str(if condition.op == Operator::Eq { " is null" } else { " is not null" });
        }
        Operator::Eq => "=",
        Operator::Ne => "is distinct from",
        Operator::In => "= any",
        Operator::Lt => "<",
        Operator::Lte => "<=",
        Operator::Gt => ">",
        Operator::Gte => ">=",
    };
    parameters.push(condition.value.clone());
    let _ = write!(text, "coalesce({column} {operator} (${}), false)", parameters.len());
}

fn found(table: &Table, rows: &[String]) -> Result<(), DatabaseError> {
    if !rows.is_empty() {
        return Ok(());
    }
    let words = format!("a row of table `{}` that was to be changed does not exist", table.name);
    Err(DatabaseError::Refused(Failure::function(Code::NotFound, words)))
}
