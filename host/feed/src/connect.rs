//! From settings to a connection that takes commands.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use convoke_postgres::{Config, Transport};
use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::{md5_hash, sasl};
use postgres_protocol::message::backend::{AuthenticationSaslBody, Message};
use postgres_protocol::message::frontend;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_postgres::config::{ChannelBinding, Host};

use crate::error::FeedError;
use crate::provider::Provider;
use crate::wire::{Frame, Row, Wire, unexpected};
use convoke_model::chain;

const PORT: u16 = 5432;
/// Where the settings give no `connect_timeout`.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// How long Postgres may take over something that it does at once.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(10);

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The commands of replication, and statements.
    Replication,
    /// Statements only.
    Statements,
}

/// An authenticated connection that waits for a command.
pub(crate) struct Connection {
    pub(crate) wire: Wire,
    pub(crate) address: Address,
    pub(crate) role: String,
    pub(crate) cancel: CancelKey,
    config: Config,
}

/// Where a server listens.
#[derive(Debug, Clone)]
pub(crate) enum Address {
    Unix(PathBuf),
    Tcp {
        /// A name or a number.
        host: String,
        port: u16,
        /// What its certificate is to be for.
        name: String,
    },
}

/// What stops a running command, sent over a connection of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CancelKey {
    process_id: i32,
    secret_key: i32,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => path.display().fmt(f),
            Self::Tcp { host, port, .. } => write!(f, "{host}:{port}"),
        }
    }
}

/// The servers that the settings name, in order.
pub(crate) fn addresses(config: &Config) -> Result<Vec<Address>, FeedError> {
    let (hosts, numbers) = (config.get_hosts(), config.get_hostaddrs());
    let ports = config.get_ports();
    let count = hosts.len().max(numbers.len());
    if count == 0 {
        return Err(FeedError::Config("they name no host"));
    }
    if ports.len() > 1 && ports.len() != count {
        return Err(FeedError::Config("there have to be as many ports as hosts, or one"));
    }
    let addresses = (0..count).map(|index| {
        let port = ports.get(index).or(ports.first()).copied().unwrap_or(PORT);
        // The number saves the look-up of the name, which is then only for certificates.
        match (numbers.get(index), hosts.get(index)) {
            (Some(number), Some(Host::Tcp(name))) => {
                Ok(Address::Tcp { host: number.to_string(), port, name: name.clone() })
            }
            (Some(number), _) => Ok(Address::Tcp { host: number.to_string(), port, name: number.to_string() }),
            (None, Some(Host::Tcp(name))) => Ok(Address::Tcp { host: name.clone(), port, name: name.clone() }),
            (None, Some(Host::Unix(directory))) => Ok(Address::Unix(directory.join(format!(".s.PGSQL.{port}")))),
            (None, None) => Err(FeedError::Config("there have to be as many `hostaddr` as hosts")),
        }
    });
    addresses.collect()
}

/// Connects to one server.
pub(crate) async fn connect(config: &Config, address: Address, purpose: Purpose) -> Result<Connection, FeedError> {
    let limit = config.get_connect_timeout().copied().filter(|limit| !limit.is_zero()).unwrap_or(CONNECT_MAX);
    let role = role(config)?;
    let opened = async {
        let (mut wire, end_point) = open(config, &address).await?;
        let cancel = start(&mut wire, config, &role, purpose, end_point).await?;
        Ok((wire, cancel))
    };
    let opened = timeout(limit, opened).await.map_err(|_| FeedError::Timeout { after: limit })?;
    let (wire, cancel) = opened.map_err(|error| explain(error, config, &role))?;
    Ok(Connection { wire, address, role, cancel, config: config.clone() })
}

/// Names what a refusal means, where only the settings are known.
fn explain(error: FeedError, config: &Config, role: &str) -> FeedError {
    match error {
        FeedError::Refused(refused) if refused.code.starts_with("28") => FeedError::Authentication(refused.to_string()),
        FeedError::Refused(refused) => FeedError::from_server(refused, role, Provider::of_hosts(config)),
        other => other,
    }
}

/// Opens a socket, encrypted as the settings ask. With it comes what a password can be bound to.
async fn open(config: &Config, address: &Address) -> Result<(Wire, Option<Vec<u8>>), FeedError> {
    let unreachable = |source| FeedError::Unreachable { address: address.to_string(), source };
    match address {
        Address::Unix(path) => Ok((Wire::new(UnixStream::connect(path).await.map_err(unreachable)?), None)),
        Address::Tcp { host, port, name } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(unreachable)?;
            stream.set_nodelay(true)?;
            match config.secure(stream, name).await?? {
                Transport::Plain(stream) => Ok((Wire::new(stream), None)),
                Transport::Tls(stream) => {
                    let end_point = stream.end_point();
                    Ok((Wire::new(stream), end_point))
                }
            }
        }
    }
}

/// The role to connect as: the one of the operating system's user where none is named.
fn role(config: &Config) -> Result<String, FeedError> {
    if let Some(user) = config.get_user() {
        return Ok(user.to_owned());
    }
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
    user.map(|user| user.name).ok_or(FeedError::Config("they name no user"))
}

async fn start(
    wire: &mut Wire,
    config: &Config,
    role: &str,
    purpose: Purpose,
    end_point: Option<Vec<u8>>,
) -> Result<CancelKey, FeedError> {
    let application = config.get_application_name().unwrap_or("convoke feed");
    let mut parameters = vec![("client_encoding", "UTF8"), ("user", role), ("application_name", application)];
    parameters.extend(config.get_dbname().map(|name| ("database", name)));
    parameters.extend(config.get_options().map(|options| ("options", options)));
    if purpose == Purpose::Replication {
        parameters.push(("replication", "database"));
        if config.get_dbname().is_none() {
            // Without it, Postgres would take the word `replication` for physical replication.
            parameters.push(("database", role));
        }
    }
    wire.send(|out| frontend::startup_message(parameters, out)).await?;
    authenticate(wire, config, role, end_point).await?;
    // Poolers may give none: then nothing can be cancelled.
    let mut cancel = CancelKey { process_id: 0, secret_key: 0 };
    loop {
        match message(wire, "the end of the startup").await? {
            Message::BackendKeyData(key) => {
                cancel = CancelKey { process_id: key.process_id(), secret_key: key.secret_key() };
            }
            Message::ReadyForQuery(_) => return Ok(cancel),
            _ => return Err(unexpected("the end of the startup")),
        }
    }
}

async fn message(wire: &mut Wire, expected: &'static str) -> Result<Message, FeedError> {
    match wire.next().await? {
        Frame::Message(message) => Ok(message),
        Frame::CopyData(_) | Frame::CopyBoth => Err(unexpected(expected)),
    }
}

async fn authenticate(
    wire: &mut Wire,
    config: &Config,
    role: &str,
    end_point: Option<Vec<u8>>,
) -> Result<(), FeedError> {
    const EXPECTED: &str = "a request for authentication";
    let password = || {
        let missing = || FeedError::Authentication("a password is asked for, and the settings hold none".to_owned());
        config.get_password().ok_or_else(missing)
    };
    let asked = message(wire, EXPECTED).await?;
    if config.get_channel_binding() == ChannelBinding::Require && !matches!(asked, Message::AuthenticationSasl(_)) {
        return Err(FeedError::Authentication(UNBOUND.to_owned()));
    }
    match asked {
        Message::AuthenticationOk => return Ok(()),
        Message::AuthenticationCleartextPassword => {
            let password = password()?;
            wire.send(|out| frontend::password_message(password, out)).await?;
        }
        Message::AuthenticationMd5Password(body) => {
            let answer = md5_hash(role.as_bytes(), password()?, body.salt());
            wire.send(|out| frontend::password_message(answer.as_bytes(), out)).await?;
        }
        Message::AuthenticationSasl(body) => {
            scram(wire, &body, password()?, config.get_channel_binding(), end_point).await?;
        }
        Message::AuthenticationGss
        | Message::AuthenticationKerberosV5
        | Message::AuthenticationScmCredential
        | Message::AuthenticationSspi => {
            let known = "only trust, password, md5 and scram-sha-256 are known".to_owned();
            return Err(FeedError::Authentication(known));
        }
        _ => return Err(unexpected(EXPECTED)),
    }
    match message(wire, EXPECTED).await? {
        Message::AuthenticationOk => Ok(()),
        _ => Err(unexpected("the end of the authentication")),
    }
}

const UNBOUND: &str = "`channel_binding=require` demands SCRAM over TLS, which the server does not offer";

/// SCRAM-SHA-256; both sides prove that they know the password, and over TLS, that nobody is between them.
async fn scram(
    wire: &mut Wire,
    body: &AuthenticationSaslBody,
    password: &[u8],
    wanted: ChannelBinding,
    end_point: Option<Vec<u8>>,
) -> Result<(), FeedError> {
    const EXPECTED: &str = "a step of SCRAM";
    let refused = |error: std::io::Error| FeedError::Authentication(error.to_string());
    let mechanisms: Vec<&str> = body.mechanisms().collect()?;
    let end_point = end_point.filter(|_| wanted != ChannelBinding::Disable);
    let (mechanism, binding) = match end_point {
        Some(end_point) if mechanisms.contains(&sasl::SCRAM_SHA_256_PLUS) => {
            (sasl::SCRAM_SHA_256_PLUS, sasl::ChannelBinding::tls_server_end_point(end_point))
        }
        _ if wanted == ChannelBinding::Require => return Err(FeedError::Authentication(UNBOUND.to_owned())),
        // That we could have bound it is part of what is signed: whoever took the offer away is found out.
        Some(_) => (sasl::SCRAM_SHA_256, sasl::ChannelBinding::unrequested()),
        None => (sasl::SCRAM_SHA_256, sasl::ChannelBinding::unsupported()),
    };
    if !mechanisms.contains(&mechanism) {
        return Err(FeedError::Authentication(format!("of {mechanisms:?} none is known")));
    }
    let mut scram = sasl::ScramSha256::new(password, binding);
    wire.send(|out| frontend::sasl_initial_response(mechanism, scram.message(), out)).await?;
    let Message::AuthenticationSaslContinue(step) = message(wire, EXPECTED).await? else {
        return Err(unexpected(EXPECTED));
    };
    scram.update(step.data()).map_err(refused)?;
    wire.send(|out| frontend::sasl_response(scram.message(), out)).await?;
    let Message::AuthenticationSaslFinal(last) = message(wire, EXPECTED).await? else {
        return Err(unexpected(EXPECTED));
    };
    scram.finish(last.data()).map_err(refused)
}

/// Stops the command of a connection that is given up: a server that waits for a lock does not notice that its client
/// has gone, and would keep the slot that it is making.
#[derive(Debug)]
pub(crate) struct CancelOnDrop {
    target: Option<(Config, Address, CancelKey)>,
}

impl CancelOnDrop {
    pub(crate) fn new(connection: &Connection) -> Self {
        Self { target: Some((connection.config.clone(), connection.address.clone(), connection.cancel)) }
    }

    /// Nothing is running any more.
    pub(crate) fn disarm(mut self) {
        self.target = None;
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        let Some((config, address, key)) = self.target.take() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            let sent = async {
                let (mut wire, _) = open(&config, &address).await?;
                let write = |out: &mut bytes::BytesMut| {
                    frontend::cancel_request(key.process_id, key.secret_key, out);
                    Ok(())
                };
                wire.send(write).await?;
                // The server closes when it has passed the request on.
                wire.fill().await
            };
            match timeout(ANSWER_MAX, sent).await {
                Ok(Err(FeedError::Io(_))) => {}
                Ok(Err(error)) => tracing::warn!(error = %chain(&error), "could not cancel the creation of a slot"),
                Ok(Ok(())) | Err(_) => tracing::warn!("no answer to the cancellation of a slot's creation"),
            }
        });
    }
}

/// Asks one statement over a connection of its own.
pub(crate) async fn ask(config: &Config, address: &Address, statement: &str) -> Result<Row, FeedError> {
    let mut rows = ask_all(config, address, statement).await?;
    rows.pop().ok_or(FeedError::Protocol { expected: "a row", found: "none" })
}

/// The same, for a statement that gives any number of rows.
pub(crate) async fn ask_all(config: &Config, address: &Address, statement: &str) -> Result<Vec<Row>, FeedError> {
    let asked = async {
        let mut connection = connect(config, address.clone(), Purpose::Statements).await?;
        connection.wire.query(statement).await
    };
    timeout(ANSWER_MAX, asked).await.map_err(|_| FeedError::Timeout { after: ANSWER_MAX })?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Vec<String>, FeedError> {
        let config: Config = text.parse().expect("settings");
        Ok(addresses(&config)?.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn hosts_and_ports_pair_up() {
        assert_eq!(of("host=/run/pg,b port=1,2").unwrap(), ["/run/pg/.s.PGSQL.1", "b:2"]);
        assert_eq!(of("host=a,b port=7").unwrap(), ["a:7", "b:7"]);
        assert_eq!(of("host=a hostaddr=127.0.0.1").unwrap(), ["127.0.0.1:5432"]);
        assert!(matches!(of("user=x"), Err(FeedError::Config(_))));
    }
}
