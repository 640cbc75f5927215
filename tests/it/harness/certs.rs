//! Self-signed certificates for the lab.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};

/// A certificate and its private key, each in a PEM file.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The file with the certificate.
    pub certificate: PathBuf,
    /// The file with the private key.
    pub key: PathBuf,
    /// The certificate as it is served, to compare with what a peer sent.
    pub der: Vec<u8>,
}

/// Makes a self-signed certificate (ECDSA P-256) for these names or addresses,
/// as `STEM.crt` and `STEM.key` in the folder. Files of that name are
/// overwritten, as for a renewal.
pub fn self_signed(folder: &Path, stem: &str, names: &[&str]) -> Certificate {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let common_name = names.first().cloned().unwrap_or_else(|| stem.to_owned());
    let mut params = CertificateParams::new(names).expect("names for a certificate");
    params.distinguished_name.push(DnType::CommonName, common_name);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a P-256 key");
    let made = params.self_signed(&key).expect("a self-signed certificate");
    let paths = Certificate {
        certificate: folder.join(format!("{stem}.crt")),
        key: folder.join(format!("{stem}.key")),
        der: made.der().to_vec(),
    };
    fs::write(&paths.certificate, made.pem()).expect("the certificate's file");
    fs::write(&paths.key, key.serialize_pem()).expect("the key's file");
    paths
}
