//! The index against an oracle that looks at every read of every subscription.

use convoke_model::{Fields, IndexField, Order, Plan, Seen, SeenRows, condition_key};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

const TABLES: u32 = 2;
const ROWS: u128 = 5;
const SUBSCRIPTIONS: u64 = 8;
const RELATIONS: [(&str, &str); 3] = [("public", "a"), ("public", "b"), ("other", "a")];

fn field(name: &str, order: Order) -> IndexField {
    IndexField { name: name.to_owned(), order }
}

/// One of few definitions, in a value of its own: two subscriptions need not share it.
fn index(which: usize) -> Arc<Index> {
    let (name, fields) = match which {
        0 => ("by_creation_time", Vec::new()),
        1 => ("a", vec![field("a", Order::Asc)]),
        2 => ("a_down", vec![field("a", Order::Desc)]),
        3 => ("both", vec![field("a", Order::Asc), field("b", Order::Desc)]),
        // As a deploy may leave it: the same name, other fields.
        _ => ("a", vec![field("b", Order::Asc)]),
    };
    Arc::new(Index { name: name.to_owned(), fields, unique: false })
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![Just(Value::Null), (0i64..3).prop_map(Value::from), "[ab]?".prop_map(Value::from)]
}

fn table() -> impl Strategy<Value = u32> {
    0..TABLES
}

fn row_id() -> impl Strategy<Value = Uuid> {
    (0..ROWS).prop_map(Uuid::from_u128)
}

fn relation() -> impl Strategy<Value = (&'static str, &'static str)> {
    proptest::sample::select(RELATIONS.as_slice())
}

/// Some of an index' fields, and the creation time after all of them.
fn bound(index: Arc<Index>) -> impl Strategy<Value = Position> {
    let most = index.fields.len() + 1;
    (proptest::collection::vec(value(), 0..=most), 0i32..3).prop_map(move |(values, creation_time)| {
        let mut position = Position::default();
        for (value, field) in values.iter().zip(&index.fields) {
            position.push(&condition_key(value), field.order);
        }
        if values.len() > index.fields.len() {
            position.push_creation_time(f64::from(creation_time));
        }
        position
    })
}

/// All that begins with a bound, or what lies between two; the second kind may well be empty.
fn range(index: Arc<Index>) -> impl Strategy<Value = Range> {
    prop_oneof![
        bound(Arc::clone(&index)).prop_map(|at| Range { lower: at.clone(), upper: at.after_prefix() }),
        (bound(Arc::clone(&index)), proptest::option::weighted(0.8, bound(index)))
            .prop_map(|(lower, upper)| Range { lower, upper }),
    ]
}

/// What a range read was given.
#[derive(Debug, Clone)]
enum Given {
    Whole(Vec<Uuid>),
    /// These fields of the rows.
    Part(Vec<&'static str>, Vec<Uuid>),
    Unknown,
}

fn given() -> impl Strategy<Value = Given> {
    let rows = || proptest::collection::vec(row_id(), 0..4);
    let fields = prop_oneof![Just(vec!["c"]), Just(vec!["c", "b"]), Just(vec!["a"])];
    prop_oneof![3 => rows().prop_map(Given::Whole), 5 => (fields, rows()).prop_map(|(fields, rows)| Given::Part(fields, rows)), 1 => Just(Given::Unknown)]
}

/// The rows as a subscription's snapshot has them.
type Rows = BTreeMap<Uuid, Written>;

impl Given {
    fn ids(self, index: &Index, snapshot: &Rows) -> Ids {
        let (fields, rows) = match self {
            Self::Whole(rows) => return Ids::Known(rows),
            Self::Unknown => return Ids::Unknown,
            Self::Part(fields, rows) => (fields, rows),
        };
        let plan = json!({ "table": "t", "fields": fields }).to_string();
        let projection = Plan::parse(&plan).expect("a plan").projection(index).expect("a projection");
        let (newest, older): (Vec<Uuid>, Vec<Uuid>) = rows.into_iter().partition(|id| snapshot[id].is_newest);
        let seen = |id: &Uuid| {
            let Written { creation_time, fields, .. } = &snapshot[id];
            let text = |name: &str| fields.as_ref().and_then(|fields| fields.text(name));
            (*id, projection.seen(*creation_time, text))
        };
        let rows: Vec<(Uuid, Seen)> = newest.iter().map(seen).collect();
        Ids::Seen(Box::new(SeenRows { rows, whole: older, projection }))
    }
}

/// A read, to be made in a snapshot.
#[derive(Debug, Clone)]
enum Plain {
    Range(u32, Arc<Index>, Vec<Range>, Given),
    Other(Read),
}

fn read() -> impl Strategy<Value = Plain> {
    let ranges = (0usize..5).prop_flat_map(|which| {
        let index = index(which);
        (Just(Arc::clone(&index)), proptest::collection::vec(range(index), 0..4))
    });
    prop_oneof![
        4 => (table(), row_id()).prop_map(|(table, id)| Plain::Other(Read::Document { table, id })),
        18 => (table(), ranges, given())
            .prop_map(|(table, (index, ranges), given)| Plain::Range(table, index, ranges, given)),
        2 => relation().prop_map(|(schema, name)| {
            Plain::Other(Read::Relation { schema: schema.to_owned(), name: name.to_owned() })
        }),
        1 => Just(Plain::Other(Read::Everything)),
    ]
}

/// What a subscription read, and the snapshot in which it did.
#[derive(Debug, Clone)]
struct Subscription {
    reads: Arc<ReadSet>,
    snapshot: Rows,
}

fn subscription() -> impl Strategy<Value = Subscription> {
    let rows = proptest::collection::vec(whole_row(), ROWS as usize);
    (rows, proptest::collection::vec(read(), 0..4)).prop_map(|(rows, reads)| {
        let rows = rows.into_iter().zip(0u128..);
        let snapshot: Rows =
            rows.map(|(row, id)| (Uuid::from_u128(id), Written { id: Uuid::from_u128(id), ..row })).collect();
        let read = |read| match read {
            Plain::Other(read) => read,
            Plain::Range(table, index, ranges, given) => {
                let ids = given.ids(&index, &snapshot);
                Read::Range { table, index, ranges, ids }
            }
        };
        let reads = Arc::new(ReadSet { reads: reads.into_iter().map(read).collect() });
        Subscription { reads, snapshot }
    })
}

/// A change that owns what it is about.
#[derive(Debug, Clone)]
enum Change {
    Insert(u32, Written),
    Update(u32, Option<Uuid>, Written),
    Delete(u32, Uuid),
    Truncate(u32),
    Relation(&'static str, &'static str),
    Everything,
}

#[derive(Debug, Clone)]
struct Written {
    id: Uuid,
    creation_time: f64,
    is_newest: bool,
    data: Option<Map<String, Value>>,
    /// The same.
    fields: Option<Fields>,
}

fn whole_row() -> impl Strategy<Value = Written> {
    written().prop_filter("a row has fields", |row| row.data.is_some())
}

fn written() -> impl Strategy<Value = Written> {
    let fields = (proptest::option::of(value()), proptest::option::of(value()), any::<bool>()).prop_map(|(a, b, c)| {
        let fields = [("a", a), ("b", b), ("c", Some(Value::from(c)))].into_iter();
        fields.filter_map(|(name, value)| Some((name.to_owned(), value?))).collect::<Map<_, _>>()
    });
    let data = proptest::option::weighted(0.9, fields);
    (row_id(), 0i32..3, proptest::bool::weighted(0.9), data).prop_map(|(id, creation_time, is_newest, data)| {
        let fields = data.as_ref().map(|data| Fields::parse(&Value::Object(data.clone()).to_string()).expect("fields"));
        Written { id, creation_time: f64::from(creation_time), is_newest, data, fields }
    })
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        8 => (table(), written()).prop_map(|(table, row)| Change::Insert(table, row)),
        8 => (table(), proptest::option::weighted(0.2, row_id()), written())
            .prop_map(|(table, old, row)| Change::Update(table, old, row)),
        6 => (table(), row_id()).prop_map(|(table, id)| Change::Delete(table, id)),
        1 => table().prop_map(Change::Truncate),
        2 => relation().prop_map(|(schema, name)| Change::Relation(schema, name)),
        1 => Just(Change::Everything),
    ]
}

impl Written {
    fn row(&self) -> Row<'_> {
        let Self { id, creation_time, is_newest, .. } = *self;
        Row { id, creation_time, is_newest, data: self.fields.as_ref() }
    }

    /// Whether these fields, and the creation time, are what they were before; what was left alone is.
    fn is_as(&self, before: &Self, fields: &[String]) -> bool {
        let same = |data: &Map<String, Value>| {
            let before = before.data.as_ref().expect("fields");
            fields.iter().all(|name| data.get(name) == before.get(name))
        };
        self.is_newest
            && self.creation_time.total_cmp(&before.creation_time).is_eq()
            && self.data.as_ref().is_none_or(same)
    }

    fn enters(&self, index: &Index, ranges: &[Range]) -> bool {
        let data = match &self.data {
            Some(data) => data.clone(),
            None if index.fields.is_empty() => Map::new(),
            None => return ranges.iter().any(|range| range.upper.as_ref().is_none_or(|upper| *upper > range.lower)),
        };
        let position = Position::of(index, &data, self.creation_time, self.id);
        ranges.iter().any(|range| range.contains(&position))
    }
}

impl Change {
    fn borrowed(&self) -> RowChange<'_> {
        match self {
            Self::Insert(table, row) => RowChange::Insert { table: *table, row: row.row() },
            Self::Update(table, old_id, row) => RowChange::Update { table: *table, old_id: *old_id, row: row.row() },
            Self::Delete(table, id) => RowChange::Delete { table: *table, id: *id },
            Self::Truncate(table) => RowChange::Truncate { table: *table },
            Self::Relation(schema, name) => RowChange::Relation { schema, name },
            Self::Everything => RowChange::Everything,
        }
    }

    /// The row that it updates in place.
    fn updated(&self) -> Option<(u32, &Written)> {
        match self {
            Self::Update(table, old_id, row) if old_id.is_none_or(|old_id| old_id == row.id) => Some((*table, row)),
            _ => None,
        }
    }

    /// Whether a read was given a part of the row that it updates, and the part is as it was.
    fn is_as_seen(&self, read: &Read, of: &Subscription) -> bool {
        let (Some((table, row)), Read::Range { table: read, ids: Ids::Seen(seen), .. }) = (self.updated(), read) else {
            return false;
        };
        let is_given = seen.rows.iter().any(|(id, _)| *id == row.id);
        *read == table && is_given && row.is_as(&of.snapshot[&row.id], seen.projection.fields())
    }

    /// Whether it may change what a subscription's read gave.
    fn concerns(&self, read: &Read, of: &Subscription) -> bool {
        if *read == Read::Everything {
            return true;
        }
        let (table, before, after) = match self {
            Self::Insert(table, row) => (*table, Vec::new(), Some(row)),
            Self::Update(table, old_id, row) => {
                (*table, [Some(row.id), *old_id].into_iter().flatten().collect(), Some(row))
            }
            Self::Delete(table, id) => (*table, vec![*id], None),
            Self::Truncate(table) => {
                return matches!(read, Read::Document { table: of, .. } | Read::Range { table: of, .. } if of == table);
            }
            Self::Relation(schema, name) => {
                return matches!(read, Read::Relation { schema: s, name: n } if s == schema && n == name);
            }
            Self::Everything => return true,
        };
        match read {
            Read::Document { table: of, id } => {
                *of == table && (before.contains(id) || after.is_some_and(|row| row.id == *id))
            }
            Read::Range { table: of, .. } if *of != table => false,
            // Another read of the same fields along the same index says as much of the row.
            Read::Range { index, ids: Ids::Seen(seen), .. }
                if of.reads.reads.iter().any(|other| {
                    let Read::Range { index: along, ids: Ids::Seen(other_seen), .. } = other else { return false };
                    (&index.name, &index.fields, &seen.projection)
                        == (&along.name, &along.fields, &other_seen.projection)
                        && self.is_as_seen(other, of)
                }) =>
            {
                false
            }
            Read::Range { index, ranges, ids, .. } => {
                let leaves = match ids {
                    Ids::Known(ids) => before.iter().any(|id| ids.contains(id)),
                    Ids::Seen(seen) => {
                        let given = seen.rows.iter().map(|(id, _)| id).chain(&seen.whole);
                        given.into_iter().any(|id| before.contains(id))
                    }
                    Ids::Unknown => !before.is_empty(),
                };
                leaves || after.is_some_and(|row| row.enters(index, ranges))
            }
            Read::Relation { .. } | Read::Everything => false,
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Insert(u64, Subscription),
    Remove(u64),
    Change(Change),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..SUBSCRIPTIONS, subscription()).prop_map(|(id, subscription)| Step::Insert(id, subscription)),
        1 => (0..SUBSCRIPTIONS).prop_map(Step::Remove),
        6 => change().prop_map(Step::Change),
    ]
}

/// Whom one change concerns.
fn hits(index: &ReadSetIndex<u64>, change: &RowChange<'_>) -> Hits<u64> {
    let mut hits = Hits::default();
    index.hits(change, &mut hits);
    hits
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_500))]

    #[test]
    fn hits_are_those_that_a_scan_finds(steps in proptest::collection::vec(step(), 1..60)) {
        let mut index = ReadSetIndex::new();
        let mut live: BTreeMap<u64, Subscription> = BTreeMap::new();
        for step in &steps {
            match step {
                Step::Insert(id, subscription) => {
                    index.insert(*id, Arc::clone(&subscription.reads));
                    live.insert(*id, subscription.clone());
                }
                Step::Remove(id) => prop_assert_eq!(index.remove(*id), live.remove(id).is_some()),
                Step::Change(change) => {
                    let found = hits(&index, &change.borrowed());
                    // A gap concerns even those who read nothing.
                    let gap = matches!(change, Change::Everything);
                    let of = |test: &dyn Fn(&Read, &Subscription) -> bool| -> Vec<u64> {
                        let those = live.iter().filter(|(_, of)| of.reads.reads.iter().any(|read| test(read, of)));
                        those.map(|(id, _)| *id).collect()
                    };
                    let changed = if gap {
                        live.keys().copied().collect()
                    } else {
                        of(&|read, of| change.concerns(read, of))
                    };
                    let as_seen = of(&|read, of| change.is_as_seen(read, of));
                    let found_changed: Vec<u64> = found.changed.into_keys().collect();
                    prop_assert_eq!(found_changed, changed, "{:?} of {:?}", change, live);
                    let found_as_seen: Vec<u64> = found.as_seen.into_iter().collect();
                    prop_assert_eq!(found_as_seen, as_seen, "{:?} of {:?}", change, live);
                }
            }
            prop_assert_eq!(index.len(), live.len());
        }
        for id in live.into_keys() {
            index.remove(id);
        }
        prop_assert!(index.is_empty() && index.slots.is_empty());
        prop_assert!(index.tables.is_empty() && index.relations.is_empty() && index.of_everything.is_empty());
    }
}

fn document(table: u32, id: u128) -> Read {
    Read::Document { table, id: Uuid::from_u128(id) }
}

fn whole(ids: Ids) -> Read {
    let ranges = vec![Range { lower: Position::default(), upper: None }];
    Read::Range { table: 1, index: index(1), ranges, ids }
}

#[test]
fn a_hit_says_why() {
    let mut index = ReadSetIndex::new();
    let id = Uuid::from_u128(7);
    for (name, read) in [
        ("document", document(1, 7)),
        ("given", whole(Ids::Known(vec![id]))),
        ("counting", whole(Ids::Unknown)),
        ("elsewhere", document(2, 7)),
        ("anything", Read::Everything),
        ("sql", Read::Relation { schema: "public".to_owned(), name: "t".to_owned() }),
    ] {
        index.insert(name, Arc::new(ReadSet { reads: vec![read] }));
    }
    let why = |change: RowChange<'_>| {
        let mut hits = Hits::default();
        index.hits(&change, &mut hits);
        hits.changed.into_iter().map(|(id, reason)| format!("{id}: {reason}")).collect::<Vec<_>>()
    };
    let data = Fields::parse(r#"{"a": 1}"#).expect("fields");
    let row = Row { id, creation_time: 0.0, is_newest: true, data: Some(&data) };
    let uuid = "00000000-0000-0000-0000-000000000007";
    assert_eq!(
        why(RowChange::Delete { table: 1, id }),
        [
            "anything: may have read anything".to_owned(),
            format!("counting: may have counted in row {uuid} of table 1"),
            format!("document: read document {uuid} of table 1"),
            format!("given: was given row {uuid} of table 1"),
        ]
    );
    assert_eq!(
        why(RowChange::Insert { table: 1, row })[1..],
        [
            format!("counting: row {uuid} lies in a range read of index `a` of table 1"),
            format!("document: read document {uuid} of table 1"),
            format!("given: row {uuid} lies in a range read of index `a` of table 1"),
        ]
    );
    let other = Row { id: Uuid::from_u128(8), data: None, ..row };
    assert_eq!(
        why(RowChange::Update { table: 1, old_id: None, row: other })[2],
        "given: row 00000000-0000-0000-0000-000000000008 may lie in a range read of index `a` of table 1"
    );
    assert_eq!(why(RowChange::Truncate { table: 2 })[1], "elsewhere: read table 2, which was truncated");
    assert_eq!(why(RowChange::Relation { schema: "public", name: "t" })[1], "sql: read relation `public.t`");
    assert_eq!(why(RowChange::Everything)[5], "sql: anything may have been written");
}

#[test]
fn a_transaction_keeps_the_first_reason() {
    let mut index = ReadSetIndex::new();
    index.insert(1, Arc::new(ReadSet { reads: vec![document(1, 1), document(1, 2)] }));
    let mut hits = Hits::default();
    for id in [2, 1] {
        index.hits(&RowChange::Delete { table: 1, id: Uuid::from_u128(id) }, &mut hits);
    }
    assert_eq!(hits.changed, BTreeMap::from([(1, Reason::Document { table: 1, id: Uuid::from_u128(2) })]));
}

#[test]
fn a_crowd_that_leaves_gives_its_memory_back() {
    let mut index = ReadSetIndex::new();
    for id in 0..20_000_u64 {
        index.insert(id, Arc::new(ReadSet { reads: vec![document(1, u128::from(id))] }));
    }
    for id in 100..20_000 {
        index.remove(id);
    }
    let hits = hits(&index, &RowChange::Delete { table: 1, id: Uuid::from_u128(50) });
    assert_eq!(hits.changed.into_keys().collect::<Vec<_>>(), [50]);
    assert!(index.tables[&1].documents.capacity() < 2_000);
}
