//! One request to a Convoke server, over HTTP or HTTPS.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::failure::Failure;

/// A server that does not even take the connection will not answer either.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// Longer than the longest call that a server allows by default, which is a minute.
const ANSWER_MAX: Duration = Duration::from_mins(5);

/// Where a server is: `https://api.example.com/prefix`.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    host: String,
    port: u16,
    tls: bool,
    prefix: String,
}

/// What a server answers.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
}

impl Server {
    /// Reads a URL; the command was typed wrong when it is none.
    pub(crate) fn parse(url: &str) -> Result<Self, Failure> {
        let refuse = |why: &str| {
            Failure::usage(format!("`{url}` is no address of a server: {why}")).hint("write `http://127.0.0.1:3210`")
        };
        let uri: Uri = url.parse().map_err(|_| refuse("it is no URL"))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(refuse("it starts with neither `http://` nor `https://`")),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| refuse("it has no host"))?;
        Ok(Self {
            host: host.to_owned(),
            port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            tls,
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// Sends JSON and waits for the answer.
    pub(crate) async fn post(&self, path: &str, body: String) -> Result<Answer, Failure> {
        let connect = tokio::time::timeout(CONNECT_MAX, self.connect());
        let stream = connect.await.map_err(|_| self.unreachable().hint("it did not answer within 10 s"))??;
        let answer = tokio::time::timeout(ANSWER_MAX, self.exchange(stream, path, body));
        answer.await.map_err(|_| Failure::new(format!("{} did not answer within 5 minutes", self.address())))?
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, Failure> {
        // An IPv6 address has brackets in a URL and none elsewhere.
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((host, self.port)).await.map_err(|e| self.unreachable().cause(&e))?;
        // A call is one small write that waits for its answer.
        let _ = stream.set_nodelay(true);
        if !self.tls {
            return Ok(Box::new(stream));
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|e| self.unreachable().cause(&e))?;
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        Ok(Box::new(stream.map_err(|e| self.unreachable().cause(&e))?))
    }

    async fn exchange(&self, stream: Box<dyn Stream>, path: &str, body: String) -> Result<Answer, Failure> {
        let broken =
            |e: &dyn std::error::Error| Failure::new(format!("the call to {} broke off", self.address())).cause(e);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| broken(&e))?;
        let request = Request::post(format!("{}{path}", self.prefix))
            .header(HOST, format!("{}:{}", self.host, self.port))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| Failure::usage("the function's name makes no URL").cause(&e))?;
        let answer = async {
            let response = sender.send_request(request).await?;
            let status = response.status().as_u16();
            Ok(Answer { status, body: response.into_body().collect().await?.to_bytes() })
        };
        // The connection does the work of both sides and ends after the answer. It runs here, not in a task of its own:
        // so it ends with the call.
        tokio::pin!(answer);
        tokio::select! {
            answer = &mut answer => answer,
            _ = connection => answer.await,
        }
        .map_err(|e: hyper::Error| broken(&e))
    }

    fn unreachable(&self) -> Failure {
        Failure::new(format!("no server answers at {}", self.address()))
    }

    /// The address for people.
    pub(crate) fn address(&self) -> String {
        format!("{}://{}:{}{}", if self.tls { "https" } else { "http" }, self.host, self.port, self.prefix)
    }
}

/// A connection, with or without TLS.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

#[cfg(test)]
mod tests {
    use super::Server;

    #[test]
    fn addresses_as_they_are_typed() {
        for (url, address) in [
            ("http://127.0.0.1:3210", "http://127.0.0.1:3210"),
            ("http://127.0.0.1:3210/", "http://127.0.0.1:3210"),
            ("https://api.example.com", "https://api.example.com:443"),
            ("https://example.com/convoke/", "https://example.com:443/convoke"),
            ("http://[::1]:3210", "http://[::1]:3210"),
        ] {
            assert_eq!(Server::parse(url).expect(url).address(), address);
        }
    }

    #[test]
    fn what_is_no_address_is_bad_usage() {
        for url in ["", "127.0.0.1:3210", "ftp://example.com", "http://", "/path"] {
            assert_eq!(Server::parse(url).expect_err(url).exit_code(), 2, "{url}");
        }
    }
}
