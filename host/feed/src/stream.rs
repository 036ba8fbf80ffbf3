//! One slot, from its creation to its end.

use std::convert::Infallible;
use std::pin::pin;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes, BytesMut};
use convoke_sql::{quote_identifier, quote_literal};
use postgres_protocol::message::backend::Message as ServerMessage;
use postgres_protocol::message::frontend;
use tokio::select;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep, timeout};

use crate::assemble::{AssembleError, Assembled, Assembler};
use crate::connect::{ANSWER_MAX, ask};
use crate::decode::{Envelope, Message, POSTGRES_EPOCH_US};
use crate::error::FeedError;
use crate::event::{FeedEvent, GapReason, System};
use crate::feed::PositionRequest;
use crate::metrics::FeedMetrics;
use crate::options::FeedOptions;
use crate::outlet::{Outlet, Room};
use crate::server::{SENDER_TIMEOUT, Server, open_transactions, slot_name, within};
use crate::wire::{Frame, unexpected};
use convoke_model::chain;

/// The creation of a slot that takes longer is worth a line in the log.
const SLOT_WAIT_TOLD: Duration = Duration::from_secs(5);

/// A slot that is being followed.
pub(crate) struct Stream<'a> {
    server: Server,
    options: &'a FeedOptions,
    outlet: &'a Outlet,
    metrics: &'a FeedMetrics,
    request: &'a PositionRequest,
    assembler: Assembler,
    status_due: Interval,
    /// The end of what has arrived.
    received: u64,
    /// The end of what has been delivered; Postgres may forget what is before it.
    delivered: u64,
    /// When the server was last heard, or last not listened to.
    heard: Instant,
}

/// How a stream ends.
#[derive(Debug)]
pub(crate) enum End {
    /// The consumer is gone.
    Closed,
    Gap(GapReason),
}

impl From<FeedError> for End {
    fn from(error: FeedError) -> Self {
        Self::Gap(GapReason::Lost(error.into()))
    }
}

impl<'a> Stream<'a> {
    /// Connects, creates a slot and begins to follow it.
    pub(crate) async fn open(
        options: &'a FeedOptions,
        outlet: &'a Outlet,
        metrics: &'a FeedMetrics,
        request: &'a PositionRequest,
    ) -> Result<Self, FeedError> {
        let mut server = Server::connect(&options.postgres).await?;
        let publication = &options.publication;
        let known = format!("select 1 from pg_publication where pubname = {}", quote_literal(publication));
        if server.query(&known).await?.is_empty() {
            return Err(FeedError::NoPublication { name: publication.clone() });
        }
        let slot = slot_name();
        let position = create_slot(&mut server, &slot, options).await?;
        // A list of names inside of a text.
        let names = quote_literal(&quote_identifier(publication));
        let command = format!(
            "START_REPLICATION SLOT \"{slot}\" LOGICAL 0/0 (proto_version '1', publication_names {names}, messages 'true')"
        );
        let begun = within(ANSWER_MAX, server.connection.wire.copy_both(&command)).await;
        begun.map_err(|error| server.explain(error))?;
        tracing::debug!(%slot, position, "following the log");
        // Postgres gives a silent receiver up after a minute.
        let mut status_due = interval(options.status_interval.clamp(Duration::from_millis(10), SENDER_TIMEOUT / 3));
        status_due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            server,
            options,
            outlet,
            metrics,
            request,
            assembler: Assembler::new(options.transaction_bytes_max),
            status_due,
            received: position,
            delivered: position,
            heard: Instant::now(),
        })
    }

    /// The consistent point, while nothing has been received.
    pub(crate) fn position(&self) -> u64 {
        self.delivered
    }

    pub(crate) fn system(&self) -> System {
        self.server.facts.system
    }

    /// Delivers until it is over. The connection ends with the stream, and the slot with the connection.
    pub(crate) async fn run(mut self) -> End {
        let Err(end) = self.follow().await;
        if matches!(end, End::Closed) {
            // The server would notice anyway; so it does at once and without a complaint in its log.
            let goodbye = |out: &mut BytesMut| {
                frontend::terminate(out);
                Ok(())
            };
            let _ = timeout(ANSWER_MAX, self.server.connection.wire.send(goodbye)).await;
        }
        end
    }

    async fn follow(&mut self) -> Result<Infallible, End> {
        loop {
            while let Some(frame) =
                self.server.connection.wire.buffered().map_err(|error| self.server.explain(error))?
            {
                self.take(frame).await?;
            }
            select! {
                filled = self.server.connection.wire.fill() => {
                    filled?;
                    self.heard = Instant::now();
                    self.metrics.heard();
                }
                _ = self.status_due.tick() => self.status_or_silence().await?,
                () = self.request.wanted() => self.send_status(true).await?,
                () = self.outlet.closed() => return Err(End::Closed),
            }
        }
    }

    async fn take(&mut self, frame: Frame) -> Result<(), End> {
        let data = match frame {
            Frame::CopyData(data) => data,
            Frame::Message(ServerMessage::CopyDone | ServerMessage::CommandComplete(_)) => {
                return Err(FeedError::Ended.into());
            }
            Frame::Message(_) | Frame::CopyBoth => return Err(unexpected("a change").into()),
        };
        match Envelope::parse(data).map_err(FeedError::from)? {
            Envelope::Data { lsn, message } => {
                self.received = self.received.max(lsn);
                self.add(message).await
            }
            Envelope::Keepalive { wal_end, reply_requested } => {
                self.received = self.received.max(wal_end);
                self.metrics.server_at(wal_end);
                // All that committed before has arrived: Postgres may forget it though none of it was published.
                if !self.assembler.is_inside_transaction() && wal_end > self.delivered {
                    self.advance(wal_end);
                    self.outlet.send_now(FeedEvent::Position(wal_end));
                }
                if reply_requested { self.send_status(false).await.map_err(End::from) } else { Ok(()) }
            }
        }
    }

    async fn add(&mut self, message: Bytes) -> Result<(), End> {
        let bytes = message.len();
        let message = Message::parse(message).map_err(FeedError::from)?;
        let assembled = self.assembler.add(message, bytes).map_err(|error| match error {
            AssembleError::Decode(error) => FeedError::from(error).into(),
            AssembleError::TooLarge => End::Gap(GapReason::TooLarge),
        })?;
        let Some(Assembled { transaction, bytes }) = assembled else { return Ok(()) };
        let end_lsn = transaction.end_lsn;
        self.received = self.received.max(end_lsn);
        self.metrics.received(transaction.commit_lsn);
        self.metrics.server_at(end_lsn);
        // One that touched nothing that is published has nothing to say.
        if !(transaction.changes.is_empty() && transaction.messages.is_empty()) {
            let room = match self.outlet.try_reserve(bytes) {
                Some(room) => room,
                None => self.wait_for_room(bytes).await?,
            };
            self.outlet.send(FeedEvent::Transaction(transaction.into()), room);
            self.metrics.delivered();
        }
        self.advance(end_lsn);
        Ok(())
    }

    fn advance(&mut self, position: u64) {
        self.delivered = self.delivered.max(position);
        self.metrics.advanced(position);
    }

    /// Waits for the consumer without reading, so that Postgres waits too; for as long as that does no harm.
    async fn wait_for_room(&mut self, bytes: usize) -> Result<Room, End> {
        let begin = Instant::now();
        let mut room = pin!(self.outlet.reserve(bytes));
        loop {
            select! {
                biased;
                room = &mut room => {
                    // The silence was ours.
                    self.heard = Instant::now();
                    return Ok(room);
                }
                () = self.outlet.closed() => return Err(End::Closed),
                _ = self.status_due.tick() => {}
            }
            self.send_status(false).await?;
            let elapsed = begin.elapsed();
            if elapsed > self.options.stall_max {
                return Err(End::Gap(GapReason::Stalled { elapsed }));
            }
            self.check_held_back().await?;
        }
    }

    /// Asks over a connection of its own how far the log is: this one is full of what is not being read.
    async fn check_held_back(&mut self) -> Result<(), End> {
        let address = &self.server.connection.address;
        let answer = ask(&self.options.postgres, address, "select pg_current_wal_lsn()").await;
        let wal_end = match answer.and_then(|row| row.lsn(0)) {
            Ok(wal_end) => wal_end,
            Err(error) => {
                // The limit of time still holds.
                tracing::warn!(error = %chain(&error), "cannot ask how much log is held back");
                return Ok(());
            }
        };
        self.metrics.server_at(wal_end);
        let wal_bytes = wal_end.saturating_sub(self.delivered);
        if wal_bytes > self.options.wal_bytes_max {
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
