//! One connection to Postgres, message by message: the manual, "Frontend/Backend Protocol".
//!
//! An own client, as that of the tokio-postgres family knows no replication; messages and passwords are that family's.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::{DataRowBody, ErrorFields, Message};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::error::{FeedError, ServerError};

/// What the bytes go through: a socket, or TLS around it.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// A read may bring this much; smaller, and a backlog costs a system call for every few transactions.
const READ_BYTES: usize = 64 << 10;
/// Postgres allocates no more than 1 GiB at once, so a message that says so is none.
const MESSAGE_BYTES_MAX: u32 = 1 << 30;
/// `CopyBothResponse`, which only replication has.
const COPY_BOTH_TAG: u8 = b'W';

pub(crate) struct Wire {
    stream: Box<dyn Transport>,
    input: BytesMut,
    output: BytesMut,
}

/// A message of the server that is not dealt with here.
pub(crate) enum Frame {
    Message(Message),
    CopyData(Bytes),
    CopyBoth,
}

impl Wire {
    pub(crate) fn new(stream: impl Transport + 'static) -> Self {
        Self { stream: Box::new(stream), input: BytesMut::new(), output: BytesMut::new() }
    }

    /// Writes one message or several. Not to be dropped before its end.
    pub(crate) async fn send(&mut self, write: impl FnOnce(&mut BytesMut) -> io::Result<()>) -> Result<(), FeedError> {
        self.output.clear();
        write(&mut self.output)?;
        self.stream.write_all(&self.output).await?;
        self.stream.flush().await?;
        Ok(())
    }

    /// Reads what there is. May be dropped at any point.
    pub(crate) async fn fill(&mut self) -> Result<(), FeedError> {
        if self.input.capacity() - self.input.len() < READ_BYTES / 8 {
            self.input.reserve(READ_BYTES);
        }
        match self.stream.read_buf(&mut self.input).await? {
            0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            _ => Ok(()),
        }
    }

    /// The next message that has been read whole. An error response is an error; notices go to the log.
    pub(crate) fn buffered(&mut self) -> Result<Option<Frame>, FeedError> {
        loop {
            let Some(length) = self.next_length()? else { return Ok(None) };
            if self.input.len() < length {
                self.input.reserve(length - self.input.len());
                return Ok(None);
            }
            if self.input.first() == Some(&COPY_BOTH_TAG) {
                self.input.advance(length);
                return Ok(Some(Frame::CopyBoth));
            }
            match Message::parse(&mut self.input)? {
                None => return Ok(None),
                Some(Message::ParameterStatus(_)) => {}
                Some(Message::NoticeResponse(notice)) => {
                    tracing::debug!(notice = %read_fields(notice.fields())?, "notice");
                }
                Some(Message::ErrorResponse(error)) => return Err(FeedError::Refused(read_fields(error.fields())?)),
                Some(Message::CopyData(data)) => return Ok(Some(Frame::CopyData(data.into_bytes()))),
                Some(message) => return Ok(Some(Frame::Message(message))),
            }
        }
    }

    /// The whole length of the next message, if its header has been read.
    fn next_length(&self) -> Result<Option<usize>, FeedError> {
        let Some((_, mut after)) = self.input.split_first() else { return Ok(None) };
        let Ok(length) = after.try_get_u32() else { return Ok(None) };
        if length > MESSAGE_BYTES_MAX {
            return Err(FeedError::Protocol { expected: "a message", found: "too long a one" });
        }
        Ok(Some(length as usize + 1))
    }

    pub(crate) async fn next(&mut self) -> Result<Frame, FeedError> {
        loop {
            if let Some(frame) = self.buffered()? {
                return Ok(frame);
            }
            self.fill().await?;
        }
    }

    /// Runs one statement or command without parameters; gives its rows as text.
    pub(crate) async fn query(&mut self, text: &str) -> Result<Vec<Row>, FeedError> {
        self.send(|out| frontend::query(text, out)).await?;
        let mut rows = Vec::new();
        loop {
            match self.next().await? {
                Frame::Message(Message::DataRow(row)) => rows.push(Row::read(&row)?),
                Frame::Message(Message::ReadyForQuery(_)) => return Ok(rows),
                Frame::Message(Message::RowDescription(_) | Message::CommandComplete(_)) => {}
                Frame::Message(_) => return Err(unexpected("the answer to a statement")),
                Frame::CopyData(_) | Frame::CopyBoth => {
                    return Err(FeedError::Protocol { expected: "the answer to a statement", found: "a copy" });
                }
            }
        }
    }

    /// Begins a copy in both directions.
    pub(crate) async fn copy_both(&mut self, command: &str) -> Result<(), FeedError> {
        self.send(|out| frontend::query(command, out)).await?;
        match self.next().await? {
            Frame::CopyBoth => Ok(()),
            _ => Err(unexpected("the beginning of a copy")),
        }
    }
}

pub(crate) fn unexpected(expected: &'static str) -> FeedError {
    FeedError::Protocol { expected, found: "something else" }
}

/// One row of an answer.
#[derive(Debug)]
pub(crate) struct Row(Vec<Option<String>>);

impl Row {
    fn read(body: &DataRowBody) -> Result<Self, FeedError> {
        let buffer = body.buffer();
        let text = |range: std::ops::Range<usize>| {
            let bytes = buffer.get(range).unwrap_or_default();
            String::from_utf8_lossy(bytes).into_owned()
        };
        let values = body.ranges().map(|range| Ok(range.map(text))).collect()?;
        Ok(Self(values))
    }

    /// An empty text for NULL and for a column that is not there.
    pub(crate) fn text(&self, column: usize) -> &str {
        self.0.get(column).and_then(Option::as_deref).unwrap_or_default()
    }

    pub(crate) fn number<T: std::str::FromStr>(&self, column: usize) -> Result<T, FeedError> {
        let text = self.text(column);
        text.parse().map_err(|_| FeedError::Protocol { expected: "a number", found: "another text" })
    }

    /// A position as Postgres writes it, `16/B374D848`.
    pub(crate) fn lsn(&self, column: usize) -> Result<u64, FeedError> {
        parse_lsn(self.text(column))
            .ok_or(FeedError::Protocol { expected: "a position in the log", found: "another text" })
    }
}

fn parse_lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    let half = |text| u32::from_str_radix(text, 16).ok().map(u64::from);
    Some(half(high)? << 32 | half(low)?)
}

fn read_fields(mut fields: ErrorFields<'_>) -> Result<ServerError, FeedError> {
    let mut error = ServerError { code: String::new(), message: String::new(), detail: None };
    while let Some(field) = fields.next()? {
        let value = String::from_utf8_lossy(field.value_bytes()).into_owned();
        match field.type_() {
            b'C' => error.code = value,
            b'M' => error.message = value,
            b'D' => error.detail = Some(value),
            _ => {}
        }
    }
    Ok(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read() {
        assert_eq!(parse_lsn("16/B374D848"), Some(0x16_B374_D848));
        assert_eq!(parse_lsn("0/0"), Some(0));
        for text in ["", "0", "0/", "/0", "x/1", "1/100000000"] {
            assert_eq!(parse_lsn(text), None, "{text}");
        }
    }

    #[tokio::test]
    async fn pieces_of_a_message_are_put_together() {
        let (mut server, client) = tokio::io::duplex(64);
        let mut wire = Wire::new(client);
        let sent = tokio::spawn(async move {
            let mut bytes = b"W\0\0\0\x07\0\0\0S\0\0\0\x08a\0b\0d\0\0\0\x07xyz".to_vec();
            bytes.extend(b"E\0\0\0\x10C42501\0Mno\0\0");
            for byte in bytes {
                server.write_all(&[byte]).await.unwrap();
            }
            server
        });
        assert!(matches!(wire.next().await, Ok(Frame::CopyBoth)));
        assert!(matches!(wire.next().await, Ok(Frame::CopyData(data)) if data == "xyz"));
        let refused = wire.next().await;
        assert!(matches!(refused, Err(FeedError::Refused(error)) if error.code == "42501" && error.message == "no"));
        drop(sent.await.unwrap());
        assert!(matches!(wire.next().await, Err(FeedError::Io(_))));
    }

    #[tokio::test]
    async fn a_length_beyond_reason_is_refused() {
        let (mut server, client) = tokio::io::duplex(64);
        server.write_all(b"d\xff\xff\xff\xff").await.unwrap();
        assert!(matches!(Wire::new(client).next().await, Err(FeedError::Protocol { .. })));
    }
}
