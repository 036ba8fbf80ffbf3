//! Every example of docs/reference/database.md, run.

use serde_json::{Value, json};

use crate::harness::{Answer, TestHost, run};

/// A host of the library, with the table that another program owns.
async fn library() -> TestHost {
    let host = TestHost::start(&[]).await;
    let psql = host.psql().await;
    psql.batch_execute(
        "create schema if not exists demo; create table demo.legacy_orders (id bigint primary key, supplier text not null)",
    )
    .await
    .expect("a table");
    host.deploy(&["library=database-reference"]).await.expect("a deployment");
    host
}

async fn query(host: &TestHost, function: &str, args: Value) -> Value {
    host.query(&format!("library:{function}"), args).await.data().clone()
}

async fn mutation(host: &TestHost, function: &str, args: Value) -> Value {
    try_mutation(host, function, args).await.data().clone()
}

async fn try_mutation(host: &TestHost, function: &str, args: Value) -> Answer {
    host.mutation(&format!("library:{function}"), args).await
}

fn book(isbn: i64, title: &str, genre: &str, year: u32, price: f64) -> Value {
    json!({ "isbn": isbn, "title": title, "genre": genre, "year": year, "price": price })
}

fn titles(books: &Value) -> Vec<&str> {
    books.as_array().expect("books").iter().map(|book| book["title"].as_str().expect("a title")).collect()
}

/// Four books; their ids in that order.
async fn fill(host: &TestHost) -> Vec<String> {
    let books = [
        book(9_007_199_254_740_993, "Dune", "sf", 1965, 9.5),
        book(2, "Emma", "novel", 1815, 5.25),
        book(3, "Solaris", "sf", 1961, 7.0),
        book(4, "Ubik", "sf", 1969, 12.0),
    ];
    let ids = mutation(host, "add_books", json!({ "books": books })).await;
    ids.as_array().expect("ids").iter().map(|id| id.as_str().expect("an id").to_owned()).collect()
}

#[test]
fn reads() {
    run(async {
        let host = library().await;
        let ids = fill(&host).await;
        let dune = query(&host, "book", json!({ "id": ids[0] })).await;
        assert_eq!((&dune["isbn"], &dune["copies"]), (&json!(9_007_199_254_740_993_i64), &json!(1)));
        let some = query(&host, "books_of", json!({ "ids": [ids[2], ids[1], ids[2]] })).await;
        assert_eq!(titles(&some), ["Solaris", "Emma", "Solaris"]);
        assert_eq!(titles(&query(&host, "all_books", json!({})).await), ["Dune", "Emma", "Solaris", "Ubik"]);
        assert_eq!(titles(&query(&host, "shelves", json!({})).await), ["Emma", "Ubik", "Dune", "Solaris"]);
        assert_eq!(titles(&query(&host, "genre", json!({ "genre": "sf" })).await), ["Ubik", "Dune", "Solaris"]);
        let between = json!({ "genre": "sf", "from": 1961, "to": 1969 });
        assert_eq!(titles(&query(&host, "between", between).await), ["Solaris", "Dune"]);
        let since = dune["_creationTime"].clone();
        assert_eq!(titles(&query(&host, "added_since", json!({ "ms": since })).await), ["Emma", "Solaris", "Ubik"]);
        let genres = json!({ "genres": ["novel", "verse", "sf"] });
        assert_eq!(titles(&query(&host, "genres", genres).await), ["Emma", "Ubik", "Dune", "Solaris"]);
        assert_eq!(titles(&query(&host, "newest", json!({ "count": 2 })).await), ["Ubik", "Solaris"]);
        let bargains = json!({ "genre": "sf", "below": 9.0 });
        assert_eq!(titles(&query(&host, "bargains", bargains).await), ["Solaris"]);
        let spines = query(&host, "spines", json!({ "genre": "sf" })).await;
        assert_eq!(titles(&spines), ["Ubik", "Dune", "Solaris"]);
        let [_, dune_spine, _] = spines.as_array().expect("spines").as_slice() else { panic!("{spines}") };
        let expected = json!({ "_id": ids[0], "_creationTime": dune["_creationTime"], "title": "Dune", "year": 1965 });
        assert_eq!(*dune_spine, expected);
        assert_eq!(query(&host, "without_subtitle", json!({})).await.as_array().map(Vec::len), Some(4));
        assert_eq!(titles(&query(&host, "after_the_first", json!({ "skipped": 3 })).await), ["Ubik"]);
        assert_eq!(query(&host, "count", json!({ "genre": "sf" })).await, 3);
        assert_eq!(query(&host, "prices", json!({})).await, json!([33.75, 8.4375]));
        assert_eq!(query(&host, "years", json!({ "genre": "sf" })).await, json!([1961, 1969]));
        assert_eq!(query(&host, "years", json!({ "genre": "verse" })).await, json!([null, null]));
        assert_eq!(query(&host, "summary", json!({})).await, json!([4, 33.75, 1969]));
        assert_eq!(query(&host, "count_by_genre", json!({})).await, json!([["novel", 1], ["sf", 3]]));
        assert_eq!(query(&host, "count_by_year", json!({})).await[1], json!([["sf", 1969], 1]));
        assert_eq!(query(&host, "stock", json!({})).await, json!([["novel", [1, 1.0]], ["sf", [3, 3.0]]]));
    });
}

#[test]
fn pages_in_the_form_of_convex() {
    run(async {
        let host = library().await;
        fill(&host).await;
        let (mut found, mut cursor) = (Vec::new(), Value::Null);
        loop {
            let options = json!({ "numItems": 3.0, "cursor": cursor, "id": 1 });
            let page = query(&host, "pages", json!({ "paginationOpts": options })).await;
            found.extend(page["page"].as_array().expect("a page").clone());
            cursor = page["continueCursor"].clone();
            if page["isDone"] == true {
                break;
            }
        }
        assert_eq!(Value::from(found), json!(["Emma", "Ubik", "Dune", "Solaris"]));
        let options = json!({ "numItems": 3, "cursor": "nonsense" });
        let wrong = host.query("library:pages", json!({ "paginationOpts": options })).await;
        assert!(wrong.message().contains("InvalidCursor"), "{wrong:?}");
    });
}

#[test]
fn writes() {
    run(async {
        let host = library().await;
        let ids = fill(&host).await;
        let id = mutation(&host, "add_book", json!({ "book": book(5, "Kindred", "sf", 1979, 8.0) })).await;
        mutation(&host, "reprice", json!({ "id": id, "price": 8.5 })).await;
        mutation(&host, "set_cover", json!({ "id": id, "cover": { "$bytes": "AAH/" } })).await;
        let found = query(&host, "book", json!({ "id": id })).await;
        assert_eq!((&found["price"], &found["cover"]), (&json!(8.5), &json!({ "$bytes": "AAH/" })));
        let mut corrected = book(6, "Kin", "sf", 1979, 1.0);
        corrected["subtitle"] = json!("short");
        mutation(&host, "correct_book", json!({ "id": id, "book": corrected })).await;
        assert_eq!(query(&host, "book", json!({ "id": id })).await["subtitle"], "short");
        mutation(&host, "drop_subtitle", json!({ "id": id })).await;
        let found = query(&host, "book", json!({ "id": id })).await;
        assert_eq!((found.get("subtitle"), found.get("cover")), (None, None));
        mutation(&host, "remove_book", json!({ "id": id })).await;
        assert_eq!(query(&host, "book", json!({ "id": id })).await, Value::Null);

        let ann = mutation(&host, "join", json!({ "email": "ann@x.org", "name": "Ann" })).await;
        let loan = mutation(&host, "lend", json!({ "member": ann, "book": ids[0], "due": 5.0 })).await;
        let since = json!({ "book": ids[0], "ms": 0.0 });
        assert_eq!(query(&host, "borrowed_since", since).await[0]["_id"], loan);
        mutation(&host, "renew", json!({ "id": loan, "until": 7.0, "note": "once" })).await;
        mutation(&host, "renew", json!({ "id": loan, "until": 6.0, "note": "twice" })).await;
        let first = query(&host, "first_loan", json!({ "member": ann })).await;
        assert_eq!(
            (&first["renewals"], &first["due"], &first["notes"]),
            (&json!(2), &json!(7.0), &json!(["once", "twice"]))
        );
        assert_eq!(mutation(&host, "fine_late_loans", json!({ "member": ann, "fine": 0.5 })).await, 1);
        assert_eq!(query(&host, "first_loan", json!({ "member": ann })).await["fine"], 0.5);
        assert_eq!(mutation(&host, "forget_returned", json!({ "at_most": 5 })).await, 0);
        let wrong = try_mutation(&host, "lend", json!({ "member": ids[0], "book": ids[0], "due": 5.0 })).await;
        assert!(wrong.message().contains("field `member`: expected an id of table `members`"), "{wrong:?}");
    });
}

#[test]
fn unique_values_and_nested_transactions() {
    run(async {
        let host = library().await;
        fill(&host).await;
        mutation(&host, "join", json!({ "email": "ann@x.org", "name": "Ann" })).await;
        let again = try_mutation(&host, "join", json!({ "email": "ann@x.org", "name": "Other" })).await;
        assert_eq!((again.status, again.code()), (409, "CONFLICT"), "{again:?}");
        assert!(again.message().contains("unique index `by_email`"), "{again:?}");
        let members = json!([
            { "email": "bob@x.org", "name": "Bob" },
            { "email": "ann@x.org", "name": "Ann" },
            { "email": "cid@x.org", "name": "Cid" },
        ]);
        assert_eq!(mutation(&host, "join_all", json!({ "members": members })).await, 2);
        let bob = query(&host, "member_by_email", json!({ "email": "bob@x.org" })).await;
        assert_eq!(bob["name"], "Bob");
        let dear = json!({ "book": book(7, "Gold", "art", 2000, 900.0), "price_at_most": 100.0 });
        assert_eq!(mutation(&host, "try_to_add", dear).await, false);
        let cheap = json!({ "book": book(8, "Tin", "art", 2000, 1.0), "price_at_most": 100.0 });
        assert_eq!(mutation(&host, "try_to_add", cheap).await, true);
        assert_eq!(query(&host, "count", json!({ "genre": "art" })).await, 1);
    });
}

#[test]
fn sql_and_a_table_of_somebody_else() {
    run(async {
        let host = library().await;
        fill(&host).await;
        let worth = query(&host, "worth", json!({ "at_least": 6.0 })).await;
        assert_eq!(worth, json!([{ "genre": "sf", "worth": 28.5 }]));
        assert_eq!(mutation(&host, "raise_prices", json!({ "genre": "novel", "percent": 100 })).await, 1);
        assert_eq!(query(&host, "prices", json!({})).await[0], 39.0);
        mutation(&host, "order", json!({ "id": 12, "supplier": "Ink & Co" })).await;
        let orders = query(&host, "orders", json!({ "supplier": "Ink & Co" })).await;
        assert_eq!(orders, json!([{ "id": 12, "supplier": "Ink & Co" }]));
    });
}

#[test]
fn old_documents_are_read_in_the_new_form() {
    run(async {
        let host = library().await;
        let psql = host.psql().await;
        psql.batch_execute(
            "insert into demo.members (data, _version) values ('{\"email\":\"old@x.org\",\"first\":\"Old\",\"last\":\"Hand\"}', 1)",
        )
        .await
        .expect("a row");
        let found = query(&host, "member_by_email", json!({ "email": "old@x.org" })).await;
        assert_eq!((&found["name"], found.get("first")), (&json!("Old Hand"), None));
        assert_eq!(query(&host, "name_of", json!({ "email": "old@x.org" })).await, "Old Hand");
    });
}

#[test]
fn old_documents_are_written_anew_in_the_background() {
    run(async {
        let host = library().await;
        let psql = host.psql().await;
        psql.batch_execute(
            "insert into demo.members (data, _version) select jsonb_build_object('email', n || '@x.org', 'first', 'N', \
             'last', n::text), 1 from generate_series(1, 1000) n; \
             insert into demo.members (data, _version) values ('{\"email\":\"never@x.org\"}', 0)",
        )
        .await
        .expect("rows");
        // The work begins with a deployment, which waits for none of it.
        host.deploy(&["library=database-reference", "messages"]).await.expect("a deployment");
        let left = "select count(*) from demo.members where _version < 2";
        for _ in 0..200 {
            let count: i64 = psql.query_one(left, &[]).await.expect("a count").get(0);
            if count == 1 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        let count: i64 = psql.query_one(left, &[]).await.expect("a count").get(0);
        assert_eq!(count, 1, "what cannot be brought up to date stays as it is");
        let row = psql.query_one("select data::text from demo.members where data->>'email' = '7@x.org'", &[]).await;
        let data: Value = serde_json::from_str(&row.expect("a row").get::<_, String>(0)).expect("JSON");
        assert_eq!(data, json!({ "email": "7@x.org", "name": "N 7" }));
        let email = query(&host, "member_by_email", json!({ "email": "7@x.org" })).await;
        assert_eq!(email["name"], "N 7");
    });
}

#[test]
fn ids_of_conditions_are_ids_of_their_table() {
    run(async {
        let host = library().await;
        let member = host.mutation("library:join", json!({ "email": "a@b.c", "name": "Ann" })).await;
        let member = member.data().as_str().expect("an id").to_owned();
        let found = host.query("library:first_loan", json!({ "member": member })).await;
        assert_eq!(found.data(), &Value::Null);
        let uuid = convoke_model::DocumentId::parse(&member).expect("an id").uuid;
        let foreign = convoke_model::DocumentId { table: 1, uuid }.to_string();
        for (id, words) in [(foreign.as_str(), "belongs to another table"), ("nobody", "`nobody` is not an id")] {
            let refused = host.query("library:first_loan", json!({ "member": id })).await;
            assert_eq!((refused.status, refused.code()), (400, "INVALID_ARGS"), "{refused:?}");
            assert!(refused.message().contains("field `member` holds ids of table `members`"), "{refused:?}");
            assert!(refused.message().contains(words), "{refused:?}");
        }
    });
}
