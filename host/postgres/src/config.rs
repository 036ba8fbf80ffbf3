//! What is needed to connect.

use std::net::IpAddr;
use std::ops::{Deref, DerefMut};
use std::str::FromStr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_postgres::config::{Host, SslMode, SslNegotiation};
use tokio_postgres::{Client, Socket};

use crate::settings::{Mode, Settings};
use crate::{ConnectError, SettingsError, Tls, TlsError, TlsStream, Transport};

/// Where a server is, who connects, and how that is protected. Everything but the last is what
/// [`tokio_postgres::Config`] has, to which this dereferences.
#[derive(Debug, Clone, Default)]
pub struct Config {
    postgres: tokio_postgres::Config,
    tls: Tls,
}

/// What drives a [`Client`]: to be spawned.
pub type Connection = tokio_postgres::Connection<Socket, TlsStream<Socket>>;

/// `SSLRequest` of the protocol: its length and its number.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

impl Config {
    /// Settings that name no server yet, and encrypt where it is offered.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a URL, or pairs such as `host=… user=…`, as libpq would; what they do not say of TLS is taken from variables
    /// such as `PGSSLMODE`, for which `environment` is asked. The files that are named are read now.
    ///
    /// # Errors
    /// When a setting is not known or does not go with another one, or a file cannot be read.
    pub fn read(text: &str, environment: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let (settings, rest) = Settings::take(text, environment)?;
        let mut postgres: tokio_postgres::Config = rest.parse()?;
        let (tls, mode) = Tls::new(&settings)?;
        if mode < Mode::Require && postgres.get_ssl_negotiation() == SslNegotiation::Direct {
            return Err(SettingsError::WeakDirect { mode: mode.as_str() });
        }
        postgres.ssl_mode(match mode {
            Mode::Disable => SslMode::Disable,
            Mode::Prefer => SslMode::Prefer,
            Mode::Require | Mode::VerifyCa | Mode::VerifyFull => SslMode::Require,
        });
        Ok(Self { postgres, tls })
    }

    /// Connects to the first server that lets us in.
    ///
    /// # Errors
    /// When none does.
    pub async fn connect(&self) -> Result<(Client, Connection), ConnectError> {
        self.connect_by(&self.tls).await
    }

    /// The same with a [`Config::tls`] of one's own, which then knows what was negotiated.
    ///
    /// # Errors
    /// When no server lets us in.
    pub async fn connect_by(&self, tls: &Tls) -> Result<(Client, Connection), ConnectError> {
        Ok(self.plain().connect(tls.clone()).await?)
    }

    /// The settings as tokio-postgres has to be given them, together with [`Config::tls`].
    pub fn plain(&self) -> tokio_postgres::Config {
        let mut postgres = self.postgres.clone();
        postgres.ssl_mode(self.ssl_mode());
        if postgres.get_hosts().is_empty() {
            // It wants a name for the handshake.
            for address in self.postgres.get_hostaddrs() {
                postgres.host(address.to_string());
            }
        }
        postgres
    }

    pub fn tls(&self) -> Tls {
        self.tls.unused()
    }

    /// Agrees with a server on whether to encrypt, and does. `host` is the name that its certificate has to bear, where
    /// that is to be compared.
    ///
    /// # Errors
    /// [`TlsError`], or what the socket says.
    pub async fn secure<S>(&self, mut stream: S, host: &str) -> std::io::Result<Result<Transport<S>, TlsError>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mode = self.ssl_mode();
        if mode == SslMode::Disable {
            return Ok(Ok(Transport::Plain(stream)));
        }
        if self.postgres.get_ssl_negotiation() != SslNegotiation::Direct {
            stream.write_all(&SSL_REQUEST).await?;
            // No more than this byte: what came behind it, unencrypted, could be from anybody.
            match stream.read_u8().await? {
                b'S' => {}
                b'N' if mode == SslMode::Require => return Ok(Err(TlsError::NotOffered)),
                b'N' => return Ok(Ok(Transport::Plain(stream))),
                _ => return Ok(Err(TlsError::Protocol)),
            }
        }
        let encrypted = Box::pin(self.tls().handshake(host.to_owned(), stream)).await;
        Ok(encrypted.map(|stream| Transport::Tls(Box::new(stream))))
    }

    /// Whether the servers are on this machine, so that nobody is in between.
    pub fn is_local(&self) -> bool {
        let is_loopback = |host: &Host| match host {
            Host::Unix(_) => true,
            Host::Tcp(name) => name == "localhost" || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback()),
        };
        self.postgres.get_hosts().iter().all(is_loopback)
            && self.postgres.get_hostaddrs().iter().all(IpAddr::is_loopback)
    }

    /// Whether a server has to prove who it is.
    pub fn checks_server(&self) -> bool {
        self.tls.checks_server()
    }

    /// A unix socket is not encrypted, whatever the settings say: nobody is in between.
    fn ssl_mode(&self) -> SslMode {
        let hosts = self.postgres.get_hosts();
        let is_local = !hosts.is_empty() && hosts.iter().all(|host| matches!(host, Host::Unix(_)));
        if is_local && self.postgres.get_hostaddrs().is_empty() {
            SslMode::Disable
        } else {
            self.postgres.get_ssl_mode()
        }
    }
}

impl FromStr for Config {
    type Err = SettingsError;

    /// [`Config::read`] without an environment.
    fn from_str(text: &str) -> Result<Self, SettingsError> {
        Self::read(text, |_| None)
    }
}

impl Deref for Config {
    type Target = tokio_postgres::Config;

    fn deref(&self) -> &tokio_postgres::Config {
        &self.postgres
    }
}

impl DerefMut for Config {
    fn deref_mut(&mut self) -> &mut tokio_postgres::Config {
        &mut self.postgres
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> String {
        Config::from_str(text).expect_err("refused").to_string()
    }

    #[test]
    fn modes_come_out_as_tokio_postgres_has_them() {
        for (text, mode) in [
            ("postgres://a", SslMode::Prefer),
            ("postgres://a?sslmode=allow", SslMode::Prefer),
            ("postgres://a?sslmode=disable", SslMode::Disable),
            ("postgres://a?sslmode=require&channel_binding=require", SslMode::Require),
            ("postgres://a?sslmode=verify-full", SslMode::Require),
            ("host=a sslrootcert=system", SslMode::Require),
            ("host=/run sslmode=verify-full", SslMode::Disable),
            ("hostaddr=127.0.0.1 sslmode=require", SslMode::Require),
        ] {
            assert_eq!(Config::from_str(text).expect(text).plain().get_ssl_mode(), mode, "{text}");
        }
    }

    #[test]
    fn what_is_on_this_machine_is_known() {
        for (text, is_local) in [
            ("host=/run", true),
            ("host=localhost,::1 hostaddr=127.0.0.1,::1", true),
            ("host=localhost hostaddr=192.0.2.1", false),
            ("host=localhost,db.example.org", false),
        ] {
            assert_eq!(Config::from_str(text).expect(text).is_local(), is_local, "{text}");
        }
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        assert!(words("host=a sslmode=require sslrootcert=system").contains("does not check the server's name"));
        assert!(words("host=a sslmode=verify-ca").contains("which authority"));
        assert!(words("host=a sslnegotiation=direct").contains("`sslmode=prefer`"));
        assert!(words("host=a sslcert=/nowhere/c").contains("go together"));
        assert!(words("host=a sslrootcert=/nowhere/ca.pem").contains("`/nowhere/ca.pem` cannot be read"));
        assert!(Config::from_str("host=a sslmode=disable sslrootcert=/nowhere/ca.pem").is_ok());
    }

    #[test]
    fn a_file_without_certificates_is_refused() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "not PEM").expect("written");
        let words = words(&format!("host=a sslrootcert={}", file.path().display()));
        assert!(words.contains("it holds no certificate in PEM"), "{words}");
    }

    #[test]
    fn no_password_is_shown() {
        let shown = format!("{:?}", Config::from_str("postgres://u:secret@a/b?sslmode=require").expect("settings"));
        assert!(!shown.contains("secret"), "{shown}");
        let words = format!("{:?}", Config::from_str("postgres://u:secret@a:x/b").expect_err("no port"));
        assert!(!words.contains("secret"), "{words}");
    }
}
