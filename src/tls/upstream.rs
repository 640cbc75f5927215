//! TLS towards backends: verified against the system's authorities or a pool's own, unless the
//! configuration says `verify: false` in so many words.

use std::path::PathBuf;
use std::sync::Arc;

use pingora_core::protocols::tls::CaType;
use pingora_core::utils::tls::{WrappedX509, parse_x509};
use rustls::pki_types::CertificateDer;
use serde::Deserialize;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::certificates;
use crate::fault::{Faults, Place};

/// The `tls:` block of a pool, as written.
#[derive(Clone, Debug, PartialEq, Deserialize)]
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
        let authorities = match &self.ca {
            None => None,
            Some(path) => {
                let authorities = certificates::read_chain(path).and_then(|chain| {
                    wrap(&chain).ok_or_else(|| certificates::Unusable {
                        problem: format!("{} holds something that is no certificate", path.display()),
                        hint: "give a PEM file with certificates of authorities",
                    })
                });
                Some(authorities.map_err(|e| faults.add(place.key("ca"), e.problem, e.hint)).ok()?)
            }
        };
        Some(Verification { server_name: self.server_name.clone(), authorities, verify: self.verify })
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
