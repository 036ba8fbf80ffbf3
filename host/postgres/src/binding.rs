//! The channel binding `tls-server-end-point` (RFC 5929): a digest of the server's certificate, by which a password
//! counts for this TLS connection only, and somebody in between cannot pass it on.

use sha2::{Digest, Sha256, Sha384, Sha512};
use tokio_rustls::rustls::pki_types::{AlgorithmIdentifier, CertificateDer, alg_id};

/// The digest, with the hash of the certificate's own signature. None where that has none, as Ed25519.
pub(crate) fn end_point(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    const SHA_256: [AlgorithmIdentifier; 3] = [alg_id::ECDSA_SHA256, alg_id::RSA_PKCS1_SHA256, alg_id::RSA_PSS_SHA256];
    const SHA_384: [AlgorithmIdentifier; 3] = [alg_id::ECDSA_SHA384, alg_id::RSA_PKCS1_SHA384, alg_id::RSA_PSS_SHA384];
    const SHA_512: [AlgorithmIdentifier; 3] = [alg_id::ECDSA_SHA512, alg_id::RSA_PKCS1_SHA512, alg_id::RSA_PSS_SHA512];
    let algorithm = signature_algorithm(certificate)?;
    let is_one_of = |known: &[AlgorithmIdentifier]| known.iter().any(|known| known.as_ref() == algorithm);
    if is_one_of(&SHA_256) {
        Some(Sha256::digest(certificate).to_vec())
    } else if is_one_of(&SHA_384) {
        Some(Sha384::digest(certificate).to_vec())
    } else if is_one_of(&SHA_512) {
        Some(Sha512::digest(certificate).to_vec())
    } else {
        None
    }
}

/// `Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm SEQUENCE, … }`: what is in the latter.
fn signature_algorithm<'a>(certificate: &'a CertificateDer<'_>) -> Option<&'a [u8]> {
    let (fields, _) = element(certificate)?;
    let (_, after) = element(fields)?;
    element(after).map(|(algorithm, _)| algorithm)
}

/// What the first element of some DER holds, and what is behind it.
fn element(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = der.get(1..)?.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        // No certificate needs more than four bytes for a length.
        let digits = usize::from(first & 0x7f);
        let (length, rest) = rest.split_at_checked(digits).filter(|_| (1..=4).contains(&digits))?;
        (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_says_which_hash() {
        for (algorithm, length) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, Some(32)),
            (&rcgen::PKCS_ECDSA_P384_SHA384, Some(48)),
            (&rcgen::PKCS_ED25519, None),
        ] {
            let key = rcgen::KeyPair::generate_for(algorithm).expect("a key");
            let parameters = rcgen::CertificateParams::new(vec!["db.example.org".to_owned()]).expect("parameters");
            let certificate = parameters.self_signed(&key).expect("a certificate");
            let found = end_point(certificate.der());
            assert_eq!(found.map(|digest| digest.len()), length, "{algorithm:?}");
        }
    }

    #[test]
    fn no_bytes_can_break_it() {
        for bytes in [&[][..], &[0x30], &[0x30, 0x84, 1], &[0x30, 0x80], &[0x30, 0x85, 1, 1, 1, 1, 1], &[0x30, 5, 0x30]]
        {
            assert_eq!(end_point(&CertificateDer::from(bytes)), None);
        }
    }
}
