//! Certificates from files: the chain, its key, and their properties.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::SignatureAlgorithm;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::base::text_file;

/// Why a file cannot be used, for the operator.
pub struct FileError {
    /// The problem with the file.
    pub problem: String,
    /// How to correct it.
    pub hint: &'static str,
}

/// Reads a certificate chain; at least one certificate.
pub fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let error = |problem: String| FileError {
        problem,
        hint: "give a PEM file with the certificate first, then its intermediates (`l7lb cert` writes one for development)",
    };
    let pem = read_pem(path).map_err(&error)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(error(format!("{} contains no certificate", path.display()))),
        Err(e) => Err(error(format!("{} is not valid PEM: {e}", path.display()))),
    }
}

/// The expiry of the certificate in a file; `None` if it cannot be read.
#[must_use]
pub fn expiry_of(path: &Path) -> Option<SystemTime> {
    read_chain(path).ok()?.first().map(Properties::of)?.ok().map(|properties| properties.expires)
}

/// Reads a private key. Error messages never contain a part of the file.
pub fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    let error = |problem: String| FileError { problem, hint: "give a PEM file with one private key, not encrypted" };
    let pem = read_pem(path).map_err(&error)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
        if is_encrypted(&pem) {
            let problem = format!("{} is encrypted, and l7lb does not ask for a passphrase", path.display());
            return FileError { problem, hint: DECRYPT };
        }
        error(format!("{} contains no private key", path.display()))
    })
}

const DECRYPT: &str = "decrypt it with `openssl pkey -in KEY -out NEW`, and let only l7lb read it: `chmod 600 NEW`";

/// Whether the file has an encrypted key: PKCS #8 (RFC 7468 §11), or with the header of RFC 1421 §4.6.1.1.
fn is_encrypted(pem: &[u8]) -> bool {
    let mut lines = pem.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    lines.any(|line| line == b"-----BEGIN ENCRYPTED PRIVATE KEY-----" || line == b"Proc-Type: 4,ENCRYPTED")
}

/// Reads a PEM file, without its byte-order mark.
///
/// # Errors
/// A message with the name of the file.
pub(super) fn read_pem(path: &Path) -> Result<Vec<u8>, String> {
    let content = read(path)?;
    if text_file::is_utf16(&content) {
        return Err(format!("{} is in UTF-16, not ASCII", path.display()));
    }
    // Every DER structure here is a SEQUENCE of more than 127 bytes.
    if content.starts_with(&[0x30, 0x82]) || content.starts_with(&[0x30, 0x81]) {
        return Err(format!("{} is in DER or PKCS #12; convert it to PEM with openssl", path.display()));
    }
    Ok(text_file::bytes_without_mark(&content).to_vec())
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()))
}

/// Reads an OCSP response in DER (RFC 6960 §4.2.1), which must be a successful one.
pub(super) fn read_ocsp(path: &Path) -> Result<Vec<u8>, FileError> {
    let error =
        |problem: String| FileError { problem, hint: "give the response in DER, as `openssl ocsp -respout` writes it" };
    let der = read(path).map_err(&error)?;
    // OCSPResponse is a SEQUENCE that starts with its status, an ENUMERATED of one byte; 0 is success.
    let status = der_content(&der).and_then(|content| content.strip_prefix(&[0x0a, 0x01])?.first());
    match status {
        Some(0) => Ok(der),
        Some(status) => Err(error(format!("{} reports a failure of the responder: status {status}", path.display()))),
        None => Err(error(format!("{} is not an OCSP response", path.display()))),
    }
}

/// The content of a SEQUENCE that fills all of `der`.
fn der_content(der: &[u8]) -> Option<&[u8]> {
    let (length, rest) = der.strip_prefix(&[0x30])?.split_first()?;
    let (length, content) = match length {
        0x81..=0x84 => {
            let (bytes, content) = rest.split_at_checked(usize::from(length & 0x7f))?;
            (bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), content)
        }
        length => (usize::from(*length), rest),
    };
    (content.len() == length).then_some(content)
}

/// A certificate chain with its matching key, and its properties.
#[derive(Clone, Debug)]
pub struct Certificate {
    pub(super) key: Arc<CertifiedKey>,
    properties: Properties,
}

#[derive(Clone, Debug)]
struct Properties {
    names: Vec<String>,
    serial: String,
    expires: SystemTime,
}

/// The algorithm of a certificate's key, as text.
pub(super) struct KeyAlgorithm(SignatureAlgorithm);

impl KeyAlgorithm {
    pub(super) fn of(certificate: &Certificate) -> Self {
        Self(certificate.key.key.algorithm())
    }
}

impl fmt::Display for KeyAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            SignatureAlgorithm::RSA => f.write_str("RSA"),
            SignatureAlgorithm::ECDSA => f.write_str("ECDSA"),
            SignatureAlgorithm::ED25519 => f.write_str("Ed25519"),
            other => write!(f, "{other:?}"),
        }
    }
}

impl Certificate {
    /// Pairs a chain with its key.
    ///
    /// # Errors
    /// The problem: no certificate, an unknown key algorithm, a key of another certificate, or an invalid
    /// certificate.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, String> {
        let properties = chain.first().map(Properties::of).ok_or("there is no certificate")??;
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let key = CertifiedKey::from_der(chain, key, &provider).map_err(|e| match e {
            rustls::Error::InconsistentKeys(_) => "the key does not belong to the certificate".to_owned(),
            other => other.to_string(),
        })?;
        Ok(Self { key: Arc::new(key), properties })
    }

    /// The same certificate with an OCSP response to staple.
    #[must_use]
    pub(super) fn with_ocsp(self, response: Vec<u8>) -> Self {
        let key = CertifiedKey { ocsp: Some(response), ..CertifiedKey::clone(&self.key) };
        Self { key: Arc::new(key), ..self }
    }

    /// The DNS names of the certificate, in lower case, wildcards as `*.example.com`.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.properties.names
    }

    /// The serial number in lower-case hexadecimal digits.
    #[must_use]
    pub fn serial(&self) -> &str {
        &self.properties.serial
    }

    /// The expiry of the certificate.
    #[must_use]
    pub fn expires(&self) -> SystemTime {
        self.properties.expires
    }

    /// A name that both certificates have, if their keys are of the same algorithm.
    pub(super) fn name_shared_with(&self, other: &Self) -> Option<&str> {
        if self.key.key.algorithm() != other.key.key.algorithm() {
            return None;
        }
        self.names().iter().find(|name| other.names().contains(name)).map(String::as_str)
    }
}

impl Properties {
    fn of(certificate: &CertificateDer<'_>) -> Result<Self, String> {
        let (_, parsed) =
            X509Certificate::from_der(certificate).map_err(|e| format!("the certificate is invalid: {e}"))?;
        let alternative =
            parsed.subject_alternative_name().map_err(|e| format!("the names of the certificate are invalid: {e}"))?;
        let names = alternative.into_iter().flat_map(|extension| &extension.value.general_names);
        let names = names.filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        });
        let expires = u64::try_from(parsed.validity.not_after.timestamp()).unwrap_or(0);
        Ok(Self {
            names: names.collect(),
            serial: hexadecimal(parsed.raw_serial()),
            expires: SystemTime::UNIX_EPOCH + Duration::from_secs(expires),
        })
    }
}

/// Bytes as lower-case hexadecimal digits.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::development;

    #[test]
    fn key_of_another_certificate_is_rejected() {
        let (one, _) = development::certificate(&["one.test".to_owned()]).unwrap();
        let (two, _) = development::certificate(&["two.test".to_owned()]).unwrap();
        let chain = vec![CertificateDer::from_pem_slice(one.certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(two.key.as_bytes()).unwrap();
        assert_eq!(Certificate::new(chain, key).unwrap_err(), "the key does not belong to the certificate");
    }

    #[test]
    fn unsuccessful_ocsp_response_is_rejected() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("response.der");
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            read_ocsp(&path).map_err(|e| e.problem.rsplit('/').next().unwrap().to_owned())
        };
        assert_eq!(read(&[0x30, 3, 0x0a, 1, 0]).unwrap().len(), 5);
        assert_eq!(read(&[0x30, 0x82, 0, 3, 0x0a, 1, 0]).unwrap().len(), 7);
        assert_eq!(
            read(&[0x30, 3, 0x0a, 1, 3]).unwrap_err(),
            "response.der reports a failure of the responder: status 3"
        );
        for odd in [&b""[..], b"-----BEGIN", &[0x30], &[0x30, 4, 0x0a, 1, 0], &[0x30, 0x84, 1], &[0x31, 3, 0x0a, 1, 0]]
        {
            assert_eq!(read(odd).unwrap_err(), "response.der is not an OCSP response", "{odd:?}");
        }
    }

    #[test]
    fn pem_files_with_a_byte_order_mark_are_read_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.pem");
        let (pem, _) = development::certificate(&["one.test".to_owned()]).unwrap();
        std::fs::write(&path, format!("\u{feff}{0}{0}", pem.certificate)).unwrap();
        assert_eq!(read_chain(&path).map(|chain| chain.len()).map_err(|e| e.problem), Ok(2));
        std::fs::write(&path, format!("\u{feff}{}", pem.key)).unwrap();
        assert!(read_key(&path).is_ok());
    }

    #[test]
    fn encrypted_key_and_other_encodings_are_named_with_their_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.pem");
        let said = |content: &[u8]| {
            std::fs::write(&path, content).unwrap();
            let e = read_key(&path).unwrap_err();
            (e.problem.rsplit('/').next().unwrap().to_owned(), e.hint)
        };
        let encrypted = "file.pem is encrypted, and l7lb does not ask for a passphrase".to_owned();
        for text in [
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n",
            "\u{feff}-----BEGIN ENCRYPTED PRIVATE KEY-----\r\nMIIB\r\n-----END ENCRYPTED PRIVATE KEY-----\r\n",
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nMIIB\n-----END RSA PRIVATE KEY-----\n",
            "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nMIIB\n-----END EC PRIVATE KEY-----\n",
        ] {
            assert_eq!(said(text.as_bytes()), (encrypted.clone(), DECRYPT), "{text}");
        }
        assert!(DECRYPT.contains("openssl pkey -in KEY -out NEW"));
        assert_eq!(said(b"\xFF\xFE-\0").0, "file.pem is in UTF-16, not ASCII");
        assert_eq!(said(&[0x30, 0x82, 1, 1]).0, "file.pem is in DER or PKCS #12; convert it to PEM with openssl");
        assert_eq!(said(b"").0, "file.pem contains no private key");
    }
}
