//! The conversation on one socket (1.6): what the client has asked for, what it has been told, and what is said next.
//!
//! Texts are to be sent in the order in which the session returns them: a response goes before the transition that
//! covers it.

mod queries;
mod requests;

use convoke_model::FunctionPath;
use serde_json::value::RawValue;
use uuid::Uuid;

use self::queries::Queries;
use self::requests::Requests;
use crate::client_message::{AddQuery, ClientMessage, Connect, QuerySetModification, Token};
use crate::client_version::ClientVersion;
use crate::error::{Misuse, ProtocolError};
use crate::failure::FunctionError;
use crate::limits::{CALLS_BYTES_MAX, CHUNK_BYTES_MAX};
use crate::query_result::QueryResult;
use crate::server_message::{Modification, ServerMessage, StateVersion, frames};
use crate::timestamp::Timestamp;
use crate::value::{Encoded, named_arguments};
use crate::{QueryId, RequestId};

/// What the server has to do.
#[derive(Debug, Clone)]
pub enum Command {
    /// The client is there. Where it has seen a timestamp that the server has not, the server catches up before the
    /// first transition, or ends the socket with [`ProtocolError::AheadOfServer`].
    Connected {
        /// With a request's number, what a repeated mutation is known by (1.7).
        session_id: Uuid,
        connection_count: u32,
        last_close_reason: Option<String>,
        max_observed: Option<Timestamp>,
    },
    /// The client shows a query from now on.
    Subscribe {
        query_id: QueryId,
        /// Canonical where it names a function at all.
        path: String,
        /// A JSON object in the clean form.
        args: String,
        /// Of an earlier socket's last result.
        journal: Option<String>,
    },
    /// The client shows a query no longer.
    Unsubscribe { query_id: QueryId },
    /// Run a mutation, and say [`Session::mutation_finished`]. Never two at a time.
    Mutate(Call),
    /// Run an action, and say [`Session::action_finished`].
    Act(Call),
    /// Verify the token, and say [`Session::authenticated`] before the next message is read.
    Authenticate(Token),
    /// The client has signed out: queries and later calls are nobody's.
    SignOut,
}

/// A mutation or action that a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub request_id: RequestId,
    /// Canonical where it names a function at all.
    pub path: String,
    /// A JSON object in the clean form.
    pub args: String,
    /// The version of the identity with which the client asked: a mutation may have waited meanwhile.
    pub identity: u32,
    /// When the client asked, for [`crate::MUTATION_WAIT_MS_MAX`].
    pub received_ms: u64,
}

impl Call {
    /// Of its text.
    pub fn bytes(&self) -> usize {
        self.path.len() + self.args.len()
    }
}

/// A mutation that is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    pub value: Encoded,
    pub ts: Timestamp,
}

/// A mutation's answer, and the mutation that waited for it.
#[derive(Debug)]
pub struct Response {
    pub text: String,
    pub next: Option<Command>,
}

/// What a transition has to cover.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransitionPlan {
    /// The queries that the client shows, by number. Those that have never been answered need a result, the others one
    /// where it may have changed.
    pub queries: Vec<QueryId>,
    /// The version of the identity that the queries run with.
    pub identity: u32,
    /// The snapshot must not be before this one.
    pub at_least: Timestamp,
    /// Nor after this one, where a mutation is being committed.
    pub at_most: Option<Timestamp>,
}

/// A transition that is being computed: the versions that it covers, as they were when it began.
#[derive(Debug)]
struct Running {
    query_set: u32,
    identity: u32,
    removed: Vec<QueryId>,
}

/// One socket's conversation.
#[derive(Debug)]
pub struct Session {
    client: ClientVersion,
    is_connected: bool,
    clock_skew: Option<i64>,
    query_set: u32,
    identity: u32,
    is_authenticating: bool,
    sent: StateVersion,
    /// The latest commit that the client was told of in a response, and waits for in a transition.
    owed: Timestamp,
    queries: Queries,
    requests: Requests,
    running: Option<Running>,
    is_scheduled: bool,
}

impl Session {
    pub fn new(client: ClientVersion) -> Self {
        Self {
            client,
            is_connected: false,
            clock_skew: None,
            query_set: 0,
            identity: 0,
            is_authenticating: false,
            sent: StateVersion::default(),
            owed: Timestamp::MIN,
            queries: Queries::default(),
            requests: Requests::default(),
            running: None,
            is_scheduled: false,
        }
    }

    /// Takes a text frame of the client. After an error the socket ends as [`ProtocolError::close`] says.
    pub fn receive(&mut self, text: &str, now_ms: u64) -> Result<Vec<Command>, ProtocolError> {
        let message = ClientMessage::parse(text)?;
        if self.is_authenticating {
            return Err(ProtocolError::AuthenticationPending);
        }
        match message {
            ClientMessage::Connect(connect) => self.connect(connect, now_ms).map(|command| vec![command]),
            other if !self.is_connected => Err(ProtocolError::NotConnected(other.name())),
            ClientMessage::ModifyQuerySet { base_version, new_version, modifications } => {
                self.modify_query_set(base_version, new_version, modifications)
            }
            ClientMessage::Mutation { request_id, udf_path, args, component_path } => {
                let call = self.call(request_id, &udf_path, &args, component_path.as_deref(), now_ms)?;
                let now = self.requests.add_mutation(call)?;
                Ok(now.map(Command::Mutate).into_iter().collect())
            }
            ClientMessage::Action { request_id, udf_path, args, component_path } => {
                let call = self.call(request_id, &udf_path, &args, component_path.as_deref(), now_ms)?;
                self.requests.add_action(&call)?;
                Ok(vec![Command::Act(call)])
            }
            ClientMessage::Authenticate { base_version, token } => {
                self.authenticate(base_version, token).map(|command| vec![command])
            }
            ClientMessage::Event { .. } => Ok(Vec::new()),
        }
    }

    fn connect(&mut self, connect: Connect, now_ms: u64) -> Result<Command, ProtocolError> {
        if self.is_connected {
            return Err(ProtocolError::ConnectedTwice);
        }
        self.is_connected = true;
        let Connect { session_id, connection_count, last_close_reason, max_observed_timestamp, client_ts } = connect;
        // Clients that do not tell their clock send 0.
        let client_ts = client_ts.filter(|ms| *ms != 0);
        self.clock_skew = client_ts.map(|ms| ms.saturating_sub_unsigned(now_ms));
        let max_observed = max_observed_timestamp;
        Ok(Command::Connected { session_id, connection_count, last_close_reason, max_observed })
    }

    fn modify_query_set(
        &mut self,
        base: u32,
        new: u32,
        modifications: Vec<QuerySetModification>,
    ) -> Result<Vec<Command>, ProtocolError> {
        check_base("ModifyQuerySet", base, self.query_set)?;
        if new <= base {
            return Err(ProtocolError::VersionDoesNotGrow { base, new });
        }
        let mut commands = Vec::with_capacity(modifications.len());
        for modification in modifications {
            commands.push(match modification {
                QuerySetModification::Add(query) => self.add(query, new)?,
                QuerySetModification::Remove { query_id } => {
                    self.queries.remove(query_id)?;
                    Command::Unsubscribe { query_id }
                }
            });
        }
        self.query_set = new;
        self.is_scheduled = true;
        Ok(commands)
    }

    fn add(&mut self, query: AddQuery, version: u32) -> Result<Command, ProtocolError> {
        let AddQuery { query_id, udf_path, args, journal, component_path } = query;
        refuse_component(component_path.as_deref())?;
        let args = named_arguments(&args)?;
        let path = canonical(&udf_path);
        self.queries.add(query_id, version, path.len() + args.len() + journal.as_ref().map_or(0, String::len))?;
        Ok(Command::Subscribe { query_id, path, args, journal })
    }

    fn call(
        &self,
        request_id: RequestId,
        path: &str,
        args: &RawValue,
        component_path: Option<&str>,
        received_ms: u64,
    ) -> Result<Call, ProtocolError> {
        refuse_component(component_path)?;
        let args = named_arguments(args)?;
        Ok(Call { request_id, path: canonical(path), args, identity: self.identity, received_ms })
    }

    fn authenticate(&mut self, base: u32, token: Token) -> Result<Command, ProtocolError> {
        check_base("Authenticate", base, self.identity)?;
        if let Token::None = token {
            self.advance_identity()?;
            return Ok(Command::SignOut);
        }
        self.is_authenticating = true;
        Ok(Command::Authenticate(token))
    }

    /// Says how the verification of the last [`Command::Authenticate`] ended; a refusal is in words for the client. On
    /// success the caller runs this socket's queries again: they are another one's now.
    ///
    /// # Errors
    /// The outer error is a mistake of the caller's, the inner one ends the socket.
    pub fn authenticated(&mut self, outcome: Result<(), String>) -> Result<Result<(), ProtocolError>, Misuse> {
        if !self.is_authenticating {
            return Err(Misuse::NothingToAuthenticate);
        }
        self.is_authenticating = false;
        Ok(match outcome {
            Ok(()) => self.advance_identity(),
            Err(message) => {
                Err(ProtocolError::Authentication { message, base_version: self.identity, update_attempted: true })
            }
        })
    }

    /// The identity in use has expired: the socket ends so.
    pub fn identity_expired(&self, message: String) -> ProtocolError {
        ProtocolError::Authentication { message, base_version: self.identity, update_attempted: false }
    }

    fn advance_identity(&mut self) -> Result<(), ProtocolError> {
        self.identity = self.identity.checked_add(1).ok_or(ProtocolError::VersionsUsedUp)?;
        self.is_scheduled = true;
        Ok(())
    }

    /// The running mutation is about to commit, and its timestamp will be later than `latest`: no transition goes
    /// beyond it before the mutation's response. Else the client would show the mutation's effect twice for a moment,
    /// its own guess and the server's truth. None where it is not committing, or no longer: then transitions go on.
    pub fn mutation_commits_after(&mut self, request_id: RequestId, latest: Option<Timestamp>) -> Result<(), Misuse> {
        self.requests.commits_after(request_id, latest)
    }

    /// The running mutation has ended: its response, and the next mutation in the queue. A transition follows, also a
    /// failure.
    pub fn mutation_finished(
        &mut self,
        request_id: RequestId,
        result: &Result<Committed, FunctionError>,
        log_lines: &[String],
    ) -> Result<Response, Misuse> {
        let next = self.requests.finish_mutation(request_id)?;
        self.is_scheduled = true;
        if let Ok(committed) = result {
            self.owed = self.owed.max(committed.ts);
        }
        let text = ServerMessage::MutationResponse { request_id, result: result.as_ref(), log_lines }.to_text();
        Ok(Response { text, next: next.map(Command::Mutate) })
    }

    /// An action has ended: its response. A transition follows.
    pub fn action_finished(
        &mut self,
        request_id: RequestId,
        result: &Result<Encoded, FunctionError>,
        log_lines: &[String],
    ) -> Result<String, Misuse> {
        self.requests.finish_action(request_id)?;
        self.is_scheduled = true;
        Ok(ServerMessage::ActionResponse { request_id, result: result.as_ref(), log_lines }.to_text())
    }

    /// The result of a query that the client shows may have changed.
    pub fn invalidate(&mut self) {
        self.is_scheduled = true;
    }

    /// Whether the server should begin a transition.
    pub fn needs_transition(&self) -> bool {
        self.is_connected && self.is_scheduled && self.running.is_none()
    }

    /// Begins a transition, which covers what the client has said so far. Messages may come while it is computed; one
    /// transition at a time.
    pub fn begin_transition(&mut self) -> Result<TransitionPlan, Misuse> {
        if !self.is_connected {
            return Err(Misuse::NotConnected);
        }
        if self.running.is_some() {
            return Err(Misuse::TransitionIsRunning);
        }
        self.is_scheduled = false;
        let removed = self.queries.take_removed();
        self.running = Some(Running { query_set: self.query_set, identity: self.identity, removed });
        Ok(TransitionPlan {
            queries: self.queries.ids().collect(),
            identity: self.identity,
            at_least: self.sent.ts,
            at_most: self.requests.held_at(),
        })
    }

    /// Gives the begun transition up, to begin another one that covers more.
    pub fn abandon_transition(&mut self) -> Result<(), Misuse> {
        let running = self.running.take().ok_or(Misuse::NoTransitionIsRunning)?;
        self.queries.put_back(running.removed);
        self.is_scheduled = true;
        Ok(())
    }

    /// Ends the begun transition at the snapshot `ts`: the frames to send. Results that the client has already are left
    /// out, and so are those of queries that it has removed meanwhile.
    pub fn finish_transition<'a>(
        &mut self,
        ts: Timestamp,
        results: impl IntoIterator<Item = (QueryId, &'a QueryResult)>,
        server_ts: Option<Timestamp>,
    ) -> Result<Vec<String>, Misuse> {
        let running = self.running.as_ref().ok_or(Misuse::NoTransitionIsRunning)?;
        if ts < self.sent.ts {
            return Err(Misuse::Backwards { sent: self.sent.ts, ts });
        }
        if let Some(at_most) = self.requests.held_at().filter(|at_most| ts > *at_most) {
            return Err(Misuse::CoversUnanswered { at_most, ts });
        }
        let news = self.queries.news(running.query_set, results)?;
        let removed = running.removed.iter().map(|&query_id| Modification::Removed { query_id });
        let updated = news.iter().map(|&(query_id, result)| Modification::Result { query_id, result });
        let modifications: Vec<_> = removed.chain(updated).collect();
        let end = StateVersion { query_set: running.query_set, identity: running.identity, ts };
        let message = ServerMessage::Transition {
            start: self.sent,
            end,
            modifications: &modifications,
            client_clock_skew: self.clock_skew,
            server_ts,
        };
        let text = message.to_text();
        self.queries.told(&news);
        self.sent = end;
        self.running = None;
        // A snapshot before a commit that the client waits for: another transition must follow.
        self.is_scheduled |= ts < self.owed;
        let bytes_max = if self.client.takes_chunks() { CHUNK_BYTES_MAX } else { usize::MAX };
        Ok(frames(text, bytes_max))
    }

    /// How many bytes a transition has for results that the client does not have, as far as is known before
    /// [`Session::finish_transition`].
    pub fn news_bytes<'a>(&self, results: impl IntoIterator<Item = (QueryId, &'a QueryResult)>) -> usize {
        self.queries.news_bytes(results)
    }

    /// Whether another call may be read: those without an answer hold less than [`CALLS_BYTES_MAX`].
    pub fn takes_calls(&self) -> bool {
        self.requests.bytes() < CALLS_BYTES_MAX
    }

    /// What the client's queries hold, in bytes of their text.
    pub fn queries_bytes(&self) -> usize {
        self.queries.bytes()
    }

    /// What its calls without an answer hold.
    pub fn calls_bytes(&self) -> usize {
        self.requests.bytes()
    }

    /// What to say after [`crate::PING_INTERVAL_MS`] of silence of the server's.
    pub fn ping(&self) -> String {
        ServerMessage::Ping.to_text()
    }

    /// The version of the identity that calls made now run with.
    pub fn identity(&self) -> u32 {
        self.identity
    }

    /// The last transition's end, which the client shows.
    pub fn sent(&self) -> StateVersion {
        self.sent
    }
}

fn check_base(message: &'static str, base: u32, received: u32) -> Result<(), ProtocolError> {
    if base == received { Ok(()) } else { Err(ProtocolError::BaseVersionMismatch { message, base, received }) }
}

/// Only administrators name a component, and there are no keys of theirs yet.
fn refuse_component(path: Option<&str>) -> Result<(), ProtocolError> {
    if path.is_some_and(|path| !path.is_empty()) { Err(ProtocolError::ComponentPath) } else { Ok(()) }
}

/// A text that names no function goes on as it is: the call fails, not the socket.
fn canonical(path: &str) -> String {
    FunctionPath::parse(path).map_or_else(|_| path.to_owned(), |path| path.as_str().to_owned())
}
