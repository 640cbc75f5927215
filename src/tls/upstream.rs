//! TLS towards backends: verified against the system's authorities or a pool's own, unless the
//! configuration says `verify: false` in so many words; and who we are, to those that ask.

use std::path::PathBuf;
use std::sync::Arc;

use pingora_core::protocols::tls::CaType;
use pingora_core::utils::tls::{CertKey, WrappedX509, parse_x509};
use rustls::pki_types::CertificateDer;
use schemars::JsonSchema;
use serde::Deserialize;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::certificates::{self, Certificate};
use crate::base::fault::{Faults, Place};

/// The `tls:` block of a pool, as written.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The name that the backends' certificates must be for, also sent as server name.
    pub server_name: String,
    /// PEM file with the authorities to trust instead of the system's.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// Whether the backend's certificate is verified; `false` invites anybody in between.
    #[serde(default = "verify_by_default")]
    pub verify: bool,
    /// PEM file with the certificate to show to backends that ask, then its intermediates.
    #[serde(default)]
    pub client_certificate: Option<PathBuf>,
    /// PEM file with its private key.
    #[serde(default)]
    pub client_key: Option<PathBuf>,
}

fn verify_by_default() -> bool {
    true
}

/// How a pool's backends are spoken to over TLS.
#[derive(Clone)]
pub struct Verification {
    /// The name to ask for and to verify.
    pub server_name: String,
    /// Authorities to trust instead of the system's.
    pub authorities: Option<Arc<CaType>>,
    /// Whether to verify at all.
    pub verify: bool,
    /// What to show to backends that ask who we are.
    pub client: Option<Arc<CertKey>>,
    /// What the files held, to tell whether they have changed.
    read: Vec<Vec<u8>>,
}

/// Equal where the same is asked for and the files held the same.
impl PartialEq for Verification {
    fn eq(&self, other: &Self) -> bool {
        self.server_name == other.server_name && self.verify == other.verify && self.read == other.read
    }
}

impl Config {
    /// Reads the authorities and proves the block consistent.
    pub fn check(&self, place: &Place, faults: &mut Faults) -> Option<Verification> {
        if rustls::pki_types::ServerName::try_from(self.server_name.as_str()).is_err() {
            faults.add(
                place.key("server_name"),
                format!("`{}` is not a DNS name", self.server_name),
                "give the name that the backends' certificates are for",
            );
        }
        let mut read = Vec::new();
        let authorities = match &self.ca {
            None => None,
            Some(path) => {
                let authorities = certificates::read_chain(path).and_then(|chain| {
                    read.extend(chain.iter().map(|der| der.to_vec()));
                    wrap(&chain).ok_or_else(|| certificates::Unusable {
                        problem: format!("{} holds something that is no certificate", path.display()),
                        hint: "give a PEM file with certificates of authorities",
                    })
                });
                Some(authorities.map_err(|e| faults.add(place.key("ca"), e.problem, e.hint)).ok()?)
            }
        };
        let client = self.check_client(place, &mut read, faults);
        Some(Verification { server_name: self.server_name.clone(), authorities, verify: self.verify, client, read })
    }

    /// Reads the certificate for backends with its key, and proves that they belong together.
    fn check_client(&self, place: &Place, read: &mut Vec<Vec<u8>>, faults: &mut Faults) -> Option<Arc<CertKey>> {
        let (certificate, key) = match (&self.client_certificate, &self.client_key) {
            (None, None) => return None,
            (Some(certificate), Some(key)) => (certificate, key),
            (Some(_), None) => {
                faults.add(place.key("client_certificate"), "its key is missing", "add `client_key: FILE`");
                return None;
            }
            (None, Some(_)) => {
                faults.add(place.key("client_key"), "its certificate is missing", "add `client_certificate: FILE`");
                return None;
            }
        };
        let chain = certificates::read_chain(certificate)
            .map_err(|e| faults.add(place.key("client_certificate"), e.problem, e.hint))
            .ok();
        let secret =
            certificates::read_key(key).map_err(|e| faults.add(place.key("client_key"), e.problem, e.hint)).ok();
        let (chain, secret) = (chain?, secret?);
        // Pingora's constructor panics on certificates that cannot be read; hence the look at each.
        let unreadable = chain.iter().any(|der| X509Certificate::from_der(der).is_err());
        let fits = Certificate::new(chain.clone(), secret.clone_key());
        match fits {
            Ok(_) if unreadable => Err("there is something in it that is no certificate".to_owned()),
            Ok(_) => Ok(()),
            Err(problem) => Err(problem),
        }
        .map_err(|problem| {
            let pair = format!("{} and {}: {problem}", certificate.display(), key.display());
            faults.add(place.key("client_key"), pair, "give the key that the certificate was made for");
        })
        .ok()?;
        let chain: Vec<Vec<u8>> = chain.iter().map(|der| der.to_vec()).collect();
        // An authority and a certificate of ours are told apart by the empty one in between.
        read.push(Vec::new());
        read.extend(chain.iter().cloned());
        read.push(secret.secret_der().to_vec());
        Some(Arc::new(CertKey::new(chain, secret.secret_der().to_vec())))
    }
}

/// The chain in Pingora's own type, whose constructor panics on bad bytes; hence the look before.
fn wrap(chain: &[CertificateDer<'static>]) -> Option<Arc<CaType>> {
    let wrapped: Option<Vec<WrappedX509>> = chain
        .iter()
        .map(|der| X509Certificate::from_der(der).ok().map(|_| WrappedX509::new(der.to_vec(), parse_x509)))
        .collect();
    wrapped.map(Arc::from)
}
