//! TLS for tokio-postgres and for protocols of one's own.

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, OnceLock};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::settings::{Mode, Settings};
use crate::trust::{Trust, certificates, content, private_key};
use crate::{SettingsError, TlsError, TlsStream};

/// How connections are encrypted: what [`tokio_postgres::Config::connect`] and
/// [`tokio_postgres::CancelToken::cancel_query`] ask for. Cheap to clone.
#[derive(Clone)]
pub struct Tls {
    client: Arc<ClientConfig>,
    checks_server: bool,
    /// Who is trusted, in words.
    roots: Arc<str>,
    negotiated: Arc<OnceLock<String>>,
}

/// The protocol's name in TLS, without which no server takes `sslnegotiation=direct`.
const PROTOCOL: &[u8] = b"postgresql";

impl Tls {
    pub(crate) fn new(settings: &Settings) -> Result<(Self, Mode), SettingsError> {
        let provider = Arc::new(ring::default_provider());
        let (trust, mode) = Trust::new(settings, Arc::clone(&provider))?;
        let checks_server = trust.checks();
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has a cipher for each of them")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(trust));
        let mut client = match (&settings.cert, &settings.key) {
            (None, None) => builder.with_no_client_auth(),
            (Some(certificate), Some(key)) => {
                const WHAT: &str = "client certificate";
                let path = Path::new(certificate);
                let (chain, key) = (certificates(WHAT, path)?, private_key(Path::new(key))?);
                builder.with_client_auth_cert(chain, key).map_err(content(WHAT, path))?
            }
            _ => return Err(SettingsError::HalfACertificate),
        };
        client.alpn_protocols = vec![PROTOCOL.to_vec()];
        let roots = match settings.root_cert.as_deref() {
            None | Some("system") => "the public authorities".into(),
            Some(path) => format!("the authorities in `{path}`").into(),
        };
        Ok((Self { client: Arc::new(client), checks_server, roots, negotiated: Arc::default() }, mode))
    }

    /// Encrypts for the host of this name.
    pub(crate) async fn handshake<S>(self, host: String, stream: S) -> Result<TlsStream<S>, TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.clone()).map_err(|_| TlsError::Name(host.clone()))?;
        let connected = TlsConnector::from(self.client).connect(name, stream).await;
        let stream = connected.map_err(|error| TlsError::of_handshake(&error, &host, &self.roots))?;
        let stream = TlsStream::new(stream);
        // The first one counts: there may be several, but to the same server.
        let _ = self.negotiated.set(stream.describe());
        Ok(stream)
    }

    /// What the connections that were made with this, or a clone of it, are encrypted with: `TLS 1.3`. None where none
    /// was encrypted.
    pub fn negotiated(&self) -> Option<&str> {
        self.negotiated.get().map(String::as_str)
    }

    pub(crate) fn checks_server(&self) -> bool {
        self.checks_server
    }

    /// The same, for connections of which nothing has been heard yet.
    pub(crate) fn unused(&self) -> Self {
        Self { negotiated: Arc::default(), ..self.clone() }
    }
}

impl Default for Tls {
    /// Encrypts with whomever.
    fn default() -> Self {
        static DEFAULT: LazyLock<Tls> = LazyLock::new(|| {
            let (tls, _) = Tls::new(&Settings::default()).expect("nothing is read, so nothing is missing");
            tls
        });
        DEFAULT.unused()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Tls").field("roots", &self.roots).finish_non_exhaustive()
    }
}

impl<S> MakeTlsConnect<S> for Tls
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = TlsStream<S>;
    type TlsConnect = Connector;
    type Error = TlsError;

    fn make_tls_connect(&mut self, host: &str) -> Result<Connector, TlsError> {
        Ok(Connector { tls: self.clone(), host: host.to_owned() })
    }
}

/// One handshake to be made.
#[derive(Debug)]
pub struct Connector {
    tls: Tls,
    host: String,
}

impl<S> TlsConnect<S> for Connector
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = TlsStream<S>;
    type Error = TlsError;
    type Future = Pin<Box<dyn Future<Output = Result<TlsStream<S>, TlsError>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(self.tls.handshake(self.host, stream))
    }
}
