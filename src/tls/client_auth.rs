//! Client certificates: whether a listener requires them, and which authorities may sign them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use schemars::JsonSchema;
use serde::Deserialize;

use super::certificates::{self, FileError};
use crate::base::fault::{Faults, Place};

/// The `client_auth:` block of a listener's `tls`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Whether clients without a certificate are accepted.
    pub mode: Mode,
    /// PEM file with the authorities that sign client certificates.
    pub ca: PathBuf,
    /// PEM files with revocation lists (RFC 5280 §5). With any of them, each authority in a client's chain must
    /// have one.
    #[serde(default)]
    pub crl: Vec<PathBuf>,
}

/// Whether clients without a certificate are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// A client without a certificate is rejected in the handshake.
    Required,
    /// A client without a certificate is accepted; one with an invalid certificate is rejected.
    Optional,
}

/// The rules by which a listener verifies clients.
#[derive(Clone)]
pub struct ClientAuth {
    verifier: Arc<dyn ClientCertVerifier>,
    rules_hash: [u8; 32],
}

impl fmt::Debug for ClientAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientAuth").finish_non_exhaustive()
    }
}

impl Config {
    /// Reads authorities and revocation lists.
    pub fn check(&self, place: &Place, faults: &mut Faults) -> Option<ClientAuth> {
        let authorities =
            certificates::read_chain(&self.ca).map_err(|e| faults.add(place.key("ca"), e.problem, CA_HINT)).ok();
        let mut lists = Vec::with_capacity(self.crl.len());
        for (index, path) in self.crl.iter().enumerate() {
            match read_lists(path) {
                Ok(read) => lists.extend(read),
                Err(e) => faults.add(place.key("crl").index(index), e.problem, e.hint),
            }
        }
        let crl_is_whole = lists.len() >= self.crl.len();
        ClientAuth::new(self.mode, authorities?, lists)
            .map_err(|problem| {
                faults.add(place.key("ca"), format!("{}: {problem}", self.ca.display()), CA_HINT);
            })
            .ok()
            .filter(|_| crl_is_whole)
    }

    /// The files of the rules.
    pub(super) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        std::iter::once(&self.ca).chain(&self.crl)
    }
}

const CA_HINT: &str = "give a PEM file with the certificates of the authorities that sign client certificates";

fn read_lists(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, FileError> {
    let error = |problem: String| FileError { problem, hint: "give a PEM file with X509 CRL blocks" };
    let pem = certificates::read_pem(path).map_err(error)?;
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&pem).collect();
    match lists {
        Ok(lists) if !lists.is_empty() => Ok(lists),
        Ok(_) => Err(error(format!("{} contains no revocation list", path.display()))),
        Err(e) => Err(error(format!("{} is not valid PEM: {e}", path.display()))),
    }
}

impl ClientAuth {
    /// Rules with these authorities and revocation lists.
    ///
    /// # Errors
    /// A message, if a certificate or a revocation list is invalid.
    pub fn new(
        mode: Mode,
        authorities: Vec<CertificateDer<'static>>,
        lists: Vec<CertificateRevocationListDer<'static>>,
    ) -> Result<Self, String> {
        let rules_hash = rules_hash(mode, &authorities, &lists);
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority).map_err(|e| format!("contains a certificate that is not an authority: {e}"))?;
        }
        let builder =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider())).with_crls(lists);
        let builder = match mode {
            Mode::Required => builder,
            Mode::Optional => builder.allow_unauthenticated(),
        };
        Ok(Self { verifier: builder.build().map_err(|e| e.to_string())?, rules_hash })
    }

    pub(super) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.verifier)
    }

    /// A hash of these rules. A resumed session is not verified again, so a ticket must not be valid under
    /// other rules than those under which its client was verified: neither on a listener with other authorities
    /// nor after a revocation.
    pub(super) fn rules_hash(&self) -> [u8; 32] {
        self.rules_hash
    }
}

fn rules_hash(mode: Mode, authorities: &[CertificateDer<'_>], lists: &[CertificateRevocationListDer<'_>]) -> [u8; 32] {
    let mut hash = Context::new(&SHA256);
    hash.update(&[u8::from(mode == Mode::Required)]);
    let parts = authorities.iter().map(AsRef::as_ref).chain(lists.iter().map(AsRef::as_ref));
    for part in parts {
        let part: &[u8] = part;
        hash.update(&(part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut rules_hash = [0; 32];
    // SHA-256 has 32 bytes, so this copies all of them.
    rules_hash.iter_mut().zip(hash.finish().as_ref()).for_each(|(to, from)| *to = *from);
    rules_hash
}
