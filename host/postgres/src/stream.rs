//! What the bytes go through.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::ChannelBinding;
use tokio_rustls::client;
use tokio_rustls::rustls::ProtocolVersion;

use crate::binding;

/// A socket after it was agreed on whether to encrypt.
#[derive(Debug)]
pub enum Transport<S> {
    Plain(S),
    Tls(Box<TlsStream<S>>),
}

/// An encrypted connection.
#[derive(Debug)]
pub struct TlsStream<S>(client::TlsStream<S>);

impl<S> TlsStream<S> {
    pub(crate) fn new(stream: client::TlsStream<S>) -> Self {
        Self(stream)
    }

    /// What a password is bound to by SCRAM-SHA-256-PLUS; none where the server's certificate has no such thing.
    pub fn end_point(&self) -> Option<Vec<u8>> {
        let (_, session) = self.0.get_ref();
        binding::end_point(session.peer_certificates()?.first()?)
    }

    /// For people: `TLS 1.3`.
    pub(crate) fn describe(&self) -> String {
        let (_, session) = self.0.get_ref();
        match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLS 1.3".to_owned(),
            Some(ProtocolVersion::TLSv1_2) => "TLS 1.2".to_owned(),
            _ => "TLS".to_owned(),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> tokio_postgres::tls::TlsStream for TlsStream<S> {
    fn channel_binding(&self) -> ChannelBinding {
        self.end_point().map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, to)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, from)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
