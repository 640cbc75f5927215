//! TLS of l7lb as a client of a service that it asks, such as a registry of backends. The certificate of the service
//! is always verified.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use schemars::JsonSchema;
use serde::Deserialize;

use super::certificates::{self, FileError};
use super::client_files::{self, Identity};
use crate::base::fault::{Faults, Place};

/// The `tls:` block of a service.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// PEM file with the authorities that may sign the certificate of the service.
    pub ca: PathBuf,
    /// PEM file with the client certificate, followed by its intermediates.
    #[serde(default)]
    pub client_certificate: Option<PathBuf>,
    /// PEM file with its private key.
    #[serde(default)]
    pub client_key: Option<PathBuf>,
    /// The name that the certificate of the service must have. By default, the host of the endpoint.
    #[serde(default)]
    pub server_name: Option<String>,
}

/// The checked TLS settings of a service.
#[derive(Clone, Debug)]
pub struct ServiceTls {
    /// The settings of connections.
    pub config: Arc<ClientConfig>,
    /// The name that the certificate must have instead of the host.
    pub server_name: Option<ServerName<'static>>,
    /// The contents of the files, to detect changes.
    contents: Vec<Vec<u8>>,
}

/// Equal if the settings and the contents of the files are equal.
impl PartialEq for ServiceTls {
    fn eq(&self, other: &Self) -> bool {
        self.server_name == other.server_name && self.contents == other.contents
    }
}

impl Config {
    /// Checks the block and reads its files.
    pub fn check(&self, place: &Place, faults: &mut Faults) -> Option<ServiceTls> {
        let server_name = match self.server_name.clone().map(ServerName::try_from) {
            None => None,
            Some(Ok(name)) => Some(name),
            Some(Err(_)) => {
                faults.add(place.key("server_name"), "this is not a DNS name", "give the name in the certificate");
                return None;
            }
        };
        let mut add = |key: &str, error: FileError| faults.add(place.key(key), error.problem, error.hint);
        let authorities = certificates::read_chain(&self.ca).map_err(|e| add("ca", e)).ok()?;
        let mut roots = RootCertStore::empty();
        if roots.add_parsable_certificates(authorities.iter().cloned()).1 > 0 {
            let problem = format!("{} contains an invalid certificate", self.ca.display());
            add("ca", FileError { problem, hint: "give a PEM file with certificates of authorities" });
            return None;
        }
        let mut contents: Vec<Vec<u8>> = authorities.iter().map(|der| der.to_vec()).collect();
        let identity = self.read_client(place, faults)?;
        if let Some((chain, key)) = &identity {
            // The empty entry separates authorities from client certificates.
            contents.push(Vec::new());
            contents.extend(chain.iter().map(|der| der.to_vec()));
            contents.push(key.secret_der().to_vec());
        }
        let config = client_files::config(roots, identity).map_err(|e| {
            let problem = format!("the client certificate cannot be used with this key: {e}");
            faults.add(place.key("client_key"), problem, "give the key of this certificate");
        });
        Some(ServiceTls { config: Arc::new(config.ok()?), server_name, contents })
    }

    /// The client certificate and its key, if there is one. `None` after a fault.
    fn read_client(&self, place: &Place, faults: &mut Faults) -> Option<Option<Identity>> {
        let files = client_files::pair(self.client_certificate.as_ref(), self.client_key.as_ref(), place, faults)?;
        let Some((certificate, key)) = files else { return Some(None) };
        let mut add = |key: &str, error: FileError| faults.add(place.key(key), error.problem, error.hint);
        let chain = certificates::read_chain(certificate).map_err(|e| add("client_certificate", e)).ok()?;
        let key = certificates::read_key(key).map_err(|e| add("client_key", e)).ok()?;
        Some(Some((chain, key)))
    }
}

/// The settings of connections to a service whose certificate is signed by an authority in `ca`, or by one of the
/// system. `identity` is the client certificate with its key. All are in PEM. `protocols` are those of ALPN.
///
/// # Errors
/// A sentence without any part of a key.
pub fn client_config(
    ca: Option<&[u8]>,
    identity: Option<(&[u8], &[u8])>,
    protocols: &[&str],
) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    let authorities = match ca {
        Some(pem) => chain(pem, "the certificate authority")?,
        None => rustls_native_certs::load_native_certs().map_err(|e| format!("no system authorities: {e}"))?,
    };
    roots.add_parsable_certificates(authorities);
    if roots.is_empty() {
        return Err("there is no certificate authority".to_owned());
    }
    let identity = identity.map(|(certificate, key)| {
        let key =
            PrivateKeyDer::from_pem_slice(key).map_err(|_| "the client key is no private key in PEM".to_owned())?;
        Ok::<_, String>((chain(certificate, "the client certificate")?, key))
    });
    let mut config = client_files::config(roots, identity.transpose()?)
        .map_err(|e| format!("the client certificate cannot be used with its key: {e}"))?;
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Ok(Arc::new(config))
}

fn chain(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(|| format!("{what} is not in PEM"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(config: &Config) -> Result<ServiceTls, String> {
        let mut faults = Faults::default();
        let checked = config.check(&Place::root(), &mut faults);
        let problems: Vec<String> = faults.into_vec().into_iter().map(|fault| fault.problem).collect();
        assert_eq!(checked.is_some(), problems.is_empty());
        checked.ok_or_else(|| problems.join("; "))
    }

    #[test]
    fn key_that_does_not_belong_to_the_client_certificate_is_a_fault() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| Some(folder.path().join(name));
        for name in ["a", "b"] {
            let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
            std::fs::write(path(&format!("{name}.pem")).unwrap(), made.cert.pem()).unwrap();
            std::fs::write(path(&format!("{name}-key.pem")).unwrap(), made.signing_key.serialize_pem()).unwrap();
        }
        let of = |certificate: Option<&str>, key: Option<&str>| Config {
            ca: path("a.pem").unwrap(),
            client_certificate: certificate.and_then(path),
            client_key: key.and_then(path),
            server_name: None,
        };
        let (plain, own) = (of(None, None), of(Some("b.pem"), Some("b-key.pem")));
        assert_eq!(check(&plain), check(&plain));
        assert_ne!(check(&plain), check(&own), "the client certificate is a difference");
        for (config, problem) in [
            (of(Some("b.pem"), Some("a-key.pem")), "cannot be used with this key"),
            (of(Some("b.pem"), None), "the key is missing"),
            (of(None, Some("b-key.pem")), "the certificate is missing"),
            (Config { server_name: Some("a b".to_owned()), ..plain.clone() }, "not a DNS name"),
            (Config { ca: path("a-key.pem").unwrap(), ..plain }, "contains no certificate"),
        ] {
            let error = check(&config).unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
    }

    #[test]
    fn settings_from_pem_need_an_authority_and_a_pair_that_belongs_together() {
        let made = |name: &str| {
            let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
            (made.cert.pem(), made.signing_key.serialize_pem())
        };
        let ((one, one_key), (_, other_key)) = (made("one"), made("other"));
        let (one, one_key, other_key) = (one.as_bytes(), one_key.as_bytes(), other_key.as_bytes());
        let config = client_config(Some(one), Some((one, one_key)), &["h2", "http/1.1"]).unwrap();
        assert!(config.client_auth_cert_resolver.has_certs());
        assert_eq!(config.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
        for (ca, identity, reason) in [
            (one_key, None, "the certificate authority is not in PEM"),
            (&b""[..], None, "the certificate authority is not in PEM"),
            (one, Some((one, one)), "the client key is no private key in PEM"),
            (one, Some((one_key, one_key)), "the client certificate is not in PEM"),
            (one, Some((one, other_key)), "the client certificate cannot be used with its key"),
        ] {
            let error = client_config(Some(ca), identity, &[]).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
