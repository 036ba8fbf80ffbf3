//! Servers that give no change feed, played by a few lines: a real one of each kind is not at hand.

use convoke_feed::{FeedError, Provider, probe};
use convoke_postgres::Config;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_postgres::config::SslMode;

const TRUSTED: &[u8] = b"R\0\0\0\x08\0\0\0\0";
pub(crate) const READY: &[u8] = b"Z\0\0\0\x05I";

pub(crate) fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend((body.len() as u32 + 4).to_be_bytes());
    bytes.extend(body);
    bytes
}

fn error(code: &str, text: &str) -> Vec<u8> {
    message(b'E', format!("SFATAL\0C{code}\0M{text}\0\0").as_bytes())
}

pub(crate) fn row(values: &[&str]) -> Vec<u8> {
    let mut body = (values.len() as u16).to_be_bytes().to_vec();
    for value in values {
        body.extend((value.len() as u32).to_be_bytes());
        body.extend(value.as_bytes());
    }
    [message(b'D', &body), READY.to_vec()].concat()
}

/// Reads what a client sends; its answer may be anything.
async fn hear(client: &mut TcpStream) {
    let _ = client.read(&mut [0; 4096]).await;
}

/// A server that answers the startup and each command as told. Gives the settings to reach it.
async fn server(answers: Vec<Vec<u8>>) -> Config {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = Config::new();
    // Its answers begin with that to the startup.
    config
        .ssl_mode(SslMode::Disable)
        .host("127.0.0.1")
        .port(listener.local_addr().unwrap().port())
        .user("app")
        .dbname("app");
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        for answer in answers {
            hear(&mut client).await;
            client.write_all(&answer).await.unwrap();
        }
        hear(&mut client).await;
    });
    config
}

async fn refused(answers: Vec<Vec<u8>>) -> FeedError {
    probe(&server(answers).await).await.expect_err("refused")
}

pub(crate) fn welcome() -> Vec<u8> {
    [TRUSTED, READY].concat()
}

pub(crate) fn identified() -> Vec<u8> {
    row(&["7400000000000000000", "3", "0/1", "app"])
}

#[tokio::test]
async fn a_server_that_writes_too_little() {
    let facts = row(&["170002", "replica", "f", "f", "auto_explain,rds"]);
    let error = refused(vec![welcome(), identified(), facts]).await;
    assert!(
        matches!(&error, FeedError::WalLevel { found, provider: Provider::Rds } if found == "replica"),
        "{error:?}"
    );
    assert!(error.hint().expect("a hint").contains("rds.logical_replication = 1"));
}

#[tokio::test]
async fn a_standby() {
    let error = refused(vec![welcome(), identified(), row(&["170002", "logical", "t", "f", ""])]).await;
    assert!(matches!(error, FeedError::Standby { .. }), "{error:?}");
}

#[tokio::test]
async fn poolers() {
    let unknown = refused(vec![error("08P01", "unsupported startup parameter: replication")]).await;
    assert!(matches!(unknown, FeedError::Pooler { .. }), "{unknown:?}");
    // One that leaves the wish out gives an ordinary session.
    let ordinary = refused(vec![welcome(), error("42601", "syntax error at or near \"IDENTIFY_SYSTEM\"")]).await;
    assert!(matches!(ordinary, FeedError::Pooler { .. }), "{ordinary:?}");
    assert!(ordinary.hint().expect("a hint").contains("directly"));
    // By its address, before it is asked.
    let neon = "postgres://ep-cool-1-pooler.eu-central-1.aws.neon.tech/app".parse().expect("settings");
    let neon = probe(&neon).await.expect_err("a pooler");
    assert_eq!(neon.hint().as_deref(), Some("use the host without `-pooler` in its name"));
}

#[tokio::test]
async fn full_servers() {
    let text = "number of requested standby connections exceeds max_wal_senders (currently 10)";
    assert!(matches!(refused(vec![error("53300", text)]).await, FeedError::NoSenderFree));
    let facts = row(&["170002", "logical", "f", "f", ""]);
    let slots = error("53400", "all replication slots are in use");
    assert!(matches!(
        refused(vec![welcome(), identified(), facts, READY.to_vec(), slots]).await,
        FeedError::NoSlotFree
    ));
}

#[tokio::test]
async fn somebody_else() {
    let error = refused(vec![b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()]).await;
    assert!(matches!(error, FeedError::Io(_) | FeedError::Protocol { .. }), "{error:?}");
    let nobody = "postgres://app@127.0.0.1:1".parse().expect("settings");
    let nobody = probe(&nobody).await.expect_err("nobody");
    assert!(matches!(nobody, FeedError::Unreachable { .. }), "{nobody:?}");
}
