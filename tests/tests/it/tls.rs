//! A server with passwords, reached over TLS: by single connections, and by a whole host.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use convoke_feed::{FeedError, probe};
use convoke_local_postgres::{Durability, LocalPostgres, Options};
use convoke_postgres::{Config, ConnectError, TlsError};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::json;
use tokio_postgres::error::SqlState;

use crate::harness::{TestHost, run};
use crate::live::Subscriber;

/// A Postgres on a port of this machine. It takes passwords only, but over its socket.
struct Server {
    postgres: LocalPostgres,
    port: u16,
    data: PathBuf,
    _directory: tempfile::TempDir,
}

impl Server {
    async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        fs::set_permissions(directory.path(), Permissions::from_mode(0o711)).expect("a mode");
        let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
        let root = directory.path().join("postgres");
        let options = Options { durability: Durability::Fast, tcp_port: Some(port), ..Options::new(&root) };
        let postgres = LocalPostgres::start(&options).await.expect("a server");
        let data = root.join("data");
        fs::write(data.join("pg_hba.conf"), "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
            .expect("rules of access");
        let server = Self { postgres, port, data, _directory: directory };
        // An owner as managed servers give him: no superuser.
        server.run("create role owner login createrole replication password 'secret'").await;
        server.run("create database app owner owner").await;
        server.run("select pg_reload_conf()").await;
        server
    }

    /// As the superuser, over the socket.
    async fn run(&self, sql: &str) {
        let (client, connection) = self.postgres.config().connect().await.expect("a connection");
        tokio::spawn(connection);
        client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// Has the server offer TLS with a certificate for `db.example.org`; gives the file of its authority.
    async fn encrypt(&self, directory: &Path) -> PathBuf {
        let authority = authority();
        let key = KeyPair::generate().expect("a key");
        let parameters = CertificateParams::new(vec!["db.example.org".to_owned()]).expect("parameters");
        let certificate = parameters.signed_by(&key, &authority).expect("a certificate");
        let owner = fs::metadata(&self.data).expect("the data");
        for (name, text) in [("server.crt", certificate.pem()), ("server.key", key.serialize_pem())] {
            let path = self.data.join(name);
            fs::write(&path, text).expect("written");
            fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("a mode");
            chown(&path, Some(owner.uid()), Some(owner.gid())).expect("an owner");
        }
        self.run("alter system set ssl = on").await;
        self.run("select pg_reload_conf()").await;
        let file = directory.join("ca.pem");
        fs::write(&file, authority.pem()).expect("written");
        // The postmaster takes the settings over in its own time.
        let config = self.config("sslmode=require");
        for _ in 0..500 {
            if config.connect().await.is_ok() {
                return file;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("no TLS: {:?}", config.connect().await.err());
    }

    /// The owner's, of the database `app`.
    fn config(&self, tls: &str) -> Config {
        self.of_host("db.example.org", tls)
    }

    fn of_host(&self, host: &str, tls: &str) -> Config {
        let text =
            format!("host={host} hostaddr=127.0.0.1 port={} user=owner password=secret dbname=app {tls}", self.port);
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut parameters = CertificateParams::new(Vec::new()).expect("parameters");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(parameters, KeyPair::generate().expect("a key")).expect("an authority")
}

/// What a connection is encrypted with.
async fn encryption(config: &Config) -> Option<String> {
    convoke_local_postgres::probe(config).await.expect("an answer").encryption
}

/// Why there is no connection, and why no change feed either.
async fn refusal(config: &Config) -> TlsError {
    let error = match config.connect().await.err().expect("refused") {
        ConnectError::Tls(error) => error,
        ConnectError::Postgres(error) => panic!("{error:?}"),
    };
    match probe(config).await.expect_err("refused") {
        FeedError::Tls(of_feed) => assert_eq!(of_feed, error),
        other => panic!("{other:?}"),
    }
    error
}

#[test]
fn connections_are_encrypted_as_the_settings_ask() {
    run(async {
        let directory = tempfile::tempdir().expect("a directory");
        let server = Server::start().await;
        assert_eq!(encryption(&server.config("")).await, None);
        assert_eq!(refusal(&server.config("sslmode=require")).await, TlsError::NotOffered);
        probe(&server.config("")).await.expect("a feed without TLS");

        let file = server.encrypt(directory.path()).await;
        let root = format!("sslrootcert={}", file.display());
        let stranger = directory.path().join("stranger.pem");
        fs::write(&stranger, authority().pem()).expect("written");
        let stranger = format!("sslrootcert={}", stranger.display());

        assert_eq!(encryption(&server.config("sslmode=disable")).await, None);
        for tls in ["", "sslmode=require", &root, &format!("{root} sslmode=verify-full channel_binding=require")] {
            let config = server.config(tls);
            assert_eq!(encryption(&config).await.as_deref(), Some("TLS 1.3"), "{tls}");
            probe(&config).await.unwrap_or_else(|error| panic!("{tls}: {error:?}"));
        }
        let by_number = server.of_host("127.0.0.1", &format!("{root} sslmode=verify-ca"));
        assert!(encryption(&by_number).await.is_some());

        let untrusted = refusal(&server.config(&format!("{stranger} sslmode=verify-full"))).await;
        assert!(matches!(untrusted, TlsError::Untrusted { .. }), "{untrusted:?}");
        let other = refusal(&server.of_host("other.example.org", &format!("{root} sslmode=verify-full"))).await;
        assert!(matches!(&other, TlsError::OtherHost { names, .. } if *names == ["`db.example.org`"]), "{other:?}");

        let mut wrong = server.config("sslmode=require");
        wrong.password("wrong");
        let refused = wrong.connect().await.err().expect("a wrong password");
        let code = refused.as_postgres().and_then(|error| error.code().cloned());
        assert_eq!(code, Some(SqlState::INVALID_PASSWORD), "{refused:?}");
        assert!(matches!(probe(&wrong).await, Err(FeedError::Authentication(_))));
        cancel(&server.config(&format!("{root} sslmode=verify-full"))).await;
    });
}

/// A statement is stopped by a request over a connection of its own, which is encrypted too.
async fn cancel(config: &Config) {
    let (client, connection) = config.connect().await.expect("a connection");
    tokio::spawn(connection);
    let token = client.cancel_token();
    let sleeping = tokio::spawn(async move { client.batch_execute("select pg_sleep(60)").await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    token.cancel_query(config.tls()).await.expect("a request");
    let stopped = sleeping.await.expect("no panic").expect_err("stopped");
    assert_eq!(stopped.code(), Some(&SqlState::QUERY_CANCELED), "{stopped:?}");
}

#[test]
fn a_host_and_its_role_log_in_by_password_over_tls() {
    run(async {
        let directory = tempfile::tempdir().expect("a directory");
        let server = Server::start().await;
        let file = server.encrypt(directory.path()).await;
        let tls = format!("sslmode=verify-full sslrootcert={} channel_binding=require", file.display());
        let host = TestHost::on(server.config(&tls), &["messages"], |_| {}).await;
        assert_eq!(host.host.warnings(), [], "the role logs in");

        let mut subscriber = Subscriber::open(&host, "messages:list", &json!({ "channel": "c" }), None).await;
        assert_eq!(subscriber.next().await.data["data"], json!([]));
        let message = json!({ "channel": "c", "author": "a", "body": "encrypted" });
        host.mutation("messages:send", message).await.data();
        assert_eq!(subscriber.next().await.data["data"][0]["body"], "encrypted");

        let (client, connection) = server.postgres.config().connect().await.expect("a connection");
        tokio::spawn(connection);
        let connected = "select coalesce(a.usename::text, ''), a.backend_type, bool_and(s.ssl) from pg_stat_ssl s \
             join pg_stat_activity a using (pid) where a.client_addr is not null group by 1, 2";
        let rows = client.query(connected, &[]).await.expect("who is connected");
        let rows: Vec<(String, String, bool)> = rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
        assert!(rows.iter().all(|(.., encrypted)| *encrypted), "{rows:?}");
        let is_there = |user: &str, kind: &str| rows.iter().any(|(who, what, _)| who == user && what == kind);
        assert!(is_there("convoke_demo", "client backend") && is_there("owner", "walsender"), "{rows:?}");
    });
}
