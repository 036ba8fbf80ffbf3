//! Documents over rows that no database gave.

use std::collections::VecDeque;
use std::sync::Arc;

use convoke_documents::{Birth, Documents, Packet, Project, Purpose, Row, Rows, Source, Unmanaged, Write};
use convoke_model::{
    Code, CursorKey, DatabaseError, DocumentId, Failure, Ids, Limits, Read, Schema, Table, TableManifest, Tables,
};
use convoke_sql::Statement;
use futures_util::FutureExt;
use serde_json::{Value, json};
use uuid::Uuid;

const NOW_MS: f64 = 1000.0;

/// A source that gives prepared answers and notes what it was asked. Its clock stands still.
#[derive(Debug, Default)]
struct Script {
    answers: VecDeque<Result<Vec<Fake>, DatabaseError>>,
    reads: Vec<String>,
    written: Vec<Packet>,
    unmanaged: Vec<Unmanaged>,
    births: u128,
}

#[derive(Debug, Clone)]
struct Fake {
    id: Uuid,
    creation_time: f64,
    data: String,
}

#[derive(Debug)]
struct Answer(Vec<Fake>);

impl Row for Fake {
    fn uuid(&self, column: usize) -> Result<Uuid, DatabaseError> {
        if column == 0 { Ok(self.id) } else { Err(Failure::internal("no uuid").into()) }
    }

    fn float(&self, column: usize) -> Result<f64, DatabaseError> {
        if column == 1 { Ok(self.creation_time) } else { Err(Failure::internal("no float").into()) }
    }

    fn int(&self, _: usize) -> Result<i32, DatabaseError> {
        Err(Failure::internal("no integer").into())
    }

    fn big_int(&self, _: usize) -> Result<i64, DatabaseError> {
        Ok(self.data.parse().expect("a count"))
    }

    fn optional_json(&self, column: usize) -> Result<Option<&str>, DatabaseError> {
        Ok((column == 2).then_some(&self.data))
    }
}

impl Rows for Answer {
    type Row = Fake;

    fn rows(&self) -> &[Fake] {
        &self.0
    }
}

impl Source for Script {
    type Rows = Answer;

    fn check_usable(&self) -> Result<(), DatabaseError> {
        Ok(())
    }

    async fn write(&mut self, packet: Packet) -> Result<(), DatabaseError> {
        self.written.push(packet);
        Ok(())
    }

    async fn read(&mut self, packet: Packet, read: Statement) -> Result<Answer, DatabaseError> {
        self.written.push(packet);
        self.reads.push(read.text);
        self.answers.pop_front().unwrap_or_else(|| Ok(Vec::new())).map(Answer)
    }

    async fn read_kept(&mut self, _: &Table, read: Statement) -> Result<Answer, DatabaseError> {
        self.read(Packet::default(), read).await
    }

    async fn run_unmanaged(
        &mut self,
        _: &Table,
        _: Packet,
        statement: Unmanaged,
    ) -> Result<Vec<String>, DatabaseError> {
        self.unmanaged.push(statement);
        Ok(Vec::new())
    }

    fn birth(&mut self) -> Birth {
        self.births += 1;
        Birth { id: Uuid::from_u128(self.births), now_ms: NOW_MS }
    }
}

fn documents(purpose: Purpose) -> Documents<Script> {
    let manifests: Vec<TableManifest> = serde_json::from_value(json!([
        { "name": "messages", "indexes": [{ "name": "by_n", "fields": ["n"] }] },
        { "name": "people", "unmanaged": { "key": "name" } },
    ]))
    .expect("manifests");
    let mut schema = Schema::merge([("test", manifests.as_slice())]).expect("a schema");
    for (number, table) in schema.tables.values_mut().enumerate() {
        table.number = u32::try_from(number).expect("few tables") + 10_001;
    }
    let tables = Arc::new(Tables::new(schema).expect("forms"));
    let limits = Limits { rows_max: 3, ..Limits::default() };
    let project = Project { name: "demo".to_owned(), limits, cursor_key: CursorKey::new([7; 32]) };
    Documents::new(Script::default(), Arc::new(project), tables, purpose, None)
}

fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("a script answers at once")
}

fn row(id: u128, data: &str) -> Fake {
    Fake { id: Uuid::from_u128(id), creation_time: 5.0, data: data.to_owned() }
}

fn id(documents: &mut Documents<Script>) -> DocumentId {
    let id = now(documents.insert_document("messages", "{}")).expect("an id");
    DocumentId::parse(&id).expect("an id")
}

fn refusal(error: DatabaseError) -> Failure {
    match error {
        DatabaseError::Refused(failure) => failure,
        other => panic!("no refusal: {other:?}"),
    }
}

#[test]
fn a_document_is_read_and_the_read_is_noted() {
    let table = id(&mut documents(Purpose::Write)).table;
    let mut documents = documents(Purpose::Note { journal: None });
    let wanted = DocumentId { table, uuid: Uuid::from_u128(9) };
    documents.source.answers.push_back(Ok(vec![row(9, r#"{"n": 1.50}"#)]));
    let text = now(documents.get_document("messages", &wanted.to_string())).expect("an answer");
    assert_eq!(text, Some(format!(r#"{{"_id":"{wanted}","_creationTime":5,"n": 1.50}}"#)));
    assert_eq!(documents.take_noted().reads.reads, [Read::Document { table, id: wanted.uuid }]);

    assert_eq!(now(documents.get_document("messages", &wanted.to_string())), Ok(None));
    assert_eq!(documents.take_noted().reads.reads.len(), 1, "that it is missing was read too");
}

#[test]
fn what_is_no_id_of_the_table_is_refused_without_asking() {
    let mut documents = documents(Purpose::Read);
    let foreign = DocumentId { table: 20_000, uuid: Uuid::nil() }.to_string();
    for wrong in ["", "nothing", &foreign] {
        let error = now(documents.get_document("messages", wrong)).expect_err("no id");
        assert_eq!(refusal(error).code, Code::InvalidArgs);
    }
    assert!(documents.source.reads.is_empty());
}

#[test]
fn writes_are_data_until_a_read_could_see_them() {
    let mut documents = documents(Purpose::Write);
    let (first, second) = (id(&mut documents), id(&mut documents));
    now(documents.patch_document("messages", &first.to_string(), r#"{"n":1}"#)).expect("kept");
    assert!(documents.source.written.is_empty());
    assert_eq!(documents.writes.rows(), 3);
    let [Write::Insert { ids, creation_times, .. }, Write::Update { .. }] = documents.writes.writes() else {
        panic!("other writes: {:?}", documents.writes);
    };
    assert_eq!(*ids, [first.uuid, second.uuid]);
    assert!(creation_times[0] >= NOW_MS && creation_times[0] < creation_times[1], "in order though the clock stands");

    documents.source.answers.push_back(Ok(Vec::new()));
    assert_eq!(now(documents.run_plan(r#"{"table":"messages"}"#)), Ok("[]".to_owned()));
    assert_eq!(documents.source.written[0].statements.len(), 2);
    assert!(documents.writes.is_empty());
}

#[test]
fn pages_follow_each_other() {
    let plan = |cursor: &Value| {
        json!({ "table": "messages", "index": "by_n", "limit": 2, "page": { "cursor": cursor } }).to_string()
    };
    // A run of its own for each page: its text, the statement, and what it read.
    let page = |rows: Vec<Fake>, cursor: &Value| {
        let mut documents = documents(Purpose::Note { journal: None });
        documents.source.answers.push_back(Ok(rows));
        let text = now(documents.run_plan(&plan(cursor))).expect("a page");
        let page: Value = serde_json::from_str(&text).expect("JSON");
        (page, documents.source.reads.remove(0), documents.take_noted().reads.reads.remove(0))
    };
    let (first, statement, one) = page(vec![row(1, r#"{"n":1}"#), row(2, r#"{"n":2}"#)], &Value::Null);
    assert_eq!((&first["isDone"], statement.contains("where")), (&json!(false), false));
    let (second, statement, other) = page(vec![row(3, r#"{"n":3}"#)], &first["continueCursor"]);
    assert_eq!((&second["isDone"], &second["page"][0]["n"]), (&json!(true), &json!(3)));
    assert!(statement.contains("where"));
    let (Read::Range { ranges: one, ids, .. }, Read::Range { ranges: other, .. }) = (&one, &other) else {
        panic!("other reads: {one:?} {other:?}");
    };
    assert_eq!(*ids, Ids::Known(vec![Uuid::from_u128(1), Uuid::from_u128(2)]));
    assert_eq!(one[0].upper.as_ref(), Some(&other[0].lower), "nothing lies between the two, and nothing in both");

    let mut documents = documents(Purpose::Read);
    let error = now(documents.run_plan(&plan(&json!("AAAA")))).expect_err("a forged cursor");
    assert!(refusal(error).message.contains("InvalidCursor"));
}

#[test]
fn a_read_that_fails_was_one_all_the_same() {
    let mut documents = documents(Purpose::Note { journal: None });
    documents.source.answers.push_back(Ok((0..4).map(|id| row(id, "{}")).collect()));
    let error = now(documents.run_plan(r#"{"table":"messages"}"#)).expect_err("too many rows");
    assert!(refusal(error).message.contains("more than 3 documents"));
    assert!(matches!(documents.take_noted().reads.reads.as_slice(), [Read::Range { ids: Ids::Unknown, .. }]));
}

#[test]
fn no_number_of_rows_is_in_the_text_of_a_statement() {
    let mut documents = documents(Purpose::Read);
    for (limit, offset) in [(1, 0), (2, 7)] {
        for table in ["people", "messages"] {
            let plan = json!({ "table": table, "limit": limit, "offset": offset });
            now(documents.run_plan(&plan.to_string())).expect("rows");
        }
    }
    let [one, other] = documents.source.unmanaged.as_slice() else { panic!("two statements") };
    assert_eq!(one.text, other.text);
    assert_eq!((&one.parameters, &other.parameters), (&vec![json!(1), json!(0)], &vec![json!(2), json!(7)]));
    assert_eq!(documents.source.reads[0], documents.source.reads[1]);
}
