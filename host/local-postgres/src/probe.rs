//! A first look at a server that somebody names.

use convoke_postgres::{Config, ConnectError};

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// For people: `15.18 (Debian 15.18-0)`.
    pub version: String,
    /// For comparison: 150018.
    pub version_number: u32,
    pub wal_level: String,
    /// What the connection is encrypted with: `TLS 1.3`.
    pub encryption: Option<String>,
}

/// Connects, asks and leaves.
///
/// # Errors
/// When the server cannot be reached or does not let the user in.
pub async fn probe(config: &Config) -> Result<Probe, ConnectError> {
    let tls = config.tls();
    let (client, connection) = config.connect_by(&tls).await?;
    let connection = tokio::spawn(connection);
    let settings = "select current_setting('server_version'), current_setting('server_version_num')::int, current_setting('wal_level')";
    let row = client.query_one(settings, &[]).await?;
    let version_number: i32 = row.try_get(1)?;
    let probe = Probe {
        version: row.try_get(0)?,
        version_number: version_number.unsigned_abs(),
        wal_level: row.try_get(2)?,
        encryption: tls.negotiated().map(str::to_owned),
    };
    drop(client);
    let _ = connection.await;
    Ok(probe)
}
