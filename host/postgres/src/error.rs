//! What is wrong with the settings, or with the other side, and what to do about it.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use thiserror::Error;
use tokio_rustls::rustls;
use tokio_rustls::rustls::CertificateError;

/// Settings that cannot be used. No message repeats the text that was read: it may hold a password.
#[derive(Debug, Error)]
pub enum SettingsError {
    #[error(transparent)]
    Postgres(#[from] tokio_postgres::Error),
    #[error("`sslmode` cannot be `{0}`")]
    Mode(String),
    #[error("`sslmode={mode}` does not check the server's name, and the public roots have signed for anybody")]
    WeakPublicRoots { mode: &'static str },
    #[error("`sslmode=verify-ca` needs to know which authority to trust")]
    NoRoots,
    #[error("`sslnegotiation=direct` does not go with `sslmode={mode}`")]
    WeakDirect { mode: &'static str },
    #[error("the {what} `{}` cannot be read", path.display())]
    File {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the {what} `{}` is not what its name says: {problem}", path.display())]
    Content { what: &'static str, path: PathBuf, problem: String },
    #[error("`sslcert` and `sslkey` go together")]
    HalfACertificate,
}

impl SettingsError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Mode(_) => "one of `disable`, `prefer`, `require`, `verify-ca`, `verify-full`",
            Self::WeakPublicRoots { .. } => "use `sslmode=verify-full` with `sslrootcert=system`",
            Self::NoRoots => "name the authority's certificate, a PEM file: `sslrootcert=PATH`",
            Self::WeakDirect { .. } => "use `sslmode=require` or a stricter one",
            Self::HalfACertificate => "give both, or none",
            Self::Postgres(_) | Self::File { .. } | Self::Content { .. } => return None,
        };
        Some(hint.to_owned())
    }
}

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum ConnectError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Postgres(tokio_postgres::Error),
}

impl ConnectError {
    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Tls(error) => error.hint(),
            Self::Postgres(_) => None,
        }
    }

    /// What Postgres itself said, if it was asked at all.
    pub fn as_postgres(&self) -> Option<&tokio_postgres::Error> {
        match self {
            Self::Tls(_) => None,
            Self::Postgres(error) => Some(error),
        }
    }
}

impl From<tokio_postgres::Error> for ConnectError {
    /// Finds what this crate's own connector said inside of what tokio-postgres makes of it.
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(cause) = error.source() else { return Self::Postgres(error) };
        if let Some(ours) = cause.downcast_ref::<TlsError>() {
            return Self::Tls(ours.clone());
        }
        // There is no other sign of it.
        if cause.to_string() == "server does not support TLS" {
            return Self::Tls(TlsError::NotOffered);
        }
        Self::Postgres(error)
    }
}

/// Why a connection is not encrypted, or not with whom it should be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TlsError {
    #[error("the server does not offer TLS, which `sslmode` demands")]
    NotOffered,
    #[error("the server's certificate is not trusted: none of {roots} has signed it")]
    Untrusted { roots: String },
    #[error("the server's certificate is not for the host `{host}`{}", presented(names))]
    OtherHost { host: String, names: Vec<String> },
    #[error("the server's certificate is not valid: {0}")]
    Certificate(String),
    #[error("`{0}` is no name that a certificate can be for")]
    Name(String),
    #[error("the server broke off the TLS handshake: {0}")]
    Handshake(String),
    #[error("the server answered the request for TLS with something else: it is no Postgres")]
    Protocol,
}

fn presented(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!(" but for {}", names.join(", ")) }
}

/// rustls gives `DnsName("db.example.org")`.
fn bare(name: &str) -> String {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
    format!("`{}`", inner.trim_matches('"'))
}

impl TlsError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NotOffered => {
                "turn on `ssl` in the server's settings; inside of a private network `sslmode=prefer` goes without"
            }
            Self::Untrusted { .. } => {
                "set `sslrootcert` to the PEM file of the authority that signed the server's certificate (managed \
                 servers offer it for download), or to `system` for one that every browser knows"
            }
            Self::OtherHost { .. } => {
                "connect by a name that is in the certificate, or use `sslmode=verify-ca`, which does not compare the name"
            }
            Self::Name(_) => "connect by a host name or an address",
            Self::Certificate(_) | Self::Handshake(_) | Self::Protocol => return None,
        };
        Some(hint.to_owned())
    }

    /// What a handshake that failed means.
    pub(crate) fn of_handshake(error: &io::Error, host: &str, roots: &str) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let Some(inner) = inner else { return Self::Handshake(error.to_string()) };
        match inner {
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
                Self::Untrusted { roots: roots.to_owned() }
            }
            rustls::Error::InvalidCertificate(CertificateError::NotValidForNameContext { presented, .. }) => {
                let names = presented.iter().map(|name| bare(name)).collect();
                Self::OtherHost { host: host.to_owned(), names }
            }
            rustls::Error::InvalidCertificate(CertificateError::NotValidForName) => {
                Self::OtherHost { host: host.to_owned(), names: Vec::new() }
            }
            rustls::Error::InvalidCertificate(error) => Self::Certificate(error.to_string()),
            other => Self::Handshake(other.to_string()),
        }
    }
}
