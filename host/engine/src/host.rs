//! The imports of wit/runtime.wit, served.

use convoke_model::{Database, DatabaseError, Failure, Kind};

use crate::bindings::GuestError;
use crate::bindings::convoke::runtime::{calls, context, database_read, database_write, outbound_http, sql, types};
use crate::state::{State, Stop};

/// The most bytes that `context.random` gives at once.
const RANDOM_BYTES_MAX: u32 = 65_536;

type Answer<T> = wasmtime::Result<Result<T, GuestError>>;

impl types::Host for State {}

impl context::Host for State {
    fn log(&mut self, level: String, message: String) -> wasmtime::Result<()> {
        self.enter("context", "log")?;
        Ok(self.log(&level, &message)?)
    }

    fn now(&mut self) -> wasmtime::Result<f64> {
        self.enter("context", "now")?;
        self.volatile = true;
        Ok(self.now_ms())
    }

    fn random(&mut self, count: u32) -> wasmtime::Result<Vec<u8>> {
        self.enter("context", "random")?;
        self.volatile = true;
        let mut bytes = vec![0; count.min(RANDOM_BYTES_MAX) as usize];
        self.fill_random(&mut bytes);
        Ok(bytes)
    }

    fn request_id(&mut self) -> wasmtime::Result<String> {
        self.enter("context", "request-id")?;
        self.volatile = true;
        Ok(self.request_id.clone())
    }
}

impl database_read::Host for State {
    async fn get(&mut self, table: String, id: String) -> Answer<Option<String>> {
        answer(self.database("database-read", "get")?.get(&table, &id).await)
    }

    async fn get_many(&mut self, table: String, ids: Vec<String>) -> Answer<String> {
        answer(self.database("database-read", "get-many")?.get_many(&table, &ids).await)
    }

    async fn query(&mut self, plan: String) -> Answer<String> {
        answer(self.database("database-read", "query")?.query(&plan).await)
    }
}

impl database_write::Host for State {
    async fn insert(&mut self, table: String, document: String) -> Answer<String> {
        answer(self.database("database-write", "insert")?.insert(&table, &document).await)
    }

    async fn patch(&mut self, table: String, id: String, fields: String) -> Answer<()> {
        answer(self.database("database-write", "patch")?.patch(&table, &id, &fields).await)
    }

    async fn replace(&mut self, table: String, id: String, document: String) -> Answer<()> {
        answer(self.database("database-write", "replace")?.replace(&table, &id, &document).await)
    }

    async fn delete(&mut self, table: String, id: String) -> Answer<()> {
        answer(self.database("database-write", "delete")?.delete(&table, &id).await)
    }

    async fn insert_many(&mut self, table: String, documents: String) -> Answer<String> {
        answer(self.database("database-write", "insert-many")?.insert_many(&table, &documents).await)
    }

    async fn update(&mut self, table: String, id: String, operations: String) -> Answer<()> {
        answer(self.database("database-write", "update")?.update(&table, &id, &operations).await)
    }

    async fn patch_where(&mut self, plan: String, fields: String) -> Answer<u64> {
        answer(self.database("database-write", "patch-where")?.patch_where(&plan, &fields).await)
    }

    async fn delete_where(&mut self, plan: String) -> Answer<u64> {
        answer(self.database("database-write", "delete-where")?.delete_where(&plan).await)
    }

    async fn savepoint(&mut self) -> Answer<u32> {
        answer(self.database("database-write", "savepoint")?.savepoint().await)
    }

    async fn release(&mut self, savepoint: u32) -> Answer<()> {
        answer(self.database("database-write", "release")?.release(savepoint).await)
    }

    async fn rollback_to(&mut self, savepoint: u32) -> Answer<()> {
        answer(self.database("database-write", "rollback-to")?.rollback_to(savepoint).await)
    }
}

impl sql::Host for State {
    async fn run(&mut self, statement: String, parameters: String) -> Answer<String> {
        answer(self.database("sql", "run")?.sql(&statement, &parameters).await)
    }
}

impl calls::Host for State {
    async fn run_query(&mut self, name: String, args: String) -> Answer<String> {
        self.run_other("run-query", Kind::Query, &name, &args).await
    }

    async fn run_mutation(&mut self, name: String, args: String) -> Answer<String> {
        self.run_other("run-mutation", Kind::Mutation, &name, &args).await
    }

    async fn run_action(&mut self, name: String, args: String) -> Answer<String> {
        self.run_other("run-action", Kind::Action, &name, &args).await
    }
}

impl outbound_http::Host for State {
    async fn send(&mut self, request: String, body: Vec<u8>) -> Answer<outbound_http::Response> {
        self.enter("outbound-http", "send")?;
        let Some(outside) = self.outside.clone() else { return Err(absent("outbound-http").into()) };
        let sent = outside.send(&request, body).await;
        Ok(sent
            .map(|response| outbound_http::Response {
                status: response.status,
                headers: response.headers,
                body: response.body,
            })
            .map_err(|failure| guest_error(&failure)))
    }
}

impl State {
    fn database(&mut self, interface: &str, function: &str) -> Result<&mut Box<dyn Database>, Stop> {
        self.enter(interface, function)?;
        self.database.as_mut().ok_or_else(|| absent(interface))
    }

    async fn run_other(&mut self, function: &str, kind: Kind, name: &str, args: &str) -> Answer<String> {
        self.enter("calls", function)?;
        let Some(outside) = self.outside.clone() else { return Err(absent("calls").into()) };
        Ok(outside.run(kind, name, args).await.map_err(|failure| guest_error(&failure)))
    }
}

fn absent(interface: &str) -> Stop {
    Stop::failure(Failure::internal(format!("the host gave the call no `{interface}`")))
}

fn answer<T>(result: Result<T, DatabaseError>) -> Answer<T> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(DatabaseError::Refused(failure)) => Ok(Err(guest_error(&failure))),
        Err(DatabaseError::Failed(failure)) => Err(Stop::failure(failure).into()),
        Err(DatabaseError::Conflict) => Err(Stop::Conflict.into()),
        Err(DatabaseError::NeedsSnapshot) => Err(Stop::NeedsSnapshot.into()),
    }
}

/// A failure as the function may see it: never the detail for the log.
fn guest_error(failure: &Failure) -> GuestError {
    GuestError {
        code: failure.code.as_str().to_owned(),
        message: failure.message.clone(),
        data: failure.data.as_ref().map(ToString::to_string),
    }
}
