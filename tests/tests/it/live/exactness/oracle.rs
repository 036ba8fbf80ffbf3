//! What every query has to give, found out the long way: all rows at every commit, each looked at one by one.
//!
//! It shares with the host the order of values (`model::key`) and the form of plans, and nothing else.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use convoke_feed::{Change, ChangeKind, OldRow, Relation, Snapshot, Transaction, Tuple, Value as Column};
use convoke_model::{
    AggregateOperator, Condition, DocumentId, Filter, Index, IndexField, Operator, Order, Plan, condition_key, key,
    ordered_time,
};
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// A row of a table of documents.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    id: Uuid,
    creation_time: f64,
    data: Arc<Map<String, Value>>,
}

/// All rows after some transaction.
#[derive(Debug, Clone, Default)]
pub(super) struct Rows {
    documents: BTreeMap<String, BTreeMap<Uuid, Row>>,
    /// The table `plain (id, v)`.
    plain: BTreeMap<i64, i64>,
}

/// What is written to a table.
#[derive(Debug)]
enum Write<'a> {
    /// A row is there now; its fields are not known where the log leaves out what was left alone.
    Put {
        ids: Vec<Uuid>,
        is_new: bool,
        data: Option<&'a str>,
        creation_time: f64,
    },
    Gone(Uuid),
    All,
}

/// What the tables are called, and how they are numbered and indexed.
#[derive(Debug, Clone)]
pub(super) struct Catalog {
    pub(super) numbers: BTreeMap<String, u32>,
}

/// A query of the component `plans` with its arguments.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Question {
    pub(super) path: String,
    pub(super) args: Value,
}

pub(super) const COUNT_PLAIN: &str = "select count(*)::int as count, coalesce(sum(v), 0)::int as sum from plain";
pub(super) const COUNT_THINGS: &str = "select count(*)::int as count from things where data->>'kind' = 'a'";

impl Rows {
    pub(super) fn apply(&mut self, transaction: &Transaction) {
        for change in &transaction.changes {
            let relation = &change.relation;
            if relation.schema != "demo" {
                continue;
            }
            if relation.name == "plain" {
                self.apply_plain(relation, &change.kind);
                continue;
            }
            let table = self.documents.entry(relation.name.clone()).or_default();
            match &change.kind {
                ChangeKind::Insert { new } => put(table, relation, None, new),
                ChangeKind::Update { old, new } => put(table, relation, old.as_ref(), new),
                ChangeKind::Delete { old } => drop(table.remove(&uuid(relation, tuple(old)))),
                ChangeKind::Truncate => table.clear(),
                ChangeKind::Unlisted => panic!("a transaction that is too large for this test"),
            }
        }
    }

    fn apply_plain(&mut self, relation: &Relation, kind: &ChangeKind) {
        let number = |tuple: &Tuple, name: &str| text(relation, tuple, name).expect("a value").parse::<i64>();
        let number = |tuple: &Tuple, name: &str| number(tuple, name).expect("a number");
        match kind {
            ChangeKind::Insert { new } | ChangeKind::Update { new, .. } => {
                self.plain.insert(number(new, "id"), number(new, "v"));
            }
            ChangeKind::Delete { old } => drop(self.plain.remove(&number(tuple(old), "id"))),
            ChangeKind::Truncate => self.plain.clear(),
            ChangeKind::Unlisted => panic!("a transaction that is too large for this test"),
        }
    }

    pub(super) fn documents(&self, table: &str) -> Vec<(Uuid, Value)> {
        self.table(table).map(|row| (row.id, Value::Object((*row.data).clone()))).collect()
    }

    fn table(&self, name: &str) -> impl Iterator<Item = &Row> {
        self.documents.get(name).into_iter().flat_map(BTreeMap::values)
    }

    /// What a question has to give.
    pub(super) fn answer(&self, question: &Question, catalog: &Catalog) -> Value {
        let args = &question.args;
        match question.path.as_str() {
            "plans:point" => {
                let table = args["table"].as_str().expect("a table");
                let id = DocumentId::parse(args["id"].as_str().expect("an id")).expect("an id");
                let row = self.documents.get(table).and_then(|rows| rows.get(&id.uuid));
                row.map_or(Value::Null, |row| row.json(catalog.numbers[table], None))
            }
            "plans:pair" => json!([self.run(&args["first"], catalog), self.run(&args["second"], catalog)]),
            "plans:by_sql" => match args["statement"].as_str().expect("a statement") {
                COUNT_PLAIN => json!([{ "count": self.plain.len(), "sum": self.plain.values().sum::<i64>() }]),
                COUNT_THINGS => {
                    let count = self.table("things").filter(|row| row.data.get("kind") == Some(&json!("a"))).count();
                    json!([{ "count": count }])
                }
                other => panic!("{other}"),
            },
            _ => self.run(&args["plan"], catalog),
        }
    }

    fn run(&self, plan: &Value, catalog: &Catalog) -> Value {
        let plan = Plan::parse(&plan.to_string()).expect("a plan");
        let mut rows: Vec<&Row> = self.table(&plan.table).filter(|row| row.is_selected(&plan)).collect();
        if !plan.aggregate.is_empty() {
            return aggregate(&plan, &rows);
        }
        rows.sort_by(|a, b| order(&plan, a, b));
        let limit = plan.limit.map_or(usize::MAX, |limit| limit as usize);
        let number = catalog.numbers[&plan.table];
        let rows = rows.into_iter().skip(plan.offset.unwrap_or(0) as usize).take(limit);
        let found: Vec<Value> = rows.map(|row| row.json(number, plan.fields.as_deref())).collect();
        match plan.page {
            // A page that is full may be the last one all the same: nobody has looked behind it.
            Some(_) => json!({ "isDone": found.len() < limit, "page": found }),
            None => Value::Array(found),
        }
    }
}

/// What became of each row, and by which transaction; none where it was gone.
#[derive(Debug, Default)]
pub(super) struct History(BTreeMap<(String, Uuid), Vec<Became>>);

/// What a transaction left of a row.
type Became = (u32, Option<Row>);

/// The rows that a snapshot has.
#[derive(Debug)]
pub(super) struct Before<'a> {
    pub(super) history: &'a History,
    pub(super) snapshot: &'a Snapshot,
}

impl History {
    pub(super) fn of<'a>(transactions: impl Iterator<Item = &'a Transaction>) -> Self {
        let mut history = Self::default();
        let mut rows = Rows::default();
        for transaction in transactions {
            rows.apply(transaction);
            for change in &transaction.changes {
                let table = &change.relation.name;
                if change.relation.schema != "demo" || table == "plain" {
                    continue;
                }
                let ids: Vec<Uuid> = match writes(change) {
                    Write::Put { ids, .. } => ids,
                    Write::Gone(id) => vec![id],
                    Write::All => history.0.keys().filter(|(of, _)| of == table).map(|(_, id)| *id).collect(),
                };
                for id in ids {
                    // As the whole transaction leaves it.
                    let row = rows.documents.get(table).and_then(|rows| rows.get(&id)).cloned();
                    history.0.entry((table.clone(), id)).or_default().push((transaction.xid, row));
                }
            }
        }
        history
    }
}

impl Before<'_> {
    /// A row that is in the snapshot.
    fn row(&self, table: &str, id: Uuid) -> Row {
        let changes = self.history.0.get(&(table.to_owned(), id)).into_iter().flatten();
        let mut contained = changes.rev().filter(|(xid, _)| self.snapshot.contains_xid(*xid));
        contained.next().and_then(|(_, row)| row.clone()).expect("a row that a result shows")
    }
}

impl Row {
    fn json(&self, table: u32, wanted: Option<&[String]>) -> Value {
        let mut fields = (*self.data).clone();
        fields.retain(|name, _| wanted.is_none_or(|wanted| wanted.contains(name)));
        fields.insert("_id".to_owned(), json!(DocumentId { table, uuid: self.id }.to_string()));
        fields.insert("_creationTime".to_owned(), json!(self.creation_time));
        Value::Object(fields)
    }

    fn is_selected(&self, plan: &Plan) -> bool {
        self.is_in_range(plan) && plan.filter.as_ref().is_none_or(|filter| self.passes(filter))
    }

    fn is_in_range(&self, plan: &Plan) -> bool {
        plan.conditions.iter().all(|condition| self.holds(condition))
    }

    fn key(&self, field: &str) -> Vec<u8> {
        match field {
            "_creationTime" => ordered_time(self.creation_time).to_vec(),
            field => key(self.data.get(field)),
        }
    }

    fn holds(&self, condition: &Condition) -> bool {
        let found = self.key(&condition.field);
        let wanted = |value: &Value| match condition.field.as_str() {
            "_creationTime" => ordered_time(value.as_f64().expect("a number")).to_vec(),
            _ => condition_key(value),
        };
        let ordering = |value: &Value| found.cmp(&wanted(value));
        match condition.op {
            Operator::In => condition.value.as_array().expect("a list").iter().any(|value| ordering(value).is_eq()),
            Operator::Eq => ordering(&condition.value).is_eq(),
            Operator::Ne => ordering(&condition.value).is_ne(),
            Operator::Lt => ordering(&condition.value).is_lt(),
            Operator::Lte => ordering(&condition.value).is_le(),
            Operator::Gt => ordering(&condition.value).is_gt(),
            Operator::Gte => ordering(&condition.value).is_ge(),
        }
    }

    fn passes(&self, filter: &Filter) -> bool {
        match filter {
            Filter::And { and } => and.iter().all(|part| self.passes(part)),
            Filter::Or { or } => or.iter().any(|part| self.passes(part)),
            Filter::Not { not } => !self.passes(not),
            Filter::Compare(condition) => self.holds(condition),
        }
    }
}

/// The order of a plan's rows.
fn order(plan: &Plan, a: &Row, b: &Row) -> Ordering {
    let mut ordering = Ordering::Equal;
    for field in &index_of(plan).fields {
        let fields = a.key(&field.name).cmp(&b.key(&field.name));
        ordering = ordering.then(if field.order == Order::Desc { fields.reverse() } else { fields });
    }
    let ordering = ordering.then(a.creation_time.total_cmp(&b.creation_time)).then(a.id.cmp(&b.id));
    if plan.order == Order::Desc { ordering.reverse() } else { ordering }
}

/// The indexes that the component `plans` declares.
fn index_of(plan: &Plan) -> Index {
    let descending = |name: &str| IndexField { name: name.to_owned(), order: Order::Desc };
    let fields = match plan.index.as_deref() {
        None | Some("by_creation_time") => Vec::new(),
        Some("by_kind") => vec![IndexField::ascending("kind"), IndexField::ascending("rank")],
        Some("by_rank") => vec![descending("rank")],
        Some("by_mixed") => vec![IndexField::ascending("kind"), descending("rank")],
        Some("by_n") => vec![IndexField::ascending("n")],
        Some(other) => panic!("no index {other}"),
    };
    Index { name: plan.index.clone().unwrap_or_default(), fields, unique: false }
}

fn aggregate(plan: &Plan, rows: &[&Row]) -> Value {
    let values = plan.aggregate.iter().map(|aggregate| {
        let values = || rows.iter().filter_map(|row| row.data.get(aggregate.field.as_deref().unwrap_or_default()));
        match aggregate.op {
            AggregateOperator::Count => json!(rows.len()),
            AggregateOperator::Sum => json!(values().filter_map(Value::as_i64).sum::<i64>()),
            AggregateOperator::Min => json!(values().min_by_key(|value| key(Some(value)))),
            AggregateOperator::Max => json!(values().max_by_key(|value| key(Some(value)))),
            AggregateOperator::Avg => panic!("not asked for here"),
        }
    });
    values.collect()
}

/// Whether a transaction wrote into what a question read, when it gave this result. The rule, which
/// the documentation of the crate `convoke-live` explains:
///
/// - a document by its id: that document;
/// - a range: the rows that it gave, and whatever is put between its beginning and its last row, or its end where it
///   was not cut short by a limit; the filter does not narrow it, and several ranges (`in`) are not cut short;
/// - a range of which some fields are given: as any range, but for rows that it gave and that have the same fields, in
///   those that are given, those of the index and those of the filter, at the same time;
/// - an aggregate or an offset: any row that is changed or removed, and whatever is put into the range;
/// - SQL: anything in a table that it names.
pub(super) fn concerns(transaction: &Transaction, question: &Question, result: &Value, before: &Before<'_>) -> bool {
    let args = &question.args;
    let concerns_plan = |change: &Change, plan: &Value, result: &Value| concerns_plan(change, plan, result, before);
    transaction.changes.iter().filter(|change| change.relation.schema == "demo").any(|change| {
        match question.path.as_str() {
            "plans:point" => {
                let id = DocumentId::parse(args["id"].as_str().expect("an id")).expect("an id").uuid;
                change.relation.name == args["table"].as_str().expect("a table")
                    && match writes(change) {
                        Write::Put { ids, .. } => ids.contains(&id),
                        Write::Gone(gone) => gone == id,
                        Write::All => true,
                    }
            }
            "plans:pair" => {
                concerns_plan(change, &args["first"], &result[0]) || concerns_plan(change, &args["second"], &result[1])
            }
            "plans:by_sql" => args["statement"].as_str().expect("a statement").contains(&change.relation.name),
            "plans:page" | "plans:page_of_fields" => concerns_plan(change, &args["plan"], &result["page"]),
            _ => concerns_plan(change, &args["plan"], result),
        }
    })
}

fn concerns_plan(change: &Change, plan: &Value, result: &Value, before: &Before<'_>) -> bool {
    let plan = Plan::parse(&plan.to_string()).expect("a plan");
    if change.relation.name != plan.table {
        return false;
    }
    let unknown = !plan.aggregate.is_empty() || plan.offset.is_some();
    let given: Vec<Row> = match result {
        Value::Array(documents) if plan.aggregate.is_empty() => documents.iter().map(given).collect(),
        _ => Vec::new(),
    };
    // What is given in part was looked at in more.
    let given: Vec<Row> = match &plan.fields {
        Some(_) => given.iter().map(|row| before.row(&plan.table, row.id)).collect(),
        None => given,
    };
    let ids: BTreeSet<Uuid> = given.iter().map(|row| row.id).collect();
    match writes(change) {
        Write::All => true,
        Write::Gone(id) => unknown || ids.contains(&id),
        Write::Put { ids: put, is_new: false, data, creation_time }
            if !unknown
                && plan.fields.is_some()
                && given.iter().any(|row| put == [row.id] && row.looks_as(&plan, data, creation_time)) =>
        {
            false
        }
        Write::Put { ids: put, is_new, data, creation_time } => {
            if (unknown && !is_new) || put.iter().any(|id| ids.contains(id)) {
                return true;
            }
            let index = index_of(&plan);
            let data = match data {
                Some(data) => serde_json::from_str(data).expect("a document"),
                // Its place is known by the time alone, or not at all.
                None if index.fields.is_empty() => Map::new(),
                None => return true,
            };
            let row = Row { id: put[0], creation_time, data: Arc::new(data) };
            let several = plan.conditions.iter().any(|condition| condition.op == Operator::In);
            let is_full = plan.limit.is_some_and(|limit| limit as usize == given.len());
            let last = given.last().filter(|_| is_full && !several);
            // The guest's JSON keeps a time to the last digit but one.
            let is_before = |last: &Row| order(&plan, &row, last).is_le() || row.is_beside(last, &index);
            row.is_in_range(&plan) && last.is_none_or(is_before)
        }
    }
}

impl Row {
    /// Whether what a plan looks at is the same in a row as it was written; what was left alone is.
    fn looks_as(&self, plan: &Plan, data: Option<&str>, creation_time: f64) -> bool {
        let index = index_of(plan);
        let mut fields: BTreeSet<&str> = plan.fields.iter().flatten().map(String::as_str).collect();
        fields.extend(index.fields.iter().map(|field| field.name.as_str()));
        plan.filter.iter().for_each(|filter| fields_of(filter, &mut fields));
        let data = data.map(|data| serde_json::from_str::<Map<String, Value>>(data).expect("a document"));
        let is_same = |data: &Map<String, Value>| fields.iter().all(|name| data.get(*name) == self.data.get(*name));
        self.creation_time.to_bits() == creation_time.to_bits() && data.as_ref().is_none_or(is_same)
    }

    fn is_beside(&self, other: &Self, index: &Index) -> bool {
        index.fields.iter().all(|field| self.key(&field.name) == other.key(&field.name))
            && (self.creation_time - other.creation_time).abs() < TIME_ERROR
    }
}

fn fields_of<'a>(filter: &'a Filter, fields: &mut BTreeSet<&'a str>) {
    match filter {
        Filter::And { and: parts } | Filter::Or { or: parts } => parts.iter().for_each(|part| fields_of(part, fields)),
        Filter::Not { not } => fields_of(not, fields),
        Filter::Compare(condition) => fields.extend(condition.field.split('.').next()),
    }
}

/// A document that a question gave, as a row.
fn given(document: &Value) -> Row {
    let mut fields = document.as_object().expect("a document").clone();
    let id = fields.remove("_id").expect("an id");
    let creation_time = fields.remove("_creationTime").and_then(|time| time.as_f64()).expect("a time");
    let id = DocumentId::parse(id.as_str().expect("a text")).expect("an id").uuid;
    Row { id, creation_time, data: Arc::new(fields) }
}

const TIME_ERROR: f64 = 0.01;

/// Whether two results are the same; times are compared less than exactly, as a guest's JSON may change the last digit,
/// and a page's cursors not at all.
pub(super) fn same(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Number(found), Value::Number(wanted)) => {
            found == wanted
                || found
                    .as_f64()
                    .zip(wanted.as_f64())
                    .is_some_and(|(found, wanted)| (found - wanted).abs() < TIME_ERROR)
        }
        (Value::Array(found), Value::Array(wanted)) => {
            found.len() == wanted.len() && found.iter().zip(wanted).all(|(found, wanted)| same(found, wanted))
        }
        (Value::Object(found), Value::Object(wanted)) => {
            let counts = |name: &String| name != "continueCursor" && name != "splitCursor";
            found.keys().filter(|name| counts(name)).count() == wanted.len()
                && wanted.iter().all(|(name, wanted)| found.get(name).is_some_and(|found| same(found, wanted)))
        }
        (found, wanted) => found == wanted,
    }
}

fn writes(change: &Change) -> Write<'_> {
    let relation = &change.relation;
    if relation.name == "plain" {
        return Write::All;
    }
    match &change.kind {
        ChangeKind::Insert { new } => Write::put(relation, vec![uuid(relation, new)], true, new),
        ChangeKind::Update { old, new } => {
            let old = old.as_ref().map(|old| uuid(relation, tuple(old)));
            let ids = [Some(uuid(relation, new)), old].into_iter().flatten().collect();
            Write::put(relation, ids, false, new)
        }
        ChangeKind::Delete { old } => Write::Gone(uuid(relation, tuple(old))),
        ChangeKind::Truncate | ChangeKind::Unlisted => Write::All,
    }
}

fn put(table: &mut BTreeMap<Uuid, Row>, relation: &Relation, old: Option<&OldRow>, new: &Tuple) {
    let id = uuid(relation, new);
    let before = table.remove(&old.map_or(id, |old| uuid(relation, tuple(old))));
    let creation_time = creation_time(relation, new);
    let data = match text(relation, new, "data") {
        Some(data) => Arc::new(serde_json::from_str(data).expect("a document")),
        None => before.expect("the row whose fields were left alone").data,
    };
    table.insert(id, Row { id, creation_time, data });
}

impl<'a> Write<'a> {
    fn put(relation: &Relation, ids: Vec<Uuid>, is_new: bool, new: &'a Tuple) -> Self {
        Self::Put { ids, is_new, data: text(relation, new, "data"), creation_time: creation_time(relation, new) }
    }
}

fn creation_time(relation: &Relation, tuple: &Tuple) -> f64 {
    text(relation, tuple, "_creation_time").expect("a time").parse().expect("a number")
}

fn tuple(old: &OldRow) -> &Tuple {
    match old {
        OldRow::Key(tuple) | OldRow::Full(tuple) => tuple,
    }
}

fn uuid(relation: &Relation, tuple: &Tuple) -> Uuid {
    text(relation, tuple, "_id").expect("an id").parse().expect("a UUID")
}

fn text<'a>(relation: &Relation, tuple: &'a Tuple, name: &str) -> Option<&'a str> {
    let at = relation.columns.iter().position(|column| column.name == name).expect("a column");
    match &tuple[at] {
        Column::Text(bytes) => Some(std::str::from_utf8(bytes).expect("UTF-8")),
        Column::Null | Column::Unchanged => None,
    }
}
