//! Connections that take nothing of what is sent to them are closed.
//!
//! A stream or a socket that nobody reads costs no memory, but it would hold its connection, its subscriptions and the
//! queries behind them for ever.

use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Sleep, sleep};

/// Accepts connections that may take nothing for so long.
#[derive(Debug)]
pub(crate) struct StallListener {
    listener: TcpListener,
    stall_max: Duration,
}

impl StallListener {
    pub(crate) fn new(listener: TcpListener, stall_max: Duration) -> Self {
        Self { listener, stall_max }
    }
}

impl Listener for StallListener {
    type Io = StallStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, address) = Listener::accept(&mut self.listener).await;
        // Answers are written whole; waiting to fill a packet only delays them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "could not set TCP_NODELAY");
        }
        (StallStream::new(stream, self.stall_max), address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection that fails with [`io::ErrorKind::TimedOut`] when its peer has taken nothing for so long, though there was
/// something to take. A peer that is slow goes on; one to which nothing is sent does too.
///
/// Linux tells of room in a full buffer when a third of it is free, which is what a peer has to take in that time. The
/// buffer grows and shrinks with what the way to the peer carries.
#[derive(Debug)]
pub(crate) struct StallStream<S> {
    stream: S,
    stall_max: Duration,
    /// Runs while the peer takes nothing. Most never do, so that most have no timer.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S: AsyncWrite + Unpin> StallStream<S> {
    pub(crate) fn new(stream: S, stall_max: Duration) -> Self {
        Self { stream, stall_max, stalled: None }
    }

    fn poll_progress<T>(
        &mut self,
        context: &mut Context<'_>,
        poll: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let polled = poll(Pin::new(&mut self.stream), context);
        if polled.is_ready() {
            self.stalled = None;
            return polled;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(self.stall_max)));
        stalled.as_mut().poll(context).map(|()| {
            tracing::debug!(after = ?self.stall_max, "a connection whose peer reads nothing is closed");
            Err(io::ErrorKind::TimedOut.into())
        })
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for StallStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for StallStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_progress(context, |stream, context| stream.poll_write(context, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_progress(context, |stream, context| stream.poll_write_vectored(context, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_progress(context, AsyncWrite::poll_flush)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_progress(context, AsyncWrite::poll_shutdown)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::Instant;

    use super::*;

    const STALL_MAX: Duration = Duration::from_millis(200);

    #[tokio::test]
    async fn who_takes_nothing_is_given_up() {
        let (mut peer, stream) = duplex(16);
        let mut stream = StallStream::new(stream, STALL_MAX);
        stream.write_all(&[0; 16]).await.expect("room");
        // Nothing is waiting to be taken.
        sleep(2 * STALL_MAX).await;
        let begin = Instant::now();
        let error = stream.write_all(&[0; 16]).await.expect_err("no room");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begin.elapsed() >= STALL_MAX);
        assert_eq!(peer.read(&mut [0; 64]).await.expect("what was sent"), 16);
    }

    #[tokio::test]
    async fn who_is_slow_is_not() {
        let (mut peer, stream) = duplex(16);
        let mut stream = StallStream::new(stream, STALL_MAX);
        let slow = tokio::spawn(async move {
            let mut taken = 0;
            while let Ok(count @ 1..) = peer.read(&mut [0; 8]).await {
                taken += count;
                sleep(STALL_MAX / 8).await;
            }
            taken
        });
        stream.write_all(&[0; 160]).await.expect("a peer that goes on reading");
        drop(stream);
        assert_eq!(slow.await.expect("the peer"), 160);
    }
}
