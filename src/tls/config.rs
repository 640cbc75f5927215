//! The `tls:` block of a listener, and the check of its files.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

use super::certificates::{self, Certificate, KeyAlgorithm};
use super::client_auth::{self, ClientAuth};
use super::store::CertificateNames;
use super::tickets::{self, Keys};
use crate::base::fault::{Faults, Place};
use crate::base::file_stamps::Stamps;

/// The `tls:` block of a listener.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The certificates, selected by server name; the first one is for clients without a server name or with an
    /// unknown one.
    pub certificates: Vec<CertificateConfig>,
    /// The oldest TLS version that is accepted.
    #[serde(default)]
    pub minimum_version: Version,
    /// The offered protocols, the preferred one first.
    #[serde(default = "both_protocols")]
    pub alpn: Vec<Protocol>,
    /// Client certificates.
    #[serde(default)]
    pub client_auth: Option<client_auth::Config>,
    /// File with the keys of session tickets, shared by machines that resume each other's sessions.
    #[serde(default)]
    pub ticket_keys: Option<PathBuf>,
}

fn both_protocols() -> Vec<Protocol> {
    vec![Protocol::Http2, Protocol::Http1]
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// RFC 5246, with ECDHE and AEAD suites only.
    #[default]
    Tls12,
    /// RFC 8446.
    Tls13,
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Without quotes YAML parses 1.3 as a number.
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected a version of TLS, such as 1.3")]
        enum VersionValue {
            Number(f64),
            Text(String),
        }
        let text = match VersionValue::deserialize(deserializer)? {
            VersionValue::Number(number) => number.to_string(),
            VersionValue::Text(text) => text,
        };
        match text.as_str() {
            "1.2" => Ok(Self::Tls12),
            "1.3" => Ok(Self::Tls13),
            other => Err(serde::de::Error::unknown_variant(other, &["1.2", "1.3"])),
        }
    }
}

impl JsonSchema for Version {
    fn schema_name() -> Cow<'static, str> {
        "TlsVersion".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "enum": ["1.2", "1.3", 1.2, 1.3] })
    }
}

/// A protocol above TLS, by its ALPN name (RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Protocol {
    /// HTTP/2.
    #[serde(rename = "h2")]
    Http2,
    /// HTTP/1.1.
    #[serde(rename = "http/1.1")]
    Http1,
}

impl Protocol {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Http2 => "h2",
            Self::Http1 => "http/1.1",
        }
    }
}

/// One certificate chain with its key.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateConfig {
    /// PEM file with the certificate, then its intermediates.
    pub certificate: PathBuf,
    /// PEM file with the private key (PKCS #8, PKCS #1 or SEC 1).
    pub key: PathBuf,
    /// DER file with an OCSP response to staple (RFC 6960).
    #[serde(default)]
    pub ocsp: Option<PathBuf>,
}

/// A checked `tls:` block: the configuration and the contents of its files.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The configuration; the files are read again when they change.
    pub(super) config: Config,
    /// The contents of the files.
    pub(super) contents: FileContents,
    /// The state of the files just before they were read.
    pub(super) stamps: Stamps,
}

/// The contents of a listener's files.
#[derive(Clone, Debug)]
pub(super) struct FileContents {
    /// One per entry of [`Config::certificates`], in order.
    pub(super) certificates: Vec<Certificate>,
    pub(super) client_auth: Option<Arc<ClientAuth>>,
    pub(super) ticket_keys: Option<Arc<Keys>>,
}

impl Settings {
    /// Whether a request for `host` may arrive on a connection with `server_name`, by the certificates as read.
    #[must_use]
    pub fn may_serve(&self, server_name: Option<&str>, host: &str) -> bool {
        CertificateNames::of(&self.contents.certificates).allow(server_name, host)
    }

    /// Settings with a certificate in memory; everything else is the default.
    #[must_use]
    pub fn in_memory(certificate: Certificate) -> Self {
        let config = Config { alpn: both_protocols(), ..Config::default() };
        let contents = FileContents { certificates: vec![certificate], client_auth: None, ticket_keys: None };
        Self { config, contents, stamps: Stamps::default() }
    }
}

impl Config {
    /// Reads every file, and checks that they match.
    pub fn check(&self, place: &Place, faults: &mut Faults) -> Option<Settings> {
        self.check_with(place, &place.key("client_auth"), faults)
    }

    /// [`Config::check`] for a block whose client certificates are configured at `client_auth_place`.
    pub fn check_with(&self, place: &Place, client_auth_place: &Place, faults: &mut Faults) -> Option<Settings> {
        let stamps = Stamps::of(self.files());
        self.check_alpn(&place.key("alpn"), faults);
        let certificates = self.check_certificates(&place.key("certificates"), faults);
        let client_auth = self.client_auth.as_ref().map(|auth| auth.check(client_auth_place, faults));
        let ticket_keys = self.ticket_keys.as_ref().map(|path| tickets::read(path, &place.key("ticket_keys"), faults));
        let contents = FileContents {
            certificates: certificates?,
            client_auth: client_auth.map_or(Some(None), |read| read.map(|auth| Some(Arc::new(auth))))?,
            ticket_keys: ticket_keys.map_or(Some(None), |read| read.map(|keys| Some(Arc::new(keys))))?,
        };
        Some(Settings { config: self.clone(), contents, stamps })
    }

    /// Every configured file.
    fn files(&self) -> impl Iterator<Item = PathBuf> {
        let certificates = self.certificates.iter().flat_map(CertificateConfig::files);
        let client_auth = self.client_auth.iter().flat_map(client_auth::Config::files);
        certificates.chain(client_auth).chain(&self.ticket_keys).cloned()
    }

    fn check_alpn(&self, place: &Place, faults: &mut Faults) {
        if self.alpn.is_empty() {
            faults.add(place.clone(), "no protocol is listed", "write [h2, http/1.1], or remove the key");
        }
        for (index, protocol) in self.alpn.iter().enumerate() {
            if self.alpn.iter().take(index).any(|before| before == protocol) {
                faults.add(
                    place.index(index),
                    format!("`{}` is listed twice", protocol.name()),
                    "remove one of the two",
                );
            }
        }
    }

    /// All certificates, or `None` if one of them is faulty.
    fn check_certificates(&self, place: &Place, faults: &mut Faults) -> Option<Vec<Certificate>> {
        if self.certificates.is_empty() {
            faults.add(
                place.clone(),
                "no certificate is listed",
                "give at least one, or remove `tls` to serve plain HTTP",
            );
            return None;
        }
        let read: Vec<Option<Certificate>> = self
            .certificates
            .iter()
            .enumerate()
            .map(|(index, files)| files.check(&place.index(index), faults))
            .collect();
        for (index, certificate) in read.iter().enumerate() {
            let Some(certificate) = certificate else { continue };
            let before = read.iter().take(index).enumerate().filter_map(|(index, c)| Some((index, c.as_ref()?)));
            if let Some((earlier, name)) =
                before.filter_map(|(i, c)| Some((i, c.name_shared_with(certificate)?))).next()
            {
                let algorithm = KeyAlgorithm::of(certificate);
                faults.add(
                    place.index(index).key("certificate"),
                    format!("`{name}` already has a certificate with an {algorithm} key, certificates[{earlier}]"),
                    "remove one of the two; a name may have one certificate for each kind of key",
                );
            }
        }
        read.into_iter().collect()
    }
}

impl CertificateConfig {
    /// Reads the files and checks that they match.
    pub(super) fn check(&self, place: &Place, faults: &mut Faults) -> Option<Certificate> {
        let chain = certificates::read_chain(&self.certificate)
            .map_err(|e| faults.add(place.key("certificate"), e.problem, e.hint))
            .ok();
        let key = certificates::read_key(&self.key).map_err(|e| faults.add(place.key("key"), e.problem, e.hint)).ok();
        let ocsp = self.ocsp.as_ref().map(|path| {
            certificates::read_ocsp(path).map_err(|e| faults.add(place.key("ocsp"), e.problem, e.hint)).ok()
        });
        let certificate = Certificate::new(chain?, key?)
            .map_err(|problem| {
                let pair = format!("{} and {}: {problem}", self.certificate.display(), self.key.display());
                faults.add(place.key("key"), pair, "give the key of this certificate");
            })
            .ok()?;
        match ocsp {
            None => Some(certificate),
            Some(response) => Some(certificate.with_ocsp(response?)),
        }
    }

    /// The files of the certificate.
    pub(super) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.certificate, &self.key].into_iter().chain(&self.ocsp)
    }
}
