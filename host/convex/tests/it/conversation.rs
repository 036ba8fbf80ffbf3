//! A client and a server of random moves talk over a session. The client applies what it hears as Convex' clients do,
//! and checks that it was true.

use std::collections::{BTreeMap, VecDeque};

use convoke_convex::{
    Call, ClientVersion, Command, Committed, Encoded, FunctionError, QueryId, QueryResult, Session, Timestamp,
};
use proptest::prelude::*;
use serde_json::{Value, json};

const PATHS: usize = 4;
/// Few, so that numbers come back.
const QUERIES: u32 = 6;
/// Of the path whose query sometimes fails.
const FAILING: usize = 3;

#[derive(Debug, Clone)]
enum Move {
    Add {
        id: u32,
        path: usize,
    },
    Remove {
        id: u32,
    },
    SignOut,
    Mutate {
        path: usize,
    },
    Act,
    /// The server reads a message.
    Hear,
    /// The client reads a message.
    Listen,
    /// Someone else writes.
    Commit {
        path: usize,
    },
    Begin {
        back: usize,
    },
    Finish,
    Abandon,
    BeginCommit,
    EndMutation {
        fails: bool,
    },
    EndAction,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        3 => (0..QUERIES, 0..PATHS).prop_map(|(id, path)| Move::Add { id, path }),
        2 => (0..QUERIES).prop_map(|id| Move::Remove { id }),
        1 => Just(Move::SignOut),
        2 => (0..PATHS).prop_map(|path| Move::Mutate { path }),
        1 => Just(Move::Act),
        6 => Just(Move::Hear),
        6 => Just(Move::Listen),
        3 => (0..PATHS).prop_map(|path| Move::Commit { path }),
        4 => (0_usize..3).prop_map(|back| Move::Begin { back }),
        4 => Just(Move::Finish),
        1 => Just(Move::Abandon),
        3 => Just(Move::BeginCommit),
        3 => any::<bool>().prop_map(|fails| Move::EndMutation { fails }),
        1 => Just(Move::EndAction),
    ];
    proptest::collection::vec(one, 0..120)
}

fn ts(nanos: u64) -> Timestamp {
    Timestamp::from_nanos(nanos).expect("in bounds")
}

/// The database: what each path's data was after each commit.
#[derive(Debug)]
struct World {
    history: Vec<[u64; PATHS]>,
}

impl World {
    fn latest(&self) -> u64 {
        self.history.len() as u64 - 1
    }

    fn commit(&mut self, path: usize) -> u64 {
        let mut data = self.history[self.history.len() - 1];
        data[path] += 1;
        self.history.push(data);
        self.latest()
    }

    /// Every second write changes nothing that the query shows.
    fn shown(&self, path: usize, at: u64) -> u64 {
        self.history[usize::try_from(at).expect("small")][path] / 2
    }
}

#[derive(Debug)]
struct Plan {
    at: u64,
    queries: Vec<(QueryId, usize)>,
}

#[derive(Debug)]
struct Mutation {
    call: Call,
    committed: Option<u64>,
}

#[derive(Debug)]
struct Server {
    session: Session,
    world: World,
    paths: BTreeMap<QueryId, usize>,
    plan: Option<Plan>,
    mutation: Option<Mutation>,
    actions: Vec<u32>,
    inbox: VecDeque<String>,
    runs: u64,
}

impl Server {
    fn hear(&mut self) -> bool {
        let Some(text) = self.inbox.pop_front() else { return false };
        for command in self.session.receive(&text, 0).expect("the client keeps to the protocol") {
            self.obey(command);
        }
        true
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Subscribe { query_id, path, .. } => {
                self.paths.insert(query_id, path_of(&path));
            }
            Command::Unsubscribe { query_id } => {
                self.paths.remove(&query_id);
            }
            Command::Mutate(call) => {
                assert!(self.mutation.is_none(), "two mutations at a time");
                self.mutation = Some(Mutation { call, committed: None });
            }
            Command::Act(call) => self.actions.push(call.request_id),
            Command::Connected { .. } | Command::SignOut => {}
            Command::Authenticate(token) => panic!("{token:?}"),
        }
    }

    fn begin(&mut self, back: usize) -> bool {
        if !self.session.needs_transition() {
            return false;
        }
        let plan = self.session.begin_transition().expect("needed");
        let most = plan.at_most.map_or(self.world.latest(), Timestamp::nanos).min(self.world.latest());
        let at = most.saturating_sub(back as u64).max(plan.at_least.nanos());
        let queries = plan.queries.iter().map(|id| (*id, self.paths[id])).collect();
        self.plan = Some(Plan { at, queries });
        true
    }

    fn finish(&mut self) -> Option<Vec<String>> {
        let Plan { at, queries } = self.plan.take()?;
        let results: Vec<_> = queries.into_iter().map(|(id, path)| (id, self.result(path, at))).collect();
        let results = results.iter().map(|(id, result)| (*id, result));
        Some(self.session.finish_transition(ts(at), results, None).expect("a lawful transition"))
    }

    fn result(&mut self, path: usize, at: u64) -> QueryResult {
        self.runs += 1;
        let shown = self.world.shown(path, at);
        if path == FAILING && shown % 2 == 1 {
            let message = format!("[Request ID: {:x}] Server Error\n{shown}", self.runs);
            QueryResult::failed(&FunctionError { message, data: None }, &[], None)
        } else {
            QueryResult::updated(&Encoded::from_value(json!(shown)), &[], None)
        }
    }

    fn begin_commit(&mut self) {
        let Some(mutation) = self.mutation.as_mut().filter(|mutation| mutation.committed.is_none()) else { return };
        let latest = ts(self.world.latest());
        self.session.mutation_commits_after(mutation.call.request_id, Some(latest)).expect("it runs");
        mutation.committed = Some(self.world.commit(path_of(&mutation.call.path)));
    }

    fn end_mutation(&mut self, fails: bool) -> Option<String> {
        let mutation = self.mutation.take()?;
        let result = match mutation.committed {
            Some(at) => Ok(Committed { value: Encoded::null(), ts: ts(at) }),
            None if fails => Err(FunctionError { message: "no".to_owned(), data: Some(Encoded::null()) }),
            None => {
                self.mutation = Some(mutation);
                return None;
            }
        };
        let response = self.session.mutation_finished(mutation.call.request_id, &result, &[]).expect("it runs");
        response.next.into_iter().for_each(|next| self.obey(next));
        Some(response.text)
    }
}

fn path_of(path: &str) -> usize {
    path.strip_prefix("m:p").and_then(|number| number.parse().ok()).expect("a path of ours")
}

/// As Convex' clients do it, with what they do not check.
#[derive(Debug, Default)]
struct Client {
    query_set: u32,
    identity: u32,
    /// What it shows: path, and the version with which it was asked for.
    wanted: BTreeMap<QueryId, (usize, u32)>,
    /// The version with which a number was last given up.
    given_up: BTreeMap<QueryId, u32>,
    next_request: u32,
    open: BTreeMap<u32, Option<u64>>,
    version: Value,
    remote: BTreeMap<QueryId, Value>,
    inbox: VecDeque<String>,
}

impl Client {
    fn modify(&mut self, modification: &Value) -> String {
        self.query_set += 1;
        json!({ "type": "ModifyQuerySet", "baseVersion": self.query_set - 1, "newVersion": self.query_set,
                "modifications": [modification] })
        .to_string()
    }

    fn add(&mut self, id: u32, path: usize) -> Option<String> {
        if self.wanted.contains_key(&id) {
            return None;
        }
        self.wanted.insert(id, (path, self.query_set + 1));
        let path = format!("m:p{path}");
        Some(self.modify(&json!({ "type": "Add", "queryId": id, "udfPath": path, "args": [{}] })))
    }

    fn remove(&mut self, id: u32) -> Option<String> {
        self.wanted.remove(&id)?;
        self.given_up.insert(id, self.query_set + 1);
        Some(self.modify(&json!({ "type": "Remove", "queryId": id })))
    }

    fn sign_out(&mut self) -> String {
        self.identity += 1;
        json!({ "type": "Authenticate", "baseVersion": self.identity - 1, "tokenType": "None" }).to_string()
    }

    fn request(&mut self, kind: &str, path: usize) -> String {
        let id = self.next_request;
        self.next_request += 1;
        self.open.insert(id, None);
        json!({ "type": kind, "requestId": id, "udfPath": format!("m:p{path}"), "args": [{}] }).to_string()
    }

    fn listen(&mut self, world: &World) -> bool {
        let Some(text) = self.inbox.pop_front() else { return false };
        let message: Value = serde_json::from_str(&text).expect("JSON");
        match message["type"].as_str() {
            Some("Transition") => self.apply(&message, world),
            Some("MutationResponse") if message["success"] == true => {
                let at = nanos(&message["ts"]);
                assert!(self.shown_ts() < at, "the response comes after the transition that covers it");
                assert_eq!(self.open.insert(request_id(&message), Some(at)), Some(None), "one response a request");
            }
            Some("MutationResponse" | "ActionResponse") => {
                assert_eq!(self.open.remove(&request_id(&message)), Some(None), "one response a request");
            }
            other => panic!("{other:?}"),
        }
        true
    }

    fn shown_ts(&self) -> u64 {
        nanos(&self.version["ts"])
    }

    fn apply(&mut self, transition: &Value, world: &World) {
        assert_eq!(transition["startVersion"], self.version, "the start is where the client is");
        let end = &transition["endVersion"];
        for part in ["querySet", "identity"] {
            assert!(end[part].as_u64() >= self.version[part].as_u64(), "{part} goes back");
        }
        assert!(nanos(&end["ts"]) >= self.shown_ts(), "time goes back");
        for modification in transition["modifications"].as_array().expect("a list") {
            let id = u32::try_from(modification["queryId"].as_u64().expect("a number")).expect("small");
            if modification["type"] == "QueryRemoved" {
                self.remote.remove(&id);
                continue;
            }
            assert!(modification["logLines"].is_array() && modification.get("journal").is_some());
            assert!(modification.get("errorData").is_none());
            let shown = shown(modification);
            assert_ne!(self.remote.insert(id, shown.clone()), Some(shown), "an unchanged result is sent again");
        }
        self.version = end.clone();
        self.open.retain(|_, at| at.is_none_or(|at| at > nanos(&end["ts"])));
        self.check(world);
    }

    /// All that the client shows comes from one snapshot.
    fn check(&self, world: &World) {
        let covered = self.version["querySet"].as_u64().expect("a number");
        let at = self.shown_ts();
        for (id, (path, since)) in &self.wanted {
            if u64::from(*since) <= covered {
                let value = world.shown(*path, at);
                let failed = *path == FAILING && value % 2 == 1;
                let expected = if failed { json!(format!("Server Error\n{value}")) } else { json!(value) };
                assert_eq!(self.remote.get(id), Some(&expected), "query {id} at {at}");
            }
        }
        for id in self.remote.keys() {
            let is_wanted = self.wanted.get(id).is_some_and(|(_, since)| u64::from(*since) <= covered);
            let is_unconfirmed = self.given_up.get(id).is_some_and(|version| u64::from(*version) > covered);
            assert!(is_wanted || is_unconfirmed, "the removal of query {id} is not confirmed");
        }
    }
}

fn shown(modification: &Value) -> Value {
    match modification["errorMessage"].as_str() {
        Some(message) => json!(message.split_once("] ").expect("a request's id").1),
        None => modification["value"].clone(),
    }
}

fn nanos(encoded: &Value) -> u64 {
    Timestamp::from_base64(encoded.as_str().expect("a timestamp")).expect("a timestamp").nanos()
}

fn request_id(message: &Value) -> u32 {
    u32::try_from(message["requestId"].as_u64().expect("a number")).expect("small")
}

/// Both sides and what is under way between them.
struct Talk {
    client: Client,
    server: Server,
}

impl Talk {
    fn new() -> Self {
        let start = json!({ "querySet": 0, "identity": 0, "ts": Timestamp::MIN });
        let client = Client { version: start, ..Client::default() };
        let connect = json!({ "type": "Connect", "sessionId": "3b9f3c9e-6d0f-4a6e-8f0e-0f3c1f8f2a11",
                              "connectionCount": 0, "lastCloseReason": "InitialConnect", "clientTs": 0 });
        let server = Server {
            session: Session::new(ClientVersion::from_path_segment("1.48.0")),
            world: World { history: vec![[0; PATHS]; 2] },
            paths: BTreeMap::new(),
            plan: None,
            mutation: None,
            actions: Vec::new(),
            inbox: VecDeque::from([connect.to_string()]),
            runs: 0,
        };
        Self { client, server }
    }

    fn make(&mut self, next: &Move) {
        let Self { client, server } = self;
        match *next {
            Move::Add { id, path } => server.inbox.extend(client.add(id, path)),
            Move::Remove { id } => server.inbox.extend(client.remove(id)),
            Move::SignOut => server.inbox.push_back(client.sign_out()),
            Move::Mutate { path } => server.inbox.push_back(client.request("Mutation", path)),
            Move::Act => server.inbox.push_back(client.request("Action", 0)),
            Move::Hear => drop(server.hear()),
            Move::Listen => drop(client.listen(&server.world)),
            Move::Commit { path } => {
                server.world.commit(path);
                server.session.invalidate();
            }
            Move::Begin { back } => drop(server.begin(back)),
            Move::Finish => client.inbox.extend(server.finish().unwrap_or_default()),
            Move::Abandon => {
                if server.plan.take().is_some() {
                    server.session.abandon_transition().expect("it runs");
                }
            }
            Move::BeginCommit => server.begin_commit(),
            Move::EndMutation { fails } => client.inbox.extend(server.end_mutation(fails)),
            Move::EndAction => {
                if let Some(id) = server.actions.pop() {
                    let text = server.session.action_finished(id, &Ok(Encoded::null()), &[]).expect("it runs");
                    client.inbox.push_back(text);
                }
            }
        }
    }

    /// Until nobody has anything left to do: by then every request is reflected, even where the first transition after
    /// the last response stops short of its commit.
    fn drain(&mut self, back: usize) {
        while self.server.hear() {}
        while self.server.mutation.is_some() {
            self.make(&Move::BeginCommit);
            self.make(&Move::EndMutation { fails: false });
        }
        while !self.server.actions.is_empty() {
            self.make(&Move::EndAction);
        }
        self.make(&Move::Finish);
        self.make(&Move::Begin { back });
        self.make(&Move::Finish);
        while self.server.begin(0) {
            self.make(&Move::Finish);
        }
        while self.client.listen(&self.server.world) {}
        assert!(self.client.open.is_empty(), "every request is reflected: {:?}", self.client.open);
    }

    fn check_the_end(&self) {
        let Self { client, server } = self;
        let said = json!({ "querySet": client.query_set, "identity": client.identity, "ts": client.version["ts"] });
        assert_eq!(client.version, said, "the last transition covers all that the client has said");
        assert_eq!(client.remote.keys().collect::<Vec<_>>(), client.wanted.keys().collect::<Vec<_>>());
        assert_eq!(client.shown_ts(), server.world.latest(), "the client shows the present");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    #[test]
    fn the_client_is_told_the_truth(moves in moves()) {
        let mut talk = Talk::new();
        for next in &moves {
            talk.make(next);
        }
        talk.drain(2);
        talk.server.session.invalidate();
        talk.drain(0);
        talk.check_the_end();
    }
}
