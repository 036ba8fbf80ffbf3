//! One connection: its bytes, what it is at, and how it ends.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Sleep, sleep, timeout};
use tokio_io_timeout::TimeoutStream;

use crate::arriving::Arriving;
use crate::budget::{Budget, Held};

/// How long the end of a connection waits for its peer's.
const LINGER_MAX: Duration = Duration::from_secs(10);
/// How much it reads meanwhile: more than the largest body that is usual.
const LINGER_BYTES_MAX: usize = 32 << 20;

/// What a connection is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// No request has come whole.
    New,
    /// A request is in work, or not all of its answer is with the system.
    Busy,
    /// Between two requests.
    Idle,
    /// A socket.
    Upgraded,
}

/// What an answer holds until it is sent.
#[derive(Debug, Default)]
pub(super) struct AnswerHeld {
    pub(super) request: Option<Held>,
    pub(super) answer: Option<Held>,
}

/// What the listener, the requests and the bytes of a connection know of each other.
#[derive(Debug)]
pub(super) struct State {
    phase: AtomicU8,
    /// Requests whose head has come, in total.
    requests: AtomicU32,
    /// Those whose answer is not sent.
    in_work: AtomicU32,
    /// What answers hold that are made and not sent: hyper drops a body when it has it, and sends it then.
    made: Mutex<Vec<AnswerHeld>>,
    /// What comes on a socket.
    arriving: Arriving,
    /// Others need the place of this connection, which is at nothing.
    pub(super) evicted: Notify,
    has_to_go: AtomicBool,
}

impl State {
    pub(super) fn new(arriving: Arriving) -> Arc<Self> {
        Arc::new(Self {
            phase: AtomicU8::new(Phase::New as u8),
            requests: AtomicU32::new(0),
            in_work: AtomicU32::new(0),
            made: Mutex::default(),
            arriving,
            evicted: Notify::new(),
            has_to_go: AtomicBool::new(false),
        })
    }

    pub(super) fn arriving(&self) -> &Arriving {
        &self.arriving
    }

    pub(super) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::New,
            1 => Phase::Busy,
            2 => Phase::Idle,
            _ => Phase::Upgraded,
        }
    }

    /// A request's head has come.
    pub(super) fn begin(&self) {
        self.requests.fetch_add(1, Ordering::AcqRel);
        self.in_work.fetch_add(1, Ordering::AcqRel);
        self.phase.store(Phase::Busy as u8, Ordering::Release);
    }

    /// Its answer is made.
    pub(super) fn made(&self, held: AnswerHeld) {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).push(held);
    }

    /// All that was made is with the system. A request that came behind it may be in work already; a socket is at no
    /// request.
    fn sent(&self) {
        let made = std::mem::take(&mut *self.made.lock().unwrap_or_else(PoisonError::into_inner));
        let Ok(count @ 1..) = u32::try_from(made.len()) else { return };
        if self.in_work.fetch_sub(count, Ordering::AcqRel) == count {
            let busy = Phase::Busy as u8;
            let _ = self.phase.compare_exchange(busy, Phase::Idle as u8, Ordering::AcqRel, Ordering::Acquire);
        }
    }

    pub(super) fn upgrade(&self) {
        self.phase.store(Phase::Upgraded as u8, Ordering::Release);
    }

    /// Ends the connection by force; false where it is about to end so already.
    pub(super) fn evict(&self) -> bool {
        let first = !self.has_to_go.swap(true, Ordering::AcqRel);
        if first {
            self.evicted.notify_one();
        }
        first
    }

    /// Whether the connection has to end by force: not where a request came just then.
    pub(super) fn is_evicted(&self) -> bool {
        let is_evicted = self.has_to_go.load(Ordering::Acquire) && matches!(self.phase(), Phase::New | Phase::Idle);
        if !is_evicted {
            self.has_to_go.store(false, Ordering::Release);
        }
        is_evicted
    }
}

/// The bytes of a connection. It fails with [`io::ErrorKind::TimedOut`] when a head takes too long, and when its peer takes
/// nothing of what is sent for too long: a peer that is slow goes on.
///
/// Linux tells of room in a full buffer when a third of it is free, which is what a peer has to take in that time. The
/// buffer grows and shrinks with what the way to the peer carries.
///
/// When it is dropped, what was sent last still arrives: TCP would throw it away where the peer has sent what nobody reads.
/// So the end waits for the peer's end, and throws away what comes, for a while.
#[derive(Debug)]
pub(super) struct Connection {
    /// None from when it is dropped.
    stream: Option<Pin<Box<TimeoutStream<TcpStream>>>>,
    state: Arc<State>,
    head_max: Duration,
    /// Runs while a head is waited for.
    head: Option<Pin<Box<Sleep>>>,
    /// Of which request bytes were read last.
    reading: u32,
    /// Whether a part of the next head has come.
    has_begun: bool,
    /// The peer has ended, or is not worth waiting for.
    is_over: bool,
    place: Option<Held>,
    lingering: Arc<Budget>,
}

impl Connection {
    pub(super) fn new(
        stream: TcpStream,
        state: Arc<State>,
        head_max: Duration,
        stall_max: Duration,
        place: Held,
        lingering: Arc<Budget>,
    ) -> Self {
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(stall_max));
        let stream = Some(Box::pin(stream));
        let place = Some(place);
        let (head, reading, has_begun, is_over) = (None, 0, false, false);
        Self { stream, state, head_max, head, reading, has_begun, is_over, place, lingering }
    }

    fn stream(&mut self) -> io::Result<Pin<&mut TimeoutStream<TcpStream>>> {
        self.stream.as_mut().map(Pin::as_mut).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Notes what was read, and how long the next head may still take.
    fn after_read(&mut self, context: &mut Context<'_>, read: Option<usize>) -> io::Result<()> {
        let requests = self.state.requests.load(Ordering::Acquire);
        if self.reading != requests {
            (self.reading, self.has_begun, self.head) = (requests, false, None);
        }
        let phase = self.state.phase();
        match (read, phase) {
            (Some(0), _) => self.is_over = true,
            (Some(_), Phase::New | Phase::Idle) => self.has_begun = true,
            (Some(bytes), Phase::Upgraded) => return self.state.arriving.add(bytes),
            (None, Phase::New) => return self.wait_for_head(context),
            (None, Phase::Idle) if self.has_begun => return self.wait_for_head(context),
            _ => self.head = None,
        }
        Ok(())
    }

    fn wait_for_head(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let head = self.head.get_or_insert_with(|| Box::pin(sleep(self.head_max)));
        if head.as_mut().poll(context).is_pending() {
            return Ok(());
        }
        tracing::debug!(after = ?self.head_max, "a connection whose request does not come is closed");
        self.is_over = true;
        Err(io::ErrorKind::TimedOut.into())
    }

    fn sent<T>(&mut self, sent: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &sent {
            if error.kind() == io::ErrorKind::TimedOut {
                tracing::debug!("a connection whose peer reads nothing is closed");
            }
            self.is_over = true;
        }
        sent
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let room = buf.remaining() > 0;
        match self.stream()?.poll_read(context, buf) {
            Poll::Ready(Ok(())) => {
                let read = buf.filled().len() - before;
                Poll::Ready(if room { self.after_read(context, Some(read)) } else { Ok(()) })
            }
            Poll::Ready(Err(error)) => {
                self.is_over = true;
                Poll::Ready(Err(error))
            }
            Poll::Pending => match self.after_read(context, None) {
                Ok(()) => Poll::Pending,
                Err(error) => Poll::Ready(Err(error)),
            },
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let sent = self.stream()?.poll_write(context, buf);
        self.sent(sent)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let sent = self.stream()?.poll_write_vectored(context, bufs);
        self.sent(sent)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(self.stream()?.poll_flush(context));
        // hyper asks for this when it has written all that it has, and at no other time.
        if flushed.is_ok() {
            self.state.sent();
        }
        self.sent(Poll::Ready(flushed))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = ready!(self.stream()?.poll_shutdown(context));
        self.sent(Poll::Ready(sent))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let Some(stream) = self.stream.take() else { return };
        // Where nothing was said, nothing can be lost.
        if self.is_over || self.state.phase() == Phase::New || self.state.is_evicted() {
            return;
        }
        let (Ok(runtime), Some(lingering)) = (Handle::try_current(), self.lingering.hold(1)) else { return };
        runtime.spawn(linger(stream, self.place.take(), lingering));
    }
}

/// Ends a connection from this side, and reads until its peer ends it too.
pub(super) async fn linger<S>(mut stream: S, place: Option<Held>, lingering: Held)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let to_end = async {
        stream.shutdown().await?;
        let mut buffer = vec![0; 16 << 10];
        let mut bytes = 0;
        while bytes < LINGER_BYTES_MAX {
            match stream.read(&mut buffer).await? {
                0 => break,
                read => bytes += read,
            }
        }
        io::Result::Ok(())
    };
    // However it ends: it is over.
    let _ = timeout(LINGER_MAX, to_end).await;
    drop((place, lingering));
}

#[cfg(test)]
mod tests;
