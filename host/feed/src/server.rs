//! What a server says of itself, and whether a change feed can be had from it.

use std::future::Future;
use std::time::{Duration, Instant};

use convoke_postgres::Config;
use tokio::time::timeout;

use crate::connect::{ANSWER_MAX, Address, CancelOnDrop, Connection, Purpose, addresses, ask, connect};
use crate::error::FeedError;
use crate::event::System;
use crate::provider::Provider;
use crate::publication::{Published, publish};
use convoke_model::chain;

/// A database from which a change feed can be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// As `server_version_num` has it: 150018 is 15.18.
    pub version: u32,
    pub system: System,
    pub provider: Provider,
    pub wal_level: String,
    /// Whether the role is a superuser, and so may publish a whole schema.
    pub superuser: bool,
    pub slot: SlotProbe,
}

/// Whether a slot could be created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotProbe {
    /// It took this long.
    Created(Duration),
    /// Not within this time, as a write transaction that began before is still open. A feed waits longer.
    Waiting(Duration),
}

/// Finds out whether a change feed can be had: connects, looks at the settings, creates a temporary slot and drops it.
/// Leaves nothing behind. Takes at most some twenty seconds.
///
/// # Errors
/// What stands in the way; [`FeedError::hint`] says what to do.
pub async fn probe(postgres: &Config) -> Result<Probe, FeedError> {
    const SLOT_WAIT_MAX: Duration = Duration::from_secs(5);
    let mut server = Server::connect(postgres).await?;
    let begin = Instant::now();
    let slot = match server.create_slot(&slot_name(), SLOT_WAIT_MAX).await {
        Ok(_) => SlotProbe::Created(begin.elapsed()),
        Err(FeedError::SlotWait { waited }) => SlotProbe::Waiting(waited),
        Err(error) => return Err(error),
    };
    let Facts { version, system, provider, wal_level, superuser } = server.facts;
    Ok(Probe { version, system, provider, wal_level, superuser, slot })
}

/// Looks at the settings as [`probe`] does, but creates no slot, and has the publication list the tables that the schema
/// has now: those without a replica identity are left out, because Postgres would refuse to update them.
///
/// # Errors
/// What stands in the way of a feed.
pub async fn prepare(postgres: &Config, publication: &str, schema: &str) -> Result<(System, Published), FeedError> {
    let server = Server::connect(postgres).await?;
    let system = server.facts.system;
    let published = publish(postgres, publication, schema).await?;
    Ok((system, published))
}

/// A connection to a primary that has what a change feed needs.
pub(crate) struct Server {
    pub(crate) connection: Connection,
    pub(crate) facts: Facts,
}

#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) version: u32,
    pub(crate) system: System,
    pub(crate) provider: Provider,
    pub(crate) wal_level: String,
    pub(crate) superuser: bool,
}

/// The oldest supported Postgres, and the first one that raises its `wal_level` by itself when a slot is created.
const VERSION_MIN: u32 = 150_000;
const VERSION_RAISES_LEVEL: u32 = 190_000;

/// After this long without an answer a receiver is taken for lost, whatever the server's default: its slot must not
/// hold back the log for longer, nor must a longer silence of a busy host cost it its slot.
pub(crate) const SENDER_TIMEOUT: Duration = Duration::from_mins(1);

const FACTS: &str = "select current_setting('server_version_num'), current_setting('wal_level'), pg_is_in_recovery(), \
     (select rolsuper from pg_roles where rolname = current_user), \
     (select string_agg(distinct split_part(name, '.', 1), ',') from pg_settings where name like '%.%')";

impl Server {
    /// Takes the first host that answers and is no standby.
    pub(crate) async fn connect(config: &Config) -> Result<Self, FeedError> {
        if config.pooler().is_some() {
            return Err(FeedError::Pooler { provider: Provider::of_hosts(config) });
        }
        let mut failed = FeedError::Config("they name no host");
        for address in addresses(config)? {
            match Self::connect_to(config, address).await {
                Ok(server) => return Ok(server),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    async fn connect_to(config: &Config, address: Address) -> Result<Self, FeedError> {
        let mut connection = connect(config, address, Purpose::Replication).await?;
        let facts = within(ANSWER_MAX, Facts::ask(&mut connection, Provider::of_hosts(config))).await?;
        let mut server = Self { connection, facts };
        // A role may have limits of its own, made for queries: the creation of a slot has to wait for locks. And floats come
        // as text here, of which no digit may be left out: a creation time is a place in an index.
        let timeout = SENDER_TIMEOUT.as_millis();
        let settings = format!("set wal_sender_timeout = {timeout}; set lock_timeout = 0; set extra_float_digits = 1");
        server.query(&settings).await?;
        Ok(server)
    }

    /// Creates a slot that goes with the connection; gives its consistent point.
    ///
    /// Postgres waits for every write transaction that is running. A command that is given up is cancelled.
    pub(crate) async fn create_slot(&mut self, name: &str, wait_max: Duration) -> Result<u64, FeedError> {
        let cancel = CancelOnDrop::new(&self.connection);
        let command = format!("CREATE_REPLICATION_SLOT \"{name}\" TEMPORARY LOGICAL pgoutput (SNAPSHOT 'nothing')");
        let created = timeout(wait_max, self.connection.wire.query(&command)).await;
        let rows = created.map_err(|_| FeedError::SlotWait { waited: wait_max })?;
        cancel.disarm();
        let rows = rows.map_err(|error| self.explain(error))?;
        rows.first().ok_or(FeedError::Protocol { expected: "a slot", found: "nothing" })?.lsn(1)
    }

    /// Runs a statement of which the answer does not take long.
    pub(crate) async fn query(&mut self, statement: &str) -> Result<Vec<crate::wire::Row>, FeedError> {
        let answer = within(ANSWER_MAX, self.connection.wire.query(statement)).await;
        answer.map_err(|error| self.explain(error))
    }

    pub(crate) fn explain(&self, error: FeedError) -> FeedError {
        match error {
            FeedError::Refused(refused) => FeedError::from_server(refused, &self.connection.role, self.facts.provider),
            other => other,
        }
    }
}

impl Facts {
    async fn ask(connection: &mut Connection, provider: Provider) -> Result<Self, FeedError> {
        let identified = connection.wire.query("IDENTIFY_SYSTEM").await.map_err(|error| match error {
            // No walsender, but a session that takes the command for SQL: somebody in between left out the wish.
            FeedError::Refused(refused) if refused.code == "42601" => FeedError::Pooler { provider },
            other => other,
        })?;
        let row = identified.first().ok_or(FeedError::Pooler { provider })?;
        let system = System { identifier: row.number(0)?, timeline: row.number(1)? };
        let rows = connection.wire.query(FACTS).await?;
        let row = rows.first().ok_or(FeedError::Protocol { expected: "settings", found: "nothing" })?;
        let version: u32 = row.number(0)?;
        let provider = Provider::of_settings(row.text(4)).unwrap_or(provider);
        let facts =
            Self { version, system, provider, wal_level: row.text(1).to_owned(), superuser: row.text(3) == "t" };
        facts.check()?;
        if row.text(2) == "t" {
            return Err(FeedError::Standby { address: connection.address.to_string() });
        }
        Ok(facts)
    }

    fn check(&self) -> Result<(), FeedError> {
        if self.version < VERSION_MIN {
            return Err(FeedError::PostgresTooOld { major: self.version / 10_000 });
        }
        let raises_level = self.version >= VERSION_RAISES_LEVEL && self.wal_level == "replica";
        if self.wal_level != "logical" && !raises_level {
            return Err(FeedError::WalLevel { found: self.wal_level.clone(), provider: self.provider });
        }
        Ok(())
    }
}

/// A name that no other host has. Lower case: others would have to be quoted everywhere.
pub(crate) fn slot_name() -> String {
    format!("convoke_{:016x}", rand::random::<u64>())
}

pub(crate) async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, FeedError>>,
) -> Result<T, FeedError> {
    timeout(limit, work).await.unwrap_or(Err(FeedError::Timeout { after: limit }))
}

/// The write transactions that the creation of a slot may be waiting for, in words for the log.
pub(crate) async fn open_transactions(config: &Config, address: &Address) -> String {
    const OLDEST: &str = "select string_agg(format('%s since %s', who, since), ', ') from (\
         select format('process %s (%s)', pid, application_name) as who, xact_start as since \
         from pg_stat_activity where backend_xid is not null \
         union all select format('prepared transaction %s', gid), prepared from pg_prepared_xacts \
         order by since limit 5) oldest";
    match ask(config, address, OLDEST).await {
        // Other roles' transactions are shown to few.
        Ok(row) if row.text(0).is_empty() => "unknown".to_owned(),
        Ok(row) => row.text(0).to_owned(),
        Err(error) => format!("unknown: {}", chain(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(version: u32, wal_level: &str) -> Result<(), FeedError> {
        let system = System { identifier: 1, timeline: 1 };
        let wal_level = wal_level.to_owned();
        Facts { version, system, provider: Provider::Rds, wal_level, superuser: false }.check()
    }

    #[test]
    fn settings_without_logical_decoding_are_refused() {
        let refused = check(170_002, "replica").expect_err("refused");
        assert_eq!(
            refused.to_string(),
            "Postgres does not write what a change feed needs: `wal_level` is `replica`, not `logical`"
        );
        let hint = refused.hint().expect("a hint");
        assert!(hint.contains("rds.logical_replication = 1") && hint.contains("reboot"), "{hint}");
        assert!(check(150_000, "logical").is_ok());
        assert!(matches!(check(140_012, "logical"), Err(FeedError::PostgresTooOld { major: 14 })));
    }

    #[test]
    fn newer_servers_raise_their_level() {
        assert!(check(190_000, "replica").is_ok());
        assert!(check(190_000, "minimal").is_err());
    }
}
