//! One slot, from its creation to its end.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes, BytesMut};
use convoke_sql::{quote_identifier, quote_literal};
use postgres_protocol::message::backend::Message as ServerMessage;
use postgres_protocol::message::frontend;
use tokio::select;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep, timeout};

use crate::assemble::{AssembleError, Assembled, Assembler};
use crate::change::Transaction;
use crate::connect::{ANSWER_MAX, ask, ask_all};
use crate::coverage::{Coverage, Usable, Wanted};
use crate::decode::{Envelope, Message, POSTGRES_EPOCH_US};
use crate::error::FeedError;
use crate::event::{GapReason, System};
use crate::members::Members;
use crate::metrics::FeedMetrics;
use crate::options::FeedOptions;
use crate::request::PositionRequest;
use crate::server::{SENDER_TIMEOUT, Server, open_transactions, slot_name, within};
use crate::wire::{Frame, unexpected};
use convoke_model::chain;

mod successor;

use self::successor::Successor;

/// The creation of a slot that takes longer is worth a line in the log.
const SLOT_WAIT_TOLD: Duration = Duration::from_secs(5);

/// An answer that takes longer is not waited for: the question is asked anew.
const REPLY_MAX: Duration = Duration::from_secs(2);

/// A slot that is being followed.
pub(crate) struct Stream {
    server: Server,
    setting: Setting,
    /// Those that Postgres sends.
    publications: BTreeSet<String>,
    coverage: Coverage,
    /// Whether a table was described since the coverage was asked for: that says nothing of it.
    coverage_is_old: bool,
    assembler: Assembler,
    successor: Successor,
    status_due: Interval,
    /// The end of what has arrived.
    received: u64,
    /// The end of what has been delivered; Postgres may forget what is before it.
    delivered: u64,
    /// When the server was last heard, or last not listened to.
    heard: Instant,
    /// When the server was asked how far it is, if it has not answered.
    asked: Option<Instant>,
}

/// What the streams of a feed share.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    pub(crate) options: Arc<FeedOptions>,
    pub(crate) metrics: Arc<FeedMetrics>,
    pub(crate) request: PositionRequest,
}

/// What came of the attempt to open a stream.
pub(crate) struct Opened {
    /// None where none of those could be followed who wait for it.
    pub(crate) stream: Option<Box<Stream>>,
    /// Publications that cannot be followed, and why.
    pub(crate) refused: Vec<(String, FeedError)>,
}

impl Opened {
    /// The stream, or why there is none. Those who cannot be followed are told.
    pub(crate) fn stream_or_reason(self, members: &mut Members) -> Result<Box<Stream>, FeedError> {
        let Self { stream, mut refused } = self;
        match stream {
            Some(stream) => {
                members.tell(&refused);
                Ok(stream)
            }
            None => Err(refused.pop().map_or(FeedError::Ended, |(_, error)| error)),
        }
    }
}

/// How a stream ends.
pub(crate) enum End {
    /// Nobody follows.
    Closed,
    Gap(GapReason),
    /// Another stream goes on exactly where this one ended.
    Succeeded(Box<Stream>),
}

impl From<FeedError> for End {
    fn from(error: FeedError) -> Self {
        Self::Gap(GapReason::Lost(error.into()))
    }
}

impl Stream {
    /// Connects, creates a slot and begins to follow it, for `wanted` and because of `waiting`.
    pub(crate) async fn open(setting: Setting, wanted: Vec<Wanted>, waiting: Vec<Wanted>) -> Result<Opened, FeedError> {
        let options = &setting.options;
        let mut server = Server::connect(&options.postgres).await?;
        let rows = server.query(&Usable::query(&wanted)).await?;
        let Usable { publications, refused } = Usable::read(&wanted, &rows);
        let is_usable = |wanted: &Wanted| publications.contains(&wanted.publication);
        if publications.is_empty() || !(waiting.is_empty() || waiting.iter().any(is_usable)) {
            return Ok(Opened { stream: None, refused });
        }
        let slot = slot_name();
        let position = create_slot(&mut server, &slot, options).await?;
        // A list of names inside of a text.
        let names: Vec<String> = publications.iter().map(|name| quote_identifier(name)).collect();
        let names = quote_literal(&names.join(","));
        let command = format!(
            "START_REPLICATION SLOT \"{slot}\" LOGICAL 0/0 (proto_version '1', publication_names {names}, messages 'true')"
        );
        let begun = within(ANSWER_MAX, server.connection.wire.copy_both(&command)).await;
        begun.map_err(|error| server.explain(error))?;
        tracing::debug!(%slot, position, ?publications, "following the log");
        // Postgres gives a silent receiver up after a minute.
        let mut status_due = interval(options.status_interval.clamp(Duration::from_millis(10), SENDER_TIMEOUT / 3));
        status_due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stream = Self {
            assembler: Assembler::new(options.transaction_bytes_max),
            server,
            setting,
            publications,
            coverage: Coverage::default(),
            coverage_is_old: true,
            successor: Successor::default(),
            status_due,
            received: position,
            delivered: position,
            heard: Instant::now(),
            asked: None,
        };
        Ok(Opened { stream: Some(Box::new(stream)), refused })
    }

    /// The consistent point, while nothing has been received.
    pub(crate) fn position(&self) -> u64 {
        self.delivered
    }

    pub(crate) fn system(&self) -> System {
        self.server.facts.system
    }

    pub(crate) fn publications(&self) -> &BTreeSet<String> {
        &self.publications
    }

    /// Delivers until it is over. The connection ends with the stream, and the slot with the connection.
    pub(crate) async fn run(mut self, members: &mut Members) -> End {
        let Err(end) = self.follow(members).await;
        if !matches!(end, End::Gap(_)) {
            // The server would notice anyway; so it does at once and without a complaint in its log.
            let goodbye = |out: &mut BytesMut| {
                frontend::terminate(out);
                Ok(())
            };
            let _ = timeout(ANSWER_MAX, self.server.connection.wire.send(goodbye)).await;
        }
        end
    }

    async fn follow(&mut self, members: &mut Members) -> Result<Infallible, End> {
        loop {
            while let Some(frame) =
                self.server.connection.wire.buffered().map_err(|error| self.server.explain(error))?
            {
                match frame {
                    Frame::CopyData(data) => self.take(data, members).await?,
                    Frame::Message(ServerMessage::CopyDone | ServerMessage::CommandComplete(_)) => {
                        return Err(FeedError::Ended.into());
                    }
                    Frame::Message(_) | Frame::CopyBoth => return Err(unexpected("a change").into()),
                }
            }
            self.review(members)?;
            let may_ask = self.asked.is_none_or(|since| since.elapsed() > REPLY_MAX);
            select! {
                filled = self.server.connection.wire.fill() => {
                    filled?;
                    self.heard = Instant::now();
                    self.setting.metrics.heard();
                }
                _ = self.status_due.tick() => self.status_or_silence().await?,
                () = self.setting.request.wanted(), if may_ask => {
                    self.asked = Some(Instant::now());
                    self.send_status(true).await?;
                }
                () = members.changed() => {}
                () = self.successor.progress() => self.successor.settle(members, &self.setting)?,
            }
        }
    }

    /// Looks who is there, and has another stream follow where this one does not send what is wanted.
    fn review(&mut self, members: &mut Members) -> Result<(), End> {
        members.settle();
        if members.is_empty() {
            return Err(End::Closed);
        }
        self.successor.review(members, &self.publications, &self.setting);
        self.hand_over(self.delivered)
    }

    /// Ends the stream if the next one goes on from a position that has been reached.
    fn hand_over(&mut self, position: u64) -> Result<(), End> {
        if self.successor.position().is_none_or(|begins| position < begins) {
            return Ok(());
        }
        match self.successor.take() {
            Some(stream) if stream.system() == self.system() => Err(End::Succeeded(stream)),
            _ => Err(FeedError::Ended.into()),
        }
    }

    async fn take(&mut self, data: Bytes, members: &mut Members) -> Result<(), End> {
        match Envelope::parse(data).map_err(FeedError::from)? {
            Envelope::Data { lsn, message } => {
                self.received = self.received.max(lsn);
                self.add(message, members).await
            }
            Envelope::Keepalive { wal_end, reply_requested } => {
                self.asked = None;
                self.received = self.received.max(wal_end);
                self.setting.metrics.server_at(wal_end);
                // All that committed before has arrived: Postgres may forget it though none of it was published.
                if !self.assembler.is_inside_transaction() && wal_end > self.delivered {
                    // What comes behind the beginning of the next stream is for that one to tell.
                    let position = self.successor.position().map_or(wal_end, |begins| wal_end.min(begins));
                    self.advance(position);
                    members.position(position);
                }
                if reply_requested { self.send_status(false).await.map_err(End::from) } else { Ok(()) }
            }
        }
    }

    async fn add(&mut self, message: Bytes, members: &mut Members) -> Result<(), End> {
        let bytes = message.len();
        let message = Message::parse(message).map_err(FeedError::from)?;
        self.coverage_is_old |= matches!(message, Message::Relation(_));
        let assembled = self.assembler.add(message, bytes).map_err(|error| match error {
            AssembleError::Decode(error) => FeedError::from(error).into(),
            AssembleError::TooLarge => End::Gap(GapReason::TooLarge),
        })?;
        let Some(Assembled { transaction, bytes }) = assembled else { return Ok(()) };
        self.hand_over(transaction.commit_lsn)?;
        let end_lsn = transaction.end_lsn;
        self.received = self.received.max(end_lsn);
        self.setting.metrics.received(transaction.commit_lsn);
        self.setting.metrics.server_at(end_lsn);
        // One that touched nothing that is published has nothing to say.
        if !(transaction.changes.is_empty() && transaction.messages.is_empty()) {
            let transaction = Arc::new(transaction);
            self.sort(members).await;
            if !members.hand_on(&transaction, bytes, &self.coverage) {
                self.wait_for_room(&transaction, bytes, members).await?;
            }
            self.setting.metrics.delivered();
        }
        self.advance(end_lsn);
        Ok(())
    }

    /// Sees to it that what follows can be sorted by publications, where it has to be.
    async fn sort(&mut self, members: &Members) {
        if !self.coverage_is_old || !members.are_several() {
            return;
        }
        let address = &self.server.connection.address;
        let asked = ask_all(&self.setting.options.postgres, address, &Coverage::query(&self.publications)).await;
        self.coverage_is_old = asked.is_err();
        self.coverage = match asked {
            Ok(rows) => Coverage::read(&rows),
            Err(error) => {
                // All are told more than concerns them.
                tracing::warn!(error = %chain(&error), "cannot ask which tables are published");
                Coverage::default()
            }
        };
    }

    fn advance(&mut self, position: u64) {
        self.delivered = self.delivered.max(position);
        self.setting.metrics.advanced(position);
    }

    /// Waits for the only member without reading, so that Postgres waits too; for as long as that does no harm.
    async fn wait_for_room(
        &mut self,
        transaction: &Arc<Transaction>,
        bytes: usize,
        members: &mut Members,
    ) -> Result<(), End> {
        let begin = Instant::now();
        loop {
            select! {
                biased;
                () = members.changed() => {
                    members.settle();
                    if members.is_empty() {
                        return Err(End::Closed);
                    }
                    // With somebody else there it does not wait.
                    if members.hand_on(transaction, bytes, &self.coverage) {
                        // The silence was ours.
                        self.heard = Instant::now();
                        return Ok(());
                    }
                    continue;
                }
                _ = self.status_due.tick() => {}
            }
            self.send_status(false).await?;
            let elapsed = begin.elapsed();
            if elapsed > self.setting.options.stall_max {
                return Err(End::Gap(GapReason::Stalled { elapsed }));
            }
            self.check_held_back().await?;
        }
    }

    /// Asks over a connection of its own how far the log is: this one is full of what is not being read.
    async fn check_held_back(&mut self) -> Result<(), End> {
        let address = &self.server.connection.address;
        let answer = ask(&self.setting.options.postgres, address, "select pg_current_wal_lsn()").await;
        let wal_end = match answer.and_then(|row| row.lsn(0)) {
            Ok(wal_end) => wal_end,
            Err(error) => {
                // The limit of time still holds.
                tracing::warn!(error = %chain(&error), "cannot ask how much log is held back");
                return Ok(());
            }
        };
        self.setting.metrics.server_at(wal_end);
        let wal_bytes = wal_end.saturating_sub(self.delivered);
        if wal_bytes > self.setting.options.wal_bytes_max {
            return Err(End::Gap(GapReason::HeldBack { wal_bytes }));
        }
        Ok(())
    }

    async fn status_or_silence(&mut self) -> Result<(), End> {
        let silence = self.heard.elapsed();
        if silence > SENDER_TIMEOUT {
            return Err(FeedError::Timeout { after: SENDER_TIMEOUT }.into());
        }
        // A server that has nothing to say is asked whether it is there.
        let quiet = silence >= self.status_due.period();
        Ok(self.send_status(quiet).await?)
    }

    /// Tells what has arrived and what has been delivered: "Standby status update" of the manual.
    async fn send_status(&mut self, reply_requested: bool) -> Result<(), FeedError> {
        let mut body = BytesMut::with_capacity(34);
        body.put_u8(b'r');
        body.put_u64(self.received);
        body.put_u64(self.delivered);
        body.put_u64(self.delivered);
        body.put_i64(postgres_now_us());
        body.put_u8(reply_requested.into());
        let send = self.server.connection.wire.send(|out| {
            frontend::CopyData::new(body)?.write(out);
            Ok(())
        });
        within(ANSWER_MAX, send).await
    }
}

/// Creates the slot, and says for whom it waits where that takes long.
async fn create_slot(server: &mut Server, slot: &str, options: &FeedOptions) -> Result<u64, FeedError> {
    let address = server.connection.address.clone();
    let tell = async {
        sleep(SLOT_WAIT_TOLD).await;
        let transactions = open_transactions(&options.postgres, &address).await;
        tracing::warn!(%transactions, "the change feed waits for the end of write transactions");
        std::future::pending::<Infallible>().await
    };
    select! {
        created = server.create_slot(slot, options.slot_wait_max) => created,
        never = tell => match never {},
    }
}

/// By Postgres' clock, which begins in 2000.
fn postgres_now_us() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64);
    since_1970 - POSTGRES_EPOCH_US
}
