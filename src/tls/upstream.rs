//! TLS to backends: verified against the system's authorities or those of the pool, unless `verify: false` is
//! configured; and the client certificate for backends that require one.

use std::path::PathBuf;
use std::sync::Arc;

use pingora_core::protocols::tls::CaType;
use pingora_core::utils::tls::{CertKey, WrappedX509, parse_x509};
use rustls::pki_types::CertificateDer;
use schemars::JsonSchema;
use serde::Deserialize;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::certificates::{self, Certificate};
use super::client_files;
use crate::base::fault::{Faults, Place};

/// The `tls:` block of a pool.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The name that the certificates of the backends must have; also sent as server name.
    pub server_name: String,
    /// PEM file with authorities that replace those of the system.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// Whether the certificate of a backend is verified; `false` allows interception.
    #[serde(default = "verify_by_default")]
    pub verify: bool,
    /// PEM file with the client certificate for backends, followed by its intermediates.
    #[serde(default)]
    pub client_certificate: Option<PathBuf>,
    /// PEM file with its private key.
    #[serde(default)]
    pub client_key: Option<PathBuf>,
}

fn verify_by_default() -> bool {
    true
}

/// The checked TLS settings of a pool.
#[derive(Clone)]
pub struct UpstreamTls {
    /// The server name to send and verify.
    pub server_name: String,
    /// Authorities that replace those of the system.
    pub authorities: Option<Arc<CaType>>,
    /// Whether to verify.
    pub verify: bool,
    /// The client certificate for backends.
    pub client: Option<Arc<CertKey>>,
    /// The contents of the files, to detect changes.
    contents: Vec<Vec<u8>>,
}

/// Equal if the settings and the contents of the files are equal.
impl PartialEq for UpstreamTls {
    fn eq(&self, other: &Self) -> bool {
        self.server_name == other.server_name && self.verify == other.verify && self.contents == other.contents
    }
}

impl Config {
    /// Checks the block and reads its files.
    pub fn check(&self, place: &Place, faults: &mut Faults) -> Option<UpstreamTls> {
        if rustls::pki_types::ServerName::try_from(self.server_name.as_str()).is_err() {
            faults.add(
                place.key("server_name"),
                format!("`{}` is not a DNS name", self.server_name),
                "give the name that the backends' certificates are for",
            );
        }
        let mut contents = Vec::new();
        let authorities = match &self.ca {
            None => None,
            Some(path) => {
                let authorities = certificates::read_chain(path).and_then(|chain| {
                    contents.extend(chain.iter().map(|der| der.to_vec()));
                    wrap(&chain).ok_or_else(|| certificates::FileError {
                        problem: format!("{} contains an invalid certificate", path.display()),
                        hint: "give a PEM file with certificates of authorities",
                    })
                });
                Some(authorities.map_err(|e| faults.add(place.key("ca"), e.problem, e.hint)).ok()?)
            }
        };
        let client = self.check_client(place, &mut contents, faults);
        Some(UpstreamTls { server_name: self.server_name.clone(), authorities, verify: self.verify, client, contents })
    }

    /// Reads the client certificate and its key, and checks that they match.
    fn check_client(&self, place: &Place, contents: &mut Vec<Vec<u8>>, faults: &mut Faults) -> Option<Arc<CertKey>> {
        let files = client_files::pair(self.client_certificate.as_ref(), self.client_key.as_ref(), place, faults);
        let (certificate, key) = files??;
        let chain = certificates::read_chain(certificate)
            .map_err(|e| faults.add(place.key("client_certificate"), e.problem, e.hint))
            .ok();
        let secret =
            certificates::read_key(key).map_err(|e| faults.add(place.key("client_key"), e.problem, e.hint)).ok();
        let (chain, secret) = (chain?, secret?);
        // Pingora's constructor panics on invalid certificates, so each one is parsed before.
        let unreadable = chain.iter().any(|der| X509Certificate::from_der(der).is_err());
        let fits = Certificate::new(chain.clone(), secret.clone_key());
        match fits {
            Ok(_) if unreadable => Err("the file contains an invalid certificate".to_owned()),
            Ok(_) => Ok(()),
            Err(problem) => Err(problem),
        }
        .map_err(|problem| {
            let pair = format!("{} and {}: {problem}", certificate.display(), key.display());
            faults.add(place.key("client_key"), pair, "give the key of this certificate");
        })
        .ok()?;
        let chain: Vec<Vec<u8>> = chain.iter().map(|der| der.to_vec()).collect();
        // The empty entry separates authorities from client certificates.
        contents.push(Vec::new());
        contents.extend(chain.iter().cloned());
        contents.push(secret.secret_der().to_vec());
        Some(Arc::new(CertKey::new(chain, secret.secret_der().to_vec())))
    }
}

/// The chain in Pingora's type, whose constructor panics on invalid bytes, so they are parsed before.
fn wrap(chain: &[CertificateDer<'static>]) -> Option<Arc<CaType>> {
    let wrapped: Option<Vec<WrappedX509>> = chain
        .iter()
        .map(|der| X509Certificate::from_der(der).ok().map(|_| WrappedX509::new(der.to_vec(), parse_x509)))
        .collect();
    wrapped.map(Arc::from)
}
