//! Reads: by id, and along an index.

use std::fmt::Write;

use convoke_model::{
    CREATION_TIME, Condition, Index, IndexField, Operator, Order, Plan, PositionParts, Table, condition_key,
};
use serde_json::Value;
use uuid::Uuid;

use crate::filter::push_filter;
use crate::{Parameter, Statement, key_of, push_qualified, qualified, quote_literal};

/// The part of an index that a plan's page covers, beside its conditions. Both ends are documents that were seen.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Bounds<'a> {
    /// The document before the first.
    pub after: Option<&'a PositionParts>,
    /// The last document.
    pub until: Option<&'a PositionParts>,
}

/// What a read along an index returns of a row, behind its id and its creation time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Columns<'a> {
    /// The document and, where it may be of an older form, its version.
    Document,
    /// These top-level fields, a column each, null where one is missing. Before them, where the document may be of an
    /// older form: the whole of it if it is, null if not, and its version.
    Fields(&'a [String]),
}

impl Columns<'_> {
    /// Where the columns of fields begin.
    pub fn first_field(table: &Table) -> usize {
        if table.version > 1 { 4 } else { 2 }
    }

    fn push(self, text: &mut String, table: &Table) {
        let Self::Fields(fields) = self else { return text.push_str(columns(table)) };
        text.push_str("_id, _creation_time");
        if table.version > 1 {
            let _ = write!(text, ", case when _version < {} then data end, _version", table.version);
        }
        for field in fields {
            let _ = write!(text, ", data->{}", quote_literal(field));
        }
    }
}

/// What a read of documents returns of a row: id, creation time, fields and, where they may be of an older form, its
/// version.
fn columns(table: &Table) -> &'static str {
    if table.version > 1 { "_id, _creation_time, data, _version" } else { "_id, _creation_time, data" }
}

/// Which transactions the current one sees (`xmin:xmax:xip,…`), and a position of the log that all of them are before.
pub fn snapshot() -> Statement {
    let text = "select pg_current_snapshot()::text, pg_current_wal_flush_lsn()";
    Statement { text: text.to_owned(), parameters: Vec::new() }
}

/// Of a row of [`LOG_END_FROM`]: see [`log_end`].
const LOG_END: &str = "case when o.file_offset = 40 then p - 40::numeric \
                       when o.file_offset % 8192 = 24 then p - 24::numeric else p end";
const LOG_END_FROM: &str = "from pg_current_wal_insert_lsn() as p, pg_walfile_name_offset(p) as o";

/// The end of the log, which everything is before that anybody has committed, acknowledged or not, flushed or not. The log
/// comes to it by being flushed.
///
/// Just behind a page's end Postgres gives the first place that a record can have, behind the header of the next page (40
/// bytes in the first page of a file, 24 in the others), where the log does not come to before there is such a record.
pub fn log_end() -> Statement {
    Statement { text: format!("select {LOG_END} {LOG_END_FROM}"), parameters: Vec::new() }
}

/// Has the log written out up to its end, where it is not beyond `$1`: Postgres leaves what a transaction wrote that goes
/// on where it is, for up to 15 seconds. That is done by committing a message of no bytes, which is allowed where the
/// session's transactions are read-only.
pub fn flush_log() -> &'static str {
    "select set_config('synchronous_commit', 'local', true), pg_logical_emit_message(true, 'convoke', '') \
     where pg_current_wal_flush_lsn() <= $1 and pg_current_wal_flush_lsn() < pg_current_wal_insert_lsn()"
}

/// A position of the log that everything is before that has been committed in this session or acknowledged in another one.
/// The log comes to it by being flushed, whether or not anything is written behind it.
///
/// Without `synchronous_commit` that is the end of what has been written: see [`log_end`].
pub fn position() -> Statement {
    let text = format!(
        "select case current_setting('synchronous_commit') when 'off' then {LOG_END} \
         else pg_current_wal_flush_lsn() end {LOG_END_FROM}"
    );
    Statement { text, parameters: Vec::new() }
}

/// Whether relations still have the files that the transaction's snapshot knows of; to be asked once they are locked.
///
/// `truncate`, and `alter table` where it rewrites rows, do not keep what older snapshots should see: to these the
/// relation is empty. The catalog's rows are read in the snapshot, and `pg_relation_filenode` is not.
pub fn intact(relations: &[(&str, &str)]) -> Statement {
    let names = relations.iter().map(|(schema, name)| quote_literal(&qualified(schema, name)));
    let names = names.collect::<Vec<_>>().join(", ");
    let text = format!(
        "select coalesce(bool_and(c.relfilenode = pg_relation_filenode(c.oid)), true) from pg_catalog.pg_class c \
         where c.relkind in ('r', 'm') and c.relfilenode <> 0 and c.oid = any(array[{names}]::regclass[])"
    );
    Statement { text, parameters: Vec::new() }
}

/// The receipt of a mutation, if there is one: digest and result, which may both be null.
pub fn find_receipt(project: &str, scope: &str, key: &str) -> Statement {
    let parameters = [project, scope, key].map(|text| Parameter::Text(text.to_owned()));
    Statement {
        text: "select digest, result from convoke.find_receipt($1, $2, $3)".to_owned(),
        parameters: parameters.into(),
    }
}

/// Leaves the receipt of a mutation; none under the same key may be there. Without a result it says only that the mutation
/// was done.
pub fn leave_receipt(project: &str, scope: &str, key: &str, digest: [u8; 32], result: Option<&str>) -> Statement {
    let mut parameters: Vec<Parameter> = [project, scope, key].map(|text| Parameter::Text(text.to_owned())).into();
    parameters.push(Parameter::Bytes(digest.to_vec()));
    let mut text = "select convoke.leave_receipt($1, $2, $3, $4, ".to_owned();
    text.push_str(if result.is_some() { "$5)" } else { "null)" });
    parameters.extend(result.map(|result| Parameter::Text(result.to_owned())));
    Statement { text, parameters }
}

/// Up to which moment a project's receipts are beyond so many bytes, in microseconds since 1970; null where none are.
pub fn receipts_horizon(project: &str, bytes_max: i64) -> Statement {
    Statement {
        text: "select convoke.receipts_horizon($1, $2)".to_owned(),
        parameters: vec![Parameter::Text(project.to_owned()), Parameter::BigInt(bytes_max)],
    }
}

/// Deletes receipts that are too old to be asked for, and the project's up to a horizon; gives how many, or null where
/// another host is at it.
pub fn expire_receipts(project: &str, horizon: Option<i64>, rows_max: i32) -> Statement {
    let mut parameters = vec![Parameter::Text(project.to_owned()), Parameter::Int(rows_max)];
    parameters.extend(horizon.map(Parameter::BigInt));
    let horizon = if horizon.is_some() { "$3" } else { "null" };
    Statement { text: format!("select convoke.expire_receipts($1, {horizon}, $2)"), parameters }
}

/// One document by id.
pub fn get(schema: &str, table: &Table, id: Uuid) -> Statement {
    let mut text = String::with_capacity(128);
    text.push_str("select ");
    text.push_str(columns(table));
    text.push_str(" from ");
    push_qualified(&mut text, schema, &table.name);
    text.push_str(" where _id = $1");
    Statement { text, parameters: vec![Parameter::Uuid(id)] }
}

/// Documents by id, in any order.
pub fn get_many(schema: &str, table: &Table, ids: Vec<Uuid>) -> Statement {
    Statement {
        text: format!("select {} from {} where _id = any($1)", columns(table), qualified(schema, &table.name)),
        parameters: vec![Parameter::Uuids(ids)],
    }
}

/// The documents of a plan, which must have been checked against its table and index; `limit` is the rows to return at
/// most.
pub fn query(
    schema: &str,
    table: &Table,
    plan: &Plan,
    index: &Index,
    bounds: Bounds<'_>,
    columns: Columns<'_>,
    limit: u32,
) -> Statement {
    let mut text = "select ".to_owned();
    columns.push(&mut text, table);
    let _ = write!(text, " from {}", qualified(schema, &table.name));
    let mut statement = Statement { text, parameters: Vec::with_capacity(plan.conditions.len() + 2) };
    push_where(&mut statement, plan, index, bounds);
    push_order(&mut statement.text, plan, index);
    statement.push_limit(limit, plan.offset);
    statement
}

impl Statement {
    /// Adds a parameter; gives its number.
    pub(crate) fn parameter(&mut self, parameter: Parameter) -> usize {
        self.parameters.push(parameter);
        self.parameters.len()
    }

    pub(crate) fn push_limit(&mut self, limit: u32, offset: Option<u32>) {
        let number = self.parameter(Parameter::BigInt(i64::from(limit)));
        let _ = write!(self.text, " limit ${number}");
        if let Some(offset) = offset {
            let number = self.parameter(Parameter::BigInt(i64::from(offset)));
            let _ = write!(self.text, " offset ${number}");
        }
    }
}

/// The conditions, the filter and the page's bounds of a plan.
pub(crate) fn push_where(statement: &mut Statement, plan: &Plan, index: &Index, bounds: Bounds<'_>) {
    let mut joint = " where ";
    let mut join = |text: &mut String| {
        text.push_str(joint);
        joint = " and ";
    };
    for condition in &plan.conditions {
        join(&mut statement.text);
        push_condition(statement, condition);
    }
    let free = free_columns(plan, index);
    for (bound, side) in [(bounds.after, Side::Behind), (bounds.until, Side::UpTo)] {
        if let Some(parts) = bound {
            join(&mut statement.text);
            push_bound(statement, &free, parts, side, plan.order);
        }
    }
    if let Some(filter) = &plan.filter {
        join(&mut statement.text);
        push_filter(statement, filter);
    }
}

fn push_condition(statement: &mut Statement, condition: &Condition) {
    if condition.field == CREATION_TIME {
        let number = statement.parameter(Parameter::Float(condition.value.as_f64().unwrap_or_default()));
        let _ = write!(statement.text, "_creation_time {} ${number}", comparison(condition.op));
        return;
    }
    let key = key_of(&condition.field);
    if condition.op == Operator::In {
        let values = condition.value.as_array().into_iter().flatten().map(condition_key).collect();
        let number = statement.parameter(Parameter::ManyBytes(values));
        let _ = write!(statement.text, "{key} = any(${number})");
        return;
    }
    let number = statement.parameter(Parameter::Bytes(condition_key(&condition.value)));
    let _ = write!(statement.text, "{key} {} ${number}", comparison(condition.op));
}

pub(crate) fn comparison(op: Operator) -> &'static str {
    match op {
        Operator::Eq | Operator::In => "=",
        Operator::Ne => "<>",
        Operator::Lt => "<",
        Operator::Lte => "<=",
        Operator::Gt => ">",
        Operator::Gte => ">=",
    }
}

/// A column of an index's order with its direction in the index, and where its value is in a position.
struct Column {
    expression: String,
    order: Order,
    at: At,
}

#[derive(Clone, Copy)]
enum At {
    Key(usize),
    CreationTime,
    Id,
}

/// The columns that equalities have not fixed.
fn free_columns(plan: &Plan, index: &Index) -> Vec<Column> {
    let own = index.fields.iter().enumerate().map(|(position, field): (usize, &IndexField)| Column {
        expression: key_of(&field.name),
        order: field.order,
        at: At::Key(position),
    });
    let system = [("_creation_time", At::CreationTime), ("_id", At::Id)];
    let system = system.into_iter().map(|(name, at)| Column { expression: name.to_owned(), order: Order::Asc, at });
    own.chain(system).skip(plan.fixed_fields()).collect()
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    Behind,
    UpTo,
}

/// Rows behind a position, or up to it and it too, in the direction of reading.
fn push_bound(statement: &mut Statement, columns: &[Column], parts: &PositionParts, side: Side, order: Order) {
    let numbers: Vec<usize> = columns
        .iter()
        .map(|column| {
            statement.parameter(match column.at {
                At::Key(position) => Parameter::Bytes(parts.keys.get(position).cloned().unwrap_or_default()),
                At::CreationTime => Parameter::Float(parts.creation_time),
                At::Id => Parameter::Uuid(parts.id),
            })
        })
        .collect();
    let sign = |column: &Column| {
        let forward = (column.order == Order::Asc) == (order == Order::Asc);
        if forward == (side == Side::Behind) { ">" } else { "<" }
    };
    let or_equal = if side == Side::UpTo { "=" } else { "" };
    // Columns of one direction compare as a row, which is one range of the index.
    if columns.iter().all(|column| column.order == columns[0].order) {
        let names: Vec<&str> = columns.iter().map(|column| column.expression.as_str()).collect();
        let values: Vec<String> = numbers.iter().map(|number| format!("${number}")).collect();
        let sign = sign(&columns[0]);
        let _ = write!(statement.text, "({}) {sign}{or_equal} ({})", names.join(", "), values.join(", "));
        return;
    }
    // Mixed directions have no such comparison: the first column bounds the range, the rest is looked at row by row.
    let _ = write!(statement.text, "{} {}= ${} and (", columns[0].expression, sign(&columns[0]), numbers[0]);
    for (position, (column, number)) in columns.iter().zip(&numbers).enumerate() {
        let last = position + 1 == columns.len();
        let equal = if last { or_equal } else { "" };
        let _ = write!(statement.text, "{} {}{equal} ${number}", column.expression, sign(column));
        if !last {
            let _ = write!(statement.text, " or ({} = ${number} and (", column.expression);
        }
    }
    statement.text.push_str(&"))".repeat(columns.len() - 1));
    statement.text.push(')');
}

/// The order of the index, without the fields that equalities have fixed.
pub(crate) fn push_order(text: &mut String, plan: &Plan, index: &Index) {
    text.push_str(" order by ");
    for (position, column) in free_columns(plan, index).iter().enumerate() {
        let direction = if column.order == plan.order { "" } else { " desc" };
        let joint = if position == 0 { "" } else { ", " };
        let _ = write!(text, "{joint}{}{direction}", column.expression);
    }
}

/// A value of a condition as JSON text for `jsonb`.
pub(crate) fn json_parameter(value: &Value) -> Parameter {
    Parameter::Json(value.to_string())
}

#[cfg(test)]
mod tests {
    use convoke_model::TableManifest;
    use serde_json::json;

    use super::*;

    fn table() -> Table {
        let manifest: TableManifest = serde_json::from_value(json!({
            "name": "messages",
            "indexes": [
                { "name": "i", "fields": ["channel", "it's"] },
                { "name": "mixed", "fields": ["channel", { "field": "rank", "order": "desc" }] },
            ],
        }))
        .expect("a manifest");
        Table::declared(&manifest, "messages")
    }

    fn text(json: &str, bounds: Bounds<'_>) -> String {
        let table = table();
        let plan = Plan::parse(json).expect("plan");
        let index = plan.check(&table).expect("a plan of this table");
        let statement = query("demo", &table, &plan, &index, bounds, Columns::Document, 50);
        statement.text.split_once(" from ").expect("a select").1.to_owned()
    }

    #[test]
    fn by_index() {
        assert_eq!(
            text(
                r#"{"table":"messages","index":"i","where":[{"field":"channel","op":"eq","value":"a"}],"order":"desc","offset":2}"#,
                Bounds::default()
            ),
            "\"demo\".\"messages\" where convoke.key(data->'channel') = $1 \
             order by convoke.key(data->'it''s') desc, _creation_time desc, _id desc limit $2 offset $3"
        );
        assert_eq!(
            text(
                r#"{"table":"messages","index":"i","where":[{"field":"channel","op":"in","value":[1,2]},{"field":"it's","op":"gte","value":3}]}"#,
                Bounds::default()
            ),
            "\"demo\".\"messages\" where convoke.key(data->'channel') = any($1) and convoke.key(data->'it''s') >= $2 \
             order by convoke.key(data->'channel'), convoke.key(data->'it''s'), _creation_time, _id limit $3"
        );
    }

    #[test]
    fn a_page_is_a_range_of_the_index() {
        let parts = PositionParts { keys: vec![vec![1], vec![2]], creation_time: 3.0, id: Uuid::nil() };
        let bounds = Bounds { after: Some(&parts), until: Some(&parts) };
        assert_eq!(
            text(
                r#"{"table":"messages","index":"i","where":[{"field":"channel","op":"eq","value":"a"}],"order":"desc"}"#,
                bounds
            ),
            "\"demo\".\"messages\" where convoke.key(data->'channel') = $1 \
             and (convoke.key(data->'it''s'), _creation_time, _id) < ($2, $3, $4) \
             and (convoke.key(data->'it''s'), _creation_time, _id) >= ($5, $6, $7) \
             order by convoke.key(data->'it''s') desc, _creation_time desc, _id desc limit $8"
        );
        assert_eq!(
            text(r#"{"table":"messages","index":"mixed","where":[{"field":"channel","op":"eq","value":"a"}]}"#, bounds),
            "\"demo\".\"messages\" where convoke.key(data->'channel') = $1 \
             and convoke.key(data->'rank') <= $2 and (convoke.key(data->'rank') < $2 \
             or (convoke.key(data->'rank') = $2 and (_creation_time > $3 or (_creation_time = $3 and (_id > $4))))) \
             and convoke.key(data->'rank') >= $5 and (convoke.key(data->'rank') > $5 \
             or (convoke.key(data->'rank') = $5 and (_creation_time < $6 or (_creation_time = $6 and (_id <= $7))))) \
             order by convoke.key(data->'rank') desc, _creation_time, _id limit $8"
        );
    }

    #[test]
    fn fields_are_columns() {
        let plan = Plan::parse(r#"{"table":"messages","fields":["it's"]}"#).expect("a plan");
        let text = |table: &Table| {
            let index = plan.check(table).expect("a plan of this table");
            let fields = ["a".to_owned(), "it's".to_owned()];
            let columns = Columns::Fields(&fields);
            let statement = query("demo", table, &plan, &index, Bounds::default(), columns, 50);
            statement.text.split_once(" from ").expect("a select").0.to_owned()
        };
        let table = table();
        assert_eq!(text(&table), "select _id, _creation_time, data->'a', data->'it''s'");
        assert_eq!(
            text(&Table { version: 3, ..table }),
            "select _id, _creation_time, case when _version < 3 then data end, _version, data->'a', data->'it''s'"
        );
    }

    #[test]
    fn names_are_quoted() {
        let table = Table { name: "c;d".to_owned(), ..table() };
        assert_eq!(
            get("a\"b", &table, Uuid::nil()).text,
            "select _id, _creation_time, data from \"a\"\"b\".\"c;d\" where _id = $1"
        );
    }
}
