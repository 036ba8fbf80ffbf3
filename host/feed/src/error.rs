//! What can be wrong, and what to do about it.

use std::fmt;
use std::io;
use std::time::Duration;

use convoke_postgres::{ConnectError, TlsError};
use thiserror::Error;

use crate::decode::DecodeError;
use crate::provider::Provider;

/// Why there is no change feed. [`FeedError::hint`] says what to do.
#[derive(Debug, Error)]
pub enum FeedError {
    #[error("the connection settings cannot be used: {0}")]
    Config(&'static str),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("cannot connect to Postgres at {address}")]
    Unreachable {
        address: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot authenticate to Postgres: {0}")]
    Authentication(String),
    #[error("{address} is a standby: the change feed follows the primary")]
    Standby { address: String },
    #[error("Postgres {major} is too old: Convoke needs 15 or newer")]
    PostgresTooOld { major: u32 },
    #[error("Postgres does not write what a change feed needs: `wal_level` is `{found}`, not `logical`")]
    WalLevel { found: String, provider: Provider },
    #[error("the role `{role}` may not follow changes: it lacks REPLICATION")]
    NoReplicationRight { role: String, provider: Provider },
    #[error("all replication slots are in use (`max_replication_slots`)")]
    NoSlotFree,
    #[error("all replication connections are in use (`max_wal_senders`)")]
    NoSenderFree,
    #[error("the connection leads to a pooler, not to Postgres itself")]
    Pooler { provider: Provider },
    #[error("the publication `{name}` does not exist")]
    NoPublication { name: String },
    #[error(
        "the publication `{publication}` sends other columns of `{table}` than that of the table's own project does"
    )]
    Columns { publication: String, table: String },
    #[error("the slot could not be created within {} s: write transactions that began before it are still open", waited.as_secs())]
    SlotWait { waited: Duration },
    #[error("Postgres did not answer within {} s", after.as_secs())]
    Timeout { after: Duration },
    #[error("the connection to Postgres broke")]
    Io(#[from] io::Error),
    #[error("Postgres ended the change feed")]
    Ended,
    #[error("Postgres sent {found} where {expected} was expected")]
    Protocol { expected: &'static str, found: &'static str },
    #[error("a message of the change feed cannot be understood")]
    Decode(#[from] DecodeError),
    #[error("Postgres refused: {0}")]
    Refused(ServerError),
    #[error("Postgres refused a statement about the publication")]
    Statement(#[from] tokio_postgres::Error),
}

impl From<ConnectError> for FeedError {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Tls(error) => Self::Tls(error),
            ConnectError::Postgres(error) => Self::Statement(error),
        }
    }
}

/// An error response of Postgres.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerError {
    /// The five characters of its SQLSTATE.
    pub code: String,
    pub message: String,
    pub detail: Option<String>,
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)?;
        self.detail.as_ref().map_or(Ok(()), |detail| write!(f, ": {detail}"))
    }
}

impl FeedError {
    /// What to do, for a person who runs the database.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Tls(error) => error.hint(),
            Self::Standby { .. } => Some("name the primary's host, beside this one or in its place".to_owned()),
            Self::WalLevel { provider, .. } => Some(provider.enable().to_owned()),
            Self::NoReplicationRight { role, provider } => Some(provider.grant(role)),
            Self::NoSlotFree => Some(
                "raise `max_replication_slots`, or drop one that nobody uses: `select slot_name, active from \
                 pg_replication_slots`"
                    .to_owned(),
            ),
            Self::NoSenderFree => Some(
                "raise `max_wal_senders`, or see who uses them: `select pid, application_name from \
                 pg_stat_replication`"
                    .to_owned(),
            ),
            Self::Pooler { provider } => Some(provider.direct().to_owned()),
            Self::NoPublication { .. } => Some("the host of its project makes it again, within a second".to_owned()),
            Self::Columns { publication, table } => {
                Some(format!("`alter publication {} drop table {table}`", quoted(publication)))
            }
            Self::SlotWait { .. } => Some(
                "end long transactions, prepared ones too: `select pid, xact_start, application_name from \
                 pg_stat_activity where backend_xid is not null`, `select gid from pg_prepared_xacts`"
                    .to_owned(),
            ),
            _ => None,
        }
    }

    /// What an error response means for a feed.
    pub(crate) fn from_server(error: ServerError, role: &str, provider: Provider) -> Self {
        let says = |words: &str| error.message.contains(words);
        match error.code.as_str() {
            "42501" if says("replication") || says("REPLICATION") || says("WAL sender") || says("walsender") => {
                Self::NoReplicationRight { role: role.to_owned(), provider }
            }
            "55000" if says("wal_level") => Self::WalLevel { found: "replica".to_owned(), provider },
            "53400" => Self::NoSlotFree,
            "53300" if says("max_wal_senders") => Self::NoSenderFree,
            // What poolers say that know nothing of replication.
            "08P01" if says("startup parameter") => Self::Pooler { provider },
            _ => Self::Refused(error),
        }
    }

    /// Whether trying again can only help after somebody changed something.
    pub(crate) fn needs_a_person(&self) -> bool {
        matches!(
            self,
            Self::Config(_)
                | Self::Tls(_)
                | Self::Authentication(_)
                | Self::PostgresTooOld { .. }
                | Self::WalLevel { .. }
                | Self::NoReplicationRight { .. }
                | Self::NoSlotFree
                | Self::NoSenderFree
                | Self::Pooler { .. }
                | Self::NoPublication { .. }
                | Self::Columns { .. }
        )
    }
}

fn quoted(name: &str) -> String {
    convoke_sql::quote_identifier(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(code: &str, message: &str) -> FeedError {
        let error = ServerError { code: code.to_owned(), message: message.to_owned(), detail: None };
        FeedError::from_server(error, "app", Provider::Own)
    }

    #[test]
    fn refusals_are_recognised() {
        let rights =
            ["must be superuser or replication role to start walsender", "permission denied to start WAL sender"];
        for message in rights {
            let error = meaning("42501", message);
            assert!(matches!(&error, FeedError::NoReplicationRight { role, .. } if role == "app"), "{error}");
            assert_eq!(error.hint().as_deref(), Some("`alter role \"app\" replication`, as a superuser"));
        }
        assert!(matches!(meaning("53400", "all replication slots are in use"), FeedError::NoSlotFree));
        let senders = "number of requested standby connections exceeds max_wal_senders (currently 10)";
        assert!(matches!(meaning("53300", senders), FeedError::NoSenderFree));
        assert!(matches!(meaning("53300", "too many connections for role \"app\""), FeedError::Refused(_)));
        let level = meaning("55000", "logical decoding requires wal_level >= logical");
        assert!(matches!(level, FeedError::WalLevel { .. }));
        let pooler = meaning("08P01", "unsupported startup parameter: replication");
        assert!(matches!(pooler, FeedError::Pooler { .. }));
    }
}
