//! A self-signed certificate for development: `l7lb cert` writes it, `l7lb demo` keeps it in memory.

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::PrivateKeyDer;

use super::certificates::Certificate;

/// A certificate and its key as PEM text.
pub struct Pem {
    /// The certificate; public.
    pub certificate: String,
    /// The private key; never to be logged or committed.
    pub key: String,
}

/// Creates a self-signed ECDSA P-256 certificate for `names` (DNS names or IP addresses).
///
/// # Errors
/// A message, if a name is invalid or the key cannot be created.
pub fn certificate(names: &[String]) -> Result<(Pem, Certificate), String> {
    let key = KeyPair::generate().map_err(|e| format!("cannot create a key: {e}"))?;
    let params =
        CertificateParams::new(names).map_err(|e| format!("cannot create a certificate for {names:?}: {e}"))?;
    let signed = params.self_signed(&key).map_err(|e| format!("cannot sign the certificate: {e}"))?;
    let pem = Pem { certificate: signed.pem(), key: key.serialize_pem() };
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(str::to_owned)?;
    let certificate = Certificate::new(vec![signed.der().clone()], key)?;
    Ok((pem, certificate))
}
