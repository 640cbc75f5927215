//! A certificate authority for tests, and TLS clients that trust it. Keys exist for one test only.

use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256, RevokedCertParams,
    RsaKeySize, SerialNumber, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};

/// Signs and revokes certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key, signed by an [`Authority`].
pub struct Issued {
    pub certificate: String,
    pub key: String,
    pub der: CertificateDer<'static>,
    pub key_der: Vec<u8>,
    pub serial: Vec<u8>,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    pub fn der(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    /// A certificate for these names, with a key on P-256.
    pub fn issue(&self, names: &[&str]) -> Issued {
        self.sign(names, KeyPair::generate().unwrap(), |_| {})
    }

    pub fn issue_rsa(&self, names: &[&str]) -> Issued {
        self.sign(names, KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap(), |_| {})
    }

    /// A certificate with further parameters.
    pub fn issue_with(&self, names: &[&str], wishes: impl FnOnce(&mut CertificateParams)) -> Issued {
        self.sign(names, KeyPair::generate().unwrap(), wishes)
    }

    fn sign(&self, names: &[&str], key: KeyPair, wishes: impl FnOnce(&mut CertificateParams)) -> Issued {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names.clone()).unwrap();
        params.distinguished_name.push(DnType::CommonName, names.first().cloned().unwrap_or_default());
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let mut serial = fastrand::u128(..).to_be_bytes().to_vec();
        serial[0] = 0x11;
        params.serial_number = Some(serial.clone().into());
        wishes(&mut params);
        let signed = params.signed_by(&key, &self.0).unwrap();
        Issued {
            certificate: signed.pem(),
            key: key.serialize_pem(),
            der: signed.der().clone(),
            key_der: key.serialize_der(),
            serial,
        }
    }

    /// A certificate revocation list (PEM) with these certificates.
    pub fn revoke(&self, revoked: &[&Issued]) -> String {
        let revoked = revoked.iter().map(|issued| RevokedCertParams {
            serial_number: SerialNumber::from_slice(&issued.serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2090, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.0).unwrap().pem().unwrap()
    }
}

impl Issued {
    /// Writes `NAME.pem` and `NAME-key.pem`, each in one step.
    pub fn write(&self, folder: &Path, name: &str) {
        replace(&folder.join(format!("{name}-key.pem")), &self.key);
        replace(&folder.join(format!("{name}.pem")), &self.certificate);
    }

    pub fn private_key(&self) -> PrivateKeyDer<'static> {
        self.key_der.clone().try_into().unwrap()
    }
}

/// Replaces a file in one step, so that a reader never sees half of it.
pub fn replace(file: &Path, content: impl AsRef<[u8]>) {
    let new = file.with_extension("new");
    std::fs::write(&new, content).unwrap();
    std::fs::rename(&new, file).unwrap();
}

/// TLS settings of a test client.
pub struct Client<'a> {
    pub trusts: &'a Authority,
    pub shows: Option<&'a Issued>,
    pub protocols: &'a [&'a str],
    pub versions: &'a [&'static rustls::SupportedProtocolVersion],
    pub rsa_only: bool,
}

impl<'a> Client<'a> {
    pub fn new(trusts: &'a Authority) -> Self {
        Self { trusts, shows: None, protocols: &["http/1.1"], versions: rustls::ALL_VERSIONS, rsa_only: false }
    }

    pub fn config(&self) -> Arc<rustls::ClientConfig> {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        if self.rsa_only {
            let algorithms = provider.signature_verification_algorithms;
            let kept = algorithms.mapping.iter().filter(|(scheme, _)| format!("{scheme:?}").starts_with("RSA"));
            // Leaked until the test process ends, because the library requires a static reference.
            provider.signature_verification_algorithms.mapping = Vec::leak(kept.copied().collect());
        }
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.trusts.der()).unwrap();
        let builder = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(self.versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match self.shows {
            None => builder.with_no_client_auth(),
            Some(shown) => builder.with_client_auth_cert(vec![shown.der.clone()], shown.private_key()).unwrap(),
        };
        config.alpn_protocols = self.protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

/// A client connection after its handshake.
pub type TlsConnection = rustls::StreamOwned<rustls::ClientConnection, TcpStream>;

/// Connects and does the handshake.
pub fn handshake(port: u16, name: &str, config: &Arc<rustls::ClientConfig>) -> Result<TlsConnection, String> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut connection = rustls::ClientConnection::new(Arc::clone(config), name).unwrap();
    let mut tcp = super::client::connect(port);
    while connection.is_handshaking() {
        connection.complete_io(&mut tcp).map_err(|e| e.to_string())?;
    }
    Ok(rustls::StreamOwned::new(connection, tcp))
}

/// The certificate that the server presented.
pub fn shown(connection: &TlsConnection) -> CertificateDer<'static> {
    connection.conn.peer_certificates().unwrap()[0].clone()
}
