//! Rows as they come from Postgres, and how many bytes of them may be held.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use convoke_documents::{Row as _, Rows as _};
use convoke_model::{Code, DatabaseError, Failure, Limits};
use futures_util::TryStreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres::RowStream;
use tokio_postgres::types::FromSql;
use uuid::Uuid;

use crate::error::{Fault, explain};
use crate::parameters::JsonText;

/// The unit in which room is counted: a semaphore's permits are 32 bits wide.
const UNIT: usize = 1 << 10;
/// What each connection may hold without asking for room: most reads are smaller, and cost no lock.
const UNCOUNTED_BYTES: usize = 1 << 20;
/// What a row takes beside the bytes that Postgres sends.
const ROW_BYTES: usize = 64;

/// Room for the rows that a host holds at once. Made once a host.
#[derive(Debug, Clone)]
pub(crate) struct Rooms {
    free: Arc<Semaphore>,
    units: usize,
    read_bytes_max: usize,
    call_read_bytes_max: usize,
    /// What a read takes before it knows how large it is: nothing is waited for while room is held.
    room_bytes: usize,
    wait: Duration,
}

/// What one call has read, and what it may still read.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    rooms: Rooms,
    deadline: Instant,
    call_bytes: usize,
}

/// One row.
#[derive(Debug)]
pub(crate) struct Row(tokio_postgres::Row);

/// The rows of one statement, with the room that they take.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    rows: Vec<Row>,
    _room: Option<OwnedSemaphorePermit>,
}

impl Rooms {
    pub(crate) fn new(limits: &Limits) -> Self {
        let units = (limits.host_read_bytes_max / UNIT).clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        let room_bytes = limits.read_bytes_max.min(units * UNIT);
        Self {
            free: Arc::new(Semaphore::new(units)),
            units,
            read_bytes_max: limits.read_bytes_max,
            call_read_bytes_max: limits.call_read_bytes_max,
            room_bytes,
            wait: Duration::from_millis(limits.queue_ms_max),
        }
    }

    pub(crate) fn held_bytes(&self) -> usize {
        (self.units - self.free.available_permits()) * UNIT
    }

    /// Waits for room for the largest read, a bounded time.
    async fn room(&self, deadline: Instant) -> Result<OwnedSemaphorePermit, DatabaseError> {
        let until = deadline.min(Instant::now() + self.wait);
        let room = Arc::clone(&self.free).acquire_many_owned(units(self.room_bytes));
        match tokio::time::timeout_at(until.into(), room).await {
            Ok(Ok(room)) => Ok(room),
            _ => Err(Failure::system(Code::Overloaded, "other calls hold all that the host may read at once").into()),
        }
    }
}

impl Budget {
    pub(crate) fn new(rooms: Rooms, deadline: Instant) -> Self {
        Self { rooms, deadline, call_bytes: 0 }
    }

    /// The same room, for another call.
    pub(crate) fn renewed(&self, deadline: Instant) -> Self {
        Self::new(self.rooms.clone(), deadline)
    }

    /// Takes rows as they come, as long as they are within bounds.
    pub(crate) async fn collect(&mut self, stream: RowStream) -> Result<Rows, Fault> {
        let mut stream = pin!(stream);
        let (mut rows, mut bytes, mut room) = (Vec::new(), 0_usize, None);
        while let Some(row) = stream.try_next().await? {
            bytes = bytes.saturating_add(row.raw_size_bytes() + ROW_BYTES);
            self.check(bytes)?;
            if room.is_none() && bytes > UNCOUNTED_BYTES {
                room = Some(self.rooms.room(self.deadline).await.map_err(Fault::Ours)?);
            }
            rows.push(Row(row));
        }
        self.call_bytes = self.call_bytes.saturating_add(bytes);
        if let Some(room) = &mut room {
            // What it did not need is free for others at once.
            drop(room.split(room.num_permits().saturating_sub(units(bytes) as usize)));
        }
        Ok(Rows { rows, _room: room })
    }

    fn check(&self, bytes: usize) -> Result<(), Fault> {
        let Rooms { read_bytes_max, call_read_bytes_max, .. } = self.rooms;
        let words = if bytes > read_bytes_max {
            format!("one read gave more than {read_bytes_max} bytes: give it a limit, or select fewer fields")
        } else if self.call_bytes.saturating_add(bytes) > call_read_bytes_max {
            format!("the reads of the call gave more than {call_read_bytes_max} bytes together")
        } else {
            return Ok(());
        };
        Err(Fault::Ours(Failure::function(Code::ReadLimit, words).into()))
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

impl Row {
    pub(crate) fn get<'a, T: FromSql<'a>>(&'a self, column: usize) -> Result<T, DatabaseError> {
        self.0.try_get(column).map_err(|error| explain(&error))
    }
}

impl Rows {
    pub(crate) fn first(&self) -> Option<&Row> {
        self.rows.first()
    }

    /// The first column of each, of type `json` or `jsonb`.
    pub(crate) fn texts(&self) -> Result<Vec<String>, DatabaseError> {
        self.rows().iter().map(|row| row.json(0).map(str::to_owned)).collect()
    }
}

impl convoke_documents::Rows for Rows {
    type Row = Row;

    fn rows(&self) -> &[Row] {
        &self.rows
    }
}

impl convoke_documents::Row for Row {
    fn uuid(&self, column: usize) -> Result<Uuid, DatabaseError> {
        self.get(column)
    }

    fn float(&self, column: usize) -> Result<f64, DatabaseError> {
        self.get(column)
    }

    fn int(&self, column: usize) -> Result<i32, DatabaseError> {
        self.get(column)
    }

    fn big_int(&self, column: usize) -> Result<i64, DatabaseError> {
        self.get(column)
    }

    fn optional_json(&self, column: usize) -> Result<Option<&str>, DatabaseError> {
        Ok(self.get::<Option<JsonText<'_>>>(column)?.map(|JsonText(text)| text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn room_is_waited_for_a_bounded_time_and_comes_back() {
        let limits =
            Limits { read_bytes_max: 3 << 20, host_read_bytes_max: 7 << 20, queue_ms_max: 10, ..Limits::default() };
        let rooms = Rooms::new(&limits);
        let deadline = Instant::now() + Duration::from_mins(1);
        let mut first = rooms.room(deadline).await.expect("room");
        let _second = rooms.room(deadline).await.expect("room");
        assert_eq!(rooms.held_bytes(), 6 << 20);
        let Err(DatabaseError::Failed(failure)) = rooms.room(deadline).await else { panic!("7 MiB hold two") };
        assert_eq!(failure.code, Code::Overloaded);
        drop(first.split(2 << 10));
        drop(rooms.room(deadline).await.expect("what the first did not need"));
        drop(first);
        assert_eq!(rooms.held_bytes(), 3 << 20);
    }

    #[tokio::test]
    async fn a_host_with_little_room_serves_one_read_at_a_time() {
        let limits = Limits { host_read_bytes_max: 0, queue_ms_max: 10, ..Limits::default() };
        let rooms = Rooms::new(&limits);
        let deadline = Instant::now() + Duration::from_mins(1);
        let one = rooms.room(deadline).await.expect("room");
        assert!(rooms.room(deadline).await.is_err());
        drop(one);
        assert!(rooms.room(deadline).await.is_ok());
    }
}
