//! Certificates from PEM files, and the store that picks one by the name that a client asks for.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Why a file could not be used, in words for the operator.
pub struct Unusable {
    /// What is wrong with the file.
    pub problem: String,
    /// What would be right.
    pub hint: &'static str,
}

/// Reads a certificate chain; at least one certificate.
pub fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    let unusable = |problem: String| Unusable {
        problem,
        hint: "give a PEM file with the certificate first, then its intermediates (`l7lb cert` writes one to try)",
    };
    let pem = read(path).map_err(&unusable)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(unusable(format!("{} holds no certificate", path.display()))),
        Err(e) => Err(unusable(format!("{} is not valid PEM: {e}", path.display()))),
    }
}

/// Reads a private key. The text of the error never holds a part of the file.
pub fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, Unusable> {
    let unusable = |problem: String| Unusable { problem, hint: "give a PEM file with one private key, not encrypted" };
    let pem = read(path).map_err(&unusable)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| unusable(format!("{} holds no private key", path.display())))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()))
}

/// A certificate chain with its key, proved to belong together, and the names that it is for.
#[derive(Clone, Debug)]
pub struct Certificate {
    key: Arc<CertifiedKey>,
    names: Vec<String>,
}

impl Certificate {
    /// Pairs a chain with its key.
    ///
    /// # Errors
    /// Says in words what does not fit: an unknown kind of key, a key of another certificate, or a
    /// certificate that cannot be read.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, String> {
        let names = chain.first().map(names_of).transpose()?.unwrap_or_default();
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let key = CertifiedKey::from_der(chain, key, &provider).map_err(|e| match e {
            rustls::Error::InconsistentKeys(_) => "the key does not belong to the certificate".to_owned(),
            other => other.to_string(),
        })?;
        Ok(Self { key: Arc::new(key), names })
    }

    /// The DNS names that the certificate is for, in lower case, wildcards as `*.example.com`.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

fn names_of(certificate: &CertificateDer<'_>) -> Result<Vec<String>, String> {
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|e| format!("the certificate cannot be read: {e}"))?;
    let alternative =
        parsed.subject_alternative_name().map_err(|e| format!("the certificate's names cannot be read: {e}"))?;
    let names = alternative.into_iter().flat_map(|extension| &extension.value.general_names);
    Ok(names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect())
}

/// The certificates of one listener: chosen by exact name, then by wildcard, then the first.
///
/// Several certificates may serve the same name with different kinds of keys; the first whose key
/// the client can verify is shown.
#[derive(Debug)]
pub struct Store {
    by_name: HashMap<String, Vec<Arc<CertifiedKey>>>,
    otherwise: Vec<Arc<CertifiedKey>>,
}

impl Store {
    /// A store of `certificates`, of which the first is the one for unknown names.
    #[must_use]
    pub fn new(certificates: &[Certificate]) -> Self {
        let mut by_name: HashMap<String, Vec<Arc<CertifiedKey>>> = HashMap::new();
        for certificate in certificates {
            for name in &certificate.names {
                by_name.entry(name.clone()).or_default().push(Arc::clone(&certificate.key));
            }
        }
        Self { by_name, otherwise: certificates.first().map(|first| Arc::clone(&first.key)).into_iter().collect() }
    }

    /// The candidates for a server name, best class first.
    fn candidates(&self, name: Option<&str>) -> &[Arc<CertifiedKey>] {
        let Some(name) = name.map(str::to_ascii_lowercase) else {
            return &self.otherwise;
        };
        // A wildcard stands for exactly one label (RFC 6125 §6.4.3).
        let wildcard = || name.split_once('.').and_then(|(_, parent)| self.by_name.get(&format!("*.{parent}")));
        self.by_name.get(&name).or_else(wildcard).unwrap_or(&self.otherwise)
    }
}

impl ResolvesServerCert for Store {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let candidates = self.candidates(hello.server_name());
        let usable = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        candidates.iter().find(usable).or(candidates.first()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::development;

    fn certificate(names: &[&str]) -> Certificate {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        development::certificate(&names).unwrap().1
    }

    fn shown<'a>(store: &Store, name: Option<&str>, of: &'a [Certificate]) -> Option<&'a str> {
        let key = store.candidates(name).first()?;
        of.iter().find(|c| Arc::ptr_eq(&c.key, key)).and_then(|c| c.names.first()).map(String::as_str)
    }

    #[test]
    fn exact_beats_wildcard_beats_first() {
        let all = [certificate(&["first.test"]), certificate(&["*.example.test"]), certificate(&["www.example.test"])];
        let store = Store::new(&all);
        assert_eq!(shown(&store, Some("www.example.test"), &all), Some("www.example.test"));
        assert_eq!(shown(&store, Some("WWW.Example.TEST"), &all), Some("www.example.test"));
        assert_eq!(shown(&store, Some("api.example.test"), &all), Some("*.example.test"));
        assert_eq!(shown(&store, Some("a.b.example.test"), &all), Some("first.test"), "a wildcard is one label");
        assert_eq!(shown(&store, Some("other.test"), &all), Some("first.test"));
        assert_eq!(shown(&store, None, &all), Some("first.test"));
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let (one, _) = development::certificate(&["one.test".to_owned()]).unwrap();
        let (two, _) = development::certificate(&["two.test".to_owned()]).unwrap();
        let chain = vec![CertificateDer::from_pem_slice(one.certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(two.key.as_bytes()).unwrap();
        assert_eq!(Certificate::new(chain, key).unwrap_err(), "the key does not belong to the certificate");
    }
}
