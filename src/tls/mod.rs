//! TLS on both sides: the certificates that listeners show, and how backends are verified.
//!
//! Only this folder knows the TLS library. The rules are the library's own good ones: TLS 1.2 and
//! 1.3, ECDHE with AES-GCM or ChaCha20-Poly1305 only, X25519MLKEM768 preferred.
//!
//! - [`certificates`]: from files to a [`Store`] that picks by server name.
//! - [`acceptor`]: what a listener needs to answer a handshake.
//! - [`development`]: a self-signed certificate for a first try.
//! - [`upstream`]: verifying backends.

pub mod acceptor;
pub mod certificates;
pub mod development;
pub mod upstream;

use std::path::PathBuf;

use serde::Deserialize;

pub use certificates::{Certificate, Store};

use crate::fault::{Faults, Place};

/// The `tls:` block of a listener, as written.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The certificates to choose from by server name; the first is shown to clients that name none
    /// or an unknown one.
    pub certificates: Vec<CertificateConfig>,
}

/// One certificate chain with its key, as written.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateConfig {
    /// PEM file with the certificate, then its intermediates.
    pub certificate: PathBuf,
    /// PEM file with the private key (PKCS #8, PKCS #1 or SEC 1).
    pub key: PathBuf,
}

impl Config {
    /// Reads every certificate and key, and proves that they belong together.
    pub fn check(&self, place: &Place, faults: &mut Faults) -> Vec<Certificate> {
        let place = place.key("certificates");
        if self.certificates.is_empty() {
            faults.add(place, "no certificate is given", "give at least one, or remove `tls` to serve plain HTTP");
            return Vec::new();
        }
        let load = |(index, files): (usize, &CertificateConfig)| files.check(&place.index(index), faults);
        self.certificates.iter().enumerate().filter_map(load).collect()
    }
}

impl CertificateConfig {
    fn check(&self, place: &Place, faults: &mut Faults) -> Option<Certificate> {
        let chain = certificates::read_chain(&self.certificate)
            .map_err(|e| faults.add(place.key("certificate"), e.problem, e.hint))
            .ok();
        let key = certificates::read_key(&self.key).map_err(|e| faults.add(place.key("key"), e.problem, e.hint)).ok();
        Certificate::new(chain?, key?)
            .map_err(|problem| {
                let pair = format!("{} and {}: {problem}", self.certificate.display(), self.key.display());
                faults.add(place.key("key"), pair, "give the key that the certificate was made for");
            })
            .ok()
    }
}

/// Makes aws-lc-rs the process's provider of cryptography, before anybody else chooses another.
///
/// Pingora would install *ring* at first use, which has no post-quantum key exchange. Calling this
/// twice is harmless.
pub fn install_provider() {
    // An error means that a provider is installed already: this very one, in tests.
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
}
