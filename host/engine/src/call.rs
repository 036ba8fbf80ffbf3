//! One call: a fresh instance, its answer or the reason why there is none.

use std::sync::Arc;
use std::time::Instant;

use convoke_model::{Code, Database, Failure, Kind};
use serde::de::IgnoredAny;
use wasmtime::{Store, Trap, UpdateDeadline};

use crate::bindings::{Component, ComponentPre, GuestError};
use crate::engine::{Engine, Lane};
use crate::rooms::{Room, deadline_exceeded};
use crate::state::{Clock, Outside, State, Stop};
use crate::version::ComponentVersion;

/// What is called, and with what.
pub struct Call<'a> {
    pub kind: Kind,
    pub room: Room,
    /// The name within the component.
    pub function: &'a str,
    /// The arguments as JSON text.
    pub args: &'a str,
    pub request_id: &'a str,
    pub deadline: Instant,
    pub clock: Clock,
    pub database: Option<Box<dyn Database>>,
    pub outside: Option<Arc<dyn Outside>>,
}

/// How a call ended.
pub struct Outcome {
    /// The result as JSON text.
    pub result: Result<String, CallError>,
    /// Lines in the form `[LEVEL] text`.
    pub log: Vec<String>,
    /// The database, to be committed; dropping it undoes what was written.
    pub database: Option<Box<dyn Database>>,
    /// Whether the function asked for the time, for randomness or for the call's id: the same call gives another result.
    pub volatile: bool,
}

/// Why a call gave no result.
#[derive(Debug, Clone, PartialEq)]
pub enum CallError {
    Failure(Failure),
    /// Run it again: its transaction lost.
    Conflict,
    /// Run it again, with a snapshot over several statements.
    NeedsSnapshot,
}

impl std::fmt::Debug for Call<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Call")
            .field("kind", &self.kind)
            .field("function", &self.function)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Outcome {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Outcome").field("result", &self.result).field("log", &self.log).finish_non_exhaustive()
    }
}

impl From<Failure> for CallError {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl Engine {
    /// Calls a function in a fresh instance and drops the instance.
    pub async fn call(&self, version: &ComponentVersion, mut call: Call<'_>) -> Outcome {
        let Some(pre) = version.pre(call.kind) else {
            let failure = Failure::internal(format!("the version has no {} to call", call.kind));
            return Outcome { result: Err(failure.into()), log: Vec::new(), database: call.database, volatile: false };
        };
        let lane = self.lane(call.kind);
        let _place = match self.share.rooms.enter(call.kind, call.room, call.deadline).await {
            Ok(place) => place,
            Err(failure) => {
                return Outcome {
                    result: Err(failure.into()),
                    log: Vec::new(),
                    database: call.database,
                    volatile: false,
                };
            }
        };
        let mut store = self.store(lane, &mut call);
        let answer = run(pre, &mut store, call.function, call.args).await;
        let state = store.into_data();
        let result = match answer {
            Ok(Ok(text)) => self.check_result(text),
            Ok(Err(error)) => Err(self.application(error).into()),
            Err(error) => Err(explain(&error, &state)),
        };
        Outcome { result, log: state.log, database: state.database, volatile: state.volatile }
    }

    /// What a component says of itself, before anything may call it.
    pub(crate) async fn manifest_text(
        &self,
        pre: &ComponentPre<State>,
        mut call: Call<'_>,
    ) -> Result<String, CallError> {
        let lane = &self.inner.synchronous;
        let _place = self.share.rooms.enter(call.kind, call.room, call.deadline).await?;
        let mut store = self.store(lane, &mut call);
        let answer = async {
            let component: Component = pre.instantiate_async(&mut store).await?;
            component.convoke_runtime_functions().call_manifest(&mut store).await
        }
        .await;
        let state = store.into_data();
        answer.map_err(|error| explain(&error, &state))
    }

    fn store(&self, lane: &Lane, call: &mut Call<'_>) -> Store<State> {
        let limits = Arc::clone(&self.share.limits);
        let mut state = State::new(limits, call.kind, call.deadline, call.clock, call.request_id);
        state.database = call.database.take();
        state.outside = call.outside.take();
        let mut store = Store::new(&lane.engine, state);
        store.limiter(|state| state);
        // What leaves the guest at once, a result or the arguments of an import, is no more than its memory can hold: a
        // guest that hands over the same bytes again and again ends here.
        store.set_hostcall_fuel(self.share.limits.memory_bytes_max);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|store| {
            if Instant::now() < store.data().deadline { Ok(UpdateDeadline::Yield(1)) } else { Err(deadline().into()) }
        });
        store
    }

    /// An error that the function returned: its code and data pass unchanged, within their limits.
    fn application(&self, error: GuestError) -> Failure {
        let limits = &self.share.limits;
        let parts = [
            ("message", error.message.len(), limits.error_message_bytes_max),
            ("code", error.code.len(), limits.error_code_bytes_max),
            ("data", error.data.as_ref().map_or(0, String::len), limits.error_data_bytes_max),
        ];
        for (part, bytes, bytes_max) in parts {
            if bytes > bytes_max {
                let words = format!("the {part} of the function's error has {bytes} bytes, the limit is {bytes_max}");
                return Failure::function(Code::ErrorLimit, words);
            }
        }
        let mut failure = Failure::function(Code::Application(error.code), error.message);
        failure.data = error.data.map(|text| match serde_json::from_str(&text) {
            Ok(data) => data,
            Err(_) => serde_json::Value::String(text),
        });
        failure
    }

    /// A result is JSON and not too long; nobody trusts a component to have seen to that.
    fn check_result(&self, text: String) -> Result<String, CallError> {
        let bytes_max = self.share.limits.result_bytes_max;
        if text.len() > bytes_max {
            let words = format!("the result has {} bytes, the limit is {bytes_max}", text.len());
            return Err(Failure::function(Code::ResultLimit, words).into());
        }
        match serde_json::from_str::<IgnoredAny>(&text) {
            Ok(_) => Ok(text),
            Err(error) => {
                let failure = Failure::function(Code::InvalidResult, "the function's result is not JSON");
                Err(failure.with_internal(error.to_string()).into())
            }
        }
    }
}

/// What the log keeps of how a guest trapped: the frames' names are the guest's, and of any length.
const TRAP_BYTES_MAX: usize = 16 << 10;

async fn run(
    pre: &ComponentPre<State>,
    store: &mut Store<State>,
    function: &str,
    args: &str,
) -> wasmtime::Result<Result<String, GuestError>> {
    let component: Component = pre.instantiate_async(&mut *store).await?;
    component.convoke_runtime_functions().call_call(store, function, args).await
}

pub(crate) fn deadline() -> Stop {
    Stop::failure(deadline_exceeded())
}

/// A trap, or what the host stopped the call with.
fn explain(error: &wasmtime::Error, state: &State) -> CallError {
    if let Some(stop) = error.downcast_ref::<Stop>() {
        return match stop {
            Stop::Failure(failure) => CallError::Failure(failure.as_ref().clone()),
            Stop::Conflict => CallError::Conflict,
            Stop::NeedsSnapshot => CallError::NeedsSnapshot,
        };
    }
    let said = String::from_utf8_lossy(&state.stderr);
    let mut detail = format!("{error:?}");
    detail.truncate(detail.floor_char_boundary(TRAP_BYTES_MAX));
    let detail = format!("{detail}\n{said}");
    let failure = match error.downcast_ref::<Trap>() {
        Some(Trap::StackOverflow) => Failure::function(Code::StackLimit, "the function's calls nest too deep"),
        Some(Trap::Interrupt) => deadline_exceeded(),
        _ => Failure::trap(""),
    };
    failure.with_internal(detail.trim_end()).into()
}
