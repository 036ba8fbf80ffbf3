//! The transaction of one run: which state it is in, and what may be sent in it.

mod source;

use std::sync::Arc;
use std::time::{Duration, Instant};

use convoke_documents::{Packet, Source};
use convoke_model::{Code, DatabaseError, Failure};
use convoke_sql::Statement;
use tokio_postgres::types::PgLsn;

use crate::Store;
use crate::error::{Fault, Writes};
use crate::pipeline::{Answers, Around, Broken, Connection, End, Step, Violated};
use crate::receipt::Receipt;
use crate::rows::{Budget, Rows};
use crate::sessions::Object;
use crate::snapshot::{SharedSnapshot, Taken, Turn};

/// How often a transaction that has read nothing is sent before the call is told of a conflict, and pauses.
const SENDS_MAX: u32 = 3;
/// What the question after an earlier receipt may take behind a call's deadline: a failure is final only when it is known
/// not to have been a success before.
const EARLIER_WITHIN: Duration = Duration::from_secs(2);

/// What a transaction becomes with its first statement.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    /// One statement outside of a transaction, which is a snapshot of its own.
    Single,
    /// Read-only.
    Snapshot(View),
    /// Serialisable. `position`: whether to ask where in the log the commit lies. `receipt`: under which it happens once.
    Serial { position: bool, receipt: Option<Receipt> },
}

/// What a snapshot is for besides its results.
#[derive(Debug, Clone)]
pub(crate) enum View {
    /// Nothing.
    Plain,
    /// Somebody wants to know when what is read changes, and so in which snapshot it was read.
    Noted,
    /// The same, in a snapshot that several runs share.
    Shared(SharedSnapshot),
}

/// The statements of one run, in one transaction. Dropping it undoes what was not committed.
#[derive(Debug)]
pub(crate) struct Transaction {
    store: Store,
    deadline: Instant,
    kind: Kind,
    state: State,
    /// The savepoints that the function has begun and not ended, the innermost last.
    savepoints: Vec<u32>,
    savepoint_last: u32,
    seen: Seen,
    earlier: Earlier,
    /// Whether a unique index refused a write behind a read, which may have shown what was there before.
    is_outdated: bool,
}

/// Whether the same call was sent before and is done: what its receipt says.
#[derive(Debug)]
enum Earlier {
    /// Not asked yet.
    Unknown,
    None,
    Found(Result<String, Failure>),
}

/// Where a transaction stands.
#[derive(Debug)]
enum State {
    /// Nothing has been asked of Postgres.
    Idle,
    /// The one statement outside of a transaction was answered.
    Single,
    /// A snapshot is open.
    Snapshot(Connection, Option<Turn>),
    /// A serialisable transaction is open.
    Serial(Connection),
    /// Postgres has refused a statement: only a savepoint that it knows leads back, one of the first `reached` that are
    /// open.
    Aborted { connection: Connection, reached: usize },
    /// A statement is on its way: whoever waits for its answer has the connection, and closes it if he stops waiting.
    InFlight,
    /// Committed, rolled back or lost.
    Over,
}

/// The moment that a transaction shows, or made.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// `pg_current_snapshot()` as text.
    pub(crate) snapshot: Option<String>,
    /// A position of the log: what the snapshot contains was committed before it; after a commit, so was that.
    pub(crate) lsn: Option<u64>,
}

/// A connection that was taken out of its transaction while a statement is on its way.
#[derive(Debug)]
pub(crate) struct Lent {
    connection: Connection,
    turn: Option<Turn>,
    /// Whether Postgres knows the transaction.
    begun: bool,
}

/// What a statement does in a transaction that Postgres has refused a statement of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    On,
    Back,
}

impl Transaction {
    pub(crate) fn new(store: Store, kind: Kind, deadline: Instant) -> Self {
        let earlier = match &kind {
            Kind::Serial { receipt: Some(receipt), .. } if !receipt.fresh => Earlier::Unknown,
            _ => Earlier::None,
        };
        let (seen, state) = (Seen::default(), State::Idle);
        Self {
            store,
            deadline,
            kind,
            state,
            savepoints: Vec::new(),
            savepoint_last: 0,
            seen,
            earlier,
            is_outdated: false,
        }
    }

    /// Whether a unique index refused what the function may not have tried had it read what is there now.
    pub(crate) fn is_outdated(&self) -> bool {
        self.is_outdated
    }

    /// Whether somebody wants to know when what is read changes.
    pub(crate) fn is_noted(&self) -> bool {
        matches!(self.kind, Kind::Snapshot(View::Noted | View::Shared(_)))
    }

    /// Whether statements of the function's own may write.
    pub(crate) fn writes(&self) -> Writes {
        if matches!(self.kind, Kind::Serial { .. }) { Writes::Allowed } else { Writes::Refused }
    }

    /// The moment that the transaction shows or made; clears it.
    pub(crate) fn take_seen(&mut self) -> Seen {
        std::mem::take(&mut self.seen)
    }

    /// A read of a table whose result somebody keeps: it belongs to the snapshot even where the table was emptied
    /// meanwhile.
    pub(crate) async fn read_intact(&mut self, table: &str, read: Statement) -> Result<Rows, DatabaseError> {
        if !self.is_noted() {
            return self.read(Packet::default(), read).await;
        }
        let mut lent = self.lend(Direction::On).await?;
        let known = lent.turn.as_ref().is_some_and(|turn| turn.is_intact(table));
        let mut packet = Packet::of(read);
        if !known {
            packet.statements.push(convoke_sql::intact(&[(&self.store.inner.project.name, table)]));
        }
        let mut results = match self.send_on(&mut lent, &packet, End::Open).await {
            Ok(results) => results,
            Err(broken) => return Err(self.refused(lent, &packet, End::Open, broken)),
        };
        if !known {
            if !is_true(&results.pop().unwrap_or_default())? {
                self.state = State::Over;
                return Err(DatabaseError::Conflict);
            }
            if let Some(turn) = &mut lent.turn {
                turn.found_intact(table);
            }
        }
        self.take_back(lent, End::Open);
        Ok(results.pop().unwrap_or_default())
    }

    /// Begins again where a relation was emptied after the snapshot was taken: see [`convoke_sql::intact`].
    pub(crate) async fn check_intact(&mut self, relations: &[(&str, &str)]) -> Result<(), DatabaseError> {
        if relations.is_empty() || !self.is_noted() {
            return Ok(());
        }
        let rows = self.read(Packet::default(), convoke_sql::intact(relations)).await?;
        if is_true(&rows)? { Ok(()) } else { Err(DatabaseError::Conflict) }
    }

    /// Begins the transaction, if it is not, sends writes, and hands the connection out for a statement that a function wrote
    /// itself; [`Self::settle`] takes it back.
    pub(crate) async fn open(&mut self, packet: Packet) -> Result<Lent, DatabaseError> {
        // One statement alone would not be held to reading.
        if matches!(self.kind, Kind::Single) {
            return Err(DatabaseError::NeedsSnapshot);
        }
        let mut lent = self.lend(Direction::On).await?;
        if lent.begun && packet.statements.is_empty() {
            return Ok(lent);
        }
        match self.send_on(&mut lent, &packet, End::Open).await {
            Ok(_) => Ok(lent),
            Err(broken) => Err(self.refused(lent, &packet, End::Open, broken)),
        }
    }

    /// Takes the connection back after a statement that a function wrote itself.
    pub(crate) fn settle<T>(&mut self, lent: Lent, ran: Result<T, DatabaseError>) -> Result<T, DatabaseError> {
        match &ran {
            Ok(_) => self.take_back(lent, End::Open),
            Err(DatabaseError::Refused(_)) => {
                self.state = State::Aborted { connection: lent.connection, reached: self.savepoints.len() };
            }
            Err(_) => self.state = State::Over,
        }
        ran
    }

    /// Begins a transaction within the transaction; gives its number. Its statement travels with the writes.
    pub(crate) fn begin_savepoint(&mut self) -> Result<u32, DatabaseError> {
        self.check_usable()?;
        self.savepoint_last += 1;
        self.savepoints.push(self.savepoint_last);
        Ok(self.savepoint_last)
    }

    /// Whether this is the innermost of the savepoints that are open.
    pub(crate) fn is_innermost(&self, savepoint: u32) -> bool {
        self.savepoints.last() == Some(&savepoint)
    }

    /// Ends the innermost savepoint; its writes and the statement that releases it are sent, so that what Postgres has
    /// against them is said here and not at the end of the call.
    pub(crate) async fn release(&mut self, packet: Packet) -> Result<(), DatabaseError> {
        self.write(packet).await?;
        self.savepoints.pop();
        Ok(())
    }

    /// Ends a savepoint, and those within it, none of which Postgres knows.
    pub(crate) fn end_savepoint(&mut self, savepoint: u32) {
        self.savepoints.retain(|open| *open < savepoint);
    }

    /// Whether this savepoint is open.
    pub(crate) fn has_savepoint(&self, savepoint: u32) -> bool {
        self.savepoints.contains(&savepoint)
    }

    /// Undoes all since a savepoint, and ends it with those within it.
    pub(crate) async fn roll_back(&mut self, savepoint: u32, packet: Packet) -> Result<(), DatabaseError> {
        self.end_savepoint(savepoint);
        // Where Postgres refused a statement before it came to this savepoint, only one further out leads back.
        if matches!(self.state, State::Aborted { reached, .. } if self.savepoints.len() >= reached) {
            return Ok(());
        }
        self.send(&packet, End::Open, Direction::Back).await.map(drop)
    }

    /// What the receipt of the same call, sent before, says, as far as it was asked for: its result, or why there is none.
    pub(crate) fn earlier(&mut self) -> Option<Result<String, Failure>> {
        match std::mem::replace(&mut self.earlier, Earlier::None) {
            Earlier::Found(result) => Some(result),
            other => {
                self.earlier = other;
                None
            }
        }
    }

    /// Asks for the receipt of the same call, sent before, where no statement has yet. Ends the transaction.
    pub(crate) async fn ask_earlier(&mut self) -> Result<(), DatabaseError> {
        let Kind::Serial { receipt: Some(receipt), .. } = &self.kind else { return Ok(()) };
        if !matches!(self.earlier, Earlier::Unknown) {
            return Ok(());
        }
        let question = receipt.find(&self.store.inner.project.name);
        self.state = State::Over;
        // The call's own time may be what was over.
        let deadline = self.deadline.max(Instant::now() + EARLIER_WITHIN);
        let nothing = || {
            let words = "the database does not tell whether this was done before";
            DatabaseError::from(Failure::system(Code::Overloaded, words))
        };
        let mut connection = Connection::open(&self.store, deadline).await?;
        let around = Around { question: Some(&question), ..Around::default() };
        let answers = connection.round_trip(&[], around).await.map_err(|broken| match broken.error {
            // A lost connection, and not the receipt that a conflict stands for here.
            DatabaseError::Conflict => nothing(),
            error => error,
        })?;
        self.note_earlier(Some(answers.question.ok_or_else(nothing)?))
    }

    /// Makes the writes happen, those of the packet too, all of them or none.
    pub(crate) async fn commit(&mut self, packet: Packet) -> Result<(), DatabaseError> {
        let end = match self.kind {
            Kind::Serial { position: true, .. } => End::CommitAndPosition,
            Kind::Serial { position: false, .. } | Kind::Single | Kind::Snapshot(_) => End::Commit,
        };
        match std::mem::replace(&mut self.state, State::Over) {
            State::Aborted { .. } => Err(DatabaseError::Failed(Failure::function(
                Code::Conflict,
                "the function went on after the database had refused a statement: nothing was written",
            ))),
            State::Idle if packet.statements.is_empty() => Ok(()),
            State::Idle => self.commit_alone(&packet, end).await,
            state @ State::Serial(_) => {
                self.state = state;
                self.send(&packet, end, Direction::On).await?;
                self.find_position(end).await;
                Ok(())
            }
            State::Snapshot(connection, Some(turn)) => {
                turn.give_back(connection);
                Ok(())
            }
            State::Snapshot(mut connection, None) => {
                connection.end_unwatched("commit");
                Ok(())
            }
            State::Single | State::Over => Ok(()),
            State::InFlight => Err(Failure::internal("a commit beside a statement that is on its way").into()),
        }
    }

    /// A transaction that has read nothing is the same whatever it meets, so it can be sent again as it is. It knows its rows:
    /// after a conflict it queues for them.
    async fn commit_alone(&mut self, packet: &Packet, end: End) -> Result<(), DatabaseError> {
        for attempt in 1.. {
            self.state = State::Idle;
            match self.send(packet, end, Direction::On).await {
                Err(DatabaseError::Conflict) if !matches!(self.earlier, Earlier::Found(_)) => {
                    self.store.inner.contended.note(&packet.changed);
                    if attempt >= SENDS_MAX || packet.changed.is_empty() {
                        return Err(DatabaseError::Conflict);
                    }
                }
                Err(error) => return Err(error),
                Ok(_) => break,
            }
        }
        self.find_position(end).await;
        Ok(())
    }

    /// Asks for the position again, where the answer was lost behind a commit that happened.
    async fn find_position(&mut self, end: End) {
        if end != End::CommitAndPosition || self.seen.lsn.is_some() {
            return;
        }
        let asked = async {
            let mut connection = Connection::open(&self.store, self.deadline).await?;
            let around = Around { end: End::CommitAndPosition, ..Around::default() };
            connection.round_trip(&[], around).await.map_err(|broken| broken.error)
        };
        match asked.await {
            Ok(answers) => self.seen.lsn = answers.position,
            Err(error) => tracing::warn!(?error, "where a commit lies in the log is not known"),
        }
    }
}

impl Transaction {
    async fn send(&mut self, packet: &Packet, end: End, direction: Direction) -> Result<Vec<Rows>, DatabaseError> {
        let mut lent = self.lend(direction).await?;
        let has_read = lent.begun;
        match self.send_on(&mut lent, packet, end).await {
            Ok(results) => {
                self.take_back(lent, end);
                Ok(results)
            }
            Err(broken) => {
                self.is_outdated |= has_read && broken.violated == Some(Violated::Unique);
                Err(self.refused(lent, packet, end, broken))
            }
        }
    }

    /// Takes the connection out of the state, or a new one. From here on the transaction is in flight.
    async fn lend(&mut self, direction: Direction) -> Result<Lent, DatabaseError> {
        match std::mem::replace(&mut self.state, State::InFlight) {
            State::Idle => self.connect().await,
            State::Snapshot(connection, turn) => Ok(Lent { connection, turn, begun: true }),
            State::Serial(connection) => Ok(Lent { connection, turn: None, begun: true }),
            State::Aborted { connection, .. } if direction == Direction::Back => {
                Ok(Lent { connection, turn: None, begun: true })
            }
            aborted_state @ State::Aborted { .. } => {
                self.state = aborted_state;
                Err(aborted())
            }
            State::Single => {
                self.state = State::Single;
                Err(DatabaseError::NeedsSnapshot)
            }
            State::InFlight | State::Over => {
                self.state = State::Over;
                Err(Failure::internal("a statement behind the end of its transaction").into())
            }
        }
    }

    async fn connect(&mut self) -> Result<Lent, DatabaseError> {
        let Kind::Snapshot(View::Shared(shared)) = &self.kind else {
            let connection = Connection::open(&self.store, self.deadline).await?;
            return Ok(Lent { connection, turn: None, begun: false });
        };
        let (connection, turn) = shared.turn(&self.store, self.deadline).await?;
        if let Some(taken) = turn.taken() {
            self.seen = Seen { snapshot: Some(taken.snapshot.clone()), lsn: Some(taken.lsn) };
        }
        let begun = turn.taken().is_some();
        Ok(Lent { connection, turn: Some(turn), begun })
    }

    /// Sends all at once, in the transaction; begins it where it is not yet.
    async fn send_on(&mut self, lent: &mut Lent, packet: &Packet, end: End) -> Result<Vec<Rows>, Broken> {
        let begin = match &self.kind {
            _ if lent.begun => None,
            Kind::Single => None,
            // As the session's settings say: read only, and serialisable.
            Kind::Snapshot(_) => Some("begin"),
            // A write is refused then, in Postgres' words.
            Kind::Serial { .. } if lent.connection.is_read_only() => Some("begin"),
            Kind::Serial { .. } => Some("begin isolation level serializable read write"),
        };
        let alone = begin.is_some() && end != End::Open;
        let locks = if alone { self.store.inner.contended.locks(&packet.changed) } else { None };
        let question = match (&self.kind, &self.earlier) {
            (Kind::Serial { receipt: Some(receipt), .. }, Earlier::Unknown) => {
                Some(receipt.find(&self.store.inner.project.name))
            }
            _ => None,
        };
        let around = Around { question: question.as_ref(), locks: locks.as_ref(), begin, end };
        let asks_snapshot = begin.is_some() && self.is_noted();
        let sent = if asks_snapshot {
            let statements: Vec<Statement> =
                std::iter::once(convoke_sql::snapshot()).chain(packet.statements.iter().cloned()).collect();
            lent.connection.round_trip(&statements, around).await
        } else {
            lent.connection.round_trip(&packet.statements, around).await
        };
        let broken = |error| Broken { step: Step::Begin, error, question: None, violated: None };
        let Answers { mut rows, question, position } = match sent {
            Ok(answers) => answers,
            Err(mut failed) => {
                self.note_earlier(failed.question.take()).map_err(broken)?;
                return Err(failed);
            }
        };
        lent.begun = true;
        self.seen.lsn = position.or(self.seen.lsn);
        if asks_snapshot {
            let snapshot = rows.remove(0);
            self.take_snapshot(lent, &snapshot).map_err(broken)?;
        }
        // What has committed has: there was no receipt before it.
        if end == End::Open {
            self.note_earlier(question).map_err(broken)?;
        }
        Ok(rows)
    }

    /// Notes the answer to the question after an earlier receipt.
    ///
    /// # Errors
    /// Where there is one: the run has lost against itself.
    fn note_earlier(&mut self, rows: Option<Rows>) -> Result<(), DatabaseError> {
        let (Kind::Serial { receipt: Some(receipt), .. }, Some(rows)) = (&self.kind, rows) else { return Ok(()) };
        let Some(row) = rows.first() else {
            self.earlier = Earlier::None;
            return Ok(());
        };
        self.earlier = Earlier::Found(receipt.read(row)?);
        Err(DatabaseError::Conflict)
    }

    fn take_snapshot(&mut self, lent: &mut Lent, rows: &Rows) -> Result<(), DatabaseError> {
        let Some(row) = rows.first() else { return Ok(()) };
        let snapshot: String = row.get(0)?;
        let lsn: u64 = row.get::<PgLsn>(1)?.into();
        self.seen = Seen { snapshot: Some(snapshot.clone()), lsn: Some(lsn) };
        if let Some(turn) = &mut lent.turn {
            turn.take(Taken { snapshot, lsn });
        }
        Ok(())
    }

    fn take_back(&mut self, lent: Lent, end: End) {
        self.state = match (&self.kind, end) {
            (_, End::Commit | End::CommitAndPosition) => State::Over,
            (Kind::Single, End::Open) => State::Single,
            (Kind::Snapshot(_), End::Open) => State::Snapshot(lent.connection, lent.turn),
            (Kind::Serial { .. }, End::Open) => State::Serial(lent.connection),
        };
    }

    /// What a failed round trip leaves: the transaction is over, unless Postgres has refused a statement and knows a savepoint
    /// that leads back. It also ends a snapshot for all who share it.
    fn refused(&mut self, lent: Lent, packet: &Packet, end: End, broken: Broken) -> DatabaseError {
        self.state = State::Over;
        let DatabaseError::Refused(failure) = broken.error else { return broken.error };
        let reached = self.savepoints.len() - packet.savepoints_from(first_failed(broken.step, packet));
        if end != End::Open || reached == 0 {
            return DatabaseError::Failed(failure);
        }
        self.state = State::Aborted { connection: lent.connection, reached };
        DatabaseError::Refused(failure)
    }
}

impl Lent {
    /// Runs a statement that a function wrote itself, within the call's deadline.
    pub(crate) async fn run<T>(
        &mut self,
        restore: &Arc<str>,
        writes: Writes,
        run: impl AsyncFnOnce(&Object, &mut Budget) -> Result<T, Fault>,
    ) -> Result<T, DatabaseError> {
        self.connection.run(restore, writes, run).await
    }
}

/// The number of the first statement that was not executed.
fn first_failed(step: Step, packet: &Packet) -> usize {
    match step {
        Step::Prepare | Step::Begin => 0,
        Step::Statement(number) => number,
        Step::Commit => packet.statements.len(),
    }
}

fn is_true(rows: &Rows) -> Result<bool, DatabaseError> {
    rows.first().map_or(Ok(true), |row| row.get(0))
}

fn aborted() -> DatabaseError {
    let words = "the database has refused a statement of this transaction: only a savepoint leads back";
    DatabaseError::Refused(Failure::function(Code::InvalidArgs, words))
}
