//! What a client makes of a server's certificate, with the server played by a few lines.

use std::path::PathBuf;
use std::sync::Arc;

use convoke_postgres::{Config, TlsError, Transport};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;

/// An authority, its certificate in a file.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).expect("parameters");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(parameters, KeyPair::generate().expect("a key")).expect("an issuer");
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("ca.pem"), issuer.pem()).expect("written");
        Self { issuer, directory }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn sign(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().expect("a key");
        let parameters = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        (parameters.signed_by(&key, &self.issuer).expect("a certificate"), key)
    }
}

fn server(certificate: &CertificateDer<'static>, key: &KeyPair) -> ServerConfig {
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .expect("a server")
}

/// A server for `db.example.org`, of this authority.
fn usual(authority: &Authority) -> ServerConfig {
    let (certificate, key) = authority.sign("db.example.org");
    server(certificate.der(), &key)
}

/// Connects to a server that answers the request for TLS with this byte.
async fn secure(
    settings: &str,
    host: &str,
    answer: u8,
    server: ServerConfig,
) -> Result<Transport<DuplexStream>, TlsError> {
    let config: Config = settings.parse().expect("settings");
    let (mut theirs, ours) = duplex(64 << 10);
    tokio::spawn(async move {
        let mut request = [0; 8];
        theirs.read_exact(&mut request).await.expect("a request");
        assert_eq!(request, [0, 0, 0, 8, 4, 210, 22, 47]);
        theirs.write_all(&[answer]).await.expect("an answer");
        if let Ok(mut stream) = TlsAcceptor::from(Arc::new(server)).accept(theirs).await {
            let _ = stream.write_all(b"hello").await;
            let _ = stream.shutdown().await;
        }
    });
    config.secure(ours, host).await.expect("a socket that holds")
}

/// Connects to `db.example.org` with these settings, `CA` standing for the file of the authority.
async fn meet(settings: &str, trusted: &Authority, host: &str, server: ServerConfig) -> Result<String, TlsError> {
    let settings = settings.replace("CA", &trusted.file("ca.pem").display().to_string());
    let Transport::Tls(mut stream) = secure(&settings, host, b'S', server).await? else {
        panic!("not encrypted");
    };
    assert_eq!(stream.end_point().map(|digest| digest.len()), Some(32));
    let mut said = String::new();
    stream.read_to_string(&mut said).await.map_err(|error| TlsError::Handshake(error.to_string()))?;
    Ok(said)
}

#[tokio::test]
async fn each_mode_checks_what_it_says() {
    let (ours, other) = (Authority::new(), Authority::new());
    let (right, wrong) = ("db.example.org", "other.example.org");
    for (settings, host, trusted, is_let_in) in [
        ("host=x", wrong, &other, true),
        ("host=x sslmode=require", wrong, &other, true),
        ("host=x sslmode=require sslrootcert=CA", wrong, &ours, true),
        ("host=x sslmode=require sslrootcert=CA", right, &other, false),
        ("host=x sslmode=prefer sslrootcert=CA", right, &other, false),
        ("host=x sslmode=verify-ca sslrootcert=CA", wrong, &ours, true),
        ("host=x sslmode=verify-ca sslrootcert=CA", right, &other, false),
        ("host=x sslmode=verify-full sslrootcert=CA", right, &ours, true),
        ("host=x sslmode=verify-full sslrootcert=CA", wrong, &ours, false),
        ("host=x sslmode=verify-full sslrootcert=CA", right, &other, false),
        ("host=x sslmode=verify-full", right, &ours, false),
        ("host=x sslrootcert=system", right, &ours, false),
    ] {
        let met = meet(settings, trusted, host, usual(&ours)).await;
        assert_eq!(met.is_ok(), is_let_in, "{settings} {host}: {met:?}");
    }
}

#[tokio::test]
async fn a_refusal_says_what_to_set() {
    let (ours, other) = (Authority::new(), Authority::new());
    let full = "host=x sslmode=verify-full sslrootcert=CA";
    let untrusted = meet(full, &other, "db.example.org", usual(&ours)).await.expect_err("another authority");
    assert!(untrusted.to_string().contains("is not trusted: none of the authorities in `"), "{untrusted}");
    assert!(untrusted.hint().is_some_and(|hint| hint.contains("`sslrootcert`")));
    let public = meet("host=x sslmode=verify-full", &other, "db.example.org", usual(&ours)).await;
    let public = public.expect_err("no public authority");
    assert!(public.to_string().ends_with("none of the public authorities has signed it"), "{public}");
    let name = meet(full, &ours, "other.example.org", usual(&ours)).await.expect_err("another host");
    let words = "the server's certificate is not for the host `other.example.org` but for `db.example.org`";
    assert_eq!(name.to_string(), words);
    assert!(name.hint().is_some_and(|hint| hint.contains("verify-ca")));
}

#[tokio::test]
async fn a_certificate_that_signed_itself_is_trusted_by_name() {
    let authority = Authority::new();
    let key = KeyPair::generate().expect("a key");
    let mut parameters = CertificateParams::new(vec!["db.example.org".to_owned()]).expect("parameters");
    // As `openssl req -x509` makes them.
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = parameters.self_signed(&key).expect("a certificate");
    std::fs::write(authority.file("self.pem"), certificate.pem()).expect("written");
    let of_itself = || server(certificate.der(), &key);
    let file = authority.file("self.pem").display().to_string();
    let settings = format!("host=x sslmode=verify-full sslrootcert={file}");
    assert_eq!(meet(&settings, &authority, "db.example.org", of_itself()).await.as_deref(), Ok("hello"));
    assert!(meet(&settings, &authority, "other.example.org", of_itself()).await.is_err());
    let other = meet("host=x sslmode=verify-ca sslrootcert=CA", &authority, "db.example.org", of_itself()).await;
    assert!(other.is_err(), "{other:?}");
}

#[tokio::test]
async fn a_client_shows_its_certificate() {
    let authority = Authority::new();
    let (certificate, key) = authority.sign("client");
    std::fs::write(authority.file("client.pem"), certificate.pem()).expect("written");
    std::fs::write(authority.file("client.key"), key.serialize_pem()).expect("written");
    let asking = || {
        let mut roots = tokio_rustls::rustls::RootCertStore::empty();
        roots.add(authority.issuer.der().clone()).expect("a root");
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(ring::default_provider()));
        let (certificate, key) = authority.sign("db.example.org");
        ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(verifier.build().expect("a verifier"))
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).expect("a key"),
            )
            .expect("a server")
    };
    let settings = format!(
        "host=x sslmode=require sslcert={} sslkey={}",
        authority.file("client.pem").display(),
        authority.file("client.key").display()
    );
    assert_eq!(meet(&settings, &authority, "db.example.org", asking()).await.as_deref(), Ok("hello"));
    assert!(meet("host=x sslmode=require", &authority, "db.example.org", asking()).await.is_err());
}

#[tokio::test]
async fn a_server_without_tls_is_left_or_taken() {
    let authority = Authority::new();
    let plain = secure("host=x", "x", b'N', usual(&authority)).await;
    assert!(matches!(plain, Ok(Transport::Plain(_))), "{plain:?}");
    let refused = secure("host=x sslmode=require", "x", b'N', usual(&authority)).await.expect_err("no TLS");
    assert_eq!(refused, TlsError::NotOffered);
    let nobody = secure("host=x", "x", b'H', usual(&authority)).await.expect_err("no Postgres");
    assert_eq!(nobody, TlsError::Protocol);
}
