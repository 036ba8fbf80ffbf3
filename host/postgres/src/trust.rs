//! Whom to take for the server.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use tokio_rustls::rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::SettingsError;
use crate::settings::{Mode, Settings};

/// How a server has to prove who it is.
#[derive(Debug)]
pub(crate) struct Trust {
    check: Check,
    roots: RootCertStore,
    /// The roots as they were given: a server may show one of them.
    given: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    Nothing,
    Authority,
    AuthorityAndName,
}

/// The value of `sslrootcert` that stands for the authorities that browsers know.
const PUBLIC: &str = "system";

impl Trust {
    /// Gives the mode too, which the roots may decide.
    pub(crate) fn new(settings: &Settings, provider: Arc<CryptoProvider>) -> Result<(Self, Mode), SettingsError> {
        let public = settings.root_cert.as_deref() == Some(PUBLIC);
        let mode = settings.mode.unwrap_or(if public { Mode::VerifyFull } else { Mode::Prefer });
        let mut trust = Self { check: Check::Nothing, roots: RootCertStore::empty(), given: Vec::new(), provider };
        match settings.root_cert.as_deref() {
            _ if mode == Mode::Disable => {}
            Some(PUBLIC) if mode < Mode::VerifyFull => {
                return Err(SettingsError::WeakPublicRoots { mode: mode.as_str() });
            }
            Some(PUBLIC) => trust.take_public(),
            None if mode == Mode::VerifyFull => trust.take_public(),
            None if mode == Mode::VerifyCa => return Err(SettingsError::NoRoots),
            None => {}
            Some(path) => trust.take_file(Path::new(path))?,
        }
        trust.check = match mode {
            Mode::VerifyFull => Check::AuthorityAndName,
            // As libpq does: whoever names an authority wants it to be looked at.
            _ if !trust.roots.is_empty() => Check::Authority,
            _ => Check::Nothing,
        };
        Ok((trust, mode))
    }

    pub(crate) fn checks(&self) -> bool {
        self.check != Check::Nothing
    }

    fn take_public(&mut self) {
        self.roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }

    fn take_file(&mut self, path: &Path) -> Result<(), SettingsError> {
        const WHAT: &str = "root certificate";
        self.given = certificates(WHAT, path)?;
        for certificate in &self.given {
            self.roots.add(certificate.clone()).map_err(content(WHAT, path))?;
        }
        Ok(())
    }

    /// A server may show a root itself: a certificate that it signed for itself, which the user has named.
    fn is_given(&self, certificate: &CertificateDer<'_>, error: &Error) -> bool {
        let Error::InvalidCertificate(CertificateError::Other(other)) = error else { return false };
        self.given.contains(certificate) && format!("{:?}", other.0) == "CaUsedAsEndEntity"
    }
}

/// The certificates of a PEM file, one at least.
pub(crate) fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, SettingsError> {
    let bytes = read(what, path)?;
    let found: Vec<_> =
        CertificateDer::pem_slice_iter(&bytes).collect::<Result<_, _>>().map_err(content(what, path))?;
    if found.is_empty() {
        return Err(content(what, path)("it holds no certificate in PEM"));
    }
    Ok(found)
}

pub(crate) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, SettingsError> {
    const WHAT: &str = "private key";
    PrivateKeyDer::from_pem_slice(&read(WHAT, path)?).map_err(content(WHAT, path))
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, SettingsError> {
    std::fs::read(path).map_err(|source| SettingsError::File { what, path: path.to_owned(), source })
}

pub(crate) fn content<E: std::fmt::Display>(what: &'static str, path: &Path) -> impl Fn(E) -> SettingsError {
    move |problem| SettingsError::Content { what, path: path.to_owned(), problem: problem.to_string() }
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.check == Check::Nothing {
            return Ok(ServerCertVerified::assertion());
        }
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        match verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms) {
            Err(error) if !self.is_given(end_entity, &error) => return Err(error),
            _ => {}
        }
        if self.check == Check::AuthorityAndName {
            verify_server_name(&certificate, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
