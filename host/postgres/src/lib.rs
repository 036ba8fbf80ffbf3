//! Connections to Postgres: from the text that a user gives to a socket, encrypted as it asks for.
//!
//! A [`Config`] is what tokio-postgres calls one, and TLS as users of libpq know it: `sslmode` with all its values,
//! `sslrootcert`, `sslcert`, `sslkey`, in a URL, in pairs or in the environment. Whoever connects takes a [`Config`] and
//! calls [`Config::connect`], or asks it for the parts: [`Config::plain`] and [`Config::tls`] for a pool,
//! [`Config::secure`] for a protocol of his own.
//!
//! Invariant: the only crate of the host that knows TLS to Postgres; it sends no statement.

mod binding;
mod config;
mod error;
mod pooler;
mod settings;
mod stream;
mod tls;
mod trust;

pub use config::{Config, Connection};
pub use error::{ConnectError, SettingsError, TlsError};
pub use pooler::Pooler;
pub use stream::{TlsStream, Transport};
pub use tls::Tls;
