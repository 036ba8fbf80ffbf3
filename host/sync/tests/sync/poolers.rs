//! A pooler that hands out connections by transaction, played by a few lines.

use std::sync::{Arc, Mutex};

use convoke_postgres::Config;
use convoke_sync::{SyncError, bootstrap};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_postgres::config::{Host, SslMode};

use crate::support::{connect, empty, run};

/// Which of the idle connections a pooler takes.
#[derive(Debug, Clone, Copy)]
enum Takes {
    Newest,
    Oldest,
}

/// A pooler in front of a server that trusts whoever comes.
#[derive(Debug)]
struct Pooler {
    server: std::path::PathBuf,
    startup: Vec<u8>,
    takes: Takes,
    idle: Mutex<Vec<UnixStream>>,
}

impl Pooler {
    /// Listens; gives the settings that lead to it.
    async fn start(admin: &Config, takes: Takes) -> Config {
        let Some(Host::Unix(directory)) = admin.get_hosts().first() else { panic!("a socket") };
        let (user, database) = (admin.get_user().expect("a user"), admin.get_dbname().expect("a database"));
        let mut startup = 196_608_u32.to_be_bytes().to_vec();
        startup.extend(format!("user\0{user}\0database\0{database}\0\0").as_bytes());
        let port = admin.get_ports().first().copied().unwrap_or(5432);
        let server = directory.join(format!(".s.PGSQL.{port}"));
        let pooler = Arc::new(Self { server, startup, takes, idle: Mutex::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let mut config = Config::new();
        config.host("127.0.0.1").port(listener.local_addr().expect("an address").port());
        config.user(user).dbname(database).ssl_mode(SslMode::Disable);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&pooler).serve(client));
            }
        });
        config
    }

    async fn serve(self: Arc<Self>, mut client: TcpStream) -> Option<()> {
        let length = client.read_u32().await.ok()?;
        client.read_exact(&mut vec![0; length as usize - 4]).await.ok()?;
        // Trusted, and ready.
        client.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").await.ok()?;
        loop {
            let mut message = read(&mut client).await?;
            let mut server = self.take().await?;
            loop {
                server.write_all(&message).await.ok()?;
                if matches!(message[0], b'Q' | b'S') && self.answer(&mut server, &mut client).await? == b'I' {
                    break;
                }
                message = read(&mut client).await?;
            }
            self.idle.lock().expect("no panic").push(server);
        }
    }

    /// Passes an answer on; gives whether a transaction is open behind it.
    async fn answer(&self, server: &mut UnixStream, client: &mut TcpStream) -> Option<u8> {
        loop {
            let message = read(server).await?;
            client.write_all(&message).await.ok()?;
            if message[0] == b'Z' {
                return message.last().copied();
            }
        }
    }

    async fn take(&self) -> Option<UnixStream> {
        let idle = {
            let mut idle = self.idle.lock().expect("no panic");
            match self.takes {
                Takes::Newest => idle.pop(),
                Takes::Oldest if idle.is_empty() => None,
                Takes::Oldest => Some(idle.remove(0)),
            }
        };
        if idle.is_some() {
            return idle;
        }
        let mut server = UnixStream::connect(&self.server).await.ok()?;
        let length = u32::try_from(self.startup.len() + 4).ok()?;
        server.write_u32(length).await.ok()?;
        server.write_all(&self.startup).await.ok()?;
        while read(&mut server).await?[0] != b'Z' {}
        Some(server)
    }
}

/// One message, whole.
async fn read(from: &mut (impl tokio::io::AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let mut message = vec![0; 5];
    from.read_exact(&mut message).await.ok()?;
    let length = u32::from_be_bytes([message[1], message[2], message[3], message[4]]) as usize;
    message.resize(length + 1, 0);
    from.read_exact(&mut message[5..]).await.ok()?;
    Some(message)
}

#[test]
fn a_pooler_by_transaction_is_refused_and_nothing_is_made() {
    run(async {
        for takes in [Takes::Newest, Takes::Oldest] {
            let admin = empty().await;
            let pooled = Pooler::start(&admin, takes).await;
            let refused = bootstrap(&pooled, "demo").await.expect_err("a pooler");
            assert!(matches!(refused, SyncError::Pooler(None)), "{takes:?}: {refused:?}");
            assert!(refused.hint().is_some_and(|hint| hint.contains("Postgres itself")));
            let made = connect(&admin).await.query("select from pg_namespace where nspname = 'convoke'", &[]).await;
            assert!(made.expect("an answer").is_empty());
        }
    });
}

#[test]
fn a_known_pooler_is_refused_by_its_address() {
    run(async {
        let supabase = "postgres://postgres.abc@aws-0-eu-west-1.pooler.supabase.com:6543/postgres";
        let refused = bootstrap(&supabase.parse().expect("settings"), "demo").await.expect_err("a pooler");
        assert!(refused.hint().is_some_and(|hint| hint.contains("db.….supabase.co:5432")), "{refused:?}");
    });
}
